"""Results as JSON, as Markdown and as lines of a terminal.  A number never stands without its conditions."""

import json
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bench.contenders.registry import CONTENDERS
from bench.scenarios import PREPARED
from bench.suite import Measured, Options, Row
from bench.timing import Spread

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = (
    "torch",
    "triton",
    "numba",
    "numpy",
    "pillow",
    "opencv-python-headless",
    *sorted({c.package for c in CONTENDERS}),
)
GROUPS = {
    "policy": "Policies: photographs of 375 x 500 to 224",
    "recipe": "Recipes of others",
    "transform": "Single transforms at 224",
    "batch": "Cost against batch size: moderate",
    "size": "Cost against image size: moderate",
    "end to end": "End to end: JPEG files to batches",
}


def conditions(options: Options) -> dict[str, Any]:
    """Hardware, versions, commit and how the run was made."""
    device = options.where
    found: dict[str, Any] = {
        "machine class": machine_class(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": torch.multiprocessing.cpu_count(),
        "threads": options.threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {p: _version(p) for p in PACKAGES},
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "rounds": f"{options.budget.least} to {options.budget.most}, about {options.budget.seconds:g} s for each "
        "workload",
    }
    if device.type == "cuda":
        found["driver"] = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()[:1]
        found["memory"] = f"{torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB"
    return found


def machine_class(device: torch.device) -> str:
    """What results may be compared with each other: the card, or the number of cores and the kind of processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device).lower().replace(" ", "_").replace("-", "_")
    return f"cpu_{torch.multiprocessing.cpu_count()}_cores_{platform.machine()}"


def processor() -> str:
    """The processor's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """The commit that was timed, and whether files differed from it."""
    here = Path(__file__).parent
    head = _output("git", "-C", str(here), "rev-parse", "--short=12", "HEAD").strip()
    changed = _output(
        "git", "-C", str(here), "status", "--porcelain", "--untracked-files=no", "--", "../../gpuaug", "../../kernels"
    )
    return f"{head}{' with changes' if changed.strip() else ''}" if head else "unknown"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# ---- JSON


def to_json(measured: list[Measured], options: Options) -> dict[str, Any]:
    """Everything that was measured, and under what conditions."""
    return {"conditions": conditions(options), "left out": PREPARED, "workloads": [_workload(m) for m in measured]}


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Stored results with those workloads made anew that a later run of the same machine, threads and versions
    measured.

    The commit names both where they differ.  Other conditions that differ make the old results useless: the new ones
    stand alone."""
    same = ("machine class", "device", "threads", "python", "versions")
    if any(old["conditions"][k] != new["conditions"][k] for k in same):
        return new
    fresh = {w["name"]: w for w in new["workloads"]}
    kept = [fresh.pop(w["name"], w) for w in old["workloads"]]
    commits = dict.fromkeys((*old["conditions"]["commit"].split(", "), new["conditions"]["commit"]))
    used = [c for c in commits if c == new["conditions"]["commit"] or len(kept) > len(new["workloads"])]
    return {
        **new,
        "conditions": {**new["conditions"], "commit": ", ".join(used)},
        "workloads": [*kept, *fresh.values()],
    }


def _workload(m: Measured) -> dict[str, Any]:
    own = {
        "name": m.workload,
        "group": m.group,
        "description": m.description,
        "base": m.base,
        "bytes": m.moved,
        "copy seconds": _short(m.bound),
    }
    return {**own, "contenders": [_contender(m, r) for r in m.rows]}


def _contender(m: Measured, row: Row) -> dict[str, Any]:
    out = {k: v for k, v in asdict(row).items() if k not in ("workload", "group", "seconds") and v not in ("", 0)}
    found = {"images/s": m.rate(row.contender), "of the copy": m.share(row.contender)}
    found |= {f"time over {base}": m.ratio(row.contender, base) for base in dict.fromkeys((m.base, "torchvision"))}
    for name, spread in found.items():
        if spread is not None:
            out[name] = {k: v if isinstance(v, int) else float(f"{v:.4g}") for k, v in asdict(spread).items()}
    if row.seconds:
        out["seconds"] = _short(row.seconds)
    return out


def _short(seconds: tuple[float, ...]) -> list[float]:
    return [float(f"{s:.4g}") for s in seconds]


def from_json(data: dict[str, Any]) -> list[Measured]:
    """The measurements of a file that `to_json` wrote."""
    out = []
    for w in data["workloads"]:
        rows = []
        for c in w["contenders"]:
            own = {k: c[k] for k in ("contender", "status", "why", "images", "unit", "path", "draws", "note") if k in c}
            rows.append(Row(w["name"], w["group"], **own, seconds=tuple(c.get("seconds", ()))))
        out.append(
            Measured(
                w["name"], w["group"], w["description"], tuple(rows), tuple(w["copy seconds"]), w["bytes"], w["base"]
            )
        )
    return out


def save(data: dict[str, Any], path: Path) -> None:
    """Write results; a row of numbers stays on its line."""
    text = json.dumps(data, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_joined(text) + "\n", encoding="utf-8")


def _joined(text: str) -> str:
    """JSON whose lists of numbers take one line each."""
    import re

    return re.sub(r"\[\s+([-\d.e,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text)


def load(path: Path) -> dict[str, Any]:
    """Read results that `save` wrote."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


# ---- text


def number(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    if value >= 1000:
        digits = 3 - len(str(int(value)))
        return f"{round(value, digits):,.0f}".replace(",", " ")
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def quartiles(s: Spread, unit: float = 1.0) -> str:
    """Median and quartiles."""
    return f"{number(s.median * unit)} ({number(s.low * unit)}-{number(s.high * unit)})"


def place(data: dict[str, Any]) -> str:
    """Device and threads in a few words."""
    c = data["conditions"]
    kind = "CPU" if c["machine class"].startswith("cpu") else "GPU"
    return f"{kind}, {c['threads']} thread{'s' if c['threads'] != 1 else ''}"


HEAD = ("contender", "images/s (quartiles)", "time over gpuaug's", "of the copy", "n", "regime")


def cells(m: Measured, row: Row, place: str) -> tuple[str, ...]:
    """One line of a table."""
    regime = ", ".join(
        x
        for x in (
            place if m.group != "end to end" else "all cores",
            row.unit,
            row.path,
            f"draws: {row.draws}" if row.draws and row.draws != "each image its own" else "",
            row.note,
        )
        if x
    )
    rate, ratio, share = m.rate(row.contender), m.ratio(row.contender), m.share(row.contender)
    if rate is None:
        return (row.contender, f"{row.status}: {row.why}", "", "", "", regime)
    ratios = "1" if row.contender == m.base else (f"{quartiles(ratio)} x" if ratio else "-")
    return (
        row.contender,
        quartiles(rate),
        ratios,
        f"{number(100 * share.median)} %" if share else "-",
        str(rate.n),
        regime,
    )


def heading(data: dict[str, Any]) -> str:
    """The conditions in two sentences."""
    c = data["conditions"]
    versions = ", ".join(f"{k} {v}" for k, v in c["versions"].items() if v)
    threads = f"{c['threads']} thread{'s' if c['threads'] != 1 else ''}"
    where = (
        f"{c['device']}, {c['cores']} cores, {c['system']}, Python {c['python']}; every contender on {threads}, "
        "but for the loaders end to end, which have "
        f"all cores. Commit {c['commit']}, {c['date']}. {versions}."
    )
    how = (
        "A contender's output is checked before it is timed. Contenders take turns, round by round, and a ratio "
        "is formed within each round; given are the "
        "median and the quartiles of n rounds. `of the copy` is against a plain copy of the bytes that any "
        "program must move, in the same rounds. Each gets "
        "its images in memory as it takes them: gpuaug in channels_last, torchvision as [C, H, W] tensors, "
        "OpenCV and DALI as [H, W, C] arrays."
    )
    return f"{where}\n\n{how}"


def markdown(data: dict[str, Any], groups: tuple[str, ...] = tuple(GROUPS)) -> str:
    """The whole report."""
    measured = from_json(data)
    parts = ["# Throughput", heading(data)]
    for group in groups:
        own = [m for m in measured if m.group == group]
        if own:
            parts += [f"## {GROUPS[group]}", *(table(m, place(data)) for m in own)]
    left = "\n".join(f"- {what}: {why}" for what, why in data["left out"].items())
    return "\n\n".join([*parts, "## Left out", left]) + "\n"


def table(m: Measured, where: str) -> str:
    """One workload as a Markdown table; contenders that don't know it in a line below."""
    rows = [r for r in m.rows if r.status in ("ok", "not comparable")]
    lines = [f"**{m.workload}**: {m.description}", "", "| " + " | ".join(HEAD) + " |", "|---|---:|---:|---:|---:|---|"]
    lines += ["| " + " | ".join(c.replace("|", "/") for c in cells(m, r, where)) + " |" for r in rows]
    absent = "; ".join(f"{r.contender} ({r.why})" for r in m.rows if r not in rows)
    return "\n".join([*lines, *(["", f"Without a number: {absent}."] if absent else [])])


def lines(data: dict[str, Any]) -> list[str]:
    """The report for a terminal."""
    out: list[str] = []
    for m in from_json(data):
        table_rows = [("", *HEAD[1:]), *(cells(m, r, place(data)) for r in m.rows)]
        wide = (
            [max(len(r[k]) for r in table_rows if r[2] or k == 0) for k in range(5)] if len(table_rows) > 1 else [0] * 5
        )
        out += ["", f"{m.workload}  [{m.description}]"]
        for r in table_rows:
            if r[4]:
                out.append(
                    "  "
                    + r[0].ljust(wide[0])
                    + "  "
                    + "  ".join(r[k].rjust(wide[k]) for k in range(1, 5))
                    + "  "
                    + r[5]
                )
            else:
                out.append("  " + r[0].ljust(wide[0]) + "  " + r[1])
    return [*out, "", *(f"left out: {what}: {why}" for what, why in data["left out"].items())]
