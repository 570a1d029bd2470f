"""Views of two sizes, as DINO and SwAV learn from."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gpuaug import arguments, torch_compile, views
from gpuaug.policy import Policy
from gpuaug.transforms import RandomResizedCrop, Transform

_SCALE = partial(arguments.interval, low=0.0, high=1.0)
_KINDS = ("global", "local")


class MultiCrop(nn.Module):
    """Crop large views of most of an image and small ones of parts of it, each with draws of its own, in one call for
    each size (Caron et al., SwAV, 2020, section 3.3; DINO, 2021).

    `global` is a word of Python's: MultiCrop(n_global=2, local=8), or MultiCrop(**{"global": 2}, local=8).  sizes,
    scales: of global and of local views, as RandomResizedCrop takes them.  transforms: what follows the crop, for all
    views, or a mapping with "global" and "local".  more, memory_format: arguments of RandomResizedCrop (ratio,
    interpolation, antialias), and of both policies.

    Called as a policy it gives the list of all views, global ones first; view v of n has the occurrence
    occurrence * n + v, as in `Policy.views`."""

    def __init__(
        self,
        n_global: int | None = None,
        local: int = 8,
        sizes: Sequence[Any] = (224, 96),
        scales: Sequence[Any] = ((0.4, 1.0), (0.05, 0.4)),
        transforms: Sequence[Transform] | Mapping[str, Sequence[Transform]] = (),
        seed: int = 0,
        *,
        memory_format: torch.memory_format = torch.contiguous_format,
        **more: Any,
    ):
        super().__init__()
        if n_global is not None and "global" in more:
            raise TypeError("global came as n_global too; pass it once")
        large = more.pop("global", 2 if n_global is None else n_global)
        unknown = sorted(more.keys() - {"ratio", "interpolation", "antialias"})
        if unknown:
            raise TypeError(f"MultiCrop has no argument {', '.join(unknown)}; it has n_global, local, sizes, scales, "
                            "transforms, seed, memory_format, ratio, interpolation, antialias")  # fmt: skip
        self.counts = arguments.integer("global", large, 0), arguments.integer("local", local, 0)
        if not sum(self.counts):
            raise ValueError("global and local must not both be 0")
        if self.counts[0] + self.counts[1] > views.MOST:
            raise ValueError(f"global and local must be at most {views.MOST} together, got {sum(self.counts)}")
        for name, value in (("sizes", sizes), ("scales", scales)):
            if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
                raise ValueError(f"{name} must be one of the global and one of the local views, got {value!r}")
        after = _after(transforms)
        self.policies = nn.ModuleList(
            Policy(
                [RandomResizedCrop(size, _SCALE("scales", scale), **more), *after[kind]],
                seed,
                memory_format=memory_format,
            )
            for kind, size, scale in zip(_KINDS, sizes, scales, strict=True)
        )

    def forward(
        self,
        images: Any,
        labels: Any = None,
        *,
        ids: Tensor | None = None,
        epoch: int | Tensor | None = None,
        occurrence: Tensor | None = None,
        backend: str = "auto",
    ) -> Any:
        """The views as a list, of a Batch as a list of Batches; with labels (a list of images, a list of labels)."""
        given = {"labels": labels, "ids": ids, "epoch": epoch, "occurrence": occurrence}
        return self._each(images, given, backend)

    @torch_compile.eagerly
    def _each(self, images: Any, given: dict[str, Any], backend: str) -> Any:
        large, n = self.counts[0], sum(self.counts)
        numbers = range(large), range(large, n)
        parts = [views.Part(p, v) for p, v in zip(self.policies, numbers, strict=True) if len(v)]
        return views.each(parts, n, images, given, backend)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of calls that name none."""
        for policy in self.policies:
            policy.set_epoch(epoch)  # type: ignore[operator]

    def describe(self, size: tuple[int, int] | None = None, **options: Any) -> str:
        """What runs for the global and for the local views, as `Policy.describe` has it."""
        said = (p.describe(size, **options) for p in self.policies)  # type: ignore[operator]
        return "\n".join(
            f"{count} {kind} views\n{text}"
            for kind, count, text in zip(_KINDS, self.counts, said, strict=True)
            if count
        )

    def __repr__(self) -> str:
        each = ", ".join(
            f"{kind}={count} of {p!r}" for kind, count, p in zip(_KINDS, self.counts, self.policies, strict=True)
        )
        return f"MultiCrop({each})"


def _after(transforms: Any) -> dict[str, Sequence[Transform]]:
    """What follows the crop of each kind of view."""
    if not isinstance(transforms, Mapping):
        return dict.fromkeys(_KINDS, transforms)
    if transforms.keys() - set(_KINDS):
        raise ValueError(f'transforms must be a list, or a mapping of "global" and "local", got {sorted(transforms)}')
    return {kind: transforms.get(kind, ()) for kind in _KINDS}
