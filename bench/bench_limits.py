"""The figures of docs/semantics.md: how far pixels are from torchvision's where they are not the same, and why.

python -m bench.bench_limits [--out FILE].  Nothing is timed, so the figures do not depend on the machine."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

import gpuaug as ga
from gpuaug import ir

SIZES = ((375, 500), (224, 225), (224, 224), (100, 104))


@dataclass(frozen=True)
class Fixed(ga.Transform):
    """Passes with their parameters given, where a transform would draw them.  factor: of brightness or contrast"""

    kind: str
    factor: float

    def sample(self, draw: Any, frame: ir.Frame) -> dict[str, Tensor]:
        """Nothing is drawn."""
        return {}

    def lower(self, params: Any, frame: ir.Frame, slot: int) -> tuple[ir.Pass, ...]:
        """The operation before, then the one that looks at the spread of values or jumps."""
        factor = torch.full((len(frame.size),), self.factor, dtype=torch.float32)
        if self.kind == "autocontrast":
            return (ir.Affine(factor[:, None], torch.zeros_like(factor)[:, None]), ir.Autocontrast())
        after = ir.Equalize() if self.kind == "equalize" else ir.Solarize(torch.full_like(factor, 64 / 255))
        return (ir.Contrast(factor), after)


def images() -> list[Tensor]:
    """Photographs of scikit-image's wheel as they are, and with an eighth of their contrast: [1, 3, H, W] uint8."""
    found = []
    for name in ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg"):
        with Image.open(Path(skimage.__file__).parent / "data" / name) as picture:
            plain = torch.from_numpy(np.asarray(picture.convert("RGB"))[::4, ::4].copy()).permute(2, 0, 1)[None]
        found += [plain, (plain.float() / 8 + 110).round().to(torch.uint8)]
    return found


def levels(kind: str, factor: float, theirs: Callable[[Tensor], Tensor]) -> int:
    """The largest difference of two operations in a row from torchvision's uint8 path, in levels of 255."""
    policy = ga.Policy([Fixed(kind, factor), ga.ToDtype(torch.float32, scale=True)])
    found = []
    for x in images():
        ours = policy(x, ids=torch.arange(1), epoch=0, backend="reference") * 255
        found.append(float((ours - theirs(x).float()).abs().max()))
    return round(max(found))


def turned(height: int, width: int) -> float:
    """The share of pixels, each of a value of its own, in which a quarter turn by nearest neighbour differs from
    torchvision's, in percent; of the two turns the one that differs more."""
    x = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width) / (height * width)
    found = []
    for angle in (90, 270):
        ours = ga.Policy([ga.RandomRotation((angle, angle))])(x, ids=torch.arange(1), epoch=0, backend="reference")
        found.append(100 * float((ours != F.rotate(x, float(angle))).double().mean()))
    return max(found)


def measure() -> dict[str, Any]:
    """All of it."""
    quarter = {f"{h} x {w}": round(turned(h, w), 1) for h, w in SIZES}
    return {
        "quarter turn by nearest, pixels that differ, %": quarter,
        "from torchvision's uint8 path, levels": {
            "AutoContrast after brightness 0.1": levels(
                "autocontrast", 0.1, lambda x: F.autocontrast(F.adjust_brightness(x, 0.1))
            ),
            "Equalize after contrast 0.2": levels("equalize", 0.2, lambda x: F.equalize(F.adjust_contrast(x, 0.2))),
            "Solarize at 64 after contrast 0.3": levels(
                "solarize", 0.3, lambda x: F.solarize(F.adjust_contrast(x, 0.3), 64)
            ),
        },
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    rows = measure()
    for title, row in rows.items():
        for name, value in row.items():
            print(f"{title}: {name}: {value}")
    if given.out:
        about = {name: version(name) for name in ("torch", "torchvision", "numpy")}
        given.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
