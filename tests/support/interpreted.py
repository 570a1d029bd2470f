"""Triton's interpreter without work that it does again at every call of a device function: half of its time.  No value
depends on it."""

from dataclasses import replace
from typing import Any

import triton.language as tl
from triton.runtime import interpreter

# what `hasten` has replaced in Triton's interpreter, by its name there
REPLACED: dict[str, Any] = {}


class Scope:
    """What the outermost launch has patched; the next launch patches anew."""

    def __init__(self, scope: Any, patched: set[frozenset[str]]) -> None:
        self.scope, self.patched = scope, patched

    def restore(self) -> None:
        self.patched.clear()
        self.scope.restore()


class Nothing:
    """Nothing was patched, so that nothing is restored."""

    def restore(self) -> None:
        pass


def hasten() -> None:
    """Patch Triton's language once a launch, look a dtype up once, and leave out a check that nobody reads."""
    private = ("_patch_lang", "_get_np_dtype", "interpreter_builder")
    if REPLACED or not all(hasattr(interpreter, name) for name in private):
        return  # done, or a version that works otherwise, which is slower and no more
    REPLACED.update({name: getattr(interpreter, name) for name in private[:2]})
    patch, look_up = REPLACED["_patch_lang"], REPLACED["_get_np_dtype"]
    dtypes: dict[str, Any] = {}
    patched: set[frozenset[str]] = set()

    def once(fn: Any) -> Any:
        # which modules are patched depends on which of them the file of the function sees
        seen = frozenset(v.__name__ for v in fn.__globals__.values() if v is tl or v is tl.core)
        if seen in patched:
            return Nothing()
        scope = patch(fn)
        outermost = not patched
        patched.add(seen)
        return Scope(scope, patched) if outermost else scope

    def known(dtype: Any) -> Any:
        # pointers and blocks of them are 64 bits whatever they point to
        scalar = dtype.scalar
        if isinstance(scalar, tl.pointer_type):
            return look_up(scalar)
        if scalar.name not in dtypes:
            dtypes[scalar.name] = look_up(scalar)
        return dtypes[scalar.name]

    interpreter._patch_lang, interpreter._get_np_dtype = once, known
    # sums are compared with the range of their type, and what comes of that is looked at under `debug` alone
    options = interpreter.interpreter_builder.options
    if not options.debug:
        interpreter.interpreter_builder.options = replace(options, sanitize_overflow=False)
