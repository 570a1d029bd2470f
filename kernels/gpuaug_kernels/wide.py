"""Sixteen neighbouring pixels of three channels at a time: 48 bytes in as six words, 48 values out, 32 bytes at a time.

A thread holds the sixteen, two threads share what is written at a time: memory is written in whole sectors of 32 bytes.  Whether images are laid
out for it, the launcher knows; every address here is a multiple of its access.
"""

import triton
import triton.language as tl


@triton.jit
def split4(x):
    """Along the last two axes."""
    even, odd = tl.split(x)
    x0, x2 = tl.split(even)
    x1, x3 = tl.split(odd)
    return x0, x1, x2, x3


@triton.jit
def split16(x):
    """Of every sixteen pixels the first, the second, ... [h, 16 u] -> sixteen times [h, u]"""
    a, b, c, d = split4(tl.reshape(x, (x.shape[0], x.shape[1] // 16, 2, 2, 2, 2)))
    x0, x4, x8, x12 = split4(a)
    x1, x5, x9, x13 = split4(b)
    x2, x6, x10, x14 = split4(c)
    x3, x7, x11, x15 = split4(d)
    return x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15


@triton.jit
def join4(a, b, c, d):
    """One after the other along two new axes."""
    return tl.join(tl.join(a, c), tl.join(b, d))


@triton.jit
def join8(v, K: tl.constexpr, STEP: tl.constexpr):
    """Eight of a tuple, from number K on, along three new axes."""
    return tl.join(join4(v[K], v[K + 2 * STEP], v[K + 4 * STEP], v[K + 6 * STEP]), join4(v[K + STEP], v[K + 3 * STEP], v[K + 5 * STEP], v[K + 7 * STEP]))


@triton.jit
def join16(v, K: tl.constexpr):
    """Sixteen of a tuple, from number K on, along four new axes."""
    return tl.join(join8(v, K, 2), join8(v, K + 1, 2))


@triton.jit
def half(image, at, back):
    """Eight pixels of three bytes, red lowest, the highest byte anything."""
    a, b, c = tl.load(at), tl.load(at + 1), tl.load(at + 2)
    p0, p1, p2 = a.to(tl.uint32), (a >> 24).to(tl.uint32), ((a >> 48) | (b << 16)).to(tl.uint32)
    p3, p4 = (b >> 8).to(tl.uint32), (b >> 32).to(tl.uint32)
    p5, p6, p7 = ((b >> 56) | (c << 8)).to(tl.uint32), (c >> 16).to(tl.uint32), (c >> 40).to(tl.uint32)
    return p0, p1, p2, p3, p4, p5, p6, p7


@triton.jit
def words(image, y, x, back):
    """Pixels of three bytes from (x, y) on, in their order or backwards: [h, 16 u] uint32, red lowest, the highest byte anything.

    y: [h, 1], x: [1, u], a multiple of eight
    """
    at = image[0].to(tl.pointer_type(tl.uint64)) + (y.to(tl.int64) * (image[2] // 8) + (x // 8) * 3)
    p0, p1, p2, p3, p4, p5, p6, p7 = half(image, at, back)
    p8, p9, p10, p11, p12, p13, p14, p15 = half(image, at + 3, back)
    p = (
        tl.where(back, p15, p0),
        tl.where(back, p14, p1),
        tl.where(back, p13, p2),
        tl.where(back, p12, p3),
        tl.where(back, p11, p4),
        tl.where(back, p10, p5),
        tl.where(back, p9, p6),
        tl.where(back, p8, p7),
        tl.where(back, p7, p8),
        tl.where(back, p6, p9),
        tl.where(back, p5, p10),
        tl.where(back, p4, p11),
        tl.where(back, p3, p12),
        tl.where(back, p2, p13),
        tl.where(back, p1, p14),
        tl.where(back, p0, p15),
    )
    return tl.reshape(join16(p, 0), (y.shape[0], 16 * x.shape[1]))


@triton.jit
def channels(p):
    """What words hold, as float32."""
    return (p & 255).to(tl.float32), ((p >> 8) & 255).to(tl.float32), ((p >> 16) & 255).to(tl.float32)


@triton.jit
def spread(out, n, r, g, b, at, size, TOGETHER: tl.constexpr):
    """Write three channels that come last, so many values at a time: the width is a multiple of sixteen, and the address of sixteen bytes."""
    height, width = size
    H: tl.constexpr = r.shape[0]
    U: tl.constexpr = r.shape[1] // 16
    r, g, b = split16(r), split16(g), split16(b)
    v = (
        r[0],
        g[0],
        b[0],
        r[1],
        g[1],
        b[1],
        r[2],
        g[2],
        b[2],
        r[3],
        g[3],
        b[3],
        r[4],
        g[4],
        b[4],
        r[5],
        g[5],
        b[5],
        r[6],
        g[6],
        b[6],
        r[7],
        g[7],
        b[7],
        r[8],
        g[8],
        b[8],
        r[9],
        g[9],
        b[9],
        r[10],
        g[10],
        b[10],
        r[11],
        g[11],
        b[11],
        r[12],
        g[12],
        b[12],
        r[13],
        g[13],
        b[13],
        r[14],
        g[14],
        b[14],
        r[15],
        g[15],
        b[15],
    )
    units = width // 16
    tile = out + (n * height + at[4]) * (48 * units) + 3 * at[5]
    y, x = tl.arange(0, H)[:, None], tl.arange(0, U)[None, :]
    mask = ((at[4] + y < height) & (at[5] + 16 * x < width))[:, :, None]
    place = tile + ((y * units + x) * 48)[:, :, None] + tl.arange(0, TOGETHER)[None, None, :]
    for k in tl.static_range(0, 48, TOGETHER):
        if TOGETHER == 16:
            piece = join16(v, k)
        else:
            piece = join8(v, k, 1)
        tl.store(place + k, tl.reshape(piece, (H, U, TOGETHER)), mask=mask)
