"""The bench of the loaders: what it measures is what it says, and a side that does other work is not timed."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from bench import bench_loader, bench_memory, bench_python, bench_resident, end_to_end, photographs, processes
from bench.contenders import loaders
from gpuaug.apps.cli import app

SPEND = """
import subprocess, sys, time
held = bytearray(60_000_000)
child = subprocess.Popen([sys.executable, "-c", "import time; held = bytearray(40_000_000); time.sleep(60)"])
end = time.process_time() + 0.3
while time.process_time() < end: pass
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("checked")
    end_to_end.write(root, 32)
    return root


# ---- what a process costs


def test_children_count_in_time_and_memory():
    process = subprocess.Popen([sys.executable, "-c", SPEND], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        end = time.monotonic() + 20
        with processes.peak_memory(process.pid) as peak:
            while peak.bytes < 100e6 and time.monotonic() < end:
                time.sleep(0.02)
        # two interpreters beside what they hold
        assert 100e6 <= peak.bytes < 160e6 and len(processes.tree(process.pid)) == 2
        assert processes.cpu_seconds(process.pid) >= 0.3
    finally:
        for pid in reversed(processes.tree(process.pid)):
            subprocess.run(["kill", "-9", str(pid)], check=False)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert processes.memory(process.pid) == 0


# ---- the photographs


def test_photographs_are_of_the_size_that_is_told(tmp_path):
    photographs.write(tmp_path / "made", 26)
    files = sorted((tmp_path / "made").rglob("*.jpg"))
    assert len(files) == 26 and len({f.parent for f in files}) == 10
    assert all(photographs.SMALLEST <= f.stat().st_size <= photographs.LARGEST for f in files)
    for file in files:
        with Image.open(file) as image:
            assert photographs.HEIGHTS[0] <= image.height < photographs.HEIGHTS[1]
            assert photographs.WIDTHS[0] <= image.width < photographs.WIDTHS[1]
    assert len({f.read_bytes() for f in files}) == 26 and not (tmp_path / "made.part").exists()


# ---- sides


@pytest.mark.parametrize("policy", ["weak", "moderate"])
def test_the_loader_does_the_work_that_is_asked(checked, policy):
    assert bench_loader.judged("gpuaug loader", checked, policy, 1) == ""


def test_a_side_that_does_other_work_is_found(checked, monkeypatch):
    side = loaders.SIDES["gpuaug loader"]

    def dark(folder):
        epoch = side.make(folder)
        return lambda: (batch - 1.0 for batch in epoch())

    monkeypatch.setitem(loaders.SIDES, "gpuaug loader", replace(side, make=dark))
    assert "distributed differently" in bench_loader.judged("gpuaug loader", checked, "weak", 1)


@pytest.mark.parametrize("name", [n for n, side in loaders.SIDES.items() if n.startswith("gpuaug") and not side.whole])
def test_parts_of_the_loader_give_all_its_batches(checked, name):
    folder = loaders.Folder(checked, bench_loader.workload("weak", 8), 1)
    epoch = loaders.SIDES[name].make(folder)
    for _ in range(2):
        batches = list(epoch())
        assert [len(b) for b in batches] == [8] * 4


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@pytest.mark.parametrize("read", ["Pillow", "io"])
def test_the_dataloaders_give_float_batches(checked, read):
    epoch = loaders.dataloader(loaders.Folder(checked, bench_loader.workload("moderate", 8), 0), read)
    batches = list(epoch())
    assert len(batches) == 4 and all(b.shape == (8, 3, 224, 224) and b.dtype == torch.float32 for b in batches)


# ---- all of it


@pytest.mark.slow
def test_a_whole_run_times_every_side_that_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_loader.results, "RESULTS", tmp_path)
    asked = (bench_loader.OURS, "torchvision DataLoader, Pillow", bench_loader.DECODING, bench_loader.AUGMENTING)
    order = bench_loader.Order(tmp_path / "made", ("weak",), asked, 32, 8, 1, 2, 900, store=True)
    said: list[str] = []
    rows = {row["side"]: row for row in bench_loader.run(order, said.append)}
    assert set(rows) == set(asked) and all(row["status"] == "ok" for row in rows.values()), rows
    for row in rows.values():
        assert row["images"] == 32 and row["images/s"]["n"] == 2
        assert all(row[k]["median"] > 0 for k in ("first batch, seconds", "CPU seconds per 1000 images"))
        assert row["peak memory, bytes"]["median"] > 1e8
    assert rows[bench_loader.OURS]["times as long as gpuaug loader"]["median"] == 1.0
    # however loaded the machine is, it is made of what the sides took in the same turns
    sides = (bench_loader.OURS, bench_loader.DECODING, bench_loader.AUGMENTING)
    ours, decoding, augmenting = (rows[side]["images/s"] for side in sides)
    low, high = (
        ours[mine] * (1 / decoding[other] + 1 / augmenting[other]) for mine, other in (("low", "high"), ("high", "low"))
    )
    share = rows[bench_loader.OURS]["share of 1 / (1/decoding alone + 1/augmenting alone)"]["median"]
    assert 0.99 * low < share < 1.01 * high
    kept = json.loads((tmp_path / "loader.json").read_text())
    assert kept["rows"] == list(rows.values()) and kept["about"]["commit"] and kept["about"]["rounds"] == 2
    assert len(bench_loader.lines(kept["rows"])) == len(asked) + 1
    assert any("turn 2 of 2" in line for line in said)


