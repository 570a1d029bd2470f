"""Ring 4: folded passes give the images of passes run one by one, and where they must fold they do."""

import random

import pytest
import torch
from compare import changed, compare

import gpuaug as ga
from gpuaug import fuse, ir
from gpuaug.exec import reference
from gpuaug.images import as_images

RGB = (0.2, 0.7, 0.4)
N = 5


def both(transforms: list, images, seed: int = 0) -> tuple[object, object, ir.Sequence, ir.Sequence]:
    """Folded and never folded images, and their passes."""
    policy = ga.Policy(transforms, seed)
    source = as_images(images)
    ragged = isinstance(source, ga.Ragged)
    size = source.size if ragged else tuple(source.shape[2:])
    channels = source.channels if ragged else source.shape[1]
    dtype = torch.uint8 if ragged else source.dtype
    params = policy.draw(torch.arange(len(source)) * 3, epoch=1, size=size, channels=channels, dtype=dtype)
    frame = ir.Frame(params.size, None if ragged else tuple(source.shape[2:]), channels, dtype)
    # images of different sizes at the end have no dtype to round to
    plain = tuple(p for p in policy._lower(frame, params) if not isinstance(p, ir.Finish))
    keys = policy._plan(policy._keys(params.ids, 1, None, len(source), params.ids.device), frame, params).keys
    folded = fuse.fold(plain)
    x = reference.floats(source)
    return reference.run_passes(folded, x, keys), reference.run_passes(plain, x, keys), folded, plain


def agree(transforms: list, images, seed: int = 0) -> int:
    """How many passes folding saved."""
    got, want, folded, plain = both(transforms, images, seed)
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        compare(a, b, "fused", f"{transforms} at sample {i}: {[type(p).__name__ for p in folded]}")
    return len(plain) - len(folded)


def a_move(r: random.Random) -> ga.Transform:
    """A transform that moves or resamples pixels, drawn for sizes of 10 to 40."""
    mode = r.choice(("constant", "constant", "edge", "reflect", "symmetric"))
    fill = r.choice((0, 0, 0.5, RGB)) if mode == "constant" else 0
    size = (r.randrange(7, 24), r.randrange(7, 24))
    interpolation = r.choice(("bilinear", "bilinear", "bilinear", "nearest", "nearest-exact"))
    return r.choice(
        (
            lambda: ga.Resize(r.choice((size, size[0])), interpolation, antialias=r.random() < 0.8),
            lambda: ga.RandomResizedCrop(
                size, scale=(0.2, 1.0), interpolation=interpolation, antialias=r.random() < 0.8
            ),
            lambda: ga.CenterCrop((r.randrange(5, 30), r.randrange(5, 30))),
            lambda: ga.RandomCrop(size, padding=r.randrange(6), pad_if_needed=True, fill=fill, padding_mode="constant"),
            lambda: ga.Pad(tuple(r.randrange(5) for _ in range(4)), fill, mode),
            lambda: ga.RandomHorizontalFlip(0.5),
            lambda: ga.RandomVerticalFlip(0.5),
        )
    )()


def a_warp(r: random.Random) -> ga.Transform:
    interpolation, fill = r.choice(("nearest", "bilinear")), r.choice((None, 0, 0.5, RGB))
    return r.choice(
        (
            ga.RandomRotation(50, interpolation, fill=fill),
            ga.RandomAffine(20, (0.1, 0.2), (0.8, 1.2), 8, interpolation, fill),
        )
    )


@pytest.mark.parametrize("seed", range(60))
def test_random_chains_of_moves_and_resamples_give_the_same_images_folded(seed, images):
    r = random.Random(seed)
    x = images(N, r.randrange(10, 40), r.randrange(10, 40))
    agree([a_move(r) for _ in range(r.randrange(2, 6))], x, seed)


@pytest.mark.parametrize("seed", range(30))
def test_random_chains_with_warps_give_the_same_images_folded(seed, images):
    r = random.Random(1000 + seed)
    x = images(N, r.randrange(10, 40), r.randrange(10, 40))
    chain = [a_warp(r) if r.random() < 0.4 else a_move(r) for _ in range(r.randrange(2, 6))]
    agree([*chain, a_warp(r), ga.RandomHorizontalFlip(), ga.CenterCrop(7)], x, seed)


