"""The epoch and the counter of a policy, wherever it was made, moved to, saved and compiled."""

import copy

import pytest
import torch
from build import build
from specs import SPECS
from torch import nn

import gpuaug as ga

N = 4
X = torch.arange(N * 3 * 6 * 7, dtype=torch.float32).view(N, 3, 6, 7) / (N * 3 * 6 * 7)
IDS = torch.arange(N)


def example() -> ga.Policy:
    return ga.Policy([ga.SaltAndPepper(0.5)], seed=4)


# ---- epochs


def test_set_epoch_is_what_calls_without_an_epoch_belong_to():
    policy, other = example(), example()
    assert policy.epoch == 0
    policy.set_epoch(3)
    want = other(X, ids=IDS, epoch=3)
    assert not torch.equal(want, other(X, ids=IDS)), "vacuous"
    assert torch.equal(policy(X, ids=IDS), want)
    out = policy(ga.Batch(X, ids=IDS))
    assert torch.equal(out.images, want) and out.epoch == 3
    assert torch.equal(policy.replay(X, policy.draw(IDS, size=(6, 7), dtype=torch.float32)), want)
    for given in (0, torch.tensor(0)):
        assert torch.equal(policy(X, ids=IDS, epoch=given), other(X, ids=IDS)), "an epoch of the call comes first"
        assert torch.equal(policy(ga.Batch(X, ids=IDS, epoch=given)).images, other(X, ids=IDS))
    assert policy == other and repr(policy) == repr(other) and policy.describe((6, 7)) == other.describe((6, 7)), (
        "no part of the value"
    )


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(-1, ValueError), (2**18, ValueError), (1.5, TypeError), (None, TypeError), (True, TypeError), ("1", TypeError)],
)
def test_an_epoch_that_is_none_is_refused(wrong, error):
    policy = example()
    with pytest.raises(error, match="epoch must be"):
        policy.set_epoch(wrong)
    assert policy.epoch == 0


def test_the_epoch_is_saved_copied_and_loaded():
    model = nn.Sequential(example(), nn.Flatten())
    model[0].set_epoch(5)
    fresh = nn.Sequential(example(), nn.Flatten())
    fresh.load_state_dict(model.state_dict())
    assert fresh[0].epoch == copy.deepcopy(model)[0].epoch == 5
    model[0].set_epoch(6)
    assert fresh[0].epoch == 5, "each has its own"


def test_a_compiled_step_follows_set_epoch_without_being_compiled_again():
    policy, plain, compilations = example(), example(), []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        compilations.append(graph)
        return graph.forward

    torch._dynamo.reset()
    step = torch.compile(lambda x, ids: policy(x * 1, ids=ids, backend="reference"), backend=backend, fullgraph=True)
    for epoch in range(12):
        policy.set_epoch(epoch)
        assert torch.equal(step(X, IDS), plain(X, ids=IDS, epoch=epoch, backend="reference"))
    assert len(compilations) == 1
    with pytest.raises(ValueError, match="epoch"):
        torch.compile(lambda x, ids: policy(x * 1, ids=ids, epoch=-1, backend="reference"), backend="eager")(X, IDS)


# ---- where tensors are


