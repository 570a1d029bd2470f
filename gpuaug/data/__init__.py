"""What stands before a policy: which sample comes when, on which rank, where it is read, what decodes it, and where a
run goes on."""

from gpuaug.data.loader import Loader
from gpuaug.data.making import BadFile, BadImage
from gpuaug.data.resident import ResidentLoader
from gpuaug.data.sampler import BatchSampler, Key, Padding, Sampler
from gpuaug.data.source import Source
from gpuaug.data.sources import as_source
from gpuaug.data.storage import Storage

__all__ = [
    "BadFile",
    "BadImage",
    "BatchSampler",
    "Key",
    "Loader",
    "Padding",
    "ResidentLoader",
    "Sampler",
    "Source",
    "Storage",
    "as_source",
]
