"""docs/catalogue.md says what other libraries have: every transform has its row, every name is one of theirs."""

import re
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import gpuaug as ga
from gpuaug.transforms import FIXED

ROOT = Path(ga.__file__).parent.parent
TEXT = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
TABLE = [[c.strip() for c in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| `")]
ROWS = {row[0].strip("`"): row[1:] for row in TABLE if len(row) == 7}
LIBRARIES = ("torchvision", "kornia", "torchtransform", "dali", "timm", "albumentations")


def name_of(cell: str) -> str | None:
    """The name that a cell shows; None where it says that there is none."""
    if cell == "no":
        return None
    shown = re.fullmatch(r"`([\w.]+)`( \*)?", cell)
    assert shown, f"a cell holds a name, or no: {cell!r}"
    return shown[1]


def named(library: str) -> dict[str, str]:
    column = LIBRARIES.index(library)
    found = {row: name_of(cells[column]) for row, cells in ROWS.items()}
    return {row: name for row, name in found.items() if name}


def has(root: str, name: str) -> bool:
    """Whether a dotted name is there, in an attribute or in a module."""
    *modules, last = name.split(".")
    home = root
    for part in modules:
        if find_spec(f"{home}.{part}") is None:
            return hasattr(reduce(getattr, modules, import_module(root)), last)
        home = f"{home}.{part}"
    return hasattr(import_module(home), last)


def test_every_transform_has_its_row():
    known = ga.REGISTRY.keys() | FIXED.keys() | {"MultiCrop"}
    assert known == ROWS.keys(), f"rows of docs/catalogue.md: {sorted(known ^ ROWS.keys())}"
    assert [len(named(library)) > 10 for library in LIBRARIES] == [True] * 6, "vacuous"


def test_torchvision_is_said_to_have_what_it_has():
    v2 = import_module("torchvision.transforms.v2")
    assert named("torchvision") == {row: row for row in ROWS if hasattr(v2, row)}


@pytest.mark.parametrize("name", sorted(set(named("kornia").values())))
def test_kornia_has_it(name):
    assert has("kornia.augmentation", name)


@pytest.mark.parametrize("name", sorted(set(named("timm").values())))
def test_timm_has_it(name):
    assert has("timm.data", name)


@pytest.mark.parametrize("name", sorted(set(named("dali").values())))
def test_dali_has_it(name):
    pytest.importorskip("nvidia.dali", reason="DALI has no wheel for this machine")
    assert has("nvidia.dali" if name.startswith("auto_aug") else "nvidia.dali.fn", name)


@pytest.mark.parametrize("library", ["torchtransform", "albumentations"])
def test_libraries_of_the_bench_have_it_where_they_are_installed(library):
    found = find_spec(library)
    if found is None or found.origin is None:
        # neither is among the packages of the tests
        assert set(named(library)) <= set(ROWS)
        return
    # by their sources, for importing them asks for more packages, and one of them for news from a server
    source = "\n".join(p.read_text(encoding="utf-8") for p in Path(found.origin).parent.rglob("*.py"))
    classes = set(re.findall(r"^class (\w+)", source, re.M))
    assert set(named(library).values()) <= classes


def test_what_draws_once_a_batch_is_marked():
    kornia = {row: cells[1] for row, cells in ROWS.items() if cells[1] != "no"}
    batchwise = {row for row, cell in kornia.items() if cell.endswith("*")}
    assert batchwise == {row for row, cell in kornia.items() if "auto." in cell or "ImageSequential" in cell}