@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_every_tensor_of_the_library_names_its_device(name):
    """Under another default device, here one that holds no values."""

    def outputs() -> list[torch.Tensor]:
        policy = ga.Policy([build(name, SPECS[name].arguments[0])], seed=3)
        made = [policy(x, soft, ids=ids, backend=backend)[0] for backend in ("cpu", "cpu", "reference")]
        policy(x, soft)
        params = policy.draw(ids, size=(80, 80), dtype=x.dtype)
        policy.describe((80, 80), dtype=x.dtype)
        assert params.ids.device.type == policy.next_id.device.type == "cpu" and int(policy.next_id) == 3
        return [*made, policy.replay(x, params)]

    x, ids, soft = (
        torch.linspace(0, 1, 3 * 3 * 80 * 80, device="cpu").view(3, 3, 80, 80),
        torch.arange(3),
        torch.eye(3, 5),
    )
    want = outputs()
    with torch.device("meta"):
        got = outputs()
    assert all(a.device.type == "cpu" and torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("images", ["list", "ragged", "array"])
def test_images_of_a_host_stay_there_under_another_default_device(images):
    policy = ga.Policy([ga.RandomResizedCrop(5), ga.RandomHorizontalFlip()])
    arrays = [
        torch.full((6, 7 + (k if images == "ragged" else 0), 3), 40 * k, dtype=torch.uint8).numpy() for k in range(3)
    ]
    given = torch.zeros(3, 3, 6, 7).numpy() if images == "array" else arrays
    want = policy(given, [0, 1, 2], ids=[1, 2, 3], occurrence=[0, 0, 1])
    with torch.device("meta"):
        got = policy(given, [0, 1, 2], ids=[1, 2, 3], occurrence=[0, 0, 1])
    assert all(a.device.type == "cpu" and torch.equal(a, b) for a, b in zip(got, want, strict=True))


def numbers_on(policy: ga.Policy, first: int) -> None:
    assert policy(ga.Batch(X)).ids.tolist() == list(range(first, first + N))
    assert (
        int(policy.next_id) == first + N and not policy.next_id.is_inference() and policy.next_id.dtype == torch.int64
    )


@pytest.mark.parametrize("assign", [False, True])
def test_a_model_made_on_the_meta_device_numbers_what_it_loaded(assign):
    state = nn.Sequential(example(), nn.Linear(2, 2)).state_dict()
    state["0.next_id"] += 7
    with torch.device("meta"):
        model = nn.Sequential(example(), nn.Linear(2, 2))
    model.load_state_dict(state, assign=True)
    numbers_on(model[0], 7)
    moved = nn.Sequential(example(), nn.Linear(2, 2)).to("meta")
    if not assign:
        moved.to_empty(device="cpu")
        assert int(moved[0].next_id) == 0, "memory that nobody wrote"
    moved.load_state_dict(state, assign=assign)
    numbers_on(moved[0], 7)
    assert int(state["0.next_id"]) == 7, "what was loaded is a copy"


def test_a_counter_without_a_value_begins_at_0():
    policy = example().to("meta")
    numbers_on(policy, 0)
    policy.load_state_dict(example().to("meta").state_dict())
    assert int(policy.next_id) == N, "a checkpoint without values says nothing"


def test_a_policy_made_moved_or_loaded_in_inference_mode_works_outside():
    with torch.inference_mode():
        policies = [
            example(),
            copy.deepcopy(example()),
            example().to(torch.float64).cpu(),
            example().to("meta").to_empty(device="cpu"),
        ]
        policies[0].load_state_dict(example().state_dict())
    for policy in policies:
        numbers_on(policy, 0)
    policy = example()
    with torch.inference_mode():
        policy.next_id = torch.tensor(5)
    numbers_on(policy, 5)
    with torch.inference_mode():
        policy.next_id = torch.tensor(6)
        policy(X)
    policy.load_state_dict({"next_id": torch.tensor(3)})
    numbers_on(policy, 3)


def test_the_counter_is_advanced_in_place():
    """Captured graphs and compiled steps hold the tensor."""
    policy = example()
    counter = policy.next_id
    policy(X)
    with torch.inference_mode():
        policy(X)
    policy.load_state_dict({"next_id": torch.tensor(9)})
    policy.half().cpu()
    policy(X)
    assert policy.next_id is counter and int(counter) == 9 + N


def test_the_counter_keeps_its_value_whatever_becomes_of_the_module():
    policy = example()
    policy.next_id += 2**40 + 1
    policy.type(torch.float16).bfloat16().to_empty(device="cpu").share_memory()
    assert int(policy.next_id) == 2**40 + 1 and policy.next_id.dtype == torch.int64 and not policy.next_id.is_shared()
