"""Photographs for the loaders: parts of those that scikit-image carries, as JPEG files of the size of ImageNet's."""

import io
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from gpuaug.apps.photographs import WHEEL

SMALLEST, LARGEST = 56_000, 110_000  # bytes of a file
HEIGHTS, WIDTHS = (355, 396), (480, 521)
CLASSES = 10


def write(folder: Path, count: int) -> None:
    """`count` files in class folders; the name appears only when all are there."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ValueError(
            "the bench's photographs come with scikit-image, which is not installed; pip install scikit-image"
        )
    rng, part = np.random.default_rng(5), folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    pictures = [_large(Path(spec.origin).parent / "data" / name) for names in WHEEL.values() for name in names]
    try:
        for i in range(count):
            place = part / f"class_{i % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i:05d}.jpg").write_bytes(_file(pictures[i % len(pictures)], rng))
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    part.rename(folder)


def _large(path: Path) -> Image.Image:
    """A photograph that windows of many places fit into."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    scale = max(1.3 * HEIGHTS[1] / picture.height, 1.3 * WIDTHS[1] / picture.width, 1.0)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)


def _file(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """A part of a photograph, of a quality that gives the size that is wanted: grain where it is too smooth for it."""
    height, width = int(rng.integers(*HEIGHTS)), int(rng.integers(*WIDTHS))
    left, top = int(rng.integers(0, picture.width - width + 1)), int(rng.integers(0, picture.height - height + 1))
    pixels = np.asarray(picture.crop((left, top, left + width, top + height)), np.float32)
    wanted = int(rng.integers(SMALLEST, LARGEST))
    grain = rng.normal(0, 1, (height, width, 1)).astype(np.float32)
    for strength in (2.0, 6.0, 12.0, 24.0, 48.0):
        noisy = Image.fromarray((pixels + strength * grain).clip(0, 255).astype(np.uint8))
        low, high, best = 30, 97, b""
        while low <= high:
            quality = (low + high) // 2
            data = _jpeg(noisy, quality)
            if SMALLEST <= len(data) <= LARGEST and (not best or abs(len(data) - wanted) < abs(len(best) - wanted)):
                best = data
            low, high = (quality + 1, high) if len(data) < wanted else (low, quality - 1)
        if best:
            return best
    raise ValueError(f"a part of a photograph has no JPEG of {SMALLEST} to {LARGEST} bytes")


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
