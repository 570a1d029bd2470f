"""Tables of the automatic policies, as their papers' authors found them."""

# operation, probability, number of its magnitude among ten (0 where it has none)
Step = tuple[str, float, int]


def _pairs(text: str) -> tuple[tuple[Step, Step], ...]:
    """Two steps a line."""
    rows = [[step.split() for step in line.split(",")] for line in text.strip().splitlines()]
    return tuple(((a, float(p), int(m)), (b, float(q), int(n))) for (a, p, m), (b, q, n) in rows)


# Cubuk et al., AutoAugment, 2019, tables 7 to 9, with magnitudes as torchvision's AutoAugment numbers them
AUTOAUGMENT: dict[str, tuple[tuple[Step, Step], ...]] = {
    "imagenet": _pairs(
        """
        Posterize 0.4 8, Rotate 0.6 9
        Solarize 0.6 5, AutoContrast 0.6 0
        Equalize 0.8 0, Equalize 0.6 0
        Posterize 0.6 7, Posterize 0.6 6
        Equalize 0.4 0, Solarize 0.2 4
        Equalize 0.4 0, Rotate 0.8 8
        Solarize 0.6 3, Equalize 0.6 0
        Posterize 0.8 5, Equalize 1.0 0
        Rotate 0.2 3, Solarize 0.6 8
        Equalize 0.6 0, Posterize 0.4 6
        Rotate 0.8 8, Color 0.4 0
        Rotate 0.4 9, Equalize 0.6 0
        Equalize 0.0 0, Equalize 0.8 0
        Invert 0.6 0, Equalize 1.0 0
        Color 0.6 4, Contrast 1.0 8
        Rotate 0.8 8, Color 1.0 2
        Color 0.8 8, Solarize 0.8 7
        Sharpness 0.4 7, Invert 0.6 0
        ShearX 0.6 5, Equalize 1.0 0
        Color 0.4 0, Equalize 0.6 0
        Equalize 0.4 0, Solarize 0.2 4
        Solarize 0.6 5, AutoContrast 0.6 0
        Invert 0.6 0, Equalize 1.0 0
        Color 0.6 4, Contrast 1.0 8
        Equalize 0.8 0, Equalize 0.6 0
        """
    ),
    "cifar10": _pairs(
        """
        Invert 0.1 0, Contrast 0.2 6
        Rotate 0.7 2, TranslateX 0.3 9
        Sharpness 0.8 1, Sharpness 0.9 3
        ShearY 0.5 8, TranslateY 0.7 9
        AutoContrast 0.5 0, Equalize 0.9 0
        ShearY 0.2 7, Posterize 0.3 7
        Color 0.4 3, Brightness 0.6 7
        Sharpness 0.3 9, Brightness 0.7 9
        Equalize 0.6 0, Equalize 0.5 0
        Contrast 0.6 7, Sharpness 0.6 5
        Color 0.7 7, TranslateX 0.5 8
        Equalize 0.3 0, AutoContrast 0.4 0
        TranslateY 0.4 3, Sharpness 0.2 6
        Brightness 0.9 6, Color 0.2 8
        Solarize 0.5 2, Invert 0.0 0
        Equalize 0.2 0, AutoContrast 0.6 0
        Equalize 0.2 0, Equalize 0.6 0
        Color 0.9 9, Equalize 0.6 0
        AutoContrast 0.8 0, Solarize 0.2 8
        Brightness 0.1 3, Color 0.7 0
        Solarize 0.4 5, AutoContrast 0.9 0
        TranslateY 0.9 9, TranslateY 0.7 9
        AutoContrast 0.9 0, Solarize 0.8 3
        Equalize 0.8 0, Invert 0.1 0
        TranslateY 0.7 9, AutoContrast 0.9 0
        """
    ),
    "svhn": _pairs(
        """
        ShearX 0.9 4, Invert 0.2 0
        ShearY 0.9 8, Invert 0.7 0
        Equalize 0.6 0, Solarize 0.6 6
        Invert 0.9 0, Equalize 0.6 0
        Equalize 0.6 0, Rotate 0.9 3
        ShearX 0.9 4, AutoContrast 0.8 0
        ShearY 0.9 8, Invert 0.4 0
        ShearY 0.9 5, Solarize 0.2 6
        Invert 0.9 0, AutoContrast 0.8 0
        Equalize 0.6 0, Rotate 0.9 3
        ShearX 0.9 4, Solarize 0.3 3
        ShearY 0.8 8, Invert 0.7 0
        Equalize 0.9 0, TranslateY 0.6 6
        Invert 0.9 0, Equalize 0.6 0
        Contrast 0.3 3, Rotate 0.8 4
        Invert 0.8 0, TranslateY 0.0 2
        ShearY 0.7 6, Solarize 0.4 8
        Invert 0.6 0, Rotate 0.8 4
        ShearY 0.3 7, TranslateX 0.9 3
        ShearX 0.1 6, Invert 0.6 0
        Solarize 0.7 2, TranslateY 0.6 7
        ShearY 0.8 4, Invert 0.8 0
        ShearX 0.7 9, TranslateY 0.8 3
        ShearY 0.8 5, AutoContrast 0.7 0
        ShearX 0.7 2, Invert 0.1 0
        """
    ),
}

# ---- timm's (timm/data/auto_augment.py of timm 1.0.31), whose magnitudes run from 0 to 10