def test_absent_and_red_sides_are_told_and_not_timed():
    rows = [
        {"policy": "weak", "side": "SPDL alone", "status": "absent", "why": "spdl is not installed"},
        {"policy": "weak", "side": "DALI alone", "status": "not comparable", "why": "its mean is off"},
    ]
    first, second = bench_loader.lines(rows)
    assert "absent: spdl is not installed" in first and "not comparable: its mean is off" in second


def refused(*args: object, words: str) -> None:
    result = CliRunner().invoke(app, ["bench", "loader", *map(str, args)])
    assert result.exit_code == 1 and result.stderr.startswith("gpuaug: ") and result.stderr.count("\n") == 1
    assert words in result.stderr


def test_bad_input_is_refused_in_a_sentence(tmp_path, checked):
    (tmp_path / "file").write_text("no folder")
    refused("--data", tmp_path / "file", words="is no folder")
    refused("--data", checked, words="32 JPEG files, fewer than a batch of 256")
    refused("--policy", "weakest", words="policy must be one of")
    refused("--side", "nobody", words="a side must be one of")
    refused("--limit", 0, words="limit must be above 0 s")


def test_no_round_begins_after_the_limit_and_there_is_always_one(checked, monkeypatch):
    asked, said = [], []

    class Side:
        def __init__(self, name, *_):
            self.name, self.pid = name, 0

        def ask(self, what):
            asked.append((self.name, what))
            time.sleep(0.02)
            return {"seconds": 0.02, "why": ""}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(bench_loader, "Side", Side)
    monkeypatch.setattr(bench_loader.processes, "settled", lambda pid: None)
    monkeypatch.setattr(bench_loader.processes, "memory", lambda pid: 1)
    for limit, rounds in ((1e-3, 1), (600, 4)):
        asked.clear()
        order = bench_loader.Order(checked, ("weak", "moderate"), (bench_loader.OURS,), 32, 8, 1, 4, limit)
        rows = bench_loader.measure(order, said.append)
        assert [row["images/s"]["n"] for row in rows] == [rounds, rounds]
        assert sum(what == "epoch" for _, what in asked) == 2 * rounds
    assert said[-1].endswith("moderate: turn 4 of 4, gpuaug loader") and "of 600 s" in said[-1]


# ---- memory


