"""Pipelines of other libraries as policies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from numbers import Real
from typing import Any

import torch

from gpuaug.policy import Policy
from gpuaug.transforms import APART, REGISTRY, Custom, Kornia, Lambda, Transform
from gpuaug.transforms.fixed import FixedViews

# what makes floats of the integers that an image file holds
_CONVERSIONS = ("ToTensor", "ToDtype", "ConvertImageDtype")
# arguments that are values of pixels: 0 to 255 while images are integers there, and 0 to 1 always here
_PIXELS = ("fill", "value", "threshold")
_TOP = 255


def from_torchvision(pipeline: Any, seed: int = 0, **options: Any) -> Policy:
    """The policy that does what a torchvision pipeline does, sample by sample.

    pipeline: a Compose of torchvision.transforms or torchvision.transforms.v2, nested as you like, an nn.Sequential, a
    list of transforms, or one transform.  A Lambda, and any other function or module, is called for each image.  Values
    of pixels (fill, threshold) that stand before the conversion to floats are divided by 255. seed, options: of the
    `Policy`.  Raises ValueError or TypeError that names the transform which has no counterpart here."""
    parts = list(_flat(pipeline))
    integers = any(type(part).__name__ in _CONVERSIONS for part in parts)
    transforms: list[Transform] = []
    for part in parts:
        made = _converted(part, integers)
        transforms += made
        integers = integers and not any(_makes_floats(t) for t in made)
    return Policy(transforms, seed, **options)


def _makes_floats(t: Transform) -> bool:
    dtype = torch.float32 if type(t).__name__ == "ToTensor" else getattr(t, "dtype", torch.uint8)
    return bool(dtype.is_floating_point)


def _flat(pipeline: Any) -> Iterator[Any]:
    """The transforms of a pipeline in order, nested ones unpacked."""
    if isinstance(pipeline, torch.nn.Sequential | torch.nn.ModuleList):
        parts: Any = list(pipeline)
    elif isinstance(pipeline, Sequence) and not isinstance(pipeline, str):
        parts = pipeline
    elif _is_torchvision(pipeline) and type(pipeline).__name__ == "Compose":
        parts = pipeline.transforms
    else:
        yield pipeline
        return
    for part in parts:
        yield from _flat(part)


def _is_torchvision(given: Any) -> bool:
    return type(given).__module__.split(".")[0] == "torchvision"


def _converted(given: Any, integers: bool) -> list[Transform]:
    """What one transform becomes.  integers: whether images are integers where it stands"""
    if isinstance(given, Transform):
        return [given]
    if not _is_torchvision(given):
        if isinstance(given, type) or not callable(given):
            raise TypeError(f"a pipeline must hold transforms or functions, got {given!r}")
        augments = type(given).__module__.startswith("kornia.augmentation")
        return [Kornia(given) if augments else Lambda(given)]
    name = type(given).__name__
    try:
        if name in _SPECIAL:
            return _SPECIAL[name](given, integers)
        cls = (REGISTRY | APART).get(name)
        if cls is None:
            raise ValueError(_REASONS.get(name, "keep it outside the policy, or write it as gpuaug.Custom(function)"))
        names = [f.name for f in fields(cls) if hasattr(given, f.name)]  # type: ignore[arg-type]
        return [cls(**{n: _argument(n, getattr(given, n), integers) for n in names})]
    except (TypeError, ValueError) as error:
        if "has no counterpart" in str(error):
            raise
        raise type(error)(f"{name} of the pipeline has no counterpart in gpuaug: {error}") from None


def _argument(name: str, value: Any, integers: bool) -> Any:
    """A torchvision argument as ours."""
    value = _plain(_of_images(value))
    if name not in _PIXELS:
        return value
    if isinstance(value, tuple):
        return tuple(_share(v, integers) for v in value)
    return _share(value, integers)


def _share(value: Any, integers: bool) -> Any:
    """A value of a pixel from 0 to 1."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return value
    return float(value) / _TOP if integers or float(value) > 1 else float(value)


def _of_images(value: Any) -> Any:
    """Of what is given by type of input, that of images."""
    if not isinstance(value, Mapping):
        return value
    of = {getattr(k, "__name__", k): v for k, v in value.items()}
    return of.get("Image", of.get("Tensor", of.get("others")))


def _plain(value: Any) -> Any:
    """Lists and tensors as tuples."""
    value = value.tolist() if isinstance(value, torch.Tensor) else value
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


# ---- those whose arguments are other transforms, or differ from ours


def _make(name: str, *arguments: Any) -> Transform:
    return REGISTRY[name](*arguments)


def _together(children: Any, integers: bool) -> tuple[Transform, ...]:
    made = tuple(t for child in _flat(children) for t in _converted(child, integers))
    several = next((type(t).__name__ for t in made if isinstance(t, FixedViews)), None)
    if several:
        raise ValueError(
            f"{several} of the pipeline has no counterpart in gpuaug inside another transform, for its views are those "
            "of a policy; put it into the list itself"
        )
    return made


