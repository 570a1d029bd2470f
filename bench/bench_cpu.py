"""The CPU executor against torchvision v2 and albumentations, in one run, turn by turn: python -m bench.bench_cpu
[--out FILE].

A call is timed whole: drawing, lowering and running; the others one image at a time, stacked to a batch at the end.
albumentations takes part where it is installed.
"""

import argparse
import gc
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

import gpuaug as ga

# albumentations asks a server for news when it is imported
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")
Work = Callable[[], Tensor]


# ---- images


def photographs(n: int) -> Tensor:
    """[n, 3, 375, 500] uint8 in channels_last memory, as a decoder yields them."""
    import skimage

    folder, out = Path(skimage.__file__).parent / "data", np.empty((n, 375, 500, 3), np.uint8)
    for i in range(n):
        with Image.open(folder / PHOTOGRAPHS[i % len(PHOTOGRAPHS)]) as picture:
            out[i] = np.roll(np.asarray(picture.convert("RGB").resize((500, 375))), 31 * i, axis=1)
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def squares(n: int, memory_format: torch.memory_format) -> Tensor:
    """[n, 3, 224, 224] uint8: middles of photographs."""
    return photographs(n)[:, :, 75:299, 138:362].contiguous(memory_format=memory_format)


def digits(n: int) -> Tensor:
    """[n, 1, 28, 28] float32: small crops of a photograph."""
    whole = photographs(1)[0].float().mean(0) / 255
    return torch.stack([whole[i % 300 : i % 300 + 28, i % 400 : i % 400 + 28] for i in range(n)])[:, None].contiguous()


# ---- contenders: images -> a function that augments them to a batch, of float32 but where they only move

TO_FLOAT = [ga.ToDtype(torch.float32, scale=True), ga.Normalize(MEAN, STD)]
WEAK = [ga.RandomResizedCrop(224), ga.RandomHorizontalFlip(), *TO_FLOAT]
MODERATE = [*WEAK[:2], ga.ColorJitter(0.2, 0.2, 0.2, 0.05), *TO_FLOAT, ga.RandomErasing(0.25)]
RECIPE = [
    ga.RandomAffine(90, (0.3, 0.3), (1, 2)),
    ga.RandomHorizontalFlip(),
    ga.RandomVerticalFlip(),
    ga.SaltAndPepper(0.05),
]
STRONG = [*WEAK[:2], ga.RandAugment(2, 9), *TO_FLOAT, ga.RandomErasing(0.25)]
MIX = ga.CutMix(1.0, num_classes=1000)
# moves of bytes to bytes, and what torchvision calls them
MOVES: dict[str, tuple[Any, Any]] = {
    "flip": (ga.RandomHorizontalFlip(1.0), v2.RandomHorizontalFlip(1.0)),
    "vertical flip": (ga.RandomVerticalFlip(1.0), v2.RandomVerticalFlip(1.0)),
    "pad": (ga.Pad(16), v2.Pad(16)),
    "crop": (ga.RandomCrop(192), v2.RandomCrop(192)),
    "centre crop": (ga.CenterCrop(192), v2.CenterCrop(192)),
    "centre crop of photographs": (ga.CenterCrop(224), v2.CenterCrop(224)),
    "padded crop": (ga.RandomCrop(224, 16), v2.RandomCrop(224, 16)),
}
POLICIES: dict[str, list[Any]] = {
    "weak": WEAK,
    "moderate": MODERATE,
    "strong": STRONG,
    "very strong": [*STRONG[:-1], ga.RandomErasing(0.5), MIX],
    "blur": [ga.GaussianBlur(23, (0.1, 2.0)), TO_FLOAT[0]],
    "seed recipe": RECIPE,
    **{name: [ours] for name, (ours, _) in MOVES.items()},
}


def salt_and_pepper(image: Tensor) -> Tensor:
    """What torchvision lacks, in its manner: 5 % of the pixels 0 or 1."""
    u = torch.rand(image.shape[1:])
    return torch.where(u < 0.05, (u < 0.025).to(image.dtype), image)


