"""The kernel that mixes labels after a chain of mixes, crops and flips gives what operations of torch give, to the bit."""

import os
import sys
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
import torch
from build import quick
from gpuaug_kernels import label_chains, labels
from test_mixed_labels import CHAINS, SIZE, random_passes
from torch import Tensor
from waits import CARD, card

import gpuaug as ga
from gpuaug import ir, mixing, targets
from gpuaug.exec.triton.labels import Chain, accounted, follow_labels

N = 6
NOISE = torch.Generator().manual_seed(3)
VALID = torch.tensor([True, False, True, True, True, False])


def chain(seed: int) -> ir.Sequence:
    """Mixes, flips and crops that change the size, at least two passes and one mix."""
    rng = np.random.default_rng(seed)
    while True:
        passes = [*random_passes(rng, 0), *random_passes(rng, 0)]
        h, w = SIZE
        inverse = torch.eye(3, dtype=torch.float64).repeat(N, 1, 1)
        inverse[:, 0, 0], inverse[:, 1, 1] = torch.from_numpy(rng.uniform(0.4, 1.3, (2, N)))
        inverse[:, 0, 2], inverse[:, 1, 2] = torch.from_numpy(rng.uniform(-3.0, 4.0, (2, N)))
        source = torch.tensor([[0, 0, w, h]]).expand(N, 4)
        live = torch.from_numpy(rng.integers(-2, 3, (N, 4))) + torch.tensor([1, 1, w - 1, h - 1])
        foot, size = torch.ones(N, 2, dtype=torch.float64), torch.tensor([SIZE]).expand(N, 2)
        kernel = ("floor", "triangle")[seed % 2]
        passes.insert(
            int(rng.integers(1, len(passes) + 1)),
            ir.Resample(inverse, foot, source, source, live, size, SIZE, kernel, "constant"),
        )
        found = mixing.for_labels(tuple(passes))
        if len(found) > 1 and sum(isinstance(p, ir.Mix) for p in found) <= label_chains.MOST_MIXES:
            return found


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.uint8)


def check(passes: ir.Sequence, given: Tensor, classes: int, *about: Any) -> Tensor:
    made = accounted(passes)
    assert isinstance(made, Chain)
    want = targets.follow(passes, given, classes, *about)
    got = follow_labels(made, given, classes, *about)
    assert got.dtype == want.dtype and torch.equal(bits(got), bits(want))
    return got


@pytest.mark.parametrize("seed", quick(range(12), *range(4)))
def test_rows_are_those_of_torch_to_the_bit(seed):
    got = check(chain(seed), torch.eye(N, dtype=torch.float64), N)
    assert torch.allclose(got.sum(1), torch.ones(N, dtype=torch.float64)) and (got < 1).all(1).any(), "vacuous"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 60))
def test_rows_of_any_chain_are_those_of_torch_to_the_bit(seed):
    check(chain(seed), torch.eye(N, dtype=torch.float64), N)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint64, *labels.FLOATS])
def test_labels_may_be_of_any_dtype(dtype):
    for classes, about in ((5, (None, 0.0)), (70, (VALID, 0.1))):
        given = (
            torch.rand(N, classes, generator=NOISE, dtype=torch.float64).to(dtype)
            if dtype.is_floating_point
            else torch.randint(0, classes, (N,), generator=NOISE).to(dtype)
        )
        check(chain(3), given, classes, *about)


def test_rows_may_lie_anyhow_in_memory():
    x = torch.rand(N, 12, generator=NOISE)
    for given in (x.t().contiguous().t(), x[:, ::2], x.repeat(2, 1)[::2]):
        check(chain(4), given, given.shape[1])


def test_a_batch_may_have_one_sample_or_none():
    box, far = torch.tensor([[2, 1, 9, 7]]), torch.tensor([SIZE])
    for n in (0, 1):
        partner = torch.zeros(n, dtype=torch.int64)
        cut, mean = ir.CutMix(partner, box[:n], far[:n]), ir.MixUp(partner, torch.full((n,), 0.3))
        check((cut, mean), torch.zeros(n, dtype=torch.int64), 5)


