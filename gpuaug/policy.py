"""A policy: a list of transforms and a seed.  Calling it draws, lowers, fuses and runs."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpuaug import arguments, fuse, ir, rng, serial, targets, torch_compile
from gpuaug.batch import Batch, Images, Params, Ragged, as_epoch, as_images, as_integers, as_labels
from gpuaug.exec import BACKENDS, choose, describe, load
from gpuaug.fuse import Plan
from gpuaug.trace.cache import Build, Recipes, check_values, find
from gpuaug.transforms import Mixing, Transform
from gpuaug.transforms.base import Drawn, lower_all, numbered, sample_all, span

# numbering samples is the only thing that two threads calling one policy could disturb
_numbering = threading.Lock()


class Policy(nn.Module):
    """Augment batches by a list of transforms, each sample with its own draws.

    Given `ids`, the result is a pure function of (seed, epoch, ids, occurrence, images): the same on any device, in any batch, on any rank
    and after any restart.  Only the partner of a mix depends on which samples share the batch.

    transforms: a list of gpuaug transforms.  seed: 0 to 2^64 - 1.
    memory_format: of the output; torch.contiguous_format or torch.channels_last.
    single_resample: compose neighbouring resamples (crop, then rotation) into one interpolation: fewer bytes and a sharper image, where
    torchvision interpolates twice.
    """

    def __init__(
        self, transforms: Sequence[Transform], seed: int = 0, *, memory_format: torch.memory_format = torch.contiguous_format, single_resample: bool = False
    ):
        super().__init__()
        if isinstance(transforms, Transform) or not isinstance(transforms, Sequence):
            raise TypeError(f"transforms must be a list of gpuaug transforms, got {type(transforms).__name__}")
        for t in transforms:
            if not isinstance(t, Transform):
                raise TypeError(f"transforms must be gpuaug transforms, got {t!r}; gpuaug has torchvision's names, such as gpuaug.RandomResizedCrop")
        if memory_format not in (torch.contiguous_format, torch.channels_last):
            raise ValueError(f"memory_format must be torch.contiguous_format or torch.channels_last, got {memory_format}")
        if sum(span(t) for t in transforms) > rng.MAX_SLOT:
            raise ValueError(f"a policy holds at most {rng.MAX_SLOT} transforms, nested ones included")
        self.transforms = tuple(transforms)
        self.seed = arguments.integer("seed", seed, 0, 2**64 - 1)
        self.memory_format = memory_format
        self.single_resample = arguments.flag("single_resample", single_resample)
        self.next_id = torch.zeros((), dtype=torch.int64)
        self._mixes = tuple(m for t in self.transforms for m in _find_mixes(t))
        classes = {m.num_classes for m in self._mixes if m.num_classes is not None}
        if len(classes) > 1:
            raise ValueError(f"num_classes must be the same in all mixes of a policy, got {sorted(classes)}")
        self._classes = next(iter(classes), None)
        self._layout, self._names = self._foresee()
        self._recipes = Recipes()
        self.handle = torch_compile.register(self)

    def __getstate__(self) -> dict[str, Any]:
        # by name: the protocol of torch.save fails on a memory format
        return {k: v for k, v in self.__dict__.items() if k != "_recipes"} | {"memory_format": str(self.memory_format).removeprefix("torch.")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # a copy is a policy of its own
        changed = {"memory_format": getattr(torch, state["memory_format"]), "handle": torch_compile.register(self), "_recipes": Recipes()}
        super().__setstate__({**state, **changed})  # type: ignore[no-untyped-call]

    # ---- calling

    def forward(
        self,
        images: Any,
        labels: Any = None,
        *,
        ids: Tensor | None = None,
        epoch: int | Tensor | None = None,
        occurrence: Tensor | None = None,
        backend: str = "auto",
    ) -> Any:
        """Augmented images; with labels (images, labels); of a Batch a Batch.

        images: [N, C, H, W] uint8, float16, bfloat16 or float32, any strides; or a list of [H, W, C] uint8 arrays, tensors or PIL images of
        different sizes.  labels: [N] class numbers, or [N, K] soft rows.  ids: [N] int64 in [0, 2^46), by default counted on from the last
        call.  epoch: in [0, 2^18), 0 by default.  occurrence: [N] int64 in [0, 2^12), telling apart copies of one id.
        backend: "auto", "reference", "cpu" or "triton".  Raises ValueError or TypeError for what it cannot take.
        """
        if torch.compiler.is_compiling() and isinstance(images, Tensor):
            return torch_compile.call(self, images, labels, ids, epoch, occurrence, backend)
        if isinstance(images, Batch):
            given = {"labels": labels, "ids": ids, "epoch": epoch, "occurrence": occurrence}
            batch = _joined(images, given)
            run = self._prepare(batch.images, batch.labels, batch.ids, batch.epoch, batch.occurrence, backend)
            out, soft = run.go(None)
            return batch.replace(images=out, labels=soft, ids=run.keys.ids, epoch=run.keys.epoch, occurrence=run.keys.occurrence)
        out, soft = self.augment(images, labels, ids, epoch, occurrence, backend, self.next_id)
        return out if labels is None else (out, soft)

    def augment(
        self, images: Any, labels: Any, ids: Any, epoch: int | Tensor | None, occurrence: Any, backend: str, next_id: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """(images, labels or None): what a call comes down to.  next_id: advanced where ids are None."""
        return self._prepare(images, labels, ids, epoch, occurrence, backend, next_id=next_id).go(None)

    def outline(self, shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[tuple[int, int, int], torch.dtype, int | None]:
        """What comes out for images [N, C, H, W]: (C, H, W), dtype, and the classes of soft labels, None where labels stay as they are."""
        keys = self._keys(torch.zeros(1, dtype=torch.int64), 0, None, 1, torch.device("cpu"))
        frame = _frame(shape[1:], 1, shape[0], dtype, torch.device("cpu"))
        end = ir.verify(self._lower(frame, self._draw(keys, frame)), frame)
        height, width = end.fixed or (0, 0)
        return (end.channels, height, width), end.dtype, self._classes

    def draw(
        self,
        ids: Tensor,
        *,
        epoch: int | Tensor = 0,
        size: tuple[int, int] | Tensor,
        occurrence: Tensor | None = None,
        channels: int = 3,
        dtype: torch.dtype = torch.uint8,
    ) -> Params:
        """The parameters of samples without their images.  size: (H, W), or [N, 2] where images differ."""
        ids = as_integers("ids", ids, None, ids.device if isinstance(ids, Tensor) else torch.device("cpu"), rng.MAX_ID)
        keys = self._keys(ids, epoch, occurrence, len(ids), ids.device)
        frame = _frame(size, len(ids), channels, dtype, ids.device)
        drawn = self._draw(keys, frame)
        return Params(drawn, seed=self.seed, ids=keys.ids, epoch=keys.epoch, occurrence=keys.occurrence, size=frame.size)

    def replay(self, images: Any, params: Params, labels: Any = None, *, backend: str = "auto") -> Any:
        """The pixels of the call that drew these parameters, pixel noise included; labels are optional even for a mix."""
        if not isinstance(params, Params):
            raise TypeError(f"params must be a gpuaug.Params, as Policy.draw gives it, got {type(params).__name__}")
        if len(params) != len(self.transforms):
            raise ValueError(f"params must hold one entry per transform, got {len(params)} for {len(self.transforms)}; replay with the policy that drew them")
        for t, names, drawn in zip(self.transforms, self._names, params, strict=True):
            if names != drawn.keys():
                raise ValueError(f"params of {type(t).__name__} must hold {sorted(names)}, got {sorted(drawn)}; replay with the policy that drew them")
        images, labels = (images.images, images.labels) if isinstance(images, Batch) else (images, labels)
        run = self._prepare(images, labels, params.ids, params.epoch, params.occurrence, backend, need_labels=False)
        # on a GPU the comparison would wait for the device
        if run.frame.size.device.type == "cpu" and not torch.equal(run.frame.size, params.size):
            here, there = (sorted(set(map(tuple, v.tolist())))[:3] for v in (run.frame.size, params.size))
            raise ValueError(f"images must have the size that params were drawn for, got {here} instead of {there}; draw with the size of these images")
        out, soft = run.go(params)
        return out if labels is None else (out, soft)

    def describe(
        self,
        size: tuple[int, int] | None = None,
        *,
        channels: int = 3,
        dtype: torch.dtype = torch.uint8,
        backend: str = "auto",
        device: torch.device | str = "cpu",
    ) -> str:
        """The launches of a plan as text: bytes per image, where the chain broke and why, and what falls back.

        size: (H, W) of the images; None for images of different sizes, described at 375 x 500.
        """
        _check_backend(backend)
        keys = self._keys(torch.zeros(1, dtype=torch.int64), 0, None, 1, torch.device("cpu"))
        frame = _frame(torch.tensor([[375, 500]]) if size is None else size, 1, channels, dtype, torch.device("cpu"))
        plan = self._plan(keys, frame, self._draw(keys, frame))
        name = choose(backend, torch.device(device))
        recipe = find(self.seed, frame, self._builder(name)) if name != "reference" else "the reference takes no other way"
        how = f"draws step by step: {recipe}" if isinstance(recipe, str) else f"draws in {recipe.instructions} instructions a sample"
        return f"{self!r}\n{describe(plan, name)}\n  {how}"

    # ---- between the images and the executor

    def _prepare(
        self,
        images: Any,
        labels: Any,
        ids: Any,
        epoch: int | Tensor | None,
        occurrence: Any,
        backend: str,
        *,
        need_labels: bool = True,
        next_id: Tensor | None = None,
    ) -> "_Call":
        _check_backend(backend)
        source = as_images(images)
        n, device = len(source), source.device
        if labels is not None:
            labels = as_labels(labels, n, device)
        elif need_labels and self._mixes:
            raise ValueError(f"{type(self._mixes[0]).__name__} mixes labels too, got none; call policy(images, labels)")
        if backend == "cpu" and device.type != "cpu":
            raise ValueError(f'backend "cpu" needs images on the CPU, got {device}; use "auto", or images.cpu()')
        keys = self._keys(ids, 0 if epoch is None else epoch, occurrence, n, device, self.next_id if next_id is None else next_id)
        return _Call(self, source, labels, keys, backend)

    def _keys(self, ids: Any, epoch: int | Tensor, occurrence: Any, n: int, device: torch.device, next_id: Tensor | None = None) -> rng.Keys:
        if ids is not None or next_id is None:
            ids = as_integers("ids", ids, n, device, rng.MAX_ID)
        if occurrence is None:
            occurrence = torch.zeros(n, dtype=torch.int64, device=device)
        else:
            occurrence = as_integers("occurrence", occurrence, n, device, rng.MAX_OCCURRENCE)
        epoch = as_epoch(epoch, device)
        # last, so that a call refused here takes no number
        ids = self._number(n, device, next_id) if ids is None and next_id is not None else ids
        return rng.Keys(self.seed, epoch, ids, occurrence)

    def _number(self, n: int, device: torch.device, next_id: Tensor) -> Tensor:
        """Ids counted on from the last call, apart from those of other ranks and workers."""
        own = _process() * 2**32 + torch.arange(n, device=device)
        with _numbering:
            # a counter on the host must not make the device wait; one on the device can be captured in a graph
            first = next_id.clone() if next_id.device == device else int(next_id)
            next_id += n
        return own + first

    def _foresee(self) -> tuple[rng.Layout, list[set[str]]]:
        """Which words the transforms ask for, and what they draw, found by drawing for no samples."""
        empty = torch.zeros(0, dtype=torch.int64)
        block = rng.Block(rng.Keys(self.seed, 0, empty, empty))
        frame = ir.Frame(torch.zeros((0, 2), dtype=torch.int64), None, 3, torch.float32)
        names = [set(t.sample(rng.Draw(block.keys, slot, block), frame)) for slot, t in numbered(self.transforms, 0)]
        return rng.Layout(block.asked), names

    def _draw(self, keys: rng.Keys, frame: ir.Frame) -> Sequence[Drawn]:
        return sample_all(self.transforms, rng.Draw(keys, 0, self._layout.block(keys)), frame, 0)

    def _lower(self, frame: ir.Frame, drawn: Sequence[Drawn]) -> ir.Sequence:
        passes, end = lower_all(self.transforms, drawn, frame, 0)
        passes = (*passes, ir.Finish(end.dtype, self.memory_format))
        ir.verify(passes, frame)
        return passes

    def _plan(self, keys: rng.Keys, frame: ir.Frame, drawn: Sequence[Drawn]) -> Plan:
        return Plan(fuse.launches(fuse.fold(self._lower(frame, drawn), self.single_resample)), keys, frame)

    def _builder(self, backend: str) -> Build:
        """From keys and a frame what an executor runs, and the passes that labels follow."""
        executor = load(backend)

        def build(keys: rng.Keys, frame: ir.Frame) -> Any:
            if type(keys) is not rng.Keys:
                check_values(self.transforms)
            return _prepared(self._plan(keys, frame, self._draw(keys, frame)), executor)

        return build

    # ---- as a value

    def _values(self) -> tuple[Any, ...]:
        return self.transforms, self.seed, self.memory_format, self.single_resample

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Policy):
            return NotImplemented
        return self._values() == other._values()

    # by identity, although equality is by value: nn.Module keeps its children in sets, and two equal policies are still two modules
    __hash__ = nn.Module.__hash__

    def __repr__(self) -> str:
        layout = "" if self.memory_format == torch.contiguous_format else f", memory_format={self.memory_format}"
        single = ", single_resample=True" if self.single_resample else ""
        return f"Policy([{', '.join(map(repr, self.transforms))}], seed={self.seed}{layout}{single})"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, numbers and strings, from which `from_dict` makes an equal policy."""
        layout = str(self.memory_format).removeprefix("torch.")
        options = {"seed": self.seed, "memory_format": layout, "single_resample": self.single_resample}
        return {"version": 1, **options, "transforms": [serial.to_dict(t) for t in self.transforms]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Policy":
        """The policy that `to_dict` wrote; raises ValueError for an unknown version, key, transform or argument."""
        transforms, options = serial.policy_fields(data)
        return cls(transforms, **options)

    def save(self, path: str | Path) -> None:
        """Write the policy as YAML."""
        Path(path).write_text(serial.to_yaml(self.to_dict()), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Policy":
        """Read a policy that `save` wrote, or a person."""
        return cls.from_dict(serial.from_yaml(Path(path).read_text(encoding="utf-8")))

    # ---- next_id: a buffer in all but that DistributedDataParallel, which reads registered ones, must not broadcast it

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Any:
        """The counter of samples, `next_id`."""
        yield (f"{prefix}.next_id" if prefix else "next_id"), self.next_id

    def _apply(self, fn: Any, recurse: bool = True) -> "Policy":
        self.next_id = fn(self.next_id)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}next_id"] = self.next_id.detach().clone()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: Any, unexpected_keys: Any, error_msgs: Any
    ) -> None:
        value = state_dict.get(f"{prefix}next_id")
        if value is None:
            missing_keys.append(f"{prefix}next_id")
        else:
            self.next_id.copy_(value)
        unexpected_keys += [k for k in state_dict if strict and k.startswith(prefix) and k != f"{prefix}next_id"]


