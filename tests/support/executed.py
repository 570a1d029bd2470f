"""What the tests of the kernels share: the same policy or passes by the kernels and by the reference, and what each
launch was."""

import torch
from gpuaug_kernels import launch

import gpuaug as ga
from gpuaug import fuse, ir, rng
from gpuaug.exec import reference
from gpuaug.exec.triton import executor

IDS = torch.tensor([3, 2**33 + 141, 59, 26, 2**45, 5, 8])
FINISH = ir.Finish(torch.float32, torch.contiguous_format)


def both(policy: ga.Policy, images, labels=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernels' images and the reference's."""
    ids = IDS[: len(images)]
    out = [policy(images, labels, ids=ids, epoch=2, backend=b) for b in ("triton", "reference")]
    return tuple(o if labels is None else o[0] for o in out)


def falls(policy: ga.Policy, size: tuple[int, int] | None = None, channels: int = 3) -> str:
    """Why something of a policy runs by the reference."""
    dtype = torch.uint8 if size is None else torch.float32
    lines = [
        v
        for v in policy.describe(size, backend="triton", channels=channels, dtype=dtype).splitlines()
        if "runs by the reference" in v
    ]
    return lines[0].split(": ", 1)[1] if lines else ""


def plan_of(passes: ir.Sequence, x: torch.Tensor) -> fuse.Plan:
    """Passes made by hand, for images of one size."""
    n, c, height, width = x.shape
    frame = ir.Frame(torch.tensor([[height, width]]).expand(n, 2), (height, width), c, x.dtype)
    ir.verify(passes, frame)
    return fuse.Plan(passes, rng.Keys(1, 0, IDS[:n], torch.zeros_like(IDS[:n])), frame)


def planned(passes: ir.Sequence, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernels' images and the reference's for passes made by hand."""
    plan = plan_of(passes, x)
    return executor.run(plan, x), reference.run(plan, x)


def reasons(plan: fuse.Plan) -> list[str]:
    """Why each step of a plan falls back; empty for those that do not."""
    return [step.fallback for step in executor.steps(plan)]


def watched(monkeypatch) -> list[str]:
    """The launches made from now on, in order: "statistic" or "images"."""
    made: list[str] = []
    whole = launch._launch
    monkeypatch.setattr(
        launch, "_launch", lambda *a: made.append("statistic" if a[7:] and a[7] else "images") or whole(*a)
    )
    return made
