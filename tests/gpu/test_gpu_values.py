"""The kernels on a card compute what the reference computes, on the card and on the host, whatever comes in."""

from typing import Any

import pytest
import torch
from build import build, case, quick, spec
from compare import changed, compare
from on_card import (
    DEVICE,
    DTYPES,
    IDS,
    MANY,
    SIZES,
    SOME,
    agree,
    first_cases,
    images,
    pictures,
    put,
    run,
    size_of,
    slow_unless,
)
from policies import FLOAT, POLICIES, STD, mixes, takes_many
from specs import SPECS

import gpuaug as ga
from gpuaug import functional as F

NORMALISED = 1 / min(STD)


def flat(drawn: Any) -> list[torch.Tensor]:
    """Every tensor of what was drawn."""
    if isinstance(drawn, torch.Tensor):
        return [drawn.cpu()]
    return [t for v in (drawn.values() if isinstance(drawn, dict) else drawn) for t in flat(v)]


@pytest.mark.parametrize(("name", "i"), first_cases())
def test_every_transform_agrees(name, i):
    args = case(name, i)
    labels = None if not spec(name).mixes else torch.arange(5) if "num_classes" in args else torch.eye(5)
    policy = ga.Policy([build(name, args)], seed=4)
    how = (spec(name).kind(args), f"{name}({args})", labels, spec(name).gain(args))
    # all but the first are slow
    agree(policy, images(5, *spec(name).image), *how, reference=i > 0)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_transform_draws_the_same_on_the_card(name):
    for args in spec(name).arguments:
        policy, ids = ga.Policy([build(name, args)], seed=2**50), torch.arange(2000) * 2**31
        there, here = (flat(list(policy.draw(i, epoch=5, size=(41, 41)))) for i in (put(ids), ids))
        assert len(there) == len(here)
        for a, b in zip(there, here, strict=True):
            # a NaN stands for noise
            same = (a == b) | ((a != a) & (b != b))
            assert a.dtype == b.dtype and bool(same.all()), (
                f"{name}({args}): {int((~same).sum())} of {a.numel()} numbers drawn differ"
            )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", POLICIES)
def test_whole_policies_agree(name, layout):
    policy = ga.Policy(POLICIES[name], seed=11, memory_format=layout)
    x = images(7, *size_of(name), dtype=torch.float32 if name.startswith("H1") else torch.uint8)
    labels = torch.arange(7) if mixes(name) else None
    got = agree(policy, x, "resample, jump", name, labels, NORMALISED, reference=name in SOME)
    other = run(policy, x, torch.arange(7) if mixes(name) else None, ids=IDS, epoch=3)[0]
    assert changed(got, other) > 0.02, "vacuous: an epoch changes nothing"


@pytest.mark.parametrize("name", [n for n in POLICIES if takes_many(n)])
def test_whole_policies_agree_on_images_of_different_sizes(name):
    steps = [ga.RandomResizedCrop(24), *POLICIES[name][1:]] if name == "quarter turns" else POLICIES[name]
    agree(
        ga.Policy(steps, seed=11),
        pictures(),
        "resample, jump",
        name,
        torch.arange(5) if mixes(name) else None,
        NORMALISED,
    )


