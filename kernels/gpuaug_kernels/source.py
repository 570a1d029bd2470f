"""Where a chain's pixels come from: the pixel itself, an antialiased resample, or a pixel among its neighbours.

Bytes read: the pixel itself once; a resample the footprint of the tile, each value as often as taps of the tile meet
it, from the first cache after the first; a sharpening nine.  Positions are float64 where an integer comes of them,
weights float32.

What the functions here are handed:

    image    pointer to the sample's first value, the strides of channel, row and column in elements (int64), and whether it is read by words
    i, d     the source's integers and doubles of the sample
    at       y [h, 1], x [1, w], the width of the output, the channel, and the first y and x
"""

import triton
import triton.language as tl

from gpuaug_kernels.constants import CONSTANT, EDGE, FLOOR, NONE, NOTHING, REFLECT, SYMMETRIC
from gpuaug_kernels.point import blend, columns, inside
from gpuaug_kernels.wide import channels, packed


@triton.jit
def gather(image, y, x, channel, mask, CHANNELS: tl.constexpr):
    """The values at whole positions as float32, in the input's own units, 0 where masked."""
    row = image[0] + channel.to(tl.int64) * image[1] + y.to(tl.int64) * image[2]
    return gather_row(image, row, x, mask, CHANNELS)


@triton.jit
def gather_row(image, row, x, mask, CHANNELS: tl.constexpr):
    """The same where the addresses of the rows are known."""
    at = row + x.to(tl.int64) * image[3]
    r = tl.load(at, mask=mask, other=0).to(tl.float32)
    g = r
    b = r
    if CHANNELS == 3:
        g = tl.load(at + image[1], mask=mask, other=0).to(tl.float32)
        b = tl.load(at + 2 * image[1], mask=mask, other=0).to(tl.float32)
    return r, g, b


@triton.jit
def units(image):
    """What 1.0 is in the input's units."""
    one: tl.constexpr = 255.0 if image[0].dtype.element_ty == tl.uint8 else 1.0
    return one


@triton.jit
def scaled(x, one):
    """x / one, of integers rounded to nearest: thresholds sit on the grid of 1/255."""
    if one != 1.0:
        # 1/255 in two parts: the product of eight bits with the first, 257/65536, is exact
        x = x * 0.00392150878906250 + x * 5.983838848e-08
    return x


