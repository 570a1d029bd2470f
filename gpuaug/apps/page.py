"""One HTML page of a policy's draws, with all that it needs inside: a slider over epochs and a switch for each
transform."""

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

from PIL import Image

from gpuaug import pictures, variants
from gpuaug.apps.given import Samples
from gpuaug.policy import Policy
from gpuaug.show import made, notes, originals, with_rows

# transforms of which every combination is drawn; of more, one at a time can be off
COMBINED = 4
# pixels of the larger side, and the quality of WebP
SIDE, QUALITY = 256, 82


class _Store:
    """Pictures, each kept once."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._places: dict[bytes, int] = {}

    def put(self, pixels: pictures.Pixels) -> int:
        image = Image.fromarray(pixels)
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "WEBP", quality=QUALITY)
        data = file.getvalue()
        if data not in self._places:
            self._places[data] = len(self.uris)
            self.uris.append(f"data:image/webp;base64,{base64.b64encode(data).decode()}")
        return self._places[data]


def page(policy: Policy, found: Samples, epochs: Sequence[int], numbers: bool = False) -> str:
    """The page.  epochs: the positions of its slider.  numbers: whether it begins with what was drawn"""
    batch = with_rows(found.batch)
    stand = variants.switchable(policy, batch)
    store = _Store()
    before = originals(batch, found.classes)
    first = [store.put(c.pixels) for c in before]
    shown: dict[str, list[list[int]]] = {}  # which are off -> epoch -> sample -> picture
    labels: dict[str, list[list[str]]] = {}
    # what is off, as places of the policy
    for off in choices(list(stand)):
        try:
            one = variants.without(policy, off, stand)
            cells = [
                made(one(batch.replace(epoch=e)), one.transforms, found.classes, batch.images.dtype) for e in epochs
            ]
        except ValueError:
            if not off:
                raise
            # without these the others cannot run, such as a crop that is larger than its image
            continue
        key = ",".join(map(str, off))
        shown[key] = [[store.put(c.pixels) for c in row] for row in cells]
        labels[key] = [[" ".join(c.lines) for c in row] for row in cells]
    drawn = [variants.draws(policy, batch, e) for e in epochs]
    params = [[pictures.drawn(policy.transforms, d, i) for i in range(len(batch))] for d in drawn]
    data = {
        "epochs": list(epochs),
        "pictures": store.uris,
        "shown": shown,
        "labels": labels,
        "params": params,
    }
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    filled = {
        "SWITCHES": "\n".join(_switch(i, policy.transforms[i]) for i in stand if str(i) in shown),
        "ROWS": "\n".join(
            _row(i, store.uris[first[i]], c.lines[0], key)
            for i, (c, key) in enumerate(zip(before, found.keys, strict=True))
        ),
        "CODE": escape(repr(policy)),
        "NOTES": escape("; ".join([*notes(policy), *_said(list(stand))])),
        "CHECKED": " checked" if numbers else "",
        "PLAIN": "" if numbers else ' class="plain"',
        "LAST": str(len(epochs) - 1),
        # so that no text ends the script
        "DATA": json.dumps(data).replace("<", "\\u003c"),
    }
    for name, value in filled.items():
        template = template.replace(f"%{name}%", value)
    return template


def choices(places: Sequence[int]) -> list[tuple[int, ...]]:
    """Which transforms are off together: all combinations of a few, one at a time of many."""
    most = len(places) if len(places) <= COMBINED else 1
    return [c for k in range(most + 1) for c in combinations(places, k)]


def _said(places: Sequence[int]) -> list[str]:
    told = ["pictures are WebP of at most 256 pixels"]
    if any(places):
        told.append("where a transform that fixes the size is off, the whole image is resized")
    if len(places) > COMBINED:
        told.append("one transform at a time can be off")
    return told


def _switch(i: int, transform: Any) -> str:
    name = escape(type(transform).__name__)
    return f'<label title="{escape(repr(transform))}"><input type="checkbox" data-place="{i}" checked> {name}</label>'


def _row(i: int, uri: str, line: str, key: str) -> str:
    alt = escape(key)
    return (
        f'<section class="row"><h2 title="{alt}">{escape(line)}</h2><div class="pair">'
        f'<figure><img alt="original of {alt}" src="{uri}"><figcaption>original</figcaption></figure>'
        f'<figure><img alt="augmented {alt}" data-sample="{i}"><figcaption data-caption="{i}"></figcaption>'
        f'<ul data-params="{i}"></ul></figure></div></section>'
    )
