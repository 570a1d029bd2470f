"""NaN and the infinities stay where they are: they move with their pixel, reach as far as weights do, and every
executor has them at the same places."""

import math

import pytest
import torch
from build import build, case, cases
from executed import planned
from specs import SPECS, mean

import gpuaug as ga
from gpuaug import functional, ir, rng

# numpy, which the interpreter computes with, warns of what these tests are about
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
BACKENDS = ("reference", "cpu", "triton")
VALUES = (math.nan, math.inf, -math.inf)
PLACES = ((0, 0), (20, 26), (43, 52), (5, 52), (21, 25), (22, 26))
SIZE = (44, 53)
IDS = torch.arange(6) + 7


def spoilt() -> torch.Tensor:
    """Six images, each with one NaN or infinity in one channel, each at another place."""
    x = torch.rand(6, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    for n, (y, x0) in enumerate(PLACES):
        x[n, n % 3, y, x0] = VALUES[n % 2 if n < 4 else 2]
    return x


def kinds(x: torch.Tensor) -> torch.Tensor:
    """0 for a number, 1 for none, 2 and 3 for the infinities."""
    return x.isnan().int() + 2 * (x == math.inf).int() + 3 * (x == -math.inf).int()


def passes_of(transform: ga.Transform) -> list[ir.Pass]:
    policy = ga.Policy([transform])
    frame = ir.Frame(torch.tensor([SIZE]).expand(6, 2), SIZE, 3, torch.float32)
    keys = rng.Keys(0, 0, IDS, torch.zeros_like(IDS))
    return list(ir.walk(transform.lower(policy._draw(keys, frame)[0], frame, 0)))


def every_case():
    for one in cases(quick=1):
        name, args = one.values[0], case(*one.values)
        passes = passes_of(build(name, args))
        # a statistic is of all pixels, what is blurred is computed with, and colour mixes channels
        if not any(
            isinstance(p, ir.Stencil | ir.Saturation | ir.Hue | ir.Gray) or getattr(p, "statistic", None)
            for p in passes
        ):
            yield pytest.param(name, args, id=one.id, marks=one.marks)


CASES = list(every_case())
MOVING = [c for c in CASES if all(isinstance(p, ir.Resample | ir.Warp) for p in passes_of(build(*c.values)))]


def results(transform: ga.Transform, x: torch.Tensor, backends: tuple[str, ...] = BACKENDS) -> dict[str, torch.Tensor]:
    policy = ga.Policy([transform], seed=3)
    params = policy.draw(IDS, epoch=1, size=tuple(x.shape[2:]), dtype=torch.float32)
    return {b: policy.replay(x, params, backend=b) for b in backends}


def test_the_cases_are_of_all_kinds():
    passes = {type(p) for c in CASES for p in passes_of(build(*c.values))}
    assert {ir.Resample, ir.Warp, ir.CutMix, ir.Erase, ir.Solarize, ir.Normalize, ir.SaltPepper} <= passes
    assert {c.values[0] for c in MOVING} >= {
        n for n, s in SPECS.items() if s.moves and not s.mixes and s.kind(s.arguments[0]) == "exact"
    }
    assert len(MOVING) > 30
    shown = [
        kinds(results(build(*c.values), spoilt(), BACKENDS[:1])["reference"]).any()
        for c in MOVING
        if not SPECS[c.values[0]].square
    ]
    assert sum(shown) > 0.8 * len(shown), "vacuous"


@pytest.mark.parametrize(("name", "args"), [c for c in CASES if not SPECS[c.values[0]].square])
def test_executors_have_nan_and_infinity_at_the_same_places(name, args):
    got = results(build(name, args), spoilt())
    for backend in BACKENDS[1:]:
        assert torch.equal(kinds(got[backend]), kinds(got["reference"])), backend


@pytest.mark.parametrize(("name", "args"), [c for c in MOVING if not SPECS[c.values[0]].square])
def test_nan_and_infinity_are_where_torchvision_has_them(name, args):
    x, policy = spoilt(), ga.Policy([build(name, args)], seed=3)
    params = policy.draw(IDS, epoch=1, size=SIZE, dtype=torch.float32)
    got = policy(x, ids=IDS, epoch=1, backend="reference")
    want = torch.stack(mean(name, args, tuple(x), params[0], 3, 1, IDS.tolist(), [0] * 6))
    if SPECS[name].kind(args) == "exact":
        assert torch.equal(kinds(got), kinds(want))
    else:
        # torchvision's positions are float32, and it multiplies what rounding leaves of a weight of 0: it may have more
        # of them, and none elsewhere
        lost = kinds(got) > 0
        assert not (lost & (kinds(want) == 0)).any()
        assert lost.sum() >= 0.5 * (kinds(want) > 0).sum()


@pytest.mark.parametrize("backend", BACKENDS)
def test_quarter_turns_move_nan_and_infinity(backend):
    x = spoilt()[:, :, :, 4:48]
    turns = [ga.RandomRot90(), *(ga.RandomRotation((d, d), "bilinear") for d in (0, 90, 180, -90, 270, 360))]
    turns += [
        ga.RandomRotation((90, 90), "bilinear", center=(22, 22)),
        ga.RandomAffine((90, 90), interpolation="bilinear", fill=None),
    ]
    for t in turns:
        got = results(t, x, (backend,))[backend]
        assert kinds(got).flatten(1).bool().sum(1).tolist() == kinds(x).flatten(1).bool().sum(1).tolist(), t
        assert torch.equal(kinds(got), kinds(results(t, x, BACKENDS[:1])["reference"]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_move_keeps_every_bit(backend):
    """The sign of zero, the smallest numbers and the largest."""
    x = spoilt()
    x[:, :, 18:26, 20:24] = torch.tensor([-0.0, 1e-45, -3e38, 1e-38])
    policy = ga.Policy([ga.RandomHorizontalFlip(1.0), ga.RandomVerticalFlip(1.0), ga.RandomCrop((40, 49))])
    params = policy.draw(IDS, size=SIZE, dtype=torch.float32)
    got, moved = policy(x, ids=IDS, backend=backend), x.flip(2, 3)
    for n, (top, left) in enumerate(zip(params[2]["top"].tolist(), params[2]["left"].tolist(), strict=True)):
        assert torch.equal(
            got[n].view(torch.int32), moved[n, :, top : top + 40, left : left + 49].contiguous().view(torch.int32)
        )


def test_a_partner_without_weight_is_not_multiplied():
    x = spoilt()
    partner, lam = torch.tensor([1, 2, 3, 4, 0, 5]), torch.tensor([1.0, 0.0, 1.0, 0.0, 0.5, 0.0])
    whole = torch.where((lam == 1)[:, None, None, None], x, x[partner])
    for got in (functional.mixup(x, partner, lam), *planned((ir.MixUp(partner, lam),), x)):
        assert torch.equal(kinds(got[:4]), kinds(whole[:4])) and torch.equal(
            got[:4].nan_to_num(), whole[:4].nan_to_num()
        )
        assert torch.equal(kinds(got[4]), kinds(0.5 * x[4] + 0.5 * x[0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_of_nan_and_infinity(backend):
    x = spoilt()
    got = ga.Policy([ga.RandomHorizontalFlip(1.0), ga.ToDtype(torch.uint8, scale=True)])(x, ids=IDS, backend=backend)
    for kind, level in ((1, 0), (2, 255), (3, 0)):
        assert (got[kinds(x.flip(3)) == kind] == level).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_a_pixel_that_a_perspective_has_no_position_for_is_filled(backend, interpolation):
    # a quadrangle of so few pixels is often so flat that its map divides by zero somewhere
    images, ids = torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64)
    policy = ga.Policy([ga.RandomPerspective(0.6, 1.0, interpolation, 0.5)], seed=8)
    want, got = (policy(images, ids=ids, backend=name) for name in ("reference", backend))
    assert not want.isnan().any()
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
