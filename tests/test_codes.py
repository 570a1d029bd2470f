"""Numbers that stand for something stand in `gpuaug_kernels.codes` alone: both languages and both interpreters derive
theirs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from gpuaug_kernels import codes, constants

import gpuaug as ga
from gpuaug import ir, rng
from gpuaug.exec.cpu import layout
from gpuaug.trace.record import KINDS

ROOT = Path(ga.__file__).parent.parent
FILES = [f for folder in ("gpuaug", "kernels") for f in sorted((ROOT / folder).rglob("*.py")) if f.name != "codes.py"]
NUMBERS = {n: v for n, v in vars(codes).items() if n.isupper() and isinstance(v, int | float)}
TABLES = {n: v for n, v in vars(codes).items() if n.isupper() and isinstance(v, dict)}
# names that mean nothing else; those of stages are arguments of transforms too, and what is given of a sample has its
# own name everywhere
LISTED = {
    **{n: TABLES[n].keys() for n in ("BORDERS", "STATISTICS", "DTYPES")},
    "OPERATIONS": {n for n, v in codes.OPERATIONS.items() if v >= codes.IADD},
}


def second_tables(source: str) -> list[str]:
    """What a module says again of what `codes` says."""
    tree, found = ast.parse(source), []
    taken = {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)} & NUMBERS.keys()
            derived = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)} & (taken | {"codes"})
            # a number of which only the name is the same means something else
            if len(named) >= 3 and not derived:
                found.append(f"line {node.lineno} numbers {', '.join(sorted(named))}")
    # what a name is looked for in is a question, no table
    asked = {id(c) for n in ast.walk(tree) if isinstance(n, ast.Compare) for c in n.comparators}
    for node in ast.walk(tree):
        parts = [] if id(node) in asked else getattr(node, "elts", [])
        # what a dictionary of other things than numbers says of each is not what stands for it
        if isinstance(node, ast.Dict) and all(isinstance(v, ast.Constant | ast.Attribute) for v in node.values):
            parts = node.keys
        words = {p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)}
        for name, members in LISTED.items():
            if len(words & members) >= 3:
                found.append(f"line {node.lineno} lists {name} again: {sorted(words & members)}")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift) and isinstance(node.right, ast.Constant):
            if node.right.value in (codes.DOMAIN_SHIFT, codes.EPOCH_BITS) or "occurrence" in ast.unparse(node.left):
                found.append(f"line {node.lineno} packs a counter: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_second_table_of_codes_stands_anywhere(path):
    assert second_tables(path.read_text()) == [], f"{path}: take it from gpuaug_kernels.codes"


@pytest.mark.parametrize(
    "source",
    [
        "NONE, CONSTANT, EDGE, REFLECT, SYMMETRIC = range(5)",
        'MODES = ("constant", "edge", "reflect", "symmetric")',
        'EXTENDS = {"none": 0, "constant": 1, "edge": 2}',
        "AFFINE, NORMALIZE, SATURATION, CONTRAST = 11, 12, 13, 14",
        "IADD, ISUB, IMUL = (tl.constexpr(i) for i in range(3))",
        'KINDS = ("mean", "range", "histogram")',
        "def f(slot, domain):\n    return slot | domain << 28",
        "def f(id, epoch):\n    return ((id >> 32) << 18) | epoch",
        "def f(keys):\n    return keys.occurrence << 16",
    ],
)
def test_a_second_table_is_seen(source):
    assert second_tables(source)


def test_numbers_within_a_table_differ():
    assert len(NUMBERS) > 100 and len(TABLES) >= 7, "vacuous"
    for name, table in TABLES.items():
        assert len(set(table.values())) == len(table) > 2, name
        assert all(getattr(codes, n.upper()) == v for n, v in table.items()), name
    both = [*codes.OPERATIONS.values(), *codes.DTYPES.values()]
    assert both == list(range(len(both))), "the interpreters take instructions by ranges of their numbers"
    assert set(codes.OPERATIONS) == set(KINDS)
    instructions = [*codes.STAGES.values(), layout.HALT, layout.RETURN, layout.JUMP]
    producers = [getattr(layout, n) for n in ("RESAMPLE", "WARP", "SHARPNESS", "BLUR", "PROJECT", "CUTMIX", "MIXUP")]
    assert len({*instructions, *producers}) == len(instructions) + len(producers)
    assert max(instructions) < layout.PRODUCERS <= min(producers)


def test_every_number_is_a_constant_of_the_kernels_too():
    for name, value in NUMBERS.items():
        assert getattr(constants, name).value == value
    with pytest.raises(AttributeError, match="BORDERS"):
        _ = constants.BORDERS


def test_fields_of_a_counter_fill_its_words():
    assert codes.DOMAIN_SHIFT + codes.DOMAIN_BITS == codes.OCCURRENCE_SHIFT + codes.OCCURRENCE_BITS + 4 == 32
    assert (rng.MAX_ID - 1 >> 32 << codes.EPOCH_BITS | rng.MAX_EPOCH - 1) == 2**32 - 1
    assert rng.counter_1(rng.MIX, rng.MAX_SLOT - 1) | rng.MAX_OCCURRENCE - 1 << codes.OCCURRENCE_SHIFT == 2**30 - 1
    assert ir.NOTHING == codes.NOTHING


def test_codes_are_imported_without_triton_and_numba():
    script = """
import sys
sys.modules["triton"] = sys.modules["numba"] = None
from gpuaug_kernels import codes
assert codes.BORDERS["edge"] == codes.EDGE
import gpuaug
"""
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
