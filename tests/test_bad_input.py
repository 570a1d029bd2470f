"""Every bad policy and every bad batch is refused at the door, by an error that says what, got, expected and do."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from build import build
from PIL import Image
from specs import SPECS
from torchvision import tv_tensors

import gpuaug as ga

NAN = math.nan
X = torch.zeros(4, 3, 20, 30)
BYTES = torch.zeros(4, 3, 20, 30, dtype=torch.uint8)
IDS = torch.arange(4)


# ---- policies


def refused(call: Callable[[], object], *words: str, kind: type[Exception] | tuple = (ValueError, TypeError)) -> None:
    with pytest.raises(kind) as caught:
        call()
    for w in words:
        assert w in str(caught.value), f"{str(caught.value)!r} does not say {w!r}"


@pytest.mark.parametrize(
    "bad",
    [
        None,
        3,
        "RandomInvert",
        ga.RandomInvert(),
        [ga.RandomInvert],
        [None],
        [3],
        [torch.nn.Identity()],
        {"a": 1},
        [[ga.RandomInvert()]],
    ],
    ids=repr,
)
def test_a_policy_takes_a_list_of_transforms_and_nothing_else(bad):
    refused(lambda: ga.Policy(bad), "transforms must be", "gpuaug", "got")


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "0", None, True, NAN])
def test_a_seed_has_sixty_four_bits(seed):
    refused(lambda: ga.Policy([], seed), "seed", "got", str(seed))


def test_options_of_a_policy_are_checked():
    refused(lambda: ga.Policy([], memory_format=torch.preserve_format), "memory_format", "channels_last", "got")
    refused(lambda: ga.Policy([], memory_format="channels_last"), "memory_format", "got", "channels_last")
    refused(lambda: ga.Policy([], single_resample=1), "single_resample", "got 1")
    refused(lambda: ga.Policy([ga.CutMix(1.0, 3), ga.RandomApply([ga.CutMix(1.0, 5)])]), "num_classes", "[3, 5]")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (None, "mapping"),
        ([], "mapping"),
        ({}, "transforms"),
        ({"transforms": 3}, "transforms"),
        ({"transforms": [], "speed": 1}, "speed"),
        ({"transforms": [], "version": 2}, "version"),
        ({"transforms": [], "seed": -1}, "seed"),
        ({"transforms": [], "memory_format": "nhwc"}, "nhwc"),
        ({"transforms": ["RandomInvert"]}, "RandomInvert"),
        ({"transforms": [{"p": 1}]}, "name"),
        ({"transforms": [{"name": "Mixing"}]}, "Mixing"),
        ({"transforms": [{"name": "Policy"}]}, "Policy"),
        ({"transforms": [{"name": "RandomInverse"}]}, "RandomInverse"),
        ({"transforms": [{"name": ["RandomInvert"]}]}, "RandomInvert"),
        ({"transforms": [{"name": "RandomInvert", "q": 1}]}, "q"),
        ({"transforms": [{"name": "RandomInvert", "p": 7}]}, "p must"),
        ({"transforms": [{"name": "CenterCrop"}]}, "size"),
        ({"transforms": [{"name": "ToDtype", "dtype": "torch.float33"}]}, "float33"),
        ({"transforms": [{"name": "ToDtype", "dtype": "torch.load"}]}, "load"),
    ],
    ids=str,
)
def test_data_that_is_no_policy_is_refused(data, word, tmp_path):
    refused(lambda: ga.Policy.from_dict(data), word)


def test_a_file_that_is_no_policy_is_refused(tmp_path):
    path = tmp_path / "p.yaml"
    for text in ("", "transforms: [", "- 1", "!!python/object/apply:os.getcwd []", "transforms: 5"):
        path.write_text(text)
        refused(lambda: ga.Policy.load(path), "policy", kind=ValueError)
    with pytest.raises(FileNotFoundError):
        ga.Policy.load(tmp_path / "none.yaml")


# ---- calls

INVERT = ga.Policy([ga.RandomInvert()])


@pytest.mark.parametrize(
    ("images", "words"),
    [
        # one image [H, W, C], one that may be either, batches without a channel axis, six axes
        (X[0].permute(1, 2, 0), ("4 dimensions", "(20, 30, 3)", "x.permute(2, 0, 1)")),
        (torch.zeros(3, 20, 4), ("4 dimensions", "(3, 20, 4)", "x[None]", "x.permute(2, 0, 1)[None]")),
        (torch.zeros(60, 28, 28), ("4 dimensions", "(60, 28, 28)", "x[:, None]")),
        (np.zeros((60, 28, 28), np.uint8), ("4 dimensions", "x[:, None]")),
        (torch.zeros(28, 28), ("4 dimensions", "x[None, None]")),
        (X[None, None], ("4 dimensions", "(1, 1, 4, 3, 20, 30)", "stack images")),
        # [N, H, W, C]
        (X.permute(0, 2, 3, 1), ("(4, 20, 30, 3)", "x.permute(0, 3, 1, 2)")),
        (X[:, :1].permute(0, 2, 3, 1), ("(4, 20, 30, 1)", "x.permute(0, 3, 1, 2)")),
        (np.zeros((4, 20, 30, 4), np.uint8), ("(4, 20, 30, 4)", "x.permute(0, 3, 1, 2)")),
        (tv_tensors.Mask(BYTES), ("images must be pixels", "Mask")),
        (tv_tensors.Mask(BYTES[None]), ("images must be pixels", "Mask")),
        (torch.tensor(3.0), ("4 dimensions",)),
        (X.int(), ("int32", "convert")),
        (X.long(), ("int64",)),
        (X.bool(), ("bool",)),
        (X.to_sparse(), ("dense", "sparse")),
        (X.to(torch.complex64), ("complex64",)),
        (X.clone().requires_grad_(), ("grad", "detach")),
        (torch.zeros(4, 0, 5, 5), ("at least one", "(4, 0, 5, 5)")),
        (torch.zeros(4, 3, 0, 5), ("at least one", "(4, 3, 0, 5)")),
        (torch.zeros(4, 3, 5, 0), ("at least one",)),
        ([], ("empty list", "channels")),
        ((), ("empty list",)),
        (None, ("images must be", "NoneType")),
        ("picture.jpg", ("images must be", "str")),
        (3, ("images must be", "int")),
        ({"image": X}, ("images must be", "dict")),
        (np.zeros((4, 3, 5, 5), np.int64), ("int64",)),
        (np.array([["a"] * 4] * 4), ("images must hold numbers",)),
        (np.zeros((3, 5, 5), np.uint8), ("4 dimensions",)),
        ([X[0], BYTES[1]], ("dtype", "float32 in image 0", "uint8 in image 1")),
        ([X[0].int()], ("image 0", "int32")),
        ([np.zeros((5, 5, 3), bool)], ("image 0", "bool")),
        (
            [BYTES[0], torch.zeros(3, 9, 4, dtype=torch.uint8)],
            ("image 1", "(3, 9, 4)", "[C, H, W] or [H, W, C]", "layout"),
        ),
        ([BYTES[0, :2]], ("image 0", "(2, 20, 30)", 'gpuaug.Ragged(images, layout="chw")')),
        ([X[0, :2]], ("image 0", "(2, 20, 30)", "arrays [H, W, C]")),
        ([np.zeros((3, 9, 8), np.uint8)], ("image 0", "(3, 9, 8)", "looks like [C, H, W]", "layout")),
        ([tv_tensors.Mask(BYTES[0])], ("image 0", "Mask")),
        ([np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5, 1), np.uint8)], ("channels", "3 in image 0", "1 in image 1")),
        ([np.zeros((5, 5, 3), np.uint8), np.zeros((0, 5, 3), np.uint8)], ("image 1", "at least 1")),
        ([np.zeros((2, 5, 5, 3), np.uint8)], ("image 0", "[H, W, C]")),
        ([np.zeros(5, np.uint8)], ("image 0",)),
        ([Image.new("I", (4, 4))], ("image 0", "np.uint16")),
        ([Image.new("I;16", (4, 4))], ("image 0", "np.asarray(image)[:, :, None]", "uint16")),
        ([Image.new("F", (4, 4))], ("image 0", "np.asarray(image)[:, :, None]")),
        (Image.new("I;16", (4, 4)), ("the image", "I;16", "uint16")),
        ([Image.new("P", (4, 4))], ("image 0", "P", "RGB")),
        ([Image.new("CMYK", (4, 4))], ("image 0", "CMYK")),
        ([Image.new("1", (4, 4))], ("image 0", "'L'")),
        (["a.jpg"], ("image 0",)),
        ([None], ("image 0",)),
    ],
    ids=lambda v: "" if isinstance(v, tuple) and v and isinstance(v[0], str) else type(v).__name__,
)
@pytest.mark.parametrize("call", ["forward", "replay", "Batch"])
def test_what_is_no_batch_of_images_is_refused(images, words, call):
    params = INVERT.draw(IDS, size=(20, 30))
    calls = {
        "forward": lambda: INVERT(images),
        "replay": lambda: INVERT.replay(images, params),
        "Batch": lambda: INVERT(ga.Batch(images)),
    }
    refused(calls[call], *words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("ids", torch.arange(3), ("ids", "[4]", "(3,)")),
        ("ids", torch.arange(8).view(4, 2), ("ids", "(4, 2)")),
        ("ids", torch.tensor(3), ("ids", "()")),
        ("ids", torch.arange(4.0), ("ids", "integers", "float32")),
        ("ids", torch.ones(4, dtype=torch.bool), ("ids", "bool")),
        ("ids", torch.tensor([0, 1, 2, -1]), ("ids", "-1")),
        ("ids", torch.tensor([0, 1, 2, 2**46]), ("ids", str(2**46))),
        ("ids", IDS.to("meta"), ("ids", "device", "meta")),
        ("ids", "abcd", ("ids",)),
        ("ids", [0.5] * 4, ("ids", "integers")),
        ("occurrence", torch.tensor([0, 0, 0, 4096]), ("occurrence", "4096")),
        ("occurrence", torch.tensor([0, 0, 0, -1]), ("occurrence", "-1")),
        ("occurrence", torch.zeros(5, dtype=torch.int64), ("occurrence", "(5,)")),
        ("occurrence", torch.zeros(4), ("occurrence", "integers")),
        ("epoch", -1, ("epoch", "-1")),
        ("epoch", 2**18, ("epoch", str(2**18))),
        ("epoch", 1.5, ("epoch", "1.5")),
        ("epoch", True, ("epoch", "True")),
        ("epoch", "3", ("epoch", "'3'")),
        ("epoch", torch.tensor([1, 2]), ("epoch", "[2]")),
        ("epoch", torch.tensor(1.0), ("epoch", "float32")),
        ("epoch", torch.tensor(-1), ("epoch", "-1")),
        ("epoch", torch.tensor(2**18), ("epoch", str(2**18))),
        ("backend", "cuda", ("backend", "'cuda'", "reference", "triton")),
        ("backend", None, ("backend", "None")),
        ("backend", "", ("backend", "''")),
        ("labels", torch.arange(3), ("labels", "(3,)", "4")),
        ("labels", torch.tensor(1), ("labels", "()")),
        ("labels", IDS.to("meta"), ("labels", "device", "meta")),
    ],
    ids=lambda v: str(v) if isinstance(v, str) else "",
)
def test_what_says_who_a_sample_is_is_checked(key, value, words):
    refused(lambda: INVERT(X, **{key: value}), *words)
    if key in ("ids", "occurrence", "epoch"):
        keys = {"ids": IDS, key: value}
        if not (
            key == "ids" and isinstance(value, torch.Tensor) and (value.shape == (3,) or value.device.type == "meta")
        ):  # as many as they are, where they are
            refused(lambda: INVERT.draw(keys.pop("ids"), size=(20, 30), **keys), key)
    if key != "backend":
        refused(lambda: INVERT(ga.Batch(X, **{key: value})), *words)


@pytest.mark.parametrize(
    "size",
    [
        (0, 5),
        (5, -1),
        0,
        (1, 2, 3),
        "ab",
        None,
        2.5,
        (NAN, 3),
        torch.zeros(4, 2, dtype=torch.int64),
        torch.ones(3, 2, dtype=torch.int64),
        torch.ones(4, 2),
    ],
    ids=str,
)
def test_sizes_to_draw_for_are_checked(size):
    refused(lambda: INVERT.draw(IDS, size=size), "size", "got")


def test_what_comes_in_the_batch_does_not_come_twice():
    refused(lambda: INVERT(ga.Batch(X, ids=IDS), ids=IDS), "ids", "Batch")
    refused(lambda: INVERT(ga.Batch(X, labels=IDS), IDS), "labels", "Batch")


def test_replay_wants_the_parameters_of_this_policy():
    params = INVERT.draw(IDS, size=(20, 30))
    refused(lambda: INVERT.replay(X, list(params)), "params", "list")
    refused(lambda: INVERT.replay(X, None), "params", "NoneType")
    refused(lambda: ga.Policy([]).replay(X, params), "params", "1", "0", "policy that drew")
    refused(lambda: INVERT.replay(X[:3], params), "ids", "(4,)")
    crop = ga.Policy([ga.RandomCrop(8)])
    refused(lambda: crop.replay(X[:, :, :10], crop.draw(IDS, size=(20, 30))), "size")
    refused(lambda: crop.replay(X, params), "RandomCrop")


def test_the_backends_say_where_images_must_be():
    if torch.cuda.is_available():
        refused(lambda: INVERT(X.cuda(), backend="cpu"), "cpu", "cuda")
    else:
        refused(lambda: INVERT(X.to("meta"), backend="cpu"), "cpu", "meta")


# ---- what fits no transform


def call(transforms: list[ga.Transform], images: object = X, labels: object = None) -> Callable[[], object]:
    return lambda: ga.Policy(transforms)(images, labels)


def ragged(*sizes: tuple[int, int], channels: int = 3) -> list[np.ndarray]:
    return [np.zeros((*s, channels), np.uint8) for s in sizes]


SIZES = ragged((20, 30), (31, 17))


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (call([ga.RandomCrop((21, 30))]), ("RandomCrop", "(21, 30)", "(20, 30)", "pad_if_needed")),
        (call([ga.RandomCrop(40, padding=2)]), ("RandomCrop", "(40, 40)", "(24, 34)")),
        (call([ga.RandomCrop((25, 10))], SIZES), ("RandomCrop", "(25, 10)", "(20, 30)")),
        (call([ga.Pad(20, padding_mode="reflect")]), ("reflect", "(20, 30)", "20")),
        (call([ga.Pad(31, padding_mode="symmetric")]), ("symmetric", "(20, 30)")),
        (call([ga.RandomCrop(8, padding=20, padding_mode="reflect")]), ("reflect", "(20, 30)")),
        # images whose sizes stay different
        (call([ga.RandomInvert()], SIZES), ("one size", "Resize")),
        (call([ga.RandomHorizontalFlip()], SIZES), ("size", "Resize")),
        (call([], SIZES), ("size", "Resize")),
        (call([ga.Resize(8)], SIZES), ("size", "Resize((")),
        (call([ga.RandomInvert(), ga.Resize((8, 8))], SIZES), ("one size", "Resize")),
        (call([ga.RandomAffine(9), ga.Resize((8, 8))], SIZES), ("one size", "Resize")),
        (call([ga.RandomErasing(), ga.Resize((8, 8))], SIZES), ("one size",)),
        (call([ga.CutMix(num_classes=3), ga.Resize((8, 8))], SIZES, [0, 1]), ("one size",)),
        (call([ga.RandomApply([ga.RandomInvert()]), ga.Resize((8, 8))], SIZES), ("one size",)),
        (call([ga.RandomRot90()]), ("size",)),
        # channels
        (call([ga.ColorJitter(0.1)], X[:, :2]), ("ColorJitter", "1 or 3", "2")),
        (call([ga.Grayscale()], torch.zeros(1, 4, 8, 8)), ("Grayscale", "1 or 3", "4")),
        (call([ga.RandomGrayscale()], torch.zeros(1, 4, 8, 8)), ("RandomGrayscale", "4")),
        (call([ga.RandAugment()], torch.zeros(1, 5, 8, 8)), ("RandAugment", "5")),
        (call([ga.Normalize((0.5,) * 3, (0.5,) * 3)], X[:, :1]), ("mean", "3", "1")),
        (call([ga.RandomErasing(value=(0.1, 0.2))]), ("value", "2", "3")),
        (call([ga.Pad(1, (0.1, 0.2))]), ("fill", "2", "3")),
        (call([ga.RandomAffine(5, fill=(0.1, 0.2))]), ("fill", "2", "3")),
        (call([ga.RandomRotation(5, fill=(0.1, 0.2, 0.3, 0.4))]), ("fill", "4", "3")),
        (call([ga.RandomCrop(5, padding=1, fill=(0.1, 0.2))]), ("fill", "2", "3")),
        (call([ga.RandAugment(fill=(0.1, 0.2))]), ("fill", "2", "3")),
        # values of 0 to 255 where 0 to 1 is meant
        (call([ga.Pad(1, 128)], BYTES), ("fill", "128", "[0, 1]", "255")),
        (call([ga.RandomAffine(5, fill=(124, 116, 104))], BYTES), ("fill", "124")),
        (call([ga.RandomErasing(value=255)], BYTES), ("value", "255")),
        # dtypes
        (call([ga.Normalize((0.5,), (0.5,))], BYTES), ("Normalize", "uint8", "ToDtype")),
        (call([ga.ToDtype(torch.uint8)]), ("ToDtype", "float32", "scale=True")),
        # labels
        (call([ga.CutMix(num_classes=3)]), ("CutMix", "labels", "policy(images, labels)")),
        (call([ga.RandomApply([ga.CutMix(num_classes=3)])]), ("CutMix",)),
        (call([ga.CutMix()], X, IDS), ("num_classes", "None")),
        (call([ga.CutMix(num_classes=3)], X, IDS), ("labels", "[0, 3)", "3")),
        (call([ga.CutMix(num_classes=3)], X, torch.tensor([0, 1, -1, 0])), ("labels", "-1")),
        (call([ga.CutMix(num_classes=3)], X, torch.ones(4)), ("labels", "float32")),
        (call([ga.CutMix(num_classes=3)], X, torch.ones(4, 3, dtype=torch.int64)), ("labels", "int64")),
        (call([ga.CutMix(num_classes=3)], X, torch.ones(4, 3, 3)), ("labels", "(4, 3, 3)")),
        (call([ga.CutMix(num_classes=3)], X, torch.ones(4, dtype=torch.bool)), ("labels", "bool")),
        (call([ga.CutMix(num_classes=3)], X, torch.ones(4, 5)), ("labels", "5", "3")),
        # children that change what a container must keep
        (call([ga.RandomApply([ga.RandomResizedCrop(8)])]), ("RandomApply", "size")),
        (call([ga.RandomChoice([ga.CenterCrop(8), ga.RandomInvert()])]), ("RandomChoice", "size")),
        (call([ga.RandomOrder([ga.Grayscale()])]), ("RandomOrder", "channels")),
        (call([ga.RandomApply([ga.ToDtype(torch.float16, scale=True)])]), ("RandomApply", "dtype")),
    ],
)
def test_what_does_not_fit_the_images_is_refused_by_name(run, words):
    refused(run, *words)


def test_a_refused_call_numbers_no_sample():
    policy = ga.Policy([ga.CutMix(num_classes=3)])
    refused(lambda: policy(X), "labels")
    refused(lambda: policy(X.int()), "int32")
    refused(lambda: policy(X, IDS[:1]), "labels")
    assert int(policy.next_id) == 0


def test_good_input_raises_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        array = np.zeros((2, 3, 9, 9), np.uint8)
        array.flags.writeable = False
        INVERT(array)
        INVERT(array[:, :, ::-1])
        INVERT([Image.new("RGB", (4, 5)), Image.new("RGB", (4, 5))])
        for name in sorted(SPECS):
            build(name, SPECS[name].arguments[0])
