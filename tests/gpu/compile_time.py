"""How long the tests for a card take to compile their kernels, predicted without one: python tests/gpu/compile_time.py
[--jobs 14] [--sample 40] [--kernels FILE]

Records which kernels each test launches (`kernels_of_tests`), compiles a sample of each kind for compute capability 9.0
with the Triton that is installed, takes the others by their length, and plays through how pytest-xdist hands the tests
to processes that share Triton's cache on disk.  Seconds are CPU seconds of this machine; a card's own work, and what
the START says, are assumed."""

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from kernels_of_tests import FILE, Kernel

ROOT = Path(__file__).parent.parent.parent
# seconds, assumed: until each process has imported, collected and made its context; of a test beside its kernels; to
# load a kernel from the disk
START, TEST, LOAD = 20.0, 0.15, 0.03


def recorded(marks: str, only: str = "") -> tuple[list[dict[str, Any]], list[Kernel]]:
    """The kernels of each test, from a run that launches nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernels"
        parts = (ROOT, ROOT / "kernels", *(ROOT / "tests" / p for p in ("", "support", "gpu")))
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, parts)),
            "GPUAUG_DEVICE": "cpu",
            "TRITON_INTERPRET": "1",
            FILE: str(file),
        }
        tests = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-W", "default", "-p", "no:cacheprovider"]
        more = ["-m", marks, "-p", "kernels_of_tests", *(["-k", only] if only else [])]
        # tests that look at values fail: nothing was computed
        subprocess.run([*tests, *more], cwd=ROOT, env=env, stdout=subprocess.DEVNULL, check=False)
        found: tuple[list[dict[str, Any]], list[Kernel]] = pickle.loads(file.read_bytes())
    return found


def length(kernel: Kernel) -> int:
    """Numbers of the program that a kernel is compiled for."""
    return sum(len(v) for _, v in kernel.constants if hasattr(v, "__len__"))


def sampled(kernels: Sequence[Kernel], count: int) -> list[int]:
    """Numbers of kernels, so many of each kind, spread over their lengths."""
    kinds: dict[Any, list[int]] = defaultdict(list)
    for k, kernel in enumerate(kernels):
        kinds[kind(kernel)].append(k)
    found: list[int] = []
    for members in kinds.values():
        members.sort(key=lambda k: length(kernels[k]))
        places = np.linspace(0, len(members) - 1, min(count, len(members))).round().astype(int)
        found += [members[p] for p in dict.fromkeys(places.tolist())]
    return found


def kind(kernel: Kernel) -> tuple[str, int]:
    """Kernels whose time to compile goes with their length: of one function and one source of pixels."""
    program = dict(kernel.constants).get("PROGRAM")
    return kernel.name, program[0] if program else 0


def compiled(kernel: Kernel) -> tuple[float, float, float]:
    """CPU seconds to compile a kernel, those of the tools that are started for it among them; those of its launcher,
    where this Triton compiles one for each; and seconds on the clock."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia import driver
    from triton.compiler import ASTSource

    fn = getattr(import_module(kernel.module), kernel.name)
    constants = {**dict(kernel.constants), **{k: 1 for k, t in kernel.types if t == "constexpr"}}
    types = dict(kernel.types)
    signature = {name: "constexpr" if name in constants else types[name] for name in fn.arg_names}
    attrs = {(fn.arg_names.index(k),): [["tt.divisibility", 16]] for k in kernel.aligned if k not in constants}
    source = ASTSource(fn=fn, signature=signature, constexprs=constants, attrs=attrs)
    before, clock = _used(), time.perf_counter()
    triton.compile(source, target=GPUTarget("cuda", 90, 32), options=dict(kernel.options))
    after, clock = _used(), time.perf_counter() - clock
    launcher = 0.0
    if hasattr(driver, "make_launcher"):
        text = driver.make_launcher({}, source.signature, None)
        _launcher(text, driver.include_dirs)
        launcher = _used() - after
    return after - before, launcher, clock


def _launcher(text: str, folders: Sequence[str]) -> None:
    import sysconfig

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "launcher.c"
        path.write_text(text)
        given = [f"-I{p}" for p in (*folders, sysconfig.get_paths()["include"])]
        command = ["gcc", str(path), "-O3", "-shared", "-fPIC", "-Wno-psabi", *given, "-o", f"{path}.so"]
        subprocess.run(command, check=True, capture_output=True)


