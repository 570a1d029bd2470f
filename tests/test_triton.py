"""Ring 5 for the kernels, run by Triton's interpreter: they compute what the reference defines, whatever comes in."""

import pytest
import torch
import triton
import triton.language as tl
from build import build, case, cases, spec
from compare import changed, compare
from executed import FINISH, IDS, both, falls, planned, watched
from gpuaug_kernels import launch, noise

import gpuaug as ga
from gpuaug import ir, rng
from gpuaug.exec import triton as executor
from gpuaug.exec.triton import rules

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((40, 50), (17, 9), (50, 21), (33, 64))
FLOAT = ga.ToDtype(torch.float32, scale=True)


def moderate(
    *more: ga.Transform,
    size: tuple[int, int] = (20, 37),
    dtype: torch.dtype = torch.float32,
    layout=torch.contiguous_format,
) -> ga.Policy:
    """Crop, flip, jitter, cut, normalise."""
    return ga.Policy(
        [
            ga.RandomResizedCrop(size),
            ga.RandomHorizontalFlip(),
            ga.ColorJitter(0.4, 0.4, 0.4, 0.1),
            *more,
            ga.CutMix(1.0, 4),
            FLOAT,
            ga.Normalize(MEAN, STD),
            ga.ToDtype(dtype, scale=True),
        ],
        seed=11,
        memory_format=layout,
    )


@pytest.fixture
def launches(monkeypatch) -> list[str]:
    """The names of the launches that a test makes, in order."""
    return watched(monkeypatch)


@pytest.mark.parametrize(("name", "i"), cases(quick=2))
def test_every_transform_is_the_references(name, i, images):
    args = case(name, i)
    x, policy = images(3, *spec(name).image), ga.Policy([build(name, args)], seed=4)
    assert bool(falls(policy, spec(name).image)) == spec(name).falls_back
    labels = None if not spec(name).mixes else torch.arange(3) if "num_classes" in args else torch.eye(3)
    got, want = both(policy, x, labels)
    compare(got, want, spec(name).kind(args), f"{name}({args})", spec(name).gain(args))


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [
        (torch.float32, torch.contiguous_format),
        (torch.bfloat16, torch.channels_last),
        (torch.float16, torch.contiguous_format),
        (torch.float32, torch.channels_last),
    ],
)
def test_a_whole_chain_over_images_of_different_sizes_gathers_a_mean_of_what_it_writes(
    dtype, layout, pictures, launches
):
    policy = moderate(dtype=dtype, layout=layout)
    got, want = both(policy, pictures(SIZES), torch.arange(4) % 4)
    assert launches == ["images"] * 2
    assert got.dtype == dtype and got.stride() == want.stride()
    compare(got, want, "resample", "moderate", 1 / min(STD))
    uncut = ga.Policy([t for t in policy.transforms if not isinstance(t, ga.CutMix)], seed=11, memory_format=layout)
    assert 0.05 < changed(got, both(uncut, pictures(SIZES))[0]) < 0.95, "vacuous: nothing is cut, or all"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_uint8_comes_out_as_the_reference_rounds_it(layout, pictures):
    policy = ga.Policy(
        [ga.Resize((33, 20)), ga.ColorJitter(0.4, 0.4), ga.RandomErasing(1.0, value="random"), ga.GaussianNoise()],
        memory_format=layout,
    )
    got, want = both(policy, pictures(SIZES))
    assert got.dtype == torch.uint8 and got.stride() == want.stride()
    compare(got, want, "resample", "uint8")
    assert changed(got, want) < 1e-3


# ---- what must be the same bits


@triton.jit
def _words(integers, out, CHANNEL: tl.constexpr, BLOCKS: tl.constexpr, SLOT: tl.constexpr):
    pixel = tl.arange(0, 16)
    # four arguments of a store are no loop in triton: a word after the other
    a, b, c, d = noise.noise_words(integers + tl.program_id(0) * 5, SLOT, pixel, tl.program_id(0) * 0 + CHANNEL, BLOCKS)
    row = out + (tl.program_id(0) * 16 + pixel) * 4
    tl.store(row, a.to(tl.int64))
    tl.store(row + 1, b.to(tl.int64))
    tl.store(row + 2, c.to(tl.int64))
    tl.store(row + 3, d.to(tl.int64))


