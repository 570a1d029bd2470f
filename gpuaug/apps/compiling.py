"""`gpuaug compile`: kernels of a policy compiled for a card that this machine may lack."""

from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gpuaug.images import Ragged
from gpuaug.policy import Policy


class Order(NamedTuple):
    """What to compile."""

    policy: Path
    target: str
    size: tuple[int, int] | None  # of the images; None where they differ
    channels: int
    channels_last: bool


def run(order: Order, console: Console) -> None:
    """Compile, and say what."""
    policy, images = Policy.load(order.policy), _images(order)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    made = 0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"kernels for {order.target}", total=None)

        def told(done: int, count: int) -> None:
            nonlocal made
            made = count
            progress.update(task, completed=done, total=count)

        policy.warmup(images, target=order.target, progress=told)
    console.print(f"{made} kernel{'' if made == 1 else 's'} compiled for {order.target}, now in Triton's cache")


def _images(order: Order) -> torch.Tensor | Ragged:
    """Images without memory, aligned as torch aligns those that it makes."""
    if order.size is None:
        # large enough for any crop
        one = torch.empty(1024, 1024, order.channels, dtype=torch.uint8, device="meta")
        return Ragged.of((one, one))
    layout = torch.channels_last if order.channels_last else torch.contiguous_format
    shape = (16, order.channels, *order.size)
    return torch.empty(shape, dtype=torch.uint8, device="meta", memory_format=layout)
