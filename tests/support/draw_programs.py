"""The traces that are compiled ahead, from policies: `python tests/support/draw_programs.py` writes
kernels/gpuaug_kernels/draw_programs.json."""

import json
from collections.abc import Iterator
from typing import Any

import torch
from gpuaug_kernels import aot

import gpuaug as ga
from gpuaug import ir
from gpuaug.trace import device
from gpuaug.trace.recipe import trace_build


def policies() -> Iterator[tuple[str, list[ga.Transform], tuple[int, int] | None, int]]:
    """Name, transforms, size (None: images differ) and channels of uint8 images."""
    crop, jitter = [ga.RandomResizedCrop(224), ga.RandomHorizontalFlip()], ga.ColorJitter(0.4, 0.4, 0.4, 0.1)
    ends = [
        ga.ToDtype(torch.float32, scale=True),
        ga.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ga.ToDtype(torch.bfloat16),
    ]
    flips, erase = [ga.RandomHorizontalFlip(), ga.RandomVerticalFlip()], ga.RandomErasing(0.25)
    yield "seed recipe", [*flips, ga.RandomAffine(90, (0.3, 0.3), (1, 2)), ga.SaltAndPepper(0.05)], (28, 28), 1
    yield "flip + normalise", [flips[0], *ends], (224, 224), 3
    yield "weak", [*crop, *ends], None, 3
    yield "moderate + erasing + CutMix", [*crop, jitter, *ends, erase, ga.CutMix(1.0, 5)], None, 3
    yield "strong", [*crop, ga.RandAugment(2, 9), *ends, erase], None, 3


def entries() -> list[dict[str, Any]]:
    """Everything to compile, as the file holds it."""
    return [entry(*policy) for policy in policies()]


def entry(name: str, transforms: list[ga.Transform], fixed: tuple[int, int] | None, channels: int) -> dict[str, Any]:
    """One trace, for the tables of the Triton executor."""
    policy = ga.Policy(transforms)
    frame = ir.Frame(torch.zeros((2, 2), dtype=torch.int64), fixed, channels, torch.uint8)
    recipe = trace_build(frame, policy._builder("triton"))
    program = device.assemble(recipe.trace, recipe.tables, recipe.slots)
    return {"name": name, "code": list(program.code.values), "columns": list(program.columns)}


def text() -> str:
    """The file: a line for each trace."""
    return "[\n" + ",\n".join(json.dumps(e, separators=(",", ":")) for e in entries()) + "\n]\n"


if __name__ == "__main__":
    aot.DRAW_FILE.write_text(text(), encoding="utf-8")
    print(aot.DRAW_FILE)
