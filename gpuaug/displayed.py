"""What a notebook displays: images as pictures of 8 bits, text and batches as HTML.

Pillow is imported where it is needed, since a policy alone does without."""

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.images import Ragged

Pixels = np.ndarray[Any, Any]  # [H, W, 3] uint8
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
# pictures of a batch, and their larger side in pixels
_SHOWN, _SIDE = 8, 112


class Text(str):
    """Text that a notebook displays with its line breaks; a string everywhere else."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        head, _, rest = self.partition("\n")
        return f'<p><code>{escape(head)}</code></p><pre style="white-space: pre-wrap">{escape(rest)}</pre>'


def batch_html(images: Any, rows: Iterable[tuple[str, str]]) -> str:
    """A batch as a table, (field, what it holds), above its first images; those whose values leave [0, 1] are stretched
    into it."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    pictures = ""
    if len(getattr(images, "shape", ())) == 4 or isinstance(images, Ragged):
        made = [_uri(p) for p in each(images[:_SHOWN], stretch=True)]
        pictures = "".join(f'<img alt="image {i}" src="{u}" style="margin: 2px">' for i, u in enumerate(made))
    return f"<table>{cells}</table><div>{pictures}</div>"


def _uri(pixels: Pixels) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def as_bytes(images: Tensor, undone: Statistics | None = None, stretch: bool = False) -> list[Pixels]:
    """Images [N, C, H, W] as pictures.

    undone: Normalize's mean and standard deviation.  stretch: bring each image whose values leave [0, 1] into it by its
    least and its greatest; otherwise they are clipped.  One channel is gray; of more than three the first three are
    shown."""
    values = images.detach().to("cpu")
    if values.dtype != torch.uint8:
        floats = values.is_floating_point() or values.dtype == torch.bool
        top = 1.0 if floats else float(torch.iinfo(values.dtype).max)
        values = values.double() / top
        if undone is not None:
            mean, std = (torch.tensor(v, dtype=torch.float64, device="cpu").view(-1, 1, 1) for v in undone)
            values = values * std + mean
        if stretch:
            values = torch.stack([_stretched(v) for v in values]) if len(values) else values
        values = (values.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    channels = values.shape[1]
    shown = values[:, :3] if channels >= 3 else values[:, :1].expand(-1, 3, -1, -1)
    return [np.ascontiguousarray(p) for p in shown.permute(0, 2, 3, 1).numpy()]


def _stretched(image: Tensor) -> Tensor:
    low, high = image.min(), image.max()
    return image if low >= 0 and high <= 1 else (image - low) / (high - low).clamp_min(1e-12)


def each(images: Any, undone: Statistics | None = None, stretch: bool = False) -> list[Pixels]:
    """Pictures of images as a Batch holds them: a tensor, or a Ragged of different sizes."""
    if not isinstance(images, Ragged):
        return as_bytes(torch.as_tensor(images), undone, stretch)
    return [as_bytes(images[i].dense() if hasattr(images[i], "dense") else images[i][None], undone, stretch)[0]
            for i in range(len(images))]  # fmt: skip
