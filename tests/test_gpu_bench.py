"""The bench for a card, tried without one: nothing is timed on a red gate, a part that fails loses nothing else, shares
are of the right bytes."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.contenders.registry import CONTENDERS
from bench.gpu import ahead, clock, decoders, loader, loading, parts, run, workloads
from bench.gpu.clock import Pace
from bench.gpu.parts import Card, Ours
from bench.report import results
from gpuaug.data import decode

CPU = torch.device("cpu")
CARD = Card(CPU, Pace(0, 2, 2, 0), Pace(0, 2, 2, 0), 4, 1e9)


@pytest.fixture(scope="module")
def jobs() -> dict[str, workloads.Job]:
    return {j.name: j for j in workloads.jobs(2, 14, (15, 20), 2)}


def stored() -> set[Path]:
    # a run of single workloads, in another process perhaps, writes its own
    return {p for p in results.RESULTS.glob("*") if p.stem != "selection"}


def test_a_dry_run_measures_every_part_and_stores_nothing_of_record(tmp_path, capsys):
    before, path = stored(), tmp_path / "dry.json"
    with torch.random.fork_rng(devices=[]):
        assert (
            run.main(["--device", "cpu", "--quick", "--only", "flip", "growth", "training", "--output", str(path)]) == 0
        )
    data, printed = json.loads(path.read_text()), capsys.readouterr().out
    assert (
        stored() == before
        and data["conditions"]["dry run"]
        and {"versions", "commit", "device"} <= data["conditions"].keys()
    )
    row = data["jobs"]["flip + normalise"]
    assert {"gate", *parts.PARTS} <= row.keys() and "predicted" in row and "chain.chain" in row["speeds"]["kernels"]
    for name in (
        "whole call",
        "in a graph",
        "pixel kernels",
        "copy of these bytes",
        "copy in a graph",
    ):
        assert row["speeds"][name]["ms"]["median"] > 0 and row["speeds"][name]["ms"]["n"] >= 2, name
    # on a host no kernel draws
    assert "no kernel of a call draws" in row["speeds"]["draws in a graph"]["failed"]
    assert row["rivals"]["torchvision"]["times ours"]["median"] > 0 and row["host ms"]["call"]["median"] > 0
    points = [point["cost"] for point in data["growth"].values()]
    assert len(points) >= 2 and all(
        p["whole call"]["us an image"]["median"] > 0 and p["unavoidable bytes"] > 0 for p in points
    )
    assert "flip + normalise" in printed
    trained = data["training step"]
    assert all(trained[name]["times the cached batch"]["n"] >= 2 for name in ("cached batch", "gpuaug")), trained


def test_a_card_that_is_not_there_is_said(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run.main(["--quick"]) == 1 and "no CUDA card" in capsys.readouterr().err


def test_the_workloads_are_those_of_the_requirements():
    found = {j.name: j for j in workloads.jobs()}
    flip, weak, h1 = (found[k] for k in ("flip + normalise", "weak, ragged", "H1 of triton-augment"))
    assert (
        flip.workload.batch == weak.workload.batch == 256
        and (h1.workload.batch, h1.workload.size) == (64, (256, 256))
        and h1.workload.floats
    )
    assert flip.unavoidable() == 256 * 3 * 224 * 224 * (1 + 2)
    # a crop looks at about half of a photograph
    assert 0.4 < (weak.unavoidable() / 256 - 3 * 224 * 224 * 2) / (3 * 375 * 500) < 0.6
    assert h1.unavoidable() == 64 * 3 * 224 * 224 * (4 + 4)
    assert {j.workload.batch for j in workloads.growth(False, False)} >= {1, 1024}
    assert {j.workload.size[0] for j in workloads.growth(False, False)} >= {32, 1024}
    assert found.keys() >= set(NEW)
    large = found["large photographs, weak"].workload
    assert (large.batch, large.size) == (64, (1200, 1600))
    names = {c for j in found.values() if j.quick for c in j.rivals}
    assert names >= {"triton-augment", "torchtransform", "torchvision compiled"} <= {c.name for c in CONTENDERS}


def test_images_of_a_ragged_batch_have_the_mean_size_of_a_photograph():
    job = next(j for j in workloads.jobs(64, 14, (75, 100), 2) if j.ragged)
    sizes = torch.tensor([i.shape[:2] for i in job.sources(CPU)[0].hwc_on_device])
    assert (
        len({tuple(s) for s in sizes.tolist()}) > 30
        and (sizes.double().mean(0) - torch.tensor([75, 100])).abs().max() < 4
    )


NEW = ("strong", "rotation, bilinear", "salt and pepper", "CutMix", "large photographs, weak", "blur", "very strong")


@pytest.mark.parametrize(
    "name", [n if n in ("CutMix", "strong") else pytest.param(n, marks=pytest.mark.slow) for n in NEW]
)
def test_the_gate_of_a_workload_is_green(name, jobs):
    assert jobs[name].quick and Ours(jobs[name], CARD).gate()["another epoch changes"] > 0.01


def test_values_beyond_a_jump_are_few_and_only_where_there_are_jumps(jobs):
    assert {n for n, job in jobs.items() if job.jumps} == {"strong", "very strong"}
    assert max(job.jumps for job in jobs.values()) <= 1e-3


def test_nothing_is_timed_where_the_gate_is_red(jobs, monkeypatch):
    job = jobs["flip + normalise"]
    assert Ours(job, CARD).gate()["samples"] == 2
    monkeypatch.setattr(workloads.Job, "tolerance", lambda self, want: want.abs() * 0 - 1)
    rows: dict[str, Any] = {}
    run.measure(job, CARD, run.Log(None, 60.0), rows, parts.PARTS)
    assert rows[job.name]["gate"]["status"] == "red" and not parts.PARTS.keys() & rows[job.name].keys()


def test_a_batch_that_shows_is_red(jobs, monkeypatch):
    ours = Ours(jobs["flip + normalise"], CARD)
    few = ours.job.few(ours.sources[0]).flip(0)
    monkeypatch.setattr(workloads.Job, "few", lambda self, source: few)
    with pytest.raises(parts.Red, match="batch"):
        ours.gate()


def fails(ours: Ours) -> Any:
    raise RuntimeError("first line\nthe last one")


def test_a_part_that_fails_is_recorded_and_loses_nothing_else(jobs, tmp_path):
    rows: dict[str, Any] = {}
    log = run.Log(tmp_path / "found.json", 60.0, {"jobs": rows})
    chosen: dict[str, Callable[[Ours], Any]] = {"first": fails, "bound": parts.bound}
    run.measure(jobs["weak, ragged"], CARD, log, rows, chosen)
    row = json.loads(log.path.read_text())["jobs"]["weak, ragged"]
    assert (
        row["first"] == {"status": "failed", "why": "RuntimeError: the last one"}
        and row["bound"]["unavoidable bytes"] > 0
    )
    late = run.Log(None, 0.0)
    assert not late.part(rows, "late", lambda: 1) and rows["late"]["status"] == "not run"


def test_launches_are_made_again_into_the_same_memory(jobs):
    ours = Ours(jobs["flip + normalise"], CARD)
    outputs: list[torch.Tensor] = []
    found = clock.launches(lambda: outputs.append(ours.step()))
    want = outputs[0].clone()
    # bfloat16 is written as float32 under the interpreter, and cast afterwards
    given = [a for one in found for a in one.arguments if isinstance(a, torch.Tensor)]
    written = next(a for a in given if a.shape == want.shape and a.dtype == torch.float32)
    kept = written.clone()
    written.fill_(float("nan"))
    for one in found:
        one.again()
    assert torch.equal(written, kept) and torch.equal(written.to(want.dtype), want)


class Fake:
    """A contender that is not installed anywhere."""

    name, unit, draws = "fake", "batch", "each image its own"

    def version(self) -> str:
        return "1"

    def build(self, workload: Any, device: torch.device, threads: int) -> Any:
        return lambda source: torch.zeros(2, 3, 14, 14)


@pytest.mark.parametrize(("lighter", "status"), [((), "not comparable"), ((("fake", "it does nothing"),), "does less")])
def test_unequal_work_has_no_number_unless_it_is_known_to_be_less(lighter, status, jobs, monkeypatch):
    job = jobs["flip + normalise"]
    less = type(job)(**{**vars(job), "lighter": lighter})
    monkeypatch.setattr(workloads.Job, "contenders", lambda self: [Fake()])
    monkeypatch.setattr(parts.suite, "verdict", lambda *a: "it is wrong")
    row = parts.rivals(Ours(less, CARD))["fake"]
    assert row["status"] == status and ("ms" in row) == (status == "does less")
    assert "wrong" in row.get("why", row.get("what"))


def test_times_are_those_of_what_ran():
    calls: list[str] = []
    works = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    seconds = clock.alternate(works, CPU, Pace(0, 3, 3, 0))
    assert [len(v) for v in seconds.values()] == [3, 3] and calls[4:] == ["a", "b", "b", "a", "a", "b"]
    assert len(clock.host(lambda: None, CPU, 8)) == 6 and clock.bandwidth(CPU, Pace(0, 2, 2, 0), 2**20).median > 0
    assert clock.captured(lambda: calls.append("c"), CPU, 3)() is None and calls[-3:] == ["c"] * 3


# ---- decoders and the loader


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    decoders.write(folder, 12)
    return folder


def served(folder: Path, *places: tuple[str, str]) -> dict[tuple[str, str], Any]:
    """What the process that measures finds of some parts, in this one."""
    told = {"device": "cpu", "folder": str(folder), "tiny": True, "scale": 1.0, "until": time.time() + 600, "found": {}}
    rows: list[dict[str, Any]] = []
    loader.serve({**told, "parts": places}, rows.append)
    assert [tuple(r["begins"]) for r in rows[::2]] == list(places)
    return {place: r["found"] for place, r in zip(places, rows[1::2], strict=True)}


ALONE, RIGHT, PIXELS = decoders.ALONE, decoders.RIGHT, decoders.PIXELS
CPU_DECODER = "torchvision" + decoders.ON_CPU


def test_decoders_are_measured_without_a_card_and_those_of_a_gpu_are_named_as_absent(files):
    assert {ALONE, RIGHT, PIXELS} <= loader.STAGES.keys() and len(loader.STAGES) == 7
    gone = [(stage, "dali" + decoders.ON_GPU) for stage in (ALONE, RIGHT, PIXELS)]
    found = served(files, *gone, *((stage, CPU_DECODER) for stage in (ALONE, RIGHT, PIXELS)))
    assert all(found[place] == {"status": "absent", "why": "no CUDA card is here"} for place in gone)
    assert found[ALONE, CPU_DECODER]["images/s"]["median"] > 0 and found[ALONE, CPU_DECODER]["threads"] in (1, 2)
    right = found[RIGHT, CPU_DECODER]
    assert (right["corrupt images"], right["of images"]) == (0, 5 * 6) and right["blocks that changed hands"] > 0, right
    # on a CPU every decoder gives Pillow's bits
    assert {s: (r["largest"], r["images"]) for s, r in found[PIXELS, CPU_DECODER].items()} == dict.fromkeys(
        decoders.SAMPLINGS, (0, 1)
    )


def test_files_of_the_loaders_bench_are_of_the_size_of_photographs(files):
    sizes = [p.stat().st_size for p in files.rglob("*.jpg")]
    assert len(sizes) == 12 and 56_000 < min(sizes) <= max(sizes) < 115_000, sizes
    assert len(list(files.iterdir())) == decoders.CLASSES


@pytest.mark.parametrize("wrong", ["a pixel", "memory of others"])
def test_an_image_that_is_not_right_is_counted(wrong, files, monkeypatch):
    made, calls = decode.decoder, list[Any]()

    def decoder(name: str, device: Any, threads: int | None = None) -> Any:
        real = made(name, device, threads)
        whole = real.decode

        def changed(items: Any, windows: Any = None) -> Any:
            out = whole(items, windows)
            calls.append(out)
            if len(calls) == 3 and wrong == "a pixel":
                out.images[1][7, 5, 1] ^= 4
            return out

        monkeypatch.setattr(real, "decode", changed)
        return real

    monkeypatch.setattr(decode, "decoder", decoder)
    if wrong != "a pixel":
        monkeypatch.setattr(decoders._Busy, "written", lambda self: 1)
    row = served(files, (RIGHT, CPU_DECODER))[RIGHT, CPU_DECODER]
    assert len(calls) == 6 and not row["met"], row
    assert (row["corrupt images"] == 1) == (wrong == "a pixel")
    assert (row["blocks of others that were written to"] > 0) == (wrong != "a pixel")


def test_training_takes_the_fastest_decoder_whose_images_are_all_right(tmp_path):
    alone = {f"{n}{decoders.ON_CPU}": {"images/s": {"median": r}} for n, r in (("dali", 3), ("torchcodec", 2))}
    found = {ALONE: alone, RIGHT: {}}
    assert loading.fastest(decoders.Task(CPU, tmp_path, 1.0, True, found)) == "dali"
    found[RIGHT] = {"dali" + decoders.ON_CPU: {"corrupt images": 1}}
    assert loading.fastest(decoders.Task(CPU, tmp_path, 1.0, True, found)) == "torchcodec"
    assert loading.fastest(decoders.Task(CPU, tmp_path, 1.0, True)) == "auto"


WORKER = """
import json, os, sys, time
told = json.loads(sys.stdin.read())
for place in told["parts"]:
    print(json.dumps({"begins": place}), flush=True)
    if place[1].startswith("torchcodec"):
        os.kill(os.getpid(), 11)
    if place[1].startswith("torchvision"):
        time.sleep(60)
    print(json.dumps({"found": {"of": place[1]}}), flush=True)
