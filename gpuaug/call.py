"""One call of a policy, from images and keys to augmented images.

    keys -- draw --> parameters -- lower, verify --> passes -- fold --> plan -- prepare --> tables
    tables, images -- execute --> augmented images;  mixes, labels -- follow --> soft labels

The first line needs no image, so that for a kind of batch that comes again a recipe (`gpuaug.trace`) makes the tables
in one go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpuaug import arguments, ir, rng, targets
from gpuaug.arrays import is_tv
from gpuaug.batch import Batch
from gpuaug.dtypes import Through, through
from gpuaug.exec import choose, load
from gpuaug.fuse import Plan
from gpuaug.images import Images, Planar, Ragged, as_one
from gpuaug.transforms import ToDtype, ToTensor, Transform
from gpuaug.transforms.base import Drawn, lower_each


class Lowered(NamedTuple):
    """What the transforms become for a kind of images."""

    passes: ir.Sequence
    through: Through | None  # how images go through an executor that does not hold their dtype
    frame: ir.Frame  # of the images as they go in
    end: ir.Frame  # of what comes out


def lowered(
    transforms: Sequence[Transform], drawn: Sequence[Drawn], frame: ir.Frame, memory_format: torch.memory_format
) -> Lowered:
    """The passes of a policy, verified."""
    passes: list[ir.Pass] = []
    # without conversions of the dtype: what `Through` may run on the bits of a dtype that no executor holds
    moves: list[ir.Pass] = []
    steps: list[tuple[torch.dtype, bool]] = []
    end = frame
    for t, made, after in lower_each(transforms, drawn, frame, 0):
        passes += made
        if isinstance(t, ToDtype | ToTensor):
            steps.append((after.dtype, getattr(t, "scale", True)))
        else:
            moves += made
        end = after
    every, how = through(tuple(passes), tuple(moves), tuple(steps), frame, end.dtype, memory_format)
    inner = frame if how is None else how.frame(frame)
    ir.verify(every, inner)
    return Lowered(every, how, inner, end)


def prepared(plan: Plan, executor: Any) -> tuple[Any, ir.Sequence, Through | None]:
    """All of a call that needs no image: what an executor prepares of a plan, the mixes that labels follow, and how
    images go through it."""
    mixes = tuple(p for p in plan.passes if any(isinstance(q, ir.Mix) for q in ir.walk((p,))))
    return executor.prepare(plan), mixes, plan.through


@dataclass(frozen=True, eq=False)
class Call:
    """One batch on its way through a policy."""

    policy: Any
    source: Images
    labels: Tensor | None
    keys: rng.Keys
    backend: str
    key: int | None = None  # of the process that numbered the samples

    @cached_property
    def frame(self) -> ir.Frame:
        """Of the source."""
        return frame_of(self.source)

    def go(self, params: Any) -> tuple[Tensor, Tensor | None]:
        """Images and labels, from given or fresh parameters."""
        keys = self.keys
        name = choose(self.backend, self.source.device)
        executor, source = load(name), self.source
        # the reference defines what a recipe must give, and so takes none
        if params is None and name != "reference":
            # what all batches of one recipe share; the sizes of ragged images are an input of its program
            shape, size = (source.channels, source.size) if isinstance(source, Ragged) else (source.shape[1:], None)
            kind = (name, self.policy._options(), shape, source.dtype)
            recipes, build = self.policy._recipes, self.policy._builder(name)
            steps, mixes, how = recipes.prepare(kind, keys, size, lambda: self.frame, build)
        else:
            steps, mixes, how = prepared(
                self.policy._plan(keys, self.frame, params or self.policy._draw(keys, self.frame)), executor
            )
        out = executor.execute(steps, _readable(source, how))
        out = out if how is None else how.after(out)
        if self.labels is None:
            return out, None
        return out, targets.follow(mixes, self.labels, self.policy._classes)


def _readable(source: Images, how: Through | None) -> Images:
    """Images as executors take them: of a list uint8 or float32, of one size any dtype that they hold."""
    if how is not None:
        if isinstance(source, Tensor):
            source = how.dense(source)
        else:
            source = source.mapped(how.before)
    if isinstance(source, Ragged) and source.dtype not in (torch.uint8, torch.float32):
        source = source.mapped(Tensor.float)
    return source


def frame_of(source: Images) -> ir.Frame:
    """The frame of images."""
    if isinstance(source, Ragged):
        return frame_for(source.size, len(source), source.channels, source.dtype, source.device)
    return frame_for((source.shape[2], source.shape[3]), len(source), source.shape[1], source.dtype, source.device)


def frame_for(size: Any, n: int, channels: int, dtype: torch.dtype, device: torch.device) -> ir.Frame:
    """The frame of n images.  size: (H, W) or [N, 2]"""
    if isinstance(size, Tensor):
        if size.shape != (n, 2) or size.dtype.is_floating_point:
            raise ValueError(f"size must be (H, W) or integers [{n}, 2], got {size.dtype} {tuple(size.shape)}")
        if size.device != device:
            raise ValueError(f"size must be on the device of ids, got {size.device} and {device}")
        size = size.long()
        if device.type == "cpu" and n and int(size.min()) < 1:
            raise ValueError(f"size must be at least 1 by 1, got {int(size.min())}")
        return ir.Frame(size, None, channels, dtype)
    height, width = arguments.size("size", size)
    blank = ir.Frame(
        torch.zeros((n, 2), dtype=torch.int64, device=device), None, arguments.integer("channels", channels, 1), dtype
    )
    return blank.resized((height, width))


# ---- one image


def one_of(images: Any) -> Tensor | Planar | None:
    """The images of a call as a batch of one where they are a single image, in a Batch too."""
    return as_one(images.images if isinstance(images, Batch) else images)


def alone(
    call: Callable[..., Any], one: Tensor | Planar, labels: Any, ids: Any = None, occurrence: Any = None, **options: Any
) -> Any:
    """What a call gives for one image [1, C, H, W]: an image [C, H, W], and its label where it came with one."""
    numbers = {name: _number(value) for name, value in (("ids", ids), ("occurrence", occurrence)) if value is not None}
    out = call(one, labels=_row(labels), **numbers, **options)
    return out[0] if labels is None else (out[0][0], out[1][0])


def batch_of_one(sample: Batch, one: Tensor | Planar) -> Batch:
    """A Batch of one image with the first axis that it came without."""
    return sample.replace(
        images=one, labels=_row(sample.labels), ids=_number(sample.ids), occurrence=_number(sample.occurrence)
    )


def _row(value: Any) -> Any:
    """The label of one image as the labels of a batch of one; a tv_tensor stays what it is."""
    return value[None] if isinstance(value, Tensor) and not is_tv(value) else value if value is None else [value]


def _number(value: Any) -> Any:
    """The id of one image as the ids of a batch of one, which it may be already."""
    if value is None or isinstance(value, list | tuple) or getattr(value, "ndim", False):
        return value
    return value[None] if isinstance(value, Tensor) else [value]
