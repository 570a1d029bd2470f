"""The kernels that draw: a trace of the draws, each thread a sample, its numbers in registers; and the partners of a
mix.  What launches them is draws.py."""

import triton
import triton.language as tl

from gpuaug_kernels.constants import (
    DABS,
    DADD,
    DCONST,
    DCOS,
    DDIV,
    DEQ,
    DEXP,
    DFLOOR,
    DLE,
    DLOG,
    DLT,
    DMAX,
    DMIN,
    DMUL,
    DNEG,
    DROUND,
    DSIN,
    DSQRT,
    DSUB,
    DTRUNC,
    DWHERE,
    EPOCH,
    EPOCH_BITS,
    FIELDS,
    FLOAT32,
    FLOAT64,
    HEIGHT,
    HIGH,
    IADD,
    IAND,
    ICONST,
    ID,
    IDIV,
    IEQ,
    ILE,
    ILT,
    IMAX,
    IMIN,
    IMUL,
    INT32,
    INT64,
    IOR,
    ISHL,
    ISHR,
    ISUB,
    IWHERE,
    LOW,
    OCCURRENCE,
    OCCURRENCE_SHIFT,
    PARTNER,
    SINGLE,
    TO_FLOAT,
    TO_INTEGER,
    WIDTH,
    WORD,
)
from gpuaug_kernels.noise import philox
from gpuaug_kernels.tuples import Buffers, Sample

# rows of partners are told apart by 24 bits
ROWS = tl.constexpr(1 << 24)


@triton.jit
def integer_operation(OP: tl.constexpr, a, b):
    """Of two integers, or of two truth values, which are 0 or 1: [BLOCK] int64."""
    if OP == IADD:
        out = a + b
    elif OP == ISUB:
        out = a - b
    elif OP == IMUL:
        out = a * b
    elif OP == IAND:
        out = a & b
    elif OP == IOR:
        out = a | b
    elif OP == ISHL:
        out = a << b
    elif OP == ISHR:
        out = a >> b
    elif OP == IDIV:
        # rounds down, as Python does: a card's division rounds towards zero
        by = tl.where(b == 0, 1, b)
        q = a // by
        rest = a - q * by
        out = tl.where(b == 0, 0, q - ((rest != 0) & ((rest < 0) != (by < 0))).to(tl.int64))
    elif OP == IMIN:
        out = tl.minimum(a, b)
    elif OP == IMAX:
        out = tl.maximum(a, b)
    elif OP == ILT:
        out = (a < b).to(tl.int64)
    elif OP == ILE:
        out = (a <= b).to(tl.int64)
    else:
        tl.static_assert(OP == IEQ, "no such instruction")
        out = (a == b).to(tl.int64)
    return out


@triton.jit
def float_operation(OP: tl.constexpr, a, b):
    """Of one float or two: [BLOCK] float64."""
    if OP == DADD:
        out = a + b
    elif OP == DSUB:
        out = a - b
    elif OP == DMUL:
        out = a * b
    elif OP == DDIV:
        out = a / b
    elif OP == DMIN:
        # NaN stays NaN
        out = tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
    elif OP == DMAX:
        out = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    elif OP == DNEG:
        out = -a
    elif OP == DABS:
        out = tl.abs(a)
    elif OP == DSQRT:
        out = tl.sqrt(a)
    elif OP == DFLOOR:
        out = tl.floor(a)
    elif OP == DTRUNC:
        out = tl.where(a < 0.0, tl.ceil(a), tl.floor(a))
    elif OP == DROUND:
        low = tl.floor(a)
        over, odd = a - low, low != 2.0 * tl.floor(0.5 * low)
        out = low + tl.where((over > 0.5) | ((over == 0.5) & odd), 1.0, 0.0)
    elif OP == SINGLE:
        out = a.to(tl.float32).to(tl.float64)
    elif OP == DEXP:
        out = tl.exp(a)
    elif OP == DLOG:
        out = tl.log(a)
    elif OP == DSIN:
        out = tl.sin(a)
    else:
        tl.static_assert(OP == DCOS, "no such instruction")
        out = tl.cos(a)
    return out


