"""What mkdocs is told beyond mkdocs.yml: pages that are made at build, and links that leave docs/."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
for folder in ("tests", "tests/support", "kernels", ".", "docs/made"):
    sys.path.insert(0, str(ROOT / folder))

import links  # noqa: E402
import reference_pages  # noqa: E402
import stored_pages  # noqa: E402
import torch  # noqa: E402
import transform_pages  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

# pictures are small: threads would wait for each other longer than they work
torch.set_num_threads(1)
# uri of a page or picture -> what it holds; filled once a build
made: dict[str, str | bytes] = {}


def on_config(config: Any) -> Any:
    """Make the pages, and put those that mkdocs.yml does not name into the navigation."""
    made.clear()
    made.update(transform_pages.pages())
    made.update(reference_pages.pages())
    made.update(stored_pages.pages())
    sections = {title: entry for item in config["nav"] for title, entry in item.items()}
    named = str(config["nav"])
    docs = Path(config["docs_dir"])
    more = [p.relative_to(docs).as_posix() for p in sorted(docs.rglob("*.md"))]
    sections["Training"] += [uri for uri in more if f"'{uri}'" not in named]
    sections["Transforms"] += transform_pages.navigation()
    sections["API"] += reference_pages.navigation()
    sections["Speed"] += stored_pages.navigation()
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what was made, and the pictures of bench/results."""
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    for uri, path in links.pictures().items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn paths within the repository into paths within the site."""
    if page.file.src_uri.startswith("migrate/"):
        # two columns of code need the room of the table of contents
        page.meta.setdefault("hide", ["toc"])
    return links.in_site(markdown, page.file.src_uri)
