"""The main job: stream augmented batches of a folder, time them against torchvision in the same run, and draw a contact
sheet."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from gpuaug import transforms as T
from gpuaug.apps import photographs, sheet
from gpuaug.apps.photographs import Folder
from gpuaug.exec import check, choose, load
from gpuaug.policy import Policy

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DRAWS, ROWS = 6, 8  # of the contact sheet
LISTED = 20  # files that were skipped, named each
TIMED = 50  # batches timed and given to torchvision too; on a large folder more would only take longer

Pixels = np.ndarray[Any, Any]  # [H, W, 3] uint8


@dataclass(frozen=True)
class Demo:
    """What to run.  output: a picture file, its format by its ending."""

    epochs: int = 3
    batch_size: int = 16
    seed: int = 0
    backend: str = "auto"
    output: Path = Path("demo.png")

    def policy(self) -> Policy:
        """The augmentation that is shown and timed."""
        steps = [
            T.RandomResizedCrop(224),
            T.RandomHorizontalFlip(),
            T.ColorJitter(0.2, 0.2, 0.2, 0.05),
            T.ToDtype(torch.float32, scale=True),
            T.Normalize(MEAN, STD),
            T.RandomErasing(p=0.25),
        ]
        return Policy(steps, seed=self.seed)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device("cuda" if torch.cuda.is_available() and self.backend != "cpu" else "cpu")

    def check(self) -> None:
        """Raise ValueError or RuntimeError for what cannot run, before anything is read or written."""
        if find_spec("torchvision") is None:
            raise RuntimeError("the demo compares with torchvision, which is not installed; pip install 'gpuaug[demo]'")
        if self.output.suffix.lower() not in Image.registered_extensions():
            raise ValueError(f"output must end as a picture does, such as .png or .jpg, got {self.output}")
        if not self.output.parent.is_dir():
            raise ValueError(
                f"{self.output.parent} is not a folder, so {self.output.name} cannot be written there; make it first"
            )
        self.policy()
        check(self.backend)
        load(choose(self.backend, self.device))
        if self.backend == "triton" and self.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError('backend "triton" needs a CUDA device, and torch sees none; use --backend auto')


def torchvision_policies() -> dict[str, Callable[[Tensor], Tensor]]:
    """The same policy in torchvision v2 for one image [C, H, W]: as users write it, and in float32 throughout, as
    gpuaug computes."""
    from torchvision.transforms import v2

    to_float = v2.ToDtype(torch.float32, scale=True)
    moves = [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), v2.ColorJitter(0.2, 0.2, 0.2, 0.05)]
    ends = [v2.Normalize(list(MEAN), list(STD)), v2.RandomErasing(p=0.25)]
    return {
        "torchvision v2": v2.Compose([*moves, to_float, *ends]),
        "torchvision v2 in float32": v2.Compose([to_float, *moves, *ends]),
    }


class Stopwatch:
    """Images per second of one way to augment, a batch at a time."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def time(self, images: int, work: Callable[[], Any], device: torch.device, threads: tuple[int, ...]) -> None:
        """Run the work to its end on the device, once with each number of torch threads, and note the best rate."""
        before, seconds = torch.get_num_threads(), []
        for count in threads:
            torch.set_num_threads(count)
            _wait(device)
            start = time.perf_counter()
            work()
            _wait(device)
            seconds.append(time.perf_counter() - start)
        torch.set_num_threads(before)
        self.rates.append(images / min(seconds))

    @property
    def rate(self) -> float:
        """The median batch: other work on the machine slows some."""
        return median(self.rates)


