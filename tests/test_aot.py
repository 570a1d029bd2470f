"""What the kernels cost, counted in machine code on a machine without a GPU: nothing spills, and instructions per pixel
have a ceiling."""

import ast
import json
import re
from pathlib import Path

import draw_programs
import pytest
import sass
import specialisations
from aot_reported import LONG, MOST, NAMES, rows_once, run
from gpuaug_kernels import aot, codes

ROOT = Path(__file__).parents[1]
# thread instructions per output pixel, for any of the three architectures; lower them as the kernels improve
CEILINGS = {
    "flip + normalise": 48,
    "weak": 334,
    "weak, dense NCHW": 398,
    "weak, planar": 388,
    "moderate, dense NCHW": 502,
    "moderate, dense NCHW, launch 1": 99,
    "moderate": 450,
    "moderate, launch 1": 109,
    "moderate + erasing + CutMix": 450,
    "moderate + erasing + CutMix, launch 1": 187,
    "salt and pepper": 90,
    "CutMix": 41,
    "rotation, bilinear": 151,
    "affine, nearest": 94,
    "H1 of triton-augment": 60,
    "H1 of triton-augment, statistic 0": 68,
    "strong": 342,
    "strong, launch 1": 106,
    "strong, launch 2": 134,
    "blur": 418,
    "blur, launch 1": 339,
    "bicubic": 1380,
    "lanczos": 3050,
    "bicubic, no antialias": 800,
    "RandomMix": 75,
    "single resample": 702,
    "points, NCHW float32": 92,
    "points, NCHW float32, statistic 0": 99,
}


# one architecture each time, without the longest kernels; all of them and the others in the slow suite
EACH = [
    pytest.param((90, MOST), id="sm_90, most"),
    *(pytest.param((t, NAMES), id=f"sm_{t}", marks=pytest.mark.slow) for t in aot.TARGETS),
]


@pytest.fixture(scope="module", params=EACH)
def report(request) -> tuple[list[str], list[dict]]:
    """The kernels that were asked for, and what is said of each."""
    target, names = request.param
    return names, rows_once(request, target, names)


def test_the_list_is_what_policies_make_today():
    assert aot.FILE.read_text(encoding="utf-8") == specialisations.text(), "run python tests/support/specialisations.py"


def test_no_kernel_spills(report):
    names, rows = report
    assert [r["name"] for r in rows] == names and set(NAMES) > LONG
    for r in rows:
        assert r["spills"] == 0 and 16 <= r["registers"] <= 240, r


def test_no_kernel_of_bytes_takes_subnormal_numbers_for_zero(report):
    """Bytes are weighed as such; what does take them is the logarithm of Gaussian noise, among others' kernels."""
    bytes_ = {e["name"] for e in aot.specialisations() if e["source"]["dtype"] == "uint8"}
    flushes = {r["name"]: r["flushes"] for r in report[1]}
    noisy = "moderate + erasing + CutMix, launch 1"
    assert len(bytes_) >= 10 and flushes.get(noisy, 1) > 0, "vacuous"
    assert {n: f for n, f in flushes.items() if f and n in bytes_} == {}


def test_accesses_are_as_wide_as_addresses_allow(report):
    """Bytes of a thread's access: a word of bytes, two pixels of an intermediate, four floats of a
    plane; three channels that come last are words of which a warp writes 96 bytes."""
    entries = {e["name"]: e for e in aot.specialisations()}
    photographs = {n for n, e in entries.items() if e["source"]["dtype"] == "uint8"}
    between = {n for n, e in entries.items() if e["source"]["dtype"] == "uint16"}
    flat = {n for n, e in entries.items() if not e["out"]["channels_last"] and not e["reduction"]}
    assert len(photographs) >= 10 and len(between) >= 4 and len(flat) >= 3, "vacuous"
    for r in report[1]:
        name, entry = r["name"], entries[r["name"]]
        moved = entry["program"]["records"][0] in (codes.PIXEL, codes.FLOOR)
        if name in photographs:
            assert r["load"] == (8 if moved else 4), r
        if name in between and moved:
            assert r["load"] == 16, r
        if name in flat:
            assert r["store"] >= 8, r
        elif not entry["reduction"]:
            assert r["store"] == 4, r


def test_instructions_per_pixel_stay_below_their_ceilings(report):
    names, rows = report
    assert [r["not counted"] for r in rows] == [""] * len(names)
    counted = {r["name"]: r["per pixel"] for r in rows}
    assert set(NAMES) == CEILINGS.keys()
    assert {k: v for k, v in counted.items() if not 0.5 * CEILINGS[k] < v <= CEILINGS[k]} == {}, (
        "too many; or far fewer: lower the ceiling"
    )


def test_the_list_of_traces_is_what_policies_make_today():
    assert aot.DRAW_FILE.read_text(encoding="utf-8") == draw_programs.text(), (
        "run python tests/support/draw_programs.py"
    )


