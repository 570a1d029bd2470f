"""The public contract, line by line."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from compare import changed, compare
from PIL import Image

import gpuaug as ga

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
N = 6


@pytest.fixture
def x(images) -> torch.Tensor:
    return images(N, 40, 33, dtype=torch.uint8)


def example() -> ga.Policy:
    """A moderate policy, on small images."""
    return ga.Policy(
        [
            ga.RandomResizedCrop(24),
            ga.RandomHorizontalFlip(),
            ga.ColorJitter(0.2, 0.2, 0.2, 0.05),
            ga.ToDtype(torch.float32, scale=True),
            ga.Normalize(MEAN, STD),
            ga.RandomErasing(p=0.25),
        ],
        seed=0,
    )


def noisy(mix: bool = True) -> ga.Policy:
    """With noise of pixels, and labels that change."""
    return ga.Policy(
        [
            ga.RandomResizedCrop(24),
            ga.SaltAndPepper(0.2),
            ga.RandomApply([ga.GaussianNoise()], 0.7),
            ga.RandomErasing(0.8, value="random"),
            *([ga.CutMix(1.0, 4)] if mix else []),
        ],
        seed=2**63 + 5,
    )


# ---- what goes in and what comes out


def test_a_tensor_gives_a_tensor(x):
    out = example()(x)
    assert isinstance(out, torch.Tensor) and out.shape == (N, 3, 24, 24) and out.dtype == torch.float32


def test_labels_come_out_with_the_images(x):
    labels = torch.arange(N)
    out, after = example()(x, labels, ids=torch.arange(N))
    assert torch.equal(after, labels), "without a mix labels pass through"
    compare(out, example()(x, ids=torch.arange(N)), "exact", "labels do not change images")


def test_labels_become_soft_rows_whose_weights_sum_to_one(x):
    out, soft = noisy()(x, torch.arange(N) % 4, ids=torch.arange(N))
    assert out.dtype == torch.uint8 and soft.shape == (N, 4) and soft.dtype == torch.float32
    torch.testing.assert_close(soft.sum(1), torch.ones(N))
    assert ((soft > 0) & (soft < 1)).any(), "vacuous: nothing was mixed"


def test_soft_rows_are_mixed_as_the_class_numbers_that_they_stand_for(x):
    labels, ids = torch.arange(N) % 4, torch.arange(N)
    rows = torch.nn.functional.one_hot(labels, 4).float()
    assert torch.equal(noisy()(x, rows, ids=ids)[1], noisy()(x, labels, ids=ids)[1])
    free = ga.Policy([ga.CutMix()], seed=3)
    assert free(x, rows, ids=ids)[1].shape == (N, 4), "soft rows need no num_classes"
    half = free(x, rows.half(), ids=ids)[1]
    torch.testing.assert_close(half.float(), free(x, rows, ids=ids)[1], rtol=0, atol=1e-3)


def test_a_label_weighs_exactly_the_area_that_remains(x):
    policy, ids = ga.Policy([ga.CutMix(1.0, N)], seed=3), torch.arange(N)
    _, soft = policy(x, torch.arange(N), ids=ids)
    p = policy.draw(ids, size=(40, 33))[0]
    marked = torch.arange(N, dtype=torch.float32)[:, None, None, None].expand(N, 1, 40, 33)
    out = policy.replay(marked, p_of(policy, ids))
    mixed = 0
    for n in range(N):
        share = (out[n] == n).double().mean().item()
        mixed += 0 < share < 1
        assert abs(soft[n, n].item() - share) < 1e-6
        assert abs(soft[n, p["partner"][n]].item() - (1 - share)) < 1e-6
    assert mixed > 2, "vacuous"


CONTAINERS = {
    "RandomApply": [ga.RandomApply([ga.CutMix(1.0, N)], 0.5)],
    "RandomChoice": [ga.RandomChoice([ga.CutMix(1.0, N), ga.CutMix(0.3, N), ga.RandomHorizontalFlip()])],
    "nested": [ga.RandomApply([ga.RandomChoice([ga.SaltAndPepper(0.0), ga.CutMix(1.0, N)])], 0.9)],
}


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_labels_follow_a_mix_inside_a_container(name, backend):
    """Every pixel says whose it is, so that an image counts its own label."""
    marked = torch.arange(N, dtype=torch.float32)[:, None, None, None].expand(N, 1, 20, 20) / 8
    mixed = alone = 0
    for seed in range(4):
        out, soft = ga.Policy(CONTAINERS[name], seed=seed)(
            marked, torch.arange(N), ids=torch.arange(N), backend=backend
        )
        assert soft.shape == (N, N)
        for n in range(N):
            share = torch.stack([(out[n] * 8).round().eq(k).double().mean() for k in range(N)])
            torch.testing.assert_close(soft[n].double(), share, rtol=0, atol=1e-6)
            mixed, alone = mixed + int(0 < share[n] < 1), alone + int(share[n] == 1)
    assert mixed > 2 and alone > 0, "vacuous"


def p_of(policy: ga.Policy, ids: torch.Tensor) -> ga.Params:
    return policy.draw(ids, size=(40, 33), channels=1, dtype=torch.float32)


def test_a_batch_of_one_is_its_own_partner(x):
    out, soft = ga.Policy([ga.CutMix(1.0, 4)])(x[:1], torch.tensor([2]))
    compare(out, x[:1], "exact", "mixed with itself")
    assert soft.tolist() == [[0, 0, 1, 0]]


def test_a_batch_gives_a_batch(x):
    labels, ids, again = torch.arange(N) % 4, torch.arange(N) + 7, torch.ones(N, dtype=torch.int64)
    out = noisy()(ga.Batch(x, labels, ids=ids, epoch=3, occurrence=again))
    images, soft = noisy()(x, labels, ids=ids, epoch=3, occurrence=again)
    assert isinstance(out, ga.Batch) and len(out) == N
    compare(out.images, images, "exact", "Batch")
    assert (
        torch.equal(out.labels, soft)
        and torch.equal(out.ids, ids)
        and torch.equal(out.occurrence, again)
        and out.epoch == 3
    )
    numbered = example()(ga.Batch(x))
    assert numbered.labels is None and numbered.ids.tolist() == list(range(N))


def test_arrays_and_lists_are_images_too(x):
    ids, policy = torch.arange(N), example()
    want = policy(x, ids=ids)
    listed = [i.permute(1, 2, 0) for i in x]
    compare(policy(x.numpy(), ids=ids), want, "exact", "array")
    # rows of pixels instead of planes may be summed another way, to the last bits; divided by a std of 0.22
    compare(policy(listed, ids=ids), want, "fused", "tensors", 5.0)
    compare(policy([i.numpy() for i in listed], ids=ids), want, "fused", "arrays", 5.0)
    compare(policy([Image.fromarray(i.numpy()) for i in listed], ids=ids), want, "fused", "PIL", 5.0)
    compare(policy(ga.Batch(listed, ids=ids)).images, want, "fused", "Batch of a list", 5.0)
    assert policy([i.numpy() for i in listed], np.arange(N), ids=ids)[1].tolist() == list(range(N))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_without_todtype_the_dtype_stays(dtype, images):
    out = noisy(mix=False)(images(N, 40, 33, dtype=dtype))
    assert out.dtype == dtype and not out.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_no_excuse_on_large_images(dtype, images):
    """float16 grid_sample is garbage on CPUs from 256 pixels on, and bfloat16 coordinates are off by two."""
    x = images(2, 75, 150, dtype=torch.float32).repeat(1, 1, 4, 2)
    policy, ids = (
        ga.Policy([ga.RandomAffine(30, (0.1, 0.1), interpolation="bilinear"), ga.RandomResizedCrop(280)]),
        torch.arange(2),
    )
    got, want = policy(x.to(dtype), ids=ids), policy(x.to(dtype).float(), ids=ids)
    compare(got, want.to(dtype), "resample", str(dtype))


def test_every_backend_has_a_name(x):
    ids = torch.arange(N)
    reference = example()(x, ids=ids, backend="reference")
    for name in ("auto", "cpu"):
        compare(example()(x, ids=ids, backend=name), reference, "resample", name, 5.0)


# ---- draws


def test_draws_have_the_names_and_shapes_of_torchvision():
    transforms = [
        ga.RandomResizedCrop(24),
        ga.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 5),
        ga.ColorJitter(0.2, hue=0.1),
        ga.RandomErasing(0.5),
        ga.CutMix(1.0, 5),
        ga.RandomHorizontalFlip(),
        ga.RandomVerticalFlip(),
        ga.Normalize(MEAN, STD),
        ga.SaltAndPepper(),
        ga.CenterCrop(9),
    ]
    shapes = [
        {"top": (N,), "left": (N,), "height": (N,), "width": (N,)},
        {"angle": (N,), "translate": (N, 2), "scale": (N,), "shear": (N, 2)},
        {
            "fn_idx": (N, 4),
            "brightness_factor": (N,),
            "contrast_factor": (N,),
            "saturation_factor": (N,),
            "hue_factor": (N,),
        },
        {"apply": (N,), "i": (N,), "j": (N,), "h": (N,), "w": (N,), "v": (N, 3)},
        {"lam": (N,), "box": (N, 4), "partner": (N,)},
        {"apply": (N,)},
        {"apply": (N,)},
        {},
        {},
        {},
    ]
    params = ga.Policy(transforms).draw(torch.arange(N), size=(40, 33), dtype=torch.float32)
    assert isinstance(params, ga.Params) and len(params) == len(transforms)
    assert [{k: tuple(v.shape) for k, v in p.items()} for p in params] == shapes
    whole = {"top", "left", "height", "width", "fn_idx", "i", "j", "h", "w", "box", "partner", "translate"}
    for p in params:
        for k, v in p.items():
            assert v.dtype == (torch.bool if k == "apply" else torch.int64 if k in whole else torch.float32), k
    jitter = params[2]
    assert (jitter["contrast_factor"] == 1).all() and (jitter["saturation_factor"] == 1).all(), (
        "an unset factor is its identity"
    )
    assert (ga.Policy([ga.ColorJitter(0.3)]).draw(torch.arange(N), size=(9, 9))[0]["hue_factor"] == 0).all()
    assert [sorted(row) for row in jitter["fn_idx"].tolist()] == [[0, 1, 2, 3]] * N


def test_a_rectangle_that_never_fits_is_empty_and_a_random_value_is_nan():
    p = ga.Policy([ga.RandomErasing(1.0, (0.9, 1.0), (1.0, 1.0), "random")]).draw(torch.arange(N), size=(4, 40))[0]
    assert (p["h"] == 0).all() and (p["w"] == 0).all() and p["v"].isnan().all() and p["v"].shape == (N, 3)


def test_drawn_parameters_say_for_whom_they_were_drawn():
    ids, again = torch.arange(N) + 9, torch.ones(N, dtype=torch.int64)
    params = example().draw(ids, epoch=7, size=(40, 33), occurrence=again)
    assert torch.equal(params.ids, ids) and params.epoch == 7 and torch.equal(params.occurrence, again)
    assert params.size.tolist() == [[40, 33]] * N
    assert isinstance(params[1:3], tuple) and next(iter(params)) is params[0] and params[-1] is params[5]
    assert "top" in repr(params)


def test_draws_are_those_of_the_call(x):
    """Seen in the pixels: an image that says where each of them came from."""
    y, xs = torch.meshgrid(torch.arange(40.0), torch.arange(33.0), indexing="ij")
    where = torch.stack([y, xs]).expand(N, -1, -1, -1) / 64
    policy, ids = ga.Policy([ga.RandomCrop((9, 8))], seed=4), torch.arange(N)
    out, p = policy(where, ids=ids, epoch=2), policy.draw(ids, epoch=2, size=(40, 33))[0]
    assert torch.equal((out[:, 0, 0, 0] * 64).long(), p["top"]) and torch.equal(
        (out[:, 1, 0, 0] * 64).long(), p["left"]
    )


def test_sizes_may_differ_by_sample():
    size = torch.tensor([[40, 33], [20, 60], [9, 9]])
    p = example().draw(torch.arange(3), size=size)
    assert torch.equal(p.size, size)
    assert (p[0]["top"] + p[0]["height"] <= size[:, 0]).all() and (p[0]["left"] + p[0]["width"] <= size[:, 1]).all()


def test_params_move_and_keep_what_they_hold():
    params = noisy().draw(torch.arange(N), size=(40, 33)).to("cpu")
    assert isinstance(params, ga.Params) and params[2]["transforms"] == [{}] and params.seed == 2**63 + 5


# ---- replay


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_replay_gives_the_pixels_of_the_call_that_drew_noise_included(backend, x):
    ids, again, policy = torch.arange(N) * 11, torch.tensor([0, 1, 0, 2, 0, 0]), noisy()
    labels = torch.arange(N) % 4
    out, soft = policy(x, labels, ids=ids, epoch=4, occurrence=again, backend=backend)
    params = policy.draw(ids, epoch=4, size=(40, 33), occurrence=again)
    replayed, replayed_soft = policy.replay(x, params, labels, backend=backend)
    compare(replayed, out, "exact", "replay")
    assert torch.equal(replayed_soft, soft)
    compare(policy.replay(x, params, backend=backend), out, "exact", "replay without labels")
    compare(policy.replay(ga.Batch(x), params, backend=backend), out, "exact", "replay of a Batch")
    assert (
        changed(policy.replay(x, policy.draw(ids, epoch=5, size=(40, 33), occurrence=again), backend=backend), out)
        > 0.1
    )


def test_replay_takes_the_seed_that_drew(x):
    ids, a = torch.arange(N), noisy(mix=False)
    other = ga.Policy(a.transforms, seed=1)
    compare(other.replay(x, a.draw(ids, size=(40, 33))), a(x, ids=ids), "exact", "the noise belongs to the parameters")


def test_replay_draws_nothing_and_numbers_nothing(x):
    policy = noisy(mix=False)
    params = policy.draw(torch.arange(N), size=(40, 33))
    policy.replay(x, params)
    assert int(policy.next_id) == 0


def test_replay_of_other_images_uses_the_same_parameters(x):
    policy = ga.Policy([ga.RandomResizedCrop(20), ga.RandomHorizontalFlip()])
    params = policy.draw(torch.arange(N), size=(40, 33))
    a, b = policy.replay(x.float() / 255, params), policy.replay(1 - x.float() / 255, params)
    compare(1 - b, a, "colour", "the same windows")


# ---- describe


def test_describe_tells_steps_and_bytes_of_the_backend_asked():
    text = example().describe(size=(40, 33), backend="cpu")
    assert "backend cpu: 1 step\n" in text
    assert "Resample -> " in text and "Contrast" in text and "Normalize" in text and "Finish" in text
    assert "3x40x33 uint8 -> 3x24x24 float32" in text
    # 3*40*33 bytes read and 3*24*24*4 written
    assert f"{(3 * 40 * 33 + 3 * 24 * 24 * 4) / 1e3:.0f} kB an image" in text
    assert f"backend reference: {len(passes_of(text))} steps" in example().describe(size=(40, 33), backend="reference")
    turned = ga.Policy([ga.RandomResizedCrop(24), ga.RandomRotation(10)]).describe(size=(40, 33), backend="triton")
    assert "2 steps" in turned and "Warp reads pixels around its own, which the step before must have written" in turned
    assert "differ in size" in example().describe()
    assert "1x40x33 float32" in ga.Policy([ga.RandomInvert()]).describe(size=(40, 33), channels=1, dtype=torch.float32)


def passes_of(text: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith("  1. ")).split(" -> ")


def test_describe_leaves_the_numbering_alone():
    policy = example()
    policy.describe(size=(40, 33))
    assert int(policy.next_id) == 0


# ---- policies as values


def test_policies_are_values():
    assert example() == example() and example() != noisy() and example() != "policy"
    assert ga.Policy([ga.RandomInvert()], seed=1) != ga.Policy([ga.RandomInvert()], seed=2)
    assert ga.Policy([], memory_format=torch.channels_last) != ga.Policy([])
    used = example()
    used(torch.zeros(3, 3, 30, 30))
    assert used == example(), "next_id is no part of the value"
    assert isinstance(example().transforms, tuple)


def test_a_policy_prints_as_the_code_that_makes_it():
    for policy in (
        example(),
        noisy(),
        ga.Policy([ga.RandAugment()], memory_format=torch.channels_last),
        ga.Policy([], single_resample=True),
    ):
        assert eval(repr(policy), {"torch": torch, **vars(ga)}) == policy


def test_a_policy_goes_through_dicts_and_files(tmp_path):
    import json

    for policy in (
        example(),
        noisy(),
        ga.Policy([ga.RandomAffine(10, fill=(0.1, 0.2, 0.3))], seed=2**64 - 1, memory_format=torch.channels_last),
    ):
        d = policy.to_dict()
        assert ga.Policy.from_dict(d) == policy
        assert ga.Policy.from_dict(json.loads(json.dumps(d))) == policy, "plain data only"
        policy.save(tmp_path / "p.yaml")
        assert ga.Policy.load(tmp_path / "p.yaml") == policy
        policy.save(str(tmp_path / "q.yaml"))
        assert ga.Policy.load(str(tmp_path / "q.yaml")) == policy


def test_a_file_that_a_person_wrote_may_leave_out_what_has_a_default(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "transforms:\n- {name: RandomResizedCrop, size: 224}\n- {name: ToDtype, dtype: torch.float32, scale: true}\n"
    )
    assert ga.Policy.load(path) == ga.Policy([ga.RandomResizedCrop(224), ga.ToDtype(torch.float32, scale=True)])


def test_a_policy_survives_pickle_deepcopy_and_torch_save(x):
    policy, ids = noisy(mix=False), torch.arange(N)
    policy(x)
    want = policy(x, ids=ids)
    buffer = io.BytesIO()
    torch.save(policy, buffer)
    buffer.seek(0)
    for other in (
        pickle.loads(pickle.dumps(policy)),
        copy.deepcopy(policy),
        copy.copy(policy),
        torch.load(buffer, weights_only=False),
    ):
        assert other == policy and int(other.next_id) == N
        compare(other(x, ids=ids), want, "exact", "copy")
    fresh = copy.deepcopy(policy)
    fresh(x)
    assert int(policy.next_id) == N and int(fresh.next_id) == 2 * N, "a deep copy counts on its own"


def test_a_policy_is_a_pure_function_of_ids_epoch_and_images(x):
    ids, policy = torch.arange(N), noisy(mix=False)
    first = policy(x, ids=ids, epoch=3)
    for _ in range(3):
        policy(x)
        policy(x, ids=ids + 9)
    compare(policy(x, ids=ids, epoch=3), first, "exact", "no state")
    assert int(policy.next_id) == 3 * N, "given ids advance nothing"
    compare(policy(x, ids=ids, epoch=torch.tensor(3)), first, "exact", "epoch as a tensor")
    compare(policy(x, ids=ids.int(), epoch=3), first, "exact", "int32 ids")
    compare(policy(x, ids=ids.tolist(), epoch=3), first, "exact", "ids as a list")


def test_calls_leave_every_generator_of_the_process_alone(x):
    import random

    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    policy = noisy()
    policy(x, torch.arange(N) % 4)
    policy.draw(torch.arange(N), size=(30, 30))
    policy.describe((30, 30))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all() and before[2] == random.getstate()
    a = noisy()(x, torch.arange(N) % 4)[0]
    torch.manual_seed(4)
    compare(noisy()(x, torch.arange(N) % 4)[0], a, "exact", "no generator is read")
