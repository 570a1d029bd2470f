"""Images of a list with channels first or last, and `gpuaug.Ragged`: read as they lie in memory, or refused by name."""

import pickle

import numpy as np
import pytest
import torch
from build import quick
from compare import compare
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

import gpuaug as ga

SIZES = [(12, 10), (20, 31), (9, 14), (33, 8)]
POLICY = ga.Policy([ga.RandomResizedCrop((8, 7)), ga.RandomHorizontalFlip(), ga.ColorJitter(0.2, 0.2)], seed=5)
MOVES = ga.Policy([ga.RandomCrop(6), ga.RandomVerticalFlip()], seed=5)
IDS = torch.tensor([3, 1, 2**40, 7])
BACKENDS = ["reference", "cpu", "triton"]


def arrays(channels: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(channels)
    return [rng.integers(0, 256, (h, w, channels), np.uint8) for h, w in SIZES]


def strided(image: torch.Tensor) -> torch.Tensor:
    """The same image in every other row, column and channel of a larger one."""
    h, w, c = image.shape
    wide = torch.full((2 * h, 2 * w, 2 * c), 77, dtype=image.dtype)
    wide[::2, ::2, ::2] = image
    return wide[::2, ::2, ::2]


# from the arrays [H, W, C], what says the same
WAYS = {
    "planar tensors": lambda a: [torch.from_numpy(i).permute(2, 0, 1).contiguous() for i in a],
    "planar views": lambda a: [torch.from_numpy(i).permute(2, 0, 1) for i in a],
    "tv_tensors": lambda a: [tv_tensors.Image(torch.from_numpy(i).permute(2, 0, 1)) for i in a],
    "F.to_image": lambda a: [F.to_image(i) for i in a],
    "F.pil_to_tensor": lambda a: [F.pil_to_tensor(Image.fromarray(i.squeeze())) for i in a],
    "tensors": lambda a: [torch.from_numpy(i) for i in a],
    "strided tensors": lambda a: [strided(torch.from_numpy(i)) for i in a],
    "strided planar tensors": lambda a: [strided(torch.from_numpy(i).permute(2, 0, 1)) for i in a],
    "negated strides": lambda a: [i[::-1, :, ::-1].copy()[::-1, :, ::-1] for i in a],
    "all ways at once": lambda a: [
        a[0],
        torch.from_numpy(a[1]),
        torch.from_numpy(a[2]).permute(2, 0, 1).contiguous(),
        Image.fromarray(a[3].squeeze()),
    ],
}


KINDS = [("reference", 1), ("reference", 3), ("cpu", 1), ("cpu", 3), ("cpu", 4), ("triton", 3)]


@pytest.mark.parametrize(("backend", "channels"), quick(KINDS, ("reference", 3), ("cpu", 1), ("cpu", 4), ("triton", 3)))
@pytest.mark.parametrize("way", WAYS)
def test_images_of_a_list_are_the_same_however_their_axes_lie(way, backend, channels):
    given = arrays(channels)
    policy = POLICY if channels != 4 else MOVES
    want = policy(given, ids=IDS, backend=backend)
    assert want.shape[1] == channels and len(want.unique()) > 50, "vacuous"
    for images in (WAYS[way](given), ga.Ragged(WAYS[way](given)), ga.Batch(tuple(WAYS[way](given)))):
        out = policy(images, ids=IDS, backend=backend)
        compare(out.images if isinstance(images, ga.Batch) else out, want, "exact", way)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [2, 3, 5])
def test_a_layout_that_is_said_is_believed(channels, backend):
    given = arrays(channels)
    policy = MOVES
    want = policy(given, ids=IDS, backend=backend)
    hwc = [torch.from_numpy(i) for i in given]
    chw = [i.permute(2, 0, 1).contiguous() for i in hwc]
    for images in (
        ga.Ragged(hwc, "hwc"),
        ga.Ragged(chw, layout="chw"),
        ga.Ragged([i.numpy() for i in chw], layout="chw"),
    ):
        compare(policy(images, ids=IDS, backend=backend), want, "exact", "said")


def test_a_layout_decides_where_both_fit():
    x = torch.arange(3 * 5 * 3, dtype=torch.uint8).view(3, 5, 3)
    with pytest.raises(ValueError, match=r"image 0 .*\(3, 5, 3\).*layout"):
        MOVES([x])
    flip = ga.Policy([ga.RandomHorizontalFlip(0.0), ga.Resize((3, 5))])
    assert torch.equal(flip(ga.Ragged([x], "hwc"))[0], x.permute(2, 0, 1))
    assert torch.equal(ga.Policy([ga.Resize((5, 3))])(ga.Ragged([x], "chw"))[0], x)
    assert torch.equal(ga.Policy([])([x.numpy()])[0], x.permute(2, 0, 1)), "an array is [H, W, C]"
    assert torch.equal(ga.Policy([])([tv_tensors.Image(x)])[0], x), "a tv_tensor is [C, H, W]"


def test_a_single_pixel_has_the_layout_of_the_others():
    pixel, other = torch.tensor([[[1, 2, 3]]], dtype=torch.uint8), torch.zeros(8, 9, 3, dtype=torch.uint8)
    policy = ga.Policy([ga.Resize((1, 1))])
    assert policy([other, pixel])[1].flatten().tolist() == [1, 2, 3]
    for images in ([pixel], [pixel, other.permute(2, 0, 1)], [pixel, other, other.permute(2, 0, 1)]):
        with pytest.raises(ValueError, match=r"image 0 .*\(1, 1, 3\)"):
            policy(images)


