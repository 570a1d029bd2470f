"""Augmented copies of a data set as files: which they are, how each is made, and how one is made again.

A copy is a pure function of its source image, of the policy and of (seed, epoch, id), so that pieces are made in any
order, by any process, and again."""

import io
import json
import os
import platform
import tarfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from gpuaug import rng
from gpuaug.data import decoding
from gpuaug.data.decode import decoder as decoder_of
from gpuaug.data.decoding import Part, plain_label
from gpuaug.data.source import Source
from gpuaug.data.sources import as_source
from gpuaug.data.sources_files import folder
from gpuaug.data.sources_prepared import ABOUT, pyarrow
from gpuaug.data.storage import Storage
from gpuaug.policy import Policy
from gpuaug.transforms import ConvertImageDtype, Identity, Normalize, ToDtype, ToTensor, Transform
from gpuaug.transforms.base import span
from gpuaug.transforms.mixes import mixes_in
from gpuaug.version import __version__

FORMATS = ("jpeg", "png", "webdataset")
ENDINGS = {"jpeg": "jpg", "png": "png", "webdataset": "jpg"}
MANIFEST = "manifest.parquet"


def writable(policy: Policy) -> tuple[Policy, list[str]]:
    """The policy with Identity for what no image file holds, so that all else draws as it did, and why, as sentences.
    Raises ValueError for what can't be left out."""
    if policy.fixed_views:
        raise ValueError("a policy of fixed views gives several images of one; expand by a policy that gives one")
    kept, notes, normalized = list[Transform](), list[str](), False
    for t in policy.transforms:
        why = _unwritable(t)
        if normalized and not why:
            notes.append(f"{type(t).__name__} came after Normalize, and works on values in [0, 1] here")
        if why:
            notes.append(f"{type(t).__name__} is left out: {why}")
            normalized = normalized or isinstance(t, Normalize)
            # as many slots, so that what comes after draws the same
            kept += [Identity()] * span(t)
            continue
        inside = next((c for c in _within(t) if _unwritable(c)), None)
        if inside is not None:
            raise ValueError(
                f"{type(inside).__name__} inside {type(t).__name__} can't be left out alone: {_unwritable(inside)}; "
                "write a policy without it"
            )
        kept.append(t)
    made = Policy(kept, policy.seed, single_resample=policy.single_resample)
    return made, notes


def _unwritable(t: Transform) -> str:
    if isinstance(t, Normalize):
        return "files hold values in [0, 1]; normalise in training"
    if isinstance(t, ToTensor) or (isinstance(t, ToDtype | ConvertImageDtype) and t.dtype != torch.uint8):
        return "files hold uint8; convert in training"
    if mixes_in(t):
        return "it mixes the images of a batch; mix in training"
    return ""


def _within(t: Transform) -> list[Transform]:
    return [d for c in t.children for d in (c, *_within(c))]


@dataclass(frozen=True)
class Job:
    """All that decides the bytes of the copies.  source: an absolute path, or a URL.  without: a folder in it that does
    not count.  device: "cpu" or "cuda"."""

    source: str
    policy: dict[str, Any]
    factor: int
    format: str = "jpeg"
    quality: int = 95
    decoder: str = "auto"
    backend: str = "auto"
    device: str = "cpu"
    on_error: str = "raise"
    without: str = ""
    chunk: int = decoding.CHUNK  # samples of a piece of work, and of a shard

    def open(self) -> Source:
        """The samples."""
        if self.without:
            return folder(self.source, Storage(), without=self.without)
        return as_source(self.source)

    def about(self, source: Source) -> dict[str, Any]:
        """What a later run must agree with."""
        return {
            **asdict(self),
            "samples": len(source),
            "fingerprint": source.fingerprint,
            "classes": None if source.classes is None else list(source.classes),
        }


