"""The passes: the intermediate representation between transforms and executors.

Transforms are many and open; they lower to these few passes, and executors run nothing else.  A pass is a frozen
dataclass that holds the parameters of every sample of a batch as tensors; `exec/reference.py` says in plain torch what
each computes, and every other executor must agree with it.  RandomHorizontalFlip, for example, is a `Resample` whose
matrix maps output x to W - 1 - x for the samples that are flipped.

Conventions.  The first axis of every tensor is the sample.  x runs right, y down; positions are pixel centres: the
first pixel is 0. Rectangles are [N, 4] int64 (x0, y0, x1, y1) with exclusive far edges.  Matrices are [N, 3, 3] float64
on (x, y, 1) and map an output position to an input position.  Values are float32, nominally in [0, 1] before any
Normalize.  No pass holds randomness: noise is named by the slot that keys it.

Interpolation.  A tap is an input pixel with its weight.  One whose weight is zero is left out of the sum rather than
multiplied, since 0 * NaN is NaN: NaN and Inf stay where pixels only move, and reach no further than the weights do.  A
weight below `NOTHING` of the largest that a tap can have counts as zero, for that is what rounding leaves of a zero.
Where all taps hold the same value the result is that value to the bit, so that a constant image stays as it is, and on
its side of every threshold that follows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from gpuaug_kernels import codes
from torch import Tensor

Sequence = tuple["Pass", ...]
# what is read beyond a source, by its name; and the weight of a tap below which it has none
BORDERS, NOTHING = tuple(codes.BORDERS), codes.NOTHING


@dataclass(frozen=True, eq=False)
class Frame:
    """What the images are at one point of a policy."""

    size: Tensor  # [N, 2] int64 (H, W)
    fixed: tuple[int, int] | None  # (H, W) where the policy guarantees that all samples share it; else None
    channels: int
    dtype: torch.dtype  # what torchvision would hold here; only its range convention matters

    def resized(self, fixed: tuple[int, int]) -> "Frame":
        """The same images at one common size."""
        return Frame(rows(fixed, self.size), fixed, self.channels, self.dtype)

    def whole(self) -> Tensor:
        """The rectangle of every image: [N, 4] (0, 0, W, H)."""
        return self._whole

    @cached_property
    def _whole(self) -> Tensor:
        if self.fixed is not None:
            return rows((0, 0, self.fixed[1], self.fixed[0]), self.size)
        return torch.cat([torch.zeros_like(self.size), self.size.flip(1)], 1)


def rows(values: tuple[float, ...], like: Tensor, dtype: torch.dtype = torch.int64) -> Tensor:
    """The same row for every sample of `like`, made on its device without a copy that waits for it: [N,
    len(values)]."""
    if like.device.type == "cpu":
        return torch.tensor([values], dtype=dtype, device="cpu").expand(len(like), -1)
    return torch.stack([torch.full((len(like),), v, dtype=dtype, device=like.device) for v in values], 1)


class Pass:
    """One step of a plan."""

    __slots__ = ()


class Pointwise(Pass):
    """An output pixel needs that pixel alone, its position, and perhaps a statistic of the image as it stands there."""

    statistic: str | None = None  # "mean" (of gray), "range" (per channel) or "histogram" (per channel)


# ---- geometry


@dataclass(frozen=True, eq=False)
class Resample(Pass):
    """Axis-aligned resampling: crop, resize, flip, quarter turn, pad.  The only pass that takes images of different
    sizes.

    An output pixel inside `live` is the mean, under a kernel of half width `footprint` around its input position, of
    the pixels of `window`; weights are normalised over the window, so taps never leave it.  Where the window exceeds
    `source`, `extend` says what is there.  An output pixel outside `live` is `fill`.

    Kernels, of u = distance / footprint: "triangle" 1 - u; "catmull_rom" and "cubic" Keys's cubic of 2 u for a = -1/2
    and -3/4 (IEEE Trans. ASSP 29, 1981); "lanczos" sinc(3 u) sinc(u); "floor" takes the pixel at floor(position), for
    nearest."""

    inverse: Tensor  # [N, 3, 3] float64; the linear part is diagonal or antidiagonal
    footprint: Tensor  # [N, 2] float64 (x, y) in input pixels, >= 1 for a triangle, 2 for a cubic, 3 for Lanczos
    window: Tensor  # [N, 4] int64, input pixels
    source: Tensor  # [N, 4] int64, input pixels
    live: Tensor  # [N, 4] int64, output pixels
    size: Tensor  # [N, 2] int64, output (H, W)
    fixed: tuple[int, int] | None
    kernel: str = "triangle"
    extend: str = "none"  # "none" (it never does), "constant", "edge", "reflect" or "symmetric"
    fill: tuple[float, ...] = (0.0,)  # one value, or one per channel
    integer_shift: bool = False  # positions are integers, so that pixels move and nothing is interpolated
    clamp: bool = False  # to [0, 1], where a kernel with negative weights leaves it; borders are not clamped


@dataclass(frozen=True, eq=False)
class Warp(Pass):
    """Projective resampling of images of one size: affine, rotation, perspective.

    Outside the image is zero.  With `fill` None that is all; else the result is (S - fill) * m + fill, S the weighted
    sum of taps and m the weight that fell inside the image (for "nearest": fill where the nearest tap is outside)."""

    inverse: Tensor  # [N, 3, 3] float64
    size: Tensor  # [N, 2] int64
    fixed: tuple[int, int]
    source: Tensor  # [N, 4] int64, the input image
    kernel: str = "bilinear"  # "bilinear", or "nearest": half to even
    fill: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class Project(Pass):
    """Several resamples as one interpolation: a projective map under a triangle of half width `footprint`.

    With S the weighted mean of the taps inside `window` and m their share of all the weight, the result is m S + (1 -
    m) fill; with `fill` None it is S, for maps that stay inside."""

    inverse: Tensor  # [N, 3, 3] float64
    footprint: Tensor  # [N, 2] float64 (x, y) in input pixels, >= 1
    window: Tensor  # [N, 4] int64, input pixels, inside the image
    size: Tensor  # [N, 2] int64
    fixed: tuple[int, int]
    fill: tuple[float, ...] | None = None


# ---- points


@dataclass(frozen=True, eq=False)
class Affine(Pointwise):
    """scale * x + bias, clamped to [0, 1] where `clamp`."""

    scale: Tensor  # [N, 1] or [N, C]
    bias: Tensor  # [N, 1] or [N, C]
    clamp: bool = True


@dataclass(frozen=True, eq=False)
class Normalize(Pointwise):
    """(x - mean) / std, never clamped."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Saturation(Pointwise):
    """clamp(f x + (1 - f) gray(x)); one channel: unchanged."""

    factor: Tensor  # [N]


