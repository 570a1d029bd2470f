"""The kernel that mixes labels gives what operations of torch give, to the bit, in the only launch that labels take."""

import os
import sys
from pathlib import Path
from typing import Any

import children
import pytest
import torch
from gpuaug_kernels import labels as kernels
from torch import Tensor
from waits import CARD, card

import gpuaug as ga
from gpuaug import mixing, targets
from gpuaug.exec.triton.labels import follow_labels

N = 6
NOISE = torch.Generator().manual_seed(3)
PAIR = mixing.Pair(
    torch.tensor([2, 0, 3, 3, 5, 1]),
    torch.cat([torch.tensor([0.0, 1.0]), torch.rand(N - 2, generator=NOISE)]).double(),
)
VALID = torch.tensor([True, False, True, True, True, False])
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64)


def numbers(classes: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.randint(0, min(classes, 100), (N,), generator=NOISE).to(dtype)


def rows(classes: int, dtype: torch.dtype) -> Tensor:
    return torch.rand(N, classes, generator=NOISE, dtype=torch.float64).to(dtype)


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.uint8)


def check(labels: Tensor, classes: int, *about: Any, pair: mixing.Pair = PAIR) -> None:
    want = targets.follow(pair, labels, classes, *about)
    got = follow_labels(pair, labels, classes, *about)
    assert got.dtype == want.dtype and got.shape == want.shape == (len(labels), classes)
    assert torch.equal(bits(got), bits(want))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1 / 3])
@pytest.mark.parametrize("valid", [None, VALID], ids=["all valid", "some valid"])
@pytest.mark.parametrize("classes", [1, 10, 1000, 2049])
@pytest.mark.parametrize("dtype", [torch.int64, *kernels.FLOATS])
def test_rows_are_those_of_torch_to_the_bit(dtype, classes, valid, smoothing):
    check(rows(classes, dtype) if dtype.is_floating_point else numbers(classes), classes, valid, smoothing)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_class_numbers_may_be_of_any_integer_dtype(dtype):
    check(numbers(10, dtype), 10, VALID, 0.1)


@pytest.mark.parametrize("dtype", kernels.FLOATS)
def test_rows_may_lie_anyhow_in_memory(dtype):
    x = rows(12, dtype)
    for labels in (x.t().contiguous().t(), x[:, ::2], x[:1].expand(N, 12), x.repeat(2, 1)[::2]):
        check(labels, labels.shape[1], VALID, 0.1)


# numpy, by which the interpreter computes, warns of what a card does in silence
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", kernels.FLOATS)
def test_infinity_and_nan_are_weighed_as_torch_weighs_them(dtype):
    x = rows(12, dtype)
    x[0, :3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    x[3, 2:6] = torch.tensor([torch.inf, -torch.inf, -0.0, torch.finfo(dtype).max])
    for smoothing in (0.0, 0.1):
        want = targets.follow(PAIR, x, 12, None, smoothing)
        got = follow_labels(PAIR, x, 12, None, smoothing)
        assert torch.equal(got.isnan(), want.isnan()) and got.isnan().any() and got.isinf().any(), "vacuous"
        assert torch.equal(bits(got.nan_to_num(7.0)), bits(want.nan_to_num(7.0)))


def test_the_row_of_a_number_that_is_no_class_is_zeros():
    labels = torch.tensor([-1, 10, 3, 4, 2**40, 0])
    got = kernels.mixed(labels, 10, PAIR.partner, PAIR.own, None, 0.0)
    one_hot = (labels[:, None] == torch.arange(10)).float()
    assert torch.equal(got, targets.mixed_labels(PAIR, one_hot)) and not got[4, 1:].any()


def test_a_host_refuses_a_number_that_is_no_class():
    with pytest.raises(ValueError, match=r"labels must be in \[0, 5\), got 0 to 5"):
        follow_labels(PAIR, torch.arange(N), 5)


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bfloat16])
def test_a_batch_may_have_one_sample_or_none(n, dtype):
    pair = mixing.Pair(torch.zeros(n, dtype=torch.int64), torch.full((n,), 0.3, dtype=torch.float64))
    labels = (rows(5, dtype) if dtype.is_floating_point else numbers(5))[:n]
    check(labels, 5, VALID[:n], 0.1, pair=pair)


def test_rows_that_ask_for_a_gradient_keep_it():
    labels = rows(5, torch.float32).requires_grad_()
    follow_labels(PAIR, labels, 5).sum().backward()
    assert labels.grad is not None and labels.grad.any()


