"""The suite outside pytest: what `gpuaug bench` runs, with a progress bar."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import end_to_end, scenarios, suite
from bench.report import page, results

from .scenarios import Workload
from .suite import Measured, Options
from .timing import Budget


@dataclass(frozen=True)
class Order:
    """What is asked for.  groups: of workloads; empty for all.  store: keep the results beside the code as this
    machine's."""

    output: Path = Path("bench_report")
    groups: tuple[str, ...] = ()
    full: bool = False
    device: str = "auto"
    threads: int = 1
    seconds: float = 4.0
    store: bool = False


def workloads(order: Order) -> list[Workload]:
    """The workloads of the groups; raises ValueError for a group that does not exist."""
    unknown = [g for g in order.groups if g not in results.GROUPS]
    if unknown:
        raise ValueError(f"group must be one of {', '.join(results.GROUPS)}, got {unknown[0]!r}")
    found = [*scenarios.workloads(order.full), end_to_end.WORKLOAD]
    return [w for w in found if not order.groups or w.group in order.groups]


def options(order: Order) -> Options:
    """How the run is made; raises ValueError for a device that is not here."""
    device = order.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device must be cpu, or cuda where there is a card, got {order.device!r}; use auto")
    if order.threads < 1 or order.seconds <= 0:
        raise ValueError(f"threads and seconds must be above 0, got {order.threads} and {order.seconds}")
    return Options(device, order.threads, Budget(order.seconds) if order.seconds >= 1 else Budget(order.seconds, 2, 5))


def run(order: Order, console: Console) -> dict[str, Any]:
    """Measure, print a table for each workload, and write the report."""
    chosen, how = workloads(order), options(order)
    if order.output.exists() and not order.output.is_dir():
        raise ValueError(f"{order.output} is a file; pass a folder")
    measured: list[Measured] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("workloads"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=len(chosen))
        for workload in chosen:
            measured.append(one(workload, how, lambda text: progress.update(task, description=text)))
            progress.advance(task)
    data = results.to_json(measured, how)
    for line in results.lines(data):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for path in page.write(data, order.output):
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
    if order.store:
        path = results.RESULTS / f"{results.machine_class(how.where)}.json"
        data = results.merged(results.load(path), data) if path.exists() and order.groups else data
        results.save(data, path)
        path.with_suffix(".md").write_text(results.markdown(data), encoding="utf-8")
        console.print(f"stored {path}", markup=False, highlight=False, soft_wrap=True)
    return data


def one(workload: Workload, how: Options, say: Any) -> Measured:
    """One workload, whichever kind it is."""
    return end_to_end.measure(how, say) if workload.group == "end to end" else suite.measure(workload, how, say)
