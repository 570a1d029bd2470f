"""What a policy drew for samples before their images were there."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuaug.arrays import Rows, chosen, put
from gpuaug.images import Images, Ragged
from gpuaug.rng import Keys

# every piece of packed tables begins at a multiple of this many bytes
_ALIGNED = 16


class DrawnAhead:
    """What `Policy.windows` drew, for the call that augments: the samples' keys and sizes, and what the executor of a
    device needs, drawn on the host.

    On a GPU a policy runs by these tables of the host, copied once: what is read lies in the windows to the pixel,
    whatever a device's own exp or sqrt round to.  Pickled or sliced it keeps keys and sizes, from which the rest is
    drawn again, to the same bits."""

    def __init__(
        self,
        policy: tuple[Any, ...],
        keys: Keys,
        key: int | None,
        size: Tensor,
        fixed: tuple[int, int] | None,
        channels: int,
    ):
        """policy: its values.  size: [N, 2].  fixed: (H, W) for a policy that takes no images of different sizes"""
        self.policy, self.keys, self.key, self.size = policy, keys, key, size
        self.fixed, self.channels = fixed, channels
        # (backend, device) -> what `call.prepared` makes
        self.made: dict[tuple[str, torch.device], Any] = {}
        # by backend: the same as a recipe has filled it, in one piece of memory
        self.filled: dict[str, Any] = {}
        # draws for another such object at once; None where the policy is in another process
        self.draw: Callable[[DrawnAhead], Any] | None = None
        # copies of that memory, by where they are and what they may be used for
        self.sent: dict[tuple[torch.device, bool, int], Tensor] = {}
        # what targets take that needs no target, by what they want of the passes; on a device by where it is too
        self.followed: dict[tuple[Any, ...], Any] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"DrawnAhead(samples={len(self)}, epoch={self.keys.epoch})"

    def __reduce__(self) -> tuple[Any, ...]:
        return DrawnAhead, (self.policy, self.keys, self.key, self.size, self.fixed, self.channels)

    def __getitem__(self, index: Any) -> "DrawnAhead":
        """What was drawn for some samples, or for one; a mix finds partners among these alone, as in a Batch of
        them."""
        if isinstance(index, int | np.integer) or (isinstance(index, Tensor) and not index.ndim):
            rows = [range(len(self))[int(index)]]
        else:
            rows = list(range(len(self))[index]) if isinstance(index, slice) else chosen(index, len(self))
        at = torch.tensor(rows, dtype=torch.int64, device="cpu")
        return DrawnAhead(self.policy, self.keys.take(at), self.key, self.size[at], self.fixed, self.channels)

    def among(self, valid: Any) -> "DrawnAhead":
        """The same where only valid samples, [N] bool on the host, take part in a mix; on a GPU's values nobody
        looks."""
        given = torch.as_tensor(valid)
        if given.device.type != "cpu":
            return self
        known = self.keys.valid
        keys = replace(self.keys, valid=given.clone())
        out = DrawnAhead(self.policy, keys, self.key, self.size, self.fixed, self.channels)
        if bool(given.all() if known is None else torch.equal(given, known)):
            out.made, out.filled, out.sent, out.followed = self.made, self.filled, self.sent, self.followed
        elif self.draw is not None:
            # here, where a loader decodes, and not when the call is made
            self.draw(out)
        return out

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "DrawnAhead":
        """The same, with what is prepared already on its way to a device; but for what a call sends in one piece, when
        it knows the images."""
        there = torch.device(device)
        if there.type == "cuda" and there.index is None:
            there = torch.device("cuda", torch.cuda.current_device())
        for (backend, place), made in list(self.made.items()):
            # the CPU's executor has nothing to do there
            known = backend == "cpu" or backend in self.filled or (backend, there) in self.made
            if place.type == "cpu" != there.type and not known:
                self.made[backend, there] = sent(made, there)
        return self

    # ---- whether it is of this call

    def check(self, policy: tuple[Any, ...], images: Images, given: dict[str, Any]) -> None:
        """Raise ValueError for another policy, other images or other numbers of samples.  given: ids, epoch,
        occurrence, key and labels as the Batch has them, None where it has none; on a GPU nobody looks at them."""
        if policy != self.policy:
            raise ValueError(
                "params must be of this policy, got those of another, or of another seed; "
                "call the policy whose windows they came with"
            )
        if len(images) != len(self):
            raise ValueError(f"params must be of this batch, got {len(self)} samples for {len(images)} images")
        channels = images.channels if isinstance(images, Ragged) else images.shape[1]
        sides = images.sides if isinstance(images, Ragged) else np.array([images.shape[2:]] * len(images))
        drawn_for = self.size.numpy()
        if channels != self.channels or sides.tobytes() != drawn_for.tobytes():
            other = (sides != drawn_for).any(1) | (channels != self.channels)
            n = int(other.argmax())
            raise ValueError(
                f"params must be of images of these sizes, got image {n} of {(*sides[n].tolist(), channels)}, drawn "
                f"for {(*self.size[n].tolist(), self.channels)} (height, width, channels); draw for the size in the "
                "file's header"
            )
        for name, value in given.items():
            if value is None or (isinstance(value, Tensor) and value.device.type != "cpu"):
                continue
            known = self.key if name == "key" else getattr(self.keys, name)
            if (name == "labels" and known is None) or value is known or _same(value, known):
                continue
            got, want = _plain(value), _plain(known)
            if got != want:
                raise ValueError(
                    f"params must be of the same {name}, got {_short(got)}, drawn for {_short(want)}; pass the {name} "
                    "that the windows were drawn for, or leave it out"
                )


@dataclass(frozen=True, eq=False)
class Windows:
    """What a policy reads of its source images, and what it drew to know."""

    windows: Rows  # [N, 4] int64 (top, left, height, width), within each image and of one pixel at least
    params: DrawnAhead  # for Batch.params

    def __len__(self) -> int:
        return len(self.params)

    def __repr__(self) -> str:
        share = self.windows[:, 2:].prod(1).sum() / max(int(self.params.size.prod(1).sum()), 1)
        return f"Windows(samples={len(self)}, {share:.0%} of the pixels, epoch={self.params.keys.epoch})"


def _same(a: Any, b: Any) -> bool:
    """Whether both are the same tensor of numbers, which is seen sooner than what differs."""
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)


def _plain(value: Any) -> Any:
    """A number, or a list of numbers."""
    return (
        value.tolist() if isinstance(value, Tensor | np.ndarray) else list(value) if isinstance(value, tuple) else value
    )


def _short(values: Any) -> str:
    """A number, or the first few of many."""
    return f"{str(values[:4])[:-1]}, ...]" if isinstance(values, list) and len(values) > 4 else str(values)


def sent(made: Any, device: torch.device) -> Any:
    """A structure of passes and tables on a device: all of its tensors go there in one piece."""
    found: dict[int, Tensor] = {}
    places: dict[int, int] = {}
    length = 0

    def find(tensor: Tensor) -> Tensor:
        nonlocal length
        if id(tensor) not in found:
            found[id(tensor)], places[id(tensor)] = tensor, length
            length += -(-tensor.numel() * tensor.element_size() // _ALIGNED) * _ALIGNED
        return tensor

    mapped(made, find)
    host = torch.empty(length, dtype=torch.uint8, device="cpu")

    def part(piece: Tensor, tensor: Tensor) -> Tensor:
        first = places[id(tensor)]
        return piece[first : first + tensor.numel() * tensor.element_size()].view(tensor.dtype).view(tensor.shape)

    for tensor in found.values():
        part(host, tensor).copy_(tensor)
    there = put(host, device)
    return mapped(made, lambda tensor: part(there, tensor))


def mapped(value: Any, do: Callable[[Tensor], Tensor]) -> Any:
    """`do` to every tensor in tuples, lists, dicts and dataclasses; what holds none stays the object that it is."""
    if isinstance(value, Tensor):
        return do(value)
    if isinstance(value, tuple | list):
        parts = [mapped(v, do) for v in value]
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else type(value)(parts)
    if isinstance(value, dict):
        return {k: mapped(v, do) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in fields(value))
        changed = {name: new for name, old in pairs if (new := mapped(old, do)) is not old}
        return replace(value, **changed) if changed else value
    return value
