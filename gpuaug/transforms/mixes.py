"""Transforms that mix a sample with a partner from its batch.  All lower to `ir.Mix`, by sample inside an `ir.Choice`;
labels follow in `gpuaug.targets`."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpuaug import arguments, ir
from gpuaug.rng import Draw
from gpuaug.symbolic import smooth
from gpuaug.transforms.base import Drawn, Transform

__all__ = ["CutMix", "MixUp", "Mixing", "RandomMix"]


class Mixing(Transform):
    """Any transform that mixes samples and their labels.

    num_classes is needed for labels that are class numbers.  label_smoothing e makes (1 - e) y + e / classes of the
    labels y before they are mixed, class numbers and soft rows alike."""

    num_classes: int | None
    label_smoothing: float
    checks = {
        "num_classes": arguments.optional(partial(arguments.integer, low=1)),
        "label_smoothing": arguments.probability,
    }


@dataclass(frozen=True)
class _WithPartner(Mixing):
    """A mix by a number from Beta(alpha, alpha)."""

    alpha: float = 1.0
    num_classes: int | None = None
    label_smoothing: float = 0.0
    checks = {"alpha": partial(arguments.number, low=1e-6)}

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        return self.with_partner(draw, frame, draw.keys.partners(draw.slot))

    def with_partner(self, draw: Draw, frame: ir.Frame, partner: Tensor) -> Drawn:
        """What `sample` draws, with a partner that is known.  partner: [N] int64"""
        # the open interval of float32, as torch.distributions.Beta has it
        lam = draw.beta(self.alpha).float().clamp(max=1.0 - 2.0**-24)
        return {"lam": lam, "partner": partner}


@dataclass(frozen=True)
class CutMix(_WithPartner):
    """Paste a rectangle of the partner (Yun et al., 2019, section 3.1); a label's weight is the exact area that
    remains."""

    example = {"alpha": 1.0, "num_classes": 5}

    def with_partner(self, draw: Draw, frame: ir.Frame, partner: Tensor) -> Drawn:
        drawn = super().with_partner(draw, frame, partner)
        height, width = frame.size.unbind(1)
        x, y = draw.integer(0, width), draw.integer(0, height)
        half = 0.5 * smooth("sqrt", 1.0 - drawn["lam"].double())
        dx, dy = (half * width).long(), (half * height).long()
        zero = torch.zeros_like(x)
        corners = [
            torch.maximum(x - dx, zero),
            torch.maximum(y - dy, zero),
            torch.minimum(x + dx, width),
            torch.minimum(y + dy, height),
        ]
        return {"lam": drawn["lam"], "box": torch.stack(corners, 1), "partner": drawn["partner"]}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (ir.CutMix(params["partner"], params["box"], frame.size),)


@dataclass(frozen=True)
class MixUp(_WithPartner):
    """lam x + (1 - lam) partner, lam from Beta(alpha, alpha) for each sample (Zhang et al., 2018, section 2)."""

    example = {"alpha": 1.0, "num_classes": 5}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        return (ir.MixUp(params["partner"], params["lam"]),)


def _mixes(name: str, value: Any) -> tuple[_WithPartner, ...]:
    if isinstance(value, Transform | str) or not isinstance(value, list | tuple) or not value:
        raise TypeError(f"{name} must be a list of at least one mix, such as [CutMix(), MixUp()], got {value!r}")
    for t in value:
        if not isinstance(t, _WithPartner):
            raise TypeError(f"{name} must be CutMix or MixUp, got {t!r}; other transforms go into RandomChoice")
    return tuple(value)


@dataclass(frozen=True)
class RandomMix(Mixing):
    """One of several mixes, chosen for each sample, with one partner whichever it is.

    p: weights of the mixes, or None for equal ones.  per: "sample", or "batch" for one choice, one lam and one
    rectangle for all samples of a batch, as timm's and torchvision's mixes draw.  switch_prob: of one MixUp and one
    CutMix the probability of the CutMix, in place of p.  prob: the probability of a mix at all; labels are smoothed
    without one too.  num_classes, label_smoothing: as in the mixes, which may leave them out."""

    transforms: tuple[_WithPartner, ...]
    p: tuple[float, ...] | None = None
    per: str = "sample"
    switch_prob: float | None = None
    prob: float = 1.0
    num_classes: int | None = None
    label_smoothing: float = 0.0
    example = {"transforms": (CutMix(1.0), MixUp(0.4)), "p": (0.6, 0.4), "num_classes": 5}
    checks = {
        "transforms": _mixes,
        "per": partial(arguments.one_of, allowed=("sample", "batch")),
        "switch_prob": arguments.optional(arguments.probability),
        "prob": arguments.probability,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p is not None:
            if self.switch_prob is not None:
                raise ValueError("p and switch_prob both say how often each mix is chosen; pass one of them")
            weights = arguments.numbers("p", self.p, (len(self.transforms),), 0.0)
            if not sum(weights):
                raise ValueError("p must hold a weight above 0, got only zeros")
            self._keep("p", tuple(w / sum(weights) for w in weights))
        if self.switch_prob is not None and sorted(type(t).__name__ for t in self.transforms) != ["CutMix", "MixUp"]:
            raise ValueError(
                f"switch_prob is between one MixUp and one CutMix, got {list(self.transforms)}; pass weights as p"
            )

    @property
    def children(self) -> tuple[Transform, ...]:
        return self.transforms

    def _weights(self) -> int | tuple[float, ...]:
        if self.switch_prob is None:
            return self.p or len(self.transforms)
        return tuple(self.switch_prob if isinstance(t, CutMix) else 1 - self.switch_prob for t in self.transforms)

    def sample(self, draw: Draw, frame: ir.Frame) -> Drawn:
        source = draw.shared() if self.per == "batch" else draw
        index = source.choice(self._weights())
        if self.prob < 1:
            index = torch.where(source.coin(self.prob), index, len(self.transforms))
        partner = draw.keys.partners(draw.slot)
        # a mix holds no other transform, so that slots follow one another
        each = [
            t.with_partner(source.at(at), frame, partner) for at, t in enumerate(self.transforms, start=draw.slot + 1)
        ]
        return {"index": index, "transforms": each}

    def lower(self, params: Drawn, frame: ir.Frame, slot: int) -> ir.Sequence:
        drawn = enumerate(zip(self.transforms, params["transforms"], strict=True), start=slot + 1)
        branches = [t.lower(made, frame, at) for at, (t, made) in drawn]
        if self.prob < 1:
            branches.append(())
        return (ir.Choice(params["index"][:, None], tuple(branches)),)

    @classmethod
    def from_timm(
        cls,
        mixup_alpha: Any = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: Any = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        correct_lam: bool = True,
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
        multi_label: bool = False,
    ) -> "RandomMix":
        """The mix that `timm.data.Mixup` does with the same arguments, or given such an object in place of them.

        mode "elem" draws for each sample, "batch" once for all of them; the far sides of rectangles are CutMix's, up to
        a pixel nearer.  Raises ValueError for what has no counterpart:
        mode "pair", cutmix_minmax, multi_label, and correct_lam=False, since weights are the exact area here."""
        if hasattr(mixup_alpha, "mixup_alpha"):
            given = {name: getattr(mixup_alpha, kept) for name, kept in _TIMM.items() if hasattr(mixup_alpha, kept)}
            return cls.from_timm(**given)
        arguments.one_of("mode", mode, ("batch", "elem", "pair"))
        for name, lacks, instead in (
            ('mode "pair"', mode == "pair", 'take "elem", which draws for each sample'),
            ("cutmix_minmax", cutmix_minmax is not None, "take cutmix_alpha"),
            ("correct_lam=False", not correct_lam, "a label's weight is the exact area here"),
            ("multi_label", multi_label, "take num_classes and a loss for soft labels"),
        ):
            if lacks:
                raise ValueError(f"{name} of timm's Mixup has no counterpart in gpuaug; {instead}")
        alphas = ((MixUp, "mixup_alpha", mixup_alpha), (CutMix, "cutmix_alpha", cutmix_alpha))
        found = [kind(alpha) for kind, name, alpha in alphas if arguments.number(name, alpha, low=0.0)]
        if not found:
            raise ValueError("one of mixup_alpha and cutmix_alpha must be above 0, got 0 for both")
        switch = switch_prob if len(found) == 2 else None
        per = "sample" if mode == "elem" else "batch"
        return cls(tuple(found), None, per, switch, prob, num_classes, label_smoothing)


# the arguments of timm.data.Mixup, and what it keeps them as
_TIMM = {
    name: name
    for name in (
        "mixup_alpha",
        "cutmix_alpha",
        "cutmix_minmax",
        "switch_prob",
        "mode",
        "correct_lam",
        "label_smoothing",
        "num_classes",
        "multi_label",
    )
} | {"prob": "mix_prob"}


def mixes_in(transform: Transform) -> list[Mixing]:
    """The mixes that a transform is or holds."""
    own = [transform] if isinstance(transform, Mixing) else []
    return own + [m for c in transform.children for m in mixes_in(c)]
