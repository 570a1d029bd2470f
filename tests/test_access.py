"""Which addresses neighbouring lanes read and write, and how long a card is predicted to take for it: from layouts and
strides of the code that two versions of Triton make, without a card."""

import math
from pathlib import Path

import access
import aot_reported
import arrays
import dry_run
import lanes
import model
import numpy as np
import older_triton
import pytest
import specialisations
import ttgir
from gpuaug_kernels import aot, codes

ROOT = Path(__file__).parents[1]
# few, since each is compiled: every way to read and to write
FEW = (
    "flip + normalise",
    "weak",
    "weak, planar",
    "moderate",
    "moderate, launch 1",
    "rotation, bilinear",
)


def older() -> tuple[str, ...]:
    """Where the oldest version of Triton is looked for before the installed one."""
    return (str(older_triton.folder()),)


@pytest.fixture(scope="module", params=[older_triton.OLDEST, "newest"])
def few(request) -> dict[str, dict]:
    if request.param == "newest":
        made = [r for r in aot_reported.rows_once(request, 90, aot_reported.MOST) if r["name"] in FEW]
    else:
        made = aot_reported.rows(90, list(FEW), first=older())
    return {r["name"]: r for r in made}


def check(rows: dict[str, dict]) -> None:
    assert rows and all("us" in r for r in rows.values())
    assert {name: r["faults"] for name, r in rows.items() if r["faults"]} == {}


def test_lanes_lie_along_rows_and_stores_fill_their_sectors(few):
    assert few.keys() == set(FEW)
    check(few)
    for r in few.values():
        assert 1.0 <= r["sectors"]["store"] <= 1.05, r["name"]


@pytest.mark.slow
@pytest.mark.parametrize("version", [older_triton.OLDEST, "newest"])
def test_lanes_of_every_kernel_lie_along_rows(version):
    first = older() if version == older_triton.OLDEST else ()
    rows = {r["name"]: r for r in aot_reported.rows(90, [], first=first)}
    assert rows.keys() == {e["name"] for e in aot.specialisations()}
    check(rows)


def test_predictions_are_of_the_order_of_what_a_card_can_do(few):
    bound = {r["name"]: r["counts"]["bytes"] / model.BYTES * 1e6 for r in few.values()}
    for name, r in few.items():
        assert bound[name] < r["us"] < 12 * bound[name], (name, bound[name], r["us"])
    # a pixel of an intermediate is eight bytes, written once by the crop and read once by what follows
    pixels = 256 * 224 * 224
    assert few["moderate, launch 1"]["counts"]["bytes"] == pytest.approx(pixels * (8 + 6), rel=0.02)


def test_the_rows_of_the_workloads_are_what_policies_draw_today():
    assert access.FILE.read_text(encoding="utf-8") == specialisations.workload_text(), (
        "run python tests/support/specialisations.py"
    )


# ---- layouts


def held_by(text: str, shape: tuple[int, ...], warps: int = 1) -> np.ndarray:
    """[registers, lanes] of the first warp: flat indices."""
    return lanes.elements(ttgir.linear_layout(text, shape, warps), shape)[0]


BLOCKED = "#ttg.blocked<{{sizePerThread = [{}], threadsPerWarp = [{}], warpsPerCTA = [{}], order = [{}]}}>"


def test_a_blocked_layout_says_which_axis_lanes_follow():
    along_y = held_by(BLOCKED.format("1, 1", "32, 1", "1, 1", "0, 1"), (32, 32))
    along_x = held_by(BLOCKED.format("1, 1", "1, 32", "1, 1", "1, 0"), (32, 32))
    assert (np.diff(along_y, axis=1) == 32).all() and (np.diff(along_x, axis=1) == 1).all()
    assert along_y.size == along_x.size == 1024 and len(np.unique(along_y)) == 1024


def test_a_layout_of_one_dimension_holds_neighbours_together():
    held = held_by(BLOCKED.format("4", "32", "2", "0"), (1024,), 2)
    assert held[:4, 0].tolist() == [0, 1, 2, 3] and held[0, :3].tolist() == [0, 4, 8]
    # what two warps do not reach comes again
    assert held.shape == (16, 32) and held[4, 0] == 256


