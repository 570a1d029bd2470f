"""Projective maps: four taps of a position, or the nearest.

Bytes read: four values a channel and pixel, or one, each from the first cache after the first time.  Arguments as in
source.py, but d: pointer to the map from output to input, [9] float64."""

import triton
import triton.language as tl

from gpuaug_kernels.constants import LIFT, LIFTED, NEAREST, NOTHING, PLANES, TILE, WORDS
from gpuaug_kernels.point import load_channels
from gpuaug_kernels.source import gather, snap_mean, to_unit, unit_scale
from gpuaug_kernels.taps import to_int32
from gpuaug_kernels.tuples import Line, Sums
from gpuaug_kernels.words import bits_beyond, funnel, load_plane, subnormal, word_base


@triton.jit
def position_of(d, at):
    """Input x and y of every pixel, float64; where the map has none, NaN or infinite."""
    y, x = at.y.to(tl.float64), at.x.to(tl.float64)
    sx = (tl.load(d) * x + tl.load(d + 1) * y) + tl.load(d + 2)
    sy = (tl.load(d + 3) * x + tl.load(d + 4) * y) + tl.load(d + 5)
    p, q, s = tl.load(d + 6), tl.load(d + 7), tl.load(d + 8)
    # an affine map would divide by 1: the division of doubles is saved
    if (p != 0.0) | (q != 0.0) | (s != 1.0):
        sz = (p * x + q * y) + s
        # a maximum with NaN is the other number
        sz = tl.where(sz == 0.0, float("nan"), sz)
        sx, sy = sx / sz, sy / sz
    return sx, sy


@triton.jit
def mapped_position(d, at):
    """The same, but far outside where the map has none."""
    sx, sy = position_of(d, at)
    return tl.minimum(tl.maximum(sx, -1.0e9), 1.0e9), tl.minimum(tl.maximum(sy, -1.0e9), 1.0e9)


@triton.jit
def split_position(position):
    """A position's floor as int32, and how far it lies beyond it as float32.  position: float64"""
    floor = tl.floor(position)
    return to_int32(floor), (position - floor).to(tl.float32)


@triton.jit
def affine_line(d, at):
    """A row of an affine map over the tile: doubles for its first pixel only, and float32 from there, since weights are
    continuous in the position.  d: pointer to the row, [3] float64"""
    along, across = tl.load(d), tl.load(d + 1)
    position = along * at.left.to(tl.float64) + across * at.top.to(tl.float64) + tl.load(d + 2)
    base, beyond = split_position(position)
    return Line(base, beyond + (NOTHING - 0.5), along.to(tl.float32), across.to(tl.float32))


@triton.jit
def moved_along(line, at):
    """Positions of the tile's pixels beyond the line's base, plus NOTHING and less a half: what is nearest to them is
    the pixel before the position."""
    x, y = (at.x - at.left).to(tl.float32), (at.y - at.top).to(tl.float32)
    return (line.along * x + line.beyond) + line.across * y


@triton.jit
def affine_positions(line, at):
    """The pixel before every position, and how far that lies beyond it."""
    moved = tl.minimum(tl.maximum(moved_along(line, at), -1.0e9), 1.0e9)
    nearest = tl.floor(moved + 0.5)
    return line.base + nearest.to(tl.int32), snap_to_pixel(moved - nearest + (0.5 - NOTHING), 1.0)


@triton.jit
def stays_inside(line, size):
    """Whether no tap of the tile lies outside [0, size), with room for rounding; false for NaN."""
    middle: tl.constexpr = 0.5 * (TILE - 1)
    reach = middle * (tl.abs(line.along) + tl.abs(line.across))
    half = 0.5 * (size - 1).to(tl.float32)
    off = tl.abs((line.base.to(tl.float32) - half) + (middle * (line.along + line.across) + (line.beyond + 0.5)))
    return (off + reach <= half * 0.999999 - 0.25) & (reach < 1048576.0)