def test_more_mixes_than_a_kernel_follows_are_followed_by_torch():
    mean = ir.MixUp(torch.arange(N).roll(1), torch.rand(N, generator=NOISE))
    for count in range(1, label_chains.MOST_MIXES + 3):
        passes = (mean,) * count
        assert isinstance(accounted(passes), Chain) == (1 < count <= label_chains.MOST_MIXES)
        want = targets.follow(passes, torch.arange(N), N)
        assert torch.equal(follow_labels(accounted(passes), torch.arange(N), N), want)
    check((mean,) * label_chains.MOST_MIXES, torch.arange(N), N)


def test_rows_that_ask_for_a_gradient_keep_it():
    passes, rows = chain(5), torch.rand(N, 5, generator=NOISE).requires_grad_()
    got = follow_labels(accounted(passes), rows, 5)
    assert torch.allclose(got, targets.follow(passes, rows, 5), atol=1e-6)
    got.sum().backward()
    assert rows.grad is not None and rows.grad.any()


@pytest.mark.parametrize("wrong", ["partners", "numbers", "valid"])
def test_the_launcher_refuses_what_it_would_misread(wrong):
    made = accounted(chain(3))
    given = {"partners": made.partners, "numbers": made.numbers, "valid": VALID}
    given[wrong] = given[wrong][:2] if wrong == "valid" else given[wrong].float()
    with pytest.raises(ValueError, match=f"{wrong} must be contiguous"):
        label_chains.mixed(torch.zeros(N, dtype=torch.int64), 5, made.records, **given, smoothing=0.0)


COMPILED = """
import triton
from gpuaug_kernels import codes, label_chains, labels
from triton.backends.compiler import GPUTarget

crop, inside = (codes.MOVED, 0, 0, 1), (codes.MIX_INSIDE, 15, 0, 0)
for target in 80, 90:
    kernel = label_chains.ahead((*crop, *inside, codes.CUTMIX, 20, 1, 0, codes.MIXUP, 24, 2, 0), 27, 10)
    made = triton.compile(kernel, target=GPUTarget("cuda", target, 32), options=labels.options(32))
    print(made.asm["ptx"].count("mul.rn.f64"), made.asm["ptx"].count("fma.rn.f64"), made.asm["ptx"].count("div.rn.f64"))
"""


def test_on_a_card_products_and_sums_stay_apart():
    env = os.environ | {"PYTHONPATH": str(Path(labels.__file__).parents[1]), "TRITON_INTERPRET": "0"}
    done = children.run([sys.executable, "-c", COMPILED], env=env)
    assert done.returncode == 0, done.stderr
    counts = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(counts) == 2 and all(products > 10 and fused == 0 < divided for products, fused, divided in counts)


# ---- of a policy

# a choice among passes that are not one mix each
BY_TORCH = {"a flip or a cut"}


@pytest.mark.parametrize("name", CHAINS)
def test_labels_of_a_chain_take_one_launch_on_a_card_and_nothing_else(name):
    policy = ga.Policy([*CHAINS[name]])
    with card() as on:
        x, ids = torch.zeros(N, 3, 41, 53, device=CARD), torch.zeros(N, dtype=torch.int64, device=CARD)

        def work(given: Tensor | None) -> list[str]:
            on.work.clear()
            policy._prepare(x, given, ids, 1, ids, "auto", need_labels=False).go(None)
            return sorted(on.work)

        on.refuses = False
        work(ids)
        on.refuses = True
        more = len(work(ids)) - len(work(None))
        assert work(ids) == sorted([*work(None), "kernel"]) if name not in BY_TORCH else more > 100
    assert (", 1 for labels" in policy.describe(SIZE, dtype=torch.float32, backend="triton")) == (name not in BY_TORCH)
