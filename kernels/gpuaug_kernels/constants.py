"""The numbers of `codes` as compile-time constants: a kernel reads no other kind of global."""

import triton.language as tl

from gpuaug_kernels import codes


def __getattr__(name: str) -> tl.constexpr:
    """The number of this name: `from gpuaug_kernels.constants import NEAREST`."""
    if name.isupper() and isinstance(value := getattr(codes, name, None), int | float):
        return tl.constexpr(value)
    raise AttributeError(f"gpuaug_kernels.codes has no number {name}")
