"""Test-time augmentation: the same answers as a plain loop over views, within a bound on memory, and what it cost."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import gpuaug as ga


class Scores(nn.Module):
    """Six classes from the places of pixels, so that views differ; counts its passes."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(6, 3, 5, 7, generator=generator)
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        small = functional.adaptive_avg_pool2d(images.float(), (5, 7))
        return torch.einsum("nchw,kchw->nk", small, self.weight) * 4


class Dense(nn.Module):
    """Four classes at every pixel, from the pixel and its left neighbour."""

    def forward(self, images):
        x = images.float()
        return torch.cat([x, x.roll(1, 3)[:, :1]], 1) * 3


@pytest.fixture
def images():
    return torch.rand(5, 3, 24, 32, generator=torch.Generator().manual_seed(1))


LOOPS = {
    "identity": lambda x: [x],
    "hflip": lambda x: [x.flip(3)],
    "vflip": lambda x: [x.flip(2)],
    "flips": lambda x: [x, x.flip(3)],
    "flips_both": lambda x: [x, x.flip(3), x.flip(2), x.flip(2, 3)],
    "rotations": lambda x: [torch.rot90(x, k, (2, 3)) for k in range(4)],
    "five_crop": lambda x: five(x),
    "ten_crop": lambda x: five(x) + five(x.flip(3)),
    "scales": lambda x: [
        x if s == 1 else functional.interpolate(x, (int(24 * s), int(32 * s)), mode="bilinear", antialias=True)
        for s in (0.75, 1.0, 1.25)
    ],
}


def five(x):
    return [x[..., :21, :28], x[..., :21, 4:], x[..., 3:, :28], x[..., 3:, 4:], x[..., 2:23, 2:30]]


def looped(model, pictures, merge):
    rows = torch.stack([model(v).softmax(1) for v in pictures])
    if merge == "mean":
        return rows.mean(0)
    if merge == "max":
        top = rows.max(0).values
        return top / top.sum(1, keepdim=True)
    return functional.one_hot(rows.argmax(2), rows.shape[2]).float().mean(0)


@pytest.mark.parametrize("merge", ["mean", "max", "vote"])
@pytest.mark.parametrize("views", sorted(LOOPS))
def test_answers_are_those_of_a_loop_over_the_views(images, views, merge):
    model = Scores()
    wanted = looped(model, LOOPS[views](images), merge)
    found = ga.tta(model, images, views=views, merge=merge)
    torch.testing.assert_close(found.probabilities, wanted, rtol=0, atol=2e-4)
    assert len(found.views) == len(LOOPS[views](images)) and found.seen is None
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(5))
    chosen = found.probabilities.gather(1, found.predicted[:, None])[:, 0]
    assert torch.equal(found.confidence, chosen)
    assert torch.equal(chosen, found.probabilities.max(1).values)


def test_every_name_of_a_view_has_its_loop():
    from gpuaug.tta import _NAMED

    assert _NAMED.keys() == LOOPS.keys()


@pytest.mark.parametrize("most", [1, 3, 4, 9, 256])
def test_no_pass_is_larger_than_its_bound_and_the_bound_changes_no_answer(images, most):
    model = Scores()
    whole = ga.tta(model, images, views=["flips", "vflip", ga.Policy([ga.ColorJitter(0.5)], seed=3)])
    model.sizes.clear()
    found = ga.tta(model, images, views=["flips", "vflip", ga.Policy([ga.ColorJitter(0.5)], seed=3)], max_batch=most)
    torch.testing.assert_close(found.probabilities, whole.probabilities)
    assert max(model.sizes) <= most and sum(model.sizes) == 20 == found.images
    assert len(model.sizes) == found.forwards and whole.forwards == 1


def test_a_view_that_comes_twice_counts_once(images):
    found = ga.tta(Scores(), images, views=["flips", "identity", "hflip", "flips_both", "rotations", "scales"])
    assert len(found.views) == len(set(found.views)) == 4 + 3 + 2


