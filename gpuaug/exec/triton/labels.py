"""Labels after mixes: one launch where each sample has one mix, and operations of torch where it may have several."""

from gpuaug_kernels import labels as kernels
from torch import Tensor

from gpuaug import mixing, targets


def follow_labels(
    mixes: mixing.Mixes,
    labels: Tensor,
    num_classes: int | None,
    valid: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """As `targets.follow`, to the same bits."""
    soft = labels.dtype in kernels.FLOATS
    # a gradient needs operations that torch knows
    if not isinstance(mixes, mixing.Pair) or labels.dtype.is_floating_point != soft or labels.requires_grad:
        return targets.follow(mixes, labels, num_classes, valid, smoothing)
    classes = targets.classes_of(labels, num_classes, valid)
    pair = (mixes.partner.contiguous(), mixes.own.contiguous())
    rows: Tensor = kernels.mixed(labels, classes, *pair, valid, smoothing)
    return rows
