"""What a call on a card costs the host: python -m bench.bench_host [--store].

No card is needed: the launches are counted instead of made (bench/no_card.py), so that a figure is Python, torch's
allocations on "meta" and Triton's part of a launch up to its driver.  The driver's own part is not in it.  It is the
time of the calling thread, so that what others do on the machine is not in it either.  Each call takes turns with the
same call made launch by launch, as the first ones of its kind are (gpuaug/exec/triton/calls.py)."""

import argparse
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from gpuaug_kernels.calls import BoundCall

import gpuaug as ga
import gpuaug.ahead
from bench.no_card import META, Counter, no_card
from bench.report import results
from bench.suite import Options
from bench.timing import Spread
from gpuaug.images import Ragged
from gpuaug.pieces import Pieces

FLOAT, NORMAL = ga.ToDtype(torch.float32, scale=True), ga.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF, FLIP, CROP = ga.ToDtype(torch.bfloat16), ga.RandomHorizontalFlip(), ga.RandomResizedCrop(224)
JITTER, ERASE = ga.ColorJitter(0.2, 0.2, 0.2, 0.05), ga.RandomErasing(0.25)
CLASSES = 1000
POLICIES: dict[str, tuple[ga.Transform, ...]] = {
    "flip": (FLIP, FLOAT, NORMAL, HALF),
    "weak": (CROP, FLIP, FLOAT, NORMAL, HALF),
    "moderate": (CROP, FLIP, JITTER, FLOAT, NORMAL, ERASE, HALF),
    "strong": (CROP, FLIP, ga.RandAugment(2, 9), FLOAT, NORMAL, ERASE, HALF),
    "cutmix": (FLIP, FLOAT, NORMAL, ga.CutMix(1.0, CLASSES), HALF),
}
# a row: its policy, its images, and how they come: a tensor of one size in channels_last, a list of tensors of other
# sizes, a gpuaug.Batch that names all that a loader's does, the same with some of TARGETS, or what a loader's is:
# windows of images of other sizes in one piece of memory, with what was drawn to know them, without targets or with
# boxes; or the windows alone, drawn for by the card
ROWS: dict[str, tuple[str, int, str]] = {
    **{name: (name, 256, "tensor") for name in POLICIES},
    "flip, 1 image": ("flip", 1, "tensor"),
    "moderate, 1 image": ("moderate", 1, "tensor"),
    "moderate, Batch": ("moderate", 256, "Batch"),
    "cutmix, Batch": ("cutmix", 256, "Batch"),
    "weak, list": ("weak", 256, "list"),
    "moderate, list": ("moderate", 256, "list"),
    "weak, loader": ("weak", 256, "loader"),
    "moderate, loader": ("moderate", 256, "loader"),
    "loader, 1 image": ("moderate", 1, "loader"),
    "moderate, boxes": ("moderate", 256, "boxes"),
    "moderate, keypoints": ("moderate", 256, "keypoints"),
    "moderate, masks": ("moderate", 256, "masks"),
    "moderate, classes": ("moderate", 256, "classes"),
    "boxes, loader": ("moderate", 256, "loader of boxes"),
    "weak, windows": ("weak", 256, "windows"),
}
# calls of one turn
CALLS = 100


def whole(n: int) -> torch.Tensor:
    """Ids, occurrences or class numbers."""
    return torch.empty(n, dtype=torch.int64, device=META)


def boxes(n: int) -> dict[str, Any]:
    """Padded to twenty an image, and which of them there are."""
    valid = torch.empty(n, PLACES, dtype=torch.bool, device=META)
    return {"boxes": torch.empty(n, PLACES, 4, device=META), "box_format": "XYXY", "box_valid": valid}


def masks(n: int, dtype: torch.dtype) -> dict[str, Any]:
    """One an image, of a size of `calls`."""
    return {"masks": torch.empty(n, 375, 500, dtype=dtype, device=META)}


PLACES = 20
# what follows the images
TARGETS: dict[str, Callable[[int], dict[str, Any]]] = {
    "boxes": boxes,
    "keypoints": lambda n: {"keypoints": torch.empty(n, PLACES, 2, device=META)},
    "masks": lambda n: masks(n, torch.uint8),
    "classes": lambda n: masks(n, torch.int64),
}


