"""Pages that the site makes at build: one for each transform, all that users import, and links that lead there."""

import inspect
import re

import links
import pages
import pytest
import reference_pages
import stored_pages
import transform_pages
from specs import SPECS

import gpuaug as ga

SECTIONS = ["Arguments", "Looks like", "Draws", "Computes", "Is compared with", "Speed", "Elsewhere"]


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_a_transform_has_a_page_that_says_what_it_draws_and_computes(name):
    text = transform_pages.page(name, picture=True)
    assert re.findall(r"^## (.+)$", text, re.M) == SECTIONS
    arguments, draws, computes = (text.split(f"## {s}\n")[1].split("\n## ")[0] for s in (SECTIONS[0], *SECTIONS[2:4]))
    missing = [a for a in inspect.signature(ga.REGISTRY[name]).parameters if f"| `{a}` |" not in arguments]
    assert not missing
    drawn, passes = transform_pages._lowered(name)
    assert all(f"| `{key}" in draws for key in drawn)
    assert all(f"**{type(p).__name__}**: " in computes for p in passes)


def test_every_transform_is_in_the_navigation_and_the_index():
    index = transform_pages.index()
    listed = [n for section in transform_pages.navigation() for entries in section.values() for e in entries for n in e]
    assert sorted(listed) == sorted(ga.REGISTRY) == sorted(re.findall(r"^\| \[(\w+)\]\(\1\.md\)", index, re.M))


@pytest.mark.parametrize("name", ["RandomAffine", "CutMix", "RandomResize", "Normalize", "Identity"])
def test_a_picture_shows_draws_where_there_is_something_to_see(name):
    picture = transform_pages.drawing(name)
    assert (picture is None) == (name == "Identity")
    assert picture is None or 5_000 < len(picture) < 200_000


def test_a_measured_transform_shows_its_speed():
    shown = [n for n in SPECS if "Not measured" not in transform_pages._speed(n)]
    assert "ColorJitter" in shown and "ElasticTransform" in shown and "RandomApply" not in shown
    assert re.search(r"\| [\d ]+ \| ", transform_pages._speed("ColorJitter"))


def test_the_reference_has_every_name_at_the_top():
    found = reference_pages.pages()
    headings = set(re.findall(r"^## (\w+)$", found["api/gpuaug.md"], re.M))
    modules = {n for n in ga.__all__ if inspect.ismodule(getattr(ga, n))}
    assert headings | modules | set(ga.REGISTRY) | {"__version__"} == set(ga.__all__)
    assert {f"api/{m}.md" for m in modules} < set(found)


@pytest.mark.parametrize("page", [p for p in pages.PAGES if p != "README.md"])
def test_links_of_a_page_lead_to_pages_and_pictures_of_the_site(page):
    uri = page.removeprefix("docs/")
    made = {*stored_pages.pages(), *links.pictures(), *(p.removeprefix("docs/") for p in pages.PAGES)}
    text = links.in_site(pages.text(page), uri)
    found = [t for t in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in t]
    home = (pages.ROOT / uri).parent
    gone = [t for t in found if (home / t).resolve().relative_to(pages.ROOT).as_posix() not in made]
    assert not gone


def test_a_link_to_a_file_that_is_no_page_is_refused():
    with pytest.raises(ValueError, match=r"tutorial\.md links to pyproject\.toml"):
        links.in_site("[x](../pyproject.toml)", "tutorial.md")
    assert links.in_site("[x](../nothing.md)", "tutorial.md") == "[x](../nothing.md)"
