"""Triton's interpreter without work that it does again at every operation: two thirds of its time.  No value depends
on it."""

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
    """Patch Triton's language once a launch, look a dtype up once, make a type once, and leave out a check that nobody
    reads."""
    private = ("_patch_lang", "_get_np_dtype", "interpreter_builder", "interpreter_semantic")
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
    make_types_once()
    pass_equal_operands()


def make_types_once() -> None:
    """Types of blocks, and what a tensor keeps of its type, are looked up by their shape: both are made at every
    operation, and nothing changes them."""
    block_type, tensor, constexpr = tl.block_type, tl.tensor, tl.constexpr
    make_type, make_tensor = block_type.__init__, tensor.__init__
    types: dict[tuple[Any, ...], dict[str, Any]] = {}
    shapes: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def block(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = tuple(s.value if type(s) is constexpr else s for s in shape)
        key = (element_ty.name, sizes)
        if key not in types:
            make_type(self, element_ty, shape)
            types[key] = dict(self.__dict__)
        else:
            self.__dict__.update(types[key])
            self.element_ty = element_ty

    def made(self: Any, handle: Any, type: Any) -> None:
        sizes = tuple(type.shape) if type.is_block() else ()
        known = shapes.get(sizes)
        if known is None:
            make_tensor(self, handle, type)
            shapes[sizes] = self.numel, self.shape
        else:
            self.handle, self.type, self.dtype = handle, type, type.scalar
            self.numel, self.shape = known

    block_type.__init__, tensor.__init__ = block, made


def pass_equal_operands() -> None:
    """Operands of one dtype and one shape are what they are converted to, without looking for that."""
    semantic, tensor = interpreter.interpreter_semantic, tl.tensor
    check = semantic.binary_op_type_checking_impl
    half = (tl.float16, tl.bfloat16)

    def checked(lhs: Any, rhs: Any, *options: Any, **named: Any) -> Any:
        if type(lhs) is tensor and type(rhs) is tensor and lhs.type == rhs.type:
            dtype = lhs.dtype
            # halves are divided as float32, pointers are checked
            if not dtype.is_ptr() and dtype not in half:
                return lhs, rhs
        return check(lhs, rhs, *options, **named)

    semantic.binary_op_type_checking_impl = checked
