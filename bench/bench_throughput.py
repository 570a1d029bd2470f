"""One test for each contender of each workload; see scenarios.py and contenders.py."""

import pytest

from . import end_to_end, scenarios, suite
from .replay import CLOCK
from .scenarios import Workload


def selected(config: pytest.Config) -> list[Workload]:
    """The workloads that the options ask for."""
    return [*scenarios.workloads(config.getoption("bench_full")), end_to_end.WORKLOAD]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each contender that a workload's group has."""
    cases = []
    for workload in selected(metafunc.config):
        found = end_to_end.CONTENDERS if workload.group == "end to end" else [c.name for c in suite.asked(workload, suite.Options())]
        cases += [pytest.param(workload, name, id=f"{workload.slug}-{name.replace(' ', '-')}") for name in found]
    metafunc.parametrize(("workload", "contender"), cases)


@pytest.mark.benchmark(timer=CLOCK)
def test_throughput(workload: Workload, contender: str, report_times) -> None:
    report_times(workload, contender)