def test_a_large_batch_agrees():
    policy = ga.Policy(POLICIES["very strong"], seed=1, memory_format=torch.channels_last)
    agree(
        policy,
        images(MANY, *size_of("very strong"), dtype=torch.uint8),
        "resample, jump",
        f"{MANY} samples",
        torch.arange(MANY) % 7,
        NORMALISED,
    )
    agree(
        ga.Policy(POLICIES["moderate and erasing"]),
        pictures(SIZES * (MANY // len(SIZES))),
        "resample",
        "ragged",
        scale=NORMALISED,
    )


@pytest.mark.parametrize("dtype", quick(DTYPES, torch.uint8, torch.bfloat16))
def test_any_dtype_and_any_strides_agree(dtype):
    x = images(4, 36, 22, dtype=dtype)
    wide = torch.zeros(4, 5, 40, 50, dtype=dtype, device=DEVICE)
    wide[:, 1:4, 3:39, 4:48:2] = put(x)
    layouts = {
        "channels_last": put(x).contiguous(memory_format=torch.channels_last),
        "a window of every other column": wide[:, 1:4, 3:39, 4:48:2],
        "turned": put(x).transpose(2, 3).contiguous().transpose(2, 3),
    }
    for policy in (
        ga.Policy([ga.RandomResizedCrop((12, 33)), ga.ColorJitter(contrast=0.5), ga.SaltAndPepper()]),
        ga.Policy([ga.ColorJitter(0.4, hue=0.2)]),
    ):
        whole = agree(policy, x, "resample", str(dtype))
        for name, y in layouts.items():
            assert y.stride() != x.stride()
            assert torch.equal(run(policy, y, ids=IDS[:4], epoch=2)[0], whole), name
        agree(policy, x[:1].expand(4, -1, -1, -1), "resample", "expanded")


# every width where three channels come last and share words, and of planes those that tell vectors from values
WRITTEN = [
    slow_unless(
        width in (3, 32) or (layout == torch.channels_last and out in (torch.uint8, torch.bfloat16)), width, layout, out
    )
    for width in (1, 3, 4, 30, 32, 33)
    for layout in (torch.contiguous_format, torch.channels_last)
    for out in DTYPES
]


@pytest.mark.parametrize(("width", "layout", "out"), WRITTEN)
def test_any_width_dtype_and_layout_is_written(width, layout, out):
    policy = ga.Policy(
        [ga.RandomHorizontalFlip(), ga.RandomInvert(), ga.ToDtype(out, scale=True)], memory_format=layout
    )
    agree(policy, images(4, 5, width, dtype=torch.uint8), "colour", f"{width} {out}")
    if width not in (3, 32):
        return
    agree(
        ga.Policy([ga.RandomResizedCrop((7, width)), ga.ToDtype(out, scale=True)], memory_format=layout),
        pictures(),
        "resample",
        f"{width} {out}",
    )


@pytest.mark.parametrize("channels", quick([1, 2, 3, 4, 6], 1, 6))
def test_any_number_of_channels_agrees(channels):
    steps = [
        ga.RandomResizedCrop((33, 12)),
        ga.RandomRotation(20, "bilinear", fill=0.5),
        ga.GaussianNoise(0.1),
        ga.SaltAndPepper(0.2, per_channel=True),
        ga.RandomErasing(1.0, value="random"),
        ga.Normalize(tuple(0.1 * c for c in range(channels)), tuple(0.5 + c for c in range(channels))),
    ]
    for layout in (torch.contiguous_format, torch.channels_last):
        agree(
            ga.Policy(steps, memory_format=layout),
            images(3, 36, 22, channels),
            "resample",
            f"{channels} channels",
            scale=2.0,
        )
    if channels in (1, 3):
        agree(
            ga.Policy([ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.Grayscale(4 - channels), ga.ColorJitter(0.2, 0.2)]),
            images(3, 9, 7, channels),
            "colour",
            "grey",
        )


@pytest.mark.parametrize("name", quick(["moderate and erasing", "very strong"], "moderate and erasing"))
@pytest.mark.parametrize(
    "size",
    [slow_unless(quick, size) for size, quick in (((1, 1), True), ((1, 40), True), ((33, 1), False), ((2, 2), False))],
)
def test_images_of_a_pixel_or_a_line_agree(size, name):
    labels = torch.arange(3) if mixes(name) else None
    agree(ga.Policy(POLICIES[name]), images(3, *size), "resample, jump", f"{name} {size}", labels, NORMALISED)


@pytest.mark.parametrize("name", POLICIES)
def test_an_empty_batch_gives_an_empty_batch(name):
    size = size_of(name)
    x = torch.zeros(0, 3, *size, dtype=torch.float32 if name.startswith("H1") else torch.uint8)
    labels = torch.zeros(0, dtype=torch.int64) if mixes(name) else None
    out, soft = run(ga.Policy(POLICIES[name]), x, labels)
    one = run(
        ga.Policy(POLICIES[name]),
        images(1, *size, dtype=x.dtype),
        None if labels is None else torch.zeros(1, dtype=torch.int64),
    )[0]
    assert out.shape == (0, *one.shape[1:]) and out.dtype == one.dtype and (soft is None or soft.shape == (0, 7))


# ---- bits


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("channels", quick([1, 3, 6], 3, 6))
def test_masks_are_the_same_bits(channels, per_channel):
    x = torch.full((4, channels, 35, 33), 0.5)
    got = agree(ga.Policy([ga.SaltAndPepper(0.3, 0.4, per_channel)], seed=2**63 + 5), x, "exact", "mask")
    assert 0.2 < changed(got, x) < 0.4, "vacuous"
    there = F.salt_and_pepper(put(x), 0.3, 0.4, per_channel, seed=9, ids=put(IDS[:4]), epoch=2)
    assert torch.equal(there.cpu(), F.salt_and_pepper(x, 0.3, 0.4, per_channel, seed=9, ids=IDS[:4], epoch=2))


def test_boxes_partners_and_orders_are_the_same_bits():
    x = (torch.arange(7).view(7, 1, 1, 1) / 8).expand(7, 3, 45, 38)
    policy = ga.Policy([ga.RandomErasing(0.7, value=(1.0, 0.25, 0.125)), ga.CutMix(1.0)], seed=5)
    got = agree(policy, x, "exact", "boxes and partners", torch.eye(7))
    assert 0.1 < changed(got, x) < 0.9, "vacuous"
    # multiples of 1/8: nothing below rounds
    x = (torch.arange(9 * 33 * 35) % 8).view(1, 9, 33, 35).float().expand(7, 9, 33, 35)[:, :3] / 8
    stages = [
        ga.RandomInvert(1.0),
        ga.RandomSolarize(0.25, 1.0),
        ga.RandomPosterize(2, 1.0),
        ga.RandomErasing(1.0, value=0.75),
    ]
    moves = [ga.RandomHorizontalFlip(1.0), ga.RandomVerticalFlip(1.0), ga.RandomInvert(1.0)]
    for t in (
        ga.RandomOrder(stages),
        ga.RandomChoice(stages),
        ga.RandomApply([ga.RandomOrder(stages[:3])], 0.7),
        ga.RandomChoice(moves),
        ga.RandomOrder(moves),
    ):
        got = agree(ga.Policy([t]), x, "exact", str(t))
        assert len({tuple(g.flatten().tolist()) for g in got}) > 2 or isinstance(t, ga.RandomOrder | ga.RandomApply), (
            "vacuous: all samples alike"
        )


# ---- functional forms


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_functional_forms_agree_with_the_host(layout, dtype):
    x = images(4, 35, 40, dtype=dtype).contiguous(memory_format=layout)
    partner, lam = torch.tensor([2, 0, 3, 1]), torch.tensor([0.25, 0.5, 1.0, 0.0])
    boxes = torch.tensor([[0, 0, 40, 35], [5, 3, 33, 34], [7, 7, 7, 9], [-3, -2, 9, 80]])
    forms = {
        "cutmix": ("exact", lambda a, p, b, w: F.cutmix(a, p, b)),
        "mixup": ("colour", lambda a, p, b, w: F.mixup(a, p, w)),
        "erase": ("exact", lambda a, p, b, w: F.erase(a, b, (0.0, 0.5, 1.0))),
        "normalize": (
            "colour",
            lambda a, p, b, w: F.normalize(a, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), memory_format=torch.channels_last),
        ),
        "normalize, half": ("colour", lambda a, p, b, w: F.normalize(a, (0.5,), (0.5,), torch.bfloat16)),
    }
    for name, (kind, form) in forms.items():
        got, want = form(*map(put, (x, partner, boxes, lam))).cpu(), form(x, partner, boxes, lam)
        compare(got, want, kind, f"{name} {dtype} {layout}", 5.0)
        assert got.shape == want.shape and got.stride() == want.stride(), name
    assert changed(F.cutmix(put(x), put(partner), put(boxes)).cpu(), x) > 0.3, "vacuous"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_cutmix_writes_into_out_wherever_it_lies(offset, dtype):
    x, partner = put(images(3, 35, 41, dtype=dtype)), put(torch.tensor([2, 0, 1]))
    boxes = put(torch.tensor([[0, 0, 41, 35], [5, 3, 33, 34], [7, 7, 7, 9]]))
    room = torch.full((x.numel() + 16,), 9, dtype=dtype, device=DEVICE)
    out = room[offset : offset + x.numel()].view(x.shape)
    assert F.cutmix(x, partner, boxes, out=out) is out
    assert torch.equal(out, F.cutmix(x, partner, boxes)) and changed(out.cpu(), x.cpu()) > 0.3
    assert bool((room[:offset] == 9).all()) and bool((room[offset + x.numel() :] == 9).all()), (
        "it writes beyond its output"
    )
    wide = torch.full((3, 3, 35, 82), 9, dtype=dtype, device=DEVICE)
    assert torch.equal(F.cutmix(x, partner, boxes, out=wide[..., ::2]), out) and bool((wide[..., 1::2] == 9).all())


# ---- rounding


def test_sixteen_bits_are_rounded_as_torch_casts():
    # ties, both signs, what is too small for a normal number, what is too large for float16
    grid = (torch.arange(2**12) / 2**11 - 1) * (1 + 2**-8)
    values = torch.cat(
        [
            grid,
            1 + torch.arange(256) / 2**12,
            1 + torch.arange(256) / 2**9,
            2.0 ** -torch.arange(1.0, 40),
            2.0 ** torch.arange(0, 30),
            -grid / 3,
        ]
    )
    x = values[: 8 * 3 * (len(values) // 24)].view(1, 3, 8, -1)
    for dtype in (torch.bfloat16, torch.float16):
        for layout in (torch.contiguous_format, torch.channels_last):
            policy = ga.Policy([ga.RandomVerticalFlip(1.0), ga.ToDtype(dtype, scale=True)], memory_format=layout)
            got = run(policy, x)[0]
            assert torch.equal(got, x.flip(2).to(dtype)), f"{dtype} {layout}"
    assert (x.bfloat16().float() != x).any() and not x.half().isfinite().all(), "vacuous"


def test_sixteen_bits_after_a_chain_are_those_of_float32_cast():
    chain = [*POLICIES["moderate and erasing"][:-1]]
    x = images(6, 41, 53, dtype=torch.uint8)
    exact = run(ga.Policy([*chain, FLOAT]), x, ids=IDS[:6])[0]
    for dtype in (torch.bfloat16, torch.float16):
        got = run(ga.Policy([*chain, ga.ToDtype(dtype, scale=True)]), x, ids=IDS[:6])[0]
        # two programs may contract a product and a sum otherwise: a last bit before a tie
        assert changed(got.float(), exact.to(dtype).float()) < 1e-3
        compare(got, exact.to(dtype), "colour", str(dtype))
