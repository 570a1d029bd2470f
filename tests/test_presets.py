"""Presets: what they are made of, that they run, and that they print and save as the code that makes them."""

import inspect

import pytest
import torch

import gpuaug as ga
from gpuaug import presets

K = 10
EVERY = [(name, classes) for name in presets.NAMES for classes in (None, K)]
# recipes without a left and a right
HANDED = {"none", "medical", "digits"}
# presets that end with a mix where the number of classes is known
MIXED = {"strong", "very_strong", "large", "torchvision_reference", "deit"}


def kinds(policy: ga.Policy) -> list[str]:
    return [type(t).__name__ for t in policy.transforms]


def photographs() -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, 40 + 3 * n, 52 - 2 * n), dtype=torch.uint8, generator=g) for n in range(4)]


def inputs(name: str) -> object:
    """CIFAR's images are of one size."""
    return torch.stack([p[:, :32, :32] for p in photographs()]) if name == "cifar" else photographs()


@pytest.mark.parametrize(("name", "classes"), EVERY)
def test_a_preset_prints_and_saves_as_the_code_that_makes_it(name, classes, tmp_path):
    policy = presets.get(name, num_classes=classes, seed=7)
    assert isinstance(policy, ga.Policy) and policy.seed == 7
    assert eval(repr(policy), {**vars(ga), "torch": torch}) == policy
    policy.save(tmp_path / "policy.yaml")
    assert ga.Policy.load(tmp_path / "policy.yaml") == policy


@pytest.mark.parametrize("name", presets.NAMES)
def test_a_preset_runs_and_gives_square_floats(name):
    policy = presets.get(name, 32, K)
    images, labels = policy(inputs(name), torch.arange(4), ids=torch.arange(4))
    assert images.shape == (4, 3, 32, 32) and images.dtype == torch.float32
    assert images.isfinite().all() and images.std() > 0.3, "vacuous"
    assert labels.shape == ((4, K) if name in MIXED else (4,))


@pytest.mark.parametrize("name", presets.NAMES)
def test_a_preset_augments_and_its_validation_does_not(name):
    def call(policy: ga.Policy, epoch: int) -> torch.Tensor:
        return policy(inputs(name), ids=torch.arange(4), epoch=epoch)

    train, check = presets.get(name, 32), presets.validation(name, 32)
    assert torch.equal(call(check, 0), call(check, 1))
    assert torch.equal(call(train, 0), call(train, 1)) == (name == "none")
    assert call(check, 0).shape == call(train, 0).shape
    end = [t for t in train.transforms if isinstance(t, ga.Normalize)]
    assert end == [t for t in check.transforms if isinstance(t, ga.Normalize)], "trained and validated on other values"


@pytest.mark.parametrize(("name", "classes"), EVERY)
def test_there_is_a_mix_where_classes_are_known_and_the_preset_has_one(name, classes):
    policy = presets.get(name, num_classes=classes)
    assert bool(policy._mixes) == (classes is not None and name in MIXED)
    assert not presets.validation(name)._mixes
    if policy._mixes:
        mix = policy.transforms[-1]
        assert isinstance(mix, ga.RandomMix) and mix.num_classes == K
        assert {type(m) for m in mix.transforms} == {ga.MixUp, ga.CutMix}


@pytest.mark.parametrize("name", presets.NAMES)
def test_photographs_are_flipped_and_what_has_a_side_is_not(name):
    found = [t for t in presets.get(name).transforms if isinstance(t, ga.RandomHorizontalFlip)]
    assert [t.p for t in found] == ([] if name in HANDED else [0.5])


@pytest.mark.parametrize("name", sorted(presets.NAMES))
def test_noise_and_erasing_stand_where_they_belong(name):
    order = kinds(presets.get(name, num_classes=K))
    assert order.index("ToDtype") + 1 == order.index("Normalize")
    if "RandomErasing" in order:
        assert order.index("RandomErasing") > order.index("Normalize")


def test_the_levels_are_what_they_are_called():
    crop = [ga.RandomResizedCrop(160), ga.RandomHorizontalFlip()]
    end = [ga.ToDtype(torch.float32, scale=True), ga.Normalize(*presets.IMAGENET)]
    mix = [ga.RandomMix((ga.MixUp(0.2), ga.CutMix(1.0)), num_classes=K)]
    want = {
        "none": [ga.Resize(183), ga.CenterCrop(160), *end],
        "weak": [*crop, *end],
        "moderate": [*crop, ga.ColorJitter(0.2, 0.2, 0.2, 0.05), *end, ga.RandomErasing(0.25)],
        "strong": [*crop, ga.RandAugment(2, 9), *end, *mix],
        "very_strong": [*crop, ga.RandAugment(2, 9), *end, ga.RandomErasing(0.5), *mix],
    }
    assert list(want) == list(presets.LEVELS)
    for level, transforms in want.items():
        assert list(presets.strength(level, 160, K).transforms) == transforms, level
    assert presets.strength("none").transforms[:2] == (ga.Resize(256), ga.CenterCrop(224))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("small", "RandomResizedCrop(size=(224, 224), scale=(0.7, 1.0)"),
        ("small", "hue=(-0.02, 0.02)"),
        ("medium", "scale=(0.5, 1.0)"),
        ("medium", "hue=(-0.05, 0.05)"),
        ("medium", "RandomErasing(p=0.25"),
        ("large", "scale=(0.08, 1.0)"),
        ("large", "RandAugment(num_ops=2, magnitude=9"),
        ("large", "RandomErasing(p=0.25"),
        ("cifar", "RandomCrop(size=(32, 32), padding=(4, 4, 4, 4)"),
        ("torchvision_reference", "TrivialAugmentWide("),
        ("deit", "rand-m9-mstd0.5-inc1"),
        ("simclr", "GaussianBlur(kernel_size=(23, 23)"),
        ("dino_global_1", "scale=(0.4, 1.0)"),
        ("dino_global_2", "RandomSolarize("),
        ("dino_local", "size=(96, 96), scale=(0.05, 0.4)"),
    ],
)
def test_a_recipe_has_its_numbers(name, says):
    assert says in repr(presets.get(name))


@pytest.mark.parametrize("name", ["torchvision_reference", "deit", "simclr", "dino", "cifar"])
def test_what_was_published_names_its_source(name):
    assert "Source: " in (inspect.getdoc(getattr(presets, name)) or "")


def test_torchvision_validates_larger_than_it_trains():
    assert presets.validation("torchvision_reference").transforms[:2] == (ga.Resize(232), ga.CenterCrop(224))


def test_every_preset_has_a_name():
    functions = {n for n in presets.__all__ if callable(getattr(presets, n))} - {
        "get",
        "validation",
        "strength",
        "dino",
    }
    assert functions <= set(presets.NAMES) and len(functions) > 8


# ---- bad input


@pytest.mark.parametrize("call", [presets.get, presets.validation, presets.strength])
@pytest.mark.parametrize("name", ["mild", "", None, 3, ["weak"]])
def test_an_unknown_name_is_told_which_there_are(call, name):
    with pytest.raises(ValueError, match="none, weak, moderate, strong, very_strong"):
        call(name)
    with pytest.raises(ValueError, match="global_1, global_2, local"):
        presets.dino(view="side")


@pytest.mark.parametrize("name", presets.NAMES)
def test_bad_sizes_and_classes_are_refused(name):
    for bad in (0, -3, 2.5, "224", True):
        with pytest.raises((ValueError, TypeError), match="size must be"):
            presets.get(name, bad)
        with pytest.raises((ValueError, TypeError), match="num_classes must be"):
            presets.get(name, num_classes=bad)
