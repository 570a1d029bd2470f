"""Every 2D class of kornia.augmentation inside a policy: drawn by the key of a sample, the batch invisible."""

import warnings

import kornia.augmentation as K
import pytest
import torch
from torch import nn

import gpuaug as ga

BACKENDS = ("reference", "cpu", "triton")
N, IDS = 4, torch.arange(4) + 5
SIZE = (16, 20)

# what is called with arguments: those that a class needs, or that let small images show it
ARGUMENTS = {
    "CenterCrop": {"size": SIZE},
    "ColorJiggle": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
    "ColorJitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
    "Denormalize": {"mean": torch.full((3,), 0.4), "std": torch.full((3,), 0.3)},
    "LongestMaxSize": {"max_size": 20},
    "Normalize": {"mean": torch.full((3,), 0.4), "std": torch.full((3,), 0.3)},
    "PadTo": {"size": SIZE},
    "RandomAffine": {"degrees": 20.0},
    "RandomBrightness": {"brightness": (0.6, 1.4)},
    "RandomContrast": {"contrast": (0.6, 1.4)},
    "RandomCrop": {"size": SIZE, "padding": 2},
    "RandomFisheye": {n: torch.tensor([-0.3, 0.3]) for n in ("center_x", "center_y")}
    | {"gamma": torch.tensor([0.9, 1.1])},
    "RandomGamma": {"gamma": (0.6, 1.4)},
    "RandomGaussianBlur": {"kernel_size": (3, 3), "sigma": (0.5, 2.0)},
    "RandomHue": {"hue": (-0.3, 0.3)},
    "RandomJigsaw": {"grid": (2, 2)},
    "RandomMotionBlur": {"kernel_size": 3, "angle": 35.0, "direction": 0.5},
    "RandomPosterize": {"bits": (2, 4)},
    "RandomRain": {"drop_height": (2, 4), "drop_width": (1, 2)},
    "RandomResizedCrop": {"size": SIZE},
    "RandomRotation": {"degrees": 30.0},
    "RandomRotation90": {"times": (2, 2)},
    "RandomSaturation": {"saturation": (0.2, 1.8)},
    "RandomShear": {"shear": 20.0},
    "RandomTranslate": {"translate_x": (-0.3, 0.3), "translate_y": (-0.3, 0.3)},
    "Resize": {"size": SIZE},
    "SmallestMaxSize": {"max_size": 16},
}
# what keeps an image of this size as it is
STILL = {"CenterCrop", "LongestMaxSize", "PadTo", "Resize", "SmallestMaxSize"}
# several samples become one, and here each is by itself
MIXES = {"PatchMix", "RandomCutMixV2", "RandomMixUpV2", "RandomMosaic", "RandomTransplantation"}
# classes to derive from or to hold others, volumes, and what fetches a network
OTHERS = {
    *("AugmentationBase2D", "GeometricAugmentationBase2D", "IntensityAugmentationBase2D", "MixAugmentationBaseV2"),
    *("RigidAffineAugmentationBase2D", "ManyToManyAugmentationDispather", "ManyToOneAugmentationDispather"),
    *("AugmentationSequential", "ImageSequential", "PatchSequential", "VideoSequential", "RandomDissolving"),
}
CLASSES = sorted(n for n, c in vars(K).items() if isinstance(c, type) and issubclass(c, nn.Module) and "3D" not in n)
TAKEN = [n for n in CLASSES if n not in OTHERS | MIXES]


def made(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = ARGUMENTS.get(name, {})
        return getattr(K, name)(**arguments, **({} if name in STILL | {"Normalize", "Denormalize"} else {"p": 0.8}))


def images(n: int = N) -> torch.Tensor:
    return torch.rand(N, 3, *SIZE, generator=torch.Generator().manual_seed(1))[:n]


def test_the_table_knows_every_class():
    assert OTHERS | MIXES | set(ARGUMENTS) <= set(CLASSES), "a class that is gone"
    assert len(TAKEN) > 45, "vacuous"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TAKEN)
def test_a_sample_gets_the_same_in_any_batch_and_other_samples_something_else(name):
    policy = ga.Policy([ga.Kornia(made(name))], seed=2)
    same = images(1).expand(N, -1, -1, -1)
    ids = torch.arange(N)
    whole = policy(same, ids=ids)
    for rows in (torch.tensor([2]), torch.tensor([3, 0])):
        # a second and a third batch of the kind, which would find a recipe
        assert torch.equal(policy(same[rows], ids=ids[rows]), whole[rows])
    assert (
        not torch.equal(policy(same, ids=ids, epoch=1), whole) or name in STILL | {"Normalize", "Denormalize"} | ONE_WAY
    )
    assert torch.equal(whole, same) == (name in STILL)


