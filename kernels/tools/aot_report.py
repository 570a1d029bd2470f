"""What the kernels that are compiled ahead cost on cards that this machine lacks, counted in machine code: `python
kernels/tools/aot_report.py [--json]`.

Nothing is timed (see sass.py); a time is what model.py predicts, with the error that it states.
Counts are those of triton 3.8: the line tables of 3.6 lose some inlined calls, so that
what runs seldom is counted as always run.  A kernel that draws has no loop, so that its machine code counts itself;
what the library keeps for huge angles in sine and cosine is counted, and never run."""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import access
import model
import sass
from gpuaug_kernels import aot

WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
# bytes of stack that the library's sine and cosine reserve for huge angles, which never occur
ANGLES = 48
# the architecture that the model is of
MODELLED = 90


def tool(name: str, *arguments: str) -> str:
    """What one of the tools that come with triton prints."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout


def width(instructions: Sequence[Any], opcode: str, function: str) -> int:
    """Bytes of the widest access by an instruction of a function of the kernels, 0 where there is none."""
    found = [i.opcode.split(".") for i in instructions if i.opcode.startswith(opcode) and sass.inside(i, function)]
    return max((next((WIDTHS[p] for p in parts if p in WIDTHS), 4) for parts in found), default=0)


def modelled(entry: dict[str, Any], kernel: Any, usage: str) -> dict[str, Any]:
    """What the accesses of a kernel come to, and its time as the model has it, with what each part of a card needs."""
    totals = access.count(entry, kernel)
    registers = int(re.search(r"REG:(\d+)", usage)[1])  # type: ignore[index]
    row = model.counts(totals, registers, kernel.metadata.num_warps, kernel.metadata.shared)
    pixels = access.pixel_accesses(totals.accesses)
    return {
        "us": round(model.predict(row), 1),
        "parts": {k: round(v, 1) for k, v in model.times(row).items()},
        "counts": {k: round(v) for k, v in row.items()},
        "sectors": {kind: round(access.ratio(a for a in pixels if a.kind == kind), 2) for kind in ("load", "store")},
        "faults": access.faults(totals.accesses),
    }


def inspect(entry: dict[str, Any], target: int) -> dict[str, Any]:
    """What one kernel costs on one architecture."""
    from gpuaug_kernels import launch
    from gpuaug_kernels.chain import TILE

    kernel = aot.compiled(entry, target)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        text = tool("nvdisasm", "-c", "-gi", str(cubin))
        usage = tool("cuobjdump", "--dump-resource-usage", str(cubin))
    lines = [i for i in sass.instructions(text) if not isinstance(i, str)]
    try:
        issued, kinds = sass.count(text, entry["trips"], entry["chances"])
        missing = ""
    except ValueError as error:
        # the line tables of older compilers lose the loop: the report says so instead of guessing
        issued, kinds, missing = float("nan"), {}, str(error)
    height, wide = entry["size"]
    programs = -(-height // TILE) * -(-wide // TILE) * entry["program"]["groups"]
    per_pixel = 32 * launch.options(aot.chain_of(entry), target)["num_warps"] * programs / (height * wide)
    return {
        "name": entry["name"],
        "target": f"sm_{target}",
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),  # type: ignore[index]
        "spills": sum(i.opcode.startswith(("STL", "LDL")) for i in lines),
        "shared": int(kernel.metadata.shared),
        # sums and products that take subnormal numbers for 0
        "flushes": len(re.findall(r"\b(?:add|sub|mul|fma)\.(?:\w+\.)?ftz\b", kernel.asm["ptx"])),
        "load": max(
            width(lines, "LDG", name) for name in ("gather", "load_eight", "load_taps", "load_plane", "row_bytes")
        ),
        "store": width(lines, "STG", "store_tile"),
        **(modelled(entry, kernel, usage) if target == MODELLED else {}),
        "per pixel": None if missing else round(issued * per_pixel, 1),
        "kinds": {k: round(v * per_pixel, 1) for k, v in sorted(kinds.items(), key=lambda kv: -kv[1])[:12]},
        "not counted": missing,
        "static": len(lines),
    }


def inspect_draws(name: str, target: int) -> dict[str, Any]:
    """What one kernel costs on one architecture."""
    kernel, numbers = aot.compiled_draws(name, target), aot.draw_source(name)[2]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        code = tool("cuobjdump", "-sass", str(cubin))
        usage = tool("cuobjdump", "--dump-resource-usage", str(cubin))
    entry = usage[usage.index(f"Function {kernel.metadata.name}") :]
    lines = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+ )?([A-Z0-9_.]+)", code, re.MULTILINE)
    return {
        "name": name,
        "target": f"sm_{target}",
        "registers": int(re.search(r"REG:(\d+)", entry)[1]),  # type: ignore[index]
        "spills": max(0, int(re.search(r"STACK:(\d+)", entry)[1]) - ANGLES),  # type: ignore[index]
        "shared": int(kernel.metadata.shared),
        "numbers": numbers,
        "static": sum(not op.startswith(("NOP", "BRA")) for op in lines),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    given, wanted = aot.asked(
        argparse.ArgumentParser(prog="python kernels/tools/aot_report.py", description=(__doc__ or "").splitlines()[0]),
        arguments,
    )
    pixels = [inspect(entry, t) for _, entry in wanted if entry for t in given.target]
    draws = [inspect_draws(name, t) for name, entry in wanted if not entry for t in given.target]
    if given.json:
        print(json.dumps(pixels + draws, indent=1))
        return 0
    _print_pixels(pixels)
    _print_draws(draws)
    return 0


def _print_pixels(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    print(
        "counted in machine code, not timed: thread instructions per output pixel; widest access of a thread to "
        "pixels, in bytes (0: none); python kernels/tools/model.py says how far predicted times are off"
    )
    print(
        f"{'kernel':36s} {'target':7s} {'regs':>5s} {'spills':>6s} {'shared':>7s} {'load':>5s} {'store':>6s} "
        f"{'instr/pixel':>12s}"
    )
    for r in rows:
        figures = f"{r['registers']:5d} {r['spills']:6d} {r['shared']:7d} {r['load']:5d} {r['store']:6d}"
        counted = "-" if r["per pixel"] is None else f"{r['per pixel']:.1f}"
        print(f"{r['name']:36s} {r['target']:7s} {figures} {counted:>12s}")
        if r["not counted"]:
            print(f"    not counted: {r['not counted']}")
        if "us" in r:
            parts = ", ".join(f"{k} {v:.0f}" for k, v in r["parts"].items())
            print(
                f"    predicted for an H200 {r['us']:.0f} us: {parts}; sectors over those of the bytes: "
                f"loads {r['sectors']['load']:.2f}, stores {r['sectors']['store']:.2f}"
            )
        for fault in r.get("faults", ()):
            print(f"    {fault}")


def _print_draws(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    print("a thread draws all parameters of a sample: operations of the trace, and machine instructions, all run once")
    print(
        f"{'kernel':36s} {'target':7s} {'regs':>5s} {'spills':>6s} {'shared':>7s} {'numbers':>8s} {'instructions':>13s}"
    )
    for r in rows:
        print(
            f"{r['name']:36s} {r['target']:7s} {r['registers']:5d} {r['spills']:6d} {r['shared']:7d} "
            f"{r['numbers']:8d} {r['static']:13d}"
        )


if __name__ == "__main__":
    sys.exit(main())