_V0 = _pairs(
    """
    Equalize 0.8 1, ShearY 0.8 4
    Color 0.4 9, Equalize 0.6 3
    Color 0.4 1, Rotate 0.6 8
    Solarize 0.8 3, Equalize 0.4 7
    Solarize 0.4 2, Solarize 0.6 2
    Color 0.2 0, Equalize 0.8 8
    Equalize 0.4 8, SolarizeAdd 0.8 3
    ShearX 0.2 9, Rotate 0.6 8
    Color 0.6 1, Equalize 1.0 2
    Invert 0.4 9, Rotate 0.6 0
    Equalize 1.0 9, ShearY 0.6 3
    Color 0.4 7, Equalize 0.6 0
    Posterize 0.4 6, AutoContrast 0.4 7
    Solarize 0.6 8, Color 0.6 9
    Solarize 0.2 4, Rotate 0.8 9
    Rotate 1.0 7, TranslateYRel 0.8 9
    ShearX 0.0 0, Solarize 0.8 4
    ShearY 0.8 0, Color 0.6 4
    Color 1.0 0, Rotate 0.6 2
    Equalize 0.8 4, Equalize 0.0 8
    Equalize 1.0 4, AutoContrast 0.6 2
    ShearY 0.4 7, SolarizeAdd 0.6 7
    Posterize 0.8 2, Solarize 0.6 10
    Solarize 0.6 8, Equalize 0.6 1
    Color 0.8 6, Rotate 0.4 5
    """
)
_ORIGINAL = _pairs(
    """
    PosterizeOriginal 0.4 8, Rotate 0.6 9
    Solarize 0.6 5, AutoContrast 0.6 5
    Equalize 0.8 8, Equalize 0.6 3
    PosterizeOriginal 0.6 7, PosterizeOriginal 0.6 6
    Equalize 0.4 7, Solarize 0.2 4
    Equalize 0.4 4, Rotate 0.8 8
    Solarize 0.6 3, Equalize 0.6 7
    PosterizeOriginal 0.8 5, Equalize 1.0 2
    Rotate 0.2 3, Solarize 0.6 8
    Equalize 0.6 8, PosterizeOriginal 0.4 6
    Rotate 0.8 8, Color 0.4 0
    Rotate 0.4 9, Equalize 0.6 2
    Equalize 0.0 7, Equalize 0.8 8
    Invert 0.6 4, Equalize 1.0 8
    Color 0.6 4, Contrast 1.0 8
    Rotate 0.8 8, Color 1.0 2
    Color 0.8 8, Solarize 0.8 7
    Sharpness 0.4 7, Invert 0.6 8
    ShearX 0.6 5, Equalize 1.0 9
    Color 0.4 0, Equalize 0.6 3
    Equalize 0.4 7, Solarize 0.2 4
    Solarize 0.6 5, AutoContrast 0.6 5
    Invert 0.6 4, Equalize 1.0 8
    Color 0.6 4, Contrast 1.0 8
    Equalize 0.8 8, Equalize 0.6 3
    """
)


def _renamed(pairs: tuple[tuple[Step, Step], ...], name: str, other: str) -> tuple[tuple[Step, Step], ...]:
    """The same steps with another variant of an operation."""
    rows = [[(other if op == name else op, p, m) for op, p, m in pair] for pair in pairs]
    return tuple((a, b) for a, b in rows)


TIMM_AUTOAUGMENT = {
    "v0": _V0,
    "v0r": _renamed(_V0, "Posterize", "PosterizeIncreasing"),
    "original": _ORIGINAL,
    "originalr": _renamed(_ORIGINAL, "PosterizeOriginal", "PosterizeIncreasing"),
}
# operations of RandAugment and their weights, by the name of the set; None: all alike, drawn with replacement
TIMM_RANDAUGMENT: dict[str, dict[str, float | None]] = {
    "plain": dict.fromkeys(
        """AutoContrast Equalize Invert Rotate Posterize Solarize SolarizeAdd Color Contrast Brightness Sharpness ShearX
        ShearY TranslateXRel TranslateYRel""".split()
    ),
    "increasing": dict.fromkeys(
        """AutoContrast Equalize Invert Rotate PosterizeIncreasing SolarizeIncreasing SolarizeAdd ColorIncreasing
        ContrastIncreasing BrightnessIncreasing SharpnessIncreasing ShearX ShearY TranslateXRel
        TranslateYRel""".split()
    ),
    "3a": dict.fromkeys(("SolarizeIncreasing", "Desaturate", "GaussianBlur")),
    "3aw": {
        **dict.fromkeys(("SolarizeIncreasing", "Desaturate", "GaussianBlur"), 6.0),
        "Rotate": 3.0,
        **dict.fromkeys(("ShearX", "ShearY"), 2.0),
        **dict.fromkeys(
            """PosterizeIncreasing AutoContrast ColorIncreasing SharpnessIncreasing ContrastIncreasing
            BrightnessIncreasing Equalize Invert""".split(),
            1.0,
        ),
    },
    "weights": {
        "Rotate": 3.0,
        **dict.fromkeys(("ShearX", "ShearY"), 2.0),
        **dict.fromkeys(("TranslateXRel", "TranslateYRel"), 1.0),
        **dict.fromkeys(("ColorIncreasing", "SharpnessIncreasing", "AutoContrast"), 0.25),
        **dict.fromkeys(
            """SolarizeIncreasing SolarizeAdd ContrastIncreasing BrightnessIncreasing Equalize PosterizeIncreasing
            Invert""".split(),
            0.05,
        ),
    },
}
