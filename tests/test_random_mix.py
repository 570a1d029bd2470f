"""RandomMix: a choice among mixes, drawn as timm's Mixup and torchvision's mixes draw it."""

import pickle

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
from scipy import stats
from timm.data import mixup as timm

import gpuaug as ga

N, P = 20_000, 1e-4
CUT, UP = ga.CutMix(1.0), ga.MixUp(0.4)
X = torch.rand(6, 3, 9, 13, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([3, 0, 1, 1, 2, 4])
IDS = torch.tensor([3, 1, 4, 15, 9, 26])


def drawn(t: ga.Transform, n: int = N, epoch: int = 0, size: tuple[int, int] = (40, 60)) -> dict:
    return ga.Policy([t], seed=8).draw(torch.arange(n), epoch=epoch, size=size, dtype=torch.float32)[0]


def test_choice_and_lam_are_distributed_as_in_timms_elem_mode():
    ours = drawn(ga.RandomMix.from_timm(0.8, 1.5, prob=0.7, switch_prob=0.3, mode="elem", num_classes=5))
    tool = timm.Mixup(0.8, 1.5, prob=0.7, switch_prob=0.3, mode="elem", num_classes=5)
    np.random.seed(3)
    lam, cut = tool._params_per_elem(N)
    none = lam == 1
    theirs = np.array([(~none & ~cut).sum(), (~none & cut).sum(), none.sum()])
    index = ours["index"].numpy()
    mine = np.bincount(index, minlength=3)
    assert stats.chi2_contingency(np.stack([mine, theirs])).pvalue > P, (mine, theirs)
    for k, chosen in enumerate((~none & ~cut, ~none & cut)):
        assert stats.ks_2samp(ours["transforms"][k]["lam"].numpy()[index == k], lam[chosen]).pvalue > P
    assert theirs.min() > 1000, "vacuous"


def test_rectangles_are_distributed_as_timms_but_for_a_pixel_at_their_far_sides():
    box = drawn(ga.RandomMix([CUT, UP]))["transforms"][0]["box"].numpy()
    np.random.seed(4)
    theirs = np.array([timm.rand_bbox((40, 60), v) for v in np.random.beta(1.0, 1.0, N)])[:, [2, 0, 3, 1]]
    for near in (0, 1):
        assert stats.ks_2samp(box[:, near], theirs[:, near]).pvalue > P, f"side {near}"
    # timm rounds the far half of an odd side up, torchvision and the paper's code down
    for far in (2, 3):
        more = theirs[:, far].mean() - box[:, far].mean()
        assert 0.1 < more < 0.7, f"side {far}: {more}"


@pytest.mark.parametrize("p", [(0.2, 0.8), (3.0, 1.0), None])
def test_choices_follow_their_weights(p):
    counts = torch.bincount(drawn(ga.RandomMix([CUT, UP], p=p))["index"], minlength=2).numpy()
    weights = np.asarray(p or (1.0, 1.0))
    assert stats.chisquare(counts, N * weights / weights.sum()).pvalue > P


def test_the_switch_is_to_the_cut_wherever_it_stands():
    for mixes in ([CUT, UP], [UP, CUT]):
        index = drawn(ga.RandomMix(mixes, switch_prob=0.9))["index"]
        share = (index == mixes.index(CUT)).double().mean()
        assert abs(share - 0.9) < 0.01


def test_smoothed_labels_are_timms():
    smoothing = 0.1
    policy = ga.Policy(
        [ga.RandomMix.from_timm(0.8, 1.0, mode="elem", label_smoothing=smoothing, num_classes=5)], seed=8
    )
    plain = ga.Policy([ga.RandomMix([ga.MixUp(0.8), ga.CutMix(1.0)], switch_prob=0.5, num_classes=6)], seed=8)
    # how much is left of each sample, told by a class of its own
    own = plain(X, torch.arange(6), ids=IDS)[1].diagonal()
    partner = policy.draw(IDS, size=(9, 13))[0]["transforms"][0]["partner"]
    rows = timm.one_hot(Y, 5, on_value=1 - smoothing + smoothing / 5, off_value=smoothing / 5)
    want = own[:, None] * rows + (1 - own[:, None]) * rows[partner]
    assert torch.allclose(policy(X, Y, ids=IDS)[1], want, atol=1e-6)
    # what timm makes of a batch that shares its lam, with the next sample as partner
    flipped = timm.mixup_target(Y, 5, 0.3, smoothing)
    assert torch.allclose(flipped, 0.3 * rows + 0.7 * rows.flip(0))


@pytest.mark.parametrize("epochs", [600, pytest.param(1500, marks=pytest.mark.slow)])
def test_per_batch_all_samples_share_choice_lam_and_rectangle(epochs):
    t = ga.RandomMix([CUT, UP], per="batch", prob=0.8)
    index, lam = [], []
    for epoch in range(epochs):
        made = drawn(t, 3, epoch)
        inner = made["transforms"]
        for values in (made["index"], inner[0]["lam"], inner[0]["box"], inner[1]["lam"]):
            assert (values == values[:1]).all()
        assert made["transforms"][0]["partner"] is made["transforms"][1]["partner"]
        index.append(int(made["index"][0]))
        lam.append(float(inner[0]["lam"][0]))
    assert stats.chisquare(np.bincount(index, minlength=3), [0.4 * epochs, 0.4 * epochs, 0.2 * epochs]).pvalue > P
    assert stats.kstest(lam, "uniform").pvalue > P


def test_what_a_batch_shares_depends_on_its_members_and_not_on_their_places():
    policy = ga.Policy([ga.RandomMix([CUT, UP], per="batch")], seed=8)
    order, changed = torch.tensor([4, 2, 0, 5, 1, 3]), 0
    for epoch in range(20):
        a = policy.draw(IDS, epoch=epoch, size=(9, 13))[0]
        b = policy.draw(IDS[order], epoch=epoch, size=(9, 13))[0]
        fewer = policy.draw(IDS[:3], epoch=epoch, size=(9, 13))[0]
        for k in range(2):
            assert torch.equal(a["transforms"][k]["lam"], b["transforms"][k]["lam"])
        assert torch.equal(a["index"], b["index"])
        changed += int(a["transforms"][0]["lam"][0] != fewer["transforms"][0]["lam"][0])
    assert changed, "vacuous"


def test_who_is_not_valid_decides_nothing_for_the_batch():
    policy = ga.Policy([ga.RandomMix([CUT, UP], per="batch", num_classes=5)], seed=8)
    valid = torch.tensor([True, False, True, True, False, True])
    for epoch in range(10):
        batch = policy(ga.Batch(X, Y, IDS, epoch, valid=valid))
        alone = policy(ga.Batch(X[valid], Y[valid], IDS[valid], epoch))
        # of the others a cycle without them may give another partner, but the same draws
        a = policy.draw(IDS, epoch=epoch, size=(9, 13), valid=valid)[0]["transforms"][0]["lam"][0]
        assert a == policy.draw(IDS[valid], epoch=epoch, size=(9, 13))[0]["transforms"][0]["lam"][0]
        assert alone.labels.shape == (4, 5) and not batch.labels[~valid].any()


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_a_recipe_draws_what_steps_draw(per):
    policy = ga.Policy([ga.RandomMix([CUT, UP], per=per, num_classes=5, prob=0.9), ga.RandomInvert()], seed=8)
    said = policy.describe((9, 13), dtype=torch.float32, backend="cpu")
    assert "draws in one compiled call" in said and "by the reference" not in said
    for epoch in range(6):
        want = ga.Policy(policy.transforms, seed=8)(X, Y, ids=IDS, epoch=epoch, backend="cpu")
        got = policy(X, Y, ids=IDS, epoch=epoch, backend="cpu")
        assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


def test_the_arguments_of_timm_are_taken_or_refused_by_name():
    got = ga.RandomMix.from_timm(0.8, 1.0, prob=0.9, switch_prob=0.4, mode="elem", label_smoothing=0.2, num_classes=7)
    assert got == ga.RandomMix([ga.MixUp(0.8), ga.CutMix(1.0)], None, "sample", 0.4, 0.9, 7, 0.2)
    assert got == ga.RandomMix.from_timm(timm.Mixup(0.8, 1.0, None, 0.9, 0.4, "elem", True, 0.2, 7))
    assert ga.RandomMix.from_timm() == ga.RandomMix([ga.MixUp(1.0)], None, "batch", None, 1.0, 1000, 0.1)
    assert ga.RandomMix.from_timm(0.0, 0.5).transforms == (ga.CutMix(0.5),)
    for said, given in (
        ("pair", {"mode": "pair"}),
        ("cutmix_minmax", {"cutmix_minmax": (0.2, 0.8)}),
        ("correct_lam", {"correct_lam": False}),
        ("multi_label", {"multi_label": True}),
        ("mixup_alpha", {"mixup_alpha": 0.0}),
        ("mode", {"mode": "each"}),
    ):
        with pytest.raises(ValueError, match=said):
            ga.RandomMix.from_timm(**given)


def test_a_choice_of_torchvisions_mixes_is_a_random_mix():
    pipeline = v2.RandomChoice([v2.CutMix(alpha=0.5, num_classes=5), v2.MixUp(num_classes=5)], p=[1, 3])
    policy = ga.from_torchvision(pipeline, seed=3)
    assert policy.transforms == (ga.RandomMix([ga.CutMix(0.5, 5), ga.MixUp(1.0, 5)], p=[0.25, 0.75]),)
    images, labels = policy(X, Y, ids=IDS)
    assert images.shape == X.shape and torch.allclose(labels.sum(1), torch.ones(6))
    assert ga.from_torchvision(v2.CutMix(num_classes=5)).transforms == (ga.CutMix(1.0, 5),)


def test_it_is_a_value():
    t = ga.RandomMix([CUT, ga.MixUp(0.4, 5)], p=[1, 3], prob=0.9, label_smoothing=0.1)
    policy = ga.Policy([t], seed=3)
    assert ga.Policy.from_dict(policy.to_dict()) == policy == pickle.loads(pickle.dumps(policy))
    assert eval(repr(t), vars(ga)) == t and hash(t) == hash(eval(repr(t), vars(ga)))
    assert ga.serial.from_yaml(ga.serial.to_yaml(policy.to_dict())) == policy.to_dict()


def test_a_replay_gives_the_call_again():
    policy = ga.Policy([ga.RandomMix([CUT, UP], num_classes=5), ga.RandomHorizontalFlip()], seed=3)
    params = policy.draw(IDS, size=(9, 13), dtype=torch.float32)
    want, got = policy(X, Y, ids=IDS), policy.replay(X, params, Y)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
    with pytest.raises(ValueError, match="RandomMix cannot be undone"):
        policy.undo(X, params)


def test_targets_are_refused_where_a_mix_has_no_meaning_for_them():
    policy = ga.Policy([ga.RandomMix([CUT, UP], num_classes=5)], seed=3)
    with pytest.raises(ValueError, match="MixUp"):
        policy(ga.Batch(X, Y, IDS, masks=torch.zeros(6, 9, 13, dtype=torch.int64)))
    with pytest.raises(ValueError, match="mix"):
        policy(ga.Batch(X, Y, IDS, boxes=torch.zeros(6, 1, 4), box_format="XYXY"))
    cuts = ga.Policy([ga.RandomMix([CUT, ga.CutMix(0.3)], num_classes=6)], seed=3)
    batch = cuts(ga.Batch(X, torch.arange(6), IDS, masks=torch.arange(6)[:, None, None].expand(6, 9, 13)))
    shares = torch.stack([(batch.masks == k).double().mean((1, 2)) for k in range(6)], 1)
    assert torch.allclose(shares.float(), batch.labels, atol=1e-6) and (shares.amax(1) < 1).any()


@pytest.mark.parametrize(
    ("given", "labels", "said"),
    [
        ({}, Y, "num_classes is needed"),
        ({"num_classes": 4}, Y, r"labels must be in \[0, 4\), got 0 to 4"),
        ({"num_classes": 5}, -Y, r"labels must be in \[0, 5\), got -4 to 0"),
        ({"num_classes": 5}, torch.eye(6), "soft labels must have 5 columns"),
        ({"num_classes": 5}, Y[:5], "one row per image"),
        ({"num_classes": 5}, None, "mixes labels too"),
    ],
)
def test_labels_that_cannot_be_mixed_are_refused_in_words(given, labels, said):
    with pytest.raises(ValueError, match=said):
        ga.Policy([ga.RandomMix([CUT, UP], **given)])(X, labels)


def test_what_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="pass one of them"):
        ga.RandomMix([CUT, UP], p=[0.5, 0.5], switch_prob=0.5)
    for mixes in ([CUT, CUT], [UP], [CUT, UP, UP]):
        with pytest.raises(ValueError, match="one MixUp and one CutMix"):
            ga.RandomMix(mixes, switch_prob=0.5)
    with pytest.raises(ValueError, match="label_smoothing must be the same"):
        ga.Policy([ga.CutMix(1.0, 5, 0.1), ga.MixUp(1.0, 5, 0.2)])
    with pytest.raises(ValueError, match="num_classes must be the same"):
        ga.Policy([ga.RandomMix([CUT, ga.MixUp(1.0, 5)], num_classes=6)])


def test_it_compiles_into_a_graph():
    policy = ga.Policy([ga.RandomMix([CUT, UP], num_classes=5, label_smoothing=0.1)], seed=3)
    compiled = torch.compile(lambda x, y, ids: policy(x, y, ids=ids), fullgraph=True, backend="eager")
    for got, want in zip(compiled(X, Y, IDS), policy(X, Y, ids=IDS), strict=True):
        assert torch.equal(got, want)
