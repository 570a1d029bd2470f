"""The page about debugging: its examples run, and then its commands, on what the examples wrote."""

import re
from pathlib import Path

import pytest
import torch
from commands import gpuaug
from PIL import Image

import gpuaug as ga

DOCS = Path(ga.__file__).parent.parent / "docs"
TEXT = (DOCS / "debugging.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)


def commands(text: str) -> list[list[str]]:
    return [line.split()[1:] for line in re.findall(r"^ {4}(gpuaug .*)$", text, re.M)]


def test_the_examples_run_one_after_the_other_and_then_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(EXAMPLES) >= 6 and len(commands(TEXT)) == 2, "vacuous"
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "debugging"}
    with torch.random.fork_rng(devices=[]):
        for number, example in enumerate(EXAMPLES):
            exec(compile(example, f"debugging.md, example {number + 1}", "exec"), names)
    for command in commands(TEXT):
        done = gpuaug(*command)
        assert done.exit_code == 0, (command, done.output)
    pictures = list(tmp_path.glob("*.png"))
    assert pictures, "vacuous"
    for picture in pictures:
        with Image.open(picture) as image:
            assert min(image.size) > 60
