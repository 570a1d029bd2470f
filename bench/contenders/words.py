"""A policy's transforms in the words of torchvision, Kornia and albumentations.  What a library has no word for raises
Unsupported."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from gpuaug.transforms.mixes import Mixing


class Unsupported(Exception):
    """A library has no such transform."""


class SaltAndPepper(nn.Module):
    """Salt and pepper in plain torch, as users of torchvision write it: it has none."""

    def __init__(self, amount: float, salt: float):
        super().__init__()
        self.amount, self.salt = amount, salt

    def forward(self, image: Tensor) -> Tensor:
        """Paint the pixels of one image [C, H, W], all channels together."""
        u = torch.rand(image.shape[-2:], device=image.device)
        top = 1 if image.is_floating_point() else 255
        return image.masked_fill(u < self.amount, 0).masked_fill(u < self.amount * self.salt, top)


class RandomRot90(nn.Module):
    """Quarter turns in plain torch, as users of torchvision write them."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, image: Tensor) -> Tensor:
        """Turn by 0 to 3 quarters with probability p."""
        return torch.rot90(image, int(torch.randint(0, 4, ())), (-2, -1)) if torch.rand(()) < self.p else image


def arguments(t: Any) -> dict[str, Any]:
    """A gpuaug transform's arguments, which are torchvision's."""
    return {f.name: getattr(t, f.name) for f in fields(t)}


