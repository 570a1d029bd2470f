"""The first calls: what `warmup` leaves to do, who compiles where several processes start together, and what is said
meanwhile."""

import os
import sys
import time
from pathlib import Path

import children
import numpy as np
import pytest
import torch

import gpuaug as ga
from gpuaug.trace import cache, tensor

ROOT = Path(ga.__file__).parent.parent
STEPS = [ga.RandomResizedCrop(12), ga.RandomHorizontalFlip(), ga.ColorJitter(0.2, 0.2), ga.CutMix(num_classes=5)]
LIST = [np.zeros((20, 30, 3), np.uint8), np.zeros((17, 25, 3), np.uint8)]
DENSE = torch.zeros(2, 3, 20, 30, dtype=torch.uint8)
# what is warmed up, and a call for which it must have been enough
BATCHES = {
    "a shape": ((2, 3, 20, 30), DENSE),
    "a tensor": (DENSE, DENSE.clone()),
    "a list": (LIST, [i + 1 for i in LIST]),
    "a batch": (ga.Batch(DENSE, torch.tensor([1, 2])), DENSE),
}


@pytest.mark.parametrize("name", BATCHES)
def test_nothing_is_left_to_find_after_a_warmup(name, monkeypatch):
    what, images = BATCHES[name]
    policy, traced = ga.Policy(STEPS), []
    monkeypatch.setattr(cache, "find", lambda *a, find=cache.find: traced.append(1) or find(*a))
    assert policy.warmup(what) is policy
    assert traced == [1], "vacuous: a warmup finds the recipe of its kind"
    policy(images, torch.tensor([0, 1]))
    assert traced == [1]


def test_a_warmup_counts_no_samples_and_changes_no_pixel():
    warm, cold = (ga.Policy(STEPS, seed=3) for _ in range(2))
    warm.warmup((2, 3, 20, 30))
    assert warm.next_id == 0
    images, labels = (
        torch.arange(2 * 3 * 20 * 30).remainder(256).to(torch.uint8).view(2, 3, 20, 30),
        torch.tensor([0, 1]),
    )
    for got, want in zip(warm(images, labels), cold(images, labels), strict=True):
        assert torch.equal(got, want)
    assert warm.next_id == cold.next_id == 2


@pytest.mark.parametrize("shape", [(3, 20, 30), (2, 3, 20, 0), (1, 1, 2, 3, 4, 5)])
def test_a_shape_that_is_none_is_refused_by_name(shape):
    with pytest.raises(ValueError, match=r"shape must be \(N, C, H, W\).*got"):
        ga.Policy(STEPS).warmup(shape)


def test_a_new_size_asks_torch_for_few_shapes_again():
    policy = ga.Policy(STEPS)
    policy.warmup((2, 3, 20, 30))
    known = tensor._outcome.cache_info()
    policy.warmup((2, 3, 21, 31))
    now = tensor._outcome.cache_info()
    asked, again = now.misses - known.misses, now.hits - known.hits
    assert again > 100, "vacuous: nothing was traced"
    assert asked < again / 10


def test_what_is_remembered_of_shapes_depends_on_the_type_of_a_number_and_on_the_default_dtype():
    like, add = tensor._described((torch.zeros(4, dtype=torch.int64), 1)), torch.ops.aten.add.Tensor
    none, half = tensor._described({}), tensor._described((torch.zeros(4, dtype=torch.int64), 1.0))
    found = [tensor._outcome(add, args, none, torch.get_default_dtype()).dtype for args in (like, half)]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found.append(tensor._outcome(add, half, none, torch.get_default_dtype()).dtype)
    finally:
        torch.set_default_dtype(before)
    assert found == [torch.int64, torch.float32, torch.float64]


# ---- processes that start together

TINY = """
from gpuaug.numba_cache import kernel, njit

@njit
def twice(x):
    return 2 * x

@kernel
def run(x):
    return twice(x) + 1
"""
START = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from gpuaug import numba_cache
seconds, silent, me = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
numba_cache._SILENT = silent
plain = numba_cache._announced

@contextmanager
def slow(kept):
    with plain(kept):
        Path(f"{me}.compiles").touch()
        time.sleep(seconds)
        yield

