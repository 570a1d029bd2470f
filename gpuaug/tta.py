"""Test-time augmentation: a model asked about several fixed views of each image, and its answers merged."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpuaug import arguments
from gpuaug.batch import Batch, as_integers
from gpuaug.call import one_of
from gpuaug.gathered import Gathered
from gpuaug.images import Ragged, as_images
from gpuaug.policy import Policy
from gpuaug.rng import MAX_ID
from gpuaug.transforms import (
    FiveCrop,
    Flips,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
    Resize,
    TenCrop,
    Transform,
)

MERGES = ("mean", "max", "vote")
ACTIVATIONS = ("softmax", "sigmoid", "none")
# side of a crop as a share of the image's, as 224 is of 256 in Krizhevsky et al., ImageNet classification, 2012
CROP = 0.875
SCALES = (0.75, 1.0, 1.25)
_MIDDLE = 4
# layers whose training mode lets an answer depend on its batch, or on chance
_UNSETTLED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


class View(NamedTuple):
    """One view of every image.  policy: None for images as they are.  number: of a policy's fixed views"""

    name: str
    policy: Policy | None
    number: int = 0
    plain: bool = False  # what a single pass would look at


@dataclass(frozen=True, eq=False)
class TTA:
    """What a model says after all views.

    Reading `seconds`, an accuracy or `report()` waits for the device; nothing else does.  Dense answers are those of
    the images as they were given, lists where their sizes differ."""

    probabilities: Any  # [N, K], dense [N, K, H, W]; 0 where no view saw the image
    predicted: Any  # [N] or [N, H, W] int64, -1 where not seen; of "sigmoid" bool, as the probabilities
    confidence: Any  # the probability of what is predicted, in the shape of `predicted`
    seen: Any  # dense: [N, H, W] bool, where some view saw the image; else None
    views: tuple[str, ...]
    forwards: int  # passes through the model
    images: int  # that went through it, all passes together
    _clock: Any = field(repr=False)
    _right: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    @property
    def seconds(self) -> float:
        """From the first view to the merged answer."""
        return float(self._clock())

    @property
    def accuracy(self) -> float | None:
        """The share of labels that were predicted; None without labels."""
        return None if self._right is None else float(self._right[0])

    @property
    def accuracy_without(self) -> float | None:
        """The same of the plain view alone: the image as it is, or the middle crop."""
        return None if self._right is None else float(self._right[1])

    def report(self) -> str:
        """Cost beside gain, as text."""
        cost = (
            f"{len(self.views)} views ({', '.join(self.views)}): {self.images} images in {self.forwards} forward "
            f"{'pass' if self.forwards == 1 else 'passes'}, {self.seconds:.3f} s; a single view is "
            f"{self.images // len(self.views)} images"
        )
        if self._right is None:
            return f"{cost}\ngain unknown: pass labels="
        after, before = float(self._right[0]), float(self._right[1])
        return f"{cost}\naccuracy {before:.4f} without, {after:.4f} with: {after - before:+.4f}"


