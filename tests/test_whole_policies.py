"""Rings 3 to 5 at once: whole policies against torchvision, one transform after the other on the parameters that were
drawn."""

import random

import pytest
import torch
import torchvision.transforms.v2.functional as F
from build import build
from compare import changed, compare, unit
from specs import SPECS, mean
from specs.base import RGB
from specs.choice import spanned

import gpuaug as ga

BACKENDS = ("reference", "cpu")
SEED, EPOCH, N = 77, 5, 6
IDS, AGAIN = torch.arange(N) * 1001 + 2**35, torch.arange(N) % 3

IMAGENET = [
    ("RandomResizedCrop", {"size": 28}),
    ("RandomHorizontalFlip", {}),
    ("ColorJitter", {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}),
    ("ToTensor", {}),
    ("Normalize", {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}),
    ("RandomErasing", {"p": 0.5, "value": "random"}),
]
STRONG = [
    ("RandomVerticalFlip", {}),
    ("RandomResizedCrop", {"size": (25, 31), "scale": (0.3, 1.0)}),
    ("RandomApply", {"transforms": (("GaussianNoise", {"sigma": 0.05}), ("RandomGrayscale", {"p": 0.5})), "p": 0.7}),
    ("RandomAffine", {"degrees": 20.0, "interpolation": "bilinear", "fill": RGB}),
    ("RandomOrder", {"transforms": (("SaltAndPepper", {"amount": 0.2}), ("RandomInvert", {}))}),
    ("CutMix", {"alpha": 1.0}),
    ("Normalize", {"mean": (0.5,), "std": (0.25,)}),
    ("RandomErasing", {"p": 0.9, "value": 0.3}),
]
CIFAR = [
    ("RandomCrop", {"size": 32, "padding": 4, "pad_if_needed": True}),
    ("RandomHorizontalFlip", {}),
    ("RandAugment", {"num_ops": 2, "magnitude": 9}),
]
EVALUATION = [
    ("Resize", {"size": 33}),
    ("CenterCrop", {"size": (30, 29)}),
    ("ToTensor", {}),
    ("Normalize", {"mean": RGB, "std": (0.25, 0.5, 0.2)}),
]
WHOLE = {"imagenet": IMAGENET, "strong": STRONG, "cifar": CIFAR, "evaluation": EVALUATION}


def both(chain: list, images, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours, and torchvision's one after the other."""
    policy = ga.Policy([build(*t) for t in chain], SEED)
    dense = isinstance(images, torch.Tensor)
    size = tuple(images.shape[2:]) if dense else torch.tensor([i.shape[:2] for i in images])
    dtype = images.dtype if dense else torch.uint8
    params = policy.draw(IDS, epoch=EPOCH, occurrence=AGAIN, size=size, dtype=dtype)
    x = [unit(i if dense else torch.from_numpy(i).permute(2, 0, 1)).float() for i in images]
    slot = 0
    for (name, args), drawn in zip(chain, params, strict=True):
        x = mean(name, args, tuple(x), drawn, SEED, EPOCH, IDS.tolist(), AGAIN.tolist(), slot)
        slot += spanned(args)
    # the call, not a replay: what it draws must be what it said it would
    got = policy(images, torch.eye(N), ids=IDS, epoch=EPOCH, occurrence=AGAIN, backend=backend)[0]
    return got, torch.stack(x)


def agree(chain: list, images, backend: str, share: float = 0.0) -> torch.Tensor:
    got, want = both(chain, images, backend)
    scale = max(SPECS[name].gain(args) for name, args in chain)
    if share:
        assert got.shape == want.shape and not got.isnan().any()
        wrong = ((got - want).abs() > 1e-4 * scale).float().mean().item()
        assert wrong <= share, f"{wrong:.3%} of the values differ by more than 1e-4: {chain}"
    else:
        compare(got, want, "resample", str(chain), scale)
    return got


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_policy_is_torchvisions_one_after_the_other(name, backend, images):
    # RandAugment jumps, and what jumped is moved on
    share = 0.01 if name == "cifar" else 0.0
    got = agree(WHOLE[name], images(N, 45, 37), backend, share)
    assert got.std() > 0.05 and changed(got[:1], got[1:2]) > 0.3, "vacuous"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["imagenet", "strong", "evaluation"])