def _used() -> float:
    return sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measured(kernels: Sequence[Kernel], numbers: Sequence[int]) -> dict[int, tuple[float, float, float]]:
    """The same of several, in a process in which kernels are compiled and not interpreted."""
    env = os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with tempfile.TemporaryDirectory() as folder:
        env["TRITON_CACHE_DIR"], file = folder, Path(folder) / "kernels"
        file.write_bytes(pickle.dumps([kernels[k] for k in numbers]))
        done = subprocess.run(
            [sys.executable, __file__, "--measure", str(file)], env=env, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(f"a kernel was not compiled: {done.stderr[-2000:]}")
    return dict(zip(numbers, map(tuple, json.loads(done.stdout.splitlines()[-1])), strict=True))


def estimated(kernels: Sequence[Kernel], known: dict[int, tuple[float, float, float]]) -> list[float]:
    """Seconds of every kernel: those that were compiled, and the others by their length."""
    kinds: dict[Any, list[int]] = defaultdict(list)
    for k in known:
        kinds[kind(kernels[k])].append(k)
    out = []
    for k, kernel in enumerate(kernels):
        if k in known:
            out.append(sum(known[k][:2]))
            continue
        near = sorted(kinds[kind(kernel)], key=lambda j: length(kernels[j]))
        at, seconds = [length(kernels[j]) for j in near], [sum(known[j][:2]) for j in near]
        out.append(float(np.interp(length(kernel), at, seconds)))
    return out


def played(tests: Sequence[dict[str, Any]], seconds: Sequence[float], jobs: int, groups: Any = None) -> float:
    """Seconds until the last process has done: each takes the next tests, compiles what nobody has yet, loads the rest.

    groups: of each test, those of one of which go to one process; None: each alone, as pytest-xdist's "load" """
    free, there = [START] * jobs, dict[int, float]()
    loaded: list[set[int]] = [set() for _ in range(jobs)]
    queues = _handed(tests, jobs, groups)
    while queues:
        who = min(range(jobs), key=free.__getitem__)
        now = free[who]
        for test in queues.pop(0):
            now += TEST
            for k in tests[test]["kernels"]:
                if k in loaded[who]:
                    continue
                loaded[who].add(k)
                if there.get(k, float("inf")) <= now:
                    now += LOAD
                else:
                    now += seconds[k]
                    there[k] = min(there.get(k, now), now)
        free[who] = now
    return max(free)


def _handed(tests: Sequence[dict[str, Any]], jobs: int, groups: Any) -> list[list[int]]:
    if groups is not None:
        found: dict[Any, list[int]] = defaultdict(list)
        for k, group in enumerate(groups):
            found[group].append(k)
        return list(found.values())
    left, out = list(range(len(tests))), []
    first = max(len(left) // (4 * jobs), 2)
    for _ in range(jobs):
        out.append(left[:first])
        left = left[first:]
    while left:
        size = max(len(left) // jobs // 2, 2)
        out.append(left[:size])
        left = left[size:]
    return [part for part in out if part]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=14, help="processes that share the card")
    parser.add_argument("--sample", type=int, default=12, help="kernels of each kind that are compiled")
    parser.add_argument("--marks", default="not slow", help="of the tests")
    parser.add_argument("--only", default="", help="tests, as pytest's -k")
    parser.add_argument("--kernels", type=Path, help="what was recorded before")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        print(json.dumps([compiled(k) for k in pickle.loads(given.measure.read_bytes())]))
        return 0
    tests, kernels = pickle.loads(given.kernels.read_bytes()) if given.kernels else recorded(given.marks, given.only)
    known = measured(kernels, sampled(kernels, given.sample))
    seconds = estimated(kernels, known)
    print(json.dumps(report(tests, kernels, seconds, known, given.jobs), indent=1))
    return 0


def report(
    tests: Sequence[dict[str, Any]],
    kernels: Sequence[Kernel],
    seconds: Sequence[float],
    known: dict[int, tuple[float, float, float]],
    jobs: int,
) -> dict[str, Any]:
    """What is predicted, and from what."""
    import triton

    kinds: dict[str, list[int]] = defaultdict(list)
    for k, kernel in enumerate(kernels):
        kinds[" ".join(map(str, kind(kernel)))].append(k)
    return {
        "triton": triton.__version__,
        "tests": len(tests),
        "kernels": len(kernels),
        "compiled here": len(known),
        "by kind": {
            name: {
                "kernels": len(members),
                "seconds each": round(sum(seconds[k] for k in members) / len(members), 2),
                "together": round(sum(seconds[k] for k in members), 1),
            }
            for name, members in sorted(kinds.items())
        },
        "launchers, seconds each": round(sum(v[1] for v in known.values()) / max(len(known), 1), 2),
        "CPU seconds of all": round(sum(seconds), 1),
        "side by side at best": round(START + max(sum(seconds) / jobs, max(seconds, default=0.0)), 1),
        f"predicted, {jobs} processes": round(played(tests, seconds, jobs, [t["group"] for t in tests]), 1),
    }


if __name__ == "__main__":
    sys.exit(main())
