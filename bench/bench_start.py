"""What the first calls cost, in a process with nothing kept on disk, in the next one, and for sizes that were not seen
before.

python -m bench.bench_start [--out FILE].  Seconds of CPU time of one thread: other processes on the machine then matter
less."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

CALLS = """
import json, time, torch
torch.set_num_threads(1)
import gpuaug as ga
transforms = [ga.RandomResizedCrop(64), ga.RandomHorizontalFlip(), ga.ColorJitter(0.4, 0.4, 0.4, 0.1)]
policy = ga.Policy([*transforms, ga.RandAugment(), ga.RandomErasing()])

def call(height):
    images, start = torch.zeros(8, 3, height, 80, dtype=torch.uint8), time.process_time()
    policy(images)
    return time.process_time() - start

first, second, third = (call(80) for _ in range(3))
sizes = sorted(call(h) + call(h) for h in range(81, 90))
print(json.dumps({"first call": first, "second": second, "third": third, "two of a new size, median": sizes[4]}))
"""


def measure(cache: str) -> dict[str, float]:
    """The calls of a new process.  cache: the folder of what was compiled"""
    made = subprocess.run(
        [sys.executable, "-c", CALLS],
        env=os.environ | {"NUMBA_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: round(seconds, 4) for name, seconds in json.loads(made.stdout).items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        rows: dict[str, Any] = {"nothing kept": measure(cache), "all kept": measure(cache)}
    for name, row in rows.items():
        print(f"{name:13s}", ", ".join(f"{what} {seconds:.3f} s" for what, seconds in row.items()))
    if given.out:
        about = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": version("torch"),
            "numba": version("numba"),
        }
        given.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
