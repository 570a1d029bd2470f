"""Triton's intermediate code for GPUs, TTGIR: its text as operations, and its layouts as what every thread holds.

A layout is taken apart into the coordinates that a set bit of a register's, a lane's and a warp's number adds, as
Triton's own linear layouts are (Zhou et al., 2025, arXiv 2505.23819): a coordinate is the exclusive or of them.  An
encoding that is not one of those below is refused rather than guessed at."""

import re
from dataclasses import dataclass, field
from functools import cache

Vector = tuple[int, ...]


@dataclass
class Op:
    """One operation; `regions` are the bodies of loops, ifs and reductions, by blocks."""

    name: str
    results: list[str]
    text: str  # what stands behind the name
    operands: list[str]
    loc: str
    regions: list["Block"] = field(default_factory=list)


@dataclass
class Block:
    """Operations one after the other, with the names of the block's arguments."""

    arguments: list[str]
    ops: list[Op] = field(default_factory=list)
    label: str = ""


@dataclass(frozen=True)
class TensorType:
    """Shape and element; `layout` is the encoding's text, empty for a scalar."""

    shape: Vector
    element: str
    layout: str


@dataclass(frozen=True)
class Layout:
    """What a set bit adds to a coordinate, of a register's number, a lane's and a warp's, lowest bit first."""

    register: tuple[Vector, ...]
    lane: tuple[Vector, ...]
    warp: tuple[Vector, ...]


@dataclass
class Module:
    """A kernel: its arguments, its blocks, its encodings and places in the source by name."""

    arguments: list[str]
    blocks: list[Block]
    encodings: dict[str, str]
    places: dict[str, str]
    warps: int

    def place(self, loc: str) -> tuple[str, int, int]:
        """File, line and column of the innermost function that an operation comes from."""
        for _ in range(20):
            found = re.search(r'"([^"]*)":(\d+):(\d+)', self.places.get(loc, ""))
            if found:
                return found[1].rsplit("/", 1)[-1], int(found[2]), int(found[3])
            inner = re.search(r"#loc\d*", self.places.get(loc, ""))
            if not inner:
                break
            loc = inner[0]
        return "?", 0, 0

    def outer_places(self, loc: str) -> list[tuple[str, int, int]]:
        """The same from the innermost function to the kernel."""
        text = self.places.get(loc, "")
        found = re.match(r"loc\(callsite\((#loc\d*) at (#loc\d*)\)\)", text)
        if not found:
            named = re.match(r'loc\("[^"]*"\((#loc\d*)\)\)', text)
            return self.outer_places(named[1]) if named else [self.place(loc)]
        return [*self.outer_places(found[1]), *self.outer_places(found[2])]

    def layout(self, type_: TensorType) -> Layout:
        """The layout of a type of this kernel, for its shape."""
        return linear_layout(expand(type_.layout, tuple(sorted(self.encodings.items()))), type_.shape, self.warps)


def expand(text: str, encodings: tuple[tuple[str, str], ...]) -> str:
    """An encoding's text without names of others."""
    table = dict(encodings)
    for _ in range(10):
        found = re.search(r"#(?!ttg\.)\w+", text)
        if not found:
            return text
        if found[0] not in table:
            raise ValueError(f"the encoding {found[0]} is defined nowhere; got {text}")
        text = text.replace(found[0], table[found[0]], 1)
    return text


@cache
def linear_layout(text: str, shape: Vector, warps: int) -> Layout:
    """An encoding's text as a layout of a tensor of this shape."""
    if text.startswith("#ttg.slice"):
        found = re.match(r"#ttg\.slice<\{dim = (\d+), parent = (.*)\}>$", text)
        if not found:
            raise ValueError(f"no such slice: {text}")
        dim = int(found[1])
        whole = linear_layout(found[2], (*shape[:dim], 1, *shape[dim:]), warps)
        cut = [[(*b[:dim], *b[dim + 1 :]) for b in part] for part in (whole.register, whole.lane, whole.warp)]
        return Layout(tuple(b for b in cut[0] if any(b)), tuple(cut[1]), tuple(cut[2]))
    if text.startswith("#ttg.blocked"):
        return _blocked(text, shape)
    if text.startswith("#ttg.linear"):
        parts = {}
        for name in ("register", "lane", "warp"):
            inner = re.search(rf"{name} = \[((?:\[[^\]]*\](?:, )?)*)\]", text)
            if not inner:
                raise ValueError(f"a linear layout without {name}: {text}")
            rows = re.findall(r"\[([^\[\]]*)\]", inner[1])
            parts[name] = tuple(tuple(int(v) for v in row.split(",")) for row in rows)
        register = tuple(b for b in _within(parts["register"], shape) if any(b))
        return Layout(register, _within(parts["lane"], shape), _within(parts["warp"], shape))
    raise ValueError(f"unknown encoding, of which nothing can be said: {text}")


def _within(bases: tuple[Vector, ...], shape: Vector) -> tuple[Vector, ...]:
    """Bases; what lies beyond the shape is held twice."""
    return tuple(tuple(v if v < s else 0 for v, s in zip(b, shape, strict=True)) for b in bases)


