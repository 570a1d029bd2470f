"""The geometry of a call that is over: for data that comes later, and backwards, for what was predicted on augmented
images."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gpuaug import arguments, fuse, ir, rng, targets, videos
from gpuaug.batch import Batch, Params
from gpuaug.call import alone, batch_of_one, frame_for, frame_of, one_of, readable
from gpuaug.dtypes import through
from gpuaug.exec import choose, load
from gpuaug.follow import has_targets, masks, shapes
from gpuaug.follow import targets as read
from gpuaug.images import Ragged, as_images
from gpuaug.transforms import Transform
from gpuaug.transforms.base import lower_each

LIKE = ("image", "mask", "points", "boxes")


def check(policy: Any, params: Any, prefix: bool) -> None:
    """Raise where params are not of this policy.  prefix: whether they may be of its first transforms"""
    if not isinstance(params, Params):
        raise TypeError(f"params must be a gpuaug.Params, as Policy.draw gives it, got {type(params).__name__}")
    if len(params) > len(policy.transforms) or (len(params) < len(policy.transforms) and not prefix):
        raise ValueError(
            f"params must hold one entry per transform, got {len(params)} for {len(policy.transforms)}; "
            "replay with the policy that drew them"
        )
    for t, names, drawn in zip(policy.transforms, policy._names, params, strict=False):
        if names != drawn.keys():
            raise ValueError(
                f"params of {type(t).__name__} must hold {sorted(names)}, got {sorted(drawn)}; "
                "replay with the policy that drew them"
            )


def again(policy: Any, images: Any, params: Params, labels: Any, backend: str) -> Any:
    """`Policy.replay` of the images of the call that drew the parameters."""
    check(policy, params, False)
    if videos.is_video(images.images if isinstance(images, Batch) else images):
        return _clips(policy, images, params, labels, backend)
    batch = images if isinstance(images, Batch) and has_targets(images) else None
    one = one_of(images)
    if batch is not None and one is not None:
        return again(policy, batch_of_one(batch, one), params, labels, backend)[0]
    valid = images.valid if isinstance(images, Batch) else None
    images, labels = (images.images, images.labels) if isinstance(images, Batch) else (images, labels)
    if one is not None:
        return alone(policy.replay, one, labels, params=params, backend=backend)
    who = params.ids, params.epoch, params.occurrence
    run = policy._prepare(images, labels, *who, backend, need_labels=False, seed=params.seed, batch=batch, valid=valid)
    same_size(run.frame.size, params.size)
    out, soft, followed = run.go(params)
    if batch is not None:
        return batch.replace(**followed, images=out, labels=soft)
    return out if labels is None else (out, soft)


def _clips(policy: Any, images: Any, params: Params, labels: Any, backend: str) -> Any:
    """`again` of videos."""
    batch = images if isinstance(images, Batch) else Batch(images, labels)

    def run(frames: Batch) -> Batch:
        out = again(policy, frames, params, None, backend)
        if isinstance(out, Batch):
            return out
        pixels, soft = out if isinstance(out, tuple) else (out, None)
        return frames.replace(images=pixels, labels=soft)

    clips = videos.as_clips(batch.images)
    out = videos.by_place(run, batch.replace(images=clips), clips.shape[1])
    if has_targets(batch):
        return out
    pixels = out.images[0] if videos.is_clip(batch.images) else out.images
    return pixels if out.labels is None else (pixels, out.labels)


def replay(policy: Any, other: Any, params: Params, like: str, box_format: str | None, backend: str) -> Any:
    """`Policy.replay` of other data than the images."""
    check(policy, params, True)
    arguments.one_of("like", like, LIKE)
    if like in ("image", "mask") and videos.is_video(other):
        return videos.frame_by_frame(lambda frames: replay(policy, frames, params, like, None, backend), other)
    frame = _frame(params)
    passes = tuple(p for _, made in _geometry(policy, params, frame) for p in made)
    keys = rng.Keys(params.seed, params.epoch, params.ids, params.occurrence)
    if like == "image":
        return _image(passes, other, frame, keys, policy.memory_format, backend)
    field = {"mask": "masks", "points": "keypoints", "boxes": "boxes"}[like]
    blank = _blank(frame)
    given = read(Batch(blank, **{field: other}, box_format=box_format), blank)
    assert given is not None
    made = given.follow(passes, frame, keys, backend)
    return made["masks"] if like == "mask" else (made[field], made["visible" if like == "points" else "box_valid"])


def _image(
    passes: ir.Sequence, other: Any, frame: ir.Frame, keys: rng.Keys, layout: torch.memory_format, backend: str
) -> Tensor:
    """Images, or maps of any channels, moved and interpolated as the call's images were."""
    source = as_images(other)
    here = frame_of(source)
    same_size(here.size, frame.size)
    every, how = through(passes, passes, (), here, here.dtype, layout)
    inner = here if how is None else how.frame(here)
    for p in ir.walk(every):
        fill = getattr(p, "fill", None)
        if fill is not None and len(fill) not in (1, inner.channels):
            raise ValueError(
                f"images must have {len(fill)} channels, as many as a fill of the policy, got {here.channels}; "
                'replay them like="mask", whose border is 0'
            )
    executor = load(choose(backend, here.size.device))
    out: Tensor = executor.execute(
        executor.prepare(fuse.Plan(fuse.fold(every), keys, inner, how)), readable(source, how)
    )
    return out if how is None else how.after(out)


