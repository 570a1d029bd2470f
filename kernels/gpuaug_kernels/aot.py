"""Compile every kernel that presets and tests use for cards that are not here, and say what each costs: `python -m gpuaug_kernels.aot [--json]`.

What to compile is specialisations.json beside this file: chains as data, each with the workload that its loops are counted for (written by
tests/specialisations.py from policies, and from what they draw for 256 samples).  Costs are counted in machine code (see sass.py), never timed.
Counts are those of triton 3.8: the line tables of 3.6 lose some inlined calls, so that what runs seldom is counted as always run.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("specialisations.json")
TARGETS = (80, 90, 100)
WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}


def specialisations() -> list[dict[str, Any]]:
    """What to compile: [{"name", "workload", "source", "program", "widths", "size", "out", "reduction", "trips", "chances"}]"""
    found: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def chain_of(entry: dict[str, Any]) -> Any:
    """The program of an entry."""
    from gpuaug_kernels.chain import Program

    return Program(**_frozen(entry["program"]))


def reduction_of(entry: dict[str, Any]) -> Any:
    """The reduction that an entry is for; None where it writes images."""
    from gpuaug_kernels.chain import Reduction

    return Reduction(program=chain_of(entry), **_frozen(entry["reduction"])) if entry["reduction"] else None


def _frozen(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def compiled(entry: dict[str, Any], target: int) -> Any:
    """One kernel for one architecture, as a launch would compile it."""
    import torch
    import triton
    from triton.backends.compiler import GPUTarget

    from gpuaug_kernels import launch
    from gpuaug_kernels.chain import Source, Tables

    given, program = entry["source"], chain_of(entry)
    shape, strides, dtype = given["shape"], given["strides"], getattr(torch, given["dtype"])
    data = torch.empty(1, dtype=torch.int64, device="cpu") if strides is None else torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    source = Source(data, dtype, shape[1], ragged=strides is None)
    *tables, known = (torch.empty(1, width, device="cpu") for width in entry["widths"])
    out = entry["out"]
    made = launch.ahead(source, program, Tables(*tables), known, tuple(entry["size"]), getattr(torch, out["dtype"]), out["channels_last"], reduction_of(entry))
    return triton.compile(made, target=GPUTarget("cuda", target, 32), options=launch.options(program))


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
    from gpuaug_kernels.sass import inside

    found = [i.opcode.split(".") for i in instructions if i.opcode.startswith(opcode) and inside(i, function)]
    return max((next((WIDTHS[p] for p in parts if p in WIDTHS), 4) for parts in found), default=0)


def inspect(entry: dict[str, Any], target: int) -> dict[str, Any]:
    """What one kernel costs on one architecture."""
    from gpuaug_kernels import launch, sass
    from gpuaug_kernels.chain import TILE

    kernel = compiled(entry, target)
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
        # the line tables of older compilers lose the loop: said, not guessed
        issued, kinds, missing = float("nan"), {}, str(error)
    height, wide = entry["size"]
    programs = -(-height // TILE) * -(-wide // TILE) * entry["program"]["groups"]
    per_pixel = 32 * launch.options(chain_of(entry))["num_warps"] * programs / (height * wide)
    return {
        "name": entry["name"],
        "target": f"sm_{target}",
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),  # type: ignore[index]
        "spills": sum(i.opcode.startswith(("STL", "LDL")) for i in lines),
        "shared": int(kernel.metadata.shared),
        "load": max(width(lines, "LDG", name) for name in ("gather_row", "packed")),
        "store": width(lines, "STG", "write"),
        "per pixel": None if missing else round(issued * per_pixel, 1),
        "kinds": {k: round(v * per_pixel, 1) for k, v in sorted(kinds.items(), key=lambda kv: -kv[1])[:12]},
        "not counted": missing,
        "static": len(lines),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m gpuaug_kernels.aot", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="machine-readable, with the kinds of instructions")
    parser.add_argument("--target", type=int, action="append", choices=TARGETS, help="one architecture (default: all)")
    parser.add_argument("--only", action="append", metavar="NAME", help="one kernel by its name (default: all)")
    parser.add_argument("--kind", choices=("pixels", "draws"), help="those that write images, or those that draw their parameters (default: both)")
    given = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        print("error: kernels cannot be compiled where TRITON_INTERPRET is set, got TRITON_INTERPRET=1; unset it and run this again", file=sys.stderr)
        return 2
    entries = specialisations()
    from gpuaug_kernels import aot_tape

    known = [*(e["name"] for e in entries), *aot_tape.names()]
    if unknown := set(given.only or ()) - set(known):
        print(f"error: no kernel is named {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    wanted, targets = given.only or known, given.target or TARGETS
    rows = [inspect(e, t) for e in entries if e["name"] in wanted and given.kind != "draws" for t in targets]
    draws = [aot_tape.inspect(name, t, tool) for name in aot_tape.names() if name in wanted and given.kind != "pixels" for t in targets]
    if given.json:
        print(json.dumps(rows + draws, indent=1))
        return 0
    _print_pixels(rows)
    _print_draws(draws)
    return 0


def _print_pixels(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    print("counted in machine code, not timed: thread instructions per output pixel; widest access of a thread to pixels, in bytes (0: none)")
    print(f"{'kernel':36s} {'target':7s} {'regs':>5s} {'spills':>6s} {'shared':>7s} {'load':>5s} {'store':>6s} {'instr/pixel':>12s}")
    for r in rows:
        figures = f"{r['registers']:5d} {r['spills']:6d} {r['shared']:7d} {r['load']:5d} {r['store']:6d}"
        counted = "-" if r["per pixel"] is None else f"{r['per pixel']:.1f}"
        print(f"{r['name']:36s} {r['target']:7s} {figures} {counted:>12s}")
        if r["not counted"]:
            print(f"    not counted: {r['not counted']}")


def _print_draws(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    print("a sample a thread, all of its parameters: numbers drawn and computed, and machine instructions in a row")
    print(f"{'kernel':36s} {'target':7s} {'regs':>5s} {'spills':>6s} {'shared':>7s} {'numbers':>8s} {'instructions':>13s}")
    for r in rows:
        print(f"{r['name']:36s} {r['target']:7s} {r['registers']:5d} {r['spills']:6d} {r['shared']:7d} {r['numbers']:8d} {r['static']:13d}")


if __name__ == "__main__":
    sys.exit(main())