@dataclass(frozen=True, eq=False)
class Contrast(Pointwise):
    """clamp(f x + (1 - f) m), m the mean of gray over the image as it stands here."""

    factor: Tensor  # [N]
    statistic = "mean"


@dataclass(frozen=True, eq=False)
class Hue(Pointwise):
    """Hue turned by `shift` turns, in [-0.5, 0.5]; one channel: unchanged."""

    shift: Tensor  # [N]


@dataclass(frozen=True, eq=False)
class Gray(Pointwise):
    """0.2989 R + 0.587 G + 0.114 B in each of `channels` channels."""

    channels: int


@dataclass(frozen=True, eq=False)
class PermuteChannels(Pointwise):
    """Channel k of the result is channel order[k] of the image."""

    order: Tensor  # [N, C] int64, each row a permutation of 0 .. C - 1


@dataclass(frozen=True, eq=False)
class Solarize(Pointwise):
    """1 - x where x >= threshold."""

    threshold: Tensor  # [N]


@dataclass(frozen=True, eq=False)
class AddBelow(Pointwise):
    """min(x + addition, 1) where x < threshold."""

    addition: Tensor  # [N]
    threshold: Tensor  # [N]


@dataclass(frozen=True, eq=False)
class Posterize(Pointwise):
    """clamp(floor(x 2^bits), 0, 2^bits - 1) / 2^bits."""

    bits: Tensor  # [N] int64, 0 to 8


@dataclass(frozen=True, eq=False)
class Autocontrast(Pointwise):
    """Per channel (x - min) / (max - min), clamped; a constant channel is unchanged."""

    statistic = "range"


@dataclass(frozen=True, eq=False)
class Equalize(Pointwise):
    """Per channel the histogram of floor(255.999 x) made flat, by Pillow's table."""

    statistic = "histogram"


@dataclass(frozen=True, eq=False)
class SaltPepper(Pointwise):
    """With u a pixel's uniform: 1 where u < salt, else 0 where u < amount, else unchanged."""

    slot: int
    salt: Tensor  # [N] float32
    amount: Tensor  # [N] float32
    per_channel: bool = False  # False: all channels share the word of the first


@dataclass(frozen=True, eq=False)
class GaussianNoise(Pointwise):
    """x + N(mean, sigma) per pixel and channel, clamped to [0, 1] where `clip`."""

    slot: int
    mean: Tensor  # [N]
    sigma: Tensor  # [N]
    clip: bool = True


