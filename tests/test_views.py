"""Views: several of one sample, each with draws of its own, in one call for each size; and those that are fixed."""

import copy
import pickle
from functools import partial
from unittest import mock

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision.transforms.v2 as v2
from compare import compare
from torchvision import tv_tensors

import gpuaug as ga
from gpuaug import call
from gpuaug.rng import MAX_OCCURRENCE

BACKENDS = ("reference", "cpu", "triton")
N, IDS = 4, torch.arange(4) + 7
POLICY = ga.Policy(
    [ga.RandomCrop(8, padding=1), ga.RandomHorizontalFlip(), ga.ColorJitter(0.4), ga.GaussianNoise()], seed=3
)
MULTI = {"global": 2, "local": 3}


def images(dtype: torch.dtype = torch.uint8, n: int = N) -> torch.Tensor:
    x = torch.randint(0, 256, (n, 3, 12, 13), generator=torch.Generator().manual_seed(1))
    return x.to(dtype) if dtype == torch.uint8 else (x / 255).to(dtype)


def ragged() -> list[torch.Tensor]:
    return [torch.randint(0, 256, (12 + i, 15, 3), dtype=torch.uint8) for i in range(N)]


def calls_of(run) -> int:
    """How many plans an executor runs meanwhile."""
    with mock.patch.object(call.Call, "go", autospec=True, side_effect=call.Call.go) as go:
        run()
    return go.call_count


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_a_view_is_what_a_call_gives_for_its_occurrence(dtype, backend):
    x, before = images(dtype), torch.tensor([0, 1, 5, 2])
    made = POLICY.views(x, n=3, ids=IDS, epoch=2, occurrence=before, backend=backend)
    assert isinstance(made, list) and len(made) == 3
    for v, view in enumerate(made):
        assert torch.equal(view, POLICY(x, ids=IDS, epoch=2, occurrence=before * 3 + v, backend=backend))
    assert not torch.equal(made[0], made[1])


def test_views_of_images_of_different_sizes_are_those_of_each_image():
    policy, x = ga.Policy([ga.RandomResizedCrop(8), ga.RandomHorizontalFlip()]), ragged()
    made = policy.views(x, n=2, ids=IDS)
    for i in range(N):
        for v in range(2):
            assert torch.equal(made[v][i], policy(x[i].permute(2, 0, 1), ids=[int(IDS[i])], occurrence=[v]))


def test_labels_and_targets_come_with_every_view():
    masks = torch.arange(N * 12 * 13).view(N, 12, 13)
    batch = ga.Batch(images(), torch.arange(N), IDS, masks=masks, boxes=torch.rand(N, 2, 4).sort(-1).values * 12,
                     box_format="XYXY", keypoints=torch.rand(N, 3, 2) * 12, min_area=2.0)  # fmt: skip
    moves = ga.Policy([ga.RandomCrop(8), ga.RandomHorizontalFlip()])
    for v, view in enumerate(moves.views(batch, n=2)):
        alone = moves(batch.replace(occurrence=torch.full((N,), v)))
        for name in ("images", "labels", "masks", "boxes", "box_valid", "keypoints", "visible", "ids", "occurrence"):
            assert torch.equal(getattr(view, name), getattr(alone, name)), name
    pixels, labels = moves.views(images(), torch.arange(N), n=2, ids=IDS)
    assert [x.shape for x in pixels] == [(N, 3, 8, 8)] * 2
    assert all(torch.equal(x, torch.arange(N)) for x in labels)


def test_views_without_ids_share_the_number_of_their_sample_and_count_on():
    policy = ga.Policy([ga.RandomCrop(8), ga.GaussianNoise()], seed=1)
    first = policy.views(ga.Batch(images()))
    assert int(policy.next_id) == N and all(torch.equal(v.ids, torch.arange(N)) for v in first)
    again = ga.Policy([ga.RandomCrop(8), ga.GaussianNoise()], seed=1)
    assert torch.equal(
        first[1].images, again(images(), ids=torch.arange(N), occurrence=torch.ones(N, dtype=torch.int64))
    )
    assert torch.equal(policy.views(ga.Batch(images()))[0].ids, torch.arange(N) + N)


