"""What a recipe saves: drawing, lowering and filling the tables of a batch by a trace, against step by step in torch,
turn by turn.

python -m bench.bench_draws [--out FILE].  No image is touched; one thread.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import gpuaug as ga
from bench.timing import Budget, Spread, alternate, ratio
from gpuaug import ir, rng
from gpuaug.trace.recipe import trace_build

FLOAT, NORMAL = ga.ToDtype(torch.float32, scale=True), ga.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CROP = (ga.RandomResizedCrop(224), ga.RandomHorizontalFlip())
JITTER, ERASE = ga.ColorJitter(0.2, 0.2, 0.2, 0.05), ga.RandomErasing(0.25)
# transforms, and the size of the images; None: they differ
POLICIES: dict[str, tuple[tuple[ga.Transform, ...], tuple[int, int] | None]] = {
    "seed recipe": (
        (
            ga.RandomAffine(90, (0.3, 0.3), (1, 2)),
            ga.RandomHorizontalFlip(),
            ga.RandomVerticalFlip(),
            ga.SaltAndPepper(0.05),
        ),
        (28, 28),
    ),
    "weak": ((*CROP, FLOAT, NORMAL), None),
    "moderate": ((*CROP, JITTER, FLOAT, NORMAL, ERASE), None),
    "strong": ((*CROP, ga.RandAugment(2, 9), FLOAT, NORMAL, ERASE), None),
    "very strong": ((*CROP, ga.RandAugment(2, 9), FLOAT, NORMAL, ERASE, ga.CutMix(1.0, 1000)), None),
}


def measure(name: str, n: int, budget: Budget) -> dict[str, Any]:
    """One policy and batch size, for the tables of the CPU executor."""
    transforms, fixed = POLICIES[name]
    policy = ga.Policy(transforms)
    build = policy._builder("cpu")
    keys = rng.Keys(0, 3, torch.arange(n), torch.zeros(n, dtype=torch.int64))
    size = torch.tensor([fixed or (375, 500)]).repeat(n, 1)
    frame = ir.Frame(size, fixed, 3, torch.uint8)
    start = time.perf_counter()
    recipe = trace_build(frame, build)
    traced = time.perf_counter() - start
    (got, *_), (want, *_) = recipe.fill(keys, size), build(keys, frame)
    if not all(
        torch.equal(getattr(a, t), getattr(b, t))
        for a, b in zip(got, want, strict=True)
        for t in ("ints", "floats", "doubles")
    ):
        raise AssertionError(f"{name}: the tables of the recipe are not those of its steps")
    taken = alternate(
        {"steps": lambda: build(keys, frame), "recipe": lambda: recipe.fill(keys, size)}, torch.device("cpu"), budget
    )
    times = ratio(taken["steps"], taken["recipe"])
    return {
        "policy": name,
        "batch": n,
        "instructions": recipe.instructions,
        "seconds to trace": round(traced, 4),
        "times as fast as step by step": vars(times),
        "microseconds a batch": {k: vars(Spread.of([1e6 * s for s in v])) for k, v in taken.items()},
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name, n, Budget(1.5, 15, 60)) for name in POLICIES for n in (32, 256)]
    for r in rows:
        t = r["times as fast as step by step"]
        print(
            f"{r['policy']:12s} x{r['batch']:<4d} {r['instructions']:5d} instructions: {t['median']:5.1f} times "
            f"as fast ({t['low']:.1f} to {t['high']:.1f})"
        )
    if given.out:
        about = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": version("torch"),
            "numba": version("numba"),
            "threads": 1,
        }
        given.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
