"""Small images that lie in memory: the resident loader against torchvision's data set behind torch's DataLoader.

python -m bench.bench_resident [--store].  60 000 images of 28 x 28 x 1 as Fashion-MNIST has them, in its data set
class, two flips, RandomAffine(90, (0.3, 0.3), (1, 2)) and salt and pepper, to float32, batches of 256, shuffled.
Sides take turns with some batches each; the cores are torch's threads or the DataLoader's workers.  What workers have
made ahead between turns is taken before the clock starts: half of a short turn would cost nothing.  CPU time is that of
all processes of a side: what others on the machine do changes it less than a rate."""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import gpuaug as ga
from bench import checks, processes, sources, timing
from bench.contenders import words
from bench.report import results
from bench.scenarios import RECIPE, Workload
from bench.suite import Options, use_threads
from bench.timing import Spread

N, BATCH = 60_000, 256
OURS = "gpuaug ResidentLoader"
WORKLOAD = Workload("Fashion-MNIST, seed recipe", "end to end", RECIPE, batch=BATCH, size=(28, 28), channels=1)
# batches of a turn that are timed
TURN = {OURS: 600, "other": 16}
# batches that each worker has ready, as torch's DataLoader has it
AHEAD = 2
Batches = Callable[[], Iterator[Tensor]]


def data_set(transform: Any = None) -> Any:
    """Fashion-MNIST's class with made-up images in it: nothing is downloaded."""
    from torchvision.datasets import FashionMNIST

    class Held(FashionMNIST):
        def __init__(self) -> None:
            self.transform, self.target_transform = transform, None
            pictures = np.stack(sources.photographs(256, 28, 28, 1))[..., 0]
            self.data = torch.from_numpy(np.tile(pictures, (-(-N // 256), 1, 1))[:N])
            self.targets = torch.arange(N) % 10

    return Held()


def steps(kind: str) -> Any:
    """The recipe in torchvision's words, on Pillow's images as its data set gives them, or on tensors."""
    from torchvision.transforms import v2

    own = words.torchvision(RECIPE, False)
    if kind == "tensors":
        return v2.Compose([v2.ToImage(), *own])
    # noise is written for tensors
    return v2.Compose([*own[:3], v2.ToImage(), *own[3:]])


def sides(workers: int) -> dict[str, Batches]:
    """Endless batches of each side."""
    made: dict[str, Batches] = {}
    loader = ga.data.ResidentLoader(data_set(), ga.Policy(RECIPE, seed=1), BATCH, device="cpu")
    made[OURS] = lambda: (batch.images for batch in loader)
    for kind in ("Pillow", "tensors"):
        for count in sorted({0, workers}):
            other = DataLoader(
                data_set(steps(kind)),
                BATCH,
                shuffle=True,
                num_workers=count,
                persistent_workers=count > 0,
                prefetch_factor=AHEAD if count else None,
            )
            made[f"torchvision + DataLoader, {kind}, {count} workers"] = lambda other=other: (x for x, _ in other)  # type: ignore[misc]
    return made


def endless(batches: Batches) -> Iterator[Tensor]:
    """Epoch after epoch."""
    while True:
        yield from batches()


def check(batches: Iterator[Tensor]) -> str:
    """Why a side's images are not distributed as the reference's; empty if they are."""
    pictures = [a[..., None] for a in np.asarray(data_set().data[:256].numpy())]
    source = sources.Source(pictures, False, torch.device("cpu"))
    policy = ga.Policy(RECIPE, seed=2)
    wanted = [checks.statistics(policy(source.channels_last, epoch=e, backend="cpu")) for e in range(4)]
    found = [checks.statistics(b) for b in islice(batches, 4)]
    a, b = (np.concatenate(v) for v in (found, wanted))
    # sides are shuffled apart, and both come from the same 256 pictures
    bad = [n for k, n in enumerate(checks.STATISTICS) if checks.separation(a[:, k], b[:, k], checks.LEVEL) > 1]
    return f"the {bad[0]} of its images is distributed differently" if bad else ""


def measure(rounds: int, workers: int) -> list[dict[str, Any]]:
    """A row for each side."""
    use_threads(max(1, workers))
    running = {name: endless(batches) for name, batches in sides(workers).items()}
    for name, batches in running.items():
        # other draws decide where chance alone turns a comparison red
        why = check(batches) and check(batches)
        if why:
            raise AssertionError(f"{name}: {why}")

    def turn(name: str) -> float:
        # one image at a time gains nothing by threads, and waits for them
        torch.set_num_threads(max(1, workers) if name == OURS else 1)
        count = TURN.get(name, TURN["other"])
        take(running[name], lead(name))
        return timing.once(lambda: take(running[name], count), torch.device("cpu")) / (count * BATCH)

    def take(batches: Iterator[Tensor], count: int) -> None:
        for _ in islice(batches, count):
            pass

    def lead(name: str) -> int:
        # all that was ready, and as many again: then workers are as far as they are amid an epoch
        return 0 if name == OURS or name.endswith(" 0 workers") else 2 * AHEAD * workers

    seconds: dict[str, list[float]] = {name: [] for name in running}
    cpu: dict[str, list[float]] = {name: [] for name in running}
    for k in range(rounds + 1):
        order = list(running)[k % len(running) :] + list(running)[: k % len(running)]
        for name in order:
            before = processes.cpu_seconds(os.getpid())
            taken = turn(name)
            # what workers have made ahead is theirs
            processes.settled(os.getpid(), 5)
            spent = processes.cpu_seconds(os.getpid()) - before
            if k:
                # the first turn warms up
                seconds[name].append(taken)
                cpu[name].append(spent / ((lead(name) + TURN.get(name, TURN["other"])) * BATCH))
    return [
        {
            "side": name,
            "images/s": asdict(Spread.of([1 / s for s in taken])),
            "times as long": asdict(timing.ratio(taken, seconds[OURS])),
            "CPU microseconds an image": asdict(Spread.of([1e6 * s for s in cpu[name]])),
            "times the CPU time": asdict(timing.ratio(cpu[name], cpu[OURS])),
        }
        for name, taken in seconds.items()
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=torch.multiprocessing.cpu_count())
    parser.add_argument("--store", action="store_true", help="keep the results in bench/results")
    given = parser.parse_args()
    rows = measure(given.rounds, given.workers)
    for r in rows:
        rate, times = r["images/s"], r["times as long"]
        print(
            f"{r['side']:45s} {rate['median']:9.0f} images/s ({rate['low']:.0f} to {rate['high']:.0f}), "
            f"{times['median']:.1f} x as long ({times['low']:.1f} to {times['high']:.1f}, n = {times['n']}), "
            f"{r['CPU microseconds an image']['median']:.0f} us of CPU an image, "
            f"{r['times the CPU time']['median']:.1f} x"
        )
    if given.store:
        about = results.conditions(Options("cpu", given.workers)) | {
            "rounds": given.rounds,
            "images": N,
            "batch": BATCH,
        }
        results.save({"about": about, "rows": rows}, results.RESULTS / "resident.json")


if __name__ == "__main__":
    main()
