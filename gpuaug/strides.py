"""How images of a list lie in memory, and one way of lying for all of them."""

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.arrays import Rows

# all contiguous [H, W, C]; channels of a pixel side by side and pixels of a row too; pixels of a row of a plane side by
# side, as in [C, H, W]; none of these
CONTIGUOUS, PACKED, PLANAR, MIXED = "contiguous", "packed", "planar", "mixed"
# how many channels tell an axis of channels from one of pixels
CHANNELS = (1, 3, 4)
# offsets in an image that is read by words have 32 bits
_FAR = 2**31
_DTYPE, _DEVICE, _SHAPE = map(attrgetter, ("dtype", "device", "shape"))


def way(images: Sequence[Tensor]) -> str:
    """The first of CONTIGUOUS, PACKED, PLANAR and MIXED that holds for all images [H, W, C]."""
    if all([i.is_contiguous() for i in images]):
        return CONTIGUOUS
    return PACKED if all(map(_packed, images)) else PLANAR if all(map(_planar, images)) else MIXED


def arranged(images: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Images [H, W, C] in any way but MIXED: those that lie otherwise than most are copied."""
    if way(images) != MIXED:
        return tuple(images)
    planes, whole = list(map(_planar, images)), list(map(_packed, images))
    if sum(planes) > sum(whole):
        return tuple(i if fits else _in_planes(i) for i, fits in zip(images, planes, strict=True))
    return tuple(i if fits else i.contiguous() for i, fits in zip(images, whole, strict=True))


def strides_of(images: Sequence[Tensor], shapes: Rows, lie: str) -> Rows:
    """Strides of row, column and channel of images [H, W, C], in elements: [N, 3].  Where there is one row or one
    column, torch may say anything of its stride: then it is that of contiguous pixels.

    shapes: (H, W, C) of each.  lie: as `way` says"""
    wide, whole = shapes[:, 2], shapes[:, 1] * shapes[:, 2]
    if lie == CONTIGUOUS:
        known = np.ones((len(shapes), 3), np.int64)
        known[:, 0], known[:, 1] = whole, wide
        return known
    out = rows_of_three([i.stride() for i in images])
    out[:, 1] = np.where(shapes[:, 1] == 1, wide, out[:, 1])
    out[:, 0] = np.where(shapes[:, 0] == 1, whole, out[:, 0])
    return out


def rows_of_three(triples: Sequence[Sequence[int]]) -> Rows:
    """[N, 3] int64, by way of a flat list, which NumPy takes in a third of the time."""
    return np.array(list(chain.from_iterable(triples)), np.int64).reshape(-1, 3)


def _packed(image: Tensor) -> bool:
    (height, width, channels), (row, column, channel) = image.shape, image.stride()
    side_by_side = (channels == 1 or channel == 1) and (width == 1 or column == channels)
    return image.is_contiguous() or (side_by_side and height * row < _FAR)


def _planar(image: Tensor) -> bool:
    (height, width, channels), (row, column, channel) = image.shape, image.stride()
    return (width == 1 or column == 1) and (channels - 1) * channel + height * row < _FAR


def _in_planes(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1).contiguous().permute(1, 2, 0)


def ready(item: Any) -> bool:
    """Whether an image of a list is a tensor [H, W, C] of uint8 already: hundreds are looked at in a call."""
    if type(item) is not Tensor or item.dtype != torch.uint8:
        return False
    shape = item.shape
    return len(shape) == 3 and shape[2] in CHANNELS and shape[0] not in CHANNELS and shape[0] > 0 and shape[1] > 0


def shapes_of_ready(items: Sequence[Any]) -> Rows | None:
    """(H, W, C) of images, [N, 3], if all of them are ready and belong together; None if not.

    One attribute of all images at a time, and each once: an image at a time takes twice as long."""
    n, first = len(items), items[0]
    if not ready(first) or list(map(type, items)).count(Tensor) != n:
        return None
    if list(map(_DTYPE, items)).count(torch.uint8) != n or list(map(_DEVICE, items)).count(first.device) != n:
        return None
    triples = list(map(_SHAPE, items))
    if list(map(len, triples)).count(3) != n:
        return None
    shapes = rows_of_three(triples)
    height, width, channels = shapes.T
    same = (channels == channels[0]).all() and height.min() > 0 and width.min() > 0
    # what is as low as an image has channels may be [C, H, W]
    return shapes if same and (height.min() > max(CHANNELS) or not np.isin(height, CHANNELS).any()) else None
