"""float64, int16 and uint16 images: moved to the last bit, converted as torchvision converts, and resampled as the
numbers that they are."""

import itertools

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
from build import build, case, cases, spec
from compare import compare
from gpuaug_kernels import launch

import gpuaug as ga
from gpuaug import dtypes, ir, rng

WIDE = (torch.float64, torch.int16, torch.uint16)
IDS = torch.tensor([3, 1, 2**40, 7])
BACKENDS = ("reference", "cpu", "triton")
MOVES = [
    ga.RandomCrop((9, 8), padding=2, fill=0.25),
    ga.RandomHorizontalFlip(),
    ga.RandomRotation(40, fill=0.5),
    ga.RandomApply([ga.RandomVerticalFlip()]),
    ga.Resize((12, 7), "nearest"),
]


def images(dtype: torch.dtype, n: int = 4, c: int = 3, h: int = 12, w: int = 11) -> torch.Tensor:
    """The whole range of a dtype; of float64 numbers that no float32 holds, and NaN and infinity."""
    random = np.random.default_rng(h)
    if dtype.is_floating_point:
        x = torch.from_numpy(random.normal(size=(n, c, h, w)) * 10.0 ** random.integers(-200, 200, (n, c, h, w)))
        x[:, 0, 2, 3], x[:, 0, 5, 5], x[:, 0, 6, 1], x[:, 0, 0, 0] = torch.nan, torch.inf, -torch.inf, -0.0
        return x.to(dtype)
    limits = torch.iinfo(dtype)
    return torch.from_numpy(random.integers(limits.min, limits.max + 1, (n, c, h, w))).to(dtype)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.int16)


def carried(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """By the reference on the numbers of the pixels, which float32 holds: where each comes from, and where fill is."""
    numbers = torch.arange(4 * 3 * 12 * 11, dtype=torch.float32).view(4, 3, 12, 11) + 10
    moved = ga.Policy([t if not hasattr(t, "fill") else type(t)(**{**vars(t), "fill": -t.fill}) for t in MOVES], seed=1)
    out = moved(numbers, ids=IDS, backend="reference")
    return (out - 10).long(), out


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", WIDE)
def test_what_is_only_moved_is_the_same_to_the_last_bit(dtype, backend, memory_format):
    x = images(dtype)
    before = x.clone()
    got = ga.Policy(MOVES, seed=1, memory_format=memory_format)(x, ids=IDS, backend=backend)
    place, seen = carried(dtype)
    inside = seen >= 0
    assert 0.3 < inside.double().mean() < 0.95 and {-0.25, -0.5} <= set(seen[~inside].tolist()), "vacuous"
    # torch indexes no uint16
    known = x if dtype.is_floating_point else x.long()
    want = torch.zeros(got.shape, dtype=known.dtype)
    want[inside] = known.flatten()[place[inside]]
    for fill in (0.25, 0.5):
        want[seen == -fill] = fill if dtype.is_floating_point else int(fill * (torch.iinfo(dtype).max + 0.999))
    want = want.to(dtype)
    assert got.dtype == dtype and torch.equal(bits(got), bits(want)) and got.is_contiguous(memory_format=memory_format)
    assert torch.equal(bits(x), bits(before))


@pytest.mark.parametrize(("name", "i"), cases(quick=1))
def test_every_transform_takes_every_dtype(name, i):
    args, of = case(name, i), spec(name)
    for dtype in WIDE:
        x = torch.rand(4, 3, 41, 41, dtype=dtype) if dtype.is_floating_point else images(dtype, h=41, w=41)
        labels = torch.eye(5)[:4] if of.mixes else None
        transforms, expected = [build(name, args)], of.dtype(args, dtype)
        if expected is None:
            with pytest.raises((TypeError, ValueError), match=r"ToDtype.*scale=True"):
                ga.Policy(transforms)(x, labels)
            transforms, expected = [ga.ToTensor(), *transforms], of.dtype(args, torch.float32)
            if expected is None:
                continue
        policy = ga.Policy(transforms, seed=3)
        a, b = (policy(x, labels, ids=IDS, epoch=1, backend=b) for b in ("reference", "cpu"))
        a, b = (a, b) if labels is None else (a[0], b[0])
        assert a.dtype == b.dtype == expected, name
        frame = ir.Frame(torch.tensor([[41, 41]]).expand(4, 2), (41, 41), 3, dtype)
        passes = policy._lower(frame, policy._draw(rng.Keys(0, 0, IDS, torch.zeros_like(IDS)), frame))
        if all(ir.is_move(p) for p in passes[:-1]):
            assert torch.equal(a.double(), b.double()), f"{name} moves pixels: no executor may change one"
        else:
            assert not (of.moves and of.kind(args) == "exact" and not of.mixes), "vacuous"


FROM = (torch.uint8, torch.int16, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize(("before", "after"), [p for p in itertools.product(FROM, FROM) if set(p) & set(WIDE)], ids=str)
def test_dtypes_are_converted_as_torchvision_converts(before, after, scale):
    x = torch.rand(4, 3, 12, 11, dtype=torch.float64).to(before) if before.is_floating_point else images(before)
    # 65535 is none of float16's numbers, and torchvision's is infinite there
    x = (
        x.abs()
        if before == torch.int16
        else (x.long() // 2).to(before)
        if (before, after) == (torch.uint16, torch.float16)
        else x
    )
    policy = ga.Policy([ga.RandomHorizontalFlip(1.0), ga.ToDtype(after, scale=scale)])
    if (
        not scale
        and before != after
        and not after.is_floating_point
        and (before.is_floating_point or dtypes.largest(before) > dtypes.largest(after))
    ):
        with pytest.raises(ValueError, match="scale=True"):
            policy(x)
        return
    # torchvision's float32 has no 65535.999, and wraps there
    exact = x.double() if before.is_floating_point and not after.is_floating_point else x
    want = v2.functional.to_dtype(exact, after, scale=scale).flip(-1)
    for backend in BACKENDS:
        got = policy(x, backend=backend)
        assert got.dtype == want.dtype == after
        torch.testing.assert_close(
            got.double(),
            want.double(),
            rtol=0 if not (scale and after.is_floating_point) else 2 * torch.finfo(after).eps,
            atol=0,
        )


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [torch.int16, torch.uint16])
def test_integers_are_resampled_as_numbers(dtype, backend):
    x = images(dtype)
    transforms = [ga.RandomResizedCrop((7, 9)), ga.RandomRotation(20, "bilinear")]
    got = ga.Policy(transforms, seed=2)(x, ids=IDS, backend=backend)
    want = ga.Policy(transforms, seed=2)(x.float(), ids=IDS, backend="reference")
    assert (got.double() - want.double()).abs().max() <= 0.52 and got.dtype == dtype
    assert dtype == torch.uint16 or (got < 0).double().mean() > 0.2, "vacuous: negative numbers stay"


@pytest.mark.parametrize("dtype", WIDE)
def test_colours_are_computed_in_the_range_of_the_dtype(dtype):
    x = torch.rand(4, 3, 12, 11)
    transforms = [ga.RandomResizedCrop((7, 9)), ga.ColorJitter(0.3, 0.3)]
    given = dtypes.converted(x, dtype, scale=True)
    got = ga.Policy(transforms, seed=2)(given, ids=IDS)
    want = ga.Policy(transforms, seed=2)(x, ids=IDS)
    compare(dtypes.converted(got, torch.float32, scale=True), want, "resample", str(dtype))
    assert got.dtype == dtype
    noisy = ga.Policy([ga.RandomErasing(1.0, value=0.5)], seed=2)(images(dtype), ids=IDS)
    if dtype == torch.int16:
        # what is not erased stays, below 0 too
        assert (noisy == images(dtype)).double().mean() > 0.5 and (noisy < 0).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, *WIDE])
