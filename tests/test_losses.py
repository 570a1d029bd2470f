"""Losses against torch's own functions, which are the oracle, and accuracy against a loop."""

import pytest
import torch
from torch.nn import functional
from waits import CARD, card

import gpuaug as ga
from gpuaug.losses import accuracy, soft_cross_entropy

N, C = 7, 5
REDUCTIONS = ("none", "mean", "sum")


def given(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(N, C, *shape, generator=generator).mul(4).to(dtype)
    soft = torch.rand(N, C, *shape, generator=generator)
    return logits, soft / soft.sum(1, keepdim=True)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_soft_rows_give_what_torch_gives(reduction, smoothing, weighted, shape):
    logits, soft = given(*shape)
    weight = torch.rand(C, generator=torch.Generator().manual_seed(1)) if weighted else None
    want = functional.cross_entropy(logits, soft, weight, reduction=reduction, label_smoothing=smoothing)
    got = soft_cross_entropy(logits, soft, label_smoothing=smoothing, weight=weight, reduction=reduction)
    assert got.abs().sum() > 0, "vacuous"
    torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(), (3, 2)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_class_numbers_give_what_torch_gives(reduction, shape, dtype):
    logits, soft = given(*shape)
    numbers, weight = soft.argmax(1), torch.linspace(0.2, 3, C)
    want = functional.cross_entropy(logits, numbers, weight, reduction=reduction, label_smoothing=0.1)
    got = soft_cross_entropy(logits, numbers.to(dtype), weight=weight, label_smoothing=0.1, reduction=reduction)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_class_numbers_and_their_one_hot_rows_have_one_loss():
    logits, soft = given()
    numbers = soft.argmax(1)
    rows = functional.one_hot(numbers, C).half()
    torch.testing.assert_close(soft_cross_entropy(logits, rows), soft_cross_entropy(logits, numbers))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_of_16_bits_are_computed_in_float32(dtype):
    logits, soft = given(dtype=dtype)
    got = soft_cross_entropy(logits, soft)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, functional.cross_entropy(logits.float(), soft), rtol=0, atol=0)
    coarse = functional.cross_entropy(logits, soft.to(dtype)).float()
    assert abs(got - coarse) > 0, "vacuous: 16 bits give the same"


def test_autocast_does_not_make_the_loss_coarser():
    logits, soft = given()
    with torch.autocast("cpu", torch.bfloat16):
        got = soft_cross_entropy(logits, soft)
    torch.testing.assert_close(got, functional.cross_entropy(logits, soft), rtol=0, atol=0)


def test_float64_stays_float64():
    logits, soft = given(dtype=torch.float64)
    assert soft_cross_entropy(logits, soft).dtype == torch.float64


def test_the_gradient_is_softmax_less_the_targets():
    logits, soft = given()
    logits.requires_grad_()
    soft_cross_entropy(logits, soft, reduction="sum").backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(1) - soft)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(), (3, 2)])
@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_not_valid_counts_for_nothing(reduction, shape, numbers, weighted):
    logits, soft = given(*shape)
    targets = soft.argmax(1) if numbers else soft
    valid = torch.tensor([True, False, True, True, False, True, True])
    weight = torch.linspace(0.2, 3, C) if weighted else None
    want = functional.cross_entropy(logits[valid], targets[valid], weight, reduction=reduction)
    spoilt = torch.where(valid.view(-1, *(1,) * (logits.ndim - 1)), logits, torch.nan)
    got = soft_cross_entropy(spoilt, targets, weight=weight, reduction=reduction, valid=valid)
    if reduction == "none":
        assert not got[~valid].any()
        got = got[valid]
    torch.testing.assert_close(got, want)


