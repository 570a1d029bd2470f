"""A whole call as its launches: found once for a kind of call, and then made again with other addresses.

A call of a policy allocates, takes views, and launches; what it does beside is Python that comes to the same grids,
constants and strides every time.  `Binding` watches one call: what it allocates, and with which part of which memory
it launches.  `BoundCall` makes the same launches again on memory of its own call: what a call writes is allocated by
that call, on its stream.  A call that does anything else to values, such as an operation of torch, is not bound."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import add, itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import driver

from gpuaug_kernels.bind import Bound, Grid, past_triton, watching

# arguments that are another number in every call; no kernel is compiled for one of them
PER_CALL = ("epoch", "low", "high")
# bytes: memory that is smaller is a part of one piece for all of a call
_SMALL = 1 << 20
# where such a part begins, in bytes: as aligned as memory of its own, so that no kernel is compiled for it
_ALIGNED = 256
# bytes: no kernel is compiled for a wider alignment
_WIDEST = 16
# in place of memory: of none, or of several tensors
_SEVERAL = -(2**62)
# what allocates, and whether it writes zeros
_ALLOCATES = {
    "empty": False,
    "empty_strided": False,
    "empty_like": False,
    "new_empty": False,
    "new_empty_strided": False,
    "zeros": True,
}
Supply = Callable[[torch.device], Tensor]


class Part(NamedTuple):
    """A tensor as a part of some memory; a number where it has no dtype."""

    memory: int  # as `BoundCall` numbers it
    offset: int  # bytes from where that begins; of a number what is added to it
    dtype: torch.dtype | None = None
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    def of(self, memory: Any) -> Any:
        """The tensor, or the number, again."""
        if self.dtype is None:
            return memory + self.offset
        values = memory if memory.dtype == self.dtype else memory.view(self.dtype)
        return values.as_strided(self.shape, self.stride, values.storage_offset() + self.offset // self.dtype.itemsize)


class Piece(NamedTuple):
    """Memory that a call allocates for itself."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    zeros: bool = False

    def make(self, device: torch.device) -> Tensor:
        """Such memory, anew."""
        made = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device)
        return made.zero_() if self.zeros else made


class Launch(NamedTuple):
    """One launch of a bound call."""

    bound: Bound
    grid: Grid
    compiled: Any  # None where kernels are interpreted
    arguments: tuple[Part, ...]
    pieces: tuple[Piece, ...]  # what is allocated before it, in order
    over: tuple[int, ...]  # memory that no later launch asks for


class BoundCall:
    """A call whose launches are known.

    Memory is numbered: 0 stands for none, from which numbers are offsets; then the tensors and the numbers of the call,
    what outlives calls, what is shared by all small parts, and the pieces in the order in which they are allocated."""

    __slots__ = ("_interpreted", "_kernels", "_launches", "_outputs", "_shared", "_supplies")

    def __init__(
        self, supplies: Sequence[Supply], shared: int, launches: Sequence[Launch], outputs: Sequence[Part | int | None]
    ):
        """shared: bytes.  outputs: memory all of which is one, or the part that is; None for none"""
        self._supplies, self._shared, self._outputs = tuple(supplies), shared, tuple(outputs)
        self._kernels = tuple({id(one.bound.kernel): one.bound.kernel for one in launches}.values())
        self._interpreted = any(one.bound.plain for one in launches)
        self._launches = tuple(map(_interpreted if self._interpreted else _compiled, launches))

    @property
    def may_run(self) -> bool:
        """Whether nobody hooks into Triton's own way of launching these kernels."""
        return self._interpreted or past_triton(self._kernels)

    def __call__(
        self, device: torch.device, given: Sequence[Tensor], numbers: Sequence[int]
    ) -> list[Tensor | None] | None:
        """The outputs, by launches on the current stream of a device; None where the allocator gave memory that is not
        aligned.  given, numbers: as `Binding` had them"""
        if self._interpreted:
            return self._run(device, given, numbers, None)
        here = driver.active.get_current_device()
        if device.index is None or device.index == here:
            return self._run(device, given, numbers, driver.active.get_current_stream(here))
        with torch.cuda.device(device):
            return self._run(device, given, numbers, driver.active.get_current_stream(device.index))

    def _run(
        self, device: torch.device, given: Sequence[Tensor], numbers: Sequence[int], stream: int | None
    ) -> list[Tensor | None] | None:
        held: list[Any] = [0, *given, *numbers]
        bases = [0, *[t.data_ptr() for t in given], *numbers]
        for supply in self._supplies:
            memory = supply(device)
            held.append(memory)
            bases.append(memory.data_ptr())
        shared = torch.empty(self._shared, dtype=torch.uint8, device=device)
        address = shared.data_ptr()
        if address % _WIDEST:
            return None
        held.append(shared)
        bases.append(address)
        for pieces, launch, over in self._launches:
            for piece in pieces:
                made = piece.make(device)
                address = made.data_ptr()
                if address % _WIDEST:
                    return None
                held.append(made)
                bases.append(address)
            launch(held, bases, stream)
            for k in over:
                held[k] = None
        return [None if o is None else held[o] if type(o) is int else o.of(held[o.memory]) for o in self._outputs]  # type: ignore[union-attr]


