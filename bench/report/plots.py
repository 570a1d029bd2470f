"""The report's pictures, each drawn for light and for dark pages."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.report.results import from_json, number, place
from bench.suite import Measured


@dataclass(frozen=True)
class Theme:
    """Colours of a page."""

    paper: str
    ink: str
    pale: str
    grid: str
    ours: str
    others: tuple[str, ...]


# the others' colours differ in lightness too, so that they stay apart in print and for the colour blind
LIGHT = Theme(
    "#ffffff",
    "#1f2328",
    "#59636e",
    "#d8dee4",
    "#c2410c",
    ("#0b3d6b", "#3b7dc4", "#7fb2e5", "#2f6f4f", "#7cb894", "#6b4fa0", "#a893d0", "#8a8f98"),
)
DARK = Theme(
    "#0d1117",
    "#e6edf3",
    "#9198a1",
    "#30363d",
    "#ff8a4c",
    ("#9ecbff", "#5a9fe0", "#3a6ea5", "#8fd6ae", "#4f9a70", "#c9b6f2", "#8a6fd0", "#9aa0a8"),
)
THEMES = {"light": LIGHT, "dark": DARK}
WAY = (
    "torchvision on Pillow",
    "torchvision float32",
    "torchvision",
    "gpuaug, a call each",
    "gpuaug cpu",
    "gpuaug triton",
)


def _page(width: float, height: float, theme: Theme, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(1, columns, figsize=(width, height), facecolor=theme.paper, squeeze=False)
    for ax in axes[0]:
        ax.set_facecolor(theme.paper)
        ax.tick_params(colors=theme.ink, labelsize=9, length=0)
        for side in ("top", "right", "left", "bottom"):
            ax.spines[side].set_visible(False)
        ax.grid(axis="x", color=theme.grid, linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, list(axes[0])


def _titles(figure: Figure, theme: Theme, title: str, subtitle: str) -> None:
    height = figure.get_figheight()
    figure.text(0.015, 1 - 0.16 / height, title, color=theme.ink, fontsize=13, weight="bold", va="top")
    figure.text(0.015, 1 - 0.46 / height, subtitle, color=theme.pale, fontsize=9, va="top")


def _conditions(data: dict[str, Any]) -> str:
    return f"{data['conditions']['device']}, {place(data)}; medians, whiskers are quartiles"


def bars(data: dict[str, Any], theme: Theme) -> Figure:
    """Images per second of every contender, a panel for each policy."""
    found = [m for m in from_json(data) if m.group == "policy" and "," not in m.workload]
    names = [n for n in dict.fromkeys(r.contender for m in found for r in m.rows) if any(m.rate(n) for m in found)]
    figure, axes = _page(2.2 + 1.6 * max(1, len(found)), 1.15 + 0.3 * len(names), theme, max(1, len(found)))
    for k, (ax, m) in enumerate(zip(axes, found, strict=False)):
        for y, name in enumerate(names):
            _bar(ax, y, m, name, theme)
        ax.set_yticks(range(len(names)), [_label(found, n) for n in names] if k == 0 else [""] * len(names))
        ax.set_ylim(len(names) - 0.4, -0.6)
        top = max((s.high for n in names if (s := m.rate(n))), default=1.0)
        ax.set_xlim(0, top * 1.55)
        ax.set_xticks([])
        ax.set_title(m.workload, color=theme.ink, fontsize=10, loc="left")
    _titles(
        figure,
        theme,
        "Images per second, by policy",
        f"{_conditions(data)}; photographs of 375 x 500 in memory to 224 x 224 float32, batches of 16",
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.62 / figure.get_figheight()), w_pad=0.6)
    return figure


def _label(found: list[Measured], name: str) -> str:
    """A contender's name, and that it does less where one draw serves the whole batch."""
    rows = [row for m in found if (row := m.row(name))]
    return f"{name} (one draw)" if any(r.draws.startswith("one") for r in rows) else name


def _bar(ax: Axes, y: int, m: Measured, name: str, theme: Theme) -> None:
    rate = m.rate(name)
    if rate is None:
        row = m.row(name)
        said = {"not comparable": "not comparable", "unsupported": "no counterpart", "absent": "absent"}.get(
            row.status if row else "", ""
        )
        ax.text(0, y, f" {said}", color=theme.pale, fontsize=7.5, va="center", style="italic")
        return
    ax.barh(
        y,
        rate.median,
        height=0.66,
        color=theme.ours if name == m.base else theme.others[2 if _label([m], name) != name else 1],
    )
    ax.plot([rate.low, rate.high], [y, y], color=theme.ink, linewidth=1.0)
    ax.text(max(rate.high, rate.median), y, f" {number(rate.median)}", color=theme.ink, fontsize=8, va="center")


