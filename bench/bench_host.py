"""What a call on a card costs the host: python -m bench.bench_host [--json].

No card is needed: the launches are counted instead of made (bench/no_card.py), so that a figure is Python, torch's
allocations on "meta" and Triton's part of a launch up to its driver.  The driver's own part is not in it."""

import argparse
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

import gpuaug as ga
from bench.no_card import META, no_card
from bench.timing import Budget, Spread, alternate

FLOAT, NORMAL = ga.ToDtype(torch.float32, scale=True), ga.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF, FLIP = ga.ToDtype(torch.bfloat16), ga.RandomHorizontalFlip()
JITTER, ERASE = ga.ColorJitter(0.2, 0.2, 0.2, 0.05), ga.RandomErasing(0.25)
# transforms, the size of the images, classes of labels
POLICIES: dict[str, tuple[tuple[ga.Transform, ...], tuple[int, int], int]] = {
    "flip": ((FLIP, FLOAT, NORMAL, HALF), (224, 224), 0),
    "moderate": ((ga.RandomResizedCrop(224), FLIP, JITTER, FLOAT, NORMAL, ERASE, HALF), (375, 500), 0),
    "cutmix": ((FLIP, FLOAT, NORMAL, ga.CutMix(1.0, 1000), HALF), (224, 224), 1000),
}


def calls(name: str, n: int) -> Callable[[], Any]:
    """A call of a policy as a training step makes it."""
    transforms, size, classes = POLICIES[name]
    policy = ga.Policy(transforms, seed=1, memory_format=torch.channels_last)
    images = torch.empty(n, 3, *size, dtype=torch.uint8, device=META).contiguous(memory_format=torch.channels_last)
    ids = torch.empty(n, dtype=torch.int64, device=META)
    labels = torch.empty(n, dtype=torch.int64, device=META) if classes else None
    return lambda: policy(images, labels, ids=ids, epoch=3, backend="triton")


def main(arguments: list[str] | None = None) -> int:
    """Print a line a policy."""
    parser = argparse.ArgumentParser(prog="python -m bench.bench_host", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each policy")
    given = parser.parse_args(arguments)
    rows = {}
    with no_card() as (_, counter):
        for name in POLICIES:
            call = calls(name, given.batch)
            call()
            before = counter.count
            call()
            launches = counter.count - before
            found = alternate({"call": call}, torch.device("cpu"), Budget(given.seconds, 11, 101))["call"]
            spread = Spread.of([1e6 * s for s in found])
            rows[name] = {"microseconds": vars(spread), "launches": launches}
            if not given.json:
                print(
                    f"{name:10s} {spread.median:7.1f} us ({spread.low:.1f} to {spread.high:.1f}, n={spread.n}), "
                    f"{launches} launches",
                    flush=True,
                )
    if given.json:
        print(
            json.dumps(
                {
                    "machine": platform.processor(),
                    "python": platform.python_version(),
                    "torch": version("torch"),
                    "triton": version("triton"),
                    "batch": given.batch,
                    "rows": rows,
                },
                indent=1,
            )
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