@dataclass(frozen=True, eq=False)
class Erase(Pointwise):
    """`value` inside a rectangle; NaN stands for N(0, 1) per pixel and channel."""

    slot: int
    box: Tensor  # [N, 4] int64; an empty box erases nothing
    value: Tensor  # [N, 1] or [N, C]


# ---- neighbourhoods, partners, branches


class Stencil(Pass):
    """An output pixel needs a fixed neighbourhood of input pixels."""


@dataclass(frozen=True, eq=False)
class Sharpness(Stencil):
    """clamp(f x + (1 - f) blur(x)), blur = [[1,1,1],[1,5,1],[1,1,1]] / 13 with the border unchanged; H or W <= 2:
    unchanged."""

    factor: Tensor  # [N]


@dataclass(frozen=True, eq=False)
class GaussianBlur(Stencil):
    """Blur with exp(-x^2 / 2 sigma^2), normalised; the border reflects without repeating the edge."""

    sigma: Tensor  # [N, 2] (x, y)
    kernel_size: tuple[int, int]  # (x, y), odd


@dataclass(frozen=True, eq=False)
class Jpeg(Pass):
    """What JPEG of a quality leaves of an image, with chroma at half the size: levels k / 255 (`gpuaug.exec.jpeg`)."""

    quality: Tensor  # [N] int64, 1 to 100


@dataclass(frozen=True, eq=False)
class Elastic(Pass):
    """Each pixel is read from where a smooth random field moves it.

    The field is uniform in [-1, 1) for each pixel and axis, keyed by `slot`, blurred by a Gaussian of `sigma` pixels
    whose taps reach `reach` along both axes, times `alpha` / 2 pixels; border and `fill` as for a Warp."""

    slot: int
    alpha: tuple[float, float]  # (x, y)
    sigma: tuple[float, float]  # (x, y)
    reach: tuple[int, int]  # of the field along x, and of the one along y; 0: not blurred
    size: Tensor  # [N, 2] int64
    fixed: tuple[int, int]
    kernel: str = "bilinear"  # or "nearest"
    fill: tuple[float, ...] | None = None


class Mix(Pass):
    """An output pixel needs that pixel and the one at the same place of a partner.  partner: [N] int64, rows of this
    batch."""

    partner: Tensor


@dataclass(frozen=True, eq=False)
class CutMix(Mix):
    """The partner's pixel inside a rectangle."""

    partner: Tensor
    box: Tensor  # [N, 4] int64
    size: Tensor  # [N, 2] int64, of the images here: the label's weight is the exact area that remains


@dataclass(frozen=True, eq=False)
class MixUp(Mix):
    """lam x + (1 - lam) partner."""

    partner: Tensor
    lam: Tensor  # [N]


@dataclass(frozen=True, eq=False)
class MixInside(Mix):
    """lam x + (1 - lam) partner inside a rectangle, x outside: a CutMix or a MixUp, by sample."""

    partner: Tensor
    box: Tensor  # [N, 4] int64
    lam: Tensor  # [N] float32
    size: Tensor  # [N, 2] int64, of the images here


@dataclass(frozen=True, eq=False)
class Choice(Pass):
    """Step by step, each sample takes one branch: the only branching there is.

    One step serves RandomChoice, RandomApply and an operation of RandAugment; several, a random order.  Branches keep
    size and channels, but that those of one step may all end in one other size, `fixed`."""

    index: Tensor  # [N, steps] int64
    branches: tuple[Sequence, ...]
    fixed: tuple[int, int] | None = None  # None: the size before it


@dataclass(frozen=True, eq=False)
class Blend(Pass):
    """weights[:, 0] x, plus weights[:, 1 + i] times what chain i makes of x; nothing is clamped.

    Chains keep size and channels, and hold no mix."""

    weights: Tensor  # [N, 1 + chains] float32
    chains: tuple[Sequence, ...]


@dataclass(frozen=True, eq=False)
class Custom(Pass):
    """A user's own function on a dense float32 batch: always materialised."""

    function: Callable[[Tensor], Tensor]
    name: str
    moves: bool = True  # whether it may move pixels, so that no target can follow


@dataclass(frozen=True, eq=False)
class Finish(Pass):
    """The only rounding: to uint8 floor(255.999 clamp(x)), to a float type a cast; and the memory format."""

    dtype: torch.dtype
    memory_format: torch.memory_format


