"""Transforms that move and resample pixels along the axes.  All lower to one `ir.Resample`."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.symbolic import require, smooth
from gpuaug.transforms import borders
from gpuaug.transforms.base import Drawn, Transform, WithProbability, painted

__all__ = [
    "CenterCrop",
    "Pad",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomRot90",
    "RandomVerticalFlip",
    "Resize",
]

INTERPOLATION = partial(arguments.interpolation, allowed=tuple(arguments.KERNELS))
NUDGE = 2.0**-14
# half the width in pixels of what weighs them
_REACH = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
_PADDING_MODE = partial(arguments.one_of, allowed=tuple(b for b in ir.BORDERS if b != "none"))


def antialiases(name: str, value: Any) -> bool:
    """None is what torchvision's older versions call False."""
    return arguments.flag(name, False if value is None else value)


def matrix(xx: Any, xy: Any, x: Any, yx: Any, yy: Any, y: Any, like: Tensor) -> Tensor:
    """[N, 3, 3] float64 with these upper two rows; entries are numbers or [N]."""
    given = (xx, xy, x, yx, yy, y, 0.0, 0.0, 1.0)
    zero = torch.zeros(len(like), dtype=torch.float64, device=like.device)
    numbers = {v: zero + v if v else zero for v in given if not isinstance(v, Tensor)}
    return torch.stack([v.double() if isinstance(v, Tensor) else numbers[v] for v in given], 1).view(-1, 3, 3)


def resize(frame: ir.Frame, box: Tensor, out: ir.Frame, interpolation: str, antialias: bool) -> ir.Resample:
    """The box, [N, 4] int64, at the size of `out`.

    Kernels are torch's: a cubic of a = -1/2, as Pillow's, with antialias; one of a = -3/4 that repeats the edge
    without.  What they leave of [0, 1] is clamped where images are still uint8, as it is in torchvision."""
    x0, y0, x1, y1 = box.double().unbind(1)
    height, width = out.size.double().unbind(1)
    sx, sy = (x1 - x0) / width, (y1 - y0) / height
    # nearest takes floor(x * scale), nearest-exact floor((x + 0.5) * scale), the triangle is centred on (x + 0.5) *
    # scale - 0.5; the nudge keeps an integer whole through rounding, and is below the 1 / (2 * width) that any
    # other position is off
    before, after = {"nearest": (0.0, NUDGE), "nearest-exact": (0.5, NUDGE)}.get(interpolation, (0.5, -0.5))
    inverse = matrix(sx, 0.0, x0 + before * sx + after, 0.0, sy, y0 + before * sy + after, frame.size)
    wide = torch.stack([sx, sy], 1).clamp(min=1.0) if antialias else torch.ones_like(inverse[:, 0, :2])
    wide = wide * _REACH.get(interpolation, 1.0)
    if interpolation == "bicubic" and not antialias:
        beyond = box + ir.rows((-2, -2, 2, 2), box)
        kernel, window, source, extend = "cubic", beyond, box, "edge"
    else:
        kernel = {"bilinear": "triangle", "bicubic": "catmull_rom", "lanczos": "lanczos"}.get(interpolation, "floor")
        window, source, extend = box, frame.whole(), "none"
    clamp = kernel not in ("triangle", "floor") and frame.dtype == torch.uint8
    size, fixed = out.size, out.fixed
    return ir.Resample(inverse, wide, window, source, out.whole(), size, fixed, kernel, extend, clamp=clamp)


def antialiased(transform: Any) -> None:
    """Lanczos is no interpolation without antialias: torch and Pillow have none."""
    if transform.interpolation == "lanczos" and not transform.antialias:
        raise ValueError("antialias must be True with interpolation 'lanczos', got False; leave antialias out")


def flip(frame: ir.Frame, apply: Tensor, axis: int) -> ir.Resample:
    """Mirrored along x (axis 0) or y (1) where `apply`, [N] bool."""
    turned = 1.0 - 2.0 * apply.double()
    last = apply * (frame.size[:, 1 - axis] - 1)
    inverse = (
        matrix(turned, 0.0, last, 0.0, 1.0, 0.0, frame.size)
        if axis == 0
        else matrix(1.0, 0.0, 0.0, 0.0, turned, last, frame.size)
    )
    return move(frame, inverse, frame, frame.whole())


