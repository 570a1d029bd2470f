"""README.md says what is true: its examples run, its commands and files exist."""

import re
from pathlib import Path

import pages
import pytest
import torch
from PIL import Image

import gpuaug as ga

ROOT = Path(__file__).parent.parent
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
}
TEXT = PAGES["README.md"]


def test_every_example_runs_after_those_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages.world(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert TEXT.count("```") == 2 * len(pages.blocks("README.md")), "a block that no test runs"
    with torch.random.fork_rng(devices=[]):
        names, count = pages.run("README.md")
    assert count >= 3, "vacuous"
    assert isinstance(names["policy"], ga.Policy)


def test_the_readme_is_short() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_every_command_shown_is_one() -> None:
    from typer.main import get_command

    from gpuaug.apps.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = {c for page in pages.PAGES for c in re.findall(r"(?:^ {4}|`)gpuaug ([a-z]+)", pages.text(page), re.M)}
    assert {"demo", "verify", "bench", "lint", "describe", "prepare"} <= named <= set(commands)


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", "".join(map(pages.text, pages.PAGES)), re.M))
    assert {"docs", "demo", "test", "test-slow", "check", "clean"} <= named <= targets


@pytest.mark.parametrize("page", PAGES)
def test_every_file_named_exists(page: str) -> None:
    text = PAGES[page]
    links = {target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target}
    code = {word.rstrip(".") for word in re.findall(r"(?<![\w/])(?:gpuaug|kernels|tests|bench)/[\w./]*", text)}
    assert len(links | code) > 3, "vacuous"
    missing = [name for name in links | code if not (ROOT / name).exists()]
    assert not missing


def test_the_readme_names_the_pages_beside_it() -> None:
    assert all(f"({name})" in TEXT for name in ("LICENSE", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md"))


def test_files_that_the_architecture_follows_a_batch_through_exist() -> None:
    text = PAGES["ARCHITECTURE.md"]
    files = {w for w in re.findall(r"`((?:exec/|trace/|transforms/)?[\w/]+\.py)`", text)}
    assert len(files) > 15, "vacuous"
    # a file is named within its folder's row, or from the package on
    rooms = ("gpuaug", "kernels", "tests", "bench", "docs")
    places = {p.relative_to(ROOT).as_posix() for room in rooms for p in (ROOT / room).rglob("*.py")}
    assert not [f for f in files if not any(k == f or k.endswith(f"/{f}") for k in places)]


def test_the_table_of_kornia_is_what_the_reference_calls() -> None:
    source = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "gpuaug" / "exec").glob("*.py"))
    used = {name.strip() for line in re.findall(r"from kornia\S* import (.+)", source) for name in line.split(",")}
    table = [
        row
        for row in PAGES["ARCHITECTURE.md"].splitlines()
        if row.startswith("|") and row.split("|")[2].strip().startswith("`kornia.")
    ]
    said = {name.rsplit(".", 1)[-1] for row in table for name in re.findall(r"`([\w.]+)`", row.split("|")[2])}
    assert used
    assert said == used


def test_the_picture_is_small_and_shows_every_row() -> None:
    path = ROOT / "bench" / "results" / "demo.jpg"
    assert path.stat().st_size < 500_000
    with Image.open(path) as picture:
        assert min(picture.size) > 1000