def is_pointwise(p: Pass) -> bool:
    """Whether a pass needs one pixel at a time, so that it joins a chain of others: a Pointwise, or a Choice among
    such."""
    if isinstance(p, Choice):
        return all(is_pointwise(q) for branch in p.branches for q in branch)
    return isinstance(p, Pointwise)


def is_move(p: Pass) -> bool:
    """Whether a pass only moves pixels: every value that comes out is one that came in, or its border's."""
    if isinstance(p, Choice):
        return all(is_move(q) for branch in p.branches for q in branch)
    return (
        isinstance(p, CutMix)
        or (isinstance(p, Resample) and (p.integer_shift or p.kernel == "floor"))
        or (isinstance(p, Warp) and p.kernel == "nearest")
    )


def is_linear(p: Pass) -> bool:
    """Whether a value that comes out of a pass is a weighted mean of some that came in, whatever their range."""
    if isinstance(p, Choice):
        return all(is_linear(q) for branch in p.branches for q in branch)
    return isinstance(p, Resample | Warp | Project | Mix)


def takes_sizes(p: Pass) -> bool:
    """Whether a pass takes images of different sizes."""
    if isinstance(p, Choice):
        return p.fixed is not None and all(branch and takes_sizes(branch[0]) for branch in p.branches)
    return isinstance(p, Resample | Project)


def inside(p: Pass) -> tuple[Sequence, ...]:
    """The passes inside a pass: branches or chains."""
    return p.branches if isinstance(p, Choice) else p.chains if isinstance(p, Blend) else ()


def walk(passes: Sequence) -> Iterator[Pass]:
    """Every pass, those inside branches included."""
    for p in passes:
        yield p
        for branch in inside(p):
            yield from walk(branch)


def verify(passes: Sequence, frame: Frame) -> Frame:
    """The frame after the passes; raises ValueError at the first that breaks a convention of this file."""
    n = len(frame.size)
    for p in passes:
        for name, value in vars(p).items():
            if isinstance(value, Tensor) and (value.shape[:1] != (n,) or value.device != frame.size.device):
                raise ValueError(
                    f"{type(p).__name__}.{name} must have {n} rows on {frame.size.device}, "
                    f"got {tuple(value.shape)} on {value.device}"
                )
        if frame.fixed is None and not takes_sizes(p):
            raise ValueError(
                "the images end in different sizes; "
                "add a step that fixes the size, such as Resize((224, 224)) or RandomResizedCrop(224)"
            )
        for branch in inside(p):
            end = verify(branch, frame)
            fixed = p.fixed if isinstance(p, Choice) and p.fixed and p.index.shape[1] == 1 else frame.fixed
            if (end.fixed, end.channels) != (fixed, frame.channels):
                what = "branches of a choice" if isinstance(p, Choice) else "chains of a blend"
                raise ValueError(
                    f"{what} must keep size and channels, got {end.fixed}, "
                    f"{end.channels} from {fixed}, {frame.channels}"
                )
            if isinstance(p, Blend) and any(isinstance(q, Mix) for q in walk(branch)):
                raise ValueError("chains of a blend must hold no mix: labels could not follow it")
        frame = after((p,), frame)
    return frame


def after(passes: Sequence, frame: Frame) -> Frame:
    """The frame after passes that were verified."""
    for p in passes:
        if isinstance(p, Resample | Warp | Project | Elastic):
            frame = Frame(p.size, p.fixed, frame.channels, frame.dtype)
        elif isinstance(p, Choice) and p.fixed is not None:
            frame = frame.resized(p.fixed)
        elif isinstance(p, Gray):
            frame = replace(frame, channels=p.channels)
        elif isinstance(p, Finish):
            frame = replace(frame, dtype=p.dtype)
    return frame


def map_rectangle(matrix: Tensor, rectangle: Tensor) -> Tensor:
    """The rectangle that the pixels of another move to under a matrix of integers with axis-aligned linear
    part."""
    near, far = rectangle[:, :2].double(), rectangle[:, 2:].double() - 1
    linear, shift = matrix[:, :2, :2], matrix[:, :2, 2]
    a, b = ((linear * corner[:, None, :]).sum(2) + shift for corner in (near, far))
    return torch.cat([torch.minimum(a, b), torch.maximum(a, b) + 1], 1).round().long()


def product(a: Tensor, b: Tensor) -> Tensor:
    """Matrices [N, 3, 3] multiplied term by term: a library's product may round otherwise in another batch."""
    return (a[:, :, :1] * b[:, :1] + a[:, :, 1:2] * b[:, 1:2]) + a[:, :, 2:] * b[:, 2:]
