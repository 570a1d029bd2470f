"""The loader under Hugging Face's Trainer: batches as a model's arguments, and a callback that keeps its state in the
checkpoints."""

import warnings
from typing import Any

import torch
from torch import Tensor

from gpuaug.batch import Batch
from gpuaug.data.mapped import Mapped

try:
    from transformers.trainer_callback import ExportableState, TrainerCallback
except ImportError as error:
    raise ImportError(
        "gpuaug.data.huggingface needs transformers and accelerate; pip install 'gpuaug[integrations]'"
    ) from error

# what cross entropy leaves out
_IGNORED = -100


def inputs(batch: Batch) -> dict[str, Tensor]:
    """A batch as the arguments of an image classifier: pixel_values, and labels, where there are any.

    The label of a sample that is not valid is -100, which the models' losses leave out."""
    if not isinstance(batch.images, Tensor):
        raise TypeError(
            f"a model takes images of one size, got {type(batch.images).__name__}; give the loader a policy that fixes "
            "the size"
        )
    if batch.labels is None:
        return {"pixel_values": batch.images}
    labels = batch.labels
    if not labels.is_floating_point() and labels.ndim == 1 and batch.valid is not None:
        labels = torch.where(batch.valid, labels, _IGNORED)
    return {"pixel_values": batch.images, "labels": labels}


class LoaderCallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Saves the state of the Trainer's training loader with every checkpoint, and has the loader go on from it.

    Override `Trainer.get_train_dataloader` to return `gpuaug.data.Mapped(loader, inputs)`, and give this to
    Trainer(callbacks=[...]).  It turns on `ignore_data_skip`: the loader goes on by itself, where the Trainer looks for
    a data set to make a plain DataLoader of.  In an epoch that is resumed the Trainer logs `epoch` as if it had begun
    anew; steps and samples are right.

    strict: refuse checkpoints without a loader's state, and of another data set or policy."""

    def __init__(self, strict: bool = True):
        self.strict = strict
        self._loader: Any = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps in its trainer_state.json."""
        position = {} if self._loader is None else {"loader": self._loader.state_dict()}
        return {"args": {"strict": self.strict}, "attributes": {}, **position}

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Have the Trainer skip nothing."""
        args.ignore_data_skip = True

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Find the loader, and have it go on where the checkpoint was made; a run without one begins with epoch 0."""
        if not isinstance(train_dataloader, Mapped):
            raise TypeError(
                f"the Trainer trains from a {type(train_dataloader).__name__}; override its get_train_dataloader to "
                "return gpuaug.data.Mapped(loader, inputs)"
            )
        self._loader = train_dataloader
        rest = len(train_dataloader) % args.gradient_accumulation_steps
        if rest:
            warnings.warn(
                f"gradient_accumulation_steps={args.gradient_accumulation_steps} does not divide the "
                f"{len(train_dataloader)} batches of an epoch: in an epoch that is resumed the Trainer makes no step "
                f"of the last {rest}; choose one that does",
                stacklevel=2,
            )
        if not state.global_step:
            train_dataloader.loader.set_epoch(0)
            return
        if not args.ignore_data_skip:
            raise ValueError(
                "the Trainer would skip batches that the loader skips by itself; pass ignore_data_skip=True to "
                "TrainingArguments, or the callback to Trainer(callbacks=[...])"
            )
        saved = state.stateful_callbacks.get(type(self).__name__)
        saved = saved[-1] if isinstance(saved, list) else saved
        if isinstance(saved, dict) and "loader" in saved:
            train_dataloader.load_state_dict(saved["loader"], strict=self.strict)
        elif self.strict:
            raise ValueError(
                "the checkpoint has no state of a loader: it was saved without LoaderCallback; pass "
                "LoaderCallback(strict=False) to begin an epoch"
            )
