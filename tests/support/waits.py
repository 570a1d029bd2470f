"""A card that is not here: tensors on "cuda" without values, and an error for whatever would make the host wait for the
card."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from triton.runtime.interpreter import InterpretedFunction

import gpuaug.trace.cache

CARD = torch.device("cuda", 0)
# the size of what they return, or what they return, stands in device memory
READS = {
    *(
        "_local_scalar_dense",
        "item",
        "equal",
        "allclose",
        "is_nonzero",
        "nonzero",
        "nonzero_numpy",
        "argwhere",
        "masked_select",
    ),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "_linalg_check_errors", "multinomial"),
}
SCATTERS = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
# memory is asked for, not written
FREE = {"device", "empty", "empty_like", "new_empty", "detach", "alias"}
COPIES = {"_to_copy", "copy_", "copy"}


class Wait(Exception):
    """The host would wait for the card here."""


class Card(TorchDispatchMode):
    """Operations on the card yield shapes; those on the host are computed, so that what the host knows it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned = WeakIdKeyDictionary()
        self.seen = 0  # operations and kernels on the card
        self.work: list[str] = []  # those of them that take the card's time
        self.refuses = True  # False: a copy may wait, as those of a first call do; values that are not there cannot be read even so

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name, given = func.overloadpacket.__name__, [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if name == "is_pinned":
            return args[0] in self.pinned
        if name == "_pin_memory":
            with unset_fake_temporarily():
                out = args[0].clone()
            self.pinned[out] = True
            return out
        to = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if name == "empty" and kwargs.get("pin_memory"):
            with unset_fake_temporarily():
                out = func(*args, **kwargs | {"pin_memory": False})
            self.pinned[out] = True
            return out
        if not any(isinstance(x, FakeTensor) for x in given) and (to is None or to.type != "cuda"):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        self.seen += 1
        if name not in FREE and not getattr(func, "is_view", False):
            self.work.append(name)
        self._refuse(name, args, kwargs, to)
        return func(*args, **kwargs)

    def _refuse(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], to: torch.device | None) -> None:
        if name in READS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            raise Wait(f"{name} reads the card's memory")
        if name in SCATTERS and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            raise Wait(f"{name} by a mask counts it on the card")
        if name in COPIES and self.refuses:
            source, target = (args[1], args[0].device) if name != "_to_copy" else (args[0], to or args[0].device)
            if source.device.type == "cuda" and target.type == "cpu":
                raise Wait("a copy to the host")
            if source.device.type == "cpu" and target.type == "cuda" and source not in self.pinned:
                raise Wait(f"a copy of {list(source.shape)} from memory that is not pinned")
            if source.device != target and not (
                kwargs.get("non_blocking") or (name != "_to_copy" and len(args) > 2 and args[2])
            ):
                raise Wait("a copy between host and card that blocks")


@contextmanager
def card(recipes: bool = True) -> Iterator[Card]:
    """Within it "cuda" is there; kernels are launched on nothing.  recipes: False draws step by step, as what cannot be
    traced is"""
    found = Card()
    find = gpuaug.trace.cache.find

    def traced(*args: Any) -> Any:
        if not recipes:
            return "asked for"
        with _disable_current_modes():
            recipe = find(*args)
        assert not isinstance(recipe, str), recipe
        return recipe

    def launched(*args: Any, **kwargs: Any) -> None:
        found.seen += 1
        found.work.append("kernel")

    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(mock.patch.object(InterpretedFunction, "run", launched))
        stack.enter_context(mock.patch.object(gpuaug.trace.cache, "find", traced))
        # no driver and no memory to ask about
        stack.enter_context(mock.patch.object(torch.cuda, "device_of", mock.MagicMock()))
        stack.enter_context(mock.patch.object(torch.cuda, "get_device_capability", return_value=(9, 0)))
        stack.enter_context(mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=False))
        stack.enter_context(mock.patch.object(torch.cuda, "current_stream", mock.MagicMock()))
        stack.enter_context(mock.patch.object(FakeTensor, "data_ptr", lambda x: id(x) * 2**16, create=True))
        yield stack.enter_context(found)
