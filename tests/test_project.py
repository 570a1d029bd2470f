"""What is declared of versions is said the same everywhere: pyproject.toml, constraints, Makefile, workflow and .ci/run."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import gpuaug as ga

ROOT = Path(ga.__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8"))
CONSTRAINTS = sorted(ROOT.glob("constraints*.txt"))


def plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """{package: version} of the exact ones."""
    found = re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(encoding="utf-8"), re.M)
    return {plain(name): version for name, version in found}


def wanted(groups: list[list[str]]) -> dict[str, tuple[str, str]]:
    """{package: (least version, first version that is too new)} of requirements."""
    found = {}
    for one in (one for group in groups for one in group):
        name, least, below = re.match(
            r"([\w.-]+?)(?:>=([\d.]+))?(?:,<([\d.]+))?(?:;.*)?$", one.replace(" ", "")
        ).groups()
        found[plain(name)] = (least or "0", below or "9999")
    return found


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


LIBRARY = wanted([PROJECT["dependencies"], PROJECT["optional-dependencies"]["torchvision"]])
TOOLS = wanted([PROJECT["optional-dependencies"][extra] for extra in ("check", "test")])


def test_the_oldest_versions_installed_begin_the_ranges_declared():
    oldest = pins(ROOT / "constraints-oldest.txt")
    assert {"torch", "torchvision", "triton", "numba", "numpy", "kornia", "pillow"} <= LIBRARY.keys() <= oldest.keys()
    for name, (least, _) in LIBRARY.items():
        assert number(oldest[name])[: len(number(least))] == number(least), f"{name} {oldest[name]} is not {least}"


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda p: p.name)
def test_every_version_installed_is_in_its_range(path):
    assert len(CONSTRAINTS) == 3
    found = pins(path)
    for name, (least, below) in (LIBRARY | TOOLS).items():
        if name in found:
            assert number(least) <= number(found[name]) < number(below), f"{name}=={found[name]}"


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda p: p.name)
def test_what_judges_is_the_same_version_everywhere(path):
    own, pinned = pins(path), pins(ROOT / "constraints.txt")
    for name in ("ruff", "mypy", "pytest", "pytest-xdist", "pytest-benchmark", "hypothesis", "types-pyyaml"):
        assert own[name] == pinned[name], name


def test_the_workflow_runs_every_python_and_every_constraint():
    runs = WORKFLOW["jobs"]["check"]["strategy"]["matrix"]["include"]
    assert {run["constraints"] for run in runs} == {path.name for path in CONSTRAINTS}
    lowest = PROJECT["requires-python"].removeprefix(">=")
    highest = re.search(r"<= \((\d+), (\d+)\)", (ROOT / "Makefile").read_text())
    pythons = {run["python"] for run in runs if run["constraints"] == "constraints.txt"}
    assert pythons == {f"3.{minor}" for minor in range(int(lowest.split(".")[1]), int(highest[2]) + 1)}
    commands = [step.get("run", "") for step in WORKFLOW["jobs"]["check"]["steps"]]
    assert sum("make check" in command for command in commands) == 1
    (slow,) = (step for step in WORKFLOW["jobs"]["check"]["steps"] if "make test-slow" in step.get("run", ""))
    assert "schedule" in slow["if"]


def test_ci_runs_what_the_readme_calls_the_check():
    assert re.search(r"^make check$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_the_library_itself_needs_neither_torchvision_nor_pictures():
    needed = wanted([PROJECT["dependencies"]])
    assert needed.keys() == {"torch", "triton", "kornia", "numpy", "numba", "pillow", "typer", "rich", "pyyaml"}
