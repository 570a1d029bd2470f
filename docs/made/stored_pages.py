"""Pages that are files of the repository, or made of them: reports of the bench, examples, architecture."""

import re
from pathlib import Path

import links

ROOT = Path(__file__).parents[2]
REPORTS = sorted((ROOT / "bench" / "results").glob("*.md"))
FENCED = re.compile(r"^```", re.M)


def pages() -> dict[str, str]:
    """Text by uri."""
    found = {page: _text(file) for file, page in links.PAGES.items() if file.endswith(".md") and file != "README.md"}
    found |= {f"reports/{p.name}": p.read_text(encoding="utf-8") for p in REPORTS}
    return {**found, "examples.md": _examples()}


def navigation() -> list[dict[str, str]]:
    """Entries of the reports."""
    return [{f"Report: {p.stem.replace('_', ' ')}": f"reports/{p.name}"} for p in REPORTS]


def _text(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def _examples() -> str:
    """Every program of examples/ under a heading of its name."""
    parts = ["# Examples", "Whole programs, each run by a test."]
    for path in sorted((ROOT / "examples").glob("*.py")):
        # a fence inside a docstring would end the block
        code = FENCED.sub("'''", path.read_text(encoding="utf-8"))
        anchor = re.sub(r"[^\w]", "", path.name)
        parts += [f"## {path.name} {{#{anchor}}}", f"```python\n{code}```"]
    return "\n\n".join(parts) + "\n"
