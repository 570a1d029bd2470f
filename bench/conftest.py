"""Measures each workload once, hands the times to pytest-benchmark, and prints and saves the report."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench import end_to_end, suite
from bench.contenders.registry import base
from bench.report import results

from .benchmark_option import wanted
from .replay import CLOCK
from .scenarios import Workload
from .suite import Measured, Options
from .timing import Budget

KEY = pytest.StashKey["Measurements"]()


class Measurements:
    """What one run of pytest has measured."""

    def __init__(self, options: Options):
        self.options = options
        self.measured: dict[str, Measured] = {}
        self.chosen: dict[str, set[str]] = {}

    def of(self, workload: Workload) -> Measured:
        """The workload's measurement, made when first asked for: all contenders in turns."""
        if workload.name not in self.measured:
            make = (
                end_to_end.measure
                if workload.group == "end to end"
                else lambda options: suite.measure(workload, options)
            )
            # the base is always timed: ratios are against it
            only = (*sorted(self.chosen[workload.name]), base(self.options.where))
            self.measured[workload.name] = make(replace(self.options, only=only))
        return self.measured[workload.name]


def pytest_configure(config: pytest.Config) -> None:
    """Read the options once."""
    import torch

    device = config.getoption("--bench-device")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    seconds = config.getoption("--bench-seconds")
    budget = Budget(seconds) if seconds >= 1 else Budget(seconds, 2, 5)
    config.stash[KEY] = Measurements(Options(device, config.getoption("--bench-threads"), budget))


@pytest.fixture
def report_times(benchmark: Callable, pytestconfig: pytest.Config) -> Callable[[Workload, str], None]:
    """report_times(workload, contender): measure if that is yet to be done, and hand the contender's times to
    pytest-benchmark."""

    def give(workload: Workload, contender: str) -> None:
        measured = pytestconfig.stash[KEY].of(workload)
        row = measured.row(contender)
        assert row is not None, f"{contender} is no contender of {workload.name}"
        if contender.startswith("gpuaug"):
            assert row.status != "not comparable", f"{contender} is wrong: {row.why}"
        if not row.seconds:
            pytest.skip(f"{row.status}: {row.why}")
        benchmark.group = workload.name
        benchmark.extra_info.update({k: getattr(row, k) for k in ("unit", "path", "draws", "note")}, images=row.images)
        CLOCK.load((*row.seconds, 0.0))
        benchmark.pedantic(CLOCK.advance, rounds=len(row.seconds), iterations=1)

    return give


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which contenders were selected."""
    for item in session.items:
        parameters = getattr(item, "callspec", None)
        if item.path.parent == Path(__file__).parent and parameters is not None and "workload" in parameters.params:
            chosen = session.config.stash[KEY].chosen.setdefault(parameters.params["workload"].name, set())
            chosen.add(parameters.params["contender"])


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the report, and save it: whole runs beside those of other machines, parts of the suite apart from them."""
    found = config.stash.get(KEY, None)
    if found is None or not found.measured or not wanted(config):
        return
    measured = list(found.measured.values())
    data = results.to_json(measured, found.options)
    terminalreporter.section("throughput")
    terminalreporter.write_line(results.heading(data))
    for line in results.lines(data):
        terminalreporter.write_line(line)
    path = _place(found, config)
    results.save(data, path)
    path.with_suffix(".md").write_text(results.markdown(data), encoding="utf-8")
    then = "" if path.stem == "selection" else "; make readme puts them into README"
    terminalreporter.write_line(f"saved {path} and {path.with_suffix('.md').name}{then}")


def _place(found: Measurements, config: pytest.Config) -> Path:
    from .bench_throughput import cases

    whole = all(name in found.chosen.get(workload.name, ()) for workload, name in cases(config))
    name = results.machine_class(found.options.where) if whole and found.options.budget.least > 2 else "selection"
    return results.RESULTS / f"{name}.json"
