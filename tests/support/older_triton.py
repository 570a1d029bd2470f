"""The oldest Triton that is supported, beside the one that is installed: its compiler lays out lanes otherwise."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

OLDEST = "3.6.0"


def folder() -> Path:
    """A folder to put first on PYTHONPATH; installed there once for all tests of a machine."""
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gpuaug-tests"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = root / f"triton-{OLDEST}-{python}"
    if not found.exists():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as made:
            target = Path(made) / "triton"
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
            done = subprocess.run([*command, f"triton=={OLDEST}"], capture_output=True, text=True, timeout=600)
            if done.returncode:
                raise RuntimeError(f"triton {OLDEST} could not be installed beside: {done.stderr[-2000:]}")
            try:
                target.rename(found)
            except OSError:
                # another process was first
                if not found.exists():
                    raise
    return found
