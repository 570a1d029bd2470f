"""Where a browser is, for the tests that need one."""

import os
import shutil

ASKED = "GPUAUG_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")


def find() -> str | None:
    """The browser that is named, or the first on PATH, if there is one."""
    return os.environ.get(ASKED) or next((found for n in NAMES if (found := shutil.which(n))), None)


def said() -> str:
    """A line about it for the head of a report."""
    found = find()
    return f"browser: {found or f'none, so that tests/browser is not run; install chromium, or name one by {ASKED}'}"
