"""`gpuaug expand`: augmented copies of a data set as files, with a manifest from which each can be made again.

A file gets its name when it is whole, and a piece is noted in a journal when all of its files have theirs.  A run that
was stopped, or killed, makes the pieces that are not noted; a copy has one name, so that none comes twice."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gpuaug import arguments, rng
from gpuaug.apps.disk import alone, bar, full, lines, note, size
from gpuaug.data import decoding
from gpuaug.data.decode import decoder as decoder_of
from gpuaug.data.source import Source
from gpuaug.data.sources_prepared import ABOUT, is_prepared, pyarrow
from gpuaug.exec import check
from gpuaug.expand import FORMATS, MANIFEST, Job, Maker, pieces, read_manifest, versions, writable
from gpuaug.policy import Policy

ON_ERROR = ("raise", "skip")
ENGINES = ("local", "ray")
DEVICES = ("auto", "cpu", "cuda")
# images whose copies are encoded to foresee the size of all
_SAMPLES = 16
# of the manifest and of the journal, a copy
_ROW = 600
_SPARE = 1 << 20


@dataclass(frozen=True)
class Order:
    """What is asked for.  actors: processes of Ray; None: one a GPU, or one a core."""

    source: str
    target: Path
    policy: Policy
    factor: int = 2
    format: str = "jpeg"
    quality: int = 95
    engine: str = "local"
    actors: int | None = None
    on_error: str = "raise"
    decoder: str = "auto"
    backend: str = "auto"
    device: str = "auto"
    threads: int | None = None

    def check(self) -> None:
        """Raise ValueError for what no run could do."""
        arguments.one_of("--format", self.format, FORMATS)
        arguments.one_of("--engine", self.engine, ENGINES)
        arguments.one_of("--on-error", self.on_error, ON_ERROR)
        arguments.one_of("--device", self.device, DEVICES)
        arguments.integer("--factor", self.factor, 1, rng.MAX_EPOCH)
        arguments.integer("--quality", self.quality, 1, 100)
        check(self.backend)
        if self.engine == "ray":
            from gpuaug.apps import expand_ray

            expand_ray.package()


@dataclass
class Journal:
    """What is written so far."""

    told: dict[int, dict[str, Any]]  # by piece: rows of the manifest, and samples without an image
    size: int = 0  # bytes that are whole lines

    @property
    def done(self) -> int:
        """Copies."""
        return sum(len(t["rows"]) for t in self.told.values())


def run(order: Order, console: Console) -> Path:
    """Expand a data set, or go on where an earlier run stopped; where the manifest is."""
    order.check()
    manifest = order.target.expanduser() / MANIFEST
    pyarrow(manifest)
    policy, notes = writable(order.policy)
    without = _apart(order)
    with closing(decoder_of(order.decoder, "cpu", order.threads)) as found:
        name = found.name
    job = Job(
        os.path.abspath(os.path.expanduser(order.source)) if "://" not in order.source else order.source,
        policy.to_dict(),
        order.factor,
        order.format,
        order.quality,
        name,
        order.backend,
        _device(order),
        order.on_error,
        without,
        decoding.CHUNK,
    )
    with job.open() as source:
        about = json.loads(json.dumps(job.about(source) | {"versions": versions(job)}))
        if manifest.exists() and not _journal(manifest).exists():
            _whole(manifest, about, console)
            return manifest
        _clear(order.target, manifest)
        for said in notes:
            console.print(f"note: {said}", markup=False, highlight=False, soft_wrap=True, style="yellow")
        _write(order, job, source, manifest, about, console)
    return manifest


def _device(order: Order) -> str:
    if order.engine == "ray":
        from gpuaug.apps import expand_ray

        there = expand_ray.gpus() > 0
    else:
        there = torch.cuda.is_available()
    if order.device == "cuda" and not there:
        raise ValueError("--device cuda needs a GPU, and none is here; leave it out")
    return "cuda" if order.device != "cpu" and there and order.backend not in ("cpu",) else "cpu"


def _apart(order: Order) -> str:
    """The real path of a target that lies within its source, which is left out of reading; "" for another."""
    if "://" in order.source:
        return ""
    source, target = (Path(os.path.realpath(os.path.expanduser(p))) for p in (order.source, order.target))
    if target == source:
        raise ValueError(f"{order.target} is the source itself; name another folder for the copies")
    if target in source.parents:
        raise ValueError(f"{order.source} lies inside {order.target}; name another folder for the copies")
    if source.is_dir() and source in target.parents:
        if is_prepared(source):
            raise ValueError(f"{order.target} lies inside {order.source}, which is prepared; name a place outside")
        return str(target)
    return ""


def _journal(manifest: Path) -> Path:
    return manifest.with_name(f"{manifest.name}.journal")


def _clear(target: Path, manifest: Path) -> None:
    """Refuse a target that is something else already."""
    place = target.expanduser()
    if place.exists() and not place.is_dir():
        raise ValueError(f"{target} exists and is a file; name a folder")
    if place.is_dir() and not _journal(manifest).exists() and any(place.iterdir()):
        raise ValueError(f"{target} exists and holds other files; name a folder that is empty or not there")


def _same(told: dict[str, Any], about: dict[str, Any]) -> bool:
    """Whether two runs make the same copies; what differs between installations may differ in bytes."""
    return {k: v for k, v in told.items() if k != "on_error"} == {k: v for k, v in about.items() if k != "on_error"}


def _whole(manifest: Path, about: dict[str, Any], console: Console) -> None:
    """What was finished before, if it is what is asked for."""
    rows, told = read_manifest(manifest)
    if not _same(told, about):
        raise ValueError(
            f"{manifest.parent} was expanded from other samples, with another policy, other options or other versions; "
            "remove it, or name another"
        )
    console.print(f"{manifest.parent} is expanded already: {len(rows)} copies", soft_wrap=True)


def _write(order: Order, job: Job, source: Source, manifest: Path, about: dict[str, Any], console: Console) -> None:
    place, book_at = manifest.parent, _journal(manifest)
    maker = Maker(job, place, order.threads, source)
    new = not place.exists()
    try:
        _room(order, job, source, _foreseen(maker), book_at, console)
        place.mkdir(parents=True, exist_ok=True)
        with alone(book_at, place) as book:
            try:
                journal = _read(about, book_at)
                _sweep(place, journal)
                with full(order.target), bar(console) as shown:
                    if not journal.size:
                        journal.size = note(book, 0, about)
                    gone = sum(len(t["bad"]) for t in journal.told.values()) * job.factor
                    total = len(source) * job.factor
                    task = shown.add_task("writing copies", total=total, completed=journal.done + gone)
                    left = [k for k in range(pieces(job, source)) if k not in journal.told]
                    with closing(_lines(order, job, maker, left)) as made:
                        for told in made:
                            journal.size = note(book, journal.size, told)
                            journal.told[told["piece"]] = told
                            shown.update(task, advance=len(told["rows"]) + len(told["bad"]) * job.factor)
                _finish(manifest, source, journal, about)
            except BaseException:
                _leave(place, book_at, new)
                raise
            book_at.unlink()
    finally:
        maker.close()
    _say(source, manifest, journal, job, console)


def _leave(place: Path, book_at: Path, new: bool) -> None:
    """Leave nothing of what was begun in vain: neither a journal of no copies, nor empty folders."""
    if any(p.is_file() and p != book_at for p in place.rglob("*")):
        return
    book_at.unlink(missing_ok=True)
    for folder in [*sorted((p for p in place.rglob("*") if p.is_dir()), reverse=True), *([place] if new else ())]:
        with suppress(OSError):
            folder.rmdir()


def _lines(order: Order, job: Job, maker: Maker, left: list[int]) -> Generator[dict[str, Any], None, None]:
    """Pieces as they are made."""
    if order.engine == "ray":
        from gpuaug.apps import expand_ray

        yield from expand_ray.lines(job, maker.target, left, order.actors)
        return
    with ThreadPoolExecutor(1, "gpuaug-read") as reading:
        # the next piece is read and decoded while one is augmented and written
        ahead = [reading.submit(maker.read, k) for k in left[:1]]
        for n, k in enumerate(left):
            part = ahead.pop().result()
            ahead += [reading.submit(maker.read, following) for following in left[n + 1 : n + 2]]
            yield maker.made(k, part)


def _read(about: dict[str, Any], book_at: Path) -> Journal:
    """What a journal says."""
    journal = Journal({})
    for k, (told, count) in enumerate(lines(book_at)):
        if k == 0 and not _same(told, about):
            raise ValueError(
                f"{book_at.parent} was begun with other samples, another policy, other options or other versions; "
                "remove it to begin anew"
            )
        if k:
            journal.told[told["piece"]] = told
        journal.size += count
    return journal


def _sweep(place: Path, journal: Journal) -> None:
    """Remove what a killed run left half-written, and forget pieces whose files are gone."""
    if not journal.size:
        return
    for part in place.rglob("*.part"):
        part.unlink()
    for piece, told in list(journal.told.items()):
        names = {_on_disk(row["file"]) for row in told["rows"]}
        if not all((place / name).is_file() for name in names):
            del journal.told[piece]


def _on_disk(file: str) -> str:
    """The file that a copy is in: itself, or its shard."""
    shard, dot, _ = file.partition(".tar/")
    return f"{shard}.tar" if dot else file


# ---- the disk


def _foreseen(maker: Maker) -> float:
    """Bytes of a copy, from some that are encoded."""
    count = len(maker.source)
    ids = sorted({k * count // _SAMPLES for k in range(_SAMPLES)})
    part = decoding.some(maker.source, ids, maker.decoder)
    sizes = [len(data) for _, data in maker.copies(part, [0])]
    # a tar's heads and padding, of an image, a label and a row
    more = 4096 if maker.job.format == "webdataset" else 0
    return sum(sizes) / max(1, len(sizes)) + more


def _room(order: Order, job: Job, source: Source, each: float, book_at: Path, console: Console) -> None:
    """Say what the disk will hold, and what that means for training; refuse what there is no room for."""
    count = len(source) * job.factor
    needed = count * (each + 2 * _ROW)
    done = 0
    if book_at.exists():
        done = sum(len(told.get("rows", ())) for told, _ in lines(book_at))
    near = next(p for p in (book_at.parent, *book_at.parent.resolve().parents) if p.exists())
    free = shutil.disk_usage(near).free
    tell = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    on = f", {done} of them done" if done else ""
    tell(
        f"{len(source)} images x {job.factor} = {count} copies of about {size(each)}{on}: {size(needed)} of disk, "
        f"{size(free)} are free"
    )
    if job.factor > 1:
        tell(
            f"training must grow with the factor: an epoch over the copies has {job.factor} x the steps; where steps "
            f"are counted, take {job.factor} x as many, or each image is seen 1/{job.factor} as often"
        )
    left = needed * (1 - done / max(1, count))
    if left + _SPARE > free:
        raise ValueError(
            f"the disk of {order.target} has {size(free)} left, and this takes about {size(left)} more; free some, or "
            "choose a smaller --factor, a lower --quality or another place"
        )


# ---- the end


def _finish(manifest: Path, source: Source, journal: Journal, about: dict[str, Any]) -> None:
    """Write the manifest, which says that all is there."""
    rows = [row for piece in sorted(journal.told) for row in journal.told[piece]["rows"]]
    if not rows:
        bad = [b for told in journal.told.values() for b in told["bad"]]
        raise ValueError(f"not one of {len(bad)} images can be decoded, such as {source.key(bad[0][0])}: {bad[0][1]}")
    arrow = pyarrow(manifest)
    table = arrow.Table.from_pylist(rows).replace_schema_metadata({ABOUT: json.dumps(about).encode()})
    part = manifest.with_name(f"{manifest.name}.part")
    with full(manifest.parent):
        try:
            arrow.parquet.write_table(table, part)
            part.replace(manifest)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _say(source: Source, manifest: Path, journal: Journal, job: Job, console: Console) -> None:
    tell = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    tell(f"{journal.done} copies in {manifest.parent}, what each is in {manifest}")
    rows = [row for told in journal.told.values() for row in told["rows"]]
    several = Counter((row["id"], row["hash"]) for row in rows)
    same = sum(count - 1 for count in several.values())
    if same:
        tell(
            f"note: {same} are the same as another copy of their image: the policy has fewer different results than "
            f"the factor {job.factor}",
            style="yellow",
        )
    bad = [b for piece in sorted(journal.told) for b in journal.told[piece]["bad"]]
    if bad:
        tell(f"{len(bad)} left out, for they can't be decoded:", style="yellow")
        for i, reason in bad[:20]:
            tell(f"  {source.key(i)}: {reason}")
        if bad[20:]:
            tell(f"  and {len(bad) - 20} more")
