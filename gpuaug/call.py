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

from gpuaug import arguments, fuse, ir, mixing, rng, targets
from gpuaug.arrays import is_tv
from gpuaug.batch import Batch, as_labels
from gpuaug.displayed import Text
from gpuaug.drawn import DrawnAhead
from gpuaug.dtypes import Through, through
from gpuaug.exec import check, choose, describe, load
from gpuaug.follow import TARGETS, Targets
from gpuaug.follow.prepared import Following, Wanted, following
from gpuaug.fuse import Plan
from gpuaug.gathered import Gathered
from gpuaug.images import Images, Planar, Ragged, as_one
from gpuaug.symbolic import is_symbolic
from gpuaug.trace.cache import Build, check_values, find
from gpuaug.transforms import ToDtype, ToTensor, Transform
from gpuaug.transforms.base import Drawn, lower_each, numbered


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
    if end.fixed is None:
        raise ValueError(
            "the images end in different sizes; "
            "add a step that fixes the size, such as Resize((224, 224)) or RandomResizedCrop(224)"
        )
    every, how = through(tuple(passes), tuple(moves), tuple(steps), frame, end.dtype, memory_format)
    inner = frame if how is None else how.frame(frame)
    ir.verify(every, inner)
    return Lowered(every, how, inner, end)


def planned(made: Lowered, keys: rng.Keys, single_resample: bool) -> Plan:
    """The plan of a policy that was lowered."""
    mixes = mixing.for_labels(made.passes)
    return Plan(fuse.fold(made.passes, single_resample), keys, made.frame, made.through, mixes)


def prepared(plan: Plan, executor: Any) -> tuple[Any, mixing.Mixes, Through | None]:
    """All of a call that needs no image: what an executor prepares of a plan, the mixes that labels follow, and how
    images go through it."""
    return executor.prepare(plan), executor.accounted(plan.mixes), plan.through


class Done(NamedTuple):
    """What a call made."""

    images: Tensor
    labels: Tensor | None
    targets: dict[str, Any]  # fields of a Batch