def test_views_that_are_refused_number_no_sample():
    policy = ga.Policy([ga.RandomCrop(8)])
    video = images()[:, None]
    for refused in (
        lambda: policy.views(ga.Batch(images(), masks=torch.zeros(N, 3, 3))),
        lambda: policy(ga.Batch(video, keypoints=torch.zeros(N, 1, 2, 3))),
        lambda: policy.views(ga.Batch(video, keypoints=torch.zeros(N, 1, 2, 3))),
    ):
        with pytest.raises(ValueError, match=r"masks|keypoints"):
            refused()
        assert int(policy.next_id) == 0
    assert policy.views(ga.Batch(images()))[0].ids.tolist() == [0, 1, 2, 3]


def test_fixed_views_are_traced_like_any_transform():
    for t in (ga.FiveCrop(7), ga.TenCrop(6), ga.Flips(True)):
        said = ga.Policy([t]).describe((12, 13))
        assert "instructions" in said, said


def test_one_image_gives_images_and_one_sample_samples():
    x = images()[0]
    made = POLICY.views(x, n=2, ids=5)
    assert [tuple(v.shape) for v in made] == [(3, 8, 8)] * 2 and not torch.equal(*made)
    assert torch.equal(made[1], POLICY(x, ids=5, occurrence=1))
    boxes = tv_tensors.BoundingBoxes([[1, 2, 8, 9]], format="XYXY", canvas_size=(12, 13))
    moves = ga.Policy([ga.RandomCrop(8)])
    both = moves.views({"image": x, "boxes": boxes, "name": "a"}, n=2, ids=5)
    for v, sample in enumerate(both):
        alone = moves({"image": x, "boxes": boxes, "name": "a"}, ids=5, occurrence=v)
        assert torch.equal(sample["image"], alone["image"]) and torch.equal(sample["boxes"], alone["boxes"])
        assert sample["name"] == "a" and isinstance(sample["boxes"], tv_tensors.BoundingBoxes)
    assert len(POLICY.views(PIL.Image.new("RGB", (13, 12)))) == 2


def test_views_are_one_call_and_share_the_pixels_that_were_decoded():
    assert calls_of(lambda: POLICY.views(images(), n=5, ids=IDS)) == 1
    assert calls_of(lambda: ga.MultiCrop(local=6, sizes=(9, 5))(ragged(), ids=IDS)) == 2
    with mock.patch.object(torch, "cat", side_effect=AssertionError("pixels were copied")):
        from gpuaug.views import _stacked

        assert _stacked(images(), 3).store.data_ptr() is not None
        many = _stacked(ga.Ragged(ragged()), 3)
    assert len(many) == 3 * N and many.images[0] is many.images[N]


def test_substitutes_of_the_loader_keep_to_the_upper_half_and_other_occurrences_must_fit():
    half = MAX_OCCURRENCE // 2
    late = torch.tensor([half, half + 1, MAX_OCCURRENCE - 1, 0])
    made = POLICY.views(ga.Batch(images(), ids=IDS, occurrence=late), n=2)
    assert made[1].occurrence.tolist() == [half + 1, half + 3, half + (2 * (half - 1) + 1) % half, 1]
    with pytest.raises(ValueError, match=r"occurrence must be in \[0, 4096\)"):
        POLICY.views(images(), n=9, ids=IDS, occurrence=torch.full((N,), 1000))


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", 4096])
def test_a_number_of_views_is_checked(n):
    with pytest.raises((TypeError, ValueError), match="n must be"):
        POLICY.views(images(), n=n)


def test_a_mix_finds_partners_among_all_views_and_labels_stay_exact():
    policy = ga.Policy([ga.MixUp(num_classes=5)], seed=2)
    pixels, labels = policy.views(images(torch.float32), torch.arange(N), n=2, ids=IDS)
    for x, soft in zip(pixels, labels, strict=True):
        assert soft.shape == (N, 5) and torch.allclose(soft.sum(1), torch.ones(N)) and x.shape == (N, 3, 12, 13)


# ---- two sizes


@pytest.mark.parametrize("backend", BACKENDS)
def test_crops_of_two_sizes_are_those_of_their_policies(backend):
    after = [ga.RandomHorizontalFlip(), ga.ToDtype(torch.float32, scale=True)]
    crops = ga.MultiCrop(**MULTI, sizes=(9, 5), scales=((0.4, 1.0), (0.05, 0.4)), transforms=after, seed=4)
    made = crops(images(), ids=IDS, epoch=1, backend=backend)
    assert [v.shape[-1] for v in made] == [9, 9, 5, 5, 5]
    for v, view in enumerate(made):
        scale = (0.4, 1.0) if v < 2 else (0.05, 0.4)
        alone = ga.Policy([ga.RandomResizedCrop(9 if v < 2 else 5, scale), *after], seed=4)
        want = alone(images(), ids=IDS, epoch=1, occurrence=torch.full((N,), v), backend=backend)
        compare(view, want, "exact" if backend != "triton" else "resample", f"view {v}")


