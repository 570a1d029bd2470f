"""Each operation of the reference calls Kornia, or Kornia's differs, by how much stands here, or Kornia has no such
operation."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kornia.augmentation
import kornia.enhance
import kornia.geometry
import pytest
import torch
from compare import TOLERANCES, compare
from torch import Tensor

from gpuaug import ir, rng
from gpuaug.exec import reference

N, H, W = 3, 40, 56
KEYS = rng.Keys(0, 0, torch.arange(N), torch.zeros(N, dtype=torch.int64))
FACTOR = torch.tensor([0.3, 0.8, 1.9])
SHIFT = torch.tensor([-0.4, 0.1, 0.37])
BITS = torch.tensor([1, 4, 7])
TURN = torch.tensor([20.0, -35.0, 50.0])


@dataclass(frozen=True)
class Differs:
    """An operation of Kornia that looks like a pass, and why the reference cannot call it."""

    of: type[ir.Pass]
    name: str
    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor], Tensor]
    least: float  # the largest difference of a value is at least this
    why: str
    images: Callable[[Tensor], Tensor] = lambda x: x


def ours(p: ir.Pass) -> Callable[[Tensor], Tensor]:
    return lambda x: reference.apply(p, x, KEYS)


def warp(x: Tensor) -> Tensor:
    """A rotation about the centre that torchvision would fill with 0.5."""
    centre = torch.tensor([(W - 1) / 2, (H - 1) / 2], dtype=torch.float64)
    radians = TURN.double().deg2rad()
    inverse = torch.eye(3, dtype=torch.float64).repeat(N, 1, 1)
    inverse[:, 0, 0], inverse[:, 0, 1] = radians.cos(), -radians.sin()
    inverse[:, 1, 0], inverse[:, 1, 1] = radians.sin(), radians.cos()
    inverse[:, :2, 2] = centre - (inverse[:, :2, :2] @ centre)
    size = torch.tensor([[H, W]]).expand(N, 2)
    source = torch.tensor([[0, 0, W, H]]).expand(N, 4)
    return reference.apply(ir.Warp(inverse, size, (H, W), source, "bilinear", (0.5,)), x, KEYS)


def crop(x: Tensor) -> Tensor:
    """The whole image at half its size, antialiased."""
    inverse = torch.tensor([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]], dtype=torch.float64).repeat(N, 1, 1)
    whole, out = (torch.tensor([[0, 0, w, h]]).expand(N, 4) for w, h in ((W, H), (W // 2, H // 2)))
    size = torch.tensor([[H // 2, W // 2]]).expand(N, 2)
    p = ir.Resample(inverse, torch.full((N, 2), 2.0, dtype=torch.float64), whole, whole, out, size, (H // 2, W // 2))
    return reference.apply(p, x, KEYS)


def random_resized_crop(x: Tensor) -> Tensor:
    """Of the whole image: nothing is random but whether it is smoothed."""
    torch.manual_seed(0)
    return kornia.augmentation.RandomResizedCrop((H // 2, W // 2), scale=(1.0, 1.0), ratio=(W / H, W / H))(x)


# a perspective that looks past the image at two corners: input pixel -> output pixel
TILT = torch.tensor([[0.9, 0.1, 3.0], [0.05, 0.8, 2.0], [0.0, 1e-3, 1.0]], dtype=torch.float64).repeat(N, 1, 1)


def perspective(x: Tensor, fill: tuple[float, ...] | None) -> Tensor:
    size, source = (torch.tensor([v]).expand(N, len(v)) for v in ((H, x.shape[3]), (0, 0, x.shape[3], H)))
    p = ir.Warp(torch.linalg.inv(TILT), size, (H, x.shape[3]), source, "bilinear", fill)
    return reference.apply(p, x, KEYS)


def their_perspective(x: Tensor, **border: Any) -> Tensor:
    return kornia.geometry.warp_perspective(x, TILT.float(), (H, x.shape[3]), **border)


def long(x: Tensor) -> Tensor:
    """Images of 4480 columns, as panoramas have."""
    return x.repeat(1, 1, 1, 80)


def half_size(x: Tensor) -> Tensor:
    """A turn and half the size in one interpolation."""
    size, footprint = torch.tensor([[H // 2, W // 2]]).expand(N, 2), torch.full((N, 2), 2.0, dtype=torch.float64)
    window = torch.tensor([[0, 0, W, H]]).expand(N, 4)
    p = ir.Project(torch.linalg.inv(HALF), footprint, window, size, (H // 2, W // 2), (0.5,))
    return reference.apply(p, x, KEYS)


HALF = torch.tensor([[0.45, 0.1, 0.0], [-0.1, 0.45, 3.0], [0.0, 0.0, 1.0]], dtype=torch.float64).repeat(N, 1, 1)


def their_half_size(x: Tensor) -> Tensor:
    fill = torch.full((3,), 0.5)
    return kornia.geometry.warp_perspective(x, HALF.float(), (H // 2, W // 2), padding_mode="fill", fill_value=fill)


REACH, SPREAD, MOVES = 12, 4.0, 40.0


def elastic(x: Tensor) -> Tensor:
    size = torch.tensor([[H, W]]).expand(N, 2)
    p = ir.Elastic(0, (MOVES, MOVES), (SPREAD, SPREAD), (REACH, REACH), size, (H, W))
    return reference.apply(p, x, KEYS)


def their_elastic(x: Tensor) -> Tensor:
    """By the same random numbers; its displacements are in halves of the image."""
    words = KEYS.pixels(0, H, W, 2)[..., 0, :2]
    noise = (2 * rng.unit(words) - 1).float().permute(0, 3, 1, 2)
    taps = 2 * REACH + 1
    return kornia.geometry.transform.elastic_transform2d(
        x, noise, (taps, taps), (SPREAD, SPREAD), (MOVES / W, MOVES / H)
    )


def wide(x: Tensor) -> Tensor:
    """Values beyond 0 and 1, as noise without a clip and Normalize leave them."""
    return 3 * x - 1


def flat(x: Tensor) -> Tensor:
    return torch.full_like(x, 0.4)


GRAY = "its gray is 0.299 R + 0.587 G + 0.114 B; torchvision's is 0.2989 R"
DIFFERS = [
    Differs(
        ir.Contrast,
        "adjust_contrast",
        ours(ir.Contrast(FACTOR)),
        lambda x: kornia.enhance.adjust_contrast(x, FACTOR),
        0.1,
        "it has no mean",
    ),
    Differs(
        ir.Contrast,
        "adjust_contrast_with_mean_subtraction",
        ours(ir.Contrast(FACTOR)),
        lambda x: kornia.enhance.adjust_contrast_with_mean_subtraction(x, FACTOR),
        2.5e-5,
        GRAY,
    ),
    Differs(
        ir.Saturation,
        "adjust_saturation",
        ours(ir.Saturation(FACTOR)),
        lambda x: kornia.enhance.adjust_saturation(x, FACTOR),
        0.1,
        "it scales S of HSV; torchvision blends with gray",
    ),
    Differs(
        ir.Saturation,
        "adjust_saturation_with_gray_subtraction",
        ours(ir.Saturation(FACTOR)),
        lambda x: kornia.enhance.adjust_saturation_with_gray_subtraction(x, FACTOR),
        5e-5,
        GRAY,
    ),
    Differs(
        ir.Hue,
        "adjust_hue",
        ours(ir.Hue(SHIFT)),
        lambda x: kornia.enhance.adjust_hue(x, 2 * torch.pi * SHIFT),
        0.1,
        "the same in [0, 1], other values beyond it, where HSV is not defined and torchvision's formula goes on",
        wide,
    ),
    Differs(
        ir.Sharpness,
        "sharpness",
        ours(ir.Sharpness(FACTOR)),
        lambda x: kornia.enhance.sharpness(x, FACTOR),
        0.1,
        "it clamps the blurred image; the same in [0, 1]",
        wide,
    ),
    Differs(
        ir.Posterize,
        "posterize",
        ours(ir.Posterize(BITS)),
        lambda x: kornia.enhance.posterize(x, BITS),
        0.002,
        "it masks the bits of a byte; torchvision's float path takes floor(x 2^bits) / 2^bits",
    ),
    Differs(
        ir.AddBelow,
        "solarize, additions",
        ours(ir.AddBelow(FACTOR / 8, torch.full((N,), 0.5))),
        lambda x: kornia.enhance.solarize(x, 0.5, FACTOR / 8),
        0.1,
        "it adds everywhere and inverts above the threshold; timm's adds below it, and leaves the rest",
    ),
    Differs(
        ir.Jpeg,
        "jpeg_codec_differentiable",
        ours(ir.Jpeg(torch.full((N,), 50))),
        lambda x: kornia.enhance.jpeg_codec_differentiable(x, torch.full((N,), 50.0)),
        0.05,
        "it rounds by a polynomial that has a gradient, and halves chroma by interpolation",
    ),
    Differs(
        ir.Autocontrast,
        "normalize_min_max",
        ours(ir.Autocontrast()),
        lambda x: kornia.enhance.normalize_min_max(x),
        0.3,
        "it turns a constant channel to 0; torchvision leaves it",
        flat,
    ),
    Differs(
        ir.Equalize,
        "equalize",
        ours(ir.Equalize()),
        lambda x: kornia.enhance.equalize(x),
        0.003,
        "its table rounds otherwise than Pillow's",
    ),
    Differs(ir.Resample, "RandomResizedCrop", crop, random_resized_crop, 0.05, "it takes no antialias"),
    Differs(
        ir.Resample,
        "resize, antialias",
        crop,
        lambda x: kornia.geometry.resize(x, (H // 2, W // 2), antialias=True),
        0.01,
        "it blurs with a Gaussian first; torchvision averages under a triangle",
    ),
    Differs(
        ir.Warp,
        "rotate",
        warp,
        lambda x: kornia.geometry.rotate(x, TURN, padding_mode="zeros"),
        0.1,
        "it fills with zeros; torchvision weights a fill by the part of a pixel inside the image",
    ),
    Differs(
        ir.Warp,
        "warp_perspective, filled",
        lambda x: perspective(x, (0.5,)),
        lambda x: their_perspective(x, padding_mode="fill", fill_value=torch.full((3,), 0.5)),
        0.01,
        "it weights a fill by the part of a pixel outside the image once; torchvision weights the pixel by the rest too",
    ),
    Differs(
        ir.Warp,
        "warp_perspective, long",
        lambda x: perspective(x, None),
        their_perspective,
        1.5e-4,
        "it computes positions in float32, between -1 and 1; here they are float64",
        long,
    ),
    Differs(
        ir.Project,
        "warp_perspective, half the size",
        half_size,
        their_half_size,
        0.05,
        "it interpolates between four pixels; here all under the footprint of an output pixel are averaged",
    ),
    Differs(
        ir.Elastic,
        "elastic_transform2d",
        elastic,
        their_elastic,
        0.05,
        "it smooths the field with zeros beyond its ends; torchvision reflects it",
    ),
]
# passes for which Kornia has no function of tensors: what is random there comes from torch's generator, batch by batch
# (see below), and is not keyed
KEYED = (ir.PermuteChannels, ir.SaltPepper, ir.GaussianNoise, ir.Erase, ir.CutMix, ir.MixUp, ir.MixInside)
# the chain's own: an affine map of values with a factor per sample, branches, chains that are added up, a user's
# function, the rounding at the end
OWN = (ir.Affine, ir.Choice, ir.Blend, ir.Custom, ir.Finish)
# function of Kornia -> the pass whose rule calls it
CALLED = {
    "normalize": ir.Normalize,
    "filter2d_separable": ir.GaussianBlur,
    "get_gaussian_kernel1d": ir.GaussianBlur,
    "solarize": ir.Solarize,
    "rgb_to_grayscale": ir.Gray,
}


# of Kornia 0.8.1, in its JPEG
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
@pytest.mark.parametrize("case", DIFFERS, ids=lambda c: c.name)
def test_an_operation_that_is_not_called_differs_by_more_than_the_tolerance(case, images):
    x = case.images(images(N, H, W))
    worst = (case.ours(x) - case.theirs(x)).abs().max().item()
    assert worst >= case.least > TOLERANCES["colour"][0], f"{case.name} differs by {worst:g} only: call it"
    assert case.why


@pytest.mark.parametrize("case", [c for c in DIFFERS if "the same in [0, 1]" in c.why], ids=lambda c: c.name)
def test_an_operation_that_is_the_same_between_zero_and_one_is(case, images):
    x = images(N, H, W)
    compare(case.theirs(x), case.ours(x), "colour", case.name)


def test_every_pass_of_the_reference_is_accounted_for():
    rules = {t for t in reference.apply.registry if t is not object and issubclass(t, ir.Pass)}
    told = [*CALLED.values(), *(c.of for c in DIFFERS), *KEYED, *OWN]
    assert rules == set(told)
    assert not set(CALLED.values()) & {*(c.of for c in DIFFERS), *KEYED, *OWN}, "called, and said to differ"


def test_the_reference_calls_what_is_said():
    tree = ast.parse(Path(reference.__file__).read_text(encoding="utf-8"))
    found = {
        a.name
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("kornia")
        for a in n.names
    }
    assert found == CALLED.keys()


def test_draws_of_kornia_depend_on_the_batch(images):
    x = images(N, H, W)
    for make in (
        kornia.augmentation.RandomSaltAndPepperNoise,
        kornia.augmentation.RandomGaussianNoise,
        kornia.augmentation.RandomErasing,
    ):
        augment = make(p=1.0)
        torch.manual_seed(0)
        whole = augment(x)[1:]
        torch.manual_seed(0)
        alone = augment(x[1:])
        assert (whole != alone).any(), f"{make.__name__} gives a sample the same draws in another batch"