@dataclass(frozen=True, eq=False)
class Call:
    """One batch on its way through a policy."""

    policy: Any
    source: Images
    labels: Tensor | None
    keys: rng.Keys
    backend: str
    key: int | None = None  # of the process that numbered the samples
    ahead: DrawnAhead | None = None  # what was drawn before the images were there
    targets: Targets | None = None  # what follows the images

    @cached_property
    def frame(self) -> ir.Frame:
        """Of the source."""
        return frame_of(self.source)

    def go(self, params: Any) -> Done:
        """Images, labels and what follows them, from given or fresh parameters."""
        name = choose(self.backend, self.source.device)
        follows = None if self.targets is None else following(self.targets, name)
        if name == "triton" and params is None and (self.targets is None or follows is not None):
            made = self._again(name, follows)
            if made is not None:
                return self._done(made, follows)
        if follows is None:
            return self._stepwise(self.source, params, name)
        return self._done(self._launched(self.source, params, follows), follows)

    def _done(self, made: tuple[Any, ...], follows: Following | None) -> Done:
        return Done(made[0], made[1], {} if follows is None else follows.fields(made[2:]))

    def _again(self, name: str, follows: Following | None) -> tuple[Tensor | None, ...] | None:
        """Images, labels and what follows by an executor that knows its calls again; None where it knows no such
        call."""
        policy, sent, made = self.policy, None, None
        more: Any = None if follows is None else follows.given()
        if self.ahead is not None:
            if follows is not None:
                made = policy._followed_ahead(self.ahead, follows.wanted, self.source)
                if made.memory is None:
                    return None
                values, tensors, masks = more
                more = (values, made.recipe), [*tensors, made.memory], masks
            sent = policy._send_ahead(self.ahead, name, self.source)
            if sent is None:
                return None

        def run(source: Images) -> tuple[Tensor | None, ...]:
            if sent is not None:
                done = self._executed(source, sent.made(), name)
                return done if follows is None or made is None else (*done, *follows.make(made.ready))
            return self._stepwise(source, None, name)[:2] if follows is None else self._launched(source, None, follows)

        given = (policy._recipes.calls, self.source, self.labels, self.keys)
        return load(name).again(*given, run, sent, more)  # type: ignore[no-any-return]

    def _launched(self, source: Images, params: Any, follows: Following) -> tuple[Tensor | None, ...]:
        """The same by kernels for all that follows, prepared and then executed."""
        ready, more = self._prepared(params, follows.name, follows.wanted)
        made = follows.make(more)
        return *self._executed(source, ready, follows.name), *made

    def _stepwise(self, source: Images, params: Any, name: str) -> Done:
        """The same, prepared and then executed."""
        ready, passes = self._prepared(params, name, None if self.targets is None else Wanted())
        # before the images, so that what is refused costs nothing
        followed = {}
        if self.targets is not None:
            followed = self.targets.follow(passes, self.frame, self.keys, self.backend)
        return Done(*self._executed(source, ready, name), followed)

    def _executed(self, source: Images, ready: Any, name: str) -> tuple[Tensor, Tensor | None]:
        """Images and labels from what was prepared."""
        steps, mixes, how = ready
        out = load(name).execute(steps, readable(source, how))
        out = out if how is None else how.after(out)
        if self.labels is None:
            return out, None
        about = (self.policy._classes, self.keys.valid, self.policy._smoothing)
        return out, load(name).follow_labels(mixes, self.labels, *about)

    def _prepared(self, params: Any, name: str, follows: Wanted | None) -> tuple[Any, Any]:
        """What the executor needs, and what targets follow, if there are any."""
        policy, source, keys = self.policy, self.source, self.keys
        if self.ahead is not None:
            made = policy._prepared_ahead(self.ahead, name, source)
            if follows is None:
                return made, ()
            if follows.kernels:
                return made, policy._followed_ahead(self.ahead, follows, source).ready
            return made, policy._geometry_ahead(self.ahead, source.device)
        build = policy._builder(name, follows)
        # the reference defines what a recipe must give, and so takes none
        if params is None and name != "reference":
            # what all batches of one recipe share; the sizes of ragged images are an input of its program
            shape, size = (source.channels, source.size) if isinstance(source, Ragged) else (source.shape[1:], None)
            kind = (name, follows, policy._options(), shape, source.dtype)
            made = policy._recipes.prepare(kind, keys, size, lambda: self.frame, build)
        else:
            made = build(keys, self.frame, params)
        return (made, ()) if follows is None else made


def readable(source: Images, how: Through | None) -> Images:
    """Images as executors take them: of a list uint8 or float32, of one size any dtype that they hold."""
    if how is not None:
        source = source.dense() if isinstance(source, Gathered) else source
        if isinstance(source, Tensor):
            source = how.dense(source)
        else:
            source = source.mapped(how.before)
    if isinstance(source, Ragged) and source.dtype not in (torch.uint8, torch.float32):
        source = source.mapped(Tensor.float)
    return source


def class_numbers(policy: Any, labels: Any, n: int, device: torch.device, needed: bool = True) -> Tensor | None:
    """The classes that a policy chooses by, [n] int64; None where it does not.  needed: False where any will do"""
    if not policy._by_class:
        return None
    given = labels if labels is None or isinstance(labels, Tensor) else as_labels(labels, n, device, lambda: False)
    if given is not None and given.shape == (n,) and given.device == device:
        # torch has no word for an integer dtype
        if not (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool):
            return given.long()
    if not needed:
        return torch.zeros(n, dtype=torch.int64, device=device)
    got = "none" if given is None else f"{given.dtype} {list(given.shape)} on {given.device}"
    raise ValueError(
        f"ByClass chooses by class and needs labels that are class numbers, [{n}] integers on {device}, got {got}; "
        "pass policy(images, labels), or labels= beside ids"
    )


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
        if device.type == "cpu" and n and (least := int(size.numpy().min())) < 1:
            raise ValueError(f"size must be at least 1 by 1, got {least}")
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
    numbers = {name: _number(getattr(sample, name)) for name in ("ids", "occurrence", "valid")}
    rows = {name: _row(getattr(sample, name)) for both in TARGETS.items() for name in both if name is not None}
    return sample.replace(images=one, labels=_row(sample.labels), **numbers, **rows)


