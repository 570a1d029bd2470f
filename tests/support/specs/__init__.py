"""One `Spec` for each transform, by family as in gpuaug/transforms/.

Nothing in this folder imports gpuaug: a Spec says independently, by torchvision or numpy, what a transform should do."""

from oracles import Args, Sample, only
from torch import Tensor

from specs import auto, auto_timm, choice, colour, convert, filters, geometry, mixes, sizes, stamps, warps
from specs.base import Spec

FAMILIES = (geometry, sizes, warps, colour, filters, stamps, mixes, choice, auto, auto_timm, convert)
SPECS: dict[str, Spec] = {name: spec for family in FAMILIES for name, spec in family.SPECS.items()}


def mean(
    name: str,
    args: Args,
    images: tuple[Tensor, ...],
    params: Args,
    seed: int,
    epoch: int,
    ids: list[int],
    occurrence: list[int],
    slot: int = 0,
) -> list[Tensor]:
    """What the images are after the transform at a slot, one at a time.  params: of the whole batch"""
    out = []
    for row, (x, id_, again) in enumerate(zip(images, ids, occurrence, strict=True)):
        sample = Sample(row, tuple(images), seed, epoch, id_, again, slot)
        out.append(SPECS[name].meaning(args, x, only(params, row), sample))
    return out