def growth(data: dict[str, Any], theme: Theme) -> Figure:
    """Time of an image against the batch, and of a pixel against the image."""
    figure, axes = _page(9.6, 4.0, theme, 2)
    for ax, group, label in zip(
        axes, ("batch", "size"), ("images in a batch", "side of the image, in pixels"), strict=True
    ):
        found = [m for m in from_json(data) if m.group == group]
        names = [n for n in dict.fromkeys(r.contender for m in found for r in m.rows) if any(m.rate(n) for m in found)]
        for k, name in enumerate(names):
            points = [(int(m.workload.split()[-2 if group == "size" else -1]), s) for m in found if (s := m.rate(name))]
            # the time of an image, or of a thousand pixels of it
            points.sort(key=lambda p: p[0])
            work = [x * x / 1000 if group == "size" else 1 for x, _ in points]
            per = [(x, 1e6 / (s.median * w)) for (x, s), w in zip(points, work, strict=True)]
            colour = theme.ours if found and name == found[0].base else theme.others[k % len(theme.others)]
            low, high = (
                [1e6 / (getattr(s, side) * w) for (_, s), w in zip(points, work, strict=True)]
                for side in ("high", "low")
            )
            ax.fill_between([x for x, _ in points], low, high, color=colour, alpha=0.22, linewidth=0)
            ax.plot(*zip(*per, strict=True), color=colour, marker="o", markersize=4, linewidth=2)
            ax.annotate(name, per[-1], xytext=(7, 0), textcoords="offset points", color=colour, fontsize=9, va="center")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: number(v)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.grid(axis="y", color=theme.grid, linewidth=0.8)
        ax.set_xlabel(label, color=theme.ink, fontsize=9)
        ax.set_title(
            "microseconds an image" if group == "batch" else "microseconds a thousand pixels",
            color=theme.ink,
            fontsize=10,
            loc="left",
        )
        low, high = ax.get_xlim()
        ax.set_xlim(low, high * (high / low) ** 0.28)
        if found:
            ax.set_xticks([int(m.workload.split()[-2 if group == "size" else -1]) for m in found])
    _titles(
        figure,
        theme,
        "How cost grows: moderate",
        _conditions(data).replace("; medians, whiskers are quartiles", "; medians, bands are quartiles")
        + "; less is better",
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.62 / figure.get_figheight()), w_pad=2)
    return figure


def waterfall(data: dict[str, Any], theme: Theme, workload: str = "moderate") -> Figure:
    """From torchvision to one launch: milliseconds an image, each step's saving drawn between the bars."""
    m = next(x for x in from_json(data) if x.workload == workload)
    steps = [(n, 1000 / s.median) for n in WAY if (s := m.rate(n))]
    row = m.row(m.base)
    bound = 1000 * sorted(m.bound)[len(m.bound) // 2] / row.images if m.bound and row else 0.0
    steps = [*sorted(steps, key=lambda s: -s[1]), ("a copy of the bytes", bound)]
    figure, (ax,) = _page(9.6, 1.1 + 0.44 * len(steps), theme)
    for y, (name, now) in enumerate(steps):
        before = steps[y - 1][1] if y else now
        colour = (
            theme.ours if name.startswith("gpuaug") else theme.pale if name.startswith("a copy") else theme.others[1]
        )
        ax.barh(y, now, height=0.62, color=colour)
        if before > now:
            ax.barh(
                y, before - now, left=now, height=0.62, color="none", edgecolor=theme.grid, hatch="////", linewidth=0
            )
        less = f"   {before / now:.1f} x less" if y and now else ""
        ax.text(max(before, now), y, f"  {number(now)} ms{less}", color=theme.ink, fontsize=9, va="center")
    ax.set_yticks(range(len(steps)), [n for n, _ in steps])
    ax.set_ylim(len(steps) - 0.4, -0.6)
    ax.set_xlim(0, max(s for _, s in steps) * 1.3)
    ax.set_xticks([])
    _titles(
        figure,
        theme,
        f"From torchvision to one launch: {workload}",
        f"milliseconds an image; {_conditions(data).split(';')[0]}; hatched is what a step saves",
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.62 / figure.get_figheight()))
    return figure


PICTURES: dict[str, Callable[[dict[str, Any], Theme], Figure]] = {
    "policies": bars,
    "growth": growth,
    "waterfall": waterfall,
}


def possible(data: dict[str, Any]) -> list[str]:
    """The pictures that these results have the numbers for."""
    found = from_json(data)
    timed = {g for m in found for g in (m.group, m.workload) if any(r.seconds for r in m.rows)}
    return [
        name
        for name, need in {"policies": {"policy"}, "growth": {"batch", "size"}, "waterfall": {"moderate"}}.items()
        if need <= timed
    ]


def digest(data: dict[str, Any]) -> str:
    """What a picture carries, so that one of other results is recognised."""
    return sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def png(data: dict[str, Any], name: str, theme: str) -> bytes:
    """One picture."""
    figure = PICTURES[name](data, THEMES[theme])
    out = BytesIO()
    figure.savefig(
        out,
        format="png",
        dpi=144,
        facecolor=figure.get_facecolor(),
        metadata={"Software": None, "Description": f"results {digest(data)}"},
    )
    plt.close(figure)
    return out.getvalue()


def write(data: dict[str, Any], folder: Path) -> list[Path]:
    """Every picture in both themes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in possible(data):
        for theme in THEMES:
            paths.append(folder / f"{name}_{theme}.png")
            paths[-1].write_bytes(png(data, name, theme))
    return paths
