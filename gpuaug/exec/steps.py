"""What an executor really runs of a plan: steps in order, between which the images lie in memory."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from gpuaug import ir

FIRST = "it is the first"


class Stored(NamedTuple):
    """Images in memory, read or written once."""

    frame: ir.Frame
    dtype: torch.dtype

    @property
    def size(self) -> tuple[int, int]:
        """(H, W): of all images, or of the first where they differ."""
        height, width = self.frame.fixed or self.frame.size[0].tolist()
        return height, width

    @property
    def bytes(self) -> int:
        """Of an image: the mean of the batch where sizes differ."""
        pixels = (
            self.frame.fixed[0] * self.frame.fixed[1]
            if self.frame.fixed
            else round(float(self.frame.size.double().prod(1).mean()))
        )
        # the fourth of a pixel is empty, so that a pixel is one word
        channels = 4 if self.dtype == torch.uint16 else self.frame.channels
        return pixels * channels * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Step:
    """Passes that run together: they read images from memory and write images to it."""

    passes: ir.Sequence  # as the executor runs them: by its own rules, or by the reference where `fallback` says why
    frame: ir.Frame  # of the images that it reads
    kind: str  # "kernels" of a GPU, "rows" that are compiled for a host, or "torch" operations
    loads: tuple[Stored, ...]  # in order; the first is what comes in
    stores: tuple[Stored, ...]  # in order; the last is what goes out
    reason: str  # why a new step begins here
    fallback: str = ""  # why the reference runs it; empty where the executor does
    launches: tuple[str, ...] = ()  # of kernels, in order, each by what it does
    gathers: tuple[str, ...] = ()  # kinds of the statistic that its last launch gathers for the step after it

    @property
    def reads(self) -> int:
        """Bytes of an image: all of the source counted for every kernel or pass that reads it, of which a crop reads a
        part."""
        return sum(s.bytes for s in self.loads)

    @property
    def writes(self) -> int:
        """Bytes of an image."""
        return sum(s.bytes for s in self.stores)


def written(passes: ir.Sequence) -> torch.dtype:
    """What images are stored as after passes: what a Finish asks for, and float32 between steps."""
    return passes[-1].dtype if passes and isinstance(passes[-1], ir.Finish) else torch.float32


def one_by_one(passes: ir.Sequence, frame: ir.Frame) -> tuple[Step, ...]:
    """Passes as torch runs them, each a step."""
    made: list[Step] = []
    for p in passes:
        loads, stores = traffic((p,), frame, None if made else frame.dtype)
        made.append(
            Step((p,), frame, "torch", loads, stores, "the reference runs one pass after the other" if made else FIRST)
        )
        frame = ir.after((p,), frame)
    return tuple(made)


def traffic(
    passes: ir.Sequence, frame: ir.Frame, dtype: torch.dtype | None
) -> tuple[tuple[Stored, ...], tuple[Stored, ...]]:
    """What torch reads and writes for passes, as if each took its images once: its operations within a pass move more.

    dtype: of what comes in, where float32 images are made of it first
    """
    loads = [] if dtype is None else [Stored(frame, dtype)]
    stores = [] if dtype is None else [Stored(frame, torch.float32)]
    for p in passes:
        here, after = Stored(frame, torch.float32), ir.after((p,), frame)
        if isinstance(p, ir.Choice):
            for branch in p.branches * p.index.shape[1]:
                read, wrote = traffic(branch, frame, None)
                # each sample takes what the branch made, or keeps what it has
                loads, stores = [*loads, *read, here, here], [*stores, *wrote, here]
        elif isinstance(p, ir.Blend):
            for chain in p.chains:
                read, wrote = traffic(chain, frame, None)
                # what the chain made is added to what there is
                loads, stores = [*loads, *read, here, here], [*stores, *wrote, here]
            loads, stores = [*loads, here], [*stores, here]
        else:
            loads, stores = [*loads, *[here] * (1 + isinstance(p, ir.Mix))], [*stores, Stored(after, written((p,)))]
        frame = after
    return tuple(loads), tuple(stores)


def name(p: ir.Pass) -> str:
    """A pass in words, with its branches."""
    if isinstance(p, ir.Custom):
        return f"Custom({p.name})"
    if isinstance(p, ir.Blend):
        return f"a blend of ({' | '.join(' + '.join(map(name, chain)) for chain in p.chains)})"
    if not isinstance(p, ir.Choice):
        return type(p).__name__
    times = p.index.shape[1]
    branches = " | ".join(" + ".join(map(name, branch)) or "nothing" for branch in p.branches)
    return f"{f'{times} times ' if times > 1 else ''}one of ({branches})"


def short(p: ir.Pass) -> str:
    """A pass in a few words: of a choice only what stands in its branches beside pointwise passes."""
    if not isinstance(p, ir.Choice):
        return name(p)
    found = dict.fromkeys(name(q) for q in ir.walk((p,)) if not isinstance(q, ir.Choice | ir.Pointwise))
    return f"a branch ({', '.join(found)})" if found else "a choice"
