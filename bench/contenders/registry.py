"""Who is timed, and in which regime.  Every contender takes the same images and returns a float32 batch [N, C, H,
W]."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

import gpuaug as ga
from bench.contenders import dali, words
from bench.contenders.words import Unsupported
from bench.scenarios import Workload, is_mix
from bench.sources import Source
from gpuaug.exec import choose

Run = Callable[[Source], Tensor]

# albumentations asks a server for news when it is imported
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


class Absent(Exception):
    """A contender cannot run here: what is missing."""


@dataclass(frozen=True)
class Contender:
    """A way to augment.  make(workload, device, threads) gives the function that is timed; raises Absent or
    Unsupported."""

    name: str
    package: str  # the distribution whose version is reported
    make: Callable[[Workload, torch.device, int], Run]
    unit: str  # "batch" or "one image at a time"
    path: str  # the types that values go through
    devices: tuple[str, ...] = ("cpu",)
    draws: str = "each image its own"
    note: str = ""
    groups: tuple[str, ...] = ("policy", "recipe", "transform", "batch", "size")

    def version(self) -> str:
        """The installed version; raises Absent where it is not installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            raise Absent(f"{self.package} is not installed; pip install 'gpuaug[bench]'") from None

    def build(self, workload: Workload, device: torch.device, threads: int) -> Run:
        """The function to time."""
        self.version()
        if device.type not in self.devices:
            raise Absent(
                f"it needs {' or '.join('CUDA' if d == 'cuda' else 'the CPU' for d in self.devices)}, and this "
                f"run is on {device.type}"
            )
        return self.make(workload, device, threads)


# ---- gpuaug


def _gpuaug(workload: Workload, device: torch.device, threads: int, backend: str) -> Run:
    if backend == "triton" and device.type != "cuda":
        raise Absent("it needs CUDA; the interpreter that stands in for it on a CPU says nothing about speed")
    policy = ga.Policy(workload.transforms, seed=1).to(device)
    return lambda source: _augmented(policy, workload, source.channels_last, source, backend)


def _augmented(policy: ga.Policy, workload: Workload, images: Tensor, source: Source, backend: str) -> Tensor:
    out: Any = policy(images, source.labels if workload.mixes else None, backend=backend)
    return out[0] if workload.mixes else out


def _gpuaug_each(workload: Workload, device: torch.device, threads: int) -> Run:
    """A policy for each transform: what fusing saves is the difference to this.  The first converts to float32 too."""
    to_float = ga.ToDtype(torch.float32, scale=True)
    first, *later = [t for t in workload.transforms if type(t).__name__ != "ToDtype"]
    steps = [(first,) if workload.floats else (first, to_float), *((t,) for t in later)]
    policies = [ga.Policy(list(step), seed=100 + k).to(device) for k, step in enumerate(steps)]

    def run(source: Source) -> Tensor:
        images = source.channels_last
        for policy, step in zip(policies, steps, strict=True):
            mixes = any(map(is_mix, step))
            out: Any = policy(images, source.labels if mixes else None)
            images = out[0] if mixes else out
        return images

    return run


# ---- torchvision


def _compose(workload: Workload) -> Any:
    from torchvision.transforms import v2

    return v2.Compose(words.torchvision(workload.transforms, workload.floats))


def _mixed(workload: Workload, batch: Tensor, source: Source) -> Tensor:
    """The mix that torchvision has for a batch: one draw for all of it."""
    from torchvision.transforms import v2

    if not workload.mixes:
        return batch
    mix: Any = next(filter(is_mix, workload.transforms))
    theirs = getattr(v2, type(mix).__name__, None)
    if theirs is None:
        raise Unsupported(f"torchvision has no {type(mix).__name__}")
    return theirs(alpha=mix.alpha, num_classes=mix.num_classes)(batch, source.labels)[0] if len(batch) > 1 else batch


def _torchvision_each(workload: Workload, device: torch.device, threads: int) -> Run:
    transform = _compose(workload)
    return lambda source: _mixed(workload, torch.stack([transform(i) for i in source.images]), source)


