"""The host's part of a call on a card, on a machine that has none: Triton compiles for a named card, tensors are on
"meta", and a launch is counted instead of made."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest import mock

import torch
from gpuaug_kernels.named_card import NamedCard
from triton.runtime import driver

META = torch.device("meta")


class Counter:
    """What a launch would be handed to; as Triton calls a launcher."""

    launched: ClassVar[list[Any]] = []
    count: ClassVar[int] = 0
    keep: ClassVar[bool] = False

    def __init__(self, source: Any, metadata: Any):
        self.name = metadata.name

    def __call__(self, *arguments: Any) -> None:
        Counter.count += 1
        if Counter.keep:
            Counter.launched.append((self.name, *arguments))


class _Utilities:
    """Loads nothing."""

    def load_binary(self, name: str, binary: Any, shared: int, device: int) -> tuple[int, int, int, int, int]:
        """Module, function, registers, spills, most threads of a block."""
        return 1, id(binary), 32, 0, 1024

    def unload_module(self, module: Any) -> None:
        """Nothing was loaded."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        """Of any card that is large enough."""
        return {"max_shared_mem": 232448}


class NoCard(NamedCard):
    """A driver of Triton for a card that is not there."""

    launcher_cls = Counter

    def __init__(self, capability: int = 90):
        super().__init__(capability)
        self.utils, self.stream = _Utilities(), 7


@contextmanager
def no_card(keep: bool = False) -> Iterator[tuple[NoCard, type[Counter]]]:
    """Within it launches are counted; kept with their arguments where `keep`."""
    before, made = driver._active, NoCard()
    Counter.count, Counter.keep, Counter.launched = 0, keep, []
    driver.set_active(made)
    try:
        # torch asks a driver that is not there
        with mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=False):
            yield made, Counter
    finally:
        driver._active = before
