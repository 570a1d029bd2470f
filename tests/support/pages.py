"""Pages in Markdown whose examples run: README.md, and those of docs/."""

import linecache
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import Image

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")))
# who stands beside gpuaug in docs/migrate/, by the title of a block, and what it imports
OTHERS = {
    "torchvision": "torchvision",
    "Kornia": "kornia",
    "albumentations": "albumentations",
    "timm": "timm",
    "DALI": "nvidia.dali",
}
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    title: str
    code: str


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """In the order of the page; a title is what `title="..."` gives."""
    found = []
    for language, attributes, code in FENCE.findall(text(page)):
        title = re.search(r'title="([^"]*)"', attributes)
        found.append(Block(language, title[1] if title else "", code))
    return found


def there(package: str) -> bool:
    """Whether a package is installed."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def world(folder: Path) -> None:
    """The data that examples read: train/ and val/, folders of class folders."""
    for part, n in (("train", 48), ("val", 12)):
        for i in range(n):
            home = folder / part / f"class_{i % 3}"
            home.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (80 + i, 60), (5 * i, 99, 0)).save(home / f"{i}.jpg")


def run(page: str) -> tuple[dict[str, object], int]:
    """Run a page's blocks in one namespace, in the current folder; those of another library in one of their own, where
    it is installed.  Gives the names and the number of gpuaug's blocks."""
    names: dict[str, object] = {"__name__": "page"}
    theirs: dict[str, dict[str, object]] = {}
    count = 0
    for number, block in enumerate(blocks(page)):
        if block.language != "python":
            continue
        name = f"{page}, block {number + 1}"
        # where tracebacks, and libraries that read the source of what they are given, find it
        linecache.cache[name] = (len(block.code), None, block.code.splitlines(keepends=True), name)
        code = compile(block.code, name, "exec")
        if block.title in OTHERS:
            if there(OTHERS[block.title]):
                # what others leave open, or warn of, is theirs
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    exec(code, theirs.setdefault(block.title, {"__name__": "page"}))
            continue
        count += 1
        exec(code, names)
    return names, count
