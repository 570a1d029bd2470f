"""What the loader does on a card: its share of what its decoder does alone, what it adds to a training step, whether
memory stays flat, and a training run from JPEG files."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gpuaug as ga
from bench import timing
from bench.contenders.registry import Absent
from bench.gpu import decoders
from bench.gpu.decoders import ALONE, GPU_DECODERS, ON_CPU, ON_GPU, RIGHT, Task
from bench.gpu.parts import summary
from bench.scenarios import POLICIES
from bench.timing import wait
from gpuaug.data import decode
from gpuaug.data.decode_batch import cores

STRENGTHS = ("weak", "moderate")
WHOLE, CUT = "alone, whole images", "alone, windows"
PREFETCH = 3
# passes of one iteration: more than any part has time for
EPOCHS = 100_000
# the loader must make as many images more than a step takes, or the step would wait for decoding
AHEAD = 1.3
# bytes that memory may seem to grow by: DALI's pool takes more when larger images than before meet in a batch
SLACK = 64 * 2**20


def policy(strength: str, side: int, dtype: torch.dtype = torch.bfloat16) -> ga.Policy:
    """A policy of the suite, ready for a network."""
    _, *rest = POLICIES[strength]
    cast = (ga.ToDtype(dtype, scale=True),)
    return ga.Policy((ga.RandomResizedCrop(side), *rest, *cast), seed=3, memory_format=torch.channels_last)


def threads(task: Task, name: str) -> int:
    """What the decoder alone was fastest with."""
    on = ON_GPU if task.device.type == "cuda" else ON_CPU
    return int(task.found.get(ALONE, {}).get(f"{name}{on}", {}).get("threads", cores()))


def fastest(task: Task) -> str:
    """The decoder that made the most images alone on this device, of those with none that is not right; "auto" where
    none was measured."""
    on = ON_GPU if task.device.type == "cuda" else ON_CPU
    rows, wrong = task.found.get(ALONE, {}), task.found.get(RIGHT, {})
    sound = [n for n in GPU_DECODERS if not wrong.get(n + on, {}).get("corrupt images")]
    rates = {n: rows[n + on]["images/s"]["median"] for n in sound if "images/s" in rows.get(n + on, {})}
    return max(rates, key=lambda n: rates[n]) if rates else "auto"


def loader(task: Task, name: str, chosen: Any, batch: int, **more: Any) -> ga.data.Loader:
    """The loader on the device of a task; raises Absent where its decoder is missing."""
    why = "" if name == "auto" else decode.missing(name)
    if why:
        raise Absent(why)
    return ga.data.Loader(
        str(task.folder),
        chosen,
        batch,
        device=task.device,
        decoder=name,
        prefetch=PREFETCH,
        num_threads=threads(task, name),
        **{"epochs": EPOCHS, **more},
    )


# ---- against its decoder


def delivered(made: ga.data.Loader, seconds: float, least: int = 4) -> float:
    """Images in a second of one iteration, from when what was made ahead is gone until its last batch is there."""
    device, batches, done = made.device, iter(made), 0
    try:
        for _ in range(2 * PREFETCH):
            next(batches)
        wait(device)
        # of what stands before this nothing is reported
        made.meter.reset()
        began = time.perf_counter()
        while done < least * made.batch_size or time.perf_counter() - began < seconds:
            done += len(next(batches).ids)
        wait(device)
        return done / (time.perf_counter() - began)
    finally:
        _close(batches)


def _close(batches: Any) -> None:
    batches.close()


def share(task: Task, name: str) -> dict[str, Any]:
    """Images in a second of the loader, and its part of those of its decoder alone, turn by turn.

    Alone is both: whole images, and the windows of the same policies, since a decoder that makes the window alone does
    less."""
    side, batch, length = (32, 8, 0.05) if task.tiny else (224, 256, max(0.3, min(1.0, task.seconds / 24)))
    with ExitStack() as stack:
        made = {f"loader, {s}": stack.enter_context(loader(task, name, policy(s, side), batch)) for s in STRENGTHS}
        decoder = stack.enter_context(closing(decode.decoder(name, task.device, threads(task, name))))
        items = decoders.in_memory(task.folder)
        whole, cut = decoders.in_batches(items, batch), _windows(decoder, items, batch, policy(STRENGTHS[0], side))
        works: dict[str, Callable[[], float]] = {
            WHOLE: lambda: decoders.turn(decoder, whole, length),
            CUT: lambda: decoders.turn(decoder, cut, length),
            **{what: partial(delivered, one, length) for what, one in made.items()},
        }
        found = _turns(works, task)
        stats = {what: one.stats() for what, one in made.items()}
        said = next(iter(made.values())).describe()
    row: dict[str, Any] = {"images/s": {what: summary(values) for what, values in found.items()}}
    for what in made:
        shares = {k: timing.ratio(found[what], found[k]) for k in (WHOLE, CUT)}
        # the harder of both: one that makes windows alone is faster with them, one that cuts them out is not
        fair = min(shares, key=lambda k: shares[k].median)
        row[what] = {
            **{f"share of {k}": summary(s) for k, s in shares.items()},
            "asked": "0.95 of the decoder alone",
            "met": shares[fair].median >= 0.95,
            "bottleneck": stats[what]["bottleneck"],
            "busy": stats[what]["busy"],
        }
    return {**row, "batch": batch, "what": said}


def _windows(decoder: Any, items: list[Any], batch: int, chosen: ga.Policy) -> list[tuple[Any, Any]]:
    """Batches with the windows that a policy would read."""
    found = []
    for k, (part, _) in enumerate(decoders.in_batches(items, batch)):
        sizes = np.array([h.size for h in decoder.inspect(part)], np.int64)
        ids = torch.arange(k * batch, k * batch + len(part))
        found.append((part, np.asarray(chosen.windows(ids, torch.from_numpy(sizes), epoch=0).windows)))
    return found


def _turns(works: Mapping[str, Callable[[], float]], task: Task) -> dict[str, list[float]]:
    """Rates by contender, who take turns; the first turn, which compiles and fills pools, does not count."""
    names, found = list(works), {name: list[float]() for name in works}
    for name in names:
        works[name]()
    done, least = 0, 2 if task.tiny else 3
    while done < least or (done < 20 and not task.tiny and not task.over()):
        for name in names[done % len(names) :] + names[: done % len(names)]:
            found[name].append(works[name]())
        done += 1
    return found


# ---- beside training


def step(task: Task, _: str) -> dict[str, Any]:
    """Milliseconds of a step of a ResNet-50 in bfloat16 on the loader's batches and on one that is there already, in
    turns."""
    import torchvision

    side, batch, steps = (32, 4, 1) if task.tiny else (224, 128, 12)
    device, name = task.device, fastest(task)
    torch.manual_seed(0)
    make = torchvision.models.resnet18 if task.tiny else torchvision.models.resnet50
    network = make(num_classes=1000).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def trained(images: Tensor, labels: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    made = loader(task, name, policy("moderate", side), batch)
    try:
        able = delivered(made, 0.05 if task.tiny else 1.0)
        batches = iter(made)
        first = next(batches)
        there, classes = first.images.clone(), first.labels.clone()

        def run(one: Callable[[], None]) -> float:
            # what is ahead is used up, or made, before the clock runs: the loader neither saves nor catches up in it
            for _ in range(1 if task.tiny else 2 * PREFETCH):
                one()
            wait(device)
            began = time.perf_counter()
            for _ in range(steps):
                one()
            wait(device)
            return (time.perf_counter() - began) / steps

        def loaded() -> None:
            batch = next(batches)
            trained(batch.images, batch.labels)

        works = {"cached batch": lambda: run(lambda: trained(there, classes)), "loader": lambda: run(loaded)}
        seconds = _turns(works, task)
        _close(batches)
    finally:
        made.close()
    ratio = timing.ratio(seconds["loader"], seconds["cached batch"])
    rate = batch / float(np.median(seconds["cached batch"]))
    row: dict[str, Any] = {
        "network": "resnet18" if task.tiny else "resnet50",
        "batch": batch,
        "decoder": name,
        **{f"{what}, ms": summary([1e3 * s for s in values]) for what, values in seconds.items()},
        "times the cached batch": summary(ratio),
        "images/s of a step": round(rate, 1),
        "images/s of the loader alone": round(able, 1),
        "asked": "at most 1.02 times the cached batch while decoding is not the bound",
    }
    if able < AHEAD * rate:
        return {
            **row,
            "why not judged": f"decoding is the bound: the loader makes less than {AHEAD} x what a step takes",
        }
    return {**row, "met": ratio.median <= 1.02}


# ---- memory


def outside(device: torch.device) -> int:
    """Bytes of a card that torch's allocator has not reserved; on a CPU, to try this, bytes of the process."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free - torch.cuda.memory_reserved(device)
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096


