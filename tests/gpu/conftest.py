"""Tests that need a card.  `make test` does not collect them; `make test-gpu` does, and fails where there is none."""

import os
from pathlib import Path
from typing import Any

import kernels_of_tests
import pytest
import torch

import gpuaug as ga

ASKED = "GPUAUG_DEVICE"
# of streams, graphs and allocators, which the host has none of
CARD_ONLY = ("test_gpu_streams.py",)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Only where a device is named."""
    device = os.environ.get(ASKED)
    only = device == "cpu" and collection_path.name in CARD_ONLY and kernels_of_tests.FILE not in os.environ
    return True if device is None or only else None


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Tests of one transform are for one process, which has compiled their kernels: `--dist loadgroup`.  Those of a whole
    policy take longer together than all others side by side, and are not."""
    for item in items:
        # a hook of this folder is asked about the tests of all
        here = item.path.is_relative_to(Path(__file__).parent) and getattr(item, "callspec", None)
        name = here and item.callspec.params.get("name")
        if name in ga.REGISTRY:
            item.add_marker(pytest.mark.xdist_group(name))


def pytest_sessionstart(session: Any) -> None:
    """A card that was asked for and is not there is an error, not a skip."""
    device = os.environ.get(ASKED)
    if device == "cuda" and not torch.cuda.is_available():
        pytest.exit("these tests need a CUDA card, and torch sees none", returncode=1)
    if device == "cuda" and os.environ.get("TRITON_INTERPRET") != "0":
        pytest.exit("set TRITON_INTERPRET=0, or the kernels are interpreted on the host", returncode=1)
    if device not in (None, "cuda", "cpu"):
        pytest.exit(
            f"{ASKED} must be cuda, or cpu to try the tests themselves under the interpreter, got {device!r}",
            returncode=1,
        )
