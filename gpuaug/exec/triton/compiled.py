"""What the host does to the tables of every sample of a windowed batch, compiled by Numba."""

from gpuaug_kernels.codes import NONE, PITCH, REFLECT, SYMMETRIC

from gpuaug.numba_cache import kernel, njit


@njit
def _reads(begin, end, low, high, extend):
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
def fit(integers, column, extend, strides, windows):
    """Write the pitch of every image to its row of integers: whether all read within their windows.

    integers: [N, columns] int32.  column: where the rectangle of a row that is read begins, and behind it that of its
    source.  strides: [N, 3] int64, of rows first.  windows: [N, 4] int64, (top, left, height, width)"""
    fits = True
    for n in range(len(integers)):
        row = integers[n]
        row[PITCH] = strides[n, 0]
        for axis in range(2):
            begin, end = row[column + axis], row[column + axis + 2]
            low, high = begin, end
            if extend != NONE:
                low, high = row[column + axis + 4], row[column + axis + 6]
            first, last = _reads(begin, end, low, high, extend)
            here = windows[n, 1 - axis]
            if first < here or last > here + windows[n, 3 - axis]:
                fits = False
    return fits
