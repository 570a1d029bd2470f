"""What a GPU is told of the images of a call whose parameters a host drew, compiled by Numba: a loader's batch has
hundreds of windows, and small operations on arrays cost by their number."""

from gpuaug_kernels.codes import NONE, PITCH, REFLECT, SYMMETRIC

from gpuaug.numba_cache import kernel, njit


@njit
def _tell(known, k, n, base, size, begins, shapes, strides, full, windows):
    """What `Ragged.known` says of image k of n."""
    slots = n + n % 2
    channels = shapes[k, 2]
    row, column, channel = shapes[k, 1] * channels, channels, 1
    if len(strides):
        row, column, channel = strides[k, 0], strides[k, 1], strides[k, 2]
    height, width, top, left = shapes[k, 0], shapes[k, 1], 0, 0
    x1, y1 = width, height
    if len(windows):
        top, left = windows[k, 0], windows[k, 1]
        x1, y1 = left + windows[k, 3], top + windows[k, 2]
        height, width = full[k, 0], full[k, 1]
    begin = base + begins[k] - (top * row + left * column) * size
    known[k] = begin
    known[slots + 2 * k], known[slots + 2 * k + 1] = height, width
    known[3 * slots + k] = row
    corner = 4 * slots + 4 * k
    known[corner], known[corner + 1], known[corner + 2], known[corner + 3] = left, top, x1, y1
    place = 4 * slots + 4 * n + 3 * k
    known[place], known[place + 1], known[place + 2] = begin, row, channel


@njit
def _within(begin, end, low, high, extend):
    """As `windows.within`, of one axis: the first pixel that is read, and the one after the last.

    begin, end: of the window; low, high: of the source"""
    if extend == NONE:
        return begin, end
    first = min(max(begin, low), high - 1)
    last = max(min(end, high), first + 1)
    if extend == REFLECT or extend == SYMMETRIC:
        before, after = max(low - begin, 0), max(end - high, 0)
        if before > 0:
            last = max(last, min(low + before + 1, high))
        if after > 0:
            first = min(first, max(high - after - 1, low))
    return first, last


@kernel
def fit(known, base, size, begins, shapes, strides, full, windows, integers, column, extend):
    """Write what `Ragged.known` says of all images, and the pitch of each to its row of integers: whether all are read
    within their windows.

    known: [words] int64.  base, begins, shapes, strides, full, windows: as `Ragged.lie` gives them.  size: bytes of an
    element.  integers: [N, columns] int32.  column: where the rectangle of a row that is read begins, and behind it
    that of its source; -1 where nothing is fitted"""
    fits, n = True, len(shapes)
    for k in range(n):
        _tell(known, k, n, base, size, begins, shapes, strides, full, windows)
        if column < 0:
            continue
        row, corner = integers[k], 4 * (n + n % 2) + 4 * k
        row[PITCH] = known[3 * (n + n % 2) + k]
        for axis in range(2):
            begin, end = row[column + axis], row[column + axis + 2]
            low, high = begin, end
            if extend != NONE:
                low, high = row[column + axis + 4], row[column + axis + 6]
            first, last = _within(begin, end, low, high, extend)
            if first < known[corner + axis] or last > known[corner + axis + 2]:
                fits = False
    return fits
