"""Images of different sizes in planes, [3, H, W] as decoders leave them, and views of larger ones: the kernels read them
where they lie, and make of them what they make of [H, W, 3]."""

from collections.abc import Callable

import pytest
import torch
from compare import changed, compare
from gpuaug_kernels import codes, launch
from torch import Tensor
from waits import CARD, card

import gpuaug as ga
from gpuaug import strides
from gpuaug.exec.triton import executor

SIZES = [(37, 45), (20, 31), (9, 14), (33, 1)]
IDS = torch.tensor([3, 1, 2**40, 7])
NOISE = torch.Generator().manual_seed(5)


def pixels(channels: int = 3, dtype: torch.dtype = torch.uint8) -> list[Tensor]:
    """[H, W, C]"""
    x = [torch.randint(0, 256, (h, w, channels), generator=NOISE, dtype=torch.uint8) for h, w in SIZES]
    return x if dtype == torch.uint8 else [i.to(dtype) / 255 for i in x]


def planes(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1).contiguous().permute(1, 2, 0)


def within(image: Tensor) -> Tensor:
    """The same image as a part of a larger one of the same layout, at an odd place."""
    h, w, c = image.shape
    channels_first = image.stride(0) < image.stride(2)
    wide = torch.full(
        (c, h + 5, w + 9) if channels_first else (h + 5, w + 9, c), 255, dtype=image.dtype, device=image.device
    )
    part = (wide.permute(1, 2, 0) if channels_first else wide)[2 : 2 + h, 3 : 3 + w]
    return part.copy_(image)


def grey_as_three(image: Tensor) -> Tensor:
    """One plane that is read as three."""
    return image[..., :1].contiguous().expand(-1, -1, 3)


WAYS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "planes": (planes, strides.PLANAR),
    "parts of planes": (lambda i: within(planes(i)), strides.PLANAR),
    "parts of pixels": (within, strides.PACKED),
    "one plane for three channels": (grey_as_three, strides.PLANAR),
}
MEAN = ga.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
CROP, FLOATS = ga.RandomResizedCrop((19, 30)), ga.ToDtype(torch.float32, scale=True)
POLICIES: dict[str, list[ga.Transform]] = {
    "crop": [CROP, ga.RandomHorizontalFlip(), ga.ColorJitter(0.2, 0.2), FLOATS, MEAN],
    "pixels": [ga.RandomCrop((19, 30), pad_if_needed=True), ga.RandomVerticalFlip(), ga.RandomEqualize(0.5)],
    "mix": [CROP, ga.CutMix(1.0, 5)],
}
# of images of one size
AROUND: dict[str, list[ga.Transform]] = {
    "rotation": [ga.RandomRotation(40, "bilinear", fill=0.5)],
    "nearest": [ga.RandomAffine(30, (0.1, 0.1))],
    "blur": [ga.GaussianBlur(5), ga.RandomAdjustSharpness(2.0)],
    "statistics": [ga.RandomAutocontrast(0.5), ga.RandomEqualize(0.5), ga.ColorJitter(0.4, 0.4, 0.4, 0.1)],
}


@pytest.fixture
def sources(monkeypatch) -> list:
    """What is read of images as they were given."""
    found, source = [], executor._source
    monkeypatch.setattr(executor, "_source", lambda images: (found.append(source(images)), found[-1])[1])
    return found


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("way", WAYS)
def test_images_of_own_sizes_are_read_where_they_lie(way, name, sources):
    change, lies = WAYS[way]
    given = [change(i) for i in pixels()]
    policy = ga.Policy(POLICIES[name], seed=5)
    labels = torch.arange(len(IDS)) % 5 if name == "mix" else None
    got, want, plain = (
        policy(ga.Ragged.of(tuple(images)), labels, ids=IDS, backend=backend)
        for backend, images in (
            ("triton", given),
            ("reference", given),
            ("triton", [i.contiguous() for i in given]),
        )
    )
    got, want, plain = (x if labels is None else x[0] for x in (got, want, plain))
    compare(got, want, "resample", f"{way} {name}")
    assert torch.equal(got, plain) and got.float().std() > 0.05, "vacuous: flat"
    first = sources[0]
    assert first.ragged and first.planar == (lies == strides.PLANAR) and first.data.shape == (len(IDS), 3)
    assert first.data.tolist() == [[i.data_ptr(), i.stride(0), i.stride(2)] for i in given]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_are_read_where_they_lie(channels, dtype, sources):
    given = pixels(channels, dtype)
    policy = ga.Policy([ga.RandomResizedCrop((19, 30)), ga.RandomVerticalFlip()], seed=5)
    want = policy(ga.Ragged.of(tuple(given)), ids=IDS, backend="triton")
    for change in (planes, within, lambda i: within(planes(i))):
        images = tuple(map(change, given))
        got = policy(ga.Ragged.of(images), ids=IDS, backend="triton")
        assert torch.equal(got, want)
        if not images[0].is_contiguous():
            assert sources[-1].data[:, 0].tolist() == [i.data_ptr() for i in images]
    assert len(sources) == 4


