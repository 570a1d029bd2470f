"""Run a small part of the tests on a card under compute-sanitizer: python tests/gpu/sanitize.py [--compiled] [memcheck
racecheck ...]

Without a name memcheck alone, in two minutes.  Kernels are compiled before, without the tool and side by side, unless
the tests have run already: --compiled.  Exits with 2 where the tool is not to be found, which is no result; with 1
where it, or a test, found something.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PLACES = ("/usr/local/cuda/bin", "/opt/cuda/bin")
# every kernel, at sizes of a few tiles
SMALL = (
    "(whole_policies_agree and (layout1 or different_sizes) and not very and not contrasts) "
    "or masks or cutmix_writes or any_number or (empty and moderate)"
)
FOUND = 9
LIMIT = 115.0  # seconds of a check, compiling for it included, so that one fits two minutes
LATE = 124


def tool() -> str | None:
    """Where compute-sanitizer is."""
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(PLACES))


def tests(*more: str) -> list[str]:
    """The small part."""
    quick = ("-m", "not slow", "-W", "default", "-p", "no:cacheprovider", "-k", SMALL)
    return [sys.executable, "-m", "pytest", "tests/gpu/test_gpu_values.py", "-q", *quick, *more]


def command(found: str, check: str) -> list[str]:
    """One check of the small part."""
    # what a compiler does is no matter of the tool, and would take it minutes
    return [found, "--tool", check, "--error-exitcode", str(FOUND), *tests("-x")]


def main(arguments: list[str]) -> int:
    """Run the checks one after the other."""
    checks = [a for a in arguments if not a.startswith("-")] or ["memcheck"]
    found = tool()
    if found is None:
        print("not checked: compute-sanitizer is not on the PATH; it comes with the CUDA toolkit")
        return 2
    # without torch's cache every tensor is an allocation of its own, so that a write beyond one is seen
    env = {**os.environ, "GPUAUG_DEVICE": "cuda", "TRITON_INTERPRET": "0", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    began = time.monotonic()
    if "--compiled" not in arguments and shutil.which("nvidia-smi"):
        jobs = max(1, (os.cpu_count() or 2) - 2)
        _code(tests("-n", str(jobs), "--dist", "loadgroup"), env, LIMIT / 2)
    codes = {}
    for check in checks:
        codes[check] = _code(command(found, check), env, LIMIT - (time.monotonic() - began))
        began = time.monotonic()
    said = {0: "clean", FOUND: "found errors", LATE: f"not finished after {LIMIT:.0f} s"}
    for check, code in codes.items():
        print(f"{check}: {said.get(code, f'the tests ended with {code}')}")
    return int(any(codes.values()))


def _code(command: list[str], env: dict[str, str], seconds: float) -> int:
    try:
        return subprocess.run(command, cwd=ROOT, env=env, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return LATE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
