"""Exported programs, looked at before torch loads them, so that no file of a stranger is unpickled.

`torch.export.load` unpickles what an archive marks so: weights and constants that are no plain tensors, sample inputs
that a restricted unpickler refuses, older formats.  What `torch.export.save` writes of an ordinary model has none."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# below the folder that is the archive's name: bytes of tensors, JSON and text
_PLAIN = re.compile(
    r"(archive_format|archive_version|byteorder|version|\.format_version|\.storage_alignment|\.data/\w+|extra/.*"
    r"|models/[^/]+\.json|data/weights/(weight_\d+|[^/]+\.json)|data/constants/(tensor_\d+|[^/]+\.json))"
)
_INPUTS = re.compile(r"data/sample_inputs/[^/]+\.pt")
_CONFIG = re.compile(r"data/(weights|constants)/[^/]+\.json")


def load(path: Path) -> Callable[[Any], Any]:
    """The model of NAME.pt2; raises ValueError for what is no such file, or would have to be unpickled."""
    if not path.is_file():
        raise ValueError(f"{path} is no file; pass what torch.export.save wrote")
    try:
        _check(path)
        model: Callable[[Any], Any] = torch.export.load(path).module()
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{path} is no exported program that can be taken: {said[0]:.200}; write it by torch.export.save"
        ) from error
    return model


def _check(path: Path) -> None:
    """Raise ValueError where anything in an archive would be unpickled or run as it is loaded."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names) or len({n.split("/", 1)[0] for n in names}) != 1:
            raise ValueError("its files do not lie in one folder, each once")
        inside = {n: n.partition("/")[2] for n in names}
        if not any(n.startswith("models/") for n in inside.values()):
            raise ValueError("it holds no model")
        for name, place in inside.items():
            if _INPUTS.fullmatch(place):
                # tensors and containers alone: no code of a file is called
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            elif not _PLAIN.fullmatch(place):
                raise ValueError(f"{place} in it would be unpickled or run")
            elif _CONFIG.fullmatch(place):
                _plain(json.loads(archive.read(name)), place)


def _plain(config: Any, place: str) -> None:
    """Raise ValueError where a table of tensors has one that is pickled."""
    for name, row in config["config"].items():
        if row.get("use_pickle") or not re.fullmatch(r"(weight|tensor)_\d+", row["path_name"]):
            raise ValueError(f"{name} of {place} would be unpickled")
