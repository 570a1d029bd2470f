"""Mixes of images that nobody else holds, in place: each sample takes from its partner before that one takes from its
own.  Of a CutMix only the rectangles are read and written, of a MixUp every pixel is read from memory once, since a
partner's are at hand when its own turn comes."""

import numpy as np
from numba import float32

from gpuaug.exec.cpu import points
from gpuaug.exec.cpu.memory import copy_floats, floats, take_next
from gpuaug.numba_cache import kernel

# how images lie: address, bytes from a sample, a channel and a row to the next, height, width, channels, and whether
# they are planes
ADDRESS, SAMPLE, CHANNEL, ROW, ROWS, COLUMNS, CHANNELS, PLANAR, LENGTH = range(9)
# floats of each image that a thread mixes at a time: those of two images and what is kept of a third stay in its
# caches
PART = 4096
# of a sample in its turn: whether it is kept for the last of its cycle, and whether it is that last one
_KEEP, _LAST = 1, 2
_NOTHING = float32(0.0)


@kernel
def in_order(partner, walk, ends):
    """An order in which each sample comes before its partner, but for the last of a cycle, whose partner is its first.

    partner: [N] int64; walk: [N] int64, written; ends: [N] int64, zeros, marked where a cycle begins and ends"""
    waits, k = np.zeros(len(partner), np.int64), 0
    for i in range(len(partner)):
        waits[partner[i]] += 1
    for i in range(len(partner)):
        at = i
        # nobody takes from it any more
        while waits[at] == 0:
            waits[at], walk[k] = -1, at
            k, at = k + 1, partner[at]
            waits[at] -= 1
    for i in range(len(partner)):
        if waits[i] > 0:
            at = i
            ends[k] |= _KEEP
            while waits[at] > 0:
                waits[at], walk[k] = -1, at
                k, at = k + 1, partner[at]
            ends[k - 1] |= _LAST
    return k


@kernel
def mix_images(taken, partner, walk, ends, box, share, images, kept):
    """Mix inside rectangles, as long as there are parts of the images that no other thread took.

    taken: [1] int64, how many parts were taken, shared by all threads; walk, ends: of `in_order`; box: [N, 4] int64
    (x0, y0, x1, y1), inside the images; share: [N] float32, of the sample itself; images: [LENGTH] int64; kept:
    float32, this thread's, as many as PART or a row"""
    c, planes, store = images[CHANNELS], images[PLANAR], kept.ctypes.data
    h, pixel = images[ROWS], 1 if planes else c
    rows = max(PART // (pixel * images[COLUMNS]), 1)
    bands = (h + rows - 1) // rows
    while True:
        part = take_next(taken.ctypes.data)
        if part >= bands * (c if planes else 1):
            # lives until here
            return taken[0]
        top, plane = part % bands * rows, part // bands
        bottom = min(top + rows, h)
        at = images[ADDRESS] + plane * images[CHANNEL] + top * images[ROW]
        for k in range(len(walk)):
            n = walk[k]
            here, there = at + images[SAMPLE] * n, at + images[SAMPLE] * partner[n]
            if ends[k] & _KEEP:
                copy_floats(store, here, (bottom - top) * pixel * images[COLUMNS])
            there = store if ends[k] & _LAST else there
            left, wide = 4 * pixel * box[n, 0], pixel * max(box[n, 2] - box[n, 0], 0)
            for y in range(max(box[n, 1], top), min(box[n, 3], bottom)):
                down = (y - top) * images[ROW] + left
                if share[n] == _NOTHING:
                    copy_floats(here + down, there + down, wide)
                else:
                    points.blend(floats(here + down, wide), floats(there + down, wide), wide, share[n])
