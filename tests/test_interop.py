"""Pipelines of torchvision as policies, and functions of a user's own inside them."""

import warnings
from dataclasses import fields

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from build import build, case, cases, spec
from compare import compare
from torchvision import tv_tensors

import gpuaug as ga

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def torchvisions(module: object, name: str, args: dict) -> object:
    """The transform of torchvision with these arguments, its children too."""
    if "transforms" in args:
        args = {**args, "transforms": [torchvisions(module, *child) for child in args["transforms"]]}
    if "interpolation" in args:
        args = {**args, "interpolation": v2.InterpolationMode(args["interpolation"])}
    if name == "AutoAugment" and "policy" in args:
        args = {**args, "policy": v2.AutoAugmentPolicy(args["policy"])}
    return getattr(module, name)(**args)


def known(module: object, name: str, args: dict) -> bool:
    theirs = hasattr(module, name) and not args.keys() & spec(name).adds
    return theirs and all(known(module, *child) for child in args.get("transforms", ()))


@pytest.mark.parametrize(("name", "i"), cases())
def test_every_transform_of_torchvisions_v2_becomes_ours(name, i):
    args = case(name, i)
    if not known(v2, name, args):
        assert spec(name).ours or args.keys() & spec(name).adds or args["transforms"], f"torchvision has no {name}"
        return
    if "fill" in args and args["fill"] is not None:
        # torchvision's own check of a fill knows lists
        args = {**args, "fill": list(args["fill"]) if isinstance(args["fill"], tuple) else args["fill"]}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The transform `ToTensor", category=UserWarning)
        made = ga.from_torchvision(torchvisions(v2, name, args), seed=7)
    assert made == ga.Policy([build(name, case(name, i))], seed=7)


V1 = [n for n in ga.REGISTRY if hasattr(v1, n)]


@pytest.mark.parametrize("name", V1)
def test_transforms_of_torchvisions_first_version_become_ours(name):
    # the first version has no defaults for some
    args = case(name, 0) or dict.fromkeys(f.name for f in fields(ga.REGISTRY[name]) if f.name == "dtype")
    args = {k: torch.float32 if v is None else v for k, v in args.items()}
    if known(v1, name, args):
        assert ga.from_torchvision(v1.Compose([torchvisions(v1, name, args)])) == ga.Policy([build(name, args)])


def photographs(n: int = 4) -> list[PIL.Image.Image]:
    rng = np.random.default_rng(3)
    low = rng.integers(0, 256, (n, 9, 12, 3), np.uint8)
    return [PIL.Image.fromarray(x).resize((60 + 7 * i, 50 + 3 * i)) for i, x in enumerate(low)]


def test_a_pipeline_for_validation_gives_torchvisions_values():
    steps = lambda t: t.Compose([t.Resize(40), t.CenterCrop(32), t.ToTensor(), t.Normalize(MEAN, STD)])  # noqa: E731
    # the oracle on floats: of PIL images Pillow rounds between the steps
    oracle = v2.Compose([v2.Resize(40), v2.CenterCrop(32), v2.Normalize(MEAN, STD)])
    with pytest.warns(UserWarning, match="ToTensor"):
        pipelines = [steps(v1), steps(v2)]
    for pipeline in pipelines:
        got = ga.from_torchvision(pipeline)(photographs())
        floats = [v1.functional.to_tensor(image) for image in photographs()]
        compare(got, torch.stack([oracle(x) for x in floats]), "resample", "validation", 1 / min(STD))


def test_the_reference_recipe_for_classification_converts_and_runs():
    recipe = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(32, antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.TrivialAugmentWide(fill=[124, 116, 104]),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(MEAN, STD),
            v2.RandomErasing(p=0.1, value="random"),
            v2.ToPureTensor(),
        ]
    )
    policy = ga.from_torchvision(recipe, seed=3, memory_format=torch.channels_last)
    assert policy.transforms[3].fill == (124 / 255, 116 / 255, 104 / 255) and len(policy.transforms) == 7
    assert policy.transforms[6].value == "random"
    assert policy(photographs()).shape == (4, 3, 32, 32)


def test_values_of_pixels_are_of_integers_until_there_are_floats():
    to_float = v2.ToDtype(torch.float32, scale=True)
    before = ga.from_torchvision([v2.Pad(2, fill=1), v2.RandomSolarize(128), to_float, v2.Pad(1, fill=0.5)])
    assert [getattr(t, "fill", None) for t in before.transforms] == [1 / 255, None, None, 0.5]
    assert before.transforms[1].threshold == 128 / 255
    # without a conversion, numbers up to 1 are what float images hold
    after = ga.from_torchvision([v2.Pad(2, fill=1), v2.RandomSolarize(128), v2.RandomSolarize(0.5)])
    assert [getattr(t, "fill", getattr(t, "threshold", None)) for t in after.transforms] == [1.0, 128 / 255, 0.5]


def test_nested_pipelines_are_unpacked_and_choices_keep_their_places():
    pair = v2.Compose([v2.RandomInvert(1.0), v2.RandomSolarize(0.5, p=1.0)])
    policy = ga.from_torchvision(
        torch.nn.Sequential(v2.RandomHorizontalFlip(), v2.RandomChoice([pair, v2.Identity()], p=[3, 1]))
    )
    choice = policy.transforms[1]
    assert choice.p == (0.75, 0.25) and choice.transforms[1] == ga.Identity()
    assert choice.transforms[0] == ga.RandomApply((ga.RandomInvert(1.0), ga.RandomSolarize(0.5, p=1.0)), 1.0)
    with pytest.warns(UserWarning, match="ToTensor"):
        to_tensor = v2.ToTensor()
    ordered = v2.RandomOrder([v2.RandomInvert(1.0), v2.RandomApply([v2.RandomHorizontalFlip(1.0)], p=1.0)])
    made = ga.from_torchvision([to_tensor, ordered])
    x = torch.rand(3, 3, 8, 9)
    assert torch.allclose(made(x), 1 - x.flip(3))


@pytest.mark.parametrize(
    "transform",
    [v2.UniformTemporalSubsample(4), v2.FiveCrop(4), v2.Resize(8, v2.InterpolationMode.BOX), v2.RandomIoUCrop()],
)
def test_what_has_no_counterpart_is_refused_by_name(transform):
    with pytest.raises(ValueError, match=f"{type(transform).__name__} of the pipeline has no counterpart"):
        ga.from_torchvision(v2.Compose([v2.RandomHorizontalFlip(), v2.RandomApply([transform])]))


# those that are made of others, or have arguments without defaults
MADE = {
    "Compose": lambda: v2.Compose([v2.RandomInvert()]),
    "RandomApply": lambda: v2.RandomApply([v2.RandomInvert()]),
    "RandomChoice": lambda: v2.RandomChoice([v2.RandomInvert()]),
    "RandomOrder": lambda: v2.RandomOrder([v2.RandomInvert()]),
    "Lambda": lambda: v2.Lambda(lambda x: x),
    "LinearTransformation": lambda: v2.LinearTransformation(torch.eye(12), torch.zeros(12)),
    "SetClampingMode": lambda: v2.SetClampingMode("soft"),
    "ConvertBoundingBoxFormat": lambda: v2.ConvertBoundingBoxFormat("XYXY"),
    "UniformTemporalSubsample": lambda: v2.UniformTemporalSubsample(4),
    **{
        n: lambda n=n: getattr(v2, n)(4)
        for n in ("CenterCrop", "FiveCrop", "TenCrop", "RandomCrop", "RandomResizedCrop")
    },
    **{
        n: lambda n=n: getattr(v2, n)(3) for n in ("Resize", "Pad", "RandomPosterize", "RandomRotation", "RandomAffine")
    },
    **{n: lambda n=n: getattr(v2, n)(2.0) for n in ("RandomAdjustSharpness",)},
    "RandomSolarize": lambda: v2.RandomSolarize(0.5),
    "RandomResize": lambda: v2.RandomResize(4, 8),
    "RandomShortestSize": lambda: v2.RandomShortestSize(4),
    "ScaleJitter": lambda: v2.ScaleJitter((8, 8)),
    "GaussianBlur": lambda: v2.GaussianBlur(3),
    "JPEG": lambda: v2.JPEG(50),
    "Normalize": lambda: v2.Normalize(MEAN, STD),
    "ToDtype": lambda: v2.ToDtype(torch.float32, scale=True),
    "CutMix": lambda: v2.CutMix(num_classes=3),
    "MixUp": lambda: v2.MixUp(num_classes=3),
}
NAMES = [
    n
    for n, c in sorted(vars(v2).items())
    if isinstance(c, type) and issubclass(c, torch.nn.Module) and not n.startswith("_")
]


@pytest.mark.filterwarnings("ignore:The transform `ToTensor")
@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_torchvisions_is_converted_or_refused_with_a_reason(name):
    transform = MADE.get(name, getattr(v2, name))()
    try:
        made = ga.from_torchvision([transform])
    except (TypeError, ValueError) as error:
        said = str(error)
        assert f"{name} of the pipeline has no counterpart" in said and len(said.split(": ", 1)[1]) > 20
        assert "keep it outside" not in said, "a reason of its own, and what to do"
    else:
        assert isinstance(made, ga.Policy)


