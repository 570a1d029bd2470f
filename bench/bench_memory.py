"""What the loader's memory is made of: PSS of its process after each thing that is loaded, and at its most in epochs.

python -m bench.bench_memory [--data FOLDER] [--policy weak] [--epochs 5] [--store].  Batches of 256 on a host.  "Loaded
once" is what batches of 4 images leave behind: libraries, compiled code, recipes.  What a loop can't do without is that
and two results, the one in its hands and the one that is being made.  Anonymous memory is this process's own; mapped
files are pages of libraries, which the system may drop and read again, and which other processes share.  Linux only."""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH, SMALL = 256, 4
KINDS = {"PSS": "Pss", "anonymous": "Pss_Anon", "mapped files": "Pss_File"}


def now() -> dict[str, int]:
    """Bytes of this process, by kind."""
    found = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return {kind: int(found[name].split()[0]) * 1024 for kind, name in KINDS.items()}


class Most:
    """Looks at the memory from time to time, and keeps the row of the largest anonymous part."""

    def __init__(self, more: Callable[[], dict[str, int]]):
        self.row: dict[str, int] = {"anonymous": 0}
        self._more, self._over = more, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(0.03):
            row = now()
            if row["anonymous"] > self.row["anonymous"]:
                self.row = row | self._more()

    def __enter__(self) -> "Most":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()


def stages(root: str, policy: str, epochs: int, size: int) -> list[dict[str, Any]]:
    """Rows of this process, in which nothing has been loaded yet."""
    rows: list[dict[str, Any]] = []

    def row(name: str, **more: Any) -> None:
        rows.append({"after": name, **now(), **more})

    row("Python")
    import torch  # noqa: F401

    row("import torch")
    import gpuaug as ga
    from bench.scenarios import POLICIES

    row("import gpuaug")
    made = ga.Policy(POLICIES[policy], seed=3)
    with ga.data.Loader(root, made, SMALL, device="cpu") as small:
        row("Loader(...)")
        for _, batch in zip(range(24), small, strict=False):
            assert len(batch.images) == SMALL
    del batch, small
    row("loaded once")
    # only now: it imports what the stages are to show
    from gpuaug.exec.cpu import blocks

    with ga.data.Loader(root, made, size, device="cpu") as loader:

        def more() -> dict[str, int]:
            return {"kept for results": sum(map(len, blocks._blocks._blocks)), "waiting": loader.stats()["memory_held"]}

        for epoch in range(epochs):
            with Most(more) as most:
                for batch in loader:
                    result = batch.images.numel() * batch.images.element_size()
            rows.append({"after": f"epoch {epoch + 1}, at its most", **most.row, "a result": result})
    return rows


def measure(root: Path, policy: str, epochs: int, batch: int = BATCH) -> list[dict[str, Any]]:
    """In a process of its own."""
    count = len(list(root.rglob("*.jpg")))
    if count < batch:
        raise ValueError(f"{root} has {count} JPEG files, fewer than a batch of {batch}; pass another folder")
    asked = map(str, (root, policy, epochs, batch))
    told = [sys.executable, "-W", "ignore", "-m", "bench.bench_memory", "--stages", *asked]
    out = subprocess.run(told, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [{"policy": policy, **row} for row in json.loads(out.splitlines()[-1])]


def line(row: dict[str, Any]) -> str:
    """A row for a terminal."""
    known = ("policy", "after")
    return f"{row['policy']:9s} {row['after']:24s} " + ", ".join(
        f"{name} {value / 1e6:.0f}" for name, value in row.items() if name not in known
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of JPEG files; photographs are made where none is given")
    parser.add_argument("--policy", nargs="+", default=["weak", "moderate"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--store", action="store_true", help="keep the results in bench/results")
    given = parser.parse_args()
    from bench.bench_python import write
    from bench.report import results
    from bench.suite import Options

    with tempfile.TemporaryDirectory() as temporary:
        root = given.data or Path(temporary) / "photographs"
        if not root.exists():
            write(root)
        rows = [row for policy in given.policy for row in measure(root, policy, given.epochs)]
    print("MB of the loader's process")
    for row in rows:
        print(line(row))
    if given.store:
        results.save({"about": results.conditions(Options("cpu", 1)), "rows": rows}, results.RESULTS / "memory.json")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stages"]:
        print(json.dumps(stages(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))))
    else:
        main()
