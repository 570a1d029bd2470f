"""Ring 3: what a transform lowers to means what torchvision says, on the parameters that were drawn."""

from itertools import permutations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from build import build, case, cases, spec
from compare import changed, compare
from scipy import stats
from specs import SPECS, mean
from specs.auto import OPERATIONS, operate

import gpuaug as ga

SEED, EPOCH = 2**40 + 7, 3


def lowered(
    name: str, args: dict, x: torch.Tensor, seed: int = SEED
) -> tuple[torch.Tensor, list[torch.Tensor], ga.Params]:
    """Ours and the oracle's."""
    n = len(x)
    ids, occurrence = torch.arange(n) * 7919 + 2**33, torch.arange(n) % 2
    t = [build(name, args)]
    if spec(name).square and x.shape[2] != x.shape[3]:
        pytest.fail(f"{name} leaves images that are not square in different sizes; test it on square ones")
    policy = ga.Policy(t, seed)
    params = policy.draw(
        ids, epoch=EPOCH, occurrence=occurrence, size=tuple(x.shape[2:]), channels=x.shape[1], dtype=x.dtype
    )
    got = policy.replay(x, params, backend="reference")
    return got, mean(name, args, tuple(x), params[0], seed, EPOCH, ids.tolist(), occurrence.tolist()), params


@pytest.mark.parametrize(("name", "i"), cases())
def test_a_transform_means_what_torchvision_says(name, i, images):
    args, of = case(name, i), spec(name)
    different = 0.0
    for height, width in ((41, 41), (36, 36)) if of.square else ((41, 53), (48, 37)):
        x = images(9, height, width)
        got, want, _ = lowered(name, args, x)
        # the policy puts the image's dtype back at the end, the oracle stops before
        want = torch.stack(want)
        compare(got, want, of.kind(args), f"{name}({args}) at {height}x{width}", of.gain(args))
        different += got.shape != x.shape or changed(got, x)
    if of.identity(args):
        assert not different, f"{name}({args}) changes pixels, which its Spec denies"
    else:
        assert different > 0.01, "vacuous: the arguments change nothing"


def chosen(policy: ga.Policy, size: tuple[int, int], n: int, channels: int = 3, **values) -> ga.Params:
    """Parameters of the first transform with some of them chosen by the test."""
    params = policy.draw(torch.arange(n), size=size, channels=channels, dtype=torch.float32)
    assert values.keys() <= params[0].keys(), f"{values.keys()} are not drawn; {params[0].keys()} are"
    for k, v in values.items():
        assert params[0][k].shape == v.shape, k
        params[0][k] = v
    return params


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("op", range(len(OPERATIONS)), ids=OPERATIONS)
def test_each_operation_of_randaugment_is_torchvisions(op, magnitude, images):
    for height, width, fill, interpolation in ((37, 52, None, "nearest"), (40, 29, (0.9, 0.1, 0.5), "bilinear")):
        x = images(6, height, width)
        policy = ga.Policy([ga.RandAugment(1, magnitude, interpolation=interpolation, fill=fill)])
        sign = torch.tensor([1, -1] * 3)
        params = chosen(policy, (height, width), 6, op=torch.full((6, 1), op), sign=sign[:, None])
        got = policy.replay(x, params, backend="reference")
        tool = v2.InterpolationMode(interpolation)
        want = [
            operate(OPERATIONS[op], i, s, magnitude, 31, tool, None if fill is None else list(fill))
            for i, s in zip(x, sign.tolist(), strict=True)
        ]
        compare(got, torch.stack(want), "resample, jump", f"{OPERATIONS[op]} at {magnitude}, {height}x{width}")
        # at 0 a table holds the identity, but for those without a magnitude and for Solarize, which takes no value
        # below 1
        if magnitude and op:
            assert changed(got, x) > 0.01, "vacuous: the operation changes nothing"


def test_every_order_of_colorjitter_is_torchvisions(images):
    orders = torch.tensor(list(permutations(range(4))))
    x = images(24, 23, 31)
    policy = ga.Policy([ga.ColorJitter((0.5, 1.8), (0.4, 1.9), (0.1, 2.0), 0.4)])
    params = chosen(policy, (23, 31), 24, fn_idx=orders)
    got = policy.replay(x, params, backend="reference")
    want = mean(
        "ColorJitter",
        dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 1),
        tuple(x),
        params[0],
        0,
        0,
        [0] * 24,
        [0] * 24,
    )
    compare(got, torch.stack(want), "colour", "24 orders")
    same = params[0]
    other = {k: v[:1].expand_as(v) for k, v in same.items()} | {"fn_idx": orders}
    one = x[:1].expand_as(x)
    results = policy.replay(one, chosen(policy, (23, 31), 24, **other), backend="reference")
    assert len({tuple(r.flatten()[:200].tolist()) for r in results}) > 12, (
        "vacuous: the order hardly matters to this image"
    )


CHANNELS = [
    # one channel and many stand for the others in the fast suite
    pytest.param(name, channels, id=f"{name}-{channels}", marks=[pytest.mark.slow] if channels in (2, 4) else [])
    for name, s in sorted(SPECS.items())
    for channels in (1, 2, 4, 7)
    if s.takes(channels)
]


