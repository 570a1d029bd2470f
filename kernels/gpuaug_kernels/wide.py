"""Sixteen neighbouring pixels of three channels at a time: 48 bytes in as six words, 48 values out, 32 bytes at a time.

A thread holds the sixteen, two threads share what is written at a time: memory is written in whole sectors of 32 bytes.
The launcher checks that images are laid out for it; every address here is a multiple of its access."""

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
def join8(a, b, c, d, e, f, g, h):
    """One after the other along three new axes."""
    return tl.join(join4(a, c, e, g), join4(b, d, f, h))


@triton.jit
def load_eight(at):
    """Eight pixels of three bytes, red lowest, the highest byte anything.  at: pointer to three words, uint64"""
    a, b, c = tl.load(at), tl.load(at + 1), tl.load(at + 2)
    p0, p1, p2 = a.to(tl.uint32), (a >> 24).to(tl.uint32), ((a >> 48) | (b << 16)).to(tl.uint32)
    p3, p4 = (b >> 8).to(tl.uint32), (b >> 32).to(tl.uint32)
    p5, p6, p7 = ((b >> 56) | (c << 8)).to(tl.uint32), (c >> 16).to(tl.uint32), (c >> 40).to(tl.uint32)
    return p0, p1, p2, p3, p4, p5, p6, p7


@triton.jit
def pick_pixel(back, p, q, K: tl.constexpr):
    """Pixel K of sixteen, p the first eight and q the rest; backwards, pixel 15 - K."""
    if K < 8:
        out = tl.where(back, q[7 - K], p[K])
    else:
        out = tl.where(back, p[15 - K], q[K - 8])
    return out


@triton.jit
def every_other(back, p, q, K: tl.constexpr):
    """Eight of sixteen pixels, from K on."""
    a, b, c, d = (
        pick_pixel(back, p, q, K),
        pick_pixel(back, p, q, K + 2),
        pick_pixel(back, p, q, K + 4),
        pick_pixel(back, p, q, K + 6),
    )
    e, f, g, h = (
        pick_pixel(back, p, q, K + 8),
        pick_pixel(back, p, q, K + 10),
        pick_pixel(back, p, q, K + 12),
        pick_pixel(back, p, q, K + 14),
    )
    return join8(a, b, c, d, e, f, g, h)


@triton.jit
def load_packed(image, y, x, back):
    """Pixels of three bytes from (x, y) on, in their order or backwards: [h, 16 u] uint32, red lowest, the highest byte
    anything.

    y: [h, 1], x: [1, u], a multiple of eight
    """
    at = image.data.to(tl.pointer_type(tl.uint64)) + (y.to(tl.int64) * (image.row_stride // 8) + (x // 8) * 3)
    p, q = load_eight(at), load_eight(at + 3)
    both = tl.join(every_other(back, p, q, 0), every_other(back, p, q, 1))
    return tl.reshape(both, (y.shape[0], 16 * x.shape[1]))


@triton.jit
def unpack_channels(p):
    """The three channels of packed pixels, as float32."""
    return (p & 255).to(tl.float32), ((p >> 8) & 255).to(tl.float32), ((p >> 16) & 255).to(tl.float32)


@triton.jit
def pick_value(r, g, b, K: tl.constexpr):
    """Value K of the 48 of sixteen pixels, channels last."""
    if K % 3 == 0:
        out = r[K // 3]
    elif K % 3 == 1:
        out = g[K // 3]
    else:
        out = b[K // 3]
    return out


@triton.jit
def join_values(r, g, b, K: tl.constexpr, STEP: tl.constexpr):
    """Eight of them: K, K + STEP, ..."""
    v0, v1, v2, v3 = (
        pick_value(r, g, b, K),
        pick_value(r, g, b, K + STEP),
        pick_value(r, g, b, K + 2 * STEP),
        pick_value(r, g, b, K + 3 * STEP),
    )
    v4, v5, v6, v7 = (
        pick_value(r, g, b, K + 4 * STEP),
        pick_value(r, g, b, K + 5 * STEP),
        pick_value(r, g, b, K + 6 * STEP),
        pick_value(r, g, b, K + 7 * STEP),
    )
    return join8(v0, v1, v2, v3, v4, v5, v6, v7)


@triton.jit
def store_wide(out, n, r, g, b, at, size, TOGETHER: tl.constexpr):
    """Write three channels that come last, 8 or 16 values together: the width is a multiple of sixteen, and so is the
    address.  out: [N, height, width, 3] of any dtype"""
    height, width = size
    H: tl.constexpr = r.shape[0]
    U: tl.constexpr = r.shape[1] // 16
    sixteens = width // 16
    tile = out + (n * height + at.top) * (48 * sixteens) + 3 * at.left
    y, x = tl.arange(0, H)[:, None], tl.arange(0, U)[None, :]
    mask = ((at.top + y < height) & (at.left + 16 * x < width))[:, :, None]
    place = tile + ((y * sixteens + x) * 48)[:, :, None] + tl.arange(0, TOGETHER)[None, None, :]
    reds, greens, blues = split16(r), split16(g), split16(b)
    for k in tl.static_range(0, 48, TOGETHER):
        if TOGETHER == 16:
            piece = tl.join(join_values(reds, greens, blues, k, 2), join_values(reds, greens, blues, k + 1, 2))
        else:
            piece = join_values(reds, greens, blues, k, 1)
        tl.store(place + k, tl.reshape(piece, (H, U, TOGETHER)), mask=mask)


@triton.jit
def store_pairs(out, n, r, g, b, at, size):
    """The same of two pixels, two values at a time: the width is even, and the address a multiple of two values."""
    height, width = size
    H: tl.constexpr = r.shape[0]
    U: tl.constexpr = r.shape[1] // 2
    r0, r1 = tl.split(tl.reshape(r, (H, U, 2)))
    g0, g1 = tl.split(tl.reshape(g, (H, U, 2)))
    b0, b1 = tl.split(tl.reshape(b, (H, U, 2)))
    tile = out + (n * height + at.top) * (6 * (width // 2)) + 3 * at.left
    y, x = tl.arange(0, H)[:, None], tl.arange(0, U)[None, :]
    mask = ((at.top + y < height) & (at.left + 2 * x < width))[:, :, None]
    place = tile + ((y * (width // 2) + x) * 6)[:, :, None] + tl.arange(0, 2)[None, None, :]
    tl.store(place, tl.join(r0, g0), mask=mask)
    tl.store(place + 2, tl.join(b0, r1), mask=mask)
    tl.store(place + 4, tl.join(g1, b1), mask=mask)