def test_a_whole_policy_on_images_of_different_sizes_is_torchvisions(name, backend, pictures):
    chain = [t if t[0] != "ToTensor" else ("ToDtype", {"dtype": torch.float32, "scale": True}) for t in WHOLE[name]]
    if name == "strong":
        # floats before the end, so that nothing is rounded to uint8
        chain = [*chain[:6], ("ToDtype", {"dtype": torch.float32, "scale": True}), *chain[6:]]
    chain = [(n, {**a, "fill": 0.2} if n == "RandomAffine" else a) for n, a in chain]
    agree(chain, pictures([(31, 22), (18, 40), (60, 33), (25, 25), (37, 52), (40, 39)]), backend)


# name -> the sets of arguments with which it may stand anywhere
# floats that a cubic or Lanczos kernel makes leave [0, 1], beyond which torchvision's colours are not defined
OVERSHOOTS = ("bicubic", "lanczos")
ANYWHERE = {
    name: [a for a in s.arguments if s.anywhere(a) and a.get("interpolation") not in OVERSHOOTS]
    for name, s in sorted(SPECS.items())
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(40))
def test_random_policies_are_torchvisions_one_after_the_other(seed, backend, images):
    r = random.Random(seed)
    chain = []
    for name in r.choices([name for name, sets in ANYWHERE.items() if sets], k=r.randrange(2, 7)):
        chain.append((name, r.choice(ANYWHERE[name])))
    agree(chain, images(N, r.randrange(20, 50), r.randrange(20, 50)), backend, share=0.01)


def test_uint8_stays_within_levels_of_torchvisions_own_uint8(images):
    """Documented: torchvision rounds after every operation, we at the end."""
    x = images(N, 45, 37, dtype=torch.uint8)
    policy = ga.Policy([ga.RandomResizedCrop(28), ga.RandomHorizontalFlip(), ga.ColorJitter(0.3, 0.3, 0.3)], SEED)
    p = policy.draw(IDS, size=(45, 37))
    got = policy.replay(x, p)
    for n in range(N):
        want = F.resized_crop(
            x[n], *(int(p[0][k][n]) for k in ("top", "left", "height", "width")), [28, 28], antialias=True
        )
        want = F.horizontal_flip(want) if p[1]["apply"][n] else want
        for fn in p[2]["fn_idx"][n].tolist()[:4]:
            name = ("brightness", "contrast", "saturation", "hue")[fn]
            want = want if name == "hue" else getattr(F, f"adjust_{name}")(want, p[2][f"{name}_factor"][n].item())
        difference = (got[n].int() - want.int()).abs()
        # one level or two per operation, of which there are four: torchvision cuts where it converts
        assert difference.max() <= 4 and difference.float().mean() < 2.0, n


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "after",
    [
        [ga.Resize((9, 14))],
        [ga.RandomResizedCrop(9)],
        [ga.CenterCrop(25)],
        [ga.Resize(12, "nearest"), ga.RandomCrop(12)],
        [ga.Pad(2, 0.5), ga.Resize((9, 14))],
    ],
    ids=str,
)
def test_a_quarter_turn_may_leave_sizes_that_differ_if_a_later_step_fixes_them(after, backend, images):
    x = images(N, 20, 31)
    p = ga.Policy([ga.RandomRot90(), *after], SEED)
    got, k = p(x, ids=IDS, backend=backend), p.draw(IDS, size=(20, 31))[0]["k"].tolist()
    assert {i % 2 for i in k} == {0, 1}, "vacuous"
    # the same slots, without the turn
    rest = ga.Policy([ga.ToImage(), *after], SEED)
    want = [rest(torch.rot90(x[n : n + 1], k[n], (-2, -1)), ids=IDS[n : n + 1], backend="reference") for n in range(N)]
    compare(got, torch.cat(want), "fused", str(after))


@pytest.mark.parametrize("backend", BACKENDS)
def test_settings_of_the_process_change_nothing(backend, images):
    x, policy = images(N, 30, 26), ga.Policy([build(*t) for t in STRONG], SEED)
    want = policy(x, torch.eye(N), ids=IDS, backend=backend)[0]
    try:
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        got = ga.Policy(policy.transforms, SEED)(x, torch.eye(N), ids=IDS, backend=backend)[0]
    finally:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)
    compare(got, want, "exact", "float64 by default")


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_sample(backend, images):
    x, policy = images(N, 30, 26), ga.Policy([build(*t) for t in CIFAR], SEED)
    want = policy(x, ids=IDS, backend=backend)
    x[0, 0, 5, 5], x[1] = float("nan"), float("inf")
    compare(policy(x, ids=IDS, backend=backend)[2:], want[2:], "exact", "beside a sample of NaN")