def tta(
    model: Callable[[Tensor], Tensor],
    images: Any,
    views: Any = "flips",
    merge: str = "mean",
    *,
    max_batch: int = 256,
    labels: Any = None,
    activation: str = "softmax",
    backend: str = "auto",
) -> TTA:
    """Ask a model about fixed views of each image, at most `max_batch` images a forward pass, and merge its answers.

    model: gives scores [n, K], or dense ones [n, K, h, w], for [n, C, H, W]; called without gradients.  images: as a
    policy takes them.  views: one or a sequence of names ("identity", "flips", "hflip", "vflip", "flips_both",
    "five_crop", "ten_crop", "scales", "rotations"), transforms (FiveCrop(224), TenCrop(224), Flips()) and policies,
    such as Policy([TenCrop(224), Normalize(...)]); a view that comes twice counts once.  The crops that are named have
    7/8 of the image's sides, the scales are 0.75, 1 and 1.25, the rotations quarter turns.

    merge: "mean" of probabilities (dense: of the scores, before the activation), "max", the largest that any view gives
    a class, brought to the sum 1; or "vote", the share of views that predict a class, a tie going to the larger mean.
    Dense scores come back by `Policy.undo` and count where their view saw the image; smaller ones are first scaled to
    the view, bilinearly.  activation: "softmax" or "sigmoid" of the scores, or "none" where they are probabilities.
    labels: [N] class numbers, dense [N, H, W] (others than 0 to K - 1 are left out), of "sigmoid" 0 and 1 in the shape
    of the probabilities.

    Raises ValueError or TypeError for no views, and for a model that gives something else."""
    arguments.one_of("merge", merge, MERGES)
    arguments.one_of("activation", activation, ACTIVATIONS)
    most = arguments.integer("max_batch", max_batch, 1)
    if not callable(model):
        raise TypeError(f"model must be callable, such as an nn.Module, got {type(model).__name__}")
    _settled(model)
    given = images.labels if isinstance(images, Batch) and labels is None else labels
    ids = images.ids if isinstance(images, Batch) else None
    one = one_of(images)
    pixels = images.images if isinstance(images, Batch) else images
    source = as_images(pixels if one is None else one)
    if one is not None:
        # of one image its number, and its label, may come without an axis
        ids, given = (None if v is None else torch.as_tensor(v)[None] for v in (ids, given))
    n = len(source)
    if not n:
        raise ValueError("images must hold at least one image, got none")
    ids = torch.arange(n, device=source.device) if ids is None else as_integers("ids", ids, n, source.device, MAX_ID)
    wanted = _views(views, source)
    answers = _Answers(merge, activation)
    plain = next((k for k, v in enumerate(wanted) if v.plain), 0)
    alone = _Answers("mean", activation)
    passes: list[int] = []
    clock = _Clock(source.device)
    # so many images that all their views go through the model together, where they fit
    step = max(1, most // len(wanted))
    with torch.no_grad():
        for start in range(0, n, step):
            part = slice(start, min(start + step, n))
            for k, (scores, seen) in enumerate(_asked(model, source[part], wanted, ids[part], most, backend, passes)):
                answers.add(scores, seen)
                if k == plain and given is not None:
                    alone.add(scores, seen)
            answers.close()
            alone.close()
        found = answers.merged()
        clock.stop()
        right = None
        if given is not None:
            several = found.probabilities
            classes = several[0].shape[0] if isinstance(several, list) else several.shape[1]
            with_all, without = (
                _share(f.predicted, given, classes, activation == "sigmoid") for f in (found, alone.merged())
            )
            right = (with_all, without)
    return TTA(*found, tuple(v.name for v in wanted), len(passes), sum(passes), clock.seconds, right)


def _settled(model: Any) -> None:
    loose = [m for m in model.modules() if isinstance(m, _UNSETTLED)] if isinstance(model, nn.Module) else []
    if any(m.training for m in loose):
        kind = type(next(m for m in loose if m.training)).__name__
        raise ValueError(f"model must be in evaluation mode, got {kind} in training mode; call model.eval() first")


class _Clock:
    """Seconds between two moments of a device, which nobody waits for before they are read."""

    def __init__(self, device: torch.device):
        self._events: list[Any] = []
        self._begin, self._end = time.perf_counter(), 0.0
        if device.type == "cuda":
            stream = torch.cuda.current_stream(device)
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            self._events[0].record(stream)
            self._stream = stream

    def stop(self) -> None:
        self._end = time.perf_counter()
        if self._events:
            self._events[1].record(self._stream)

    def seconds(self) -> float:
        if self._events:
            self._events[1].synchronize()
            return float(self._events[0].elapsed_time(self._events[1])) / 1e3
        return self._end - self._begin


# ---- views


def _views(given: Any, source: Any) -> list[View]:
    each = [given] if isinstance(given, str | Transform | Policy) else given
    if not isinstance(each, Sequence) or isinstance(each, Tensor):
        raise TypeError(f"views must be names, transforms or policies, got {type(given).__name__}")
    found: list[View] = []
    for what in each:
        for view in _views_of(what, source):
            if not any((view.policy, view.number) == (v.policy, v.number) for v in found):
                found.append(view)
    if not found:
        raise ValueError(f"views must hold at least one, got none; pass some of {', '.join(_NAMED)}")
    return found


def _views_of(what: Any, source: Any) -> Iterator[View]:
    if isinstance(what, str):
        if what not in _NAMED:
            raise ValueError(f"views must be among {', '.join(_NAMED)}, transforms or policies, got {what!r}")
        yield from _NAMED[what](source)
        return
    if isinstance(what, Transform):
        what = Policy([what])
    if not isinstance(what, Policy):
        raise TypeError(f"views must be names, transforms or policies, got {type(what).__name__}")
    if what._mixes:
        raise ValueError(f"{type(what._mixes[0]).__name__} mixes images, which no view does; leave it out of views")
    name = " + ".join(type(t).__name__ for t in what.transforms) or "identity"
    crops = any(isinstance(t, FiveCrop | TenCrop) for t in what.transforms)
    for k in range(what.fixed_views or 1):
        yield View(f"{name} {k}" if what.fixed_views else name, what, k, k == (_MIDDLE if crops else 0))


def _identity(source: Any) -> Iterator[View]:
    yield View("identity", None, 0, True)


def _one(name: str, transform: Transform, source: Any) -> Iterator[View]:
    yield View(name, Policy([transform]))


def _flips(source: Any, both: bool = False) -> Iterator[View]:
    yield from _identity(source)
    policy = Policy([Flips(both)])
    for k, name in enumerate(("hflip", "vflip", "hflip + vflip") if both else ("hflip",), 1):
        # the same value as a flip that is named alone
        yield View(name, _flip(name) or policy, 0 if _flip(name) else k)


def _flip(name: str) -> Policy | None:
    found = {"hflip": RandomHorizontalFlip(1.0), "vflip": RandomVerticalFlip(1.0)}.get(name)
    return None if found is None else Policy([found])


def _crops(kind: Any, name: str, source: Any) -> Iterator[View]:
    height, width = _size(source, name, f"ga.{kind.__name__}(size)")
    policy = Policy([kind((max(1, round(CROP * height)), max(1, round(CROP * width))))])
    for k in range(kind.count):
        yield View(f"{name} {k}", policy, k, k == _MIDDLE)


def _scales(source: Any) -> Iterator[View]:
    height, width = _size(source, "scales", "ga.Resize((height, width))")
    for scale in SCALES:
        if scale == 1:
            yield from _identity(source)
        else:
            size = max(1, round(scale * height)), max(1, round(scale * width))
            yield View(f"scale {scale:g}", Policy([Resize(size)]))


def _rotations(source: Any) -> Iterator[View]:
    _size(source, "rotations", "a policy that begins with ga.Resize((height, width))")
    yield from _identity(source)
    for degrees in (90, 180, 270):
        yield View(f"rotation {degrees}", Policy([RandomRotation((degrees, degrees), expand=True)]))


def _size(source: Any, name: str, instead: str) -> tuple[int, int]:
    if isinstance(source, Ragged):
        raise ValueError(f'"{name}" needs images of one size, got {source!r}; pass {instead} instead')
    return int(source.shape[2]), int(source.shape[3])


_NAMED: dict[str, Callable[[Any], Iterator[View]]] = {
    "identity": _identity,
    "flips": _flips,
    "hflip": partial(_one, "hflip", RandomHorizontalFlip(1.0)),
    "vflip": partial(_one, "vflip", RandomVerticalFlip(1.0)),
    "flips_both": partial(_flips, both=True),
    "five_crop": partial(_crops, FiveCrop, "five_crop"),
    "ten_crop": partial(_crops, TenCrop, "ten_crop"),
    "scales": _scales,
    "rotations": _rotations,
}


# ---- the model


def _asked(
    model: Any, source: Any, views: Sequence[View], ids: Tensor, most: int, backend: str, passes: list[int]
) -> Iterator[tuple[Any, Any]]:
    """(scores, seen) of every view.  Dense scores lie on the images as they were given, and are lists where sizes
    differ; seen is None where scores are not dense.  passes: told how many images each forward pass had"""
    pixels = [_made(v, source, ids, backend) for v in views]
    kinds: dict[Any, list[int]] = {}
    for k, made in enumerate(pixels):
        kinds.setdefault((made.shape, made.dtype), []).append(k)
    scores: dict[int, Tensor] = {}
    for members in kinds.values():
        together = torch.cat([pixels[k] for k in members]) if len(members) > 1 else pixels[members[0]]
        out = []
        for piece in torch.split(together, most):
            passes.append(len(piece))
            out.append(_checked(model(piece), piece))
        every = torch.cat(out) if len(out) > 1 else out[0]
        scores.update(zip(members, torch.split(every, len(ids)), strict=True))
    shapes = {(*s.shape[1:2], s.ndim) for s in scores.values()}
    if len(shapes) > 1:
        raise ValueError(f"model must give as many classes for every view, got {sorted(shapes)}")
    for k, view in enumerate(views):
        found = scores[k]
        if found.ndim == 2:
            yield found, None
            continue
        if found.shape[2:] != pixels[k].shape[2:]:
            found = functional.interpolate(found, tuple(pixels[k].shape[2:]), mode="bilinear", align_corners=False)
        if view.policy is None:
            yield found, torch.ones((len(found), *found.shape[2:]), dtype=torch.bool, device=found.device)
        else:
            size = source.size if isinstance(source, Ragged) else (int(source.shape[2]), int(source.shape[3]))
            params = view.policy.draw(ids, epoch=0, size=size, occurrence=torch.full_like(ids, view.number))
            back, seen = view.policy.undo(found, params, backend=backend)
            # neighbours of one size among images of many are a list like the others
            yield (list(back), list(seen)) if isinstance(source, Ragged) else (back, seen)


def _made(view: View, source: Any, ids: Tensor, backend: str) -> Tensor:
    if view.policy is None:
        if isinstance(source, Ragged):
            raise ValueError(
                f"images as they are must have one size, got {source!r}; pass views whose policy begins with "
                "ga.Resize((height, width))"
            )
        return source.dense() if isinstance(source, Gathered) else source
    who = {"ids": ids, "epoch": 0, "occurrence": torch.full_like(ids, view.number), "labels": None}
    out: Tensor = view.policy._call(source, who, backend)
    return out


def _checked(scores: Any, images: Tensor) -> Tensor:
    if not isinstance(scores, Tensor):
        raise TypeError(
            f"model must return a tensor of scores, got {type(scores).__name__}; pass a function that takes it out, "
            "such as lambda images: model(images)['out']"
        )
    n = len(images)
    if scores.ndim not in (2, 4) or len(scores) != n or not all(scores.shape) or not scores.is_floating_point():
        raise ValueError(
            f"model must return floats [{n}, K], or dense [{n}, K, h, w], for images {list(images.shape)}, got "
            f"{scores.dtype} {list(scores.shape)}"
        )
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


# ---- merging


class _Merged(NamedTuple):
    probabilities: Any
    predicted: Any
    confidence: Any
    seen: Any


class _Answers:
    """Scores of one view after the other, for one part of the images after the other."""

    def __init__(self, merge: str, activation: str):
        self.merge, self.activation = merge, activation
        self.parts: list[_Merged] = []
        self.state: list[_State] = []
        self.dense = self.lists = False

    def add(self, scores: Any, seen: Any) -> None:
        """One view's of a part.  Lists have an item for each image."""
        self.dense, self.lists = seen is not None, isinstance(scores, list)
        each = list(zip(scores, seen, strict=True)) if self.lists else [(scores, seen)]
        self.state = self.state or [_State(self.merge, self.activation, self.dense) for _ in each]
        for state, (s, where) in zip(self.state, each, strict=True):
            state.add(s, where)

    def close(self) -> None:
        """No more views of this part."""
        self.parts += [state.merged() for state in self.state]
        self.state = []

    def merged(self) -> _Merged:
        columns = zip(*self.parts, strict=True)
        if self.lists:
            return _Merged(*(list(c) for c in columns))
        return _Merged(*(None if c[0] is None else torch.cat(c) for c in columns))


class _State:
    """What the views so far say of some images."""

    def __init__(self, merge: str, activation: str, dense: bool):
        self.merge, self.activation, self.axis = merge, activation, -3 if dense else -1
        # the mean of dense answers is taken before the activation
        self.late = dense and merge == "mean"
        self.total: Any = 0.0
        self.count: Any = 0
        self.top: Any = None
        self.votes: Any = 0.0
        self.seen: Any = None

    def add(self, scores: Tensor, seen: Tensor | None) -> None:
        shares = scores if self.late else self._activated(scores)
        where: Any = 1.0
        if seen is not None:
            where = seen.unsqueeze(self.axis).to(shares.dtype)
            # not multiplied: what lies where nothing was seen may be NaN
            shares = torch.where(seen.unsqueeze(self.axis), shares, torch.zeros_like(shares))
            self.seen = seen if self.seen is None else self.seen | seen
        self.total, self.count = self.total + shares, self.count + where
        if self.merge == "max":
            self.top = shares if self.top is None else torch.maximum(self.top, shares)
        if self.merge == "vote":
            if self.activation == "sigmoid":
                chosen = (shares > 0.5).to(shares.dtype)
            else:
                best = shares.argmax(self.axis, keepdim=True)
                chosen = torch.zeros_like(shares).scatter_(self.axis, best, 1.0)
            self.votes = self.votes + chosen * where

    def _activated(self, scores: Tensor) -> Tensor:
        if self.activation == "softmax":
            return scores.softmax(self.axis)
        return scores.sigmoid() if self.activation == "sigmoid" else scores

    def merged(self) -> _Merged:
        count = self.count.clamp(min=1) if isinstance(self.count, Tensor) else self.count
        mean = self.total / count
        found = self._activated(mean) if self.late else mean
        rank = found
        if self.merge == "vote":
            found = self.votes / count
            # a mean is at most 1: it decides between classes of as many votes alone
            rank = self.votes + mean / 2
        elif self.merge == "max":
            found = self.top
            if self.activation != "sigmoid":
                found = found / found.sum(self.axis, keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)
            rank = found
        seen = self.seen
        if seen is not None:
            found = torch.where(seen.unsqueeze(self.axis), found, torch.zeros_like(found))
        if self.activation == "sigmoid":
            sure = torch.maximum(found, 1 - found)
            if seen is not None:
                sure = torch.where(seen.unsqueeze(self.axis), sure, torch.zeros_like(sure))
            return _Merged(found, rank / self._scale(count) > 0.5, sure, seen)
        predicted = rank.argmax(self.axis)
        sure = found.gather(self.axis, predicted.unsqueeze(self.axis)).squeeze(self.axis)
        if seen is not None:
            predicted = torch.where(seen, predicted, torch.full_like(predicted, -1))
        return _Merged(found, predicted, sure, seen)

    def _scale(self, count: Any) -> Any:
        """What brings a rank to [0, 1]: of votes, half of the views and the mean decide together."""
        return count + 0.5 if self.merge == "vote" else 1.0


def _share(predicted: Any, labels: Any, classes: int, each: bool) -> Tensor:
    """The share of labels that were predicted, without waiting for it.  each: a label for every class"""
    rows = predicted if isinstance(predicted, list) else [predicted]
    given = labels if isinstance(predicted, list) else [labels]
    right, count = [], []
    if len(given) != len(rows):
        raise ValueError(f"labels must have one entry per image, {len(rows)}, got {len(given)}")
    for p, wanted in zip(rows, given, strict=True):
        truth = torch.as_tensor(wanted, device=p.device)
        if truth.shape != p.shape:
            kind = "0 and 1 for every class" if each else "class numbers"
            raise ValueError(f"labels must be {kind}, {list(p.shape)}, got {list(truth.shape)}")
        if each:
            right.append((p == (truth > 0)).sum())
            count.append(torch.ones_like(p).sum())
        else:
            known = (truth >= 0) & (truth < classes)
            right.append(((p == truth) & known).sum())
            count.append(known.sum())
    return torch.stack(right).sum().double() / torch.stack(count).sum().clamp(min=1)
