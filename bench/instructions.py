"""Instructions that the CPU executor takes for an image, counted by valgrind: a measure that no other work on the
machine disturbs.

A process that calls a policy n + 1 times is compared with one that calls it once, so that imports and compilation
cancel.  Numba compiles for one fixed processor, which valgrind can imitate: counts are comparable between machines with
the same versions."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.report import results

FILE = results.RESULTS / "instructions.json"
COUNTED = ("moderate", "seed recipe 28 px grey")
CALLS, IMAGES = 3, 32
# two counts of the same code differed by less than a hundredth of a per cent; drawing and allocation may move a little
TOLERANCE = 1.01
PROCESSOR = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+popcnt,+sse4.2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


def child(calls: list[int]) -> None:
    """Call each counted policy that often: what runs under valgrind."""
    import torch

    import gpuaug as ga

    from . import sources
    from .scenarios import workloads

    torch.set_num_threads(1)
    found = {w.name: w for w in workloads()}
    for name, times in zip(COUNTED, calls, strict=True):
        w = found[name]
        source = sources.Source(sources.photographs(IMAGES, *w.size, w.channels), w.floats, torch.device("cpu"))
        policy = ga.Policy(w.transforms, seed=1)
        for epoch in range(times):
            policy(source.channels_last, ids=torch.arange(IMAGES), epoch=epoch, backend="cpu")


def _run(command: list[str], cache: str) -> str:
    environment = {**os.environ, **PROCESSOR, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"{command[0]} failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
        )
    return done.stderr


def count() -> dict[str, Any]:
    """Instructions an image of every counted workload; raises RuntimeError where valgrind is missing."""
    if not shutil.which("valgrind"):
        raise RuntimeError("valgrind is not installed, so that instructions cannot be counted")
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    with tempfile.TemporaryDirectory() as cache:
        # compiled outside valgrind, where that takes seconds
        for _ in range(2):
            _run(_python([1] * len(COUNTED)), cache)
        totals = []
        for k in range(-1, len(COUNTED)):
            calls = [1 + CALLS * (i == k) for i in range(len(COUNTED))]
            said = _run([*valgrind, *_python(calls)], cache)
            totals.append(int(re.search(r"I +refs: +([\d,]+)", said)[1].replace(",", "")))  # type: ignore[index]
    counts = {
        name: round((total - totals[0]) / (CALLS * IMAGES)) for name, total in zip(COUNTED, totals[1:], strict=True)
    }
    versions = {p: results._version(p) for p in ("numba", "llvmlite", "numpy", "torch")}
    return {
        "instructions an image": counts,
        "processor": PROCESSOR["NUMBA_CPU_NAME"],
        "versions": versions,
        "commit": results.commit(),
    }


def _python(calls: list[int]) -> list[str]:
    return [sys.executable, "-m", "bench.instructions", "child", *map(str, calls)]


def compare(stored: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], bool]:
    """A line for each workload, and whether any takes more instructions; versions that differ compare nothing."""
    if stored["versions"] != now["versions"]:
        return [f"instructions: stored with other versions ({stored['versions']}), so not compared"], False
    lines, worse = [], False
    for name, before in stored["instructions an image"].items():
        after = now["instructions an image"].get(name)
        if after is not None:
            more = after > before * TOLERANCE
            worse = worse or more
            lines.append(
                f"{'REGRESSED' if more else 'ok':9s}  {name:24s}  {before:,} instructions an image stored, "
                f"{after:,} now"
            )
    return lines, worse


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child([int(n) for n in sys.argv[2:]])
    else:
        results.save(count(), FILE)
        print(FILE.read_text(encoding="utf-8"))
