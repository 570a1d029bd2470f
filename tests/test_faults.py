"""The tests catch what they are for: faults planted one by one in a copy of the package, each of which must turn a ring
red."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import gpuaug as ga

ROOT = Path(ga.__file__).parent.parent


@dataclass(frozen=True)
class Fault:
    """A line of the package, what it becomes, and the tests that must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str
    only: str


FAULTS = [
    Fault(
        "a product of matrices the wrong way round",
        "fuse.py",
        "a, inverse=ir.product(a.inverse, b.inverse), live=live,",
        "a, inverse=ir.product(b.inverse, a.inverse), live=live,",
        "test_fusing.py",
        "must_fold or random_chains_of_moves",
    ),
    Fault(
        "a flip off by one",
        "transforms/geometry.py",
        "apply * (frame.size[:, 1 - axis] - 1)",
        "apply * frame.size[:, 1 - axis]",
        "test_lowering.py",
        "RandomHorizontalFlip",
    ),
    Fault(
        "an epoch that is ignored",
        "rng/draw.py",
        "((self.ids >> 32) << EPOCH_BITS) | self.epoch\n",
        "((self.ids >> 32) << EPOCH_BITS)\n",
        "test_rng.py",
        "key or counter",
    ),
    Fault(
        "an occurrence that is ignored",
        "rng/draw.py",
        "occurrence, c2, c3 = (x.to(torch.uint32) for x in (c0, c1, self.occurrence, c2, c3))",
        "occurrence, c2, c3 = (x.to(torch.uint32) for x in (c0, c1, self.occurrence * 0, c2, c3))",
        "test_rng.py",
        "key or counter",
    ),
    Fault(
        "an id cut to 32 bits",
        "rng/draw.py",
        "((self.ids >> 32) << EPOCH_BITS) | self.epoch\n",
        "self.epoch + 0 * self.ids\n",
        "test_rng.py",
        "key or counter",
    ),
    Fault(
        "randomness of the place in the batch",
        "rng/draw.py",
        "return self.ids & _M,",
        "return torch.arange(len(self.ids)),",
        "test_executing.py",
        "invisible and ColorJitter and reference",
    ),
    Fault(
        "a hue that turns one way only",
        "transforms/colour.py",
        "pair = (centre - v, centre + v) if name",
        "pair = (centre, centre + v) if name",
        "test_sampling.py",
        "ColorJitter",
    ),
    Fault(
        "height and width of an erased rectangle exchanged",
        "transforms/stamps.py",
        "h, w = (smooth(",
        "w, h = (smooth(",
        "test_sampling.py",
        "RandomErasing or rectangles",
    ),
    Fault(
        "an order that is ignored",
        "transforms/colour.py",
        'ir.Choice(params["fn_idx"], branches)',
        'ir.Choice(params["fn_idx"].sort(1).values, branches)',
        "test_lowering.py",
        "ColorJitter or order",
    ),
    Fault(
        "a contrast about the mean before brightness",
        "exec/reference.py",
        "means = [g.double().mean().float() for g in gray(images)]",
        "means = globals().setdefault('_first', {}).setdefault(id(p), [g.double().mean().float() for g in gray(images)])",
        "test_lowering.py",
        "order_of_colorjitter",
    ),
    Fault(
        "the contrast of another sample",
        "exec/reference.py",
        "means = [g.double().mean().float() for g in gray(images)]",
        "means = [gray(images).double().mean().float()] * len(images)",
        "test_lowering.py",
        "ColorJitter",
    ),
    Fault(
        "a normalisation without its std",
        "exec/reference.py",
        "normalize(images, mean, std)",
        "normalize(images, mean, torch.ones_like(std))",
        "test_lowering.py",
        "Normalize",
    ),
    Fault(
        "a window that is not clipped to the crop",
        "transforms/geometry.py",
        'window, source, extend = box, frame.whole(), "none"',
        'window, source, extend = frame.whole(), frame.whole(), "none"',
        "test_lowering.py",
        "RandomResizedCrop or taps",
    ),
    Fault(
        "a shift of half a pixel",
        "transforms/geometry.py",
        "get(interpolation, (0.5, -0.5))",
        "get(interpolation, (0.5, 0.0))",
        "test_lowering.py",
        "Resize",
    ),
    Fault(
        "an antialiasing that is left out",
        "transforms/geometry.py",
        ".clamp(min=1.0) if antialias else",
        ".clamp(min=1.0, max=1.0) if antialias else",
        "test_lowering.py",
        "Resize",
    ),
    Fault(
        "a fill without its mask",
        "exec/reference.py",
        "(value - colour) * share + colour",
        "value + colour * (1 - share)",
        "test_lowering.py",
        "RandomAffine",
    ),
    Fault(
        "an angle that turns the other way",
        "transforms/warps.py",
        'angle = -torch.deg2rad(params["angle"].double())',
        'angle = torch.deg2rad(params["angle"].double())',
        "test_lowering.py",
        "RandomRotation",
    ),
    Fault(
        "salt for pepper",
        "exec/reference.py",
        "salt = (u < per_sample(p.salt)).float()",
        "salt = (u >= per_sample(p.salt)).float()",
        "test_lowering.py",
        "SaltAndPepper or salt",
    ),
    Fault("a partner two places on", "rng/draw.py", "order.roll(-1)", "order.roll(-2)", "test_sampling.py", "partner"),
    Fault(
        "a trace that computes float32 in float64",
        "trace/aten.py",
        "numbers if to in (torch.float64, torch.int64) else cast(trace, numbers, to)",
        "numbers",
        "test_recipes_transforms.py",
        "test_",
    ),
    Fault(
        "a comparison of the interpreter that is strict",
        "trace/interpreter.py",
        "d[x, j] <= d[y, j]",
        "d[x, j] < d[y, j]",
        "test_trace.py",
        "every_instruction",
    ),
    Fault(
        "words of the interpreter without the occurrence",
        "trace/interpreter.py",
        "uint32(c1 | counter[0, j])",
        "uint32(c1)",
        "test_trace.py",
        "recipe_gives",
    ),
    Fault(
        "a recipe that draws for another seed",
        "trace/host.py",
        "np.array([keys.seed & 0xFFFFFFFF, keys.seed >> 32], np.uint32)",
        "np.array([4, 0], np.uint32)",
        "test_trace.py",
        "batch_of_any_size",
    ),
    Fault(
        "the weight of a label for that of its partner",
        "mixing.py",
        "return 1 - (taken if",
        "return (taken if",
        "test_policy.py",
        "label",
    ),
    Fault(
        "rounding where uint8 takes the floor",
        "exec/reference.py",
        "(images.clamp(0, 1) * 255.999).floor()",
        "(images.clamp(0, 1) * 255).round()",
        "test_executing.py",
        "todtype and reference",
    ),
    Fault(
        "slots that a container's children share with its neighbour",
        "transforms/base.py",
        "first += span(t)",
        "first += 1",
        "test_lowering.py",
        "RandomApply or RandomOrder or RandomChoice",
    ),
    Fault(
        "an output that is the input's memory",
        "exec/reference.py",
        "images.to(torch.float32, copy=True)",
        "images.float()",
        "test_executing.py",
        "writing_to_the_output and reference",
    ),
    Fault(
        "samples that are numbered alike",
        "numbering.py",
        "                counter[()] = before + n\n",
        "                pass\n",
        "test_numbering.py",
        "numbered or saved",
    ),
]


