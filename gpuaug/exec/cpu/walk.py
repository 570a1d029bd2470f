"""One sample through a whole plan: which stages share a pass over its rows, where the rows come from and where they
go."""

from gpuaug_kernels.codes import CHOICE
from numba import float32, int64

from gpuaug.exec.cpu import moves, points, produce, resize, stages
from gpuaug.exec.cpu.layout import (
    BLUR,
    BRANCHES,
    HALT,
    IMAGE_LENGTH,
    INT_COLUMN,
    IS_COPY,
    LENGTH,
    NEXT,
    OP,
    PRODUCERS,
    RESAMPLE,
    RETURN,
    SHARPNESS,
    STEPS,
    WARP,
)
from gpuaug.exec.cpu.memory import (
    ADDRESS,
    BUFFER,
    BUFFER_A,
    BUFFER_B,
    BYTE_OUT,
    BYTES,
    CHANNEL,
    CHANNELS,
    CODE,
    COLUMN,
    HEIGHT,
    INT_ROW,
    ORDER,
    ROW,
    SOURCE_KIND,
    SOURCE_ROW,
    SOURCE_SAMPLE,
    SOURCES,
    STACK,
    STREAMED_OUT,
    TARGET,
    TARGET_CHANNEL,
    TARGET_COLUMN,
    TARGET_KIND,
    TARGET_ROW,
    TARGET_SAMPLE,
    TILE,
    WIDTH,
    bytes_,
    copy_floats,
    field,
    floats,
    get,
    longs,
    put,
    store_float,
)
from gpuaug.exec.cpu.vectors import LANES, ROWS, stream
from gpuaug.numba_cache import njit

NOWHERE, IMAGE, OUT = 0, 1, 2
# pixels of short rows that stages take at once: what a call costs, and what is left over of vectors, is shared by them
AT_ONCE = 1024
_LINE = 64
_INSTRUCTION = 8 * LENGTH


@njit
def linearise(code, ints, order, stack):
    """Where the instructions of one sample are, in order: writes order, gives their number.  code, ints: addresses;
    stack: 2 a level"""
    at, depth, m = code, 0, 0
    while True:
        op = field(at, OP)
        if op == HALT:
            return m
        if op == CHOICE:
            stack[2 * depth], stack[2 * depth + 1] = at, 0
            depth += 1
        elif op == RETURN:
            stack[2 * depth - 1] += 1
        else:
            order[m] = at
            m, at = m + 1, at + _INSTRUCTION
            continue
        # the branch of the next step, or on after the last
        while True:
            choice, step = stack[2 * depth - 2], stack[2 * depth - 1]
            if step == field(choice, STEPS):
                depth -= 1
                at = code + _INSTRUCTION * field(choice, NEXT)
                break
            branch = field(ints, field(choice, INT_COLUMN) + step)
            if 0 <= branch < field(choice, BRANCHES):
                at = code + _INSTRUCTION * field(choice + _INSTRUCTION * (1 + branch), NEXT)
                break
            stack[2 * depth - 1] += 1


@njit
def _produces(op):
    return op >= PRODUCERS


@njit
def start(t, n):
    """Make the source of sample n the image at work."""
    source = get(t, SOURCES) + n * get(t, SOURCE_ROW)
    for k in range(IMAGE_LENGTH):
        put(t, ADDRESS + k, field(source, k))
    put(t, ADDRESS, get(t, ADDRESS) + n * get(t, SOURCE_SAMPLE))
    put(t, BYTES, get(t, SOURCE_KIND))
    put(t, BUFFER, 0)