def test_global_and_local_views_may_be_followed_by_other_transforms():
    crops = ga.MultiCrop(1, 1, (9, 5), transforms={"global": [ga.RandomInvert(1.0)], "local": []})
    large, small = crops(torch.zeros(N, 3, 12, 13, dtype=torch.uint8))
    assert (large == 255).all() and (small == 0).all()


def test_crops_count_samples_once_and_follow_the_epoch():
    crops = ga.MultiCrop(1, 2, (9, 5), seed=1)
    first = crops(ga.Batch(images()))
    assert [v.ids.tolist() for v in first] == [[0, 1, 2, 3]] * 3
    assert [v.occurrence.tolist()[0] for v in first] == [0, 1, 2]
    assert crops(ga.Batch(images()))[2].ids.tolist() == [4, 5, 6, 7]
    crops.set_epoch(3)
    assert all(v.epoch == 3 for v in crops(ga.Batch(images())))
    twin = ga.MultiCrop(1, 2, (9, 5), seed=1)
    twin.load_state_dict(crops.state_dict())
    assert torch.equal(twin(images())[1], pickle.loads(pickle.dumps(crops))(images())[1])
    assert (
        "5x5" in crops.describe((12, 13)) and "2 local views" in crops.describe((12, 13)) and "global=1" in repr(crops)
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"global": 0, "local": 0}, "must not both be 0"),
        ({"global": -1}, "global must be"),
        ({"local": 1.5}, "local must be"),
        ({"global": 2, "n_global": 2}, "came as n_global too"),
        ({"sizes": 9}, "sizes must be one of the global"),
        ({"scales": (0.3, 1.0)}, "scales must be"),
        ({"scales": ((0.4, 1.5), (0.1, 0.2))}, "scales"),
        ({"crops": 3}, "MultiCrop has no argument crops"),
        ({"transforms": {"large": []}}, '"global" and "local"'),
        ({"transforms": [3]}, "gpuaug transforms"),
        ({"local": 4096}, "at most"),
    ],
)
def test_bad_arguments_of_crops_of_two_sizes_are_refused(arguments, words):
    with pytest.raises((TypeError, ValueError), match=words):
        ga.MultiCrop(**arguments)


# ---- fixed views


def fixed():
    return [
        (ga.FiveCrop(7), v2.FiveCrop(7)),
        (ga.FiveCrop((6, 9)), v2.FiveCrop((6, 9))),
        (ga.TenCrop(5), v2.TenCrop(5)),
        (ga.TenCrop((12, 13), vertical_flip=True), v2.TenCrop((12, 13), vertical_flip=True)),
    ]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("ours", "torchvisions"), fixed(), ids=str)
def test_fixed_crops_are_torchvisions_in_its_order(ours, torchvisions, backend):
    policy = ga.Policy([ours])
    for x in (images(), images(torch.float32)):
        made, want = policy(x, backend=backend), torchvisions(x)
        assert len(made) == len(want) == ours.count
        assert all(torch.equal(a, b) for a, b in zip(made, want, strict=True))
    assert ga.from_torchvision(torchvisions) == policy
    assert ga.Policy.from_dict(policy.to_dict()) == policy and copy.copy(policy)(images()[0])[0].ndim == 3


