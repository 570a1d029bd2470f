"""Pages of docs/ that hold Python run from top to bottom, and name commands and options that exist."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_cli import gpuaug

import gpuaug as ga

DOCS = Path(ga.__file__).parent.parent / "docs"
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
PAGES = {
    name: found for name, text in TEXTS.items() if (found := re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S))
}


def commands(text: str) -> list[list[str]]:
    return [line.split()[1:] for line in re.findall(r"^ {4}(gpuaug .*)$", text, re.M)]


@pytest.mark.parametrize("page", PAGES)
def test_every_example_of_a_page_runs_after_those_before_it_and_then_its_commands(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page}
    with torch.random.fork_rng(devices=[]):
        for number, example in enumerate(PAGES[page]):
            exec(compile(example, f"{page}, example {number + 1}", "exec"), names)
    for command in commands(TEXTS[page]):
        done = gpuaug(*command)
        assert done.exit_code == 0, (command, done.output)
    for picture in tmp_path.glob("*.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 60


def test_the_page_about_debugging_is_among_them() -> None:
    assert "debugging.md" in PAGES
    assert len(PAGES["debugging.md"]) >= 6 and len(commands(TEXTS["debugging.md"])) == 2, "vacuous"
