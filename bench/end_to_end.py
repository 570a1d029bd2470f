"""From a folder of JPEG files to augmented batches: loaders against loaders, with all cores."""

import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import gpuaug as ga
from bench.contenders.loaders import SIDES, Epoch, Folder, Side
from bench.contenders.registry import Absent

from . import checks, sources, timing
from .scenarios import POLICIES, Workload
from .suite import Measured, Options, Row

FILES, BATCH = 96, 32
WORKLOAD = Workload("JPEG folder, weak", "end to end", POLICIES["weak"], batch=BATCH)


def write(folder: Path, count: int = FILES) -> None:
    """JPEG files of 375 x 500 at quality 90 in two class folders."""
    for i, pixels in enumerate(sources.photographs(count, 375, 500, 3)):
        (folder / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"class{i % 2}" / f"{i:04d}.jpg", quality=90)


CONTENDERS = {name: side for name, side in SIDES.items() if side.whole}


def measure(options: Options, say: Callable[[str], None] = lambda _: None) -> Measured:
    """Check and time every loader on one folder."""
    workers = os.cpu_count() or 1
    rows: list[Row] = []
    works: dict[str, timing.Work] = {}
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        write(folder)
        judge, given = truth(folder, WORKLOAD), Folder(folder, WORKLOAD, workers)
        for contender, side in CONTENDERS.items():
            say(f"end to end: checking {contender}")
            if options.only and contender not in options.only:
                continue
            row, epoch = _prepare(contender, side, given, judge)
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


def truth(folder: Path, workload: Workload) -> tuple[checks.Reference, sources.Source]:
    """What gpuaug makes of the decoded files, and those."""
    decoded = []
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            decoded.append(np.array(image))
    policy = ga.Policy(workload.transforms, seed=4)
    source = sources.Source(decoded, False, torch.device("cpu"))
    return checks.reference(workload, lambda s: policy(s.channels_last, backend="cpu"), source), source


def _prepare(
    contender: str, side: Side, folder: Folder, truth: tuple[checks.Reference, sources.Source]
) -> tuple[Row, Epoch | None]:
    row = {
        "workload": WORKLOAD.name,
        "group": WORKLOAD.group,
        "contender": contender,
        "images": FILES,
        "unit": side.unit,
        "path": "JPEG to float32",
        "note": side.note,
    }
    try:
        epoch = side.make(folder)
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
