"""A CutMix of images that nobody else holds: only the rectangles are written, in place, so that what lies outside them
is neither read nor written again."""

from gpuaug.exec.cpu.memory import copy_floats, take_next
from gpuaug.numba_cache import kernel

# how images lie: address, bytes from a sample, a channel and a row to the next, channels, and whether they are planes
ADDRESS, SAMPLE, CHANNEL, ROW, CHANNELS, PLANES, LENGTH = range(7)


@kernel
def move_boxes(taken, partner, box, place, images, kept, back):
    """Copy the rectangles of samples out of their partners to `kept`, or, where `back`, from there to the samples, as
    long as there are any that no other thread took.

    taken: [1] int64, how many samples were taken, shared by all threads; partner: [N] int64; box: [N, 4] int64 (x0, y0,
    x1, y1), inside the images; place: [N] int64, where in `kept` the floats of a sample begin; images: [LENGTH] int64;
    kept: float32"""
    store = kept.ctypes.data
    c, planes = images[CHANNELS], images[PLANES]
    while True:
        n = take_next(taken.ctypes.data)
        if n >= len(partner):
            # lives until here
            return taken[0]
        x0, y0, x1, y1 = box[n, 0], box[n, 1], box[n, 2], box[n, 3]
        pixel, wide = 1 if planes else c, (x1 - x0) * (1 if planes else c)
        at, to = images[ADDRESS] + images[SAMPLE] * (n if back else partner[n]), store + 4 * place[n]
        if x1 <= x0:
            continue
        for k in range(c if planes else 1):
            for y in range(y0, y1):
                here = at + k * images[CHANNEL] + y * images[ROW] + 4 * pixel * x0
                if back:
                    copy_floats(here, to, wide)
                else:
                    copy_floats(to, here, wide)
                to += 4 * wide
