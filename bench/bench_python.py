"""What a batch of the loader costs in Python: the CPU time of the threads that hold the interpreter, without the native
work that they wait for or do.

python -m bench.bench_python [--store].  Batches of 256 of 2 000 files.  A thread's CPU time is counted from its first
batch that counts to its last; what it spends inside compiled calls (reading files, DALI's run, the scan of headers,
draws, kernels) is counted apart, by the same clock, and taken off.  What is left is the interpreter, and torch's own
work on small tensors."""

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import gpuaug as ga
from bench import photographs
from bench.report import results
from bench.scenarios import POLICIES
from bench.suite import Options
from bench.timing import Spread

BATCH = 256


class Native:
    """CPU seconds of compiled calls, by what they do and thread."""

    def __init__(self) -> None:
        self.seconds: defaultdict[tuple[str, int], float] = defaultdict(float)
        self._lock, self._inside = threading.Lock(), threading.local()

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted; one inside another counts once."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._inside, "on", False):
                return call(*args, **kwargs)
            self._inside.on, begun = True, time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent, self._inside.on = time.thread_time() - begun, False
                with self._lock:
                    self.seconds[name, threading.get_ident()] += spent

        return counted

    def total(self, name: str | None = None) -> float:
        """Of all threads, so far."""
        with self._lock:
            return sum(s for (n, _), s in self.seconds.items() if name in (None, n))


class Pipeline:
    """DALI's pipeline, whose run is counted."""

    def __init__(self, pipeline: Any, native: Native):
        self._pipeline = pipeline
        self.share_outputs = native.timed("DALI", pipeline.share_outputs)
        self.schedule_run = native.timed("DALI", pipeline.schedule_run)
        self.release_outputs = native.timed("DALI", pipeline.release_outputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


@contextmanager
def counting() -> Iterator[Native]:
    """Count compiled calls of the loader and of the CPU's executor meanwhile."""
    from gpuaug.data import decode_dali, file_kernels, scan
    from gpuaug.exec.cpu import entry, executor
    from gpuaug.trace import host, interpreter

    native = Native()
    built = decode_dali.Pipe.__init__

    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        built(self, *args, **kwargs)
        self._pipeline = Pipeline(self._pipeline, native)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(decode_dali.Pipe, "__init__", build))
        for name, function, places in (
            ("kernels", entry.run_samples, (entry, executor)),
            ("draws", interpreter.interpret, (interpreter, host)),
            ("headers", scan.scan, (scan,)),
            ("files", file_kernels.opened, (file_kernels,)),
            ("files", file_kernels.filled, (file_kernels,)),
        ):
            counted = native.timed(name, function)
            for place in places:
                for key, value in list(vars(place).items()):
                    if value is function:
                        stack.enter_context(mock.patch.object(place, key, counted))
        yield native


def threads() -> dict[int, float]:
    """CPU seconds of every thread that Python knows, by its number."""
    return {
        t.ident: time.clock_gettime(time.pthread_getcpuclockid(t.ident))
        for t in threading.enumerate()
        if t.ident is not None
    }


def measure(root: Path, policy: str, batches: int, batch: int = BATCH) -> dict[str, Any]:
    """Milliseconds a batch, of a loader that has made some batches."""
    shares: list[float] = []
    with (
        counting() as native,
        ga.data.Loader(root, ga.Policy(POLICIES[policy], seed=1), batch, epochs=1 << 16, device="cpu") as loader,
    ):
        running = iter(loader)
        for _ in range(4):
            # recipes are recorded, memory is asked for
            next(running)
        begun, parts, own = threads(), dict(native.seconds), dict[str, float]()
        for _ in range(batches):
            before, inside = sum(threads().values()), native.total()
            next(running)
            shares.append(1e3 * (sum(threads().values()) - before - (native.total() - inside)))
        ended = threads()
        for (name, thread), value in native.seconds.items():
            own[name] = own.get(name, 0.0) + value - parts.get((name, thread), 0.0)
        whole = sum(ended.values()) - sum(begun.get(t, 0.0) for t in ended)
        described = loader.describe()
    python = 1e3 * (whole - sum(own.values())) / batches
    return {
        "policy": policy,
        "batch": batch,
        "batches": batches,
        "Python, ms a batch": python,
        "single batches, ms": vars(Spread.of(shares)),
        "native in these threads, ms a batch": {name: 1e3 * s / batches for name, s in sorted(own.items())},
        "decoder": described.splitlines()[1],
    }


def write(root: Path) -> None:
    """2 000 files: each of 500 photographs by four names."""
    photographs.write(root, 500)
    for path in list(root.rglob("*.jpg")):
        for k in range(3):
            path.with_name(f"{path.stem}_{k}.jpg").hardlink_to(path)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of JPEG files; photographs are made where none is given")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--store", action="store_true", help="keep the results in bench/results")
    given = parser.parse_args()
    # threads of torch would do the work of one in many, and count as many
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = given.data or Path(temporary) / "photographs"
        if not root.exists():
            write(root)
        rows = [measure(root, policy, given.batches) for policy in ("weak", "moderate")]
    for row in rows:
        told = ", ".join(f"{name} {ms:.1f}" for name, ms in row["native in these threads, ms a batch"].items())
        print(f"{row['policy']:9s} Python {row['Python, ms a batch']:.2f} ms a batch of {row['batch']}; native: {told}")
    if given.store:
        about = results.conditions(Options("cpu", 1))
        results.save({"about": about, "rows": rows}, results.RESULTS / "python.json")


if __name__ == "__main__":
    main()
