"""The prototype of stored_tile.py in Gluon, which says itself what lies in shared memory: means of rows are stored
once, by whole vectors, and read by as many taps as there are.  Gluon of Triton 3.6 has no gather from there.

A kernel of its own for crops of bytes, [H, W, 3] each of its own size, that are not turned, with the stages and the
statistic that `chain` gives them.  What is stored are uint16, 257 times a mean of bytes: a level stays exact, and what
is rounded is half of 1/257 of one.  No interpreter runs it; try_stored_tile.py compares it with `chain`."""

from gpuaug_kernels.constants import PITCH, SHORTS, SOURCE_DOUBLES, SOURCE_FLOATS, SOURCE_INTEGERS, TILE
from gpuaug_kernels.point import inside, load_channels, run_stages
from gpuaug_kernels.source import margin, snap_mean, stored, tile_axes
from gpuaug_kernels.store import half_bits, pack_halves, to_output
from gpuaug_kernels.taps import axis_taps, inverse_weight, tap_weight
from gpuaug_kernels.tuples import Image, Row, Tile
from gpuaug_kernels.words import join4, magic_float, pack_shorts, unpack_shorts, word_base
from stored_tile import add_row, four_pixels, level_bits
from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def crop(
    source,  # [N, places] int64
    floats,
    integers,
    doubles,
    statistics,
    out,
    cells,
    stride_n,
    stride_c,
    stride_y,
    stride_x,
    height,
    width,
    PROGRAM: gl.constexpr,
    PARTS: gl.constexpr,
    WIDTHS: gl.constexpr,
    FORMAT: gl.constexpr,
    LAYOUT: gl.constexpr,
    FOLLOW: gl.constexpr,
    FOLLOWING: gl.constexpr,
    CAPACITY: gl.constexpr,  # pixels that are stored, a power of two: TILE rows of all columns that a tile takes
    PACKED: gl.constexpr,  # 1: four uint16 a pixel; 0: three planes
):
    """One tile of one sample; arguments as of `chain`."""
    PIXELS: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    FOUR: gl.constexpr = gl.BlockedLayout([4], [32], [gl.num_warps()], [0])
    ITEMS: gl.constexpr = 32 * gl.num_warps()
    CHUNKS: gl.constexpr = CAPACITY // (4 * ITEMS)
    PLAIN: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    n = gl.program_id(0).to(gl.int64)
    left, top = gl.program_id(1) * TILE, gl.program_id(2) * TILE
    i, f, d = integers + n * WIDTHS.integers, floats + n * WIDTHS.floats, doubles + n * WIDTHS.doubles
    gl.static_assert(FOLLOWING.kind_column < 0, "a statistic that some samples lack")
    place = gl.arange(0, TILE * TILE, layout=PIXELS)
    at = Tile(top + place // TILE, left + place % TILE, width, 0, top, left)
    mask = (at.y < height) & (at.x < width)
    base = gl.load(source + n * FORMAT.places).to(gl.pointer_type(gl.uint8))
    pitch = gl.load(i + PITCH)
    image = Image(base, 1, pitch.to(gl.int64), 3)
    i += PROGRAM[SOURCE_INTEGERS]
    places = d + PROGRAM[SOURCE_DOUBLES]
    x0, y0, x1, y1 = gl.load(i), gl.load(i + 1), gl.load(i + 2), gl.load(i + 3)
    down, across, _ = tile_axes(places, at)
    half_x, half_y = gl.load(places + 6), gl.load(places + 7)
    first_x, beyond_x, slope_x, taps_x = axis_taps(across, half_x, x0, x1, place % TILE)
    near, _, _, _ = axis_taps(across, half_x, x0, x1, gl.to_tensor(0))
    far, _, _, _ = axis_taps(across, half_x, x0, x1, gl.to_tensor(TILE - 1))
    low = gl.minimum(near, far)
    groups = (gl.minimum(gl.maximum(near, far) + taps_x, x1) - low + 3) // 4

    # rows of taps first: an item is four columns of a row of the tile
    words, beyond = word_base(image, 4)
    bits = level_bits(pitch)
    end = 3 * x1 - 1 + beyond
    # what is stored: one plane of pixels of four uint16, or three of a channel each
    if PACKED:
        red = gl.allocate_shared_memory(gl.uint64, [CHUNKS, 4 * ITEMS], PLAIN)
        green, blue = red, red
    else:
        red = gl.allocate_shared_memory(gl.uint16, [CHUNKS, 4 * ITEMS], PLAIN)
        green = gl.allocate_shared_memory(gl.uint16, [CHUNKS, 4 * ITEMS], PLAIN)
        blue = gl.allocate_shared_memory(gl.uint16, [CHUNKS, 4 * ITEMS], PLAIN)
    reciprocal = 1.0 / groups.to(gl.float32)
    lane = gl.arange(0, ITEMS, layout=PIXELS)
    for c in range(0, gl.minimum((TILE * groups + ITEMS - 1) // ITEMS, CHUNKS)):
        item = c * ITEMS + lane
        # exact, since an item is far below 2^20
        row = ((item.to(gl.float32) + 0.5) * reciprocal).to(gl.int32)
        column = 3 * (low + 4 * (item - row * groups)) + beyond
        first_y, beyond_y, slope_y, taps_y = axis_taps(down, half_y, y0, y1, row)
        zero = gl.full([ITEMS], 0.0, gl.float32, layout=PIXELS)
        sums = (zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
        total = zero
        for j in range(0, taps_y, 2):
            v = tap_weight(first_y, beyond_y, slope_y, j, y1)
            w = tap_weight(first_y, beyond_y, slope_y, j + 1, y1)
            upper, lower = gl.minimum(first_y + j, y1 - 1) * pitch, gl.minimum(first_y + j + 1, y1 - 1) * pitch
            p0, q0, s0 = four_pixels(words, upper + column, (upper + end) >> 2)
            p1, q1, s1 = four_pixels(words, lower + column, (lower + end) >> 2)
            sums = add_row(sums, v, p0, q0, s0, bits)
            sums = add_row(sums, w, p1, q1, s1, bits)
            total += v + w
        over = 257.0 * inverse_weight(total)
        if PACKED:
            first, second = packed(sums[0], sums[1], sums[2], over), packed(sums[3], sums[4], sums[5], over)
            third, fourth = packed(sums[6], sums[7], sums[8], over), packed(sums[9], sums[10], sums[11], over)
            red.index(c).store(gl.convert_layout(join4(first, second, third, fourth), FOUR))
        else:
            red.index(c).store(gl.convert_layout(joined(sums[0], sums[3], sums[6], sums[9], over), FOUR))
            green.index(c).store(gl.convert_layout(joined(sums[1], sums[4], sums[7], sums[10], over), FOUR))
            blue.index(c).store(gl.convert_layout(joined(sums[2], sums[5], sums[8], sums[11], over), FOUR))
    gl.barrier()

    # then taps along a row
    flat_red = red._reinterpret(red.dtype, [CAPACITY], PLAIN)
    flat_green = green._reinterpret(green.dtype, [CAPACITY], PLAIN)
    flat_blue = blue._reinterpret(blue.dtype, [CAPACITY], PLAIN)
    begin = (place // TILE) * (4 * groups) + (first_x - low)
    r = gl.full([TILE * TILE], 0.0, gl.float32, layout=PIXELS)
    g, b, total_x = r, r, r
    for k in range(0, taps_x):
        w = tap_weight(first_x, beyond_x, slope_x, k, x1)
        tap = gl.minimum(begin + k, CAPACITY - 1)
        if PACKED:
            red_tap, green_tap, blue_tap = unpack_shorts(flat_red.gather(tap, 0))
        else:
            red_tap = magic_float(flat_red.gather(tap, 0).to(gl.uint32))
            green_tap = magic_float(flat_green.gather(tap, 0).to(gl.uint32))
            blue_tap = magic_float(flat_blue.gather(tap, 0).to(gl.uint32))
        r, g, b = r + w * red_tap, g + w * green_tap, b + w * blue_tap
        total_x += w
    over_x = inverse_weight(total_x) * 0.0038910505836575876
    r, g, b = r * over_x, g * over_x, b * over_x
    r, g, b = snap_mean(r, r, 255.0), snap_mean(g, g, 255.0), snap_mean(b, b, 255.0)
    if gl.minimum(margin(left, TILE, i + 8), margin(top, TILE, i + 9)) < 0:
        live = inside(i + 8, at)
        fr, fg, fb = load_channels(f + PROGRAM[SOURCE_FLOATS], 3)
        r, g, b = gl.where(live, r, fr), gl.where(live, g, fg), gl.where(live, b, fb)
    cells += n * WIDTHS.cells
    stages = Row(f, integers + n * WIDTHS.integers, statistics, cells, mask)
    r, g, b, _ = run_stages(PROGRAM, 2, PARTS.before, r, g, b, gl.to_tensor(0), stages, at, FORMAT, -1)
    if LAYOUT.form == SHORTS:
        pixels = out.to(gl.pointer_type(gl.uint64), bitcast=True) + n * height * width
        gl.store(pixels + (at.y * width + at.x), pack_shorts(r, g, b), mask=mask)
    else:
        store_halves(out, n, r, g, b, at, height, width, PIXELS)
    if FOLLOWING.end > 0:
        # chain.gather_following, for a statistic that every sample has
        r, g, b = stored(r, LAYOUT.form), stored(g, LAYOUT.form), stored(b, LAYOUT.form)
        run_stages(FOLLOW, 2, FOLLOWING.end, r, g, b, gl.to_tensor(0), stages, at, FORMAT, 0)


@gluon.jit
def joined(a, b, c, d, over):
    """Four columns of a channel one after the other, as 257 times their means.  a, b, c, d: sums of 256 + bytes; over:
    257 over their weights"""
    a, b = short(a, over).to(gl.uint16), short(b, over).to(gl.uint16)
    return join4(a, b, short(c, over).to(gl.uint16), short(d, over).to(gl.uint16))


@gluon.jit
def short(x, over):
    """A sum of 256 + bytes in the low half of a uint32; half to even."""
    return (x * over + 8322816.0).to(gl.uint32, bitcast=True) & 65535


@gluon.jit
def packed(r, g, b, over):
    """The same of three channels, as a pixel of four uint16."""
    low = short(r, over) | (short(g, over) << 16)
    return low.to(gl.uint64) | (short(b, over).to(gl.uint64) << 32)


@gluon.jit
def pairs(x, n: gl.constexpr):
    """Of every two values the first and the second."""
    two: gl.constexpr = gl.BlockedLayout([2], [32], [gl.num_warps()], [0])
    one: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    a, b = gl.split(gl.reshape(gl.convert_layout(x, two), [n // 2, 2]))
    return gl.convert_layout(a, one), gl.convert_layout(b, one)


@gluon.jit
def store_halves(out, n, r, g, b, at, height, width, PIXELS: gl.constexpr):
    """store.store_interleaved of 16 bits."""
    TYPE: gl.constexpr = out.dtype.element_ty
    words = out.to(gl.pointer_type(gl.uint32), bitcast=True)
    a0, a1 = pairs(pack_halves(to_output(r, TYPE), to_output(g, TYPE)), TILE * TILE)
    b0, b1 = pairs(half_bits(to_output(b, TYPE)), TILE * TILE)
    last = (a1 >> 16) | (b1 << 16)
    units = gl.convert_layout(join4(a0, b0 | (a1 << 16), last, last), PIXELS)
    k = gl.arange(0, 2 * TILE * TILE, layout=PIXELS)
    y, within = k // (2 * TILE), k % (2 * TILE)
    group, part = within // 4, within % 4
    wide = width // 2
    tile = words + ((n * height + at.top) * wide + at.left // 2) * 3
    mask = (part < 3) & (at.top + y < height) & (at.left + 2 * group < width)
    gl.store(tile + (y * wide + group) * 3 + part, units, mask=mask)