def torchvision_steps(name: str) -> Callable[[Tensor], Tensor]:
    """torchvision v2 in its fastest order: crop and flip on uint8, and jitter on uint8 too."""
    crop, flip = v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()
    to_float = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    if name == "weak":
        return v2.Compose([crop, flip, *to_float])
    if name == "moderate":
        return v2.Compose([crop, flip, v2.ColorJitter(0.2, 0.2, 0.2, 0.05), *to_float, v2.RandomErasing(0.25)])
    if name in ("strong", "very strong"):
        erase = v2.RandomErasing(0.25 if name == "strong" else 0.5)
        return v2.Compose([crop, flip, v2.RandAugment(2, 9), *to_float, erase])
    if name == "blur":
        return v2.Compose([v2.GaussianBlur(23, (0.1, 2.0)), to_float[0]])
    if name in MOVES:
        return MOVES[name][1]  # type: ignore[no-any-return]
    moves = v2.Compose([v2.RandomAffine(90, (0.3, 0.3), (1, 2)), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])
    return lambda image: salt_and_pepper(moves(image))


def albumentations_steps(name: str, threads: int) -> Callable[[np.ndarray], Tensor]:
    """albumentations on cv2: it reduces without antialias, so that it does less."""
    import albumentations as A
    import cv2
    from albumentations.pytorch import ToTensorV2

    cv2.setNumThreads(threads)
    steps: list[Any] = [A.RandomResizedCrop((224, 224)), A.HorizontalFlip()]
    if name == "moderate":
        steps += [
            A.ColorJitter((0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.05, 0.05), p=1.0),
            A.Normalize(MEAN, STD),
            A.Erasing(p=0.25),
            ToTensorV2(),
        ]
    else:
        steps += [A.Normalize(MEAN, STD), ToTensorV2()]
    compose = A.Compose(steps)
    return lambda image: compose(image=image)["image"]


def contenders(name: str, images: Tensor, threads: int) -> dict[str, Work]:
    """Who augments these images, by name."""
    policy, each = ga.Policy(POLICIES[name]), torchvision_steps(name)
    labels = torch.arange(len(images)) if name == "very strong" else None
    # torchvision draws its mix once for the batch, where each sample has its own here
    mix = v2.CutMix(num_classes=1000)

    def ours() -> Tensor:
        out: Any = policy(images, labels, backend="cpu")
        return out if labels is None else out[0]  # type: ignore[no-any-return]

    def theirs() -> Tensor:
        out = torch.stack([each(i) for i in images])
        return out if labels is None else mix(out, labels)[0]  # type: ignore[no-any-return]

    found: dict[str, Work] = {"gpuaug": ours, "torchvision": theirs}
    if name in ("weak", "moderate") and find_spec("albumentations"):
        other, arrays = albumentations_steps(name, threads), [i.permute(1, 2, 0).numpy() for i in images]
        found["albumentations"] = lambda: torch.stack([other(i) for i in arrays])
    return found


# ---- correct before timed


def check(name: str, images: Tensor, works: dict[str, Work]) -> None:
    """Raise unless gpuaug equals its reference, and everybody's images have the same shape, type, mean and spread."""
    policy, ids = ga.Policy(POLICIES[name]), torch.arange(len(images))
    labels = ids if name == "very strong" else None
    made: list[Any] = [policy(images, labels, ids=ids, backend=b) for b in ("cpu", "reference")]
    got, want = made if labels is None else [m[0] for m in made]
    wrong = ((got.float() - want.float()).abs() > 5e-4).double().mean().item()
    if wrong > 1e-3:
        raise AssertionError(f"{name}: {wrong:.2%} of gpuaug's values differ from its reference")
    for who, work in works.items():
        out = work()
        # everybody draws crops of their own, so that only the gross is compared: range, normalisation, shape
        (mean, spread), (ours, its) = ((t.float().mean(), t.float().std()) for t in (out, want))
        unit = 255 if want.dtype == torch.uint8 else 1
        close = abs(mean - ours) < 0.4 * unit and abs(spread - its) < 0.4 * unit
        if out.shape != want.shape or out.dtype != want.dtype or not close:
            raise AssertionError(
                f"{name}: {who} gives {tuple(out.shape)} {out.dtype} of mean {mean:.3f}, expected {ours:.3f}"
            )


# ---- the clock


def waited() -> float:
    """Seconds that threads of this process stood ready without a core, so far; 0 where no kernel says so."""
    return sum(int(f.read_text().split()[1]) for f in Path("/proc/self/task").glob("*/schedstat")) * 1e-9


