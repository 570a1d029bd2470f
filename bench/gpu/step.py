"""A training step of a ResNet-50 in bfloat16, with its batch augmented and with the same batch again and again: what
augmentation adds to training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.contenders.registry import CONTENDERS
from bench.gpu import clock
from bench.gpu.parts import Card, Ours, summary
from bench.gpu.workloads import Job
from bench.timing import Work


def step(job: Job, card: Card, tiny: bool) -> dict[str, Any]:
    """Milliseconds of a step and, in the same rounds, how many times that of a batch that is there already.

    tiny: a small network, to try the bench"""
    import torchvision

    ours, device = Ours(job, card), card.device
    torch.manual_seed(0)
    network = (torchvision.models.resnet18 if tiny else torchvision.models.resnet50)(num_classes=1000)
    network = network.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    classes = torch.arange(job.workload.batch, device=device) % 1000

    def trained(batch: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(network(batch), classes)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    there = ours.call()
    works: dict[str, Work] = {"cached batch": lambda: trained(there), "gpuaug": lambda: trained(ours.call())}
    for contender in CONTENDERS:
        if contender.name == "torchvision batch":
            works[contender.name] = _with(contender.build(job.workload, device, 1), ours, trained)
    seconds = clock.alternate(works, device, card.slow)
    base = seconds["cached batch"]
    return {
        "network": "resnet18" if tiny else "resnet50",
        **{
            name: {
                "ms": summary([1e3 * s for s in values]),
                "times the cached batch": summary([a / b for a, b in zip(values, base, strict=True)]),
            }
            for name, values in seconds.items()
        },
    }


def _with(run: Callable[[Any], Tensor], ours: Ours, trained: Callable[[Tensor], None]) -> Work:
    """A step on what a contender makes."""
    return lambda: trained(ours.job.finished(run, ours.sources[ours.next()]))
