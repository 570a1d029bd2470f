"""All parameters of a batch in one launch: a row of instructions, each thread a sample, its numbers in registers.

It reads 16 bytes a sample (id and occurrence; 16 more where images differ in size, 8 for a partner) and writes every
column of every table once. An instruction is five integers, but for constants: code, and places among the numbers
made so far, or what the code says."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import ASTSource

from gpuaug_kernels import codes
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

BLOCK = 32
# of the search for partners: samples looked at together, and warps that look
CHUNK, WARPS = 64, 4
# rows of partners are told apart by 24 bits
ROWS = tl.constexpr(1 << 24)
BUFFERS = {name: getattr(torch, name) for name in codes.DTYPES}


class Code:
    """Instructions by place.  No tuple: triton takes one apart whenever it is looked into; and its hash is taken once,
    for every launch asks for it."""

    def __init__(self, values: Sequence[float]):
        self.values = tuple(values)
        self._hash = hash(self.values)

    def __getitem__(self, place: int) -> float:
        return self.values[place]

    def __len__(self) -> int:
        return len(self.values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and self.values == other.values

    def __repr__(self) -> str:
        # what the cache on disk knows a kernel by
        return f"Code{self.values}"


@dataclass(frozen=True, eq=False)
class Program:
    """What to compile."""

    code: Code
    columns: tuple[int, int, int, int]  # of all tables of each dtype of BUFFERS


@triton.jit
def wholes(OP: tl.constexpr, a, b):
    """Of two integers or truth values."""
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
        # the machine's division goes towards zero
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
def reals(OP: tl.constexpr, a, b):
    """Of one or two fractions."""
    if OP == DADD:
        out = a + b
    elif OP == DSUB:
        out = a - b
    elif OP == DMUL:
        out = a * b
    elif OP == DDIV:
        out = a / b
    elif OP == DMIN:
        # what is no number stays none
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
def between(OP: tl.constexpr, a, b, c):
    """Of both kinds."""
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
def given(OP: tl.constexpr, VALUE: tl.constexpr, known, at, mask, n, BLOCK: tl.constexpr):
    """A constant, or what is known of a sample.  known: id, occurrence, epoch, addresses of sizes and partners, words
    of the seed"""
    if OP == ICONST:
        out = tl.full((BLOCK,), VALUE, tl.int64)
    elif OP == DCONST:
        out = tl.full((BLOCK,), VALUE, tl.float64)
    elif OP == ID:
        out = known[0]
    elif OP == OCCURRENCE:
        out = known[1]
    elif OP == EPOCH:
        out = known[2]
    elif OP == LOW:
        out = tl.zeros_like(known[0]) + known[5]
    elif OP == HIGH:
        out = tl.zeros_like(known[0]) + known[6]
    elif OP == HEIGHT:
        out = tl.load(known[3] + 2 * at, mask=mask, other=1)
    elif OP == WIDTH:
        out = tl.load(known[3] + 2 * at + 1, mask=mask, other=1)
    else:
        tl.static_assert(OP == PARTNER, "no such instruction")
        out = tl.load(known[4] + VALUE * n + at, mask=mask, other=0)
    return out


@triton.jit
def words(C1: tl.constexpr, C0: tl.constexpr, known, low, high):
    """The four words of a counter, int64."""
    c2 = known[0].to(tl.uint32)
    c3 = (((known[0] >> 32) << EPOCH_BITS) | known[2]).to(tl.uint32)
    c1 = ((known[1] << OCCURRENCE_SHIFT) | C1).to(tl.uint32)
    zero = tl.zeros_like(c2)
    a, b, c, d = tl.philox_impl(zero + C0, c1, c2, c3, zero + low.to(tl.uint32), zero + high.to(tl.uint32))
    return a.to(tl.int64), b.to(tl.int64), c.to(tl.int64), d.to(tl.int64)


@triton.jit
def put(OP: tl.constexpr, value, buffers, place, mask):
    """A column of a table."""
    if OP == FLOAT32:
        tl.store(buffers[0] + place, value.to(tl.float32), mask=mask)
    elif OP == INT32:
        tl.store(buffers[1] + place, value.to(tl.int32), mask=mask)
    elif OP == FLOAT64:
        tl.store(buffers[2] + place, value, mask=mask)
    else:
        tl.static_assert(OP == INT64, "no such table")
        tl.store(buffers[3] + place, value, mask=mask)


@triton.jit(do_not_specialize=["low", "high", "epoch", "n"])
def trace(
    ids,
    occurrences,
    epoch,
    sizes,
    partners,
    low,
    high,
    floats,
    ints,
    doubles,
    longs,
    n,
    CODE: tl.constexpr,
    LENGTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A block of samples.  epoch: a number, or the address of one; low, high: the words of the seed, as int64"""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    now = epoch
    if epoch.dtype.is_ptr():
        now = tl.load(epoch)
    identity = tl.load(ids + at, mask=mask, other=0)
    known = (
        identity,
        tl.load(occurrences + at, mask=mask, other=0),
        tl.zeros_like(identity) + now,
        sizes,
        partners,
        low,
        high,
    )
    buffers = (floats, ints, doubles, longs)
    padded = (n + 15) // 16 * 16
    numbers = ()
    for k in tl.static_range(LENGTH):
        if CODE[FIELDS * k] < WORD:
            numbers = numbers + (given(CODE[FIELDS * k], CODE[FIELDS * k + 1], known, at, mask, n, BLOCK),)
        elif CODE[FIELDS * k] == WORD:
            numbers = numbers + words(CODE[FIELDS * k + 1], CODE[FIELDS * k + 2], known, low, high)
        elif CODE[FIELDS * k] < IWHERE:
            numbers = numbers + (
                wholes(CODE[FIELDS * k], numbers[CODE[FIELDS * k + 1]], numbers[CODE[FIELDS * k + 2]]),
            )
        elif (CODE[FIELDS * k] >= DADD) & (CODE[FIELDS * k] < DLT):
            numbers = numbers + (reals(CODE[FIELDS * k], numbers[CODE[FIELDS * k + 1]], numbers[CODE[FIELDS * k + 2]]),)
        elif CODE[FIELDS * k] < FLOAT32:
            numbers = numbers + (
                between(
                    CODE[FIELDS * k],
                    numbers[CODE[FIELDS * k + 1]],
                    numbers[CODE[FIELDS * k + 2]],
                    numbers[CODE[FIELDS * k + 3]],
                ),
            )
        else:
            # which number; columns before the table, of the table, before this one
            place = padded * CODE[FIELDS * k + 2] + at * CODE[FIELDS * k + 3] + CODE[FIELDS * k + 4]
            put(CODE[FIELDS * k], numbers[CODE[FIELDS * k + 1]], buffers, place, mask)


