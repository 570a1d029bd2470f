"""From a folder of JPEG files to augmented batches: what loaders do in a second, and what they take for it.

python -m bench.bench_loader [--data FOLDER], or `gpuaug bench loader`.  Each side is a process of its own with its own
children.  First each is alone on the machine: its batches are checked, its first batch is timed, and its memory is
watched through an epoch: PSS of all its processes, the most of samples 0.05 s apart.  Then all stand ready, and take
turns with an epoch each, as many as a time allows; CPU seconds are those of all processes of a side.  Ratios are formed
turn by turn."""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench import end_to_end, photographs, processes, timing
from bench.contenders.loaders import SIDES, Folder, names
from bench.contenders.registry import Absent
from bench.report import results
from bench.scenarios import POLICIES, Workload
from bench.suite import Options
from bench.timing import Spread

OURS, DECODING, AUGMENTING = "gpuaug loader", "gpuaug, decoding alone", "gpuaug, augmenting alone"
STORED = "loader.json"
# the files that a side is checked on, and how often its first batch and its memory are measured
CHECKED, ALONE = 32, 2


@dataclass(frozen=True)
class Order:
    """What is asked for.  data: a folder of JPEG files in class folders; made, of `files` photographs, where it is not
    there.  sides: names of contenders; empty for all.  limit: seconds, after which no round begins; one there is in any
    case."""

    data: Path | None = None
    policies: tuple[str, ...] = ("weak", "moderate")
    sides: tuple[str, ...] = ()
    files: int = 1024
    batch: int = 256
    workers: int = 0  # 0: one for each core
    rounds: int = 5
    limit: float = 300.0
    store: bool = False


# ---- a side, in a process of its own


class Side:
    """A side's process, as the parent sees it."""

    def __init__(self, name: str, folder: Folder, policy: str, checked: Path):
        told = [name, policy, str(folder.root), str(folder.workload.batch), str(folder.workers), str(checked)]
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "bench.bench_loader", "--side", *told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            cwd=Path(__file__).parents[1],
        )
        self.pid = self._process.pid

    def ask(self, what: str) -> dict[str, Any]:
        """Have it do something, and wait for what it says."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(what, file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self.name} ended with code {self._process.wait()} when it was asked for {what!r}")
        told: dict[str, Any] = json.loads(line)
        return told

    def end(self) -> None:
        """Close its pipes, which ends it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()


def serve(name: str, policy: str, root: str, batch: str, workers: str, checked: str) -> None:
    """Do what is asked on standard input, one word a line, and answer in JSON."""
    # what libraries print goes elsewhere
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    side, folder = SIDES[name], Folder(Path(root), workload(policy, int(batch)), int(workers))
    epoch = None
    for line in sys.stdin:
        told: dict[str, Any] = {}
        try:
            if line.strip() == "check":
                told["why"] = judged(name, Path(checked), policy, int(workers))
            elif line.strip() == "first":
                begun = time.perf_counter()
                epoch = side.make(folder)
                batches = epoch()
                next(batches)
                told["seconds"] = time.perf_counter() - begun
                # a variable would hold the last batch until the next epoch has begun
                deque(batches, 0)
            else:
                epoch = epoch or side.make(folder)
                begun = time.perf_counter()
                told["batches"] = sum(1 for _ in epoch())
                told["seconds"] = time.perf_counter() - begun
        except Absent as reason:
            told = {"absent": str(reason)}
        print(json.dumps(told), file=answer, flush=True)


def judged(name: str, root: Path, policy: str, workers: int) -> str:
    """Why a side's batches are not what the reference says; empty if they are."""
    side, small = SIDES[name], workload(policy, 32)
    epoch = side.make(Folder(root, small, workers))
    if not side.whole:
        return "" if sum(1 for _ in epoch()) == len(list(root.rglob("*.jpg"))) // 32 else "batches are missing"
    truth, source = end_to_end.truth(root, small)
    why = ""
    for _ in range(2):
        # among many comparisons chance alone turns one red
        why = truth.judge(lambda _: torch.cat([b.clone() for b in epoch()]), source, shared=False)
        if not why:
            break
    return why


