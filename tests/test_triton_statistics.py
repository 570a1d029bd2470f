"""Statistics by the kernels: means, ranges and histograms of each image as it stands where its own chain needs them."""

import itertools

import pytest
import torch
from build import quick
from compare import changed, compare
from executed import FINISH, IDS, both, plan_of, planned, watched
from gpuaug_kernels import launch

import gpuaug as ga
from gpuaug import ir
from gpuaug.exec import reference
from gpuaug.exec.triton import executor

FACTOR = torch.tensor([0.3, 1.8, 0.7, 1.2, 0.1, 2.5])
STAGES = {
    "mean": lambda n: ir.Contrast(FACTOR[:n]),
    "range": lambda n: ir.Autocontrast(),
    "histogram": lambda n: ir.Equalize(),
}
N = 6


def dull(x: torch.Tensor) -> torch.Tensor:
    """Images that do not fill their range, the first channel of the second constant."""
    y = x.clone()
    y[0] = y[0] // 4 + 60 if x.dtype == torch.uint8 else y[0] / 4 + 0.25
    y[1:2, 0] = 77 if x.dtype == torch.uint8 else 0.3
    return y


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("height", "width"), quick([(33, 20), (1, 1), (1, 40), (33, 1)], (33, 20), (1, 40)))
@pytest.mark.parametrize(
    ("statistic", "channels"), [("mean", 1), ("mean", 3), *itertools.product(("range", "histogram"), (1, 3, 6))]
)
def test_a_statistic_is_the_references(statistic, channels, height, width, dtype, images):
    x = dull(images(2, height, width, channels, dtype))
    turned = (
        [x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)]
        if min(height, width) > 1
        else []
    )
    for y in (x, *turned):
        got, want = planned((STAGES[statistic](2), FINISH), y)
        # an equalized image jumps, but of the same bytes it is the same
        compare(
            got, want, "exact" if statistic == "histogram" else "colour", f"{statistic} {channels} {height}x{width}"
        )
    if min(height, width) > 1:
        assert changed(got[:1], reference.unit(x[:1])) > 0.9, "vacuous"
        if statistic == "range":
            assert torch.equal(got[1, 0], reference.unit(x[1, 0])), "a constant channel is left alone"


def test_no_image_has_a_statistic():
    x = torch.zeros(0, 3, 9, 9)
    got, want = planned((*(make(0) for make in STAGES.values()), FINISH), x)
    assert got.shape == want.shape == (0, 3, 9, 9)


def test_images_of_different_sizes_have_statistics_of_their_own(pictures):
    policy = ga.Policy([ga.Resize((20, 37)), ga.RandAugment(1, 30), ga.ColorJitter(contrast=0.9)], seed=1)
    for order in (slice(None), slice(None, None, -1)):
        compare(
            *both(policy, pictures(((40, 50), (17, 9), (50, 21), (33, 64), (41, 30), (12, 60)))[order]),
            "resample, jump",
            "ragged",
        )


ORDERS = torch.tensor(list(itertools.permutations(range(3))))


def orders(x: torch.Tensor) -> ir.Sequence:
    """Every order of the three, with one before them for some samples, and one after."""
    before = ir.Choice(
        torch.tensor([[0], [1], [2], [1], [2], [0]])[: len(x)],
        ((), (ir.Contrast(FACTOR[: len(x)]),), (ir.Equalize(), ir.Autocontrast())),
    )
    stages = tuple((make(len(x)),) for make in STAGES.values())
    return (
        before,
        ir.Choice(ORDERS[: len(x)], stages),
        ir.Solarize(FACTOR[: len(x)] / 2),
        ir.Contrast(FACTOR.flip(0)[: len(x)]),
        FINISH,
    )


def test_every_sample_meets_its_statistics_in_its_own_order(images, monkeypatch):
    x = dull(images(N, 20, 33))
    made = watched(monkeypatch)
    got, want = planned(orders(x), x)
    compare(got, want, "jump", "orders")
    # two at most before the order, three in it, one after it
    assert made == ["statistic"] * 6 + ["images"]
    assert len({tuple(g.flatten().tolist()) for g in got}) == N, "vacuous"