def undo(policy: Any, predictions: Any, params: Params, backend: str) -> tuple[Any, Any]:
    """`Policy.undo`."""
    check(policy, params, True)
    if videos.is_video(predictions):
        back, seen = videos.frame_by_frame(lambda frames: undo(policy, frames, params, backend), predictions)
        return back, seen
    frame = _frame(params)
    steps = list(_geometry(policy, params, frame))
    for t, made in steps:
        found = next((p for p in ir.walk(made) if isinstance(p, ir.Mix | ir.Elastic)), None)
        if isinstance(found, ir.Elastic):
            raise ValueError(
                f"{type(t).__name__} cannot be undone, for its field has no inverse in closed form; predict on images "
                "of a policy without it, or undo a prefix of the policy by params[:k]"
            )
        if found is not None:
            raise ValueError(
                f"{type(t).__name__} cannot be undone, for it puts two images together; predict on images of a policy "
                "without it, or undo a prefix of the policy by params[:k]"
            )
    passes = tuple(p for _, made in steps for p in made)
    end = ir.after(passes, frame)
    n = len(params.ids)
    given = predictions if isinstance(predictions, Tensor) else torch.as_tensor(predictions)
    flat = given.ndim == 3
    given = given[:, None] if flat else given
    if given.ndim != 4 or len(given) != n or (end.fixed is not None and tuple(given.shape[2:]) != end.fixed):
        raise ValueError(
            f"predictions must be [{n}, C, {', '.join(map(str, end.fixed or ('H', 'W')))}], as the augmented images "
            f"are, got shape {tuple(predictions.shape)}; scale them to that size first"
        )
    sizes = [frame.fixed] * n if frame.fixed is not None else [(h, w) for h, w in frame.size.tolist()]
    largest = frame.fixed or (max((h for h, _ in sizes), default=1), max((w for _, w in sizes), default=1))
    back = shapes.inverted(_composed(passes, n, frame.size.device))
    whole = end.resized((int(given.shape[2]), int(given.shape[3])))
    out_size = ir.rows(largest, frame.size)
    move = ir.Project(back, _footprint(back, frame.size), whole.whole(), out_size, largest, None)
    keys = rng.Keys(params.seed, params.epoch, params.ids, params.occurrence)
    smooth = given.is_floating_point()
    out = masks.follow((move,), given, whole, keys, backend, bilinear=smooth, fill=0.0)
    seen = _seen(passes, frame, largest)
    out = torch.where(seen[:, None], out, torch.zeros_like(out))
    out = out[:, 0] if flat else out
    if frame.fixed is not None:
        return out, seen
    return (
        [o[..., :h, :w] for o, (h, w) in zip(out, sizes, strict=True)],
        [s[:h, :w] for s, (h, w) in zip(seen, sizes, strict=True)],
    )


