"""Contact sheets: photographs beside what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CELL, GAP, MARGIN, HEAD, FOOT = (
    176,
    6,
    18,
    92,
    24,
)  # pixels: side of a picture, between pictures, around all, above and below the pictures
WIDE = CELL * 3 // 2  # room of an original, whose aspect ratio is kept
INK, PALE, PAPER = (32, 33, 36), (112, 117, 122), (255, 255, 255)


@dataclass(frozen=True, eq=False)
class Row:
    """One photograph and its draws."""

    caption: str
    original: np.ndarray[Any, Any]  # [H, W, 3] uint8
    draws: Sequence[np.ndarray[Any, Any]]  # each [h, w, 3] uint8


def pictures(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> list[np.ndarray[Any, Any]]:
    """Normalised images [N, 3, H, W] back as [H, W, 3] uint8."""
    m, s = (torch.tensor(v, device="cpu").view(-1, 1, 1) for v in (mean, std))
    values = (images.detach().float().cpu() * s + m).clamp(0, 1)
    return list((values * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def sheet(title: str, subtitle: str, headings: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """A picture with one row per photograph: the original, then its draws.  headings: of the draws."""
    width = _left(len(headings)) - GAP + MARGIN
    page = Image.new("RGB", (width, HEAD + len(rows) * (CELL + FOOT) + MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, 14), title, INK, _font(20))
    pen.text((MARGIN, 42), _fitted(subtitle, 13, width - 2 * MARGIN), PALE, _font(13))
    pen.text((MARGIN + WIDE / 2, HEAD - 6), "original", INK, _font(14), anchor="md")
    for k, heading in enumerate(headings):
        pen.text((_left(k) + CELL / 2, HEAD - 6), heading, INK, _font(14), anchor="md")
    for r, row in enumerate(rows):
        top = HEAD + r * (CELL + FOOT)
        _paste(page, row.original, (MARGIN, top, WIDE, CELL))
        pen.text((MARGIN + WIDE / 2, top + CELL + 3), _fitted(row.caption, 13, WIDE), PALE, _font(13), anchor="ma")
        for k, draw in enumerate(row.draws):
            _paste(page, draw, (_left(k), top, CELL, CELL))
    return page


def _left(k: int) -> int:
    """Where the k-th column of draws begins."""
    return MARGIN + WIDE + GAP + k * (CELL + GAP)


def _paste(page: Image.Image, pixels: np.ndarray[Any, Any], room: tuple[int, int, int, int]) -> None:
    """A picture as large as its room (left, top, width, height) lets it be, in the middle of it."""
    left, top, width, height = room
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    page.paste(small, (left + (width - size[0]) // 2, top + (height - size[1]) // 2))


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _fitted(text: str, size: int, width: int) -> str:
    """The text, cut where it is too wide."""
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
