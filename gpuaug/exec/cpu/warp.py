"""Rows of a projective map, and of the 3x3 and Gaussian stencils, from an image in a frame of zeros; of a map to the
nearest pixels from any image.

The image in its frame is planes of float32, `pitch` floats a row, the plane of a channel at `plane`; one pixel to the
left and above and two to the right and below are zero, so that a tap beside the image needs no test."""

import numpy as np
from gpuaug_kernels.codes import NOTHING
from numba import float32, int32, int64, uint64

from gpuaug.exec.cpu.memory import floats, load_byte, load_float, store_long
from gpuaug.exec.cpu.points import unit
from gpuaug.exec.cpu.resample import weigh_rows
from gpuaug.numba_cache import njit

_0, _1 = float32(0.0), float32(1.0)
_LARGEST = float32(3.4e38)


@njit(inline="always")
def _is_affine(m):
    return m[6] == 0.0 and m[7] == 0.0 and m[8] == 1.0


@njit
def positions(m, y, w, px, py):
    """Input positions of output row y in float64, in the reference's order of operations.  m: 9 numbers"""
    bx, by, bz = m[1] * y, m[4] * y, m[7] * y
    if _is_affine(m):
        for x in range(w):
            px[x], py[x] = m[0] * x + bx + m[2], m[3] * x + by + m[5]
        return
    for x in range(w):
        z = m[6] * x + bz + m[8]
        px[x], py[x] = (m[0] * x + bx + m[2]) / z, (m[3] * x + by + m[5]) / z


@njit(inline="always")
def _inside(p, most):
    """A position clamped to the frame of zeros; NaN goes there too."""
    p = p if p > -1.0 else -1.0
    return p if p < most else most


@njit(inline="always")
def _on_pixel(p):
    """A position that is beside a pixel by no more than rounding is on it."""
    whole = np.rint(p)
    return whole if abs(p - whole) < NOTHING else p


@njit(inline="always")
def _nearest(px, py, right, low, down, along):
    """(place, 1) of the pixel nearest to a position, (0, 0) where it is outside."""
    ix, iy = np.rint(px), np.rint(py)
    inside = (ix >= 0.0) & (ix < right) & (iy >= 0.0) & (iy < low)
    # an integer all along: float64 holds it, and has the faster product
    return int64(iy * down + ix * along if inside else 0.0), _1 if inside else _0


@njit
def nearest_places(m, y, w, image_h, image_w, row, column, at, share):
    """Where the nearest pixels of output row y are, half to even, in bytes from the first one of the image, and whether
    they are inside: 0 and 0 where they are not.  m: 9 numbers, in the order of operations of `positions`"""
    right, low, down, along = float(image_w), float(image_h), float(row), float(column)
    bx, by, bz = m[1] * y, m[4] * y, m[7] * y
    if _is_affine(m):
        for x in range(w):
            at[x], share[x] = _nearest(m[0] * x + bx + m[2], m[3] * x + by + m[5], right, low, down, along)
        return
    for x in range(w):
        z = m[6] * x + bz + m[8]
        at[x], share[x] = _nearest((m[0] * x + bx + m[2]) / z, (m[3] * x + by + m[5]) / z, right, low, down, along)


@njit
def bilinear_taps(w, h, w_in, pitch, px, py, at, fx, fy, share):
    """Where the upper left tap is, the distance from it, and the weight of the taps that are inside."""
    right, low = float(w_in), float(h)
    for x in range(w):
        sx, sy = _on_pixel(_inside(px[x], right)), _on_pixel(_inside(py[x], low))
        ix, iy = np.floor(sx), np.floor(sy)
        at[x] = (int64(iy) + 1) * pitch + int64(ix) + 1
        ax, ay = float32(sx - ix), float32(sy - iy)
        wx = (_1 - ax if (ix >= 0.0) & (ix < right) else _0) + (ax if ix + 1.0 < right else _0)
        wy = (_1 - ay if (iy >= 0.0) & (iy < low) else _0) + (ay if iy + 1.0 < low else _0)
        fx[x], fy[x], share[x] = ax, ay, wx * wy


