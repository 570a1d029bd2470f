"""One workload through all contenders: built, checked, then timed in turns.  What pytest, `gpuaug bench` and the guard
all run."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import torch

import gpuaug as ga
from bench.contenders.registry import CONTENDERS, Absent, Contender, Run, Unsupported, base

from . import checks, sources, timing
from .scenarios import Workload
from .timing import Budget

BOUND = "copy"  # the name under which the bound takes its turns
CHECKED = 32  # images of a batch that are checked


@dataclass(frozen=True)
class Options:
    """How a run is made.  threads: for every contender alike."""

    device: str = "cpu"
    threads: int = 1
    budget: Budget = field(default_factory=Budget)
    only: tuple[str, ...] = ()  # names of contenders; empty for all

    @property
    def where(self) -> torch.device:
        """The device that images are on."""
        return torch.device(self.device)


@dataclass(frozen=True)
class Row:
    """One contender on one workload: seconds per batch of every round, or why there are none."""

    workload: str
    group: str
    contender: str
    status: str  # "ok", "absent", "unsupported" or "not comparable"
    why: str = ""
    images: int = 0
    unit: str = ""
    path: str = ""
    draws: str = ""
    note: str = ""
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A workload's rows, and the seconds of the bound in the same rounds."""

    workload: str
    group: str
    description: str
    rows: tuple[Row, ...]
    bound: tuple[float, ...] = ()
    moved: int = 0  # bytes that the bound copies
    base: str = ""

    def row(self, contender: str) -> Row | None:
        """A contender's row, if it was asked."""
        return next((r for r in self.rows if r.contender == contender), None)

    def ratio(self, contender: str, over: str = "") -> timing.Spread | None:
        """How many times as long as `over` (the base if empty) a contender takes; None where either has no times."""
        theirs, ours = self.row(contender), self.row(over or self.base)
        return (
            timing.ratio(list(theirs.seconds), list(ours.seconds))
            if theirs and ours and theirs.seconds and ours.seconds
            else None
        )

    def rate(self, contender: str) -> timing.Spread | None:
        """Images per second."""
        row = self.row(contender)
        return timing.Spread.of([row.images / s for s in row.seconds]) if row and row.seconds else None

    def share(self, contender: str) -> timing.Spread | None:
        """Of the speed of the bound; None where there is no bound or no time."""
        row = self.row(contender)
        return (
            timing.Spread.of([b / s for b, s in zip(self.bound, row.seconds, strict=True)])
            if row and row.seconds and self.bound
            else None
        )


@dataclass
class Prepared:
    """What building and checking left to time."""

    works: dict[str, timing.Work] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


def use_threads(count: int) -> None:
    """Let torch and Numba use that many threads; the other libraries are told when they are built."""
    import numba

    torch.set_num_threads(count)
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))


def measure(workload: Workload, options: Options, say: Callable[[str], None] = lambda _: None) -> Measured:
    """Check and time every contender of a workload."""
    device = options.where
    use_threads(options.threads)
    source = sources.make(workload, device)
    # other libraries' warnings are about their own insides
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.inference_mode():
            try:
                truth, _ = _truth(workload, options.device)
            except Exception as error:
                return _unjudged(workload, options, _said(error))
            found = Prepared()
            for contender in asked(workload, options):
                say(f"{workload.name}: checking {contender.name}")
                _prepare(contender, workload, options, source, found)
            moved = unavoidable(workload, truth.output)
            works = {**found.works, BOUND: timing.copy_of(moved, device)}
            say(f"{workload.name}: timing {len(found.works)}")
            seconds = timing.alternate(works, device, options.budget) if found.works else {BOUND: []}
    rows = tuple(replace(r, seconds=tuple(seconds.get(r.contender, ()))) for r in found.rows)
    return Measured(workload.name, workload.group, describe(workload), rows, tuple(seconds[BOUND]), moved, base(device))


def _unjudged(workload: Workload, options: Options, why: str) -> Measured:
    """A workload that the reference itself cannot do: nobody is timed."""
    rows = [
        Row(workload.name, workload.group, c.name, "not comparable", f"the reference fails: {why}", workload.batch)
        for c in asked(workload, options)
    ]
    return Measured(workload.name, workload.group, describe(workload), tuple(rows), base=base(options.where))


