"""Checks of the arguments that users pass: each says what was wrong, what it got, what is expected and what to do."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np

# interpolations by their names and by Pillow's numbers
KERNELS = {n: n for n in ("nearest", "nearest-exact", "bilinear", "bicubic", "lanczos")}
_PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and low <= float(value) <= high):
        raise ValueError(f"{name} must be {_range(low, high)}, got {value}")
    return float(value)


def probability(name: str, value: Any) -> float:
    """A number in [0, 1]."""
    return number(name, value, 0.0, 1.0)


def optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """The check, which lets None through."""
    return lambda name, value: None if value is None else check(name, value)


def _range(low: float, high: float) -> str:
    if low == -math.inf:
        return "a finite number"
    return f"a finite number >= {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """An integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    whole = int(value)
    if whole < low or (high is not None and whole > high):
        bound = f">= {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {bound}, got {value}")
    return whole


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def numbers(
    name: str, value: Any, lengths: tuple[int, ...] | None = None, low: float = -math.inf, high: float = math.inf
) -> tuple[float, ...]:
    """A sequence of finite numbers in [low, high], of one of these lengths."""
    values = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a sequence of numbers, got {value!r}")
    items = tuple(number(f"{name}[{i}]", v, low, high) for i, v in enumerate(values))
    if not items or (lengths and len(items) not in lengths):
        raise ValueError(
            f"{name} must have {' or '.join(map(str, lengths or ('at least 1',)))} values, got {len(items)}"
        )
    return items


def interval(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
    """(low end, high end), not upside down."""
    a, b = numbers(name, value, (2,), low, high)
    if a > b:
        raise ValueError(f"{name} must run from low to high, got ({a:g}, {b:g}); swap them")
    return a, b


def around(name: str, value: Any) -> tuple[float, float]:
    """(-v, v) for a number v >= 0, or an interval as it is."""
    if isinstance(value, Real):
        v = number(name, value)
        if v < 0:
            raise ValueError(f"{name} must be >= 0, got {value}; pass (low, high) for an asymmetric range")
        return -v, v
    return interval(name, value)


def size(name: str, value: Any) -> tuple[int, int]:
    """(H, W): a number stands for a square."""
    if isinstance(value, Integral):
        side = integer(name, value, 1)
        return side, side
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"{name} must be a number or (height, width), got {value!r}")
    if len(value) not in (1, 2):
        raise ValueError(f"{name} must have 1 or 2 values, got {len(value)}")
    return integer(f"{name}[0]", value[0], 1), integer(f"{name}[-1]", value[-1], 1)


def interpolation(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """The name of an interpolation: torchvision's InterpolationMode, its value, or Pillow's number."""
    named = getattr(value, "value", value)
    kernel = KERNELS.get(named) if isinstance(named, str) else None
    if isinstance(named, Real) and not isinstance(named, bool):
        kernel = _PILLOW.get(named)  # type: ignore[call-overload]
    if kernel is None or kernel not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return kernel


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """One of these words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def share(name: str, value: Any, call: str) -> float:
    """A value of a pixel, in [0, 1]; what is meant for 0 to 255 is told what to write.  call: "RandomSolarize({})" """
    if isinstance(value, Real) and not isinstance(value, bool) and 1 < float(value) <= 255:
        said = call.format(f"{float(value):g} / 255")
        raise ValueError(
            f"{name} must be in [0, 1], got {value}: values run from 0 to 1 here, on uint8 images too; "
            f"divide by 255: {said}"
        )
    return number(name, value, 0.0, 1.0)


def named(value: Any) -> str:
    """The type of what should be an image, with what to do about a file that was not opened."""
    kind = type(value).__name__
    if isinstance(value, str | PathLike):
        return f"{kind} {str(value)[:80]!r}; open a file first, such as PIL.Image.open(path)"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{kind}; decode a file's bytes first, such as PIL.Image.open(io.BytesIO(data))"
    return kind


def array(name: str, values: Any) -> np.ndarray[Any, Any]:
    """An array of numbers, one row per image."""
    try:
        out = np.asarray(values)
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"{name} must be numbers, got a {type(values).__name__} that is no array: {error}; "
            "pass a tensor, such as torch.stack makes one"
        ) from None
    except ValueError:
        raise ValueError(
            f"{name} must have rows of one length, got a {type(values).__name__} whose rows differ; "
            "pass [N] numbers or [N, K] rows"
        ) from None
    if out.dtype.kind in "biuf":
        return out
    found = next((v for v in out.flat if not isinstance(v, Real)), values)
    do = "leave the argument out where there are none" if found is None else "pass [N] numbers or [N, K] rows"
    if isinstance(found, str):
        do = "number the names first, such as {name: number for number, name in enumerate(sorted(set(names)))}"
    raise TypeError(f"{name} must be numbers, got {str(found)[:80]!r} of type {type(found).__name__}; {do}")


def fill(name: str, value: Any, none: bool = True) -> float | tuple[float, ...] | None:
    """A number, one number per channel, or, with `none`, None."""
    if value is None and none:
        return None
    if isinstance(value, dict):
        raise TypeError(
            f"{name} by type of input is not supported, got a dict; pass a number or one number per channel"
        )
    if isinstance(value, Real):
        return number(name, value)
    return numbers(name, value)
