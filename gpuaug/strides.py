"""How images of a list lie in memory, and one way of lying for all of them."""

from collections.abc import Sequence

from torch import Tensor

# all contiguous [H, W, C]; channels of a pixel side by side and pixels of a row too; pixels of a row of a plane side by
# side, as in [C, H, W]; none of these
CONTIGUOUS, PACKED, PLANAR, MIXED = "contiguous", "packed", "planar", "mixed"
# offsets in an image that is read by words have 32 bits
_FAR = 2**31


def way(images: Sequence[Tensor]) -> str:
    """The first of CONTIGUOUS, PACKED, PLANAR and MIXED that holds for all images [H, W, C]."""
    if all(i.is_contiguous() for i in images):
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


def _packed(image: Tensor) -> bool:
    (height, width, channels), (row, column, channel) = image.shape, image.stride()
    side_by_side = (channels == 1 or channel == 1) and (width == 1 or column == channels)
    return image.is_contiguous() or (side_by_side and height * row < _FAR)


def _planar(image: Tensor) -> bool:
    (height, width, channels), (row, column, channel) = image.shape, image.stride()
    return (width == 1 or column == 1) and (channels - 1) * channel + height * row < _FAR


def _in_planes(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1).contiguous().permute(1, 2, 0)
