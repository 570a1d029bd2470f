"""Ring 2: the parameters of each transform are distributed as those of its oracle."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from build import build, case, cases, spec
from scipy import stats
from specs import SPECS

import gpuaug as ga

N = 20_000
# one hundred cases of up to twenty comparisons each; seeds are fixed, so that a pass stays one
P = 1e-4
# how often torchvision is asked where few numbers can come out: a quarter tells what differs by two per cent
FEW = pytest.mark.parametrize("n", [N // 4, pytest.param(N, marks=pytest.mark.slow)])


def columns(drawn: object, name: str = "") -> dict[str, np.ndarray]:
    """Every parameter as columns of numbers, rounded to float32: translate.0, transforms.1.apply, ..."""
    if isinstance(drawn, dict):
        return {
            k: v for key, inner in drawn.items() for k, v in columns(inner, f"{name}.{key}" if name else key).items()
        }
    if isinstance(drawn, list):
        return {k: v for i, inner in enumerate(drawn) for k, v in columns(inner, f"{name}.{i}").items()}
    a = np.asarray(drawn).astype(np.float32)
    if a.ndim == 1:
        return {name: a.astype(np.float64)}
    # corners have x and y
    a = a.reshape(len(a), -1)
    return {f"{name}.{i}": a[:, i].astype(np.float64) for i in range(a.shape[1])}


def alike(a: np.ndarray, b: np.ndarray, what: str) -> None:
    """Chi-square where values are few, Kolmogorov and Smirnov elsewhere."""
    assert np.isnan(a).mean() == np.isnan(b).mean(), (
        f"{what}: {np.isnan(a).mean():.3f} NaN instead of {np.isnan(b).mean():.3f}"
    )
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    values = np.unique(np.concatenate([a, b]))
    if len(values) < 2:
        return
    if len(values) <= 64:
        table = np.stack([(a[:, None] == values).sum(0), (b[:, None] == values).sum(0)])
        rare = table.sum(0) < 20
        table = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], 1) if rare.any() else table
        table = table[:, table.sum(0) > 0]
        p = stats.chi2_contingency(table).pvalue if table.shape[1] > 1 else 1.0
    else:
        p = stats.ks_2samp(a, b).pvalue
    assert p > P, (
        f"{what}: p = {p:.2g} that both draw alike; means {a.mean():.4g} and {b.mean():.4g}, "
        f"spreads {a.std():.4g} and {b.std():.4g}"
    )


def without_partner(drawn: Any) -> Any:
    if isinstance(drawn, dict):
        return {k: without_partner(v) for k, v in drawn.items() if k != "partner"}
    return [without_partner(v) for v in drawn] if isinstance(drawn, list) else drawn


@pytest.mark.parametrize(("name", "i"), cases(quick=1))
def test_parameters_have_the_distribution_that_their_oracle_draws(name, i):
    args = case(name, i)
    size = ((41, 53), (48, 37), (12, 33))[i % 3] if "padding" not in args else (41, 53)
    ours = ga.Policy([build(name, args)], seed=5 + i).draw(
        torch.arange(N) + 2**33, epoch=2, size=size, dtype=torch.float32
    )[0]
    # drawn among the batch: see below
    ours = without_partner(ours)
    theirs = spec(name).draws(args, N, size, np.random.default_rng(i))
    a, b = columns(ours), columns(theirs)
    assert a.keys() == b.keys(), f"{name} draws {sorted(a)} instead of {sorted(b)}"
    for k in a:
        alike(a[k], b[k], f"{name}({args}): {k}")
    # what belongs together: sums and differences of every pair, each in units of the oracle's spread
    spread = {k: v.std() for k, v in b.items() if v.std() > 0}
    for j, k in itertools.combinations(spread, 2):
        for sign in (1, -1):
            both = [v[j] / spread[j] + sign * v[k] / spread[k] for v in (a, b)]
            grid = [np.round(v, 9) for v in both]
            alike(*grid, f"{name}({args}): {j} {'+' if sign > 0 else '-'} {k}")


@FEW
@pytest.mark.parametrize(
    "size", [(9, 4), (1, 1), (60, 60), *(pytest.param(s, marks=pytest.mark.slow) for s in ((3, 200), (2, 3)))]
)
def test_crops_of_odd_shapes_are_drawn_as_torchvision_draws_them(size, n):
    """Where most tries fail, the first valid one and the clamped centre crop decide."""
    for args in (
        {"size": 8},
        {"size": 8, "scale": (0.5, 1.0), "ratio": (0.9, 1.1)},
        {"size": 8, "scale": (1.0, 1.3), "ratio": (1.0, 1.0)},
    ):
        ours = columns(ga.Policy([ga.RandomResizedCrop(**args)], seed=3).draw(torch.arange(N), size=size)[0])
        theirs = columns(SPECS["RandomResizedCrop"].draws(args, n, size, np.random.default_rng(1)))
        for k in ours:
            alike(ours[k], theirs[k], f"RandomResizedCrop({args}) of {size}: {k}")
        alike(
            ours["height"] * 1000 + ours["width"],
            theirs["height"] * 1000 + theirs["width"],
            f"RandomResizedCrop({args}) of {size}: height and width",
        )


@FEW
@pytest.mark.parametrize(
    "size", [(9, 4), (2, 3), *(pytest.param(s, marks=pytest.mark.slow) for s in ((1, 1), (30, 7)))]
)
def test_rectangles_to_erase_in_odd_shapes_are_drawn_as_torchvision_draws_them(size, n):
    failed = 0.0
    for args in ({}, {"scale": (0.5, 1.0), "ratio": (0.2, 0.4)}, {"scale": (0.9, 1.0), "ratio": (1.0, 1.0)}):
        ours = columns(ga.Policy([ga.RandomErasing(**args)], seed=3).draw(torch.arange(N), size=size)[0])
        theirs = columns(SPECS["RandomErasing"].draws(args, n, size, np.random.default_rng(1)))
        for k in ours:
            alike(ours[k], theirs[k], f"RandomErasing({args}) of {size}: {k}")
        alike(
            ours["h"] * 1000 + ours["w"], theirs["h"] * 1000 + theirs["w"], f"RandomErasing({args}) of {size}: h and w"
        )
        failed += (ours["h"] == 0).mean()
    assert failed > 0.01, "vacuous: no rectangle ever failed to fit"


def test_images_of_different_sizes_are_drawn_as_if_each_had_its_own_batch():
    size = torch.tensor([[40, 60], [33, 21], [7, 90], [1, 1]]).repeat(25, 1)
    ids = torch.arange(100)
    for t in (ga.RandomResizedCrop(8), ga.RandomErasing(1.0), ga.CutMix(num_classes=3)):
        together = ga.Policy([t], seed=1).draw(ids, size=size)[0]
        for i in range(4):
            alone = ga.Policy([t], seed=1).draw(ids[i::4], size=tuple(size[i].tolist()))[0]
            for k in alone.keys() - {"partner"}:
                assert torch.equal(together[k][i::4], alone[k]) or together[k].isnan().all(), (t, i, k)


def test_partners_are_one_cycle_through_the_batch():
    for n in (1, 2, 3, 17, 256):
        for epoch in range(5):
            partner = ga.Policy([ga.CutMix(num_classes=3)]).draw(torch.arange(n) * 31, epoch=epoch, size=(8, 8))[0][
                "partner"
            ]
            seen, at = set(), 0
            for _ in range(n):
                seen.add(at)
                at = int(partner[at])
            assert at == 0 and len(seen) == n, "not one cycle"


def test_every_other_sample_is_as_likely_to_be_the_partner():
    policy, n = ga.Policy([ga.CutMix(num_classes=3)], seed=9), 6
    counts = np.zeros((n, n))
    for epoch in range(2000):
        partner = policy.draw(torch.arange(n), epoch=epoch, size=(4, 4))[0]["partner"]
        counts[np.arange(n), partner.numpy()] += 1
    assert np.diag(counts).sum() == 0
    for row, count in enumerate(counts):
        p = stats.chisquare(np.delete(count, row)).pvalue
        assert p > P, f"sample {row}: p = {p:.2g}"


def test_a_partner_depends_on_the_members_of_the_batch_but_not_on_their_places():
    policy, ids = ga.Policy([ga.CutMix(num_classes=3)], seed=9), torch.arange(50) * 7
    partner = policy.draw(ids, size=(4, 4))[0]["partner"]
    order = torch.from_numpy(np.random.default_rng(0).permutation(50))
    moved = policy.draw(ids[order], size=(4, 4))[0]["partner"]
    assert torch.equal(ids[order][moved], ids[partner][order])
    # the same id twice: told apart by occurrence, never a fixed point
    twice = torch.tensor([4, 4, 4, 9])
    partner = policy.draw(twice, occurrence=torch.tensor([0, 1, 2, 0]), size=(4, 4))[0]["partner"]
    assert (partner != torch.arange(4)).all() and sorted(partner.tolist()) == [0, 1, 2, 3]


def test_boxes_of_cutmix_leave_the_area_that_lambda_says_when_they_are_not_clipped():
    p = ga.Policy([ga.CutMix(num_classes=3)], seed=2).draw(torch.arange(N), size=(200, 300))[0]
    x0, y0, x1, y1 = p["box"].double().unbind(1)
    free = (x0 > 0) & (y0 > 0) & (x1 < 300) & (y1 < 200)
    assert free.double().mean() > 0.1, "vacuous"
    area = ((x1 - x0) * (y1 - y0) / 60_000)[free]
    assert (area - (1 - p["lam"][free])).abs().max() < 0.02


def test_chosen_operations_and_signs_are_independent_between_the_slots_of_a_policy():
    p = ga.Policy([ga.RandAugment(2), ga.RandAugment(2)], seed=1).draw(torch.arange(N), size=(8, 8))
    op = torch.cat([p[0]["op"], p[1]["op"]], 1)
    for i, j in itertools.combinations(range(4), 2):
        counts = torch.bincount(op[:, i] * 14 + op[:, j], minlength=196).numpy()
        assert stats.chisquare(counts).pvalue > P, (i, j)


def test_an_elastic_field_is_distributed_as_torchvisions_at_every_pixel():
    """On a ramp a displaced pixel's value says by how much it was displaced."""
    from torchvision.transforms import v2

    n, height, width, args = 1500, 19, 23, {"alpha": (3.0, 2.0), "sigma": (1.2, 0.8)}
    y, x = torch.meshgrid(torch.arange(height) / 32, torch.arange(width) / 32, indexing="ij")
    ramp = torch.stack([x, y, x])[None].expand(n, 3, height, width)
    moved = 32 * (ga.Policy([ga.ElasticTransform(**args)], seed=8)(ramp, ids=torch.arange(n)) - ramp)[:, :2]
    oracle, image = v2.ElasticTransform(**args), torch.zeros(3, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = torch.cat([oracle.make_params([image])["displacement"] for _ in range(n)]).permute(0, 3, 1, 2)
    theirs = theirs * (torch.tensor([width, height]) / 2)[:, None, None]
    # near a corner, where the field is reflected, near an edge, and inside; a pixel and its neighbours
    for i, j in ((2, 2), (2, 11), (9, 20), (9, 11)):
        for axis in (0, 1):
            a, b = (v[:, axis].double() for v in (moved, theirs))
            assert b[:, i, j].std() > 0.05, "vacuous: nothing moves"
            alike(a[:, i, j].numpy(), b[:, i, j].numpy(), f"{axis} at {i}, {j}")
            for down, right in ((0, 1), (1, 0), (-1, 1)):
                both = [(v[:, i, j] - v[:, i + down, j + right]).numpy() for v in (a, b)]
                alike(*both, f"{axis} at {i}, {j} less {down}, {right}")