def _torchvision_floats(workload: Workload, device: torch.device, threads: int) -> Run:
    if workload.floats:
        raise Unsupported("the images are float32 already")
    return _torchvision_each(
        replace(workload, transforms=(ga.ToDtype(torch.float32, scale=True), *workload.transforms)), device, threads
    )


def _torchvision_batch(workload: Workload, device: torch.device, threads: int) -> Run:
    transform = _compose(workload)
    return lambda source: _mixed(workload, transform(source.planar), source)


def _torchvision_compiled(workload: Workload, device: torch.device, threads: int) -> Run:
    transform = torch.compile(_compose(workload))
    return lambda source: _mixed(workload, transform(source.planar), source)


# ---- Pillow, timm


def _pillow_steps(workload: Workload, auto: Callable[[Any], Any] | None) -> list[Any]:
    """torchvision on Pillow images up to the first step that needs a tensor, and `auto` in place of RandAugment."""
    from torchvision.transforms import v2

    if workload.floats:
        raise Unsupported("Pillow images are uint8")
    out, tensors = [], False
    for t, step in zip(
        [t for t in workload.transforms if not is_mix(t)], words.torchvision(workload.transforms, False), strict=True
    ):
        name = type(t).__name__
        if name in ("ToDtype", "SaltAndPepper", "GaussianNoise", "RandomRot90") and not tensors:
            out.append(v2.ToImage())
            tensors = True
        out.append(auto(t) if auto is not None and name == "RandAugment" else step)
    return out


def _pillow(workload: Workload, device: torch.device, threads: int, auto: Callable[[Any], Any] | None = None) -> Run:
    from torchvision.transforms import v2

    transform = v2.Compose(_pillow_steps(workload, auto))
    return lambda source: _mixed(workload, torch.stack([torch.as_tensor(transform(i)) for i in source.pil]), source)