@triton.jit
def mixed_operation(OP: tl.constexpr, a, b, c):
    """A choice, a comparison of floats, or a conversion: [BLOCK] int64 or float64."""
    if (OP == IWHERE) | (OP == DWHERE):
        out = tl.where(a != 0, b, c)
    elif OP == DLT:
        out = (a < b).to(tl.int64)
    elif OP == DLE:
        out = (a <= b).to(tl.int64)
    elif OP == DEQ:
        out = (a == b).to(tl.int64)
    elif OP == TO_INTEGER:
        out = a.to(tl.int64)
    else:
        tl.static_assert(OP == TO_FLOAT, "no such instruction")
        out = a.to(tl.float64)
    return out


@triton.jit
def sample_value(
    OP: tl.constexpr, VALUE: tl.constexpr, FROM: tl.constexpr, given, constants, at, mask, n, BLOCK: tl.constexpr
):
    """A constant, or what is given of a sample.  FROM: 1 where the constant is number VALUE of `constants`; given: a
    Sample"""
    if (OP == ICONST) & (FROM == 1):
        out = tl.broadcast_to(tl.load(constants + VALUE), (BLOCK,))
    elif (OP == DCONST) & (FROM == 1):
        out = tl.broadcast_to(tl.load(constants + VALUE).to(tl.float64, bitcast=True), (BLOCK,))
    elif OP == ICONST:
        out = tl.full((BLOCK,), VALUE, tl.int64)
    elif OP == DCONST:
        out = tl.full((BLOCK,), VALUE, tl.float64)
    elif OP == ID:
        out = given.id
    elif OP == OCCURRENCE:
        out = given.occurrence
    elif OP == EPOCH:
        out = given.epoch
    elif OP == LOW:
        out = tl.zeros_like(given.id) + given.low.to(tl.uint32).to(tl.int64)
    elif OP == HIGH:
        out = tl.zeros_like(given.id) + given.high.to(tl.uint32).to(tl.int64)
    elif OP == HEIGHT:
        out = tl.load(given.sizes + 2 * at, mask=mask, other=1)
    elif OP == WIDTH:
        out = tl.load(given.sizes + 2 * at + 1, mask=mask, other=1)
    else:
        tl.static_assert(OP == PARTNER, "no such instruction")
        out = tl.load(given.partners + VALUE * n + at, mask=mask, other=0)
    return out


@triton.jit
def philox_words(C1: tl.constexpr, C0: tl.constexpr, identity, occurrence, epoch, low, high):
    """The four words of a counter, int64.  C1: domain << 28 | slot; low, high: words of the seed, int32"""
    c2 = identity.to(tl.uint32)
    c3 = (((identity >> 32) << EPOCH_BITS) | epoch).to(tl.uint32)
    c1 = ((occurrence << OCCURRENCE_SHIFT) | C1).to(tl.uint32)
    zero = tl.zeros_like(c2)
    a, b, c, d = philox(zero + C0, c1, c2, c3, zero + low.to(tl.uint32), zero + high.to(tl.uint32))
    return a.to(tl.int64), b.to(tl.int64), c.to(tl.int64), d.to(tl.int64)


@triton.jit
def store_column(OP: tl.constexpr, value, buffers, place, mask):
    """Write a number to a column of a table.  OP: the dtype of the table"""
    if OP == FLOAT32:
        tl.store(buffers.floats + place, value.to(tl.float32), mask=mask)
    elif OP == INT32:
        tl.store(buffers.ints + place, value.to(tl.int32), mask=mask)
    elif OP == FLOAT64:
        tl.store(buffers.doubles + place, value, mask=mask)
    else:
        tl.static_assert(OP == INT64, "no such table")
        tl.store(buffers.longs + place, value, mask=mask)


