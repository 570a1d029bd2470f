"""Policies to start from: levels of strength, recipes by data set, and published ones with their sources.

Every preset is a function of `size`, the side of the square images that come out, and `num_classes`, without which
mixes are left out.  It returns a `Policy` of float32 images, which prints and saves as the code that makes it, to be
edited.  With `train=False` it returns the deterministic transform for validation that belongs to it.

    policy = ga.presets.strength("moderate", size=224)
    policy = ga.presets.small(size=96, num_classes=10)
    check = ga.presets.validation("small", size=96)
    policy = ga.presets.get("deit", num_classes=1000)   # by name, as the command line has it

`NAMES` are those that `get` and `validation` know."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gpuaug import arguments
from gpuaug.policy import Policy
from gpuaug.transforms import (
    CenterCrop,
    ColorJitter,
    CutMix,
    GaussianBlur,
    MixUp,
    Normalize,
    RandAugment,
    RandomAffine,
    RandomApply,
    RandomCrop,
    RandomErasing,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomMix,
    RandomResizedCrop,
    RandomRot90,
    RandomSolarize,
    RandomVerticalFlip,
    Resize,
    TimmRandAugment,
    ToDtype,
    Transform,
    TrivialAugmentWide,
)

__all__ = [
    "IMAGENET",
    "LEVELS",
    "NAMES",
    "cifar",
    "deit",
    "digits",
    "dino",
    "fine_grained",
    "get",
    "large",
    "medical",
    "medium",
    "satellite",
    "simclr",
    "small",
    "strength",
    "torchvision_reference",
    "validation",
]

LEVELS = ("none", "weak", "moderate", "strong", "very_strong")
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
# mean and standard deviation of the training images, in [0, 1]; those that torchvision's models and timm's were trained
# with, CIFAR-10's and MNIST's
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR: Statistics = ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
MNIST: Statistics = ((0.1307,), (0.3081,))


# ---- levels


def strength(
    level: str, size: int = 224, num_classes: int | None = None, *, train: bool = True, seed: int = 0
) -> Policy:
    """One of five levels, for photographs.

    none: Resize, CenterCrop and Normalize, as in validation.  weak: a random crop and a flip.  moderate:
    ColorJitter(0.2, 0.2, 0.2, 0.05) and RandomErasing(0.25) beside them.  strong: RandAugment(2, 9), and MixUp or
    CutMix where num_classes is given.  very_strong: the same, and every other image erased in
    part.  Mixes need labels, and a batch whose samples differ."""
    if not isinstance(level, str) or level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    _checked(num_classes)
    if level == "none" or not train:
        return _validation(size, IMAGENET, seed)
    colour: list[Transform] = []
    if level == "moderate":
        colour = [ColorJitter(0.2, 0.2, 0.2, 0.05)]
    elif level != "weak":
        colour = [RandAugment(2, 9)]
    erased = {"moderate": 0.25, "very_strong": 0.5}.get(level)
    ends = [] if erased is None else [RandomErasing(erased)]
    mixes = _mixes(num_classes) if level in ("strong", "very_strong") else []
    return _policy([RandomResizedCrop(_side(size)), RandomHorizontalFlip(), *colour], IMAGENET, [*ends, *mixes], seed)


# ---- by data set


def small(size: int = 224, num_classes: int | None = None, *, train: bool = True, seed: int = 0) -> Policy:
    """Some thousand images: little is taken away, for there is little to learn from.  Crops of 0.7 to 1 of the area,
    flip, ColorJitter(0.1, 0.1, 0.1, 0.02)."""
    _checked(num_classes)
    if not train:
        return _validation(size, IMAGENET, seed)
    steps = [RandomResizedCrop(_side(size), (0.7, 1.0)), RandomHorizontalFlip(), ColorJitter(0.1, 0.1, 0.1, 0.02)]
    return _policy(steps, IMAGENET, [], seed)


def medium(size: int = 224, num_classes: int | None = None, *, train: bool = True, seed: int = 0) -> Policy:
    """Tens of thousands of images: crops of 0.5 to 1 of the area, flip, ColorJitter(0.2, 0.2, 0.2, 0.05),
    RandomErasing(0.25)."""
    _checked(num_classes)
    if not train:
        return _validation(size, IMAGENET, seed)
    steps = [RandomResizedCrop(_side(size), (0.5, 1.0)), RandomHorizontalFlip(), ColorJitter(0.2, 0.2, 0.2, 0.05)]
    return _policy(steps, IMAGENET, [RandomErasing(0.25)], seed)


def large(size: int = 224, num_classes: int | None = None, *, train: bool = True, seed: int = 0) -> Policy:
    """Hundreds of thousands of images and more: crops of 0.08 to 1 of the area, flip, RandAugment(2, 9),
    RandomErasing(0.25), and MixUp or CutMix where num_classes is given."""
    mixes = _mixes(num_classes)
    if not train:
        return _validation(size, IMAGENET, seed)
    steps = [RandomResizedCrop(_side(size)), RandomHorizontalFlip(), RandAugment(2, 9)]
    return _policy(steps, IMAGENET, [RandomErasing(0.25), *mixes], seed)


def fine_grained(size: int = 448, num_classes: int | None = None, *, train: bool = True, seed: int = 0) -> Policy:
    """Species, makes, models: what tells classes apart is texture, a small part, or a hue.  Crops of half the area or
    more, flip, a little brightness and contrast; no blur, no hue, and no erasing of the part that decides."""
    _checked(num_classes)
    if not train:
        return _validation(size, IMAGENET, seed)
    steps = [RandomResizedCrop(_side(size), (0.5, 1.0)), RandomHorizontalFlip(), ColorJitter(0.1, 0.1)]
    return _policy(steps, IMAGENET, [], seed)


def medical(size: int = 224, num_classes: int | None = None, *, train: bool = True, seed: int = 0) -> Policy:
    """Radiographs and other images with a left and a right: the whole image, turned by up to 10 degrees, shifted and
    scaled by a twentieth, and brightness and contrast as between two devices.  No flip, because the side is part of the
    finding; no crop, because the finding may be at the border; no hue, which stains and maps carry."""
    _checked(num_classes)
    if not train:
        return _policy([Resize((_side(size), _side(size)))], IMAGENET, [], seed)
    moved = RandomAffine(10, (0.05, 0.05), (0.95, 1.05), interpolation="bilinear")
    return _policy([Resize((_side(size), _side(size))), moved, ColorJitter(0.1, 0.1)], IMAGENET, [], seed, True)


def satellite(size: int = 224, num_classes: int | None = None, *, train: bool = True, seed: int = 0) -> Policy:
    """Images from above, which have no upright: both flips and quarter turns, which are exact, crops of 0.5 to 1 of the
    area, and the brightness and contrast of another day."""
    _checked(num_classes)
    if not train:
        return _validation(size, IMAGENET, seed)
    steps = [
        RandomResizedCrop(_side(size), (0.5, 1.0)),
        RandomHorizontalFlip(),
        RandomVerticalFlip(),
        RandomRot90(),
        ColorJitter(0.2, 0.2, 0.1),
    ]
    return _policy(steps, IMAGENET, [], seed)


def digits(size: int = 28, num_classes: int | None = None, *, train: bool = True, seed: int = 0) -> Policy:
    """Written digits and characters, of one channel: turned by up to 10 degrees, shifted and scaled by a tenth, sheared
    a little.  No flip, which makes another character or none, and no turn that makes 6 of 9.  Normalised by MNIST's
    mean and standard deviation."""
    _checked(num_classes)
    fit = Resize((_side(size), _side(size)))
    if not train:
        return _policy([fit], MNIST, [], seed)
    moved = RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 5, interpolation="bilinear")
    return _policy([fit, moved], MNIST, [], seed, True)


# ---- published


def torchvision_reference(
    size: int = 176, num_classes: int | None = None, *, train: bool = True, seed: int = 0
) -> Policy:
    """torchvision's reference training of its newer weights: TrivialAugmentWide, RandomErasing(0.1), and MixUp (alpha
    0.2) or CutMix (alpha 1) where num_classes is given.

    Source: github.com/pytorch/vision, references/classification, presets.py and README.md ("new recipe"; V. Vryniotis,
    "How to Train State-Of-The-Art Models Using TorchVision's Latest Primitives", 2021).  It trains at 176 pixels and
    validates at 224, from images whose shorter side is 232."""
    mixes = _mixes(num_classes)
    if not train:
        return _validation(size, IMAGENET, seed, 232 / 224)
    steps = [RandomResizedCrop(_side(size)), RandomHorizontalFlip(), TrivialAugmentWide()]
    return _policy(steps, IMAGENET, [RandomErasing(0.1), *mixes], seed)


def deit(size: int = 224, num_classes: int | None = None, *, train: bool = True, seed: int = 0) -> Policy:
    """DeiT's training by timm: RandAugment "rand-m9-mstd0.5-inc1", RandomErasing(0.25) with noise, and MixUp (alpha
    0.8) or CutMix (alpha 1) where num_classes is given.

    Source: H. Touvron et al., "Training data-efficient image transformers & distillation through attention", ICML 2021,
    table 9; github.com/facebookresearch/deit, main.py; timm.data.create_transform.  It chooses a mix for a batch,
    and this for each sample; label smoothing of 0.1 is the loss's."""
    mixes = _mixes(num_classes, 0.8)
    if not train:
        return _validation(size, IMAGENET, seed, interpolation="bicubic")
    steps = [
        RandomResizedCrop(_side(size), interpolation="bicubic"),
        RandomHorizontalFlip(),
        TimmRandAugment("rand-m9-mstd0.5-inc1"),
    ]
    return _policy(steps, IMAGENET, [RandomErasing(0.25, value="random"), *mixes], seed)


