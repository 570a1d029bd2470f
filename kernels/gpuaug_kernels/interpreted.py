"""Triton's interpreter with a NumPy that is later than it: that of Triton 3.6 makes the bounds of a loop from arrays of
one element, which NumPy 2.5 converts no more.  Triton 3.7 squeezes them first."""

from functools import cache
from typing import Any

import triton
from triton.runtime import interpreter

_FIRST_WITHOUT = (3, 7)


@cache
def mend() -> None:
    """Let a tensor of one element bound a loop, in every launch that is interpreted from now on."""
    if tuple(map(int, triton.__version__.split(".")[:2])) >= _FIRST_WITHOUT:
        return
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
