"""The command `gpuaug lint`: findings as a table, or as JSON for another program."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpuaug import arguments
from gpuaug.lint import LEVELS, Finding, lint, read_rules
from gpuaug.policy import Policy

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
# of the code that makes a transform, of which a container's has no end
_SHOWN = 60


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    domain: str | None
    rules: tuple[Path, ...]
    ignore: tuple[str, ...]
    fail_on: str
    output: str

    def check(self) -> None:
        """Raise ValueError for what no run could do."""
        arguments.one_of("--fail-on", self.fail_on, (*LEVELS, "never"))
        arguments.one_of("--format", self.output, ("table", "json"))


def run(order: Order, policy: Policy, console: Console) -> bool:
    """Print what was found; whether something is of the level that fails."""
    own = [rule for path in order.rules for rule in read_rules(path)]
    found = lint(policy, order.domain, rules=own, ignore=order.ignore)
    counts = Counter(f.level for f in found)
    if order.output == "json":
        rows = [asdict(f) for f in found]
        data = {"domain": order.domain, "findings": rows, "counts": {level: counts[level] for level in LEVELS}}
        console.print_json(json.dumps(data)) if console.is_terminal else print(json.dumps(data, indent=2))
    else:
        _table(found, order.domain, console)
    failing = () if order.fail_on == "never" else LEVELS[: LEVELS.index(order.fail_on) + 1]
    return any(counts[level] for level in failing)


def _table(found: list[Finding], domain: str | None, console: Console) -> None:
    about = f"for {domain}" if domain else "wherever images come from; --domain NAME adds the rules of a domain"
    if not found:
        console.print(f"nothing found {about}", markup=False, highlight=False)
        return
    table = Table(show_lines=True, pad_edge=False)
    table.add_column("level", no_wrap=True)
    table.add_column("where", overflow="fold")
    table.add_column("what", overflow="fold")
    table.add_column("why, and what to do", overflow="fold", ratio=1)
    for f in found:
        what = f.what if len(f.what) <= _SHOWN else f"{f.what[: _SHOWN - 3]}..."
        why = Text(f"{f.reason}\n") + Text(f.rule, style="bold")
        table.add_row(Text(f.level, style=_COLOURS[f.level]), Text(f.where), Text(what), why)
    console.print(table)
    for source in dict.fromkeys((f.rule, f.source) for f in found if f.source):
        console.print(f"{source[0]}: {source[1]}", markup=False, highlight=False)
    counts = Counter(f.level for f in found)
    told = ", ".join(f"{counts[n]} {n}{'s' if counts[n] > 1 else ''}" for n in LEVELS if counts[n])
    console.print(f"{told} {about}", markup=False, highlight=False)
