"""Targets that follow their images: masks, boxes and keypoints of a Batch after the passes of a policy that move
pixels."""

from typing import Any, NamedTuple

import torch

from gpuaug import arguments, ir, rng
from gpuaug.follow import masks as planes
from gpuaug.follow import read, shapes
from gpuaug.images import Images, Ragged

# the fields of a Batch, each with the field that marks what of it is there
TARGETS = {"masks": None, "boxes": "box_valid", "keypoints": "visible"}


class Targets(NamedTuple):
    """What came with the images, checked."""

    masks: read.Masked | None
    boxes: read.Boxed | None
    keypoints: read.Pointed | None
    min_area: float
    min_visibility: float

    def follow(self, passes: ir.Sequence, frame: ir.Frame, keys: rng.Keys, backend: str) -> dict[str, Any]:
        """The fields of a Batch after passes that move pixels.  frame: of the images as they go in"""
        out: dict[str, Any] = {}
        # all that may be refused first: it costs little
        if self.boxes is not None:
            out |= self._boxes(self.boxes, passes, frame)
        if self.keypoints is not None:
            out |= self._keypoints(self.keypoints, passes, frame)
        if self.masks is not None:
            given = self.masks
            moved = planes.follow(passes, given.masks, frame, keys, backend, bilinear=given.bilinear, fill=given.fill)
            out["masks"] = moved[:, 0] if given.flat else moved
        return out

    def blank(self, device: torch.device) -> "Targets":
        """Targets of the same kind without values, on a device."""

        def empty(t: Any) -> Any:
            if t is None or isinstance(t, Ragged):
                return t if t is None else t.mapped(empty)
            return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device)

        masks, boxes, points = self.masks, self.boxes, self.keypoints
        if masks is not None:
            masks = masks._replace(masks=empty(masks.masks))
        if boxes is not None:
            boxes = boxes._replace(given=empty(boxes.given), valid=empty(boxes.valid))
        if points is not None:
            points = points._replace(given=empty(points.given), visible=empty(points.visible))
        return self._replace(masks=masks, boxes=boxes, keypoints=points)

    def _boxes(self, given: read.Boxed, passes: ir.Sequence, frame: ir.Frame) -> dict[str, Any]:
        xyxy, there = given.upright()
        moved = shapes.after(passes, shapes.boxes_from(xyxy, frame.size))
        found, share = shapes.hulls(moved)
        area = shapes.area(found)
        valid = there & (area > 0) & (area >= self.min_area) & (share >= self.min_visibility)
        kept = torch.where(there[..., None], found, 0.0)
        return {
            "boxes": read.from_xyxy(kept, given.format).to(given.dtype),
            "box_valid": valid,
            "box_format": given.format,
        }

    def _keypoints(self, given: read.Pointed, passes: ir.Sequence, frame: ir.Frame) -> dict[str, Any]:
        xy, marks = given.flat()
        start = shapes.Points(xy, torch.ones_like(xy[..., 0], dtype=torch.bool))
        # an identity, so that a point outside the image is not visible even where no pixel moves
        start = start.moved(torch.eye(3, dtype=torch.float64, device=xy.device)[None], frame.size)
        moved = shapes.after(passes, start)
        visible = torch.where(moved.seen, marks, torch.zeros_like(marks))
        shape = given.given.shape
        return {"keypoints": moved.xy.to(given.dtype).view(shape), "visible": visible.view(shape[:-1])}


def has_targets(batch: Any) -> bool:
    """Whether a Batch has masks, boxes or keypoints."""
    return any(getattr(batch, name) is not None for name in TARGETS)


def targets(batch: Any, source: Images) -> Targets | None:
    """The targets of a Batch, checked against its images; None where it has none."""
    for name, marks in TARGETS.items():
        if marks is not None and getattr(batch, name) is None and getattr(batch, marks) is not None:
            raise ValueError(f"{marks} came without {name}, which it tells of; pass both, or neither")
    if not has_targets(batch):
        return None
    n, device = len(source), source.device
    return Targets(
        None if batch.masks is None else read.masks(batch, source),
        None if batch.boxes is None else read.boxes(batch, n, device),
        None if batch.keypoints is None else read.keypoints(batch, n, device),
        arguments.number("min_area", batch.min_area, low=0.0),
        arguments.number("min_visibility", batch.min_visibility, low=0.0, high=1.0),
    )


__all__ = ["TARGETS", "Targets", "has_targets", "targets"]
