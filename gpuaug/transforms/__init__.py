"""Every transform by name.  A family's `__all__` is its table of contents."""

from gpuaug.transforms import auto, auto_timm, choice, colour, convert, filters, geometry, mixes, sizes, stamps, warps
from gpuaug.transforms.auto import *
from gpuaug.transforms.auto_timm import *
from gpuaug.transforms.base import Transform as Transform
from gpuaug.transforms.by_class import ByClass as ByClass
from gpuaug.transforms.choice import *
from gpuaug.transforms.colour import *
from gpuaug.transforms.convert import *
from gpuaug.transforms.filters import *
from gpuaug.transforms.fixed import FiveCrop as FiveCrop
from gpuaug.transforms.fixed import Flips as Flips
from gpuaug.transforms.fixed import TenCrop as TenCrop
from gpuaug.transforms.functions import Custom as Custom
from gpuaug.transforms.functions import Lambda as Lambda
from gpuaug.transforms.geometry import *
from gpuaug.transforms.kornia import Kornia as Kornia
from gpuaug.transforms.mixes import *
from gpuaug.transforms.sizes import *
from gpuaug.transforms.stamps import *
from gpuaug.transforms.warps import *

_FAMILIES = (geometry, sizes, warps, colour, filters, stamps, mixes, choice, auto, auto_timm, convert)
REGISTRY: dict[str, type[Transform]] = {
    name: getattr(family, name) for family in _FAMILIES for name in family.__all__ if name != "Mixing"
}
# those that need labels or give several views, which a file and a pipeline may name too
APART: dict[str, type[Transform]] = {t.__name__: t for t in (ByClass, FiveCrop, Flips, TenCrop)}
