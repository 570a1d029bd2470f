"""The kernels of boxes and keypoints against the definition in torch, to the bit; and calls with targets that are made
again by their launches alone."""

import importlib
from typing import Any

import pytest
import torch
from build import build, case, cases, quick, spec
from gpuaug_kernels import shapes as kernels
from gpuaug_kernels.calls import BoundCall
from torch import Tensor

import gpuaug as ga
import gpuaug.trace.recipe
from gpuaug import ir
from gpuaug.follow import prepared, read, shapes

N = 4
TARGETS = ("boxes", "box_valid", "keypoints", "visible", "masks")
MOVES = [
    p
    for p in cases()
    if spec(p.values[0]).moves and not spec(p.values[0]).mixes and p.values[0] not in ("AugMix", "ElasticTransform")
]


@pytest.fixture
def drawn_by_kernels(monkeypatch):
    """Draws by the kernel that draws on a card, so that a call on a host is launches alone too."""
    found = importlib.import_module

    def on_a_card(name: str) -> Any:
        return found("gpuaug.trace.device" if name == "gpuaug.trace.host" else name)

    monkeypatch.setattr(gpuaug.trace.recipe, "import_module", on_a_card)


def made(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes(seed: int, k: int = 3, n: int = N) -> Tensor:
    """[n, k, 4] XYXY, some of them beyond the image."""
    near = torch.rand(n, k, 2, dtype=torch.float64, generator=made(seed)) * 40 - 8
    return torch.cat([near, near + torch.rand(n, k, 2, dtype=torch.float64, generator=made(seed + 1)) * 30], 2)


def targets(seed: int, size: tuple[int, int], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    points = torch.rand(N, 2, 3, 2, dtype=torch.float64, generator=made(seed + 2)) * 40 - 4
    return {
        "boxes": boxes(seed).to(dtype),
        "box_format": "XYXY",
        "keypoints": points.to(dtype),
        "masks": torch.randint(0, 2**40, (N, *size), generator=made(seed)),
    }


def same(got: ga.Batch, want: ga.Batch) -> None:
    for name in TARGETS:
        a, b = getattr(got, name), getattr(want, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert (a.dtype, a.shape) == (b.dtype, b.shape), name
            assert torch.equal(a.nan_to_num(nan=-1) if a.is_floating_point() else a, b.nan_to_num(nan=-1) if
                               b.is_floating_point() else b), name  # fmt: skip


@pytest.mark.parametrize(
    ("name", "i"), quick([p.values for p in MOVES], *(p.values for p in MOVES[3::20]), ("RandomPerspective", 1))
)
def test_kernels_move_targets_as_the_definition_does(name, i):
    size = spec(name).image
    images = torch.rand(N, 3, *size, generator=made(0))
    policy = ga.Policy([build(name, case(name, i))], seed=6)
    batch = ga.Batch(images, ids=torch.arange(N), epoch=2, **targets(i, size))
    got = policy(batch, backend="triton")
    want = policy(batch, backend="reference")
    same(got, want)
    # the recipe of the second and third call gives what the first one drew step by step
    for _ in range(2):
        same(policy(batch, backend="triton"), got)
    assert not [r for r in policy._recipes._known.values() if isinstance(r, str)]


def steps() -> tuple[ir.Sequence, ir.Frame]:
    """Passes with a projection that has a horizon in the image, and choices in choices."""
    policy = ga.Policy(
        [
            ga.RandomPerspective(0.9, p=1.0),
            ga.RandomChoice([ga.RandomRotation(40), ga.RandomApply([ga.RandomCrop(20), ga.Resize((26, 35))], 0.5)]),
        ],
        seed=3,
    )
    frame = ir.Frame(torch.zeros((N, 2), dtype=torch.int64), None, 3, torch.uint8).resized((26, 35))
    ids = torch.arange(N)
    keys = policy._keys(ids, 0, None, N, ids.device)[0]
    passes = gpuaug.targets.geometric(policy._lower(frame, policy._draw(keys, frame)))
    assert len(passes) > 1, "vacuous"
    return passes, frame


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int16, torch.uint8], ids=str)
@pytest.mark.parametrize("kind", read.FORMATS)
def test_boxes_of_any_format_and_dtype_go_where_the_definition_puts_them(kind, dtype):
    passes, frame = steps()
    given = read.from_xyxy(boxes(5).clamp(min=0), kind).to(dtype)
    valid = torch.rand(N, 3, generator=made(8)) > 0.3
    whole = read.Boxed(given, valid, kind)
    found = gpuaug.follow.Targets(None, whole, None, 4.0, 0.1)
    want = found.follow(passes, frame, None, "reference")
    got = kernels.moved_boxes(given, valid, shapes.tables(passes, frame.size), kind, 4.0, 0.1)
    assert got[0].dtype == want["boxes"].dtype and torch.equal(got[0], want["boxes"])
    assert torch.equal(got[1], want["box_valid"])
    assert 0 < int(got[1].sum()) < int(valid.sum()), "vacuous: all or none are kept"


# what NumPy says where Triton's interpreter computes with them
@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_numbers_that_are_no_place_go_the_same_way(odd):
    passes, frame = steps()
    points, rows = torch.full((N, 2, 2), odd, dtype=torch.float64), boxes(2)
    points[:, 0, 1], rows[:, 0, 2] = 3.0, odd
    found = gpuaug.follow.Targets(None, read.Boxed(rows, None, "XYXY"), read.Pointed(points, None), 0.0, 0.0)
    want = found.follow(passes, frame, None, "reference")
    tables = shapes.tables(passes, frame.size)
    made_boxes, kept = kernels.moved_boxes(rows, None, tables, "XYXY", 0.0, 0.0)
    moved, shown = kernels.moved_points(points, None, tables)
    assert torch.equal(kept, want["box_valid"]) and torch.equal(shown, want["visible"])
    for a, b in ((made_boxes, want["boxes"]), (moved, want["keypoints"])):
        assert torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def test_boxes_lie_anywhere_and_a_program_ends_amid_them():
    passes, frame = steps()
    many = boxes(3, 2 * kernels.BLOCK // N + 1)
    tables = shapes.tables(passes, frame.size)
    want = kernels.moved_boxes(many, None, tables, "XYXY", 0.0, 0.0)
    apart = torch.cat([many, many], 2)[:, :, 4:]
    assert not apart.is_contiguous()
    for a, b in zip(kernels.moved_boxes(apart, None, tables, "XYXY", 0.0, 0.0), want, strict=True):
        assert torch.equal(a, b)
    alone = kernels.moved_boxes(many[:, 7:8], None, tables, "XYXY", 0.0, 0.0)
    assert torch.equal(alone[0], want[0][:, 7:8])


def test_tables_of_other_batches_are_refused():
    passes, frame = steps()
    maps, sizes = shapes.tables(passes, frame.size)
    for wrong in ((maps[:2], sizes), (maps.float(), sizes), (maps, sizes[:, :-1]), (None, sizes)):
        with pytest.raises(ValueError, match="maps and sizes of 4 samples must be contiguous"):
            kernels.moved_boxes(boxes(1), None, wrong, "XYXY", 0.0, 0.0)


CROP = (ga.RandomResizedCrop((9, 8)), ga.RandomHorizontalFlip(), ga.RandomRotation(20))
MOVED = (ga.RandomCrop((9, 8)), ga.RandomHorizontalFlip())


def bound(policy: ga.Policy) -> int:
    return sum(isinstance(v, BoundCall) for v in policy._recipes.calls.values())


def pictures(seed: int, size: tuple[int, int] = (26, 35)) -> Tensor:
    return torch.randint(0, 256, (N, 3, *size), dtype=torch.uint8, generator=made(seed))


def kinds(turn: int) -> dict[str, dict[str, Any]]:
    every = targets(turn, (26, 35))
    listed = [b[: i + 1] for i, b in enumerate(boxes(turn).float())]
    return {
        "boxes": {k: every[k] for k in ("boxes", "box_format")},
        "marked": {k: every[k] for k in ("boxes", "box_format")} | {"box_valid": torch.rand(N, 3) > 0.5},
        "smaller": {k: every[k] for k in ("boxes", "box_format")} | {"min_area": 30.0},
        "fewer boxes": {"boxes": boxes(turn, 2).float(), "box_format": "XYXY"},
        "other format": {"boxes": boxes(turn).clamp(0).float(), "box_format": "XYWH"},
        "a list": {"boxes": listed, "box_format": "XYXY"},
        "keypoints": {"keypoints": every["keypoints"], "visible": torch.randint(0, 3, (N, 2, 3))},
        "class numbers": {"masks": every["masks"]},
        "bytes": {"masks": every["masks"].to(torch.uint8)},
        "truths": {"masks": every["masks"][:, None] > 2**39},
        "painted": {"masks": every["masks"].to(torch.int32), "mask_fill": 255},
        "floats": {"masks": every["masks"].float(), "mask_interpolation": "bilinear"},
        "all": every,
    }


# which take the interpreter long
@pytest.mark.parametrize(
    "names",
    [("marked", "a list", "smaller", "class numbers"), pytest.param(tuple(kinds(0)), marks=pytest.mark.slow, id="all")],
)
def test_calls_with_targets_of_many_kinds_take_turns_and_are_bound(drawn_by_kernels, names):
    transforms = MOVED if len(names) < 5 else CROP
    policy = ga.Policy(transforms, seed=2**40 + 1)
    turns = 4
    for turn in range(turns):
        for name in names:
            given = kinds(turn)[name]
            batch = ga.Batch(pictures(turn), ids=torch.arange(N) + turn, epoch=turn, **given)
            got = policy(batch, backend="triton")
            if turn == turns - 1:
                want = ga.Policy(transforms, seed=2**40 + 1)(batch, backend="triton")
                same(got, want)
                assert torch.equal(got.images, want.images)
    # padded boxes and marks of a list are of the kind of those that came padded and marked
    assert bound(policy) == len(names) - 1


def test_ragged_images_with_masks_and_boxes_are_bound(drawn_by_kernels):
    policy = ga.Policy(MOVED, seed=5)
    for turn in range(4):
        images = [torch.randint(0, 256, (30 + k + turn, 40 - k, 3), dtype=torch.uint8) for k in range(N)]
        masks = [i[..., 0].long() * 2**33 for i in images]
        batch = ga.Batch(images, ids=torch.arange(N), boxes=boxes(turn), box_format="XYXY", masks=masks)
        got = policy(batch, backend="triton")
    assert bound(policy) == 1
    want = policy(batch, backend="reference")
    same(got, want)


def test_masks_that_nothing_moves_come_out_as_they_are(drawn_by_kernels):
    policy = ga.Policy([ga.ColorJitter(0.3)])
    masks = targets(0, (26, 35))["masks"]
    for _ in range(4):
        out = policy(ga.Batch(pictures(1), ids=torch.arange(N), masks=masks, boxes=boxes(0), box_format="XYXY"),
                     backend="triton")  # fmt: skip
        assert out.masks.data_ptr() == masks.data_ptr() and out.boxes.shape == (N, 3, 4)
    assert bound(policy) == 1


def test_a_call_without_kernels_for_its_targets_follows_step_by_step():
    given = targets(0, (26, 35))
    none = {"masks": given["masks"][:, None][:, :0]}
    assert prepared.following(gpuaug.follow.targets(ga.Batch(pictures(0), **none), pictures(0)), "triton") is None
    out = ga.Policy(CROP)(ga.Batch(pictures(0), ids=torch.arange(N), **none), backend="triton")
    assert out.masks.shape == (N, 0, 9, 8)
