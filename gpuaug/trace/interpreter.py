"""The interpreter that runs traces on a host: compiled by Numba once for all of them, never per policy.

It takes each instruction for a block of 64 samples before the next, so that the cost of decoding is shared and LLVM
vectorises the loops.  A register is a row of 64 values; `gpuaug.trace.host` says which instruction uses which."""

import math

import numpy as np
from gpuaug_kernels.codes import (
    DABS,
    DADD,
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
    FLOAT32,
    FLOAT64,
    HEIGHT,
    HIGH,
    IADD,
    IAND,
    ID,
    IDIV,
    IEQ,
    ILE,
    ILT,
    IMAX,
    IMIN,
    IMUL,
    INT32,
    IOR,
    ISHL,
    ISHR,
    ISUB,
    LOW,
    OCCURRENCE,
    TO_INTEGER,
    WIDTH,
    WORD,
)
from numba import uint32

from gpuaug.numba_cache import kernel, njit
from gpuaug.rng.host import counter_1, counter_3, philox_words

BLOCK = 64


@njit
def _words(i, to, c1, c0, seed, counter):
    """The four words of a counter for a block of samples.

    seed: the key; counter: the occurrence in its place in c1, c2 and c3
    of every sample"""
    a, b, c, d = i[to[0]], i[to[1]], i[to[2]], i[to[3]]
    k0, k1 = uint32(seed[0]), uint32(seed[1])
    for j in range(BLOCK):
        w0, w1, w2, w3 = philox_words(k0, k1, c0, uint32(c1 | counter[0, j]), counter[1, j], counter[2, j])
        a[j], b[j], c[j], d[j] = w0, w1, w2, w3


@njit
def _inputs(op, out, x, first, count, seed, epoch, ids, occurrences, sizes, partners):
    """What a batch brings: ids, occurrences, epoch, the key, sizes and the rows of partners."""
    for j in range(count):
        n = first + j
        if op == ID:
            out[j] = ids[n]
        elif op == OCCURRENCE:
            out[j] = occurrences[n]
        elif op == EPOCH:
            out[j] = epoch
        elif op == LOW:
            out[j] = seed[0]
        elif op == HIGH:
            out[j] = seed[1]
        elif op == HEIGHT:
            out[j] = sizes[n, 0]
        elif op == WIDTH:
            out[j] = sizes[n, 1]
        else:
            out[j] = partners[x, n]


@njit
def _integer(op, out, a, b, c):
    """Integers and truth values."""
    if op == IADD:
        for j in range(BLOCK):
            out[j] = a[j] + b[j]
    elif op == ISUB:
        for j in range(BLOCK):
            out[j] = a[j] - b[j]
    elif op == IMUL:
        for j in range(BLOCK):
            out[j] = a[j] * b[j]
    elif op == IAND:
        for j in range(BLOCK):
            out[j] = a[j] & b[j]
    elif op == IOR:
        for j in range(BLOCK):
            out[j] = a[j] | b[j]
    elif op == ISHL:
        for j in range(BLOCK):
            out[j] = a[j] << b[j]
    elif op == ISHR:
        for j in range(BLOCK):
            out[j] = a[j] >> b[j]
    elif op == IDIV:
        for j in range(BLOCK):
            out[j] = a[j] // b[j] if b[j] != 0 else 0
    elif op == IMIN:
        for j in range(BLOCK):
            out[j] = min(a[j], b[j])
    elif op == IMAX:
        for j in range(BLOCK):
            out[j] = max(a[j], b[j])
    elif op == ILT:
        for j in range(BLOCK):
            out[j] = a[j] < b[j]
    elif op == ILE:
        for j in range(BLOCK):
            out[j] = a[j] <= b[j]
    elif op == IEQ:
        for j in range(BLOCK):
            out[j] = a[j] == b[j]
    else:
        for j in range(BLOCK):
            out[j] = b[j] if a[j] != 0 else c[j]


@njit
def _floating(op, out, a, b):
    """float64 arithmetic, IEEE 754 to the bit."""
    if op == DADD:
        for j in range(BLOCK):
            out[j] = a[j] + b[j]
    elif op == DSUB:
        for j in range(BLOCK):
            out[j] = a[j] - b[j]
    elif op == DMUL:
        for j in range(BLOCK):
            out[j] = a[j] * b[j]
    elif op == DDIV:
        for j in range(BLOCK):
            out[j] = a[j] / b[j]
    elif op == DMIN:
        for j in range(BLOCK):
            # NaN in either operand gives NaN, as in torch
            out[j] = a[j] if a[j] < b[j] or a[j] != a[j] else b[j]
    elif op == DMAX:
        for j in range(BLOCK):
            out[j] = a[j] if a[j] > b[j] or a[j] != a[j] else b[j]
    elif op == DNEG:
        for j in range(BLOCK):
            out[j] = -a[j]
    elif op == DABS:
        for j in range(BLOCK):
            out[j] = abs(a[j])
    elif op == DSQRT:
        for j in range(BLOCK):
            out[j] = math.sqrt(a[j])
    elif op == DFLOOR:
        for j in range(BLOCK):
            out[j] = np.floor(a[j])
    elif op == DTRUNC:
        for j in range(BLOCK):
            out[j] = np.trunc(a[j])
    elif op == DROUND:
        for j in range(BLOCK):
            out[j] = np.rint(a[j])
    else:
        for j in range(BLOCK):
            out[j] = np.float64(np.float32(a[j]))


