"""What kernels/tools/aot_report.py says of the kernels of policies."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import children
import pytest
from gpuaug_kernels import aot
from shared import made_once

ROOT = Path(__file__).parents[2]
NAMES = [e["name"] for e in aot.specialisations()]
# a third of the time for a few percent of the kernels
LONG = {"bicubic", "lanczos", "bicubic, no antialias", "single resample"}
MOST = [n for n in NAMES if n not in LONG]


def run(*arguments: str, first: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[str]:
    """The program.  first: folders where its packages are looked for before others"""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | more
    env["PYTHONPATH"] = os.pathsep.join([*first, str(ROOT / "kernels"), env.get("PYTHONPATH", "")])
    command = [sys.executable, ROOT / "kernels" / "tools" / "aot_report.py", *arguments]
    return children.run(command, env=env, timeout=1200, cwd=ROOT)


def rows(target: int, names: list[str], first: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """What it says of kernels by name."""
    only = (v for name in names for v in ("--only", name))
    done = run("--json", "--kind", "pixels", "--target", str(target), *only, first=first)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def rows_once(request: pytest.FixtureRequest, target: int, names: list[str]) -> list[dict[str, Any]]:
    """The same, compiled once for all tests of a run."""
    return made_once(request, f"aot_report_{target}_{len(names)}", lambda: rows(target, names))