@pytest.mark.parametrize("seed", [0, 2**63 + 2**31 + 12345, 2**64 - 1])
def test_words_of_pixels_are_those_of_the_definition(seed):
    occurrence = torch.tensor([0, 1, 4095, 7, 0, 2, 3])
    keys = rng.Keys(seed, 2**18 - 1, IDS, occurrence)
    frame = ir.Frame(torch.zeros_like(IDS)[:, None].expand(-1, 2), (4, 4), 6, torch.float32)
    tables = rules.prepare((), frame, keys).tables
    out = torch.empty(7, 16, 4, dtype=torch.int64)
    for channel in (0, 5):
        _words[(7,)](tables.integers[:, :5].contiguous(), out, channel, 2, 65535)
        c2, c3 = keys.counter()
        c0 = torch.arange(16) * 2 + channel // 4
        c1 = 65535 | (rng.PIXELS << 28) | (occurrence[:, None] << 16)
        want = torch.stack(rng.philox(seed, c0, c1, c2[:, None], c3[:, None]), -1)
        assert torch.equal(out, want) and torch.equal(
            out, keys.pixels(65535, 4, 4, 6)[:, :, :, channel // 4].flatten(1, 2)
        )


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_mask_of_salt_and_pepper_is_bit_identical(per_channel, channels):
    x = torch.full((4, channels, 35, 33), 0.5)
    got, want = both(ga.Policy([ga.SaltAndPepper(0.3, 0.4, per_channel)], seed=2**50), x)
    assert torch.equal(got, want)
    assert 0.2 < changed(got, x) < 0.4 and {0.0, 0.5, 1.0} == set(got.unique().tolist()), "vacuous"


def test_boxes_and_partners_are_bit_identical():
    x = (torch.arange(7).view(7, 1, 1, 1) / 8).expand(7, 3, 45, 38)
    policy = ga.Policy([ga.RandomErasing(0.7, value=(1.0, 0.25, 0.125)), ga.CutMix(1.0)], seed=5)
    for order in (torch.arange(7), torch.tensor([4, 0, 6, 2, 1, 5, 3])):
        got, want = (policy(x[order], torch.eye(7), ids=IDS[order], backend=b)[0] for b in ("triton", "reference"))
        assert torch.equal(got, want)
        assert 0.1 < changed(got, x[order]) < 0.9, "vacuous"


def test_orders_and_choices_are_bit_identical():
    # multiples of 1/8: nothing below rounds
    x = (torch.arange(9 * 33 * 35) % 8).view(1, 9, 33, 35).float().expand(7, 9, 33, 35)[:, :3] / 8
    stages = [
        ga.RandomInvert(1.0),
        ga.RandomSolarize(0.25, 1.0),
        ga.RandomPosterize(2, 1.0),
        ga.RandomErasing(1.0, value=0.75),
    ]
    inner = ga.RandomApply([ga.RandomOrder(stages[:3]), ga.RandomInvert(0.5)], 0.7)
    for policy in (
        ga.Policy([ga.RandomOrder(stages)]),
        ga.Policy([ga.RandomChoice(stages)]),
        ga.Policy([inner, ga.RandomChoice([inner, stages[1]])]),
    ):
        assert not falls(policy, (33, 35))
        got, want = both(policy, x)
        assert torch.equal(got, want)
        assert len({tuple(g.flatten().tolist()) for g in got}) > 2, "vacuous: all samples alike"


def test_batch_composition_is_invisible_bit_for_bit(pictures):
    policy = ga.Policy([*moderate(ga.GaussianNoise()).transforms[:4], ga.ColorJitter(contrast=0.9)], seed=3)
    many = pictures((*SIZES, (41, 30), (12, 60), (29, 29)))
    whole = policy(many, ids=IDS, backend="triton")
    assert changed(whole, policy(many, ids=IDS + 1, backend="triton")) > 0.5, "vacuous"
    for rows in ([4, 0, 6, 2, 1, 5, 3], [2], [6, 1]):
        # memory that starts at an odd address too
        moved = []
        for n in rows:
            room = torch.empty(many[n].size + 1, dtype=torch.uint8)
            room[1:] = torch.from_numpy(many[n]).flatten()
            moved.append(room[1:].view(many[n].shape))
        if len({m.shape for m in moved}) > 1:
            assert torch.equal(policy(moved, ids=IDS[rows], backend="triton"), whole[rows])


def test_epoch_may_be_a_tensor(images):
    policy, x = ga.Policy([ga.SaltAndPepper(0.3)]), images(3, 9, 9)
    a, b, c = (policy(x, ids=IDS[:3], epoch=e, backend="triton") for e in (7, torch.tensor(7), 8))
    assert torch.equal(a, b) and changed(a, c) > 0.1


# ---- what comes in


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_any_strides_give_the_same_pixels(dtype, images):
    x = images(2, 36, 22, dtype=dtype)
    wide = torch.zeros(2, 5, 40, 50, dtype=dtype)
    wide[:, 1:4, 3:39, 4:48:2] = x
    layouts = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "a window of every other column": wide[:, 1:4, 3:39, 4:48:2],
        "turned": x.transpose(2, 3).contiguous().transpose(2, 3),
    }
    resample = ga.Policy([ga.RandomResizedCrop((12, 33)), ga.ColorJitter(contrast=0.5), ga.SaltAndPepper()])
    pixel = ga.Policy([ga.ColorJitter(0.4, hue=0.2), ga.RandomErasing(1.0)])
    for policy in (resample, pixel):
        whole, want = both(policy, x)
        compare(whole, want, "resample", str(dtype))
        for name, y in layouts.items():
            assert y.stride() != x.stride()
            assert torch.equal(policy(y, ids=IDS[:2], epoch=2, backend="triton"), whole), name
        one = x[:1].expand(2, -1, -1, -1)
        compare(*both(policy, one), "resample", "expanded")


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_any_number_of_channels(channels, images):
    x = images(3, 36, 22, channels)
    policy = ga.Policy(
        [
            ga.RandomResizedCrop((33, 12)),
            ga.GaussianNoise(0.1),
            ga.SaltAndPepper(0.2, per_channel=True),
            ga.RandomErasing(1.0, value="random"),
            ga.Normalize(tuple(0.1 * c for c in range(channels)), tuple(0.5 + c for c in range(channels))),
        ]
    )
    got, want = both(policy, x)
    compare(got, want, "resample", f"{channels} channels", 2.0)
    assert all(a.std() > 0.05 for a in got.flatten(2).unbind(1)), "vacuous: a channel is flat"


