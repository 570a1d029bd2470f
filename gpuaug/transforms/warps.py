"""Transforms that turn, shear, scale, shift and tilt.  All lower to one `ir.Warp`, or `ir.Elastic`."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.symbolic import smooth
from gpuaug.transforms.base import Drawn, Transform, WithProbability, painted
from gpuaug.transforms.geometry import matrix

__all__ = ["ElasticTransform", "RandomAffine", "RandomPerspective", "RandomRotation"]

_INTERPOLATION = partial(arguments.interpolation, allowed=("nearest", "bilinear"))
_CENTER = arguments.optional(partial(arguments.numbers, lengths=(2,)))
_TOLERANCE = 1e-4


def _shear(name: str, value: Any) -> tuple[float, ...]:
    """An interval along x, or one along x and one along y."""
    if not isinstance(value, list | tuple):
        return arguments.around(name, value)
    items = arguments.numbers(name, value, (2, 4))
    for pair in (items[:2], items[2:]):
        if pair:
            arguments.interval(name, pair)
    return items


def about(frame: ir.Frame, center: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """The fixed point of a turn in pixel centres: a user's (x, y) is in corner coordinates.  2 x [N] float64"""
    if center is not None:
        zero = torch.zeros_like(frame.size[:, 0], dtype=torch.float64)
        return zero + (center[0] - 0.5), zero + (center[1] - 0.5)
    height, width = frame.size.double().unbind(1)
    return (width - 1) / 2, (height - 1) / 2


def affine_inverse(
    center: tuple[Tensor, Tensor], angle: Any, translate: tuple[Any, Any], scale: Any, shear: tuple[Any, Any]
) -> Tensor:
    """Output position -> input position of torchvision's affine; angle and shear in radians, all float64 [N] or
    numbers.

    Forward it is T(translate) C R(angle) Shear Scale C^-1, C the centre, with R Shear = [[cos(a - sy) / cos sy, -cos(a
    - sy) tan sx / cos sy - sin a], [sin(a - sy) / cos sy, -sin(a - sy) tan sx / cos sy + cos a]], whose determinant is
    1 (torchvision.transforms.functional._get_inverse_affine_matrix)."""
    cx, cy = center
    zero = torch.zeros_like(cx)
    angle, sx, sy = angle + zero, shear[0] + zero, shear[1] + zero
    # few calls on one table: each costs more than its numbers
    turns = torch.stack([angle, angle - sy, sx, sy])
    (sin_angle, sin, sin_x, _), (cos_angle, cos, cos_x, cos_y) = (
        _clean(smooth(name, turns)).unbind() for name in ("sin", "cos")
    )
    tan = sin_x / cos_x
    a, c = cos / cos_y, sin / cos_y
    b, d = -a * tan - sin_angle, cos_angle - c * tan
    ia, ib, ic, id_ = (torch.stack([d, -b, -c, a]) / scale).unbind()
    x, y = cx + translate[0], cy + translate[1]
    return matrix(ia, ib, cx - ia * x - ib * y, ic, id_, cy - ic * x - id_ * y, cx)


def _clean(x: Tensor) -> Tensor:
    """Zero where rounding of pi has left less than 2^-44: after a quarter turn pixels stand on pixels, and nothing is
    interpolated."""
    return torch.where(x.abs() < 2.0**-44, 0.0, x)


def warp(
    frame: ir.Frame, out: ir.Frame, inverse: Tensor, interpolation: str, fill: float | tuple[float, ...] | None
) -> ir.Warp:
    """The warp of images of one size to the size of `out`."""
    values = None if fill is None else painted("fill", fill, frame)
    # without a common size the caller refuses it, and names the transform
    return ir.Warp(inverse, out.size, out.fixed or (0, 0), frame.whole(), interpolation, values)