@pytest.mark.parametrize("form", ["transform", "policy", "list", "Batch", "uint8", "images of many sizes", "one"])
def test_views_and_images_come_in_every_form(images, form):
    model = Scores()
    resized = ga.Policy([ga.Resize((24, 32)), ga.TenCrop((20, 28)), ga.ToDtype(torch.float32, scale=True)])
    ten = ga.TenCrop((20, 28))
    wanted = looped(model, [v for v in ga.Policy([ten]).views(images, ids=torch.arange(5))], "mean")
    if form == "transform":
        found = ga.tta(model, images, ten)
    elif form in ("policy", "list"):
        found = ga.tta(model, list(images) if form == "list" else images, [ga.Policy([ten])])
    elif form == "Batch":
        found = ga.tta(model, ga.Batch(images, labels=torch.arange(5)), [ten])
        assert found.accuracy is not None
    elif form == "one":
        found = ga.tta(model, images[0], [ten], labels=3)
        wanted = wanted[:1]
        assert found.accuracy in (0.0, 1.0)
    else:
        eight = (images * 255).to(torch.uint8)
        given = eight if form == "uint8" else [*eight[:4], eight[4, :, :, :30]]
        found = ga.tta(model, given, resized)
        each = [resized(x[None], ids=torch.tensor([k])) for k, x in enumerate(given)]
        wanted = torch.cat([looped(model, views, "mean") for views in each])
    torch.testing.assert_close(found.probabilities, wanted)


def test_the_gain_is_the_difference_to_the_plain_view(images):
    model = Scores()
    middle = model(LOOPS["five_crop"](images)[4]).argmax(1)
    labels = torch.where(torch.tensor([True, True, True, False, False]), middle, (middle + 1) % 6)
    found = ga.tta(model, images, "five_crop", labels=labels)
    assert found.accuracy_without == pytest.approx(0.6)
    assert found.accuracy == pytest.approx((found.predicted == labels).double().mean())
    assert found.seconds > 0 and "25 images in 1 forward pass" in found.report()
    assert f"{found.accuracy - 0.6:+.4f}" in found.report()
    none = ga.tta(model, images)
    assert none.accuracy is None and none.accuracy_without is None and "gain unknown" in none.report()


@pytest.mark.parametrize("merge", ["mean", "max", "vote"])
def test_dense_answers_lie_on_the_images_as_they_were_given(images, merge):
    """A model of single pixels says the same whichever way the image lies."""
    found = ga.tta(lambda x: x * 5, images, ["flips_both", "rotations"], merge)
    assert found.probabilities.shape == (5, 3, 24, 32) and found.seen.all()
    assert torch.equal(found.predicted, images.argmax(1))
    if merge != "vote":
        torch.testing.assert_close(found.probabilities, (images * 5).softmax(1))


def test_dense_scores_are_averaged_where_they_were_seen(images):
    model, policy = Dense(), ga.Policy([ga.FiveCrop((10, 12))])
    total, count = torch.zeros(5, 4, 24, 32), torch.zeros(24, 32)
    for top, left in ((0, 0), (0, 20), (14, 0), (14, 20), (7, 10)):
        here = slice(top, top + 10), slice(left, left + 12)
        total[:, :, here[0], here[1]] += model(images[:, :, here[0], here[1]])
        count[here] += 1
    found = ga.tta(model, images, policy, labels=images.argmax(1), max_batch=7)
    assert torch.equal(found.seen, (count > 0).expand(5, -1, -1)) and 0.3 < found.seen.float().mean() < 1
    seen = found.seen[:, None].expand_as(total)
    torch.testing.assert_close(found.probabilities[seen], (total / count.clamp(min=1)).softmax(1)[seen])
    assert not found.probabilities[~seen].any()
    assert (found.predicted[~found.seen] == -1).all() and not found.confidence[~found.seen].any()
    assert 0 < found.accuracy_without < found.accuracy < 1


