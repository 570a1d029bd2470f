"""Measures decoders and the loader on a card and keeps what it finds: python -m bench.gpu.loader [--seconds 360] [--out
FOLDER]

Stages in order of worth, each of several parts.  All run in one process of their own, so that a decoder that ends or
hangs its process loses its part alone: another process goes on behind it.  What is found is written after every part to
FOLDER/<card>_loader.json.  `--dry-run` tries all of it on a CPU, with small work; its numbers are no results, and are
never stored among them."""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, NamedTuple

import torch

from bench.contenders.registry import Absent
from bench.gpu import decoders, loading
from bench.gpu.decoders import ALONE, GPU_DECODERS, ON_CPU, ON_GPU, OWN_DALI, PIXELS, RIGHT, Task
from bench.gpu.parts import said
from bench.gpu.run import Log, clocks
from bench.report import results
from bench.suite import Options
from gpuaug.data.decode_batch import cores

SECONDS = 360.0
FILES = 2048
# seconds that a part may take beyond its own, to compile and to start; a worker's start; what is left for the end
GRACE, START, CLOSING = 45.0, 90.0, 3.0
# that decode, beside those of the other benches
PACKAGES = (
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
    "nvidia-nvimgcodec-cu12",
    "nvidia-nvimgcodec-cu13",
    "nvidia-nvjpeg-cu12",
    "nvidia-nvjpeg",
    "torchcodec",
    "torchvision",
)
Place = tuple[str, str]


class Stage(NamedTuple):
    """What is measured.  seconds: of each part, where all stages have SECONDS together."""

    work: Callable[[Task, str], dict[str, Any]]
    parts: tuple[str, ...]
    seconds: float


EACH = (*(d + ON_GPU for d in GPU_DECODERS), *(d + ON_CPU for d in GPU_DECODERS))
ON_GPU_FIRST = (OWN_DALI + ON_GPU, *EACH, OWN_DALI + ON_CPU, "pillow" + ON_CPU)
STAGES: dict[str, Stage] = {
    ALONE: Stage(decoders.alone, ON_GPU_FIRST, 11),
    RIGHT: Stage(decoders.corrupt, EACH, 10),
    "loader beside its decoder": Stage(loading.share, GPU_DECODERS, 24),
    "training step": Stage(loading.step, ("resnet50",), 35),
    PIXELS: Stage(decoders.pixels, EACH, 3),
    "memory": Stage(loading.memory, GPU_DECODERS, 9),
    "training run": Stage(loading.training, ("small network",), 15),
}
PLACES: tuple[Place, ...] = tuple((stage, part) for stage, row in STAGES.items() for part in row.parts)


# ---- in the process that measures


def measured(task: Task, stage: str, part: str) -> dict[str, Any]:
    """One part, or why there is nothing of it."""
    try:
        return STAGES[stage].work(task, part)
    except Absent as reason:
        return {"status": "absent", "why": str(reason)}
    except Exception as error:
        return {"status": "failed", "why": said(error)}
    finally:
        gc.collect()
        if task.device.type == "cuda":
            torch.cuda.empty_cache()


