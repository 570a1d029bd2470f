"""A contender's output is checked before it is timed: a red check is printed in place of a number.

Exact workloads are compared with gpuaug's reference value by value; random ones by the distribution of five statistics
of an image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .scenarios import STD, Workload
from .sources import Source

Run = Callable[[Source], Tensor]

# of values in [0, 1], on average: an 8-bit path rounds after every step
VALUES = 2.0 / 255
# between antialiasing filters: OpenCV's box is 2 levels from the triangle, Kornia's bell 3.5, no antialias at all 6
FILTERS = 4.5 / 255
LEVEL = 1.0 / 255  # a statistic may be off by a level: 8-bit paths are
SAMPLES = 128  # images drawn from each side
CALLS = 8  # at least: a draw that a whole batch shares shows between calls
KS = 1.95  # Kolmogorov-Smirnov's coefficient at 0.1 %
FILTER = 1.12  # a box in place of a triangle leaves up to a tenth more sharpness: that much is forgiven
# variance between batches over that expected of independent images; seven or more degrees of freedom against many:
# below 1e-5
SHARED = 6.0
STATISTICS = ("mean", "contrast", "sharpness", "left-right order", "up-down order")


def statistics(images: Tensor) -> np.ndarray:
    """Mean, deviation, mean step between neighbours, and how much brighter the right and the lower half are: [N, 5]."""
    x = images.float().cpu()
    steps = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3)) if x.shape[-1] > 1 else x.new_zeros(len(x))
    h, w = x.shape[-2] // 2, x.shape[-1] // 2
    right = x[..., -w:].mean((1, 2, 3)) - x[..., :w].mean((1, 2, 3)) if w else x.new_zeros(len(x))
    lower = x[..., -h:, :].mean((1, 2, 3)) - x[..., :h, :].mean((1, 2, 3)) if h else x.new_zeros(len(x))
    return torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3)), steps, right, lower], 1).double().numpy()


def separation(a: np.ndarray, b: np.ndarray, room: float = 0.0) -> float:
    """Largest distance between two empirical distributions (Kolmogorov and Smirnov), over that which chance gives at
    one in a thousand.

    Values may be off by `room` without counting.
    """
    a, b = np.sort(a), np.sort(b)
    places = np.concatenate([a, b, a + room, b + room])

    def below(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
        return np.searchsorted(values, limits, "right") / len(values)

    gap = max((below(a, places - room) - below(b, places)).max(), (below(b, places - room) - below(a, places)).max())
    return float(gap / (KS * np.sqrt((len(a) + len(b)) / (len(a) * len(b)))))


@dataclass(frozen=True, eq=False)
class Reference:
    """What gpuaug's reference makes of a workload's images."""

    workload: Workload
    output: Tensor  # [N, C, H, W] float32, of one call
    drawn: np.ndarray  # [calls, n, 5] statistics; empty for an exact workload
    usual: np.ndarray  # [n, 5] the mean statistics of every image

    @property
    def scale(self) -> float:
        """What a level of [0, 1] is worth in the output."""
        return 1 / min(STD) if self.workload.normalises else 1.0

    def judge(self, run: Run, source: Source, shared: bool) -> str:
        """Why a contender's work is not the same; empty if it is.  shared: it says that it draws once for the whole
        batch."""
        out = run(source)
        if not isinstance(out, Tensor) or out.shape != self.output.shape or out.dtype != torch.float32:
            got = f"{tuple(out.shape)} {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
            return f"it returns {got} where {tuple(self.output.shape)} float32 is asked for"
        if not out.isfinite().all():
            return "its output has NaN or infinities"
        if self.workload.exact:
            return self._same_values(out)
        if shared:
            rows = [source.take(i) for i in range(len(self.usual))]
            calls = [_calls(run, row, 1, max(1, SAMPLES // len(rows))) for row in rows]
            return self._same_distribution(np.concatenate(calls, 1), independent=True)
        calls = _calls(run, source, len(self.usual), len(self.drawn))
        return self._same_distribution(calls, independent=False)

    def _same_values(self, out: Tensor) -> str:
        resizes = any(hasattr(t, "antialias") for t in self.workload.transforms)
        return _differ(out, self.output, FILTERS if resizes else VALUES, self.scale)

    def _same_distribution(self, calls: np.ndarray, independent: bool) -> str:
        forgiven = np.ones(5)
        forgiven[2] = np.clip(self.drawn[..., 2].mean() / max(calls[..., 2].mean(), 1e-9), 1 / FILTER, FILTER)
        residual, wanted = calls * forgiven - self.usual, self.drawn - self.usual
        for k, name in enumerate(STATISTICS):
            apart = separation(residual[..., k].ravel(), wanted[..., k].ravel(), LEVEL * self.scale)
            if apart > 1:
                a, b = float(calls[..., k].mean()), float(self.drawn[..., k].mean())
                return (
                    f"the {name} of its images is distributed differently ({a:.3f} on average, reference "
                    f"{b:.3f}; distance {apart:.1f} x the limit)"
                )
        if independent or calls.shape[1] < 4:
            return ""
        within = residual.var(1).mean(0)
        between = residual.mean(1).var(0, ddof=1) * calls.shape[1]
        worst = float((between / np.maximum(within, 1e-12)).max())
        return (
            f"the images of a batch share a draw (variance between batches {worst:.0f} x that of independent images)"
            if worst > SHARED
            else ""
        )


def _differ(out: Tensor, wanted: Tensor, limit: float, scale: float = 1.0) -> str:
    """Why values are not the same; empty if they are.  scale: of a level after Normalize."""
    if out.shape != wanted.shape:
        return f"it returns {tuple(out.shape)} where {tuple(wanted.shape)} is asked for"
    error = (out.cpu() - wanted).abs()
    if error.mean() > limit * scale:
        return f"its values differ from the reference by {error.mean() / scale * 255:.1f} of 255 levels on average"
    return ""


def _calls(run: Run, source: Source, images: int, calls: int) -> np.ndarray:
    """Statistics of the first images in every call: [calls, images, 5].  A side is brighter as in the source, or the
    other way round: a flip shows."""
    sides = np.sign(statistics(source.planar[:images])[:, 3:])
    found = np.stack([statistics(run(source)[:images]) for _ in range(calls)])
    found[..., 3:] *= sides
    return found


def reference(workload: Workload, run: Run, source: Source) -> Reference:
    """The reference's side of the check.  Large batches are judged by their first images."""
    output = run(source).cpu()
    if workload.exact:
        return Reference(workload, output, np.zeros((0, 0, 5)), np.zeros((0, 5)))
    images = min(len(source), 64)
    calls = max(CALLS, SAMPLES // images)
    drawn = _calls(run, source, images, calls)
    return Reference(workload, output, drawn, drawn.mean(0))
