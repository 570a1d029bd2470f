"""The interpreter as tests use it computes what Triton's own does, and leaves Triton as it was."""

import interpreted
import pytest
import torch
import triton
import triton.language as tl
from gpuaug_kernels import interpreted as older
from triton.runtime import interpreter

import gpuaug as ga

POLICY = ga.Policy([ga.RandomResizedCrop(9), ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.GaussianNoise()], seed=5)


def called(dtype: torch.dtype) -> torch.Tensor:
    images = torch.rand(2, 3, 11, 13, generator=torch.Generator().manual_seed(2))
    images = (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)
    return POLICY(images, ids=torch.arange(2), epoch=1, backend="triton")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_haste_changes_no_bit(dtype, monkeypatch):
    assert interpreted.REPLACED.keys() == {"_patch_lang", "_get_np_dtype"}, "vacuous: this interpreter is Triton's own"
    hasty = called(dtype)
    for name, original in interpreted.REPLACED.items():
        monkeypatch.setattr(interpreter, name, original)
    assert torch.equal(called(dtype), hasty)


def test_a_launch_leaves_tritons_language_as_it_was():
    before = tl.load, tl.tensor.__add__, tl.static_range
    called(torch.uint8)
    assert before == (tl.load, tl.tensor.__add__, tl.static_range) and tl.core.is_builtin(tl.load)


def bounds(value: int) -> list[int]:
    """What a loop to a scalar of a kernel counts, in the interpreter as it is now."""
    scope = interpreter._LangPatchScope()
    interpreter._patch_lang_tensor(tl.tensor, scope)
    try:
        return list(range(interpreter._implicit_cvt(value)))
    finally:
        scope.restore()


@pytest.mark.parametrize(("version", "mended"), [("3.6.0", True), ("3.7.1", False), ("3.10.0", False)])
def test_loops_of_the_oldest_interpreter_are_bounded_whatever_numpy_converts(version, mended, monkeypatch):
    def refused(self: tl.tensor) -> int:
        raise TypeError("only 0-dimensional arrays can be converted to Python scalars")

    monkeypatch.setattr(triton, "__version__", version)
    monkeypatch.setattr(
        interpreter, "_patch_lang_tensor", lambda tensor, scope: scope.set_attr(tensor, "__index__", refused)
    )
    older.mend.__wrapped__()
    if mended:
        assert bounds(3) == [0, 1, 2]
    else:
        with pytest.raises(TypeError, match="0-dimensional"):
            bounds(3)