EACH = pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its tests in a folder of their own, with the machine code that Numba has kept."""
    folder = tmp_path_factory.mktemp("faulty")
    for name in ("gpuaug", "kernels", "tests"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(folder), str(folder / "kernels")])
    # no byte code, so that a file changed twice in a second is read twice
    env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True)


def suite(folder: Path, files: list[str], only: str) -> subprocess.CompletedProcess:
    return run(folder, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *[f"tests/{f}" for f in files], "-k", only)


@pytest.mark.slow
def test_the_copy_without_a_fault_passes(copy):
    where = run(copy, "-c", "import gpuaug; print(gpuaug.__file__)").stdout.strip()
    assert where.startswith(str(copy)), f"the copy is not what is tested: {where}"
    for file in sorted({f.tests for f in FAULTS}):
        only = " or ".join(f"({f.only})" for f in FAULTS if f.tests == file)
        result = suite(copy, [file], only)
        assert result.returncode == 0, f"{file}: {result.stdout[-2000:]}{result.stderr[-500:]}"


@pytest.mark.slow
@EACH
def test_a_planted_fault_is_caught(fault, copy):
    path = copy / "gpuaug" / fault.file
    text = path.read_text()
    try:
        path.write_text(text.replace(fault.old, fault.new))
        result = suite(copy, [fault.tests], fault.only)
    finally:
        path.write_text(text)
    assert result.returncode == 1, (
        f"nobody noticed {fault.name}, or nothing ran: {result.returncode} {result.stdout[-1500:]}{result.stderr[-500:]}"
    )
    assert " failed" in result.stdout


@EACH
def test_the_text_of_a_planted_fault_stands_once(fault):
    text = (ROOT / "gpuaug" / fault.file).read_text()
    assert text.count(fault.old) == 1, (
        f"{fault.file} holds {fault.old!r} {text.count(fault.old)} times, not once: mend the fault"
    )
    assert fault.new != fault.old and (ROOT / "tests" / fault.tests).exists()


def test_there_are_enough_faults():
    assert len(FAULTS) >= 15 and len({f.name for f in FAULTS}) == len(FAULTS)
