"""Which cores lie near a GPU: those of its NUMA node, from which its memory is reached without a detour."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

_SYS = Path("/sys")


def address(device: torch.device) -> str:
    """Of a GPU on its bus, as the kernel names it: "0000:3b:00.0"."""
    card: Any = torch.cuda.get_device_properties(device)
    return f"{card.pci_domain_id:04x}:{card.pci_bus_id:02x}:{card.pci_device_id:02x}.0"


def cores_near(where: str, root: Path = _SYS) -> frozenset[int]:
    """The cores near what has this address on the bus, of those that this process may use.

    Empty where nothing is known, where all are equally near, and where this process may use none of them."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    mine = frozenset(os.sched_getaffinity(0))
    near: frozenset[int] = frozenset()
    with suppress(OSError, ValueError):
        near = parsed((root / "bus" / "pci" / "devices" / where / "local_cpulist").read_text())
    found = near & mine
    return found if found != mine else frozenset()


def parsed(text: str) -> frozenset[int]:
    """Numbers of a list as the kernel writes it: "0-3,8"."""
    found = set[int]()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


@contextmanager
def staying(cores: frozenset[int]) -> Iterator[None]:
    """Keep this thread, and those that it starts meanwhile, on some cores; anywhere, where there are none.

    Whoever calls is left where it was: the threads of a training loop are not the loader's."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    with suppress(OSError):
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)
