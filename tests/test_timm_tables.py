"""timm's own tables, row by row."""

import pytest
import torch
from timm.data import auto_augment as timm

import gpuaug as ga
from gpuaug.transforms.auto_tables import TIMM_AUTOAUGMENT, TIMM_RANDAUGMENT
from gpuaug.transforms.auto_timm import parsed


@pytest.mark.parametrize("name", TIMM_AUTOAUGMENT)
def test_pairs_of_an_auto_policy_are_timms(name):
    rows = [[(op.name, op.prob, op.magnitude) for op in pair] for pair in timm.auto_augment_policy(name)]
    assert [list(pair) for pair in TIMM_AUTOAUGMENT[name]] == rows and len(rows) == 25


@pytest.mark.parametrize(
    "config", ["rand-m9-mstd0.5-inc1", "rand-m7-n3", "rand-mstd1-tweights", "rand-m5-p0.7-t3a", "rand-mstd101-t3aw"]
)
def test_a_string_means_to_timm_what_it_means_here(config):
    theirs, said = timm.rand_augment_transform(config, {"img_mean": (124, 116, 104)}), parsed(config, "rand")
    ours = TIMM_RANDAUGMENT[said.name]
    assert [op.name for op in theirs.ops] == list(ours)
    op = theirs.ops[0]
    assert (op.magnitude, op.prob, op.magnitude_std, theirs.num_layers) == (
        said.magnitude,
        said.chance,
        said.noise,
        said.layers,
    )
    if theirs.choice_weights is not None:
        weights = list(ours.values())
        assert theirs.choice_weights == pytest.approx([w / sum(weights) for w in weights])
    assert ga.RandAugment.from_timm(config).config == config


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
@pytest.mark.parametrize("make", [lambda: ga.TimmRandAugment("rand-m6-n4-t3aw-p0.9"), lambda: ga.GaussianBlur(13)])
def test_an_image_that_is_too_small_for_a_blur_is_refused_in_words(make, backend):
    policy = ga.Policy([ga.ToDtype(torch.float32, scale=True), make()])
    with pytest.raises(ValueError, match=r"kernel_size \(13, 13\) of .*GaussianBlur reaches beyond .* \(3, 9\)"):
        policy(torch.rand(2, 3, 3, 9), backend=backend)
    assert policy(torch.rand(2, 3, 7, 9), backend=backend).shape == (2, 3, 7, 9)
