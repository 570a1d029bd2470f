"""The command `gpuaug audit`: a table and a picture of how far each transform moves images."""

import importlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import isinf
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gpuaug.apps import given, programs, verify
from gpuaug.audit import Row, audit

ENDINGS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    data: str
    policy: str
    out: Path
    model: str | None = None
    boxes: Path | None = None
    images: int = 32
    draws: int = 2
    strengths: tuple[float, ...] = (0.5, 1.0, 2.0)

    def check(self) -> None:
        """Raise ValueError or RuntimeError for what no run could do."""
        if self.out.suffix.lower() not in ENDINGS:
            raise ValueError(f"--out must end in {', '.join(ENDINGS)}, got {self.out}")
        if not self.out.absolute().parent.is_dir():
            raise ValueError(f"{self.out.absolute().parent} is no folder; make it first, or pass another --out")
        for module, package in (("matplotlib", "matplotlib"), ("skimage", "scikit-image")):
            if find_spec(module) is None:
                raise RuntimeError(f"the audit needs {package}, which is not installed; pip install 'gpuaug[audit]'")


def run(order: Order, console: Console) -> None:
    """Print the table and write the picture."""
    order.check()
    policy = given.policy(order.policy)
    model = None if order.model is None else load_model(order.model)
    with given.source(order.data) as source:
        found = given.samples(source, given.spread(source, order.images))
    if order.boxes is not None:
        found = given.with_boxes(found, order.boxes)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("comparing", total=None)
        rows = audit(
            policy,
            found.batch,
            model=model,
            strengths=order.strengths,
            draws=order.draws,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not rows:
        raise ValueError(f"{order.policy} has no transform to audit: it only converts and resizes")
    given.written(order.out, picture(rows, order.out.suffix[1:].lower()))
    console.print(table(rows))
    console.print(
        f"{len(found.keys)} images, each drawn {'once' if order.draws == 1 else f'{order.draws} times'}; of the "
        "samples that a transform changed, against the "
        "same images without it, resized where it fixed the size",
        markup=False,
        highlight=False,
    )
    console.print(f"picture: {order.out}", markup=False, highlight=False, soft_wrap=True)


def load_model(what: str) -> Callable[[Any], Any]:
    """The model of an exported program, NAME.pt2, or what module:factory or FILE.py:factory makes."""
    if what.endswith(".pt2"):
        return programs.load(Path(what))
    name, colon, factory = what.rpartition(":")
    if not colon or not name or not factory:
        raise ValueError(f"--model must be NAME.pt2 or module:factory, got {what!r}")
    try:
        module = verify.module(name) if name.endswith(".py") else importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"--model names a module that can't be imported: {error}") from error
    if not callable(getattr(module, factory, None)):
        raise ValueError(f"{name} has no function {factory}; --model is module:factory")
    made = getattr(module, factory)()
    if not callable(made):
        raise ValueError(f"{what} must give a model that can be called, got {type(made).__name__}")
    model: Callable[[Any], Any] = made.eval() if isinstance(made, torch.nn.Module) else made
    return model


def table(rows: Sequence[Row]) -> Table:
    """The rows, from harmless to harmful."""
    out = Table(pad_edge=False, title="from harmless to harmful", title_justify="left")
    out.add_column("transform", overflow="fold")
    for name in ("strength", "changed", "PSNR dB", "SSIM"):
        out.add_column(name, justify="right")
    views, agreed = rows[0].in_view is not None, rows[0].agreement is not None
    for there, name in ((views, "in view"), (agreed, "agrees")):
        if there:
            out.add_column(name, justify="right")
    for r in rows:
        cells = [r.name, f"{r.strength:g} x", f"{r.changed:.0%}", _psnr(r.psnr), f"{r.ssim:.3f}"]
        cells += [f"{v:.0%}" for v in (r.in_view, r.agreement) if v is not None]
        out.add_row(*cells)
    return out


def _psnr(value: float) -> str:
    return "same" if isinf(value) else f"{value:.1f}"


def picture(rows: Sequence[Row], kind: str) -> bytes:
    """Bars of every figure, a line a row, as an image file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels: list[tuple[str, list[float], float]] = [
        # what did not change is as long as the axis
        ("PSNR, dB", [min(r.psnr, 60.0) for r in rows], 60.0),
        ("SSIM", [r.ssim for r in rows], 1.0),
    ]
    for title, shares in (
        ("share of objects in view", [r.in_view for r in rows]),
        ("share of predictions that agree", [r.agreement for r in rows]),
    ):
        if shares[0] is not None:
            panels.append((title, [1.0 if v is None else v for v in shares], 1.0))
    figure = Figure(
        figsize=(3.2 * len(panels) + 2.4, 0.3 * len(rows) + 1.4), layout=ConstrainedLayoutEngine(wspace=0.06)
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    places = range(len(rows))
    for axis, (title, values, top) in zip(axes, panels, strict=True):
        axis.barh(places, values, color="#1a67d2", height=0.7)
        axis.set_xlim(min(0.0, *values), top)
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(places, [f"{r.name}  {r.strength:g} x" for r in rows], fontsize=9)
    axes[0].invert_yaxis()
    figure.suptitle("What each transform does to images, from harmless to harmful", fontsize=11)
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=120)
    return file.getvalue()
