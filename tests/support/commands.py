"""The command line in a test: a command is called, and what it refuses is one sentence."""

from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from gpuaug.apps.cli import app

# click before 8.2 keeps stderr apart only if asked to; later versions always do
APART: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}


def gpuaug(*args: object) -> Any:
    return CliRunner(**APART).invoke(app, [str(a) for a in args])


def refused(result: Any, *words: str) -> None:
    """The command ended in one sentence that holds these words."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("gpuaug: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr, (word, result.stderr)


def write_gradient(path: Path, height: int, width: int, colour: int) -> None:
    """A picture of two gradients and one colour, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.meshgrid(np.linspace(0, 255, height), np.linspace(0, 255, width), indexing="ij")
    Image.fromarray(np.stack([x, y, np.full_like(x, colour)], 2).astype(np.uint8)).save(path)