@pytest.mark.parametrize(("name", "channels"), CHANNELS)
def test_other_numbers_of_channels_do_what_torchvision_does(name, channels, images):
    of, tried = spec(name), 0
    for args in of.arguments:
        if not of.takes(channels, args):
            continue
        got, want, _ = lowered(name, args, images(6, *((41, 41) if of.square else (41, 53)), channels=channels))
        compare(got, torch.stack(want), of.kind(args), f"{name}({args}) on {channels} channels", of.gain(args))
        tried += 1
    assert tried, f"vacuous: every set of arguments of {name} has values for three channels"


@pytest.mark.parametrize("name", sorted(n for n, s in SPECS.items() if s.channels))
def test_numbers_of_channels_without_a_meaning_are_refused(name, images):
    args = case(name, 0)
    without = [channels for channels in (2, 4) if not spec(name).takes(channels)]
    assert without, "vacuous"
    for channels in without:
        with pytest.raises(ValueError, match=f"{name} needs images of .* channels, got {channels}"):
            ga.Policy([build(name, args)])(images(2, 9, 9, channels), backend="reference")


SMALL = [
    # the first arguments of a transform have every size, the others one of them in the fast suite
    pytest.param(
        name,
        args,
        size,
        id=f"{name}-{i}-{size[0]}x{size[1]}",
        marks=[pytest.mark.slow] if i and size in ((1, 1), (5, 2)) else [],
    )
    for name, s in sorted(SPECS.items())
    for i, args in enumerate(s.arguments)
    for size in (((1, 1), (2, 2)) if s.square else ((1, 1), (1, 7), (5, 2)))
    if s.small(args, *size)
]


@pytest.mark.parametrize(("name", "args", "size"), SMALL)
def test_tiny_images_do_what_torchvision_does(name, args, size, images):
    of = spec(name)
    got, want, _ = lowered(name, args, images(12, 13, 13)[:, :, : size[0], : size[1]])
    what = f"{name}({args}) at {size}"
    if of.ties and "jump" in of.kind(args):
        assert got.shape == torch.stack(want).shape, what
        assert (got - torch.stack(want)).abs().gt(1e-4).float().mean() < 0.1, what
    else:
        compare(got, torch.stack(want), of.kind(args), what, of.gain(args))


def test_every_transform_has_a_tiny_image():
    assert {p.values[0] for p in SMALL} == SPECS.keys()


@pytest.mark.parametrize(
    ("size", "ratio"), [((1, 1), (2.5, 3.0)), ((7, 1), (5.0, 6.0)), ((1, 1), (0.1, 0.3)), ((1, 9), (0.1, 0.4))]
)
def test_a_crop_of_a_ratio_that_no_pixel_has_keeps_a_pixel(size, ratio, images):
    """torchvision rounds such a crop to nothing and fails."""
    x = images(12, 13, 13)[:, :, : size[0], : size[1]]
    policy = ga.Policy([ga.RandomResizedCrop((3, 4), ratio=ratio)])
    params = policy.draw(torch.arange(12), size=size)[0]
    assert params["height"].min() >= 1 and params["width"].min() >= 1
    assert not policy(x, backend="reference").isnan().any()


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_constant_images_do_what_torchvision_does(value, images):
    """Where a range, a spread or a histogram is empty, a division by zero waits."""
    x = torch.full((3, 3, 19, 24), value)
    for op in ("AutoContrast", "Equalize", "Color", "Contrast", "Sharpness", "Posterize", "Solarize"):
        policy = ga.Policy([ga.RandAugment(1, 20)])
        params = chosen(
            policy, (19, 24), 3, op=torch.full((3, 1), OPERATIONS.index(op)), sign=torch.ones(3, 1, dtype=torch.int64)
        )
        want = [operate(op, i, 1, 20, 31, v2.InterpolationMode.NEAREST, None) for i in x]
        compare(policy.replay(x, params, backend="reference"), torch.stack(want), "jump", f"{op} of {value}")
    got, want, _ = lowered("ColorJitter", case("ColorJitter", 1), x)
    compare(got, torch.stack(want), "colour", f"ColorJitter of {value}")


def test_equalize_takes_values_between_two_levels(images):
    x = torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64) ** 2
    policy = ga.Policy([ga.RandAugment(1, 20)])
    params = chosen(
        policy,
        (64, 64),
        1,
        op=torch.full((1, 1), OPERATIONS.index("Equalize")),
        sign=torch.ones(1, 1, dtype=torch.int64),
    )
    compare(policy.replay(x, params, backend="reference")[0], F.equalize(x[0]), "jump", "Equalize")


