"""What all processes that share the tests need, made by the first of them."""

import fcntl
import json
from collections.abc import Callable
from typing import Any

import pytest


def made_once(request: pytest.FixtureRequest, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, as JSON keeps it.  Other processes of this run wait for it instead of making it again."""
    folder = request.getfixturevalue("tmp_path_factory").getbasetemp()
    if hasattr(request.config, "workerinput"):
        # that of a worker of xdist lies in that of the run
        folder = folder.parent
    file = folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            text = json.dumps(make())
            file.write_text(text)
    return json.loads(file.read_text())
