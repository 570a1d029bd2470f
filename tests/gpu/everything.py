"""All that is asked of a card, in order of worth, inside a limit: python tests/gpu/everything.py [--limit 840] [--out
FOLDER].

Tests, quick bench, sanitizer, bench of decoders and the loader.  Each step is a process of its own, has what is left of
the limit at most, and is written to FOLDER/everything.json as soon as it ends, so that whoever is cut off keeps what
was done.  Says first which packages are missing.  Exits with 1 where a step failed or was not reached."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
# what a step needs beside torch and Triton; kornia_rs is compiled, and kornia does not come without it
NEEDS = {
    "tests": ("pytest", "xdist", "hypothesis", "kornia", "kornia_rs", "torchvision", "numba", "PIL"),
    "sanitizer": ("pytest",),
    "bench": ("torchvision", "kornia", "kornia_rs"),
    "loader": ("torchvision", "kornia", "kornia_rs", "torchcodec", "nvidia.dali", "PIL"),
}
# seconds of its own that a step has to end in, once it was told to
LAST_WORDS = 10.0
# a step, its share of a quarter of an hour in seconds, and what it runs
STEPS: dict[str, tuple[int, tuple[str, ...]]] = {
    "tests": (
        240,
        (
            "-m",
            "pytest",
            "tests/gpu",
            # each test by its name, for whoever is cut off
            "-v",
            "--tb",
            "short",
            "-W",
            "default",
            "-p",
            "no:cacheprovider",
            "-m",
            "not slow",
            "-n",
            "{jobs}",
            "--dist",
            "loadgroup",
        ),
    ),
    "bench": (180, ("-m", "bench.gpu", "--quick", "--seconds", "{seconds}")),
    "sanitizer": (120, ("tests/gpu/sanitize.py", "--compiled", "memcheck")),
    "loader": (375, ("-m", "bench.gpu.loader", "--seconds", "{seconds}")),
}


def missing(names: Any = tuple(NEEDS)) -> dict[str, list[str]]:
    """By step, the packages that are not there."""
    lacking = {step: [p for p in NEEDS[step] if not _there(p)] for step in names}
    return {step: packages for step, packages in lacking.items() if packages}


def _there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        # what it is a part of is not there
        return False


def run(steps: dict[str, tuple[int, tuple[str, ...]]], limit: float, folder: Path, jobs: int) -> list[dict[str, Any]]:
    """The steps one after the other; a row each, written as soon as it is known."""
    end, rows = time.monotonic() + limit, []
    path = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH"))))
    env = os.environ | {"GPUAUG_DEVICE": "cuda", "TRITON_INTERPRET": "0", "PYTHONPATH": path}
    folder.mkdir(parents=True, exist_ok=True)
    for name, (seconds, arguments) in steps.items():
        begin = time.monotonic()
        allowed = min(seconds, end - begin)
        row: dict[str, Any] = {"step": name, "code": None, "seconds": 0.0, "said": "not reached: no time was left"}
        if allowed > 0:
            row |= _one(
                # those that are told their seconds end by themselves before they are cut off
                [sys.executable, *(a.format(jobs=jobs, seconds=max(1, int(allowed) - 15)) for a in arguments)],
                env,
                allowed,
                folder / f"{name}.txt",
            )
            row["seconds"] = round(time.monotonic() - begin, 1)
        rows.append(row)
        (folder / "everything.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        print(f"{name}: {row['said']}, {row['seconds']} s", flush=True)
    return rows


def _one(command: list[str], env: dict[str, str], seconds: float, log: Path) -> dict[str, Any]:
    """One step, and all that it started, ended after its seconds."""
    with log.open("w", encoding="utf-8") as file:
        made = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = made.wait(seconds - min(LAST_WORDS, seconds / 2))
            said = "clean" if code == 0 else f"ended with {code}"
        except subprocess.TimeoutExpired:
            # pytest then says what failed so far
            made.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                made.wait(min(LAST_WORDS, seconds / 2))
            with suppress(ProcessLookupError):
                os.killpg(made.pid, signal.SIGKILL)
            made.wait()
            code, said = None, f"cut off after {seconds:.0f} s"
    return {"code": code, "said": said}


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=float, default=840, help="seconds of all steps together")
    parser.add_argument("--out", type=Path, default=Path("card_run"), help="folder of what they print")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    given = parser.parse_args(arguments)
    for step, packages in missing().items():
        print(f"{step}: missing {', '.join(packages)}; what needs them fails or is left out", flush=True)
    rows = run(STEPS, given.limit, given.out, given.jobs)
    return int(any(row["code"] != 0 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