def _one_each(children: Any, integers: bool) -> tuple[Transform, ...]:
    """The children of a choice or an order: several transforms in one place, or none, are one all the same."""
    each = [_together([child], integers) for child in children]
    return tuple(
        made[0] if len(made) == 1 else _make("RandomApply", made, 1.0) if made else _make("Identity") for made in each
    )


def _apply(given: Any, integers: bool) -> list[Transform]:
    return [_make("RandomApply", _together(given.transforms, integers), given.p)]


def _choice(given: Any, integers: bool) -> list[Transform]:
    children = _one_each(given.transforms, integers)
    # one choice among mixes, with one partner, where torchvision chooses once for a batch
    name = "RandomMix" if all(type(t).__name__ in ("CutMix", "MixUp") for t in children) else "RandomChoice"
    return [_make(name, children, _plain(given.p))]


def _order(given: Any, integers: bool) -> list[Transform]:
    return [_make("RandomOrder", _one_each(given.transforms, integers))]


def _to_dtype(given: Any, integers: bool) -> list[Transform]:
    dtype = _of_images(given.dtype)
    return [] if dtype is None else [_make("ToDtype", dtype, given.scale)]


def _erasing(given: Any, integers: bool) -> list[Transform]:
    # v2 keeps None for "random", and a list where it was given a number
    value = "random" if given.value is None else _argument("value", given.value, integers)
    value = value[0] if isinstance(value, tuple) and len(value) == 1 else value
    return [_make("RandomErasing", given.p, _plain(given.scale), _plain(given.ratio), value)]


def _crop(given: Any, integers: bool) -> list[Transform]:
    names = ("size", "padding", "pad_if_needed", "fill", "padding_mode")
    size, padding, needed, fill, mode = (_argument(n, getattr(given, n), integers) for n in names)
    if padding is not None and ".v2." in type(given).__module__:
        # v2 keeps them as left, right, top, bottom
        left, right, top, bottom = padding
        padding = (left, top, right, bottom)
    return [_make("RandomCrop", size, padding, needed, fill, mode)]


def _resized(given: Any, integers: bool) -> list[Transform]:
    cls = REGISTRY[type(given).__name__]
    arguments = {f.name: _plain(getattr(given, f.name)) for f in fields(cls)}  # type: ignore[arg-type]
    if getattr(arguments["interpolation"], "value", None) == "lanczos":
        # Pillow, which had it first, antialiases whatever it is told
        arguments["antialias"] = True
    return [cls(**arguments)]


def _elastic(given: Any, integers: bool) -> list[Transform]:
    # the first version keeps a list where it was given a number
    fill = _argument("fill", given.fill, integers)
    fill = fill[0] if isinstance(fill, tuple) and len(fill) == 1 else fill
    mode = getattr(given, "interpolation", "bilinear")
    return [_make("ElasticTransform", _plain(given.alpha), _plain(given.sigma), mode, fill)]


def _linear(given: Any, integers: bool) -> list[Transform]:
    matrix, mean = given.transformation_matrix, given.mean_vector

    def whitened(images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1) - mean.to(images)
        white: torch.Tensor = flat @ matrix.to(images)
        return white.view_as(images)

    return [Custom(whitened)]


_SPECIAL: dict[str, Callable[[Any, bool], list[Transform]]] = {
    "RandomApply": _apply,
    "RandomChoice": _choice,
    "RandomOrder": _order,
    "ToDtype": _to_dtype,
    "RandomErasing": _erasing,
    "RandomCrop": _crop,
    "ElasticTransform": _elastic,
    "LinearTransformation": _linear,
    "Lambda": lambda given, integers: [Lambda(given.lambd)],
    "CutMix": lambda given, integers: [_make("CutMix", given.alpha, given.num_classes)],
    "MixUp": lambda given, integers: [_make("MixUp", given.alpha, given.num_classes)],
    # images come out as plain tensors anyway, and boxes within their images
    "ToPureTensor": lambda given, integers: [],
    "ClampBoundingBoxes": lambda given, integers: [],
    **dict.fromkeys(("RandomResizedCrop", "Resize", "RandomResize", "RandomShortestSize", "ScaleJitter"), _resized),
}
# why the others of torchvision's transforms are not here, and what to do
_REASONS = {
    **dict.fromkeys(("FiveCrop", "TenCrop"), "it makes several images of one; give each view a policy of its own"),
    "ClampKeyPoints": "keypoints beyond an image are marked in visible and stay where they are; clamp what comes out",
    "ConvertBoundingBoxFormat": "boxes leave in the box_format that they came in; convert what comes out",
    "RandomIoUCrop": "where it crops depends on boxes, and a policy draws before it sees any; use RandomResizedCrop or "
    "RandomCrop, whose boxes follow by min_area and min_visibility of the Batch",
    "SanitizeBoundingBoxes": "boxes keep their places, and box_valid says which are left, by min_area and "
    "min_visibility of the Batch; select by it",
    "SanitizeKeyPoints": "keypoints keep their places, and visible says which are left; select by it",
    "SetClampingMode": "boxes are always clamped to their image",
    "ToPILImage": "a policy makes tensors; convert what comes out",
    "Transform": "it does nothing by itself; write a subclass of gpuaug.Transform",
    "UniformTemporalSubsample": "a policy keeps every frame that it is given; take the frames before it",
}