@dataclass(frozen=True)
class RandomAffine(Transform):
    """A random affine map about the centre: angle and shear in degrees (positive is clockwise), translation as a share
    of the size."""

    degrees: float | tuple[float, float]
    translate: tuple[float, float] | None = None
    scale: tuple[float, float] | None = None
    shear: float | tuple[float, ...] | None = None
    interpolation: str = "nearest"
    fill: float | tuple[float, ...] | None = 0
    center: tuple[float, float] | None = None
    example = {
        "degrees": 30.0,
        "translate": (0.2, 0.1),
        "scale": (0.8, 1.3),
        "shear": (-10.0, 10.0, -5.0, 5.0),
        "interpolation": "bilinear",
    }
    checks = {
        "degrees": arguments.around,
        "translate": arguments.optional(partial(arguments.numbers, lengths=(2,), low=0.0, high=1.0)),
        "scale": arguments.optional(partial(arguments.interval, low=1e-9)),
        "shear": arguments.optional(_shear),
        "interpolation": _INTERPOLATION,
        "fill": arguments.fill,
        "center": _CENTER,
    }

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        tx, ty = self.translate or (0.0, 0.0)
        low_x, high_x, *rest = self.shear or (0.0, 0.0)  # type: ignore[misc]
        low_y, high_y = rest or (0.0, 0.0)
        ranges = (self.degrees, self.scale or (1.0, 1.0), (low_x, high_x), (low_y, high_y), (-tx, tx), (-ty, ty))
        lows, highs = zip(*ranges, strict=True)  # type: ignore[arg-type]
        low, high = ir.rows(lows, frame.size, torch.float64), ir.rows(highs, frame.size, torch.float64)
        drawn = low + (high - low) * draw.uniform(count=6)
        shift = (drawn[:, 4:] * frame.size.flip(1)).round().long()
        rounded = drawn.float()
        return {"angle": rounded[:, 0], "translate": shift, "scale": rounded[:, 1], "shear": rounded[:, 2:4]}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        radians = torch.deg2rad(torch.column_stack([params["angle"], params["shear"]]).double())
        angle, sx, sy = radians.unbind(1)
        tx, ty = params["translate"].double().unbind(1)
        inverse = affine_inverse(about(frame, self.center), angle, (tx, ty), params["scale"].double(), (sx, sy))
        return (warp(frame, frame, inverse, self.interpolation, self.fill),)


@dataclass(frozen=True)
class RandomRotation(Transform):
    """Turn by a random angle in degrees; positive is counter-clockwise.

    `expand=True` enlarges the image to hold the turned one.  Samples of a range of angles then differ in size: a later
    step must fix it.  Until then they lie in the corner of canvases as large as the largest."""

    degrees: float | tuple[float, float]
    interpolation: str = "nearest"
    expand: bool = False
    center: tuple[float, float] | None = None
    fill: float | tuple[float, ...] | None = 0
    example = {"degrees": 40.0, "interpolation": "bilinear"}
    checks = {
        "degrees": arguments.around,
        "interpolation": _INTERPOLATION,
        "expand": arguments.flag,
        "center": _CENTER,
        "fill": arguments.fill,
    }

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        return {"angle": draw.uniform(*self.degrees).float()}  # type: ignore[misc]

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        angle = -torch.deg2rad(params["angle"].double())
        inverse = affine_inverse(about(frame, self.center), angle, (0.0, 0.0), 1.0, (0.0, 0.0))
        if not self.expand:
            return (warp(frame, frame, inverse, self.interpolation, self.fill),)
        if frame.fixed is None:
            # the caller refuses it, and names the transform
            return (warp(frame, frame, inverse, self.interpolation, self.fill),)
        out = self.after(frame, params)
        # the larger frame keeps the image in its middle
        spare = (out.size - frame.size).double() / 2
        shift = matrix(1.0, 0.0, -spare[:, 1], 0.0, 1.0, -spare[:, 0], frame.size)
        canvas = out if out.fixed is not None else frame.resized(_canvas(frame.fixed, self.degrees))
        return (warp(frame, canvas, ir.product(inverse, shift), self.interpolation, self.fill),)

    def after(self, frame: ir.Frame, params: Drawn) -> ir.Frame:
        if not self.expand or frame.fixed is None:
            return frame
        low, high = self.degrees  # type: ignore[misc]
        if low != high:
            return replace(frame, size=_expanded(frame.size, params["angle"].double(), self.center), fixed=None)
        # an angle is drawn as float32, and so is the one angle of a range without width
        angle = torch.tensor([low], dtype=torch.float32, device="cpu").double()
        height, width = _expanded(torch.tensor([frame.fixed], device="cpu"), angle, self.center)[0].tolist()
        return frame.resized((height, width))