TIMM = [
    *(
        "AutoContrast",
        "Equalize",
        "Rotate",
        "PosterizeOriginal",
        "SolarizeIncreasing",
        "ColorIncreasing",
        "ContrastIncreasing",
        "BrightnessIncreasing",
    ),
    *("SharpnessIncreasing", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
]


def _timm(workload: Workload, device: torch.device, threads: int) -> Run:
    if not workload.part and not any(isinstance(t, ga.RandAugment) for t in workload.transforms):
        raise Unsupported("only its RandAugment is compared")
    from timm.data.auto_augment import RandAugment, rand_augment_ops

    def auto(t: ga.RandAugment) -> Any:
        # its bins run to 10 where torchvision's run to 30; a probability of 1, and the operations that torchvision has,
        # but for Identity
        ops = rand_augment_ops(t.magnitude / 3, 1.0, {"img_mean": (0, 0, 0), "translate_pct": 150 / 331}, TIMM)
        return RandAugment(ops, t.num_ops)

    return _pillow(workload, device, threads, auto)


# ---- Kornia, albumentations, DALI, triton-augment, torchtransform


def _kornia(workload: Workload, device: torch.device, threads: int) -> Run:
    model = torch.nn.Sequential(*words.kornia(workload.transforms)).to(device)
    mixes = [words.kornia_mix(t).to(device) for t in workload.transforms if is_mix(t)]

    def run(source: Source) -> Tensor:
        batch = model(source.planar if workload.floats else source.planar.float() / 255)
        for mix in mixes:
            batch = mix(batch, source.labels)[0]
        return batch

    return run


def _albumentations(workload: Workload, device: torch.device, threads: int) -> Run:
    import albumentations as A
    import cv2

    cv2.setNumThreads(threads)
    transform = A.Compose(words.albumentations(workload.transforms, workload.floats))
    return lambda source: torch.stack([transform(image=i)["image"] for i in source.hwc])


def _dali(workload: Workload, device: torch.device, threads: int) -> Run:
    return dali.pipeline(workload, device, threads)


def _triton_augment(workload: Workload, device: torch.device, threads: int) -> Run:
    import triton_augment as ta

    known = (ga.RandomAffine, ga.RandomCrop, ga.RandomHorizontalFlip, ga.ColorJitter, ga.RandomGrayscale, ga.Normalize)
    t = {type(x).__name__: x for x in workload.transforms}
    if not workload.floats or any(type(x) not in known for x in workload.transforms):
        raise Unsupported(
            "its fused kernel takes floats and knows affine, crop, flip, brightness, contrast, saturation, gray "
            "and normalise"
        )
    a = t.get("RandomAffine")
    affine = {"degrees": a.degrees, "translate": a.translate, "scale": a.scale, "shear": a.shear} if a else {}
    colour = {k: getattr(t["ColorJitter"], k) for k in ("brightness", "contrast", "saturation")}
    fused = ta.TritonFusedAugment(
        crop_size=t["RandomCrop"].size,
        horizontal_flip_p=t["RandomHorizontalFlip"].p,
        grayscale_p=t["RandomGrayscale"].p,
        mean=t["Normalize"].mean,
        std=t["Normalize"].std,
        **affine,
        **colour,
    )
    return lambda source: fused(source.planar)


def _torchtransform(workload: Workload, device: torch.device, threads: int) -> Run:
    import torchtransform as tt

    made = tt.Compose(*words.torchtransform(tt, workload.transforms))
    if workload.floats:
        return lambda source: made(source.planar)
    return lambda source: made(source.planar.float() / 255)


BOTH = ("cpu", "cuda")
ALL = ("policy", "recipe", "transform", "batch", "size")
LARGE = ("policy", "recipe")
EACH, WHOLE = "one image at a time", "batch"
CONTENDERS: tuple[Contender, ...] = (
    Contender(
        "gpuaug triton", "gpuaug", partial(_gpuaug, backend="triton"), WHOLE, "uint8 > float32", BOTH, groups=ALL
    ),
    Contender("gpuaug cpu", "gpuaug", partial(_gpuaug, backend="cpu"), WHOLE, "uint8 > float32", groups=ALL),
    Contender(
        "gpuaug, a call each",
        "gpuaug",
        _gpuaug_each,
        WHOLE,
        "uint8 > float32",
        BOTH,
        groups=LARGE,
        note="a policy for each transform: nothing is fused",
    ),
    Contender(
        "gpuaug reference",
        "gpuaug",
        partial(_gpuaug, backend="reference"),
        WHOLE,
        "float32",
        BOTH,
        groups=LARGE,
        note="the specification",
    ),
    Contender("torchvision", "torchvision", _torchvision_each, EACH, "uint8, float32 last", BOTH, groups=ALL),
    Contender("torchvision float32", "torchvision", _torchvision_floats, EACH, "float32", BOTH, groups=LARGE),
    Contender("torchvision on Pillow", "torchvision", _pillow, EACH, "Pillow, float32 last", groups=LARGE),
    Contender(
        "torchvision batch",
        "torchvision",
        _torchvision_batch,
        WHOLE,
        "uint8, float32 last",
        BOTH,
        "one for the whole batch",
        groups=LARGE,
    ),
    Contender(
        "torchvision compiled",
        "torchvision",
        _torchvision_compiled,
        WHOLE,
        "uint8, float32 last",
        ("cuda",),
        "one for the whole batch",
        groups=LARGE,
    ),
    Contender("Kornia", "kornia", _kornia, WHOLE, "float32", BOTH, groups=(*LARGE, "transform")),
    Contender(
        "albumentations",
        "albumentations",
        _albumentations,
        EACH,
        "uint8, float32 last",
        groups=(*LARGE, "transform"),
        note="OpenCV",
    ),
    Contender("DALI", "nvidia-dali-cuda120", _dali, WHOLE, "uint8, float32 last", BOTH, groups=(*LARGE, "transform")),
    Contender("timm RandAugment", "timm", _timm, EACH, "Pillow, float32 last", groups=("policy",)),
    Contender("triton-augment", "triton-augment", _triton_augment, WHOLE, "float32", ("cuda",), groups=("recipe",)),
    Contender("torchtransform", "torchtransform", _torchtransform, WHOLE, "float32", ("cuda",), groups=("recipe",)),
)


def base(device: torch.device) -> str:
    """The contender that ratios are against: what a user of gpuaug gets by default."""
    return f"gpuaug {choose('auto', device)}"


__all__ = ["CONTENDERS", "Absent", "Contender", "Run", "Source", "Unsupported", "base"]