_Made = tuple[tuple[Piece, ...], Callable[[list[Any], list[int], Any], Any], tuple[int, ...]]


def _compiled(one: Launch) -> _Made:
    """A launch with addresses, by the way that Triton's tutorials take, the same from 3.6 on."""
    run, tail = one.compiled[one.grid], one.bound.tail
    # at least two, so that what is picked is a tuple
    where, offsets = itemgetter(*(a.memory for a in one.arguments)), tuple(a.offset for a in one.arguments)

    def launch(held: list[Any], bases: list[int], stream: Any) -> None:
        run(*map(add, where(bases), offsets), *tail, stream=stream)

    return one.pieces, launch, one.over


def _interpreted(one: Launch) -> _Made:
    """A launch of the interpreter, which takes tensors."""

    def launch(held: list[Any], bases: list[int], stream: Any) -> None:
        one.bound.kernel[one.grid](
            *(a.of(held[a.memory]) for a in one.arguments), **one.bound.constants, **one.bound.options
        )

    return one.pieces, launch, one.over


class Binding(TorchDispatchMode):
    """What one call does, watched while it does it."""

    def __init__(self, device: torch.device, given: Sequence[Tensor], numbers: Sequence[int]):
        """given: all tensors of the call that may be others in the next call of its kind.  numbers: of PER_CALL"""
        super().__init__()
        self._device, self._given, self._numbers = device, tuple(given), tuple(numbers)
        # by storage: the memory that it is, and the byte where that begins.  Pieces are -1, -2 and so on, until it is
        # known which of them are small
        self._places: dict[int, tuple[int, int]] = {}
        # of tensors that share a storage, which may lie otherwise the next time: by where they begin
        self._begins: dict[tuple[int, int], int] = {}
        for number, t in enumerate(self._given, 1):
            storage, begin = _storage(t), _begin(t)
            self._begins[storage, begin] = _SEVERAL if (storage, begin) in self._begins else number
            self._places[storage] = (_SEVERAL, 0) if storage in self._places else (number, begin)
        self._supplies: list[Supply] = []
        self._pieces: list[tuple[Piece, int]] = []  # in the order of allocation, each with its bytes
        self._launches: list[tuple[Bound, Grid, Any, tuple[Part, ...]]] = []
        # why the call cannot be bound
        self._obstacles: list[str] = []
        self._kept: list[Tensor] = []
        self._watching: Any = None
        self._paused = False

    def __enter__(self) -> "Binding":
        self._watching = watching(self)
        self._watching.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._watching.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        if self._paused or getattr(func, "is_view", False):
            return out
        if name in _ALLOCATES and out.device == self._device and out.data_ptr() % _WIDEST == 0:
            # one that has the storage of another is made after that was freed
            self._places[_storage(out)] = -len(self._pieces) - 1, 0
            piece = Piece(tuple(out.shape), out.stride(), out.dtype, _ALLOCATES[name])
            self._pieces.append((piece, out.untyped_storage().nbytes()))
            if self._device.type == "cpu":
                # there torch has ways to memory that nobody is told of, and which might have this storage next
                self._kept.append(out)
        else:
            self._obstacles.append(name)
        return out

    def launch(self, bound: Bound, device: torch.device, grid: Grid, arguments: tuple[Any, ...]) -> None:
        """Told by `bind` of a launch, which is made."""
        named = zip(bound.kernel.arg_names, arguments, strict=False)
        self._launches.append((bound, grid, self._kind(bound, arguments), tuple(self._part(*one) for one in named)))
        with self._unwatched():
            bound.launch(device, grid, arguments)

    def supplied(self, supply: Supply, device: torch.device) -> Tensor:
        """Told by `bind` of memory that outlives the call; how it is filled the first time is no part of the call."""
        with self._unwatched():
            memory = supply(device)
        self._supplies.append(supply)
        self._places[_storage(memory)] = len(self._given) + len(PER_CALL) + len(self._supplies), _begin(memory)
        return memory

    def refuse(self, reason: str) -> None:
        """Told by `bind` of what is no launch."""
        self._obstacles.append(reason)

    @contextmanager
    def _unwatched(self) -> Iterator[None]:
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def bound(self, outputs: Sequence[Tensor | None]) -> BoundCall | None:
        """The call, to be made again; None where it is more than launches.  outputs: what it gave"""
        returned = [self._output(o) for o in outputs]
        compiled = [None if bound.plain else bound.compiled(kind) for bound, _, kind, _ in self._launches]
        if (
            self._obstacles
            or not compiled
            or not all(c or b.plain for c, (b, *_) in zip(compiled, self._launches, strict=True))
        ):
            return None
        shared = 1 + len(self._given) + len(PER_CALL) + len(self._supplies)
        known: dict[int, tuple[int, int]] = {}
        size, first, last = 0, {}, {}  # type: int, dict[int, int], dict[int, int]
        out = {o.memory for o in returned if isinstance(o, Part)}
        for number, (*_, parts) in enumerate(self._launches):
            for memory in {p.memory: None for p in parts if p.memory < 0}:
                last[memory] = number
                if memory in known:
                    continue
                piece, wide = self._pieces[-memory - 1]
                if wide < _SMALL and not piece.zeros and memory not in out:
                    known[memory] = shared, size
                    size += -(-wide // _ALIGNED) * _ALIGNED
                else:
                    known[memory] = shared + 1 + len(first), 0
                    first[memory] = number
        if not out <= known.keys():
            # what no launch writes
            return None
        launches = []
        for number, ((bound, grid, _, parts), made) in enumerate(zip(self._launches, compiled, strict=True)):
            before = tuple(self._pieces[-m - 1][0] for m, n in first.items() if n == number)
            over = tuple(known[m][0] for m in first if last[m] == number and m not in out)
            launches.append(Launch(bound, grid, made, tuple(_at(p, known) for p in parts), before, over))
        return BoundCall(self._supplies, size, launches, [_whole(o, self._pieces, known) for o in returned])

    def _kind(self, bound: Bound, arguments: tuple[Any, ...]) -> Any:
        """What a launch is compiled for."""
        if bound.plain:
            return None
        index = driver.active.get_current_device() if self._device.index is None else self._device.index
        return bound.kind_of(index, arguments)[0]

    def _part(self, name: str, value: Any) -> Part:
        """An argument of a launch."""
        if isinstance(value, Tensor):
            memory, begin = self._places.get(_storage(value), (_SEVERAL, 0))
            if memory == _SEVERAL:
                begin = _begin(value)
                memory = self._begins.get((_storage(value), begin), _SEVERAL)
            if memory == _SEVERAL:
                self._obstacles.append(f"{name} is in memory that is several tensors of the call, or none")
            return Part(memory, _begin(value) - begin, value.dtype, tuple(value.shape), value.stride())
        if name not in PER_CALL:
            return Part(0, value)
        place = PER_CALL.index(name)
        if value != self._numbers[place]:
            self._obstacles.append(f"{name} is another number than that of the call")
        return Part(1 + len(self._given) + place, 0)

    def _output(self, value: Tensor | None) -> Part | int | None:
        """The tensor of the call that an output is, or the part of what it allocated."""
        if value is None:
            return None
        for number, t in enumerate(self._given, 1):
            if t is value:
                return number
        part = self._part("an output", value)
        if part.memory == _SEVERAL:
            return None
        if part.memory >= 0 or self._pieces[-part.memory - 1][0].dtype != value.dtype:
            self._obstacles.append("an output is none of what the call allocated")
        return part


def _at(part: Part, known: Mapping[int, tuple[int, int]]) -> Part:
    """A part where BoundCall has it.  known: by piece, its memory and the byte there"""
    if part.memory >= 0:
        return part
    memory, begin = known[part.memory]
    return part._replace(memory=memory, offset=begin + part.offset)


def _whole(out: Part | int | None, pieces: Sequence[tuple[Piece, int]], known: Mapping[int, tuple[int, int]]) -> Any:
    """An output as BoundCall has it."""
    if not isinstance(out, Part):
        return out
    piece, _ = pieces[-out.memory - 1]
    same = (out.offset, out.shape, out.stride) == (0, piece.shape, piece.stride)
    return known[out.memory][0] if same else _at(out, known)


def _storage(t: Tensor) -> int:
    """What tells the storage of a tensor from all others that are alive."""
    return int(t.untyped_storage()._cdata)


def _begin(t: Tensor) -> int:
    """The byte of its storage where a tensor begins."""
    return int(t.storage_offset()) * t.element_size()