def pieces(job: Job, source: Source) -> int:
    """How many pieces of work the samples are."""
    return -(-len(source) // job.chunk)


class Maker:
    """Makes pieces of a job in one process."""

    def __init__(self, job: Job, target: Path, threads: int | None = None, source: Source | None = None):
        self.job, self.target = job, target
        self.source = job.open() if source is None else source
        self.policy = Policy.from_dict(job.policy)
        self.decoder = decoder_of(job.decoder, "cpu", threads)
        self._pool = ThreadPoolExecutor(self.decoder.num_threads, "gpuaug-encode")

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()
        self.decoder.close()

    def read(self, piece: int) -> Part:
        """The samples of a piece, decoded."""
        first = piece * self.job.chunk
        return decoding.some(self.source, range(first, min(first + self.job.chunk, len(self.source))), self.decoder)

    def made(self, piece: int, part: Part | None = None) -> dict[str, Any]:
        """Write a piece's files; what the manifest says of them, and which samples can't be decoded.

        Raises ValueError for those, and OSError, and leaves none of the piece's files then."""
        part = self.read(piece) if part is None else part
        if part.bad and self.job.on_error == "raise":
            bad = [f"{self.source.key(i)}: {reason}" for i, reason in part.bad.items()]
            raise ValueError(
                f"{len(bad)} images can't be decoded: {'; '.join(bad[:5])}{' ...' if bad[5:] else ''}. Mend "
                "them, or leave them out by --on-error skip; the same command goes on from there"
            )
        found = self.copies(part, range(self.job.factor))
        if self.job.format == "webdataset":
            name = f"shard-{piece:06d}.tar"
            files: dict[str, bytes] = {name: _tar(found)} if found else {}
            for row, _ in found:
                row["file"] = f"{name}/{row['file']}"
        else:
            files = {row["file"]: data for row, data in found}
        done: list[Path] = []
        try:
            for name, data in files.items():
                done.append(self.target / name)
                write(done[-1], data)
        except BaseException:
            for path in done:
                path.unlink(missing_ok=True)
            raise
        return {
            "piece": piece,
            "rows": [row for row, _ in found],
            "bad": [[i, str(reason)] for i, reason in part.bad.items()],
        }

    def copies(self, part: Part, epochs: Iterable[int]) -> list[tuple[dict[str, Any], bytes]]:
        """Rows of the manifest with the encoded images, by id and then by epoch."""
        found: list[tuple[dict[str, Any], Tensor]] = []
        for epoch in epochs:
            for members in _by_size(part.images).values():
                found += self._augmented(part, members, epoch)
        found.sort(key=lambda pair: (pair[0]["id"], pair[0]["epoch"]))
        encoded = list(self._pool.map(self._encoded, [image for _, image in found]))
        for (row, _), data in zip(found, encoded, strict=True):
            row["hash"] = sha256(data).hexdigest()
        return [(row, data) for (row, _), data in zip(found, encoded, strict=True)]

    def _augmented(self, part: Part, members: list[int], epoch: int) -> list[tuple[dict[str, Any], Tensor]]:
        """Copies of images of one size."""
        ids = torch.tensor([part.ids[k] for k in members], device=self.job.device)
        images = torch.stack([part.images[k] for k in members]).permute(0, 3, 1, 2)[:, :3].to(self.job.device)
        labels: list[Any] = [None if part.targets is None else part.targets[k] for k in members]
        numbers = None
        if self.policy._by_class:
            if not all(isinstance(plain_label(v), int) for v in labels):
                raise ValueError("ByClass chooses by class numbers, and this source has none; leave it out")
            numbers = torch.as_tensor([int(v) for v in labels], device=self.job.device)
        given: dict[str, Any] = {"ids": ids, "epoch": epoch}
        out = self.policy(images, numbers, **given, backend=self.job.backend)
        out = out if numbers is None else out[0]
        if out.dtype != torch.uint8:
            raise ValueError(f"copies must be uint8 to be written, got {out.dtype}; end the policy in uint8")
        size = (int(images.shape[2]), int(images.shape[3]))
        params = self.policy.draw(
            ids.cpu(),
            epoch=epoch,
            size=size,
            channels=images.shape[1],
            labels=None if numbers is None else numbers.cpu(),
        )
        pixels = out.permute(0, 2, 3, 1).cpu().contiguous()
        names = self.source.classes
        rows = []
        for n, k in enumerate(members):
            label = plain_label(labels[n])
            named = names is not None and isinstance(label, int) and 0 <= label < len(names)
            row = {
                "file": self._file(part.ids[k], epoch, label),
                "source": self.source.key(part.ids[k]),
                "id": part.ids[k],
                "epoch": epoch,
                "label": label,
                "class": names[label] if named and names is not None else None,
                "height": int(pixels.shape[1]),
                "width": int(pixels.shape[2]),
                "parameters": json.dumps([_row(drawn, n, len(members)) for drawn in params]),
            }
            rows.append((row, pixels[n]))
        return rows

    def _file(self, id: int, epoch: int, label: Any) -> str:
        """Where a copy lies: in the class folders of its source.  Ids tell images of one name apart."""
        ending = ENDINGS[self.job.format]
        if self.job.format == "webdataset":
            return f"{id:010d}_{epoch:03d}.{ending}"
        key = PurePosixPath(self.source.key(id))
        names = self.source.classes
        within = list(key.parts[:-1])
        if key.is_absolute() or "://" in str(key) or {"..", ""} & set(within) or any(".tar" in p for p in within):
            number = isinstance(label, int)
            name = names[label] if names is not None and number and 0 <= label < len(names) else label
            within = [] if name is None or isinstance(name, list | float) else [str(name).replace("/", "_")]
        return str(PurePosixPath(*within, f"{key.stem}_{id}_{epoch}.{ending}"))

    def _encoded(self, pixels: Tensor) -> bytes:
        from PIL import Image

        array = pixels.numpy()
        image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
        out = io.BytesIO()
        if ENDINGS[self.job.format] == "png":
            image.save(out, "PNG")
        else:
            image.save(out, "JPEG", quality=self.job.quality)
        return out.getvalue()


def _by_size(images: Sequence[Tensor]) -> dict[Any, list[int]]:
    """Places of images by their shape."""
    found: dict[Any, list[int]] = {}
    for k, image in enumerate(images):
        found.setdefault(tuple(image.shape), []).append(k)
    return found


def _row(drawn: Any, n: int, count: int) -> Any:
    """What was drawn for one sample of a batch, as JSON holds it."""
    if isinstance(drawn, dict):
        return {name: _row(value, n, count) for name, value in drawn.items()}
    if isinstance(drawn, list | tuple):
        return [_row(value, n, count) for value in drawn]
    if isinstance(drawn, Tensor):
        return drawn[n].tolist() if drawn.ndim and len(drawn) == count else drawn.tolist()
    return drawn


def _tar(found: Sequence[tuple[dict[str, Any], bytes]]) -> bytes:
    """A WebDataset shard: an image, its label where that is an integer, and its row as JSON; without times and owners,
    so that the same copies are the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row, data in found:
            stem = row["file"].rpartition(".")[0]
            members = [(row["file"], data)]
            if isinstance(row["label"], int):
                members.append((f"{stem}.cls", str(row["label"]).encode()))
            members.append((f"{stem}.json", json.dumps(row).encode()))
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def write(path: Path, data: bytes) -> None:
    """A file that is whole or not there, whatever stops this process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def versions(job: Job) -> dict[str, str]:
    """Of what decides the bytes beside the job."""
    import PIL

    return {
        "gpuaug": __version__,
        "draws": str(rng.VERSION),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "decoder": job.decoder,
        "machine": platform.machine(),
        "device": job.device if job.device == "cpu" else torch.cuda.get_device_name(),
    }


# ---- again


def remake(
    target: str | os.PathLike[str],
    files: Sequence[str] | None = None,
    *,
    into: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Make copies again from their manifest, bit for bit, in the folder `into`; where they are.

    target: what `gpuaug expand` wrote, or its manifest.parquet.  files: as its column `file` has them; None: all.
    source: where the source is now, if it has moved.  Raises ValueError for a file that the manifest does not name, and
    for one whose bytes differ, which is not written."""
    place = Path(os.path.expanduser(os.fspath(target)))
    place = place if place.suffix == ".parquet" else place / MANIFEST
    rows, about = read_manifest(place)
    chosen = list(rows) if files is None else list(files)
    unknown = [f for f in chosen if f not in rows]
    if unknown:
        raise ValueError(f"{place} names no file {unknown[0]!r}; its column file has those that it knows")
    known = {f.name for f in fields(Job)}
    given = {k: v for k, v in about.items() if k in known}
    if source is not None:
        given |= {"source": os.fspath(source), "without": ""}
    job = Job(**given)
    out: list[Path] = []
    with job.open() as found:
        maker = Maker(job, Path(into), source=found)
        try:
            for name in chosen:
                out.append(_again(maker, rows[name], Path(into) / name, about))
        finally:
            maker.close()
    return out


def _again(maker: Maker, row: dict[str, Any], path: Path, about: dict[str, Any]) -> Path:
    source, id = maker.source, row["id"]
    at = id
    if id >= len(source) or source.key(id) != row["source"]:
        try:
            at = source.find(row["source"])
        except KeyError:
            raise ValueError(f"{row['source']} is not in {maker.job.source} any more; pass source=") from None
    part = decoding.some(source, [at], maker.decoder)
    if part.bad:
        raise ValueError(f"{row['source']} can't be decoded: {part.bad[at]}")
    # under the number that it was drawn with; what the label was, a policy by class may have chosen by
    part.ids = [id]
    if isinstance(row["label"], int):
        part.targets = [row["label"]]
    ((_, data),) = maker.copies(part, [row["epoch"]])
    if sha256(data).hexdigest() != row["hash"]:
        now = versions(maker.job)
        then = about.get("versions", {})
        differ = ", ".join(f"{k} {then[k]} then, {v} now" for k, v in now.items() if k in then and then[k] != v)
        raise ValueError(f"{row['file']} would have other bytes: {differ or 'its source has changed'}")
    write(path, data)
    return path


def read_manifest(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Rows by file, and what the manifest says of all of them."""
    arrow = pyarrow(path)
    if not path.is_file():
        raise ValueError(f"there is no {path}; pass a folder that gpuaug expand has finished")
    try:
        table = arrow.parquet.read_table(path)
    except (OSError, arrow.ArrowInvalid) as error:
        raise ValueError(f"{path} is no manifest that gpuaug expand wrote: {error}") from None
    about = (table.schema.metadata or {}).get(ABOUT)
    if about is None or {"file", "source", "id", "epoch", "hash"} - set(table.column_names):
        raise ValueError(f"{path} is no manifest that gpuaug expand wrote")
    return {row["file"]: row for row in table.to_pylist()}, json.loads(about)
