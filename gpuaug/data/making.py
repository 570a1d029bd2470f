"""From a batch's ids to its images: read, windows, decode, and what becomes of those that can't be had."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuaug.data.course import CHAIN, Course, Step, Substitutes
from gpuaug.data.decode_batch import Decoded, Decoder, clipped
from gpuaug.data.files import Files
from gpuaug.data.heads import Heads, Ints
from gpuaug.data.source import Item, Source
from gpuaug.data.targets import as_targets, without_images
from gpuaug.images import Ragged

ON_ERROR = ("raise", "skip", "substitute")
# sides of what stands for an image in a batch that has none: the first that the policy takes
_BLANK = (224, 256, 384, 512, 1024, 2048, 4096)


class BadFile(NamedTuple):
    """A sample that has no image, and why."""

    id: int
    path: str
    reason: str


class BadImage(ValueError):
    """Samples of a batch that have no image, all of them: `files`."""

    def __init__(self, message: str, files: Sequence[BadFile]):
        super().__init__(message)
        self.files = tuple(files)

    def __reduce__(self) -> Any:
        return BadImage, (str(self), self.files)


@dataclass(eq=False)
class Made:
    """A batch that is ready for the policy, or why there is none."""

    step: Step
    images: Ragged | None = None
    targets: Any = None
    params: Any = None
    bad: tuple[BadFile, ...] = ()
    error: BaseException | None = None
    # the CUDA event after which the pixels are there, and what must live until nobody reads them
    ready: Any = None
    kept: Any = None

    @property
    def bytes(self) -> int:
        """Of the decoded pixels."""
        return 0 if self.images is None else self.images.elements


class Read(NamedTuple):
    """What the source gave for a step."""

    step: Step
    items: Sequence[Item]
    targets: Any

    @property
    def bytes(self) -> int:
        """Of the encoded files."""
        if isinstance(self.items, Files):
            return self.items.bytes
        return sum(len(i) for i in self.items if not isinstance(i, Tensor | Exception))


class Maker:
    """Reads and decodes the batches of a loader.

    windows: gives for (ids, size, epoch=, occurrence=) an object with `windows`, [N, 4], and `params`; with labels= too
    where `windows_of` says so; None decodes whole images."""

    def __init__(
        self,
        source: Source,
        decoder: Decoder,
        windows: Callable[..., Any] | None,
        on_error: str,
        target_transform: Callable[[Any], Any] | None,
    ):
        self.source, self.decoder, self.windows = source, decoder, windows
        self.on_error, self.target_transform = on_error, target_transform

    def read(self, step: Step) -> Read:
        """The files of a batch.  What a source raises as a whole is looked for sample by sample."""
        try:
            return Read(step, *self.source.samples(step.ids.tolist()))
        except Exception as error:
            for id in step.ids.tolist():
                try:
                    self.source.samples([id])
                except Exception as own:
                    raise RuntimeError(f"{self._named(id)} can't be read: {type(own).__name__}: {own}") from own
            first = self._named(int(step.ids[0]))
            raise RuntimeError(f"the batch of {first} can't be read: {type(error).__name__}: {error}") from error

    def make(self, read: Read, course: Course) -> Made:
        """The images of a batch."""
        step, items, targets = read
        heads = self.decoder.inspect(items)
        drawn, decoded, full = self._decoded(step, items, heads, targets)
        found = decoded.bad
        if not found:
            return self._made(step, decoded.images, full, decoded.windows, drawn, targets, (), decoded)
        bad = self._bad_files(step, found)
        if self.on_error == "raise":
            return Made(step, bad=tuple(bad), error=_refused(bad))
        if self.on_error == "skip":
            return self._skipped(step, decoded, full, drawn, targets, bad)
        return self._substituted(step, decoded, full, targets, bad, course)

    def _bad_files(self, step: Step, found: Mapping[int, Exception]) -> list[BadFile]:
        """Each sample once, however often it stands in the batch."""
        reasons: dict[int, str] = {}
        for i, error in sorted(found.items()):
            reasons.setdefault(int(step.ids[i]), str(error))
        return [BadFile(id, self._path(id), reason) for id, reason in reasons.items()]

    def _named(self, id: int) -> str:
        return f"sample {id} ({self._path(id)})"

    def _targets(self, step: Step, targets: Any) -> Any:
        return as_targets(targets, self.target_transform, lambda k: self._named(int(step.ids[k])))

    def _path(self, id: int) -> str:
        try:
            return self.source.key(id)
        except Exception:
            return "?"

    def _decoded(self, step: Step, items: Sequence[Item], heads: Heads, targets: Any) -> tuple[Any, Decoded, Ints]:
        """What was drawn, the images, and the sizes that it was drawn for: those without a header are as large as the
        first that has one."""
        full = heads.sizes.copy()
        there = np.flatnonzero(full[:, 0])
        if not there.size and self.on_error != "skip":
            # nothing of it will be seen
            return None, self.decoder.decode(items, None, heads), full
        full[full[:, 0] == 0] = full[there[0]] if there.size else self._blank(step, targets)
        drawn = self._drawn(step, full, targets)
        return drawn, self.decoder.decode(items, None if drawn is None else np.asarray(drawn.windows), heads), full

    def _blank(self, step: Step, targets: Any) -> tuple[int, int]:
        """A size that the policy takes, of images that nobody will see."""
        one = step._replace(ids=step.ids[:1], occurrence=step.occurrence[:1])
        first = None if targets is None else targets[:1]
        for side in _BLANK[:-1]:
            try:
                self._drawn(one, np.array([(side, side)], np.int64), first)
            except ValueError:
                continue
            return side, side
        return _BLANK[-1], _BLANK[-1]

    def _drawn(self, step: Step, full: Ints, targets: Any) -> Any:
        if self.windows is None:
            return None
        try:
            return self._asked(self.windows, step, full, targets)
        except (ValueError, TypeError) as error:
            # whose image the policy can't take
            for i, (height, width) in enumerate(full.tolist()):
                one = step._replace(ids=step.ids[i : i + 1], occurrence=step.occurrence[i : i + 1])
                try:
                    self._asked(self.windows, one, full[i : i + 1], None if targets is None else targets[i : i + 1])
                except (ValueError, TypeError) as own:
                    kind = TypeError if isinstance(own, TypeError) else ValueError
                    raise kind(f"{self._named(int(step.ids[i]))} of {height}x{width} pixels: {own}") from error
            raise

    def _asked(self, windows: Callable[..., Any], step: Step, full: Ints, targets: Any) -> Any:
        more = {}
        if "labels" in getattr(windows, "keywords", ()):
            found = self._targets(step, targets)
            more = {"labels": found.get("labels") if isinstance(found, dict) else found}
        return windows(
            torch.from_numpy(step.ids),
            torch.from_numpy(full),
            epoch=step.epoch,
            occurrence=torch.from_numpy(step.occurrence),
            **more,
        )

    def _made(
        self,
        step: Step,
        images: Sequence[Any],
        full: Ints,
        boxes: Ints,
        drawn: Any,
        targets: Any,
        bad: Sequence[BadFile],
        decoded: Any,
    ) -> Made:
        with self.decoder.here():
            ragged = Ragged.of(images) if drawn is None else Ragged.of(images, full, boxes)
            ready = self.decoder.mark()
        params: Any = getattr(drawn, "params", None)
        if not step.valid.all() and hasattr(params, "among"):
            # while it is on the host
            params = params.among(torch.from_numpy(step.valid))
        labels = self._targets(step, targets)
        if bad and self.on_error == "skip":
            labels = without_images(labels, np.flatnonzero(~step.valid).tolist(), full)
        return Made(step, ragged, labels, params, tuple(bad), None, ready, decoded)

    def _skipped(
        self, step: Step, decoded: Decoded, full: Ints, drawn: Any, targets: Any, bad: Sequence[BadFile]
    ) -> Made:
        """Black images in place of those that are missing, marked as not valid."""
        boxes = clipped(None if drawn is None else np.asarray(drawn.windows), full)
        images, valid = list(decoded.images), step.valid.copy()
        with self.decoder.here():
            for i in decoded.bad:
                height, width = boxes[i, 2:].tolist()
                images[i] = torch.zeros(height, width, 3, dtype=torch.uint8, device=self.decoder.device)
                valid[i] = False
        return self._made(step._replace(valid=valid), images, full, boxes, drawn, targets, bad, decoded)

    def _substituted(
        self, step: Step, decoded: Decoded, full: Ints, targets: Any, bad: list[BadFile], course: Course
    ) -> Made:
        """Other samples of the epoch where there are none.  Every sample goes through a chain of its own, some at a
        time, so that what takes its place does not depend on who else is in the batch."""
        others, left = Substitutes(course, step.epoch), sorted(decoded.bad)
        images, boxes, kept = list(decoded.images), decoded.windows.copy(), [decoded]
        ids, occurrence = step.ids.copy(), step.occurrence.copy()
        first, count = 0, 1
        while left and first < CHAIN:
            tried = [others(int(step.ids[i]), int(step.occurrence[i]), first, count) for i in left]
            wanted = step._replace(
                ids=np.concatenate([t for t, _ in tried]), occurrence=np.concatenate([t for _, t in tried])
            )
            read = self.read(wanted)
            _, more, sizes = self._decoded(wanted, read.items, self.decoder.inspect(read.items), read.targets)
            kept.append(more)
            bad += self._bad_files(wanted, more.bad)
            missing = []
            for place, i in enumerate(left):
                k = next((k for k in range(place * count, (place + 1) * count) if k not in more.bad), None)
                if k is None:
                    missing.append(i)
                    continue
                images[i], full[i], boxes[i] = more.images[k], sizes[k], more.windows[k]
                ids[i], occurrence[i] = wanted.ids[k], wanted.occurrence[k]
                targets = _put(targets, i, None if read.targets is None else read.targets[k], len(ids))
            left, first, count = missing, first + count, count * 2
        if left:
            gone = self._bad_files(step, {i: decoded.bad[i] for i in left})
            return Made(step, bad=tuple(bad), error=_refused(gone, f", and so have {CHAIN} substitutes of each"))
        whole = step._replace(ids=ids, occurrence=occurrence)
        # once more for all of the batch: what was drawn is a function of each sample, so the windows are those decoded
        return self._made(whole, images, full, boxes, self._drawn(whole, full, targets), targets, bad, kept)


def _put(targets: Any, i: int, value: Any, n: int) -> Any:
    """Targets with another one in a slot."""
    if targets is None and value is None:
        return None
    changed = [None] * n if targets is None else targets.copy()
    changed[i] = value
    return changed


def _refused(bad: Sequence[BadFile], more: str = "") -> BadImage:
    shown = "; ".join(f"sample {b.id} ({b.path}): {b.reason}" for b in bad[:5])
    rest = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    what = "sample has" if len(bad) == 1 else "samples have"
    return BadImage(
        f"{len(bad)} {what} no image{more}: {shown}{rest}; pass on_error='skip' or 'substitute', or take "
        f"{'it' if len(bad) == 1 else 'them'} out of the data set",
        bad,
    )


def windows_of(policy: Any, device: torch.device) -> Callable[..., Any] | None:
    """What says which windows of images a policy reads; None where nothing does."""
    windows = getattr(policy, "windows", None)
    # views of one image read different windows of it
    if not callable(windows) or getattr(policy, "fixed_views", False):
        return None
    # so that what the call needs is prepared there, where it can be
    takes = "device" in inspect.signature(windows).parameters
    # the classes of samples only where the policy chooses by them, for they are read before the images then
    known = {"labels": None} if getattr(policy, "_by_class", False) else {}
    return partial(windows, device=device, **known) if takes else windows
