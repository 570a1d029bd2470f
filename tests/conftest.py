import gc
import os
import signal

# before anything imports triton: its kernels run on CPU tensors here
os.environ.setdefault("TRITON_INTERPRET", "1")
# images here are tiny: threads of torch would wait for each other, ten times as long where cores are shared.  Said to
# the processes that tests start, too
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from browsers import said
from interpreted import hasten
from PIL import Image

if os.environ["TRITON_INTERPRET"] == "1":
    hasten()

torch.set_num_threads(1)
# a shell without job control has what it runs in the background ignore Ctrl-C, and so do all that this starts, the
# processes too that tests interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is there before the first test stays: no collection of garbage looks at those millions of objects again."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    """What stands above the results: whether the tests that need a browser are among them."""
    return said()


PHOTOGRAPHS = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
)


@cache
def photograph(number: int) -> np.ndarray:
    """A real photograph, [H, W, 3] uint8."""
    # the tests for a card do without it
    import skimage

    with Image.open(Path(skimage.__file__).parent / "data" / PHOTOGRAPHS[number % len(PHOTOGRAPHS)]) as picture:
        return np.asarray(picture.convert("RGB"))


def crop_of_photograph(number: int, height: int, width: int) -> np.ndarray:
    """A window of a photograph with something in it, at half its resolution: [height, width, 3] uint8."""
    whole = photograph(number)[::2, ::2]
    top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 3
    assert top >= 0 and left >= 0, "the photographs are too small for this test"
    return whole[top : top + height, left : left + width]


@pytest.fixture(scope="session")
def images() -> Callable[..., torch.Tensor]:
    """images(n, h, w, channels=3, dtype=torch.float32): photographs, and every third one noise.  Floats are in [0,
    1]."""

    def make(n: int, height: int, width: int, channels: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        noise = np.random.default_rng(5)
        out = torch.zeros(n, channels, height, width)
        for i in range(n):
            if i % 3 == 2:
                # off the grid of 1/255, unlike a photograph
                out[i] = torch.from_numpy(noise.random((channels, height, width), dtype=np.float32))
            else:
                rgb = (
                    torch.from_numpy(crop_of_photograph(i - i // 3, height, width).copy()).permute(2, 0, 1).float()
                    / 255
                )
                out[i] = rgb.repeat(-(-channels // 3), 1, 1)[:channels]
        return (out * 255).round().to(torch.uint8) if dtype == torch.uint8 else out.to(dtype)

    return make


@pytest.fixture(scope="session")
def pictures() -> Callable[..., list[np.ndarray]]:
    """pictures(sizes): photographs of different sizes, [H, W, 3] uint8 arrays."""
    return lambda sizes: [crop_of_photograph(i, h, w).copy() for i, (h, w) in enumerate(sizes)]
