"""What each pass does to labels, and which passes move what lies among the pixels."""

from dataclasses import replace

import torch
from torch import Tensor

from gpuaug import ir, mixing
from gpuaug.batch import bounds


def follow(
    passes: mixing.Mixes,
    labels: Tensor,
    num_classes: int | None,
    valid: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Labels after passes as `mixing.accounted` gives them: class numbers become soft rows, which are smoothed and
    mixed.  Soft rows of samples that are not valid, [N] bool, are zeros; without a mix labels stay as they are."""
    if not passes:
        return _weightless(labels, valid)
    rows = soft(labels, num_classes, valid)
    if smoothing:
        rows = ((1 - smoothing) * rows.double() + smoothing / rows.shape[1]).to(rows.dtype)
    return mixed_labels(passes, _weightless(rows, valid))


def _weightless(labels: Tensor, valid: Tensor | None) -> Tensor:
    """Soft rows with zeros for samples that are not valid."""
    if valid is None or labels.ndim != 2 or not labels.dtype.is_floating_point:
        return labels
    return torch.where(valid[:, None], labels, 0.0)


def moves(passes: ir.Sequence) -> bool:
    """Whether pixels may change their places, by the types of the passes: a mix takes them from another image, a user's
    function may do anything."""
    kinds = ir.Resample | ir.Warp | ir.Project | ir.Elastic | ir.Mix | ir.Custom
    return any(isinstance(p, kinds) and getattr(p, "moves", True) for p in ir.walk(passes))


def geometric(passes: ir.Sequence) -> ir.Sequence:
    """The passes that move pixels, which masks, boxes and keypoints follow; raises ValueError where they cannot."""
    kept: list[ir.Pass] = []
    for p in passes:
        if isinstance(p, ir.Choice):
            branches = tuple(geometric(branch) for branch in p.branches)
            if any(branches):
                kept.append(replace(p, branches=branches))
        elif isinstance(p, ir.Blend):
            if any(moves(chain) for chain in p.chains):
                raise ValueError(
                    "masks, boxes and keypoints cannot follow AugMix, which lays differently moved images over one "
                    "another; take another automatic policy, such as RandAugment"
                )
        elif isinstance(p, ir.Custom):
            if not p.moves:
                continue
            raise ValueError(
                f"masks, boxes and keypoints cannot follow {p.name}, a function that may move pixels; write a "
                "gpuaug.Transform, whose passes say what it does, or apply the function in a policy of its own"
            )
        elif isinstance(p, ir.Resample | ir.Warp | ir.Project | ir.Elastic | ir.Mix):
            kept.append(p)
        elif not isinstance(p, ir.Pointwise | ir.Stencil | ir.Jpeg | ir.Finish):
            raise ValueError(
                f"masks, boxes and keypoints cannot follow {type(p).__name__}, of which no rule says what it moves; "
                "call a policy without it"
            )
    return tuple(kept)


def mixed_labels(passes: mixing.Mixes, labels: Tensor) -> Tensor:
    """Soft rows after passes as `mixing.accounted` gives them: those of the samples whose pixels an image is made of,
    by their shares of it."""
    if isinstance(passes, mixing.Pair):
        # by far the most policies, and a third of the operations
        own = passes.own[:, None]
        return (own * labels + (1 - own) * labels[passes.partner]).to(labels.dtype)
    if isinstance(passes, mixing.Shares):
        return (passes.matrix @ labels.double()).to(labels.dtype)
    out = torch.zeros_like(labels, dtype=torch.float64)
    for who, share in mixing.shares(passes, len(labels), labels.device):
        out = out + share[:, None] * labels[who]
    return out.to(labels.dtype)


def soft(labels: Tensor, num_classes: int | None, valid: Tensor | None = None) -> Tensor:
    """[N, K] float rows: one-hot float32 from class numbers [N], or the rows that came.  valid: whose numbers must be
    classes, [N] bool; None: all of them"""
    classes = classes_of(labels, num_classes, valid)
    if labels.ndim == 2:
        return labels
    # what is out of range on a GPU, where nothing can be refused, gives an all-zero row
    whole = labels.long()
    if valid is not None:
        whole = torch.where(valid, whole, 0)
    return (whole[:, None] == torch.arange(classes, device=labels.device)).float()


def classes_of(labels: Tensor, num_classes: int | None, valid: Tensor | None = None) -> int:
    """How many columns the soft rows of labels have; raises where they cannot be mixed.  As `soft`"""
    if labels.ndim == 2 and labels.dtype.is_floating_point:
        if num_classes is not None and labels.shape[1] != num_classes:
            raise ValueError(
                f"soft labels must have {num_classes} columns, the mix's num_classes, got shape {tuple(labels.shape)}"
            )
        return labels.shape[1]
    if labels.ndim != 1 or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise TypeError(
            "labels to mix must be [N] integers or [N, classes] floats, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if num_classes is None:
        raise ValueError(
            "num_classes is needed to mix class numbers, got None; "
            "pass it to the mix, or labels as soft rows [N, classes]"
        )
    # on a GPU the check would wait for the device
    if labels.device.type == "cpu" and len(labels):
        # torch cannot sort or compare unsigned integers
        whole = labels.long() if valid is None else torch.where(valid, labels.long(), 0)
        if not 0 <= int(whole.min()) <= int(whole.max()) < num_classes:
            low, high = bounds(labels if valid is None else whole)
            raise ValueError(f"labels must be in [0, {num_classes}), got {low} to {high}; check num_classes")
    return num_classes