def _expanded(size: Tensor, degrees: Tensor, center: tuple[float, float] | None) -> Tensor:
    """(H, W) of the hulls of turned images, [N, 2] int64 (torchvision.transforms.v2.functional.rotate, its
    transposition by quarter turns included).  degrees: [N] float64"""
    height, width = size.double().unbind(1)
    turn = torch.deg2rad(degrees)
    cos, sin = (_clean(smooth(name, turn)) for name in ("cos", "sin"))
    # torchvision moves the corners by the inverse map, the turn about `center` included, in float32
    shift_x = shift_y = torch.zeros_like(cos)
    if center is not None:
        cx, cy = center[0] - width * 0.5, center[1] - height * 0.5
        shift_x, shift_y = (cx - cos * cx) + sin * cy, (cy - sin * cx) - cos * cy
    across, down, cos, sin, shift_x, shift_y = (v.float() for v in (width / 2, height / 2, cos, sin, shift_x, shift_y))
    out = []
    for reach, shift, middle in (
        ((cos * across).abs() + (sin * down).abs(), shift_x, across),
        ((sin * across).abs() + (cos * down).abs(), shift_y, down),
    ):
        low, high = (shift - reach) + middle, (shift + reach) + middle
        # the far ends are rounded outwards, to a tolerance of 1e-4
        near, far = ((v * (1 / _TOLERANCE)).trunc() * _TOLERANCE for v in (low, high))
        out.append(-(-far).floor().long() - near.floor().long())
    if center is not None:
        return torch.stack([out[1], out[0]], 1)
    # a turn by quarters is a transposition there
    whole = (cos == 0) | (sin == 0)
    exact = torch.where((cos == 0)[:, None], size.flip(1), size)
    return torch.where(whole[:, None], exact, torch.stack([out[1], out[0]], 1))


def _canvas(size: tuple[int, int], degrees: Any) -> tuple[int, int]:
    """(H, W) that holds the hull of an image turned by any angle of a range."""
    low, high = degrees
    height, width = size
    found = []
    for far, near in ((height, width), (width, height)):
        # far |cos| + near |sin| is largest where the diagonal is upright, and once more in every half turn
        tops = [s * math.degrees(math.atan2(near, far)) + 180.0 * k for s in (-1, 1) for k in range(-3, 4)]
        turned = [low % 360.0, low % 360.0 + (high - low)]
        inner = [t for t in tops if any(turned[0] <= t + 360.0 * k <= turned[1] for k in range(4))]
        longest = max(far * abs(math.cos(a)) + near * abs(math.sin(a)) for a in map(math.radians, turned + inner))
        # each end is rounded outwards
        found.append(math.ceil(longest) + 2)
    return found[0], found[1]


