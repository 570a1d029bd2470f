"""The parts of the bench on a card.  Each returns plain data; a number stands only where the work was checked and is
equal."""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import count
from typing import Any

import torch
from torch import Tensor

from bench import suite
from bench.contenders.registry import Absent, Contender, Unsupported
from bench.gpu import clock
from bench.gpu.clock import Pace
from bench.gpu.workloads import GATED, PLACES, Job
from bench.timing import Spread, Work

# kernels that fill tables and touch no pixel
TABLES = re.compile("draw|fill")


class Red(Exception):
    """The kernels' pixels are not the reference's: nothing is timed."""


@dataclass(frozen=True)
class Card:
    """Where and how long.  fast: contenders of about our own speed; slow: others."""

    device: torch.device
    fast: Pace
    slow: Pace
    hosts: int  # calls of which the host's time is taken
    bandwidth: float  # bytes a second of a large copy


def summary(values: Any) -> dict[str, Any]:
    """Median, quartiles and number."""
    own = values if isinstance(values, Spread) else Spread.of(values)
    return {k: v if isinstance(v, int) else float(f"{v:.4g}") for k, v in asdict(own).items()}


class Ours:
    """gpuaug on a job: a policy and calls of it that take the places in turn."""

    def __init__(self, job: Job, card: Card):
        self.job, self.card = job, card
        self.policy, self.sources = job.policy(card.device), job.sources(card.device)
        self.ids = torch.arange(job.workload.batch, device=card.device) + 2**33
        self._turn = count()

    def next(self) -> int:
        """The place whose turn it is."""
        return next(self._turn) % PLACES

    @cached_property
    def kept(self) -> list[Any]:
        """Images whose tables stay, for graphs."""
        return [self.job.images(s) for s in self.sources]

    def call(self) -> Any:
        """A whole call on images that came just now."""
        return self._made(self.job.images(self.sources[self.next()]))

    def step(self) -> Any:
        """A call on images that stay in place."""
        return self._made(self.kept[self.next()])

    def _made(self, images: Any, count: int | None = None, epoch: int = 0, backend: str = "triton") -> Any:
        """The images of a call.  count: of them, all where it is None"""
        labels = self.sources[0].labels[:count] if self.job.workload.mixes else None
        out = self.policy(images, labels, ids=self.ids[:count], epoch=epoch, backend=backend)
        return out if labels is None else out[0]

    def _wanted(self, few: Any) -> Tensor:
        """What the reference makes of the first images.  On the host: on a card its draws would be a kernel more to
        compile."""
        images = [i.cpu() for i in few] if isinstance(few, list) else few.cpu()
        labels = self.sources[0].labels[:GATED].cpu() if self.job.workload.mixes else None
        out = self.policy(images, labels, ids=self.ids[:GATED].cpu(), epoch=0, backend="reference")
        made: Tensor = out if labels is None else out[0]
        return made.to(self.card.device)

    def draw(self) -> Any:
        """The draws alone."""
        return self.policy.draw(self.ids, epoch=0, size=self.sizes, channels=self.job.workload.channels)

    @cached_property
    def sizes(self) -> Any:
        """(H, W), or those of every image on the device."""
        return self.kept[0].size if self.job.ragged else self.job.workload.size

    def gate(self) -> dict[str, float]:
        """Compare with the reference on the host, and with a smaller batch; raises Red."""
        few = self.job.few(self.sources[0])
        got, want = self._made(few, GATED), self._wanted(few)
        whole = self._made(self.job.images(self.sources[0]))
        # whom a sample is mixed with depends on who is there
        if not self.job.workload.mixes and not torch.equal(whole[:GATED], got):
            raise Red("the batch around a sample changes its pixels")
        a, b = got.double(), want.double()
        wrong = float(((a - b).abs() > self.job.tolerance(b)).double().mean())
        other = float((self._made(few, GATED, epoch=1) != got).double().mean())
        if got.isnan().any() or wrong > self.job.jumps or other < 0.01:
            raise Red(
                f"{wrong:.4%} of the values differ from the reference by more than {1e-4:g} and a last place, "
                f"{self.job.jumps:.1%} may; "
                f"another epoch changes {other:.2%}"
            )
        worst = float((a - b).abs().max())
        return {"samples": len(few), "worst": worst, "differ": wrong, "another epoch changes": other}


