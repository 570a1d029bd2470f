"""Ring 6: the shape of the package.  Imports point down, passes are complete, transforms are values with torchvision's
arguments."""

import ast
import copy
import inspect
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, FrozenInstanceError, fields, is_dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
from build import build, case, cases, spec
from compare import TOLERANCES
from specs import FAMILIES, SPECS

import gpuaug as ga
from gpuaug import ir, mixing, serial
from gpuaug.exec import reference
from gpuaug.exec.cpu import encode
from gpuaug.exec.triton import canonical, rules

ROOT = Path(ga.__file__).parent.parent

# rooms from the ground up: a module imports from rooms below its own, or from its own, where no circle may arise.  A
# name stands for a module, or for a package with all that is in it and has no name of its own here
ROOMS = [
    {"gpuaug.version", "gpuaug.arguments", "gpuaug.loading", "gpuaug.numba_cache", "gpuaug_kernels"},
    {
        "gpuaug.ir",
        "gpuaug.rng",
        "gpuaug.arrays",
        "gpuaug.dtypes",
        "gpuaug.gathered",
        "gpuaug.strides",
        "gpuaug.pieces",
        "gpuaug.listed",
        "gpuaug.images",
        "gpuaug.displayed",
        "gpuaug.drawn",
        "gpuaug.batch",
        "gpuaug.symbolic",
    },
    {
        "gpuaug.transforms.base",
        "gpuaug.fuse",
        "gpuaug.windows",
        "gpuaug.mixing",
        "gpuaug.targets",
        "gpuaug.numbering",
        "gpuaug.data",
    },
    {"gpuaug.transforms", "gpuaug.trace", "gpuaug.exec", "gpuaug.torch_compile"},
    {"gpuaug.follow"},
    {
        "gpuaug.serial",
        "gpuaug.call",
        "gpuaug.ahead",
        "gpuaug.samples",
        "gpuaug.replays",
        "gpuaug.views",
        "gpuaug.videos",
    },
    {"gpuaug.policy", "gpuaug.functional"},
    {
        "gpuaug.interop",
        "gpuaug.multicrop",
        "gpuaug.presets",
        "gpuaug.losses",
        "gpuaug.imbalance",
        "gpuaug.lint_effects",
        "gpuaug.tta",
        "gpuaug.expand",
    },
    {"gpuaug.lint_rules"},
    {"gpuaug.lint", "gpuaug.pictures", "gpuaug.variants"},
    {"gpuaug.show", "gpuaug.audit"},
    {"gpuaug.apps"},
    {"gpuaug", "gpuaug.__main__"},
]
LEVEL = {m: i for i, room in enumerate(ROOMS) for m in room}


def level(name: str) -> int:
    """Of the room that a module stands in: that of the longest name which it is, or lies in."""
    parts = name.split(".")
    # the package itself is the roof, not the room of whatever is not named
    known = [".".join(parts[:k]) for k in range(len(parts), 0, -1) if k > 1 or len(parts) == 1 or parts[0] != "gpuaug"]
    found = next((n for n in known if n in LEVEL), None)
    assert found, f"{name} stands in no room of tests/test_structure.py: say where it belongs"
    return LEVEL[found]


