"""Tests that need a browser: Chromium, found on PATH or named by GPUAUG_BROWSER.  Where there is none they are not
collected, and the head of the report says so; a browser that is named and cannot be run is an error."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from browsers import ASKED, find


def pytest_ignore_collect(collection_path: Path, config: Any) -> bool | None:
    """Only where there is a browser."""
    return True if find() is None else None


@pytest.fixture(scope="session")
def browser() -> str:
    """The browser's command."""
    found = find()
    assert found is not None and shutil.which(found), f"{ASKED} names {found}, which can't be run"
    return found