def run(demo: Demo, folder: Folder, console: Console) -> None:
    """Print device, plan, progress and speed, and write the contact sheet."""
    demo.check()
    device = demo.device
    policy = demo.policy()
    plan = policy.describe(backend=demo.backend, device=device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    _say(console, f"device:  {device} ({name})")
    _say(console, f"backend: {choose(demo.backend, device)}")
    count = len(folder.classes)
    _say(console, f"data:    {folder.root}: {len(folder)} images in {count} class{'es' if count > 1 else ''}")
    _say(console, f"plan:    {plan}\n")
    skipped: dict[int, str] = {}
    watches = _stream(demo, policy, folder, skipped, device, console)
    _report(watches, device, console)
    _list(skipped, console)
    _sheet(demo, policy, folder, skipped, device)
    _say(console, f"wrote {demo.output}: originals and the draws of {DRAWS} epochs")


def _batches(demo: Demo, folder: Folder, skipped: dict[int, str]) -> Iterator[tuple[int, int, list[int], list[Pixels]]]:
    """(epoch, files taken, ids and pixels of those that can be decoded), in the folder's order.  skipped: id -> why,
    filled here."""

    def read(i: int) -> Pixels | None:
        try:
            return None if i in skipped else photographs.decode(folder.paths[i])
        except ValueError as error:
            skipped[i] = str(error)
            return None

    with ThreadPoolExecutor() as pool:
        for epoch in range(demo.epochs):
            for first in range(0, len(folder), demo.batch_size):
                ids = range(first, min(first + demo.batch_size, len(folder)))
                images = {i: pixels for i, pixels in zip(ids, pool.map(read, ids), strict=True) if pixels is not None}
                yield epoch, len(ids), list(images), list(images.values())
            if len(skipped) == len(folder):
                raise ValueError(
                    f"none of the {len(folder)} images of {folder.root} can be decoded, such as {skipped[0]}"
                )


def _list(skipped: dict[int, str], console: Console) -> None:
    """Say which files were left out, and why."""
    if skipped:
        _say(console, f"skipped {len(skipped)} file{'s' if len(skipped) > 1 else ''}:")
    for i in sorted(skipped)[:LISTED]:
        _say(console, f"  {skipped[i]}")
    if len(skipped) > LISTED:
        _say(console, f"  and {len(skipped) - LISTED} more")


def _augment(
    policy: Policy, images: list[Pixels], ids: list[int], epoch: int, device: torch.device, backend: str
) -> Tensor:
    """From decoded images in host memory to a normalised batch on the device."""
    tensors = [torch.from_numpy(i).to(device) for i in images]
    out: Tensor = policy(tensors, ids=torch.tensor(ids, device=device), epoch=epoch, backend=backend)
    return out


def _rival(transform: Callable[[Tensor], Tensor], images: list[Tensor], device: torch.device) -> Tensor:
    """torchvision's batch: one image [C, H, W] after the other."""
    return torch.stack([transform(i) for i in images]).to(device)


def _stream(
    demo: Demo, policy: Policy, folder: Folder, skipped: dict[int, str], device: torch.device, console: Console
) -> dict[str, Stopwatch]:
    """Augment every batch of every epoch, the first full ones by torchvision too.  skipped: filled with what cannot be
    decoded."""
    rivals = torchvision_policies()
    watches = {name: Stopwatch() for name in ("gpuaug", *rivals)}
    full = min(demo.batch_size, len(folder))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("compiling", total=demo.epochs * len(folder))
        number = 0
        for epoch, taken, ids, images in _batches(demo, folder, skipped):
            ours, rates = partial(_augment, policy, images, ids, epoch, device, demo.backend), watches["gpuaug"].rates
            if images and (len(rates) == TIMED or (taken < full and rates)):
                ours()
            elif images:
                # laid out as a decoder gives them to torchvision, outside its time
                planar = [torch.from_numpy(i).permute(2, 0, 1).contiguous() for i in images]
                work = {
                    "gpuaug": ours,
                    **{name: partial(_rival, rival, planar, device) for name, rival in rivals.items()},
                }
                _time(work, watches, number, len(images), device)
                number += 1
            progress.update(task, advance=taken, description=f"epoch {epoch + 1} of {demo.epochs}")
    return watches


def _time(
    work: Mapping[str, Callable[[], Tensor]],
    watches: dict[str, Stopwatch],
    number: int,
    images: int,
    device: torch.device,
) -> None:
    """Time one batch of each; who goes first changes from batch to batch.  The first batch runs once untimed, for what
    is compiled then."""
    names = list(work)
    for name in names if number == 0 else ():
        work[name]()
    turn, many = number % len(names), torch.get_num_threads()
    for name in names[turn:] + names[:turn]:
        # threads that wait for each other crawl on a busy machine: torchvision gets the better of one and all
        watches[name].time(images, work[name], device, (many,) if name == "gpuaug" else (1, many))


def _report(watches: dict[str, Stopwatch], device: torch.device, console: Console) -> None:
    ours = watches["gpuaug"]
    table = Table(title=f"Same policy, same images, on {device}", title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("images/s", "slowest-fastest", "gpuaug is"):
        table.add_column(heading, justify="right")
    for name, watch in watches.items():
        ratio = "" if watch is ours else f"{ours.rate / watch.rate:.2f} x as fast"
        table.add_row(name, f"{watch.rate:.0f}", f"{min(watch.rates):.0f}-{max(watch.rates):.0f}", ratio)
    console.print(table)
    count = len(ours.rates)
    _say(
        console,
        f"Medians of {count} batch{'es' if count > 1 else ''}, from decoded images in memory to a normalised float32 "
        f"batch, in one process with\n{torch.get_num_threads()} threads. torchvision takes one image at a time, with "
        "one thread or all, whichever is faster in a batch;\n"
        "loader workers would multiply it by up to the number of cores.\n",
    )


def _sheet(demo: Demo, policy: Policy, folder: Folder, skipped: Collection[int], device: torch.device) -> None:
    ids = folder.varied(ROWS, skipped)
    originals = [photographs.decode(folder.paths[i]) for i in ids]
    draws = [
        sheet.pictures(_augment(policy, originals, ids, epoch, device, demo.backend), MEAN, STD)
        for epoch in range(DRAWS)
    ]
    rows = []
    for r, (i, original) in enumerate(zip(ids, originals, strict=True)):
        height, width = original.shape[:2]
        rows.append(
            sheet.Row(
                f"{folder.paths[i].relative_to(folder.root)}, {width} x {height}", original, [d[r] for d in draws]
            )
        )
    steps = " - ".join(type(t).__name__ for t in policy.transforms)
    subtitle = f"{steps} (shown without Normalize), seed {demo.seed}, keyed by image and epoch"
    page = sheet.sheet(
        "One policy, drawn anew for every image in every epoch", subtitle, [f"epoch {e}" for e in range(DRAWS)], rows
    )
    page.save(demo.output)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _say(console: Console, text: str) -> None:
    """Print text literally: Rich would take the brackets of a plan for markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
