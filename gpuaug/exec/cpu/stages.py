"""One stage on rows that follow one another, by its instruction; and the statistics that stages read.

A row: `c` planes of floats, `pitch` bytes apart."""

from gpuaug_kernels.codes import (
    ADD_BELOW,
    AFFINE,
    AUTOCONTRAST,
    CONTRAST,
    EQUALIZE,
    ERASE,
    GAUSSIAN,
    GRAY,
    HUE,
    KEY_LENGTH,
    NORMALIZE,
    PERMUTE,
    POSTERIZE,
    SALT_PEPPER,
    SATURATION,
    SOLARIZE,
)
from numba import float32, int64

from gpuaug.exec.cpu import noise, points, vectors
from gpuaug.exec.cpu.layout import BIAS_COUNT, BOTTOM, CLAMPS, COUNT, FLAG, LEFT, OP, RIGHT, SLOT, TOP
from gpuaug.exec.cpu.memory import (
    COSINE,
    COUNTS,
    HIGH,
    KEY,
    LOW,
    NOISE,
    SINE,
    SUM,
    TABLES,
    constants_of,
    copy_floats,
    double_field,
    field,
    float_field,
    floats,
    floats_of,
    get,
    ints_of,
    load_double,
    load_float,
    longs,
    second_floats_of,
    store_double,
    store_float,
    store_long,
    words,
)
from gpuaug.numba_cache import njit

# bytes of a channel: a table of floats, and two histograms
_TABLE, _COUNTS = 256 * 4, 512 * 8


@njit
def apply(t, code, row, pitch, c, y, width, rows):
    """Run the stage at `code` on rows from y on; gives the channels after it."""
    op = field(code, OP)
    values, w = floats_of(t, code), rows * width
    x = floats(row, w)
    if op == AFFINE:
        biases = second_floats_of(t, code)
        _affine(row, pitch, c, w, values, field(code, COUNT), biases, field(code, BIAS_COUNT), field(code, CLAMPS))
    elif op == NORMALIZE:
        scales, count = constants_of(t, code), field(code, COUNT)
        _affine(row, pitch, c, w, scales, count, scales + 4 * count, count, 0)
    elif op == SATURATION or op == HUE or op == GRAY:
        if c >= 3:
            g, b, factor = floats(row + pitch, w), floats(row + 2 * pitch, w), load_float(values)
            if op == SATURATION:
                points.saturation(x, g, b, w, factor)
            elif op == HUE:
                points.hue(x, g, b, w, factor)
            else:
                points.gray_to_first(x, g, b, w)
        if op == GRAY:
            for k in range(1, field(code, COUNT)):
                copy_floats(row + k * pitch, row, w)
            return field(code, COUNT)
    elif op == CONTRAST:
        f = load_float(values)
        bias = (float32(1.0) - f) * float32(double_field(get(t, SUM), 1))
        for k in range(c):
            points.affine_clamped(floats(row + k * pitch, w), w, f, bias)
    elif op == PERMUTE:
        _permute(row, pitch, c, w, ints_of(t, code))
    elif op == SALT_PEPPER or op == GAUSSIAN or op == ERASE:
        # a box begins anew in every row
        parts, each = (rows, 1) if op == ERASE else (1, rows)
        for r in range(parts):
            _drawn(t, code, row + 4 * r * width, pitch, c, y + r, width, each)
    else:
        for k in range(c):
            _look_up(t, op, code, floats(row + k * pitch, w), k, w)
    return c


@njit
def _affine(row, pitch, c, w, scales, count, biases, bias_count, clamps):
    for k in range(c):
        scale, bias = float_field(scales, min(k, count - 1)), float_field(biases, min(k, bias_count - 1))
        if clamps:
            points.affine_clamped(floats(row + k * pitch, w), w, scale, bias)
        else:
            points.affine(floats(row + k * pitch, w), w, scale, bias)


@njit
def _permute(row, pitch, c, w, order):
    """Put channels in order, in place: what a swap has moved away is followed to where it is now."""
    for k in range(c):
        source = field(order, k)
        while source < k:
            source = field(order, source)
        if source != k:
            points.swap(floats(row + k * pitch, w), floats(row + source * pitch, w), w)


@njit
def _look_up(t, op, code, x, k, w):
    """The stages that compare or look up, on channel k."""
    if op == SOLARIZE:
        points.solarize(x, w, load_float(floats_of(t, code)))
    elif op == ADD_BELOW:
        points.add_below(x, w, load_float(floats_of(t, code)), load_float(second_floats_of(t, code)))
    elif op == POSTERIZE:
        points.posterize(x, w, float32(1 << field(ints_of(t, code), 0)))
    elif op == AUTOCONTRAST:
        points.autocontrast(x, w, float_field(get(t, LOW), 2 * k + 1), float_field(get(t, HIGH), 2 * k + 1))
    elif op == EQUALIZE:
        points.equalize(x, w, floats(get(t, TABLES) + k * _TABLE, 256), words(get(t, NOISE), w))


