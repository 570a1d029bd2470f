"""A trace: the straight-line program that makes one sample's parameters, in static single assignment form.

Every instruction makes one value, and the instruction's place in the list is the value's number.  For example, a coin
with p = 0.5 is

    0  word 0 0 0        word 0 of this sample's Philox counter for slot 0, draw 0
    1  iconst            8
    2  ishr 0 1          24 random bits
    3  to_float 2
    4  dconst            2^-24
    5  dmul 3 4          uniform in [0, 1)
    6  dconst            0.5
    7  dlt 5 6           the coin

A value is an int64 ("i", truth values included) or a float64 ("d").  A float32 is a float64 that "single" has rounded;
that gives the bits of float32 arithmetic, since a sum, product, quotient or root of two float32 values that is rounded
to float64 first is rounded to float32 as if at once (float64 has 53 bits, and 2 * 24 + 2 are enough).

While instructions are added, constants are folded and what was computed already is not computed again."""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Number = int | float

# name -> (kind of the result, kinds of the arguments, "#" for a plain integer; how constants are folded, None: never)
_OPS: dict[str, tuple[str, str, Callable[..., Number] | None]] = {
    "id": ("i", "", None),
    "occurrence": ("i", "", None),
    "epoch": ("i", "", None),
    # the two 32-bit words of the key, which is the seed
    "low": ("i", "", None),
    "high": ("i", "", None),
    "height": ("i", "", None),
    "width": ("i", "", None),
    # an input of a number of `inputs`, such as the row of the partner in a mix, found before the program runs
    "partner": ("i", "#", None),
    # domain and slot, draw number, lane: one of the four words of that Philox counter
    "word": ("i", "###", None),
    "iadd": ("i", "ii", lambda a, b: _wrap(a + b)),
    "isub": ("i", "ii", lambda a, b: _wrap(a - b)),
    "imul": ("i", "ii", lambda a, b: _wrap(a * b)),
    "iand": ("i", "ii", lambda a, b: a & b),
    "ior": ("i", "ii", lambda a, b: a | b),
    "ishl": ("i", "ii", lambda a, b: _wrap(a << b)),
    "ishr": ("i", "ii", lambda a, b: a >> b),
    "idiv": ("i", "ii", lambda a, b: a // b if b else 0),
    "imin": ("i", "ii", min),
    "imax": ("i", "ii", max),
    "ilt": ("i", "ii", lambda a, b: int(a < b)),
    "ile": ("i", "ii", lambda a, b: int(a <= b)),
    "ieq": ("i", "ii", lambda a, b: int(a == b)),
    "iwhere": ("i", "iii", lambda c, a, b: a if c else b),
    "dadd": ("d", "dd", lambda a, b: float(np.add(a, b))),
    "dsub": ("d", "dd", lambda a, b: float(np.subtract(a, b))),
    "dmul": ("d", "dd", lambda a, b: float(np.multiply(a, b))),
    "ddiv": ("d", "dd", lambda a, b: float(np.divide(a, b))),
    "dmin": ("d", "dd", lambda a, b: float(np.minimum(a, b))),
    "dmax": ("d", "dd", lambda a, b: float(np.maximum(a, b))),
    "dneg": ("d", "d", lambda a: -a),
    "dabs": ("d", "d", abs),
    "dsqrt": ("d", "d", lambda a: float(np.sqrt(a))),
    "dfloor": ("d", "d", lambda a: float(np.floor(a))),
    "dtrunc": ("d", "d", lambda a: float(np.trunc(a))),
    "dround": ("d", "d", lambda a: float(np.rint(a))),
    "dexp": ("d", "d", None),
    "dlog": ("d", "d", None),
    "dsin": ("d", "d", None),
    "dcos": ("d", "d", None),
    "dlt": ("i", "dd", lambda a, b: int(a < b)),
    "dle": ("i", "dd", lambda a, b: int(a <= b)),
    "deq": ("i", "dd", lambda a, b: int(a == b)),
    "dwhere": ("d", "idd", lambda c, a, b: a if c else b),
    "single": ("d", "d", lambda a: float(np.float32(a))),
    # of a float64 that is an integer and lies below 2^63
    "to_integer": ("i", "d", lambda a: int(a) if math.isfinite(a) and abs(a) < 2**63 else -(2**63)),
    "to_float": ("d", "i", float),
}
NAMES = ("iconst", "dconst", *_OPS)
KINDS = {name: kind for name, (kind, _, _) in _OPS.items()} | {"iconst": "i", "dconst": "d"}
# places in an instruction that refer to values; the others ("#") hold plain integers
REFERS = {name: tuple(i for i, a in enumerate(arguments) if a != "#") for name, (_, arguments, _) in _OPS.items()} | {
    "iconst": (),
    "dconst": (),
}


def _wrap(value: int) -> int:
    """An integer as int64 arithmetic wraps it."""
    return ((value + 2**63) & (2**64 - 1)) - 2**63


@dataclass(frozen=True)
class Table:
    """A tensor that a program fills for every batch: [N, *shape] of a dtype."""

    dtype: str  # "float32", "int32", "float64" or "int64"
    shape: tuple[int, ...]
    numbers: tuple[int, ...]  # the value that goes into each column, row-major over `shape`


@dataclass
class Trace:
    """Instructions in an order in which they can run: each refers to values before its own."""

    code: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)  # name and arguments
    constants: dict[int, Number] = field(default_factory=dict)
    required: set[int] = field(default_factory=set)  # truth values that must hold for every sample
    _known: dict[tuple[object, ...], int] = field(default_factory=dict)  # instruction -> its value

    def constant(self, value: Number) -> int:
        """The value that is this for every sample."""
        kind = "dconst" if isinstance(value, float) else "iconst"
        # by its bits: NaN equals itself here, and -0.0 is not 0.0
        key = (kind, struct.pack("d", value) if kind == "dconst" else value)
        if key not in self._known:
            self.constants[len(self.code)] = value
            self._append(key, (kind, ()))
        return self._known[key]

    def add(self, op: str, *arguments: int) -> int:
        """The value that an instruction makes: a new one only where nothing gives it already."""
        known = [self.constants.get(a) for a in arguments]
        fold = _OPS[op][2]
        if fold and all(v is not None for v in known):
            with np.errstate(all="ignore"):
                return self.constant(fold(*known))
        same = self._same(op, arguments, known)
        if same is not None:
            return same
        key = (op, *arguments)
        if key not in self._known:
            self._append(key, (op, arguments))
        return self._known[key]

    def _same(self, op: str, arguments: tuple[int, ...], known: list[Number | None]) -> int | None:
        """The value that an instruction would only repeat, bit for bit: x + 0 of integers is x, of floats -0.0 is not.

        known: its arguments that are constants"""
        if op in ("iwhere", "dwhere"):
            _, yes, no = arguments
            if yes == no or known[0] is not None:
                return yes if yes == no or known[0] else no
        if op in ("iadd", "ior", "isub", "ishl", "ishr") and known[1] == 0:
            return arguments[0]
        if op in ("iadd", "ior") and known[0] == 0:
            return arguments[1]
        if op in ("imul", "dmul") and 1 in known:
            return arguments[known.index(1) ^ 1]
        if op == "ddiv" and known[1] == 1:
            return arguments[0]
        if op == "imul" and 0 in known:
            return self.constant(0)
        if op == "single" and self.code[arguments[0]][0] == "single":
            return arguments[0]
        return None

    def _append(self, key: tuple[object, ...], instruction: tuple[str, tuple[int, ...]]) -> None:
        self._known[key] = len(self.code)
        self.code.append(instruction)

    def kind(self, number: int) -> str:
        """Of a value: "i" or "d"."""
        return KINDS[self.code[number][0]]


def needed(trace: Trace, tables: tuple[Table, ...]) -> list[int]:
    """The values that the tables depend on, in order: all others are dead code."""
    wanted = {n for t in tables for n in t.numbers}
    for number in range(len(trace.code) - 1, -1, -1):
        if number in wanted:
            op, arguments = trace.code[number]
            wanted.update(arguments[i] for i in REFERS[op])
    return sorted(wanted)
