"""Choices that move pixels, read neighbours or mix, by the kernels: each sample takes its own branch, whoever else is
in the batch."""

import dataclasses

import pytest
import torch
from build import quick
from compare import changed, compare
from executed import FINISH, IDS, both, falls, plan_of, planned, reasons, watched

import gpuaug as ga
from gpuaug import ir
from gpuaug.exec.triton import executor, rules

FLIPS = [ga.RandomHorizontalFlip(1.0), ga.RandomVerticalFlip(1.0)]
TURN = ga.RandomRotation(90.0, fill=0.5)


def eighths(n: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Multiples of 1/8, on which points round nothing; all samples alike."""
    return (torch.arange(channels * height * width) * 5 % 8).view(1, channels, height, width).float().expand(
        n, -1, -1, -1
    ) / 8


EXACT = {
    "a choice of flips": ([ga.RandomChoice(FLIPS)], 1),
    "flips in an order with points": ([ga.RandomOrder([*FLIPS, ga.RandomInvert(0.5)])], 3),
    "points around a turn": (
        [ga.RandomApply([ga.RandomInvert(0.5), TURN, ga.RandomSolarize(0.25, 1.0), FLIPS[0]], 0.7)],
        3,
    ),
    "a choice within a choice": (
        [
            ga.RandomChoice(
                [ga.RandomApply([TURN, ga.RandomInvert(1.0)]), ga.RandomChoice([*FLIPS, ga.RandomSolarize(0.5, 1.0)])]
            )
        ],
        1,
    ),
    "crops that keep the size": (
        [ga.RandomChoice([ga.RandomCrop(34, 3, True, 0.75, m) for m in ("constant", "edge", "reflect", "symmetric")])],
        1,
    ),
    "what follows": ([ga.RandomApply([TURN]), ga.RandomErasing(1.0, value=0.25), ga.RandomInvert(0.5)], 1),
}


@pytest.mark.parametrize("name", EXACT)
def test_choices_and_orders_of_moves_are_bit_identical(name, monkeypatch):
    transforms, expected = EXACT[name]
    policy, x = ga.Policy(transforms, seed=9), eighths(7, 34, 34)
    assert not falls(policy, (34, 34))
    made = watched(monkeypatch)
    got, want = both(policy, x)
    assert made == ["images"] * expected
    assert torch.equal(got, want)
    assert len({tuple(g.flatten().tolist()) for g in got}) > 1, "vacuous: all samples alike"
    assert changed(got, x) > 0.1, "vacuous"


RAND = {
    "two operations of a crop": [ga.RandomResizedCrop((35, 34)), ga.RandAugment(2, 20)],
    "bilinear, filled": [
        ga.Resize((33, 20)),
        ga.RandAugment(2, 12, interpolation="bilinear", fill=(0.2, 0.5, 0.9)),
        ga.ColorJitter(0.4, 0.4),
    ],
    "in an order": [
        ga.Resize((20, 33)),
        ga.RandomOrder([ga.RandAugment(1, 30), ga.RandomErasing(1.0, value=0.5), ga.RandomHorizontalFlip()]),
    ],
}


RUNS = [(name, dtype) for name in RAND for dtype in (torch.uint8, torch.float32)]


# each policy on one dtype in the fast suite
@pytest.mark.parametrize(("name", "dtype"), quick(RUNS, RUNS[0], RUNS[3], RUNS[5]))
def test_randaugment_runs_without_the_reference(name, dtype, images, pictures):
    policy = ga.Policy(RAND[name], seed=3, memory_format=torch.channels_last)
    x = (
        pictures(((40, 50), (17, 9), (50, 21), (33, 64), (41, 30), (12, 60), (29, 29)))
        if dtype == torch.uint8
        else images(7, 40, 31)
    )
    assert not falls(policy, None if dtype == torch.uint8 else (40, 31))
    got, want = both(policy, x)
    compare(got, want, "resample, jump", name)
    assert got.stride() == want.stride() and changed(got[:1], want[1:2]) > 0.5, "vacuous: all samples alike"


def test_randaugment_after_a_crop_is_a_launch_for_each_operation_and_none_for_statistics(images, monkeypatch):
    made = watched(monkeypatch)
    ga.Policy([ga.RandomResizedCrop(20), ga.RandAugment(2, 9)])(images(2, 24, 24), ids=IDS[:2], backend="triton")
    assert made == ["images"] * 3


def test_composition_of_the_batch_is_invisible_to_randaugment(pictures):
    policy = ga.Policy([ga.RandomResizedCrop((33, 20)), ga.RandAugment(2, 25, interpolation="bilinear")], seed=21)
    many = pictures(((40, 50), (17, 9), (50, 21), (33, 64), (41, 30), (12, 60), (29, 29)))
    operations = set(policy.draw(IDS, size=torch.tensor([p.shape[:2] for p in many]))[1]["op"].flatten().tolist())
    assert {8, 12, 13} <= operations, f"vacuous: some statistic is in none of the operations {operations}"
    whole = policy(many, ids=IDS, backend="triton")
    for rows in ([4, 0, 6, 2, 1, 5, 3], [6, 1]):
        assert torch.equal(policy([many[n] for n in rows], ids=IDS[rows], backend="triton"), whole[rows])


@pytest.mark.parametrize("n", [0, 1])
def test_batches_of_none_and_of_one(n, images):
    policy = ga.Policy([ga.RandAugment(2, 30), ga.RandomApply([TURN])], memory_format=torch.channels_last)
    for size in ((9, 7), (1, 1), (1, 33)):
        compare(*both(policy, images(n, *size)), "resample, jump", f"{n} {size}")


def test_a_statistic_after_a_choice_of_warps_is_of_the_warped_image(images):
    # nothing in the choice has a statistic, or one branch has
    x, jitter = images(7, 33, 20), ga.ColorJitter(contrast=(0.1, 0.2))
    warps = [ga.RandomAffine(0, (0.4, 0.4), fill=0.0), ga.RandomRotation((40, 50), "bilinear", fill=1.0)]
    for more in ([], [ga.RandomApply([ga.RandomRotation((90, 90)), jitter], 1.0)]):
        policy = ga.Policy([ga.RandomChoice([*warps, *more]), jitter], seed=2)
        got, want = both(policy, x)
        compare(got, want, "resample, jump", str(more))
        assert changed(got, x) > 0.5, "vacuous"


# ---- mixes

PARTNER = torch.tensor([2, 0, 3, 1])
BOX = torch.tensor([[0, 0, 33, 20], [5, 3, 33, 34], [0, 0, 0, 0], [0, 0, 36, 35]])
SIZE = torch.tensor([[35, 36]]).expand(4, 2)
FACTOR = torch.tensor([0.3, 1.8, 0.7, 1.2])
CUT, OTHER, MIX = (
    ir.CutMix(PARTNER, BOX, SIZE),
    ir.CutMix(PARTNER.flip(0), BOX.flip(0), SIZE),
    ir.MixUp(PARTNER, FACTOR / 2),
)
BLUR = ir.GaussianBlur(torch.tensor([[0.4, 1.0], [2.0, 0.7], [1.3, 1.3], [0.1, 3.0]]), (5, 9))
TWO, THREE = torch.tensor([[0], [1], [1], [0]]), torch.tensor([[0], [1], [2], [1]])
ORDER = torch.tensor([[0, 1], [1, 0], [1, 0], [0, 1]])

MIXES = {
    "a cut or nothing": (ir.Choice(TWO, ((CUT,), ())),),
    "one of two cuts, one with a blur": (ir.Choice(THREE, ((CUT,), (OTHER, BLUR), (ir.Solarize(FACTOR / 3),))),),
    "a mix with a contrast": (
        ir.Choice(TWO, ((MIX, ir.Contrast(FACTOR)), (ir.Contrast(FACTOR / 2),))),
        ir.Autocontrast(),
    ),
    "a cut inside of a choice inside": (
        ir.Choice(TWO, ((ir.Choice(1 - TWO.roll(1, 0), ((), (CUT, ir.Solarize(FACTOR)))),), ())),
    ),
    "mixes of two kinds": (ir.Choice(TWO, ((CUT,), (MIX,))),),
    "mixes of two kinds before colours": (ir.Choice(TWO, ((CUT, ir.Solarize(FACTOR / 3)), (MIX,))),),
    "mixes of two kinds and none": (ir.Choice(ORDER, ((CUT,), (), (MIX,))),),
    "an order with a mix": (ir.Choice(ORDER, ((MIX,), (ir.Solarize(FACTOR / 3),))),),
}


@pytest.mark.parametrize("name", MIXES)
def test_a_mix_at_the_front_of_a_branch_leaves_the_choice(name, images):
    passes, x = (*MIXES[name], FINISH), images(4, 35, 36)
    assert not any(reasons(plan_of(passes, x)))
    got, want = planned(passes, x)
    compare(got, want, "jump", name)
    assert 0.05 < changed(got, x), "vacuous"


SHEAR = torch.tensor([[[1.0, 0.3, -2.0], [0.1, 1.0, 3.0], [0.0, 0.0, 1.0]]], dtype=torch.float64).expand(4, 3, 3)
TURNED = ir.Warp(SHEAR, SIZE, (35, 36), torch.tensor([[0, 0, 36, 35]]).expand(4, 4), "nearest")
LARGER = dataclasses.replace(TURNED, size=SIZE + 1, fixed=(36, 37))
FALL = {
    "a choice holds CutMix after another pass": ir.Choice(TWO, ((ir.Solarize(FACTOR), CUT), ())),
    "a choice holds Custom": ir.Choice(TWO, ((TURNED,), (ir.Custom(lambda x: 1 - x, "invert"),))),
    "the images of a choice change their size within a branch": ir.Choice(TWO, ((LARGER, TURNED), ())),
    "the images of a choice change their channels within a branch": ir.Choice(
        TWO, ((ir.Gray(1), BLUR, ir.Gray(3)), ())
    ),
}


@pytest.mark.parametrize("reason", FALL)
def test_what_has_no_normal_form_says_why_and_runs_by_the_reference(reason, images):
    x = images(4, 35, 36)
    passes = (ir.Solarize(FACTOR / 2), FALL[reason], ir.Solarize(FACTOR / 3), FINISH)
    assert reasons(plan_of(passes, x)) == ["", reason, ""]
    got, want = planned(passes, x)
    compare(got, want, "jump", reason)


# ---- prepared


def moderate() -> ga.Policy:
    """Every kind of table: a crop, an order with a statistic, RandAugment, a mix."""
    return ga.Policy(
        [
            ga.RandomResizedCrop((20, 33)),
            ga.ColorJitter(0.4, 0.4, 0.4, 0.1),
            ga.RandAugment(1, 9),
            ga.RandomErasing(1.0),
            ga.CutMix(1.0),
        ],
        seed=4,
    )


def prepared(policy: ga.Policy, ids: torch.Tensor, device: str = "cpu") -> tuple:
    """The launches of a policy for images of 24 x 40."""
    n = len(ids)
    frame = ir.Frame(torch.tensor([[24, 40]]).expand(n, 2), (24, 40), 3, torch.float32)
    keys = ga.rng.Keys(policy.seed, 0, ids, torch.zeros_like(ids))
    plan = policy._plan(keys, frame, policy._draw(keys, frame))
    return executor.prepare(moved(plan, device))


def moved(value, device: str):
    """The same with every tensor on another device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(moved(v, device) for v in value)
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(
            value, **{f.name: moved(getattr(value, f.name), device) for f in dataclasses.fields(value)}
        )
    return value


def test_tables_of_another_batch_may_be_swapped_in(images):
    policy, x = moderate(), images(4, 24, 40)
    mine, others = (prepared(policy, ids) for ids in (IDS[:4], IDS[3:]))
    assert [one.program for one in mine] == [one.program for one in others] and [one.reductions for one in mine] == [
        one.reductions for one in others
    ]
    swapped = [dataclasses.replace(one, tables=other.tables) for one, other in zip(mine, others, strict=True)]
    got, want = executor.execute(swapped, x), executor.execute(others, x)
    assert torch.equal(got, want) and changed(got, executor.execute(mine, x)) > 0.5


def test_preparing_reads_no_value_of_a_tensor():
    # tensors of the device meta have none
    real, imagined = prepared(moderate(), IDS[:4]), prepared(moderate(), IDS[:4], "meta")
    assert len(imagined) == 3 and all(isinstance(one, rules.Prepared) for one in imagined)
    for one, other in zip(real, imagined, strict=True):
        assert (one.program, one.reductions, one.size) == (other.program, other.reductions, other.size)
        assert [t.shape for t in vars(one.tables).values()] == [t.shape for t in vars(other.tables).values()]