def test_gray_goes_in_and_comes_out(images):
    jitter = ga.ColorJitter(0.4, 0.4, 0.4, 0.2)
    for channels, out, transforms in (
        (1, 1, [jitter]),
        (1, 3, [jitter, ga.Grayscale(3), ga.SaltAndPepper(0.2, per_channel=True), jitter]),
        (3, 1, [jitter, ga.Grayscale(1), jitter, ga.RandomErasing(1.0, value="random")]),
        (3, 3, [ga.Grayscale(3), jitter]),
    ):
        policy = ga.Policy(transforms)
        assert not falls(policy, (34, 21), channels)
        got, want = both(policy, images(4, 34, 21, channels))
        compare(got, want, "colour", f"{channels} {transforms}")
        assert got.shape[1] == out


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 1)])
def test_images_of_a_pixel_or_a_line(size, images):
    compare(*both(moderate(size=(1, 3)), images(3, *size), torch.arange(3)), "resample", str(size), 1 / min(STD))
    points = ga.Policy(
        [ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.SaltAndPepper(), ga.RandomErasing(1.0), ga.RandomRotation(30)]
    )
    compare(*both(points, images(3, *size)), "colour", str(size))


def test_an_empty_batch_launches_nothing():
    policy = moderate(ga.RandomRotation(20), dtype=torch.bfloat16)
    out, labels = policy(
        torch.zeros(0, 3, 9, 9, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), backend="triton"
    )
    assert out.shape == (0, 3, 20, 37) and out.dtype == torch.bfloat16 and labels.shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_cutmix_writes_into_out_in_one_launch(layout, dtype, images, launches, monkeypatch):
    x, partner = images(3, 35, 40, dtype=dtype), torch.tensor([2, 0, 1])
    boxes = torch.tensor([[0, 0, 40, 35], [5, 3, 33, 34], [7, 7, 7, 9]])
    want = ga.functional.cutmix(x, partner, boxes)
    monkeypatch.setattr(ga.functional, "choose", lambda *_: "triton")
    wide = torch.full((3, 3, 35, 80), 9, dtype=dtype)
    out = {
        "contiguous": torch.full_like(x, 9),
        "channels_last": wide[..., :40].contiguous(memory_format=torch.channels_last),
        "strided": wide[..., ::2],
    }[layout]
    written: list[torch.Tensor] = []
    whole = launch._launch
    monkeypatch.setattr(launch, "_launch", lambda *a: written.append(a[5]) or whole(*a))
    got = ga.functional.cutmix(x, partner, boxes, out=out)
    assert got is out and torch.equal(out, want) and changed(out, x) > 0.3
    assert launches == ["images"] and len(written) == 1
    # the interpreter cannot round to bfloat16
    assert (written[0].data_ptr() == out.data_ptr()) == (layout != "strided" and dtype != torch.bfloat16)
    assert layout != "strided" or (wide[..., 1::2] == 9).all()


def test_an_out_that_does_not_fit_is_refused(images):
    x = images(2, 9, 8)
    frame = ir.Frame(torch.tensor([[9, 8]] * 2), (9, 8), 3, x.dtype)
    made = [
        rules.prepare((ir.Affine(torch.ones(2, 1), torch.zeros(2, 1)), FINISH), frame, rng.Keys(1, 0, IDS[:2], IDS[:2]))
    ]
    for out in (torch.empty(2, 3, 9, 9), torch.empty(2, 3, 9, 8).double(), torch.empty(2, 3, 8, 9).transpose(2, 3)):
        with pytest.raises(ValueError, match="out must be"):
            executor.execute(made, x, out)
    out = torch.empty_like(x)
    assert executor.execute(made, x, out) is out and torch.equal(out, x)


