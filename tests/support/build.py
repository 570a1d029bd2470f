"""Transforms made from the Specs of tests/support/specs/, which doesn't know gpuaug."""

from collections.abc import Iterable
from typing import Any

import pytest
from specs import SPECS, Spec
from specs.base import Class, Instance

import gpuaug as ga


def build(name: str, args: dict[str, Any]) -> ga.Transform:
    """A gpuaug transform; children of containers are (name, arguments) too."""
    nested = {"transforms": [build(*c) for c in args["transforms"]]} if "transforms" in args else {}
    return getattr(ga, name)(**{**args, **nested})


def resolved(value: Any) -> Any:
    """What a Spec cannot name without gpuaug: an Instance as a transform, a Class as its class, in lists and
    arguments too."""
    if isinstance(value, Instance):
        return getattr(ga, value.name)()
    if isinstance(value, Class):
        return getattr(ga, value.name)
    if isinstance(value, list):
        return [resolved(v) for v in value]
    return {k: resolved(v) for k, v in value.items()} if isinstance(value, dict) else value


def spec(name: str) -> Spec:
    """The Spec of a transform, or a failure that says where it is missing."""
    family = ga.REGISTRY[name].__module__.rsplit(".", 1)[-1]
    assert name in SPECS, f"{name} has no Spec: add SPECS[{name!r}] to tests/support/specs/{family}.py"
    return SPECS[name]


def cases(quick: int | None = None) -> list[Any]:
    """Every transform of the registry with every set of arguments; one without a Spec is there too, so that a test
    names it.  quick: of a dear test, how many sets of a transform the fast suite takes; the others are slow."""
    return [
        pytest.param(name, i, id=f"{name}-{i}", marks=[pytest.mark.slow] if quick is not None and i >= quick else [])
        for name in sorted(ga.REGISTRY)
        for i in range(len(SPECS[name].arguments) if name in SPECS else 1)
    ]


def quick(values: Iterable[Any], *kept: Any) -> list[Any]:
    """The arguments of a dear test: `kept` stand for the others in the fast suite, which are slow.  A tuple stands for
    several arguments."""
    values = list(values)
    assert kept and all(k in values for k in kept), "vacuous"
    every = [(v, v if isinstance(v, tuple) else (v,)) for v in values]
    return [pytest.param(*row, marks=[] if v in kept else [pytest.mark.slow]) for v, row in every]


def case(name: str, i: int) -> dict[str, Any]:
    return spec(name).arguments[i]
