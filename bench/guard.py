"""The regression guard: gpuaug against torchvision now, and in the stored results of the same machine class.  Only
ratios are compared.

Absolute times never are: another machine of the class, or the same one on another day, is faster or slower as a whole.
"""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import instructions, scenarios, suite
from bench.report import results

from .scenarios import Workload
from .suite import Measured, Options
from .timing import Budget, Spread

RIVAL = "torchvision"
PASSES = 3  # over all workloads: what changes between them is the noise
SIGMAS = 3.0
FLOOR = math.log(1.03)  # never call less than three per cent a regression


@dataclass(frozen=True)
class Finding:
    """One workload: how many times faster than torchvision it was and is, and the factor that noise alone explains."""

    workload: str
    stored: float
    now: float
    noise: float

    @property
    def regressed(self) -> bool:
        """Whether it got slower by more than the noise."""
        return self.now * self.noise < self.stored

    def line(self) -> str:
        """For a terminal."""
        word = "REGRESSED" if self.regressed else "ok"
        return (
            f"{word:9s}  {self.workload:24s}  {self.stored:7.2f} x stored, {self.now:7.2f} x now; a factor "
            f"below {self.noise:.2f} is noise"
        )


def _error(s: Spread) -> float:
    """The standard error of the logarithm of a median, from its quartiles: 1.2533 sigma / sqrt(n), sigma = IQR /
    1.349."""
    return 0.929 * math.log(max(s.high, 1e-12) / max(s.low, 1e-12)) / math.sqrt(max(1, s.n))


def judge(stored: dict[str, Spread], passes: list[dict[str, Spread]]) -> list[Finding]:
    """Compare; a workload's noise is its own between passes, or the typical one if that is larger, and the stored
    run's."""
    common = [name for name in stored if all(name in p for p in passes)]
    logs = {name: [math.log(p[name].median) for p in passes] for name in common}
    own = {name: _deviation(values) for name, values in logs.items()}
    typical = math.sqrt(sum(v * v for v in own.values()) / len(own)) if own else 0.0
    found = []
    for name in common:
        between = max(own[name], typical)
        # the stored run is one pass, this one the mean of several
        error = math.sqrt(between**2 * (1 + 1 / len(passes)) + _error(stored[name]) ** 2)
        now = sum(logs[name]) / len(passes)
        found.append(Finding(name, stored[name].median, math.exp(now), math.exp(max(FLOOR, SIGMAS * error))))
    return found


def _deviation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))


def ratios(measured: list[Measured]) -> dict[str, Spread]:
    """How many times as long as gpuaug torchvision takes, by workload."""
    return {m.workload: s for m in measured if (s := m.ratio(RIVAL)) is not None}


def lost(before: dict[str, Spread], workloads: list[Workload], passes: list[dict[str, Spread]]) -> list[str]:
    """Workloads that had a number and have none now: what is wrong is slower than anything."""
    return [w.name for w in workloads if w.name in before and not all(w.name in p for p in passes)]


def guarded(workloads: list[Workload]) -> list[Workload]:
    """The policies and recipes: single transforms are too short to tell a regression from noise in a minute."""
    return [w for w in workloads if w.group in ("policy", "recipe")]


def stored(path: Path, options: Options) -> dict[str, Spread]:
    """The ratios of a file; raises ValueError where it is missing or was made under other conditions."""
    if not path.exists():
        raise ValueError(
            f"there are no stored results of this machine class, {path.stem}; run make bench and commit them"
        )
    data: dict[str, Any] = results.load(path)
    if data["conditions"]["threads"] != options.threads:
        raise ValueError(
            f"the stored results are of {data['conditions']['threads']} threads, this run is of {options.threads}"
        )
    return ratios(results.from_json(data))


def main() -> int:
    """Print a line for each workload; 1 if any regressed, 2 if nothing can be compared."""
    import torch

    options = Options("cuda" if torch.cuda.is_available() else "cpu", budget=Budget(2.0))
    options = replace(options, only=(suite.base(options.where), RIVAL))
    try:
        before = stored(results.RESULTS / f"{results.machine_class(options.where)}.json", options)
    except ValueError as error:
        print(f"bench-check: {error}", file=sys.stderr)
        return 2
    workloads = [w for w in guarded(scenarios.workloads()) if w.name in before]
    passes = [ratios([suite.measure(w, options) for w in workloads]) for _ in range(PASSES)]
    found = judge(before, passes)
    for finding in found:
        print(finding.line())
    gone = lost(before, workloads, passes)
    for name in gone:
        print(f"LOST       {name:24s}  had a number, and its check is red now: gpuaug bench says why")
    if not found and not gone:
        print("bench-check: no workload of the stored results could be measured", file=sys.stderr)
        return 2
    more = _instructions() if options.device == "cpu" else False
    return int(more or bool(gone) or any(f.regressed for f in found))


def _instructions() -> bool:
    """Print what valgrind counts against what is stored; whether it is more."""
    if not instructions.FILE.exists():
        print("instructions: none are stored; python -m bench.instructions counts them")
        return False
    try:
        lines, more = instructions.compare(results.load(instructions.FILE), instructions.count())
    except RuntimeError as error:
        lines, more = [f"instructions: {error}"], False
    print("\n".join(lines))
    return more


if __name__ == "__main__":
    sys.exit(main())