def test_most_of_torchvisions_names_are_converted():
    refused = set()
    for name in NAMES:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ga.from_torchvision([MADE.get(name, getattr(v2, name))()])
        except (TypeError, ValueError):
            refused.add(name)
    assert len(NAMES) > 50 and len(refused) <= 11, sorted(refused)


def test_what_is_no_transform_is_refused():
    for wrong in (3, v2.RandomInvert, "RandomInvert"):
        with pytest.raises(TypeError, match="transforms or functions"):
            ga.from_torchvision([v2.RandomInvert(), wrong])


# ---- functions


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
def test_a_lambda_gets_each_image_as_it_is_there(backend):
    seen = []

    def upside_down(image: torch.Tensor) -> torch.Tensor:
        seen.append((image.dtype, tuple(image.shape)))
        return image.flip(1)

    pipeline = v2.Compose([v2.Lambda(upside_down), v2.ToDtype(torch.float32, scale=True), upside_down])
    x = torch.randint(0, 256, (4, 3, 6, 7), dtype=torch.uint8)
    out = ga.from_torchvision(pipeline)(x, backend=backend)
    assert torch.equal(out, x.float() / 255)
    assert set(seen) == {(torch.uint8, (3, 6, 7)), (torch.float32, (3, 6, 7))}


def test_a_custom_function_gets_the_batch_and_a_module_is_one():
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(ga.Policy([ga.Custom(torch.nn.Identity()), ga.Custom(lambda b: 1 - b)])(x), 1 - x)
    assert "lambda" in ga.Policy([ga.Custom(lambda b: 1 - b)]).describe((8, 8))


