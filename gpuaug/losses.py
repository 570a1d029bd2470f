"""Loss and accuracy for labels that a mix made soft.  Nothing here waits for the device."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gpuaug import arguments
from gpuaug.arrays import put

__all__ = ["accuracy", "soft_cross_entropy"]

_REDUCTIONS = ("none", "mean", "sum")


def soft_cross_entropy(
    logits: Tensor,
    soft_targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    weight: Any = None,
    reduction: str = "mean",
    valid: Tensor | None = None,
) -> Tensor:
    """The cross entropy of logits and soft rows, as torch.nn.functional.cross_entropy has it, computed in float32.

    logits: [N, C] or [N, C, ...], any float dtype; float64 stays float64.  soft_targets: rows of the same shape, of any
    float dtype, which need not be that of the logits; or class numbers, [N] or [N, ...], where -100 is left out.
    label_smoothing: in [0, 1].  weight: of each class, [C], as `imbalance.loss_weights` gives it.  reduction: "none",
    "mean" or "sum"; as in torch, the mean of soft rows goes by their count, and that of class numbers by the sum of
    their weights.  valid: [N] bool, a Batch's: what is not valid adds nothing, and the mean leaves it out.

    Raises ValueError or TypeError for shapes and dtypes that do not go together; on a GPU nobody looks at values."""
    rows = _as_targets(logits, soft_targets)
    arguments.number("label_smoothing", label_smoothing, 0.0, 1.0)
    arguments.one_of("reduction", reduction, _REDUCTIONS)
    exact = torch.promote_types(logits.dtype, torch.float32)
    scores = logits.to(exact)
    rows = rows.to(exact) if rows.is_floating_point() else rows.long()
    by_class = None if weight is None else _weights(weight, scores)
    options: dict[str, Any] = {"weight": by_class, "label_smoothing": float(label_smoothing)}
    # autocast would leave float32 alone, but also take a float64 loss down to it
    with torch.autocast(logits.device.type, enabled=False):
        if valid is None:
            return functional.cross_entropy(scores, rows, reduction=reduction, **options)
        each = functional.cross_entropy(scores, rows, reduction="none", **options)
    counts = _counts(valid, len(scores), scores.device).view(-1, *(1,) * (each.ndim - 1))
    # not multiplied: the loss of a sample that does not count may be NaN
    each = torch.where(counts, each, 0.0)
    if reduction == "none":
        return each
    if reduction == "sum":
        return each.sum()
    shares = counts.expand_as(each).to(exact)
    if not rows.is_floating_point():
        shares = shares * (rows != -100)
        if by_class is not None:
            shares = shares * by_class[rows.clamp(min=0)]
    return each.sum() / shares.sum()


def accuracy(logits: Tensor, labels: Tensor, *, topk: int | Sequence[int] = 1, valid: Tensor | None = None) -> Tensor:
    """The share of the labels that lies in the k largest logits, in [0, 1]: float32, a number for a number `topk`, [K]
    for several.

    Of class numbers this is the usual accuracy; of a mix, lam where its own class is found and 1 - lam where its
    partner's is, so that a sample counts in full where all of its classes are among the k largest.  Smoothing that is
    in the rows counts as what it is.

    logits: [N, C] or [N, C, ...].  labels: class numbers, [N] or [N, ...], where a negative number is left out; or soft
    rows of the shape of the logits.  topk: at most C, which more is cut to.  valid: [N] bool, a Batch's: the others are
    left out."""
    rows = _as_targets(logits, labels)
    several = (topk,) if isinstance(topk, int) and not isinstance(topk, bool) else topk
    if isinstance(several, str) or not isinstance(several, Sequence) or not several:
        raise TypeError(f"topk must be a number or a sequence of numbers, got {topk!r}; pass topk=(1, 5)")
    ks = [min(arguments.integer("topk", k, 1), logits.shape[1]) for k in several]
    scores = logits.detach().movedim(1, -1)
    found = scores.topk(max(ks), -1).indices
    if rows.is_floating_point():
        soft = rows.detach().movedim(1, -1).to(torch.promote_types(rows.dtype, torch.float32))
        hits = soft.gather(-1, found)
        counts = torch.ones_like(hits[..., 0], dtype=torch.bool)
    else:
        numbers = rows.long()
        hits = (found == numbers[..., None]).float()
        counts = numbers >= 0
    if valid is not None:
        counts = counts & _counts(valid, len(logits), logits.device).view(-1, *(1,) * (counts.ndim - 1))
    hits = torch.where(counts[..., None], hits, 0.0).flatten(0, -2).cumsum(-1)
    shares = torch.stack([hits[:, k - 1].sum() for k in ks]) / counts.sum()
    return shares[0].float() if isinstance(topk, int) else shares.float()


def _as_targets(logits: Any, targets: Any) -> Tensor:
    """Targets that go with logits by type, shape and device."""
    for name, value in (("logits", logits), ("labels", targets)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {arguments.named(value)}; pass torch.as_tensor(...)")
    if not logits.is_floating_point() or logits.ndim < 2:
        raise ValueError(
            f"logits must be floats [N, C] or [N, C, ...], got {logits.dtype} of shape {tuple(logits.shape)}"
        )
    if targets.device != logits.device:
        raise ValueError(
            f"labels must be on the device of the logits, got {targets.device} and {logits.device}; "
            f"move them with .to({str(logits.device)!r})"
        )
    numbers = (logits.shape[0], *logits.shape[2:])
    if targets.is_floating_point():
        if targets.shape != logits.shape:
            raise ValueError(
                f"soft labels must have the shape of the logits, {tuple(logits.shape)}, got {tuple(targets.shape)}; "
                "check num_classes of the mix"
            )
    elif targets.dtype == torch.bool or targets.is_complex():
        raise TypeError(f"labels must be class numbers or soft rows of floats, got {targets.dtype}")
    elif targets.shape != numbers:
        raise ValueError(
            f"class numbers must have shape {numbers} for logits of shape {tuple(logits.shape)}, "
            f"got {tuple(targets.shape)}; soft rows must be floats"
        )
    found: Tensor = targets
    return found


def _weights(weight: Any, scores: Tensor) -> Tensor:
    """[C] on the device and of the dtype of the scores."""
    given: Tensor = weight if isinstance(weight, Tensor) else torch.tensor(arguments.numbers("weight", weight))
    if given.shape != scores.shape[1:2]:
        raise ValueError(
            f"weight must have one value for each of {scores.shape[1]} classes, got shape {tuple(given.shape)}"
        )
    # without a wait for the device, where it comes from the host
    given = given if given.device == scores.device else put(given, scores.device)
    out: Tensor = given.to(scores.dtype)
    return out


def _counts(valid: Any, n: int, device: torch.device) -> Tensor:
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool or valid.shape != (n,) or valid.device != device:
        shown = f"{valid.dtype} {list(valid.shape)} on {valid.device}" if isinstance(valid, Tensor) else repr(valid)
        raise ValueError(f"valid must be [{n}] bool on {device}, one for each sample, got {shown}")
    return valid
