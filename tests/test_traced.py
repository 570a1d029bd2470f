"""A policy inside torch.compile is one operator: no graph break, the same pixels."""

import copy
import pickle

import pytest
import torch

import gpuaug as ga

IMAGES = torch.randint(0, 256, (4, 3, 16, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([4, 8, 15, 16])
STEPS = [ga.RandomResizedCrop((9, 11)), ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.ToDtype(torch.float32, scale=True), ga.SaltAndPepper(0.1)]


def compiled(policy: ga.Policy, **given: object) -> object:
    """fullgraph raises at any break of the graph."""
    return torch.compile(lambda images, labels, ids: policy(images * 1, labels, ids=ids, backend="reference", **given), backend="aot_eager", fullgraph=True)


@pytest.mark.parametrize("epoch", [0, 3, torch.tensor(5)])
def test_a_compiled_step_has_the_pixels_of_a_plain_one(epoch):
    policy = ga.Policy(STEPS, seed=2)
    got = compiled(policy, epoch=epoch)(IMAGES, None, IDS)
    assert torch.equal(got, policy(IMAGES, ids=IDS, epoch=epoch, backend="reference"))
    assert not torch.equal(got, policy(IMAGES, ids=IDS, epoch=7, backend="reference"))


def test_labels_go_through_a_compiled_mix():
    policy = ga.Policy([*STEPS, ga.CutMix(num_classes=6)], memory_format=torch.channels_last)
    out, soft = compiled(policy)(IMAGES, torch.tensor([0, 1, 2, 5]), IDS)
    want, rows = policy(IMAGES, torch.tensor([0, 1, 2, 5]), ids=IDS, backend="reference")
    assert torch.equal(out, want) and torch.equal(soft, rows) and out.stride() == want.stride()


def test_a_compiled_policy_numbers_on():
    policy = ga.Policy([ga.SaltAndPepper(0.5)])
    step = compiled(policy)
    first, second = step(IMAGES, None, None), step(IMAGES, None, None)
    assert int(policy.next_id) == 8 and not torch.equal(first, second)
    assert torch.equal(second, policy(IMAGES, ids=torch.arange(4, 8), backend="reference"))


def test_labels_that_stay_are_given_back():
    policy = ga.Policy([ga.RandomHorizontalFlip()])
    labels = torch.tensor([3, 1, 2, 0])
    assert torch.equal(compiled(policy)(IMAGES, labels, IDS)[1], labels)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_is_a_policy_of_its_own(again):
    policy = ga.Policy([ga.SaltAndPepper(0.5)], seed=3)
    other = again(policy)
    assert other == policy and other.handle != policy.handle
    compiled(other)(IMAGES, None, None)
    assert (int(policy.next_id), int(other.next_id)) == (0, 4)
