"""Integer and float operations of TTGIR on NumPy arrays, and the memory that they work on."""

from collections.abc import Callable
from typing import Any

import numpy as np

Value = Any  # a scalar or an array; pointers are addresses, int64


class Memory:
    """Buffers at addresses of their own, as NumPy arrays of bytes; zeros, where nothing was written."""

    def __init__(self) -> None:
        self._end = 1 << 12
        self._buffers: list[tuple[int, int, str, np.ndarray]] = []

    def place(self, data: np.ndarray, name: str, align: int = 512) -> int:
        """The address of a copy of an array."""
        at = -(-self._end // align) * align
        raw = data.reshape(-1).view(np.uint8)
        self._buffers.append((at, at + raw.size, name, raw))
        self._end = at + raw.size + 512
        return at

    def name(self, address: int) -> str:
        """The buffer that holds an address."""
        for first, last, name, _ in self._buffers:
            if first <= address < last + 4:
                return name
        raise IndexError(f"address {address} is in no buffer")

    def _find(self, address: np.ndarray) -> tuple[int, np.ndarray]:
        low, high = int(address.min()), int(address.max())
        for first, last, _, raw in self._buffers:
            # a word that holds the last byte may end beyond it
            if first - 8 <= low and high < last + 8:
                return first, raw
        raise IndexError(f"addresses {low} to {high} are not in one buffer")

    def load(self, address: np.ndarray, size: int) -> np.ndarray:
        """[..., size] bytes."""
        if not address.size:
            return np.zeros((*address.shape, size), np.uint8)
        first, raw = self._find(address)
        where = address[..., None] - first + np.arange(size)
        return raw[np.clip(where, 0, raw.size - 1)]

    def store(self, address: np.ndarray, data: np.ndarray) -> None:
        """The reverse."""
        if address.size:
            first, raw = self._find(address)
            where = address[..., None] - first + np.arange(data.shape[-1])
            if where.min() < 0 or where.max() >= raw.size:
                raise IndexError("a store beyond its buffer")
            raw[where] = data


def varying(x: np.ndarray) -> int:
    """Which bits of its flat index an array of a power of two of values varies with, as a mask."""
    flat, mask = x.reshape(-1), 0
    for k in range(flat.size.bit_length() - 1):
        pairs = flat.reshape(-1, 2, 1 << k)
        if not np.array_equal(pairs[:, 0], pairs[:, 1], equal_nan=flat.dtype.kind == "f"):
            mask |= 1 << k
    return mask


def moved_bits(mask: int, shape: tuple[int, ...], function: Callable[[Value], Value]) -> int:
    """A mask of bits of a flat index after a function that only moves values, or repeats them."""
    index = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    return varying(np.asarray(function(index & mask)))


def bf16(x: np.ndarray) -> np.ndarray:
    """float32 rounded to bfloat16, as float32."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def unsigned(x: Value) -> Value:
    x = np.asarray(x)
    return x.view({1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[x.dtype.itemsize]) if x.dtype != bool else x


COMPARE: dict[str, Callable[[Value, Value], Value]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def _truncate(a: Value, b: Value) -> Value:
    """Integer division towards zero; by zero 0."""
    a, b = np.asarray(a), np.asarray(b)
    safe = np.where(b == 0, 1, b)
    return (np.sign(a) * np.sign(safe) * (np.abs(a.astype(np.int64)) // np.abs(safe.astype(np.int64)))).astype(a.dtype)


def _shift_right(a: Value, b: Value) -> Value:
    u = unsigned(a)
    return (u >> unsigned(b)).view(np.asarray(a).dtype)


def _maximum(a: Value, b: Value) -> Value:
    return np.maximum(a, b)


def _to_integer(x: Value) -> Value:
    return np.nan_to_num(np.trunc(x), nan=0.0, posinf=2.0e9, neginf=-2.0e9).clip(-2147483648.0, 2147483520.0)


ARITHMETIC: dict[str, Callable[..., Value]] = {
    "addi": np.add,
    "subi": np.subtract,
    "muli": np.multiply,
    "addf": np.add,
    "subf": np.subtract,
    "mulf": np.multiply,
    "divf": np.divide,
    "negf": np.negative,
    "andi": np.bitwise_and,
    "ori": np.bitwise_or,
    "xori": np.bitwise_xor,
    "shli": np.left_shift,
    "shrui": _shift_right,
    "shrsi": np.right_shift,
    "minsi": np.minimum,
    "maxsi": np.maximum,
    "minui": lambda a, b: np.minimum(unsigned(a), unsigned(b)).view(np.asarray(a).dtype),
    "maxui": lambda a, b: np.maximum(unsigned(a), unsigned(b)).view(np.asarray(a).dtype),
    "minnumf": np.fmin,
    "maxnumf": np.fmax,
    "minimumf": np.minimum,
    "maximumf": np.maximum,
    "divsi": _truncate,
    "divui": lambda a, b: (unsigned(a) // np.where(unsigned(b) == 0, 1, unsigned(b))).astype(np.asarray(a).dtype),
    "remsi": lambda a, b: np.asarray(a) - _truncate(a, b) * np.asarray(b),
    "remui": lambda a, b: (unsigned(a) % np.where(unsigned(b) == 0, 1, unsigned(b))).astype(np.asarray(a).dtype),
    "extsi": lambda x: x if np.asarray(x).dtype != bool else -np.asarray(x).astype(np.int8),
    "extui": unsigned,
    "extf": lambda x: x,
    "truncf": lambda x: x,
    "trunci": lambda x: x,
    "sitofp": lambda x: x,
    "uitofp": unsigned,
    "fptosi": _to_integer,
    "fptoui": _to_integer,
    "floor": np.floor,
    "ceil": np.ceil,
    "absf": np.abs,
    "absi": np.abs,
    "sqrt": np.sqrt,
    "log": np.log,
    "exp": np.exp,
    "fma": lambda a, b, c: a * b + c,
}
# operations that are no instruction: a number of 64 bits lies in two registers, which are named one by one
FREE = {("extui", "i32", "i64"), ("trunci", "i64", "i32")}