def test_the_labels_of_a_mix_go_straight_into_the_loss():
    policy = ga.Policy([ga.MixUp(num_classes=C)])
    images = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    _, labels = policy(images, torch.arange(N) % C, ids=torch.arange(N))
    logits, _ = given(dtype=torch.bfloat16)
    torch.testing.assert_close(
        soft_cross_entropy(logits, labels, label_smoothing=0.1),
        functional.cross_entropy(logits.float(), labels, label_smoothing=0.1),
    )


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("checked", [False, True])
def test_on_a_card_neither_loss_nor_accuracy_waits(numbers, checked):
    with card() as on:
        logits = torch.zeros(N, C, dtype=torch.bfloat16, device=CARD)
        labels = torch.zeros(N, dtype=torch.int64, device=CARD) if numbers else torch.zeros(N, C, device=CARD)
        valid = torch.ones(N, dtype=torch.bool, device=CARD) if checked else None
        before, on.refuses = on.seen, True
        soft_cross_entropy(logits, labels, weight=[1.0] * C, label_smoothing=0.1, valid=valid)
        accuracy(logits, labels, topk=(1, 5), valid=valid)
        assert on.seen > before, "vacuous"


# ---- accuracy


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_accuracy_is_the_weight_of_the_labels_among_the_largest(k, shape):
    logits, soft = given(*shape)
    rows, weights = logits.movedim(1, -1).reshape(-1, C), soft.movedim(1, -1).reshape(-1, C)
    want = sum(
        sum(float(w[c]) for c in sorted(range(C), key=lambda c: -float(row[c]))[:k])
        for row, w in zip(rows, weights, strict=True)
    ) / len(rows)
    assert float(accuracy(logits, soft, topk=k)) == pytest.approx(want, abs=1e-6)
    assert 0.05 < want, "vacuous"


def test_accuracy_of_a_mix_is_lam_where_its_own_class_is_found():
    logits = torch.eye(3)[[0, 0, 2]]
    labels = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.4, 0.6]])
    torch.testing.assert_close(accuracy(logits, labels), torch.tensor((0.7 + 0.0 + 0.6) / 3))


def test_accuracy_of_class_numbers_is_the_usual_one():
    logits, soft = given()
    numbers = soft.argmax(1)
    torch.testing.assert_close(accuracy(logits, numbers), (logits.argmax(1) == numbers).float().mean())
    one, three = accuracy(logits, numbers, topk=(1, 3))
    assert one <= three and accuracy(logits, numbers, topk=(1, 50)).tolist()[1] == 1.0


def test_accuracy_leaves_out_what_does_not_count():
    logits = torch.eye(3)
    valid = torch.tensor([True, True, False])
    assert float(accuracy(logits, torch.tensor([0, 2, 2]), valid=valid)) == 0.5
    assert float(accuracy(logits, torch.tensor([0, -100, 2]))) == 1.0


# ---- bad input


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"soft_targets": torch.rand(N, C + 1)}, "shape of the logits"),
        ({"soft_targets": torch.zeros(N, 2, dtype=torch.int64)}, "class numbers must have shape"),
        ({"soft_targets": torch.zeros(N, dtype=torch.bool)}, "labels must be class numbers"),
        ({"soft_targets": [1] * N}, "labels must be a tensor"),
        ({"logits": torch.zeros(N, dtype=torch.int64)}, "logits must be floats"),
        ({"weight": torch.rand(C - 1)}, "weight must have one value"),
        ({"reduction": "average"}, "reduction must be one of"),
        ({"label_smoothing": 1.5}, "label_smoothing must be in"),
        ({"valid": torch.ones(N)}, "valid must be"),
    ],
)
def test_what_does_not_go_together_is_refused(change, says):
    logits, soft = given()
    with pytest.raises((ValueError, TypeError), match=says):
        soft_cross_entropy(**({"logits": logits, "soft_targets": soft} | change))


@pytest.mark.parametrize("topk", [0, True, "1", (), 1.5])
def test_accuracy_refuses_a_topk_that_is_no_number(topk):
    with pytest.raises((ValueError, TypeError), match="topk"):
        accuracy(*given(), topk=topk)