@triton.jit
def corners(d, x_line, y_line, at):
    """The upper left of every pixel's four taps, x and y, and how far the position lies beyond it along each."""
    if projective(d):
        sx, sy = mapped_position(d, at)
        x, fx = split_position(sx + NOTHING)
        y, fy = split_position(sy + NOTHING)
        fx, fy = snap_to_pixel(fx - NOTHING, 1.0), snap_to_pixel(fy - NOTHING, 1.0)
    else:
        x, fx = affine_positions(x_line, at)
        y, fy = affine_positions(y_line, at)
    return x, y, fx, fy


@triton.jit
def projective(d):
    """Whether a map is not affine."""
    return (tl.load(d + 6) != 0.0) | (tl.load(d + 7) != 0.0) | (tl.load(d + 8) != 1.0)


@triton.jit
def nearest_integer(x):
    """The nearest integer as int32, half to even, of |x| < 2^31: 3 * 2^51 leaves it in the low bits of the sum.

    x: float64"""
    return (x + 6755399441055744.0).to(tl.int64, bitcast=True).to(tl.int32)


@triton.jit
def add_tap(sums, image, i, y, x, w, channel, mask, FORMAT: tl.constexpr):
    """Sums with one more tap, and the tap; one outside the image adds nothing."""
    valid = mask & (y >= 0) & (y < tl.load(i)) & (x >= 0) & (x < tl.load(i + 1))
    if unit_scale(image, FORMAT) == 1.0:
        valid = valid & (w > 0.0)
    r, g, b = gather(image, y, x, channel, valid, FORMAT)
    sums = Sums(sums.r + w * r, sums.g + w * g, sums.b + w * b, sums.weight + tl.where(valid, w, 0.0))
    return sums, r, g, b


@triton.jit
def border_weights(x, beyond, size):
    """The first of two taps of bytes along an axis, and the weights of both: they are read even where a position lies
    beside the image, of an image of one pixel the one, and what is outside weighs nothing."""
    first = tl.minimum(tl.maximum(x, 0), tl.maximum(size - 2, 0))
    near = tl.where(first == x, 1.0 - beyond, tl.where(first == x + 1, beyond, 0.0))
    far = tl.where(first == x, beyond, tl.where(first == x - 1, 1.0 - beyond, 0.0))
    return first, near, tl.where(size > 1, far, 0.0)


@triton.jit
def row_bytes(image, at, wide, FORM: tl.constexpr, INNER: tl.constexpr):
    """Two taps of a row of bytes, three channels each, subnormal.

    at: of the first, beyond the first byte of the image or of its first word, int32; wide: whether the second is in
    the image; FORM: PLANES or WORDS; INNER: 1 where the row goes on behind them"""
    if FORM == PLANES:
        step = 1 if INNER == 1 else tl.where(wide, 1, 0)
        r0, r1, _, _ = load_plane(image, 0, at, step, 2)
        g0, g1, _, _ = load_plane(image, 1, at, step, 2)
        b0, b1, _, _ = load_plane(image, 2, at, step, 2)
    else:
        words, _ = word_base(image, 4)
        first, shift = words + (at >> 2), bits_beyond(at, image.row_stride.to(tl.int32))
        p = tl.load(first)
        if INNER == 1:
            q, s = tl.load(first + 1), tl.load(first + 2)
        else:
            # no word that holds none of these bytes
            q = tl.load(first + 1, mask=wide | ((at & 3) > 1), other=0)
            s = tl.load(first + 2, mask=wide & ((at & 3) == 3), other=0)
        p, q = funnel(p, q, shift), funnel(q, s, shift)
        r0, g0, b0 = subnormal(p, 0), subnormal(p, 1), subnormal(p, 2)
        r1, g1, b1 = subnormal(p, 3), subnormal(q, 0), subnormal(q, 1)
    return r0, g0, b0, r1, g1, b1


@triton.jit
def start_bytes(image, FORM: tl.constexpr):
    """Where an image of bytes begins for row_bytes, and how far its columns are apart."""
    if FORM == PLANES:
        out = 0, 1
    else:
        _, beyond = word_base(image, 4)
        out = beyond, 3
    return out


@triton.jit
def wrapping(x, a, b):
    """x + a * b modulo 2^32, of int32."""
    return tl.add(x, tl.mul(a, b, sanitize_overflow=False), sanitize_overflow=False)


