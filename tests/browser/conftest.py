"""Tests that need a browser: Chromium, found on PATH or named by GPUAUG_BROWSER.  Where there is none they are not
collected, and the head of the report says so; a browser that is named and cannot be run is an error."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

ASKED = "GPUAUG_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")


def find() -> str | None:
    """The browser, if there is one."""
    return os.environ.get(ASKED) or next((found for n in NAMES if (found := shutil.which(n))), None)


def pytest_ignore_collect(collection_path: Path, config: Any) -> bool | None:
    """Only where there is a browser."""
    return True if find() is None else None


def pytest_report_header(config: Any) -> str:
    """What stands above the results."""
    found = find()
    none = f"none, so that tests/browser is not run; install chromium, or name one by {ASKED}"
    return f"browser: {found or none}"


@pytest.fixture(scope="session")
def browser() -> str:
    """The browser's command."""
    found = find()
    assert found is not None and shutil.which(found), f"{ASKED} names {found}, which can't be run"
    return found