def alternate(
    works: dict[str, Work], rounds: int, before: dict[str, Callable[[], Any]] | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Seconds of every contender in every round, where who goes first changes; and which rounds no other process
    disturbed: those in which nobody waited for a core for more than a fiftieth of its time."""
    names, taken, quiet = list(works), {name: [] for name in works}, np.ones(rounds, bool)
    for name in names:
        if before:
            before[name]()
        works[name]()
    gc.collect()
    gc.disable()
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if before:
                before[name]()
            delay, start = waited(), time.perf_counter()
            works[name]()
            taken[name].append(time.perf_counter() - start)
            quiet[turn] &= waited() - delay <= 0.02 * taken[name][-1]
    gc.enable()
    return {name: np.array(t) for name, t in taken.items()}, quiet


def summary(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return {"median": float(middle), "low": float(low), "high": float(high), "n": len(values)}


def _workloads() -> Iterator[tuple[str, str, Tensor]]:
    """(policy, how its images lie in memory, images), which both sides take."""
    for name in ("weak", "moderate", "strong", "very strong"):
        yield name, "pixels", photographs(32)
    yield "strong", "planes", photographs(32).contiguous()
    for name in ("blur", *MOVES):
        whole = "photographs" in name
        yield name, "planes", photographs(32).contiguous() if whole else squares(32, torch.contiguous_format)
    for name in MOVES:
        yield name, "pixels", photographs(32) if "photographs" in name else squares(32, torch.channels_last)
    for n in (32, 256):
        yield "seed recipe", "planes", digits(n)


def against(rounds: int) -> list[dict[str, Any]]:
    """Every policy against every contender, one thread, then two."""
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, memory, images in _workloads():
            works = contenders(name, images, threads)
            check(name, images, works)
            seconds, _ = alternate(works, rounds)
            for who, taken in seconds.items():
                row = {
                    "policy": name,
                    "batch": len(images),
                    "memory": memory,
                    "threads": threads,
                    "who": who,
                    "ms_per_image": summary(taken / len(images) * 1e3),
                }
                row["gpuaug_is_faster_by"] = summary(taken / seconds["gpuaug"])
                rows.append(row)
                ratio = row["gpuaug_is_faster_by"]
                print(
                    f"{name:13} {memory:8} x {len(images):3} {threads} thread{'s' * (threads > 1):1} {who:15} "
                    f"{row['ms_per_image']['median']:8.4f} ms an image"
                    f"   {ratio['median']:6.2f} x ({ratio['low']:.2f} to {ratio['high']:.2f}, n = {ratio['n']})",
                    flush=True,
                )
    return rows


def scaling(rounds: int) -> list[dict[str, Any]]:
    """Two threads against one, turn by turn: a thread more is worth what nobody else takes of its core, so that rounds
    that others disturbed are told apart."""
    rows = []
    for name, images in (
        ("weak", photographs(32)),
        ("moderate", photographs(32)),
        ("moderate", photographs(128)),
        ("seed recipe", digits(256)),
    ):
        work = contenders(name, images, 1)["gpuaug"]
        seconds, quiet = alternate(
            {"one": work, "two": work},
            2 * rounds,
            {"one": lambda: torch.set_num_threads(1), "two": lambda: torch.set_num_threads(2)},
        )
        ratio = seconds["one"] / seconds["two"]
        row = {"policy": name, "batch": len(images), "two_threads_are_faster_by": summary(ratio)}
        row["undisturbed"] = summary(ratio[quiet]) if quiet.any() else None
        rows.append(row)
        said = [
            f"{of}{s['median']:.2f} x ({s['low']:.2f} to {s['high']:.2f}, n = {s['n']})" if s else f"{of}no round"
            for of, s in (("", row["two_threads_are_faster_by"]), ("undisturbed ", row["undisturbed"]))
        ]
        print(f"{name:12} x {len(images):3} two threads against one: {'; '.join(said)}", flush=True)
    return rows


def growth(rounds: int) -> list[dict[str, Any]]:
    """Cost per image against the size of the batch, one thread."""
    torch.set_num_threads(1)
    rows = []
    for name in ("weak", "moderate"):
        works = {str(n): contenders(name, photographs(n), 1)["gpuaug"] for n in (16, 32, 64, 128, 256)}
        for n, taken in alternate(works, rounds)[0].items():
            rows.append({"policy": name, "batch": int(n), "ms_per_image": summary(taken / int(n) * 1e3)})
            print(f"{name:12} x {n:>3} {rows[-1]['ms_per_image']['median']:.4f} ms an image", flush=True)
    return rows


def conditions() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    ).stdout.strip()
    packages = ("torch", "torchvision", "numba", "llvmlite", "numpy", "albumentations", "opencv-python-headless")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "commit": commit,
        "versions": {d.name: d.version for d in distributions() if d.name in packages},
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cpu.json")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    about = conditions()
    result = {
        "conditions": about,
        "against": against(arguments.rounds),
        "scaling": scaling(arguments.rounds),
        "growth": growth(arguments.rounds),
        "load_after": os.getloadavg()[0],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
