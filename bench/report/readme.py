"""README's table and the documentation's, rendered from bench/results/*.json; and the rule that no other number stands
there."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.report import plots, results
from bench.report.results import from_json, load, number, quartiles
from bench.suite import Measured

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- bench:begin, rendered by make readme -->", "<!-- bench:end -->"
# a speed, a time, a bandwidth or a factor; sizes such as 375 x 500 are none
CLAIM = re.compile(
    r"(?<![\w.])(\d+(?:[ ,]\d{3})*(?:\.\d+)?)\s?"
    r"(x (?:as|faster|slower|less|more)|times\b|fold\b|images/s|img/s|ms\b|µs\b|us\b|GB/s|TB/s|%)"
)
SOURCE = re.compile(r"<!-- (\S+\.json): ([^>]*?) -->")


def files() -> list[Path]:
    """The stored results of the suite, one file for each machine class."""
    found = []
    for path in sorted(results.RESULTS.glob("*.json")):
        if path.stem != "selection" and "workloads" in (data := load(path)) and "conditions" in data:
            found.append(path)
    return found


def cards() -> list[Path]:
    """The stored results of the bench of the kernels, one file for each card."""
    return sorted(results.RESULTS.glob("*_kernels.json"))


def section() -> str:
    """Everything between the markers: one table of all machines, and where it comes from."""
    rows, places = [], []
    for path in files():
        data = load(path)
        c = data["conditions"]
        rows += [
            _row(f"{results.place(data)}: {m.workload}", _rates(m)) for m in _shown(data) if m.group != "end to end"
        ]
        machine = f"{c['device']} with {c['cores']} cores, {c['date']}"
        places.append(f"{results.place(data)}: {machine}, `{path.relative_to(README.parent)}`.")
    for path in cards():
        data = load(path)
        c = data["conditions"]
        name = c["device"].removeprefix("NVIDIA ")
        rows += [_row(f"{name}: {job}, batch {v['batch']}", _card_rates(v)) for job, v in data["jobs"].items()]
        places.append(f"{name}: {c['device']}, {c['date']}, commit {c['commit']}, `{path.relative_to(README.parent)}`.")
    if not rows:
        return NOTHING
    head = ["| images/s | gpuaug | " + " | ".join(FEW) + " |", "|---|" + "---:|" * (1 + len(FEW))]
    tail = "A dash: not measured, or its work is not equal; [docs/speed.md](docs/speed.md) says which, with quartiles."
    return "\n".join(head + rows) + "\n\n" + " ".join([*places, tail])


FEW = ("torchvision", "Kornia", "albumentations", "DALI")


def _shown(data: dict[str, Any]) -> list[Measured]:
    return [
        m for m in from_json(data) if m.group in ("policy", "recipe", "end to end") and ", batch 256" not in m.workload
    ]


def _rates(m: Measured) -> list[float | None]:
    """Images a second: of ours, then of `FEW`."""
    return [s.median if (s := m.rate(name)) else None for name in (m.base, *FEW)]


def _card_rates(job: dict[str, Any]) -> list[float | None]:
    times = [job["speeds"]["whole call"], *(job["rivals"].get(name, {}) for name in FEW)]
    # a rival whose work is lighter than ours is marked in the full table, and is no number here
    return [1e3 * job["batch"] / t["ms"]["median"] if "ms" in t and "what" not in t else None for t in times]


def _row(title: str, rates: list[float | None]) -> str:
    own, *others = [number(r) if r else "-" for r in rates]
    return f"| {title} | **{own}** | {' | '.join(others)} |"


def details() -> str:
    """Every machine with its conditions, quartiles and pictures, for docs/speed.md."""
    parts = [_machine(path, load(path)) for path in files()]
    parts += [_card(path, load(path)) for path in cards()]
    return "\n\n".join(parts) if parts else NOTHING


NOTHING = "No results are stored yet: `make bench` makes them."


def accuracies() -> str:
    """The rows of bench_accuracy, for docs/accuracy.md."""
    parts = []
    for path in sorted(results.RESULTS.glob("accuracy_*.json")):
        data = load(path)
        about, rows = data["about"], data["rows"]
        versions = ", ".join(f"{name} {about['versions'][name]}" for name in ("torch", "torchvision"))
        lines = ["| | accuracy, % | standard deviation | each seed |", "|---|---:|---:|---|"]
        lines += [
            f"| {r['variant']} | **{100 * r['mean']:.2f}** | {100 * r['std']:.2f} | "
            f"{', '.join(f'{100 * a:.2f}' for a in r['accuracies'])} |"
            for r in rows
        ]
        head = (
            f"{about['dataset']}, {about['seeds']} seeds of {about['epochs']} epochs, {about['device']}, {versions}, "
            f"commit {about['commit']}, {about['date']}; from `bench/results/{path.name}`."
        )
        folder = f"../bench/results/{path.stem}"
        dark = f'<source media="(prefers-color-scheme: dark)" srcset="{folder}_dark.png">'
        alt = f"Accuracy on {about['dataset']} by augmentation, each seed a dot"
        parts += [f'<picture>{dark}<img alt="{alt}" src="{folder}_light.png"></picture>', "\n".join(lines), head]
    return "\n\n".join(parts) if parts else NOTHING


def pages() -> dict[Path, str]:
    """What `main` writes: README, and the pages of docs/ that show results."""
    docs = README.parent / "docs"
    made = {README: section(), docs / "speed.md": details(), docs / "accuracy.md": accuracies()}
    return {page: rendered(page.read_text(encoding="utf-8"), text) for page, text in made.items()}


def _machine(path: Path, data: dict[str, Any]) -> str:
    c = data["conditions"]
    shown = _shown(data)
    places = (
        f"`{path.relative_to(README.parent)}`, every workload in `{path.with_suffix('.md').relative_to(README.parent)}`"
    )
    head = f"{c['device']}, {results.place(data)}, commit {c['commit']}, {c['date']}; from {places}."
    alt = {
        "policies": "Images per second by policy",
        "growth": "Cost against batch and image size",
        "waterfall": "From torchvision to one launch",
    }
    pictures = "\n\n".join(_picture(path, name, alt[name]) for name in plots.possible(data))
    return "\n\n".join([f"**{c['device']}, {c['cores']} cores**", head, _table(shown), pictures])


def _picture(path: Path, name: str, alt: str) -> str:
    folder = f"../bench/results/{path.stem}"
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{folder}/{name}_dark.png">'
    return f'<picture>{dark}<img alt="{alt}" src="{folder}/{name}_light.png"></picture>'


RIVALS = ("torchvision", "torchvision float32", "Kornia", "albumentations", "DALI", "timm RandAugment")


def _table(measured: list[Measured]) -> str:
    lines = [
        "| images/s: median (quartiles) | gpuaug | " + " | ".join(RIVALS) + " |",
        "|---|" + "---:|" * (1 + len(RIVALS)),
    ]
    for m in measured:
        if m.group == "end to end":
            continue
        own = m.rate(m.base)
        cells = [f"**{quartiles(own)}**" if own else "-"]
        for name in RIVALS:
            rate, row = m.rate(name), m.row(name)
            cells.append(
                quartiles(rate)
                if rate
                else {"not comparable": "not comparable", "absent": "absent"}.get(row.status if row else "", "-")
            )
        lines.append(f"| {m.workload} | " + " | ".join(cells) + " |")
    loaders = "; ".join(
        f"{r.contender} {quartiles(s)}"
        for m in measured
        if m.group == "end to end"
        for r in m.rows
        if (s := m.rate(r.contender))
    )
    ratios = ", ".join(f"{m.workload} {number(s.median)}" for m in measured if (s := m.ratio("torchvision")))
    tail = [f"Times torchvision's speed, paired within the run: {ratios}."] if ratios else []
    tail += [f"From JPEG files with all cores, in images/s: {loaders}."] if loaders else []
    return "\n".join(lines) + "".join(f"\n\n{t}" for t in tail)


CARD_RIVALS = ("torchvision", "torchvision batch", "Kornia", "triton-augment")


def _card(path: Path, data: dict[str, Any]) -> str:
    """What the bench of the kernels found on a card: each workload's time, its share of what a copy of the bytes that
    must move would take, and others' time over ours."""
    c, copied = data["conditions"], data["copy bytes a second"]["median"] / 1e12
    versions = ", ".join(f"{name} {c['versions'][name]}" for name in ("torch", "triton"))
    head = (
        f"{c['device']}, commit {c['commit']}, {c['date']}, driver {c['driver'][0]}, {versions}; from "
        f"`{path.relative_to(README.parent)}`. A large copy runs at {number(copied)} TB/s. *Bound*: a copy of "
        "the bytes "
        "that must be read and written. Gaps: not measured."
    )
    titles = ["batch", "in a graph, µs", "of the bound", "whole call, ms", "host, ms", *CARD_RIVALS]
    lines = [f"| | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    lighter = []
    for name, job in data["jobs"].items():
        graph, call = job["speeds"]["in a graph"], job["speeds"]["whole call"]["ms"]
        cells = [
            str(job["batch"]),
            number(1e3 * graph["ms"]["median"]),
            f"{graph['share of the copy bound']['median']:.0%}",
            number(call["median"]),
            number(job["host ms"]["call"]["median"]),
        ]
        for rival in CARD_RIVALS:
            row = job["rivals"].get(rival, {})
            ratio = number(row["times ours"]["median"]) if "times ours" in row else "-"
            cells.append(ratio + ("\\*" if "what" in row else ""))
            lighter += [f"\\* {name}, {rival}: {row['what'].split(';')[0]}."] if "what" in row else []
        lines.append(f"| {name} | {' | '.join(cells)} |")
    tail = (
        "The last columns are their time over gpuaug's, whole calls; *torchvision batch* draws once for the "
        "whole batch. " + " ".join(lighter)
    )
    return "\n\n".join([f"**{c['device']}**", head, "\n".join(lines), tail.strip()])


def rendered(text: str, made: str | None = None) -> str:
    """A page with what is between its markers made anew, README's by default; raises ValueError where the markers are
    missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the page must hold {BEGIN} and {END} once each")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{section() if made is None else made}\n\n{END}{rest.split(END)[1]}"


def claims(text: str) -> Iterator[str]:
    """Numbers in prose that no result backs: outside the section and outside code, without a comment that names a
    matching result."""
    outside = text
    if BEGIN in text and END in text:
        outside = text.split(BEGIN)[0] + text.split(END)[1]
    outside = re.sub(r"```.*?```|`[^`\n]*`", "", outside, flags=re.S)
    for line in outside.splitlines():
        sources = [_value(*m.groups()) for m in SOURCE.finditer(line)]
        for claim in CLAIM.finditer(SOURCE.sub("", line)):
            value = float(claim.group(1).replace(" ", "").replace(",", ""))
            if not any(s is not None and abs(s - value) <= 0.06 * abs(s) for s in sources):
                yield f"{claim.group(0)!r} in {line.strip()[:100]!r}"


def _value(file: str, path: str) -> float | None:
    """A number of a results file by its keys, such as `cpu.json: moderate / gpuaug / ratio`; list items by their
    name."""
    try:
        at: Any = load(results.RESULTS / Path(file).name)
        for key in path.split(" / "):
            at = next(x for x in at if key in (x.get("name"), x.get("contender"))) if isinstance(at, list) else at[key]
        return float(at)
    except (OSError, KeyError, StopIteration, TypeError, ValueError, AttributeError):
        return None


def main() -> int:
    """Write the tables of README and of docs/, and the pictures that they show."""
    for path in files():
        plots.write(load(path), path.with_suffix(""))
    found = []
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
        found += list(claims(text))
    for claim in found:
        print(f"no result backs {claim}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