@dataclass(frozen=True, eq=False)
class _Call:
    """One batch on its way through a policy."""

    policy: Policy
    source: Images
    labels: Tensor | None
    keys: rng.Keys
    backend: str

    @cached_property
    def frame(self) -> ir.Frame:
        """Of the source."""
        n, device = len(self.source), self.source.device
        if isinstance(self.source, Ragged):
            return _frame(self.source.size, n, self.source.channels, torch.uint8, device)
        return _frame((self.source.shape[2], self.source.shape[3]), n, self.source.shape[1], self.source.dtype, device)

    def go(self, params: Params | None) -> tuple[Tensor, Tensor | None]:
        """Images and labels, from given or fresh parameters."""
        keys = self.keys if params is None else rng.Keys(params.seed, *(getattr(self.keys, k) for k in ("epoch", "ids", "occurrence")))
        name = choose(self.backend, self.source.device)
        executor, source = load(name), self.source
        # the reference defines what recipes must give: it takes none
        if params is None and name != "reference":
            what = (source.channels, torch.uint8) if isinstance(source, Ragged) else (source.shape[1:], source.dtype)
            kind, size = (name, self.policy._values()[1:], what), source.size if isinstance(source, Ragged) else None
            recipes, build = self.policy._recipes, self.policy._builder(name)
            prepared, mixes = recipes.prepare(self.policy.transforms, kind, keys, size, lambda: self.frame, build)
        else:
            plan = self.policy._plan(keys, self.frame, params or self.policy._draw(keys, self.frame))
            prepared, mixes = _prepared(plan, executor)
        out = executor.execute(prepared, source)
        if self.labels is None:
            return out, None
        return out, targets.follow(mixes, self.labels, self.policy._classes)


