"""Instructions that a compiled kernel issues, counted from its machine code without running it.

A loop of the machine code is a natural loop of its flow graph.  It stands for the loop of the source whose instructions
it shares most with (the compiler's line tables name the lines, through every inlined call), and runs as often as the
stated workload says of that loop:

    trips     "function.variable" of a loop -> how often its body runs each time that it is reached
    chances   "function: test" of an `if` -> how often its body runs each time that it is reached, 0 to 1; what stands
              behind its else is "function: not (test)"

Of the copies that the compiler makes of a loop, the one with the most loops inside is taken, the others being for no
trips of those; of what then remains the largest is the unrolled one: it runs trips / copies times, the remainder not at
all. The slow path of an exact division, a call that ordinary numbers never take, counts as never run."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_FRAME = re.compile(r'//## File "([^"]+)", line (\d+)')
_LABEL = re.compile(r"^(\.L_\w+):")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)(.*?);")

JUMPS = ("BRA", "BRX", "EXIT", "RET", "BSYNC")

Frame = tuple[str, int]


@dataclass(frozen=True)
class Instruction:
    """One line of machine code, and the lines of source that it comes from, innermost first."""

    opcode: str
    operands: str
    guarded: bool
    frames: tuple[Frame, ...]

    @property
    def kind(self) -> str:
        """The operation without its modifiers; a CALL whose target is not a function is a branch."""
        name = self.opcode.split(".")[0]
        return "BRA" if name == "CALL" and "$" not in self.operands else name

    @property
    def labels(self) -> list[str]:
        """The labels among the operands."""
        return re.findall(r"\.L_\w+", self.operands)


@dataclass
class Block:
    """Instructions that run one after the other."""

    instructions: list[Instruction] = field(default_factory=list)
    after: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Region:
    """The body of a loop or of an `if` of the source."""

    file: str
    name: str
    first: int
    last: int
    loop: bool


def instructions(text: str) -> Iterator[Instruction | str]:
    """The instructions and labels of what nvdisasm prints with -gi."""
    frames: list[Frame] = []
    fresh = True
    for line in text.splitlines():
        if found := _FRAME.search(line):
            frames = [] if fresh else frames
            frames.append((found[1], int(found[2])))
            fresh = False
        elif found := _LABEL.match(line):
            yield found[1]
        elif found := _INSTRUCTION.match(line):
            fresh = True
            yield Instruction(found[2], found[3], found[1] is not None, tuple(frames))


def blocks(text: str) -> list[Block]:
    """The flow graph, from its entry."""
    out, labels = [Block()], {}
    for item in instructions(text):
        if isinstance(item, str):
            if out[-1].instructions:
                out.append(Block())
            labels[item] = len(out) - 1
            continue
        out[-1].instructions.append(item)
        if item.kind in JUMPS:
            out.append(Block())
    joins = {i.operands.split(",")[0].strip(): i.labels[-1] for b in out for i in b.instructions if i.kind == "BSSY"}
    for k, block in enumerate(out):
        if not block.instructions:
            continue
        last = block.instructions[-1]
        conditional = last.guarded or bool(re.search(r"\bU?!?U?P\d", last.operands))
        if last.kind in ("BRA", "BRX"):
            block.after += [labels[name] for name in last.labels]
        if last.kind == "BSYNC":
            block.after.append(labels[joins[last.operands.strip()]])
        if (last.kind not in JUMPS or conditional) and k + 1 < len(out):
            block.after.append(k + 1)
    return out


def loops(graph: list[Block]) -> dict[int, set[int]]:
    """The natural loops: header -> blocks."""
    before: dict[int, set[int]] = defaultdict(set)
    reached, todo = {0}, [0]
    while todo:
        k = todo.pop()
        for j in graph[k].after:
            before[j].add(k)
            if j not in reached:
                reached.add(j)
                todo.append(j)
    dominators = {k: set(reached) for k in reached} | {0: {0}}
    changed = True
    while changed:
        changed = False
        for k in sorted(reached - {0}):
            new = {k} | set.intersection(*(dominators[j] for j in before[k]))
            changed, dominators[k] = changed or new != dominators[k], new
    out: dict[int, set[int]] = {}
    for k in reached:
        for header in set(graph[k].after) & dominators[k]:
            body, todo = out.setdefault(header, {header}), [k]
            while todo:
                j = todo.pop()
                if j not in body:
                    body.add(j)
                    todo.extend(before[j])
    for k in set(range(len(graph))) - reached:
        graph[k].instructions.clear()
    return out


def _own(path: str) -> Path | None:
    """Our file of that name: machine code may come from a cache that another checkout of the same text has filled."""
    named = Path(path)
    file = Path(__file__).resolve().parents[1] / "gpuaug_kernels" / named.name
    return file if named.parent.name == file.parent.name and file.exists() else None


@cache
def regions(path: str) -> tuple[Region, ...]:
    """The bodies of loops and ifs of a file of kernels."""
    file = _own(path)
    if file is None:
        return ()
    out = []
    for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.For) and "static_range" not in ast.unparse(node.iter):
                out.append(
                    Region(
                        path,
                        f"{function.name}.{ast.unparse(node.target)}",
                        node.body[0].lineno,
                        node.end_lineno or 0,
                        True,
                    )
                )
            elif isinstance(node, ast.If):
                test = ast.unparse(node.test)
                for name, body in ((test, node.body), (f"not ({test})", node.orelse)):
                    if body:
                        last = body[-1].end_lineno or 0
                        out.append(Region(path, f"{function.name}: {name}", body[0].lineno, last, False))
    return tuple(out)


@cache
def functions(path: str) -> dict[str, tuple[int, int]]:
    """The lines of every function of a file of kernels."""
    file = _own(path)
    if file is None:
        return {}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {f.name: (f.lineno, f.end_lineno or 0) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}


def inside(i: Instruction, function: str) -> bool:
    """Whether an instruction comes from a function, inlined or not."""
    return any((lines := functions(path).get(function)) and lines[0] <= line <= lines[1] for path, line in i.frames)


@cache
def _within(frames: tuple[Frame, ...]) -> tuple[Region, ...]:
    """The regions that an instruction lies in, innermost first."""
    return tuple(
        r
        for path, line in frames
        for r in sorted(regions(path), key=lambda r: r.first - r.last, reverse=True)
        if r.first <= line <= r.last
    )


def _source_loop(graph: list[Block], body: set[int], outer: set[str]) -> str:
    """The loop of the source that a loop of the machine code is.  outer: loops of the source that it cannot be: those
    around it, and those that run once"""
    within: Counter[Region] = Counter()
    without: Counter[Region] = Counter()
    for k, block in enumerate(graph):
        for i in block.instructions:
            (within if k in body else without).update({r for r in _within(i.frames) if r.loop and r.name not in outer})
    size = sum(len(graph[k].instructions) for k in body)
    # of equals the shortest
    found = max(within, key=lambda r: (within[r] / (size + without[r]), r.first - r.last, r.name), default=None)
    return found.name if found else ""


def count(text: str, trips: Mapping[str, float], chances: Mapping[str, float]) -> tuple[float, Counter[str]]:
    """Instructions that a warp issues in all, and by kind; raises ValueError for a loop without trips."""
    graph = blocks(text)
    natural = loops(graph)
    if not any(i.frames for b in graph for i in b.instructions):
        raise ValueError("the kernel holds no line numbers; unset TRITON_DISABLE_LINE_INFO")
    parents = {h: [g for g in natural if g != h and h in natural[g]] for h in natural}
    names: dict[int, str] = {}
    for header in sorted(natural, key=lambda h: len(parents[h])):
        # what runs once is no loop of the machine code
        outer = {names[g] for g in parents[header]} | {name for name, times in trips.items() if times == 1.0}
        names[header] = _source_loop(graph, natural[header], outer)
    rate = _rates(graph, natural, names, parents, trips, chances)
    total: Counter[str] = Counter()
    for k, block in enumerate(graph):
        slow = any(i.kind == "CALL" for i in block.instructions)
        times = 0.0 if slow else 1.0
        for header, body in natural.items():
            times *= rate[header] if k in body else 1.0
        for i in block.instructions:
            chance = 1.0
            for region in _within(i.frames):
                chance *= chances.get(region.name, 1.0)
            total[i.kind] += times * chance  # type: ignore[assignment]
    return sum(total.values()), total


def _branches(graph: list[Block], body: set[int], known: Mapping[str, float]) -> set[str]:
    """The branches of a workload that a loop lies in: nearly all of its instructions do, since few have no place in the
    source."""
    every = [
        {r.name for r in _within(i.frames) if not r.loop and r.name in known}
        for k in body
        for i in graph[k].instructions
    ]
    counted = Counter(name for names in every for name in names)
    return {name for name, count in counted.items() if count > 0.8 * len(every)}


def _rates(
    graph: list[Block],
    natural: dict[int, set[int]],
    names: dict[int, str],
    parents: dict[int, list[int]],
    trips: Mapping[str, float],
    chances: Mapping[str, float],
) -> dict[int, float]:
    """How often each loop's body runs, each time that it is reached."""
    rate: dict[int, float] = {}
    for header, name in names.items():
        if name not in trips:
            raise ValueError(f'loop "{name}" has no trip count; state it in trips, which has {sorted(trips)}')
        # a loop in another branch is no copy
        twins = [
            g
            for g in names
            if names[g] == name
            and parents[g] == parents[header]
            and _branches(graph, natural[g], chances) == _branches(graph, natural[header], chances)
        ]
        inner = {g: sum(g in parents[h] for h in names) for g in twins}
        twins = [g for g in twins if inner[g] == max(inner.values())]
        loads = {
            g: sum(
                i.opcode.startswith(("LDG", "LDS", "FFMA", "FADD")) for k in natural[g] for i in graph[k].instructions
            )
            for g in twins
        }
        large = max(twins, key=lambda g: loads[g])
        small = min(twins, key=lambda g: loads[g])
        copies = loads[large] / max(1, loads[small])
        rate[header] = trips[name] if header in twins else 0.0
        if header in twins and len(twins) > 1 and copies >= 1.5:
            rate[header] = trips[name] / copies if header == large else 0.0
    return rate