def bound(ours: Ours) -> dict[str, Any]:
    """The bytes that must move, and the seconds of a copy of as many at the bandwidth of a large one."""
    moved = ours.job.unavoidable()
    return {
        "unavoidable bytes": moved,
        "bytes an image": round(moved / ours.job.workload.batch),
        "copy seconds": moved / ours.card.bandwidth,
    }


def copies(ours: Ours) -> Work:
    """A copy of as many bytes as a batch must move, in several places in turn."""
    # whole words of 16 bytes: a card copies an odd number of bytes at half the speed
    half = max(16, ours.job.unavoidable() // 2 // 16 * 16)
    pairs = [
        [torch.full((half,), 7, dtype=torch.uint8, device=ours.card.device) for _ in range(2)] for _ in range(PLACES)
    ]
    turns = count()

    def copy() -> Tensor:
        source, target = pairs[next(turns) % PLACES]
        return target.copy_(source)

    return copy


def speeds(ours: Ours) -> dict[str, Any]:
    """Whole call, call in a graph, pixel kernels alone and a copy of the same bytes, in turns; shares of the bound."""
    device, least = ours.card.device, bound(ours)["copy seconds"]
    found, works, failed = _recorded(ours), {"whole call": ours.call, "copy of these bytes": copies(ours)}, {}
    pixels, draws = [[one for one in found if bool(TABLES.search(one.name)) == drawn] for drawn in (False, True)]
    if not pixels:
        raise Red(f"no kernel of a call touches pixels: {[one.name for one in found]}")
    in_graphs: dict[str, Work] = {
        "in a graph": ours.step,
        "pixel kernels": lambda: [one.again() for one in pixels],
        "copy in a graph": copies(ours),
    }
    # the traced draws of a call are kernels of their own; a policy that cannot be traced has none
    if draws:
        in_graphs["draws in a graph"] = lambda: [one.again() for one in draws]
    else:
        failed["draws in a graph"] = "no kernel of a call draws: the policy is drawn step by step"
    several = {}
    for name, work in in_graphs.items():
        # the launches of all places were recorded: once through them is as many calls
        times = 1 if name in ("pixel kernels", "draws in a graph") else PLACES
        try:
            works[name], several[name] = clock.captured(work, device, times), PLACES
        except Exception as error:
            failed[name] = said(error)
    seconds = clock.alternate(works, device, ours.card.fast)
    each = {name: [s / several.get(name, 1) for s in values] for name, values in seconds.items()}
    rows = {
        name: {"ms": summary([1e3 * s for s in v]), "share of the copy bound": summary([least / s for s in v])}
        for name, v in each.items()
    }
    return {
        "kernels": [one.name for one in found[: len(found) // PLACES]],
        **rows,
        **{k: {"failed": why} for k, why in failed.items()},
        **_shares(each),
    }


def _recorded(ours: Ours) -> list[clock.Launched]:
    """The launches of one call in each place."""
    ours.call()
    return [one for _ in range(PLACES) for one in clock.launches(ours.step)]


def _shares(each: dict[str, list[float]]) -> dict[str, Any]:
    """What of a call in a graph is not pixels, and what of it is drawing."""
    if "in a graph" not in each:
        return {}
    out = {}
    for name, part in (("share that is not pixels", "pixel kernels"), ("share of the draws", "draws in a graph")):
        if part in each:
            shares = [b / a for a, b in zip(each["in a graph"], each[part], strict=True)]
            out[name] = summary([1 - s for s in shares] if part == "pixel kernels" else shares)
    return out


def hosts(ours: Ours) -> dict[str, Any]:
    """What the host spends on a call, on the draws, and on a call in a graph: milliseconds."""
    device, times = ours.card.device, ours.card.hosts
    graph, failed = _graph(ours, 1)
    works = {"call": ours.call, "draws": ours.draw, **graph}
    return {name: summary([1e3 * s for s in clock.host(w, device, times)]) for name, w in works.items()} | failed


def _graph(ours: Ours, times: int) -> tuple[dict[str, Work], dict[str, Any]]:
    """A graph of calls by its name, or why there is none."""
    try:
        return {"in a graph": clock.captured(ours.step, ours.card.device, times)}, {}
    except Exception as error:
        return {}, {"in a graph": {"failed": said(error)}}


def memory(ours: Ours) -> dict[str, Any]:
    """Bytes held at the peak of a call, and those of its output."""
    out = ours.call()
    own = out.numel() * out.element_size()
    del out
    return {"peak bytes": clock.peak(ours.call, ours.card.device), "output bytes": own}


def rivals(ours: Ours) -> dict[str, Any]:
    """Every other contender that does equal work, in turns with ours: seconds and how many times ours."""
    rows: dict[str, Any] = {}
    works: dict[str, Work] = {"gpuaug": ours.call}
    with warnings.catch_warnings():
        # other libraries' warnings are about their own insides
        warnings.simplefilter("ignore")
        for contender in ours.job.contenders():
            rows[contender.name], work = _rival(ours, contender)
            if work is not None:
                works[contender.name] = work
        seconds = clock.alternate(works, ours.card.device, ours.card.slow) if len(works) > 1 else {}
    for name, values in seconds.items():
        rows.setdefault(name, {})["ms"] = summary([1e3 * s for s in values])
        rows[name]["times ours"] = summary([a / b for a, b in zip(values, seconds["gpuaug"], strict=True)])
    return rows


def _rival(ours: Ours, contender: Contender) -> tuple[dict[str, Any], Work | None]:
    """A row, and what is timed unless its gate is red."""
    device, job = ours.card.device, ours.job
    row = {"unit": contender.unit, "draws": contender.draws}
    try:
        row["version"] = contender.version()
        why, less = suite.verdict(contender, job.workload, device.type, 1), dict(job.lighter).get(contender.name)
        if why and not less:
            return {**row, "status": "not comparable", "why": why}, None
        run, turns = contender.build(job.workload, device, 1), count()
        call = _call(job, run, ours.sources, turns)
        call()
        return {**row, **({"status": "does less", "what": f"{less}; {why}"} if why else {"status": "ok"})}, call
    except (Absent, Unsupported) as reason:
        return {**row, "status": type(reason).__name__.lower(), "why": str(reason)}, None
    except Exception as error:
        return {**row, "status": "failed", "why": said(error)}, None


def _call(job: Job, run: Any, sources: list[Any], turns: Iterator[int]) -> Work:
    return lambda: job.finished(run, sources[next(turns) % PLACES])


def said(error: BaseException) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"[:300]


def cost(ours: Ours) -> dict[str, Any]:
    """Of one point of a curve: whole call, call in a graph, the host, for each image, and the share of the bound."""
    device, n = ours.card.device, ours.job.workload.batch
    graph, failed = _graph(ours, PLACES)
    seconds = clock.alternate({"whole call": ours.call, **graph}, device, ours.card.fast)
    if graph:
        seconds["in a graph"] = [s / PLACES for s in seconds["in a graph"]]
    least = bound(ours)
    out: dict[str, Any] = {
        "batch": n,
        **least,
        "host ms": summary([1e3 * s for s in clock.host(ours.call, device, ours.card.hosts)]),
        **failed,
    }
    for name, values in seconds.items():
        out[name] = {
            "us an image": summary([1e6 * s / n for s in values]),
            "share of the copy bound": summary([least["copy seconds"] / s for s in values]),
        }
    return out


PARTS: dict[str, Callable[[Ours], Any]] = {
    "bound": bound,
    "speeds": speeds,
    "host ms": hosts,
    "memory": memory,
    "rivals": rivals,
}
