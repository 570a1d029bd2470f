"""The bench is fair and cannot flatter: checks are red where work is not equal, ratios are paired, and README says what
was measured."""

import json
import math
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import children
import pytest
import torch

import gpuaug as ga
from bench import bench_limits, checks, guard, instructions, scenarios, sources, steps, suite, timing
from bench.contenders import registry
from bench.report import page, plots, readme, results
from bench.scenarios import TO_FLOAT, Workload
from bench.suite import Measured, Options, Row
from bench.timing import Budget, Spread

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
SMALL = Workload(
    "small",
    "policy",
    (ga.RandomResizedCrop(48), ga.RandomHorizontalFlip(), ga.ColorJitter(0.4, 0.4, 0.4), TO_FLOAT),
    size=(64, 80),
)
SURE = Workload("sure", "policy", (ga.Resize((32, 40)), TO_FLOAT), batch=4, size=(64, 80))


def policy_run(workload: Workload, **options):
    policy = ga.Policy(workload.transforms, seed=9)
    return lambda source: policy(source.channels_last, backend="reference", **options)


def alone() -> dict[str, str]:
    """The environment of a pytest of its own: one that takes itself for a worker beside others measures nothing."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}


def test_the_option_runs_the_bench_and_only_it_from_any_folder(tmp_path):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-k", "RandomInvert-"]
    flags = ["--benchmark", "--bench-seconds", "0.1", f"--benchmark-json={tmp_path / 'own.json'}"]
    done = children.run([*command, *flags], cwd=ROOT / "tests", timeout=300, env=alone())
    assert done.returncode == 0, done.stdout + done.stderr
    table, own = done.stdout.index("benchmark 'RandomInvert'"), done.stdout.index("= throughput =")
    assert table < own, "the report comes after pytest-benchmark's table"
    assert re.search(
        r"^  torchvision +[\d ,.]+ \(.*\) x .* %  +\d+  CPU, 1 thread, one image at a time", done.stdout, re.M
    )
    assert re.search(r"^  gpuaug triton +absent: ", done.stdout, re.M), "an absent contender is named"
    saved = json.loads((ROOT / "bench" / "results" / "selection.json").read_text())
    assert {"device", "versions", "commit", "threads"} <= saved["conditions"].keys()
    rows = {c["contender"]: c for c in saved["workloads"][0]["contenders"]}
    seconds = rows["torchvision"]["seconds"]
    assert rows["torchvision"]["images/s"]["n"] == len(seconds) >= 2
    theirs = {b["name"]: b["stats"]["median"] for b in json.loads((tmp_path / "own.json").read_text())["benchmarks"]}
    # pytest-benchmark was handed the very same times
    assert theirs["test_throughput[RandomInvert-torchvision]"] == pytest.approx(median(seconds), rel=0.001)


def test_without_the_option_the_bench_does_not_run():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-k", "RandomInvert-"]
    done = children.run(command, cwd=ROOT / "bench", timeout=300, env=alone())
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ skipped, \d+ deselected", done.stdout, re.M)
    assert "passed" not in done.stdout and "images/s" not in done.stdout


def test_every_transform_and_level_is_a_workload():
    found = {w.name for w in scenarios.workloads()}
    assert {
        "none",
        "weak",
        "moderate",
        "strong",
        "very strong",
        "seed recipe 28 px grey",
        "H1 of triton-augment",
    } <= found
    for name in ga.REGISTRY.keys() - found:
        transform, x = ga.REGISTRY[name](**ga.REGISTRY[name].example), torch.rand(2, 3, 8, 8)
        assert transform.children or torch.equal(ga.Policy([transform])(x), x), f"{name} is not timed"
    full = scenarios.workloads(full=True)
    assert {w.batch for w in full if w.group == "batch"} >= {1, 1024} and {
        w.size[0] for w in full if w.group == "size"
    } >= {32, 1024}
    assert {w.group for w in full} <= results.GROUPS.keys()


@pytest.mark.parametrize("workload", [SMALL, SURE], ids=lambda w: w.name)
def test_equal_work_passes_its_check(workload):
    source = sources.make(workload, CPU)
    truth = checks.reference(workload, policy_run(workload), source)
    torchvision = next(c for c in registry.CONTENDERS if c.name == "torchvision").build(workload, CPU, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for run in (torchvision, policy_run(replace(workload))):
            assert truth.judge(run, source, shared=False) == ""


def altered(*transforms):
    return policy_run(replace(SMALL, transforms=(*transforms, TO_FLOAT)))


CROP, FLIP, JITTER = SMALL.transforms[:3]
UNEQUAL = {
    "no jitter": altered(CROP, FLIP),
    "no flip": altered(CROP, JITTER),
    "no random crop": altered(ga.Resize((48, 48)), FLIP, JITTER),
    "stronger jitter": altered(CROP, FLIP, ga.ColorJitter(0.9, 0.9, 0.4)),
    "one draw for the batch": lambda source: ga.Policy(SMALL.transforms)(
        source.channels_last, ids=torch.zeros(16, dtype=torch.int64), epoch=counted()
    ),
    "uint8 out": lambda source: (policy_run(SMALL)(source) * 255).byte(),
    "another size": altered(ga.RandomResizedCrop(47), FLIP, JITTER),
    "NaN": lambda source: policy_run(SMALL)(source) * math.nan,
}
_epochs = iter(range(10**6))


def counted() -> int:
    return next(_epochs)


@pytest.mark.parametrize("fault", UNEQUAL)
def test_unequal_work_is_not_comparable(fault):
    source = sources.make(SMALL, CPU)
    truth = checks.reference(SMALL, policy_run(SMALL), source)
    assert truth.judge(UNEQUAL[fault], source, shared=False)


def test_a_resize_without_antialias_is_not_comparable():
    (crop,) = replace(SMALL, size=(192, 240)).parts
    source = sources.make(crop, CPU)
    truth = checks.reference(crop, policy_run(crop), source)
    assert truth.judge(policy_run(crop), source, shared=False) == ""
    coarse = replace(crop, transforms=(replace(crop.transforms[0], antialias=False), TO_FLOAT))
    assert "levels" in truth.judge(policy_run(coarse), source, shared=False)


def test_a_red_check_prints_its_reason_in_place_of_a_number():
    odd = replace(
        next(c for c in registry.CONTENDERS if c.name == "torchvision"),
        name="odd",
        make=lambda *_: lambda source: source.planar / 255,
    )
    gone = replace(odd, name="gone", package="no-such-package")
    broken = replace(odd, name="broken", make=lambda *_: lambda source: 1 // 0)
    found = suite.Prepared()
    for contender in (odd, gone, broken):
        suite._prepare(contender, SURE, Options(), sources.make(SURE, CPU), found)
    assert not found.works, "nothing that failed is timed"
    assert [r.status for r in found.rows] == ["not comparable", "absent", "not comparable"]
    assert "ZeroDivisionError" in found.rows[2].why
    text = results.table(Measured("sure", "policy", "", tuple(found.rows), base="gpuaug cpu"), "CPU")
    assert "not comparable: it returns" in text and "gone (no-such-package is not installed" in text


def test_contenders_take_turns_and_ratios_are_paired():
    calls: list[str] = []
    works = {name: lambda name=name: (calls.append(name), timing.time.sleep(0.011)) for name in "abc"}
    seconds = timing.alternate(works, CPU, Budget(0.0, 4, 4))
    assert calls[3:] == list("abc" + "bca" + "cab" + "abc"), "each round begins with another"
    assert {len(s) for s in seconds.values()} == {4}
    # a machine that halves its speed in the middle changes both, and no ratio
    assert timing.ratio([2.0, 2.0, 4.0, 4.0], [1.0, 1.0, 2.0, 2.0]) == Spread(2.0, 2.0, 2.0, 4)


def test_the_device_is_waited_for_in_one_place():
    found = [
        p.name
        for p in sorted((ROOT / "bench").glob("*.py"))
        if "synchronize" in p.read_text() and p.name != "bench_cpu.py"
    ]
    assert found == ["timing.py"]


def measured(name: str = "moderate", group: str = "policy") -> Measured:
    rows = [
        Row(name, group, c, "ok", images=16, unit="batch", path="uint8", seconds=(s, s * 1.5, s * 2))
        for c, s in (("gpuaug cpu", 0.01), ("torchvision", 0.04))
    ]
    rows.append(Row(name, group, "Kornia", "not comparable", "its crop: no antialias"))
    return Measured(
        name, group, "16 x 3 x 8 x 8 uint8: Nothing", tuple(rows), (0.001, 0.001, 0.001), 1000, "gpuaug cpu"
    )


def test_results_survive_their_file_and_every_row_is_reported(tmp_path):
    data = results.to_json([measured()], Options())
    results.save(data, tmp_path / "results.json")
    assert results.from_json(results.load(tmp_path / "results.json")) == [measured()]
    assert data["workloads"][0]["contenders"][1]["time over gpuaug cpu"] == {
        "median": 4.0,
        "low": 4.0,
        "high": 4.0,
        "n": 3,
    }
    for text in (results.markdown(data), page.html(data), "\n".join(results.lines(data))):
        assert all(
            word in text for word in ("gpuaug cpu", "torchvision", "not comparable: its crop: no antialias", "MixUp")
        )


def test_a_later_run_of_some_workloads_leaves_the_others():
    old = results.to_json([measured("weak"), measured("moderate")], Options())
    new = results.to_json([replace(measured("moderate"), description="anew")], Options())
    old["conditions"]["commit"], new["conditions"]["commit"] = "a", "b"
    both = results.merged(old, new)
    assert [(w["name"], w["description"] == "anew") for w in both["workloads"]] == [("weak", False), ("moderate", True)]
    assert both["conditions"]["commit"] == "a, b"
    other = results.to_json([measured("moderate")], Options(threads=2))
    assert results.merged(old, other) == other, "two threads are not compared with one"


def test_pictures_are_drawn_for_both_pages_and_carry_their_results(tmp_path):
    growth = [measured(f"moderate, batch {n}", "batch") for n in (1, 4)] + [
        measured(f"moderate, {n} px", "size") for n in (32, 64)
    ]
    data = results.to_json([measured(), *growth], Options())
    paths = plots.write(data, tmp_path)
    assert {p.name for p in paths} == {f"{n}_{t}.png" for n in plots.PICTURES for t in plots.THEMES}
    for path in paths:
        assert path.stat().st_size > 5000 and plots.digest(data).encode() in path.read_bytes()


def guarded(now: list[float], stored: float = 4.0, width: float = 1.02) -> guard.Finding:
    spread = Spread(stored, stored / width, stored * width, 20)
    return guard.judge({"moderate": spread}, [{"moderate": replace(spread, median=v)} for v in now])[0]


def test_the_guard_fails_beyond_the_noise_it_measured_and_not_within():
    assert not guarded([4.0, 3.95, 4.03]).regressed
    assert guarded([2.8, 2.75, 2.83]).regressed
    assert not guarded([2.8, 5.2, 3.9]).regressed, "a machine this noisy proves nothing"
    assert guarded([2.8, 5.2, 3.9]).noise > 2, "and the guard says so"
    assert not guarded([6.0, 6.1, 5.9]).regressed


def test_the_guard_fails_where_a_number_is_gone():
    ratio = {"small": Spread(4.0, 3.9, 4.1, 9)}
    assert guard.lost(ratio, [SMALL, SURE], [ratio, {}]) == ["small"]
    assert guard.lost(ratio, [SMALL, SURE], [ratio, ratio]) == []


def test_more_instructions_are_a_regression_and_other_versions_compare_nothing():
    stored = {"instructions an image": {"moderate": 1000}, "versions": {"numba": "1"}}
    for count, regressed in ((1000, False), (1005, False), (1100, True), (900, False)):
        lines, worse = instructions.compare(stored, {**stored, "instructions an image": {"moderate": count}})
        assert worse is regressed and len(lines) == 1
    assert not instructions.compare(stored, {"instructions an image": {"moderate": 9999}, "versions": {"numba": "2"}})[
        1
    ]


def test_readme_shows_the_stored_results():
    made = readme.pages()
    assert {"README.md", "speed.md", "accuracy.md"} == {p.name for p in made}
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run make readme"
        assert list(readme.claims(text)) == []
    for path in readme.files():
        data = results.load(path)
        for name in plots.possible(data):
            for theme in plots.THEMES:
                picture = path.with_suffix("") / f"{name}_{theme}.png"
                assert plots.digest(data).encode() in picture.read_bytes(), (
                    f"{picture.name} is of other results: run make readme"
                )


def test_the_limits_stored_are_those_measured_and_shown():
    stored = results.load(results.RESULTS / "limits.json")["rows"]
    assert bench_limits.measure() == stored, "run python -m bench.bench_limits --out bench/results/limits.json"
    text = " ".join((readme.README.parent / "docs" / "semantics.md").read_text(encoding="utf-8").split())
    rows = stored["from torchvision's uint8 path, levels"]
    assert len(rows) == 3 and all(f"{name}: {value}" in text for name, value in rows.items()), rows


def test_a_card_is_shown_with_its_conditions_and_without_what_was_not_measured():
    assert readme.cards(), "vacuous"
    for path in readme.cards():
        data = results.load(path)
        text = readme._card(path, data)
        assert all(data["conditions"][k] in text for k in ("device", "commit", "date")), (
            "a number without its conditions"
        )
        for name, job in data["jobs"].items():
            (row,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
            assert f" {results.number(1e3 * job['speeds']['in a graph']['ms']['median'])} " in row
            assert row.count(" - |") == sum("times ours" not in job["rivals"].get(r, {}) for r in readme.CARD_RIVALS)
            assert row.count("\\*") == sum("what" in job["rivals"].get(r, {}) for r in readme.CARD_RIVALS)


def test_a_number_without_a_source_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    results.save(results.to_json([measured()], Options()), tmp_path / "here.json")
    source = "<!-- here.json: workloads / moderate / contenders / torchvision / time over gpuaug cpu / median -->"
    assert list(readme.claims("It is 4 x as fast.")) == ["'4 x as' in 'It is 4 x as fast.'"]
    assert list(readme.claims(f"It is 4 x as fast.{source}")) == []
    assert list(readme.claims(f"It is 5 x as fast.{source}")) != []
    assert list(readme.claims("Images of 375 x 500, and `9 ms` in code.")) == []


def test_the_steps_of_every_strength_are_printed_for_every_backend(capsys):
    assert steps.main(["41x53"]) == 0
    sections = capsys.readouterr().out.split("==== ")[1:]
    assert [s.split("\n", 1)[0] for s in sections] == [f"{s}, {b}" for s in scenarios.POLICIES for b in steps.BACKENDS]
    for section in sections:
        strength, backend = section.split("\n", 1)[0].split(", ")
        assert section.split("\n", 1)[1].strip() == ga.Policy(scenarios.POLICIES[strength]).describe(
            (41, 53), backend=backend
        )
    assert steps.main(["41"]) == steps.main(["41x53", "x"]) == 2
