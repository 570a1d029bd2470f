"""Every bad argument of a transform is refused at the door, by an error that says what, got, expected and do."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from catalogue import CASES

import gpuaug as ga

NAN, INF = math.nan, math.inf
P = [{"p": v} for v in (-0.1, 1.5, NAN, INF, "0.5", True, None)]
WHOLE = [0, -3, 2.5, NAN, True, "7", None, (), (3, 0), (1, 2, 3), (5, 2.5), (NAN, 4)]
RANGES = [(0.9, 0.1), (NAN, 1.0), (0.1, NAN), (0.1,), (0.1, 0.2, 0.3), "ab", 3.5, None, (0.1, INF)]
KERNELS = [{"interpolation": v} for v in ("bicubic", "cubic", 7, None)]
FILLS = [{"fill": v} for v in (NAN, "0", (), (0.1, NAN), {"image": 0})]
PADDINGS = [{"padding": v} for v in (-1, (1, 2, 3), (), 1.5, (1, -2), (1, 2, 3, NAN), "11")]
CENTERS = [{"center": v} for v in (3, (1,), (1, 2, 3), (NAN, 0), "ab")]

# name -> (arguments that are fine, arguments each of which is not)
BAD: dict[str, tuple[dict, list[dict]]] = {
    "CenterCrop": ({"size": 8}, [{"size": v} for v in WHOLE]),
    "ColorJitter": (
        {},
        [
            *(
                {k: v}
                for k in ("brightness", "contrast", "saturation")
                for v in (-0.1, NAN, (0.5,), (-0.2, 1.0), (2.0, 1.0), (0.1, NAN), "0.1", (1, 2, 3), True)
            ),
            *({"hue": v} for v in (-0.1, 0.6, NAN, (-0.6, 0.1), (0.2, 0.1), (0.1, 0.7), "0.1", (0.1,))),
        ],
    ),
    "CutMix": (
        {"num_classes": 3},
        [
            *({"alpha": v} for v in (0, -1.0, NAN, INF, "1", True)),
            *({"num_classes": v} for v in (0, -1, 2.5, "3", True)),
        ],
    ),
    "GaussianNoise": (
        {},
        [
            *({"mean": v} for v in (NAN, INF, "0")),
            *({"sigma": v} for v in (-0.1, NAN, INF, None)),
            {"clip": 1},
            {"clip": "no"},
        ],
    ),
    "Grayscale": ({}, [{"num_output_channels": v} for v in (0, 2, 4, "3", None, 1.5)]),
    "Normalize": (
        {"mean": (0.5,) * 3, "std": (0.2,) * 3},
        [
            *({k: v} for k in ("mean", "std") for v in ((), (NAN,) * 3, (0.1, 0.2), "abc", 0.5, None)),
            {"std": (0.1, 0, 0.1)},
            {"inplace": 1},
        ],
    ),
    "Pad": (
        {"padding": 2},
        [*PADDINGS, {"padding": None}, *FILLS, {"fill": None}, *({"padding_mode": v} for v in ("wrap", None, 1))],
    ),
    "PILToTensor": ({}, []),
    "RandAugment": (
        {},
        [
            *({"num_ops": v} for v in (0, -1, 1.5, "2", True, NAN)),
            *({"magnitude": v} for v in (-1, 31, 2.5, NAN, "9")),
            *({"num_magnitude_bins": v} for v in (0, 1, 9, 2.5, "31")),
            *KERNELS,
            *FILLS,
        ],
    ),
    "RandomAffine": (
        {"degrees": 10},
        [
            *({"degrees": v} for v in (-1, NAN, (10, -10), (1, NAN), (1, 2, 3), "10", None, INF)),
            *({"translate": v} for v in (0.1, (0.1,), (0.1, 1.2), (-0.1, 0.1), (NAN, 0.1), "ab", (0.1, 0.1, 0.1))),
            *({"scale": v} for v in (0.5, (0.0, 1.0), (-1.0, 1.0), (1.2, 0.8), (NAN, 1.0), (1.0, INF), (1.0,))),
            *({"shear": v} for v in (-1, NAN, (5, -5), (1,), (1, 2, 3), (1, 2, 4, 3), (0, NAN), "ab")),
            *KERNELS,
            *FILLS,
            *CENTERS,
        ],
    ),
    "RandomApply": (
        {"transforms": [ga.RandomInvert()]},
        [
            *(
                {"transforms": v}
                for v in ([], None, 3, "RandomInvert", ga.RandomInvert(), [ga.RandomInvert], [3], [None], [lambda x: x])
            ),
            *P,
        ],
    ),
    "RandomChoice": (
        {"transforms": [ga.RandomInvert(), ga.RandomInvert()]},
        [
            *({"transforms": v} for v in ([], None, [3], ga.RandomInvert())),
            *({"p": v} for v in ((0.5,), (0.5, 0.2, 0.3), (-0.5, 1.5), (0, 0), (NAN, 1), "ab", 0.5)),
        ],
    ),
    "RandomCrop": (
        {"size": 8},
        [
            *({"size": v} for v in WHOLE),
            *PADDINGS,
            {"pad_if_needed": 1},
            {"pad_if_needed": None},
            *FILLS,
            {"fill": None},
            {"padding_mode": "wrap"},
        ],
    ),
    "RandomErasing": (
        {},
        [
            *P,
            *({"scale": v} for v in (*RANGES, (-0.1, 0.3), (0.1, 1.5))),
            *({"ratio": v} for v in (*RANGES, (0.0, 1.0), (-1.0, 1.0))),
            *({"value": v} for v in ("noise", NAN, (), (0.1, NAN), None, {"a": 1})),
            {"inplace": "yes"},
        ],
    ),
    "RandomGrayscale": ({}, P),
    "RandomHorizontalFlip": ({}, P),
    "RandomInvert": ({}, P),
    "RandomOrder": (
        {"transforms": [ga.RandomInvert()]},
        [{"transforms": v} for v in ([], None, [3], ga.RandomInvert(), [ga.RandomInvert])],
    ),
    "RandomPosterize": ({"bits": 3}, [*P, *({"bits": v} for v in (-1, 9, 2.5, "3", NAN, True, None))]),
    "RandomResizedCrop": (
        {"size": 8},
        [
            *({"size": v} for v in WHOLE),
            *({"scale": v} for v in (*RANGES, (-0.1, 1.0), 0.5)),
            *({"ratio": v} for v in (*RANGES, (0.0, 1.0), (-1.0, 1.0))),
            *KERNELS,
            *({"antialias": v} for v in ("warn", 2)),
        ],
    ),
    "RandomRot90": ({}, P),
    "RandomRotation": (
        {"degrees": 10},
        [
            *({"degrees": v} for v in (-1, NAN, (10, -10), (1, NAN), (1, 2, 3), "10", None, INF)),
            *KERNELS,
            {"expand": True},
            {"expand": 1},
            *FILLS,
            *CENTERS,
        ],
    ),
    "RandomSolarize": ({"threshold": 0.5}, [*P, *({"threshold": v} for v in (-0.1, 1.1, 128, NAN, "0.5", None, True))]),
    "RandomVerticalFlip": ({}, P),
    "Resize": (
        {"size": 8},
        [
            *({"size": v} for v in WHOLE),
            *({"size": 8, "max_size": v} for v in (8, 4, 0, 9.5, "12", True)),
            {"size": (8, 9), "max_size": 20},
            {"size": None, "max_size": 0},
            *KERNELS,
            *({"antialias": v} for v in ("warn", 2)),
        ],
    ),
    "SaltAndPepper": (
        {},
        [
            *({k: v} for k in ("amount", "salt_vs_pepper") for v in (-0.1, 1.1, NAN, "0.1", None, True)),
            {"per_channel": 1},
            {"per_channel": None},
        ],
    ),
    "ToDtype": (
        {"dtype": torch.float32},
        [
            *(
                {"dtype": v}
                for v in (torch.int64, torch.float64, torch.bool, "float32", None, {torch.Tensor: torch.float32}, int)
            ),
            {"scale": 1},
        ],
    ),
    "ToImage": ({}, []),
    "ToTensor": ({}, []),
}


def rows() -> list:
    return [
        # without the addresses of functions, which differ from process to process
        pytest.param(name, fine, bad, id=re.sub(r" at 0x\w+", "", f"{name}-{bad}"))
        for name, (fine, all_) in sorted(BAD.items())
        for bad in all_
    ]


def values(bad: object) -> set[str]:
    """How the message may show what it got: the whole argument, or the part of it that is wrong."""
    out = {repr(bad), str(bad)}
    if isinstance(bad, float):
        out.add(f"{bad:g}")
    if isinstance(bad, dict):
        out.add("got a dict")
    if isinstance(bad, list | tuple):
        flat = f"({', '.join(f'{v:g}' for v in bad if isinstance(v, float | int))})"
        out |= {f"got {len(bad)}", f"got 3 and {len(bad)}", f"got {len(bad)} and 3", flat} | {
            s for v in bad for s in values(v)
        }
    return out


def test_every_transform_has_its_bad_arguments():
    for name in ga.REGISTRY:
        assert name in BAD, f"{name} is never given bad arguments: add a line to BAD in tests/test_bad_input.py"


@pytest.mark.parametrize(("name", "fine", "bad"), rows())
def test_a_bad_argument_is_refused_by_name_and_value(name, fine, bad):
    make = getattr(ga, name)
    make(**fine)
    with pytest.raises((ValueError, TypeError)) as caught:
        make(**{**fine, **bad})
    text, key = str(caught.value), list(bad)[-1]
    assert key in text or (key == "num_magnitude_bins" and "magnitude" in text), f"{text!r} does not name {key}"
    assert "got" in text, f"{text!r} does not say what it got"
    # a magnitude of 9 is what fewer bins do not have, expand wants other degrees, and max_size another size
    shown = values(bad[key]) | {"num_magnitude_bins": {"9"}, "expand": {"(-10.0, 10.0)"}, "max_size": {"(8, 9)"}}.get(
        key, set()
    )
    assert any(v in text for v in shown), f"{text!r} does not show {bad[key]!r}"
    assert len(text) < 400 and "Traceback" not in text


@pytest.mark.parametrize("name", sorted(CASES))
def test_an_unknown_argument_is_refused(name):
    with pytest.raises(TypeError, match="sharpness_of_soup"):
        getattr(ga, name)(sharpness_of_soup=1, **(CASES[name][0] if "transforms" not in CASES[name][0] else {}))


def test_numbers_of_other_kinds_are_numbers():
    """numpy's scalars, fractions and tensors' items are what users have in their hands."""
    assert (
        ga.RandomHorizontalFlip(np.float32(0.5))
        == ga.RandomHorizontalFlip(0.5)
        == ga.RandomHorizontalFlip(Fraction(1, 2))
    )
    assert ga.CenterCrop(np.int64(7)) == ga.CenterCrop(7) == ga.CenterCrop([7, 7]) == ga.CenterCrop((7,))
    assert ga.Normalize(np.array([0.5, 0.25]), torch.tensor([0.5, 0.25])) == ga.Normalize((0.5, 0.25), (0.5, 0.25))
    assert ga.RandomHorizontalFlip(1) == ga.RandomHorizontalFlip(1.0)
    assert ga.RandomResizedCrop([8, 9], scale=[0.1, 1]) == ga.RandomResizedCrop((8, 9), scale=(0.1, 1.0))
    assert ga.RandomApply((ga.RandomInvert(),)) == ga.RandomApply([ga.RandomInvert()])