def simclr(size: int = 224, num_classes: int | None = None, *, train: bool = True, seed: int = 0) -> Policy:
    """The views of SimCLR: crop, flip, ColorJitter(0.8, 0.8, 0.8, 0.2) with probability 0.8, gray with 0.2, and blur
    over a tenth of the image with 0.5.  Take two of each image, by `occurrence`, or the loader's views=2.

    Source: T. Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, appendix
    A, with strength 1.  Its code normalises nothing; here Normalize ends it as the others."""
    _checked(num_classes)
    if not train:
        return _validation(size, IMAGENET, seed)
    side = _side(size)
    kernel = max(side // 10, 1) | 1
    steps = [
        RandomResizedCrop(side),
        RandomHorizontalFlip(),
        RandomApply((ColorJitter(0.8, 0.8, 0.8, 0.2),), 0.8),
        RandomGrayscale(0.2),
        RandomApply((GaussianBlur(kernel, (0.1, 2.0)),), 0.5),
    ]
    return _policy(steps, IMAGENET, [], seed)


def dino(
    size: int | None = None,
    num_classes: int | None = None,
    *,
    view: str = "global_1",
    train: bool = True,
    seed: int = 0,
) -> Policy:
    """One of the views of DINO: "global_1" and "global_2", crops of 0.4 to 1 of the area at 224 pixels, of which the
    first is always blurred, and the second seldom, and solarized with probability 0.2; "local", crops of 0.05 to 0.4 at
    96.  DINO takes one of each global view and eight local ones of each image, by `occurrence`.

    Source: M. Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, section 3.2 and
    appendix; github.com/facebookresearch/dino, main_dino.py.  The kernel of the blur, which Pillow has
    without a bound, reaches 7 pixels."""
    _checked(num_classes)
    views = {"global_1": (1.0, 0.0), "global_2": (0.1, 0.2), "local": (0.5, 0.0)}
    if view not in views:
        raise ValueError(f"view must be one of {', '.join(views)}, got {view!r}")
    side = _side((96 if view == "local" else 224) if size is None else size)
    if not train:
        return _validation(side, IMAGENET, seed, interpolation="bicubic")
    blurred, solarized = views[view]
    steps: list[Transform] = [
        RandomResizedCrop(side, (0.05, 0.4) if view == "local" else (0.4, 1.0), interpolation="bicubic"),
        RandomHorizontalFlip(),
        RandomApply((ColorJitter(0.4, 0.4, 0.2, 0.1),), 0.8),
        RandomGrayscale(0.2),
        RandomApply((GaussianBlur(15, (0.1, 2.0)),), blurred),
    ]
    if solarized:
        # 128 of 255, as Pillow has it
        steps.append(RandomSolarize(128 / 255, solarized))
    return _policy(steps, IMAGENET, [], seed)


def cifar(size: int = 32, num_classes: int | None = None, *, train: bool = True, seed: int = 0) -> Policy:
    """The usual augmentation of CIFAR: 4 pixels of padding, a crop of 32, a flip.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2, after C.-Y. Lee et
    al., "Deeply-Supervised Nets", 2015.  Images are of the size that comes out; validation takes them as they are.  The
    mean and standard deviation are CIFAR-10's."""
    _checked(num_classes)
    side = _side(size)
    if not train:
        return _policy([CenterCrop(side)], CIFAR, [], seed)
    return _policy([RandomCrop(side, padding=4), RandomHorizontalFlip()], CIFAR, [], seed)


# ---- by name

_NAMED: dict[str, Callable[..., Policy]] = {
    f.__name__: f
    for f in (
        *(small, medium, large, fine_grained, medical, satellite, digits),
        *(torchvision_reference, deit, simclr, dino, cifar),
    )
}
_DINO = ("dino_global_1", "dino_global_2", "dino_local")
NAMES = (*LEVELS, *_NAMED, *_DINO)


def get(
    name: str, size: int | None = None, num_classes: int | None = None, *, train: bool = True, seed: int = 0
) -> Policy:
    """The preset of a name; raises ValueError that lists the names.  size: by default the preset's own."""
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"a preset must be one of {', '.join(NAMES)}, got {name!r}")
    options: dict[str, Any] = {"num_classes": num_classes, "train": train, "seed": seed}
    if size is not None:
        options["size"] = size
    if name in LEVELS:
        return strength(name, **options)
    if name in _DINO:
        return dino(view=name.removeprefix("dino_"), **options)
    return _NAMED[name](**options)


