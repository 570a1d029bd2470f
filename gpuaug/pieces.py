"""Images of different sizes that lie in one piece of memory: numbers in arrays, and tensors where one asks for them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from gpuaug.arrays import Rows
from gpuaug.strides import CONTIGUOUS, strides_of


class Pieces(Sequence[Tensor]):
    """Contiguous images [H, W, C] of one dtype in one piece of memory.

    Hundreds of tensors cost more to make than to describe, and what augments reads addresses and sizes.

    memory: [elements].  begins: [N], where each begins in it, in elements.  shapes: [N, 3] int64"""

    def __init__(self, memory: Tensor, begins: np.ndarray[Any, Any], shapes: Rows):
        self.memory, self.begins, self.shapes = memory, begins, shapes

    @classmethod
    def in_turn(cls, memory: Tensor, shapes: Rows) -> "Pieces":
        """One after the other."""
        sizes = shapes.prod(1)
        return cls(memory, np.cumsum(sizes) - sizes, shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        (height, width, channels), begin = self.shapes[index].tolist(), int(self.begins[index])
        at = self.memory.storage_offset() + begin
        return self.memory.as_strided((height, width, channels), (width * channels, channels, 1), at)

    @property
    def addresses(self) -> Rows:
        """Where each begins: [N] int64."""
        return self.memory.data_ptr() + self.begins * self.memory.element_size()

    @property
    def strides(self) -> Rows:
        """Of row, column and channel, in elements: [N, 3]."""
        return strides_of((), self.shapes, CONTIGUOUS)

    @cached_property
    def whole(self) -> Tensor | None:
        """The pixels of all, one image after the other; None where they do not lie so."""
        sizes = self.shapes.prod(1)
        if (self.begins[1:] != self.begins[:-1] + sizes[:-1]).any():
            return None
        first = int(self.begins[0])
        return self.memory[first : first + int(sizes.sum())]