@pytest.mark.parametrize("make", [ga.Custom, ga.Lambda])
def test_functions_that_are_none_or_return_something_else_are_refused(make):
    for wrong in (3, None, "flip", torch.nn.Identity):
        with pytest.raises(TypeError, match="must be a function"):
            make(wrong)
    for returns in (lambda x: x[..., :2], lambda x: None):
        with pytest.raises(ValueError, match=r"must return images of the shape that it got, .*, got"):
            ga.Policy([make(returns)])(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("hold", [lambda t: [t], lambda t: [ga.RandomApply([t])], lambda t: [ga.RandomChoice([t])]])
def test_a_function_or_module_among_transforms_is_told_what_to_write(hold):
    for given in (torch.nn.Identity(), lambda x: x, torch.flip):
        with pytest.raises(TypeError, match=r"got .*; write gpuaug.Custom\(function\) .* gpuaug.Lambda"):
            ga.Policy(hold(given))
    with pytest.raises(TypeError, match=r"from_torchvision"):
        ga.Policy(hold(v2.RandomInvert()))


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
def test_functions_and_modules_stand_inside_choices(backend):
    x = torch.rand(6, 3, 8, 8)
    inside = [ga.Custom(torch.nn.Sequential(torch.nn.Flatten(2), torch.nn.Unflatten(2, (8, 8)))), ga.Lambda(torch.neg)]
    policy = ga.Policy([ga.RandomChoice(inside), ga.RandomApply([ga.Custom(lambda b: b + 1)], 1.0)], seed=1)
    chosen = policy.draw(torch.arange(6), size=(8, 8), dtype=torch.float32)[0]["index"]
    assert 0 < chosen.sum() < 6, "vacuous"
    want = torch.where(chosen[:, None, None, None] == 1, 1 - x, 1 + x)
    assert torch.equal(policy(x, ids=torch.arange(6), backend=backend), want)


def test_a_policy_with_a_function_is_not_written_to_a_file(tmp_path):
    with pytest.raises((TypeError, ValueError), match="function"):
        ga.Policy([ga.Custom(torch.flip)]).save(tmp_path / "policy.yaml")


def test_a_linear_transformation_is_torchvisions():
    matrix, mean = torch.rand(3 * 4 * 5, 3 * 4 * 5), torch.rand(3 * 4 * 5)
    pipeline, x = v2.LinearTransformation(matrix, mean), torch.rand(3, 3, 4, 5)
    want = torch.stack([pipeline(image) for image in x])
    assert torch.allclose(ga.from_torchvision(pipeline)(x), want, rtol=1e-4, atol=1e-4)
