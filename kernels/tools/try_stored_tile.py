"""What prototypes of a resample of bytes are predicted to take on an H200, beside the kernels that there are: `python
kernels/tools/try_stored_tile.py [--json]`.

No launch uses them (stored_tile.py, stored_gluon.py); figures are those of the installed Triton.  Each is compiled in a
process of its own, since Triton keeps what it has compiled.  Ranges: a barrier waits for nothing, or as long as a load
that another one waits for."""

import argparse
import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import access
import aot_report
import model
import numpy as np
from arrays import Memory
from dry_run import Program
from gpuaug_kernels import aot, codes, launch
from gpuaug_kernels.chain import Tables, chain

# photographs of 1200 x 1600, a batch of 64: what "weak" draws, of images 3.2 times as large
PHOTOGRAPHS, LARGER, LARGE_BATCH = "photographs", 3.2, 64
WORKLOADS = ("weak", "moderate", PHOTOGRAPHS)
TARGET = 90


@dataclass(frozen=True)
class Way:
    """How a crop is made."""

    warps: int
    registers: int
    name: str = ""  # of source.py that is replaced
    by: str = ""  # of stored_tile.py
    packed: int = -1  # in Gluon: 1 for pixels of four uint16, 0 for three planes of uint16


WAYS = {
    "as it is": Way(0, 0),
    "as it is, 4 warps": Way(4, 96),
    "rows counted": Way(8, 80, "byte_means", "counted_means"),
    "stored for each gather": Way(8, 80, "triangle_words", "stored_words"),
    "Gluon, planes": Way(8, 64, packed=0),
    "Gluon, planes, 4 warps": Way(4, 64, packed=0),
    "Gluon, pixels": Way(8, 64, packed=1),
    "Gluon, pixels, 4 warps": Way(4, 64, packed=1),
}


def workload(name: str) -> tuple[dict[str, Any], float]:
    """What a kernel is compiled for and run on, and its share of the batch that access.py counts."""
    entries = {e["name"]: e for e in aot.specialisations()}
    if name != PHOTOGRAPHS:
        return entries[name], 1.0
    entry = entries["weak"] | {"name": PHOTOGRAPHS}
    entry["source"] = entry["source"] | {"shape": [2, 3, 1200, 1600]}
    access.workloads()[PHOTOGRAPHS] = larger(access.workloads()["weak"], entry["program"]["records"], (1200, 1600))
    return entry, LARGE_BATCH / access.BATCH


def larger(rows: list[list[list[float]]], records: Sequence[int], size: tuple[int, int]) -> list[list[list[float]]]:
    """The rows of crops of larger images.  records: of the crop's program; size: of these images"""
    at_i, at_d = records[codes.SOURCE_INTEGERS], records[codes.SOURCE_DOUBLES]
    integers, doubles = ([list(row) for row in table] for table in rows[1:])
    for i, d in zip(integers, doubles, strict=True):
        x0, y0, x1, y1 = (round(LARGER * v) for v in i[at_i : at_i + 4])
        i[codes.PITCH] = 3 * size[1]
        i[at_i : at_i + 8] = [x0, y0, x1, y1, 0, 0, size[1], size[0]]
        across = (x1 - x0) / (i[at_i + 10] - i[at_i + 8]) * (1.0 if d[at_d] > 0.0 else -1.0)
        down = (y1 - y0) / (i[at_i + 11] - i[at_i + 9])
        # a mirrored row begins at the window's end
        d[at_d : at_d + 3] = [across, 0.0, (x0 if across > 0.0 else x1) + across / 2 - 0.5]
        d[at_d + 3 : at_d + 6] = [0.0, down, y0 + down / 2 - 0.5]
        d[at_d + 6 : at_d + 8] = [max(1.0, abs(across)), max(1.0, down)]
    return [rows[0], integers, doubles]


def compiled(entry: dict[str, Any], way: Way) -> Any:
    """The kernel of a way."""
    if way.name:
        setattr(importlib.import_module("gpuaug_kernels.source"), way.name, getattr(_prototypes(), way.by))
    if way.warps:
        # without a spill: a thread of few that gathers a statistic too takes more
        more = 128 if way == WAYS["as it is, 4 warps"] and entry["following"] else way.registers
        launch.options = lambda *_: {"num_warps": way.warps, "maxnreg": more}
    return aot.compiled(entry, TARGET) if way.packed < 0 else _compiled_gluon(entry, way)


def source_of(entry: dict[str, Any]) -> Any:
    """What a launch of an entry would compile."""
    import torch

    *tables, statistics = (torch.empty(1, width, device="cpu") for width in entry["widths"])
    out = entry["out"]
    return launch.ahead(
        aot.source_of(entry),
        aot.chain_of(entry),
        Tables(*tables),
        statistics,
        tuple(entry["size"]),
        getattr(torch, out["dtype"]),
        out["channels_last"],
        None,
        aot.following_of(entry),
        entry["cells"],
    )


