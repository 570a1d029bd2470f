"""The pages of docs/ say what is true: their examples run, their links lead somewhere, their numbers are measured."""

import re
from pathlib import Path

import pages
import pytest
import stored_pages
import torch
import yaml
from scipy import stats

from bench.report import readme, results

ROOT = pages.ROOT
DOCS = [p for p in pages.PAGES if p != "README.md"]
WITH_CODE = [p for p in DOCS if any(b.language == "python" for b in pages.blocks(p))]
GUIDES = [p for p in DOCS if p.startswith("docs/migrate/")]


@pytest.mark.parametrize("page", WITH_CODE)
def test_every_example_of_a_page_runs_after_those_before_it(page, tmp_path, monkeypatch):
    pages.world(tmp_path)
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        _, count = pages.run(page)
    assert count, f"{page} has no block of gpuaug"


@pytest.mark.parametrize("page", DOCS)
def test_every_block_is_python_that_runs_or_is_indented(page):
    text, found = pages.text(page), pages.blocks(page)
    assert text.count("```") == 2 * len(found), "a fence that is not closed, or does not begin its line"
    assert {b.language for b in found} <= {"python"}, "what is no Python is indented by four"
    titles = {b.title for b in found} - {""}
    assert titles <= {"gpuaug", *pages.OTHERS}


@pytest.mark.parametrize("page", DOCS)
def test_every_link_of_a_page_leads_to_a_file(page):
    home = (ROOT / page).parent
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)|(?:src|srcset)=\"([^\"]+)\"", pages.text(page))
    missing = [a or b for a, b in links if "://" not in (a or b) and not (home / (a or b)).resolve().exists()]
    assert not missing


@pytest.mark.parametrize("page", DOCS)
def test_every_number_in_prose_is_a_stored_result(page):
    assert list(readme.claims(pages.text(page))) == []


@pytest.mark.parametrize("page", GUIDES)
def test_a_guide_sets_each_library_beside_gpuaug(page):
    titles = [b.title for b in pages.blocks(page) if b.title]
    assert len(titles) >= 6 and len(titles) % 2 == 0
    assert {*titles[1::2]} == {"gpuaug"} and len({*titles[::2]}) == 1, "theirs, then ours"
    assert titles[0].lower() == Path(page).stem


def test_every_page_that_the_navigation_names_exists():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = {f"docs/{uri}" for uri in re.findall(r"[\w/]+\.md", str(nav))}
    made = {f"docs/{uri}" for uri in ("transforms/index.md", *stored_pages.pages())}
    assert len(named & {*DOCS}) > 15, "vacuous"
    assert named <= {*DOCS, *made}
    assert {"Training", "Transforms", "Speed", "API"} <= {title for section in nav for title in section}


def test_what_the_page_says_of_accuracy_follows_from_the_seeds():
    rows = {r["variant"]: r for r in results.load(results.RESULTS / "accuracy_digits.json")["rows"]}
    none, ours, theirs, flips = (
        rows[k] for k in ("no augmentation", "suitable, gpuaug", "suitable, torchvision", "unsuitable: flips, gpuaug")
    )
    assert min(r["n"] for r in rows.values()) >= 5
    gain, loss = ours["mean"] - none["mean"], none["mean"] - flips["mean"]
    assert loss > gain > 3 * max(ours["std"], none["std"])
    assert abs(ours["mean"] - theirs["mean"]) < 1.5 * max(ours["std"], theirs["std"])
    assert stats.ttest_ind(ours["accuracies"], theirs["accuracies"], equal_var=False).pvalue > 0.05
