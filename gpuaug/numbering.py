"""Ids for calls that bring none: counted on from call to call, so that no two samples of a run draw alike.

Draws are a function of (seed, epoch, id).  Where a user numbers the samples, that is all; where not, a policy counts.
One count is not enough, because processes copy the policy with its count:

    main process of a rank     ids from rank * 2^32 + next_id, under the policy's seed; `next_id` is in `state_dict`
    worker of a DataLoader     ids from 0, under the seed mixed with a key: a hash of torch's seed for the worker
    any other child process    ids from its copy of next_id, under the seed mixed with a key: a hash of its place
                               among the children of its parent

So two workers draw differently although both begin at id 0, and a seed given to torch in the main process, from
which it seeds its workers, repeats a run."""

import multiprocessing
import os
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gpuaug import arguments, rng

_MASK = 0xFFFFFFFFFFFFFFFF
# the first number in the key of a worker and in that of a child, so that the two never coincide
_WORKER, _CHILD = 1, 2
# numbers of samples for which zeros are kept
_MOST = 16


def mix(*numbers: int) -> int:
    """A 64-bit hash of numbers: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) after each.

    Adding them would not do: the seeds of neighbouring workers differ by one, and so do those that users choose, so
    that worker 1 under seed 0 would draw what worker 0 draws under seed 1."""
    out = 0
    for number in numbers:
        out = ((out ^ (number & _MASK)) + 0x9E3779B97F4A7C15) & _MASK
        out = ((out ^ (out >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        out = ((out ^ (out >> 27)) * 0x94D049BB133111EB) & _MASK
        out ^= out >> 31
    return out


@dataclass
class _Here:
    """What this process knows of the processes that forked it, and the lock of its counters."""

    lock: Any
    forks: int = 0  # how many children this process has forked
    path: tuple[int, ...] = ()  # which fork of its process led here, from the first process down
    worker: Any = None  # torch's worker_info of the parent, which a forked child inherits
    ranked: bool = False  # whether the parent was in a process group of torch.distributed


_here = _Here(threading.Lock())


def _after_fork_in_parent() -> None:
    _here.forks += 1


def _after_fork_in_child() -> None:
    distributed = torch.distributed
    ranked = distributed.is_available() and distributed.is_initialized()
    path, worker = (*_here.path, _here.forks), torch.utils.data.get_worker_info()
    # a new lock: a thread of the parent may have held the old one, and is not here to release it
    _here.lock, _here.forks, _here.path, _here.worker, _here.ranked = threading.Lock(), 0, path, worker, ranked


# not on Windows, which has no fork
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _place() -> tuple[int, ...]:
    """Which child of its parent this process is, and so on upwards; empty in a main process.

    The same from run to run, unlike the id of a process."""
    # multiprocessing numbers the children of a process here, spawned ones too
    identity: tuple[int, ...] = getattr(multiprocessing.current_process(), "_identity", ())
    return (len(identity), *identity, *_here.path) if identity or _here.path else ()


def rank(recorded: int | None) -> int:
    """The rank: of torch.distributed; else, in a child, what its parent recorded; else RANK of the environment, as
    torchrun sets it; else 0."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    if recorded is not None and _place():
        return recorded
    text = os.environ.get("RANK", "")
    return int(text) if text.isdecimal() else 0


class Origin(NamedTuple):
    """Which process numbers its samples."""

    key: int | None  # mixed with the seed; None in a main process, where the seed is enough
    worker: bool  # of a DataLoader


def origin(recorded: int | None) -> Origin:
    """That of this process.  recorded: the rank that the parent recorded"""
    worker = torch.utils.data.get_worker_info()
    # a process that a worker forked inherits its worker_info, and is no worker
    if worker is not None and worker is not _here.worker:
        return Origin(mix(_WORKER, worker.seed, rank(recorded)), True)
    place = _place()
    if not place:
        return Origin(None, False)
    distributed = torch.distributed
    ranked = distributed.is_available() and distributed.is_initialized() and not _here.ranked
    # a child that joined a process group itself is the main process of a rank
    if ranked:
        return Origin(None, False)
    # without torch's seed: an unseeded process has a random one, and a spawned one does not inherit its parent's
    return Origin(mix(_CHILD, 0 if worker is None else worker.seed, rank(recorded), *place), False)


class Numbered(nn.Module):
    """A module that numbers samples: the part of a policy that has state.  `state_dict` holds `next_id`, the epoch and
    the version of the draws."""

    seed: int

    def __init__(self) -> None:
        super().__init__()
        self.next_id = _counter(0)
        self._epoch = 0
        # the rank of the process that pickled this copy; None where it was made here
        self._rank: int | None = None
        # a worker's key, and how many samples it has numbered under it
        self._counted = (0, 0)
        self._nothing: dict[tuple[int, torch.device, int], Tensor] = {}

    @property
    def epoch(self) -> int:
        """The epoch of calls that name none."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the calls that name none: in [0, 2^18), 0 at first.

        It is kept in `state_dict`.  Copies have an epoch of their own, those in the workers of a loader too; a captured
        CUDA graph keeps the one that it was captured with, unless it was given a tensor."""
        self._epoch = arguments.integer("epoch", epoch, 0, rng.MAX_EPOCH - 1)

    def number(self, n: int, device: torch.device, next_id: Tensor) -> tuple[int | None, Tensor]:
        """The key of this process, None in the main one of a rank, and the ids of n samples that nobody numbered.

        next_id: advanced in place, except in a worker, which counts from 0 under each key."""
        key, worker = origin(self._rank)
        if key is not None and worker:
            with _here.lock:
                first = self._counted[1] if self._counted[0] == key else 0
                self._counted = (key, first + n)
            return key, _numbers(first, n, device)
        with _here.lock:
            # advanced in place, because CUDA graphs and the compiled operator hold this tensor; replaced only where it
            # cannot be written: on the meta device, or made under inference mode and now outside it
            if next_id is self.next_id and (
                next_id.is_meta or (next_id.is_inference() and not torch.is_inference_mode_enabled())
            ):
                next_id = self.next_id = _moved(next_id, torch.device("cpu") if next_id.is_meta else next_id.device)
            # a counter on a device stays a tensor, which a CUDA graph captures, unless images are on the host; one on
            # the host is an array of NumPy here, since operations of torch cost more than all the rest
            if next_id.device.type == "cpu":
                counter = next_id.numpy()
                before: Any = int(counter)
                counter[()] = before + n
            else:
                before = next_id.clone() if next_id.device == device else int(next_id)
                next_id += n
        first = rank(None) * 2**32 if key is None else 0
        if isinstance(before, int):
            return key, _numbers(before + first, n, device)
        return key, torch.arange(n, device=device) + before + first

    def nothing(self, n: int, device: torch.device) -> Tensor:
        """As `zeros`, but nobody may write to it: on a GPU made once for each stream that asks, so that a call is no
        kernel more."""
        cuda = device.type == "cuda"
        # a captured graph reads its own for as long as it lives
        if device.type == "cpu" or (cuda and torch.cuda.is_current_stream_capturing()):
            return zeros(n, device)
        stream = torch.cuda.current_stream(device).cuda_stream if cuda else 0
        found = self._nothing.get((n, device, stream))
        if found is None:
            for oldest in list(self._nothing)[: len(self._nothing) + 1 - _MOST]:
                self._nothing.pop(oldest, None)
            found = self._nothing[n, device, stream] = zeros(n, device)
        return found

    # ---- copies

    def __getstate__(self) -> dict[str, Any]:
        # as a number: a tensor that is sent to another process is shared memory, and both would advance it
        number = 0 if self.next_id.is_meta else int(self.next_id)
        return {
            **self.__dict__,
            "next_id": number,
            "_nothing": {},
            "_from": (os.getpid(), str(self.next_id.device)),
            "_rank": rank(self._rank),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        process, name = state["_from"]
        counter, device = _counter(state["next_id"]), torch.device(name)
        # a child keeps off its parent's GPU, and a file may be read where there is no such device
        child = process != os.getpid() and multiprocessing.parent_process() is not None
        if not child and (device.type != "cuda" or torch.cuda.is_available()):
            counter = _moved(counter, device)
        super().__setstate__({k: v for k, v in state.items() if k != "_from"} | {"next_id": counter})  # type: ignore[no-untyped-call]

    # ---- next_id: as if it were a registered buffer, which DistributedDataParallel would broadcast from rank 0 to all

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Any:
        """The counter of samples, `next_id`."""
        yield (f"{prefix}.next_id" if prefix else "next_id"), self.next_id

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # only the device that `fn` moves to is taken from it: `to_empty` would lose the value, `half` would round it,
        # and `share_memory` would let other processes advance it
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
        # a checkpoint from before the policy was there has no entries, and the count begins anew; entries on the meta
        # device have no values, and nothing is changed
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


def _numbers(first: int, n: int, device: torch.device) -> Tensor:
    """first to first + n - 1: [n] int64."""
    if device.type == "cpu":
        return torch.from_numpy(np.arange(first, first + n, dtype=np.int64))
    return torch.arange(first, first + n, device=device)


def zeros(n: int, device: torch.device) -> Tensor:
    """The occurrence of samples that are told apart by their ids: [n] int64."""
    if device.type == "cpu":
        return torch.from_numpy(np.zeros(n, np.int64))
    return torch.zeros(n, dtype=torch.int64, device=device)


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
