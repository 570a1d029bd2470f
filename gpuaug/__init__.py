"""gpuaug: a whole torchvision policy, per sample, batched, keyed by sample id."""

import sys
from pathlib import Path

try:
    from gpuaug import data, functional, imbalance, losses, presets
    from gpuaug.audit import audit
    from gpuaug.batch import Batch, Params
    from gpuaug.drawn import Windows
    from gpuaug.images import Ragged
    from gpuaug.interop import from_torchvision
    from gpuaug.lint import lint
    from gpuaug.losses import soft_cross_entropy
    from gpuaug.multicrop import MultiCrop
    from gpuaug.policy import Policy
    from gpuaug.show import show
    from gpuaug.transforms import *
    from gpuaug.transforms import REGISTRY, ByClass, Custom, FiveCrop, Flips, Kornia, Lambda, TenCrop, Transform
    from gpuaug.tta import tta
    from gpuaug.version import __version__
except KeyboardInterrupt:
    # torch takes seconds to import: who stops the command meanwhile gets what a stopped command gives, and no traceback
    if any(Path(a).stem == "gpuaug" for a in sys.orig_argv[:4]):
        raise SystemExit(130) from None
    raise

__all__ = [
    "Batch",
    "ByClass",
    "Custom",
    "FiveCrop",
    "Flips",
    "Kornia",
    "Lambda",
    "MultiCrop",
    "Params",
    "Policy",
    "Ragged",
    "TenCrop",
    "Transform",
    "Windows",
    "__version__",
    "audit",
    "data",
    "from_torchvision",
    "functional",
    "imbalance",
    "lint",
    "losses",
    "presets",
    "show",
    "soft_cross_entropy",
    "tta",
    *REGISTRY,
]
