"""The suite for a card, tried without one: it stays out of `make test`, fails where a card is asked for in vain, and
its tests run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import children
import pytest

import gpuaug as ga

ROOT = Path(__file__).parent.parent


def ran(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """pytest, or another program, with the environment of no card but for these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPUAUG_", "PYTEST_", "TRITON_INTERPRET"))}
    env = {**kept, "CUDA_VISIBLE_DEVICES": "", **environment}
    return children.run([sys.executable, *arguments], cwd=ROOT, env=env)


def test_the_suite_is_not_part_of_the_tests_without_a_card():
    done = ran("-m", "pytest", "tests/gpu", "tests/test_gpu_suite.py", "--collect-only", "-q")
    assert "tests/test_gpu_suite.py::" in done.stdout and "tests/gpu/" not in done.stdout, done.stdout


@pytest.mark.slow
def test_what_is_not_slow_on_a_card_has_every_transform_policy_and_type():
    listed = [
        ran("-m", "pytest", "tests/gpu", "--collect-only", "-q", "-m", marks, GPUAUG_DEVICE="cpu").stdout
        for marks in ("not slow", "slow or not slow")
    ]
    quick, every = ([line for line in text.splitlines() if "::" in line] for text in listed)
    assert set(quick) < set(every) and len(quick) < 0.7 * len(every)
    for name in ga.REGISTRY:
        assert any(f"test_every_transform_agrees[{name}-0]" in line for line in quick), name
    for dtype in ("uint8", "float16", "bfloat16", "float32"):
        assert sum(f"{dtype}]" in line for line in quick) >= 4, dtype


def test_a_card_that_is_not_there_is_a_failure_and_no_skip():
    done = ran("-m", "pytest", "tests/gpu", "-q", GPUAUG_DEVICE="cuda", TRITON_INTERPRET="0")
    assert done.returncode == 1 and "need a CUDA card" in done.stdout + done.stderr


def test_the_tests_for_a_card_pass_under_the_interpreter():
    chosen = "(masks and 3) or (a_call_again and weak) or (whole_policies and flip) or (cutmix_writes and 1) or (draws_the_same and ResizedCrop) or partners_are or random_policies or (targets_follow and moves)"
    done = ran(
        "-m", "pytest", "tests/gpu", "-q", "-W", "default", "-p", "no:cacheprovider", "-k", chosen, GPUAUG_DEVICE="cpu"
    )
    assert done.returncode == 0, done.stdout
    passed = int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed > 14, f"vacuous: {passed} tests ran"


def test_the_memory_that_is_expected_is_that_of_the_launches():
    """The suite reads it from the plan; without a card this much can be checked: the executor makes such launches, and
    not all alike."""
    code = "from on_card import MEMORY, between; import gpuaug as ga; print({k: between(ga.Policy(v), (224, 224)) for k, v in MEMORY.items()})"
    path = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "tests" / "support", ROOT / "tests" / "gpu")))
    done = ran("-c", code, GPUAUG_DEVICE="cpu", TRITON_INTERPRET="1", PYTHONPATH=path)
    assert done.stdout.strip() == "{'flip': 0, 'moderate': 401408, 'turned': 401408}", done.stdout + done.stderr


def test_every_file_for_a_card_can_be_imported():
    files = sorted(f.stem for f in (ROOT / "tests" / "gpu").glob("*.py") if f.stem != "conftest")
    path = os.pathsep.join(
        map(str, (ROOT, ROOT / "kernels", ROOT / "tests", ROOT / "tests" / "support", ROOT / "tests" / "gpu"))
    )
    done = ran("-c", f"import {', '.join(files)}", GPUAUG_DEVICE="cuda", PYTHONPATH=path)
    assert "test_gpu_streams" in files and done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "said"), [(0, "memcheck: clean"), (9, "memcheck: found errors"), (3, "memcheck: the tests ended with 3")]
)
def test_what_the_sanitizer_finds_is_said(code, said, tmp_path):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(
        f"#!/bin/sh\n[ $2 = memcheck ] && [ $GPUAUG_DEVICE = cuda ] && [ $TRITON_INTERPRET = 0 ] && exit {code}\nexit 77\n"
    )
    tool.chmod(0o755)
    path = os.pathsep.join((str(tmp_path), os.environ["PATH"]))
    done = ran("tests/gpu/sanitize.py", "memcheck", PATH=path)
    assert said in done.stdout and done.returncode == int(code > 0)


