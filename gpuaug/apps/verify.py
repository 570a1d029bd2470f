"""`gpuaug verify`: every transform of a pipeline against torchvision, on images, with the same parameters.

An image goes through the pipeline step by step.  Each step gets what torchvision made of the steps before it, so that
every difference is of one transform."""

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gpuaug.apps import peers, photographs
from gpuaug.interop import from_torchvision
from gpuaug.policy import Policy
from gpuaug.transforms import Transform

# of values from 0 to 1: what moves, blurs or colours; and the share of values that may differ more where one jumps
TOLERANCE, SHARE = 1e-4, 1e-3
# levels of 255, in the mean, that JPEG in floats may be off an encoder's integers
JPEG = 3 / 255


@dataclass
class Row:
    """What is known of one transform."""

    transform: Transform
    images: int = 0
    largest: float = 0.0
    share: float = 0.0  # of the values beyond the tolerance, in the worst image
    fails: bool = False
    note: str = ""


def load(target: str) -> Policy:
    """The policy that FILE.py:name names: a Policy, a pipeline of torchvision, or a function without arguments that
    gives one.  The file is run."""
    path, colon, name = target.rpartition(":")
    if not colon or not path or not name:
        raise ValueError(
            f"TARGET must be FILE.py:name, got {target!r}; name the pipeline in the file, such as train.py:augment"
        )
    loaded = module(path)
    if not hasattr(loaded, name):
        known = sorted(n for n, v in vars(loaded).items() if not n.startswith("_") and not inspect.ismodule(v))
        raise ValueError(f"{path} has no {name}; it has {', '.join(known) or 'nothing'}")
    found = getattr(loaded, name)
    if inspect.isfunction(found):
        found = found()
    return found if isinstance(found, Policy) else from_torchvision(found)


def module(path: str) -> ModuleType:
    """The module that a Python file is.  It is run."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{path} is no file; pass the Python file that makes the pipeline")
    spec = importlib.util.spec_from_file_location("_verified", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file; its name must end in .py")
    found = importlib.util.module_from_spec(spec)
    # as when the file is run: it may import its neighbours, and pickle by its name
    sys.path.insert(0, str(file.parent.resolve()))
    sys.modules["_verified"] = found
    try:
        spec.loader.exec_module(found)
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(file.parent.resolve()))
    return found


def images(data: Path | None, count: int) -> Iterator[Tensor]:
    """Up to `count` photographs, [3, H, W] float32 in [0, 1]: of a folder, of scikit-image's wheel, or, where that is
    not installed, waves."""
    if data is not None:
        folder = photographs.find(data)
        for i in folder.varied(count):
            yield _floats(photographs.decode(folder.paths[i]))
        return
    spec = find_spec("skimage")
    if spec is not None and spec.origin is not None:
        files = [f for names in photographs.WHEEL.values() for f in names]
        root = Path(spec.origin).parent / "data"
        for k in range(count):
            with Image.open(root / files[k % len(files)]) as image:
                photograph = image.convert("RGB")
                photograph.thumbnail((500 - 25 * (k // len(files) % 8), 375))
                yield _floats(np.array(photograph))
        return
    for k in range(count):
        yield made(k, 240 + 8 * (k % 5), 320 - 16 * (k % 7))


def made(k: int, height: int, width: int) -> Tensor:
    """A picture of waves: [3, height, width] float32."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    waves = [(6.3 * ((k % 5 + c + 1) * x + (k % 3 + 2 * c + 1) * y)).sin() for c in range(3)]
    fine = (91.7 * (x * (k + 3)) + 57.3 * y).sin() * (47.1 * y * (k + 2)).cos()
    return (0.5 + 0.35 * torch.stack(waves) + 0.15 * fine).clamp(0, 1)


def _floats(pixels: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def compare(policy: Policy, given: Iterator[Tensor], backend: str = "auto") -> list[Row]:
    """A row for every transform of the policy."""
    rows = [Row(t) for t in policy.transforms]
    steps = [Policy([t], policy.seed) for t in policy.transforms]
    count = 0
    for count, image in enumerate(given, 1):
        ids = torch.tensor([count - 1])
        for row, step in zip(rows, steps, strict=True):
            channels, height, width = (int(v) for v in image.shape)
            drawn = step.draw(ids, size=(height, width), epoch=0, channels=channels, dtype=image.dtype)
            try:
                theirs = peers.apply(row.transform, image, peers.of_sample(drawn[0], 0))
            except peers.NotComparedError as error:
                row.note = str(error)
                continue
            ours = step(image[None], ids=ids, epoch=0, backend=backend)
            if step.fixed_views:
                # the views of the image; the last one goes on
                _note(row, torch.cat(ours), torch.stack(tuple(theirs)))
                image = theirs[-1]
            else:
                _note(row, ours[0], theirs)
                image = theirs
            if not image.is_floating_point():
                image = image.float() / 255
    if not count:
        raise ValueError("there are no images to compare; pass --images 1 or more, or a folder with images")
    return rows


def _note(row: Row, ours: Tensor, theirs: Tensor) -> None:
    row.images += 1
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        row.fails, row.largest, row.share = True, float("inf"), 1.0
        row.note = f"{ours.dtype} {tuple(ours.shape)} and {theirs.dtype} {tuple(theirs.shape)} of torchvision"
        return
    scale = 1.0 if ours.is_floating_point() else 1 / 255
    a, b = ours.double() * scale, theirs.double() * scale
    apart = (a - b).abs()
    # after a Normalize values are larger, and so is what a rounding is of
    room = TOLERANCE * max(1.0, float(b.abs().max())) + (1 / 255 if scale < 1 else 0.0)
    share = float((apart > room).double().mean())
    row.largest, row.share = max(row.largest, float(apart.max())), max(row.share, share)
    if type(row.transform).__name__ == "JPEG":
        row.note = "in the mean within 3 levels of an encoder that rounds"
        row.fails = row.fails or float(apart.mean()) > JPEG
    else:
        row.fails = row.fails or share > (SHARE if _jumps(row.transform) else 0.0)


def _jumps(t: Transform) -> bool:
    nearest = str(getattr(t, "interpolation", "")).startswith("nearest")
    return nearest or type(t).__name__ in peers.JUMPS or any(_jumps(c) for c in t.children)


def run(target: str, data: Path | None, count: int, backend: str, console: Console) -> bool:
    """Print the table; true where every transform that was compared is within the tolerance."""
    if find_spec("torchvision") is None:
        raise RuntimeError("verify compares with torchvision, which is not installed; pip install 'gpuaug[demo]'")
    policy = load(target)
    rows = compare(policy, images(data, count), backend)
    table = Table(title=f"{target}: largest difference to torchvision, values from 0 to 1", title_justify="left")
    table.add_column("transform", no_wrap=True)
    for name in ("images", "largest", "beyond"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in rows:
        known = row.images > 0
        verdict = "[red]differs[/red]" if row.fails else "[green]same[/green]" if known else "not compared"
        table.add_row(
            type(row.transform).__name__,
            str(row.images),
            f"{row.largest:.1e}" if known else "-",
            f"{row.share:.2%}" if known else "-",
            f"{verdict}{': ' + row.note if row.note else ''}",
        )
    console.print(table)
    console.print(
        f"beyond: the share of values that differ by more than {TOLERANCE:g}, in the worst image", highlight=False
    )
    return not any(row.fails for row in rows)
