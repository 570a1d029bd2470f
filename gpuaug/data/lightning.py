"""The loader under Lightning: a callback that keeps its state in every checkpoint."""

from typing import Any

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise ImportError("gpuaug.data.lightning needs lightning; pip install 'gpuaug[integrations]'") from error


class LoaderCallback(Callback):  # type: ignore[misc]
    """Saves the state of a training loader with every checkpoint, and has it go on from there.

    Lightning saves the states of loaders by itself, but loads them only from checkpoints within an epoch: from one at
    an epoch's end a run would begin with the first epoch's order again.  Its `overfit_batches` takes the first batches
    of every epoch, which are the same samples with shuffle=False alone.

    loader: what the Trainer trains from.  strict: refuse the state of another data set or policy."""

    def __init__(self, loader: Any, strict: bool = True):
        if not hasattr(loader, "load_state_dict"):
            raise TypeError(f"loader must be a gpuaug.data.Loader, got {type(loader).__name__}, which has no state")
        self.loader, self.strict = loader, strict

    def state_dict(self) -> dict[str, Any]:
        """The loader's state."""
        state: dict[str, Any] = self.loader.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Have the loader go on from there."""
        self.loader.load_state_dict(state_dict, strict=self.strict)