@pytest.mark.parametrize("name", AROUND)
def test_a_dense_batch_of_planes_is_as_one_of_pixels(name):
    x = torch.randint(0, 256, (4, 3, 27, 31), generator=NOISE, dtype=torch.uint8)
    policy = ga.Policy(AROUND[name], seed=2)
    got, plain = (
        policy(images, ids=IDS, backend="triton") for images in (x, x.contiguous(memory_format=torch.channels_last))
    )
    assert torch.equal(got, plain) and changed(got, x) > 0.3, "vacuous"
    wide = torch.zeros(4, 3, 40, 50, dtype=torch.uint8)
    wide[:, :, 3:30, 5:36] = x
    assert torch.equal(policy(wide[:, :, 3:30, 5:36], ids=IDS, backend="triton"), got)


def test_bytes_of_three_planes_are_read_by_words():
    forms, program = [], executor.prepare
    policy = ga.Policy([CROP], seed=5)
    frame = ga.ir.Frame(torch.tensor(SIZES), None, 3, torch.uint8)
    keys = ga.rng.Keys(5, 0, IDS, torch.zeros_like(IDS))
    (made,) = program(policy._plan(keys, frame, policy._draw(keys, frame)))
    for change in (planes, within, torch.Tensor.contiguous, grey_as_three):
        source = executor._source(ga.Ragged.of(tuple(change(i) for i in pixels())))
        forms.append(launch.source_form(source, made.program))
    assert forms == [codes.PLANES, codes.WORDS, codes.WORDS, codes.PLANES]


def test_planes_that_lie_too_far_apart_for_words_are_read_value_by_value():
    frame, keys = ga.ir.Frame(torch.tensor([[9, 9]]), (9, 9), 3, torch.uint8), ga.rng.Keys(5, 0, IDS[:1], IDS[:1] * 0)
    policy = ga.Policy([CROP])
    (made,) = executor.prepare(policy._plan(keys, frame, policy._draw(keys, frame)))
    for plane, pitch, form in ((2**30, 9, codes.EACH), (81, 2**28, codes.EACH), (2**29, 9, codes.PLANES)):
        x = torch.empty_strided((1, 3, 9, 9), (3 * plane, plane, pitch, 1), dtype=torch.uint8, device="meta")
        assert launch.source_form(executor._source(x), made.program) == form
        image = x[0].permute(1, 2, 0)
        assert (strides.way([image]) == strides.PLANAR) == (form == codes.PLANES)


def test_what_lies_otherwise_than_most_is_copied_alone():
    given = pixels()
    mixed = [planes(i) for i in given[:2]] + given[2:]
    found = strides.arranged(mixed)
    assert strides.way(mixed) == strides.MIXED and strides.way(found) == strides.PLANAR
    assert [a is b for a, b in zip(found, mixed, strict=True)] == [True, True, False, True], "one column lies both ways"
    back = [planes(i) if k == 0 else i for k, i in enumerate(given)]
    found = strides.arranged(back)
    assert strides.way(found) == strides.CONTIGUOUS and all(a is b for a, b in zip(found[1:], back[1:], strict=True))
    for images in (mixed, back):
        assert all(torch.equal(a, b) for a, b in zip(strides.arranged(images), images, strict=True))


def test_windows_of_planes_are_read_where_they_lie():
    policy = ga.Policy([ga.RandomResizedCrop(16), ga.RandomHorizontalFlip()], seed=4)
    whole, sizes = pixels(), torch.tensor(SIZES)
    found = policy.windows(IDS, sizes)
    parts = [planes(i)[t : t + h, l : l + w] for i, (t, l, h, w) in zip(whole, found.windows.tolist(), strict=True)]
    images = ga.Ragged.windowed(parts, sizes, found.windows)
    assert strides.way(images.images) == strides.PLANAR and images.windows is not None
    got = policy(ga.Batch(images, ids=IDS, params=found.params), backend="triton").images
    assert torch.equal(got, policy(ga.Ragged(whole, "hwc"), ids=IDS, backend="triton"))


def test_on_a_card_planes_take_no_more_work_than_pixels():
    policy = ga.Policy([CROP, ga.RandomHorizontalFlip(), FLOATS, MEAN])
    with card() as on:
        done = {}
        for name, change in {"pixels": torch.Tensor.contiguous, **{k: v for k, (v, _) in WAYS.items()}}.items():
            given = [change(torch.zeros(h, w, 3, dtype=torch.uint8, device=CARD)) for h, w in SIZES]
            on.work.clear()
            images = ga.Ragged(given, "hwc")
            assert on.work == [], f"{name} are copied"
            ids = torch.arange(len(SIZES), device=CARD)
            on.refuses = False
            policy(images, ids=ids, epoch=1)
            on.work.clear()
            policy(images, ids=ids, epoch=1)
            done[name] = sorted(on.work)
    assert len(set(map(tuple, done.values()))) == 1 and "kernel" in done["planes"], done