@njit
def sample(t, n):
    """Run the instructions of sample n, from its source to its output."""
    order = longs(get(t, ORDER), 1 << 40)
    m = linearise(get(t, CODE), get(t, INT_ROW), order, longs(get(t, STACK), 1 << 40))
    start(t, n)
    if _only_moves(t, order, m):
        _move(t, n, order, m)
        return
    # stands for "no producer": the HALT at the end of the code makes no pixels
    none = get(t, CODE) + _INSTRUCTION * (get(t, 1) - 1)
    c, i, ready = get(t, CHANNELS), int64(0), False
    while True:
        op = field(order[i], OP) if i < m else int64(HALT)
        producer, copies, turned = none, False, False
        if _produces(op):
            ready = False
            # what weighs neighbours reads an image in a frame of zeros
            copies = (produce.interpolates(order[i]) or op == SHARPNESS or op == BLUR) and get(t, BUFFER) == 0
            if not copies:
                producer = order[i]
                turned = op == RESAMPLE and produce.is_turned(t, producer)
                i += 1
        j = i
        while j < m and not (copies or turned):
            op = field(order[j], OP)
            if _produces(op) or (stages.is_statistic(op) and not (ready and j == i)):
                break
            j += 1
        # what comes after a turn is found in the next round, over the turned image
        following = field(order[j], OP) if j < m else int64(HALT)
        if turned and following != WARP:
            following = int64(HALT)
        last = j == m and not turned
        to = OUT if last else IMAGE
        if i == j and producer == none and not last and not copies:
            to = NOWHERE
        c = _render(t, n, producer, producer == none, i, j, to, following, c, turned)
        if last:
            return
        ready = stages.is_statistic(following)
        i = j


@njit
def _only_moves(t, order, m):
    """Whether a sample is its source moved, as bytes or floats that go out as such."""
    if (get(t, SOURCE_KIND) == 1) != (get(t, TARGET_KIND) == BYTE_OUT) or m > 1:
        return False
    return m == 0 or (
        field(order[0], OP) == RESAMPLE and field(order[0], IS_COPY) and not produce.is_turned(t, order[0])
    )


@njit
def _move(t, n, order, m):
    """Sample n to its output, by its one move if it has one."""
    c = get(t, CHANNELS)
    if m:
        h, w = produce.size(t, order[0])
        resize.prepare(t, order[0], c)
        moves.straight(t, n, order[0], h, w, c)
        return
    h, w, kind = get(t, HEIGHT), get(t, WIDTH), get(t, BYTES)
    for y in range(h):
        to = get(t, TARGET) + n * get(t, TARGET_SAMPLE) + y * get(t, TARGET_ROW)
        at = get(t, ADDRESS) + y * get(t, ROW)
        moves.copy_run(
            kind, to, get(t, TARGET_COLUMN), get(t, TARGET_CHANNEL), at, get(t, COLUMN), get(t, CHANNEL), w, c
        )


