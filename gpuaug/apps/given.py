"""What commands are given: policies by file or name, samples of a data set as the loader reads them, and boxes in the
form of COCO."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gpuaug import presets
from gpuaug.apps import verify
from gpuaug.batch import Batch
from gpuaug.data import decode
from gpuaug.data.making import BadFile, BadImage
from gpuaug.data.source import Source
from gpuaug.data.sources import as_source
from gpuaug.data.targets import as_targets
from gpuaug.images import Ragged
from gpuaug.policy import Policy


def policy(what: str) -> Policy:
    """The policy of a YAML file, of FILE.py:name, or of a preset's name."""
    if ".py:" in what:
        return verify.load(what)
    if what in presets.NAMES:
        return presets.get(what)
    if Path(what).suffix in (".yaml", ".yml") or Path(what).exists():
        return Policy.load(what)
    raise ValueError(
        f"--policy must be a YAML file, FILE.py:name or a preset, got {what!r}; presets are {', '.join(presets.NAMES)}"
    )


class Samples(NamedTuple):
    """Samples of a data set before a policy."""

    batch: Batch
    classes: tuple[str, ...] | None
    keys: tuple[str, ...]


def source(data: str) -> Source:
    """The samples of a data set, numbered as the loader numbers them."""
    found = as_source(data)
    if not len(found):
        raise ValueError(f"{data} holds no images")
    return found


def samples(found: Source, ids: Sequence[int]) -> Samples:
    """Read and decode samples as the loader does.  Raises BadImage for those without an image."""
    for i in ids:
        if not 0 <= i < len(found):
            raise ValueError(f"--ids must be numbers of samples, 0 to {len(found) - 1}, got {i}")
    items, targets = found.samples(list(ids))
    decoder = decode.decoder("auto", "cpu", None)
    try:
        decoded = decoder.decode(items, None, decoder.inspect(items))
    finally:
        decoder.close()
    keys = tuple(found.key(i) for i in ids)
    if decoded.bad:
        bad = [BadFile(ids[k], keys[k], str(e)) for k, e in sorted(decoded.bad.items())]
        raise BadImage("; ".join(f"sample {b.id} ({b.path}) has no image: {b.reason}" for b in bad), bad)
    labels = as_targets(targets, None)
    batch = Batch(
        Ragged.of(tuple(i for i in decoded.images if isinstance(i, torch.Tensor))),
        labels=labels if isinstance(labels, torch.Tensor) else None,
        ids=torch.tensor(list(ids), dtype=torch.int64, device="cpu"),
    )
    return Samples(batch, found.classes, keys)


def spread(found: Source, count: int) -> list[int]:
    """Ids that show as many classes as there are: the first sample of each, then the second, and so on."""
    n = len(found)
    labels = found.labels
    if labels is None or labels.ndim != 1 or labels.dtype.kind == "f":
        return sorted({i * n // min(count, n) for i in range(min(count, n))})
    rank = np.zeros(n, np.int64)
    order = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    rank[order] = np.arange(n) - np.repeat(starts, sizes)
    return sorted(int(i) for i in np.lexsort((np.arange(n), labels, rank))[:count])


# ---- boxes


def with_boxes(found: Samples, path: Path) -> Samples:
    """The samples with the boxes that a file in COCO's form has of them: `images` (id, file_name) and `annotations`
    (image_id, bbox [x, y, width, height]).  A file's name is a sample's key, or the end of it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}; pass a file in COCO's form") from None
    rows = _rows(data, path)
    boxes = []
    for key in found.keys:
        name = key.replace("\\", "/")
        mine = [b for file, b in rows if name == file or name.endswith(f"/{file}") or file.endswith(f"/{name}")]
        boxes.append(torch.tensor(mine, dtype=torch.float32, device="cpu").reshape(-1, 4))
    if not any(map(len, boxes)):
        raise ValueError(
            f"{path} has no box of these samples; file_name must be a sample's name, such as {found.keys[0]}"
        )
    return found._replace(batch=found.batch.replace(boxes=boxes, box_format="XYWH"))


def _rows(data: Any, path: Path) -> list[tuple[str, list[float]]]:
    """(file name, box) of every annotation."""
    try:
        names = {row["id"]: str(row["file_name"]).replace("\\", "/") for row in data["images"]}
        rows = [(names[row["image_id"]], [float(v) for v in row["bbox"]]) for row in data["annotations"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not in COCO's form, which has images (id, file_name) and annotations (image_id, bbox): "
            f"{type(error).__name__} {error}"
        ) from None
    for file, box in rows:
        if len(box) != 4:
            raise ValueError(f"{path} has a bbox of {len(box)} numbers for {file}; it must be [x, y, width, height]")
    return rows


def written(path: Path, data: bytes) -> None:
    """Write a file whole, or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