@pytest.mark.parametrize(
    ("images", "layout", "words"),
    [
        ([], None, "empty"),
        (3, None, "sequence"),
        ("ab", None, "sequence"),
        ([torch.zeros(8, 9, 3)], None, "uint8, got torch.float32"),
        ([torch.zeros(8, 9, 3).double()], None, "uint8, got torch.float64"),
        ([torch.zeros(8, 9, 3, dtype=torch.int32)], None, "image 0 .*int32"),
        ([torch.zeros(8, 9, 3, dtype=torch.uint8), torch.zeros(8, 9, 3)], None, "dtype"),
        ([torch.zeros(8, 9, dtype=torch.uint8)], None, "image 0 .*3 dimensions"),
        ([torch.zeros(1, 8, 9, 3, dtype=torch.uint8)], None, "image 0 .*3 dimensions"),
        (
            [torch.zeros(8, 9, 3, dtype=torch.uint8), torch.zeros(8, 9, 4, dtype=torch.uint8)],
            None,
            "channels, got 3 in image 0 and 4 in image 1",
        ),
        (
            [torch.zeros(3, 8, 9, dtype=torch.uint8), torch.zeros(8, 9, 1, dtype=torch.uint8)],
            None,
            "channels, got 3 in image 0 and 1 in image 1",
        ),
        (
            [torch.zeros(8, 9, 3, dtype=torch.uint8), torch.zeros(8, 9, 3, dtype=torch.uint8, device="meta")],
            None,
            "device, got cpu",
        ),
        ([torch.zeros(0, 9, 3, dtype=torch.uint8)], None, "image 0"),
        ([torch.zeros(8, 9, 3, dtype=torch.uint8)], "nhwc", "layout"),
        ([tv_tensors.Image(torch.zeros(3, 8, 9, dtype=torch.uint8))], "hwc", "tv_tensor"),
        ([None], None, "image 0"),
    ],
    ids=str,
)
def test_a_ragged_checks_at_its_door(images, layout, words):
    with pytest.raises((TypeError, ValueError), match=words):
        ga.Ragged(images, layout)


def test_a_ragged_reads_new_pixels_and_travels():
    given = arrays()
    images = [torch.from_numpy(i).clone() for i in given]
    ragged = ga.Ragged(images)
    assert all(a is b for a, b in zip(ragged.images, images, strict=True)), "what is read as it lies is not copied"
    images[0].zero_()
    given[0][:] = 0
    compare(MOVES(ragged, ids=IDS), MOVES(given, ids=IDS), "exact", "written in place")
    for other in (
        pickle.loads(pickle.dumps(ragged)),
        ragged.to("cpu"),
        ragged.pin_memory(),
        ragged[:],
        ragged[torch.arange(4)],
        ragged[[True] * 4],
    ):
        assert isinstance(other, ga.Ragged) and len(other) == 4 and other.channels == 3
        compare(MOVES(other, ids=IDS), MOVES(ragged, ids=IDS), "exact", "the same images")
    assert torch.equal(ragged[1], images[1].permute(2, 0, 1)) and len(list(ragged)) == 4
    meta = ragged.to("meta")
    assert meta.device.type == "meta" and meta.shapes == ragged.shapes
    assert str(ragged) == "Ragged(4 images, uint8, 3 channels, 9x14 to 33x8, cpu)"
    with pytest.raises(IndexError, match="at least one"):
        ragged[:0]


def test_images_in_one_piece_of_memory_travel_in_one():
    """As pinned ones lie: here the piece is made by hand, for there may be no GPU."""
    ragged = ga.Ragged(WAYS["planar tensors"](arrays()))
    piece = ragged.laid_out(torch.empty(sum(i.numel() for i in ragged.images), dtype=torch.uint8))
    for to, image in zip(piece.images, ragged.images, strict=True):
        to.copy_(image)
    compare(MOVES(piece, ids=IDS), MOVES(ragged, ids=IDS), "exact", "side by side")
    there = piece.to("meta")
    assert len({i.untyped_storage()._cdata for i in there.images}) == 1 and all(i.is_contiguous() for i in there.images)


@pytest.mark.parametrize("steps", [[ga.RandomHorizontalFlip(1.0)], [ga.ColorJitter(0.4), ga.Resize((9, 7))]], ids=repr)
def test_a_ragged_of_one_size_is_taken_as_a_list_of_it_is(steps):
    """What is refused as ambiguous is told to come as a Ragged, which no policy may then refuse for its sizes."""
    policy, ids = ga.Policy(steps), torch.arange(2)
    planes = [torch.arange(90 * (k + 1), 90 * (k + 2)).view(3, 10, 3).to(torch.uint8) for k in range(2)]
    with pytest.raises(ValueError, match="may be"):
        policy(planes, ids=ids)
    for backend in ("reference", "cpu", "triton"):
        got = policy(ga.Ragged(planes, layout="chw"), ids=ids, backend=backend)
        assert torch.equal(got, policy(torch.stack(planes), ids=ids, backend=backend))
    with pytest.raises(ValueError, match=r"of one size|different sizes"):
        policy(ga.Ragged([planes[0], planes[1][:, 1:]], layout="chw"), ids=ids)
