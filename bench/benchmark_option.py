"""The option `--benchmark`: run the bench, and only it.  Loaded by `addopts = -p`, so that it is there from any folder
of the repository."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the bench's own options; those of pytest-benchmark work beside them."""
    group = parser.getgroup("bench", "throughput of gpuaug and of other libraries")
    group.addoption(
        "--benchmark", action="store_true", help="run the bench in place of the tests, and print and save its report"
    )
    group.addoption(
        "--bench-full", action="store_true", help="every batch and image size, larger batches of the policies too"
    )
    group.addoption("--bench-threads", type=int, default=1, metavar="N", help="threads of every contender [default: 1]")
    group.addoption(
        "--bench-seconds",
        type=float,
        default=4.0,
        metavar="S",
        help="time for each workload, all contenders together [default: 4]",
    )
    group.addoption("--bench-device", default="auto", metavar="D", help="cpu, cuda or auto [default: auto]")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """With the flag and no path given, the bench is what is collected."""
    if wanted(config) and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("the bench measures in one process, and -n starts several; drop it")
    if config.getoption("benchmark") and config.args_source != pytest.Config.ArgsSource.ARGS:
        config.args[:] = [str(HERE)]


def wanted(config: pytest.Config) -> bool:
    """Whether any flag asks for measurements."""
    return bool(config.getoption("benchmark") or config.getoption("benchmark_only", False))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a flag the bench does not run, whatever folder pytest was started from."""
    if not wanted(config):
        skip = pytest.mark.skip(reason="measures; pass --benchmark")
        for item in items:
            if item.path.parent == HERE:
                item.add_marker(skip)
