"""Measures the kernels on a card and keeps what it finds: python -m bench.gpu [--quick] [--only NAME ...]

Results are written after every part, so that one that fails or takes too long loses nothing but itself.  `--device cpu`
tries the bench itself, on tiny images under Triton's interpreter, and stores nothing of record."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.gpu import ahead, clock, step, workloads
from bench.gpu.clock import Pace
from bench.gpu.parts import PARTS, Card, Ours, Red, cost, said, summary
from bench.report import results
from bench.suite import Options

# {workload: what was expected before the first run}, written by hand
# a training step, and the workload that makes its batches
STEP, TRAINED = "training step", "moderate + erasing"
# seconds at most for the kernels of all workloads, which are compiled side by side
COMPILING = 60.0
PREDICTED = results.RESULTS.parent / "predicted.json"


@dataclass
class Log:
    """What was found so far, and how much time is left."""

    path: Path | None
    seconds: float
    data: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.perf_counter() - self.started)

    def part(self, at: dict[str, Any], name: str, work: Callable[[], Any]) -> bool:
        """Do one part, keep what it returns or why it failed, and write the file; whether it succeeded."""
        began, good = time.perf_counter(), False
        if self.left <= 0:
            at[name] = {"status": "not run", "why": f"the {self.seconds:g} s were used up"}
        else:
            try:
                at[name], good = work(), True
            except Red as red:
                at[name] = {"status": "red", "why": str(red)}
            except Exception as error:
                at[name] = {"status": "failed", "why": said(error)}
        print(
            f"{time.perf_counter() - self.started:6.0f} s  {name}: {'done' if good else at[name]['why']} "
            f"({time.perf_counter() - began:.1f} s)",
            flush=True,
        )
        self.write()
        return good

    def write(self) -> None:
        """To the file, if there is one."""
        if self.path is not None:
            self.data["seconds used"] = round(self.seconds - self.left, 1)
            temporary = self.path.with_suffix(".part")
            temporary.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, self.path)


def clocks() -> str:
    """Clocks, power and temperature as the driver tells them; empty without one."""
    asked = "clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.draw,power.limit,temperature.gpu,pstate"
    return results._output("nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader").strip()


def card_of(arguments: argparse.Namespace) -> tuple[Card, dict[str, Any]]:
    """Where and how long, and the bandwidth of this run: bytes read and written a second."""
    device, tiny = torch.device(arguments.device), arguments.device == "cpu"
    if tiny:
        fast, slow, times, size = Pace(0, 2, 2, 0), Pace(0, 2, 2, 0), 4, 2**16
    else:
        share = 0.3 if arguments.quick else 1.0
        fast, slow, times, size = Pace(4 * share, 15, 200), Pace(8 * share, 5, 30), 60, clock.BIG
    found = clock.bandwidth(device, fast, size)
    return Card(device, fast, slow, times, found.median), {**summary(found), "bytes of a copy": 2 * size}


def measure(
    job: workloads.Job, card: Card, log: Log, into: dict[str, Any], parts: dict[str, Callable[[Ours], Any]]
) -> None:
    """A workload: its gate, then its parts."""
    row = into[job.name] = {"target": job.target, "predicted": predicted().get(job.name), "batch": job.workload.batch}
    made: list[Ours] = []

    def gate() -> Any:
        made.append(Ours(job, card))
        return made[0].gate()

    print(f"{job.name}: {job.workload.batch} images")
    if log.part(row, "gate", gate):
        for name, work in parts.items():
            log.part(row, name, lambda work=work: work(made[0]))
    made.clear()
    if card.device.type == "cuda":
        torch.cuda.empty_cache()


def predicted() -> dict[str, Any]:
    """What was expected, by workload."""
    found: dict[str, Any] = json.loads(PREDICTED.read_text(encoding="utf-8")) if PREDICTED.exists() else {}
    return found


def line(name: str, row: dict[str, Any]) -> str:
    """A workload in one line of the terminal."""

    def at(*keys: str) -> Any:
        found: Any = row
        for key in keys:
            found = found.get(key, {}) if isinstance(found, dict) else {}
        return found if found != {} else None

    speeds = [
        (k, at("speeds", k, "ms", "median"), at("speeds", k, "share of the copy bound", "median"))
        for k in ("whole call", "in a graph", "pixel kernels")
    ]
    own = ", ".join(f"{k} {ms:.4g} ms = {share:.0%}" for k, ms, share in speeds if ms is not None)
    host = at("host ms", "call", "median")
    theirs = [
        f"{k} {v['times ours']['median']:.3g} x{' (' + v['what'] + ')' if 'what' in v else ''}"
        if "times ours" in v
        else f"{k}: {v.get('why', v)}"
        for k, v in (row.get("rivals") or {}).items()
        if isinstance(v, dict) and k != "gpuaug"
    ]
    return f"{name} [{row.get('target', '')}]\n    {own or row.get('gate')}; host {host} ms\n    {'; '.join(theirs)}"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: try the bench itself under the interpreter"
    )
    parser.add_argument("--quick", action="store_true", help="two minutes: fewer workloads and rounds")
    parser.add_argument(
        "--seconds", type=float, default=None, help="no part begins after so long [default: 440, quick: 110]"
    )
    parser.add_argument("--only", nargs="*", default=(), help="workloads whose name begins so; growth for the curves")
    parser.add_argument("--commit", default=None, help="of the code, where git cannot tell")
    parser.add_argument(
        "--output", type=Path, default=None, help="the file [default: bench/results/<card>_kernels.json; none on a CPU]"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 where any part failed."""
    asked = parsed(arguments)
    if asked.device == "cpu":
        # read when triton is imported, which nothing has done yet
        os.environ.setdefault("TRITON_INTERPRET", "1")
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA card is here; --device cpu tries the bench itself", file=sys.stderr)
        return 1
    tiny, device = asked.device == "cpu", torch.device(asked.device)
    path = asked.output or (None if tiny else results.RESULTS / f"{results.machine_class(device)}_kernels.json")
    log = Log(path, asked.seconds or (110.0 if asked.quick else 440.0))
    log.data["conditions"] = {
        **results.conditions(Options(asked.device)),
        "rounds": "alternating; see n",
        "clocks before": clocks(),
        "dry run": tiny,
    }
    log.data["conditions"]["commit"] = asked.commit or log.data["conditions"]["commit"]
    jobs = workloads.jobs(2, 14, (15, 20), 2) if tiny else workloads.jobs()

    def wanted(name: str) -> bool:
        return not asked.only or any(name.startswith(o) for o in asked.only)

    found: list[Card] = []

    def copy() -> dict[str, Any]:
        card, rate = card_of(asked)
        found.append(card)
        return rate

    if not log.part(log.data, "copy bytes a second", copy):
        return 1
    if not tiny:
        several = [("jobs", j.name) for j in jobs if wanted(j.name) and (j.quick or not asked.quick)]
        several += [("growth", j.name) for j in workloads.growth(asked.quick, tiny) if wanted("growth")]
        log.part(log.data, "compiling ahead", lambda: ahead.compile_all(several, device, COMPILING))
    with torch.inference_mode():
        rows = log.data["jobs"] = {}
        for job in jobs:
            if wanted(job.name) and (job.quick or not asked.quick):
                measure(job, found[0], log, rows, PARTS)
        curve = log.data["growth"] = {}
        for job in workloads.growth(asked.quick, tiny):
            if wanted("growth"):
                measure(job, found[0], log, curve, {"cost": cost})
    for job in jobs:
        if job.name == TRAINED and wanted(STEP):
            log.part(log.data, STEP, lambda job=job: step.step(job, found[0], tiny))
    log.data["conditions"]["clocks after"] = clocks()
    log.write()
    for name, row in rows.items():
        print(line(name, row))
    print(
        f"copy {found[0].bandwidth / 1e12:.3g} TB/s"
        + (f"; wrote {path}" if path else "; a dry run: nothing was stored")
    )
    return int(
        any(
            "why" in part
            for row in (*rows.values(), *curve.values())
            for part in row.values()
            if isinstance(part, dict)
        )
    )