def constants_of(entry: dict[str, Any], way: Way) -> dict[str, Any]:
    """The compile-time constants of a way's kernel, in its order."""
    given = source_of(entry).constants
    found = {chain.arg_names[k[0]] if isinstance(k, tuple) else k: v for k, v in given.items()}
    if way.packed < 0:
        return {k: found[k] for k in chain.arg_names if k in found}
    # rows of what is stored are as long as the window: 128 columns of an image of 500, 256 of one of 1600
    capacity = codes.TILE * (256 if entry["name"] == PHOTOGRAPHS else 128)
    found |= {"CAPACITY": capacity, "PACKED": way.packed}
    return {k: found[k] for k in importlib.import_module("stored_gluon").crop.arg_names if k in found}


def _prototypes() -> Any:
    return importlib.import_module("stored_tile")


def _compiled_gluon(entry: dict[str, Any], way: Way) -> Any:
    import triton
    from gpuaug_kernels.bind import complete
    from triton.backends.compiler import GPUTarget
    from triton.experimental.gluon._runtime import GluonASTSource
    from triton.experimental.gluon.language import shared_memory_descriptor

    if not hasattr(shared_memory_descriptor, "gather"):
        raise NotImplementedError(f"Gluon of triton {triton.__version__} gathers nothing from shared memory")
    crop, made = importlib.import_module("stored_gluon").crop, source_of(entry)
    signature = {k: made.signature.get(k, "constexpr") for k in crop.arg_names}
    return triton.compile(
        GluonASTSource(crop, signature, constants_of(entry, way), made.attrs),
        target=GPUTarget("cuda", TARGET, 32),
        options=complete({"num_warps": way.warps, "maxnreg": way.registers}),
    )


def launched_with(entry: dict[str, Any], way: Way, batch: int, device: str) -> dict[str, Any]:
    """The arguments of a launch by name, in the kernel's order, for a batch of bytes of noise."""
    import torch

    floats, integers, doubles = (
        torch.tensor([table[k % len(table)] for k in range(batch)], dtype=dtype, device=device)
        for table, dtype in zip(
            access.workloads()[entry["name"]], (torch.float32, torch.int32, torch.float64), strict=True
        )
    )
    _, channels, height, width = entry["source"]["shape"]
    step, (out_height, out_width) = channels * height * width, entry["size"]
    images = (
        torch.arange(batch * step + 64, dtype=torch.int32, device=device).mul_(-1640531535).bitwise_right_shift_(13)
    )
    images = images.to(torch.uint8)
    places = images.data_ptr() + step * torch.arange(batch, device=device)
    shorts = entry["out"]["dtype"] == "uint16"
    size = (batch, out_height, out_width, 4 if shorts else 3)
    strides = dict(zip(("stride_n", "stride_c", "stride_y", "stride_x"), aot.source_of(entry).strides(), strict=True))
    cells = torch.zeros(batch, max(1, entry["cells"]), dtype=torch.int64 if entry["cells"] else torch.float32)
    return {
        "source": places,
        "floats": floats,
        "integers": integers,
        "doubles": doubles,
        "statistics": torch.zeros(batch, entry["widths"][3], device=device),
        "out": torch.zeros(size, dtype=torch.uint16 if shorts else torch.bfloat16, device=device),
        "cells": cells.to(device),
        **strides,
        "height": out_height,
        "width": out_width,
        **{k: v for k, v in constants_of(entry, way).items() if k not in strides},
        "": images,  # which the places point into
    }