@njit
def nearest_pixels(image, kind, n, at, share, fill, picked, to):
    """The pixels of one channel at places that are inside, and the fill elsewhere.

    image: an address; kind 1: bytes, 0: floats; picked: [n] bytes to work with"""
    # loads in a loop without anything that a vector does: LLVM would take them apart to fill it
    if kind:
        for x in range(n):
            picked[x] = load_byte(image + at[x])
        for x in range(n):
            to[x] = unit(picked[x]) if share[x] > _0 else fill
    else:
        for x in range(n):
            to[x] = load_float(image + at[x])
        for x in range(n):
            to[x] = to[x] if share[x] > _0 else fill


@njit
def bilinear_row(image, plane, pitch, w, at, fx, fy, to):
    """In the form that keeps a value which all taps hold; where that is not finite, in the one that needs no
    difference."""
    one, down, lost = uint64(1), uint64(pitch), int32(0)
    for x in range(w):
        i = uint64(plane + at[x])
        a, b, p, q = image[i], image[i + one], image[i + down], image[i + down + one]
        ax, ay = fx[x], fy[x]
        upper, lower = a + ax * (b - a), p + ax * (q - p)
        value = upper + ay * (lower - upper)
        lost |= int32(0) if abs(value) <= _LARGEST else int32(1)
        to[x] = value
    if lost == 0:
        return
    for x in range(w):
        i = uint64(plane + at[x])
        upper = _between(image[i], image[i + one], fx[x])
        to[x] = _between(upper, _between(image[i + down], image[i + down + one], fx[x]), fy[x])


@njit(inline="always")
def _between(a, b, share):
    """(1 - share) a + share b, of which a part of 0 is not multiplied."""
    value = a + share * (b - a)
    if abs(value) <= _LARGEST:
        return value
    return a if share == _0 else a * (_1 - share) + b * share


@njit
def bilinear_fill(to, share, w, fill):
    for x in range(w):
        to[x] = to[x] if share[x] == _1 else (to[x] - fill) * share[x] + fill


@njit
def sharpness_row(image, plane, pitch, h, w, y, factor, to):
    """clamp(f x + (1 - f) blur(x)); the border as it is."""
    start = plane + (y + 1) * pitch + 1
    mid = image[start : start + w]
    if h <= 2 or w <= 2:
        for x in range(w):
            to[x] = mid[x]
        return
    rest, share = _1 - factor, (_1 - factor) / float32(13.0)
    inner = 0 < y < h - 1
    for x in range(w):
        to[x] = min(max(factor * mid[x] + rest * mid[x], _0), _1)
    if inner:
        up, down = image[start - pitch : start - pitch + w], image[start + pitch : start + pitch + w]
        for x in range(1, w - 1):
            around = up[x - 1] + up[x] + up[x + 1] + mid[x - 1] + mid[x + 1] + down[x - 1] + down[x] + down[x + 1]
            to[x] = min(max(factor * mid[x] + share * (around + float32(5.0) * mid[x]), _0), _1)


@njit
def mirror(i, n):
    """The border that reflects without repeating the edge."""
    return -i if i < 0 else 2 * n - 2 - i if i >= n else i


@njit
def gaussian(sigma, out):
    """exp(-x^2 / 2 sigma^2), normalised, over an odd number of taps."""
    total = 0.0
    for k in range(len(out)):
        x = float(k - len(out) // 2)
        total += np.exp(-0.5 * x * x / (sigma * sigma))
    for k in range(len(out)):
        x = float(k - len(out) // 2)
        out[k] = float32(np.exp(-0.5 * x * x / (sigma * sigma)) / total)


@njit
def blur_row(image, across, h, w, y, kx, ky, taps_x, taps_y, to, middle, addresses):
    """One row of a separable blur: columns first, then along the row, by sums of rows whose addresses are listed.

    image: the address of the first pixel, rows `across` bytes apart; kx, ky: of the kernels; to: of the row; middle:
    of a row with room for taps_x - 1 more floats; addresses: of room for the most taps"""
    ry, rx = taps_y // 2, taps_x // 2
    for k in range(taps_y):
        store_long(addresses + 8 * k, image + mirror(y + k - ry, h) * across)
    weigh_rows(middle + 4 * rx, addresses, ky, taps_y, w, 0)
    line = floats(middle, w + 2 * rx)
    for x in range(rx):
        line[x], line[rx + w + x] = line[2 * rx - x], line[rx + w - 2 - x]
    for k in range(taps_x):
        store_long(addresses + 8 * k, middle + 4 * k)
    weigh_rows(to, addresses, kx, taps_x, w, 0)