def _row(value: Any) -> Any:
    """The label of one image as the labels of a batch of one; a tv_tensor stays what it is."""
    return value[None] if isinstance(value, Tensor) and not is_tv(value) else value if value is None else [value]


def _number(value: Any) -> Any:
    """The id of one image as the ids of a batch of one, which it may be already."""
    if value is None or isinstance(value, list | tuple) or getattr(value, "ndim", False):
        return value
    return value[None] if isinstance(value, Tensor) else [value]


# ---- of a policy, for any images of a kind


def foresee(transforms: Sequence[Transform], seed: int) -> tuple[rng.Layout, list[set[str]]]:
    """The random words that transforms ask for, and the names of what they draw: found by drawing for 0 samples."""
    empty = torch.zeros(0, dtype=torch.int64, device="cpu")
    block = rng.Block(rng.Keys(seed, 0, empty, empty, labels=empty))
    frame = ir.Frame(torch.zeros((0, 2), dtype=torch.int64, device="cpu"), None, 3, torch.float32)
    names = [set(t.sample(rng.Draw(block.keys, slot, block), frame)) for slot, t in numbered(transforms, 0)]
    return rng.Layout(block.asked), names


def moves(policy: Any, source: Images) -> bool:
    """Whether pixels of such images change their places, by the types of the passes alone."""
    first = source.shapes[0][:2] if isinstance(source, Ragged) else source.shape[2:]
    channels = source.channels if isinstance(source, Ragged) else source.shape[1]
    frame = frame_for((int(first[0]), int(first[1])), 1, channels, source.dtype, torch.device("cpu"))
    return targets.moves(policy._lower(frame, policy._draw(policy._one(), frame)))


def takes_ragged(policy: Any, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether the policy takes such images, (H, W, C), without knowing that they are of one size."""
    kind = (shape, dtype)
    if kind not in policy._ragged:
        height, width, channels = shape
        size = torch.tensor([[height, width]], device="cpu")
        frame = frame_for(size, 1, channels, dtype, torch.device("cpu"))
        try:
            policy._lower(frame, policy._draw(policy._one(), frame))
            policy._ragged[kind] = True
        except ValueError:
            # it says why where the images are looked at as they are
            policy._ragged[kind] = False
    return bool(policy._ragged[kind])


def builder(policy: Any, backend: str, follows: Wanted | None = None) -> Build:
    """The function that recipes trace: it prepares a call, as `prepared` says, from its keys and frame.

    follows: with what targets want of the passes that move pixels.  They are not folded, so that what one of them crops
    away is known to be gone."""
    executor = load(backend)

    def build(keys: rng.Keys, frame: ir.Frame, params: Any = None) -> Any:
        if is_symbolic(keys):
            check_values(policy.transforms)
        drawn = params or policy._draw(keys, frame)
        made = lowered(policy.transforms, drawn, frame, policy.memory_format)
        ready = prepared(planned(made, keys, policy.single_resample), executor)
        return ready if follows is None else (ready, follows.ready(targets.geometric(made.passes), frame, keys))

    return build


def described(policy: Any, size: Any, channels: int, dtype: torch.dtype, backend: str, device: torch.device) -> str:
    """`Policy.describe`."""
    check(backend)
    keys = policy._one()
    shown = torch.tensor([[375, 500]], device="cpu") if size is None else size
    frame = frame_for(shown, 1, channels, dtype, torch.device("cpu"))
    plan = policy._plan(keys, frame, policy._draw(keys, frame))
    name = choose(backend, device)
    recipe: Any = "the reference takes no other way"
    if name != "reference":
        recipe = find(frame, policy._builder(name))
    if name == "triton" and not isinstance(recipe, str):
        recipe = recipe.obstacle or recipe
    return Text(f"{policy!r}\n{describe(plan, name, recipe)}")
