"""Random words of pixels: Philox4x32-10 with the counter of gpuaug.rng, and normals made of them.  Nothing is read but
five integers a sample."""

import triton
import triton.language as tl

from gpuaug_kernels.constants import DOMAIN_SHIFT, KEY_C2, KEY_C3, KEY_HIGH, KEY_LOW, KEY_OCCURRENCE, PIXELS


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """The four words of a counter under a key, all uint32: Philox4x32-10 (Salmon et al., SC 2011).

    A product is taken whole: both halves of it are one instruction then, which Triton's own takes two for"""
    for _ in tl.static_range(10):
        a, b = c0.to(tl.uint64) * 0xD2511F53, c2.to(tl.uint64) * 0xCD9E8D57
        c0, c2 = (b >> 32).to(tl.uint32) ^ c1 ^ k0, (a >> 32).to(tl.uint32) ^ c3 ^ k1
        c1, c3 = b.to(tl.uint32), a.to(tl.uint32)
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def noise_words(i, SLOT: tl.constexpr, pixel, channel, BLOCKS: tl.constexpr):
    """The four words of the block that holds a channel.

    i: pointer to the sample's integers, [columns] int32; pixel: [h, w] int32, y * width + x"""
    c0 = (pixel * BLOCKS + channel // 4).to(tl.uint32)
    zero = tl.zeros_like(c0)
    c1 = zero + (tl.load(i + KEY_OCCURRENCE) | SLOT | (PIXELS << DOMAIN_SHIFT)).to(tl.uint32, bitcast=True)
    c2 = zero + tl.load(i + KEY_C2).to(tl.uint32, bitcast=True)
    c3 = zero + tl.load(i + KEY_C3).to(tl.uint32, bitcast=True)
    low = zero + tl.load(i + KEY_LOW).to(tl.uint32, bitcast=True)
    high = zero + tl.load(i + KEY_HIGH).to(tl.uint32, bitcast=True)
    return philox(c0, c1, c2, c3, low, high)


@triton.jit
def pick_word(a, b, c, d, channel):
    """The word of a channel, among the four of its block."""
    k = channel % 4
    return tl.where(k == 0, a, tl.where(k == 1, b, tl.where(k == 2, c, d)))


@triton.jit
def uniform(w):
    """[0, 1) on the grid of 2^-24: exact, so that masks are the same bits everywhere."""
    return (w >> 8).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def circle(v):
    """Cosine and sine of v turns, v in [0, 1): the nearest quarter and a polynomial, since the library's slow path
    needs a stack."""
    quarter = tl.floor(4.0 * v + 0.5)
    x = (v - 0.25 * quarter) * 6.283185307179586
    y = x * x
    s = x * (1.0 + y * (-1.6666666666e-1 + y * (8.3333333333e-3 + y * (-1.9841269841e-4 + y * 2.7557319224e-6))))
    c = 1.0 + y * (-0.5 + y * (4.1666666667e-2 + y * (-1.3888888889e-3 + y * 2.4801587302e-5)))
    odd = (quarter == 1.0) | (quarter == 3.0)
    cosine, sine = tl.where(odd, s, c), tl.where(odd, c, s)
    return tl.where((quarter == 1.0) | (quarter == 2.0), -cosine, cosine), tl.where(
        (quarter == 2.0) | (quarter == 3.0), -sine, sine
    )


@triton.jit
def normal_pair(w0, w1):
    """Two standard normals (Box and Muller, 1958)."""
    # 1 - u1 is exact; where it is small a logarithm near 1 has lost its digits
    t = (16777215 - (w0 >> 8).to(tl.int32)).to(tl.float32) * 5.9604644775390625e-08
    series = t * (1.0 + t * (0.5 + t * (0.3333333333333333 + t * 0.25)))
    radius = tl.sqrt(2.0 * tl.where(t < 0.015625, series, -tl.log(1.0 - t)))
    cosine, sine = circle(uniform(w1))
    return radius * cosine, radius * sine


@triton.jit
def normals(i, SLOT: tl.constexpr, pixel, channel, CHANNELS: tl.constexpr, BLOCKS: tl.constexpr):
    """N(0, 1) for the three channels, or three times for the one."""
    w0, w1, w2, w3 = noise_words(i, SLOT, pixel, channel, BLOCKS)
    if CHANNELS == 3:
        a, b = normal_pair(w0, w1)
        c, _ = normal_pair(w2, w3)
    else:
        k = channel % 4
        even, odd = normal_pair(tl.where(k < 2, w0, w2), tl.where(k < 2, w1, w3))
        a = tl.where(k % 2 == 0, even, odd)
        b = a
        c = a
    return a, b, c
