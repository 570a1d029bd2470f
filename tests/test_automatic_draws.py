"""What the automatic policies draw against what torchvision's own classes apply: operations, signs and magnitudes, by
torchvision's tables; and how often, by chi-square."""

from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
import torchvision.transforms.v2 as v2
from scipy import stats
from specs.auto import OPERATIONS

import gpuaug as ga

N = 20_000
# a dozen comparisons; seeds are fixed, so that a pass stays one
P = 1e-4
SIZE = (40, 50)
FEW = pytest.mark.parametrize("n", [N // 10, pytest.param(N, marks=pytest.mark.slow)])

Applied = tuple[str, float]


def asked(tool: Any, n: int) -> list[list[Applied]]:
    """The operations that torchvision's class applies to each of n images, and their magnitudes."""
    rows: list[list[Applied]] = []

    def record(image: torch.Tensor, name: str, magnitude: float, **more: object) -> torch.Tensor:
        rows[-1].append((name, round(float(magnitude), 4)))
        return image

    tool._apply_image_or_video_transform = record
    image = torch.zeros(3, *SIZE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        for _ in range(n):
            rows.append([])
            tool(image)
    return rows


@cache
def said(tool: Any, name: str, place: int, bins: int, sign: int) -> Applied:
    """An operation as torchvision's table of a class gives it."""
    table, signed = tool._AUGMENTATION_SPACE[name]
    magnitudes = table(bins, *SIZE)
    magnitude = 0.0 if magnitudes is None else float(magnitudes[place])
    return name, round(magnitude * (sign if signed and magnitudes is not None else 1), 4)


def drawn(transform: ga.Transform) -> dict[str, list[Any]]:
    params = ga.Policy([transform], seed=11).draw(torch.arange(N) + 2**34, epoch=3, size=SIZE, dtype=torch.float32)
    return {k: v.tolist() for k, v in params[0].items()}


def rand_augment(tool: Any, p: dict[str, list[Any]]) -> list[list[Applied]]:
    one = lambda op, sign: said(tool, OPERATIONS[op], tool.magnitude, tool.num_magnitude_bins, sign)  # noqa: E731
    return [[one(*pair) for pair in zip(*row, strict=True)] for row in zip(p["op"], p["sign"], strict=True)]


def trivial_augment(tool: Any, p: dict[str, list[Any]]) -> list[list[Applied]]:
    rows = zip(p["op"], p["magnitude"], p["sign"], strict=True)
    return [[said(tool, OPERATIONS[op], place, tool.num_magnitude_bins, sign)] for op, place, sign in rows]


def auto_augment(tool: Any, p: dict[str, list[Any]]) -> list[list[Applied]]:
    out = []
    for number, chances, signs in zip(p["policy_id"], p["probs"], p["signs"], strict=True):
        steps = zip(tool._policies[number], chances, signs, strict=True)
        out.append([said(tool, name, place or 0, 10, sign) for (name, most, place), u, sign in steps if u <= most])
    return out


def aug_mix(tool: Any, p: dict[str, list[Any]]) -> list[list[Applied]]:
    out = []
    for ops, places, signs, depths in zip(p["op"], p["magnitude"], p["sign"], p["depth"], strict=True):
        chains = zip(ops, places, signs, depths, strict=True)
        out.append(
            [
                said(tool, OPERATIONS[op], place, 10, sign)
                for chain in chains
                for op, place, sign in list(zip(*chain[:3], strict=True))[: chain[3]]
            ]
        )
    return out


POLICIES = {
    "RandAugment": (ga.RandAugment(2, 17), v2.RandAugment(2, 17), rand_augment),
    "TrivialAugmentWide": (ga.TrivialAugmentWide(), v2.TrivialAugmentWide(), trivial_augment),
    **{
        f"AutoAugment {name}": (ga.AutoAugment(name), v2.AutoAugment(v2.AutoAugmentPolicy(name)), auto_augment)
        for name in ("imagenet", "cifar10", "svhn")
    },
    "AugMix": (ga.AugMix(5), v2.AugMix(5), aug_mix),
    "AugMix of few": (ga.AugMix(3, 2, 2, all_ops=False), v2.AugMix(3, 2, 2, all_ops=False), aug_mix),
}


@cache
def applied(name: str) -> list[list[Applied]]:
    """The operations that our policy applies to each sample."""
    transform, tool, read = POLICIES[name]
    return read(tool, drawn(transform))


def alike(ours: list[Any], theirs: list[Any], what: str) -> None:
    """Chi-square of two lists of outcomes; rare ones are one."""
    a, b = Counter(ours), Counter(theirs)
    assert not b.keys() - a.keys() - {k for k, v in b.items() if v < 3}, f"{what}: never drawn: {b.keys() - a.keys()}"
    possible = {k for k in a if k not in b and a[k] > 20 * len(ours) / len(theirs)}
    assert not possible, f"{what}: torchvision never applies {possible}"
    kinds = sorted(a.keys() | b.keys(), key=repr)
    often = [k for k in kinds if a[k] + b[k] >= 20 and min(len(ours), len(theirs)) * (a[k] + b[k]) > 5 * len(ours)]
    table = [[c[k] for k in often] + [sum(c.values()) - sum(c[k] for k in often)] for c in (a, b)]
    table = [[v for v, w in zip(row, zip(*table, strict=True), strict=True) if sum(w)] for row in table]
    assert len(table[0]) > 2, f"{what}: vacuous"
    p = stats.chi2_contingency(table).pvalue
    assert p > P, f"{what}: p = {p:.2g} that torchvision applies the same"


@FEW
@pytest.mark.parametrize("name", POLICIES)
def test_operations_signs_and_magnitudes_are_those_that_torchvision_applies(name, n):
    tool = POLICIES[name][1]
    # torchvision's AugMix takes milliseconds an image
    ours, theirs = applied(name), asked(tool, n // 4 if n < N and "AugMix" in name else n)
    both = [[one for row in rows for one in row] for rows in (ours, theirs)]
    alike(*both, f"{name}, one by one")
    alike(*([kind for kind, _ in rows] for rows in both), f"{name}, operations alone")
    if name.startswith("AutoAugment"):
        # what belongs together: both steps of a sample
        alike(list(map(tuple, ours)), list(map(tuple, theirs)), f"{name}, both steps")
    if name == "AugMix":
        alike(list(map(len, ours)), list(map(len, theirs)), f"{name}, how many")
    else:
        assert {len(row) for row in ours} == {len(row) for row in theirs}


@pytest.mark.parametrize("name", POLICIES)
def test_a_table_that_is_wrong_in_one_place_would_be_seen(name):
    """The power of the comparison: the magnitudes of one operation doubled, or one sign turned around too rarely."""
    ours = [one for row in applied(name) for one in row]
    common = Counter(kind for kind, _ in ours).most_common(1)[0][0]
    wrong = [(kind, m * 2 + 1 if kind == common else m) for kind, m in ours]
    with pytest.raises(AssertionError):
        alike(ours, wrong, name)
    fewer = [one for k, one in enumerate(ours) if one[0] != common or k % 3]
    with pytest.raises(AssertionError, match="p ="):
        alike([kind for kind, _ in ours], [kind for kind, _ in fewer], name)


def test_coefficients_of_a_tilt_are_drawn_as_torchvision_draws_them():
    """Each corner of RandomPerspective by itself, at the full number of samples."""
    theirs = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        tool = v2.RandomPerspective(0.6, p=1.0)
        image = torch.zeros(1, *SIZE)
        endpoints = v2._geometry._get_perspective_coeffs
        try:
            v2._geometry._get_perspective_coeffs = lambda start, end: end
            theirs = [tool.make_params([image])["coefficients"] for _ in range(N // 5)]
        finally:
            v2._geometry._get_perspective_coeffs = endpoints
    ours = ga.Policy([ga.RandomPerspective(0.6, 1.0)], seed=4).draw(torch.arange(N), size=SIZE)[0]["endpoints"]
    found = torch.tensor(theirs)
    for corner in range(4):
        for axis in range(2):
            a, b = ours[:, corner, axis].numpy(), found[:, corner, axis].numpy()
            assert (a.min(), a.max()) == (b.min(), b.max())
            assert stats.ks_2samp(a, b).pvalue > P, (corner, axis)
