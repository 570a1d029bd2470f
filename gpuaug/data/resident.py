"""A loader for data sets that fit into a device's memory: nothing is read, decoded or sent while it runs, and a batch
is augmented from where its images lie."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.arrays import put
from gpuaug.batch import Batch
from gpuaug.data import ordered
from gpuaug.data.course import Course, Step
from gpuaug.data.cursor import Cursor, compare, unpack
from gpuaug.data.given import Whole, augmented, checked, fingerprint
from gpuaug.data.held import held
from gpuaug.data.targets import as_targets
from gpuaug.gathered import Gathered

# bytes of images that are made in one call of a policy, where that is more than a batch, and how many batches at most
_BLOCK, _MOST = 8_000_000, 16


class ResidentLoader(Whole):
    """Batches of a uint8 data set that lies on the device as a whole, augmented by one policy.

    what: (images, labels) or images alone, as tensors or arrays [N, H, W, C], [N, C, H, W] or [N, H, W]; a data set of
    torchvision that has its images as an array (CIFAR, MNIST, Fashion-MNIST, SVHN), without transforms; a
    TensorDataset; what `gpuaug prepare` wrote; or whatever `gpuaug.data.Loader` reads, decoded once.
    policy: called with a `gpuaug.Batch`, gives one; None gives images as they are.  batch_size: for each rank.
    epochs: None: every iteration is the next epoch; a number: the next so many epochs.  weights: the share of each
    class, as `gpuaug.data.BatchSampler` has it.  device: "auto" is the GPU of LOCAL_RANK, or the CPU.
    layout: "hwc" or "chw", where a shape leaves open which axis holds channels.  size: (H, W), or the side of a square,
    that images of other sizes are brought to: the largest part in the middle of that shape, resized.
    target_transform: called once with every target, when the loader is made; gives a number, or rows of one length.

    Batches, order, epochs and states are those of `gpuaug.data.Loader` with order="samples": the same on any rank,
    device and batch size.  On a host the data set is read where it is: it must not be written to meanwhile. Small
    batches of a policy that is `per_sample` are made some at a time and share memory: clone what is kept for long."""

    def __init__(
        self,
        what: Any,
        policy: Callable[[Batch], Batch] | None = None,
        batch_size: int = 256,
        epochs: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        weights: Any = None,
        device: torch.device | str = "auto",
        rank: int | None = None,
        world_size: int | None = None,
        *,
        layout: str | None = None,
        size: int | tuple[int, int] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ):
        given = checked(policy, batch_size, epochs, drop_last, device, rank, world_size, target_transform)
        self._given, self.policy, self.device = given, policy, given.device
        self.batch_size, self.epochs, self.drop_last = given.batch_size, given.epochs, given.drop_last
        self.source = held(what, layout, size)
        made = ordered.order_of(self.source, shuffle=shuffle, order="samples", weights=weights)
        self._cursor = Cursor(seed, made)
        pixels = self.source.images
        if self.device.type == "cuda":
            # as kernels read a row by its address alone
            pixels = pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        self._images = pixels.to(self.device)
        labels = as_targets(self.source.labels, target_transform)
        if not isinstance(labels, Tensor | None):
            raise TypeError(
                "target_transform must give a number, or a row of numbers, for every target, got "
                f"{type(labels[0] if isinstance(labels, list) else labels).__name__}; use gpuaug.data.Loader for others"
            )
        self._labels = None if labels is None else labels.to(self.device)
        self._closed, self._seconds, self._samples, self._count = False, 0.0, 0, 0

    # ---- batches

    def __len__(self) -> int:
        """Batches of an iteration, the same on all ranks: of a whole epoch, or of all `epochs`."""
        return self._given.share().steps(self._cursor.order.length) * (self.epochs or 1)

    def __iter__(self) -> Iterator[Any]:
        self._check()
        return self._run()

    def _run(self) -> Iterator[Any]:
        # runs at the first next(), so that an iterator that nobody uses begins nothing
        self._check()
        run = self._cursor.begin(self._given.share())
        several = self.epochs or 1
        last = (run.start.epoch // several + 1) * several - 1
        course = Course(self._cursor.seed, self._cursor.order, run.share, run.start, last)
        for epoch, steps in groupby(course.steps(), key=lambda step: step.epoch):
            if epoch != run.start.epoch:
                run = run.following()
            # the first alone: it says how large they are
            count = 1
            while block := list(islice(steps, count)):
                begun = perf_counter()
                made = self._made(block)
                self._seconds += perf_counter() - begun
                if len(block) == 1:
                    count = self._together(made[0])
                for step, batch in zip(block, made, strict=True):
                    self._check()
                    run.deliver()
                    self._samples, self._count = self._samples + int(step.valid.sum()), self._count + 1
                    yield batch
                # nothing of this block is held while the next is made
                del made, batch
        run.end()

    def _together(self, batch: Batch | list[Batch]) -> int:
        """How many batches like this one are made in one call."""
        alone = not getattr(self.policy, "per_sample", self.policy is None)
        if alone or not isinstance(batch, Batch) or not isinstance(batch.images, Tensor):
            return 1
        alike = (batch.images, batch.labels, batch.ids, batch.occurrence)
        if any(t is not None and len(t) != self.batch_size for t in alike):
            return 1
        size = batch.images.numel() * batch.images.element_size()
        return max(1, min(_MOST, _BLOCK // max(size, 1)))

    def _made(self, steps: Sequence[Step]) -> list[Any]:
        """Batches of one epoch, or lists of their views, in one call of the policy."""
        self._check()
        flags = np.stack([s.valid for s in steps])
        # one transfer: a batch costs little else
        ids, occurrence, real = put(
            torch.from_numpy(
                np.stack(
                    [
                        np.concatenate([s.ids for s in steps]),
                        np.concatenate([s.occurrence for s in steps]),
                        flags.ravel().astype(np.int64),
                    ]
                )
            ),
            self.device,
        )
        valid = real.bool()
        labels = None if self._labels is None else self._labels.index_select(0, ids)
        # where all are valid nobody need look
        seen = None if flags.all() else valid
        batch = Batch(Gathered(self._images, ids), labels, ids, steps[0].epoch, occurrence, valid=seen)
        if self.policy is None:
            out: Any = batch.replace(images=batch.images.dense())
        else:
            out = augmented(self.policy, batch)
        if not isinstance(out, Batch):
            return [[view.replace(valid=valid) for view in out]]
        if len(steps) == 1:
            return [out.replace(valid=valid)]
        several = len(steps)
        parts = [
            [None] * several if value is None else value.chunk(several)
            for value in (out.images, out.labels, ids, occurrence, valid)
        ]
        return [Batch(images, own, i, steps[0].epoch, o, valid=v) for images, own, i, o, v in zip(*parts, strict=True)]

    def _check(self) -> None:
        if self._closed:
            raise RuntimeError("this ResidentLoader is closed; make another")

    # ---- where it stands

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass go through this epoch.  The epoch of a loaded state goes on from where it stood."""
        self._cursor.set_epoch(epoch)

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where to go on, after the batches that were delivered: a few numbers, the same on all ranks, which any world,
        batch size and device can load.  batches: after that many of this iteration's epoch instead."""
        return {**self._cursor.state(self._given.share(), batches), **self._about()}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Go on from a state, with its seed.  Another data set, policy, order or weighting is refused by name, unless
        strict is False."""
        # what is no state, or one of another version, is said first
        unpack(state)
        if strict:
            here = self._about()
            compare({name: state[name] for name in here if name in state}, here)
        self._cursor.load(state, strict)

    def _about(self) -> dict[str, Any]:
        return {"source": self.source.fingerprint, "policy": fingerprint(self.policy)}

    def stats(self) -> dict[str, Any]:
        """Batches and samples delivered, samples a second of the time that was spent here (on a GPU: to launch), and
        bytes of the device that the data set takes."""
        held_bytes = sum(t.numel() * t.element_size() for t in (self._images, self._labels) if t is not None)
        return {
            "batches": self._count,
            "images": self._samples,
            "images_per_second": self._samples / self._seconds if self._seconds else 0.0,
            "memory_held": held_bytes,
            "bad_files": 0,
        }

    @property
    def bad_files(self) -> list[Any]:
        """None: a data set with an image that cannot be read is refused when the loader is made."""
        return []

    # ---- the end

    def close(self) -> None:
        """Give the memory back.  Batches that were delivered stay."""
        self._closed = True
        self._images, self._labels = self._images[:0].clone(), None
        # what it was is still known, for a state
        self.source.images = self.source.images[:0].clone()

    def __enter__(self) -> "ResidentLoader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