@triton.jit
def pixel(image, at, mask, height, CHANNELS: tl.constexpr):
    if image[4]:
        # beyond the image its last sixteen are read, and not used
        x = at[5] + 16 * tl.arange(0, at[1].shape[1] // 16)[None, :]
        r, g, b = channels(packed(image, tl.minimum(at[0], height - 1), tl.minimum(x, at[2] - 16), False))
    else:
        r, g, b = gather(image, at[0], at[1], at[3], mask, CHANNELS)
    one = units(image)
    return scaled(r, one), scaled(g, one), scaled(b, one)


@triton.jit
def sharpen(image, factor, i, at, mask, CHANNELS: tl.constexpr):
    """A pixel against the mean of what stands around it, itself five times; at the border against itself."""
    y, x, height, width = at[0], at[1], tl.load(i), tl.load(i + 1)
    whole = mask & (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    r, g, b = gather(image, y, x, at[3], mask, CHANNELS)
    sr, sg, sb = 4.0 * r, 4.0 * g, 4.0 * b
    for dy in tl.static_range(-1, 2):
        for dx in tl.static_range(-1, 2):
            vr, vg, vb = gather(image, y + dy, x + dx, at[3], whole, CHANNELS)
            sr, sg, sb = sr + vr, sg + vg, sb + vb
    one = units(image)
    r, g, b = scaled(r, one), scaled(g, one), scaled(b, one)
    sr, sg, sb = (
        scaled(sr * 0.07692307692307693, one),
        scaled(sg * 0.07692307692307693, one),
        scaled(sb * 0.07692307692307693, one),
    )
    f = tl.load(factor)
    return (
        sharper(f, r, sr, whole, height, width),
        sharper(f, g, sg, whole, height, width),
        sharper(f, b, sb, whole, height, width),
    )


@triton.jit
def sharper(factor, x, around, whole, height, width):
    """Images too small to have an inside are left alone."""
    return tl.where((height > 2) & (width > 2), blend(factor, x, tl.where(whole, around, x)), x)


@triton.jit
def reach(tap, low, high, EXTEND: tl.constexpr):
    """Where a tap is read in [low, high), and whether what is read counts."""
    n = tl.maximum(high - low, 1)
    # a window that never exceeds its source needs no test beyond that of the weight
    known = tl.full(tap.shape, True, tl.int1)
    if EXTEND == CONSTANT:
        known = (tap >= low) & (tap < high)
    elif EXTEND == EDGE:
        tap = tl.minimum(tl.maximum(tap, low), low + n - 1)
    elif EXTEND == REFLECT:
        period = tl.maximum(2 * n - 2, 1)
        j = ((tap - low) % period + period) % period
        tap = low + tl.where(j < n, j, period - j)
    elif EXTEND == SYMMETRIC:
        j = ((tap - low) % (2 * n) + 2 * n) % (2 * n)
        tap = low + tl.where(j < n, j, 2 * n - 1 - j)
    return tap, known


@triton.jit
def limited(whole):
    """A whole float64 as int32, by way of float32, which holds it to 2^24: a float that is no int32 must not become
    one, and nothing is read there."""
    return tl.minimum(tl.maximum(whole.to(tl.float32), -1.0e9), 1.0e9).to(tl.int32)


@triton.jit
def axes(d, at):
    """Where the tile's first row and column of input lie on the output's axes, and the step and the shift from there to
    the input, float64."""
    xx, xy, yx, yy = tl.load(d), tl.load(d + 1), tl.load(d + 3), tl.load(d + 4)
    # input rows follow output columns after a quarter turn; the tile is square, so that it serves both ways
    turned = xx == 0.0
    down = (tl.where(turned, at[5], at[4]), tl.where(turned, yx, yy), tl.load(d + 5))
    across = (tl.where(turned, at[4], at[5]), tl.where(turned, xy, xx), tl.load(d + 2))
    return down, across, turned


@triton.jit
def floors(axis, first, last, TILE: tl.constexpr):
    """The pixel at floor(position), kept in the window."""
    position = axis[1] * (axis[0] + tl.arange(0, TILE)).to(tl.float64) + axis[2]
    return tl.minimum(tl.maximum(limited(tl.floor(position)), first), last - 1)


@triton.jit
def taps(axis, footprint, first, last, COUNT: tl.constexpr, BEGIN: tl.constexpr, STEP: tl.constexpr):
    """For a row of positions the first tap in the window, how far they lie beyond it, the slope of the triangle, how
    many taps there may be."""
    origin = axis[1] * axis[0].to(tl.float64) + axis[2]
    whole = tl.floor(origin - footprint)
    # float32 holds what is left within a tile, where a weight jumps nowhere
    position = (tl.arange(0, COUNT) * STEP + BEGIN).to(tl.float32) * axis[1].to(tl.float32) + (origin - whole).to(
        tl.float32
    )
    start = tl.floor(position - footprint.to(tl.float32)) + 1.0
    tap = limited(whole) + start.to(tl.int32)
    moved = tl.maximum(first - tap, 0)
    beyond = position - start - moved.to(tl.float32)
    return (
        tl.minimum(tap + moved, last - 1),
        beyond,
        1.0 / footprint.to(tl.float32),
        tl.ceil(2.0 * footprint).to(tl.int32),
    )


@triton.jit
def weigh(tap, beyond, slope, k, last):
    """The weight of every position's tap number k; nothing beyond the window."""
    w = 1.0 - tl.abs(k - beyond) * slope
    return tl.where((tap + k < last) & (w > NOTHING), w, 0.0)


@triton.jit
def nearest_taps(
    image, fills, i, down, across, channel, CHANNELS: tl.constexpr, EXTEND: tl.constexpr, TILE: tl.constexpr
):
    """One tap: nothing is weighed."""
    iy, known_y = reach(floors(down, tl.load(i + 1), tl.load(i + 3), TILE), tl.load(i + 5), tl.load(i + 7), EXTEND)
    ix, known_x = reach(floors(across, tl.load(i), tl.load(i + 2), TILE), tl.load(i + 4), tl.load(i + 6), EXTEND)
    known = known_y[:, None] & known_x[None, :]
    r, g, b = gather(image, iy[:, None], ix[None, :], channel, known, CHANNELS)
    return bordered(r, g, b, known, fills, EXTEND)


@triton.jit
def bordered(r, g, b, known, fills, EXTEND: tl.constexpr):
    """The colour of a constant border where there is no pixel."""
    if EXTEND == CONSTANT:
        r, g, b = tl.where(known, r, fills[0]), tl.where(known, g, fills[1]), tl.where(known, b, fills[2])
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
    known_y,
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
    """Sums of three channels and of weights with tap number k of every column."""
    wx = weigh(first, beyond, slope, k, last)
    ix, known_x = reach(tl.minimum(first + k, last - 1), low, high, EXTEND)
    known = known_y[:, None] & known_x[None, :]
    w = wy[:, None] * wx[None, :]
    # a byte is a number always: of floats those that weigh nothing are not read, for 0 times NaN is NaN
    wanted = known
    if units(image) == 1.0:
        wanted = known & (w > 0.0)
    vr, vg, vb = gather_row(image, row, ix[None, :], wanted, CHANNELS)
    vr, vg, vb = bordered(vr, vg, vb, known, fills, EXTEND)
    return r + w * vr, g + w * vg, b + w * vb, total + wx


@triton.jit
def pairs(a, b):
    """Even columns and odd ones."""
    return tl.reshape(tl.join(a, b), (a.shape[0], 2 * a.shape[1]))


@triton.jit
def triangle_taps(
    image, fills, i, d, down, across, channel, CHANNELS: tl.constexpr, EXTEND: tl.constexpr, TILE: tl.constexpr
):
    """A row of taps after the other, two columns a thread, which share what a row costs.

    A tap beyond the window weighs nothing and is read at its edge, so that no load needs a mask.
    """
    x1, y1 = tl.load(i + 2), tl.load(i + 3)
    sx0, sy0, sx1, sy1 = tl.load(i + 4), tl.load(i + 5), tl.load(i + 6), tl.load(i + 7)
    first_x, beyond_x, slope_x, taps_x = taps(across, tl.load(d + 6), tl.load(i), x1, TILE // 2, 0, 2)
    odd_x, odd_beyond, _, _ = taps(across, tl.load(d + 6), tl.load(i), x1, TILE // 2, 1, 2)
    first_y, beyond_y, slope_y, taps_y = taps(down, tl.load(d + 7), tl.load(i + 1), y1, TILE, 0, 1)
    r = tl.zeros((TILE, TILE // 2), tl.float32)
    g, b, odd_r, odd_g, odd_b = r, r, r, r, r
    total_y = tl.zeros_like(beyond_y)
    total, odd_total = tl.zeros_like(beyond_x), tl.zeros_like(beyond_x)
    for j in range(taps_y):
        wy = weigh(first_y, beyond_y, slope_y, j, y1)
        iy, known_y = reach(tl.minimum(first_y + j, y1 - 1), sy0, sy1, EXTEND)
        row = image[0] + channel.to(tl.int64) * image[1] + iy[:, None].to(tl.int64) * image[2]
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
                known_y,
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
                known_y,
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
    one = units(image)
    # a division a row and one a column
    over = inverse(total_y)[:, None] * pairs(inverse(total)[None, :], inverse(odd_total)[None, :])
    r, g, b = pairs(r, odd_r) * over, pairs(g, odd_g) * over, pairs(b, odd_b) * over
    nr, ng, nb = r, g, b
    if one == 1.0:
        iy, known_y = reach(nearest(first_y, beyond_y, y1), sy0, sy1, EXTEND)
        ix, known_x = reach(
            pairs(nearest(first_x, beyond_x, x1)[None, :], nearest(odd_x, odd_beyond, x1)[None, :]), sx0, sx1, EXTEND
        )
        known = known_y[:, None] & known_x
        nr, ng, nb = gather(image, iy[:, None], ix, channel, known, CHANNELS)
        nr, ng, nb = bordered(nr, ng, nb, known, fills, EXTEND)
    return settled(r, nr, one), settled(g, ng, one), settled(b, nb, one)


@triton.jit
def inverse(total):
    return 1.0 / tl.where(total > 0.0, total, 1.0)


@triton.jit
def nearest(tap, beyond, last):
    """The tap that weighs most."""
    return tl.minimum(tap + tl.maximum(tl.floor(beyond + 0.5), 0.0).to(tl.int32), last - 1)


@triton.jit
def settled(x, tap, one):
    """A mean of taps over one, which is their value where they all have one: rounding alone must not move a constant
    over a threshold.

    Of bytes the mean is taken to a thousandth of a level, which keeps whole levels; of floats, to the tap where it
    differs by rounding alone."""
    if one != 1.0:
        x = scaled((x + 12288.0) - 12288.0, one)
    else:
        x = tl.where(tl.abs(x - tap) <= 9.5367431640625e-07 * tl.abs(tap), tap, x)
    return x


@triton.jit
def slack(first, count, side):
    """How far a stretch is from the nearer end of a side of a rectangle; negative if beyond it."""
    return tl.minimum(first - tl.load(side), tl.load(side + 2) - count - first)


@triton.jit
def resample(image, fill, i, d, at, CHANNELS: tl.constexpr, KIND: tl.constexpr, EXTEND: tl.constexpr):
    """Axis-aligned; after a quarter turn, of the tile laid over."""
    down, across, turned = axes(d, at)
    TILE: tl.constexpr = at[0].shape[0]
    one = units(image)
    fr, fg, fb = columns(fill + at[3], CHANNELS)
    fills = (fr * one, fg * one, fb * one)
    if KIND == FLOOR:
        r, g, b = nearest_taps(image, fills, i, down, across, at[3], CHANNELS, EXTEND, TILE)
        r, g, b = scaled(r, one), scaled(g, one), scaled(b, one)
    else:
        r, g, b = triangle_taps(image, fills, i, d, down, across, at[3], CHANNELS, EXTEND, TILE)
    if turned:
        r, g, b = tl.trans(r), tl.trans(g), tl.trans(b)
    partly = tl.minimum(slack(at[5], TILE, i + 8), slack(at[4], TILE, i + 9)) < 0
    if partly:
        live = inside(i + 8, at)
        r, g, b = tl.where(live, r, fr), tl.where(live, g, fg), tl.where(live, b, fb)
    return r, g, b


@triton.jit
def moved(image, fill, i, d, at, height, CHANNELS: tl.constexpr, EXTEND: tl.constexpr):
    """The pixel at floor(position) by words, where a tile shows one stretch of the image, in its order or mirrored, and
    no border."""
    xx, yy = tl.load(d), tl.load(d + 4)
    wide, high = tl.minimum(at[1].shape[1], (at[2] - at[5] + 15) // 16 * 16), tl.minimum(at[0].shape[0], height - at[4])
    back, up = xx < 0.0, yy < 0.0
    # the place of the least of the tile's positions
    x = limited(tl.floor(xx * tl.where(back, at[5] + wide - 1, at[5]).to(tl.float64) + tl.load(d + 2)))
    y = limited(tl.floor(yy * tl.where(up, at[4] + high - 1, at[4]).to(tl.float64) + tl.load(d + 5)))
    # of what must not be negative the least
    room = tl.minimum(slack(x, wide, i), slack(y, high, i + 1))
    room = tl.minimum(room, tl.minimum(slack(at[5], wide, i + 8), slack(at[4], high, i + 9)))
    if EXTEND != NONE:
        room = tl.minimum(room, tl.minimum(slack(x, wide, i + 4), slack(y, high, i + 5)))
    indirect = (tl.abs(xx) != 1.0) | (tl.abs(yy) != 1.0) | (x % 8 != 0) | (room < 0)
    if indirect:
        r, g, b = resample(image, fill, i, d, at, CHANNELS, FLOOR, EXTEND)
    else:
        # beyond the image its last sixteen are read, and not used
        across = tl.minimum(16 * tl.arange(0, at[1].shape[1] // 16), wide - 16)
        down = tl.minimum(tl.arange(0, at[0].shape[0]), high - 1)
        across, down = tl.where(back, wide - 16 - across, across), tl.where(up, high - 1 - down, down)
        r, g, b = channels(packed(image, (y + down)[:, None], (x + across)[None, :], back))
        one = units(image)
        r, g, b = scaled(r, one), scaled(g, one), scaled(b, one)
    return r, g, b