@dataclass(frozen=True)
class RandomPerspective(WithProbability):
    """Tilt the image with probability p: each corner moves inwards by up to distortion_scale of half a side.

    Where the corners come to lie on one line, as in an image of one row, it stays as it is.
    """

    distortion_scale: float = 0.5
    p: float = 0.5
    interpolation: str = "bilinear"
    fill: float | tuple[float, ...] | None = 0
    example = {"distortion_scale": 0.6, "p": 0.9}
    checks = {
        "distortion_scale": arguments.probability,
        "interpolation": _INTERPOLATION,
        "fill": arguments.fill,
    }

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        apply = super().sample(draw, frame)["apply"]
        # (x, y) of the places that a corner may move to
        reach = (self.distortion_scale * (frame.size.flip(1) // 2).double()).long() + 1
        last = frame.size.flip(1) - reach
        inwards = (draw.words(8).view(-1, 4, 2) * reach[:, None]) >> 32
        low, high = inwards, last[:, None] + inwards
        (left, top), (right, bottom) = low.unbind(2), high.unbind(2)
        x = torch.stack([left[:, 0], right[:, 1], right[:, 2], left[:, 3]], 1)
        y = torch.stack([top[:, 0], top[:, 1], bottom[:, 2], bottom[:, 3]], 1)
        return {"apply": apply, "endpoints": torch.stack([x, y], 2)}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        inverse = perspective_inverse(params["endpoints"].double(), frame, params["apply"])
        return (warp(frame, frame, inverse, self.interpolation, self.fill),)


def perspective_inverse(corners: Tensor, frame: ir.Frame, apply: Tensor) -> Tensor:
    """Output position -> input position of the map that takes an image's corners, clockwise from the left upper one, to
    these; the identity where not `apply`.  corners: [N, 4, 2] float64 (x, y)

    The unit square goes to a quadrangle by a matrix in closed form (Heckbert, Fundamentals of Texture Mapping, 1989,
    section 2.2.3), whose adjugate is its inverse up to a factor.  As in torchvision, which solves the same for
    (W - 1, H - 1), the map acts on x + 0.5 and gives x + 0.5."""
    (x0, x1, x2, x3), (y0, y1, y2, y3) = (c.unbind(1) for c in corners.unbind(2))
    dx1, dx2, dy1, dy2 = x1 - x2, x3 - x2, y1 - y2, y3 - y2
    sx, sy = (x0 - x1) + (x2 - x3), (y0 - y1) + (y2 - y3)
    area = dx1 * dy2 - dx2 * dy1
    flat = area == 0
    safe = torch.where(flat, 1.0, area)
    g, h = (sx * dy2 - dx2 * sy) / safe, (dx1 * sy - sx * dy1) / safe
    a, b, d, e = (x1 - x0) + g * x1, (x3 - x0) + h * x3, (y1 - y0) + g * y1, (y3 - y0) + h * y3
    width, height = (frame.size[:, k].double() - 1 for k in (1, 0))
    x = ((e - y0 * h) * width, (x0 * h - b) * width, (b * y0 - x0 * e) * width)
    y = ((y0 * g - d) * height, (a - x0 * g) * height, (x0 * d - a * y0) * height)
    last = d * h - e * g, b * g - a * h, a * e - b * d
    # half a pixel is added before the map, and taken away after it
    x, y, last = ((u, v, w + (u + v) * 0.5) for u, v, w in (x, y, last))  # type: ignore[assignment]
    x, y = (tuple(v - 0.5 * w for v, w in zip(row, last, strict=True)) for row in (x, y))  # type: ignore[assignment]
    used = apply & ~flat & (last[2] != 0)
    unit = torch.where(used, last[2], 1.0)
    zero, one = torch.zeros_like(unit), torch.ones_like(unit)
    identity = (one, zero, zero, zero, one, zero, zero, zero, one)
    found = [torch.where(used, v / unit, i) for v, i in zip((*x, *y, *last), identity, strict=True)]
    return torch.stack(found, 1).view(-1, 3, 3)


def _pair(name: str, value: Any) -> tuple[float, float]:
    """(x, y); a number stands for both."""
    values = value if isinstance(value, list | tuple) else (value,)
    numbers = arguments.numbers(name, values, (1, 2), 0.0)
    return numbers[0], numbers[-1]


@dataclass(frozen=True)
class ElasticTransform(Transform):
    """Move every pixel by a smooth random field of up to about alpha / 2 pixels before it is smoothed (Simard et al.,
    2003).

    alpha, sigma: a number or (x, y); the field is blurred by a Gaussian of sigma pixels, 0 for not at all.  Runs by the
    reference on every executor.
    """

    alpha: float | tuple[float, float] = 50.0
    sigma: float | tuple[float, float] = 5.0
    interpolation: str = "bilinear"
    fill: float | tuple[float, ...] | None = 0
    example = {"alpha": 60.0, "sigma": 2.0}
    checks = {"alpha": _pair, "sigma": _pair, "interpolation": _INTERPOLATION, "fill": arguments.fill}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        alpha, sigma = self.alpha, self.sigma
        assert isinstance(alpha, tuple)
        assert isinstance(sigma, tuple)
        # torchvision's kernel: 8 sigma + 1 taps, made odd
        reach = tuple((int(8 * s + 1) + 1) // 2 if int(8 * s + 1) % 2 == 0 else int(8 * s + 1) // 2 for s in sigma)
        if frame.fixed is not None and max(reach) >= min(frame.fixed):
            raise ValueError(
                f"sigma {sigma} of ElasticTransform blurs over {2 * max(reach) + 1} pixels, further than an image of "
                f"{frame.fixed} is reflected; lower sigma to below {min(frame.fixed) / 4:g}"
            )
        values = None if self.fill is None else painted("fill", self.fill, frame)
        # without a common size the caller refuses it
        fixed = frame.fixed or (0, 0)
        return (ir.Elastic(slot, alpha, sigma, (reach[0], reach[1]), frame.size, fixed, self.interpolation, values),)