def test_the_kernels_of_traces_compile_and_spill_nothing():
    done = run(
        "--json",
        *(v for name in ("draws of seed recipe", "draws of weak", *aot.FIXED) for v in ("--only", name)),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check_draws(json.loads(done.stdout), 27)


@pytest.mark.slow
def test_the_kernels_of_long_traces_spill_nothing():
    done = run("--json", "--kind", "draws")
    assert done.returncode == 0, done.stderr[-3000:]
    check_draws(json.loads(done.stdout), 3 * len(aot.draw_names()))


def check_draws(rows: list[dict], count: int) -> None:
    assert len(rows) == count
    for r in rows:
        assert r["spills"] == 0 and 16 <= r["registers"] <= 255, r
        # a few machine instructions for a number, a few dozen for four words of Philox or a sine
        assert r["name"] in aot.FIXED or 1.5 * r["numbers"] < r["static"] < 12 * r["numbers"] > 500, r


def test_it_refuses_to_run_beside_the_interpreter():
    done = run(TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: kernels cannot be compiled where TRITON_INTERPRET is set, got TRITON_INTERPRET=1; unset it and run this again\n"
    )


def test_a_name_that_is_unknown_is_told():
    done = run("--only", "weka")
    assert done.returncode == 2 and "no kernel is named weka; there are flip + normalise, weak" in done.stderr


# ---- what the reader of a kernel is told

# arguments that are numbers: of all others a comment says what they point to
NUMBERS = {"epoch", "low", "high", "n", "total", "height", "width", "stride_n", "stride_c", "stride_y", "stride_x"} | {
    *("out_n", "out_c", "classes", "each", "columns")
}


def launched() -> dict[str, tuple[ast.FunctionDef, list[str]]]:
    """The kernels that a host launches, bound once, with the lines of their files."""
    texts = [f.read_text(encoding="utf-8") for f in Path(aot.__file__).parent.glob("*.py")]
    names = {name for text in texts for name in re.findall(r"\bBound\((\w+), ", text)}
    return {
        f.name: (f, text.splitlines())
        for text in texts
        for f in ast.walk(ast.parse(text))
        if isinstance(f, ast.FunctionDef) and f.name in names and "triton.jit" in map(ast.unparse, decorators(f))
    }


def decorators(function: ast.FunctionDef) -> list[ast.expr]:
    return [d.func if isinstance(d, ast.Call) else d for d in function.decorator_list]


def test_every_pointer_of_a_kernel_says_what_it_points_to_and_every_kernel_its_bytes():
    found = launched()
    assert found.keys() == {
        *("chain", "finish", "draw_parameters", "find_partners", "mix_labels", "mix_chained_labels"),
        *("follow_boxes", "follow_points", "share_words", "fit_windows"),
    }
    for name, (function, lines) in found.items():
        assert "Bytes" in ast.get_docstring(function), f"{name} does not say how many bytes it reads and writes"
        pointers = [a for a in function.args.args if a.annotation is None and a.arg not in NUMBERS]
        assert len(pointers) >= 3, "vacuous"
        for a in pointers:
            comment = lines[a.lineno - 1].partition("# ")[2]
            assert re.search(r"\[.+\].*(int|float|dtype)|of (int|float).*\[N|the same of (int|float)", comment), (
                f"{name}: {a.arg} does not say what it points to, # [shape] dtype: {comment!r}"
            )


# ---- the counter, on machine code written by hand


def code(*lines: tuple[str, int] | str) -> str:
    """What nvdisasm would print: labels, and instructions of a line of source.py."""
    out, path = [], Path(aot.__file__).with_name("source.py")
    for item in lines:
        out += (
            [item]
            if isinstance(item, str)
            else [f'\t//## File "{path}", line {item[1]}', f"        /*0000*/   {item[0]} ;"]
        )
    return "\n".join(out)


def test_a_loop_counts_as_often_as_it_runs():
    path = str(Path(aot.__file__).with_name("source.py"))
    loop = next(r for r in sass.regions(path) if r.loop and r.name == "triangle_taps.k")
    body = [("FADD R0, R0, R1", loop.first), ("FADD R0, R0, R1", loop.first), ("@P0 BRA `(.L_x_0)", loop.first)]
    text = code(("MOV R0, R1", 1), ".L_x_0:", *body, ("EXIT", 1), ("FADD R1, R1, R1", 1))
    # what stands behind the end is never reached
    assert sass.count(text, {"triangle_taps.k": 5.0}, {})[0] == 1 + 5 * 3 + 1
    with pytest.raises(ValueError, match=r'loop "triangle_taps\.k" has no trip count'):
        sass.count(text, {}, {})


def test_the_body_of_an_if_counts_by_its_chance():
    path = str(Path(aot.__file__).with_name("source.py"))
    turned = next(r for r in sass.regions(path) if r.name == "resample: turned")
    text = code(("MOV R0, R1", 1), ("@P0 BRA `(.L_x_0)", 1), ("FADD R0, R0, R1", turned.first), ".L_x_0:", ("EXIT", 1))
    assert sass.count(text, {}, {"resample: turned": 0.25})[0] == 3.25


def test_code_without_line_numbers_is_refused():
    with pytest.raises(ValueError, match="unset TRITON_DISABLE_LINE_INFO"):
        sass.count("        /*0000*/   EXIT ;", {}, {})
