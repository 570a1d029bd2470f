"""Functions compiled by Numba whose machine code is kept on disk where that is possible; where it is not, they still run."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

_ROOT = Path(__file__).parent


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled entry point that releases the GIL.  What it calls is compiled into it and needs no cache of its own."""
    # a division by 0 gives what it gives in C, without a test that would keep loops from being vectorised
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    try:
        dispatcher._cache = _Kept(function)
    except (RuntimeError, OSError):
        # no folder can be written: compiled again in every process
        pass
    return dispatcher  # type: ignore[no-any-return]


class _Kept(FunctionCache):  # type: ignore[misc]
    """Numba's cache, but stale when any compiled source changes, and silent when the disk is full or a file is broken."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(function)
        self._cache_file._source_stamp = _sources()

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            super().save_overload(*arguments)
        except Exception:
            # a full disk, or an index that cannot be read
            pass


@cache
def _sources() -> str:
    """A digest of every file that is compiled: Numba itself looks at the entry point's file only."""
    files = [_ROOT / "rng" / "host.py", *sorted((_ROOT / "trace").glob("*.py")), *sorted((_ROOT / "exec" / "cpu").glob("*.py"))]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