def validation(name: str, size: int | None = None) -> Policy:
    """The deterministic transform that images of validation get where a preset augments those of training.

    size: by default the preset's own, but 224 of torchvision_reference, whose recipe validates larger than it
    trains."""
    if name == "torchvision_reference" and size is None:
        size = 224
    return get(name, size, train=False)


# ---- parts


def _policy(
    steps: Sequence[Transform], statistics: Statistics, ends: Sequence[Transform], seed: int, single: bool = False
) -> Policy:
    """single: compose the resize and the warp behind it into one interpolation"""
    made = [*steps, ToDtype(torch.float32, scale=True), Normalize(*statistics), *ends]
    return Policy(made, seed=seed, single_resample=single)


def _validation(
    size: int, statistics: Statistics, seed: int, margin: float = 256 / 224, interpolation: str = "bilinear"
) -> Policy:
    """The middle of an image whose shorter side is `margin` times as long: 256 for 224."""
    side = _side(size)
    return _policy([Resize(round(side * margin), interpolation), CenterCrop(side)], statistics, [], seed)


def _mixes(num_classes: int | None, alpha: float = 0.2) -> list[Transform]:
    """MixUp or CutMix for each sample, where the number of classes is known."""
    if num_classes is None:
        return []
    classes = arguments.integer("num_classes", num_classes, 1)
    return [RandomMix((MixUp(alpha), CutMix(1.0)), num_classes=classes)]


def _checked(num_classes: int | None) -> None:
    """Refuse a wrong number where the preset has no mix too."""
    if num_classes is not None:
        arguments.integer("num_classes", num_classes, 1)


def _side(size: int) -> int:
    return arguments.integer("size", size, 1)
