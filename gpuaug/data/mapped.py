"""Batches in another form, for loops that take pairs or mappings: the loader behind them stays what it is."""

from collections.abc import Callable, Iterator
from typing import Any

from gpuaug.batch import Batch
from gpuaug.data.given import Whole


class Mapped(Whole):
    """A loader whose batches are what `function` makes of a `gpuaug.Batch`; length, epochs and states are the loader's.

    loader: a `gpuaug.data.Loader` or `ResidentLoader`.  There is no dataset and no sampler of which a framework could
    make a plain DataLoader, and no set_epoch for one that counts epochs otherwise after a restart: `self.loader` has
    it."""

    def __init__(self, loader: Any, function: Callable[[Batch], Any]):
        if not callable(function):
            raise TypeError(f"function must be callable with a gpuaug.Batch, got {type(function).__name__}")
        missing = [n for n in ("set_epoch", "state_dict", "load_state_dict", "__len__") if not hasattr(loader, n)]
        if missing:
            raise TypeError(
                f"loader must be a gpuaug.data.Loader or ResidentLoader, got {type(loader).__name__}, which has no "
                f"{missing[0]}"
            )
        self.loader, self.function = loader, function

    def __iter__(self) -> Iterator[Any]:
        return map(self.function, self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def state_dict(self) -> dict[str, Any]:
        """Where to go on: the loader's state."""
        state: dict[str, Any] = self.loader.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Go on from a state of the loader."""
        self.loader.load_state_dict(state, strict)

    def close(self) -> None:
        """Close the loader."""
        self.loader.close()

    def __enter__(self) -> "Mapped":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