def _said(error: Exception) -> str:
    """An error in one line: other libraries' messages end with what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"[:200]


def asked(workload: Workload, options: Options) -> Iterable[Contender]:
    """The contenders of a workload's group."""
    return (c for c in CONTENDERS if workload.group in c.groups and (not options.only or c.name in options.only))


@cache
def _truth(workload: Workload, device: str, look: int = 0) -> tuple[checks.Reference, sources.Source]:
    """The reference's side of the check of a workload, and the images that both sides get.  look: another one has other
    draws."""
    source = sources.make(replace(workload, batch=min(workload.batch, CHECKED)), torch.device(device))
    return checks.reference(workload, _reference(workload, torch.device(device), look), source), source


@cache
def verdict(contender: Contender, workload: Workload, device: str, threads: int) -> str:
    """Why a contender's work is not the same, in the whole or in a part; empty if it is.  Raises Absent or
    Unsupported."""
    run = contender.build(workload, torch.device(device), threads)
    for part in workload.parts:
        why = verdict(contender, part, device, threads)
        if why:
            return f"{part.name}: {why}"
    shared = contender.draws != "each image its own"
    truth, source = _truth(workload, device)
    why = truth.judge(run, source, shared)
    if why and not workload.exact:
        # among hundreds of comparisons chance alone turns one red: new draws of both sides decide
        why = _truth(workload, device, 1)[0].judge(run, source, shared)
    return why


def _reference(workload: Workload, device: torch.device, look: int) -> Run:
    policy = ga.Policy(workload.transforms, seed=2 + 1000 * look).to(device)

    def run(source: sources.Source) -> torch.Tensor:
        out = policy(source.channels_last, source.labels if workload.mixes else None, backend="reference")
        return out[0] if workload.mixes else out

    return run


def _prepare(
    contender: Contender, workload: Workload, options: Options, source: sources.Source, found: Prepared
) -> None:
    """Build and check one contender: a function to time and a row, or a row that says why not."""
    note = (
        "its mix draws once for the batch"
        if workload.mixes and contender.package in ("torchvision", "timm")
        else contender.note
    )
    regime = {
        "unit": contender.unit,
        "path": "float32" if workload.floats else contender.path,
        "draws": contender.draws,
        "note": note,
    }
    row = Row(workload.name, workload.group, contender.name, "ok", images=workload.batch, **regime)
    try:
        why = verdict(contender, workload, options.device, options.threads)
        if why:
            row = replace(row, status="not comparable", why=why)
        else:
            found.works[contender.name] = partial(contender.build(workload, options.where, options.threads), source)
    except Absent as reason:
        row = replace(row, status="absent", why=str(reason))
    except Unsupported as reason:
        row = replace(row, status="unsupported", why=str(reason))
    except Exception as error:
        # a library's own failure is a result too: it has no number, and the reason is printed
        row = replace(row, status="not comparable", why=f"it fails: {_said(error)}")
    found.rows.append(row)


def unavoidable(workload: Workload, output: torch.Tensor) -> int:
    """Bytes that a batch must move: the part of each input that the first crop looks at, read once, and the output,
    written once."""
    first, (height, width) = workload.transforms[0], workload.size
    share = 1.0
    if isinstance(first, ga.RandomResizedCrop):
        drawn = ga.Policy(workload.transforms[:1], seed=3).draw(
            torch.arange(256), size=workload.size, channels=workload.channels
        )[0]
        share = float((drawn["height"] * drawn["width"]).double().mean()) / (height * width)
    elif isinstance(first, ga.RandomCrop | ga.CenterCrop) and not getattr(first, "padding", None):
        share = float(np.prod(output.shape[-2:])) / (height * width)
    read = height * width * workload.channels * (4 if workload.floats else 1) * share
    return round(workload.batch * (read + output[0].numel() * 4))


def describe(workload: Workload) -> str:
    """The work in words."""
    steps = " > ".join(_short(t) for t in workload.transforms)
    kind = "float32" if workload.floats else "uint8"
    return f"{workload.batch} x {workload.channels} x {workload.size[0]} x {workload.size[1]} {kind}: {steps}"


def _short(t: object) -> str:
    return repr(t).replace("torch.", "") if len(repr(t)) < 60 else f"{type(t).__name__}(...)"
