"""What one rank takes of the global sequence.  All ranks take as many batches, whatever the number of samples."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gpuaug import arguments
from gpuaug.data.permutation import Ints

Flags = npt.NDArray[np.bool_]


def place(rank: Any = None, world_size: Any = None) -> tuple[int, int]:
    """(rank, world size): the arguments, or torch.distributed's where it is initialised, or torchrun's environment, or
    (0, 1)."""
    if (rank is None) != (world_size is None):
        raise ValueError(
            f"rank and world_size go together, got rank={rank}, world_size={world_size}; pass both or neither"
        )
    if rank is None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        rank, world_size = _environment()
    world = arguments.integer("world_size", world_size, 1)
    if arguments.integer("rank", rank, 0) >= world:
        raise ValueError(f"rank must be below world_size, got rank={rank}, world_size={world}; ranks count from 0")
    return int(rank), world


def _environment() -> tuple[int, int]:
    found = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE") if os.environ.get(name)}
    if not found:
        return 0, 1
    rank = found.get("RANK")
    if "RANK" not in os.environ and os.environ.get("NODE_RANK") == "0":
        # Lightning starts the other processes of its node so, and each finds its rank as it begins to train
        rank = os.environ.get("LOCAL_RANK")
    try:
        return int(rank or ""), int(found["WORLD_SIZE"])
    except (KeyError, ValueError):
        raise ValueError(
            f"the environment must have RANK and WORLD_SIZE as integers, or neither, got {found}; pass rank= and "
            "world_size=, or initialise torch.distributed first"
        ) from None


def placed_later() -> bool:
    """Whether the environment says that there are ranks and not which this is: torch.distributed will."""
    named = {"NODE_RANK", "WORLD_SIZE"} <= os.environ.keys()
    return named and "RANK" not in os.environ and not torch.distributed.is_initialized()


def check_place(rank: Any = None, world_size: Any = None) -> None:
    """Raise ValueError for what can't be this process's place."""
    if rank is not None or world_size is not None or not placed_later():
        place(rank, world_size)


@dataclass(frozen=True)
class Share:
    """One rank's batches: at a step, those of W ranks together take the next W * batch_size positions."""

    rank: int
    world_size: int
    batch_size: int
    drop_last: bool

    @property
    def step(self) -> int:
        """Positions that a step takes."""
        return self.world_size * self.batch_size

    def steps(self, remaining: int) -> int:
        """The steps in so many positions: whole ones, or as many as it takes."""
        return remaining // self.step if self.drop_last else -(-remaining // self.step)

    def after(self, consumed: int, steps: int, length: int) -> int:
        """Positions consumed after so many steps.  The last step of an epoch consumes what is dropped too."""
        return min(consumed + steps * self.step, length) if steps < self.steps(length - consumed) else length

    def positions(self, consumed: int, first: int, last: int, length: int, striped: bool) -> tuple[Ints, Flags]:
        """The positions of steps first to last - 1, [steps, batch_size], and which are no padding.  Padding begins the
        epoch again."""
        base = consumed + np.arange(first, last, dtype=np.int64)[:, None] * self.step
        own = np.arange(self.batch_size, dtype=np.int64)
        if striped:
            # the residue belongs to the rank wherever a batch begins
            at = base + own * self.world_size + (self.rank - base) % self.world_size
        else:
            at = base + self.rank * self.batch_size + own
        return at % length, at < length
