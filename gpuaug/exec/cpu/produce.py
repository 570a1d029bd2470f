"""Where the rows of a pass over the image come from: the image as it is, a warp, a stencil, or a mix (`resize` has the
resample)."""

from numba import float32, int64

from gpuaug.exec.cpu import moves, points, project, warp
from gpuaug.exec.cpu.layout import (
    BLUR,
    BOTTOM,
    BOX,
    CUTMIX,
    FILLS,
    IMAGE_ADDRESS,
    IMAGE_CHANNEL,
    IMAGE_COLUMN,
    IMAGE_ROW,
    IS_NEAREST,
    LEFT,
    MADE_HEIGHT,
    MADE_WIDTH,
    MATRIX,
    MIX_INSIDE,
    MIXUP,
    OP,
    OUT_HEIGHT,
    OUT_WIDTH,
    PARTNER,
    PROJECT,
    RESAMPLE,
    RIGHT,
    SHARPNESS,
    SIGMA_X,
    SIGMA_Y,
    STEP_XX,
    TAPS_X,
    TAPS_Y,
    TOP,
    WARP,
)
from gpuaug.exec.cpu.memory import (
    ADDRESS,
    ADDRESSES,
    AT,
    BLURRED,
    BUFFER,
    BUFFER_A,
    BUFFER_B,
    BYTES,
    CHANNEL,
    COLUMN,
    COSINE,
    FX,
    FY,
    HEIGHT,
    PX,
    PY,
    ROW,
    SHARE,
    SOURCE_KIND,
    SOURCE_ROW,
    SOURCE_SAMPLE,
    SOURCES,
    WEIGHTS,
    WIDTH,
    bytes_,
    constants_of,
    double_field,
    doubles,
    doubles_of,
    field,
    float_field,
    floats,
    floats_of,
    get,
    ints_of,
    load_float,
    longs,
    prefetch,
)
from gpuaug.numba_cache import njit

# bytes of a cache line
_LINE = 64


@njit
def is_turned(t, code):
    """Whether the resample at `code` makes a quarter turn: input rows follow output columns."""
    return double_field(doubles_of(t, code), STEP_XX) == 0.0


@njit
def size(t, code):
    """(rows, columns) that a producer makes; of a turned resample before the turn."""
    op = field(code, OP)
    if op == WARP or op == PROJECT:
        return field(code, MADE_HEIGHT), field(code, MADE_WIDTH)
    if op == RESAMPLE:
        at = ints_of(t, code)
        h, w = field(at, OUT_HEIGHT), field(at, OUT_WIDTH)
        return (w, h) if is_turned(t, code) else (h, w)
    return get(t, HEIGHT), get(t, WIDTH)


@njit
def prepare_blur(t, code):
    """The two kernels of a blur, one after the other."""
    at, kx, ky = floats_of(t, code), field(code, TAPS_X), field(code, TAPS_Y)
    warp.gaussian(float_field(at, SIGMA_X), floats(get(t, WEIGHTS), kx))
    warp.gaussian(float_field(at, SIGMA_Y), floats(get(t, WEIGHTS) + 4 * kx, ky))


@njit
def produce_rows(t, code, to, pitch, y0, count, h, w, c):
    """Rows y0 to y0 + count - 1 of whatever is not a resample, one after another in planes `pitch` bytes apart."""
    op = field(code, OP)
    if op == WARP:
        _warp(t, code, to, pitch, y0, count, w, c)
        return
    if op != PROJECT and op != SHARPNESS and op != BLUR:
        _read(t, to, pitch, y0, count, w, c)
        if op != CUTMIX and op != MIXUP and op != MIX_INSIDE:
            return
    for r in range(count):
        row, y = to + 4 * r * w, y0 + r
        if op == PROJECT:
            project.project_row(t, code, row, pitch, y, w, c)
        elif op == SHARPNESS or op == BLUR:
            _stencil(t, code, row, pitch, y, h, w, c)
        else:
            _mix(t, code, row, pitch, y, w, c)


@njit
def _read(t, to, pitch, y, count, w, c):
    """Rows of the image as it is."""
    at, step, channel, kind = get(t, ADDRESS) + y * get(t, ROW), get(t, COLUMN), get(t, CHANNEL), get(t, BYTES)
    # rows without a gap are one
    parts, each = (1, count * w) if get(t, ROW) == w * step else (count, w)
    for r in range(parts):
        moves.read_row(at + r * get(t, ROW), step, channel, kind, each, c, to + 4 * r * w, pitch)


