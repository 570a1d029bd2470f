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
             output to input (0 to 5), half widths of the triangle along x and y (6, 7)
    fill     pointer to [CHANNELS] float32
    at       the tile
"""

import triton
import triton.language as tl

from gpuaug_kernels.constants import CONSTANT, EDGE, FLOOR, NONE, NOTHING, REFLECT, SYMMETRIC
from gpuaug_kernels.point import blend, inside, load_channels
from gpuaug_kernels.tuples import Axis
from gpuaug_kernels.wide import load_packed, unpack_channels


@triton.jit
def gather(image, y, x, channel, mask, CHANNELS: tl.constexpr):
    """The values at integer positions as float32, in the input's own units, 0 where masked."""
    row = image.data + channel.to(tl.int64) * image.channel_stride + y.to(tl.int64) * image.row_stride
    return gather_row(image, row, x, mask, CHANNELS)


@triton.jit
def gather_row(image, row, x, mask, CHANNELS: tl.constexpr):
    """The same of rows whose addresses are computed already.  row: pointers, [h, 1]"""
    at = row + x.to(tl.int64) * image.column_stride
    r = tl.load(at, mask=mask, other=0).to(tl.float32)
    g = r
    b = r
    if CHANNELS == 3:
        g = tl.load(at + image.channel_stride, mask=mask, other=0).to(tl.float32)
        b = tl.load(at + 2 * image.channel_stride, mask=mask, other=0).to(tl.float32)
    return r, g, b


@triton.jit
def unit_scale(image):
    """What 1.0 is in the input's units."""
    one: tl.constexpr = 255.0 if image.data.dtype.element_ty == tl.uint8 else 1.0
    return one


@triton.jit
def to_unit(x, one):
    """x / one, of integers rounded to nearest: thresholds sit on the grid of 1/255."""
    if one != 1.0:
        # 1/255 in two parts: the product of eight bits with the first, 257/65536, is exact
        x = x * 0.00392150878906250 + x * 5.983838848e-08
    return x