def move(
    frame: ir.Frame,
    inverse: Tensor,
    out: ir.Frame,
    reads: Tensor | None = None,
    extend: str = "none",
    fill: tuple[float, ...] = (0.0,),
) -> ir.Resample:
    """Pixels moved by a matrix of integers: flips, turns, crops, padding.  reads: the window, where the caller
    knows it"""
    reads = ir.map_rectangle(inverse, out.whole()) if reads is None else reads
    ones = ir.rows((1.0, 1.0), frame.size, torch.float64)
    return ir.Resample(
        inverse,
        ones,
        reads,
        frame.whole(),
        out.whole(),
        out.size,
        out.fixed,
        "triangle",
        extend,
        fill,
        integer_shift=True,
    )


def crop(
    frame: ir.Frame,
    left: Tensor,
    top: Tensor,
    out: ir.Frame,
    extend: str = "constant",
    fill: tuple[float, ...] = (0.0,),
) -> ir.Resample:
    """The window of `out`'s size at (left, top), [N] int64; what lies outside the image is padded."""
    corner = torch.stack([left, top], 1)
    reads = torch.cat([corner, corner + out.size.flip(1)], 1)
    return move(frame, matrix(1.0, 0.0, left, 0.0, 1.0, top, frame.size), out, reads, extend, fill)


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """Crop a random area and aspect ratio and resize it (Szegedy et al., 2015, section 6)."""

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0)
    interpolation: str = "bilinear"
    antialias: bool = True
    example = {"size": (12, 10)}
    checks = {
        "size": arguments.size,
        "scale": partial(arguments.interval, low=0.0),
        "ratio": partial(arguments.interval, low=1e-9),
        "interpolation": INTERPOLATION,
        "antialias": antialiases,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        antialiased(self)

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        height, width = frame.size.unbind(1)
        area = (height * width)[:, None] * draw.uniform(*self.scale, count=10)
        low, high = self.ratio
        aspect = smooth("exp", draw.uniform(math.log(low), math.log(high), count=10))
        w, h = (smooth("round", smooth("sqrt", v)).long() for v in (area * aspect, area / aspect))
        fits = (w > 0) & (w <= width[:, None]) & (h > 0) & (h <= height[:, None])
        first, found = fits.long().argmax(1, keepdim=True), fits.any(1)
        # in float64: an integer times a Python number would be float32
        h64, w64 = height.double(), width.double()
        narrow = w64 < low * h64
        fw = torch.where(narrow, width, torch.minimum(width, (h64 * high).round().long().clamp(min=1)))
        # an image narrower than half the ratio still has a row: torchvision makes a crop of none there, and fails
        fh = torch.where(narrow, (w64 / low).round().long().clamp(min=1), height)
        w, h = torch.where(found, w.gather(1, first)[:, 0], fw), torch.where(found, h.gather(1, first)[:, 0], fh)
        top, left = draw.integer(0, height - h + 1), draw.integer(0, width - w + 1)
        top, left = torch.where(found, top, (height - h) // 2), torch.where(found, left, (width - w) // 2)
        return {"top": top, "left": left, "height": h, "width": w}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        left, top = params["left"], params["top"]
        box = torch.stack([left, top, left + params["width"], top + params["height"]], 1)
        return (resize(frame, box, self.after(frame, params), self.interpolation, self.antialias),)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        assert isinstance(self.size, tuple)
        return frame.resized(self.size)


@dataclass(frozen=True)
class Resize(Transform):
    """Resize to (height, width), or the shorter side to one number with the aspect ratio kept.

    The long side is int(size * long / short), as in torchvision; `max_size` bounds it.  `size=None` with `max_size`
    sets the long side."""

    size: int | tuple[int, ...] | None
    interpolation: str = "bilinear"
    max_size: int | None = None
    antialias: bool = True
    example = {"size": (9, 12)}
    checks = {"interpolation": INTERPOLATION, "antialias": antialiases}

    def __post_init__(self) -> None:
        super().__post_init__()
        antialiased(self)
        size = self.size
        if size is None and self.max_size is None:
            raise ValueError(
                "size must be a number, (height, width), or None together with max_size, got None and no max_size"
            )
        if isinstance(size, list | tuple):
            if len(size) not in (1, 2):
                raise ValueError(f"size must have 1 or 2 values, got {len(size)}")
            size = tuple(arguments.integer(f"size[{i}]", v, 1) for i, v in enumerate(size))
            size = size[0] if len(size) == 1 else size
        elif size is not None:
            size = arguments.integer("size", size, 1)
        if self.max_size is not None:
            low = 1 if size is None else size + 1 if isinstance(size, int) else None
            if low is None:
                raise ValueError(f"max_size needs size to be one number, got {self.size}; leave max_size out")
            self._keep("max_size", arguments.integer("max_size", self.max_size, low))
        self._keep("size", size)

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (resize(frame, frame.whole(), self.after(frame, params), self.interpolation, self.antialias),)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        if isinstance(self.size, tuple):
            return frame.resized((self.size[0], self.size[1]))
        sides = frame.size if frame.fixed is None else torch.tensor([frame.fixed], device="cpu")
        short, long, bound = sides.amin(1), sides.amax(1), self.max_size or 0
        if self.size is None:
            new_short, new_long = bound * short // long, torch.full_like(long, bound)
        else:
            new_short, new_long = torch.full_like(short, self.size), self.size * long // short
            if bound:
                new_short = torch.where(new_long > bound, bound * new_short // new_long, new_short)
                new_long = new_long.clamp(max=bound)
        upright = (sides[:, 1] <= sides[:, 0])[:, None]
        new = torch.where(upright, torch.stack([new_long, new_short], 1), torch.stack([new_short, new_long], 1)).clamp(
            min=1
        )
        if frame.fixed is None:
            return replace(frame, size=new)
        height, width = new[0].tolist()
        return frame.resized((height, width))


@dataclass(frozen=True)
class CenterCrop(Transform):
    """The middle of the image; a smaller image is padded with 0 first."""

    size: int | tuple[int, int]
    example = {"size": (7, 15)}
    checks = {"size": arguments.size}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        out = self.after(frame, params)
        spare = frame.size - out.size
        # a crop rounds half to even; padding puts the odd pixel on the far side
        offset = torch.where(spare >= 0, (spare / 2).round().long(), -((-spare) // 2))
        inside = (
            frame.fixed is not None
            and out.fixed is not None
            and out.fixed[0] <= frame.fixed[0]
            and out.fixed[1] <= frame.fixed[1]
        )
        return (crop(frame, offset[:, 1], offset[:, 0], out, "none" if inside else "constant"),)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        assert isinstance(self.size, tuple)
        return frame.resized(self.size)


@dataclass(frozen=True)
class Pad(Transform):
    """Pad by `padding`: one number, (left and right, top and bottom), or (left, top, right, bottom); a negative number
    crops."""

    padding: int | tuple[int, ...]
    fill: float | tuple[float, ...] | None = 0
    padding_mode: str = "constant"
    example = {"padding": (1, 2, 3, 0), "fill": 0.5}
    checks = {"padding": borders.padding, "fill": borders.painting, "padding_mode": _PADDING_MODE}

    def __post_init__(self) -> None:
        super().__post_init__()
        borders.one_fill(self.fill, self.padding_mode)

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        left, top, right, bottom = self.padding  # type: ignore[misc]
        zero, host = torch.zeros_like(frame.size[:, 0]), borders.known(frame)
        borders.leaves_something(host, self.padding, self.padding_mode)
        near, far = (ir.rows(v, host.size) for v in ((top, left), (bottom, right)))
        borders.check(host, near, far, self.padding_mode)
        return (
            crop(
                frame,
                zero - left,
                zero - top,
                self.after(frame, params),
                self.padding_mode,
                painted("fill", self.fill, frame),
            ),
        )

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        return borders.padded(frame, self.padding)


@dataclass(frozen=True)
class RandomCrop(Transform):
    """Crop `size` at a random place, after padding.  A crop larger than the padded image raises unless
    `pad_if_needed`."""

    size: int | tuple[int, int]
    padding: int | tuple[int, ...] | None = None
    pad_if_needed: bool = False
    fill: float | tuple[float, ...] | None = 0
    padding_mode: str = "constant"
    example = {"size": (8, 11), "padding": 2}
    checks = {
        "size": arguments.size,
        "padding": arguments.optional(borders.padding),
        "pad_if_needed": arguments.flag,
        "fill": borders.painting,
        "padding_mode": _PADDING_MODE,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.padding is not None or self.pad_if_needed:
            borders.one_fill(self.fill, self.padding_mode)

    def _pads(self, frame: ir.Frame) -> tuple[Tensor, Tensor, ir.Frame]:
        """Padding before and after the image, each [N, 2] (y, x), and the frame after `padding` alone."""
        assert isinstance(self.size, tuple)
        left, top, right, bottom = self.padding or (0, 0, 0, 0)  # type: ignore[misc]
        padded = borders.padded(frame, self.padding or (0, 0, 0, 0))
        # torchvision pads a side that is too short by the whole difference on both ends
        extra = (ir.rows(self.size, frame.size) - padded.size).clamp(min=0)
        return extra + ir.rows((top, left), extra), extra + ir.rows((bottom, right), extra), padded

    def _room(self, frame: ir.Frame) -> tuple[Tensor, Tensor]:
        """First offset of the crop and number of places, each [N, 2] (y, x)."""
        assert isinstance(self.size, tuple)
        near, far, padded = self._pads(frame)
        if not self.pad_if_needed:
            self._fits(padded)
        return -near, frame.size + near + far - ir.rows(self.size, near) + 1

    def _fits(self, padded: ir.Frame) -> None:
        """Sizes on a GPU are not looked at, for that would wait for the device."""
        assert isinstance(self.size, tuple)
        if padded.fixed is not None:
            fits = torch.tensor([padded.fixed[0] >= self.size[0] and padded.fixed[1] >= self.size[1]], device="cpu")
        else:
            fits = (padded.size[:, 0] >= self.size[0]) & (padded.size[:, 1] >= self.size[1])

        def refuse() -> ValueError:
            height, width = padded.fixed or padded.size[~fits][0].tolist()
            return ValueError(
                f"size {self.size} of RandomCrop is larger than the padded image ({height}, {width}); pass "
                "pad_if_needed=True, or Resize first"
            )

        require(fits, refuse)

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        _, places = self._room(frame)
        return {"top": draw.integer(0, places[:, 0]), "left": draw.integer(0, places[:, 1])}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        first, _ = self._room(frame)
        pads = self.padding is not None or self.pad_if_needed
        if pads:
            host = borders.known(frame)
            near, far, _ = self._pads(host)
            borders.check(host, near, far, self.padding_mode)
        left, top = first[:, 1] + params["left"], first[:, 0] + params["top"]
        return (
            crop(
                frame,
                left,
                top,
                self.after(frame, params),
                self.padding_mode if pads else "none",
                painted("fill", self.fill, frame),
            ),
        )

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        assert isinstance(self.size, tuple)
        return frame.resized(self.size)


@dataclass(frozen=True)
class RandomHorizontalFlip(WithProbability):
    """Mirror left and right with probability p."""

    p: float = 0.5
    example = {"p": 0.5}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (flip(frame, params["apply"], 0),)


@dataclass(frozen=True)
class RandomVerticalFlip(WithProbability):
    """Mirror top and bottom with probability p."""

    p: float = 0.5
    example = {"p": 0.5}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (flip(frame, params["apply"], 1),)


@dataclass(frozen=True)
class RandomRot90(WithProbability):
    """Turn counter-clockwise by k quarter turns, k uniform in 0 to 3, with probability p.

    Images that are not square change their size: a later step must fix it.
    """

    p: float = 1.0
    example = {"p": 0.75}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        return {**super().sample(draw, frame), "k": draw.integer(0, 4)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        k = torch.where(params["apply"], params["k"] % 4, 0)
        cos, sin = ((k == 0).double() - (k == 2).double()), ((k == 1).double() - (k == 3).double())
        height, width = frame.size.double().unbind(1)
        # a counter-clockwise turn reads, at output (x, y), input x = W-1-y, y = x
        x = torch.where(k == 1, width - 1, torch.where(k == 2, width - 1, 0.0))
        y = torch.where(k == 2, height - 1, torch.where(k == 3, height - 1, 0.0))
        return (move(frame, matrix(cos, -sin, x, sin, cos, y, frame.size), self.after(frame, params)),)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        if frame.fixed is not None and frame.fixed[0] == frame.fixed[1]:
            return frame
        turned = (params["apply"] & (params["k"] % 2 == 1))[:, None]
        return replace(frame, size=torch.where(turned, frame.size.flip(1), frame.size), fixed=None)
