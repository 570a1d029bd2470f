"""Links: pages name files of the repository by paths that work there, and the site has them elsewhere."""

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# files outside docs/ that are pages of the site
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "bench/NOTES.md": "notes.md",
    "examples": "examples.md",
}
# where a page that is made stood in the repository, so that its links are read from there
HOMES = {page: posixpath.dirname(file) for file, page in PAGES.items() if page != "index.md"}
LINK = re.compile(r"(?<=\]\()([^)#\s]+)((?:#[^)\s]*)?)(?=\))")
PICTURE = re.compile(r'<picture><source [^>]*srcset="([^"]+)"><img alt="([^"]*)" src="([^"]+)"></picture>')


def pictures() -> dict[str, Path]:
    """The pictures of bench/results, by their uri in the site."""
    found = ROOT / "bench" / "results"
    return {
        f"results/{p.relative_to(found).as_posix()}": p
        for p in sorted(found.rglob("*"))
        if p.suffix in (".png", ".jpg")
    }


def in_site(markdown: str, uri: str) -> str:
    """A page's text with its links as they are in the site, and pictures that follow the reader's theme.

    uri: of the page, such as migrate/timm.md.  A link that leads to no file is left as it is, for mkdocs to report."""
    home = HOMES.get(uri, posixpath.join("docs", posixpath.dirname(uri)))
    markdown = PICTURE.sub(r"![\2](\3#only-light)![\2](\1#only-dark)", markdown)

    def led(found: re.Match[str]) -> str:
        target, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(home, target))
        if "://" in target or not (ROOT / path).exists():
            return found[0]
        place = _place(path)
        if place is None:
            raise ValueError(f"{uri} links to {path}, which is no page of the site; add it to docs/made/links.py")
        place, own = place
        return posixpath.relpath(place, posixpath.dirname(uri) or ".") + (anchor or own)

    return LINK.sub(led, markdown)


def _place(path: str) -> tuple[str, str] | None:
    """Where a file of the repository is in the site, and the anchor there."""
    if path in PAGES:
        return PAGES[path], ""
    if path.startswith("docs/"):
        return path.removeprefix("docs/"), ""
    if path.startswith("bench/results/"):
        place = path.removeprefix("bench/results/")
        return (f"reports/{place}" if path.endswith(".md") else f"results/{place}"), ""
    if path.startswith("examples/"):
        return "examples.md", "#" + re.sub(r"[^\w]", "", path.removeprefix("examples/"))
    return None
