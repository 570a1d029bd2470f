"""All of a source, decoded once in the order of its ids, as it is or fitted to one size."""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpuaug import arguments
from gpuaug.data.decode import decoder as decoder_of
from gpuaug.data.decode_batch import MAX_PIXELS, Decoder
from gpuaug.data.heads import Ints
from gpuaug.data.source import Source

# images that are read and decoded together
CHUNK = 64
FITS = ("crop", "stretch")


class Fit(NamedTuple):
    """One size for all images.  how: "crop", the largest part in the middle that has the shape of the size; "stretch",
    all of an image.  Both are resized bilinearly with antialias, as torchvision's Resize does uint8."""

    height: int
    width: int
    how: str = "crop"

    @classmethod
    def of(cls, size: int | tuple[int, int], how: str = "crop") -> "Fit":
        """From a side of a square, or (H, W)."""
        if how not in FITS:
            raise ValueError(f"fit must be one of {', '.join(map(repr, FITS))}, got {how!r}")
        return cls(*arguments.size("size", size), how)

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """What of an image is seen: top, left, height and width."""
        if self.how == "stretch":
            return 0, 0, height, width
        high = min(height, max(1, round(width * self.height / self.width)))
        wide = min(width, max(1, round(height * self.width / self.height)))
        return (height - high) // 2, (width - wide) // 2, high, wide

    def resized(self, image: Tensor) -> Tensor:
        """[h, w, C] uint8 to [H, W, C]."""
        if image.shape[:2] == (self.height, self.width):
            return image
        planar = image.permute(2, 0, 1)[None]
        out = torch.nn.functional.interpolate(
            planar, (self.height, self.width), mode="bilinear", antialias=True, align_corners=False
        )
        return out[0].permute(1, 2, 0)


@dataclass
class Part:
    """Some samples of a source in the order of their ids."""

    ids: list[int]  # that have an image
    images: list[Tensor]  # [H, W, C] uint8, one for each of `ids`
    full: list[tuple[int, int]]  # height and width of what was decoded, one for each of `ids`
    targets: Any  # one for each of `ids`, or None
    bad: dict[int, Exception] = field(default_factory=dict)  # id -> why there is no image


def every(
    source: Source,
    fit: Fit | None,
    *,
    start: int = 0,
    num_threads: int | None = None,
    name: str = "auto",
    max_pixels: int = MAX_PIXELS,
) -> Generator[Part, None, None]:
    """The samples from `start` on; while some are decoded the next are read."""
    decoder = decoder_of(name, "cpu", num_threads, max_pixels)
    chunks = [range(k, min(k + CHUNK, len(source))) for k in range(start, len(source), CHUNK)]
    try:
        with (
            ThreadPoolExecutor(1, "gpuaug-read") as reading,
            ThreadPoolExecutor(decoder.num_threads, "gpuaug-fit") as pool,
        ):
            ahead = [reading.submit(source.samples, chunk) for chunk in chunks[:1]]
            for k, chunk in enumerate(chunks):
                items, targets = ahead.pop().result()
                ahead += [reading.submit(source.samples, following) for following in chunks[k + 1 : k + 2]]
                yield _part(list(chunk), items, targets, decoder, fit, pool)
    finally:
        decoder.close()


def some(source: Source, ids: Sequence[int], decoder: Decoder) -> Part:
    """These samples, as they are."""
    items, targets = source.samples(ids)
    return _part(list(ids), items, targets, decoder, None, None)


def _part(
    ids: list[int],
    items: Sequence[Any],
    targets: Any,
    decoder: Decoder,
    fit: Fit | None,
    pool: ThreadPoolExecutor | None,
) -> Part:
    bad = {k: item for k, item in enumerate(items) if isinstance(item, Exception)}
    if all(isinstance(item, Tensor | Exception) for item in items):
        # pixels already, whatever their channels
        images: list[Any] = [_seen(i, fit) if isinstance(i, Tensor) else None for i in items]
        sizes = [tuple(i.shape[:2]) if isinstance(i, Tensor) else (0, 0) for i in items]
    else:
        heads = decoder.inspect(items)
        sizes = [(0, 0) if isinstance(h, Exception) else h.size for h in heads]
        windows: Ints | None = None
        if fit is not None:
            windows = torch.tensor([fit.window(*s) if all(s) else (0, 0, 1, 1) for s in sizes], device="cpu").numpy()
        done = decoder.decode(items, windows, heads)
        images, bad = list(done.images), done.bad
    good = [k for k in range(len(ids)) if k not in bad]
    shown = [images[k] for k in good]
    if fit is not None and pool is not None:
        shown = list(pool.map(fit.resized, shown))
    return Part(
        [ids[k] for k in good],
        shown,
        [(int(sizes[k][0]), int(sizes[k][1])) for k in good],
        None if targets is None else [targets[k] for k in good],
        {ids[k]: reason for k, reason in bad.items()},
    )


def _seen(image: Tensor, fit: Fit | None) -> Tensor:
    if fit is None:
        return image
    top, left, height, width = fit.window(*image.shape[:2])
    return image[top : top + height, left : left + width]


def plain_label(target: Any) -> Any:
    """A label as JSON holds it; None for what is none, such as boxes."""
    value = target.tolist() if hasattr(target, "tolist") else target
    flat = value if isinstance(value, list) else [value]
    return value if all(isinstance(v, int | float | str) for v in flat) else None
