"""The kernels of the bench, compiled before anything is timed: a process for each job, as many at once as there are
cores, into Triton's cache on disk.

A cold kernel of draws takes up to half a minute to compile, and one after the other they would take all the time there
is."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import gpuaug as ga
from bench.gpu.workloads import Job
from gpuaug.data.decode_batch import cores

NOWHERE = torch.device("meta")
# as a job is told in a process of its own: in which list it stands, and its name
Name = tuple[str, str]


def blank(job: Job) -> ga.Batch:
    """A batch like those of a job, without memory."""
    w = job.workload
    labels = torch.empty(w.batch, dtype=torch.int64, device=NOWHERE) if w.mixes else None
    if job.ragged:
        # of several sizes; which they are is no matter to a kernel
        sides = [(w.size[0] + i % 2, w.size[1] + i % 3) for i in range(w.batch)]
        one_by_one = (torch.empty(h, v, w.channels, dtype=torch.uint8, device=NOWHERE) for h, v in sides)
        return ga.Batch(ga.Ragged(tuple(one_by_one), "hwc"), labels)
    dtype, layout = (torch.float32, torch.contiguous_format) if w.floats else (torch.uint8, torch.channels_last)
    shape = (w.batch, w.channels, *w.size)
    return ga.Batch(torch.empty(shape, dtype=dtype, device=NOWHERE, memory_format=layout), labels)


def compile_one(job: Job, target: str) -> None:
    """The kernels of a job, for a card such as "cuda:90"."""
    job.policy(torch.device("cpu")).warmup(blank(job), target=target)


def compile_all(names: Sequence[Name], device: torch.device, limit: float) -> dict[str, Any]:
    """The kernels of all jobs; what went wrong, by name, is no fault of the bench: they are compiled when they are
    called.  limit: seconds, after which those that are left are ended"""
    major, minor = torch.cuda.get_device_capability(device)
    return _run(names, f"cuda:{major}{minor}", limit)


def _run(names: Sequence[Name], target: str, limit: float) -> dict[str, Any]:
    began, left, running, failed = time.perf_counter(), list(names), {}, {}  # type: Any, Any, dict[Name, Any], dict[str, str]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    while left or running:
        while left and len(running) < cores():
            name = left.pop(0)
            command = [sys.executable, "-m", "bench.gpu.ahead", *name, target]
            where = Path(__file__).parents[2]
            running[name] = subprocess.Popen(
                command, env=env, cwd=where, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        over = time.perf_counter() - began > limit
        for name, process in list(running.items()):
            if over:
                process.kill()
            if over or process.poll() is not None:
                said = process.communicate()[1].strip().splitlines()
                del running[name]
                if process.returncode:
                    failed[name[1]] = "not done in time" if over else (said[-1][:300] if said else "no message")
        if over:
            failed |= {name: "not begun in time" for _, name in left}
            break
        time.sleep(0.02)
    return {"seconds": round(time.perf_counter() - began, 1), **({"not compiled": failed} if failed else {})}


def main(arguments: Sequence[str]) -> int:
    """One job, in a process of its own: its list, its name, the card."""
    from bench.gpu import workloads

    listed, name, target = arguments
    known = {"jobs": workloads.jobs(), "growth": workloads.growth(False, False)}[listed]
    compile_one(next(job for job in known if job.name == name), target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
