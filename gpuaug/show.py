"""Contact sheets: what a batch holds, or what a policy makes of it, as one picture.

    ga.show(batch)                                # as the loader gave it
    ga.show(batch, policy, epochs=range(6))       # a row a sample, a column an epoch

In a notebook the picture is shown; `.save("sheet.png")` writes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gpuaug import arguments, pictures, variants
from gpuaug.batch import Batch
from gpuaug.call import batch_of_one, one_of
from gpuaug.images import as_images
from gpuaug.pictures import Cell
from gpuaug.policy import Policy
from gpuaug.transforms import Transform

if TYPE_CHECKING:
    from PIL.Image import Image

# pixels: around all, between pictures, a line of text, the narrowest column; pictures that are larger are made smaller
MARGIN, GAP, LINE, NARROW, LARGEST = 16, 8, 15, 120, 320
INK, PALE, PAPER = (32, 33, 36), (95, 99, 104), (255, 255, 255)
# pictures in a row of a batch as it is
COLUMNS = 8


@dataclass(frozen=True, eq=False)
class Sheet:
    """What a contact sheet shows."""

    title: str
    notes: tuple[str, ...]
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell | None, ...], ...]


def show(
    batch: Any,
    policy: Policy | None = None,
    *,
    epochs: Sequence[int] | None = None,
    per_transform: bool = False,
    params: bool = False,
    classes: Sequence[str] | None = None,
) -> "Image":
    """A picture of a batch, with its labels, boxes, masks and keypoints.

    batch: a Batch, or images as a policy takes them; of a list of views, as a loader gives them, a column each.
    policy: that made it, whose Normalize is undone; without one, images whose values leave [0, 1] are stretched into
    it.  epochs: show what `policy` makes of the batch instead, a row a sample, a column an epoch.  per_transform: a
    column a transform of the first of `epochs`, with the draws of the whole policy.  params: write what was drawn
    below.  classes: names of the class numbers."""
    if isinstance(batch, list | tuple) and batch and all(isinstance(b, Batch) for b in batch):
        if epochs is not None:
            raise ValueError("these are views that a policy made already; leave epochs out, or pass one batch")
        return picture(_side_by_side(batch, policy, classes))
    given = batch if isinstance(batch, Batch) else Batch(batch)
    if policy is not None and not isinstance(policy, Policy):
        raise TypeError(f"policy must be a gpuaug.Policy, got {type(policy).__name__}")
    if epochs is None:
        if per_transform or params:
            raise ValueError("per_transform and params need epochs: what is drawn depends on them; pass epochs=[0]")
        return picture(as_it_is(given, policy, classes))
    if policy is None:
        raise ValueError("epochs came without a policy that makes something of the batch; pass show(batch, policy)")
    numbers = [arguments.integer("epochs", e, 0) for e in epochs]
    if not numbers:
        raise ValueError("epochs must name at least one, got none; pass epochs=[0]")
    if per_transform:
        return picture(by_transform(policy, given, numbers[0], params, classes))
    return picture(by_epoch(policy, given, numbers, params, classes))


# ---- what is shown


def as_it_is(batch: Batch, policy: Policy | None, classes: Sequence[str] | None) -> Sheet:
    """The samples of a batch, in rows of eight."""
    whole = with_rows(batch)
    cells = made(whole, None if policy is None else policy.transforms, classes, stretch=policy is None)
    if whole.ids is not None:
        ids = torch.as_tensor(whole.ids).tolist()
        cells = [Cell(c.pixels, (f"id {i}", *c.lines)) for c, i in zip(cells, ids, strict=True)]
    rows = tuple(tuple(cells[k : k + COLUMNS]) for k in range(0, len(cells), COLUMNS))
    return Sheet("", (), (), rows)


def by_epoch(policy: Policy, batch: Batch, epochs: Sequence[int], params: bool, classes: Sequence[str] | None) -> Sheet:
    """A row a sample: the original, then what the policy makes of it in each epoch."""
    whole = with_rows(batch)
    columns = [originals(whole, classes)]
    headings = ["original"]
    for epoch in epochs:
        out = policy(whole.replace(epoch=epoch))
        # fixed views, as of FiveCrop, are as many batches
        for number, view in enumerate(out if isinstance(out, list) else [out]):
            cells = made(view, policy.transforms, classes, whole.images.dtype)
            if params:
                drawn = variants.draws(policy, whole, epoch)
                cells = [
                    Cell(c.pixels, (*c.lines, *pictures.drawn(policy.transforms, drawn, i)))
                    for i, c in enumerate(cells)
                ]
            columns.append(cells)
            headings.append(f"epoch {epoch}, view {number}" if isinstance(out, list) else f"epoch {epoch}")
    return _sheet(policy, headings, columns, f"seed {policy.seed}")


def by_transform(policy: Policy, batch: Batch, epoch: int, params: bool, classes: Sequence[str] | None) -> Sheet:
    """A row a sample: the original, then the images after each transform, with the draws of the whole policy."""
    whole = with_rows(batch)
    columns: list[list[Cell | None]] = [[*originals(whole, classes)]]
    headings = ["original"]
    drawn = variants.draws(policy, whole, epoch) if params else None
    for k, after in variants.prefixes(policy, whole, epoch):
        t = policy.transforms[k - 1]
        headings.append(type(t).__name__)
        if after is None:
            columns.append([None] * len(whole))
            continue
        cells: list[Cell | None] = []
        for i, one in enumerate(after):
            cell = made(one, policy.transforms[:k], classes, whole.images.dtype)[0]
            more = pictures.numbers(t, drawn[k - 1], i) if drawn is not None else ""
            cells.append(Cell(cell.pixels, (*cell.lines, *([more] if more else []))))
        columns.append(cells)
    return _sheet(policy, headings, columns, f"seed {policy.seed}, epoch {epoch}")


def _side_by_side(views: Sequence[Batch], policy: Policy | None, classes: Sequence[str] | None) -> Sheet:
    """A row a sample, a column a view."""
    transforms = None if policy is None else policy.transforms
    columns = [made(with_rows(v), transforms, classes, stretch=policy is None) for v in views]
    return Sheet("", (), tuple(f"view {k}" for k in range(len(views))), tuple(zip(*columns, strict=True)))


def with_rows(batch: Batch) -> Batch:
    """The batch with images as a policy takes them, and with ids, so that all that is made of it draws alike; of one
    image a batch of one."""
    one = one_of(batch)
    batch = batch if one is None else batch_of_one(batch, one)
    images = as_images(batch.images)
    if not len(images):
        raise ValueError("there is nothing to show: the batch has no samples")
    ids = torch.arange(len(images), device=images.device) if batch.ids is None else batch.ids
    return batch.replace(images=images, ids=ids, params=None)


def originals(batch: Batch, classes: Sequence[str] | None) -> list[Cell]:
    """The samples before anything is done to them."""
    ids = torch.as_tensor(batch.ids).tolist()
    out = []
    for i, cell in enumerate(made(batch, (), classes)):
        out.append(Cell(cell.pixels, (" ".join(("id", str(ids[i]), *cell.lines[:1])),)))
    return out


def made(
    batch: Any,
    transforms: Sequence[Transform] | None,
    classes: Sequence[str] | None,
    dtype: torch.dtype = torch.uint8,
    stretch: bool = False,
) -> list[Cell]:
    """The samples of a batch with all that it has beside them.  transforms: that made it
    of images of a dtype.  stretch: where it is not known what made it"""
    undone = pictures.statistics(transforms, dtype) if transforms else None
    plain = pictures.each(batch.images, undone, stretch)
    cells = []
    for i, pixels in enumerate(plain):
        said = pictures.label(batch.labels, i, classes)
        cells.append(Cell(pictures.with_targets(pixels, batch, i), (said,) if said else ()))
    return cells


def notes(policy: Policy) -> list[str]:
    """What must be known to read pictures of a policy."""
    out = []
    if policy._mixes:
        out.append("partners of mixes are among the samples shown: training mixes with those of its own batch")
    if pictures.statistics(policy.transforms) is not None:
        out.append("Normalize is undone")
    return out


def _sheet(policy: Policy, headings: Sequence[str], columns: Sequence[Sequence[Cell | None]], title: str) -> Sheet:
    rows = tuple(zip(*columns, strict=True))
    code = ", ".join(map(repr, policy.transforms))
    return Sheet(title, (code, *notes(policy)), tuple(headings), rows)


# ---- the picture


def picture(sheet: Sheet) -> "Image":
    """A sheet as an image: pictures of up to 320 pixels as they are, larger ones made smaller."""
    from PIL import Image, ImageDraw

    widths = [
        max([NARROW, *(_fit(r[k])[0] for r in sheet.rows if k < len(r))]) for k in range(max(map(len, sheet.rows)))
    ]
    texts = [[_lines(cell, w) for cell, w in zip(row, widths, strict=False)] for row in sheet.rows]
    heights = [
        max(_fit(c)[1] + len(t) * LINE for c, t in zip(row, text, strict=True))
        for row, text in zip(sheet.rows, texts, strict=True)
    ]
    width = 2 * MARGIN + sum(widths) + GAP * (len(widths) - 1)
    head = [_fitted(n, 12, width - 2 * MARGIN) for n in sheet.notes]
    top = MARGIN + (26 if sheet.title else 0) + LINE * len(head) + (28 if sheet.headings else 0)
    page = Image.new("RGB", (width, top + sum(heights) + (GAP + 2) * len(heights) + MARGIN - GAP), PAPER)
    pen = ImageDraw.Draw(page)
    y = MARGIN
    if sheet.title:
        pen.text((MARGIN, y), sheet.title, INK, _font(18))
        y += 26
    for line in head:
        pen.text((MARGIN, y), line, PALE, _font(12))
        y += LINE
    lefts = [MARGIN + sum(widths[:k]) + GAP * k for k in range(len(widths))]
    for left, wide, heading in zip(lefts, widths, sheet.headings, strict=False):
        pen.text((left, y + 7), _fitted(heading, 13, wide), INK, _font(13))
    y = top
    for row, text, high in zip(sheet.rows, texts, heights, strict=True):
        for left, cell, lines in zip(lefts, row, text, strict=False):
            if cell is None:
                pen.text((left, y), "no size is fixed yet", PALE, _font(12))
                continue
            small = Image.fromarray(cell.pixels)
            if small.size != _fit(cell):
                small = small.resize(_fit(cell), Image.Resampling.LANCZOS)
            page.paste(small, (left, y))
            for n, line in enumerate(lines):
                pen.text((left, y + small.size[1] + 3 + n * LINE), line, PALE, _font(12))
        y += high + GAP + 2
    return page


def _fit(cell: Cell | None) -> tuple[int, int]:
    """Width and height of a picture on the sheet."""
    if cell is None:
        return NARROW, LINE
    height, width = cell.pixels.shape[:2]
    scale = min(1.0, LARGEST / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _lines(cell: Cell | None, width: int) -> list[str]:
    """What stands below a picture, broken at its width."""
    out: list[str] = []
    for text in () if cell is None else cell.lines:
        line = ""
        for word in text.split(" "):
            longer = f"{line} {word}".strip()
            if line and _font(12).getlength(longer) > width:
                out.append(line)
                longer = word
            line = longer
        out.append(_fitted(line, 12, width))
    return out


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _fitted(text: str, size: int, width: int) -> str:
    """The text, cut where it is too wide."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle] + "...") <= width else (low, middle - 1)
    return text[:low] + "..."