@pytest.mark.slow
def test_memory_grows_with_what_is_loaded_and_holds_results_at_its_most(checked):
    *before, most = bench_memory.measure(checked, "weak", 1, 16)
    assert [row["after"] for row in before] == [
        "Python",
        "import torch",
        "import gpuaug",
        "Loader(...)",
        "loaded once",
    ]
    sizes = [row["anonymous"] for row in (*before, most)]
    assert sizes == sorted(sizes) and all(r["PSS"] >= r["anonymous"] + r["mapped files"] for r in (*before, most))
    assert most["a result"] == 16 * 3 * 224 * 224 * 4 and most["kept for results"] >= 2 * most["a result"]
    with pytest.raises(ValueError, match="fewer than a batch of 256"):
        bench_memory.measure(checked, "weak", 1)


# ---- Python


def test_python_is_what_threads_take_without_native_work(checked):
    row = bench_python.measure(checked, "weak", 3, 8)
    native = row["native in these threads, ms a batch"]
    assert set(native) >= {"kernels", "draws", "files"} and all(ms > 0 for ms in native.values())
    assert row["Python, ms a batch"] > 0 and row["single batches, ms"]["n"] == 3


def test_native_calls_count_once_and_by_the_time_of_their_thread():
    native = bench_python.Native()

    def busy(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    outer = native.timed("outer", lambda: native.timed("inner", busy)(0.05))
    outer()
    native.timed("asleep", time.sleep)(0.05)
    assert 0.05 <= native.total("outer") < 0.1 and not native.total("inner") and native.total("asleep") < 0.02


# ---- small images in memory


def test_the_resident_side_is_checked_and_a_wrong_one_is_found(monkeypatch):
    monkeypatch.setattr(bench_resident, "N", 1024)
    monkeypatch.setattr(bench_resident, "BATCH", 128)
    made = bench_resident.endless(bench_resident.sides(0)[bench_resident.OURS])
    assert bench_resident.check(made) == "" or bench_resident.check(made) == ""
    assert "distributed differently" in bench_resident.check(batch * 0.8 for batch in made)
    assert next(made).dtype == torch.float32 and next(made).shape == (128, 1, 28, 28)


def test_what_workers_have_made_ahead_is_no_part_of_a_turn(monkeypatch):
    taken = {"ours": [], "torchvision, 0 workers": [], "torchvision, 3 workers": []}

    def batches(name):
        while True:
            taken[name].append("timed" if running else "before")
            yield torch.zeros(1)

    running, spent = [], count()

    def once(work, device):
        running.append(True)
        work()
        running.pop()
        return 1.0

    monkeypatch.setattr(bench_resident, "OURS", "ours")
    monkeypatch.setattr(bench_resident, "TURN", {"ours": 7, "other": 5})
    monkeypatch.setattr(bench_resident, "sides", lambda workers: {n: lambda n=n: batches(n) for n in taken})
    monkeypatch.setattr(bench_resident, "check", lambda batches: "")
    monkeypatch.setattr(bench_resident.timing, "once", once)
    monkeypatch.setattr(bench_resident.processes, "settled", lambda pid, seconds: None)
    monkeypatch.setattr(bench_resident.processes, "cpu_seconds", lambda pid: float(next(spent)))
    bench_resident.measure(1, 3)
    assert taken["ours"] == ["timed"] * 14 and taken["torchvision, 0 workers"] == ["timed"] * 10
    ahead = 3 * bench_resident.AHEAD
    one = ["before"] * (2 * ahead) + ["timed"] * 5
    assert taken["torchvision, 3 workers"] == one * 2


def test_every_side_of_the_small_images_has_its_rows(monkeypatch):
    monkeypatch.setattr(bench_resident, "N", 512)
    monkeypatch.setattr(bench_resident, "BATCH", 64)
    monkeypatch.setattr(bench_resident, "TURN", {bench_resident.OURS: 200, "other": 1})
    monkeypatch.setattr(bench_resident, "check", lambda batches: "")
    rows = bench_resident.measure(2, 0)
    assert len(rows) == 3 and rows[0]["side"] == bench_resident.OURS and rows[0]["times as long"]["median"] == 1.0
    assert all(np.isfinite(r["images/s"]["median"]) and r["images/s"]["n"] == 2 for r in rows)