"""


def test_a_decoder_that_ends_or_hangs_its_process_loses_its_part_alone():
    kept: dict[tuple[str, str], Any] = {}
    places = [(ALONE, name + decoders.ON_CPU) for name in ("dali", "torchcodec", "torchvision", "pillow")]
    told = {"scale": 0.0, "until": time.time() + 60}
    loader.go(told, places, kept.__setitem__, (sys.executable, "-S", "-c", WORKER), grace=0.5)
    assert list(kept) == places
    assert [row.get("of", row.get("why")) for row in kept.values()] == [
        places[0][1],
        "its process ended with -11",
        "cut off after 0 s",
        places[3][1],
    ]
    late: dict[tuple[str, str], Any] = {}
    loader.go({**told, "until": time.time() - 1}, places, late.__setitem__)
    assert {row["status"] for row in late.values()} == {"not run"} and len(late) == 4


def test_a_dry_run_of_the_loader_is_never_stored_among_results(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        loader.main(["--dry-run", "--out", str(results.RESULTS)])
    assert "a dry run has no results" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert loader.main([]) == 1 and "no CUDA card" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_of_the_loader_goes_through_every_stage(tmp_path, capsys):
    before = stored()
    assert loader.main(["--dry-run", "--seconds", "400", "--out", str(tmp_path)]) == 0
    data, printed = json.loads((tmp_path / "dry_run_loader.json").read_text()), capsys.readouterr().out
    assert stored() == before and "no result" in data["conditions"]["dry run"] and "these are no results" in printed
    assert {"versions", "commit", "device", "files"} <= data["conditions"].keys()
    found = {(stage, part): row for stage, rows in data["stages"].items() for part, row in rows.items()}
    assert tuple(found) == loader.PLACES
    assert {p for (_, p), row in found.items() if row.get("status") == "absent"} >= {
        p for _, p in loader.PLACES if p.endswith(decoders.ON_GPU)
    }
    shares = found["loader beside its decoder", "torchvision"]
    for strength in ("weak", "moderate"):
        assert shares[f"loader, {strength}"]["share of alone, whole images"]["n"] >= 2
    step, run_of = found["training step", "resnet50"], found["training run", "small network"]
    assert step["times the cached batch"]["n"] >= 2 and step["decoder"] in decoders.GPU_DECODERS
    assert run_of["met"] and run_of["steps"] == 12, run_of
    assert len(found["memory", "torchvision"]["batches, MB"]) == 6


# ---- kernels that are compiled before anything is timed


@pytest.mark.parametrize("name", [j.name for j in workloads.jobs(2, 14, (15, 20), 2)])
def test_what_is_compiled_ahead_is_for_batches_such_as_a_job_calls_with(name, jobs):
    job = jobs[name]
    batch, images = ahead.blank(job), job.images(job.sources(CPU)[0])
    assert (batch.labels is not None) == job.workload.mixes
    if job.ragged:
        alike = [(i.channels, i.dtype, i.way, len(i)) for i in (batch.images, images)]
    else:
        alike = [(i.shape, i.stride(), i.dtype) for i in (batch.images, images)]
    assert alike[0] == alike[1]


def test_a_job_that_could_not_be_compiled_ahead_is_named_and_ends_nothing():
    # kernels are interpreted here
    made = ahead._run([("jobs", "flip + normalise")], "cuda:90", 120.0)
    assert "interpreted" in made["not compiled"]["flip + normalise"], made
    made = ahead._run([("jobs", "flip + normalise"), ("growth", "batch 1")], "cuda:90", 0.0)
    assert set(made["not compiled"].values()) <= {"not done in time", "not begun in time"} and made["seconds"] < 30


@pytest.mark.slow
def test_kernels_that_are_compiled_ahead_are_those_of_the_job(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert set(ahead._run([("jobs", "flip + normalise")], "cuda:90", 300.0)) == {"seconds"}
    assert {p.stem for p in tmp_path.rglob("*.cubin")} == {"chain", "draw_parameters"}
