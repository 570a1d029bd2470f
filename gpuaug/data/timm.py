"""A loader as timm's training script takes one: pairs of images and target, and a sampler that is told the epoch."""

from typing import Any

from torch import Tensor

from gpuaug.batch import Batch
from gpuaug.data.mapped import Mapped


class Pairs(Mapped):
    """Batches as (images, target), without the samples that are not valid; `sampler.set_epoch` sets the epoch.

    The sampler can do nothing else, and there is no dataset: order, ranks and decoding are the loader's.  Samples are
    looked at only where some may not be valid: with drop_last=False or on_error="skip", which makes the host wait for
    a GPU once a batch.  A rank's last batch may then be empty.  Mixes belong into the policy, not into timm's Mixup."""

    def __init__(self, loader: Any):
        super().__init__(loader, self._pair)
        self._all_valid = loader.drop_last and getattr(loader, "on_error", "raise") != "skip"
        self.sampler = Epochs(loader)
        # timm's script switches off a mix of its own loader by this name; ours is the policy's
        self.mixup_enabled = False

    def _pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if not isinstance(batch.images, Tensor) or batch.labels is None:
            raise TypeError(
                f"timm takes images of one size and labels, got images as {type(batch.images).__name__} and "
                f"{'no labels' if batch.labels is None else 'labels'}; give the loader a policy that fixes the size, "
                "and a source with labels"
            )
        if self._all_valid or batch.valid is None or bool(batch.valid.all()):
            return batch.images, batch.labels
        return batch.images[batch.valid], batch.labels[batch.valid]


class Epochs:
    """What timm tells the epoch to."""

    def __init__(self, loader: Any):
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """Let the loader's next iteration begin with this epoch."""
        self._loader.set_epoch(epoch)