def test_a_slice_is_its_parent_without_an_axis():
    parent = BLOCKED.format("1, 1", "8, 4", "1, 1", "1, 0")
    rows = held_by(f"#ttg.slice<{{dim = 1, parent = {parent}}}>", (32,))
    columns = held_by(f"#ttg.slice<{{dim = 0, parent = {parent}}}>", (32,))
    assert rows[0].tolist() == [k // 4 for k in range(32)] and columns[0].tolist() == [k % 4 for k in range(32)]


def test_a_linear_layout_is_an_exclusive_or_of_its_bases():
    text = (
        "#ttg.linear<{register = [[0, 1]], lane = [[0, 2], [0, 4], [1, 0], [2, 0], [4, 0]], warp = [[8, 0]], "
        "block = []}>"
    )
    held = lanes.elements(ttgir.linear_layout(text, (16, 8), 2), (16, 8))
    assert held.shape == (2, 2, 32) and held[0, 0, :5].tolist() == [0, 2, 4, 6, 8] and held[1, 1, 0] == 65
    assert sorted(held.reshape(-1).tolist()) == list(range(128))


@pytest.mark.parametrize(
    "text", ["#ttg.nvidia_mma<{versionMajor = 2}>", "#ttg.dot_op<{opIdx = 0}>", "#ttg.padded<{order = [0]}>"]
)
def test_a_layout_that_is_not_understood_is_refused(text):
    with pytest.raises(ValueError, match="unknown encoding, of which nothing can be said"):
        ttgir.linear_layout(text, (32, 32), 1)


# ---- addresses, of code written by hand

COPY = """
#blocked = %s
module attributes {"ttg.num-warps" = 1 : i32} {
  tt.func public @copy(%%source: !tt.ptr<f32>, %%out: !tt.ptr<f32>) {
    %%pitch = arith.constant dense<224> : tensor<32x1xi32, #blocked>
    %%y = tt.make_range {end = 32 : i32, start = 0 : i32} : tensor<32xi32, #ttg.slice<{dim = 1, parent = #blocked}>>
    %%x = tt.make_range {end = 32 : i32, start = 0 : i32} : tensor<32xi32, #ttg.slice<{dim = 0, parent = #blocked}>>
    %%row = tt.expand_dims %%y {axis = 1 : i32} : tensor<32xi32, #ttg.slice<{dim = 1, parent = #blocked}>> -> tensor<32x1xi32, #blocked>
    %%at = arith.muli %%row, %%pitch : tensor<32x1xi32, #blocked>
    %%column = tt.expand_dims %%x {axis = 0 : i32} : tensor<32xi32, #ttg.slice<{dim = 0, parent = #blocked}>> -> tensor<1x32xi32, #blocked>
    %%a = tt.broadcast %%at : tensor<32x1xi32, #blocked> -> tensor<32x32xi32, #blocked>
    %%b = tt.broadcast %%column : tensor<1x32xi32, #blocked> -> tensor<32x32xi32, #blocked>
    %%c = arith.addi %%a, %%b : tensor<32x32xi32, #blocked>
    %%from = tt.splat %%source : !tt.ptr<f32> -> tensor<32x32x!tt.ptr<f32>, #blocked>
    %%p = tt.addptr %%from, %%c : tensor<32x32x!tt.ptr<f32>, #blocked>, tensor<32x32xi32, #blocked>
    %%v = tt.load %%p : tensor<32x32x!tt.ptr<f32>, #blocked>
    %%to = tt.splat %%out : !tt.ptr<f32> -> tensor<32x32x!tt.ptr<f32>, #blocked>
    %%q = tt.addptr %%to, %%c : tensor<32x32x!tt.ptr<f32>, #blocked>, tensor<32x32xi32, #blocked>
    tt.store %%q, %%v : tensor<32x32x!tt.ptr<f32>, #blocked>
    tt.return
  }
}
"""


def copied(layout: str) -> list[lanes.Access]:
    """The accesses of a copy of 32 x 32 floats of rows of 224, with a layout."""
    memory = arrays.Memory()
    image = np.arange(224 * 32, dtype=np.float32)
    source, out = memory.place(image, "source"), memory.place(np.zeros_like(image), "out")
    program = dry_run.Program(COPY % layout, "")
    found = program.run(memory, {"source": np.int64(source), "out": np.int64(out)}, (1, 1, 1), (0, 0, 0))
    got = memory.load(out + 4 * np.arange(224 * 32), 4).reshape(-1).view(np.float32).reshape(32, 224)
    assert (got[:, :32] == image.reshape(32, 224)[:, :32]).all() and (got[:, 32:] == 0).all()
    return list(found.accesses.values())


def test_lanes_along_a_column_are_found():
    found = copied(BLOCKED.format("1, 1", "32, 1", "1, 1", "0, 1"))
    faults = access.faults(found)
    assert len(faults) == 3 and "100% of neighbouring lanes lie in different rows" in faults[0]
    assert faults[2].endswith("8.00 times the sectors of its bytes")
    assert [(a.requests, a.sectors, a.lines) for a in found] == [(32, 1024, 1024)] * 2


def test_lanes_along_a_row_are_without_fault():
    found = copied(BLOCKED.format("1, 1", "1, 32", "1, 1", "1, 0"))
    assert access.faults(found) == [] and [(a.requests, a.sectors, a.lines) for a in found] == [(32, 128, 32)] * 2


def test_an_access_is_as_wide_as_the_machine_code_says():
    ptx = (
        '.file 1 "/a/k.py"\n.loc 1 7 3\n// begin inline asm\nld.global.v4.b32 { %r1 }, [ %rd1 + 0 ];\n// end inline asm'
    )
    assert lanes.instruction_widths(ptx) == {("k.py", 7, 3): {16}}


def test_an_operation_without_a_rule_is_refused():
    program = dry_run.Program(COPY % BLOCKED.format("1, 1", "1, 32", "1, 1", "1, 0"), "")
    program.module.blocks[0].ops.insert(0, ttgir.Op("tt.dot", ["d"], "", [], ""))
    with pytest.raises(NotImplementedError, match=r"no rule for tt\.dot"):
        program.run(arrays.Memory(), {"source": np.int64(0), "out": np.int64(0)}, (1, 1, 1), (0, 0, 0))


# ---- the model


def group(name: str) -> list[dict]:
    return [r for r in model.measured() if r["group"] == name]


def test_the_rates_are_those_that_fit_what_was_measured():
    found = model.fit(group("fitted"))
    for name, value in vars(model.FITTED).items():
        assert getattr(found, name) == pytest.approx(value, rel=0.03), name


def test_what_was_held_out_is_predicted_within_a_quarter():
    assert len(group("fitted")) == 9 and len(group("lanes along x")) == 5 and len(group("prototypes")) >= 40
    for name, limit in (("fitted", 0.12), ("lanes along x", 0.25), ("prototypes", 0.25)):
        e = model.error(group(name))
        assert e["rms"] < limit and e["median"] < 0.15 and 0.9 < e["mean"] < 1.15, (name, e)


def test_the_model_knows_that_turning_the_lanes_is_what_counts():
    by = {(r["name"], r["group"]): model.predict(r) for r in model.measured()}
    for name in ("weak", "moderate", "moderate, launch 1", "rotation, bilinear"):
        assert by[name, "fitted"] > 1.8 * by[name, "lanes along x"], name


def test_each_part_of_a_card_can_decide():
    row = dict.fromkeys(group("fitted")[0], 0.0)
    for name in ("issue slots", "conversions", "wavefronts", "load lines", "store sectors", "bytes", "waits"):
        alone = model.predict(row | {name: 1e9})
        assert alone > 0 and math.isclose(model.predict(row | {name: 2e9}), 2 * alone), name


def test_registers_limit_how_many_programs_run_at_once():
    assert model.resident(64, 4, 0) == 8 and model.resident(128, 4, 0) == 4 and model.resident(32, 1, 0) == 32
    assert model.resident(65, 4, 0) == 7 and model.resident(32, 4, 100_000) == 2


def test_every_source_is_in_the_list_of_kernels():
    found = {e["program"]["records"][0] for e in aot.specialisations()}
    assert found >= set(codes.SOURCES.values()) - {codes.SHARPEN, codes.FLOOR} | {codes.SWITCH}
