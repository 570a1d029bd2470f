"""A policy: a list of transforms and a seed.  Calling it draws, lowers, fuses and runs."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpuaug import ahead, arguments, call, follow, ir, replays, rng, samples, serial, torch_compile, videos
from gpuaug import views as several
from gpuaug.batch import Batch, Params, as_epoch, as_integers, as_labels, as_valid, blank, joined
from gpuaug.call import Call, alone, batch_of_one, frame_for, lowered, one_of, planned
from gpuaug.drawn import Windows
from gpuaug.exec import check
from gpuaug.fuse import Plan
from gpuaug.images import Planar, Ragged, as_images
from gpuaug.numbering import Numbered, mix, zeros
from gpuaug.trace.cache import Recipes
from gpuaug.transforms import Transform
from gpuaug.transforms.base import Drawn, sample_all, span
from gpuaug.transforms.by_class import by_class
from gpuaug.transforms.fixed import fixed_views
from gpuaug.transforms.functions import functions_in, wrapping
from gpuaug.transforms.mixes import mixes_in

_VALUES = ("transforms", "seed", "memory_format", "single_resample")


class Policy(Numbered):
    """Augment batches by a list of transforms, each sample with its own draws.

    Given `ids`, the result is a pure function of (seed, epoch, ids, occurrence, images): the same on any device, in any
    batch, on any rank and after any restart.  Only the partner of a mix depends on which samples share the batch.
    `eval()` changes nothing: a policy augments whenever it is called, so do not call it in validation.

    transforms: a list of gpuaug transforms.  seed: 0 to 2^64 - 1. memory_format: of the output; torch.contiguous_format
    or torch.channels_last. single_resample: compose neighbouring resamples (crop, then rotation) into one
    interpolation: fewer bytes and a sharper image, where torchvision interpolates twice."""

    def __init__(
        self,
        transforms: Sequence[Transform],
        seed: int = 0,
        *,
        memory_format: torch.memory_format = torch.contiguous_format,
        single_resample: bool = False,
    ):
        super().__init__()
        if isinstance(transforms, Transform) or not isinstance(transforms, Sequence):
            raise TypeError(f"transforms must be a list of gpuaug transforms, got {type(transforms).__name__}")
        for t in transforms:
            if not isinstance(t, Transform):
                raise TypeError(
                    f"transforms must be gpuaug transforms, got {t!r}; "
                    f"{wrapping(t) or 'gpuaug has the names of torchvision, such as gpuaug.RandomResizedCrop'}"
                )
        if memory_format not in (torch.contiguous_format, torch.channels_last):
            raise ValueError(
                f"memory_format must be torch.contiguous_format or torch.channels_last, got {memory_format}"
            )
        if sum(span(t) for t in transforms) > rng.MAX_SLOT:
            raise ValueError(f"a policy holds at most {rng.MAX_SLOT} transforms, nested ones included")
        self.transforms = tuple(transforms)
        self.seed = arguments.integer("seed", seed, 0, 2**64 - 1)
        self.memory_format = memory_format
        self.single_resample = arguments.flag("single_resample", single_resample)
        self._mixes = tuple(m for t in self.transforms for m in mixes_in(t))
        classes = {m.num_classes for m in self._mixes if m.num_classes is not None}
        if len(classes) > 1:
            raise ValueError(f"num_classes must be the same in all mixes of a policy, got {sorted(classes)}")
        self._classes = next(iter(classes), None)
        # how many views a call gives, each a batch; 0: the batch alone
        self.fixed_views = fixed_views(self.transforms)
        self._by_class = by_class(self.transforms)
        smoothings = {m.label_smoothing for m in self._mixes if m.label_smoothing}
        if len(smoothings) > 1:
            raise ValueError(f"label_smoothing must be the same in all mixes of a policy, got {sorted(smoothings)}")
        self._smoothing = next(iter(smoothings), 0.0)
        self._layout, self._names = call.foresee(self.transforms, self.seed)
        self._recipes = Recipes()
        # whether images of a shape and dtype may come as if their sizes differed
        self._ragged: dict[tuple[Any, torch.dtype], bool] = {}
        self.outline = torch_compile.register(self, self._classes)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VALUES and name in self.__dict__:
            raise AttributeError(
                f"{name} of a policy cannot be set: "
                "a policy is a value, and what was prepared for it would not follow; make a new Policy"
            )
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        # by name: torch.save cannot pickle a memory format
        state = {k: v for k, v in super().__getstate__().items() if k not in ("_recipes", "outline")}
        return state | {"memory_format": str(self.memory_format).removeprefix("torch.")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # a copy has a handle of its own for `torch.compile`, and finds its recipes again
        changed = {"memory_format": getattr(torch, state["memory_format"]), "_recipes": Recipes()}
        super().__setstate__({**state, **changed})
        self.outline = torch_compile.register(self, self._classes)

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
        per_frame: bool = False,
    ) -> Any:
        """Augmented images; with labels (images, labels); of a Batch a Batch; a list where the policy has fixed views.

        images: [N, C, H, W] uint8, int16, uint16 or floats, any strides; a list of tensors, arrays or PIL images of
        different sizes; one image: a PIL image, a tensor [C, H, W] or an array [H, W, C], which gives an image [C, H,
        W]; one sample of torchvision's, a dict or a tuple of an image and tv_tensors, which gives the like; or videos
        [N, T, C, H, W], with one draw for all frames of a clip, or with `per_frame` one for each. labels: [N] class
        numbers, or [N, K] soft rows. ids: [N] integers in [0, 2^46), by default counted on from the last call.  epoch:
        in [0, 2^18), by default that of `set_epoch`. occurrence: [N] integers in [0, 2^12), telling apart copies of one
        id.  backend: "auto", "reference", "cpu" or "triton". Raises ValueError or TypeError for what it cannot take."""
        # by far the most calls: a batch, and nothing else
        plain = type(images) is Tensor and images.ndim == 4 and not (per_frame or self.fixed_views)
        if plain and not torch.compiler.is_compiling():
            return self._run(images, labels, ids, epoch, occurrence, backend)
        given = {"labels": labels, "ids": ids, "epoch": epoch, "occurrence": occurrence}
        if self.fixed_views:
            return self._views(images, None, given, backend, per_frame)
        return self._call(images, given, backend, per_frame)

    def _call(self, images: Any, given: dict[str, Any], backend: str, per_frame: bool = False) -> Any:
        video = videos.is_video(images.images if isinstance(images, Batch) else images)
        if per_frame and not video:
            raise ValueError(f"per_frame=True is for videos [N, T, C, H, W], got {type(images).__name__}; leave it out")
        sample = samples.of(images, given.get("labels"))
        if sample is not None:
            who = {name: value for name, value in given.items() if name != "labels"}
            return samples.augment(lambda b: self._call(b, {}, backend), sample, **who)
        if video:
            return self._video(images, given, backend, per_frame)
        one = one_of(images)
        if one is not None:
            return self._single(images, one, backend, **given)
        values = [given.get(name) for name in ("labels", "ids", "epoch", "occurrence")]
        run: Any = self._run
        if torch.compiler.is_compiling():
            run = functools.partial(torch_compile.call, self) if isinstance(images, Tensor) else self._eagerly
        return run(images, *values, backend)

    _video, _views = torch_compile.eagerly(videos.augment), torch_compile.eagerly(several.views)

    @torch_compile.eagerly
    def views(
        self,
        images: Any,
        labels: Any = None,
        *,
        n: int | None = None,
        ids: Tensor | None = None,
        epoch: int | Tensor | None = None,
        occurrence: Tensor | None = None,
        backend: str = "auto",
    ) -> Any:
        """n views of every sample, each with draws of its own, in one call: a list of n times what a call gives; with
        labels (a list of images, a list of labels).

        View v of a sample is what a call gives for occurrence * n + v, but for the partner of a mix, who is among all
        views.  n: 2, or as many as the policy has fixed views."""
        given = {"labels": labels, "ids": ids, "epoch": epoch, "occurrence": occurrence}
        return self._views(images, n, given, backend)

    def _run(self, images: Any, labels: Any, ids: Any, epoch: Any, occurrence: Any, backend: str) -> Any:
        if isinstance(images, Batch):
            given = {"labels": labels, "ids": ids, "epoch": epoch, "occurrence": occurrence}
            batch = joined(images, given)
            run = self._prepare(
                batch.images,
                batch.labels,
                batch.ids,
                batch.epoch,
                batch.occurrence,
                backend,
                next_id=self.next_id,
                key=batch.key,
                valid=batch.valid,
                drawn=batch.params,
                batch=batch,
            )
            out, soft, followed = run.go(None)
            return batch.replace(
                **followed,
                images=out,
                labels=soft,
                ids=run.keys.ids,
                epoch=run.keys.epoch,
                occurrence=run.keys.occurrence,
                key=run.key,
                params=None,
            )
        out, soft = self.augment(images, labels, ids, epoch, occurrence, backend, self.next_id)
        return out if labels is None else (out, soft)

    _eagerly = torch_compile.eagerly(_run)

    def _single(self, images: Any, one: Tensor | Planar, backend: str, **given: Any) -> Any:
        """A call with one image, or with a Batch of one image, as `batch[0]` gives it."""
        if isinstance(images, Batch):
            return self._call(batch_of_one(joined(images, given), one), {}, backend)[0]
        return alone(lambda images, **given: self._call(images, given, backend), one, **given)

    def augment(
        self,
        images: Any,
        labels: Any,
        ids: Any,
        epoch: int | Tensor | None,
        occurrence: Any,
        backend: str,
        next_id: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """(images, labels or None): a call without a Batch around it.  next_id: advanced where ids are None."""
        return self._prepare(images, labels, ids, epoch, occurrence, backend, next_id=next_id).go(None)[:2]

    def warmup(
        self,
        what: Any,
        *,
        dtype: torch.dtype = torch.uint8,
        backend: str = "auto",
        device: torch.device | str = "cpu",
        progress: Callable[[int, int], Any] | None = None,
        target: str | None = None,
    ) -> "Policy":
        """The policy, with all compiled and loaded that calls with such batches need.

        what: a shape (N, C, H, W), or a batch as a call takes it.  progress: told, for a GPU, how many kernels are
        compiled, and of how many.  target: "cuda:90" for a card of compute capability 9.0 that need not be here: its
        kernels are compiled into Triton's cache, and nothing is loaded"""
        batch = what if isinstance(what, Batch) else Batch(blank(what, dtype, "meta" if target else device))
        ahead.warm(self, batch, backend, progress, target)
        return self

    @torch_compile.eagerly
    def draw(
        self,
        ids: Tensor,
        *,
        epoch: int | Tensor | None = None,
        size: tuple[int, int] | Tensor,
        occurrence: Tensor | None = None,
        channels: int = 3,
        dtype: torch.dtype = torch.uint8,
        key: int | None = None,
        valid: Tensor | None = None,
        labels: Any = None,
    ) -> Params:
        """The parameters of samples without their images.  size: (H, W), or [N, 2] where images differ.  key, valid: a
        Batch's.  labels: class numbers, for ByClass."""
        ids = as_integers("ids", ids, None, ids.device if isinstance(ids, Tensor) else torch.device("cpu"), rng.MAX_ID)
        keys, _ = self._keys(ids, epoch, occurrence, len(ids), ids.device, key=key)
        keys = replace(keys, labels=call.class_numbers(self, labels, len(ids), ids.device))
        keys = keys if valid is None else replace(keys, valid=as_valid(valid, len(ids), ids.device))
        frame = frame_for(size, len(ids), channels, dtype, ids.device)
        drawn = self._draw(keys, frame)
        given: Any = {"ids": keys.ids, "epoch": keys.epoch, "occurrence": keys.occurrence, "size": frame.size}
        return Params(drawn, seed=keys.seed, fixed=frame.fixed, **given)

    @property
    def per_sample(self) -> bool:
        """Whether what becomes of a sample depends on nothing else in its batch: no mix, and no function of a user's
        own."""
        alone = type(self).forward is Policy.forward and not self._mixes
        return alone and not any(functions_in(t) for t in self.transforms)

    @torch_compile.eagerly
    def windows(
        self,
        ids: Any,
        size: Any,
        *,
        epoch: int | None = None,
        occurrence: Any = None,
        key: int | None = None,
        channels: int = 3,
        device: torch.device | str = "cpu",
        labels: Any = None,
    ) -> Windows:
        """What is read of each source image, so that a decoder need not make the rest, and what was drawn to know: a
        Batch with both, the pixels as `Ragged.windowed` and the parameters as `params`, gives what whole images give.

        All on the host.  ids, occurrence, key, epoch: as a Batch has them.  size: (H, W) or [N, 2] of the whole images,
        which are uint8.  device: where the call will be, so that what it needs is prepared here.  labels: class
        numbers, for ByClass.  The window is all of an image where that is needed, as for ColorJitter before a crop."""
        return ahead.windows(self, ids, size, epoch, occurrence, key, channels, torch.device(device), labels)

    _prepared_ahead, _send_ahead, _geometry_ahead = ahead.prepare, ahead.send, ahead.geometry
    _load_executor, _followed_ahead = ahead.load_executor, ahead.follow

    @torch_compile.eagerly
    def replay(
        self,
        images: Any,
        params: Params,
        labels: Any = None,
        *,
        like: str | None = None,
        box_format: str | None = None,
        backend: str = "auto",
    ) -> Any:
        """The pixels of the call that drew these parameters, pixel noise included; labels are optional even for a
        mix.  Of a Batch with masks, boxes or keypoints a Batch, whose targets followed.

        like: of other data the geometry alone.  "image": [N, C, H, W] interpolated as the images; "mask": as masks of a
        Batch; "points": keypoints, gives (points, visible); "boxes": in box_format, gives (boxes, box_valid).  There
        params[:k] stand for the first k transforms."""
        if like is None:
            return replays.again(self, images, params, labels, backend)
        return replays.replay(self, images, params, like, box_format, backend)

    @torch_compile.eagerly
    def undo(self, predictions: Any, params: Params, *, backend: str = "auto") -> tuple[Any, Any]:
        """(out, seen): what was predicted on augmented images brought back onto the originals, in one resampling, and
        where the originals were seen, [N, H, W] bool; out is 0 elsewhere.

        predictions: [N, C, h, w] or [N, h, w] of that size; integers take the nearest.  Of originals of different sizes
        both are lists.  Raises ValueError that names what cannot be undone."""
        return replays.undo(self, predictions, params, backend)

    @torch_compile.eagerly
    def describe(
        self,
        size: tuple[int, int] | None = None,
        *,
        channels: int = 3,
        dtype: torch.dtype = torch.uint8,
        backend: str = "auto",
        device: torch.device | str = "cpu",
    ) -> str:
        """What really runs, as text: the backend's steps, the bytes that each reads and writes, why it is one, its
        kernels, and what falls back.

        size: (H, W) of the images; None for images of different sizes, described at 375 x 500.  Labels that mixes make
        elsewhere than on a GPU, by more than six of them or with choices among crops and flips behind them, and samples
        that the policy numbers, take torch operations more."""
        return call.described(self, size, channels, dtype, backend, torch.device(device))

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
        key: int | None = None,
        seed: int | None = None,
        valid: Any = None,
        drawn: Any = None,
        batch: Batch | None = None,
    ) -> Call:
        check(backend)
        source = as_images(images)
        if isinstance(source, Ragged) and source.alike and not self._takes_ragged(source.shapes[0], source.dtype):
            # as a list of images of one size; where the policy can, they stay where they are
            source = source.dense()
        n, device = len(source), source.device
        if labels is not None:
            labels = as_labels(labels, n, device, lambda: self._moves(source))
        elif need_labels and self._mixes:
            raise ValueError(f"{type(self._mixes[0]).__name__} mixes labels too, got none; call policy(images, labels)")
        if backend == "cpu" and device.type != "cpu":
            raise ValueError(f'backend "cpu" needs images on the CPU, got {device}; use "auto", or images.cpu()')
        valid = None if valid is None else as_valid(valid, n, device)
        following = None if batch is None else follow.targets(batch, source)
        if drawn is None:
            # a Batch hands its occurrence out
            nothing = self.nothing if batch is None else zeros
            keys, key = self._keys(ids, epoch, occurrence, n, device, next_id, key, nothing)
        else:
            given = {"ids": ids, "epoch": epoch, "occurrence": occurrence, "key": key, "labels": labels}
            keys, key, drawn = ahead.taken(self, drawn, source, given, valid)
        classes = call.class_numbers(self, labels, n, device, need_labels)
        if seed is not None or valid is not None or classes is not None:
            keys = replace(keys, seed=keys.seed if seed is None else seed, valid=valid, labels=classes)
        return Call(self, source, labels, keys, backend, key, drawn, following)

    def _keys(
        self,
        ids: Any,
        epoch: int | Tensor | None,
        occurrence: Any,
        n: int,
        device: torch.device,
        next_id: Tensor | None = None,
        key: int | None = None,
        nothing: Callable[[int, torch.device], Tensor] = zeros,
    ) -> tuple[rng.Keys, int | None]:
        """Who the samples are, and the key of the process that numbered them, where it has one.

        nothing: makes the occurrence where none is given"""
        if key is not None:
            key = arguments.integer("key", key, 0, 2**64 - 1)
            if ids is None:
                raise ValueError(
                    "key came without ids, which it was counted under; pass both as the Batch had them, or neither"
                )
        if ids is not None or next_id is None:
            ids = as_integers("ids", ids, n, device, rng.MAX_ID)
        if occurrence is None:
            occurrence = nothing(n, device)
        else:
            occurrence = as_integers("occurrence", occurrence, n, device, rng.MAX_OCCURRENCE)
        epoch = self.epoch if epoch is None else as_epoch(epoch, device)
        # last, so that a call that is refused above takes no ids
        if ids is None and next_id is not None:
            key, ids = self.number(n, device, next_id)
        # the key is mixed with the seed, so that two policies draw differently for one Batch in a worker too
        return rng.Keys(self.seed if key is None else mix(self.seed, key), epoch, ids, occurrence), key

    def _one(self) -> rng.Keys:
        """The keys of one sample, where any will do."""
        zero = torch.zeros(1, dtype=torch.int64, device="cpu")
        return replace(self._keys(zero, 0, None, 1, zero.device)[0], labels=zero)

    def _draw(self, keys: rng.Keys, frame: ir.Frame) -> Sequence[Drawn]:
        return sample_all(self.transforms, rng.Draw(keys, 0, self._layout.block(keys)), frame, 0)

    def _lower(self, frame: ir.Frame, drawn: Sequence[Drawn]) -> ir.Sequence:
        return lowered(self.transforms, drawn, frame, self.memory_format).passes

    def _plan(self, keys: rng.Keys, frame: ir.Frame, drawn: Sequence[Drawn]) -> Plan:
        return planned(lowered(self.transforms, drawn, frame, self.memory_format), keys, self.single_resample)

    _moves, _takes_ragged, _builder = call.moves, call.takes_ragged, call.builder

    # ---- as a value

    def _identity(self) -> tuple[Any, ...]:
        """What tells it from other policies, as it can be pickled."""
        return self.transforms, self.seed, str(self.memory_format), self.single_resample

    def _values(self) -> tuple[Any, ...]:
        return self.transforms, self.seed, *self._options()

    def _options(self) -> tuple[Any, ...]:
        return self.memory_format, self.single_resample

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Policy):
            return NotImplemented
        return self._values() == other._values()

    # by identity, although equality is by value: nn.Module keeps its children in sets, where two equal policies must
    # stay two modules
    __hash__ = nn.Module.__hash__

    def __repr__(self) -> str:
        layout = "" if self.memory_format == torch.contiguous_format else f", memory_format={self.memory_format}"
        single = ", single_resample=True" if self.single_resample else ""
        return f"Policy([{', '.join(map(repr, self.transforms))}], seed={self.seed}{layout}{single})"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, numbers and strings, from which `from_dict` makes an equal policy."""
        layout = str(self.memory_format).removeprefix("torch.")
        options = {"seed": self.seed, "memory_format": layout, "single_resample": self.single_resample}
        return {
            "version": 1,
            "draws": rng.VERSION,
            **options,
            "transforms": [serial.to_dict(t) for t in self.transforms],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, transforms: Sequence[type[Transform]] = ()) -> "Policy":
        """The policy that `to_dict` wrote; raises ValueError for an unknown version, key, transform or argument.
        transforms: as for `load`."""
        made, options = serial.policy_fields(data, transforms)
        return cls(made, **options)

    def save(self, path: str | Path) -> None:
        """Write the policy as YAML."""
        Path(path).write_text(serial.to_yaml(self.to_dict()), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, *, transforms: Sequence[type[Transform]] = ()) -> "Policy":
        """Read a policy that `save` wrote, or a person.  transforms: classes of your own that it names; nothing is
        imported for a file."""
        return cls.from_dict(serial.read(path), transforms=transforms)