@triton.jit
def smaller(h, l, other_h, other_l):
    return (h < other_h) | ((h == other_h) & (l < other_l))


@triton.jit
def least(h, l, known):
    """The least of each row of pairs, by the first, then the second; the largest there is where none is known."""
    top = 0x7FFFFFFFFFFFFFFF
    high = tl.min(tl.where(known, h, top), 1)
    low = tl.min(tl.where(known & (h == high[:, None]), l, top), 1)
    return high, low


@triton.jit
def sort_keys(ids, occurrences, now, at, n, low, high, C1: tl.constexpr):
    """What samples are sorted by: word, id, occurrence and row, as two int64."""
    mask = at < n
    identity, occurrence = tl.load(ids + at, mask=mask, other=0), tl.load(occurrences + at, mask=mask, other=0)
    word, _, _, _ = words(C1, 0, (identity, occurrence, tl.zeros_like(identity) + now), low, high)
    # ids have 46 bits, occurrences 12
    return (word << 31) | (identity >> 15), ((((identity & 0x7FFF) << 12) | occurrence) * ROWS) | at


@triton.jit(do_not_specialize=["low", "high", "epoch", "n"])
def partner(ids, occurrences, epoch, low, high, out, n, C1: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr):
    """The next in the cycle of a batch sorted by its keys, for a block of samples: all are looked at, n^2 in all, which
    for a batch is little."""
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
        oh, ol, known = oh[None, :], ol[None, :], (there < n)[None, :]
        known = known & (at < n)[:, None]
        ah, al = least(oh, ol, known)
        nearer = smaller(ah, al, first_h, first_l)
        first_h, first_l = tl.where(nearer, ah, first_h), tl.where(nearer, al, first_l)
        ah, al = least(oh, ol, known & smaller(h[:, None], l[:, None], oh, ol))
        nearer = smaller(ah, al, next_h, next_l)
        next_h, next_l = tl.where(nearer, ah, next_h), tl.where(nearer, al, next_l)
    # nobody comes after the last but the first
    row = tl.where(next_l == 0x7FFFFFFFFFFFFFFF, first_l, next_l) % ROWS
    tl.store(out + at, row, mask=at < n)


