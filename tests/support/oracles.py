"""What each transform means and how it draws, said by torchvision or by plain numpy.  Nothing here imports gpuaug.

MEANS[name](args, x, p, s): the image [C, H, W] float32 after the transform, p its drawn parameters, s the sample.
DRAWS[name](args, n, (h, w), rng): parameters of n samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from torch import Tensor

Args = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """Who a sample is, and the batch around it."""

    row: int
    images: tuple[Tensor, ...]
    seed: int
    epoch: int
    id: int
    occurrence: int
    slot: int = 0


# ---- randomness of pixels, from SEMANTICS.md


def philox(seed: int, c0: np.ndarray, c1: int, c2: int, c3: int) -> list[np.ndarray]:
    """Philox4x32-10 in numpy: four uint64 arrays holding 32-bit words."""
    low = np.uint64(0xFFFFFFFF)
    a, b, c, d = np.broadcast_arrays(*(np.asarray(v, np.uint64) for v in (c0, c1, c2, c3)))
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p, q = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (
            (q >> np.uint64(32)) ^ b ^ np.uint64(key[0]),
            q & low,
            (p >> np.uint64(32)) ^ d ^ np.uint64(key[1]),
            p & low,
        )
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return [a, b, c, d]


def pixel_words(s: Sample, channels: int, height: int, width: int) -> np.ndarray:
    """The word of every value, [C, H, W] uint64, and under 4 * ceil(C / 4) - C further rows the rest of the blocks."""
    blocks = math.ceil(channels / 4)
    c1 = (1 << 28) | (s.occurrence << 16) | s.slot
    words = philox(s.seed, np.arange(height * width * blocks), c1, s.id % 2**32, ((s.id >> 32) << 18) | s.epoch)
    return np.stack(words, -1).reshape(height, width, 4 * blocks).transpose(2, 0, 1)


def pixel_normals(s: Sample, channels: int, height: int, width: int) -> Tensor:
    w = (pixel_words(s, channels, height, width) >> np.uint64(8)).astype(np.float64)
    radius, turn = np.sqrt(-2 * np.log((w[0::2] + 1) * 2.0**-24)), 2 * math.pi * w[1::2] * 2.0**-24
    z = np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1).reshape(-1, height, width)
    return torch.from_numpy(z[:channels]).float()


def salt_and_pepper(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    amount, salt = a.get("amount", 0.05), a.get("salt_vs_pepper", 0.5)
    words = pixel_words(s, *x.shape)[: len(x)] if a.get("per_channel") else pixel_words(s, *x.shape)[:1]
    u = torch.from_numpy((words >> np.uint64(8)).astype(np.float64) * 2.0**-24).float()
    out = torch.where(u < np.float32(amount), torch.zeros(()), x)
    return torch.where(u < np.float32(amount * salt), torch.ones(()), out)


def gaussian_noise(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    out = x + a.get("mean", 0.0) + a.get("sigma", 0.1) * pixel_normals(s, *x.shape)
    return out.clamp(0, 1) if a.get("clip", True) else out


# ---- values, by torchvision


def kernel(a: Args, default: str = "bilinear") -> v2.InterpolationMode:
    return v2.InterpolationMode(a.get("interpolation", default))


def pair(size: Any) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def per_image_fill(a: Args) -> Any:
    fill = a.get("fill", 0)
    return list(fill) if isinstance(fill, tuple) else fill


def tv_padding(padding: Any) -> list[int]:
    """(left, top, right, bottom)."""
    p = [padding] * 4 if isinstance(padding, int) else list(padding)
    return p * 2 if len(p) == 2 else p


def random_crop(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    (h, w), pad = pair(a["size"]), tv_padding(a.get("padding") or 0)
    if a.get("pad_if_needed"):
        short = [max(h - x.shape[1] - pad[1] - pad[3], 0), max(w - x.shape[2] - pad[0] - pad[2], 0)]
        pad = [pad[0] + short[1], pad[1] + short[0], pad[2] + short[1], pad[3] + short[0]]
    x = F.pad(x, pad, fill=per_image_fill(a), padding_mode=a.get("padding_mode", "constant"))
    return F.crop(x, int(p["top"]), int(p["left"]), h, w)


def affine(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    return F.affine(
        x,
        angle=p["angle"].item(),
        translate=p["translate"].tolist(),
        scale=p["scale"].item(),
        shear=p["shear"].tolist(),
        interpolation=kernel(a, "nearest"),
        fill=per_image_fill(a),
        center=a.get("center"),
    )


def color_jitter(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    for fn in p["fn_idx"].tolist():
        name = ("brightness", "contrast", "saturation", "hue")[fn]
        if a.get(name):
            x = getattr(F, f"adjust_{name}")(x, p[f"{name}_factor"].item())
    return x


def erase(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    i, j, h, w = (int(p[k]) for k in "ijhw")
    if not p["apply"] or not h or not w:
        return x
    if a.get("value") == "random":
        return F.erase(x, i, j, h, w, pixel_normals(s, *x.shape)[:, i : i + h, j : j + w])
    value = a.get("value", 0.0)
    return F.erase(x, i, j, h, w, torch.tensor(value if isinstance(value, tuple) else (value,) * len(x))[:, None, None])


def cutmix(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    x0, y0, x1, y1 = p["box"].tolist()
    out = x.clone()
    out[:, y0:y1, x0:x1] = s.images[int(p["partner"])][:, y0:y1, x0:x1]
    return out


OPERATIONS = list(v2.RandAugment._AUGMENTATION_SPACE)


def operate(
    name: str, x: Tensor, sign: int, magnitude: int, bins: int, interpolation: v2.InterpolationMode, fill: Any
) -> Tensor:
    """One operation as v2.RandAugment applies it."""
    table, signed = v2.RandAugment._AUGMENTATION_SPACE[name]
    magnitudes = table(bins, *x.shape[1:])
    m = 0.0 if magnitudes is None else float(magnitudes[magnitude]) * (sign if signed else 1)
    tool = v2.RandAugment(interpolation=interpolation, fill=fill)
    return tool._apply_image_or_video_transform(x, name, m, interpolation=tool.interpolation, fill=tool._fill)


def rand_augment(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    for op, sign in zip(p["op"].tolist(), p["sign"].tolist(), strict=True):
        x = operate(
            OPERATIONS[op],
            x,
            sign,
            a.get("magnitude", 9),
            a.get("num_magnitude_bins", 31),
            kernel(a, "nearest"),
            a.get("fill"),
        )
    return x


def children(a: Args, slot: int) -> list[tuple[str, Args, int]]:
    """Name, arguments and slot of each child: depth first, after the container itself."""
    out = []
    for name, args in a["transforms"]:
        out.append((name, args, slot + 1))
        slot += spanned(args)
    return out


def spanned(a: Args) -> int:
    return 1 + sum(spanned(args) for _, args in a.get("transforms", ()))


def contain(indices: Callable[[Args, Args], list[int]]) -> Callable[[Args, Tensor, Args, Sample], Tensor]:
    """A container that runs its children in the order of `indices`."""

    def means(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
        parts = children(a, s.slot)
        for i in indices(a, p):
            name, args, slot = parts[i]
            x = MEANS[name](args, x, p["transforms"][i], replace(s, slot=slot))
        return x

    return means


def when(make: Callable[[Args, Tensor, Args, Sample], Tensor]) -> Callable[[Args, Tensor, Args, Sample], Tensor]:
    return lambda a, x, p, s: make(a, x, p, s) if bool(p["apply"]) else x


def same(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
    return x


MEANS: dict[str, Callable[[Args, Tensor, Args, Sample], Tensor]] = {
    "CenterCrop": lambda a, x, p, s: F.center_crop(x, pair(a["size"])),
    "ColorJitter": color_jitter,
    "CutMix": cutmix,
    "GaussianNoise": gaussian_noise,
    "Grayscale": lambda a, x, p, s: F.rgb_to_grayscale(x, a.get("num_output_channels", 1)),
    "Normalize": lambda a, x, p, s: F.normalize(x, list(a["mean"]), list(a["std"])),
    "PILToTensor": same,
    "Pad": lambda a, x, p, s: F.pad(
        x, tv_padding(a["padding"]), fill=per_image_fill(a), padding_mode=a.get("padding_mode", "constant")
    ),
    "RandAugment": rand_augment,
    "RandomAffine": affine,
    "RandomApply": contain(lambda a, p: list(range(len(a["transforms"]))) if bool(p["apply"]) else []),
    "RandomChoice": contain(lambda a, p: [int(p["index"])]),
    "RandomCrop": random_crop,
    "RandomErasing": erase,
    "RandomGrayscale": when(lambda a, x, p, s: F.rgb_to_grayscale(x, len(x))),
    "RandomHorizontalFlip": when(lambda a, x, p, s: F.horizontal_flip(x)),
    "RandomInvert": when(lambda a, x, p, s: F.invert(x)),
    "RandomOrder": contain(lambda a, p: p["order"].tolist()),
    "RandomPosterize": when(lambda a, x, p, s: F.posterize(x, a["bits"])),
    "RandomResizedCrop": lambda a, x, p, s: F.resized_crop(
        x,
        *(int(p[k]) for k in ("top", "left", "height", "width")),
        pair(a["size"]),
        kernel(a),
        a.get("antialias", True),
    ),
    "RandomRot90": when(lambda a, x, p, s: torch.rot90(x, int(p["k"]), (-2, -1))),
    "RandomRotation": lambda a, x, p, s: F.rotate(
        x,
        p["angle"].item(),
        kernel(a, "nearest"),
        expand=a.get("expand", False),
        center=a.get("center"),
        fill=per_image_fill(a),
    ),
    "RandomSolarize": when(lambda a, x, p, s: F.solarize(x, a["threshold"])),
    "RandomVerticalFlip": when(lambda a, x, p, s: F.vertical_flip(x)),
    "Resize": lambda a, x, p, s: F.resize(
        x,
        None if a["size"] is None else [a["size"]] if isinstance(a["size"], int) else list(a["size"]),
        kernel(a),
        a.get("max_size"),
        a.get("antialias", True),
    ),
    "SaltAndPepper": salt_and_pepper,
    "ToDtype": lambda a, x, p, s: F.to_dtype(x, a["dtype"], a.get("scale", False)),
    "ToImage": same,
    "ToTensor": same,
}

# ---- draws: torchvision's own where it draws per call, else numpy

Draws = dict[str, Any]
WHITE = torch.ones(1)


def coin(rng: np.random.Generator, n: int, p: float) -> np.ndarray:
    return rng.random(n) < p


def asked(
    tool: Any,
    n: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    read: Callable[[Any], dict[str, Any]],
    channels: int = 3,
) -> Draws:
    """`make_params` n times."""
    image = WHITE.expand(channels, *size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        rows = [read(tool.make_params([image])) for _ in range(n)]
    return {k: np.asarray([r[k] for r in rows]) for k in rows[0]}


def torchvision(cls: type, *names: str, **fixed: Any) -> Callable[..., Draws]:
    return lambda a, n, size, rng: asked(cls(**{**a, **fixed}), n, size, rng, lambda p: {k: p[k] for k in names})


def drawn_jitter(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    names = ("brightness", "contrast", "saturation", "hue")

    def read(p: Any) -> dict[str, Any]:
        factors = {
            f"{k}_factor": (0.0 if k == "hue" else 1.0) if p[f"{k}_factor"] is None else float(p[f"{k}_factor"])
            for k in names
        }
        return {"fn_idx": [int(i) for i in p["fn_idx"]], **factors}

    return asked(v2.ColorJitter(**a), n, size, rng, read)


def drawn_erasing(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    def read(p: Any) -> dict[str, Any]:
        failed = p["v"] is None
        return {"i": p["i"], "j": p["j"], "h": 0 if failed else p["h"], "w": 0 if failed else p["w"]}

    value = a.get("value", 0.0)
    box = asked(v2.RandomErasing(**{**a, "value": 0.0}), n, size, rng, read)
    v = np.tile(
        np.asarray(
            (math.nan,) * 3 if value == "random" else value if isinstance(value, tuple) else (value,) * 3, np.float64
        ),
        (n, 1),
    )
    return {"apply": coin(rng, n, a.get("p", 0.5)), **box, "v": v}


def drawn_cutmix(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    """The box that torchvision draws after a lam, and the lam, which numpy hands to it."""
    lam = rng.beta(a.get("alpha", 1.0), a.get("alpha", 1.0), n)
    tool, left = v2.CutMix(alpha=a.get("alpha", 1.0), num_classes=10), iter(lam)
    tool._dist = SimpleNamespace(sample=lambda shape: next(left))
    return {"lam": lam, **asked(tool, n, size, rng, lambda p: {"box": p["box"]})}


def drawn_inside(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> list[Draws]:
    return [DRAWS[name](args, n, size, rng) for name, args in a["transforms"]]


def drawn_choice(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    weights = np.asarray(a.get("p") or [1.0] * len(a["transforms"]))
    return {
        "index": rng.choice(len(weights), n, p=weights / weights.sum()),
        "transforms": drawn_inside(a, n, size, rng),
    }


def drawn_augment(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    shape = (n, a.get("num_ops", 2))
    return {"op": rng.integers(0, len(OPERATIONS), shape), "sign": 1 - 2 * rng.integers(0, 2, shape)}


def permutations(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    return rng.permuted(np.tile(np.arange(k), (n, 1)), axis=1)


def nothing(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    return {}


def only_apply(default: float) -> Callable[..., Draws]:
    return lambda a, n, size, rng: {"apply": coin(rng, n, a.get("p", default))}


DRAWS: dict[str, Callable[..., Draws]] = {
    "CenterCrop": nothing,
    "ColorJitter": drawn_jitter,
    "CutMix": drawn_cutmix,
    "GaussianNoise": nothing,
    "Grayscale": nothing,
    "Normalize": nothing,
    "PILToTensor": nothing,
    "Pad": nothing,
    "RandAugment": drawn_augment,
    "RandomAffine": torchvision(v2.RandomAffine, "angle", "translate", "scale", "shear"),
    "RandomApply": lambda a, n, size, rng: {
        "apply": coin(rng, n, a.get("p", 0.5)),
        "transforms": drawn_inside(a, n, size, rng),
    },
    "RandomChoice": drawn_choice,
    "RandomCrop": torchvision(v2.RandomCrop, "top", "left"),
    "RandomErasing": drawn_erasing,
    "RandomGrayscale": only_apply(0.1),
    "RandomHorizontalFlip": only_apply(0.5),
    "RandomInvert": only_apply(0.5),
    "RandomOrder": lambda a, n, size, rng: {
        "order": permutations(rng, n, len(a["transforms"])),
        "transforms": drawn_inside(a, n, size, rng),
    },
    "RandomPosterize": only_apply(0.5),
    "RandomResizedCrop": torchvision(v2.RandomResizedCrop, "top", "left", "height", "width"),
    "RandomRot90": lambda a, n, size, rng: {"apply": coin(rng, n, a.get("p", 1.0)), "k": rng.integers(0, 4, n)},
    "RandomRotation": torchvision(v2.RandomRotation, "angle"),
    "RandomSolarize": only_apply(0.5),
    "RandomVerticalFlip": only_apply(0.5),
    "Resize": nothing,
    "SaltAndPepper": nothing,
    "ToDtype": nothing,
    "ToImage": nothing,
    "ToTensor": nothing,
}

# ---- a batch


def mean(
    name: str,
    args: Args,
    images: tuple[Tensor, ...],
    params: Args,
    seed: int,
    epoch: int,
    ids: list[int],
    occurrence: list[int],
    slot: int = 0,
) -> list[Tensor]:
    """The images after the transform at a slot, one at a time.  params: batched"""
    out = []
    for row, (x, id_, again) in enumerate(zip(images, ids, occurrence, strict=True)):
        out.append(MEANS[name](args, x, only(params, row), Sample(row, tuple(images), seed, epoch, id_, again, slot)))
    return out


def only(params: Any, row: int) -> Any:
    """The parameters of one sample."""
    if isinstance(params, dict):
        return {k: only(v, row) for k, v in params.items()}
    return [only(v, row) for v in params] if isinstance(params, list) else params[row]
