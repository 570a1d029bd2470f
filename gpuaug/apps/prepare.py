"""`gpuaug prepare`: a source decoded and brought to one size once, as a plain .npy file and a Parquet index.

Pixels are written under another name, piece by piece, each noted in a journal once it is on the disk.  A run that was
stopped, or killed, goes on after the last piece that is noted; only when all is there do the files get their names."""

import io
import json
import os
import shutil
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.lib import format as npy
from rich.console import Console

from gpuaug.apps.disk import alone, bar, full, lines, note, size
from gpuaug.data.decode import decoder
from gpuaug.data.decoding import Fit, Part, every, plain_label
from gpuaug.data.source import Source
from gpuaug.data.sources import as_source
from gpuaug.data.sources_prepared import ABOUT, Places, PreparedSource, is_prepared, places, pyarrow

ON_ERROR = ("raise", "skip")
CHANNELS = 3
# room left on the disk for the index and for others
_SPARE = 1 << 20


@dataclass(frozen=True)
class Order:
    """What is asked for.  size: (H, W).  fit: "crop" or "stretch".  threads: that decode; None: the cores of this
    process."""

    source: str
    target: Path
    size: int | tuple[int, int] = 256
    fit: str = "crop"
    on_error: str = "raise"
    decoder: str = "auto"
    threads: int | None = None


@dataclass
class Journal:
    """What is written so far: a line for what is made, then one for every piece, with a row for each image."""

    rows: list[list[Any]]  # source id, height and width before
    bad: list[list[Any]]  # source id and reason
    done: int = 0  # samples of the source that are dealt with
    size: int = 0  # bytes of the journal that are whole lines


def run(order: Order, console: Console) -> PreparedSource:
    """Prepare a source, or go on where an earlier run stopped."""
    if order.on_error not in ON_ERROR:
        raise ValueError(f"on-error must be one of {', '.join(map(repr, ON_ERROR))}, got {order.on_error!r}")
    fit, at = Fit.of(order.size, order.fit), places(order.target)
    pyarrow(at.table)
    _apart(order, at)
    # a decoder that can't be had is refused before anything is written
    decoder(order.decoder, "cpu", order.threads).close()
    with as_source(order.source) as source:
        job = {
            "source": source.fingerprint,
            "samples": len(source),
            "size": [fit.height, fit.width],
            "fit": fit.how,
            "classes": None if source.classes is None else list(source.classes),
        }
        if is_prepared(order.target):
            return _whole(order.target, at, job, console)
        _clear(order.target, at)
        _write(order, source, fit, at, job, console)
    return PreparedSource(at.images)


def _apart(order: Order, at: Places) -> None:
    """Refuse a target within its own source: its files would become samples."""
    if "://" in order.source:
        return
    source, target = Path(order.source).expanduser().resolve(), order.target.expanduser().resolve()
    if target == source or (source.is_dir() and source in target.parents):
        raise ValueError(f"{order.target} lies inside {order.source}; name a place outside of it")
    if target in source.parents:
        raise ValueError(f"{order.source} lies inside {order.target}; name another place")


def _clear(target: Path, at: Places) -> None:
    """Refuse a target that is something else already."""
    if at.journal.exists():
        return
    if target.suffix == ".npy":
        for path in (at.images, at.table):
            if path.exists():
                raise ValueError(f"{path} exists and was not written by gpuaug prepare; remove it, or name another")
    elif target.is_dir() and any(p.name != at.part.name for p in target.iterdir()):
        raise ValueError(f"{target} exists and holds other files; name a folder that is empty or not there")
    elif target.exists() and not target.is_dir():
        raise ValueError(f"{target} exists and is a file; name a folder, or a file that ends in .npy")


def _whole(target: Path, at: Places, job: dict[str, Any], console: Console) -> PreparedSource:
    """What was finished before, if it is what is asked for."""
    found = PreparedSource(at.images)
    if found.job != job:
        raise ValueError(f"{target} was prepared from other samples or to another size; remove it, or name another")
    for left in (at.part, at.journal):
        left.unlink(missing_ok=True)
    console.print(f"{target} is prepared already: {len(found)} images", soft_wrap=True)
    return found


def _write(order: Order, source: Source, fit: Fit, at: Places, job: dict[str, Any], console: Console) -> None:
    image = fit.height * fit.width * CHANNELS
    needed = len(source) * image
    at.images.parent.mkdir(parents=True, exist_ok=True)
    with alone(at.journal, at.images) as book:
        journal = _read(at, job)
        _room(order, at, needed, journal, image, console)
        with full(order.target), open(at.part, "r+b" if at.part.exists() else "w+b") as file:
            begin = file.write(_head(len(source), fit))
            file.truncate(begin + len(journal.rows) * image)
            if not journal.size:
                journal.size = note(book, 0, job)
            with bar(console) as shown, ExitStack() as stack:
                task = shown.add_task("decoding", total=len(source), completed=journal.done)
                parts = every(source, fit, start=journal.done, num_threads=order.threads, name=order.decoder)
                stack.enter_context(closing(parts))
                for part in parts:
                    _piece(part, file, begin + len(journal.rows) * image, image)
                    _refuse(order, source, part, journal)
                    rows = [[i, *full] for i, full in zip(part.ids, part.full, strict=True)]
                    bad = [[i, str(reason)] for i, reason in part.bad.items()]
                    journal.size = note(book, journal.size, {"rows": rows, "bad": bad, "targets": _plain(part)})
                    journal.rows += rows
                    journal.bad += bad
                    journal.done += len(rows) + len(bad)
                    shown.update(task, completed=journal.done)
            if not journal.rows:
                _remove(order, at)
                raise ValueError(
                    f"not one of {len(journal.bad)} images can be decoded, such as "
                    f"{source.key(journal.bad[0][0])}: {journal.bad[0][1]}"
                )
            _finish(file, source, fit, at, job)
        at.journal.unlink()
    _say(source, at, journal, console)


