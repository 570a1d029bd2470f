"""Compile ahead every kernel that presets and tests use, for cards that this machine lacks: `python -m
gpuaug_kernels.aot [--target 90] [--json]`.

For whoever builds a container: with TRITON_CACHE_DIR set to a folder of the image this fills Triton's cache, so that
the first call on a card of that architecture compiles none of these kernels; no card is needed.  From Python:

    for entry in aot.specialisations():
        aot.compiled(entry, 90)           # kernels that write images
    for name in aot.draw_names():
        aot.compiled_draws(name, 90)      # kernels that draw parameters

What to compile is data beside this file: specialisations.json has the kernels that write images, each as the program of
its chain with the workload that its loops are counted for; draw_programs.json has those that draw their parameters.
Both are written from policies by the scripts of tests/support.  What the machine code costs is counted by
kernels/tools/aot_report.py, which is not in the wheel; --report runs it."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpuaug_kernels import codes

FILE = Path(__file__).with_name("specialisations.json")
DRAW_FILE = Path(__file__).with_name("draw_programs.json")
TARGETS = (80, 90, 100)
# the kernels that find partners, share draws, mix labels, move boxes and keypoints, and cut tables to windows
PARTNER, LABELS, CHAINED = "partners of a mix", "labels of a mix", "labels of two mixes and a crop"
BOXES, POINTS = "boxes after two steps", "keypoints after two steps"
SHARED, WINDOWS = "words of one sample for all", "tables of windows"
FIXED = (PARTNER, SHARED, LABELS, CHAINED, BOXES, POINTS, WINDOWS)


def specialisations() -> list[dict[str, Any]]:
    """What to compile, one dictionary a kernel; its "name" tells them apart.

    Keys: "name", "workload" (in words), "source" (dtype, shape, strides or None where ragged,
    whether ragged images are planar), "program", "reduction"
    and "following" (fields of chain.ChainProgram, and of the chain.Reduction that the launch is for and that it gathers
    for the next), "widths" (columns of the tables), "cells" (columns of the cells), "size" and "out" (of the images
    written), "trips" and "chances" (how often loops and branches run, for kernels/tools/sass.py)."""
    found: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def chain_of(entry: dict[str, Any]) -> Any:
    """The program of an entry."""
    from gpuaug_kernels.chain import ChainProgram

    return ChainProgram(**_frozen(entry["program"]))


def reduction_of(entry: dict[str, Any]) -> Any:
    """The reduction that an entry is for; None where it writes images."""
    from gpuaug_kernels.chain import Reduction

    return Reduction(program=chain_of(entry), **_frozen(entry["reduction"])) if entry["reduction"] else None


def following_of(entry: dict[str, Any]) -> Any:
    """The reduction that an entry gathers for the launch after it; None where it gathers none."""
    from gpuaug_kernels.chain import Reduction

    given = entry["following"]
    return given and Reduction(**_frozen(given | {"program": chain_of(given)}))


def _frozen(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def source_of(entry: dict[str, Any]) -> Any:
    """The images that an entry reads, without memory."""
    import torch

    from gpuaug_kernels.chain import Source

    given = entry["source"]
    shape, strides, dtype = given["shape"], given["strides"], getattr(torch, given["dtype"])
    planar = given.get("planar", False)
    data = (
        torch.empty((1, 3) if planar else 1, dtype=torch.int64, device="cpu")
        if strides is None
        else torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    )
    return Source(data, dtype, shape[1], ragged=strides is None, planar=planar)


def compiled(entry: dict[str, Any], target: int) -> Any:
    """One kernel for one architecture, as a launch would compile it; it stays in Triton's cache.

    entry: of `specialisations`; target: compute capability times ten, 90 for sm_90"""
    import torch
    import triton
    from triton.backends.compiler import GPUTarget

    from gpuaug_kernels import launch
    from gpuaug_kernels.bind import complete
    from gpuaug_kernels.chain import Tables

    source, program, following = source_of(entry), chain_of(entry), following_of(entry)
    *tables, statistics = (torch.empty(1, width, device="cpu") for width in entry["widths"])
    out = entry["out"]
    made = launch.ahead(
        source,
        program,
        Tables(*tables),
        statistics,
        tuple(entry["size"]),
        getattr(torch, out["dtype"]),
        out["channels_last"],
        reduction_of(entry),
        following,
        entry["cells"],
    )
    options = launch.options(program, target, following)
    return triton.compile(made, target=GPUTarget("cuda", target, 32), options=complete(options))


def draw_names() -> list[str]:
    """The kernels that draw, and those of labels, boxes, keypoints and windows."""
    return [*(f"draws of {e['name']}" for e in json.loads(DRAW_FILE.read_text(encoding="utf-8"))), *FIXED]


def draw_source(name: str) -> tuple[Any, dict[str, Any], int]:
    """The kernel of a name as a launch would compile it, its options, and how many operations its trace has."""
    from triton.compiler import ASTSource

    from gpuaug_kernels import draws, label_chains, labels, shapes, windows

    if name == WINDOWS:
        return windows.ahead(), windows.OPTIONS, 0
    if name in (BOXES, POINTS):
        return shapes.ahead(name == BOXES, 2), shapes.OPTIONS, 0
    if name == LABELS:
        # class numbers of ImageNet
        return labels.ahead(1000), labels.options(labels.block(1000)), 0
    if name == CHAINED:
        crop, cut, mean = (codes.MOVED, 0, 0, 1), (codes.CUTMIX, 15, 0, 0), (codes.MIXUP, 19, 1, 0)
        return label_chains.ahead((*crop, *cut, *mean), 22, 1000), labels.options(labels.block(1000)), 0
    if name in (PARTNER, SHARED):
        kernel, c1 = draws.find_partners, codes.MIX << codes.DOMAIN_SHIFT
        pointers = dict.fromkeys(("ids", "occurrences", "valid", "out"), "*i64")
        types = {**pointers, **dict.fromkeys(("epoch", "low", "high", "n"), "i32")}
        constants = draws.partner_constants(c1, False)
        if name == SHARED:
            # the words of a choice and of a share
            kernel, constants = draws.share_words, draws.share_constants(c1, (c1, 0, 0, 0, c1, 0, 1, 1), False)
        signature = {k: types.get(k, "constexpr") for k in kernel.arg_names}
        aligned = {(kernel.arg_names.index(k),): [["tt.divisibility", 16]] for k in ("ids", "occurrences")}
        return (
            ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned),
            {"num_warps": draws.WARPS},
            0,
        )
    entry = next(e for e in json.loads(DRAW_FILE.read_text(encoding="utf-8")) if f"draws of {e['name']}" == name)
    program = draws.DrawProgram(draws.Code(entry["code"]), tuple(entry["columns"]))
    return draws.ahead(program), draws.OPTIONS, len(entry["code"]) // codes.FIELDS


def compiled_draws(name: str, target: int) -> Any:
    """A kernel that draws, by its name, for one architecture."""
    import triton
    from triton.backends.compiler import GPUTarget

    from gpuaug_kernels.bind import complete

    source, options, _ = draw_source(name)
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=complete(options))


def asked(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, list[tuple[str, Any]]]:
    """The options that this command and its report share, and what to compile: (name, entry, or None for a kernel that
    draws).

    Exits with status 2 where nothing can be compiled or a name is unknown.
    """
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--target", type=int, action="append", choices=TARGETS, help="one architecture (default: all)")
    parser.add_argument("--only", action="append", metavar="NAME", help="one kernel by its name (default: all)")
    parser.add_argument(
        "--kind",
        choices=("pixels", "draws"),
        help="those that write images, or those that draw their parameters (default: both)",
    )
    given = parser.parse_args(arguments)
    given.target = given.target or list(TARGETS)
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        print(
            "error: kernels cannot be compiled where TRITON_INTERPRET is set, got TRITON_INTERPRET=1; "
            "unset it and run this again",
            file=sys.stderr,
        )
        raise SystemExit(2)
    kernels = {"pixels": [(e["name"], e) for e in specialisations()], "draws": [(name, None) for name in draw_names()]}
    every: list[tuple[str, Any]] = [k for kind in ("pixels", "draws") for k in kernels[kind]]
    if unknown := set(given.only or ()) - {name for name, _ in every}:
        print(
            f"error: no kernel is named {', '.join(sorted(unknown))}; there are {', '.join(name for name, _ in every)}",
            file=sys.stderr,
        )
        raise SystemExit(2)
    chosen = every if given.kind is None else kernels[given.kind]
    return given, [k for k in chosen if not given.only or k[0] in given.only]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    about = (__doc__ or "").split(":")[0] + "."
    parser = argparse.ArgumentParser(prog="python -m gpuaug_kernels.aot", description=about)
    parser.add_argument("--report", action="store_true", help="what each costs on a card, counted; from a checkout")
    given, wanted = asked(parser, arguments)
    if given.report:
        return _report(list(sys.argv[1:] if arguments is None else arguments))
    rows = []
    for name, entry in wanted:
        for target in given.target:
            begin = time.perf_counter()
            kernel = compiled(entry, target) if entry else compiled_draws(name, target)
            row = {
                "name": name,
                "target": f"sm_{target}",
                "shared": int(kernel.metadata.shared),
                "bytes": len(kernel.asm["cubin"]),
            }
            rows.append(row | {"seconds": round(time.perf_counter() - begin, 2)})
            if not given.json:
                print(
                    f"{name:36s} sm_{target:<4d} {row['bytes']:8d} bytes {row['shared']:6d} shared "
                    f"{rows[-1]['seconds']:7.2f} s",
                    flush=True,
                )
    if given.json:
        print(json.dumps(rows, indent=1))
    return 0


def _report(arguments: list[str]) -> int:
    """The report of kernels/tools, which the wheel does not hold."""
    tools = Path(__file__).resolve().parents[1] / "tools"
    if not (tools / "aot_report.py").exists():
        print(f"error: --report needs a checkout of gpuaug, whose {tools} is missing here", file=sys.stderr)
        return 2
    sys.path.insert(0, str(tools))
    import importlib

    status: int = importlib.import_module("aot_report").main([a for a in arguments if a != "--report"])
    return status


if __name__ == "__main__":
    sys.exit(main())