def test_what_is_not_met_is_not_read(images, monkeypatch):
    x = dull(images(N, 20, 33))
    want = executor.run(plan_of(orders(x), x), x)
    whole = launch.statistics_table
    monkeypatch.setattr(launch, "statistics_table", lambda *a: whole(*a).fill_(float("nan")))
    assert torch.equal(executor.run(plan_of(orders(x), x), x), want)


def test_samples_that_meet_nothing_are_passed_by(images, monkeypatch):
    x, index = images(3, 20, 33), torch.tensor([[0], [1], [2]])
    found = []
    whole = launch._launch
    monkeypatch.setattr(
        launch, "_launch", lambda *a: (whole(*a), found.append(a[5].clone()) if a[7:] and a[7] else None)
    )
    monkeypatch.setattr(launch, "images", lambda *a: x)
    executor.run(plan_of((ir.Choice(index, ((), (ir.Autocontrast(),), (ir.Equalize(),))), FINISH), x), x)
    (cells,) = found
    assert not cells[0].any() and cells[1, :6].all() and not cells[1, 6:].any()
    assert cells[2].sum() == 3 * 20 * 33, "each value is in one bin"


@pytest.mark.parametrize("rows", [[5, 0, 3, 1, 4, 2], [4, 1]])
def test_the_batch_is_invisible_in_statistics(rows, images):
    x = dull(images(N, 33, 20))
    whole = executor.run(plan_of(orders(x), x), x)

    def part(value):
        return value[rows] if isinstance(value, torch.Tensor) else value

    passes = []
    for p in orders(x):
        if isinstance(p, ir.Choice):
            branches = tuple(
                tuple(type(q)(**{k: part(v) for k, v in vars(q).items()}) for q in branch) for branch in p.branches
            )
            passes.append(ir.Choice(p.index[rows], branches))
        else:
            passes.append(type(p)(**{k: part(v) for k, v in vars(p).items()}))
    for y in (x[rows], x[rows].contiguous(memory_format=torch.channels_last)):
        assert torch.equal(executor.run(plan_of(tuple(passes), y), y), whole[rows])


@pytest.mark.parametrize("statistic", STAGES)
def test_statistics_before_and_after_a_mix(statistic, images):
    partner, box = (
        torch.tensor([2, 0, 3, 1]),
        torch.tensor([[0, 0, 33, 20], [5, 3, 33, 35], [0, 0, 0, 0], [0, 0, 20, 35]]),
    )
    size = torch.tensor([[35, 20]]).expand(4, 2)
    maybe = ir.Choice(torch.tensor([[0], [1], [1], [0]]), ((), (STAGES[statistic](4),)))
    x = dull(images(4, 35, 20))
    for mix in (ir.CutMix(partner, box, size), ir.MixUp(partner, FACTOR[:4] / 3)):
        got, want = planned((maybe, mix, STAGES[statistic](4), maybe, FINISH), x)
        compare(got, want, "jump", f"{statistic} {type(mix).__name__}")
        assert changed(got, planned((maybe, mix, FINISH), x)[0]) > 0.2, "vacuous"


def test_gray_that_comes_of_one_channel_has_statistics(images):
    for channels, stages in (
        (1, (ir.Autocontrast(), ir.Gray(3), ir.Equalize())),
        (3, (ir.Equalize(), ir.Gray(1), ir.Autocontrast(), ir.Contrast(FACTOR[:3]))),
    ):
        x = dull(images(3, 33, 20, channels))
        compare(*planned((*stages, FINISH), x), "jump", str(channels))


def test_numbers_are_those_of_the_samples_ids(images):
    policy, x = ga.Policy([ga.RandAugment(2, 30)], seed=8), images(7, 20, 20)
    assert changed(*(policy(x, ids=ids, backend="triton") for ids in (IDS, IDS + 1))) > 0.2