def _refuse(order: Order, source: Source, part: Part, journal: Journal) -> None:
    """Stop at bad files, all of a piece by name; pieces before it are kept."""
    if part.bad and order.on_error == "raise":
        files = [f"{source.key(i)}: {reason}" for i, reason in part.bad.items()]
        raise ValueError(
            f"{len(files)} of images {journal.done} to {journal.done + len(part.ids) + len(files) - 1} can't be "
            f"decoded: {'; '.join(files[:5])}{' ...' if files[5:] else ''}. Mend them, or leave them out by "
            "--on-error skip; the same command goes on from there"
        )


def _say(source: Source, at: Places, journal: Journal, console: Console) -> None:
    console.print(f"{len(journal.rows)} images in {at.images}, their names and labels in {at.table}", soft_wrap=True)
    if journal.bad:
        console.print(f"{len(journal.bad)} left out, for they can't be decoded:", style="yellow")
        for i, reason in journal.bad[:20]:
            console.print(f"  {source.key(i)}: {reason}", markup=False, soft_wrap=True)
        if journal.bad[20:]:
            console.print(f"  and {len(journal.bad) - 20} more")


# ---- the disk


def _room(order: Order, at: Places, needed: int, journal: Journal, image: int, console: Console) -> None:
    """Say what the disk will hold, and refuse what it has no room for."""
    free = shutil.disk_usage(at.images.parent).free
    on = f", {journal.done} of them done" if journal.done else ""
    console.print(
        f"{needed // image} images of {image / 1e3:.0f} kB{on}: {size(needed)} of disk, {size(free)} are free"
    )
    left = needed - len(journal.rows) * image
    if left + _SPARE > free:
        if not journal.done:
            _remove(order, at)
        raise ValueError(
            f"the disk of {order.target} has {size(free)} left, and this takes {size(left)} more; free some, choose "
            "a smaller --size, or another place"
        )


def _remove(order: Order, at: Places) -> None:
    """Leave nothing of what was begun in vain."""
    for path in (at.part, at.journal):
        path.unlink(missing_ok=True)
    if order.target.suffix != ".npy":
        with suppress(OSError):
            # others' files stay, and so their folder
            at.images.parent.rmdir()


def _read(at: Places, job: dict[str, Any]) -> Journal:
    """What a journal says; a last line that was cut off counts for nothing."""
    journal, first = Journal([], []), True
    for told, count in lines(at.journal):
        if first and told != job:
            raise ValueError(
                f"{at.images} was begun with other samples or another size; remove {at.journal} to begin anew"
            )
        if not first:
            journal.rows += told["rows"]
            journal.bad += told["bad"]
        first, journal.size = False, journal.size + count
    image = job["size"][0] * job["size"][1] * CHANNELS
    there = at.part.stat().st_size if at.part.exists() else 0
    if journal.rows and there < len(_head(0, Fit(*job["size"]))) + len(journal.rows) * image:
        raise ValueError(f"{at.part} has lost images that {at.journal} names; remove both to begin anew")
    journal.done = len(journal.rows) + len(journal.bad)
    return journal


def _piece(part: Part, file: BinaryIO, at: int, image: int) -> None:
    """Write the images of a piece and see them to the disk."""
    if not part.images:
        return
    pixels: Any = np.empty((len(part.images), image), np.uint8)
    for k, shown in enumerate(part.images):
        pixels[k] = _colours(shown).contiguous().view(-1).numpy()
    file.seek(at)
    file.write(memoryview(pixels).cast("B"))
    file.flush()
    os.fsync(file.fileno())


def _colours(image: torch.Tensor) -> torch.Tensor:
    return image[..., :3] if image.shape[2] >= 3 else image[..., :1].expand(-1, -1, 3)


def _head(count: int, fit: Fit) -> bytes:
    """The head of a .npy file, of one length for any count."""
    out = io.BytesIO()
    shape = (count, fit.height, fit.width, CHANNELS)
    npy.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})  # type: ignore[no-untyped-call]
    return out.getvalue()


# ---- the end


def _finish(file: BinaryIO, source: Source, fit: Fit, at: Places, job: dict[str, Any]) -> None:
    """Write the index and give the files their names: the images last, for they are what says that all is there."""
    rows, targets = [], list[Any]()
    for told, _ in list(lines(at.journal))[1:]:
        rows += told["rows"]
        targets += told["targets"]
    file.seek(0)
    file.write(_head(len(rows), fit))
    file.flush()
    os.fsync(file.fileno())
    arrow = pyarrow(at.table)
    names = source.classes
    columns = {
        "id": list(range(len(rows))),
        "path": [source.key(row[0]) for row in rows],
        "label": targets,
        "class": [names[t] if names and isinstance(t, int) and 0 <= t < len(names) else None for t in targets],
        "source_id": [row[0] for row in rows],
        "height": [row[1] for row in rows],
        "width": [row[2] for row in rows],
    }
    table = arrow.table(columns).replace_schema_metadata({ABOUT: json.dumps(job).encode()})
    part = at.table.with_name(at.table.name + ".part")
    arrow.parquet.write_table(table, part)
    part.replace(at.table)
    at.part.replace(at.images)


def _plain(part: Part) -> list[Any]:
    """Labels as JSON holds them, one for each image; what is none, such as boxes, is left out."""
    return [None] * len(part.ids) if part.targets is None else [plain_label(t) for t in part.targets]
