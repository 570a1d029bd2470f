"""What torchvision makes of one image with parameters that a policy drew: its transforms without their own draws."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from inspect import signature
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gpuaug.transforms import Transform

# why a transform is not compared
_ALONE = {
    "CutMix": "draws once a batch in torchvision, and mixes it in another order",
    "MixUp": "draws once a batch in torchvision, and mixes it in another order",
    "ElasticTransform": "its field is drawn pixel by pixel",
    **dict.fromkeys(("Lambda", "Custom", "Kornia"), "a function of your own, which is called as it is"),
    "GaussianNoise": "its noise is drawn pixel by pixel",
}
# operations whose value jumps: a level more or less before them, or a position half-way between two pixels, shows
JUMPS = {
    *("RandomPosterize", "RandomSolarize", "RandomEqualize"),
    *("AutoAugment", "RandAugment", "TrivialAugmentWide", "AugMix"),
}
_MOMENTS = ("ToTensor", "PILToTensor", "ToImage", "Identity")


class NotComparedError(ValueError):
    """Says why."""


def apply(t: Transform, image: Tensor, drawn: dict[str, Any]) -> Tensor:
    """image: [C, H, W] float32 in [0, 1]; drawn: what one sample drew.  Raises NotComparedError"""
    name = type(t).__name__
    if name in _ALONE:
        raise NotComparedError(_ALONE[name])
    if name in _MOMENTS:
        # of tensors torchvision leaves them alone
        return image
    if drawn.get("apply") is not None and drawn["apply"].ndim == 0 and not bool(drawn["apply"]):
        return image
    if name in _INSIDE:
        made = image
        for i in _INSIDE[name](drawn):
            made = apply(t.children[i], made, drawn["transforms"][i])
        return made
    tool = _tool(t)
    if name in _AUTOMATIC:
        return _AUTOMATIC[name](tool, t, image, drawn)
    found: Callable[..., dict[str, Any] | None] = _PARAMETERS.get(name, _plain)
    params = found(t, image, drawn)
    if params is None:
        return image
    if name == "JPEG":
        return _encoded(image, params["quality"])
    transform: Any = tool.transform
    try:
        out: Tensor = transform(image, params)
    except NotImplementedError as error:
        if getattr(t, "interpolation", "") != "lanczos":
            raise
        raise NotComparedError("this version of torch resizes no tensor by Lanczos") from error
    return out


def _encoded(image: Tensor, quality: int) -> Tensor:
    """An image through Pillow's encoder, which is the one of torchvision's."""
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = BytesIO()
    Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as back:
        values = torch.from_numpy(np.array(back)).reshape(*image.shape[1:], len(image))
    return values.permute(2, 0, 1).float() / 255


def _tool(t: Transform) -> Any:
    """torchvision's transform with the same arguments."""
    import torchvision.transforms.v2 as v2

    cls = getattr(v2, type(t).__name__, None)
    if cls is None:
        raise NotComparedError("torchvision has none")
    known = signature(cls).parameters
    arguments = {}
    for f in fields(t):  # type: ignore[arg-type]
        value = getattr(t, f.name)
        if f.name in known:
            arguments[f.name] = value
        elif value != f.default:
            raise NotComparedError(f"torchvision's has no {f.name}, which is {value!r}")
    for name, value in arguments.items():
        if name == "interpolation":
            arguments[name] = v2.InterpolationMode(value)
        elif name in ("fill", "value") and isinstance(value, tuple):
            arguments[name] = list(value)
        elif name == "policy":
            arguments[name] = v2.AutoAugmentPolicy(value)
    return cls(**arguments)


