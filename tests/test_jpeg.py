"""JPEG in floats against Pillow's."""

import io

import numpy as np
import PIL.Image
import pytest
import torch
from skimage import data

import gpuaug as ga
from gpuaug.exec.jpeg import round_trip


def pillows(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(file), np.float32)


@pytest.mark.parametrize("quality", [1, 5, 10, 25, 49, 50, 51, 75, 90, 95, 100])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_a_round_trip_is_pillows_to_a_level(name, quality):
    # sides that are no multiple of 16, odd ones too
    for height, width in ((101, 155), (128, 96), (17, 33)):
        image = np.ascontiguousarray(getattr(data, name)()[40 : 40 + height, 60 : 60 + width])
        for pixels in (image, image[..., 1]):
            x = torch.from_numpy(np.atleast_3d(pixels).copy()).permute(2, 0, 1)[None].float() / 255
            got = round_trip(x, torch.tensor([quality]))[0].permute(1, 2, 0).squeeze(-1).numpy() * 255
            want = pillows(np.ascontiguousarray(pixels), quality)
            assert np.abs(got - want).mean() < 1, (height, width, pixels.ndim)
            if quality < 90:
                assert np.abs(want - pixels).mean() > 1, "vacuous: nothing was lost"


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_executors_without_a_rule_say_so_and_give_the_reference(backend):
    policy = ga.Policy([ga.RandomHorizontalFlip(), ga.JPEG((10, 90)), ga.ElasticTransform(20.0, 1.0)], seed=2)
    x = torch.randint(0, 256, (3, 3, 20, 24), dtype=torch.uint8)
    ids = torch.arange(3)
    assert torch.equal(policy(x, ids=ids, backend=backend), policy(x, ids=ids, backend="reference"))
    text = policy.describe((20, 24), backend=backend)
    assert text.count("runs by the reference") >= 1 and "Jpeg" in text and "Elastic" in text
