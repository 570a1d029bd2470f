"""What is timed on a card: the policies of the requirements, their images in several places of memory, and who is
compared."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gpuaug as ga
from bench.contenders.registry import CONTENDERS, Contender, Unsupported
from bench.scenarios import ENDS, FLIP, H1, PHOTOGRAPH, POLICIES, STD, Workload
from bench.sources import Source, photographs
from gpuaug import torch_compile

PLACES = 3  # copies of the images that calls take in turn, so that no cache holds them
GATED = 8  # samples compared with the reference before anything is timed
MODERATE = POLICIES["moderate"]
JUMPS = 1e-3


@dataclass(frozen=True, eq=False)
class Different(Source):
    """A batch whose images differ in size: there is no tensor of all of them."""

    @cached_property
    def images(self) -> list[Tensor]:
        """[C, H, W] contiguous, one tensor an image."""
        return [i.permute(2, 0, 1).contiguous() for i in self.hwc_on_device]

    @cached_property
    def hwc_on_device(self) -> list[Tensor]:
        """[H, W, C] contiguous tensors on the device."""
        return [torch.from_numpy(a).to(self.device) for a in self.arrays]

    @cached_property
    def planar(self) -> Tensor:
        """There is none."""
        raise Unsupported("its images differ in size")


@dataclass(frozen=True)
class Job:
    """A workload on a card.

    rivals: names of contenders.  lighter: what those of them that are timed though their work is not equal do less.
    target: shares of the copy bound, and factors, that the requirements ask for."""

    workload: Workload
    rivals: tuple[str, ...]
    lighter: tuple[tuple[str, str], ...] = ()
    ragged: bool = False
    dtype: torch.dtype = torch.bfloat16
    layout: torch.memory_format = torch.channels_last
    target: str = ""
    quick: bool = True
    # of values that may be on the other side of a jump: posterize, solarize and equalize turn a last bit into a level
    jumps: float = 0.0

    @property
    def name(self) -> str:
        """The workload's."""
        return self.workload.name

    def policy(self, device: torch.device) -> ga.Policy:
        """What gpuaug is asked for, the cast of the output included."""
        cast = () if self.workload.floats and self.dtype == torch.float32 else (ga.ToDtype(self.dtype, scale=True),)
        return ga.Policy([*self.workload.transforms, *cast], seed=1, memory_format=self.layout).to(device)

    def sources(self, device: torch.device) -> list[Source]:
        """The same batch in several places of memory."""
        w = self.workload
        if not self.ragged:
            own = pictures(*w.size, w.channels)
            return [Source([own[(i + k) % len(own)] for i in range(w.batch)], w.floats, device) for k in range(PLACES)]
        own = pictures(w.size[0] * 6 // 5, w.size[1] * 6 // 5, w.channels)
        return [
            Different([_cut(own[(i + k) % len(own)], w.size, i) for i in range(w.batch)], w.floats, device)
            for k in range(PLACES)
        ]

    def images(self, source: Source) -> Any:
        """What gpuaug is given: a decoder's memory, as a tensor, or as images of their own sizes that nobody has seen
        before."""
        if self.ragged:
            return ga.Ragged(tuple(source.hwc_on_device))
        return source.planar if self.workload.floats else source.channels_last

    def few(self, source: Source) -> Any:
        """The first of them."""
        return source.hwc_on_device[:GATED] if self.ragged else self.images(source)[:GATED]

    def contenders(self) -> list[Contender]:
        """Those of the names."""
        return [c for c in CONTENDERS if c.name in self.rivals]

    def finished(self, run: Callable[[Source], Tensor], source: Source) -> Tensor:
        """A rival's float32 batch in the form that is asked for."""
        return run(source).to(self.dtype, memory_format=self.layout)

    def unavoidable(self) -> int:
        """Bytes that a batch must move: the part of each image that its crop looks at, read once, and the output,
        written once."""
        w = self.workload
        (height, width), dtype = w.size, torch.float32 if w.floats else torch.uint8
        end = torch_compile.outline(self.policy(torch.device("cpu")), (w.channels, *w.size), dtype)
        share = 1.0
        first = w.transforms[0]
        if isinstance(first, ga.RandomResizedCrop):
            drawn = ga.Policy([first], seed=3).draw(torch.arange(4096), size=w.size)[0]
            share = float((drawn["height"] * drawn["width"]).double().mean()) / (height * width)
        elif isinstance(first, ga.RandomCrop):
            share = end[0][1] * end[0][2] / (height * width)
        read = height * width * w.channels * (4 if w.floats else 1) * share
        return round(w.batch * (read + int(np.prod(end[0])) * end[1].itemsize))

    def tolerance(self, want: Tensor) -> Tensor:
        """How far a value may be from the reference's: a resample's 1e-4 of [0, 1], and a unit in the last place of the
        output."""
        last = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}.get(self.dtype, 0.0)
        return 1e-4 * (1 / min(STD) if self.workload.normalises else 1.0) + last * want.abs().clamp(min=1.0)