def test_images_of_a_list_may_have_every_dtype(dtype, backend):
    assert launch.interpreted()
    whole = (
        images(dtype)
        if dtype in (torch.int16, torch.uint16)
        else torch.rand(4, 3, 12, 11, dtype=torch.float64).to(dtype)
    )
    many = [whole[0], whole[1, :, :9], whole[2, :, 2:, :8], whole[3]]
    for transforms in (
        [ga.RandomCrop(7, padding=1, fill=0.5), ga.RandomHorizontalFlip()],
        [ga.RandomResizedCrop((6, 7)), ga.RandomInvert()],
    ):
        policy = ga.Policy(transforms, seed=4)
        got = policy(many, ids=IDS, backend=backend)
        each = torch.stack([policy(x[None], ids=IDS[n : n + 1], backend="reference")[0] for n, x in enumerate(many)])
        assert got.dtype == dtype
        if len(transforms) == 2 and isinstance(transforms[0], ga.RandomCrop):
            assert torch.equal(got.double(), each.double())
        else:
            torch.testing.assert_close(
                got.double(),
                each.double(),
                rtol=1e-2 if dtype.itemsize == 2 and dtype.is_floating_point else 1e-4,
                atol=1.01,
            )
        if dtype != torch.bfloat16:
            arrays = [x.permute(1, 2, 0).numpy() for x in many]
            assert torch.equal(policy(arrays, ids=IDS, backend=backend).double(), got.double())


def test_foreign_byte_orders_are_read():
    x = images(torch.uint16)
    swapped = x.numpy().astype(">u2")
    policy = ga.Policy(MOVES, seed=1)
    assert torch.equal(bits(policy(swapped, ids=IDS)), bits(policy(x, ids=IDS)))
    assert policy(x.numpy()[:0].astype(">u2")).shape == (0, 3, 12, 7)


def test_describe_and_compile_know_every_dtype():
    policy = ga.Policy([ga.RandomHorizontalFlip(), ga.ToDtype(torch.float64, scale=True)])
    assert "float64" in policy.describe((12, 11), dtype=torch.uint16)
    whole = torch.compile(lambda x: policy(x, ids=IDS), fullgraph=True, backend="eager")
    x = images(torch.uint16)
    assert torch.equal(whole(x), policy(x, ids=IDS)) and whole(x).dtype == torch.float64


@pytest.mark.parametrize("dtype", WIDE)
def test_single_operations_take_every_dtype(dtype):
    x = images(dtype)
    partner, boxes = torch.tensor([1, 2, 3, 0]), torch.tensor([[0, 0, 5, 6]] * 4)
    want = x.clone()
    for n in range(4):
        want[n, :, :6, :5] = x[(n + 1) % 4, :, :6, :5]
    out = torch.empty_like(x)
    for got in (ga.functional.cutmix(x, partner, boxes), ga.functional.cutmix(x, partner, boxes, out=out)):
        assert torch.equal(bits(got), bits(want))
    assert (
        ga.functional.erase(x, boxes, 0.5).dtype == dtype
        and ga.functional.normalize(x, [0.5], [2.0]).is_floating_point()
    )
