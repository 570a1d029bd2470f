"""Masks, boxes and keypoints of a Batch against torchvision, transform by transform, and on rendered shapes."""

from typing import Any

import pytest
import torch
import torchvision.transforms.v2.functional as F
from build import build, case, cases, spec
from oracles import Sample, interpolation, only, pair
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode

import gpuaug as ga

N = 6
IDS = torch.arange(N)
# of two values in [0, H] or [0, W], one of which torchvision computes in float64 too
CLOSE = 1e-3
BACKENDS = ("reference", "cpu", "triton")


def follows(name: str) -> bool:
    return spec(name).moves and not spec(name).mixes and name not in ("AugMix", "ElasticTransform")


def automatic(name: str) -> bool:
    """Transforms that draw among others: torchvision's refuse targets."""
    return "Augment" in name or name in ("RandomApply", "RandomChoice", "RandomOrder")


MOVES = [p for p in cases() if follows(p.values[0])]
PLAIN = [p for p in MOVES if not automatic(p.values[0])]


def boxes_in(size: tuple[int, int], n: int = N, k: int = 5) -> Tensor:
    """[n, k, 4] float64, all of them in the image and of two pixels at least."""
    made = torch.Generator().manual_seed(3)
    height, width = size
    far = torch.tensor([width, height], dtype=torch.float64)
    near = torch.rand(n, k, 2, dtype=torch.float64, generator=made) * (far - 3)
    sides = 2 + torch.rand(n, k, 2, dtype=torch.float64, generator=made) * (far - near - 2)
    return torch.cat([near, near + sides], 2)


def called(name: str, i: int, backend: str = "auto", **targets: Any) -> tuple[ga.Batch, Any]:
    """A transform on a batch with targets, and what was drawn."""
    size = spec(name).image
    policy = ga.Policy([build(name, case(name, i))], seed=5)
    params = policy.draw(IDS, size=size, dtype=torch.float32)
    images = torch.rand(N, 3, *size, generator=torch.Generator().manual_seed(1))
    return policy(ga.Batch(images, ids=IDS, **targets), epoch=0, backend=backend), params[0]


def mask_of(name: str, a: dict[str, Any], mask: Tensor, p: Any, n: int) -> Tensor:
    """A mask [1, H, W] after torchvision's functional: without the image's fill, which it would paint masks with."""
    if name == "RandomResizedCrop" and interpolation(a, "bilinear") == InterpolationMode.NEAREST_EXACT:
        # its mask is not taken from the pixels that the image is taken from, unlike that of resize
        box = (int(p[k]) for k in ("top", "left", "height", "width"))
        return F.resize(F.crop(mask, *box), pair(a["size"]), InterpolationMode.NEAREST_EXACT)
    args = {k: v for k, v in a.items() if k != "fill"}
    return spec(name).meaning(args, tv_tensors.Mask(mask), p, Sample(n, (), 5, 0, n, 0))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "i"), PLAIN)
def test_masks_are_those_of_torchvision(name, i, backend):
    a, size = case(name, i), spec(name).image
    # torchvision takes them through float32
    masks = torch.randint(-(2**20), 2**20, (N, *size), generator=torch.Generator().manual_seed(2))
    if backend == "triton" and i:
        # one set of arguments: the interpreter is slow, and the kernels are those of images
        return
    out, params = called(name, i, backend, masks=masks)
    assert out.masks.dtype == torch.int64
    for n in range(N):
        want = mask_of(name, a, masks[n, None], only(params, n), n)[0]
        assert out.masks[n].shape == want.shape
        # what lies half-way between two pixels may go to either
        assert (out.masks[n] != want).float().mean() <= (0.005 if spec(name).ties or "Rotation" in name else 0)


