"""What augmentation does to accuracy, and whether ours does what torchvision's does: the small network of
examples/fashion_mnist.py, trained from several seeds.

python -m bench.bench_accuracy [--dataset digits] [--store].  Each seed trains without augmentation, with one that suits
the data, with one that does not (flips), and with the suitable one drawn and computed by torchvision.  A seed chooses
weights, order and draws; split and schedule are fixed.  --store writes the figures and a picture to bench/results."""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import PercentFormatter

from bench.report import plots, results
from bench.suite import Options
from bench.timing import Budget

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist.py"
# what is trained, in the words of the example: its augmentation, and who computes it
VARIANTS = {
    "no augmentation": ("none", "gpuaug"),
    "suitable, gpuaug": ("suitable", "gpuaug"),
    "suitable, torchvision": ("suitable", "torchvision"),
    "unsuitable: flips, gpuaug": ("unsuitable", "gpuaug"),
}


def example() -> ModuleType:
    """examples/fashion_mnist.py."""
    spec = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def row(name: str, accuracies: list[float]) -> dict[str, Any]:
    """A variant's accuracy over the seeds: mean, standard deviation, and each."""
    values = np.asarray(accuracies)
    return {
        "variant": name,
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "n": len(values),
        "accuracies": [round(a, 6) for a in accuracies],
    }


def measure(dataset: str, data: str, seeds: int, epochs: int) -> list[dict[str, Any]]:
    """A row for each variant; variants take turns, seed by seed."""
    trainer = example()
    pictures = trainer.read(dataset, data)
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for seed in range(seeds):
        for name, (augment, pipeline) in VARIANTS.items():
            found[name].append(trainer.train(pictures, augment, pipeline, epochs, seed=seed)[-1])
            print(f"seed {seed}, {name}: {found[name][-1]:.2%}", file=sys.stderr, flush=True)
    return [row(name, values) for name, values in found.items()]


def picture(rows: list[dict[str, Any]], title: str, subtitle: str, theme: plots.Theme) -> Any:
    """Accuracy by variant: each seed a dot, and mean and standard deviation beside them."""
    figure, (ax,) = plots._page(7.4, 0.62 * len(rows) + 1.5, theme)
    figure.subplots_adjust(left=0.27, right=0.97, top=1 - 0.85 / figure.get_figheight(), bottom=0.16)
    plots._titles(figure, theme, title, subtitle)
    for k, r in enumerate(reversed(rows)):
        colour = theme.others[1] if "torchvision" in r["variant"] else theme.ours
        ax.errorbar(r["mean"], k, xerr=r["std"], color=colour, fmt="D", markersize=6, capsize=5, linewidth=1.6)
        ax.plot(r["accuracies"], [k - 0.22] * r["n"], "o", color=colour, markersize=4, alpha=0.45)
        ax.annotate(
            f"{r['mean']:.2%}",
            (r["mean"], k),
            (0, 7),
            textcoords="offset points",
            ha="center",
            color=theme.ink,
            fontsize=9,
        )
    ax.set_yticks(range(len(rows)), [r["variant"] for r in reversed(rows)])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.margins(x=0.06)
    return figure


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", choices=("digits", "fashion_mnist"), default="digits")
    parser.add_argument("--data", default="data", help="where Fashion-MNIST is, or goes")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--store", action="store_true", help="keep figures and picture in bench/results")
    given = parser.parse_args()
    rows = measure(given.dataset, given.data, given.seeds, given.epochs)
    for r in rows:
        print(f"{r['variant']:28s} {r['mean']:.2%} +- {r['std']:.2%} (n = {r['n']})")
    if given.store:
        stem = results.RESULTS / f"accuracy_{given.dataset}"
        about = results.conditions(Options("cpu", torch.get_num_threads(), Budget()))
        del about["rounds"]
        about |= {"dataset": given.dataset, "seeds": given.seeds, "epochs": given.epochs}
        results.save({"about": about, "rows": rows}, stem.with_suffix(".json"))
        subtitle = f"{given.seeds} seeds, {given.epochs} epochs; a diamond is the mean, its bar one standard deviation"
        for name, theme in plots.THEMES.items():
            figure = picture(rows, f"Accuracy on the test images: {given.dataset.replace('_', '-')}", subtitle, theme)
            figure.savefig(stem.parent / f"{stem.name}_{name}.png", dpi=150, facecolor=theme.paper)


if __name__ == "__main__":
    main()
