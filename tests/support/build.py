"""Transforms from the specifications of tests/support/catalogue.py, which doesn't know gpuaug."""

from typing import Any

import pytest
from catalogue import CASES

import gpuaug as ga


def build(name: str, args: dict[str, Any]) -> ga.Transform:
    """A gpuaug transform; children of containers are (name, arguments) too."""
    nested = {"transforms": [build(*c) for c in args["transforms"]]} if "transforms" in args else {}
    return getattr(ga, name)(**{**args, **nested})


def cases() -> list[Any]:
    """Every transform of the registry with every set of arguments; one without any is there too, so that a test names
    it."""
    return [
        pytest.param(name, i, id=f"{name}-{i}")
        for name in sorted(ga.REGISTRY)
        for i in range(len(CASES.get(name, ((),))))
    ]


def case(name: str, i: int) -> dict[str, Any]:
    assert name in CASES, f"{name} has no arguments to test with: add CASES[{name!r}] to tests/support/catalogue.py"
    return CASES[name][i]
