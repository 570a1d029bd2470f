"""Whole policies of every kind, at sizes small enough for the interpreter."""

import torch

import gpuaug as ga

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FLOAT, HALF = (ga.ToDtype(d, scale=True) for d in (torch.float32, torch.bfloat16))
ENDS = (FLOAT, ga.Normalize(MEAN, STD))
CROP, FLIP, JITTER = ga.RandomResizedCrop(24), ga.RandomHorizontalFlip(), ga.ColorJitter(0.2, 0.2, 0.2, 0.05)

POLICIES: dict[str, tuple[ga.Transform, ...]] = {
    "flip and normalise": (FLIP, *ENDS, HALF),
    "weak": (CROP, FLIP, *ENDS, HALF),
    "moderate and erasing": (CROP, FLIP, JITTER, *ENDS, ga.RandomErasing(0.25), HALF),
    "strong": (CROP, FLIP, ga.RandAugment(2, 9), *ENDS, ga.RandomErasing(0.25, value="random")),
    "very strong": (CROP, FLIP, ga.RandAugment(2, 9), *ENDS, ga.RandomErasing(0.5), ga.CutMix(1.0, 7)),
    "H1 of triton-augment": (
        ga.RandomCrop(24),
        FLIP,
        ga.ColorJitter(0.2, 0.2, 0.2),
        ga.RandomGrayscale(0.1),
        ga.Normalize(MEAN, STD),
    ),
    "two contrasts": (
        CROP,
        JITTER,
        ga.ColorJitter(contrast=0.4),
        ga.RandomRotation(20, "bilinear"),
        ga.ColorJitter(contrast=0.4),
    ),
    "quarter turns": (ga.RandomRot90(), CROP, ga.RandomVerticalFlip()),
    "many sizes": (
        ga.Resize(30),
        ga.Pad(2, padding_mode="reflect"),
        ga.RandomCrop(24, 4, True),
        ga.SaltAndPepper(0.1),
        ga.GaussianNoise(),
    ),
}

# calls that make the host wait still, and by what; a test fails as soon as one of them no longer does
WAITS = {
    # the reference cuts every image's window out on its own, by numbers that the host must know
    **dict.fromkeys(("many sizes, ragged", "moderate, reference"), "_local_scalar_dense"),
}


def mixes(name: str) -> bool:
    """Whether a policy needs labels."""
    return any("Mix" in type(t).__name__ for t in POLICIES[name])


def takes_many(name: str) -> bool:
    """Whether it takes images of different sizes."""
    return isinstance(POLICIES[name][0], ga.RandomResizedCrop | ga.Resize | ga.RandomRot90)


def calls() -> list[tuple[str, str]]:
    """Every policy with what it takes."""
    return [(name, kind) for name in POLICIES for kind in ("dense", "ragged") if kind == "dense" or takes_many(name)]
