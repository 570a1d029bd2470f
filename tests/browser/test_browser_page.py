"""The page of `gpuaug show` in a real browser: its slider and its switches show the pictures that they say."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import gpuaug
from PIL import Image

PAPER = {"light": 255, "dark": 22}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    for name in ("a", "b"):
        y, x = np.meshgrid(np.linspace(0, 255, 60), np.linspace(0, 255, 80), indexing="ij")
        (root / "data" / name).mkdir(parents=True)
        picture = np.stack([x, y, np.full_like(x, 40 if name == "a" else 200)], 2).astype(np.uint8)
        Image.fromarray(picture).save(root / "data" / name / "x.png")
    out = root / "page.html"
    result = gpuaug("show", "--data", root / "data", "--policy", "moderate", "--out", out, "--epoch", "0,3,7")
    assert result.exit_code == 0, result.output
    return out


def chromium(browser: str, profile: Path, *more: str) -> str:
    base = (browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000")
    done = subprocess.run([*base, f"--user-data-dir={profile}", *more], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def state(browser: str, page: Path, profile: Path, hash: str) -> tuple[list[int], str, list[str]]:
    """The pictures that are shown, the epoch that is written, and the transforms that are off."""
    dom = chromium(browser, profile, "--dump-dom", f"{page.as_uri()}#{hash}")
    shown = [int(v) for v in re.findall(r'data-sample="\d+"[^>]* data-picture="(\d+)"', dom)]
    uris = re.findall(r'<img alt="augmented [^"]*" data-sample="\d+" src="([^"]+)"', dom)
    data = data_of(page)
    assert [data["pictures"][s] for s in shown] == uris, "an image shows another picture than it says"
    number = re.search(r"<output[^>]*>(\d+)</output>", dom)
    off = re.search(r'<body[^>]* data-off="([\d,]*)"', dom)
    assert number and off, dom[-2000:]
    return shown, number[1], [v for v in off[1].split(",") if v]


def data_of(page: Path) -> Any:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.S)[1])


def test_slider_and_switches_show_the_pictures_that_they_say(browser: str, made: Path, tmp_path: Path):
    data = data_of(made)
    seen = []
    for hash, at, off in (("", 0, ""), ("epoch=7", 2, ""), ("epoch=3&off=2", 1, "2"), ("epoch=3&off=0,2", 1, "0,2")):
        shown, number, gone = state(browser, made, tmp_path, hash)
        assert shown == data["shown"][off][at], hash
        assert number == str(data["epochs"][at])
        assert gone == [v for v in off.split(",") if v]
        seen.append(tuple(shown))
    assert len(set(seen)) == 4, "vacuous: the states look alike"


def test_a_state_that_the_page_does_not_have_is_its_first(browser: str, made: Path, tmp_path: Path):
    shown, number, gone = state(browser, made, tmp_path, "epoch=5&off=77")
    assert (shown, number, gone) == (data_of(made)["shown"][""][0], "0", [])


def test_moving_the_slider_and_clicking_a_switch_changes_pictures(browser: str, made: Path, tmp_path: Path):
    act = """<script>
      slider.value = 2; slider.dispatchEvent(new Event("input"));
      document.querySelector('[data-place="1"]').click();
    </script></body>"""
    clicked = tmp_path / "clicked.html"
    clicked.write_text(made.read_text().replace("</body>", act))
    shown, number, gone = state(browser, clicked, tmp_path / "profile", "")
    assert (shown, number, gone) == (data_of(made)["shown"]["1"][2], "7", ["1"])


@pytest.mark.parametrize("scheme", sorted(PAPER))
def test_a_screenshot_has_pictures_on_the_scheme_that_is_preferred_at_the_width_of_a_phone(
    browser: str, made: Path, tmp_path: Path, scheme: str
):
    # chromium has no switch for the scheme: the page's own rule is made to hold, or not
    page = tmp_path / "page.html"
    rule = "(prefers-color-scheme: dark)"
    assert made.read_text().count(rule) == 1
    always = "(min-width: 1px)" if scheme == "dark" else "(max-width: 1px)"
    page.write_text(made.read_text().replace(rule, always))
    shot = tmp_path / "shot.png"
    chromium(browser, tmp_path / "p", "--window-size=500,900", f"--screenshot={shot}", page.as_uri())
    with Image.open(shot) as image:
        pixels = np.array(image.convert("RGB")).astype(int)
    assert pixels.shape[1] == 500
    assert abs(pixels[0, 0, 0] - PAPER[scheme]) <= 2
    coloured = (np.ptp(pixels, axis=2) > 60).mean()
    assert coloured > 0.1, "the pictures are not there"
    # the last columns are the page's margin: nothing runs out of it
    assert np.ptp(pixels[:, -6:], axis=(1, 2)).max() <= 60


def test_the_page_is_as_wide_as_a_phone(browser: str, made: Path, tmp_path: Path):
    # a frame has the width of a phone, which no window of chromium has
    frame = tmp_path / "frame.html"
    wide = tmp_path / "wide.html"
    said = "<script>parent.postMessage(document.documentElement.scrollWidth, '*')</script></body>"
    wide.write_text(made.read_text().replace("</body>", said))
    frame.write_text(
        f'<body><iframe src="{wide.as_uri()}" width="390" height="800" style="border:0"></iframe><script>'
        "addEventListener('message', e => { document.title = 'width ' + e.data })</script></body>"
    )
    dom = chromium(browser, tmp_path / "p", "--dump-dom", frame.as_uri())
    assert "<title>width 390</title>" in dom, dom[:300]