@triton.jit(do_not_specialize=["low", "high", "epoch", "n"])
def draw_parameters(
    ids,  # [N] int64
    occurrences,  # [N] int64
    epoch,  # int32, or a pointer to [1] int64
    sizes,  # [N, 2] int64, height and width; read where the trace asks for them
    partners,  # [slots, N] int64, rows of the batch; read where the trace asks for them
    constants,  # [constants] int64, or the bits of float64: what differs between two image sizes is among them
    low,  # the words of the seed, int32 with their bits
    high,
    floats,  # all tables of float32 one after the other, each [N rounded up to 16, its columns]
    ints,  # the same of int32
    doubles,  # the same of float64
    longs,  # the same of int64
    n,
    CODE: tl.constexpr,  # a Code
    LENGTH: tl.constexpr,  # operations in it
    BLOCK: tl.constexpr,
):
    """All parameters of a block of samples.

    Bytes a sample: 16 read (32 where sizes are asked for, 8 more a partner), and every column of the tables written."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    now = epoch
    if epoch.dtype.is_ptr():
        now = tl.load(epoch)
    identity = tl.load(ids + at, mask=mask, other=0)
    given = Sample(
        identity,
        tl.load(occurrences + at, mask=mask, other=0),
        tl.zeros_like(identity) + now,
        sizes,
        partners,
        low,
        high,
    )
    buffers = Buffers(floats, ints, doubles, longs)
    padded = (n + 15) // 16 * 16
    numbers = ()
    for k in tl.static_range(LENGTH):
        if CODE[FIELDS * k] < WORD:
            numbers = numbers + (
                sample_value(
                    CODE[FIELDS * k],
                    CODE[FIELDS * k + 1],
                    CODE[FIELDS * k + 2],
                    given,
                    constants,
                    at,
                    mask,
                    n,
                    BLOCK,
                ),
            )
        elif CODE[FIELDS * k] == WORD:
            numbers = numbers + philox_words(
                CODE[FIELDS * k + 1], CODE[FIELDS * k + 2], given.id, given.occurrence, given.epoch, low, high
            )
        elif CODE[FIELDS * k] < IWHERE:
            numbers = numbers + (
                integer_operation(CODE[FIELDS * k], numbers[CODE[FIELDS * k + 1]], numbers[CODE[FIELDS * k + 2]]),
            )
        elif (CODE[FIELDS * k] >= DADD) & (CODE[FIELDS * k] < DLT):
            numbers = numbers + (
                float_operation(CODE[FIELDS * k], numbers[CODE[FIELDS * k + 1]], numbers[CODE[FIELDS * k + 2]]),
            )
        elif CODE[FIELDS * k] < FLOAT32:
            numbers = numbers + (
                mixed_operation(
                    CODE[FIELDS * k],
                    numbers[CODE[FIELDS * k + 1]],
                    numbers[CODE[FIELDS * k + 2]],
                    numbers[CODE[FIELDS * k + 3]],
                ),
            )
        else:
            # operands: the number; columns of tables before this table, of this table, and before this column
            place = padded * CODE[FIELDS * k + 2] + at * CODE[FIELDS * k + 3] + CODE[FIELDS * k + 4]
            store_column(CODE[FIELDS * k], numbers[CODE[FIELDS * k + 1]], buffers, place, mask)


@triton.jit
def pair_less(h, l, other_h, other_l):
    """Whether a pair of integers comes before another: by the first, then the second."""
    return (h < other_h) | ((h == other_h) & (l < other_l))


@triton.jit
def pair_least(h, l, valid):
    """The least valid pair of each row, by the first, then the second; the largest int64 where there is none."""
    top = 0x7FFFFFFFFFFFFFFF
    high = tl.min(tl.where(valid, h, top), 1)
    low = tl.min(tl.where(valid & (h == high[:, None]), l, top), 1)
    return high, low


@triton.jit
def sort_keys(ids, occurrences, epoch, at, n, low, high, C1: tl.constexpr):
    """What samples are sorted by, first random word, then id, occurrence and row, as two int64."""
    mask = at < n
    identity, occurrence = tl.load(ids + at, mask=mask, other=0), tl.load(occurrences + at, mask=mask, other=0)
    word, _, _, _ = philox_words(C1, 0, identity, occurrence, tl.zeros_like(identity) + epoch, low, high)
    # ids have 46 bits, occurrences 12
    return (word << 31) | (identity >> 15), ((((identity & 0x7FFF) << 12) | occurrence) * ROWS) | at


# one row of several is written, which begins anywhere where their number is odd
@triton.jit(do_not_specialize=["low", "high", "epoch", "n"], do_not_specialize_on_alignment=["valid", "out"])
def find_partners(
    ids,  # [N] int64
    occurrences,  # [N] int64
    epoch,  # int32, or a pointer to [1] int64
    low,  # the words of the seed, int32 with their bits
    high,
    valid,  # [N] uint8; where not VALID nothing reads it, any dtype
    out,  # [N] int64, rows of the batch
    n,
    C1: tl.constexpr,  # domain << 28 | slot
    VALID: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,  # samples that are compared with the block at a time
):
    """The partner of each of a block of samples: the next in the cycle of the batch sorted by its keys; itself, where
    one of the two is not valid.

    All are looked at, N^2 in all, which is little for a batch.  Bytes a block: 16 N read, from the second cache mostly,
    and 8 a sample written."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    now = epoch
    if epoch.dtype.is_ptr():
        now = tl.load(epoch)
    h, l = sort_keys(ids, occurrences, now, at, n, low, high, C1)
    next_h = tl.full((BLOCK,), 0x7FFFFFFFFFFFFFFF, tl.int64)
    next_l = next_h
    first_h = next_h
    first_l = next_h
    for start in range(0, n, CHUNK):
        there = start + tl.arange(0, CHUNK).to(tl.int64)
        oh, ol = sort_keys(ids, occurrences, now, there, n, low, high, C1)
        oh, ol, inside = oh[None, :], ol[None, :], (there < n)[None, :]
        inside = inside & (at < n)[:, None]
        ah, al = pair_least(oh, ol, inside)
        nearer = pair_less(ah, al, first_h, first_l)
        first_h, first_l = tl.where(nearer, ah, first_h), tl.where(nearer, al, first_l)
        ah, al = pair_least(oh, ol, inside & pair_less(h[:, None], l[:, None], oh, ol))
        nearer = pair_less(ah, al, next_h, next_l)
        next_h, next_l = tl.where(nearer, ah, next_h), tl.where(nearer, al, next_l)
    # the last is followed by the first
    row = tl.where(next_l == 0x7FFFFFFFFFFFFFFF, first_l, next_l) % ROWS
    if VALID:
        mask = at < n
        both = (tl.load(valid + at, mask=mask, other=0) != 0) & (tl.load(valid + row, mask=mask, other=0) != 0)
        row = tl.where(both, row, at)
    tl.store(out + at, row, mask=at < n)