def _prepared(plan: Plan, executor: Any) -> tuple[Any, ir.Sequence]:
    """What an executor prepares of a plan, and the passes that labels follow."""
    mixes = tuple(p for p in plan.passes if any(isinstance(q, ir.Mix) for q in ir.walk((p,))))
    return executor.prepare(plan), mixes


def _joined(batch: Batch, given: dict[str, Any]) -> Batch:
    """A batch with what a call adds to it; nothing may come twice."""
    for name, value in given.items():
        if value is not None and getattr(batch, name) is not None:
            raise ValueError(f"{name} came in the Batch and as an argument; pass it once")
    return batch.replace(**{name: value for name, value in given.items() if value is not None})


def _find_mixes(transform: Transform) -> list[Mixing]:
    own = [transform] if isinstance(transform, Mixing) else []
    return own + [m for c in transform.children for m in _find_mixes(c)]


def _check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")


def _frame(size: Any, n: int, channels: int, dtype: torch.dtype, device: torch.device) -> ir.Frame:
    """The frame of an input.  size: (H, W) or [N, 2]"""
    if isinstance(size, Tensor):
        if size.shape != (n, 2) or size.dtype.is_floating_point:
            raise ValueError(f"size must be (H, W) or whole numbers [{n}, 2], got {size.dtype} {tuple(size.shape)}")
        if size.device != device:
            raise ValueError(f"size must be on the device of ids, got {size.device} and {device}")
        if device.type == "cpu" and n and int(size.min()) < 1:
            raise ValueError(f"size must be at least 1 by 1, got {int(size.min())}")
        return ir.Frame(size.long(), None, channels, dtype)
    height, width = arguments.size("size", size)
    blank = ir.Frame(torch.zeros((n, 2), dtype=torch.int64, device=device), None, arguments.integer("channels", channels, 1), dtype)
    return blank.resized((height, width))


def _process() -> int:
    """A number that no other rank or loader worker has."""
    worker = torch.utils.data.get_worker_info()
    distributed = torch.distributed
    rank = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
    return rank * worker.num_workers + worker.id if worker else rank