def jitter(t: Any) -> dict[str, tuple[float, float]]:
    """The ranges of a ColorJitter; what it leaves alone is its identity."""
    identity = {"brightness": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": (0.0, 0.0)}
    return {k: getattr(t, k) or v for k, v in identity.items()}


def span(value: float | tuple[float, ...]) -> tuple[float, ...]:
    """A symmetric range from a number."""
    return value if isinstance(value, tuple) else (-value, value)


# ---- torchvision v2


def torchvision(transforms: tuple[Any, ...], floats: bool) -> list[Any]:
    """floats: whether values are float32 in [0, 1] from the start; else uint8 up to the policy's ToDtype."""
    out = []
    for t in transforms:
        # a mix is of a batch: the contender's own step
        if not isinstance(t, Mixing):
            out.append(_torchvision(t, floats))
        floats = floats or type(t).__name__ == "ToDtype"
    return out


def _as_torchvision_erases(t: Any, args: dict[str, Any]) -> None:
    """Take out the arguments that only timm has."""
    if (t.mode, t.min_count, t.max_count or 1, t.num_splits) != ("const", 1, 1, 0):
        raise Unsupported("torchvision erases one rectangle, in no mode of timm's")
    for key in ("mode", "min_count", "max_count", "num_splits"):
        args.pop(key)


def _torchvision(t: Any, floats: bool) -> Any:
    from torchvision.transforms import v2

    name, args = type(t).__name__, arguments(t)
    if name == "SaltAndPepper":
        return SaltAndPepper(t.amount, t.salt_vs_pepper)
    if name == "RandomRot90":
        return RandomRot90(t.p)
    if not hasattr(v2, name):
        raise Unsupported(f"torchvision has no {name}")
    args.pop("inplace", None)
    if name == "RandomErasing":
        _as_torchvision_erases(t, args)
    if "interpolation" in args:
        args["interpolation"] = v2.InterpolationMode(args["interpolation"])
    if name == "RandomSolarize" and not floats:
        args["threshold"] *= 255
    if name == "Pad" and not floats:
        args["fill"] = round(255 * t.fill)
    for key in ("mean", "std", "value", "padding"):
        if isinstance(args.get(key), tuple):
            args[key] = list(args[key])
    return getattr(v2, name)(**args)


# ---- Kornia


class Clamped(nn.Module):
    """Kornia's noise without clipping, clipped as the others do."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        """Apply and clip."""
        return self.inner(images).clamp(0, 1)


def kornia(transforms: tuple[Any, ...]) -> list[nn.Module]:
    """Modules on float32 [N, C, H, W] in [0, 1]."""
    return [m for t in transforms if type(t).__name__ != "ToDtype" and not isinstance(t, Mixing) for m in _kornia(t)]


def kornia_mix(t: Any) -> nn.Module:
    """A module on a batch and its labels."""
    import kornia.augmentation as K

    if type(t).__name__ != "CutMix":
        raise Unsupported(f"Kornia's {type(t).__name__} is not compared yet")
    return K.RandomCutMixV2(
        cut_size=(0.0, 1.0), beta=t.alpha, p=1.0, data_keys=["input", "class"], use_correct_lambda=True
    )


def _kornia(t: Any) -> list[nn.Module]:
    import kornia.augmentation as K
    from kornia.augmentation.auto import RandAugment

    name = type(t).__name__
    made = {
        "RandomResizedCrop": lambda: K.RandomResizedCrop(t.size, t.scale, t.ratio, align_corners=False),
        "Resize": lambda: K.Resize(t.size, antialias=True, align_corners=False),
        "CenterCrop": lambda: K.CenterCrop(t.size),
        "RandomCrop": lambda: K.RandomCrop(t.size, padding=_four(t.padding)),
        "RandomHorizontalFlip": lambda: K.RandomHorizontalFlip(p=t.p),
        "RandomVerticalFlip": lambda: K.RandomVerticalFlip(p=t.p),
        "RandomRot90": lambda: K.RandomRotation90((0, 3), p=t.p),
        "RandomAffine": lambda: K.RandomAffine(
            t.degrees, t.translate, t.scale, t.shear, resample=t.interpolation, p=1.0
        ),
        "RandomRotation": lambda: K.RandomRotation(t.degrees, resample=t.interpolation, align_corners=False, p=1.0),
        "ColorJitter": lambda: K.ColorJitter(**jitter(t)),
        "Grayscale": lambda: K.RandomGrayscale(p=1.0),
        "RandomGrayscale": lambda: K.RandomGrayscale(p=t.p),
        "RandomInvert": lambda: K.RandomInvert(p=t.p),
        "RandomSolarize": lambda: K.RandomSolarize((t.threshold, t.threshold), (0.0, 0.0), p=t.p),
        "RandomPosterize": lambda: K.RandomPosterize((float(t.bits), float(t.bits)), p=t.p),
        "SaltAndPepper": lambda: K.RandomSaltAndPepperNoise(
            (t.amount, t.amount), (t.salt_vs_pepper, t.salt_vs_pepper), p=1.0
        ),
        "GaussianNoise": lambda: Clamped(K.RandomGaussianNoise(t.mean, t.sigma, p=1.0)),
        "RandomErasing": lambda: K.RandomErasing(t.scale, t.ratio, _number(t.value), p=t.p),
        "RandAugment": lambda: RandAugment(t.num_ops, t.magnitude),
        "Normalize": lambda: K.Normalize(torch.tensor(t.mean), torch.tensor(t.std)),
    }
    if name not in made:
        raise Unsupported(f"Kornia has no {name}")
    return [made[name]()]


def _four(padding: Any) -> Any:
    return tuple(padding) if isinstance(padding, tuple) else padding


def _number(value: Any) -> float:
    if isinstance(value, int | float):
        return float(value)
    raise Unsupported("it erases with one number only")


# ---- albumentations


def albumentations(transforms: tuple[Any, ...], floats: bool) -> list[Any]:
    """Transforms on [H, W, C] arrays, uint8 up to the policy's ToDtype or Normalize, ending in a tensor."""
    from albumentations.pytorch import ToTensorV2

    out, names = [], [type(t).__name__ for t in transforms]
    for t in transforms:
        if type(t).__name__ == "ToDtype":
            # its Normalize converts too
            out += [] if "Normalize" in names else _albumentations(t, floats)
            floats = floats or "Normalize" not in names
        else:
            out += _albumentations(t, floats)
    return [*out, ToTensorV2()]


def _albumentations(t: Any, floats: bool) -> list[Any]:
    import albumentations as A
    import cv2

    top = 1.0 if floats else 255.0
    how = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR}[getattr(t, "interpolation", "bilinear")]
    made = {
        "RandomResizedCrop": lambda: [A.RandomResizedCrop(t.size, t.scale, t.ratio, area_for_downscale="image")],
        "Resize": lambda: [A.Resize(*t.size, area_for_downscale="image")],
        "CenterCrop": lambda: [A.CenterCrop(*_pair(t.size))],
        "Pad": lambda: [A.Pad(t.padding, fill=t.fill * top)],
        "RandomCrop": lambda: [*([A.Pad(t.padding)] if t.padding else []), A.RandomCrop(*_pair(t.size))],
        "RandomHorizontalFlip": lambda: [A.HorizontalFlip(p=t.p)],
        "RandomVerticalFlip": lambda: [A.VerticalFlip(p=t.p)],
        "RandomRot90": lambda: [A.RandomRotate90(p=t.p)],
        "RandomAffine": lambda: [_albumentations_affine(t, how)],
        "RandomRotation": lambda: [A.Rotate(span(t.degrees), interpolation=how, p=1.0)],
        "ColorJitter": lambda: [A.ColorJitter(**jitter(t), p=1.0)],
        "Grayscale": lambda: [A.ToGray(p=1.0)],
        "RandomGrayscale": lambda: [A.ToGray(p=t.p)],
        "RandomInvert": lambda: [A.InvertImg(p=t.p)],
        "RandomSolarize": lambda: [A.Solarize((t.threshold, t.threshold), p=t.p)],
        "RandomPosterize": lambda: [A.Posterize(t.bits, p=t.p)],
        "SaltAndPepper": lambda: [A.SaltAndPepper((t.amount, t.amount), (t.salt_vs_pepper, t.salt_vs_pepper), p=1.0)],
        "GaussianNoise": lambda: [A.GaussNoise((t.sigma, t.sigma), (t.mean, t.mean), p=1.0)],
        "RandomErasing": lambda: [A.Erasing(t.scale, t.ratio, fill=t.value, p=t.p)],
        "Normalize": lambda: [A.Normalize(t.mean, t.std, max_pixel_value=top)],
        "ToDtype": lambda: [] if floats else [A.ToFloat(255.0)],
    }
    name = type(t).__name__
    if name not in made:
        raise Unsupported(f"albumentations has no {name}")
    return made[name]()


def _pair(size: Any) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _albumentations_affine(t: Any, how: int) -> Any:
    import albumentations as A

    shift = {} if t.translate is None else {"translate_percent": {"x": span(t.translate[0]), "y": span(t.translate[1])}}
    shear = span(t.shear or 0.0)
    tilt = {"x": shear[:2], "y": shear[2:4] if len(shear) == 4 else (0.0, 0.0)}
    return A.Affine(scale=t.scale or (1.0, 1.0), rotate=span(t.degrees), shear=tilt, interpolation=how, p=1.0, **shift)