def timed(name: str, way: str) -> dict[str, Any]:
    """The same row from a card: the median of launches one after the other, and the mean of what they wrote."""
    import torch
    import triton

    entry, share = workload(name)
    kernel, batch = compiled(entry, WAYS[way]), round(share * access.BATCH)
    given = launched_with(entry, WAYS[way], batch, "cuda")
    arguments = [v for k, v in given.items() if k]
    grid = (batch, -(-entry["size"][1] // codes.TILE), -(-entry["size"][0] // codes.TILE))
    us = 1e3 * triton.testing.do_bench(lambda: kernel[grid](*arguments), warmup=20, rep=200, return_mode="median")
    mean = given["out"].view(torch.int16).double().mean() if name == "moderate" else given["out"].double().mean()
    return {"workload": name, "way": way, "measured us": round(us, 1), "mean": round(float(mean), 4)}


def counted(name: str, way: str) -> dict[str, Any]:
    """A row of the report."""
    entry, share = workload(name)
    kernel = compiled(entry, WAYS[way])
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        usage = aot_report.tool("cuobjdump", "--dump-resource-usage", str(cubin))
        code = aot_report.tool("nvdisasm", "-c", str(cubin))
    registers, warps = int(re.search(r"REG:(\d+)", usage)[1]), kernel.metadata.num_warps  # type: ignore[index]
    totals = access.count(entry, kernel)
    counts = model.counts(totals, registers, warps, kernel.metadata.shared)
    row = {k: share * float(v) for k, v in counts.items()}
    together = model.MULTIPROCESSORS * model.resident(registers, warps, kernel.metadata.shared)
    waited = row | {"waits": row["waits"] + share * totals.programs * totals.barriers / together}
    return {
        "workload": name,
        "way": way,
        "warps": warps,
        "registers": registers,
        "spills": len(re.findall(r"\b(?:STL|LDL)\b", code)),
        "shared": int(kernel.metadata.shared),
        "us": [round(model.predict(row), 1), round(model.predict(waited), 1)],
        "parts": {k: round(v, 1) for k, v in model.times(row).items()},
        "barriers": totals.barriers,
        "faults": access.faults(totals.accesses),
    }


def differences(way: str) -> dict[str, float]:
    """How far the Gluon kernel is from the one that there is, on images of noise: both run from their TTGIR.

    "weak": the most that an output differs, over what it is or 1; "moderate": that of what lies between two launches,
    in 65535ths; "sums": that of the statistic, over the largest"""
    found: dict[str, float] = {}
    for name in ("weak", "moderate"):
        entry, _ = workload(name)
        (a, p), (b, q) = (_made(entry, k) for k in (aot.compiled(entry, TARGET), compiled(entry, WAYS[way])))
        if name == "weak":
            found[name] = float((abs(a - b) / np.maximum(abs(a), 1.0)).max())
        else:
            found |= {name: float(abs(a - b).max()), "sums": float(abs(p - q).max() / abs(p).max())}
    return found


def _made(entry: dict[str, Any], kernel: Any) -> tuple[np.ndarray, np.ndarray]:
    """What three tiles of three samples become, and the samples' cells.  Raises ValueError where a tile is flat."""
    memory, program = Memory(), Program(kernel.asm["ttgir"], kernel.asm["ptx"])
    rows = [table[::4] for table in access.workloads()[entry["name"]]]
    given, (first, last) = access.arguments(entry, memory, rows)
    samples, (height, width), size = len(rows[0]), entry["size"], codes.TILE
    places = np.arange(last - first, dtype=np.uint64)
    noise = (places * np.uint64(2654435761) >> np.uint64(13)).astype(np.uint8)
    memory.store(first + places.astype(np.int64), noise[:, None])
    shorts = entry["out"]["dtype"] == "uint16"
    values, tiles = 4 if shorts else 3, ((0, 0), (3, 2), (6, 6))
    for n in range(samples):
        for x, y in tiles:
            program.run(memory, given, (samples, width // size, height // size), (n, x, y))
    raw = memory.load(int(given["out"]) + 2 * np.arange(samples * height * width * values), 2).view(np.uint16)
    out = raw.astype(np.float64) if shorts else (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    out = out.reshape(samples, height, width, values)
    for x, y in tiles:
        if (out[:, size * y : size * (y + 1), size * x : size * (x + 1)].std((1, 2)).max(1) == 0.0).any():
            raise ValueError(f"nothing is compared: tile {x}, {y} is flat")
    cells = memory.load(int(given["cells"]) + 8 * np.arange(samples), 8).view(np.int64)
    return out, cells.reshape(-1).astype(np.float64)


def _alone(*arguments: str) -> Any:
    """What a process of its own says."""
    done = subprocess.run(
        [sys.executable, __file__, "--alone", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="one of them (default: all)")
    parser.add_argument("--way", action="append", choices=WAYS, help="one of them (default: all)")
    parser.add_argument("--values", action="store_true", help="how far values are from those of the kernel there is")
    parser.add_argument("--time", action="store_true", help="measured on this machine's card instead (sm_90)")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    ways = given.way or [w for w in WAYS if not given.values or WAYS[w].packed >= 0]
    if given.alone:
        try:
            row = timed if given.time else counted
            made: Any = differences(*ways) if given.values else [row(w, *ways) for w in given.workload]
        except NotImplementedError as error:
            made = {"not compiled": str(error)}
        print(json.dumps(made))
        return 0
    asked = [v for w in given.workload or WORKLOADS for v in ("--workload", w)]
    rows = []
    for way in ways:
        more = ["--values"] if given.values else [*asked, *(["--time"] if given.time else [])]
        said = _alone("--way", way, *more)
        rows += [said | {"way": way}] if isinstance(said, dict) else said
        for row in () if given.json else rows[-1 if isinstance(said, dict) else -len(said) :]:
            print(_line(row), flush=True)
    if given.json:
        print(json.dumps(rows, indent=1))
    return 0


def _line(row: dict[str, Any]) -> str:
    if "us" not in row:
        return f"{row['way']:24s} " + ", ".join(f"{k} {v}" for k, v in row.items() if k != "way")
    low, high = row["us"]
    parts = ", ".join(f"{k} {v:.0f}" for k, v in row["parts"].items())
    time = f"{low:.0f}" if high - low < 0.5 else f"{low:.0f} to {high:.0f}"
    return (
        f"{row['way']:24s} {row['workload']:12s} {row['warps']} warps, {row['registers']:3d} registers, "
        f"{row['spills']:3d} spills, {row['shared']:6d} shared: {time} us: {parts}{''.join(row['faults'])}"
    )


if __name__ == "__main__":
    sys.exit(main())