@njit
def _drawn(t, code, row, pitch, c, y, w, rows):
    """The stages that take a word per pixel: salt and pepper, Gaussian noise, and an erased box that may be random."""
    op, count = field(code, OP), field(code, COUNT)
    values, second = floats_of(t, code), second_floats_of(t, code)
    first, last, random = int64(0), rows * w, True
    if op == ERASE:
        box = ints_of(t, code)
        first, last, random = min(max(field(box, LEFT), 0), w), min(max(field(box, RIGHT), 0), w), False
        if y < field(box, TOP) or y >= field(box, BOTTOM) or last <= first:
            return
        for k in range(count):
            random |= float_field(values, k) != float_field(values, k)
    many, blocks, flag = last - first, (c + 3) // 4, field(code, FLAG)
    drawn, stride = get(t, NOISE), get(t, SINE) - get(t, COSINE)
    cosine, sine = floats(get(t, COSINE), many), floats(get(t, SINE), many)
    for k in range(c):
        # one word of the first channel serves all, unless each has its own
        if random and k % 4 == 0 and (k == 0 or op != SALT_PEPPER or flag):
            key, counter, slot = words(get(t, KEY), KEY_LENGTH), (y * w + first) * blocks + k // 4, field(code, SLOT)
            if op == SALT_PEPPER and (c == 1 or not flag):
                noise.first_words(drawn, many, counter, blocks, key, slot)
            else:
                noise.row_words(drawn, stride, many, counter, blocks, key, slot)
        if random and k % 2 == 0 and op != SALT_PEPPER:
            noise.normals(
                words(drawn + (k % 4) * stride, many), words(drawn + (k % 4 + 1) * stride, many), many, cosine, sine
            )
        x, z = floats(row + k * pitch + 4 * first, many), sine if k % 2 else cosine
        if op == SALT_PEPPER:
            word = words(drawn + (k % 4 if flag else 0) * stride, many)
            noise.salt_pepper(x, many, word, load_float(values), load_float(second))
        elif op == GAUSSIAN:
            noise.add_noise(x, many, z, load_float(values), load_float(second), flag)
        else:
            value = float_field(values, min(k, count - 1))
            noise.write_over(x, many, z, value)


# ---- statistics of the image that a stage is about to see


@njit
def is_statistic(op):
    """Whether a stage reads a statistic of the whole image."""
    return op == CONTRAST or op == AUTOCONTRAST or op == EQUALIZE


@njit
def clear(t, op, c):
    """Before the first row."""
    if op == CONTRAST:
        store_double(get(t, SUM), 0.0)
    elif op == AUTOCONTRAST:
        for k in range(c):
            store_float(get(t, LOW) + 8 * k, float32(3.4e38))
            store_float(get(t, HIGH) + 8 * k, float32(-3.4e38))
    elif op == EQUALIZE:
        for k in range(512 * c):
            store_long(get(t, COUNTS) + 8 * k, 0)


@njit
def gather(t, op, row, pitch, c, w):
    """Add a row to the statistic that stage `op` needs."""
    x = floats(row, w)
    if op == CONTRAST:
        # float32 within a row, float64 between rows, always in this order
        total = (
            points.gray_sum(x, floats(row + pitch, w), floats(row + 2 * pitch, w), w)
            if c >= 3
            else points.plain_sum(x, w)
        )
        store_double(get(t, SUM), load_double(get(t, SUM)) + total)
    elif op == AUTOCONTRAST:
        for k in range(c):
            low, high = get(t, LOW) + 8 * k, get(t, HIGH) + 8 * k
            x = floats(row + k * pitch, w)
            vectors.extremes(row + k * pitch, w // vectors.LANES, low, high)
            for i in range(w // vectors.LANES * vectors.LANES, w):
                store_float(low, min(load_float(low), x[i]))
                store_float(high, max(load_float(high), x[i]))
    elif op == EQUALIZE:
        for k in range(c):
            points.histogram(
                floats(row + k * pitch, w), w, longs(get(t, COUNTS) + _COUNTS * k, 512), words(get(t, NOISE), w)
            )


@njit
def conclude(t, op, c, pixels):
    """From sums to what the stage reads: kept beside the sums, which the same kind of stage may gather anew while it is
    read."""
    if op == CONTRAST:
        store_double(get(t, SUM) + 8, load_double(get(t, SUM)) / pixels)
    elif op == AUTOCONTRAST:
        for k in range(c):
            low, high = get(t, LOW) + 8 * k, get(t, HIGH) + 8 * k
            store_float(low + 4, load_float(low))
            store_float(high + 4, load_float(high))
    elif op == EQUALIZE:
        for k in range(c):
            points.equalizing_table(
                longs(get(t, COUNTS) + _COUNTS * k, 512), pixels, floats(get(t, TABLES) + k * _TABLE, 256)
            )