@triton.jit
def inner_bytes(image, x_line, y_line, at, FORM: tl.constexpr):
    """Sums of four taps of bytes, of a tile of an affine map that shows nothing of the border."""
    # a float that is added to 3 * 2^22 and taken off is rounded, and leaves the integer in the sum's bits
    turned: tl.constexpr = 12582912.0
    bits: tl.constexpr = 0x4B400000
    x, y = moved_along(x_line, at), moved_along(y_line, at)
    x_sum, y_sum = x + turned, y + turned
    fx = snap_to_pixel((x - (x_sum - turned)) + (0.5 - NOTHING), 1.0)
    fy = snap_to_pixel((y - (y_sum - turned)) * LIFT + (0.5 - NOTHING) * LIFT, LIFT)
    gx, gy = 1.0 - fx, LIFT - fy
    pitch = image.row_stride.to(tl.int32)
    first, step = start_bytes(image, FORM)
    # modulo 2^32, so that the bits' offsets are taken off once
    ix, iy = x_sum.to(tl.int32, bitcast=True), y_sum.to(tl.int32, bitcast=True)
    first = wrapping(first, x_line.base - bits, step)
    upper = wrapping(wrapping(wrapping(first, y_line.base - bits, pitch), ix, step), iy, pitch)
    r0, g0, b0, r1, g1, b1 = row_bytes(image, upper, True, FORM, 1)
    r2, g2, b2, r3, g3, b3 = row_bytes(image, upper + pitch, True, FORM, 1)
    w, v = gx * gy, fx * gy
    r, g, b = w * r0 + v * r1, w * g0 + v * g1, w * b0 + v * b1
    w, v = gx * fy, fx * fy
    r, g, b = (r + w * r2) + v * r3, (g + w * g2) + v * g3, (b + w * b2) + v * b3
    return r * LIFTED, g * LIFTED, b * LIFTED


@triton.jit
def outer_bytes(image, i, d, x_line, y_line, at, FORM: tl.constexpr):
    """The same of any tile, and the weights' sum."""
    height, width = tl.load(i), tl.load(i + 1)
    x, y, fx, fy = corners(d, x_line, y_line, at)
    x, near, far = border_weights(x, fx, width)
    y, upper, lower = border_weights(y, fy, height)
    pitch = image.row_stride.to(tl.int32)
    first, step = start_bytes(image, FORM)
    first += y * pitch + step * x
    wide = width > 1
    r0, g0, b0, r1, g1, b1 = row_bytes(image, first, wide, FORM, 0)
    r2, g2, b2, r3, g3, b3 = row_bytes(image, first + tl.where(height > 1, pitch, 0), wide, FORM, 0)
    upper, lower = upper * LIFT, lower * LIFT
    w, v = near * upper, far * upper
    weight = w + v
    r, g, b = w * r0 + v * r1, w * g0 + v * g1, w * b0 + v * b1
    w, v = near * lower, far * lower
    weight = (weight + w) + v
    r, g, b = (r + w * r2) + v * r3, (g + w * g2) + v * g3, (b + w * b2) + v * b3
    return r * LIFTED, g * LIFTED, b * LIFTED, weight * (1.0 / LIFT)


@triton.jit
def warp_bytes(image, fill, i, d, at, FORMAT: tl.constexpr, FILL: tl.constexpr):
    """Four taps of bytes; a tile that shows nothing of the border is spared what the border takes."""
    x_line, y_line = affine_line(d, at), affine_line(d + 3, at)
    one = unit_scale(image, FORMAT)
    inner = stays_inside(x_line, tl.load(i + 1) - 2) & stays_inside(y_line, tl.load(i)) & (projective(d) == 0)
    if inner:
        r, g, b = inner_bytes(image, x_line, y_line, at, FORMAT.form)
        r, g, b = snap_mean(r, r, one), snap_mean(g, g, one), snap_mean(b, b, one)
    else:
        r, g, b, weight = outer_bytes(image, i, d, x_line, y_line, at, FORMAT.form)
        r, g, b = snap_mean(r, r, one), snap_mean(g, g, one), snap_mean(b, b, one)
        if FILL == 1:
            fr, fg, fb = load_channels(fill + at.channel, FORMAT.channels)
            r, g, b = blend_fill(r, fr, weight), blend_fill(g, fg, weight), blend_fill(b, fb, weight)
    return r, g, b