def test_a_pipeline_for_ten_crops_is_torchvisions_step_by_step():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.2)
    pipeline = v2.Compose(
        [v2.Resize(11), v2.TenCrop(8), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    )
    made = ga.from_torchvision(pipeline)(images(), ids=IDS)
    # torchvision's Normalize sees but the first of several plain tensors
    floats = [v2.Normalize(mean, std)(x) for x in v2.Compose([v2.Resize(11), v2.TenCrop(8)])(images() / 255)]
    assert len(made) == 10
    for a, b in zip(made, floats, strict=True):
        compare(a, b, "resample", "ten crops", 5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_flips_are_the_image_and_its_mirror_images(backend):
    x = images()
    for vertical, want in ((False, (x, x.flip(3))), (True, (x, x.flip(3), x.flip(2), x.flip(2, 3)))):
        made = ga.Policy([ga.Flips(vertical)])(x, backend=backend)
        assert len(made) == len(want) and all(torch.equal(a, b) for a, b in zip(made, want, strict=True))


def test_fixed_views_keep_their_places_where_there_are_several_of_each():
    policy = ga.Policy([ga.FiveCrop(7), ga.ColorJitter(0.5)])
    made = policy.views(images(), n=10, ids=IDS)
    plain = ga.Policy([ga.FiveCrop(7)])(images(), ids=IDS)
    assert len(made) == 10 and not torch.equal(made[0], made[5])
    dim = ga.Policy([ga.FiveCrop(7), ga.ColorJitter(0)]).views(images(), n=10, ids=IDS)
    assert all(torch.equal(dim[v], plain[v % 5]) for v in range(10))
    with pytest.raises(ValueError, match="n must be a multiple of 5"):
        policy.views(images(), n=7)


def test_targets_follow_fixed_views():
    batch = ga.Batch(
        images(), ids=IDS, masks=images()[:, 0], boxes=torch.tensor([[[0.0, 0, 4, 5]]] * N), box_format="XYXY"
    )
    made = ga.Policy([ga.FiveCrop(7)])(batch)
    assert len(made) == 5 and all(torch.equal(v.masks, v.images[:, 0]) for v in made)
    assert made[0].box_valid.all() and not made[3].box_valid.any()


def test_fixed_views_stand_alone_in_the_list_of_a_policy():
    with pytest.raises(ValueError, match="at most one transform of fixed views, got FiveCrop and Flips"):
        ga.Policy([ga.FiveCrop(7), ga.Flips()])
    with pytest.raises(ValueError, match="Flips must stand in the list of a policy, got it inside RandomApply"):
        ga.Policy([ga.RandomApply([ga.RandomInvert(), ga.Flips()])])
    with pytest.raises(ValueError, match=r"size \(14, 14\) of FiveCrop is larger than the image \(12, 13\)"):
        ga.Policy([ga.FiveCrop(14)])(images())
    with pytest.raises(ValueError, match="larger than the image"):
        ga.Policy([ga.TenCrop(13)])(ragged())


# ---- where they are used


def test_views_go_through_a_compiled_function():
    policy = ga.Policy([ga.RandomCrop(8)], seed=1)
    crops = ga.MultiCrop(1, 1, (9, 5))

    def step(x, ids):
        return [v + 1 for v in policy.views(x, n=2, ids=ids)], crops(x, ids=ids)

    eager, compiled = step(images(), IDS), torch.compile(step, backend="eager")(images(), IDS)
    for a, b in zip((*eager[0], *eager[1]), (*compiled[0], *compiled[1]), strict=True):
        assert torch.equal(a, b)


def test_a_loader_gives_views_of_what_it_decoded_once(tmp_path):
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 24, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    policy = ga.Policy([ga.RandomResizedCrop(8), ga.RandomHorizontalFlip()])
    table = [(str(tmp_path / f"{i}.png"), i) for i in range(6)]
    for several, n in (
        (partial(policy.views, n=2), 2),
        (ga.MultiCrop(1, 2, (8, 4)), 3),
        (ga.Policy([ga.FiveCrop(7)]), 5),
    ):
        with ga.data.Loader(table, several, batch_size=3, device="cpu", decoder="pillow") as loader:
            made = list(loader)
        assert len(made) == 2
        for views in made:
            assert len(views) == n
            assert [v.occurrence.tolist() for v in views] == [[k] * 3 for k in range(n)]
            assert all(torch.equal(v.ids, v.labels) and torch.equal(v.ids, views[0].ids) for v in views)
    x = torch.from_numpy(np.stack([np.random.default_rng(9).integers(0, 256, (6, 6), np.uint8)] * 8))
    with ga.data.ResidentLoader((x, torch.arange(8)), ga.Policy([ga.Flips()]), batch_size=4, device="cpu") as resident:
        for one, other in resident:
            assert torch.equal(one.images.flip(3), other.images) and torch.equal(one.labels, other.labels)


def test_what_was_drawn_for_one_view_is_refused_for_several():
    policy = ga.Policy([ga.RandomResizedCrop(8)])
    drawn = policy.windows(IDS, (12, 13)).params
    with pytest.raises(ValueError, match="drawn for one view"):
        policy.views(ga.Batch(images(), ids=IDS, params=drawn))