def run(
    program: Program, keys: tuple[Tensor, Tensor, int | Tensor, int], size: Tensor, partners: Tensor
) -> tuple[Tensor, ...]:
    """The buffers of all tables: table after table [N rounded up to 16, columns], each from its own column of
    `program.columns`.

    keys: ids and occurrences [N] int64, epoch (int64 on the device, or a number), seed.  size: [N, 2] int64; partners:
    [slots, N] int64"""
    ids, occurrences, epoch, seed = keys
    n = len(ids)
    _check(ids, occurrences, size, partners)
    padded = -(-n // 16) * 16
    out = tuple(
        torch.empty(padded * c, dtype=d, device=ids.device)
        for c, d in zip(program.columns, BUFFERS.values(), strict=True)
    )
    if n:
        with torch.cuda.device_of(ids):
            trace[(triton.cdiv(n, BLOCK),)](
                *(ids, occurrences, epoch, size, partners, seed & 0xFFFFFFFF, seed >> 32, *out, n),
                **constants(program),
                **OPTIONS,
            )
    return out


OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}


def constants(program: Program) -> dict[str, object]:
    """What the kernel is specialised on."""
    return {"CODE": program.code, "LENGTH": len(program.code) // codes.FIELDS, "BLOCK": BLOCK}


def partners(ids: Tensor, occurrences: Tensor, epoch: int | Tensor, seed: int, c1: int) -> Tensor:
    """The row of each sample's partner: [N] int64.  c1: domain and slot of the counter"""
    n = len(ids)
    if n >= ROWS.value:
        raise ValueError(f"a batch must have fewer than {ROWS.value} samples, got {n}")
    out = torch.empty_like(ids)
    if n:
        with torch.cuda.device_of(ids):
            partner[(triton.cdiv(n, BLOCK),)](
                ids,
                occurrences,
                epoch,
                seed & 0xFFFFFFFF,
                seed >> 32,
                out,
                n,
                C1=c1,
                BLOCK=BLOCK,
                CHUNK=CHUNK,
                num_warps=WARPS,
            )
    return out


def _check(*tensors: Tensor) -> None:
    for t in tensors:
        if t.dtype != torch.int64 or not t.is_contiguous() or t.device != tensors[0].device:
            raise ValueError(
                f"what is known of samples must be contiguous int64 on {tensors[0].device}, got {t.dtype} of strides {t.stride()} on {t.device}"
            )


def ahead(program: Program) -> ASTSource:
    """The kernel that a launch would compile, for triton.compile and any target: epoch a number, tensors aligned."""
    pointers = {
        "ids": "*i64",
        "occurrences": "*i64",
        "sizes": "*i64",
        "partners": "*i64",
        "floats": "*fp32",
        "ints": "*i32",
        "doubles": "*fp64",
        "longs": "*i64",
    }
    types = {**pointers, "epoch": "i64", "low": "i64", "high": "i64", "n": "i32"}
    constant = constants(program)
    signature = {name: "constexpr" if name in constant else types[name] for name in trace.arg_names}
    return ASTSource(
        fn=trace,
        signature=signature,
        constexprs=constant,
        attrs={(trace.arg_names.index(k),): [["tt.divisibility", 16]] for k in pointers},
    )
