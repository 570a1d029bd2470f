"""The first calls of a process: what they make torch load, which is not much."""

import os
import sys

import children
import loading
import pytest

# of torch: distributed tensors, its compiler, and what those load; seconds, and up to 100 MB
HEAVY = {"torch.distributed.tensor", "torch._dynamo", "torch._inductor", "sympy", "networkx"}
OTHERS = {"kornia", "matplotlib", "scipy.linalg", "sklearn", "triton"}

TRACED = """
import sys, torch, gpuaug as ga
from gpuaug import ir
from gpuaug.trace.recipe import trace_build
loaded, count = set(sys.modules), 0
frame = ir.Frame(torch.tensor([[48, 48]] * 3), (48, 48), 3, torch.float32)
for i, kind in enumerate(ga.REGISTRY.values()):
    with torch.inference_mode(i % 2 == 1):
        count += trace_build(frame, ga.Policy([kind(**kind.example)])._builder("cpu")).instructions > 0
assert count > 0.7 * len(ga.REGISTRY), "vacuous"
print(*sorted(set(sys.modules) - loaded))
"""

REFUSED = """
import sys, torch, gpuaug as ga
from dataclasses import dataclass
from gpuaug import ir
from gpuaug.trace.recipe import Untraceable, trace_build
loaded = set(sys.modules)

@dataclass(frozen=True)
class Looks(ga.RandomInvert):
    at: int = 0

    def sample(self, draw, frame):
        drawn = super().sample(draw, frame)
        LOOKS[self.at](drawn["apply"])
        return drawn

LOOKS = [
    lambda x: bool(x.any()),
    lambda x: x.tolist(),
    lambda x: x.nonzero(),
    lambda x: x[x],
    lambda x: x.sum().item(),
    lambda x: x.float().mean(),
    lambda x: torch.rand_like(x.float()),
    lambda x: torch.bernoulli(x.float()),
]
frame = ir.Frame(torch.tensor([[48, 48]] * 3), (48, 48), 3, torch.uint8)
for at in range(len(LOOKS)):
    try:
        trace_build(frame, ga.Policy([Looks(0.5, at)])._builder("cpu"))
    except Untraceable:
        continue
    raise AssertionError(f"{at} is traced: vacuous")
print(*sorted(set(sys.modules) - loaded))
"""

CALLED = """
import sys, torch, gpuaug as ga
loaded = set(sys.modules)
policy, images = ga.presets.strength("moderate", 24), torch.zeros(3, 3, 30, 40, dtype=torch.uint8)
for _ in range(2):
    policy(images)
with ga.data.Loader(sys.argv[1], ga.presets.strength("moderate", 24), 4, device="cpu", num_threads=1) as loader:
    for _, batch in zip(range(2), loader):
        assert len(batch.images) == 4
assert "gpuaug.trace.host" in sys.modules, "vacuous"
print(*sorted(set(sys.modules) - loaded))
"""


def loads(code: str, *arguments: object) -> set[str]:
    """What a new process loads that runs some code."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = children.run([sys.executable, "-c", code, *arguments], env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("code", [TRACED, REFUSED], ids=["traced", "refused"])
def test_no_trace_makes_torch_load_distributed_tensors_or_its_compiler(code):
    assert not loads(code) & HEAVY


def test_two_calls_and_two_batches_of_a_loader_load_nothing_that_they_do_without(tmp_path):
    found = loads(CALLED, loading.folder(tmp_path))
    assert not found & (HEAVY | OTHERS)
