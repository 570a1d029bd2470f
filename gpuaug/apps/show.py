"""The command `gpuaug show`: a contact sheet of a policy as PNG, or as one HTML page."""

import io
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from gpuaug.apps import given, page
from gpuaug.data.source import Source
from gpuaug.policy import Policy
from gpuaug.rng import MAX_EPOCH
from gpuaug.show import by_epoch, by_transform, picture

# samples and draws that are shown where nothing else is asked for
ROWS, DRAWS = 6, 5
ENDINGS = (".png", ".html")


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    data: str
    policy: str
    out: Path
    epochs: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    per_transform: bool = False
    params: bool = False
    boxes: Path | None = None

    def check(self) -> None:
        """Raise ValueError for what no run could do."""
        if self.out.suffix.lower() not in ENDINGS:
            raise ValueError(f"--out must end in {' or '.join(ENDINGS)}, got {self.out}")
        if not self.out.absolute().parent.is_dir():
            raise ValueError(f"{self.out.absolute().parent} is no folder; make it first, or pass another --out")
        for epoch in self.epochs:
            if not 0 <= epoch < MAX_EPOCH:
                raise ValueError(f"--epoch must be in [0, {MAX_EPOCH}), got {epoch}")
        if self.per_transform and self.out.suffix.lower() == ".html":
            raise ValueError("--per-transform is for a PNG; the page has a switch for each transform")


def run(order: Order, console: Console) -> None:
    """Write the picture or the page."""
    order.check()
    policy = given.policy(order.policy)
    with given.source(order.data) as source:
        found = _samples(order, source)
    epochs = order.epochs or tuple(range(1 if order.per_transform else DRAWS))
    if order.out.suffix.lower() == ".html":
        with console.status("drawing"):
            data = page.page(policy, found, epochs, order.params).encode()
    else:
        data = _png(order, policy, found, epochs)
    given.written(order.out, data)
    many = len(found.keys)
    what = f"{many} sample{'s' * (many > 1)}, epoch{'s' * (len(epochs) > 1)} {', '.join(map(str, epochs))}"
    console.print(f"{order.out}: {what}, {len(data) / 1e6:.1f} MB", markup=False, highlight=False, soft_wrap=True)


def _samples(order: Order, source: Source) -> given.Samples:
    found = given.samples(source, order.ids or given.spread(source, ROWS))
    return found if order.boxes is None else given.with_boxes(found, order.boxes)


def _png(order: Order, policy: Policy, found: given.Samples, epochs: tuple[int, ...]) -> bytes:
    if order.per_transform:
        sheet = by_transform(policy, found.batch, epochs[0], order.params, found.classes)
    else:
        sheet = by_epoch(policy, found.batch, epochs, order.params, found.classes)
    file = io.BytesIO()
    picture(sheet).save(file, "PNG")
    return file.getvalue()
