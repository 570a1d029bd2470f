"""Run a small part of the tests on a card under compute-sanitizer: python tests/gpu/sanitize.py [memcheck racecheck
...]

Without a name memcheck alone, in two minutes.  Exits with 2 where the tool is not to be found, which is no result; with 1 where it, or a test, found something.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PLACES = ("/usr/local/cuda/bin", "/opt/cuda/bin")
# every kernel, at sizes of a few tiles
SMALL = "whole_policies_agree or masks or cutmix_writes or any_number or empty"
FOUND = 9
LIMIT = 115  # seconds of a check, so that one fits two minutes
LATE = 124


def tool() -> str | None:
    """Where compute-sanitizer is."""
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(PLACES))


def command(found: str, check: str) -> list[str]:
    """One check of the small part."""
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "tests/gpu/test_gpu_values.py",
        "-q",
        "-x",
        "-W",
        "default",
        "-p",
        "no:cacheprovider",
        "-k",
        SMALL,
    ]
    return [found, "--tool", check, "--error-exitcode", str(FOUND), "--target-processes", "all", *tests]


def main(checks: list[str]) -> int:
    """Run the checks one after the other."""
    found = tool()
    if found is None:
        print("not checked: compute-sanitizer is not on the PATH; it comes with the CUDA toolkit")
        return 2
    # without torch's cache every tensor is an allocation of its own, so that a write beyond one is seen
    env = {**os.environ, "GPUAUG_DEVICE": "cuda", "TRITON_INTERPRET": "0", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    codes = {check: _code(command(found, check), env) for check in checks}
    said = {0: "clean", FOUND: "found errors", LATE: f"not finished after {LIMIT} s"}
    for check, code in codes.items():
        print(f"{check}: {said.get(code, f'the tests ended with {code}')}")
    return int(any(codes.values()))


def _code(command: list[str], env: dict[str, str]) -> int:
    try:
        return subprocess.run(command, cwd=ROOT, env=env, timeout=LIMIT).returncode
    except subprocess.TimeoutExpired:
        return LATE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["memcheck"]))
