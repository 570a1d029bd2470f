"""Images that lie in one piece of memory are what the same tensors are, and are made only where one asks."""

import pickle

import numpy as np
import pytest
import torch

import gpuaug as ga
from gpuaug.pieces import Pieces

SHAPES = np.array([(5, 7, 3), (1, 9, 3), (8, 1, 3), (1, 1, 3), (16, 4, 3)])


def pieces(gap=0, offset=0):
    sizes = SHAPES.prod(1) + gap
    memory = torch.randint(0, 256, (offset + int(sizes.sum()),), dtype=torch.uint8)[offset:]
    return Pieces(memory, np.cumsum(sizes) - sizes, SHAPES)


@pytest.mark.parametrize("gap", [0, 5])
@pytest.mark.parametrize("offset", [0, 3])
def test_a_ragged_of_pieces_is_a_ragged_of_their_tensors(gap, offset):
    made = pieces(gap, offset)
    a, b = ga.Ragged.of(made), ga.Ragged.of(tuple(made))
    assert len(a) == len(b) and a.shapes == b.shapes and repr(a) == repr(b) and a.way == b.way
    for name in ("addresses", "size", "pitches", "corners", "places"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert np.array_equal(a.strides, b.strides) and (a.channels, a.dtype, a.device) == (3, torch.uint8, b.device)
    assert a.elements == sum(i.numel() for i in b.images) and "images" not in a.__dict__, "tensors were made"
    for x, y in zip(a.images, b.images, strict=True):
        assert torch.equal(x, y) and x.data_ptr() == y.data_ptr() and x.shape == y.shape
    for k in (1, slice(1, 4), [3, 0], torch.tensor([True, False, True, False, True])):
        x, y = a[k], b[k]
        same = torch.equal(x, y) if isinstance(x, torch.Tensor) else all(map(torch.equal, x.images, y.images))
        assert same, k
    kept = pickle.loads(pickle.dumps(a))
    assert all(map(torch.equal, kept.images, b.images))
    there = a.copied(torch.zeros(a.elements, dtype=torch.uint8))
    assert all(map(torch.equal, there.images, b.images)) and there.images[0].data_ptr() != b.images[0].data_ptr()
    doubled = a.mapped(lambda image: image.float() * 2)
    assert doubled.dtype == torch.float32 and torch.equal(doubled.images[4], b.images[4].float() * 2)


def test_windows_of_pieces_begin_where_their_images_would():
    made, full = pieces(), np.array([(20, 30)] * 5)
    windows = np.concatenate([np.array([(1, 2), (0, 0), (3, 4), (5, 6), (4, 26)]), SHAPES[:, :2]], 1)
    a, b = ga.Ragged.of(made, full, windows), ga.Ragged.of(tuple(made), full, windows)
    assert torch.equal(a.addresses, b.addresses) and torch.equal(a.corners, b.corners) and a.shapes == b.shapes
    policy = ga.Policy([ga.CenterCrop(4)], seed=1)
    with pytest.raises(ValueError, match="window 0 must hold what the policy reads"):
        policy(a)


def test_pieces_are_augmented_as_their_tensors_by_every_executor():
    policy, made = (
        ga.Policy([ga.Resize((6, 6)), ga.RandomHorizontalFlip(), ga.ToDtype(torch.float32, scale=True)], 1),
        pieces(4, 1),
    )
    for backend in ("reference", "cpu", "triton"):
        got = policy(ga.Ragged.of(made), ids=torch.arange(5), backend=backend)
        assert torch.equal(got, policy([image.numpy() for image in made], ids=torch.arange(5), backend=backend))


def test_pieces_know_whether_they_lie_in_one_piece_in_turn():
    made = pieces(offset=3)
    assert torch.equal(made.whole, torch.cat([image.reshape(-1) for image in made]))
    assert made.whole.data_ptr() == made[0].data_ptr() and pieces(1).whole is None
    swapped = Pieces(made.memory, made.begins[::-1].copy(), made.shapes[::-1].copy())
    assert swapped.whole is None and torch.equal(swapped[0], made[4])
    again = Pieces.in_turn(made.whole, made.shapes)
    assert all(map(torch.equal, again, made)) and len(again[1:3]) == 2