def serve(told: Mapping[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
    """Measure the parts that are asked for, one after the other, and say when each begins and what it found."""
    found = {stage: dict(rows) for stage, rows in told["found"].items()}
    for stage, part in told["parts"]:
        answer({"begins": [stage, part]})
        seconds = min(STAGES[stage].seconds * told["scale"], told["until"] - CLOSING - time.time())
        if seconds <= 0:
            row: dict[str, Any] = {"status": "not run", "why": "the time was used up"}
        else:
            task = Task(torch.device(told["device"]), Path(told["folder"]), seconds, told["tiny"], found)
            row = measured(task, stage, part)
        found.setdefault(stage, {})[part] = row
        answer({"found": row})


def served() -> None:
    """What the other process runs: told on standard input, answers in lines on standard output."""
    answer = os.fdopen(os.dup(1), "w")
    # what libraries print goes elsewhere
    os.dup2(2, 1)
    serve(json.loads(sys.stdin.read()), lambda row: print(json.dumps(row), file=answer, flush=True))


# ---- in the process that keeps what is found

WORKER = (sys.executable, "-W", "ignore", "-m", "bench.gpu.loader", "--worker")


def go(
    told: dict[str, Any],
    places: Sequence[Place],
    keep: Callable[[Place, dict[str, Any]], None],
    command: Sequence[str] = WORKER,
    grace: float = GRACE,
) -> None:
    """Have all parts measured, each kept as soon as it is there, in as many processes as it takes."""
    left = list(places)
    while left:
        if time.time() >= told["until"]:
            for place in left:
                keep(place, {"status": "not run", "why": "the time was used up"})
            return
        done = _one_process({**told, "parts": left}, keep, command, grace)
        left = left[done:]


def _one_process(
    told: dict[str, Any], keep: Callable[[Place, dict[str, Any]], None], command: Sequence[str], grace: float
) -> int:
    """How many parts are done with: all, or those up to the one that the process ended at, at least one."""
    path = os.pathsep.join(p for p in sys.path if p)
    worker = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        cwd=Path(__file__).parents[2],
    )
    assert worker.stdin is not None and worker.stdout is not None
    lines: Queue[str | None] = Queue()

    def read(pipe: Any) -> None:
        for line in pipe:
            lines.put(line)
        lines.put(None)

    reader = Thread(target=read, args=(worker.stdout,), daemon=True)
    reader.start()
    done, why, limit = 0, "", START
    try:
        try:
            with worker.stdin as pipe:
                pipe.write(json.dumps(told))
        except BrokenPipeError:
            pass
        while done < len(told["parts"]):
            allowed = min(limit, told["until"] - time.time())
            try:
                line = lines.get(timeout=max(0.0, allowed))
            except Empty:
                why = f"cut off after {max(0.0, allowed):.0f} s"
                break
            if line is None:
                why = f"its process ended with {worker.wait()}"
                break
            row = json.loads(line)
            if "begins" in row:
                stage = row["begins"][0]
                limit = STAGES[stage].seconds * told["scale"] * 2 + grace
            else:
                keep(told["parts"][done], row["found"])
                done, limit = done + 1, START
    finally:
        if worker.poll() is None and why:
            worker.kill()
        worker.wait()
        reader.join(10)
        worker.stdout.close()
    if why:
        keep(told["parts"][done], {"status": "failed", "why": why})
        done += 1
    return done


def conditions(device: torch.device, tiny: bool, seconds: float, given: str | None) -> dict[str, Any]:
    """Card, driver, versions, commit, and how the files were made."""

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    how = results.conditions(Options(device.type))
    how["versions"] |= {p: installed(p) for p in PACKAGES}
    how["commit"] = given or how["commit"]
    return {
        **{k: v for k, v in how.items() if k != "threads"},
        "rounds": "alternating where contenders are compared; see n",
        "cores of this process": cores(),
        "files": f"JPEG, {decoders.HEIGHTS[0]} to {decoders.HEIGHTS[1] - 1} x {decoders.WIDTHS[0]} to "
        f"{decoders.WIDTHS[1] - 1}, quality {decoders.QUALITIES[0]} to {decoders.QUALITIES[1] - 1}",
        "limit, seconds": seconds,
        "clocks before": clocks(),
        **({"dry run": "tiny work on a CPU, to try the bench: no result"} if tiny else {"dry run": False}),
    }


def line(place: Place, row: Mapping[str, Any]) -> str:
    """A part in one line of the terminal."""
    if "status" in row:
        return f"{row['status']}: {row['why']}"
    judged = {True: ", met", False: ", NOT met"}
    rates = row.get("images/s")
    if isinstance(rates, dict) and "median" in rates:
        return f"{rates['median']:.0f} images/s, {row['setting']}"
    if isinstance(rates, dict):
        ours = [
            f"{what} {s['share of ' + loading.WHOLE]['median']:.3f} and {s['share of ' + loading.CUT]['median']:.3f}"
            f"{judged[s['met']]}"
            for what, s in row.items()
            if isinstance(s, dict) and "met" in s
        ]
        return f"share of {loading.WHOLE}, and of {loading.CUT}: {'; '.join(ours)}"
    words = {
        k: v["median"] if isinstance(v, dict) and "median" in v else v
        for k, v in row.items()
        if k not in ("asked", "met") and not isinstance(v, list)
    }
    asked = f" [{row['asked']}{judged.get(row.get('met'), ', not judged')}]" if "asked" in row else ""  # type: ignore[arg-type]
    return ", ".join(f"{k} {v}" for k, v in words.items()) + asked


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.loader", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=None, help="of all of it [default: 360; dry run: 120]")
    parser.add_argument("--out", type=Path, default=None, help="folder of the file [default: bench/results]")
    parser.add_argument("--only", nargs="*", default=(), help="stages whose name begins so")
    parser.add_argument("--commit", default=None, help="of the code, where git cannot tell")
    parser.add_argument("--dry-run", action="store_true", help="try it on a CPU; its numbers are no results")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.seconds is not None and not given.seconds > 0:
        parser.error(f"--seconds must be above 0, got {given.seconds}")
    if given.dry_run and given.out is not None and given.out.resolve() == results.RESULTS.resolve():
        parser.error("a dry run has no results; pass another folder than bench/results")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 1 where a part failed."""
    asked = parsed(arguments)
    if asked.worker:
        served()
        return 0
    tiny = asked.dry_run
    if not tiny and not torch.cuda.is_available():
        print("no CUDA card is here; --dry-run tries the bench itself", file=sys.stderr)
        return 1
    seconds = asked.seconds or (120.0 if tiny else SECONDS)
    until = time.time() + seconds
    device = torch.device("cpu") if tiny else torch.device("cuda", torch.cuda.current_device())
    name = "dry_run_loader.json" if tiny else f"{results.machine_class(device)}_loader.json"
    folder = asked.out or (None if tiny else results.RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    log = Log(None if folder is None else folder / name, seconds)
    log.data["conditions"] = conditions(device, tiny, seconds, asked.commit)
    rows: dict[str, dict[str, Any]] = {}
    log.data["stages"] = rows

    def keep(place: Place, row: dict[str, Any]) -> None:
        rows.setdefault(place[0], {})[place[1]] = row
        log.write()
        print(f"{seconds - log.left:6.0f} s  {place[0]}, {place[1]}: {line(place, row)}", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary) / "files"
        decoders.write(files, 24 if tiny else FILES)
        told = {
            "device": str(device),
            "folder": str(files),
            "tiny": tiny,
            "scale": min(1.0, seconds / SECONDS),
            "until": until,
            "found": rows,
        }
        go(told, [p for p in PLACES if not asked.only or any(p[0].startswith(o) for o in asked.only)], keep)
    log.data["conditions"]["clocks after"] = clocks()
    log.write()
    print("a dry run: these are no results" if tiny else f"wrote {log.path}")
    return int(any(row.get("status") == "failed" for stage in rows.values() for row in stage.values()))


if __name__ == "__main__":
    sys.exit(main())
