"""What stands before a policy: which sample comes when, on which rank, where it is read, what decodes it, and where a
run goes on."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpuaug.data.sampler import BatchSampler, Key, Padding, Sampler
from gpuaug.loading import uncollected

if TYPE_CHECKING:
    from gpuaug.data.loader import Loader
    from gpuaug.data.making import BadFile, BadImage
    from gpuaug.data.mapped import Mapped
    from gpuaug.data.resident import ResidentLoader
    from gpuaug.data.source import Source
    from gpuaug.data.sources import as_source
    from gpuaug.data.storage import Storage

__all__ = [
    "BadFile",
    "BadImage",
    "BatchSampler",
    "Key",
    "Loader",
    "Mapped",
    "Padding",
    "ResidentLoader",
    "Sampler",
    "Source",
    "Storage",
    "as_source",
]

# imported when they are first asked for: they bring decoders and compilers, which a policy alone does without
_LATER = {
    "BadFile": "making",
    "BadImage": "making",
    "Loader": "loader",
    "Mapped": "mapped",
    "ResidentLoader": "resident",
    "Source": "source",
    "Storage": "storage",
    "as_source": "sources",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with uncollected():
        value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
