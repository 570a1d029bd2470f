"""Compile for a card that this machine lacks, by the way that a launch compiles: Triton's cache then holds what a
launch on such a card looks for."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from triton.backends.compiler import GPUTarget
from triton.runtime import driver


class NamedCard:
    """A driver of Triton for a card of which only the architecture is known: it launches nothing."""

    def __init__(self, capability: int):
        self.capability, self.device, self.stream = capability, 0, 0

    def get_current_target(self) -> GPUTarget:
        """What kernels are compiled for."""
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        """Its number."""
        return self.device

    def get_current_stream(self, device: int) -> int:
        """Its address."""
        return self.stream


# that cards have; LLVM ends the whole process for any other
CAPABILITIES = (80, 86, 87, 89, 90, 100, 103, 110, 120, 121)


def capability_of(target: str) -> int:
    """The compute capability of "cuda:90", times ten."""
    found = re.fullmatch(r"(?:cuda:|sm_)?(\d{2,3})", target)
    if found is None or int(found[1]) not in CAPABILITIES:
        raise ValueError(
            f'target must be "cuda:" and the compute capability of a card, without its point, got {target!r}; there '
            f'are {", ".join(map(str, CAPABILITIES))}: pass "cuda:90" for an H100'
        )
    return int(found[1])


@contextmanager
def compiling_for(target: str) -> Iterator[NamedCard]:
    """Within it Triton compiles for a card, "cuda:90" for compute capability 9.0, in the whole process."""
    before, card = driver._active, NamedCard(capability_of(target))
    driver.set_active(card)
    try:
        yield card
    finally:
        driver._active = before