def _blocked(text: str, shape: Vector) -> Layout:
    parts = {}
    for name in ("sizePerThread", "threadsPerWarp", "warpsPerCTA", "order"):
        found = re.search(rf"{name} = \[([\d, ]*)\]", text)
        if not found:
            raise ValueError(f"a blocked layout without {name}: {text}")
        parts[name] = [int(v) for v in found[1].split(",")]
    rank = len(shape)
    reached = [1] * rank
    out: list[tuple[Vector, ...]] = []
    for name in ("sizePerThread", "threadsPerWarp", "warpsPerCTA"):
        bases: list[Vector] = []
        for d in parts["order"]:
            for _ in range(parts[name][d].bit_length() - 1):
                bases.append(tuple(reached[d] if k == d and reached[d] < shape[d] else 0 for k in range(rank)))
                reached[d] *= 2
        out.append(tuple(bases))
    # what is larger than all threads together comes again in further registers
    more: list[Vector] = []
    for d in parts["order"]:
        while reached[d] < shape[d]:
            more.append(tuple(reached[d] if k == d else 0 for k in range(rank)))
            reached[d] *= 2
    return Layout((*(b for b in out[0] if any(b)), *more), out[1], out[2])


# ---- the text


_TENSOR = re.compile(r"tensor<([^<>]*(?:<[^<>]*>)?[^<>]*?)(?:, (#(?:[^<>]|<\{(?:[^<>]|<\{[^<>]*\}>)*\}>)*))?>$")


def parse_type(text: str) -> TensorType:
    """A type's text."""
    text = text.strip()
    if not text.startswith("tensor<"):
        return TensorType((), text, "")
    depth, comma = 0, None
    for k, c in enumerate(text):
        depth += (c in "<{") - (c in ">}")
        if c == "," and depth == 1:
            comma = k
            break
    inner = text[7:comma] if comma else text[7:-1]
    layout = text[comma + 1 : -1].strip() if comma else ""
    shape = re.match(r"((?:\d+x)*)", inner)
    assert shape is not None
    return TensorType(tuple(int(v) for v in shape[1].split("x") if v), inner[shape.end() :], layout)


def split_types(text: str) -> list[str]:
    """Types between commas."""
    out, depth, begin = [], 0, 0
    for k, c in enumerate(text):
        depth += (c in "<{(") - (c in ">})" and text[k - 1] != "-")
        if c == "," and depth == 0:
            out.append(text[begin:k].strip())
            begin = k + 1
    return [*out, text[begin:].strip()] if text[begin:].strip() else out


_OP = re.compile(r"^\s*(?:((?:%[\w$.-]+(?::\d+)?(?:, )?)+) = )?\"?([a-z_]+\.[\w.]+)\"?(.*)$")
_LOC = re.compile(r"\s*loc\((#loc\d*)\)\s*$")


def parse(text: str) -> Module:
    """The kernel of a module's text."""
    encodings = dict(re.findall(r"^(#(?!loc)\w+) = (.*)$", text, re.MULTILINE))
    places = dict(re.findall(r"^(#loc\d*) = (.*)$", text, re.MULTILINE))
    warps = re.search(r'"ttg.num-warps" = (\d+)', text)
    if not warps:
        raise ValueError("no module of TTGIR: it does not say how many warps it has")
    lines = [line for line in text.splitlines() if line.strip() and not re.match(r"^#\w+ = ", line)]
    begin = next(k for k, line in enumerate(lines) if "tt.func public" in line)
    arguments = re.findall(r"%(\w+): ", lines[begin])
    root: list[Block] = [Block([])]
    # an open region: the operation that it belongs to, and its blocks
    stack: list[tuple[Op | None, list[Block]]] = [(None, root)]
    for line in lines[begin + 1 :]:
        bare = line.strip()
        if bare.startswith("}"):
            op, _ = stack.pop()
            if op is None:
                break
            if found := _LOC.search(bare):
                op.loc = found[1]
            if ": " in bare and not op.text.rstrip().endswith(">"):
                op.text += " " + _LOC.sub("", bare[1:])
            elif "->" in bare:
                op.text += " " + _LOC.sub("", bare[1:])
            if "else {" in bare or "do {" in bare:
                block = Block(re.findall(r"%([\w$.]+): ", bare))
                op.regions.append(block)
                stack.append((op, [block]))
            continue
        if bare.startswith("^"):
            block = Block(re.findall(r"%([\w$]+): ", bare), label=re.match(r"\^\w+", bare)[0])  # type: ignore[index]
            owner, blocks = stack[-1]
            if len(blocks) == 1 and not blocks[0].ops and not blocks[0].label and owner is not None:
                blocks[0].arguments, blocks[0].label = block.arguments, block.label
            else:
                blocks.append(block)
            continue
        found = _OP.match(line)
        if not found:
            raise ValueError(f"no operation: {line}")
        place = _LOC.search(line)
        rest = _LOC.sub("", found[3])
        results = []
        for name in (found[1] or "").split(", "):
            if name:
                base, _, count = name[1:].partition(":")
                results += [f"{base}#{k}" for k in range(int(count))] if count else [base]
        op = Op(
            found[2],
            results,
            rest,
            [v.replace("#", "#") for v in re.findall(r"%([\w$.-]+(?:#\d+)?)", rest)],
            place[1] if place else "",
        )
        stack[-1][1][-1].ops.append(op)
        if rest.rstrip().endswith("{"):
            block = Block([])
            op.regions.append(block)
            stack.append((op, [block]))
    return Module(arguments, root, encodings, places, int(warps[1]))
