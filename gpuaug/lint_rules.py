"""The rules of `gpuaug.lint` as data: which transform, how strong, in which domain, with reason and source."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpuaug.lint_effects import COLOUR

LEVELS = ("error", "warning", "note")
DOMAINS = {
    "natural": "photographs of things that stand upright",
    "text": "writing, documents, scenes with words",
    "digits": "digits and characters",
    "medical": "radiographs and other images of a body, with a left and a right",
    "satellite": "images from above",
    "microscopy": "cells, tissue, materials",
    "traffic_signs": "signs with arrows and colours that mean something",
    "fine_grained": "species, makes and models, told apart by texture and small parts",
    "small_objects": "objects that are a small part of the image",
    "colour_coded": "the colour is the label: plant disease, traffic lights, assays",
}
# of a value, such as "> 20", or a list of such that all must hold
Condition = str | float | bool | Sequence[str]


@dataclass(frozen=True)
class Rule:
    """What is wrong, where.

    name: what findings are called.  level: "error", "warning" or "note".  transform: names of transforms or of effects
    (`gpuaug.lint_effects.EFFECTS`), one of which it is about.  reason: what happens, and what to do.  domains: where it
    is wrong; empty: anywhere.  where: what must hold of its arguments and the values of its effects, by name, as
    {"degrees": "> 20"}, {"scale.0": ["> 0", "< 0.5"]} or {"clip": True}; or a function of the transform.  after,
    before: it is wrong only behind, or in front of, one of these.  follows: only right behind one of these, with at
    most moves such as flips between.  source: where that is said."""

    name: str
    level: str
    transform: str | tuple[str, ...]
    reason: str
    source: str = ""
    domains: tuple[str, ...] = ()
    where: Mapping[str, Condition] | Callable[[Any], bool] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("name", "reason"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name} of a rule must be text, got {getattr(self, name)!r}")
        if self.level not in LEVELS:
            raise ValueError(f"level of rule {self.name!r} must be one of {', '.join(LEVELS)}, got {self.level!r}")
        for name in ("transform", "domains", "after", "before", "follows"):
            value = getattr(self, name)
            value = (value,) if isinstance(value, str) else value
            if not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
                raise TypeError(f"{name} of rule {self.name!r} must be names, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        if not self.transform:
            raise ValueError(f"transform of rule {self.name!r} must name a transform or an effect, got none")
        if not callable(self.where):
            if not isinstance(self.where, Mapping):
                raise TypeError(f"where of rule {self.name!r} must be a mapping or a function, got {self.where!r}")
            for key, condition in self.where.items():
                for one in condition if isinstance(condition, list | tuple) else [condition]:
                    holds(one, 0.0, f"{key} of rule {self.name!r}")


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


def holds(condition: Any, value: Any, name: str) -> bool:
    """Whether a value is as a condition says: "> 20", or equal to a plain value."""
    sign = next((s for s in _COMPARE if isinstance(condition, str) and condition.strip().startswith(s)), None)
    if sign is None:
        if not isinstance(condition, str | int | float | bool):
            raise TypeError(f"{name} must be a condition such as '> 20', or a plain value, got {condition!r}")
        return bool(value == condition)
    text = condition.strip()[len(sign) :].strip()
    try:
        bound: Any = float(text)
    except ValueError:
        if sign not in ("==", "!="):
            raise ValueError(f"{name} must compare with a number, got {condition!r}; write '{sign} 20'") from None
        bound = text
    if isinstance(bound, float) and (isinstance(value, str) or value is None):
        return sign == "!="
    return _COMPARE[sign](value, bound)


# ---- sources

_SAFETY = (
    "C. Shorten and T. M. Khoshgoftaar, A survey on Image Data Augmentation for Deep Learning, Journal of Big Data 6, "
    "2019: a transform is safe where it keeps the label, which flips and turns of digits, such as 6 and 9, do not"
)
_SIDES = "DICOM PS3.3, Image Laterality (0020,0062): the side is part of the record; the heart and the liver lie on one"
_SIGNS = "Vienna Convention on Road Signs and Signals, 1968: directions, shapes and colours have meanings"
_SCALE = (
    "H. Touvron et al., Fixing the train-test resolution discrepancy, NeurIPS 2019, on the apparent size of objects; "
    "R. Balestriero et al., The Effects of Regularization and Data Augmentation are Class Dependent, NeurIPS 2022, on "
    "classes that random crops harm"
)
_PLANTS = "S. P. Mohanty et al., Using Deep Learning for Image-Based Plant Disease Detection, 2016: colour beats gray"
_STAIN = (
    "D. Tellez et al., Quantifying the effects of data augmentation and stain color normalization in convolutional "
    "neural networks for computational pathology, Medical Image Analysis 58, 2019: small shifts help"
)
_TEXTURE = "R. Geirhos et al., ImageNet-trained CNNs are biased towards texture, ICLR 2019"
_ERASING = "Z. Zhong et al., Random Erasing Data Augmentation, AAAI 2020: up to a third of the area by default"
_MIXUP = (
    "S. Yun et al., CutMix, ICCV 2019, section 4: MixUp makes the localisation of objects worse, and a mix of two "
    "images has no one place for an object"
)
_PATCH = (
    "A. F. M. S. Uddin et al., SaliencyMix, ICLR 2021: a random patch may hold no object, and the label says it does"
)
_ORDER = "torchvision, references/classification/presets.py, and timm.data.create_transform: erasing comes last"
_RANGE = "torchvision.transforms.v2.functional: colours of float images are in [0, 1], to which they are clamped"
_TWICE = "J. A. Parker et al., Comparison of Interpolating Methods for Image Resampling, IEEE TMI 2, 1983"
_SAMPLER = "torch.utils.data.DataLoader: sampler and shuffle exclude each other"

_SIDED = ("text", "digits", "traffic_signs")

RULES: tuple[Rule, ...] = (
    # ---- anywhere
    Rule(
        "normalize-before-noise",
        "error",
        "noise",
        "noise behind Normalize is of another strength than it says, and what clips to [0, 1] cuts off every value "
        "below the mean; put Normalize behind the noise",
        _RANGE,
        after=("normalize",),
    ),
    Rule(
        "erasing-before-normalize",
        "warning",
        "erasing",
        "what is erased in front of Normalize is no longer the value that it says, 0 becomes (0 - mean) / std; put "
        "RandomErasing behind Normalize, where 0 is the mean",
        _ORDER,
        before=("normalize",),
    ),
    Rule(
        "resampled-twice",
        "warning",
        "resample",
        "two interpolations in a row blur the image, and read and write it twice; leave one out, or pass "
        "single_resample=True to the Policy, which makes one of them",
        _TWICE,
        follows=("resample",),
    ),
    Rule(
        "colour-outside-range",
        "error",
        COLOUR,
        "a colour transform expects values in [0, 1], clamps them, and gets others here; put it in front of Normalize, "
        "and convert by ToDtype(torch.float32, scale=True)",
        _RANGE,
        after=("normalize", "unscaled", "unclipped"),
    ),
    # ---- flips
    Rule(
        "mirrored-writing",
        "error",
        "horizontal_flip",
        "mirrored, a character is another one or none; leave it out",
        _SAFETY,
        ("text", "digits"),
    ),
    Rule(
        "mirrored-sign",
        "error",
        "horizontal_flip",
        "mirrored, keep left is keep right; leave it out, or flip with the label exchanged",
        _SIGNS,
        ("traffic_signs",),
    ),
    Rule(
        "mirrored-body",
        "error",
        "horizontal_flip",
        "mirrored, left is right, and the side is part of the finding; leave it out unless no label depends on the side"
        "",
        _SIDES,
        ("medical",),
    ),
    Rule(
        "upside-down-character",
        "error",
        "vertical_flip",
        "upside down, a character is another one or none; leave it out",
        _SAFETY,
        _SIDED,
    ),
    Rule(
        "upside-down-body",
        "error",
        "vertical_flip",
        "bodies are not imaged upside down, and a vertical flip exchanges left and right of a turned one; leave it out",
        _SIDES,
        ("medical",),
    ),
    Rule(
        "upside-down-object",
        "warning",
        "vertical_flip",
        "things that stand upright do not come upside down, so that the model learns what it will not see; leave it out"
        "",
        _SAFETY,
        ("natural", "fine_grained"),
    ),
    # ---- turns
    Rule(
        "turned-character",
        "error",
        "rotation",
        "turned so far, 6 is 9 and an arrow points elsewhere; stay below 15 degrees",
        _SAFETY,
        _SIDED,
        {"degrees": "> 45"},
    ),
    Rule(
        "tilted-character",
        "warning",
        "rotation",
        "turned so far, 1 is like 7 and a sign like another; stay below 15 degrees",
        _SAFETY,
        _SIDED,
        {"degrees": ["> 15", "<= 45"]},
    ),
    Rule(
        "tilted-body",
        "warning",
        "rotation",
        "bodies are imaged upright to some 20 degrees; what lies beyond is not seen in practice",
        _SIDES,
        ("medical",),
        {"degrees": "> 20"},
    ),
    Rule(
        "turned-object",
        "note",
        "rotation",
        "things that stand upright are seldom seen turned so far; 15 to 30 degrees are usual",
        _SAFETY,
        ("natural", "fine_grained"),
        {"degrees": "> 45"},
    ),
    Rule(
        "sheared-character",
        "warning",
        "shear",
        "sheared so far, a character is like another; stay below 15 degrees",
        _SAFETY,
        _SIDED,
        {"shear_degrees": "> 20"},
    ),
    # ---- crops
    Rule(
        "object-cropped-away",
        "error",
        "crop",
        "a crop of so little of the area mostly misses a small object, and the label says that it is there; keep scale "
        "at 0.5 or more",
        _SCALE,
        ("small_objects",),
        {"scale": "< 0.3"},
    ),
    Rule(
        "object-cropped",
        "warning",
        "crop",
        "a crop of so little of the area may miss a small object, and the label says that it is there; keep scale at "
        "0.5 or more",
        _SCALE,
        ("small_objects",),
        {"scale": [">= 0.3", "< 0.5"]},
    ),
    Rule(
        "finding-cropped",
        "warning",
        "crop",
        "a crop of so little of the area may miss what the label is about, or leave half of a word or sign; keep scale "
        "at 0.5 or more",
        _SCALE,
        ("medical", "fine_grained", *_SIDED),
        {"scale": "< 0.3"},
    ),
    # ---- colours
    Rule(
        "recoloured-label",
        "error",
        "hue",
        "here the colour is the label, and another hue gives it another one; leave hue out",
        _PLANTS,
        ("colour_coded",),
        {"shift": "> 0.01"},
    ),
    Rule(
        "decoloured-label",
        "error",
        ("gray", "invert", "channels", "solarize", "equalize"),
        "here the colour is the label, and this takes it away or gives it another one; leave it out",
        _PLANTS,
        ("colour_coded",),
    ),
    Rule(
        "desaturated-label",
        "warning",
        "saturation",
        "here the colour is the label, and this makes colours pale or loud; stay below a change of 0.2",
        _PLANTS,
        ("colour_coded",),
        {"saturation_change": "> 0.2"},
    ),
    Rule(
        "recoloured-sign",
        "error",
        "hue",
        "the colour of a sign is part of its meaning; leave hue out, or keep it at 0.02",
        _SIGNS,
        ("traffic_signs",),
        {"shift": "> 0.02"},
    ),
    Rule(
        "inverted-sign",
        "error",
        ("channels", "invert", "solarize"),
        "the colour of a sign is part of its meaning, and this gives it another; leave it out",
        _SIGNS,
        ("traffic_signs",),
    ),
    Rule(
        "recoloured-stain",
        "warning",
        "hue",
        "stains and bands carry information; a hue of up to 0.05 is as between two laboratories or sensors",
        _STAIN,
        ("microscopy", "satellite", "medical"),
        {"shift": "> 0.05"},
    ),
    Rule(
        "inverted-stain",
        "warning",
        ("channels", "invert", "solarize"),
        "stains, bands and densities carry information, and no device turns them round; leave it out",
        _STAIN,
        ("microscopy", "satellite", "medical"),
    ),
    Rule(
        "recoloured-species",
        "warning",
        "hue",
        "species and makes differ in colour; keep hue at 0.02, or leave it out",
        _PLANTS,
        ("fine_grained",),
        {"shift": "> 0.02"},
    ),
    Rule(
        "decoloured-species",
        "warning",
        ("gray", "channels", "invert"),
        "species and makes differ in colour, which this takes away; leave it out",
        _PLANTS,
        ("fine_grained",),
    ),
    # ---- texture
    Rule(
        "blurred-texture",
        "warning",
        "blur",
        "blur takes away the texture that tells these classes apart; leave it out, or keep sigma at 0.5",
        _TEXTURE,
        ("fine_grained", "microscopy"),
        {"sigma": "> 0.5"},
    ),
    Rule(
        "blurred-object",
        "warning",
        "blur",
        "blur of so many pixels takes away what is only some pixels large; leave it out, or keep sigma at 0.5",
        _TEXTURE,
        ("small_objects", "text"),
        {"sigma": "> 0.5"},
    ),
    # ---- erasing and mixes
    Rule(
        "object-erased",
        "error",
        "erasing",
        "a rectangle of up to this share of the area covers a small object, and the label says that it is there; leave "
        "it out, or erase up to 0.02",
        _ERASING,
        ("small_objects",),
        {"area": "> 0.05"},
    ),
    Rule(
        "finding-erased",
        "warning",
        "erasing",
        "what is erased may be what the label is about: a finding, a part, a character; erase less, up to 0.1",
        _ERASING,
        ("medical", "fine_grained", *_SIDED),
        {"area": "> 0.1"},
    ),
    Rule(
        "mixed-places",
        "warning",
        "mixup",
        "two images over one another have no one place for an object, and small ones fade; take it for whole images "
        "only",
        _MIXUP,
        ("small_objects",),
    ),
    Rule(
        "patched-objects",
        "warning",
        "cutmix",
        "a patch mostly holds the background between small objects, and the label counts its area; leave it out",
        _PATCH,
        ("small_objects",),
    ),
    Rule(
        "mixed-details",
        "note",
        ("mixup", "cutmix"),
        "classes that differ in a small part become doubtful when images are mixed; compare with and without",
        _PATCH,
        ("fine_grained", "medical"),
    ),
    Rule(
        "bent-shapes",
        "note",
        "elastic",
        "strokes and signs bent so far may be others; look at some",
        _SAFETY,
        ("text", "traffic_signs"),
        {"alpha": "> 100"},
    ),
)
# of a loader, which no transform is about
SHUFFLED = Rule(
    "weighted-and-shuffled",
    "error",
    "loader",
    "a weighted sampler already draws in random order, and shuffling takes its place or is refused; leave shuffle out",
    _SAMPLER,
)
