"""Where the rows of a pass over the image come from: the image as it is, a warp, a stencil, or a mix (`resize` has the
resample)."""

from numba import float32, int64

from gpuaug.exec.cpu import points, project, warp
from gpuaug.exec.cpu.codes import BLUR, CUTMIX, MIXUP, PROJECT, RESAMPLE, SHARPNESS, WARP
from gpuaug.exec.cpu.memory import (
    AT,
    BUFFER,
    BYTES,
    CHANNEL,
    COLUMN,
    CONSTS,
    COSINE,
    FX,
    FY,
    HEIGHT,
    HERE,
    KIND,
    PX,
    PY,
    REALS,
    ROW,
    SHARE,
    SOURCES,
    VALUES,
    WEIGHTS,
    WHOLE,
    WIDTH_NOW,
    A,
    B,
    bytes_,
    copy_floats,
    doubles,
    floats,
    get,
    load_double,
    load_float,
    load_long,
    longs,
)
from gpuaug.numba_cache import njit

_255 = float32(255.0)


@njit
def is_turned(t, code):
    """Whether the resample at `code` makes a quarter turn: input rows follow output columns."""
    return load_double(get(t, REALS) + 8 * load_long(code + 24)) == 0.0


@njit
def size(t, code):
    """(rows, columns) that a producer makes; of a turned resample before the turn."""
    op = load_long(code)
    if op == WARP or op == PROJECT:
        return load_long(code + 56), load_long(code + 64)
    if op == RESAMPLE:
        at = get(t, WHOLE) + 8 * load_long(code + 16)
        h, w = load_long(at + 96), load_long(at + 104)
        return (w, h) if is_turned(t, code) else (h, w)
    return get(t, HEIGHT), get(t, WIDTH_NOW)


@njit
def prepare_blur(t, code):
    """The two kernels of a blur, one after the other."""
    at, kx, ky = get(t, VALUES) + 4 * load_long(code + 8), load_long(code + 56), load_long(code + 64)
    warp.gaussian(load_float(at), floats(get(t, WEIGHTS), kx))
    warp.gaussian(load_float(at + 4), floats(get(t, WEIGHTS) + 4 * kx, ky))


@njit
def produce_row(t, code, row, pitch, y, h, w, c):
    """Row y of whatever is not a resample."""
    op = load_long(code)
    if op == WARP:
        _warp(t, code, row, pitch, y, w, c)
    elif op == PROJECT:
        project.project_row(t, code, row, pitch, y, w, c)
    elif op == SHARPNESS or op == BLUR:
        _stencil(t, code, row, pitch, y, h, w, c)
    else:
        at, step, channel, kind = get(t, HERE) + y * get(t, ROW), get(t, COLUMN), get(t, CHANNEL), get(t, BYTES)
        for k in range(c):
            read(at + k * channel, step, kind, w, row + k * pitch)
        if op == CUTMIX or op == MIXUP:
            _mix(t, code, row, pitch, y, w, c)


@njit
def read(at, step, kind, count, to):
    """Pixels `step` bytes apart as floats at an address, bytes divided by 255."""
    out = floats(to, count)
    if kind:
        pixels = bytes_(at, count * step)
        if step == 1:
            for x in range(count):
                out[x] = float32(pixels[x]) / _255
        elif step == 3:
            for x in range(count):
                out[x] = float32(pixels[3 * x]) / _255
        else:
            for x in range(count):
                out[x] = float32(pixels[step * x]) / _255
    elif step == 4:
        copy_floats(to, at, count)
    else:
        for x in range(count):
            out[x] = load_float(at + x * step)


@njit
def _mix(t, code, row, pitch, y, w, c):
    ints = get(t, WHOLE) + 8 * load_long(code + 16)
    # address, H, W and strides in bytes of the partner's image
    other = longs(get(t, SOURCES) + 48 * load_long(ints), 6)
    both = load_long(code) == MIXUP
    first, last = (int64(0), w) if both else (min(max(load_long(ints + 8), 0), w), min(max(load_long(ints + 24), 0), w))
    if not both and (y < load_long(ints + 16) or y >= load_long(ints + 32) or first >= last):
        return
    count = last - first
    for k in range(c):
        x = row + k * pitch + 4 * first
        to = get(t, COSINE) if both else x
        read(other[0] + y * other[3] + first * other[4] + k * other[5], other[4], get(t, KIND), count, to)
        if both:
            points.blend(
                floats(x, count), floats(to, count), count, load_float(get(t, VALUES) + 4 * load_long(code + 8))
            )


@njit
def _framed(t):
    """The image in its frame of zeros: (flat array, floats a row, floats a plane)."""
    pitch, plane = get(t, ROW) // 4, get(t, CHANNEL) // 4
    return floats(get(t, A) if get(t, BUFFER) == 1 else get(t, B), plane << 16), pitch, plane


@njit
def _warp(t, code, row, pitch, y, w, c):
    image, across, plane = _framed(t)
    m = doubles(get(t, REALS) + 8 * load_long(code + 24), 9)
    consts, count = get(t, CONSTS) + 4 * load_long(code + 32), load_long(code + 40)
    px, py, at = doubles(get(t, PX), w), doubles(get(t, PY), w), longs(get(t, AT), w)
    fx, fy, share = floats(get(t, FX), w), floats(get(t, FY), w), floats(get(t, SHARE), w)
    h_in, w_in, nearest = get(t, HEIGHT), get(t, WIDTH_NOW), load_long(code + 48)
    warp.positions(m, y, w, px, py)
    if nearest:
        warp.nearest_taps(w, h_in, w_in, across, px, py, at, share)
    else:
        warp.bilinear_taps(w, h_in, w_in, across, px, py, at, fx, fy, share)
    for k in range(c):
        to = floats(row + k * pitch, w)
        if nearest:
            warp.nearest_row(image, k * plane, w, at, to)
        else:
            warp.bilinear_row(image, k * plane, across, w, at, fx, fy, to)
        if count:
            fill = load_float(consts + 4 * min(k, count - 1))
            if nearest:
                warp.nearest_fill(to, share, w, fill)
            else:
                warp.bilinear_fill(to, share, w, fill)


@njit
def _stencil(t, code, row, pitch, y, h, w, c):
    image, across, plane = _framed(t)
    kx, ky = load_long(code + 56), load_long(code + 64)
    for k in range(c):
        to = floats(row + k * pitch, w)
        if load_long(code) == SHARPNESS:
            warp.sharpness_row(
                image, k * plane, across, h, w, y, load_float(get(t, VALUES) + 4 * load_long(code + 8)), to
            )
        else:
            at = get(t, WEIGHTS)
            warp.blur_row(
                image, k * plane, across, h, w, y, floats(at, kx), floats(at + 4 * kx, ky), to, floats(get(t, FX), w)
            )
