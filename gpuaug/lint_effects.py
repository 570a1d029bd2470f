"""What transforms do to an image, in the words of `gpuaug.lint`: "rotation" by so many degrees, whichever transform it
is that turns.

A transform has the names of its class and of its effects, and values: its arguments ("p", "scale.0"), and those of its
effects ("degrees").  What never happens, because its probability is 0, is not there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from math import atan, degrees
from numbers import Real
from typing import Any

from gpuaug.transforms import ByClass, Transform
from gpuaug.transforms.auto_tables import AUTOAUGMENT, TIMM_AUTOAUGMENT, TIMM_RANDAUGMENT
from gpuaug.transforms.auto_timm import parsed
from gpuaug.transforms.mixes import Mixing

# an effect with its values
Effect = tuple[str, dict[str, float]]
# what changes colours or values, and expects them in [0, 1]
COLOUR = (
    *("brightness", "contrast", "saturation", "hue", "gray", "invert", "solarize", "posterize", "equalize"),
    *("autocontrast", "channels", "sharpness", "colour"),
)
EFFECTS = {
    "horizontal_flip": "left and right change places",
    "vertical_flip": "top and bottom change places",
    "rotation": "degrees: the largest angle, either way",
    "shear": "shear_degrees: the largest angle, either way",
    "translation": "share: of the image's side",
    "zoom": "factor: the largest",
    "perspective": "distortion: from 0 to 1",
    "elastic": "pixels move on their own; alpha, in pixels",
    "crop": "scale: the least share of the area that is kept, where that is known",
    "resample": "pixels are interpolated",
    "move": "pixels change places and nothing else, so that neighbouring interpolations stay neighbours",
    "brightness": "brightness_change: the largest, 0.4 for factors from 0.6 to 1.4",
    "contrast": "contrast_change",
    "saturation": "saturation_change",
    "sharpness": "sharpness_change",
    "hue": "shift: the largest, in turns of the colour circle",
    "gray": "colours are lost",
    "invert": "values are turned round",
    "solarize": "values above a threshold are turned round",
    "posterize": "bits: the least that are kept",
    "equalize": "the histogram is made flat",
    "autocontrast": "the range is stretched",
    "channels": "channels change places",
    "colour": "colours change in another way",
    "blur": "sigma: the largest, in pixels",
    "noise": "pixels are replaced, or something is added to them",
    "unclipped": "values may leave [0, 1]",
    "unscaled": "values run to 255",
    "scaled": "values are brought into [0, 1]",
    "jpeg": "quality: the least",
    "erasing": "area: the largest share",
    "mixup": "images are laid over one another",
    "cutmix": "a rectangle comes from another image",
    "normalize": "values are centred, and no longer in [0, 1]",
}


# containers of which a sample takes one child
_EXCLUSIVE = ("RandomChoice", "RandomMix", "ByClass")
# what the list of children is called, where that is not `transforms`
_LISTS = {"ByClass": "rows"}


@dataclass(frozen=True)
class Seen:
    """A transform, or one operation of an automatic policy, at its place."""

    transform: Transform
    place: tuple[tuple[str, int], ...]  # what it lies in, from the outside: kind of container and place there
    operation: str  # of an automatic policy; else empty
    names: frozenset[str]  # its class, and its effects
    values: Mapping[str, Any]

    @property
    def where(self) -> str:
        """Its place as code: transforms[1].transforms[0]."""
        code = "".join(
            f"[{i}]" if kind == "row" else f".{_LISTS.get(kind, 'transforms')}[{i}]" for kind, i in self.place
        )
        return f"{code[1:]} {self.operation}".strip()

    def precedes(self, other: "Seen") -> bool:
        """Whether it may come before another in one sample."""
        for (kind, i), (_, j) in zip(self.place, other.place, strict=False):
            if i != j:
                return kind == "RandomOrder" or (kind not in _EXCLUSIVE and i < j)
        return False


def seen(transforms: Sequence[Transform], single_resample: bool = False) -> list[Seen]:
    """All that may happen, in order.  single_resample: of the policy, which composes neighbouring interpolations"""
    found, out = list(_walk(transforms, "Policy", ())), []
    for s in found:
        # a conversion without scale is harmless where values were scaled before
        scaled = "unscaled" in s.names and any("scaled" in o.names and o.precedes(s) for o in found)
        gone = {"resample"} if single_resample else set()
        gone |= {"unscaled"} if scaled else set()
        out.append(replace(s, names=s.names - gone))
    return out


def _walk(transforms: Sequence[Transform], kind: str, place: tuple[tuple[str, int], ...]) -> Iterator[Seen]:
    for i, t in enumerate(transforms):
        at = (*place, (kind, i))
        values = dict(_arguments(t))
        if values.get("p") == 0:
            continue
        effects = list(_effects(t))
        own = {type(t).__name__, _ours(t)}
        yield Seen(t, at, "", frozenset(own | {n for n, _ in effects}), values | _joined(effects))
        for name, (effect, more) in _operations(t):
            names = frozenset(own | {name, effect})
            yield Seen(t, at, name, names, values | more)
        if isinstance(t, ByClass):
            yield from _rows(t, at)
            continue
        weights = getattr(t, "p", None) if type(t).__name__ in _EXCLUSIVE else None
        inside = _walk(t.children, type(t).__name__, at)
        yield from (s for s in inside if weights is None or weights[s.place[len(at)][1]])


def _rows(t: ByClass, at: tuple[tuple[str, int], ...]) -> Iterator[Seen]:
    """The rows of a choice by class: one of them for a sample, so that they are told apart as those of a RandomChoice,
    and each in order."""
    for i, row in enumerate(t.rows):
        yield from _walk(row, "row", (*at, ("ByClass", i)))


def _ours(t: Transform) -> str:
    """The name of its class, or, of one that a user derived, of the class of gpuaug that it is."""
    kinds = (k for k in type(t).__mro__ if k.__module__.startswith("gpuaug.transforms."))
    return next((k.__name__ for k in kinds), type(t).__name__)


def _arguments(t: Transform) -> Iterator[tuple[str, Any]]:
    """Numbers, flags and words by name; those of a tuple by name and place."""
    names: list[str] = [f.name for f in fields(t)] if is_dataclass(t) else []
    for name in names:
        value = getattr(t, name)
        if isinstance(value, Real | str | bool):
            yield name, value
        elif isinstance(value, tuple):
            yield from ((f"{name}.{i}", v) for i, v in enumerate(value) if isinstance(v, Real | str))


def _joined(effects: Sequence[Effect]) -> dict[str, float]:
    return {k: v for _, values in effects for k, v in values.items()}


def _change(interval: Any) -> float:
    """How far a factor goes from 1."""
    return 0.0 if interval is None else max(abs(v - 1.0) for v in interval)


def _reach(interval: Any) -> float:
    return 0.0 if interval is None else max(map(abs, interval))


def _jitter(t: Any) -> Iterator[Effect]:
    for name in ("brightness", "contrast", "saturation"):
        change = _change(getattr(t, name))
        if change:
            yield name, {f"{name}_change": change}
    shift = _reach(t.hue)
    if shift:
        yield "hue", {"shift": shift}


def _affine(t: Any) -> Iterator[Effect]:
    yield "resample", {}
    if _reach(t.degrees):
        yield "rotation", {"degrees": _reach(t.degrees)}
    if t.translate is not None and any(t.translate):
        yield "translation", {"share": max(t.translate)}
    if t.scale is not None and tuple(t.scale) != (1.0, 1.0):
        yield "zoom", {"factor": max(t.scale)}
    if t.shear is not None and any(t.shear):
        yield "shear", {"shear_degrees": _reach(t.shear)}


def _effects(t: Any) -> Iterator[Effect]:
    """What one transform does by itself."""
    name = _ours(t)
    if name in _FIXED:
        yield from ((effect, {}) for effect in _FIXED[name])
    elif name in ("ColorJitter", "RandomPhotometricDistort"):
        yield from _jitter(t)
        if name == "RandomPhotometricDistort":
            yield "channels", {}
    elif name == "RandomAffine":
        yield from _affine(t)
    elif name == "RandomRotation":
        yield "resample", {}
        if _reach(t.degrees):
            yield "rotation", {"degrees": _reach(t.degrees)}
    elif name == "RandomPerspective":
        yield from (("resample", {}), ("perspective", {"distortion": t.distortion_scale}))
    elif name == "RandomResizedCrop":
        yield from (("resample", {}), ("crop", {"scale": t.scale[0]}))
    elif name == "ElasticTransform":
        yield from (("resample", {}), ("elastic", {"alpha": _reach(_pair(t.alpha))}))
    elif name == "GaussianBlur":
        yield "blur", {"sigma": _reach(_pair(t.sigma))}
    elif name == "RandomAdjustSharpness":
        yield "sharpness", {"sharpness_change": abs(t.sharpness_factor - 1.0)}
    elif name == "RandomPosterize":
        yield "posterize", {"bits": t.bits}
    elif name == "JPEG":
        yield "jpeg", {"quality": min(_pair(t.quality))}
    elif name == "GaussianNoise":
        yield from [("noise", {})] + ([] if t.clip else [("unclipped", {})])
    elif name == "RandomErasing":
        yield "erasing", {"area": t.scale[1]}
    elif name == "RandomRot90":
        yield from (("move", {}), ("rotation", {"degrees": 180.0}))
    elif name in ("ToDtype", "ConvertImageDtype") and t.dtype.is_floating_point:
        yield "scaled" if getattr(t, "scale", True) else "unscaled", {}
    elif isinstance(t, Mixing) and not t.children:
        yield from (("cutmix", {}), ("mixup", {}))
    elif type(t).__module__ == "gpuaug.transforms.colour":
        yield "colour", {}


def _pair(value: Any) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


# transforms of which the class says all
_FIXED: dict[str, tuple[str, ...]] = {
    "RandomHorizontalFlip": ("horizontal_flip", "move"),
    "RandomVerticalFlip": ("vertical_flip", "move"),
    "CenterCrop": ("move",),
    "Pad": ("move",),
    "RandomCrop": ("move", "crop"),
    "RandomZoomOut": ("move",),
    "Resize": ("resample",),
    "RandomResize": ("resample",),
    "RandomShortestSize": ("resample",),
    "ScaleJitter": ("resample",),
    "RandomGrayscale": ("gray",),
    "Grayscale": ("gray",),
    "RandomInvert": ("invert",),
    "RandomSolarize": ("solarize",),
    "RandomEqualize": ("equalize",),
    "RandomAutocontrast": ("autocontrast",),
    "RandomChannelPermutation": ("channels",),
    "SaltAndPepper": ("noise",),
    "ToTensor": ("scaled",),
    "RGB": (),
    "Normalize": ("normalize",),
    "FiveCrop": ("move", "crop"),
    "TenCrop": ("move", "crop", "horizontal_flip"),
    "MixUp": ("mixup",),
    "CutMix": ("cutmix",),
}


# ---- the operations of automatic policies


def _operation(name: str, share: float, widest: Mapping[str, float] = {}) -> Effect | None:
    """One operation at a share of its largest magnitude; None where it does nothing to speak of."""
    top = {"Rotate": 30.0, "Shear": 0.3, "Translate": 150 / 331, "Factor": 0.9, **widest}
    if name == "Rotate":
        return "rotation", {"degrees": top["Rotate"] * share}
    if name.startswith("Shear"):
        return "shear", {"shear_degrees": degrees(atan(top["Shear"] * share))}
    if name.startswith("Translate"):
        return "translation", {"share": top["Translate"] * share}
    changed = {"Brightness": "brightness", "Color": "saturation", "Contrast": "contrast", "Sharpness": "sharpness"}
    stem = name.removesuffix("Increasing")
    if stem in changed:
        return changed[stem], {f"{changed[stem]}_change": top["Factor"] * share}
    plain = {"Posterize": "posterize", "Solarize": "solarize", "SolarizeAdd": "solarize", "Invert": "invert"}
    plain |= {"Equalize": "equalize", "AutoContrast": "autocontrast", "Desaturate": "saturation"}
    found = next((effect for word, effect in plain.items() if stem in (word, f"{word}Original")), None)
    return None if found is None else (found, {})


_SPACE = ("Rotate", "ShearX", "TranslateX", "Brightness", "Color", "Contrast", "Sharpness")
_TABLES = ("Posterize", "Solarize", "AutoContrast", "Equalize")


def _operations(t: Any) -> Iterator[tuple[str, Effect]]:
    """The operations that an automatic policy may take, each at its largest."""
    name, widest = _ours(t), {}
    shares: dict[str, float] = {}
    if name == "RandAugment":
        shares = dict.fromkeys((*_SPACE, *_TABLES), t.magnitude / max(t.num_magnitude_bins - 1, 1))
    elif name == "TrivialAugmentWide":
        shares = dict.fromkeys((*_SPACE, *_TABLES), 1.0)
        widest = {"Rotate": 135.0, "Shear": 0.99, "Translate": 32 / 224, "Factor": 0.99}
    elif name == "AutoAugment":
        for op, p, magnitude in (step for pair in AUTOAUGMENT[t.policy] for step in pair):
            if p:
                shares[op] = max(shares.get(op, 0.0), magnitude / 9)
    elif name == "AugMix":
        few = ("Rotate", "ShearX", "TranslateX", *_TABLES)
        shares = dict.fromkeys((*_SPACE, *_TABLES) if t.all_ops else few, t.severity / 10)
    elif name == "TimmRandAugment":
        said = parsed(t.config, "rand")
        # three standard deviations of its noise, within its bound
        share = min(said.magnitude + 3 * said.noise, said.top) / 10
        shares = dict.fromkeys(TIMM_RANDAUGMENT[said.name], share)
    elif name == "TimmAutoAugment":
        said = parsed(t.config, "auto")
        steps = [step for pair in TIMM_AUTOAUGMENT[said.name] for step in pair]
        for op, p, magnitude in steps:
            if p:
                shares[op] = max(shares.get(op, 0.0), min(magnitude + 3 * said.noise, 10.0) / 10)
    for op, share in shares.items():
        effect = _operation(op, share, widest)
        if effect is not None:
            yield op, effect