@pytest.mark.parametrize(
    "wrong",
    [{"partners": PAIR.partner.int()}, {"shares": PAIR.own.float()}, {"valid": VALID[:2]}],
    ids=lambda w: next(iter(w)),
)
def test_the_launcher_refuses_what_it_would_misread(wrong):
    given = {"partners": PAIR.partner, "shares": PAIR.own, "valid": VALID} | wrong
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be contiguous"):
        kernels.mixed(numbers(5), 5, **given, smoothing=0.0)


COMPILED = """
import torch, triton
from gpuaug_kernels import labels
from triton.backends.compiler import GPUTarget

for target in 80, 90:
    for dtype in None, *labels.FLOATS:
        for classes, smoothing, valid in (10, 0.0, False), (1000, 0.1, True):
            kernel = labels.ahead(classes, smoothing, dtype, valid)
            options = labels.options(labels.block(classes))
            made = triton.compile(kernel, target=GPUTarget("cuda", target, 32), options=options)
            print(made.asm["ptx"].count("mul.rn.f64"), made.asm["ptx"].count("fma.rn.f64"))
"""


def test_on_a_card_every_dtype_compiles_to_a_product_and_a_sum_apart():
    env = os.environ | {"PYTHONPATH": str(Path(kernels.__file__).parents[1]), "TRITON_INTERPRET": "0"}
    done = children.run([sys.executable, "-c", COMPILED], env=env)
    assert done.returncode == 0, done.stderr
    counts = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(counts) == 2 * 2 * (1 + len(kernels.FLOATS))
    assert all(products >= 2 and fused == 0 for products, fused in counts), counts


# ---- of a policy

K = 7
EITHER = [ga.CutMix(1.0), ga.MixUp(0.7)]
POLICIES: dict[str, list[ga.Transform]] = {
    "a cut": [ga.CutMix(1.0, K)],
    "a smoothed cut": [ga.CutMix(1.0, K, 0.1)],
    "a mean": [ga.MixUp(0.7, K)],
    "a smoothed mean": [ga.MixUp(0.7, K, 0.1)],
    "either": [ga.RandomMix(EITHER, num_classes=K)],
    "either, smoothed, for most": [ga.RandomMix(EITHER, num_classes=K, prob=0.7, label_smoothing=0.1)],
    "either, one for a batch": [ga.RandomMix(EITHER, num_classes=K, per="batch")],
    "a cut of crops for some": [ga.RandomResizedCrop(8), ga.RandomApply([ga.CutMix(1.0, K)], 0.6)],
    "a choice": [ga.RandomChoice([ga.CutMix(1.0, K), ga.MixUp(0.7, K)])],
}


@pytest.mark.parametrize("soft", [False, True], ids=["numbers", "rows"])
@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_mixes_labels_by_the_kernel_as_the_reference_does(name, soft, monkeypatch):
    launched, mixed = [], kernels.mixed
    monkeypatch.setattr(kernels, "mixed", lambda *given: (launched.append(1), mixed(*given))[1])
    policy, x = ga.Policy(POLICIES[name], seed=4), torch.rand(N, 3, 9, 11, generator=NOISE)
    labels, ids, changed = rows(K, torch.float32) if soft else numbers(K), torch.arange(N) * 7, 0
    for epoch in range(3):
        want, got = (policy(x, labels, ids=ids, epoch=epoch, backend=b)[1] for b in ("reference", "triton"))
        assert torch.equal(got, want)
        changed += int((got != (labels if soft else torch.eye(K)[labels])).any())
    assert len(launched) == 3 and changed, "vacuous"


@pytest.mark.parametrize("soft", [False, True], ids=["numbers", "rows"])
@pytest.mark.parametrize("name", POLICIES)
def test_labels_take_one_launch_on_a_card_and_nothing_else(name, soft):
    policy = ga.Policy(POLICIES[name])
    with card() as on:
        x, ids = torch.zeros(N, 3, 41, 53, device=CARD), torch.zeros(N, dtype=torch.int64, device=CARD)
        labels = torch.zeros(N, K, device=CARD) if soft else ids

        def work(labels: Tensor | None) -> list[str]:
            on.work.clear()
            policy._prepare(x, labels, ids, 1, ids, "auto", need_labels=False).go(None)
            return sorted(on.work)

        on.refuses = False
        work(labels)
        on.refuses = True
        without = work(None)
        assert work(labels) == sorted([*without, "kernel"]) and "kernel" in without
