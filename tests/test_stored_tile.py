"""Prototypes of a resample that no launch uses: their values are those of the kernels that there are, and what is counted
of shared memory is what its banks do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import access
import lanes
import numpy as np
import older_triton
import pytest
import shared_memory
import stored_gluon
import stored_tile
import torch
import try_stored_tile
import ttgir
from compare import changed, compare
from gpuaug_kernels import chain, source

import gpuaug as ga

ROOT = Path(__file__).parents[1]
# what each is put in the place of
PROTOTYPES = {"counted_means": "byte_means", "stored_words": "triangle_words"}
# a tile's taps in 32 columns, in 64, in 64 for eight columns of the output each, and in more; windows of few columns
SIZES = [(37, 45), (60, 90), (64, 260), (20, 620), (9, 14), (33, 3)]
IDS = torch.tensor([3, 1, 2**40, 7, 2, 9])


def pixels() -> list[torch.Tensor]:
    """[H, W, 3]"""
    noise = torch.Generator().manual_seed(5)
    return [torch.randint(0, 256, (h, w, 3), generator=noise, dtype=torch.uint8) for h, w in SIZES]


@pytest.mark.parametrize("name", PROTOTYPES)
def test_a_prototype_gives_the_values_of_the_kernel_that_there_is(name, monkeypatch):
    images = ga.Ragged(tuple(pixels()))
    whole = ga.RandomResizedCrop((20, 36), scale=(0.6, 1.0), ratio=(0.5, 9.0))
    policy = ga.Policy([whole, ga.RandomHorizontalFlip(), ga.ToDtype(torch.float32, scale=True)], seed=5)
    want, plain = (policy(images, ids=IDS, backend=backend) for backend in ("reference", "triton"))
    ways, part_means, means = set(), stored_tile.part_means, stored_tile.byte_means
    monkeypatch.setattr(source, PROTOTYPES[name], getattr(stored_tile, name))
    monkeypatch.setattr(stored_tile, "part_means", lambda *a: (ways.add(tuple(map(int, a[-2:]))), part_means(*a))[1])
    monkeypatch.setattr(stored_tile, "byte_means", lambda *a: (ways.add("not stored"), means(*a))[1])
    got = policy(images, ids=IDS, backend="triton")
    compare(got, want, "resample", name)
    assert (got - plain).abs().max() < 1e-5
    assert ways == ({(32, 32), (32, 64), (8, 64), "not stored"} if name == "stored_words" else set())
    # another order of the same sums
    assert 0.0 < changed(got, plain) and want.std() > 0.05, "vacuous"


# ---- shared memory


@pytest.mark.parametrize(
    ("apart", "size", "passes"),
    [(4, 4, 1), (8, 4, 2), (16, 4, 4), (12, 4, 1), (0, 4, 1), (2, 2, 1), (8, 8, 2), (16, 16, 4)],
)
def test_lanes_that_meet_in_a_bank_go_one_after_the_other(apart, size, passes):
    assert lanes.shared_passes(apart * np.arange(32)[None], size) == passes


def test_another_order_of_shared_memory_is_refused():
    order = "#ttg.swizzled_shared<{{vec = {}, perPhase = 1, maxPhase = {}, order = [0]}}>"
    text = "!ttg.memdesc<4x1024xi16, #shared, #smem, mutable>"
    assert shared_memory.descriptor(text, {"#shared": order.format(1, 1)}) == ((4, 1024), "i16")
    for encoding in (order.format(8, 8), "#ttg.padded_shared<[128:+4] {order = [0]}>"):
        with pytest.raises(ValueError, match="unknown encoding, of which nothing can be said"):
            shared_memory.descriptor(text, {"#shared": encoding})
    with pytest.raises(ValueError, match="no rule for shared memory of f64"):
        shared_memory.descriptor(text.replace("i16", "f64"), {"#shared": order.format(1, 1)})


def test_a_part_of_shared_memory_is_the_memory_itself():
    class Run:
        module = ttgir.Module(
            [], [], {"#s": "#ttg.swizzled_shared<{vec = 1, perPhase = 1, maxPhase = 1, order = [0]}>"}, {}, 1
        )
        values: dict = {"k": 2}
        allocated = 0

        def types(self, op):
            return [ttgir.parse_type(op.text)]

    run = Run()
    for name, out, text, operands in (
        ("ttg.local_alloc", "a", "!ttg.memdesc<4x8xi16, #s, #smem, mutable>", []),
        ("ttg.memdesc_index", "b", "!ttg.memdesc<8xi16, #s, #smem, mutable>", ["a", "k"]),
        ("ttg.memdesc_reinterpret", "c", "!ttg.memdesc<32xi16, #s, #smem, mutable>", ["a"]),
    ):
        shared_memory.RULES[name](run, ttgir.Op(name, [out], text, operands, ""))
    run.values["b"].values[:] = 5
    assert run.values["b"].begin == 32 and run.values["c"].values.tolist() == [0] * 16 + [5] * 8 + [0] * 8
    run.values["k"] = 4
    with pytest.raises(IndexError, match="part 4 of a buffer of 4"):
        shared_memory.RULES["ttg.memdesc_index"](run, ttgir.Op("", ["d"], "", ["a", "k"], ""))


# ---- the command, which compiles


@pytest.mark.parametrize("way", ["as it is", "Gluon, planes"])
def test_what_is_timed_on_a_card_has_every_argument_in_its_place(way):
    entry, _ = try_stored_tile.workload("moderate")
    given = try_stored_tile.launched_with(entry, try_stored_tile.WAYS[way], 3, "cpu")
    kernel = stored_gluon.crop if "Gluon" in way else chain.chain
    assert list(given)[:-1] == list(kernel.arg_names)
    images, (_, c, h, w) = given[""], entry["source"]["shape"]
    assert (given["source"] - images.data_ptr()).tolist() == [k * c * h * w for k in range(3)]
    assert images.float().std() > 50 and len(images) >= 3 * c * h * w, "vacuous"


def test_crops_of_photographs_are_those_of_small_images_made_larger():
    entry, share = try_stored_tile.workload(try_stored_tile.PHOTOGRAPHS)
    few, many = access.workloads()["weak"], access.workloads()[try_stored_tile.PHOTOGRAPHS]
    assert share * access.BATCH == 64 and entry["source"]["shape"] == [2, 3, 1200, 1600]
    for (a, c), (b, d) in zip(zip(*few[1:], strict=True), zip(*many[1:], strict=True), strict=True):
        assert [round(3.2 * v) for v in a[6:10]] == b[6:10] and b[10:14] == [0, 0, 1600, 1200] and b[5] == 4800
        # the middle of the first and of the last pixel of the output, in pixels' sides
        for k in (-0.5, 223.5):
            assert d[0] * k + d[2] + 0.5 == pytest.approx(3.2 * (c[0] * k + c[2] + 0.5), abs=0.51)
            assert d[4] * k + d[5] + 0.5 == pytest.approx(3.2 * (c[4] * k + c[5] + 0.5), abs=0.51)
        assert d[6] == pytest.approx(max(1.0, abs(d[0]))) and d[7] == pytest.approx(max(1.0, d[4]))


def said(*arguments: str, first: tuple[str, ...] = ()) -> list[dict]:
    """What it prints.  first: folders where its packages are looked for before others"""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = os.pathsep.join([*first, str(ROOT / "kernels"), env.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "kernels" / "tools" / "try_stored_tile.py"), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["Gluon, planes", "Gluon, pixels, 4 warps"])
def test_what_gluon_stores_gives_the_values_of_the_kernel_that_there_is(way):
    [row] = said("--values", "--way", way)
    # a unit in the last place of bfloat16, one of 65535, and what that makes of a sum
    assert row["weak"] <= 2**-7 and 0 < row["moderate"] <= 1 and row["sums"] < 1e-5


@pytest.mark.slow
def test_a_tile_that_is_stored_once_is_read_with_less_than_one_that_each_gather_stores():
    rows = said("--workload", "weak", "--way", "as it is", "--way", "Gluon, planes", "--way", "stored for each gather")
    assert [r["spills"] for r in rows][:2] == [0, 0] and not any(r["faults"] for r in rows)
    assert [r["barriers"] for r in rows] == [0, 1, 3]
    by = {r["way"]: r for r in rows}
    wavefronts = [by[w]["parts"]["first cache, data"] for w in ("Gluon, planes", "stored for each gather")]
    assert wavefronts[0] < 0.7 * wavefronts[1]


@pytest.mark.slow
def test_the_oldest_triton_says_what_its_gluon_lacks():
    [row] = said("--workload", "weak", "--way", "Gluon, planes", first=(str(older_triton.folder()),))
    assert row["not compiled"] == f"Gluon of triton {older_triton.OLDEST} gathers nothing from shared memory"
