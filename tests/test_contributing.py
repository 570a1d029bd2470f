"""CONTRIBUTING.md says what is true: its example is a transform, its files and names exist."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import oracles
import pytest
import specs
import torch
from compare import changed, compare
from specs import base, colour

import gpuaug as ga
from gpuaug import arguments
from gpuaug.transforms import colour as family

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHAPTER = TEXT.split("## Adding a transform\n")[1].split("\n## ")[0]
CLASS, SPEC = re.findall(r"^```python\n(.*?)^```$", CHAPTER, re.M | re.S)


def made() -> tuple[type[ga.Transform], base.Spec]:
    """The example's class and Spec, among the names of the files that they go into."""
    names = {**vars(family)}
    exec(compile(CLASS, "CONTRIBUTING.md, the class", "exec"), names)
    around = {**vars(oracles), **vars(base), **vars(colour)}
    ((name, spec),) = eval(compile(f"{{{SPEC}}}", "CONTRIBUTING.md, the Spec", "eval"), around).items()
    return names[name], spec


def test_the_example_does_what_its_spec_says(images):
    cls, spec = made()
    x, ids, tried = images(9, 21, 17), torch.arange(9) + 2**33, 0.0
    for args in spec.arguments:
        policy = ga.Policy([cls(**args)], seed=3)
        params = policy.draw(ids, size=(21, 17), dtype=torch.float32)
        for backend in ("reference", "cpu"):
            got = policy.replay(x, params, backend=backend)
            want = [
                spec.meaning(args, image, oracles.only(params[0], n), oracles.Sample(n, tuple(x), 3, 0, int(ids[n]), 0))
                for n, image in enumerate(x)
            ]
            compare(got, torch.stack(want), spec.kind(args), backend)
            tried += changed(got, x)
        theirs = spec.draws(args, 500, (21, 17), np.random.default_rng(1))
        assert {k: v.shape[1:] for k, v in params[0].items()} == {k: v.shape[1:] for k, v in theirs.items()}
    assert tried > 0.3, "vacuous"
    assert "draws in one compiled call" in ga.Policy([cls(**cls.example)]).describe((21, 17))


def test_the_example_refuses_what_its_spec_says():
    cls, spec = made()
    assert {list(r.arguments)[-1] for r in spec.refuses} == {f.name for f in fields(cls)}
    for bad in spec.refuses:
        with pytest.raises((ValueError, TypeError), match=list(bad.arguments)[-1]):
            cls(**{**spec.fine, **bad.arguments})


def test_every_family_is_in_the_table():
    table = {name for row in re.findall(r"^\|(.*?)\|", CHAPTER, re.M) for name in re.findall(r"`(\w+)\.py`", row)}
    assert table == {f.__name__.removeprefix("specs.") for f in specs.FAMILIES}


def test_every_file_and_check_named_exists():
    named = set(re.findall(r"(?:gpuaug|kernels|tests|bench)/[\w./]*\w", TEXT))
    assert {"gpuaug/ir.py", "gpuaug/transforms/base.py", "tests/support/golden.py"} <= named
    assert not [name for name in named if not (ROOT / name).exists()]
    checks = re.search(r"a check of `gpuaug/arguments.py`: (.*?) around one", CHAPTER, re.S).group(1)
    listed = re.findall(r"`(\w+)`", checks)
    assert len(listed) > 10 and not [name for name in listed if not hasattr(arguments, name)]