@triton.jit(do_not_specialize=["low", "high", "epoch", "n"], do_not_specialize_on_alignment=["valid", "out"])
def share_words(
    ids,  # [N] int64
    occurrences,  # [N] int64
    epoch,  # int32, or a pointer to [1] int64
    low,  # the words of the seed, int32 with their bits
    high,
    valid,  # [N] uint8; where not VALID nothing reads it, any dtype
    out,  # [rows, N] int64, of which those of WORDS are written
    n,
    C1: tl.constexpr,  # domain << 28 | slot, of the order
    WORDS: tl.constexpr,  # a Code: of each word domain << 28 | slot, the number of the draw, the lane, and the row
    COUNT: tl.constexpr,  # words
    VALID: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,  # samples that are looked at together
):
    """Words of one sample for a block of samples: of the first of the batch sorted by its keys, valid ones before
    others.

    Bytes a block: 16 N read, from the second cache mostly, and 8 a word and sample written."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    now = epoch
    if epoch.dtype.is_ptr():
        now = tl.load(epoch)
    top = 0x7FFFFFFFFFFFFFFF
    # a row of one for `pair_least`
    best_h = tl.full((1,), top, tl.int64)
    best_l = best_h
    other_h = best_h
    other_l = best_h
    for start in range(0, n, CHUNK):
        there = start + tl.arange(0, CHUNK).to(tl.int64)
        oh, ol = sort_keys(ids, occurrences, now, there, n, low, high, C1)
        oh, ol, inside = oh[None, :], ol[None, :], (there < n)[None, :]
        ah, al = pair_least(oh, ol, inside)
        nearer = pair_less(ah, al, other_h, other_l)
        other_h, other_l = tl.where(nearer, ah, other_h), tl.where(nearer, al, other_l)
        if VALID:
            ah, al = pair_least(oh, ol, inside & (tl.load(valid + there, mask=there < n, other=0) != 0)[None, :])
            nearer = pair_less(ah, al, best_h, best_l)
            best_h, best_l = tl.where(nearer, ah, best_h), tl.where(nearer, al, best_l)
    row = tl.where(best_l == top, other_l, best_l) % ROWS
    identity, occurrence = tl.load(ids + row), tl.load(occurrences + row)
    for k in tl.static_range(COUNT):
        a, b, c, d = philox_words(
            WORDS[4 * k], WORDS[4 * k + 1], identity, occurrence, tl.zeros_like(identity) + now, low, high
        )
        word = a
        if WORDS[4 * k + 2] == 1:
            word = b
        elif WORDS[4 * k + 2] == 2:
            word = c
        elif WORDS[4 * k + 2] == 3:
            word = d
        to = out + tl.full([], WORDS[4 * k + 3], tl.int64) * n + at
        tl.store(to, tl.broadcast_to(word, (BLOCK,)), mask=at < n)
