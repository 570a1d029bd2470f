"""One test for each contender of each workload; see scenarios.py and contenders/."""

from collections.abc import Iterator

import pytest

from . import end_to_end, scenarios, suite
from .replay import CLOCK
from .scenarios import Workload


def cases(config: pytest.Config) -> Iterator[tuple[Workload, str]]:
    """Every workload that the options ask for, with each contender of its group."""
    for workload in scenarios.workloads(config.getoption("bench_full")):
        yield from ((workload, c.name) for c in suite.asked(workload, suite.Options()))
    yield from ((end_to_end.WORKLOAD, name) for name in end_to_end.CONTENDERS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each case."""
    found = [pytest.param(w, name, id=f"{w.slug}-{name.replace(' ', '-')}") for w, name in cases(metafunc.config)]
    metafunc.parametrize(("workload", "contender"), found)


@pytest.mark.benchmark(timer=CLOCK)
def test_throughput(workload: Workload, contender: str, report_times) -> None:
    report_times(workload, contender)
