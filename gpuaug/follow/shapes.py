"""Points and boxes on their way through the passes that move pixels, in float64, without looking at a value.

A pass holds the map of an output pixel to its input pixel; what lies among the pixels goes by the inverse of it."""

from collections.abc import Sequence
from functools import singledispatch
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from gpuaug import ir

# a point at or behind the horizon of a projective map has no place in the picture
_HORIZON = 1e-12


class Points(NamedTuple):
    """Points in pixel centres."""

    xy: Tensor  # [N, K, 2] float64
    seen: Tensor  # [N, K] bool, whether one has been within every image so far

    def moved(self, matrix: Tensor, size: Tensor) -> "Points":
        """matrix: [N, 3, 3], input to output; size: [N, 2] int64 (H, W) of the output"""
        xy, ahead = mapped(matrix, self.xy)
        far = size.flip(1)[:, None] - 0.5
        # false for NaN as well
        return Points(xy, self.seen & ahead & ((xy >= -0.5) & (xy < far)).all(2))

    def chosen(self, step: Tensor, ways: Sequence["Points"]) -> "Points":
        """Of every sample the points of the way that a step names.  step: [N] int64"""
        return _chosen(self, step, ways)


class Boxes(NamedTuple):
    """Boxes by their corners, where the left upper corner of the image is (0, 0)."""

    corners: Tensor  # [N, K, 4, 2] float64, of what of each box is in the image
    whole: Tensor  # [N, K, 4, 2] float64, of all of it
    limit: Tensor  # [N, 4] float64 (x0, y0, x1, y1): pixels of the image that went in lie nowhere else
    upright: Tensor  # [N] bool, whether boxes still stand along the axes, so that clipping moves their corners

    def moved(self, matrix: Tensor, size: Tensor) -> "Boxes":
        """matrix: [N, 3, 3] in pixel centres, input to output; size: [N, 2] int64 (H, W) of the output"""
        corners, whole, limit = (_mapped_corners(matrix, c) for c in (self.corners, self.whole, _corners(self.limit)))
        shown = intersected(hull(limit), size)
        linear = matrix[:, :2, :2]
        along = (linear[:, 0, 1] == 0) & (linear[:, 1, 0] == 0)
        across = (linear[:, 0, 0] == 0) & (linear[:, 1, 1] == 0)
        flat = (matrix[:, 2, :2] == 0).all(1)
        return Boxes(corners, whole, shown, self.upright & (along | across) & flat).clipped()

    def clipped(self) -> "Boxes":
        """Upright boxes without what lies beyond the limit."""
        near, far = self.limit[:, None, None, :2], self.limit[:, None, None, 2:]
        inside = torch.minimum(torch.maximum(self.corners, near), far)
        return self._replace(corners=torch.where(self.upright[:, None, None, None], inside, self.corners))

    def chosen(self, step: Tensor, ways: Sequence["Boxes"]) -> "Boxes":
        """As of `Points`."""
        return _chosen(self, step, ways)


class Move(NamedTuple):
    """What one pass does to whatever lies among the pixels."""

    matrix: Tensor  # [N, 3, 3] float64 in pixel centres, input to output
    size: Tensor  # [N, 2] int64 (H, W) of the output
    active: Tensor  # [N] int64, 0 for samples that do not take it


class Moves(NamedTuple):
    """No points: the steps that they would take, as far as numbers of each sample alone tell them."""

    steps: tuple[Move, ...] = ()

    def moved(self, matrix: Tensor, size: Tensor) -> "Moves":
        """As of `Points`."""
        return Moves((*self.steps, Move(matrix, size, torch.ones_like(size[:, 0]))))

    def chosen(self, step: Tensor, ways: Sequence["Moves"]) -> "Moves":
        """As of `Points`: step by step beside one another, those of the way that is chosen."""
        before = len(self.steps)
        steps = list(self.steps)
        for place in range(before, max(len(way.steps) for way in ways)):
            there = [(step == i, way.steps[place]) for i, way in enumerate(ways) if len(way.steps) > place]
            matrix, size, _ = there[0][1]
            active = torch.zeros_like(step)
            for taken, move in there:
                matrix = torch.where(taken[:, None, None], move.matrix, matrix)
                size = torch.where(taken[:, None], move.size, size)
                active = torch.where(taken, move.active, active)
            steps.append(Move(matrix, size, active))
        return Moves(tuple(steps))


Shapes = TypeVar("Shapes", Points, Boxes, Moves)
Marked = TypeVar("Marked", Points, Boxes)


def boxes_from(xyxy: Tensor, size: Tensor) -> Boxes:
    """Boxes in the images that go in.  xyxy: [N, K, 4] float64; size: [N, 2] int64"""
    corners = _corners(xyxy)
    limit = torch.cat([torch.zeros_like(size), size.flip(1)], 1).double()
    return Boxes(corners, corners, limit, torch.ones_like(size[:, 0], dtype=torch.bool)).clipped()


def hulls(boxes: Boxes) -> tuple[Tensor, Tensor]:
    """The upright rectangle around what of each box is in the image, [N, K, 4] float64, and which share of the one
    around the whole box it is, [N, K] float64."""
    found, around = hull(boxes.corners), hull(boxes.whole)
    near, far = boxes.limit[:, None, :2], boxes.limit[:, None, 2:]
    found = torch.cat([torch.minimum(torch.maximum(v, near), far) for v in (found[..., :2], found[..., 2:])], 2)
    all_of_it = area(around)
    return found, torch.where(all_of_it > 0, area(found) / torch.where(all_of_it > 0, all_of_it, 1.0), 0.0)


