"""timm's own tables, row by row."""

import pytest
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
