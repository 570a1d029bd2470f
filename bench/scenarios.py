"""What is timed.  A workload is a policy in gpuaug's words, a batch and an image size; contenders say the same in their
own."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

import gpuaug as ga
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

# arguments of the single transforms at 224, where those that the tests use are meant for tiny images
AT_224: dict[str, dict[str, Any]] = {
    "RandomResizedCrop": {"size": 224},
    "Resize": {"size": (224, 224)},
    "CenterCrop": {"size": 192},
    "Pad": {"padding": 16, "fill": 0.5},
    "RandomCrop": {"size": 224, "padding": 16},
    "ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "RandomHorizontalFlip": {"p": 1.0},
    "RandomVerticalFlip": {"p": 1.0},
    "RandomGrayscale": {"p": 1.0},
    "RandomInvert": {"p": 1.0},
    "RandomSolarize": {"threshold": 0.5, "p": 1.0},
    "RandomPosterize": {"bits": 3, "p": 1.0},
    "RandomErasing": {"p": 1.0},
    "RandAugment": {"num_ops": 2, "magnitude": 9},
}
# those that choose among others: their cost is that of what they hold; and conversions, which every workload ends in
NOT_SINGLE = ("RandomApply", "RandomChoice", "RandomOrder", "ToTensor", "ToImage", "PILToTensor", "ToDtype")
# nothing random is left in these: outputs are compared value by value
SURE = ("Resize", "CenterCrop", "Pad", "Grayscale", "Normalize")

# asked for, and left out until what they need exists: workload -> what is missing
PREPARED = {
    "very strong, with MixUp beside CutMix": "MixUp is no transform yet; the level mixes with CutMix alone",
    "H3 of triton-augment: video [N, T, C, H, W]": "the policy takes no video yet",
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
        return all(
            type(t).__name__ in SURE or type(t).__name__ in NOT_SINGLE or (getattr(t, "p", None) == 1.0 and _only_p(t))
            for t in self.transforms
        )

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


def _only_p(t: Any) -> bool:
    """Whether a transform's only randomness is whether it applies."""
    return type(t).__name__ in (
        "RandomHorizontalFlip",
        "RandomVerticalFlip",
        "RandomGrayscale",
        "RandomInvert",
        "RandomSolarize",
        "RandomPosterize",
    )


def _single(name: str) -> Workload:
    cls = ga.REGISTRY[name]
    transform = cls(**AT_224.get(name, cls.example))
    source = (256, 256) if name in ("RandomResizedCrop", "Resize") else (224, 224)
    # a mean and a deviation are defined on floats; everywhere else the conversion is the last step
    order = (
        (TO_FLOAT, transform)
        if name in ("Normalize", "RandomErasing", "GaussianNoise") or is_mix(transform)
        else (transform, TO_FLOAT)
    )
    return Workload(name, "transform", order, size=source)


def _singles() -> Iterator[Workload]:
    for name in ga.REGISTRY:
        if name not in NOT_SINGLE:
            yield _single(name)


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
