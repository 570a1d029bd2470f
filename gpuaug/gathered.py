"""Images of one size that stay in a store: a batch of them is the store and the numbers of its rows, and executors read
each row where it lies."""

from typing import Any

import torch
from torch import Tensor

from gpuaug.arrays import chosen, short


class Gathered:
    """Rows of a store as a batch, without a copy of them.

    store: [M, C, H, W] uint8 of any strides; on a GPU kernels read it in place where it is channels_last or has one
    channel.  index: [N] int64 on the same device, rows in [0, M): on a host this is checked, on a GPU nobody looks.
    The store must live, unchanged, until the work that reads it is done."""

    ndim = 4

    def __init__(self, store: Tensor, index: Tensor, addresses: Tensor | None = None):
        """addresses: where the images begin, where that is known"""
        if store.ndim != 4 or store.dtype != torch.uint8:
            raise TypeError(f"store must be uint8 [M, C, H, W], got {short(store.dtype)} {list(store.shape)}")
        if index.ndim != 1 or index.dtype != torch.int64 or index.device != store.device:
            raise TypeError(
                f"index must be int64 [N] on {store.device}, got {short(index.dtype)} {list(index.shape)} on "
                f"{index.device}"
            )
        if index.device.type == "cpu" and len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(store):
            raise IndexError(f"index must be in [0, {len(store)}), got {int(index.min())} to {int(index.max())}")
        self.store, self.index, self._addresses = store, index, addresses

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Any) -> Any:
        """One image [C, H, W]; or by a slice, numbers or a mask, on the host, more of these."""
        if isinstance(index, int) or (isinstance(index, Tensor) and index.ndim == 0):
            return self.store[self.index[index]]
        if not isinstance(index, slice):
            index = torch.tensor(chosen(index, len(self)), dtype=torch.int64, device=self.device)
        return Gathered(self.store, self.index[index])

    def __repr__(self) -> str:
        return f"Gathered({list(self.shape)} of {len(self.store)}, {self.device})"

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self.index), *self.store.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """Of the pixels."""
        return self.store.dtype

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.store.device

    @property
    def packed(self) -> bool:
        """Whether every row is a contiguous [H, W, C] image, which an address alone describes."""
        _, channels, _, width = self.store.shape
        channel, row, column = self.store.stride()[1:]
        return (channels == 1 or channel == 1) and column == channels and row == width * channels

    @property
    def addresses(self) -> Tensor:
        """Where every image begins: [N] int64 on the device of the pixels."""
        if self._addresses is not None:
            return self._addresses
        return self.index * self.store.stride(0) + self.store.data_ptr()

    def placed(self) -> "Gathered":
        """The same images, whose addresses are computed once."""
        return Gathered(self.store, self.index, self.addresses)

    def dense(self) -> Tensor:
        """[N, C, H, W]: the copy that executors do without."""
        return self.store.index_select(0, self.index)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Any:
        """The same images on another device, as a tensor."""
        return self if torch.device(device) == self.device else self.dense().to(device, non_blocking=non_blocking)

    def pin_memory(self) -> Tensor:
        """The same images in memory that a GPU can read."""
        return self.dense().pin_memory()