def boxes_of(name: str, a: dict[str, Any], boxes: tv_tensors.BoundingBoxes, p: Any, n: int) -> Tensor | None:
    """Boxes after torchvision's functional; None where it has no rule."""
    if name == "RandomRot90" or a.get("padding_mode", "constant") != "constant":
        return None
    if a.get("expand") and a.get("center"):
        # it moves boxes otherwise than the image
        return None
    height, width = boxes.canvas_size
    if name == "RandomPerspective":
        if not p["apply"]:
            return boxes
        start = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
        return F.perspective(boxes, start, p["endpoints"].tolist())
    if name == "RandomCrop" and a.get("pad_if_needed"):
        return None
    if name == "CenterCrop":
        # as the image is padded, where it is smaller; the box by itself is put a pixel elsewhere
        (high, wide), spare = pair(a["size"]), lambda to, side: max(to - side, 0)
        more = [spare(wide, width) // 2, spare(high, height) // 2]
        boxes = F.pad(boxes, [*more, spare(wide, width) - more[0], spare(high, height) - more[1]])
    return spec(name).meaning(a, boxes, p, Sample(n, (), 5, 0, n, 0))


@pytest.mark.parametrize("form", ["XYXY", "XYWH", "CXCYWH"])
@pytest.mark.parametrize(("name", "i"), PLAIN)
def test_boxes_are_those_of_torchvision(name, i, form):
    a, size = case(name, i), spec(name).image
    xyxy = boxes_in(size)
    boxes = tv_tensors.BoundingBoxes(xyxy.flatten(0, 1), format="XYXY", canvas_size=size)
    boxes = F.convert_bounding_box_format(boxes, new_format=form).as_subclass(Tensor).view(N, -1, 4)
    out, params = called(name, i, boxes=boxes, box_format=form)
    assert out.box_format == form and out.boxes.dtype == torch.float64
    for n in range(N):
        given = tv_tensors.BoundingBoxes(boxes[n], format=form, canvas_size=size)
        want = boxes_of(name, a, given, only(params, n), n)
        if want is None:
            return
        # with expand the image is put on whole pixels, and torchvision's boxes are not
        close = 1.0 if a.get("expand") else CLOSE
        assert (out.boxes[n] - want).abs().max() < close
        kept = F.convert_bounding_box_format(want, new_format="XYWH")
        assert torch.equal(out.box_valid[n], (kept[:, 2:] > 0).all(1)) or a.get("expand")


@pytest.mark.parametrize(("name", "flip"), [("RandomHorizontalFlip", "h"), ("RandomVerticalFlip", "v")])
def test_keypoints_are_mirrored_as_torchvision_mirrors_them(name, flip):
    height, width = spec(name).image
    points = torch.rand(N, 4, 2, dtype=torch.float64) * torch.tensor([width - 1.0, height - 1.0])
    out = ga.Policy([getattr(ga, name)(p=1.0)])(ga.Batch(torch.rand(N, 3, height, width), keypoints=points))
    mirror = F.horizontal_flip if flip == "h" else F.vertical_flip
    want = mirror(tv_tensors.KeyPoints(points, canvas_size=(height, width))).as_subclass(Tensor)
    assert torch.allclose(out.keypoints, want, atol=1e-12) and out.visible.all()


# ---- where a rendered shape lands


def landed(policy: ga.Policy, shapes: Tensor, ids: Tensor) -> Tensor:
    """Where the pixels of shapes come to lie: [N, h, w], 0 to 1, by the difference to an empty image.

    An operation on colours may take a shape away, but moves it nowhere.  shapes: [N, H, W] of 0 and 1"""
    images = shapes[:, None].float().expand(-1, 3, -1, -1) * 0.9
    drawn, empty = (policy(v, ids=ids, epoch=0) for v in (images, torch.zeros_like(images)))
    return (drawn - empty).abs().mean(1)


# a border that mirrors the image draws the shape twice
ONCE = [p for p in MOVES if case(*p.values).get("padding_mode", "constant") == "constant"]


@pytest.mark.parametrize(("name", "i"), ONCE)
def test_boxes_and_points_land_where_what_is_drawn_in_the_image_lands(name, i):
    a, (height, width) = case(name, i), spec(name).image
    n = 24
    x0, y0 = (width - 8) // 2, (height - 7) // 2 + 1
    x1, y1 = x0 + 8, y0 + 7
    shape = torch.zeros(n, height, width)
    shape[:, y0:y1, x0:x1] = 1
    policy, ids = ga.Policy([build(name, a)], seed=11), torch.arange(n)
    places = landed(policy, shape, ids)
    box = torch.tensor([[[x0, y0, x1, y1]]] * n)
    middle = torch.tensor([[[(x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2]]] * n)
    images = torch.rand(n, 3, height, width)
    out = policy(
        ga.Batch(images, ids=ids, boxes=box, box_format="XYXY", min_visibility=0.999, keypoints=middle), epoch=0
    )
    compared, fits = 0, []
    for place, found, valid, point in zip(
        places, out.boxes[:, 0], out.box_valid[:, 0], out.keypoints[:, 0], strict=True
    ):
        seen = place > 0.25 * place.max()
        if not valid or place.max() < 0.3 or seen.float().mean() > 0.7:
            # cut off, or an operation on colours has made it invisible
            continue
        compared += 1
        at = seen.nonzero()
        got = torch.cat([at.amin(0).flip(0), at.amax(0).flip(0) + 1])
        # a pixel of the image may be several of the output
        off = 1.5 + 0.5 * max(1.0, float((found[2] - found[0]) / 8), float((found[3] - found[1]) / 7))
        x, y = point.round().long().tolist()
        fits.append(bool((got - found).abs().max() <= off) and bool(seen[y, x]))
    # an operation on colours may change the empty image elsewhere than the one with the shape
    assert sum(fits) >= (0.7 if automatic(name) else 1) * compared, fits
    # turned about a corner, nearly all is cut off
    few = 0 if a.get("center") else 3 if name in ("RandomAffine", "RandomResizedCrop", "RandomCrop") else n // 4
    assert compared >= few, "vacuous"


@pytest.mark.parametrize(("name", "i"), MOVES)
def test_a_mask_lands_where_the_image_that_shows_it_lands(name, i):
    """Of images that hold the mask itself, drawn to the nearest pixel."""
    size = spec(name).image
    shape = torch.zeros(N, *size)
    shape[:, size[0] // 8 : size[0] * 5 // 8, size[1] // 8 : size[1] * 5 // 8] = 1
    policy = ga.Policy([build(name, case(name, i))], seed=5)
    place = landed(policy, shape, IDS)
    mask = policy(ga.Batch(torch.rand(N, 3, *size), ids=IDS, masks=shape > 0), epoch=0).masks
    assert mask.dtype == torch.bool and mask.shape == place.shape
    shares = []
    for got, want in zip(mask, place > 0.5 * place.amax((1, 2), keepdim=True), strict=True):
        if want.any() or got.any():
            shares.append(float((got & want).sum() / (got | want).sum()))
    # the nearest of few pixels is one beside; an operation on colours may take the shape away
    assert len(shares) >= (2 if case(name, i).get("center") else N // 2) and sorted(shares)[len(shares) // 2] > 0.7, (
        shares
    )
    assert automatic(name) or min(shares) > 0.5, shares