def area(xyxy: Tensor) -> Tensor:
    """[...] of [..., 4]."""
    sides = xyxy[..., 2:] - xyxy[..., :2]
    return sides[..., 0] * sides[..., 1]


def hull(corners: Tensor) -> Tensor:
    """[..., 4, 2] -> [..., 4] (x0, y0, x1, y1)."""
    return torch.cat([corners.amin(-2), corners.amax(-2)], -1)


def intersected(rectangle: Tensor, size: Tensor) -> Tensor:
    """What of a rectangle, [N, 4] float64, lies in an image; without area on its border where nothing does."""
    far = size.flip(1).double()
    return torch.cat([torch.minimum(v.clamp(min=0), far) for v in (rectangle[:, :2], rectangle[:, 2:])], 1)


def _corners(xyxy: Tensor) -> Tensor:
    """[..., 4] -> [..., 4, 2], clockwise from the left upper one."""
    x0, y0, x1, y1 = xyxy.unbind(-1)
    return torch.stack([torch.stack(c, -1) for c in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], -2)


def _mapped_corners(matrix: Tensor, corners: Tensor) -> Tensor:
    """Corners count from the edge of the first pixel, matrices from its centre."""
    flat = (corners - 0.5).flatten(1, -2)
    return (mapped(matrix, flat)[0] + 0.5).view(corners.shape)


def mapped(matrix: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
    """Points after a map, and which of them have a place: [N, P, 2], [N, P] bool.  matrix: [N, 3, 3]; xy: [N, P, 2]"""
    x, y = xy.unbind(2)
    m = matrix[:, :, :, None]
    # term by term, so that a point's place does not depend on how many there are
    u, v, w = (m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2] for i in range(3))
    ahead = w > _HORIZON
    w = torch.where(w > _HORIZON, w, torch.where(w.isnan(), w, _HORIZON))
    return torch.stack([u / w, v / w], 2), ahead


def inverted(matrix: Tensor) -> Tensor:
    """The inverse of matrices [N, 3, 3] by their adjugates, exact for a matrix that only moves pixels; torch's own
    waits for the device, to learn whether one is singular."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(1) for row in matrix.unbind(1))
    adjugate = [
        [e * i - f * h, c * h - b * i, b * f - c * e],
        [f * g - d * i, a * i - c * g, c * d - a * f],
        [d * h - e * g, b * g - a * h, a * e - b * d],
    ]
    determinant = a * adjugate[0][0] + b * adjugate[1][0] + c * adjugate[2][0]
    return torch.stack([torch.stack(row, 1) for row in adjugate], 1) / determinant[:, None, None]


def inverse_of(p: Any) -> Tensor:
    """The map of an output pixel's centre to the input's, [N, 3, 3] float64, of a pass that moves pixels."""
    if not isinstance(p, ir.Resample) or p.integer_shift or p.kernel != "floor":
        inverse: Tensor = p.inverse
        return inverse
    # the matrix of a nearest resize names a pixel, at whose start or middle its positions stand: the map is the one
    # that takes the middle of what is made to the middle of what is read
    linear = p.inverse[:, :2, :2]
    read, made = ((v[:, :2] + v[:, 2:]).double() / 2 - 0.5 for v in (p.window, p.live))
    out = p.inverse.clone()
    out[:, :2, 2] = read - (linear * made[:, None]).sum(2)
    return out


@singledispatch
def _after(p: ir.Pass, shapes: Any) -> Any:
    if isinstance(p, ir.Mix):
        raise ValueError(
            f"boxes and keypoints cannot follow a {type(p).__name__}, which shows those of two images; "
            "mix in a policy of its own, that is called with labels or masks"
        )
    raise NotImplementedError(f"no rule says where points go in {type(p).__name__}")


@_after.register
def _(p: ir.Elastic, shapes: Any) -> Any:
    raise ValueError(
        "boxes and keypoints cannot follow ElasticTransform, whose field has no inverse in closed form; masks do: "
        "pass what the boxes hold as masks"
    )


@_after.register(ir.Resample)
@_after.register(ir.Warp)
@_after.register(ir.Project)
def _(p: Any, shapes: Any) -> Any:
    return shapes.moved(inverted(inverse_of(p)), p.size)


@_after.register
def _(p: ir.Choice, shapes: Any) -> Any:
    for step in p.index.unbind(1):
        ways = [after(branch, shapes) for branch in p.branches]
        shapes = shapes.chosen(step, ways)
    return shapes


def _chosen(shapes: Marked, step: Tensor, ways: Sequence[Marked]) -> Marked:
    for i, way in enumerate(ways):
        shapes = type(shapes)(*(_where(step == i, a, b) for a, b in zip(way, shapes, strict=True)))
    return shapes


def _where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, *(1,) * (a.ndim - 1)), a, b)


def after(passes: ir.Sequence, shapes: Shapes) -> Shapes:
    """Points or boxes after passes that move pixels, or the steps that they take."""
    for p in passes:
        shapes = _after(p, shapes)
    return shapes


def tables(passes: ir.Sequence, size: Tensor) -> tuple[Tensor | None, Tensor]:
    """The steps of passes that move pixels as two tables: [N, 9 a step] float64, the matrices, None without a step; and
    [N, 2 and 3 a step] int64, the size of the images that go in, and of every step that of its output and whether a
    sample takes it.  size: [N, 2] int64, of the images that go in"""
    steps = after(passes, Moves()).steps
    sizes = torch.cat([size.long(), *(torch.cat([m.size.long(), m.active[:, None]], 1) for m in steps)], 1)
    return torch.cat([m.matrix.flatten(1) for m in steps], 1) if steps else None, sizes
