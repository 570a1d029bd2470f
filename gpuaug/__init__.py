"""gpuaug: a whole torchvision policy, per sample, batched, keyed by sample id."""

from gpuaug import functional
from gpuaug.batch import Batch, Params
from gpuaug.images import Ragged
from gpuaug.policy import Policy
from gpuaug.transforms import *
from gpuaug.transforms import REGISTRY, Transform
from gpuaug.version import __version__

__all__ = ["Batch", "Params", "Policy", "Ragged", "Transform", "__version__", "functional", *REGISTRY]
