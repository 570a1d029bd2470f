"""Specs of the transforms that choose among other transforms per sample."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from oracles import Args, Draws, Sample, coin
from torch import Tensor

from specs.base import BAD_P, NAN, Class, Instance, Spec, refused

INSIDE = (("RandomInvert", {"p": 0.9}), ("SaltAndPepper", {"amount": 0.3}), ("RandomSolarize", {"threshold": 0.4}))
NESTED = (
    ("RandomApply", {"transforms": INSIDE, "p": 0.7}),
    ("GaussianNoise", {"sigma": 0.2}),
    ("RandomHorizontalFlip", {"p": 0.6}),
)
INVERT = Instance("RandomInvert")


def child(name: str) -> Spec:
    """The Spec of a transform inside; they are all there only when a container asks."""
    from specs import SPECS as every

    return every[name]


def children(a: Args, slot: int) -> list[tuple[str, Args, int]]:
    """Name, arguments and slot of each child: depth first, after the container itself."""
    out = []
    for name, args in a["transforms"]:
        out.append((name, args, slot + 1))
        slot += spanned(args)
    return out


def spanned(a: Args) -> int:
    """Slots that a transform of these arguments takes."""
    return 1 + sum(spanned(args) for _, args in a.get("transforms", ()))


def contain(indices: Callable[[Args, Args], list[int]]) -> Callable[[Args, Tensor, Args, Sample], Tensor]:
    """A container that runs its children in the order of `indices`."""

    def meaning(a: Args, x: Tensor, p: Args, s: Sample) -> Tensor:
        parts = children(a, s.slot)
        for i in indices(a, p):
            name, args, slot = parts[i]
            x = child(name).meaning(args, x, p["transforms"][i], replace(s, slot=slot))
        return x

    return meaning


def inside(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> list[Draws]:
    return [child(name).draws(args, n, size, rng) for name, args in a["transforms"]]


def drawn_apply(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    return {"apply": coin(rng, n, a.get("p", 0.5)), "transforms": inside(a, n, size, rng)}


def drawn_choice(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    weights = np.asarray(a.get("p") or [1.0] * len(a["transforms"]))
    index = rng.choice(len(weights), n, p=weights / weights.sum())
    return {"index": index, "transforms": inside(a, n, size, rng)}


def drawn_order(a: Args, n: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    order = rng.permuted(np.tile(np.arange(len(a["transforms"])), (n, 1)), axis=1)
    return {"order": order, "transforms": inside(a, n, size, rng)}


SPECS = {
    "RandomApply": Spec(
        arguments=({"transforms": INSIDE, "p": 0.5}, {"transforms": NESTED, "p": 0.8}),
        tolerance="jump",
        meaning=contain(lambda a, p: list(range(len(a["transforms"]))) if bool(p["apply"]) else []),
        draws=drawn_apply,
        fine={"transforms": [INVERT]},
        refuses=(
            *refused("transforms", [], None, 3, "RandomInvert", INVERT),
            *refused("transforms", [Class("RandomInvert")], [3], [None], [print]),
            *BAD_P,
        ),
    ),
    "RandomChoice": Spec(
        arguments=({"transforms": INSIDE, "p": (0.2, 0.5, 0.3)}, {"transforms": NESTED}),
        tolerance="jump",
        meaning=contain(lambda a, p: [int(p["index"])]),
        draws=drawn_choice,
        fine={"transforms": [INVERT, INVERT]},
        refuses=(
            *refused("transforms", [], None, [3], INVERT),
            *refused("p", (0.5,), (0.5, 0.2, 0.3), (-0.5, 1.5), (0, 0), (NAN, 1), "ab", 0.5),
        ),
    ),
    "RandomOrder": Spec(
        arguments=({"transforms": INSIDE}, {"transforms": NESTED}),
        tolerance="jump",
        meaning=contain(lambda a, p: p["order"].tolist()),
        draws=drawn_order,
        fine={"transforms": [INVERT]},
        refuses=refused("transforms", [], None, [3], INVERT, [Class("RandomInvert")]),
    ),
}