@njit
def _render(t, n, producer, local, i, j, to, following, c_in, turned):
    """Every row, some at a time: produce, run the stages order[i .. j), gather the next statistic, write.  Gives the
    channels after it."""
    h, w = produce.size(t, producer)
    order, tile = longs(get(t, ORDER), 1 << 40), get(t, TILE)
    resamples, counts = field(producer, OP) == RESAMPLE, stages.is_statistic(following)
    # banded products fill whole vectors; other rows follow one another, as many as stages take at once
    banded = resamples and not field(producer, IS_COPY)
    down, rows = (4 * ((w + 15) // 16 * 16), int64(ROWS)) if banded else (4 * w, max(AT_ONCE // w, 1))
    pitch = (rows * down + _LINE) // _LINE * _LINE
    joined = down == 4 * w and (rows == 1 or rows * w <= AT_ONCE)
    whole = joined and get(t, TARGET_ROW) == w * get(t, TARGET_COLUMN)
    # rows that only see themselves stay where they are; others go to the other buffer
    which = max(get(t, BUFFER), 1) if local else 3 - max(get(t, BUFFER), 1) if get(t, BUFFER) else int64(1)
    # a turned resample is made before its turn: its rows become columns
    oh, ow = (w, h) if turned else (h, w)
    image = get(t, BUFFER_A) if which == 1 else get(t, BUFFER_B)
    if resamples:
        resize.prepare(t, producer, c_in)
    elif field(producer, OP) == BLUR:
        produce.prepare_blur(t, producer)
    elif field(producer, OP) == WARP and get(t, BUFFER) == 0:
        produce.fetch(t, c_in)
    c = c_in
    for y in range(0, h, rows):
        count = min(rows, h - y)
        if resamples:
            resize.resample_rows(t, producer, tile, pitch, down, y, count, w, c_in)
        else:
            produce.produce_rows(t, producer, tile, pitch, y, count, h, w, c_in)
        parts, each = (1, count) if joined else (count, 1)
        for r in range(parts):
            c = c_in
            for k in range(i, j):
                c = stages.apply(t, order[k], tile + r * down, pitch, c, y + r, w, each)
        if counts:
            if y == 0:
                stages.clear(t, following, c)
            for r in range(count):
                stages.gather(t, following, tile + r * down, pitch, c, w)
        parts, each = (1, count) if whole else (count, 1)
        if to == OUT:
            for r in range(parts):
                _write_out(t, n, tile + r * down, pitch, c, y + r, w * each)
        elif to == IMAGE:
            for r in range(count):
                _write_image(image, oh, ow, turned, tile + r * down, pitch, c, y + r, w)
    if counts:
        stages.conclude(t, following, c, h * w)
    if to == IMAGE:
        _moved(t, image, which, oh, ow)
        if following == WARP:
            _zero_frame(image, c, oh, ow)
    return c


@njit
def _moved(t, image, which, h, w):
    """Say that the image is in a buffer now: planes of (h + 3) rows of (w + 4) floats."""
    put(t, ADDRESS, image + 4 * (w + 4 + 1))
    put(t, HEIGHT, h)
    put(t, WIDTH, w)
    put(t, ROW, 4 * (w + 4))
    put(t, COLUMN, 4)
    put(t, CHANNEL, 4 * (h + 3) * (w + 4))
    put(t, BYTES, 0)
    put(t, BUFFER, which)


@njit
def _write_image(image, h, w, turned, row, pitch, c, y, count):
    across, plane = 4 * (w + 4), 4 * (h + 3) * (w + 4)
    for k in range(c):
        x = floats(row + k * pitch, count)
        if turned:
            at = image + k * plane + across + 4 + 4 * y
            for i in range(count):
                store_float(at + i * across, x[i])
        else:
            copy_floats(image + k * plane + (y + 1) * across + 4, row + k * pitch, count)


@njit
def _zero_frame(image, channels, h, w):
    """One row above and two below, one column before and three after."""
    pitch = w + 4
    for c in range(channels):
        a = floats(image + 4 * c * (h + 3) * pitch, (h + 3) * pitch)
        for x in range(pitch):
            a[x], a[(h + 1) * pitch + x], a[(h + 2) * pitch + x] = float32(0.0), float32(0.0), float32(0.0)
        for y in range(1, h + 1):
            at = y * pitch
            a[at], a[at + w + 1], a[at + w + 2], a[at + w + 3] = float32(0.0), float32(0.0), float32(0.0), float32(0.0)


@njit
def _write_out(t, n, row, pitch, c, y, w):
    """The w pixels from row y of the output on: planes or interleaved pixels, float32 or bytes."""
    at = get(t, TARGET) + n * get(t, TARGET_SAMPLE) + y * get(t, TARGET_ROW)
    channel, step = get(t, TARGET_CHANNEL), get(t, TARGET_COLUMN)
    kind = get(t, TARGET_KIND)
    if kind != BYTE_OUT and c == 3 and step == 12:
        points.interleave(floats(row, w), floats(row + pitch, w), floats(row + 2 * pitch, w), w, floats(at, 3 * w))
        return
    for k in range(c):
        x = floats(row + k * pitch, w)
        if kind == BYTE_OUT:
            if step == 1:
                points.to_bytes(x, w, bytes_(at + k * channel, w))
            else:
                points.to_strided_bytes(x, w, bytes_(at + k * channel, w * step), step)
        elif step == 4 and kind == STREAMED_OUT:
            _stream(at + k * channel, row + k * pitch, w)
        elif step == 4:
            copy_floats(at + k * channel, row + k * pitch, w)
        else:
            points.to_strided(x, w, floats(at + k * channel, w * step // 4), step // 4)


@njit
def _stream(to, source, count):
    """Copy floats to an output that nobody reads before it is whole."""
    before = min((-to % _LINE) // 4, count)
    runs = (count - before) // LANES
    copy_floats(to, source, before)
    stream(to + 4 * before, source + 4 * before, runs)
    done = before + runs * LANES
    copy_floats(to + 4 * done, source + 4 * done, count - done)