@triton.jit
def read_pixel(image, at, mask, height, CHANNELS: tl.constexpr):
    """The pixel itself."""
    if image.words:
        # beyond the image its last sixteen are read, and not used
        x = at.left + 16 * tl.arange(0, at.x.shape[1] // 16)[None, :]
        r, g, b = unpack_channels(load_packed(image, tl.minimum(at.y, height - 1), tl.minimum(x, at.width - 16), False))
    else:
        r, g, b = gather(image, at.y, at.x, at.channel, mask, CHANNELS)
    one = unit_scale(image)
    return to_unit(r, one), to_unit(g, one), to_unit(b, one)


@triton.jit
def sharpen(image, factor, i, at, mask, CHANNELS: tl.constexpr):
    """A pixel against the mean of the nine around it, in which it counts five times; at the border against itself.

    factor: pointer to [1] float32"""
    y, x, height, width = at.y, at.x, tl.load(i), tl.load(i + 1)
    inner = mask & (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    r, g, b = gather(image, y, x, at.channel, mask, CHANNELS)
    sr, sg, sb = 4.0 * r, 4.0 * g, 4.0 * b
    for dy in tl.static_range(-1, 2):
        for dx in tl.static_range(-1, 2):
            vr, vg, vb = gather(image, y + dy, x + dx, at.channel, inner, CHANNELS)
            sr, sg, sb = sr + vr, sg + vg, sb + vb
    one = unit_scale(image)
    r, g, b = to_unit(r, one), to_unit(g, one), to_unit(b, one)
    sr, sg, sb = (
        to_unit(sr * 0.07692307692307693, one),
        to_unit(sg * 0.07692307692307693, one),
        to_unit(sb * 0.07692307692307693, one),
    )
    f = tl.load(factor)
    return (
        sharpen_channel(f, r, sr, inner, height, width),
        sharpen_channel(f, g, sg, inner, height, width),
        sharpen_channel(f, b, sb, inner, height, width),
    )


@triton.jit
def sharpen_channel(factor, x, mean, inner, height, width):
    """A channel against its mean; images without inner pixels are left alone.  inner: pixels that are not at the
    border"""
    return tl.where((height > 2) & (width > 2), blend(factor, x, tl.where(inner, mean, x)), x)


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
def to_int32(x):
    """An integer held as float64 as int32, limited to 1e9: the conversion of what int32 cannot hold is undefined.

    By way of float32, which is exact to 2^24: no image is larger, and nothing is read beyond."""
    return tl.minimum(tl.maximum(x.to(tl.float32), -1.0e9), 1.0e9).to(tl.int32)


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
def floor_positions(axis, first, last, TILE: tl.constexpr):
    """The pixel at floor(position), kept in the window."""
    position = axis.step * (axis.first + tl.arange(0, TILE)).to(tl.float64) + axis.shift
    return tl.minimum(tl.maximum(to_int32(tl.floor(position)), first), last - 1)


@triton.jit
def axis_taps(axis, footprint, first, last, COUNT: tl.constexpr, BEGIN: tl.constexpr, STEP: tl.constexpr):
    """The taps of positions BEGIN, BEGIN + STEP, ... along an axis: [COUNT] int32 and float32.

    Of each the first tap in the window [first, last), and how far the position lies beyond that tap; of all the slope
    of the triangle, and the most taps."""
    origin = axis.step * axis.first.to(tl.float64) + axis.shift
    base = tl.floor(origin - footprint)
    # relative to the tile's first tap float32 is exact enough: a weight is continuous in the position
    position = (tl.arange(0, COUNT) * STEP + BEGIN).to(tl.float32) * axis.step.to(tl.float32)
    position += (origin - base).to(tl.float32)
    start = tl.floor(position - footprint.to(tl.float32)) + 1.0
    tap = to_int32(base) + start.to(tl.int32)
    moved = tl.maximum(first - tap, 0)
    beyond = position - start - moved.to(tl.float32)
    return (
        tl.minimum(tap + moved, last - 1),
        beyond,
        1.0 / footprint.to(tl.float32),
        tl.ceil(2.0 * footprint).to(tl.int32),
    )


@triton.jit
def tap_weight(tap, beyond, slope, k, last):
    """The weight of every position's tap number k; 0 beyond the window."""
    w = 1.0 - tl.abs(k - beyond) * slope
    return tl.where((tap + k < last) & (w > NOTHING), w, 0.0)


@triton.jit
def nearest_taps(
    image, fills, i, down, across, channel, CHANNELS: tl.constexpr, EXTEND: tl.constexpr, TILE: tl.constexpr
):
    """One tap: nothing is weighed."""
    iy = floor_positions(down, tl.load(i + 1), tl.load(i + 3), TILE)
    iy, valid_y = border_tap(iy, tl.load(i + 5), tl.load(i + 7), EXTEND)
    ix = floor_positions(across, tl.load(i), tl.load(i + 2), TILE)
    ix, valid_x = border_tap(ix, tl.load(i + 4), tl.load(i + 6), EXTEND)
    valid = valid_y[:, None] & valid_x[None, :]
    r, g, b = gather(image, iy[:, None], ix[None, :], channel, valid, CHANNELS)
    return fill_border(r, g, b, valid, fills, EXTEND)


@triton.jit
def fill_border(r, g, b, valid, fills, EXTEND: tl.constexpr):
    """The colour of a constant border where there is no pixel."""
    if EXTEND == CONSTANT:
        r, g, b = tl.where(valid, r, fills[0]), tl.where(valid, g, fills[1]), tl.where(valid, b, fills[2])
    return r, g, b


@triton.jit
def add_column(
    r,
    g,
    b,
    total,
    image,
    row,
    fills,
    wy,
    valid_y,
    first,
    beyond,
    slope,
    k,
    last,
    low,
    high,
    CHANNELS: tl.constexpr,
    EXTEND: tl.constexpr,
):
    """Sums of three channels and of weights with tap number k of every column added."""
    wx = tap_weight(first, beyond, slope, k, last)
    ix, valid_x = border_tap(tl.minimum(first + k, last - 1), low, high, EXTEND)
    valid = valid_y[:, None] & valid_x[None, :]
    w = wy[:, None] * wx[None, :]
    # floats that weigh nothing are not read, since 0 times NaN is NaN; a byte is never NaN
    wanted = valid
    if unit_scale(image) == 1.0:
        wanted = valid & (w > 0.0)
    vr, vg, vb = gather_row(image, row, ix[None, :], wanted, CHANNELS)
    vr, vg, vb = fill_border(vr, vg, vb, valid, fills, EXTEND)
    return r + w * vr, g + w * vg, b + w * vb, total + wx


@triton.jit
def interleave(a, b):
    """Even columns and odd ones, one beside the other: [h, w] twice -> [h, 2 w]"""
    return tl.reshape(tl.join(a, b), (a.shape[0], 2 * a.shape[1]))


@triton.jit
def triangle_taps(
    image, fills, i, d, down, across, channel, CHANNELS: tl.constexpr, EXTEND: tl.constexpr, TILE: tl.constexpr
):
    """A mean of taps: one row of taps after the other, two columns a thread, which share what a row costs.

    A tap beyond the window weighs nothing and is read at its edge, so that no load needs a mask."""
    x1, y1 = tl.load(i + 2), tl.load(i + 3)
    sx0, sy0, sx1, sy1 = tl.load(i + 4), tl.load(i + 5), tl.load(i + 6), tl.load(i + 7)
    first_x, beyond_x, slope_x, taps_x = axis_taps(across, tl.load(d + 6), tl.load(i), x1, TILE // 2, 0, 2)
    odd_x, odd_beyond, _, _ = axis_taps(across, tl.load(d + 6), tl.load(i), x1, TILE // 2, 1, 2)
    first_y, beyond_y, slope_y, taps_y = axis_taps(down, tl.load(d + 7), tl.load(i + 1), y1, TILE, 0, 1)
    r = tl.zeros((TILE, TILE // 2), tl.float32)
    g, b, odd_r, odd_g, odd_b = r, r, r, r, r
    total_y = tl.zeros_like(beyond_y)
    total, odd_total = tl.zeros_like(beyond_x), tl.zeros_like(beyond_x)
    for j in range(taps_y):
        wy = tap_weight(first_y, beyond_y, slope_y, j, y1)
        iy, valid_y = border_tap(tl.minimum(first_y + j, y1 - 1), sy0, sy1, EXTEND)
        row = image.data + channel.to(tl.int64) * image.channel_stride + iy[:, None].to(tl.int64) * image.row_stride
        total_y += wy
        total, odd_total = tl.zeros_like(beyond_x), tl.zeros_like(beyond_x)
        for k in range(taps_x):
            r, g, b, total = add_column(
                r,
                g,
                b,
                total,
                image,
                row,
                fills,
                wy,
                valid_y,
                first_x,
                beyond_x,
                slope_x,
                k,
                x1,
                sx0,
                sx1,
                CHANNELS,
                EXTEND,
            )
            odd_r, odd_g, odd_b, odd_total = add_column(
                odd_r,
                odd_g,
                odd_b,
                odd_total,
                image,
                row,
                fills,
                wy,
                valid_y,
                odd_x,
                odd_beyond,
                slope_x,
                k,
                x1,
                sx0,
                sx1,
                CHANNELS,
                EXTEND,
            )
    one = unit_scale(image)
    # a division a row and one a column
    over_y = inverse_weight(total_y)[:, None]
    over = over_y * interleave(inverse_weight(total)[None, :], inverse_weight(odd_total)[None, :])
    r, g, b = interleave(r, odd_r) * over, interleave(g, odd_g) * over, interleave(b, odd_b) * over
    nr, ng, nb = r, g, b
    if one == 1.0:
        iy, valid_y = border_tap(heaviest_tap(first_y, beyond_y, y1), sy0, sy1, EXTEND)
        ix, odd = heaviest_tap(first_x, beyond_x, x1), heaviest_tap(odd_x, odd_beyond, x1)
        ix, valid_x = border_tap(interleave(ix[None, :], odd[None, :]), sx0, sx1, EXTEND)
        valid = valid_y[:, None] & valid_x
        nr, ng, nb = gather(image, iy[:, None], ix, channel, valid, CHANNELS)
        nr, ng, nb = fill_border(nr, ng, nb, valid, fills, EXTEND)
    return snap_mean(r, nr, one), snap_mean(g, ng, one), snap_mean(b, nb, one)


@triton.jit
def inverse_weight(total):
    """1 / total, and 1 where no tap counts."""
    return 1.0 / tl.where(total > 0.0, total, 1.0)


@triton.jit
def heaviest_tap(tap, beyond, last):
    """The tap that weighs most."""
    return tl.minimum(tap + tl.maximum(tl.floor(beyond + 0.5), 0.0).to(tl.int32), last - 1)


@triton.jit
def snap_mean(x, tap, one):
    """A mean of taps in [0, 1]; where all taps are alike, exactly their value: rounding alone must not carry a constant
    over a threshold.

    Of bytes the mean is rounded to a thousandth of a level, which keeps integer levels; of floats it is replaced by the
    heaviest tap where it differs from that by no more than rounding."""
    if one != 1.0:
        x = to_unit((x + 12288.0) - 12288.0, one)
    else:
        x = tl.where(tl.abs(x - tap) <= 9.5367431640625e-07 * tl.abs(tap), tap, x)
    return x


@triton.jit
def margin(first, count, side):
    """How far a stretch [first, first + count) lies inside one side of a rectangle; negative where it exceeds it.

    side: pointer to the side's begin, int32; its end stands two further"""
    return tl.minimum(first - tl.load(side), tl.load(side + 2) - count - first)


@triton.jit
def resample(image, fill, i, d, at, CHANNELS: tl.constexpr, KIND: tl.constexpr, EXTEND: tl.constexpr):
    """An axis-aligned map of input to output; a quarter turn computes the tile transposed."""
    down, across, turned = tile_axes(d, at)
    TILE: tl.constexpr = at.y.shape[0]
    one = unit_scale(image)
    fr, fg, fb = load_channels(fill + at.channel, CHANNELS)
    fills = (fr * one, fg * one, fb * one)
    if KIND == FLOOR:
        r, g, b = nearest_taps(image, fills, i, down, across, at.channel, CHANNELS, EXTEND, TILE)
        r, g, b = to_unit(r, one), to_unit(g, one), to_unit(b, one)
    else:
        r, g, b = triangle_taps(image, fills, i, d, down, across, at.channel, CHANNELS, EXTEND, TILE)
    if turned:
        r, g, b = tl.trans(r), tl.trans(g), tl.trans(b)
    partly = tl.minimum(margin(at.left, TILE, i + 8), margin(at.top, TILE, i + 9)) < 0
    if partly:
        live = inside(i + 8, at)
        r, g, b = tl.where(live, r, fr), tl.where(live, g, fg), tl.where(live, b, fb)
    return r, g, b


@triton.jit
def read_shifted(image, fill, i, d, at, height, CHANNELS: tl.constexpr, EXTEND: tl.constexpr):
    """The pixel at floor(position), by words where the tile shows one stretch of the image, in its order or mirrored,
    and no border; elsewhere by `resample`."""
    xx, yy = tl.load(d), tl.load(d + 4)
    wide = tl.minimum(at.x.shape[1], (at.width - at.left + 15) // 16 * 16)
    high = tl.minimum(at.y.shape[0], height - at.top)
    back, up = xx < 0.0, yy < 0.0
    # the least x and y of the tile's positions
    x = to_int32(tl.floor(xx * tl.where(back, at.left + wide - 1, at.left).to(tl.float64) + tl.load(d + 2)))
    y = to_int32(tl.floor(yy * tl.where(up, at.top + high - 1, at.top).to(tl.float64) + tl.load(d + 5)))
    # the least distance to a border: all must be >= 0
    inside_by = tl.minimum(margin(x, wide, i), margin(y, high, i + 1))
    inside_by = tl.minimum(inside_by, tl.minimum(margin(at.left, wide, i + 8), margin(at.top, high, i + 9)))
    if EXTEND != NONE:
        inside_by = tl.minimum(inside_by, tl.minimum(margin(x, wide, i + 4), margin(y, high, i + 5)))
    indirect = (tl.abs(xx) != 1.0) | (tl.abs(yy) != 1.0) | (x % 8 != 0) | (inside_by < 0)
    if indirect:
        r, g, b = resample(image, fill, i, d, at, CHANNELS, FLOOR, EXTEND)
    else:
        # beyond the image its last sixteen are read, and not used
        across = tl.minimum(16 * tl.arange(0, at.x.shape[1] // 16), wide - 16)
        down = tl.minimum(tl.arange(0, at.y.shape[0]), high - 1)
        across, down = tl.where(back, wide - 16 - across, across), tl.where(up, high - 1 - down, down)
        r, g, b = unpack_channels(load_packed(image, (y + down)[:, None], (x + across)[None, :], back))
        one = unit_scale(image)
        r, g, b = to_unit(r, one), to_unit(g, one), to_unit(b, one)
    return r, g, b
