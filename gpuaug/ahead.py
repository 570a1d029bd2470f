"""A policy's draws before there are images: which window of each it will read, and the call that then takes them.

ids, sizes -- draw, lower, fold, prepare, on the host --> what an executor runs, and the windows that it reads
the same, pixels of the windows -- execute, on any device --> augmented images"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuaug import arguments, drawn, ir, rng, targets, videos
from gpuaug.arrays import from_array, put
from gpuaug.batch import Batch, as_integers
from gpuaug.call import batch_of_one, class_numbers, frame_for, one_of, prepared
from gpuaug.drawn import DrawnAhead, Windows
from gpuaug.exec import choose, load
from gpuaug.follow import targets as read_targets
from gpuaug.follow.prepared import Wanted
from gpuaug.images import Images, Ragged, as_images
from gpuaug.loading import uncollected
from gpuaug.symbolic import is_symbolic
from gpuaug.trace.cache import check_values
from gpuaug.windows import as_windows, reads

_HOST = torch.device("cpu")


def windows(
    policy: Any,
    ids: Any,
    size: Any,
    epoch: Any,
    occurrence: Any,
    key: int | None,
    channels: int,
    device: torch.device,
    labels: Any = None,
) -> Windows:
    """`Policy.windows`."""
    ids = as_integers("ids", ids, None, _HOST, rng.MAX_ID)
    keys, key = policy._keys(ids, epoch, occurrence, len(ids), _HOST, key=key)
    # copies: their owner may write the next batch into the tensors
    classes = class_numbers(policy, labels, len(ids), _HOST)
    classes = None if classes is None else classes.clone()
    keys = rng.Keys(keys.seed, int(keys.epoch), keys.ids.clone(), keys.occurrence.clone(), labels=classes)
    if not isinstance(size, Tensor) and np.ndim(size) == 2:
        size = from_array("size", arguments.array("size", size))
    sizes = frame_for(size, len(ids), channels, torch.uint8, _HOST).size.clone()
    first = tuple(sizes[0].tolist()) if len(sizes) else None
    dense = (
        first is not None
        and bool((sizes.numpy() == sizes[0].numpy()).all())
        and not policy._takes_ragged((*first, channels), torch.uint8)
    )
    params = DrawnAhead(policy._identity(), keys, key, sizes, first if dense else None, channels)
    name, wanted = choose("auto", device), policy._recipes.followed
    params.draw = partial(_draw, policy, name)
    found = Windows(as_windows(params.draw(params), sizes), params)
    if wanted is not None:
        _followed(policy, params, wanted)
    return found


def load_executor(policy: Any, device: torch.device) -> None:
    """Load what the first call for images on a device needs, where that is more than modules; for a loader, which
    has nothing else to do until its first batch is decoded."""
    with uncollected():
        executor = load(choose("auto", device))
        compiled = getattr(executor, "load_compiled", None)
        if compiled is not None:
            compiled()


def prepare(policy: Any, params: DrawnAhead, name: str, source: Images) -> Any:
    """What an executor runs of samples that were drawn ahead, as `call.prepared` makes it, on the device of images."""
    device = source.device
    if (name, _HOST) not in params.made:
        _draw(policy, name, params)
    filled = params.filled.get(name)
    if name == "triton" and filled is not None:
        (steps, *rest), _ = filled.on(_sent_before(params, filled, source))
        return load(name).without_cells(steps), *rest
    if (name, device) not in params.made:
        params.made[name, device] = drawn.sent(params.made[name, _HOST], device)
    return params.made[name, device]


def _sent_before(params: DrawnAhead, filled: Any, source: Images) -> Tensor:
    """Tables on the device of images, as a call has sent them there, which a capture of it repeats."""
    device, place = source.device, _place(source)
    if place not in params.sent and _capturing(device):
        # all streams had come to an end when the capture began
        place = next((p for p in params.sent if p[:2] == place[:2]), place)
    if place not in params.sent:
        params.sent[place] = put(filled.memory, device)
    return params.sent[place]


def _place(source: Images) -> tuple[torch.device, bool, int]:
    """What tables may be used again for: a device, images of which all is here or windows of any, and a stream."""
    device = source.device
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    return device, isinstance(source, Ragged) and source.windows is not None, stream


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def geometry(policy: Any, params: DrawnAhead, device: torch.device) -> ir.Sequence:
    """The passes that targets follow of samples that were drawn ahead, on a device: drawn again on the host, to the
    same bits."""
    if ("follow", _HOST) not in params.made:
        frame = frame_for(params.fixed or params.size, len(params), params.channels, torch.uint8, _HOST)
        params.made["follow", _HOST] = targets.geometric(policy._lower(frame, policy._draw(params.keys, frame)))
    if ("follow", device) not in params.made:
        params.made["follow", device] = drawn.sent(params.made["follow", _HOST], device)
    passes: ir.Sequence = params.made["follow", device]
    return passes


class Followed:
    """What targets take of samples that were drawn ahead, on a device."""

    def __init__(self, memory: Tensor | None, made: Any):
        """memory: all tables, None where no recipe has filled them.  made: what that has filled on the host, or else a
        prepared.Ready on the device"""
        self.memory, self._made = memory, made

    @property
    def recipe(self) -> Any:
        """Which recipe has filled the tables."""
        return self._made.recipe

    @cached_property
    def ready(self) -> Any:
        """A prepared.Ready; a call that is bound does without it."""
        return self._made if self.memory is None else self._made.on(self.memory)


def follow(policy: Any, params: DrawnAhead, wanted: Wanted, source: Images) -> Followed:
    """What targets want of samples that were drawn ahead, on the device of images: drawn again on the host, to the same
    bits, and sent in one piece."""
    place = (wanted, *_place(source))
    if place not in params.followed and _capturing(source.device):
        # all streams had come to an end when the capture began
        place = next((p for p in params.followed if p[:2] == place[:2]), place)
    if place not in params.followed:
        found = _followed(policy, params, wanted)
        # for the windows that are drawn next, in a thread that has time
        policy._recipes.followed = wanted
        executor = load(wanted.kernels)
        if hasattr(found, "memory") and executor.may_fit((found.made.masks or (), None, None)):
            params.followed[place] = Followed(put(found.memory, source.device), found)
        else:
            params.followed[place] = Followed(None, drawn.sent(getattr(found, "made", found), source.device))
    followed: Followed = params.followed[place]
    return followed


def _followed(policy: Any, params: DrawnAhead, wanted: Wanted) -> Any:
    """The same on the host: as a recipe has filled it, or a prepared.Ready."""
    if wanted not in params.followed:
        fixed, channels = params.fixed, params.channels
        shape, size = ((channels, *fixed), None) if fixed else (channels, params.size)
        kind = ("followed ahead", wanted, policy._options(), shape)
        frame = partial(frame_for, fixed or params.size, len(params), channels, torch.uint8, _HOST)
        build = partial(_build_followed, policy, wanted)
        params.followed[wanted] = policy._recipes.prepare(kind, params.keys, size, frame, build, _filled)
    return params.followed[wanted]


def _build_followed(policy: Any, wanted: Wanted, keys: rng.Keys, frame: ir.Frame) -> Any:
    if is_symbolic(keys):
        check_values(policy.transforms)
    return wanted.ready(targets.geometric(policy._lower(frame, policy._draw(keys, frame))), frame, keys)


class Sent(NamedTuple):
    """Tables of samples that were drawn ahead on a device, for one call and its images alone."""

    executor: Any
    filled: Any  # of a recipe, on the host
    memory: Tensor  # all tables, and behind them what is known of images of different sizes: [words] int64

    def made(self) -> Any:
        """As `call.prepared` makes it."""
        (steps, mixes, how), _ = self.filled.on(self.memory)
        return self.executor.fitted(steps), mixes, how


def send(policy: Any, params: DrawnAhead, name: str, source: Images) -> Sent | None:
    """What a recipe has drawn ahead, in one piece on its way to the device of images; None where there is none, or
    where the executor needs more than that.

    Raises ValueError for images of which more than their windows would be read."""
    if (name, _HOST) not in params.made:
        _draw(policy, name, params)
    filled, executor, device = params.filled.get(name), load(name), source.device
    if filled is None or not executor.may_fit(filled.made[0]):
        return None
    if _capturing(device):
        # a graph would copy from memory of the host that is gone when it is replayed
        return None
    cuda, length = device.type == "cuda", len(filled.memory)
    words = source.words if isinstance(source, Ragged) else 0
    # a copy for this call alone, which is written to; by NumPy, since torch would wait for threads of a busy host
    copy = torch.empty(length + words, dtype=torch.int64, device="cpu", pin_memory=cuda)
    array = copy.numpy()
    array[:length] = filled.memory
    if words:
        executor.fit(filled.made[0], filled.memory, array, source)
    memory = copy.to(device, non_blocking=True)
    if isinstance(source, Ragged):
        source.tell(memory[length:])
    params.sent[_place(source)] = memory
    return Sent(executor, filled, memory)


def _draw(policy: Any, name: str, params: DrawnAhead) -> Tensor | None:
    """Put what an executor needs into `params`, on the host: the rectangles that it reads; None for all of every
    image."""
    fixed, channels = params.fixed, params.channels
    build = partial(_build, policy, load(name))
    frame = partial(frame_for, fixed or params.size, len(params), channels, torch.uint8, _HOST)
    found: Any
    if name == "reference":
        # it defines what a recipe must give, and so takes none
        found = build(params.keys, frame())
    else:
        shape, size = ((channels, *fixed), None) if fixed else (channels, params.size)
        kind = ("ahead", name, policy._options(), shape)
        found = policy._recipes.prepare(kind, params.keys, size, frame, build, _filled)
    if hasattr(found, "memory"):
        params.filled[name], found = found, found.made
    rectangles: Tensor | None
    params.made[name, _HOST], rectangles = found
    return rectangles


def _filled(recipe: Any, keys: rng.Keys, size: Tensor | None) -> Any:
    return recipe.filled(keys, size)


def _build(policy: Any, executor: Any, keys: rng.Keys, frame: ir.Frame) -> tuple[Any, Tensor | None]:
    if is_symbolic(keys):
        check_values(policy.transforms)
    plan = policy._plan(keys, frame, policy._draw(keys, frame))
    return prepared(plan, executor), reads(plan.passes)


def warm(
    policy: Any,
    batch: Batch,
    backend: str,
    progress: Callable[[int, int], Any] | None,
    target: str | None = None,
) -> None:
    """`Policy.warmup` for batches like this one."""
    one = one_of(batch)
    batch = batch if one is None else batch_of_one(batch, one)
    if videos.is_video(batch.images):
        batch = Batch(videos.as_clips(batch.images).flatten(0, 1))
    images = as_images(batch.images)
    name = "triton" if target else choose(backend, images.device)
    run = partial(policy._prepare, need_labels=False)
    follows = read_targets(batch, images)

    def once(images: Any, labels: Any, ids: Tensor) -> None:
        blank = None if follows is None else follows.blank(ids.device)
        replace(run(images, labels, ids, 0, None, name), targets=blank).go(None)

    if target:
        load(name).compile_for(target, once, images, batch.labels, progress)
        return
    if name == "triton" and images.device.type != "cpu":
        load(name).compile_ahead(once, images, batch.labels, progress)
    ids = torch.arange(len(images), device=images.device) if batch.params is None else None
    # twice: on a host the second batch of a kind finds its recipe
    for _ in range(2):
        call = run(images, batch.labels, ids, batch.epoch, None, backend, drawn=batch.params)
        replace(call, targets=follows).go(None)


def taken(
    policy: Any, params: Any, source: Images, given: dict[str, Any], valid: Tensor | None
) -> tuple[rng.Keys, int | None, DrawnAhead]:
    """Samples that were drawn ahead as a call takes them: their keys on the device of the images, the key of the
    process that numbered them, and what was drawn.  given: ids, epoch, occurrence, key and labels of the Batch, each of
    which may be None"""
    if not isinstance(params, DrawnAhead):
        raise TypeError(f"params of a Batch must be those of Policy.windows, got {type(params).__name__}")
    params.check(policy._identity(), source, given)
    device, n = source.device, len(params)
    if valid is not None and policy._mixes:
        if valid.device.type != "cpu" and params.keys.valid is None:
            raise ValueError(
                "params must be told which samples are valid while that is on the host, since nobody mixes with the "
                "others; pass params.among(valid)"
            )
        params = params.among(valid)
    elif valid is None and params.keys.valid is not None:
        params = params.among(torch.ones(n, dtype=torch.bool, device="cpu"))
    own = params.keys
    ids, occurrence = (
        put(kept, device) if given[name] is None else as_integers(name, given[name], n, device, limit)
        for name, kept, limit in (
            ("ids", own.ids, rng.MAX_ID),
            ("occurrence", own.occurrence, rng.MAX_OCCURRENCE),
        )
    )
    return rng.Keys(own.seed, own.epoch, ids, occurrence), params.key, params