@pytest.mark.parametrize("apart", [9, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("interpolation", ["nearest", "nearest-exact"])
def test_nearest_takes_the_pixel_that_exact_arithmetic_names(interpolation, apart):
    """torchvision's float32 misses one in five thousand, at positions that are integers."""
    tried = 0
    for side in range(1, 160, apart):
        for out in (*range(1, 60, 2), 224):
            x = torch.arange(side, dtype=torch.float32).view(1, 1, 1, side) / 256
            got = ga.Policy([ga.Resize((1, out), interpolation)])(x, backend="reference").view(-1) * 256
            i = torch.arange(out)
            want = i * side // out if interpolation == "nearest" else (2 * i + 1) * side // (2 * out)
            assert torch.equal(got.long(), want), (side, out)
            tried += 1
    assert tried > 500


def test_a_window_keeps_its_taps_inside_the_crop(images):
    """Antialiased weights are normalised over the crop: what lies beside it never shows."""
    x = images(2, 40, 50)
    policy = ga.Policy([ga.RandomResizedCrop(6)])
    values = {k: torch.tensor([v, v]) for k, v in {"top": 5, "left": 7, "height": 20, "width": 30}.items()}
    spoilt = torch.full_like(x, 0.5)
    spoilt[:, :, 5:25, 7:37] = x[:, :, 5:25, 7:37]
    assert changed(spoilt, x) > 0.3, "vacuous"
    params = chosen(policy, (40, 50), 2, **values)
    compare(
        policy.replay(spoilt, params, backend="reference"),
        policy.replay(x, params, backend="reference"),
        "exact",
        "beside the crop",
    )


# ---- noise: what no functional of torchvision draws


def pixels(t: ga.Transform, value: float = 0.5, n: int = 16, side: int = 48) -> torch.Tensor:
    return ga.Policy([t], seed=3)(torch.full((n, 3, side, side), value), ids=torch.arange(n), backend="reference")


def test_salt_and_pepper_replaces_the_share_it_says():
    for amount, salt in ((0.05, 0.5), (0.3, 0.8), (0.6, 0.0), (0.2, 1.0)):
        out = pixels(ga.SaltAndPepper(amount, salt))[:, 0]
        n = out.numel()
        hit, white = (out != 0.5).sum().item(), (out == 1).sum().item()
        assert abs(hit - amount * n) < 4.5 * (n * amount * (1 - amount)) ** 0.5
        assert abs(white - salt * hit) <= 4.5 * (hit * salt * (1 - salt)) ** 0.5
        assert set(out.unique().tolist()) <= {0.0, 0.5, 1.0}


def test_salt_and_pepper_takes_all_channels_of_a_pixel_or_each_on_its_own():
    together, apart = pixels(ga.SaltAndPepper(0.3)), pixels(ga.SaltAndPepper(0.3, per_channel=True))
    assert (together != 0.5).float().mean() > 0.2, "vacuous"
    assert torch.equal(together[:, 0], together[:, 1]) and torch.equal(together[:, 0], together[:, 2])
    hit = apart != 0.5
    both = (hit[:, 0] & hit[:, 1]).float().mean().item()
    assert abs(both - 0.09) < 0.01, "the channels of a pixel are not independent"
    assert abs(hit.float().mean().item() - 0.3) < 0.01


def test_neither_noise_repeats_between_samples_pixels_slots_or_epochs():
    t = ga.GaussianNoise(0.0, 1.0, clip=False)
    noise = pixels(t, 0.0)
    assert noise.unique().numel() > 0.99 * noise.numel()
    x, ids = torch.zeros(16, 3, 48, 48), torch.arange(16)
    policy = ga.Policy([t, t], seed=3)
    others = (
        policy(x, ids=ids, backend="reference") - noise,
        pixels(t, 0.0).roll(1, 0),
        ga.Policy([t], seed=3)(x, ids=ids, epoch=1, backend="reference"),
    )
    for other in others:
        r = np.corrcoef(noise.flatten().numpy(), other.flatten().numpy())[0, 1]
        assert abs(r) < 4.5 / noise.numel() ** 0.5


def test_gaussian_noise_is_gaussian_in_every_channel():
    noise = pixels(ga.GaussianNoise(0.1, 0.2, clip=False), 0.0)
    for c in range(3):
        values = noise[:, c].flatten().numpy()
        assert stats.kstest(values, stats.norm(0.1, 0.2).cdf).pvalue > 1e-3
    r = np.corrcoef(noise.permute(1, 0, 2, 3).reshape(3, -1).numpy())
    assert np.abs(r - np.eye(3)).max() < 4.5 / (noise.numel() / 3) ** 0.5


def test_gaussian_noise_is_clipped_unless_told_otherwise():
    loose, tight = (pixels(ga.GaussianNoise(0.0, 0.5, clip=c), 0.9) for c in (False, True))
    assert (loose > 1).float().mean() > 0.2 and (loose < 0).float().mean() > 0.02, "vacuous"
    compare(tight, loose.clamp(0, 1), "exact", "clip")


def test_erasing_at_random_writes_gaussian_values_that_nothing_clips():
    out = pixels(ga.RandomErasing(1.0, (0.5, 0.8), (0.8, 1.2), "random"), 0.5, n=12)
    values = out[out != 0.5].numpy()
    assert len(values) > 20_000, "vacuous"
    assert stats.kstest(values, "norm").pvalue > 1e-3