def test_a_sanitizer_that_is_not_there_is_said():
    done = ran(
        "-c",
        "import sanitize; sanitize.PLACES = (); raise SystemExit(sanitize.main(['memcheck']))",
        PATH="",
        PYTHONPATH=str(ROOT / "tests" / "gpu"),
    )
    assert done.returncode == 2 and "not checked" in done.stdout


def everything(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """A few lines about the script that runs all of it, and about `steps` of its kind."""
    path = os.pathsep.join((str(ROOT / "tests" / "gpu"), str(ROOT)))
    before = f"import json, sys; from pathlib import Path; import everything; folder = Path({str(tmp_path)!r}); "
    return ran("-c", before + code, PYTHONPATH=path)


def test_the_steps_on_a_card_are_written_one_by_one_and_stop_inside_the_limit(tmp_path):
    done = everything(
        "step = lambda s, t: (t, ('-c', s)); "
        "rows = everything.run({'good': step('print(5)', 9), 'bad': step('raise SystemExit(3)', 9), "
        "'slow': step('import time; time.sleep(60)', 1), "
        # one that does not end when it is told to
        "'longer': step('import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)', 60), "
        "'late': step('print(6)', 9)}, 6, folder, 1)",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "everything.json").read_text())
    assert [row["code"] for row in rows] == [0, 3, None, None, None]
    assert [row["said"].split()[0] for row in rows] == ["clean", "ended", "cut", "cut", "not"]
    assert sum(row["seconds"] for row in rows) < 9
    assert (tmp_path / "good.txt").read_text().strip() == "5"


def test_packages_that_a_card_lacks_are_named_before_anything_starts(tmp_path):
    done = everything(
        "everything.NEEDS = {'tests': ('json', 'kornia_rs_of_nobody')}; everything.STEPS = {}; "
        "everything.missing.__defaults__ = (('tests',),); "
        "raise SystemExit(everything.main(['--out', str(folder)]))",
        tmp_path,
    )
    assert done.returncode == 0 and done.stdout.startswith("tests: missing kornia_rs_of_nobody"), done.stdout


# ---- what compiling takes


def predicted(*arguments: str) -> dict[str, Any]:
    """What `compile_time.py` says."""
    folders = (ROOT, ROOT / "kernels", ROOT / "tests", ROOT / "tests" / "support", ROOT / "tests" / "gpu")
    done = ran("tests/gpu/compile_time.py", *arguments, PYTHONPATH=os.pathsep.join(map(str, folders)))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_the_kernels_of_tests_are_found_and_compiled_without_a_card():
    found = predicted("--only", "whole_policies_agree and flip", "--sample", "1")
    # one kernel draws for both layouts, and for the reference on the card; each layout has one of its own
    kinds = {name: row["kernels"] for name, row in found["by kind"].items()}
    assert found["tests"] == 2 and kinds == {"chain 2": 2, "draw_parameters 0": 1}, found
    assert found["compiled here"] == 2 and 0 < found["CPU seconds of all"] < 60


def test_processes_that_share_a_cache_compile_each_kernel_once_unless_they_begin_at_once():
    code = (
        "import compile_time as c; c.START, c.TEST, c.LOAD = 0.0, 0.0, 1.0; "
        "row = lambda *kernels: {'test': '', 'kernels': list(kernels)}; "
        "print(c.played([row(0), row(0)], [5.0], 1), c.played([row(0), row(0)], [5.0], 2), "
        "c.played([row(0), row(1), row(0)], [5.0, 5.0], 1, 'aba'), c.played([row(0), row(1)] * 4, [9.0, 4.0], 2, 'ab' * 4))"
    )
    path = os.pathsep.join(map(str, (ROOT / "tests" / "gpu", ROOT)))
    done = ran("-c", code, PYTHONPATH=path)
    assert done.stdout.split() == ["5.0", "5.0", "10.0", "9.0"], done.stdout + done.stderr


@pytest.mark.slow
def test_the_tests_on_a_card_take_four_minutes_at_most():
    """As predicted from this machine's seconds, which is busy with other tests."""
    found = predicted("--sample", "3")
    assert found["tests"] > 350 and 300 < found["kernels"] < 500, found
    assert found["predicted, 14 processes"] < 240, found
