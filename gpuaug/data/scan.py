"""Headers of ordinary JPEGs, a batch in one compiled call: those that `headers.read` calls plain and upright and that
hold nothing it would think about.

Whatever is not so is left to `headers.read`, which alone says what a header means."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gpuaug.data.files import Files
from gpuaug.numba_cache import kernel

# what is found: 0 in its first column where the header is not ordinary
HEIGHT, WIDTH, CHANNELS, BITS, CODE, COLUMNS = range(6)
# how far from its end a file's last marker is looked for, as in `headers`
_TAIL = 64


_BYTES = (memoryview, bytes, bytearray)


@intrinsic
def _byte(typingctx, address):
    """The byte at an address."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.PointerType(ir.IntType(8)))
        return builder.load(pointer)

    return types.uint8(types.int64), codegen


@kernel
def scan(addresses, sizes, out):
    """addresses, sizes: [N] int64 of the files.  out: [N, COLUMNS] int64"""
    for n in range(len(addresses)):
        begin, size = addresses[n], sizes[n]
        out[n, HEIGHT] = 0
        if size < 4 or _byte(begin) != 0xFF or _byte(begin + 1) != 0xD8 or _byte(begin + 2) != 0xFF:
            continue
        at, frame = 2, 0
        while True:
            if at + 4 > size or _byte(begin + at) != 0xFF:
                frame = 0
                break
            code = int(_byte(begin + at + 1))
            length = int(_byte(begin + at + 2)) * 256 + int(_byte(begin + at + 3))
            after = at + 2 + length
            if code == 0xDA:
                if after > size or length < 2:
                    frame = 0
                break
            # tables, restart intervals, comments, and applications but Exif's and Adobe's XMP, which may say what is up
            table = code == 0xC4 or code == 0xDB or code == 0xDD or code == 0xFE
            application = code == 0xE0 or 0xE2 <= code <= 0xEF
            framing = 0xC0 <= code <= 0xCF and not table and code != 0xC8 and code != 0xCC
            if not (table or application or framing) or length < 2 or after > size:
                frame = 0
                break
            if framing:
                if frame or length < 8 or length != 8 + 3 * int(_byte(begin + at + 9)):
                    frame = 0
                    break
                frame = 1
                out[n, BITS] = _byte(begin + at + 4)
                out[n, HEIGHT] = int(_byte(begin + at + 5)) * 256 + int(_byte(begin + at + 6))
                out[n, WIDTH] = int(_byte(begin + at + 7)) * 256 + int(_byte(begin + at + 8))
                out[n, CHANNELS] = _byte(begin + at + 9)
                out[n, CODE] = code
            at = after
        ended = 0
        for k in range(max(size - _TAIL, 0), size - 1):
            if _byte(begin + k) == 0xFF and _byte(begin + k + 1) == 0xD9:
                ended = 1
        if not (frame and ended and out[n, HEIGHT] and out[n, WIDTH]):
            out[n] = 0


def table(items: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[N, COLUMNS] of a batch's items; rows of zeros for all but ordinary JPEGs."""
    addresses, sizes = (items.addresses, items.sizes) if isinstance(items, Files) else _places(items)
    out = np.zeros((len(items), COLUMNS), np.int64)
    scan(addresses, sizes, out)
    return out


def _places(items: Sequence[Any]) -> tuple[Any, Any]:
    arrays = [np.frombuffer(i, np.uint8) if isinstance(i, _BYTES) else None for i in items]
    addresses = np.array([0 if a is None else a.__array_interface__["data"][0] for a in arrays], np.int64)
    return addresses, np.array([0 if a is None else a.size for a in arrays], np.int64)