@njit
def _functions(op, out, a, count):
    """Functions of the C library: the same that `gpuaug.rng.host.apply` calls, so that tracing changes no bit."""
    for j in range(count):
        if op == DEXP:
            out[j] = math.exp(a[j])
        elif op == DLOG:
            out[j] = math.log(a[j])
        elif op == DSIN:
            out[j] = math.sin(a[j])
        else:
            out[j] = math.cos(a[j])


@njit
def _converting(op, i, d, to, x, y, z):
    """What takes both kinds of value: comparisons of floats, a choice between floats, conversions."""
    if op == DLT:
        for j in range(BLOCK):
            i[to, j] = d[x, j] < d[y, j]
    elif op == DLE:
        for j in range(BLOCK):
            i[to, j] = d[x, j] <= d[y, j]
    elif op == DEQ:
        for j in range(BLOCK):
            i[to, j] = d[x, j] == d[y, j]
    elif op == DWHERE:
        for j in range(BLOCK):
            d[to, j] = d[y, j] if i[x, j] != 0 else d[z, j]
    elif op == TO_INTEGER:
        for j in range(BLOCK):
            i[to, j] = np.int64(d[x, j])
    else:
        for j in range(BLOCK):
            d[to, j] = np.float64(i[x, j])


@njit
def _store(op, at, width, count, i, d, y, buffers):
    """One column of a table, for a block of samples.  at: of its first element; width: columns of the table"""
    floats, ints, doubles, longs = buffers
    if op == FLOAT32:
        for j in range(count):
            floats[at + j * width] = d[y, j]
    elif op == INT32:
        for j in range(count):
            ints[at + j * width] = i[y, j]
    elif op == FLOAT64:
        for j in range(count):
            doubles[at + j * width] = d[y, j]
    else:
        for j in range(count):
            longs[at + j * width] = i[y, j]


@kernel
def interpret(code, integers, floats, registers, seed, epoch, given, starts, widths, buffers):
    """All samples through a program, into the buffers of its tables.

    code, integers, floats, registers: of `gpuaug.trace.host.Bytecode`.  seed: [2] uint32, the key.  given: ids [n],
    occurrences [n], sizes [n, 2] and partners [slots, n], int64.  starts, widths: of every table, where it begins in
    the buffer of its dtype, and its columns.  buffers: float32, int32, float64, int64, flat"""
    ids, occurrences, sizes, partners = given
    i, d = np.zeros((registers[0], BLOCK), np.int64), np.zeros((registers[1], BLOCK), np.float64)
    counter = np.zeros((3, BLOCK), np.uint32)
    for r in range(len(integers)):
        i[r] = integers[r]
    for r in range(len(floats)):
        d[r] = floats[r]
    for first in range(0, len(ids), BLOCK):
        count = min(BLOCK, len(ids) - first)
        for j in range(count):
            n = first + j
            counter[0, j] = counter_1(occurrences[n])
            counter[1, j] = uint32(ids[n] & 0xFFFFFFFF)
            counter[2, j] = counter_3(ids[n], epoch)
        pc = 0
        while pc < code.shape[0]:
            op, to, x, y, z = code[pc, 0], code[pc, 1], code[pc, 2], code[pc, 3], code[pc, 4]
            pc += 1
            if op < WORD:
                _inputs(op, i[to], x, first, count, seed, epoch, ids, occurrences, sizes, partners)
            elif op == WORD:
                _words(i, (to, x, y, z), uint32(code[pc, 0]), uint32(code[pc, 1]), seed, counter)
                pc += 1
            elif op < DADD:
                _integer(op, i[to], i[x], i[y], i[z])
            elif op < DEXP:
                _floating(op, d[to], d[x], d[y])
            elif op < DLT:
                _functions(op, d[to], d[x], count)
            elif op < FLOAT32:
                _converting(op, i, d, to, x, y, z)
            else:
                _store(op, starts[to] + first * widths[to] + x, widths[to], count, i, d, y, buffers)
