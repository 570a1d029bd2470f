"""Who a sample is when nobody says so: ids counted on from call to call, under a key that no other process has.

The main process of a rank draws by the policy's seed, and its counter, `next_id`, goes through `state_dict`.  A process
that shares the policy with others (a loader's worker, a child) has a key of its own, made of what tells it apart; draws
are keyed by that and the seed, so that none of them draw alike."""

import multiprocessing
import os
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gpuaug import arguments, rng

_MASK = 0xFFFFFFFFFFFFFFFF
# what the key of a worker and that of a child begin with
_WORKER, _CHILD = 1, 2


def mix(*numbers: int) -> int:
    """64 bits that each of the numbers changes as a whole: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA
    2014) over one after the other.

    Sums would not do: the seeds of neighbouring workers differ by one, as those of users do.
    """
    out = 0
    for number in numbers:
        out = ((out ^ (number & _MASK)) + 0x9E3779B97F4A7C15) & _MASK
        out = ((out ^ (out >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        out = ((out ^ (out >> 27)) * 0x94D049BB133111EB) & _MASK
        out ^= out >> 31
    return out


@dataclass
class _Here:
    """What this process has from the one that forked it, and the lock of its counters."""

    lock: Any
    forks: int = 0  # of this process
    path: tuple[int, ...] = ()  # the number of the fork, in each process on the way here
    worker: Any = None  # what the parent was to a loader
    ranked: bool = False  # whether the parent was in a process group


_here = _Here(threading.Lock())


def _after_fork_in_parent() -> None:
    _here.forks += 1


def _after_fork_in_child() -> None:
    distributed = torch.distributed
    ranked = distributed.is_available() and distributed.is_initialized()
    path, worker = (*_here.path, _here.forks), torch.utils.data.get_worker_info()
    # a new lock: another thread may have held the old one, and is not here to release it
    _here.lock, _here.forks, _here.path, _here.worker, _here.ranked = threading.Lock(), 0, path, worker, ranked


# where there is no fork there is nothing to do after it
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _place() -> tuple[int, ...]:
    """This process among the children of its parent, and so on upwards; empty in a process that no other one shares its
    policies with."""
    # where multiprocessing keeps the count of children, the same from run to run, other than the number of a process
    identity: tuple[int, ...] = getattr(multiprocessing.current_process(), "_identity", ())
    return (len(identity), *identity, *_here.path) if identity or _here.path else ()


def rank(recorded: int | None) -> int:
    """The rank: of torch.distributed; else, in a child, what its parent wrote down; else of the environment, as
    torchrun sets it."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    if recorded is not None and _place():
        return recorded
    text = os.environ.get("RANK", "")
    return int(text) if text.isdecimal() else 0


class Origin(NamedTuple):
    """Where calls without ids come from: the key of this process, None where the seed is enough, and whether it is a
    loader's worker."""

    key: int | None
    worker: bool


def origin(recorded: int | None) -> Origin:
    """Of calls in this process.  recorded: the rank that the parent wrote down"""
    worker = torch.utils.data.get_worker_info()
    # a process that a worker forked is no worker, although it looks like one
    if worker is not None and worker is not _here.worker:
        return Origin(mix(_WORKER, worker.seed, rank(recorded)), True)
    place = _place()
    distributed = torch.distributed
    ranked = distributed.is_available() and distributed.is_initialized() and not _here.ranked
    # a child that joined a process group itself is a rank, which its number tells apart
    if not place or ranked:
        return Origin(None, False)
    # not from torch's seed: an unseeded process has one of its own, and a spawned one does not take its parent's
    return Origin(mix(_CHILD, 0 if worker is None else worker.seed, rank(recorded), *place), False)


class Numbered(nn.Module):
    """A module that numbers samples.  Its state: `next_id`, the epoch, and the version of the draws."""

    seed: int

    def __init__(self) -> None:
        super().__init__()
        self.next_id = _counter(0)
        self._epoch = 0
        # the rank of the process that this came from, where it came from another
        self._rank: int | None = None
        # a worker's key, and the samples that it has numbered under it
        self._counted = (0, 0)

    @property
    def epoch(self) -> int:
        """What calls without `epoch` belong to."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the calls that name none: in [0, 2^18), 0 at first.

        It is kept in `state_dict`.  Copies have an epoch of their own, those in the workers of a loader too; a captured
        CUDA graph keeps the one that it was captured with, unless it was given a tensor."""
        self._epoch = arguments.integer("epoch", epoch, 0, rng.MAX_EPOCH - 1)

    def number(self, n: int, device: torch.device, next_id: Tensor) -> tuple[int | None, Tensor]:
        """The key of this process, None in the main one of a rank, and the ids of n samples that nobody numbered.

        next_id: advanced in place, but in a worker.
        """
        key, worker = origin(self._rank)
        ids = torch.arange(n, device=device)
        if key is not None and worker:
            with _here.lock:
                first = self._counted[1] if self._counted[0] == key else 0
                self._counted = (key, first + n)
            return key, ids + first
        with _here.lock:
            # captured graphs and the compiled operator hold the counter itself: it is replaced only where it cannot be
            # advanced
            if next_id is self.next_id and (
                next_id.is_meta or (next_id.is_inference() and not torch.is_inference_mode_enabled())
            ):
                next_id = self.next_id = _moved(next_id, torch.device("cpu") if next_id.is_meta else next_id.device)
            # a counter on the host must not make the device wait; one on the device can be captured in a graph
            before = next_id.clone() if next_id.device == device else int(next_id)
            next_id += n
        return key, ids + before + (rank(None) * 2**32 if key is None else 0)

    # ---- copies

    def __getstate__(self) -> dict[str, Any]:
        # as a number: a tensor that goes to another process is shared with it, and two would count on it at once
        number = 0 if self.next_id.is_meta else int(self.next_id)
        return {
            **self.__dict__,
            "next_id": number,
            "_from": (os.getpid(), str(self.next_id.device)),
            "_rank": rank(self._rank),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        process, name = state["_from"]
        counter, device = _counter(state["next_id"]), torch.device(name)
        # a child has no business on its parent's device, and a file may be read where there is no such device
        child = process != os.getpid() and multiprocessing.parent_process() is not None
        if not child and (device.type != "cuda" or torch.cuda.is_available()):
            counter = _moved(counter, device)
        super().__setstate__({k: v for k, v in state.items() if k != "_from"} | {"next_id": counter})  # type: ignore[no-untyped-call]

    # ---- next_id: a buffer in all but that DistributedDataParallel, which reads registered ones, must not broadcast it

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Any:
        """The counter of samples, `next_id`."""
        yield (f"{prefix}.next_id" if prefix else "next_id"), self.next_id

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # only where to: the values are none after `to_empty`, rounded after `type`, and after `share_memory` other
        # processes would count on them
        self.next_id = _moved(self.next_id, fn(torch.empty((), dtype=torch.int64, device=self.next_id.device)).device)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        with torch.inference_mode(False):
            destination[f"{prefix}next_id"] = self.next_id.detach().clone()
            for name, value in (("epoch", self._epoch), ("draws", rng.VERSION)):
                destination[f"{prefix}{name}"] = torch.tensor(value, device=self.next_id.device)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: Any,
        unexpected_keys: Any,
        error_msgs: Any,
    ) -> None:
        # a checkpoint from before the policy was there knows of no samples; one without values (on the meta device)
        # says nothing
        fresh = {"next_id": 0, "epoch": 0, "draws": rng.VERSION}
        given = {name: state_dict.get(f"{prefix}{name}", value) for name, value in fresh.items()}
        known = {name: value for name, value in given.items() if not (isinstance(value, Tensor) and value.is_meta)}
        try:
            if int(known.get("draws", rng.VERSION)) != rng.VERSION:
                error_msgs.append(
                    f"{prefix}draws must be version {rng.VERSION}, got {int(known['draws'])}: {rng.OTHER_DRAWS}"
                )
            self.set_epoch(int(known.get("epoch", self._epoch)))
            if "next_id" in known:
                number = arguments.integer("next_id", int(known["next_id"]), 0)
                if self.next_id.is_meta or self.next_id.is_inference():
                    self.next_id = (
                        _counter(number) if self.next_id.is_meta else _moved(_counter(number), self.next_id.device)
                    )
                else:
                    self.next_id.fill_(number)
        except (TypeError, ValueError, RuntimeError) as error:
            error_msgs.append(f"While loading {prefix or 'a policy'}: {error}")
        unexpected_keys += [
            k for k in state_dict if strict and k.startswith(prefix) and k.removeprefix(prefix) not in fresh
        ]


def _counter(value: int) -> Tensor:
    """A counter on the host, whatever the default device, and an ordinary tensor in inference mode too."""
    with torch.inference_mode(False):
        return torch.tensor(int(value), dtype=torch.int64, device="cpu")


def _moved(counter: Tensor, device: torch.device) -> Tensor:
    """A counter on a device: itself where it is there already."""
    with torch.inference_mode(False):
        if counter.is_meta and device.type != "meta":
            return torch.zeros((), dtype=torch.int64, device=device)
        return (counter.clone() if counter.is_inference() else counter).to(device)