@triton.jit
def warp(image, fill, i, d, at, mask, FORMAT: tl.constexpr, KIND: tl.constexpr, FILL: tl.constexpr):
    """Four taps, or the nearest; with a fill, as much of it as lies outside the image.  i: input height and width"""
    if KIND == NEAREST:
        r, g, b = warp_nearest(image, fill, i, d, at, mask, FORMAT, FILL)
    elif (FORMAT.form == WORDS) | (FORMAT.form == PLANES):
        r, g, b = warp_bytes(image, fill, i, d, at, FORMAT, FILL)
    else:
        r, g, b = warp_each(image, fill, i, d, at, mask, FORMAT, FILL)
    return r, g, b


@triton.jit
def warp_nearest(image, fill, i, d, at, mask, FORMAT: tl.constexpr, FILL: tl.constexpr):
    """The nearest tap.  In doubles: where rounding moves a position over a half, another pixel is read."""
    height, width = tl.load(i), tl.load(i + 1)
    sx, sy = position_of(d, at)
    x, y = nearest_integer(sx), nearest_integer(sy)
    one = unit_scale(image, FORMAT)
    inner = stays_inside(affine_line(d, at), width) & stays_inside(affine_line(d + 3, at), height)
    if inner & (projective(d) == 0):
        r, g, b = gather(image, y, x, at.channel, mask, FORMAT)
        r, g, b = to_unit(r, one), to_unit(g, one), to_unit(b, one)
    else:
        # NaN is not near either
        near = (tl.abs(sx) < 1.0e9) & (tl.abs(sy) < 1.0e9)
        valid = mask & near & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        r, g, b = gather(image, y, x, at.channel, valid, FORMAT)
        r, g, b = to_unit(r, one), to_unit(g, one), to_unit(b, one)
        if FILL == 1:
            fr, fg, fb = load_channels(fill + at.channel, FORMAT.channels)
            r, g, b = tl.where(valid, r, fr), tl.where(valid, g, fg), tl.where(valid, b, fb)
    return r, g, b


@triton.jit
def warp_each(image, fill, i, d, at, mask, FORMAT: tl.constexpr, FILL: tl.constexpr):
    """Four taps, one at a time."""
    zero = tl.zeros((TILE * TILE,), tl.float32)
    sums = Sums(zero, zero, zero, zero)
    one = unit_scale(image, FORMAT)
    x, y, fx, fy = corners(d, affine_line(d, at), affine_line(d + 3, at), at)
    sums, nr, ng, nb = add_tap(sums, image, i, y, x, (1.0 - fx) * (1.0 - fy), at.channel, mask, FORMAT)
    sums, _, _, _ = add_tap(sums, image, i, y, x + 1, fx * (1.0 - fy), at.channel, mask, FORMAT)
    sums, _, _, _ = add_tap(sums, image, i, y + 1, x, (1.0 - fx) * fy, at.channel, mask, FORMAT)
    sums, _, _, _ = add_tap(sums, image, i, y + 1, x + 1, fx * fy, at.channel, mask, FORMAT)
    r, g, b = snap_mean(sums.r, nr, one), snap_mean(sums.g, ng, one), snap_mean(sums.b, nb, one)
    if FILL == 1:
        fr, fg, fb = load_channels(fill + at.channel, FORMAT.channels)
        r, g, b = blend_fill(r, fr, sums.weight), blend_fill(g, fg, sums.weight), blend_fill(b, fb, sums.weight)
    return r, g, b


@triton.jit
def blend_fill(x, fill, share):
    """A value with the fill where its taps lie outside.  share: the weight of those inside, 0 to 1"""
    return tl.where(share > 0.999999, x, (x - fill) * share + fill)


@triton.jit
def snap_to_pixel(beyond, SCALE: tl.constexpr):
    """How far positions are beyond a pixel: those beside it by no more than rounding are on it.  SCALE: what a pixel
    is"""
    return tl.where(beyond < NOTHING * SCALE, 0.0, beyond)
