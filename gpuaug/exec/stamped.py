"""What the reference writes over pixels: where a rectangle is, and normal numbers keyed by pixel."""

import torch
from torch import Tensor

from gpuaug import rng


def in_box(box: Tensor, images: Tensor) -> Tensor:
    """Where a rectangle is: [N, 1, H, W] bool."""
    y, x = (torch.arange(v, device=images.device) for v in images.shape[2:])
    x0, y0, x1, y1 = (v[:, None, None, None] for v in box.unbind(1))
    return (x >= x0) & (x < x1) & (y[:, None] >= y0) & (y[:, None] < y1)


def pixel_normals(keys: rng.Keys, slot: int, images: Tensor) -> Tensor:
    """N(0, 1) for every value: words 0 and 1 of a block make channels 0 and 1, words 2 and 3 the next two."""
    _, c, height, width = images.shape
    w = keys.pixels(slot, height, width, c)
    z = torch.stack([*rng.gauss(w[..., 0], w[..., 1]), *rng.gauss(w[..., 2], w[..., 3])], -1)
    return z.flatten(3)[..., :c].permute(0, 3, 1, 2).float()
