"""The chains that are compiled ahead, from policies: `python tests/support/specialisations.py` writes
kernels/gpuaug_kernels/specialisations.json, and kernels/tools/workloads.json with the parameters of a few samples of
each, for which kernels/tools/access.py runs them.

Trip counts are means over what 256 samples draw and over the tiles of the output.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import access
import torch
from gpuaug_kernels import aot, codes, launch
from gpuaug_kernels.chain import TILE

import gpuaug as ga
from gpuaug import fuse, ir, rng
from gpuaug.exec.triton import executor, rules

SAMPLES = 256
# whose parameters are kept, spread evenly over what is expensive about a sample
KEPT = 12
KEYS = rng.Keys(0, 0, torch.arange(SAMPLES), torch.zeros(SAMPLES, dtype=torch.int64))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PROJECTIVE = "corners: projective(d)"
NARROW = "triangle_words: x1 - tl.load(i) < 4"
TWO = "triangle_words: along[3] <= 2"
LAST, FLAT = torch.channels_last, torch.contiguous_format
# ragged images as a decoder leaves them, [3, H, W]
PLANAR = "planar"


def policies() -> Iterator[tuple[str, list[ga.Transform] | ir.Sequence, Any, torch.memory_format]]:
    """Name, transforms or passes, dtype and size of the input (None or PLANAR: ragged, 375 x 500), memory
    format of the output."""
    as_float, normal, half = ga.ToDtype(torch.float32, scale=True), ga.Normalize(MEAN, STD), ga.ToDtype(torch.bfloat16)
    crop, flip, ends = ga.RandomResizedCrop(224), ga.RandomHorizontalFlip(), [as_float, normal, half]
    jitter, erase = ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.RandomErasing(0.25)
    small, bytes_ = (3, 224, 224), torch.uint8
    yield "flip + normalise", [flip, *ends], (bytes_, small, LAST), LAST
    yield "weak", [crop, flip, *ends], None, LAST
    yield "weak, dense NCHW", [crop, flip, *ends], (bytes_, (3, 375, 500), FLAT), FLAT
    yield "weak, planar", [crop, flip, *ends], PLANAR, LAST
    yield "moderate, dense NCHW", [crop, flip, jitter, *ends], (bytes_, (3, 375, 500), FLAT), FLAT
    yield "moderate", [crop, flip, jitter, *ends], None, LAST
    yield "moderate + erasing + CutMix", [crop, flip, jitter, *ends, erase, ga.CutMix(1.0, 5)], None, LAST
    yield "salt and pepper", [ga.SaltAndPepper(0.05), *ends], (bytes_, small, LAST), LAST
    yield "CutMix", [ga.CutMix(1.0, 5)], (torch.float32, small, FLAT), FLAT
    yield "rotation, bilinear", [ga.RandomRotation(30, "bilinear"), *ends], (bytes_, small, LAST), LAST
    yield (
        "affine, nearest",
        [ga.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), 5, fill=0.5), *ends],
        (bytes_, small, LAST),
        LAST,
    )
    h1 = [ga.RandomCrop(224), flip, ga.ColorJitter(0.2, 0.2, 0.2), ga.RandomGrayscale(0.1), normal]
    yield "H1 of triton-augment", h1, (torch.float32, (3, 256, 256), FLAT), FLAT
    yield "strong", [crop, flip, ga.RandAugment(2, 9), *ends], None, LAST
    sigma = ga.rng.Draw(KEYS, 0).uniform(0.1, 2.0, count=2).float()
    yield "blur", (ir.GaussianBlur(sigma, (23, 23)), ir.Finish(torch.float32, FLAT)), (torch.float32, small, FLAT), FLAT
    for name in ("bicubic", "lanczos"):
        yield name, [ga.RandomResizedCrop(224, interpolation=name), flip, *ends], None, LAST
    yield "bicubic, no antialias", [ga.Resize((224, 224), "bicubic", antialias=False), *ends], None, LAST
    yield "RandomMix", [ga.RandomMix([ga.CutMix(), ga.MixUp()], num_classes=5)], (torch.float32, small, FLAT), FLAT
    yield "single resample", [crop, ga.RandomRotation(30, "bilinear"), *ends], None, LAST
    yield (
        "points, NCHW float32",
        [ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.RandomInvert(), normal],
        (torch.float32, small, FLAT),
        FLAT,
    )


def entries() -> list[dict[str, Any]]:
    """Everything to compile, as the file holds it."""
    return [entry for policy in policies() for entry, _ in _entries(*policy)]


def workloads() -> dict[str, Any]:
    """Of every kernel the rows of a few samples: floats, integers, doubles."""
    return {entry["name"]: rows for policy in policies() for entry, rows in _entries(*policy)}


def _entries(
    name: str, chain: list[ga.Transform] | ir.Sequence, given: Any, layout: torch.memory_format
) -> Iterator[tuple[dict[str, Any], Any]]:
    """The launches that write images, each with those that reduce its statistics."""
    planar, given = given == PLANAR, None if given == PLANAR else given
    dtype, shape, order = given or (torch.uint8, (3, 375, 500), None)
    frame = ir.Frame(
        torch.tensor([shape[1:]]).expand(SAMPLES, 2), None if given is None else shape[1:], shape[0], dtype
    )
    strides = (
        None if given is None else torch.empty((2, *shape), dtype=dtype, device="meta", memory_format=order).stride()
    )
    if isinstance(chain, list):
        policy = ga.Policy(chain, memory_format=layout, single_resample=name == "single resample")
        plan = policy._plan(KEYS, frame, policy._draw(KEYS, frame))
    else:
        plan = fuse.Plan(chain, KEYS, frame)
    gathered, prepared = False, executor.prepare(plan)
    for number, (step, made) in enumerate(zip(executor.steps(plan), prepared, strict=True)):
        source = {
            "dtype": str(dtype).removeprefix("torch."),
            "shape": [2, *shape],
            "strides": strides and list(strides),
        }
        if planar:
            source["planar"] = True
        lie = "" if strides else ", ragged in planes" if planar else ", ragged"
        work = f"{SAMPLES} samples of {shape[0]}x{shape[1]}x{shape[2]} {source['dtype']}{lie}"
        label = f"{name}, launch {number}" if number else name
        for reduction in (None, *made.reductions[int(gathered) :]):
            # of this launch, or of the next, for which it gathers one
            reductions = made.reductions if reduction else prepared[number + 1].reductions if made.following else ()
            cells = sum(r.width for r in reductions)
            yield _entry(label, made, reduction, source, work) | {"cells": cells}, kept_rows(made, reduction)
        gathered = made.following is not None
        # later steps read what the one before has written
        dtype, shape, planar = made.dtype, (step.frame.channels, *made.size), False
        if dtype == torch.uint16:
            strides = (4 * made.size[0] * made.size[1], 1, 4 * made.size[1], 4)
        else:
            strides = torch.empty((2, *shape), device="meta").stride()


def _entry(label: str, made: rules.Prepared, reduction: Any, source: dict[str, Any], work: str) -> dict[str, Any]:
    """One kernel."""
    program = reduction.program if reduction else made.program
    statistics = launch.statistics_table(made.reductions, 1, torch.device("cpu"))
    following = None if reduction else made.following
    # samples without the statistic leave at once, and are not counted
    some = reduction is not None and reduction.kind_column >= 0
    return {
        "name": f"{label}, statistic {reduction.number}" if reduction else label,
        "workload": f"{work} -> {made.size[0]}x{made.size[1]}{', of samples that have it' if some else ''}",
        "source": source,
        "program": vars(program),
        "widths": [t.shape[1] for t in (made.tables.floats, made.tables.integers, made.tables.doubles, statistics)],
        "size": list(made.size),
        "out": {"dtype": str(made.dtype).removeprefix("torch."), "channels_last": made.channels_last},
        "reduction": reduction and {k: v for k, v in vars(reduction).items() if k != "program"},
        "following": following and {k: vars(v) if k == "program" else v for k, v in vars(following).items()},
        **workload(program, made.tables, made.size, some, source, following),
    }


def kept_rows(made: rules.Prepared, reduction: Any) -> list[list[list[float]]]:
    """The rows of a few samples in each table; partners are among them.  Of a reduction those that have it."""
    program = reduction.program if reduction else made.program
    floats, integers, doubles = made.tables.floats, made.tables.integers, made.tables.doubles
    rows = torch.arange(len(integers))
    if reduction is not None and reduction.kind_column >= 0:
        rows = rows[integers[:, reduction.kind_column] != 0]
    source, mix = program.records[:5], program.records[5:10]
    if source[0] == codes.TRIANGLE:
        cost = (2.0 * doubles[:, source[4] + 6 : source[4] + 8]).ceil().prod(1)[rows]
        rows = rows[torch.sort(cost, stable=True).indices]
    rows = rows[((torch.arange(KEPT) + 0.5) * len(rows) / KEPT).long()]
    integers = integers[rows].clone()
    if mix[0] != codes.ALONE:
        integers[:, mix[2]] = torch.arange(KEPT).roll(1)
    return [floats[rows].tolist(), integers.tolist(), doubles[rows].tolist()]


def workload(
    program: Any, tables: Any, size: tuple[int, int], some: bool, source: dict[str, Any], following: Any
) -> dict[str, Any]:
    """How often loops run, and the bodies of ifs that do not always.

    some: counted for the samples that have the statistic, where not all do; following: what the launch gathers"""
    records, after = rows_of(program), rows_of(following.program) if following else []
    trips = {"chain.side": sides(records[1], tables.integers, size)}
    # photographs are read by words, of three channels or of planes
    words = source["dtype"] == "uint8"
    trips |= taps(records[0], tables.doubles, words)
    choices = [(r, rows) for rows in (records, after) for r in rows[2:] if r[0] == codes.CHOICE and r[3] > 0]
    chances = {
        "position_of: (p != 0.0) | (q != 0.0) | (s != 1.0)": 0.0,
        PROJECTIVE: 0.0,
        "erase: (vr != vr) | (vg != vg) | (vb != vb)": 0.0,
        "resample: turned": 0.0,
        "resample: partly": 0.0,
        "read_shifted: indirect": 0.0,
    }
    whole = math.prod((n // TILE) / -(-n // TILE) for n in size)
    chances |= {"store_units: whole": round(whole, 3), "store_units: not (whole)": round(1.0 - whole, 3)}
    if choices:
        # a random order runs each branch once; so does on average one of several that are drawn
        trips["run_choice.step"] = sum(r[2] for r, _ in choices) / len(choices)
        branches = [rows[r[3] : r[3] + r[4]] for r, rows in choices]
        chances["run_choice: index == k"] = len(choices) / sum(
            len([r for r in row if r[0] < r[1] or not some]) for row in branches
        )
    if following and following.kind_column >= 0:
        some_have = (tables.integers[:, following.kind_column] != 0).double().mean().item()
        chances["gather_following: kind != 0"] = round(some_have, 3)
    if records[0][0] == codes.TRIANGLE and words:
        two = round((2.0 * tables.doubles[:, records[0][4] + 6] <= 2.0).double().mean().item(), 3)
        chances |= {NARROW: 0.0, TWO: two, f"triangle_words: not ({TWO.partition(': ')[2]})": round(1.0 - two, 3)}
    chances |= insides(records[0], tables, size)
    if records[0][0] == codes.SWITCH:
        trips["sharpen.j"] = 3
        chances |= sources(records[records[0][2] :][: records[0][1]], tables.integers[:, records[0][3]])
    return {"trips": trips, "chances": chances}


def rows_of(program: Any) -> list[tuple[int, ...]]:
    """The records of a program, one by one."""
    return [program.records[k : k + 5] for k in range(0, len(program.records), 5)]


def sources(ways: list[tuple[int, ...]], index: torch.Tensor) -> dict[str, float]:
    """How often each kind of source is picked."""
    share = {kind: round((index == k).double().mean().item(), 3) for k, (kind, *_) in enumerate(ways)}
    assert len(share) == len(ways), "sources of one kind share the lines that their chance stands for"
    lines = {
        codes.PIXEL: "read: KIND == PIXEL",
        codes.SHARPEN: "read_around: KIND == SHARPEN",
        codes.NEAREST: "read_around: (KIND == BILINEAR) | (KIND == NEAREST)",
    }
    return {lines[kind]: chance for kind, chance in share.items()}


def insides(source: tuple[int, ...], tables: Any, size: tuple[int, int]) -> dict[str, float]:
    """How often a tile of a warp shows nothing of the border."""
    if source[0] not in (codes.BILINEAR, codes.NEAREST):
        return {}
    share = round(inner(source, tables, size), 3)
    nearest = "inner & (projective(d) == 0)"
    return {
        "warp_bytes: inner": share,
        "warp_bytes: not (inner)": round(1.0 - share, 3),
        f"warp_nearest: {nearest}": share,
        f"warp_nearest: not ({nearest})": round(1.0 - share, 3),
    }


def inner(source: tuple[int, ...], tables: Any, size: tuple[int, int]) -> float:
    """The share of tiles all of whose taps lie in the image, by a quarter of a pixel and two columns."""
    _, _, _, integers, doubles = source
    rows = tables.doubles[:, doubles : doubles + 6].reshape(-1, 1, 1, 2, 3)
    corners = torch.cartesian_prod(*(torch.arange(-(-n // TILE)) * TILE for n in size)).double()[:, None]
    corners = corners + torch.cartesian_prod(*[torch.tensor([0.0, TILE - 1.0])] * 2)
    y, x = corners.unbind(-1)
    # [N, tiles, corners, x and y]
    at = rows[..., 0] * x[..., None] + rows[..., 1] * y[..., None] + rows[..., 2]
    last = tables.integers[:, integers : integers + 2].flip(1)[:, None, None] - torch.tensor([3.25, 1.25])
    return ((at >= 0.25) & (at <= last)).all(-1).all(-1).double().mean().item()


def sides(mix: tuple[int, ...], integers: torch.Tensor, size: tuple[int, int]) -> float:
    """Sides of a mix that a tile needs, on average."""
    if mix[0] == codes.ALONE:
        return 1.0
    if mix[0] in (codes.MIXUP, codes.MIX_INSIDE):
        return 2.0
    x0, y0, x1, y1 = integers[:, mix[2] + 1 : mix[2] + 5].unbind(1)
    need = []
    for top in range(0, size[0], TILE):
        for left in range(0, size[1], TILE):
            bottom, right = min(top + TILE, size[0]), min(left + TILE, size[1])
            within = (x0 <= left) & (x1 >= right) & (y0 <= top) & (y1 >= bottom)
            touches = (x0 < right) & (x1 > left) & (y0 < bottom) & (y1 > top) & (x0 < x1) & (y0 < y1)
            need.append(1.0 + (touches & ~within).double())
    return round(torch.stack(need).mean().item(), 3)


def taps(source: tuple[int, ...], doubles: torch.Tensor, words: bool) -> dict[str, float]:
    """Taps of a row and of a column."""
    kind, flag, _, _, at = source
    if kind in (codes.BLUR_ROWS, codes.BLUR_COLUMNS):
        return {"blur.k": flag}
    kernels = (codes.TRIANGLE, codes.CATMULL_ROM, codes.CUBIC, codes.LANCZOS)
    found = {
        **{k: ("triangle_taps", (2.0 * doubles[:, at + 6 : at + 8]).ceil()) for k in kernels},
        codes.PROJECT: ("project", (2.0 * doubles[:, at + 9 : at + 11]).floor() + 1),
    }
    if kind not in found:
        return {}
    function, (wide, high) = found[kind][0], found[kind][1].unbind(1)
    if kind == codes.TRIANGLE and words:
        # four taps of a row at once, and two rows
        groups = torch.where(wide <= 2, 1.0, (wide / 4).ceil())
        pairs = (high / 2).ceil()
        return {
            "byte_means.k": round(groups.mean().item(), 3),
            "byte_means.j": round(((groups * pairs).mean() / groups.mean()).item(), 3),
        }
    rows = high.mean().item()
    return {f"{function}.j": round(rows, 3), f"{function}.k": round((wide * high).mean().item() / rows, 3)}


def text() -> str:
    """The file: a line for each kernel."""
    return "[\n" + ",\n".join(json.dumps(e) for e in entries()) + "\n]\n"


def workload_text() -> str:
    """The file of rows: a line for each kernel."""
    lines = [f"{json.dumps(name)}: {json.dumps(rows)}" for name, rows in workloads().items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    aot.FILE.write_text(text(), encoding="utf-8")
    access.FILE.write_text(workload_text(), encoding="utf-8")
    print(aot.FILE, access.FILE)
