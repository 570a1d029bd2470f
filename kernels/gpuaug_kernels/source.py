"""Where a chain's pixels come from: the pixel itself, an antialiased resample, or a pixel among its neighbours.

Bytes read: the pixel itself once; a resample the footprint of the tile, each value as often as a tap of the tile falls
on it, from the first cache after the first time; a sharpening nine.  Positions are float64 where an integer comes of
them, weights float32.

What the functions here are handed (see tuples.py):

    image    the sample's image
    i        pointer to the source's integers of the sample, [columns] int32.  Of a resample: window (0 to 3), source
             rectangle (4 to 7), rectangle of the output that is not filled (8 to 11), each x0 y0 x1 y1; of other
             sources height and width of the input
    d        pointer to the source's doubles of the sample, [columns] float64.  Of a resample: two rows of the map from
             output to input (0 to 5), half widths of the kernel along x and y (6, 7)
    fill     pointer to [FORMAT.channels] float32
    at       the tile
"""

import triton
import triton.language as tl

from gpuaug_kernels.constants import (
    CONSTANT,
    EDGE,
    FLOOR,
    NONE,
    PIXELS16,
    PLANES,
    REFLECT,
    SHORTS,
    SYMMETRIC,
    TILE,
    TRIANGLE,
    WORDS,
)
from gpuaug_kernels.point import blend, inside, load_channels
from gpuaug_kernels.taps import axis_taps, byte_means, heaviest_tap, inverse_weight, tap_weight, to_int32
from gpuaug_kernels.tuples import Axis
from gpuaug_kernels.words import (
    join8,
    load_eight,
    load_pixel,
    magic_float,
    short_bits,
    unpack_bytes,
    unpack_shorts,
    unpack_units,
    word_base,
)


@triton.jit
def gather(image, y, x, channel, mask, FORMAT: tl.constexpr):
    """The values at integer positions as float32, in the input's own units, 0 where masked."""
    if FORMAT.form == PIXELS16:
        r, g, b = unpack_shorts(tl.load(image.data + (y * image.row_stride + x), mask=mask, other=0))
    elif FORMAT.form == WORDS:
        words, beyond = word_base(image, 4)
        pitch = image.row_stride.to(tl.int32)
        r, g, b = unpack_bytes(load_pixel(words, y * pitch + 3 * x + beyond, pitch, mask))
    else:
        row = image.data + channel.to(tl.int64) * image.channel_stride + y.to(tl.int64) * image.row_stride
        r, g, b = gather_row(image, row, x, mask, FORMAT)
    return r, g, b


@triton.jit
def gather_row(image, row, x, mask, FORMAT: tl.constexpr):
    """The same of rows whose addresses are computed already.  row: pointers"""
    at = row + x.to(tl.int64) * image.column_stride
    r = to_float(tl.load(at, mask=mask, other=0))
    g = r
    b = r
    if FORMAT.channels == 3:
        g = to_float(tl.load(at + image.channel_stride, mask=mask, other=0))
        b = to_float(tl.load(at + 2 * image.channel_stride, mask=mask, other=0))
    return r, g, b


@triton.jit
def to_float(x):
    """A value of an image as float32."""
    if x.dtype == tl.uint8:
        out = magic_float(x.to(tl.uint32))
    else:
        out = x.to(tl.float32)
    return out


@triton.jit
def unit_scale(image, FORMAT: tl.constexpr):
    """What 1.0 is in the input's units."""
    byte: tl.constexpr = image.data.dtype.element_ty == tl.uint8
    one: tl.constexpr = 65535.0 if FORMAT.form == PIXELS16 else (255.0 if byte else 1.0)
    return one


@triton.jit
def to_unit(x, one):
    """x / one, of integers rounded to nearest: thresholds sit on the grid of 1/255."""
    if one == 255.0:
        # 1/255 in two parts: the product of eight bits with the first, 257/65536, is exact
        x = x * 0.00392150878906250 + x * 5.983838848e-08
    elif one == 65535.0:
        # the same of 1/65535 and 1/65536
        x = x * 1.52587890625e-05 + x * 2.3283419289e-10
    return x


@triton.jit
def stored(x, FORM: tl.constexpr):
    """What a later launch reads of a value that is written for it.  FORM: of the layout"""
    if FORM == SHORTS:
        x = to_unit(magic_float(short_bits(x)), 65535.0)
    return x


