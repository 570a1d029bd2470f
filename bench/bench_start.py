"""What the first calls and the first batches of a loader cost in a process with nothing kept on disk, in the next
ones, and for sizes that were not seen before.

python -m bench.bench_start [--runs 5] [--data FOLDER] [--against CHECKOUT] [--out FILE].  Seconds of CPU time of the
whole process, of which calls have one thread: other processes on the machine then matter less.  Medians of the runs,
each a process of its own, and what it then holds more: anonymous memory, modules.  Another checkout takes its turns
between those of this one.  Linux only."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
COMMON = """
import json, sys, time, torch
import gpuaug as ga

def held():
    memory = next(line for line in open("/proc/self/smaps_rollup") if line.startswith("Pss_Anon"))
    return {"MB": int(memory.split()[1]) * 1024 / 1e6, "modules": len(sys.modules)}

def looked(does):
    before = held()
    cpu, wall = time.process_time(), time.perf_counter()
    does()
    spent = {"CPU s": time.process_time() - cpu, "wall s": time.perf_counter() - wall}
    return spent | {what: value - before[what] for what, value in held().items()}
"""
CALLS = """
torch.set_num_threads(1)
transforms = [ga.RandomResizedCrop(64), ga.RandomHorizontalFlip(), ga.ColorJitter(0.4, 0.4, 0.4, 0.1)]
policy = ga.Policy([*transforms, ga.RandAugment(), ga.RandomErasing()])

def call(height):
    images = torch.zeros(8, 3, height, 80, dtype=torch.uint8)
    return looked(lambda: policy(images))

rows = {name: call(80) for name in ("first call", "second call", "third call")}
sizes = sorted(call(h)["CPU s"] + call(h)["CPU s"] for h in range(81, 90))
print(json.dumps(rows | {"two calls of a new size": {"CPU s": sizes[4]}}))
"""
BATCHES = """
policy, rows = ga.presets.strength("moderate", 224), {}
with ga.data.Loader(sys.argv[1], policy, 256, device="cpu") as loader:
    batches = iter(loader)
    for name in ("first batch", "second batch", "third batch"):
        rows[name] = looked(lambda: next(batches))
print(json.dumps(rows))
"""
Rows = dict[str, dict[str, float]]


def measure(code: str, checkout: Path, cache: str, *arguments: str) -> Rows:
    """The rows of a new process.  cache: the folder of what was compiled"""
    paths = [str(checkout), str(checkout / "kernels")]
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMMON + code, *arguments],
        env=os.environ | {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=cache,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows: Rows = json.loads(made.stdout.splitlines()[-1])
    return rows


def middle(runs: list[Rows]) -> dict[str, dict[str, Any]]:
    """Medians, and the least and the most of the CPU time."""
    out: dict[str, dict[str, Any]] = {}
    for name, first in runs[0].items():
        out[name] = {what: round(statistics.median(r[name][what] for r in runs), 4) for what in first}
        every = sorted(r[name]["CPU s"] for r in runs)
        out[name] |= {"n": len(runs), "least CPU s": round(every[0], 4), "most CPU s": round(every[-1], 4)}
    return out


def sides(checkouts: dict[str, Path], data: Path, runs: int) -> dict[str, Any]:
    """Rows of each checkout: its first process, and those that find what that left."""
    caches = {name: tempfile.TemporaryDirectory() for name in checkouts}
    parts = {"calls": (CALLS, ()), "batches": (BATCHES, (str(data),))}
    rows: dict[str, Any] = {name: {} for name in checkouts}
    for what, (code, arguments) in parts.items():
        found: dict[str, list[Rows]] = {name: [] for name in checkouts}
        for _ in range(runs + 1):
            for name, checkout in checkouts.items():
                found[name].append(measure(code, checkout, caches[name].name, *arguments))
        for name, (first, *others) in found.items():
            if what == "calls":
                rows[name]["nothing kept"] = middle([first])
            rows[name].setdefault("all kept", {}).update(middle(others))
    for cache in caches.values():
        cache.cleanup()
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder of JPEG files; photographs are made where none is given")
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    from bench.bench_python import write

    checkouts = {"here": HERE} | ({} if given.against is None else {"against": given.against.resolve()})
    with tempfile.TemporaryDirectory() as temporary:
        data = given.data or Path(temporary) / "photographs"
        if not data.exists():
            write(data)
        rows = sides(checkouts, data.resolve(), given.runs)
    for name, kinds in rows.items():
        for kind, calls in kinds.items():
            for call, row in calls.items():
                print(f"{name:8s} {kind:13s} {call:24s}", ", ".join(f"{what} {value:g}" for what, value in row.items()))
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