def _item(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _plain(t: Transform, image: Tensor, drawn: dict[str, Any]) -> dict[str, Any] | None:
    return {k: _item(v) for k, v in drawn.items() if k != "apply"}


def _crop(t: Any, image: Tensor, drawn: dict[str, Any]) -> dict[str, Any]:
    left, top, right, bottom = t.padding or (0, 0, 0, 0)
    height, width = image.shape[-2] + top + bottom, image.shape[-1] + left + right
    if t.pad_if_needed:
        down, across = max(t.size[0] - height, 0), max(t.size[1] - width, 0)
        left, top, right, bottom = left + across, top + down, right + across, bottom + down
    padding = [left, top, right, bottom]
    found = {"needs_crop": True, "needs_pad": any(padding), "padding": padding}
    return {**found, "top": int(drawn["top"]), "left": int(drawn["left"]), "height": t.size[0], "width": t.size[1]}


def _jitter(t: Any, image: Tensor, drawn: dict[str, Any]) -> dict[str, Any]:
    names = ("brightness", "contrast", "saturation", "hue")
    factors = {f"{n}_factor": None if not getattr(t, n) else float(drawn[f"{n}_factor"]) for n in names}
    return {"fn_idx": drawn["fn_idx"], **factors}


def _distort(t: Any, image: Tensor, drawn: dict[str, Any]) -> dict[str, Any]:
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor", "channel_permutation")
    used = {n: _item(drawn[n]) if on else None for n, on in zip(names, drawn["apply"].tolist(), strict=True)}
    return {**used, "contrast_before": bool(drawn["contrast_before"])}


def _corners(t: Any, image: Tensor, drawn: dict[str, Any]) -> dict[str, Any]:
    from torchvision.transforms.functional import _get_perspective_coeffs

    height, width = image.shape[-2:]
    start = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    return {"coefficients": _get_perspective_coeffs(start, drawn["endpoints"].tolist())}


def _erased(t: Any, image: Tensor, drawn: dict[str, Any]) -> dict[str, Any] | None:
    box = {k: int(drawn[k]) for k in "ijhw"}
    if not box["h"] or not box["w"]:
        return None
    if drawn["v"].isnan().any():
        raise NotComparedError("its noise is drawn pixel by pixel")
    return {**box, "v": drawn["v"][:, None, None]}


def _gray(t: Any, image: Tensor, drawn: dict[str, Any]) -> dict[str, Any]:
    return {"num_input_channels": len(image)}


_PARAMETERS: dict[str, Callable[[Any, Tensor, dict[str, Any]], dict[str, Any] | None]] = {
    "RandomCrop": _crop,
    "ColorJitter": _jitter,
    "RandomPhotometricDistort": _distort,
    "RandomPerspective": _corners,
    "RandomErasing": _erased,
    "RandomGrayscale": _gray,
}


# ---- transforms that hold others


_INSIDE: dict[str, Callable[[dict[str, Any]], Sequence[int]]] = {
    "RandomApply": lambda drawn: range(len(drawn["transforms"])),
    "RandomChoice": lambda drawn: [int(drawn["index"])],
    "RandomOrder": lambda drawn: [int(i) for i in drawn["order"]],
}


# ---- automatic policies


def _operation(tool: Any, image: Tensor, name: str, place: Any, sign: Any, bins: int) -> Tensor:
    """One operation of torchvision's own table."""
    table, signed = tool._AUGMENTATION_SPACE[name]
    values = table(bins, *image.shape[1:])
    size = 0.0 if values is None else float(values[int(place or 0)]) * (int(sign) if signed else 1)
    out: Tensor = tool._apply_image_or_video_transform(
        image, name, size, interpolation=tool.interpolation, fill=tool._fill
    )
    return out


def _rand(tool: Any, t: Any, image: Tensor, drawn: dict[str, Any]) -> Tensor:
    names = list(tool._AUGMENTATION_SPACE)
    for op, sign in zip(drawn["op"].tolist(), drawn["sign"].tolist(), strict=True):
        image = _operation(tool, image, names[op], t.magnitude, sign, t.num_magnitude_bins)
    return image


def _trivial(tool: Any, t: Any, image: Tensor, drawn: dict[str, Any]) -> Tensor:
    name = list(tool._AUGMENTATION_SPACE)[int(drawn["op"])]
    return _operation(tool, image, name, drawn["magnitude"], drawn["sign"], t.num_magnitude_bins)


def _auto(tool: Any, t: Any, image: Tensor, drawn: dict[str, Any]) -> Tensor:
    steps = tool._policies[int(drawn["policy_id"])]
    for (name, p, place), u, sign in zip(steps, drawn["probs"].tolist(), drawn["signs"].tolist(), strict=True):
        if u <= p:
            image = _operation(tool, image, name, place, sign, 10)
    return image


def _mixed(tool: Any, t: Any, image: Tensor, drawn: dict[str, Any]) -> Tensor:
    import torchvision.transforms.v2 as v2

    # operations are counted as RandAugment has them
    names = list(v2.RandAugment._AUGMENTATION_SPACE)
    own, *weights = drawn["weights"].tolist()
    out: Tensor = own * image
    for i, weight in enumerate(weights):
        made = image
        for k in range(int(drawn["depth"][i])):
            op, place, sign = (int(drawn[n][i, k]) for n in ("op", "magnitude", "sign"))
            made = _operation(tool, made, names[op], place, sign, 10)
        out = out + weight * made
    return out


_AUTOMATIC: dict[str, Callable[[Any, Any, Tensor, dict[str, Any]], Tensor]] = {
    "RandAugment": _rand,
    "TrivialAugmentWide": _trivial,
    "AutoAugment": _auto,
    "AugMix": _mixed,
}


def of_sample(drawn: Any, row: int) -> Any:
    """What one sample of a batch drew."""
    if isinstance(drawn, dict):
        return {k: of_sample(v, row) for k, v in drawn.items()}
    if isinstance(drawn, list | tuple):
        return [of_sample(v, row) for v in drawn]
    return drawn[row] if isinstance(drawn, torch.Tensor) else drawn
