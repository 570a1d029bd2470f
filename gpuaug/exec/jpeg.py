"""What JPEG does to an image, in floats: the baseline codec of ITU T.81 with JFIF's colours, as libjpeg sets it up.

Colours to luma and chroma, chroma at half the size, a cosine transform of blocks of 8 x 8, coefficients rounded to
multiples of a table that the quality scales, and back, with chroma interpolated as libjpeg does ("fancy upsampling").
The entropy coding in between loses nothing, and is left out."""

import math

import torch
from torch import Tensor

from gpuaug import ir

# Annex K of ITU T.81: how coarsely luma and chroma are rounded at quality 50
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
)


def round_trip(images: Tensor, quality: Tensor) -> Tensor:
    """Images after compression and decompression: levels k / 255.

    images: [N, 1 or 3, H, W] float32; quality: [N] int64, 1 to 100"""
    height, width = images.shape[2:]
    levels = (images.clamp(0, 1) * 255).round()
    planes = levels if images.shape[1] == 1 else _luma_chroma(levels)
    # an edge that is no whole block is repeated outwards
    scale = torch.where(quality < 50, 5000 // quality.clamp(min=1), 200 - 2 * quality)
    luma = _coded(_repeated(planes[:, :1], -height % 8, -width % 8), _table(_LUMA, scale))
    if images.shape[1] == 1:
        return luma[:, :, :height, :width] / 255
    # across before chroma is halved, and down after it, as libjpeg does
    half = _halved(_repeated(planes[:, 1:], height % 2, -width % 16))
    chroma = _coded(_repeated(half, -half.shape[2] % 8, 0), _table(_CHROMA, scale))
    # what libjpeg interpolates ends where the image does, not where the last block does
    chroma = _doubled(chroma[:, :, : -(-height // 2), : -(-width // 2)])
    return _rgb(torch.cat([luma[:, :, :height, :width], chroma[:, :, :height, :width]], 1)) / 255


def _luma_chroma(x: Tensor) -> Tensor:
    """JFIF's Y, Cb and Cr, rounded to levels."""
    r, g, b = x.unbind(1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return torch.stack([y, 128 + (b - y) * (0.5 / 0.886), 128 + (r - y) * (0.5 / 0.701)], 1).round().clamp(0, 255)


def _rgb(x: Tensor) -> Tensor:
    y, cb, cr = x[:, 0], x[:, 1] - 128, x[:, 2] - 128
    r, b = y + 1.402 * cr, y + 1.772 * cb
    g = y - (0.114 * 1.772 / 0.587) * cb - (0.299 * 1.402 / 0.587) * cr
    return torch.stack([r, g, b], 1).round().clamp(0, 255)


def _repeated(x: Tensor, down: int, across: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, across, 0, down), mode="replicate") if down or across else x


def _halved(x: Tensor) -> Tensor:
    """The mean of every 2 x 2, in whole levels; halves go down and up in turn, so that none is favoured."""
    total = x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]
    turn = 1 + torch.arange(total.shape[3], device=x.device) % 2
    return ((total + turn) / 4).floor()


def _doubled(x: Tensor) -> Tensor:
    """Twice as high and wide: each new level is 3/4 of the nearest along an axis, and 1/4 of the next nearest; of two
    columns or fewer libjpeg repeats them."""
    if x.shape[3] <= 2:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    rows = _between(x, 2)
    wide = _between(rows, 3)
    # sums of sixteenths, of which libjpeg rounds halves up on the left and down on the right
    bias = torch.where(torch.arange(wide.shape[3], device=x.device) % 2 == 0, 8.0, 7.0)
    return ((wide * 16 + bias) / 16).floor()


def _between(x: Tensor, axis: int) -> Tensor:
    n = x.shape[axis]
    at = torch.arange(2 * n, device=x.device)
    near = at // 2
    other = (near + torch.where(at % 2 == 0, -1, 1)).clamp(0, n - 1)
    return 0.75 * x.index_select(axis, near) + 0.25 * x.index_select(axis, other)


def _table(base: tuple[tuple[int, ...], ...], scale: Tensor) -> Tensor:
    """[N, 1, 1, 1, 8, 8] float32."""
    rows = torch.stack([torch.stack([(scale * v + 50) // 100 for v in row], 1) for row in base], 1)
    return rows.clamp(1, 255).float()[:, None, None, None]


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal transform of 8 samples: [8, 8]."""
    rows = [
        [math.sqrt((1 if k == 0 else 2) / 8) * math.cos((2 * i + 1) * k * math.pi / 16) for i in range(8)]
        for k in range(8)
    ]
    flat = tuple(v for row in rows for v in row)
    # made where it is needed, without a copy that waits
    return ir.rows(flat, like.new_empty(1), like.dtype).view(8, 8)


def _coded(x: Tensor, table: Tensor) -> Tensor:
    """Planes after their coefficients are rounded, in whole levels.  x: [N, C, 8 h, 8 w]"""
    n, c, height, width = x.shape
    blocks = (x - 128).view(n, c, height // 8, 8, width // 8, 8).transpose(3, 4)
    basis = _cosines(x)
    coefficients = basis @ blocks @ basis.T
    # halves away from zero, as libjpeg divides
    kept = coefficients.sign() * (coefficients.abs() / table + 0.5).floor() * table
    made = (basis.T @ kept @ basis + 128).round().clamp(0, 255)
    return made.transpose(3, 4).reshape(n, c, height, width)