@njit
def _mix(t, code, row, pitch, y, w, c):
    ints = ints_of(t, code)
    partner = field(ints, PARTNER)
    other = get(t, SOURCES) + partner * get(t, SOURCE_ROW)
    op = field(code, OP)
    both = op == MIXUP or (op == MIX_INSIDE and load_float(floats_of(t, code)) != float32(0.0))
    first, last = int64(0), w
    if op != MIXUP:
        first = min(max(field(ints, BOX + LEFT), 0), w)
        last = min(max(field(ints, BOX + RIGHT), 0), w)
        if y < field(ints, BOX + TOP) or y >= field(ints, BOX + BOTTOM) or first >= last:
            return
    count = last - first
    other_address = field(other, IMAGE_ADDRESS) + partner * get(t, SOURCE_SAMPLE) + first * field(other, IMAGE_COLUMN)
    for k in range(c):
        x = row + k * pitch + 4 * first
        to = get(t, COSINE) if both else x
        at = other_address + y * field(other, IMAGE_ROW) + k * field(other, IMAGE_CHANNEL)
        moves.read(at, field(other, IMAGE_COLUMN), get(t, SOURCE_KIND), count, to)
        if both:
            points.blend(floats(x, count), floats(to, count), count, load_float(floats_of(t, code)))


@njit
def _framed(t):
    """The image in its frame of zeros: (flat array, floats a row, floats a plane)."""
    pitch, plane = get(t, ROW) // 4, get(t, CHANNEL) // 4
    return floats(get(t, BUFFER_A) if get(t, BUFFER) == 1 else get(t, BUFFER_B), plane << 16), pitch, plane


@njit
def interpolates(code):
    """Whether the instruction at `code` is a warp that weighs four pixels."""
    return field(code, OP) == WARP and not field(code, IS_NEAREST)


@njit
def _warp(t, code, to, pitch, y0, rows, w, c):
    if interpolates(code):
        _interpolate(t, code, to, pitch, y0, rows, w, c)
        return
    m, n = doubles(doubles_of(t, code), MATRIX), rows * w
    consts, count = constants_of(t, code), field(code, FILLS)
    at, share, picked = longs(get(t, AT), n), floats(get(t, SHARE), n), bytes_(get(t, FX), n)
    for r in range(rows):
        here, there = longs(get(t, AT) + 8 * r * w, w), floats(get(t, SHARE) + 4 * r * w, w)
        h_in, w_in, row, column = get(t, HEIGHT), get(t, WIDTH), get(t, ROW), get(t, COLUMN)
        warp.nearest_places(m, y0 + r, _vectors(w), h_in, w_in, row, column, here, there)
    for k in range(c):
        fill = float_field(consts, min(k, count - 1)) if count else float32(0.0)
        image = get(t, ADDRESS) + k * get(t, CHANNEL)
        warp.nearest_pixels(image, get(t, BYTES), n, at, share, fill, picked, floats(to + k * pitch, n))


@njit
def fetch(t, c):
    """Ask for all of the image, of which a map reads the pixels in no order that the machine foresees."""
    wide, planes = get(t, WIDTH) * get(t, COLUMN), c if get(t, CHANNEL) > get(t, COLUMN) else 1
    for k in range(planes):
        for y in range(get(t, HEIGHT)):
            at = get(t, ADDRESS) + k * get(t, CHANNEL) + y * get(t, ROW)
            for x in range(0, wide, _LINE):
                prefetch(at + x)


@njit
def _vectors(w):
    """A row's length in whole vectors: the row that follows is written over what is too much."""
    return (w + 7) // 8 * 8


@njit
def _interpolate(t, code, to, pitch, y0, rows, w, c):
    m, n = doubles(doubles_of(t, code), MATRIX), rows * w
    consts, count = constants_of(t, code), field(code, FILLS)
    px, py, at = doubles(get(t, PX), n), doubles(get(t, PY), n), longs(get(t, AT), n)
    fx, fy, share = floats(get(t, FX), n), floats(get(t, FY), n), floats(get(t, SHARE), n)
    image, across, plane = _framed(t)
    for r in range(rows):
        there = 8 * r * w
        warp.positions(m, y0 + r, _vectors(w), doubles(get(t, PX) + there, w), doubles(get(t, PY) + there, w))
    warp.bilinear_taps(n, get(t, HEIGHT), get(t, WIDTH), across, px, py, at, fx, fy, share)
    for k in range(c):
        out = floats(to + k * pitch, n)
        warp.bilinear_row(image, k * plane, across, n, at, fx, fy, out)
        if count:
            warp.bilinear_fill(out, share, n, float_field(consts, min(k, count - 1)))


@njit
def _stencil(t, code, row, pitch, y, h, w, c):
    image, across, plane = _framed(t)
    kx, ky = field(code, TAPS_X), field(code, TAPS_Y)
    for k in range(c):
        if field(code, OP) == SHARPNESS:
            factor = load_float(floats_of(t, code))
            warp.sharpness_row(image, k * plane, across, h, w, y, factor, floats(row + k * pitch, w))
        else:
            at, weights, to = get(t, ADDRESS) + k * get(t, CHANNEL), get(t, WEIGHTS), row + k * pitch
            by, middle, rows = weights + 4 * kx, get(t, BLURRED), get(t, ADDRESSES)
            warp.blur_row(at, get(t, ROW), h, w, y, weights, by, kx, ky, to, middle, rows)