def workload(policy: str, batch: int) -> Workload:
    """JPEG files through a policy of the suite."""
    return Workload(f"JPEG files, {policy}", "end to end", POLICIES[policy], batch=batch)


# ---- all of them


class Clock:
    """How much of the time is gone, and what is being done, for who waits."""

    def __init__(self, limit: float, show: Callable[[str], None]):
        self._begun, self._limit, self._show = time.monotonic(), limit, show

    def say(self, text: str) -> None:
        """What comes next."""
        self._show(f"{time.monotonic() - self._begun:.0f} of {self._limit:.0f} s: {text}")

    def over(self, share: float) -> bool:
        """Whether a part of the time is gone."""
        return time.monotonic() - self._begun > share * self._limit


def measure(order: Order, show: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """A row for every policy and side."""
    if order.limit <= 0:
        raise ValueError(f"limit must be above 0 s, got {order.limit}")
    unknown = [p for p in order.policies if p not in POLICIES]
    if unknown:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {unknown[0]!r}")
    sides, rows, clock = names(order.sides), list[dict[str, Any]](), Clock(order.limit, show)
    with tempfile.TemporaryDirectory() as temporary:
        root = order.data or Path(temporary) / "photographs"
        if not root.exists():
            clock.say(f"writing {order.files} photographs to {root}")
            photographs.write(root, order.files)
        count = len(list(root.rglob("*.jpg")))
        if count < order.batch:
            raise ValueError(f"{root} has {count} JPEG files, fewer than a batch of {order.batch}; pass another folder")
        checked = Path(temporary) / "checked"
        checked.mkdir()
        end_to_end.write(checked, CHECKED)
        for k, policy in enumerate(order.policies, 1):
            folder = Folder(root, workload(policy, order.batch), order.workers or torch.multiprocessing.cpu_count())
            rows += _rows(policy, sides, folder, checked, order.rounds, clock, (k - 1, k, len(order.policies)))
    return rows


def _rows(
    policy: str,
    sides: Sequence[str],
    folder: Folder,
    checked: Path,
    rounds: int,
    clock: Clock,
    place: tuple[int, int, int],
) -> list[dict[str, Any]]:
    """place: policies done, done with this one, and all, which share the time: after its share no round begins, and
    after a third of that nothing is measured twice"""
    before, after, count = place
    rows = {name: _alone(name, folder, policy, checked, clock, (before + 1 / 3) / count) for name in sides}
    ready = [name for name in sides if rows[name]["status"] == "ok"]
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    cpu: dict[str, list[float]] = {name: [] for name in ready}
    with ExitStack() as stack:
        running = {name: stack.enter_context(Side(name, folder, policy, checked)) for name in ready}
        for name in list(ready):
            clock.say(f"{policy}: checking {name}")
            if why := running[name].ask("check")["why"]:
                rows[name] |= {"status": "not comparable", "why": why}
                ready.remove(name)
                continue
            # the first epoch starts workers and fills caches
            running[name].ask("first")
        for turn in range(rounds):
            if turn and clock.over(after / count):
                break
            shift = turn % max(1, len(ready))
            for name in ready[shift:] + ready[:shift]:
                clock.say(f"{policy}: turn {turn + 1} of {rounds}, {name}")
                processes.settled(running[name].pid)
                before = processes.cpu_seconds(running[name].pid)
                seconds[name].append(running[name].ask("epoch")["seconds"])
                cpu[name].append(processes.cpu_seconds(running[name].pid) - before)
    images = folder.batches * folder.workload.batch
    for name in ready:
        rows[name] |= {
            "images": images,
            "images/s": asdict(Spread.of([images / s for s in seconds[name]])),
            "CPU seconds per 1000 images": asdict(Spread.of([1000 * s / images for s in cpu[name]])),
        }
        if OURS in ready:
            rows[name]["times as long as gpuaug loader"] = asdict(timing.ratio(seconds[name], seconds[OURS]))
    if {OURS, DECODING, AUGMENTING} <= set(ready):
        parts = [d + a for d, a in zip(seconds[DECODING], seconds[AUGMENTING], strict=True)]
        rows[OURS]["share of 1 / (1/decoding alone + 1/augmenting alone)"] = asdict(timing.ratio(parts, seconds[OURS]))
    return list(rows.values())


def _alone(name: str, folder: Folder, policy: str, checked: Path, clock: Clock, share: float) -> dict[str, Any]:
    """A side by itself: its first batch, and the memory of an epoch, which nobody shares pages with.

    In a process of its own: a check would leave its memory behind."""
    row: dict[str, Any] = {"policy": policy, "side": name, "status": "ok", "note": SIDES[name].note}
    clock.say(f"{policy}: {name} alone")
    firsts, peaks = [], []
    for k in range(ALONE):
        if k and clock.over(share):
            break
        with Side(name, folder, policy, checked) as side, processes.peak_memory(side.pid) as peak:
            told = side.ask("first")
        if "absent" in told:
            return {**row, "status": "absent", "why": told["absent"]}
        firsts.append(told["seconds"])
        peaks.append(peak.bytes)
    return {
        **row,
        "first batch, seconds": asdict(Spread.of(firsts)),
        "peak memory, bytes": asdict(Spread.of(peaks)),
    }


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A table for a terminal."""
    out = []
    for row in rows:
        head = f"{row['policy']:9s} {row['side']:39s}"
        if row["status"] != "ok":
            out.append(f"{head} {row['status']}: {row['why']}")
            continue
        rate, cpu, first, peak = (
            row[k]["median"]
            for k in ("images/s", "CPU seconds per 1000 images", "first batch, seconds", "peak memory, bytes")
        )
        spread, ratio = row["images/s"], row.get("times as long as gpuaug loader")
        times = f", takes {ratio['median']:.2f} x as long" if ratio and row["side"] != OURS else ""
        out.append(
            f"{head} {rate:7.0f} images/s ({spread['low']:.0f} to {spread['high']:.0f}, n = {spread['n']}){times}, "
            f"{cpu:.2f} CPU s per 1000, first batch {first:.2f} s, peak {peak / 1e6:.0f} MB"
        )
        share = row.get("share of 1 / (1/decoding alone + 1/augmenting alone)")
        if share:
            out.append(f"{'':49s} {100 * share['median']:.0f} % of 1 / (1/decoding alone + 1/augmenting alone)")
    return out


def about(order: Order) -> dict[str, Any]:
    """Under what conditions."""
    how = results.conditions(Options("cpu", 1))
    more = {
        "rounds": order.rounds,
        "limit, seconds": order.limit,
        "batch": order.batch,
        "workers": order.workers or torch.multiprocessing.cpu_count(),
    }
    return {
        **{k: v for k, v in how.items() if k != "threads"},
        **more,
        "files": "the folder given"
        if order.data
        else f"{order.files} photographs, {photographs.HEIGHTS[0]} to "
        f"{photographs.HEIGHTS[1] - 1} x {photographs.WIDTHS[0]} to {photographs.WIDTHS[1] - 1}, "
        f"{photographs.SMALLEST} to {photographs.LARGEST} bytes",
        "memory": "PSS of all processes of a side, the most of samples 0.05 s apart, alone on the machine",
    }


def run(order: Order, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure, print, and store where that is asked."""
    if order.data is not None and order.data.exists() and not order.data.is_dir():
        raise ValueError(f"{order.data} is no folder; pass a folder of JPEG files, or one that is to be made")
    rows = measure(order, say)
    if order.store:
        results.save({"about": about(order), "rows": rows}, results.RESULTS / STORED)
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        serve(*sys.argv[2:])
    else:
        from gpuaug.apps.cli import main

        sys.argv[1:1] = ["bench", "loader"]
        main()
