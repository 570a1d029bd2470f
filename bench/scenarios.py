"""What is timed.  A workload is a policy in gpuaug's words, a batch and an image size; contenders say the same in their
own."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import gpuaug as ga
from gpuaug import ir
from gpuaug.transforms.mixes import Mixing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTOGRAPH = (375, 500)  # the usual size of a file of ImageNet
TO_FLOAT = ga.ToDtype(torch.float32, scale=True)
ENDS = (TO_FLOAT, ga.Normalize(MEAN, STD))
CROP = ga.RandomResizedCrop(224)
FLIP = ga.RandomHorizontalFlip()

POLICIES: dict[str, tuple[Any, ...]] = {
    "none": (ga.Resize((256, 256)), ga.CenterCrop(224), *ENDS),
    "weak": (CROP, FLIP, *ENDS),
    "moderate": (CROP, FLIP, ga.ColorJitter(0.2, 0.2, 0.2, 0.05), *ENDS, ga.RandomErasing(0.25)),
    "strong": (CROP, FLIP, ga.RandAugment(2, 9), *ENDS, ga.RandomErasing(0.25)),
    "very strong": (CROP, FLIP, ga.RandAugment(2, 9), *ENDS, ga.RandomErasing(0.5), ga.CutMix(1.0, num_classes=1000)),
}
RECIPE = (
    ga.RandomAffine(90, (0.3, 0.3), (1.0, 2.0)),
    ga.RandomHorizontalFlip(),
    ga.RandomVerticalFlip(),
    ga.SaltAndPepper(0.05),
    TO_FLOAT,
)
H1 = (ga.RandomCrop(224), FLIP, ga.ColorJitter(0.2, 0.2, 0.2), ga.RandomGrayscale(0.1), ga.Normalize(MEAN, STD))
H2 = (
    ga.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), 5),
    ga.RandomCrop(112),
    FLIP,
    ga.ColorJitter(0.2, 0.2, 0.2),
    ga.RandomGrayscale(0.1),
    ga.Normalize(MEAN, STD),
)


class Single(NamedTuple):
    """How a transform is timed by itself."""

    arguments: dict[str, Any] | None = None  # None: its example
    size: tuple[int, int] = (224, 224)
    # what it is compared with takes floats alone, so that the conversion comes first; a transform that refuses integers
    # and one that mixes need no entry
    floats: bool = False


# for transforms whose example is meant for tiny images, or that are timed on other images than most
SINGLE: dict[str, Single] = {
    "RandomResizedCrop": Single({"size": 224}, (256, 256)),
    "Resize": Single({"size": (224, 224)}, (256, 256)),
    "CenterCrop": Single({"size": 192}),
    "Pad": Single({"padding": 16, "fill": 0.5}),
    "RandomCrop": Single({"size": 224, "padding": 16}),
    "ColorJitter": Single({"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}),
    "RandomHorizontalFlip": Single({"p": 1.0}),
    "RandomVerticalFlip": Single({"p": 1.0}),
    "RandomGrayscale": Single({"p": 1.0}),
    "RandomInvert": Single({"p": 1.0}),
    "RandomSolarize": Single({"threshold": 0.5, "p": 1.0}),
    "RandomPosterize": Single({"bits": 3, "p": 1.0}),
    "RandomErasing": Single({"p": 1.0}, floats=True),
    "GaussianNoise": Single(floats=True),
    "RandAugment": Single({"num_ops": 2, "magnitude": 9}),
}

# asked for, and left out until what they need exists: workload -> what is missing
PREPARED = {
    "very strong, with MixUp beside CutMix": "the level mixes with CutMix alone",
    "H3 of triton-augment: video [N, T, C, H, W]": "this bench has images alone",
}


@dataclass(frozen=True)
class Workload:
    """One line of the report: uint8 images (float32 where `floats`) in memory to a float32 batch [N, C, H, W]."""

    name: str
    group: str  # "policy", "recipe", "transform", "batch", "size" or "end to end"
    transforms: tuple[Any, ...]
    batch: int = 16
    size: tuple[int, int] = PHOTOGRAPH
    channels: int = 3
    floats: bool = False
    part: str = ""  # "exact" or "random": of another workload, and only checked
    quick: bool = True  # False: only with --bench-full

    @property
    def exact(self) -> bool:
        """Whether every transform does the same to every image at every call."""
        if self.part:
            return self.part == "exact"
        return all(map(is_deterministic, self.transforms))

    @property
    def normalises(self) -> bool:
        """Whether values leave the range of [0, 1]."""
        return any(isinstance(t, ga.Normalize) for t in self.transforms)

    @property
    def mixes(self) -> bool:
        """Whether labels are needed."""
        return any(map(is_mix, self.transforms))

    @property
    def parts(self) -> "tuple[Workload, ...]":
        """What is checked by itself too, where a whole policy's variety would hide a difference: the first crop, and an
        automatic policy."""
        out = []
        first = self.transforms[0]
        if isinstance(first, ga.RandomResizedCrop) and not self.part:
            shape = self.size[1] / self.size[0]
            whole = ga.RandomResizedCrop(first.size, (1.0, 1.0), (shape, shape))
            steps = (whole,) if self.floats else (whole, TO_FLOAT)
            out.append(
                replace(
                    self,
                    name="its crop, pinned to the whole image",
                    transforms=steps,
                    batch=min(self.batch, 8),
                    part="exact",
                )
            )
        auto = [t for t in self.transforms if type(t).__module__.endswith(".auto")]
        if auto and len(self.transforms) > 2:
            out.append(
                Workload(f"its {type(auto[0]).__name__}", "policy", (auto[0], TO_FLOAT), size=(224, 224), part="random")
            )
        return tuple(out)

    @property
    def slug(self) -> str:
        """The name as an identifier."""
        return self.name.replace(" ", "-")


def is_mix(t: Any) -> bool:
    """Whether a transform mixes the samples of a batch, and their labels."""
    return isinstance(t, Mixing)


def _lowered(transform: ga.Transform, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], ir.Sequence]:
    """What 64 images draw, and the passes that it becomes."""
    n, size = 64, (256, 256)
    params = ga.Policy([transform]).draw(torch.arange(n), size=size, dtype=dtype)[0]
    frame = ir.Frame(torch.tensor([size]).expand(n, 2), size, 3, dtype)
    return [v for v in tree_leaves(params) if isinstance(v, Tensor)], transform.lower(params, frame, 0)


def is_deterministic(transform: ga.Transform) -> bool:
    """Whether a transform does the same to every image at every call, so that outputs are compared value by value."""
    drawn, passes = _lowered(transform)
    # noise is drawn by the pixel, under the slot of its pass
    return all(bool((v == v[:1]).all()) for v in drawn) and not any(hasattr(p, "slot") for p in ir.walk(passes))


def _floats_first(transform: ga.Transform) -> bool:
    """Whether it refuses images of uint8."""
    try:
        _lowered(transform, torch.uint8)
    except TypeError:
        return True
    return False


def _singles() -> Iterator[Workload]:
    for name, cls in ga.REGISTRY.items():
        arguments, size, floats = SINGLE.get(name, Single())
        transform = cls(**(cls.example if arguments is None else arguments))
        # the cost of one that chooses among others is theirs, and a conversion stands at the end of every workload
        if transform.children or not _lowered(transform)[1]:
            continue
        floats = floats or is_mix(transform) or _floats_first(transform)
        order = (TO_FLOAT, transform) if floats else (transform, TO_FLOAT)
        yield Workload(name, "transform", order, size=size)


def _growth() -> Iterator[Workload]:
    moderate = POLICIES["moderate"]
    for n in (1, 4, 16, 64, 256, 1024):
        yield Workload(f"moderate, batch {n}", "batch", moderate, batch=n, quick=n in (1, 4, 16, 64))
    for side in (32, 64, 128, 224, 512, 1024):
        scaled = (ga.RandomResizedCrop(side), *moderate[1:])
        yield Workload(
            f"moderate, {side} px",
            "size",
            scaled,
            batch=max(1, min(64, 2**20 // side**2)),
            size=(side, side),
            quick=side in (32, 128, 224, 512),
        )


def workloads(full: bool = False) -> list[Workload]:
    """Everything that is timed from images in memory; `full` adds the largest batches and images, and larger batches of
    the policies."""
    found = [Workload(name, "policy", transforms) for name, transforms in POLICIES.items()]
    found.append(Workload("seed recipe 28 px grey", "recipe", RECIPE, batch=256, size=(28, 28), channels=1))
    found.append(Workload("H1 of triton-augment", "recipe", H1, batch=64, size=(256, 256), floats=True))
    found.append(Workload("H2 of triton-augment", "recipe", H2, batch=32, size=(224, 224), floats=True))
    found += [*_singles(), *_growth()]
    found += [replace(w, name=f"{w.name}, batch 256", batch=256, quick=False) for w in found if w.group == "policy"]
    return [w for w in found if full or w.quick]