@pytest.mark.parametrize("seed", range(30))
def test_random_chains_on_squares_with_quarter_turns_give_the_same_images_folded(seed, images):
    r = random.Random(2000 + seed)
    side = r.randrange(8, 30)
    chain = []
    for _ in range(r.randrange(2, 5)):
        p = r.randrange(4)
        # only what keeps a square: a quarter turn of anything else leaves a dense batch ragged
        chain += [
            ga.RandomRot90(),
            r.choice(
                (ga.Resize((side, side)), ga.Pad(p, 0.5), ga.CenterCrop(side - 2), ga.RandomResizedCrop(side + 3))
            ),
        ]
    agree([*chain, ga.RandomRot90(0.7)], images(N, side, side), seed)


@pytest.mark.parametrize("seed", range(30))
def test_random_chains_on_images_of_different_sizes_give_the_same_images_folded(seed, pictures):
    r = random.Random(3000 + seed)
    x = pictures([(r.randrange(10, 40), r.randrange(10, 40)) for _ in range(N)])
    chain = [ga.RandomRot90(0.6) if r.random() < 0.3 else a_move(r) for _ in range(r.randrange(1, 5))]
    agree([*chain, r.choice((ga.Resize((11, 13)), ga.RandomResizedCrop(9), ga.CenterCrop((20, 17))))], x, seed)


@pytest.mark.parametrize("interpolation", ["nearest", "nearest-exact"])
def test_a_flip_of_a_nearest_resize_is_exactly_the_flip(interpolation, images):
    """At positions that are integers a last bit would pick the neighbour."""
    for side in (9, 14, 26, 33):
        for out in (5, 9, 18, 27):
            x = images(4, side, side)
            got, want, folded, _ = both(
                [ga.Resize((out, out), interpolation), ga.RandomHorizontalFlip(1.0), ga.RandomVerticalFlip(1.0)], x
            )
            assert len(folded) == 1
            compare(got, want, "exact", f"{side} to {out}")


FOLDS = {
    "crop, flip, flip": (
        [ga.RandomResizedCrop((13, 11)), ga.RandomHorizontalFlip(), ga.RandomVerticalFlip()],
        ["Resample"],
    ),
    "resize, centre crop, flip": ([ga.Resize(20), ga.CenterCrop(16), ga.RandomHorizontalFlip()], ["Resample"]),
    "pad, random crop, flip": ([ga.Pad(4), ga.RandomCrop(24), ga.RandomHorizontalFlip()], ["Resample"]),
    "random crop with padding, flip": (
        [ga.RandomCrop(24, padding=4, padding_mode="reflect"), ga.RandomHorizontalFlip()],
        ["Resample"],
    ),
    "flip, crop": ([ga.RandomHorizontalFlip(), ga.RandomResizedCrop((13, 11))], ["Resample"]),
    "flip, pad, resize": ([ga.RandomVerticalFlip(), ga.Pad(3, 0.5), ga.Resize((20, 20))], ["Resample"]),
    "quarter turn, crop": ([ga.RandomRot90(), ga.RandomResizedCrop((13, 11)), ga.RandomHorizontalFlip()], ["Resample"]),
    "affine, flips": (
        [ga.RandomAffine(30, interpolation="bilinear"), ga.RandomHorizontalFlip(), ga.RandomVerticalFlip()],
        ["Warp"],
    ),
    "affine, flip, centre crop": (
        [ga.RandomAffine(30, fill=None), ga.RandomVerticalFlip(), ga.CenterCrop(20)],
        ["Warp"],
    ),
    # these must not fold: torchvision interpolates twice
    "crop of a resize": ([ga.Resize((20, 20)), ga.RandomResizedCrop(10)], ["Resample", "Resample"]),
    "warp of a crop": ([ga.RandomResizedCrop(20), ga.RandomRotation(10)], ["Resample", "Warp"]),
    "two borders": ([ga.Pad(2, 0.5), ga.Pad(2, 0.25)], ["Resample", "Resample"]),
}


@pytest.mark.parametrize("name", FOLDS)
def test_what_must_fold_folds_and_what_must_not_does_not(name, images):
    chain, passes = FOLDS[name]
    x = images(N, 31, 31)
    got, want, folded, _ = both(chain, x)
    assert [type(p).__name__ for p in folded] == passes
    compare(got, want, "fused", name)
    assert got.shape != x.shape or changed(got, x) > 0.05, "vacuous"
