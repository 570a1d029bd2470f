"""Random numbers that are a pure function of (seed, epoch, sample id, occurrence, slot, draw number): Philox, keys and
draws."""

from gpuaug_kernels.codes import MIX, PARAMETERS, PIXELS, SAMPLER

from gpuaug.rng.draw import (
    MAX_EPOCH,
    MAX_ID,
    MAX_OCCURRENCE,
    MAX_SLOT,
    OTHER_DRAWS,
    VERSION,
    Block,
    Draw,
    Keys,
    Layout,
    counter_1,
    gauss,
    philox,
    unit,
)

__all__ = [
    "MAX_EPOCH",
    "MAX_ID",
    "MAX_OCCURRENCE",
    "MAX_SLOT",
    "MIX",
    "OTHER_DRAWS",
    "PARAMETERS",
    "PIXELS",
    "SAMPLER",
    "VERSION",
    "Block",
    "Draw",
    "Keys",
    "Layout",
    "counter_1",
    "gauss",
    "philox",
    "unit",
]