# ---- plans that no policy of today makes


def test_contrasts_before_and_after_mixes(images, launches):
    n, partner = 4, torch.tensor([2, 0, 3, 1])
    box = torch.tensor([[0, 0, 33, 20], [5, 3, 33, 40], [0, 0, 0, 0], [0, 0, 40, 40]])
    factor = torch.tensor([0.3, 1.8, 0.7, 1.2])
    order = ir.Choice(
        torch.tensor([[0, 1], [1, 0], [0, 1], [1, 0]]), ((ir.Contrast(factor),), (ir.Saturation(factor),))
    )
    maybe = ir.Choice(torch.tensor([[0], [1], [1], [0]]), ((), (ir.Contrast(factor.flip(0)),)))
    cut, mix = ir.CutMix(partner, box, torch.tensor([[40, 40]]).expand(n, 2)), ir.MixUp(partner.flip(0), factor / 2)
    passes = (
        maybe,
        order,
        cut,
        ir.Contrast(factor),
        maybe,
        mix,
        order,
        ir.Affine(factor[:, None], factor[:, None]),
        FINISH,
    )
    x = images(n, 40, 40)
    compare(*planned(passes, x), "colour", "mixes")
    # two contrasts before the cut, two after it; then a launch of its own for the second mix
    assert launches == ["statistic"] * 4 + ["images"] + ["statistic"] + ["images"]


@pytest.mark.parametrize("fill", [None, (0.9, 0.1, 0.5)])
@pytest.mark.parametrize("kernel", ["bilinear", "nearest"])
def test_a_projective_warp(kernel, fill, images):
    x = images(2, 35, 30)
    inverse = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    inverse[0] += torch.tensor([[0.1, 0.2, -3.0], [-0.15, 0.05, 4.0], [0.004, -0.002, 0.0]], dtype=torch.float64)
    size = torch.tensor([[33, 40]]).expand(2, 2)
    source = torch.tensor([[0, 0, 30, 35]]).expand(2, 4)
    got, want = planned((ir.Warp(inverse, size, (33, 40), source, kernel, fill), FINISH), x)
    compare(got, want, "resample, jump", f"{kernel} {fill}")
    assert changed(got[:1], x[:1, :, :1, :1].expand_as(got[:1])) > 0.3, "vacuous"


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("size", [(35, 33), (3, 4), (2, 9), (9, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sharpness_and_points_are_one_launch(channels, size, dtype, images, launches):
    x, factor = images(3, *size, channels, dtype=dtype), torch.tensor([0.0, 0.4, 3.0])
    wide = torch.full((3, channels, size[0] + 2, size[1] + 2), 77, dtype=dtype)
    wide[:, :, 1:-1, 1:-1] = x
    for y in (x, wide[:, :, 1:-1, 1:-1]):
        got, want = planned((ir.Sharpness(factor), ir.Solarize(factor / 3), FINISH), y)
        compare(got, want, "jump", f"{channels} {size} {dtype}")
    assert launches == ["images"] * 2
    plain = planned((ir.Solarize(factor / 3), FINISH), x)[0]
    assert (changed(got, plain) > 0.2) == (min(size) > 2)


# ---- what it says


def test_describe_counts_the_steps_and_kernels_that_are_made():
    text = moderate().describe(backend="triton")
    # one draws, one finds partners, one crops and gathers a mean; one finishes it, one does the rest, one mixes labels
    assert "backend triton: 2 steps, 6 kernels, 2 of them to draw, 1 for labels\n" in text
    assert "1 kernel: write images and gather mean" in text and "2 kernels: finish mean, write images" in text
    assert "Contrast needs the mean of the whole image first" in text
    assert "backend triton: 3 steps" in moderate(ga.RandomRotation(9)).describe(backend="triton")
    without = ga.Policy([t for t in moderate().transforms if not isinstance(t, ga.ColorJitter)])
    assert "backend triton: 1 step, 4 kernels, 2 of them to draw, 1 for labels" in without.describe(backend="triton")


def test_a_pass_without_a_rule_is_named():
    class Unknown(ir.Pointwise):
        pass

    assert rules.fallback_reason(Unknown()) == "triton executor has no rule for Unknown"
    with pytest.raises(NotImplementedError, match="no rule for Unknown"):
        rules.rule(Unknown(), None)


def test_images_that_the_reference_left_in_different_sizes_are_taken_up_again(pictures):
    policy = ga.Policy([ga.Resize(20), ga.Resize((9, 33)), ga.RandomInvert()])
    assert falls(policy) == "its images end in different sizes"
    compare(*both(policy, pictures(SIZES)), "resample", "ragged floats")