def test_dense_answers_of_images_of_many_sizes_are_lists_and_small_ones_are_scaled_up():
    given = [torch.randint(0, 256, (3, 20 + k, 30), dtype=torch.uint8) for k in range(3)]
    policy = ga.Policy([ga.Resize((16, 24)), ga.Flips(), ga.ToDtype(torch.float32, scale=True)])
    found = ga.tta(lambda x: functional.avg_pool2d(x, 2), given, policy, max_batch=4)
    assert [tuple(p.shape) for p in found.probabilities] == [(3, 20 + k, 30) for k in range(3)]
    assert [tuple(s.shape) for s in found.seen] == [(20 + k, 30) for k in range(3)]
    assert all(s.float().mean() > 0.8 for s in found.seen)


@pytest.mark.parametrize("merge", ["mean", "max", "vote"])
def test_classes_of_their_own_are_probabilities_each(images, merge):
    model = Scores()
    rows = torch.stack([model(v).sigmoid() for v in LOOPS["flips_both"](images)])
    wanted = {"mean": rows.mean(0), "max": rows.max(0).values, "vote": (rows > 0.5).float().mean(0)}[merge]
    found = ga.tta(model, images, "flips_both", merge, activation="sigmoid", labels=torch.ones(5, 6))
    torch.testing.assert_close(found.probabilities, wanted)
    decided = wanted != 0.5
    assert decided.float().mean() > 0.3, "vacuous"
    assert torch.equal(found.predicted[decided], (wanted > 0.5)[decided])
    assert found.accuracy == pytest.approx(found.predicted.double().mean())


def test_a_tie_of_votes_goes_to_the_larger_mean(images):
    rows = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0]])
    calls = iter(rows)
    found = ga.tta(lambda x: next(calls)[None], images[:1], "flips", "vote", activation="none", max_batch=1)
    assert found.probabilities.tolist() == [[0.5, 0.5, 0.0]] and found.predicted.tolist() == [1]


def test_no_gradients_are_kept(images):
    weight = torch.ones(6, requires_grad=True)
    assert not ga.tta(lambda x: x.mean((1, 2, 3))[:, None] * weight, images).probabilities.requires_grad


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"views": []}, ValueError, "got none"),
        ({"views": "sideways"}, ValueError, "'sideways'"),
        ({"views": 3}, TypeError, "views must be names"),
        ({"views": [3]}, TypeError, "views must be names"),
        ({"views": ga.MixUp(num_classes=6)}, ValueError, "MixUp mixes"),
        ({"views": ga.FiveCrop(99)}, ValueError, "larger than the image"),
        ({"merge": "median"}, ValueError, "merge must be one of"),
        ({"activation": "tanh"}, ValueError, "activation must be one of"),
        ({"max_batch": 0}, ValueError, "max_batch must be >= 1"),
        ({"model": None}, TypeError, "model must be callable"),
        ({"model": lambda x: {"out": x}}, TypeError, "got dict"),
        ({"model": lambda x: x.mean()}, ValueError, r"\[10, K\]"),
        ({"model": lambda x: x[:3].mean((2, 3))}, ValueError, r"got torch.float32 \[3, 3\]"),
        ({"model": lambda x: x.flatten(1)[:, :0]}, ValueError, r"\[10, 0\]"),
        ({"model": lambda x: x.mean((2, 3)).long()}, ValueError, "int64"),
        ({"model": lambda x: x.flatten(2).mean(1), "views": "scales"}, ValueError, "as many classes"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Dropout())}, ValueError, r"model.eval\(\)"),
        ({"labels": torch.zeros(4)}, ValueError, r"labels must be class numbers, \[5\]"),
        ({"images": torch.zeros(0, 3, 8, 8)}, ValueError, "at least one image"),
        ({"images": [torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)]}, ValueError, "one size"),
        ({"images": [torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)], "views": "five_crop"}, ValueError, "FiveCrop"),
        ({"views": [ga.ElasticTransform()], "model": Dense()}, ValueError, "cannot be undone"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(images, change, error, words):
    given = {"model": Scores(), "images": images, **change}
    with pytest.raises(error, match=words):
        ga.tta(given.pop("model"), given.pop("images"), **given)