numba_cache._announced = slow
import tiny
Path(f"{me}.ready").touch()
while not Path("go").exists():
    time.sleep(0.01)
assert tiny.run(20) == 41
print(sum(tiny.run.stats.cache_hits.values()))
"""


class Processes:
    """Python processes in a folder of their own, with a kernel that nobody has compiled."""

    def __init__(self, folder: Path):
        self.folder, self.all = folder, []
        (folder / "tiny.py").write_text(TINY)
        (folder / "start.py").write_text(START)
        (folder / "cache").mkdir()
        paths = os.pathsep.join(map(str, (folder, ROOT, ROOT / "kernels")))
        self.env = os.environ | {"PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(folder / "cache")}

    def start(self, name: str, seconds: float, silent: float = 60.0) -> children.Child:
        command = [sys.executable, "start.py", str(seconds), str(silent), name]
        made = children.Child(command, self.env, self.folder)
        self.all.append(made)
        return made

    def wait_for(self, *files: str) -> None:
        end = time.monotonic() + 120
        while not all((self.folder / f).exists() for f in files):
            assert time.monotonic() < end and all(p.poll() in (None, 0) for p in self.all), f"no {files}"
            time.sleep(0.01)

    def go(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
def processes(tmp_path):
    made = Processes(tmp_path)
    yield made
    for p in made.all:
        p.kill()
        p.communicate()


def test_processes_that_start_together_compile_once(processes):
    two = [processes.start(name, 1.0) for name in "ab"]
    processes.wait_for("a.ready", "b.ready")
    processes.go()
    answers = [p.communicate(timeout=120) for p in two]
    assert [p.returncode for p in two] == [0, 0], answers
    assert sorted(out.strip() for out, _ in answers) == ["0", "1"], "one compiles, the other loads"
    assert sum((processes.folder / f"{name}.compiles").exists() for name in "ab") == 1


def test_a_checkout_elsewhere_finds_what_the_same_sources_compiled_to(tmp_path):
    found = []
    for checkout in ("one", "two"):
        folder = tmp_path / checkout / "package"
        folder.mkdir(parents=True)
        made = Processes(folder)
        made.env["NUMBA_CACHE_DIR"] = str(tmp_path / "kept")
        made.go()
        process = made.start("a", 0.0)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        found.append((out.strip(), (folder / "a.compiles").exists()))
    assert found == [("0", True), ("1", False)]


def test_a_process_that_dies_while_it_compiles_holds_nobody_up(processes):
    first = processes.start("a", 600.0)
    processes.wait_for("a.ready")
    processes.go()
    processes.wait_for("a.compiles")
    second = processes.start("b", 0.0)
    processes.wait_for("b.ready")
    time.sleep(0.2)
    assert not (processes.folder / "b.compiles").exists(), "vacuous: the second does not wait"
    first.kill()
    first.wait()
    processes.all.remove(first)
    out, err = second.communicate(timeout=120)
    first.communicate()
    assert second.returncode == 0 and out.strip() == "0", err


@pytest.mark.parametrize("kept", [True, False], ids=["a folder", "no folder"])
def test_a_long_compile_says_in_one_line_what_it_does_and_where_the_result_goes(processes, kept):
    if not kept:
        # files stand where folders would be made
        processes.env |= dict.fromkeys(
            ("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME"), str(processes.folder / "tiny.py" / "none")
        )
        processes.env["PYTHONDONTWRITEBYTECODE"] = "1"
        (processes.folder / "__pycache__").write_text("")
    processes.go()
    long = processes.start("a", 0.5, 0.1)
    out, err = long.communicate(timeout=120)
    assert long.returncode == 0 and out.strip() == "0", err
    lines = [line for line in err.splitlines() if line.startswith("gpuaug: ")]
    assert len(lines) == 1 and "compiling" in lines[0]
    assert (str(processes.folder / "cache") in lines[0]) is kept and ("NUMBA_CACHE_DIR" in lines[0]) is not kept
    short = processes.start("b", 0.0)
    out, err = short.communicate(timeout=120)
    assert short.returncode == 0 and "gpuaug: " not in err and out.strip() == str(int(kept))