def memory(task: Task, name: str) -> dict[str, Any]:
    """Bytes outside torch's allocator over the batches of one iteration, and over iterations."""
    side, batch, steps, several = (32, 8, 6, 3) if task.tiny else (224, 256, 40, 40)
    made = loader(task, name, policy("weak", side), batch)

    def watched(batches: Iterator[Any], count: int) -> list[int]:
        found = []
        for _ in range(count):
            next(batches)
            wait(task.device)
            found.append(outside(task.device))
        return found

    before = outside(task.device)
    try:
        batches = iter(made)
        within = watched(batches, steps)
        _close(batches)
        across = []
        for k in range(several):
            batches = iter(made)
            across.append(watched(batches, 2)[-1])
            _close(batches)
            if k >= 4 and task.over():
                break
    finally:
        made.close()
    # after a quarter, pipelines and pools are there
    settled = max(within[: max(2, steps // 4)])
    grown = max(within[-1], max(across[len(across) // 2 :])) - settled
    return {
        "what": "used on the card less what torch has reserved" if task.device.type == "cuda" else "of the process",
        "before, MB": _mb(before),
        "batches, MB": [_mb(b) for b in within],
        "iterations, MB": [_mb(b) for b in across],
        "grown since the first quarter of the batches, MB": _mb(grown),
        "asked": f"flat: at most {_mb(SLACK)} MB more",
        "met": grown <= SLACK,
    }


def _mb(size: int) -> float:
    return round(size / 2**20, 1)


# ---- a training run


def training(task: Task, _: str) -> dict[str, Any]:
    """The loss of a small network on class folders of JPEG files, augmented weakly."""
    side, batch, most = (32, 16, 12) if task.tiny else (64, 64, 400)
    device, name = task.device, fastest(task)
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for given, wanted in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(given, wanted, 3, 2, 1), nn.BatchNorm2d(wanted), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, decoders.CLASSES)).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses: list[Tensor] = []
    with loader(task, name, policy("weak", side, torch.float32), batch) as made:
        batches, began = iter(made), time.perf_counter()
        while len(losses) < most and (len(losses) < 10 or not task.over()):
            one = next(batches)
            loss = nn.functional.cross_entropy(network(one.images), one.labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        wait(device)
        took = time.perf_counter() - began
        _close(batches)
    values, part = torch.stack(losses).tolist(), max(3, len(losses) // 10)
    first, last = float(np.mean(values[:part])), float(np.mean(values[-part:]))
    return {
        "decoder": name,
        "steps": len(values),
        "batch": batch,
        "images/s": round(len(values) * batch / took, 1),
        "loss, first tenth": round(first, 4),
        "loss, last tenth": round(last, 4),
        "losses": [round(v, 4) for v in values[:: max(1, len(values) // 20)]],
        "asked": "a falling loss",
        "met": last < 0.9 * first,
    }