# of these a coin alone is drawn, or what is drawn seldom shows; eight samples would say more
ONE_WAY = {
    *(
        "RandomAutoContrast",
        "RandomBoxBlur",
        "RandomEqualize",
        "RandomGrayscale",
        "RandomHorizontalFlip",
        "RandomInvert",
    ),
    *("RandomMedianBlur", "RandomRotation90", "RandomVerticalFlip", "RandomSolarize", "RandomChannelShuffle"),
    *("RandomMotionBlur", "RandomElasticTransform"),
}


@pytest.mark.parametrize("name", ["RandomAffine", "ColorJiggle", "RandomGaussianNoise", "RandomErasing"])
def test_what_is_drawn_is_kornias_own_under_that_seed(name):
    policy = ga.Policy([ga.RandomHorizontalFlip(0.0), ga.Kornia(made(name))], seed=2)
    out = policy(images(), ids=IDS)
    for n, seed in enumerate(policy.draw(IDS, size=SIZE, dtype=torch.float32)[1]["seed"].tolist()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            assert torch.equal(out[n : n + 1], made(name)(images()[n : n + 1]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_all_executors_run_a_module_between_their_own_steps(dtype, backend):
    x = images() if dtype == torch.float32 else (images() * 255).to(torch.uint8)
    module = K.AugmentationSequential(K.RandomAffine(20.0, p=1.0), K.ColorJiggle(0.2, 0.2, 0.2, 0.1, p=1.0))
    policy = ga.Policy([ga.RandomCrop(12), ga.Kornia(module), ga.RandomHorizontalFlip()], seed=1)
    out, want = policy(x, ids=IDS, backend=backend), policy(x, ids=IDS, backend="reference")
    assert out.dtype == dtype and out.shape == (N, 3, 12, 12)
    assert (out.float() - want.float()).abs().max() <= (1 if dtype == torch.uint8 else 1e-4)
    assert torch.equal(policy(x, ids=IDS, backend=backend), out)
    # the same draws, whatever the layout
    assert torch.equal(policy(x.to(memory_format=torch.channels_last), ids=IDS, backend=backend), out)


def test_nobodys_random_numbers_move():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    ga.Policy([ga.Kornia(K.RandomGaussianNoise(p=1.0))])(images())
    assert torch.equal(torch.get_rng_state(), before)


def test_describe_shows_the_module_and_that_it_is_not_traced():
    said = ga.Policy([ga.Kornia(K.RandomMotionBlur(3, 35.0, 0.5))]).describe(SIZE)
    assert "RandomMotionBlur" in said and "Custom(Kornia(" in said and "tolist" in said


def test_targets_stay_where_colours_change_and_are_refused_where_pixels_move():
    masks = torch.randint(0, 5, (N, *SIZE))
    boxes = torch.tensor([[[1.0, 2, 9, 12]]] * N)
    batch = ga.Batch(images(), ids=IDS, masks=masks, boxes=boxes, box_format="XYXY")
    colours = nn.Sequential(K.ColorJiggle(0.3, p=1.0), K.RandomGaussianNoise(p=1.0))
    out = ga.Policy([ga.Kornia(colours)])(batch)
    assert torch.equal(out.masks, masks) and torch.equal(out.boxes, boxes) and not torch.equal(out.images, images())
    for module in (K.RandomAffine(20.0), nn.Sequential(K.RandomGrayscale(), K.RandomHorizontalFlip()), nn.Sequential()):
        with pytest.raises(ValueError, match="cannot follow Kornia"):
            ga.Policy([ga.Kornia(module)])(batch)


@pytest.mark.filterwarnings("ignore:RandomCutMixV2 currently:DeprecationWarning")
@pytest.mark.parametrize("name", sorted(MIXES))
def test_what_mixes_samples_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} puts several samples together"):
        ga.Kornia(getattr(K, name)())


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (K.RandomAffine, "must be a module of kornia.augmentation"),
        (lambda x: x, "must be a module"),
        (None, "must be a module"),
        (K.RandomHorizontalFlip3D(), "is for volumes or videos"),
        (nn.Sequential(K.RandomHorizontalFlip(), K.RandomMixUpV2()), "RandomMixUpV2 puts several"),
    ],
)
def test_what_is_no_module_for_images_is_refused(module, words):
    with pytest.raises((TypeError, ValueError), match=words):
        ga.Kornia(module)


def test_another_size_is_refused_in_words():
    with pytest.raises(ValueError, match="CenterCrop must keep the shape of an image"):
        ga.Policy([ga.Kornia(K.CenterCrop((8, 8)))])(images())


def test_pipelines_take_modules_of_kornia_as_they_are(tmp_path):
    module = K.RandomGaussianNoise(p=1.0)
    policy = ga.from_torchvision([module, ga.RandomHorizontalFlip()])
    assert policy == ga.Policy([ga.Kornia(module), ga.RandomHorizontalFlip()])
    with pytest.raises(TypeError, match=r"Kornia\.module"):
        policy.save(tmp_path / "policy.yaml")