class Loaded:
    """A call of a loader: each has another batch, decoded and drawn by another thread, whose time is not counted."""

    def __init__(self, policy: ga.Policy, n: int, targets: dict[str, Any] | None = None):
        self.policy, self.n, self.made, self.targets = policy, n, list[ga.Batch](), targets or {}
        self.sizes = np.random.default_rng(0).integers(300, 400, (n, 2))
        self.labels, self.ids, self.occurrence = whole(n), whole(n), whole(n)

    def prepare(self, times: int) -> None:
        """As many batches."""
        self.made += [self.batch() for _ in range(times)]

    def batch(self) -> ga.Batch:
        """The next one."""
        self.sizes = np.roll(self.sizes, 1) + 1
        # "meta" stands for a card
        with mock.patch.object(gpuaug.ahead, "choose", return_value="triton"):
            found = self.policy.windows(torch.arange(self.n), self.sizes, epoch=3, occurrence=[0] * self.n, device=META)
        shapes = np.concatenate([found.windows[:, 2:], np.full((self.n, 1), 3)], 1)
        memory = torch.empty(int(shapes.prod(1).sum()), dtype=torch.uint8, device=META)
        images = Ragged.of(Pieces.in_turn(memory, shapes), self.sizes, found.windows)
        return ga.Batch(images, self.labels, self.ids, 3, self.occurrence, params=found.params, **self.targets)

    def __call__(self) -> Any:
        if not self.made:
            self.prepare(1)
        return self.policy(self.made.pop(), backend="triton")


def prepare(call: Callable[[], Any], times: int) -> None:
    """What so many calls take and do not do themselves."""
    if isinstance(call, Loaded):
        call.prepare(times)


def calls(row: str) -> Callable[[], Any]:
    """A call as a training step makes it."""
    name, n, form = ROWS[row]
    policy = ga.Policy(POLICIES[name], seed=1, memory_format=torch.channels_last)
    if form.startswith("loader"):
        return Loaded(policy, n, boxes(n) if form == "loader of boxes" else None)
    if form == "windows":
        windows = Loaded(policy, n).batch().replace(params=None)
        return lambda: policy(windows, backend="triton")
    targets = TARGETS[form](n) if form in TARGETS else {}
    labels = whole(n) if name == "cutmix" or form == "Batch" else None
    ids, occurrence = whole(n), whole(n)
    if form == "list":
        images = [torch.empty(300 + k % 77, 400 + k % 91, 3, dtype=torch.uint8, device=META) for k in range(n)]
        return lambda: policy(images, labels, ids=ids, epoch=3, backend="triton")
    height, width = (224, 224) if name in ("flip", "cutmix") else (375, 500)
    batch = torch.empty(n, height, width, 3, dtype=torch.uint8, device=META).permute(0, 3, 1, 2)
    if form == "tensor":
        return lambda: policy(batch, labels, ids=ids, epoch=3, backend="triton")
    return lambda: policy(ga.Batch(batch, labels, ids=ids, epoch=3, occurrence=occurrence, **targets), backend="triton")


def microseconds(call: Callable[[], Any], times: int = CALLS) -> float:
    """Of the calling thread, a call."""
    prepare(call, times)
    begin = time.thread_time()
    for _ in range(times):
        call()
    return 1e6 * (time.thread_time() - begin) / times


def step_by_step(call: Callable[[], Any]) -> float:
    """The same where no call is bound."""
    with mock.patch.object(BoundCall, "may_run", False):
        return microseconds(call)


def measure(row: str, turns: int) -> dict[str, Any]:
    """A row, with its launches."""
    call = calls(row)
    for _ in range(5):
        call()
    before = Counter.count
    call()
    launches = Counter.count - before
    bound, unbound = [], []  # type: list[float], list[float]
    for _ in range(turns):
        bound.append(microseconds(call))
        unbound.append(step_by_step(call))
    return {
        "call": row,
        "launches": launches,
        "microseconds": vars(Spread.of(bound)) | {"least": min(bound)},
        "launch by launch, microseconds": vars(Spread.of(unbound)) | {"least": min(unbound)},
    }


def main(arguments: list[str] | None = None) -> int:
    """Print a line a row."""
    parser = argparse.ArgumentParser(prog="python -m bench.bench_host", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=31, help=f"of {CALLS} calls each")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="default: all")
    parser.add_argument("--store", action="store_true", help="keep the results in bench/results")
    given = parser.parse_args(arguments)
    rows = []
    print("launches are counted instead of made; microseconds of the calling thread, a call")
    with no_card():
        for name in given.rows:
            rows.append(measure(name, given.turns))
            now, then = (rows[-1][k] for k in ("microseconds", "launch by launch, microseconds"))
            print(
                f"{name:18s} {now['median']:6.1f} ({now['low']:.1f} to {now['high']:.1f}, least {now['least']:.1f}, "
                f"n={now['n']}), {rows[-1]['launches']} launches; launch by launch {then['median']:.1f}",
                flush=True,
            )
    if given.store:
        about = results.conditions(Options("cpu", 1)) | {"rounds": f"{given.turns} turns of {CALLS} calls"}
        about["what"] = "the host's part alone: no card, launches are counted instead of made"
        results.save({"about": about, "rows": rows}, results.RESULTS / "host.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