@triton.jit
def read_pixel(image, at, mask, height, FORMAT: tl.constexpr):
    """The pixel itself."""
    if FORMAT.form == WORDS:
        along: tl.constexpr = TILE // 8
        k = tl.arange(0, TILE * along)
        y, x = tl.minimum(at.top + k // along, height - 1), at.left + 8 * (k % along)
        words, beyond = word_base(image, 8)
        pitch = image.row_stride.to(tl.int32)
        last = ((height - 1) * pitch + 3 * at.width - 1 + beyond) >> 3
        p = load_eight(words, y * pitch + 3 * x + beyond, last, FORMAT.aligned)
        r, g, b = unpack_units(join8(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]))
    else:
        r, g, b = gather(image, at.y, at.x, at.channel, mask, FORMAT)
        one = unit_scale(image, FORMAT)
        r, g, b = to_unit(r, one), to_unit(g, one), to_unit(b, one)
    return r, g, b


@triton.jit
def sharpen(image, factor, i, at, mask, FORMAT: tl.constexpr):
    """A pixel against the mean of the nine around it, in which it counts five times; at the border against itself.

    factor: pointer to [1] float32"""
    y, x, height, width = at.y, at.x, tl.load(i), tl.load(i + 1)
    inner = mask & (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    r, g, b = gather(image, y, x, at.channel, mask, FORMAT)
    sr, sg, sb = 4.0 * r, 4.0 * g, 4.0 * b
    # a loop, so that no more than a row is held in registers at once
    for j in range(3):
        for dx in tl.static_range(-1, 2):
            vr, vg, vb = gather(image, y + (j - 1), x + dx, at.channel, inner, FORMAT)
            sr, sg, sb = sr + vr, sg + vg, sb + vb
    one = unit_scale(image, FORMAT)
    r, g, b = to_unit(r, one), to_unit(g, one), to_unit(b, one)
    sr, sg, sb = (
        to_unit(sr * 0.07692307692307693, one),
        to_unit(sg * 0.07692307692307693, one),
        to_unit(sb * 0.07692307692307693, one),
    )
    f = tl.load(factor)
    return (
        sharpen_channel(f, r, sr, inner, height, width, FORMAT),
        sharpen_channel(f, g, sg, inner, height, width, FORMAT),
        sharpen_channel(f, b, sb, inner, height, width, FORMAT),
    )


@triton.jit
def sharpen_channel(factor, x, mean, inner, height, width, FORMAT: tl.constexpr):
    """A channel against its mean; images without inner pixels are left alone.  inner: pixels that are not at the
    border"""
    return tl.where((height > 2) & (width > 2), blend(factor, x, tl.where(inner, mean, x), FORMAT), x)


@triton.jit
def border_tap(tap, low, high, EXTEND: tl.constexpr):
    """Where a tap beyond [low, high) is read, and whether it is to be read at all."""
    n = tl.maximum(high - low, 1)
    # NONE: the window never exceeds the source, and the weight tells which taps count
    valid = tl.full(tap.shape, True, tl.int1)
    if EXTEND == CONSTANT:
        valid = (tap >= low) & (tap < high)
    elif EXTEND == EDGE:
        tap = tl.minimum(tl.maximum(tap, low), low + n - 1)
    elif EXTEND == REFLECT:
        period = tl.maximum(2 * n - 2, 1)
        j = ((tap - low) % period + period) % period
        tap = low + tl.where(j < n, j, period - j)
    elif EXTEND == SYMMETRIC:
        j = ((tap - low) % (2 * n) + 2 * n) % (2 * n)
        tap = low + tl.where(j < n, j, 2 * n - 1 - j)
    return tap, valid


@triton.jit
def tile_axes(d, at):
    """How rows and columns of input follow the output's, and whether they do so after a quarter turn."""
    xx, xy, yx, yy = tl.load(d), tl.load(d + 1), tl.load(d + 3), tl.load(d + 4)
    # input rows follow output columns after a quarter turn; the tile is square, so that it serves both ways
    turned = xx == 0.0
    down = Axis(tl.where(turned, at.left, at.top), tl.where(turned, yx, yy), tl.load(d + 5))
    across = Axis(tl.where(turned, at.top, at.left), tl.where(turned, xy, xx), tl.load(d + 2))
    return down, across, turned


@triton.jit
def floor_positions(axis, index, first, last):
    """The pixel at floor(position), kept in the window.  index: rows or columns of the tile"""
    position = axis.step * (axis.first + index).to(tl.float64) + axis.shift
    return tl.minimum(tl.maximum(to_int32(tl.floor(position)), first), last - 1)


@triton.jit
def nearest_taps(image, fills, i, down, across, channel, FORMAT: tl.constexpr, EXTEND: tl.constexpr):
    """One tap: nothing is weighed."""
    place = tl.arange(0, TILE * TILE)
    iy = floor_positions(down, place // TILE, tl.load(i + 1), tl.load(i + 3))
    iy, valid_y = border_tap(iy, tl.load(i + 5), tl.load(i + 7), EXTEND)
    ix = floor_positions(across, place % TILE, tl.load(i), tl.load(i + 2))
    ix, valid_x = border_tap(ix, tl.load(i + 4), tl.load(i + 6), EXTEND)
    valid = valid_y & valid_x
    r, g, b = gather(image, iy, ix, channel, valid, FORMAT)
    return fill_border(r, g, b, valid, fills, EXTEND)


@triton.jit
def fill_border(r, g, b, valid, fills, EXTEND: tl.constexpr):
    """The colour of a constant border where there is no pixel."""
    if EXTEND == CONSTANT:
        r, g, b = tl.where(valid, r, fills[0]), tl.where(valid, g, fills[1]), tl.where(valid, b, fills[2])
    return r, g, b


@triton.jit
def triangle_taps(
    image, fills, i, d, down, across, channel, FORMAT: tl.constexpr, KIND: tl.constexpr, EXTEND: tl.constexpr
):
    """A mean of taps, under any kernel: one row of taps after the other.

    A tap beyond the window weighs nothing and is read at its edge, so that no load needs a mask."""
    x1, y1 = tl.load(i + 2), tl.load(i + 3)
    sx0, sy0, sx1, sy1 = tl.load(i + 4), tl.load(i + 5), tl.load(i + 6), tl.load(i + 7)
    place = tl.arange(0, TILE * TILE)
    first_x, beyond_x, slope_x, taps_x = axis_taps(across, tl.load(d + 6), tl.load(i), x1, place % TILE)
    first_y, beyond_y, slope_y, taps_y = axis_taps(down, tl.load(d + 7), tl.load(i + 1), y1, place // TILE)
    r = tl.zeros((TILE * TILE,), tl.float32)
    g, b, total_x, total_y = r, r, r, r
    one = unit_scale(image, FORMAT)
    for j in range(taps_y):
        wy = tap_weight(first_y, beyond_y, slope_y, j, y1, KIND)
        iy, valid_y = border_tap(tl.minimum(first_y + j, y1 - 1), sy0, sy1, EXTEND)
        total_y += wy
        total_x = tl.zeros_like(r)
        for k in range(taps_x):
            wx = tap_weight(first_x, beyond_x, slope_x, k, x1, KIND)
            ix, valid_x = border_tap(tl.minimum(first_x + k, x1 - 1), sx0, sx1, EXTEND)
            valid, w = valid_y & valid_x, wy * wx
            # floats that weigh nothing are not read, since 0 times NaN is NaN; an integer is never NaN
            wanted = valid
            if one == 1.0:
                wanted = valid & (w != 0.0)
            vr, vg, vb = gather(image, iy, ix, channel, wanted, FORMAT)
            vr, vg, vb = fill_border(vr, vg, vb, valid, fills, EXTEND)
            r, g, b, total_x = r + w * vr, g + w * vg, b + w * vb, total_x + wx
    over = inverse_weight(total_y) * inverse_weight(total_x)
    r, g, b = r * over, g * over, b * over
    nr, ng, nb = r, g, b
    if one == 1.0:
        iy, valid_y = border_tap(heaviest_tap(first_y, beyond_y, y1), sy0, sy1, EXTEND)
        ix, valid_x = border_tap(heaviest_tap(first_x, beyond_x, x1), sx0, sx1, EXTEND)
        valid = valid_y & valid_x
        nr, ng, nb = gather(image, iy, ix, channel, valid, FORMAT)
        nr, ng, nb = fill_border(nr, ng, nb, valid, fills, EXTEND)
    return snap_mean(r, nr, one), snap_mean(g, ng, one), snap_mean(b, nb, one)


@triton.jit
def triangle_words(image, i, d, down, across, FORMAT: tl.constexpr):
    """The same of bytes that lie in rows of three channels or of one, whose taps never leave their window."""
    x1, y1 = tl.load(i + 2), tl.load(i + 3)
    place = tl.arange(0, TILE * TILE)
    along = axis_taps(across, tl.load(d + 6), tl.load(i), x1, place % TILE)
    rows = axis_taps(down, tl.load(d + 7), tl.load(i + 1), y1, place // TILE)
    if x1 - tl.load(i) < 4:
        r, g, b = byte_means(image, along, rows, x1, y1, 1, FORMAT.form)
    elif along[3] <= 2:
        r, g, b = byte_means(image, along, rows, x1, y1, 2, FORMAT.form)
    else:
        r, g, b = byte_means(image, along, rows, x1, y1, 4, FORMAT.form)
    one = unit_scale(image, FORMAT)
    return snap_mean(r, r, one), snap_mean(g, g, one), snap_mean(b, b, one)


@triton.jit
def snap_mean(x, tap, one):
    """A mean of taps in [0, 1]; where all taps are alike, exactly their value: rounding alone must not carry a constant
    over a threshold.

    Of bytes the mean is rounded to a thousandth of a level, of 16 bits to a quarter, which keeps integer levels; of
    floats it is replaced by the heaviest tap where it differs from that by no more than rounding."""
    if one == 255.0:
        x = to_unit((x + 12288.0) - 12288.0, one)
    elif one == 65535.0:
        x = to_unit((x + 3145728.0) - 3145728.0, one)
    else:
        x = tl.where(tl.abs(x - tap) <= 9.5367431640625e-07 * tl.abs(tap), tap, x)
    return x


@triton.jit
def margin(first, count, side):
    """How far a stretch [first, first + count) lies inside one side of a rectangle; negative where it exceeds it.

    side: pointer to the side's begin, int32; its end stands two further"""
    return tl.minimum(first - tl.load(side), tl.load(side + 2) - count - first)


@triton.jit
def transpose(x):
    """A tile with rows for columns."""
    return tl.reshape(tl.trans(tl.reshape(x, (TILE, TILE))), (TILE * TILE,))


@triton.jit
def resample(image, fill, i, d, at, FORMAT: tl.constexpr, KIND: tl.constexpr, EXTEND: tl.constexpr):
    """An axis-aligned map of input to output; a quarter turn computes the tile transposed."""
    down, across, turned = tile_axes(d, at)
    one = unit_scale(image, FORMAT)
    fr, fg, fb = load_channels(fill + at.channel, FORMAT.channels)
    fills = (fr * one, fg * one, fb * one)
    if KIND == FLOOR:
        r, g, b = nearest_taps(image, fills, i, down, across, at.channel, FORMAT, EXTEND)
        r, g, b = to_unit(r, one), to_unit(g, one), to_unit(b, one)
    elif (KIND == TRIANGLE) & ((FORMAT.form == WORDS) | (FORMAT.form == PLANES)) & (EXTEND == NONE):
        r, g, b = triangle_words(image, i, d, down, across, FORMAT)
    else:
        r, g, b = triangle_taps(image, fills, i, d, down, across, at.channel, FORMAT, KIND, EXTEND)
    if turned:
        r, g, b = transpose(r), transpose(g), transpose(b)
    partly = tl.minimum(margin(at.left, TILE, i + 8), margin(at.top, TILE, i + 9)) < 0
    if partly:
        live = inside(i + 8, at)
        r, g, b = tl.where(live, r, fr), tl.where(live, g, fg), tl.where(live, b, fb)
    return r, g, b


@triton.jit
def read_shifted(image, fill, i, d, at, height, FORMAT: tl.constexpr, EXTEND: tl.constexpr):
    """The pixel at floor(position) of bytes in rows of three channels: by words where the tile shows one stretch of the
    image, in its order or mirrored, and no border; elsewhere by `resample`."""
    xx, yy = tl.load(d), tl.load(d + 4)
    wide, high = tl.minimum(TILE, at.width - at.left), tl.minimum(TILE, height - at.top)
    back, up = xx < 0.0, yy < 0.0
    # the least x and y of the tile's positions
    x = to_int32(tl.floor(xx * tl.where(back, at.left + wide - 1, at.left).to(tl.float64) + tl.load(d + 2)))
    y = to_int32(tl.floor(yy * tl.where(up, at.top + high - 1, at.top).to(tl.float64) + tl.load(d + 5)))
    # the least distance to a border: all must be >= 0
    inside_by = tl.minimum(margin(x, wide, i), margin(y, high, i + 1))
    inside_by = tl.minimum(inside_by, tl.minimum(margin(at.left, wide, i + 8), margin(at.top, high, i + 9)))
    if EXTEND != NONE:
        inside_by = tl.minimum(inside_by, tl.minimum(margin(x, wide, i + 4), margin(y, high, i + 5)))
    indirect = (tl.abs(xx) != 1.0) | (tl.abs(yy) != 1.0) | (inside_by < 0)
    if indirect:
        r, g, b = resample(image, fill, i, d, at, FORMAT, FLOOR, EXTEND)
    else:
        along: tl.constexpr = TILE // 8
        k = tl.arange(0, TILE * along)
        down, across = tl.minimum(k // along, high - 1), 8 * (k % along)
        down, across = tl.where(up, high - 1 - down, down), tl.where(back, wide - 8 - across, across)
        words, beyond = word_base(image, 8)
        pitch = image.row_stride.to(tl.int32)
        # from the stretch's first row on, so that what lies before it is not read either
        words += (y * pitch + 3 * x + beyond) >> 3
        beyond = (y * pitch + 3 * x + beyond) & 7
        last = ((high - 1) * pitch + 3 * wide - 1 + beyond) >> 3
        p = load_eight(words, down * pitch + 3 * across + beyond, last, 0)
        p, q = (
            join8(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]),
            join8(p[7], p[6], p[5], p[4], p[3], p[2], p[1], p[0]),
        )
        r, g, b = unpack_units(tl.where(back, q, p))
    return r, g, b
