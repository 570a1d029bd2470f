"""Folders of photographs: found, decoded, and written once from those that scikit-image's wheel carries."""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")

# what stands in the wheel itself, so that nothing is downloaded: class -> files
WHEEL = {
    "cat": ("chelsea.png",),
    "coffee": ("coffee.png",),
    "eye": ("retina.jpg",),
    "motorcycle": ("motorcycle_left.png", "motorcycle_right.png"),
    "people": ("astronaut.png", "camera.png"),
    "rocket": ("rocket.jpg",),
    "sky": ("hubble_deep_field.jpg", "moon.png"),
    "tissue": ("ihc.png",),
}
# every photograph whole, and two parts of it as shares of its size (left, top, right, bottom), so that sizes and shapes
# vary
VIEWS = {"": (0.0, 0.0, 1.0, 1.0), "_left": (0.0, 0.0, 0.7, 0.85), "_right": (0.25, 0.2, 1.0, 1.0)}


@dataclass(frozen=True)
class Folder:
    """Image files of a folder in a fixed order: a file's place is its id.  Folders inside are classes."""

    root: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def varied(self, count: int, without: Collection[int] = ()) -> list[int]:
        """Up to `count` ids that show as many classes as there are: the first of each class, then the second, and so
        on.  without: ids left out."""
        rank, so_far = [], dict.fromkeys(self.labels, 0)
        for i, label in enumerate(self.labels):
            if i in without:
                continue
            rank.append((so_far[label], label, i))
            so_far[label] += 1
        return sorted(i for *_, i in sorted(rank)[:count])


def find(folder: Path) -> Folder:
    """The images under a folder, hidden files aside; raises ValueError where there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; pass a folder of images, flat or with one folder per class")
    inside = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    paths = tuple(p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    if not paths:
        raise ValueError(f"{folder} holds no images; files ending in {', '.join(SUFFIXES)} count")
    names = [p.relative_to(folder).parts[0] if p.parent != folder else "" for p in paths]
    classes = tuple(sorted(set(names)))
    return Folder(folder, paths, tuple(classes.index(n) for n in names), classes)


def decode(path: Path) -> np.ndarray[Any, Any]:
    """One image upright as [H, W, 3] uint8; raises ValueError naming a file that is damaged or not of 8 bits."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"{path} has {image.mode} pixels, and only 8-bit images are read; convert it first")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow raises SyntaxError for some broken PNG files
        raise ValueError(f"{path} cannot be decoded: {error}; replace or remove it") from error


def write(folder: Path) -> None:
    """The photographs of scikit-image's wheel as JPEG files of different sizes in class folders."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ValueError(
            "the demo's photographs come with scikit-image, which is not installed; "
            "pip install 'gpuaug[demo]', or pass --data FOLDER"
        )
    source, part = Path(spec.origin).parent / "data", folder.with_name(folder.name + ".part")
    try:
        for label, files in WHEEL.items():
            (part / label).mkdir(parents=True, exist_ok=True)
            for file in files:
                with Image.open(source / file) as image:
                    photograph = image.convert("RGB")
                width, height = photograph.size
                for view, (left, top, right, bottom) in VIEWS.items():
                    box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
                    photograph.crop(box).save(part / label / f"{Path(file).stem}{view}.jpg", quality=90)
    except BaseException:
        # an interrupt too leaves nothing behind
        shutil.rmtree(part, ignore_errors=True)
        raise
    # the name appears only when everything is there
    part.rename(folder)
