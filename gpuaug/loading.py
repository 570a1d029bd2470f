"""Modules that are loaded when they are first needed."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Hold back Python's collector of cycles while modules are loaded.  They are kept, and each of its looks at all
    that torch has loaded takes a tenth of a second."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
