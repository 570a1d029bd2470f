"""Bytes of images read as aligned words, wherever a row begins, and integers made floats without a conversion.

Images lie in memory as [H, W, 3] uint8, or as three planes [H, W].  A word that holds a byte that is wanted lies wholly
within what was allocated around it; words that hold none are read at the nearest that does, so that nothing else is
touched.

An image is below 2 GiB: offsets in it are 32 bits wide."""

import triton
import triton.language as tl

from gpuaug_kernels.constants import TILE_BITS


@triton.jit
def magic_float(x):
    """An integer below 2^23 as float32, exactly: the unit that converts serves an eighth of the lanes that others do.

    x: uint32"""
    return (x | 0x4B000000).to(tl.float32, bitcast=True) - 8388608.0


@triton.jit
def byte_float(word, K: tl.constexpr):
    """Byte K of a uint32 as float32."""
    return magic_float((word >> (8 * K)) & 255)


@triton.jit
def funnel(low, high, shift):
    """The 32 bits of two words from bit shift < 32 on."""
    return (low >> shift) | ((high << 1) << (31 ^ shift))


@triton.jit
def funnel64(low, high, shift):
    """The 64 bits of two words from bit shift < 64 on."""
    return (low >> shift) | ((high << 1) << (63 ^ shift))


@triton.jit
def rows_down(pointers, y, pitch):
    """Pointers moved down by y rows of a tile, a bit of y at a time: what threads hold of a tile lies below each other,
    so that a pointer costs an instruction, where a product and its sum in 64 bits take three or four.

    pitch: elements from a row to the next, int32"""
    for k in tl.static_range(TILE_BITS):
        pointers += tl.where((y >> k) & 1 != 0, pitch << k, 0)
    return pointers


@triton.jit
def word_base(image, BYTES: tl.constexpr):
    """The aligned words around an image: a pointer to the first, and how many bytes the image begins beyond it."""
    address = image.data.to(tl.int64, bitcast=True)
    word: tl.constexpr = tl.uint64 if BYTES == 8 else tl.uint32
    return (address & -BYTES).to(tl.pointer_type(word), bitcast=True), (address & (BYTES - 1)).to(tl.int32)


@triton.jit
def subnormal(word, K: tl.constexpr):
    """Byte K of a uint32 times BYTE_UNIT: the bits of a byte are those of a subnormal float, which a card multiplies as
    fast as any.  An instruction a byte, where a float of its value takes two; its weight is LIFT times as large, so
    that products are normal and as exact."""
    return ((word >> (8 * K)) & 255).to(tl.float32, bitcast=True)


@triton.jit
def bits_beyond(at, pitch):
    """How many bits a byte lies beyond its word.

    pitch: anything from 0 on that is not known when compiling, int32: where the eight is known, the compiler shifts
    again for every byte that then comes of one word"""
    return (at * (8 + (pitch >> 31)) & 31).to(tl.uint32)


@triton.jit
def load_taps(words, at, pitch, COUNT: tl.constexpr):
    """COUNT pixels of three bytes from a place on, as three words; what lies beyond them is anything.

    words: pointer to the first word around the image; at: the first of these bytes, beyond it, int32; pitch: of
    bits_beyond; COUNT: 1, 2 or 4"""
    first, shift = words + (at >> 2), bits_beyond(at, pitch)
    a = tl.load(first)
    # no word that holds none of these bytes
    if COUNT == 1:
        b = tl.load(first + 1, mask=(at & 3) > 1, other=0)
        out = funnel(a, b, shift), b, b
    elif COUNT == 2:
        b, c = tl.load(first + 1), tl.load(first + 2, mask=(at & 3) == 3, other=0)
        out = funnel(a, b, shift), funnel(b, c, shift), c
    else:
        b, c = tl.load(first + 1), tl.load(first + 2)
        d = tl.load(first + 3, mask=(at & 3) != 0, other=0)
        out = funnel(a, b, shift), funnel(b, c, shift), funnel(c, d, shift)
    return out


@triton.jit
def load_plane(image, CHANNEL: tl.constexpr, at, step, COUNT: tl.constexpr):
    """COUNT bytes of a plane from a place on, subnormal: four values, of which the first COUNT count.

    Four bytes are two words; fewer are read one by one, which takes no more loads.  at: the first, beyond the plane's
    first, int32; step: from the first of two to the other, 0 or 1; COUNT: 1, 2 or 4"""
    plane = CHANNEL * image.channel_stride.to(tl.int32)
    if COUNT == 4:
        words, beyond = word_base(image, 4)
        first = at + (plane + beyond)
        a, b = tl.load(words + (first >> 2)), tl.load(words + ((first + 3) >> 2))
        word = funnel(a, b, bits_beyond(first, image.row_stride.to(tl.int32)))
        out = subnormal(word, 0), subnormal(word, 1), subnormal(word, 2), subnormal(word, 3)
    else:
        byte = (image.data + plane) + at
        near = subnormal(tl.load(byte).to(tl.uint32), 0)
        far = near
        if COUNT > 1:
            far = subnormal(tl.load(byte + step).to(tl.uint32), 0)
        out = near, far, far, far
    return out


