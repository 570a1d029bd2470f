"""Every bad argument of a transform is refused at the door, by an error that says what, got, expected and do."""

import re
from dataclasses import InitVar, dataclass, fields
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from build import resolved, spec
from specs import SPECS

import gpuaug as ga
from gpuaug import arguments


def rows() -> list:
    return [
        # without the addresses of functions, which differ from process to process
        pytest.param(name, bad, id=re.sub(r" at 0x\w+", "", f"{name}-{bad.arguments}"))
        for name, s in sorted(SPECS.items())
        for bad in s.refuses
    ]


def values(bad: object) -> set[str]:
    """How the message may show what it got: the whole argument, or the part of it that is wrong."""
    out = {repr(bad), str(bad)}
    if isinstance(bad, float):
        out.add(f"{bad:g}")
    if isinstance(bad, dict):
        out.add("got a dict")
    if isinstance(bad, list | tuple):
        flat = f"({', '.join(f'{v:g}' for v in bad if isinstance(v, float | int))})"
        out |= {f"got {len(bad)}", f"got 3 and {len(bad)}", f"got {len(bad)} and 3", flat} | {
            s for v in bad for s in values(v)
        }
    return out


@pytest.mark.parametrize(("name", "bad"), rows())
def test_a_bad_argument_is_refused_by_name_and_value(name, bad):
    make, fine, given = getattr(ga, name), resolved(spec(name).fine), resolved(bad.arguments)
    make(**fine)
    with pytest.raises((ValueError, TypeError)) as caught:
        make(**{**fine, **given})
    text, key = str(caught.value), list(given)[-1]
    assert (bad.names or key) in text, f"{text!r} does not name {bad.names or key}"
    assert "got" in text, f"{text!r} does not say what it got"
    shown = values(given[key]) if bad.shows is None else {bad.shows}
    assert any(v in text for v in shown), f"{text!r} does not show {given[key]!r}"
    assert len(text) < 400 and "Traceback" not in text


FIELDS = [
    pytest.param(name, f.name, id=f"{name}-{f.name}") for name, cls in sorted(ga.REGISTRY.items()) for f in fields(cls)
]


@pytest.mark.parametrize(("name", "argument"), FIELDS)
def test_every_argument_has_a_check(name, argument):
    """Whatever an argument may be, it is none of these."""
    cls = ga.REGISTRY[name]
    for nonsense in (object(), [object()], {}, {"a": 1}, (object(),)):
        with pytest.raises((ValueError, TypeError)) as caught:
            cls(**{**cls.example, argument: nonsense})
        assert argument in str(caught.value) and "got" in str(caught.value), f"{name}: {caught.value}"


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_an_unknown_argument_is_refused(name):
    with pytest.raises(TypeError, match="sharpness_of_soup"):
        ga.REGISTRY[name](sharpness_of_soup=1, **ga.REGISTRY[name].example)


def test_a_check_of_what_is_no_field_is_refused():
    """A misspelt name would leave an argument unchecked."""

    @dataclass(frozen=True)
    class Misspelt(ga.Transform):
        amount: float = 0.5
        checks = {"amuont": arguments.number}

    with pytest.raises(TypeError, match=r"Misspelt checks 'amuont', which is no field of it; it has \['amount'\]"):
        Misspelt()


def test_a_users_transform_needs_no_checks_and_inherits_those_above_it():
    @dataclass(frozen=True)
    class Unchecked(ga.Transform):
        anything: object = None

    @dataclass(frozen=True)
    class Own(ga.Transform):
        doubled: int
        start: InitVar[int] = 1

        def __post_init__(self, start: int) -> None:
            object.__setattr__(self, "doubled", 2 * self.doubled + start)

    @dataclass(frozen=True)
    class WithInitVar(ga.Transform):
        factor: float = 1.0
        unused: InitVar[int] = 1

    @dataclass(frozen=True)
    class Narrow(ga.RandomErasing):
        margin: int = 0
        checks = {"margin": partial(arguments.integer, low=0)}

    assert Unchecked("a").anything == "a" and Own(3).doubled == 7 and WithInitVar(2.0).factor == 2.0
    assert Narrow(1, margin=np.int64(3)) == Narrow(1.0, margin=3)
    for bad in ({"p": 2.0}, {"value": "noise"}, {"margin": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
            Narrow(**bad)


def test_numbers_of_other_kinds_are_numbers():
    """numpy's scalars, fractions and tensors' items are what users have in their hands."""
    assert (
        ga.RandomHorizontalFlip(np.float32(0.5))
        == ga.RandomHorizontalFlip(0.5)
        == ga.RandomHorizontalFlip(Fraction(1, 2))
    )
    assert ga.CenterCrop(np.int64(7)) == ga.CenterCrop(7) == ga.CenterCrop([7, 7]) == ga.CenterCrop((7,))
    assert ga.Normalize(np.array([0.5, 0.25]), torch.tensor([0.5, 0.25])) == ga.Normalize((0.5, 0.25), (0.5, 0.25))
    assert ga.RandomHorizontalFlip(1) == ga.RandomHorizontalFlip(1.0)
    assert ga.RandomResizedCrop([8, 9], scale=[0.1, 1]) == ga.RandomResizedCrop((8, 9), scale=(0.1, 1.0))
    assert ga.RandomApply((ga.RandomInvert(),)) == ga.RandomApply([ga.RandomInvert()])