def _composed(passes: ir.Sequence, n: int, device: torch.device) -> Tensor:
    """Output pixel -> input pixel of all passes together: [N, 3, 3]."""
    total = torch.eye(3, dtype=torch.float64, device=device).expand(n, 3, 3)
    for p in passes:
        if isinstance(p, ir.Choice):
            for step in p.index.unbind(1):
                ways = [ir.product(total, _composed(branch, n, device)) for branch in p.branches]
                for i, way in enumerate(ways):
                    total = torch.where((step == i)[:, None, None], way, total)
        else:
            total = ir.product(total, shapes.inverse_of(p))
    return total


def _footprint(matrix: Tensor, size: Tensor) -> Tensor:
    """How far apart neighbours of the original lie in the augmented image, at its middle, and at least 1: [N, 2]."""
    middle = (size.flip(1).double() - 1) / 2
    right, down = ir.rows((1.0, 0.0), middle, torch.float64), ir.rows((0.0, 1.0), middle, torch.float64)
    at, x, y = shapes.mapped(matrix, torch.stack([middle, middle + right, middle + down], 1))[0].unbind(1)
    reach = (x - at).square() + (y - at).square()
    # no farther than the pixels that rounding leaves in their places
    wide = reach.sqrt()
    return torch.where((wide - 1).abs() < ir.NOTHING, torch.ones_like(wide), wide).clamp(min=1.0)


def _seen(passes: ir.Sequence, frame: ir.Frame, largest: tuple[int, int]) -> Tensor:
    """Which pixels of the originals were in every image on the way: [N, H, W] bool."""
    n, device = len(frame.size), frame.size.device
    y, x = torch.meshgrid(*(torch.arange(v, dtype=torch.float64, device=device) for v in largest), indexing="ij")
    xy = torch.stack([x, y], 2).flatten(0, 1).expand(n, -1, 2)
    start = shapes.Points(xy, (xy < frame.size.flip(1)[:, None]).all(2))
    return shapes.after(passes, start).seen.view(n, *largest)


def _geometry(policy: Any, params: Params, frame: ir.Frame) -> Iterator[tuple[Transform, ir.Sequence]]:
    """The passes that move pixels, by the transform that they are of; of a prefix of the policy where params are
    one."""
    for t, made, _ in lower_each(policy.transforms[: len(params)], list(params), frame, 0):
        try:
            yield t, targets.geometric(made)
        except ValueError as error:
            raise ValueError(f"{type(t).__name__} moves pixels as nothing else can follow: {error}") from None


def _frame(params: Params) -> ir.Frame:
    """The frame of the images that the parameters were drawn for; colours do not matter here."""
    size: Any = params.size
    if params.fixed is not None:
        size = params.fixed
    elif size.device.type == "cpu" and len(size) and bool((size == size[0]).all()):
        size = (int(size[0, 0]), int(size[0, 1]))
    return frame_for(size, len(params.ids), 3, torch.float32, params.size.device)


def _blank(frame: ir.Frame) -> Any:
    """Something of the sizes of the images, without pixels of its own."""
    n, device = len(frame.size), frame.size.device
    if frame.fixed is not None:
        return torch.zeros((), device=device).expand(n, 1, *frame.fixed)
    dot = torch.zeros((), dtype=torch.uint8, device=device)
    return Ragged.of(tuple(dot.expand(h, w, 1) for h, w in frame.size.tolist()))


def same_size(here: Tensor, there: Tensor) -> None:
    """Raise where images are not of the sizes that were drawn for; not on a GPU, where the comparison would make the
    host wait."""
    if len(here) != len(there) or (here.device.type == "cpu" and not torch.equal(here, there)):
        one, other = (sorted(set(map(tuple, v.tolist())))[:3] for v in (here, there))
        raise ValueError(
            f"images must have the size that params were drawn for, got {len(here)} of {one} instead of {len(there)} "
            f"of {other}; draw with the size of these images"
        )
