"""From a folder of JPEG files to augmented batches: loaders against loaders, with all cores."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import gpuaug as ga
from bench.contenders.registry import Absent

from . import checks, sources, timing
from .scenarios import MEAN, POLICIES, STD, Workload
from .suite import Measured, Options, Row

FILES, BATCH, SIDE = 96, 32, 224
WORKLOAD = Workload("JPEG folder, weak", "end to end", POLICIES["weak"], batch=BATCH)

Epoch = Callable[[], Iterator[Tensor]]


def write(folder: Path) -> None:
    """JPEG files of 375 x 500 at quality 90 in two class folders."""
    for i, pixels in enumerate(sources.photographs(FILES, 375, 500, 3)):
        (folder / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"class{i % 2}" / f"{i:04d}.jpg", quality=90)


def _dataloader(folder: Path, workers: int, read: str) -> Epoch:
    """torchvision's ImageFolder behind torch's DataLoader; workers stay alive between epochs."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    steps: list[Any] = [
        v2.RandomResizedCrop(SIDE),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(MEAN), list(STD)),
    ]
    if read == "Pillow":
        data = ImageFolder(str(folder), v2.Compose([*steps[:2], v2.ToImage(), *steps[2:]]))
    else:
        data = ImageFolder(str(folder), v2.Compose(steps), loader=partial(decode_image, mode=ImageReadMode.RGB))
    loader = DataLoader(data, BATCH, num_workers=workers, persistent_workers=workers > 0)
    return lambda: (images for images, _ in loader)


def _dali(folder: Path, workers: int) -> Epoch:
    """DALI alone: it decodes only the part that its crop keeps."""
    try:
        from nvidia.dali import fn, pipeline_def, types
    except ImportError:
        raise Absent("nvidia-dali-cuda120 is not installed; pip install 'gpuaug[dali]'") from None

    @pipeline_def(batch_size=BATCH, num_threads=workers, device_id=None, seed=5)
    def graph() -> Any:
        # in the order of ImageFolder: class by class, names sorted
        encoded, _ = fn.readers.file(file_root=str(folder), name="files")
        pixels = fn.decoders.image_random_crop(
            encoded, output_type=types.RGB, random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3]
        )
        small = fn.resize(pixels, size=[SIDE, SIDE])
        ends = {"mean": [m * 255 for m in MEAN], "std": [s * 255 for s in STD]}
        return fn.crop_mirror_normalize(
            small, dtype=types.FLOAT, output_layout="CHW", mirror=fn.random.coin_flip(), **ends
        )

    pipe = graph()
    pipe.build()

    def epoch() -> Iterator[Tensor]:
        for _ in range(FILES // BATCH):
            (out,) = pipe.run()
            # the next run reuses the memory
            yield torch.from_dlpack(out.as_tensor()).clone()

    return epoch


def _gpuaug(folder: Path, workers: int) -> Epoch:
    if not hasattr(ga, "data"):
        raise Absent("gpuaug has no loader yet")
    raise Absent("gpuaug's loader has no line in the bench yet")


CONTENDERS: dict[str, tuple[Callable[[Path, int], Epoch], str]] = {
    "gpuaug loader": (_gpuaug, "DALI decodes, one launch augments"),
    "torchvision DataLoader, Pillow": (partial(_dataloader, read="Pillow"), "ImageFolder's default"),
    "torchvision DataLoader, torchvision.io": (partial(_dataloader, read="io"), "decode_image"),
    "DALI alone": (_dali, "decodes only what its crop keeps"),
}


def measure(options: Options, say: Callable[[str], None] = lambda _: None) -> Measured:
    """Check and time every loader on one folder."""
    workers = os.cpu_count() or 1
    rows: list[Row] = []
    works: dict[str, timing.Work] = {}
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        write(folder)
        truth = _truth(folder)
        for contender, (make, note) in CONTENDERS.items():
            say(f"end to end: checking {contender}")
            if options.only and contender not in options.only:
                continue
            row, epoch = _prepare(contender, note, partial(make, folder, workers), truth)
            rows.append(row)
            if epoch is not None:
                works[contender] = partial(_drain, epoch)
        say(f"end to end: timing {len(works)}")
        seconds = timing.alternate(works, torch.device("cpu"), options.budget) if works else {}
    done = tuple(Row(**{**vars(r), "seconds": tuple(seconds.get(r.contender, ()))}) for r in rows)
    text = (
        f"{FILES} JPEG files of 375 x 500, batches of {BATCH}, {workers} worker processes or threads; "
        "RandomResizedCrop > RandomHorizontalFlip > Normalize"
    )
    return Measured(WORKLOAD.name, WORKLOAD.group, text, done, base="gpuaug loader")


def _truth(folder: Path) -> tuple[checks.Reference, sources.Source]:
    """What gpuaug makes of the decoded files, and those."""
    decoded = []
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            decoded.append(np.array(image))
    policy = ga.Policy(WORKLOAD.transforms, seed=4)
    source = sources.Source(decoded, False, torch.device("cpu"))
    return checks.reference(WORKLOAD, lambda s: policy(s.channels_last, backend="cpu"), source), source


def _prepare(
    contender: str, note: str, make: Callable[[], Epoch], truth: tuple[checks.Reference, sources.Source]
) -> tuple[Row, Epoch | None]:
    unit = "batch" if contender.startswith(("gpuaug", "DALI")) else "one image at a time"
    row = {
        "workload": WORKLOAD.name,
        "group": WORKLOAD.group,
        "contender": contender,
        "images": FILES,
        "unit": unit,
        "path": "JPEG to float32",
        "note": note,
    }
    try:
        epoch = make()
    except Absent as reason:
        return Row(**row, status="absent", why=str(reason)), None
    reference, source = truth
    why = reference.judge(lambda _: torch.cat(list(epoch())), source, shared=False)
    return (
        (Row(**row, status="not comparable", why=why), None)
        if why
        else (Row(**row, status="ok", draws="each image its own"), epoch)
    )


def _drain(epoch: Epoch) -> None:
    for _ in epoch():
        pass