@triton.jit
def load_pixel(words, at, pitch, mask):
    """A pixel of three bytes, packed: red lowest, the highest byte anything; 0 where masked.  Arguments as of
    load_taps"""
    shift = bits_beyond(at, pitch)
    first = words + (at >> 2)
    a, b = tl.load(first, mask=mask, other=0), tl.load(first + 1, mask=mask & ((at & 3) > 1), other=0)
    return funnel(a, b, shift)


@triton.jit
def load_eight(words, at, last, ALIGNED: tl.constexpr):
    """Eight pixels of three bytes, each packed: red lowest, the highest byte anything.

    words: pointer to the first uint64 around the image; at: bytes beyond it, int32, a multiple of eight if ALIGNED;
    last: the last word to be read"""
    first = at >> 3
    a = tl.load(words + tl.minimum(tl.maximum(first, 0), last))
    b = tl.load(words + tl.minimum(tl.maximum(first + 1, 0), last))
    c = tl.load(words + tl.minimum(tl.maximum(first + 2, 0), last))
    if ALIGNED == 0:
        shift = ((at & 7) * 8).to(tl.uint64)
        d = tl.load(words + tl.minimum(first + 3, last))
        a, b, c = funnel64(a, b, shift), funnel64(b, c, shift), funnel64(c, d, shift)
    p0, p1, p2 = a.to(tl.uint32), (a >> 24).to(tl.uint32), ((a >> 48) | (b << 16)).to(tl.uint32)
    p3, p4 = (b >> 8).to(tl.uint32), (b >> 32).to(tl.uint32)
    p5, p6, p7 = ((b >> 56) | (c << 8)).to(tl.uint32), (c >> 16).to(tl.uint32), (c >> 40).to(tl.uint32)
    return p0, p1, p2, p3, p4, p5, p6, p7


@triton.jit
def join4(a, b, c, d):
    """One after the other: [n] four times -> [4 n]; values of one thread stay in it."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (4 * a.shape[0],))


@triton.jit
def join8(a, b, c, d, e, f, g, h):
    """The same of eight."""
    even, odd = tl.join(tl.join(a, e), tl.join(c, g)), tl.join(tl.join(b, f), tl.join(d, h))
    return tl.reshape(tl.join(even, odd), (8 * a.shape[0],))


@triton.jit
def split2(x):
    """Of every two values the first and the second: [2 n] -> [n] twice."""
    return tl.split(tl.reshape(x, (x.shape[0] // 2, 2)))


@triton.jit
def split4(x):
    """Of every four."""
    even, odd = split2(x)
    # [2 n]: 0 2 0 2 ... and 1 3 1 3 ...
    a, c = split2(even)
    b, d = split2(odd)
    return a, b, c, d


@triton.jit
def unpack_bytes(p):
    """The three channels of packed pixels, as float32.  p: uint32"""
    return byte_float(p, 0), byte_float(p, 1), byte_float(p, 2)


@triton.jit
def unpack_units(p):
    """The same over 255, rounded to nearest as to_unit does: a byte in bits 16 to 23 of a float's is it times 2^-133,
    whichever it is, and the two parts of 1/255 are as much larger.  p: uint32"""
    r, g, b = (p << 16) & 0xFF0000, (p << 8) & 0xFF0000, p & 0xFF0000
    return unit_of(r), unit_of(g), unit_of(b)


@triton.jit
def unit_of(bits):
    """One channel of unpack_units."""
    x = bits.to(tl.float32, bitcast=True)
    return x * (0.00392150878906250 * 2.0**133) + x * (5.983838848e-08 * 2.0**133)


@triton.jit
def unpack_shorts(word):
    """The three channels of pixels of four uint16.  word: uint64"""
    low, high = word.to(tl.uint32), (word >> 32).to(tl.uint32)
    return magic_float(low & 65535), magic_float(low >> 16), magic_float(high & 65535)


@triton.jit
def short_bits(x):
    """round(65535 x) of x in [0, 1], in the low half of a uint32; half to even."""
    return (x * 65535.0 + 8388608.0).to(tl.uint32, bitcast=True) & 65535


@triton.jit
def pack_shorts(r, g, b):
    """Pixels of four uint16, the last 0: uint64."""
    low = short_bits(r) | (short_bits(g) << 16)
    return low.to(tl.uint64) | (short_bits(b).to(tl.uint64) << 32)