def modules(root: Path) -> dict[str, Path]:
    files = sorted(root.rglob("*.py"))
    return {".".join(f.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


SOURCES = modules(ROOT / "gpuaug") | modules(ROOT / "kernels" / "gpuaug_kernels")
EACH = pytest.mark.parametrize("name", sorted(SOURCES))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: absolute imports only"
            for a in node.names:
                full = f"{node.module}.{a.name}"
                yield full if full in SOURCES else node.module


@EACH
def test_imports_point_down(name):
    for target in imports(SOURCES[name]):
        if target in SOURCES:
            assert level(target) <= level(name), (
                f"{name} (room {level(name)}) imports {target} (room {level(target)}), which stands above it"
            )


def test_imports_make_no_circle():
    graph = {name: {t for t in imports(path) if t in SOURCES} - {name} for name, path in SOURCES.items()}
    assert sum(map(len, graph.values())) > 100, "vacuous: no imports were found"
    # a package takes from its modules what it shows, which is no circle: Python has begun it before them
    order = TopologicalSorter({name: targets for name, targets in graph.items()})
    try:
        order.prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None


@EACH
def test_nothing_knows_what_it_must_not(name):
    for target in imports(SOURCES[name]):
        if name.startswith("gpuaug_kernels"):
            assert target.split(".")[0] != "gpuaug", f"{name} imports {target}: kernels know nothing of gpuaug"
        if name.startswith("gpuaug.transforms"):
            assert not target.startswith("gpuaug.exec"), f"{name} imports {target}: transforms know no executor"
        if name.startswith("gpuaug.exec"):
            assert not target.startswith("gpuaug.transforms"), f"{name} imports {target}: executors know no transform"
        # numbers without Triton, for everybody
        if target.startswith("gpuaug_kernels") and target != "gpuaug_kernels.codes":
            may = {
                "gpuaug.exec.triton.ahead",
                "gpuaug.exec.triton.calls",
                "gpuaug.exec.triton.executor",
                "gpuaug.exec.triton.labels",
                "gpuaug.exec.triton.marshal",
                "gpuaug.exec.triton.rules",
                "gpuaug.exec.triton",
                "gpuaug.trace.device",
            }
            assert name in may or name.startswith("gpuaug_kernels"), (
                f"{name} imports {target}: only {', '.join(sorted(may))} may"
            )


def test_no_room_names_a_module_that_is_gone():
    assert LEVEL.keys() - SOURCES.keys() == set()
    assert len(SOURCES) > 30, "vacuous: the sources were not found"


@EACH
def test_a_file_is_one_idea_of_at_most_five_hundred_lines(name):
    lines = SOURCES[name].read_text().splitlines()
    assert len(lines) <= 500, f"{name} has {len(lines)} lines: it is two ideas"
    assert len(lines) < 2 or lines[0].startswith('"""'), f"{name} does not begin with what it is"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda p: p.name)
def test_a_test_file_is_short_too_and_skips_nothing(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 500, f"{path.name} has {len(text.splitlines())} lines"
    assert not re.search(r"pytest\.(mark\.)?(skip|importorskip)" + r"\b", text), (
        f"{path.name} skips: a test that does not run is no test"
    )


BANNED = re.compile(
    r"\b(torch|np|numpy)\.(random|rand|randn|randint|randperm|bernoulli|multinomial|normal|manual_seed|Generator"
    r"|rand_like|randn_like|seed)\b"
    r"|\.(uniform_|normal_|random_|bernoulli_|exponential_|cauchy_|geometric_|log_normal_)\("
    r"|torch\.distributions\.\w+\(|^\s*(import|from) random\b|tl\.rand\w*\("
)


@EACH
def test_randomness_comes_from_draw_alone(name):
    tree = SOURCES[name].read_text()
    for number, line in enumerate(tree.splitlines(), 1):
        assert not BANNED.search(line.split("#")[0]), f"{name}:{number} draws elsewhere: {line.strip()}"


def test_the_ban_on_randomness_sees_what_it_must():
    for line in (
        "x = torch.rand(3)",
        "np.random.seed(0)",
        "import random",
        "x.uniform_(0, 1)",
        "torch.bernoulli(p)",
        "tl.rand(seed, i)",
        "torch.randperm(5)",
    ):
        assert BANNED.search(line), line
    for line in ("draw.uniform()", "def normal(self)", "from gpuaug.rng import Draw", "randomly", "self.random"):
        assert not BANNED.search(line), line


# ---- import gpuaug

LOADED = """
import sys, time
import torch
before = set(sys.modules)
# of this process alone: others share the cores
start = time.process_time()
import gpuaug
took = time.process_time() - start
new = {m.split(".")[0] for m in set(sys.modules) - before}
engines = {"triton", "numba", "kornia", "nvidia", "torchvision", "matplotlib", "rich", "typer", "PIL", "skimage", "scipy"}
print(took, *sorted(new & engines))
"""


def test_importing_gpuaug_is_quick_and_loads_no_engine():
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    best = 9.0
    for _ in range(12):
        out = subprocess.run(
            [sys.executable, "-c", LOADED], env=env, capture_output=True, text=True, check=True
        ).stdout.split()
        assert out[1:] == [], f"import gpuaug loads {', '.join(out[1:])}"
        best = min(best, float(out[0]))
        if best <= 0.1:
            break
    assert best <= 0.2, f"import gpuaug takes {best:.2f} s beyond import torch"


# ---- passes


def concrete(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        if is_dataclass(sub) and sub.__module__ == "gpuaug.ir":
            yield sub
        yield from concrete(sub)


PASSES = sorted(set(concrete(ir.Pass)), key=lambda c: c.__name__)


@pytest.mark.parametrize("cls", PASSES, ids=lambda c: c.__name__)
def test_every_pass_has_its_rules(cls):
    assert reference.apply.dispatch(cls) is not reference.apply.dispatch(object), (
        f"exec/reference.py has no rule for {cls.__name__}"
    )
    # these run by the reference alone; the end is what executors do anyway, and a blur is two passes there
    if cls not in (ir.Custom, ir.Blend, ir.Jpeg, ir.Elastic):
        assert encode.emit.dispatch(cls) is not encode.emit.dispatch(ir.Pass), (
            f"exec/cpu/encode.py has no rule for {cls.__name__}"
        )
        known = rules.rule.dispatch(cls) is not rules.rule.dispatch(ir.Pass)
        assert known or canonical.rewrite.dispatch(cls) is not canonical.rewrite.dispatch(ir.Pass), (
            f"exec/triton/rules.py and canonical.py have no rule for {cls.__name__}"
        )
    if issubclass(cls, ir.Mix):
        assert mixing.before.dispatch(cls) is not mixing.before.dispatch(object), (
            f"mixing.py does not say what {cls.__name__} does to labels"
        )
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("), (
        f"{cls.__name__} does not say what it computes"
    )
    assert not cls.__dataclass_params__.eq and cls.__dataclass_params__.frozen


def test_an_executor_names_the_pass_it_lacks():
    class Unheard(ir.Pass):
        pass

    with pytest.raises(NotImplementedError, match="reference executor has no rule for Unheard"):
        reference.apply(Unheard(), torch.zeros(1, 3, 2, 2), None)
    assert len(PASSES) > 20, "vacuous"


# ---- transforms


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_a_transform_has_a_spec_that_leaves_nothing_out(name):
    of, cls = spec(name), ga.REGISTRY[name]
    family = cls.__module__.rsplit(".", 1)[-1]
    where = f"SPECS[{name!r}] of tests/support/specs/{family}.py"
    homes = [f.__name__ for f in FAMILIES if name in f.SPECS]
    assert homes == [f"specs.{family}"], f"{where} stands in {homes}"
    assert of.arguments, f"{where} has no arguments to test with"
    for args in (*of.arguments, of.fine, *(r.arguments for r in of.refuses)):
        assert args.keys() <= {f.name for f in fields(cls)}, f"{where} gives {name} what it does not take: {args}"
    refused = {list(r.arguments)[-1] for r in of.refuses}
    missing = sorted({f.name for f in fields(cls)} - refused)
    assert not missing, f"{where} refuses nothing as {', '.join(missing)}: add refused({missing[0]!r}, ...)"
    for args in of.arguments:
        assert of.kind(args) in TOLERANCES, f"{where} has the tolerance {of.kind(args)!r}, which compare.py has not"


def test_there_is_no_spec_of_what_is_no_transform():
    assert SPECS.keys() - ga.REGISTRY.keys() == set()
    assert sum(len(f.SPECS) for f in FAMILIES) == len(SPECS), "two families have a Spec of one name"


def test_an_oracle_never_imports_its_subject():
    """Specs are another's word on what a transform is: torchvision's, Pillow's and numpy's."""
    support = ROOT / "tests" / "support"
    files = [support / "oracles.py", *sorted((support / "specs").glob("*.py"))]
    assert len(files) > 8, "vacuous"
    for path in files:
        for target in imports(path):
            top = target.split(".")[0]
            assert top in {"oracles", "specs", "numpy", "torch", "torchvision", "PIL", *sys.stdlib_module_names}, (
                f"{path.name} imports {target}"
            )


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_a_transform_is_public_frozen_and_explained(name):
    cls = ga.REGISTRY[name]
    assert name in ga.__all__ and getattr(ga, name) is cls and cls.__name__ == name
    assert is_dataclass(cls) and cls.__dataclass_params__.frozen and issubclass(cls, ga.Transform)
    assert cls.__doc__ and not cls.__doc__.startswith(f"{name}(")
    example = cls(**cls.example)
    for f in fields(cls):
        with pytest.raises(FrozenInstanceError):
            setattr(example, f.name, None)


def test_every_public_name_is_there():
    for name in ga.__all__:
        assert hasattr(ga, name), name
    for name in ("Policy", "Batch", "Params", "Ragged", "REGISTRY", "Transform"):
        assert hasattr(ga, name), name


@pytest.mark.parametrize(("name", "i"), cases())
def test_a_transform_is_a_value(name, i):
    t, again = build(name, case(name, i)), build(name, case(name, i))
    assert t == again and hash(t) == hash(again) and len({t, again}) == 1
    assert eval(repr(t), {"torch": torch, **vars(ga)}) == t, repr(t)
    for other in (pickle.loads(pickle.dumps(t)), copy.copy(t), copy.deepcopy(t), serial.from_dict(serial.to_dict(t))):
        assert other == t and type(other) is type(t) and hash(other) == hash(t)
    policy = ga.Policy([t], seed=3)
    assert ga.Policy.from_dict(serial.from_yaml(serial.to_yaml(policy.to_dict()))).transforms == (t,)
    different = [
        build(name, args) for j, args in enumerate(map(lambda k: case(name, k), range(len(cases_of(name))))) if j != i
    ]
    assert all(t != d for d in different), "two sets of arguments make one value"


def cases_of(name: str) -> list:
    return [c for c in cases() if c.values[0] == name]


def of_numpy(value: Any) -> Any:
    """The same arguments with numbers of numpy."""
    if isinstance(value, dict):
        return {k: of_numpy(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(of_numpy(v) for v in value)
    kinds = {int: np.int64, float: np.float64}
    return kinds[type(value)](value) if type(value) in kinds else value


@pytest.mark.parametrize(("name", "i"), cases())
def test_numbers_of_numpy_are_stored_as_plain_ones(name, i):
    """So that a value prints, compares and goes through YAML whatever it was made from."""
    plain, made = build(name, case(name, i)), build(name, of_numpy(case(name, i)))
    assert made == plain and repr(made) == repr(plain)
    policy = ga.Policy([made], seed=np.int64(5))
    assert ga.Policy.from_dict(serial.from_yaml(serial.to_yaml(policy.to_dict()))) == policy == ga.Policy([plain], 5)


def test_numbers_of_numpy_are_tried():
    given = [of_numpy(s.arguments) for s in SPECS.values()]
    assert sum("np.float64" in repr(a) for a in given) > 10 and sum("np.int64" in repr(a) for a in given) > 8


@pytest.mark.parametrize("name", sorted(n for n in ga.REGISTRY if hasattr(v2, n)))
def test_arguments_their_order_and_defaults_are_torchvisions(name):
    theirs = {
        k: p.default
        for k, p in inspect.signature(getattr(v2, name).__init__).parameters.items()
        if k != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    for gone in spec(name).lacks:
        theirs.pop(gone)
    every = {f.name: f.default for f in fields(ga.REGISTRY[name])}
    ours = {k: v for k, v in every.items() if k not in spec(name).adds}
    assert list(ours) == list(theirs) == list(every)[: len(theirs)]
    for k, default in theirs.items():
        required = default is inspect.Parameter.empty
        assert required == (ours[k] is MISSING), f"{name}.{k} has a default in one place only"
        if not required:
            value = getattr(default, "value", default)
            assert ours[k] == (tuple(value) if isinstance(value, list) else value), (
                f"{name}.{k} is {ours[k]} instead of {value}"
            )


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_the_transforms_that_torchvision_lacks_are_marked_as_ours(name):
    assert spec(name).ours != hasattr(v2, name)


def test_the_arguments_of_salt_and_pepper_stay_as_they_are():
    assert [(f.name, f.default) for f in fields(ga.SaltAndPepper)] == [
        ("amount", 0.05),
        ("salt_vs_pepper", 0.5),
        ("per_channel", False),
    ]