@cache
def pictures(height: int, width: int, channels: int) -> list[np.ndarray]:
    """As many as it takes for neighbours in a batch to differ: [H, W, C] uint8."""
    return photographs(16, height, width, channels)


def _cut(picture: np.ndarray, size: tuple[int, int], i: int) -> np.ndarray:
    """A window between four and six fifths of a size, so that on average it has that size."""
    height, width = (
        side * 4 // 5 + (i * step) % (side * 2 // 5 + 1) for side, step in zip(size, (37, 53), strict=True)
    )
    return np.ascontiguousarray(picture[:height, :width])


def plain(transforms: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same crop without antialias, as Kornia has it."""
    return (replace(transforms[0], antialias=False), *transforms[1:])


def jobs(batch: int = 256, side: int = 224, photograph: tuple[int, int] = PHOTOGRAPH, h1: int = 64) -> list[Job]:
    """The workloads of the requirements; smaller ones to try the bench."""
    crop = ga.RandomResizedCrop(side)
    weak, moderate = (crop, *POLICIES["weak"][1:]), (crop, *MODERATE[1:])
    recipe = (ga.RandomCrop(side), *H1[1:])

    def job(
        name: str,
        transforms: tuple[Any, ...],
        rivals: tuple[str, ...],
        size: tuple[int, int] = photograph,
        part: str = "",
        images: int = batch,
        **more: Any,
    ) -> Job:
        return Job(Workload(name, "policy", transforms, batch=images, size=size, part=part), rivals, **more)

    square, turn = (side, side), ga.RandomRotation(30, "bilinear")
    # 1200 x 1600 beside 375 x 500
    large = (photograph[0] * 16 // 5, photograph[1] * 16 // 5)
    gpu_rivals = ("torchvision batch", "torchtransform")
    whole = ("torchvision", "torchvision batch")
    filterless = (("Kornia", "its crop has no antialias"),)
    return [
        job(
            "flip + normalise",
            (FLIP, *ENDS),
            (*whole, "torchvision compiled", "torchtransform", "Kornia"),
            (side, side),
            target="kernel 80 % / 90 %; 50 x / 3 x; Kornia 10 x",
        ),
        job("weak, ragged", weak, ("torchvision",), ragged=True, target="15 % / 35 %; 50 x; Kornia 20 x"),
        job(
            "moderate + erasing",
            moderate,
            (*whole, "Kornia"),
            lighter=filterless,
            target="10 % / 25 %; 100 x / 5 x; Kornia 20 x",
        ),
        Job(
            Workload("H1 of triton-augment", "recipe", recipe, batch=h1, size=(side * 8 // 7,) * 2, floats=True),
            ("triton-augment", "torchtransform", *whole, "Kornia"),
            lighter=(("triton-augment", "its contrast is about 0.5, not about the image's mean"),),
            dtype=torch.float32,
            layout=torch.contiguous_format,
            target="3 x triton-augment",
        ),
        job("strong", (crop, *POLICIES["strong"][1:]), ("torchvision batch",), jumps=JUMPS, target="10 % / 18 %"),
        job("rotation, bilinear", (turn, *ENDS), gpu_rivals, square, target="35 % / 60 %"),
        job("salt and pepper", (ga.SaltAndPepper(0.05), *ENDS), (), square, target="70 % / 85 %"),
        job("CutMix", (*ENDS, ga.CutMix(1.0, 1000)), ("torchvision batch",), square, target="70 % / 85 %"),
        job(
            "large photographs, weak",
            weak,
            ("torchvision batch",),
            large,
            images=max(1, batch // 4),
            target="13 % / 30 %",
        ),
        job("blur", (ga.GaussianBlur(23 if side > 50 else 5), *ENDS), ("torchvision batch",), square),
        job("very strong", (crop, *POLICIES["very strong"][1:]), ("torchvision batch",), jumps=JUMPS),
        # its crop has no antialias: equal work is ours without it
        job("weak without antialias", plain(weak), ("Kornia",), part="random", target="Kornia 20 x", quick=False),
        job(
            "moderate + erasing without antialias",
            plain(moderate),
            ("Kornia",),
            part="random",
            target="Kornia 20 x",
            quick=False,
        ),
    ]


def growth(quick: bool, tiny: bool) -> list[Job]:
    """Cost against batch and image size: moderate + erasing from photographs in one tensor, and from squares to squares
    of the same side."""
    if tiny:
        batches, sides, side, photograph = (1, 2), (8, 12), 12, (15, 20)
    else:
        batches, sides, side, photograph = (1, 4, 16, 64, 256, 1024), (32, 64, 128, 224, 512, 1024), 224, PHOTOGRAPH
    if quick:
        batches, sides = batches[::3], sides[::3]
    out = [
        Workload(f"batch {n}", "batch", (ga.RandomResizedCrop(side), *MODERATE[1:]), batch=n, size=photograph)
        for n in batches
    ]
    for s in sides:
        n = 2 if tiny else max(8, min(256, 2**24 // s**2))
        out.append(Workload(f"{s} px", "size", (ga.RandomResizedCrop(s), *MODERATE[1:]), batch=n, size=(s, s)))
    return [Job(w, ()) for w in out]
