"""Targets by an executor that has kernels for them: what needs no target is prepared with the images, by the same
recipe, and what is left is a launch for boxes, one for keypoints and those of the masks."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from gpuaug import ir, rng
from gpuaug.exec import load
from gpuaug.follow import masks as planes
from gpuaug.follow import read, shapes
from gpuaug.images import Ragged


@dataclass(frozen=True, eq=False)
class Ready:
    """All of what targets take that needs no target."""

    tables: tuple[Tensor | None, Tensor] | None  # of `shapes.tables`; None without boxes and keypoints
    masks: Any  # steps of an executor; None without masks, or where nothing moves them


class Wanted(NamedTuple):
    """What is asked of the passes that move pixels, a part of the kind of a recipe."""

    kernels: str = ""  # the executor that has some; empty: the passes themselves
    shapes: bool = False  # whether there are boxes or keypoints
    masks: tuple[Any, ...] | None = None  # as `masks.Encoded.kind` says it

    def ready(self, passes: ir.Sequence, frame: ir.Frame, keys: rng.Keys) -> Any:
        """A Ready, or the passes.  frame: of the images as they go in"""
        if not self.kernels:
            return passes
        masks = None
        if self.masks is not None and passes:
            masks = planes.prepared(passes, frame, keys, self.kernels, self.masks)
        return Ready(shapes.tables(passes, frame.size) if self.shapes else None, masks)


# what kernels make of targets: boxes, which there are, keypoints, which are visible, and planes of masks
Made = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]
NONE: Made = (None, None, None, None, None)


class Following(NamedTuple):
    """The targets of one call, for an executor that has kernels for them."""

    name: str  # of the executor
    targets: Any  # follow.Targets
    masks: planes.Encoded | None

    @property
    def wanted(self) -> Wanted:
        """What is asked of the passes."""
        boxes = self.targets.boxes is not None or self.targets.keypoints is not None
        return Wanted(self.name, boxes, None if self.masks is None else self.masks.kind)

    def given(self) -> tuple[Hashable, list[Tensor | None], Ragged | None]:
        """All that `make` depends on beside what is ready: values, tensors, and masks of different sizes."""
        boxes, points, masks = self.targets.boxes, self.targets.keypoints, self.masks
        tensors: list[Tensor | None] = [None] * 4
        if boxes is not None:
            tensors[:2] = boxes.given, boxes.valid
        if points is not None:
            tensors[2:] = points.given, points.visible
        ragged = masks.source if masks is not None and isinstance(masks.source, Ragged) else None
        tensors.append(masks.source if masks is not None and ragged is None else None)  # type: ignore[arg-type]
        values = (self._of_boxes, None if masks is None else (masks.kind, masks.held))
        return values, tensors, ragged

    @property
    def _of_boxes(self) -> tuple[str, float, float] | None:
        """Their format, and how small a box may be to stay one."""
        given = self.targets
        return None if given.boxes is None else (given.boxes.format, float(given.min_area), float(given.min_visibility))

    def make(self, ready: Ready) -> Made:
        """What kernels make of the targets; nothing where they would change nothing."""
        executor, boxes, points = load(self.name), self.targets.boxes, self.targets.keypoints
        found: list[Tensor | None] = [None] * 5
        about = self._of_boxes
        if about is not None:
            found[:2] = executor.moved_boxes(boxes.given, boxes.valid, ready.tables, *about)
        if points is not None:
            found[2:4] = executor.moved_points(points.given, points.visible, ready.tables)
        if ready.masks is not None and self.masks is not None:
            found[4] = executor.execute(ready.masks, self.masks.source)
        return tuple(found)  # type: ignore[return-value]

    def fields(self, made: Made) -> dict[str, Any]:
        """The fields of a Batch."""
        out: dict[str, Any] = {}
        boxes, valid, points, visible, moved = made
        if self.targets.boxes is not None:
            out |= {"boxes": boxes, "box_valid": valid, "box_format": self.targets.boxes.format}
        if self.targets.keypoints is not None:
            out |= {"keypoints": points, "visible": visible}
        if self.masks is not None:
            given: read.Masked = self.targets.masks
            if moved is None:
                kept = given.masks if isinstance(given.masks, Tensor) else given.masks.dense()
            else:
                kept = planes.decoded(moved, self.masks)
            out["masks"] = kept[:, 0] if given.flat else kept
        return out


def following(targets: Any, name: str) -> Following | None:
    """The targets of a call as kernels take them; None where an executor has no kernels for them.  targets: a
    follow.Targets"""
    if name != "triton":
        return None
    given, boxes, points = targets.masks, targets.boxes, targets.keypoints
    kernels = load(name)
    if any(t is not None and t.given.dtype not in kernels.NUMBERS for t in (boxes, points)):
        return None
    masks = None if given is None else planes.encoded(given.masks, given.fill, given.bilinear, name)
    return None if masks is not None and not (masks.each and len(masks.source)) else Following(name, targets, masks)
