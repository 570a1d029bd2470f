"""One image in, one image out; and a transform called by itself says how to be called."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
from build import build, case, cases
from compare import compare
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, tv_tensors

import gpuaug as ga

ARRAY = np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)
PLANAR = torch.from_numpy(ARRAY).permute(2, 0, 1).contiguous()
POLICY = ga.Policy(
    [ga.RandomResizedCrop((9, 11)), ga.RandomHorizontalFlip(), ga.ColorJitter(0.3, 0.3, 0.3, 0.1), ga.ToTensor()],
    seed=2,
)

WAYS = {
    "tensor": PLANAR,
    "channels_last": PLANAR.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "array": ARRAY,
    "read-only array": np.broadcast_to(ARRAY, ARRAY.shape),
    "array of negative strides": ARRAY[::-1, ::-1].copy()[::-1, ::-1],
    "PIL": Image.fromarray(ARRAY),
    "tv_tensor": tv_tensors.Image(PLANAR),
}


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("way", WAYS)
def test_one_image_is_a_batch_of_one_without_its_first_axis(way, backend):
    want = POLICY(PLANAR[None], ids=[7], epoch=3, backend=backend)[0]
    got = POLICY(WAYS[way], ids=7, epoch=3, backend=backend)
    assert got.shape == (3, 9, 11) and type(got) is torch.Tensor
    compare(got, want, "exact", way)
    compare(POLICY(WAYS[way], ids=torch.tensor([7]), epoch=3, backend=backend), want, "exact", "its id in a list")
    params = POLICY.draw(torch.tensor([7]), epoch=3, size=(24, 30))
    compare(POLICY.replay(WAYS[way], params, backend=backend), want, "exact", "replayed")


def test_single_images_are_counted_as_batches_of_one_are():
    one, other = (ga.Policy(POLICY.transforms, seed=2) for _ in range(2))
    got = torch.stack([one(PLANAR), one(ARRAY), one(Image.fromarray(ARRAY))])
    assert int(one.next_id) == 3
    compare(got, other(PLANAR.expand(3, -1, -1, -1)), "exact", "numbered on")
    assert not torch.equal(got[0], got[1]), "vacuous: three draws must differ"


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        (Image.new("L", (7, 5)), (1, 5, 7)),
        (Image.new("LA", (7, 5)), (2, 5, 7)),
        (Image.new("LA", (3, 5)), (2, 5, 3)),
        (Image.new("RGBA", (7, 5)), (4, 5, 7)),
        (Image.new("RGB", (3, 5)), (3, 5, 3)),
        (np.zeros((5, 7, 1), np.uint8), (1, 5, 7)),
        (np.zeros((3, 5, 3), np.uint8), (3, 3, 5)),
        (torch.zeros(1, 5, 7), (1, 5, 7)),
        (torch.zeros(4, 5, 7), (4, 5, 7)),
        (tv_tensors.Image(torch.zeros(2, 5, 3)), (2, 5, 3)),
        (np.zeros((5, 7, 3), np.float64), (3, 5, 7)),
        (np.zeros((5, 7, 3), ">u2"), (3, 5, 7)),
    ],
    ids=lambda v: str(v).split(" at 0x")[0],
)
def test_what_one_image_is_follows_from_its_kind_and_shape(image, shape):
    assert ga.Policy([ga.RandomHorizontalFlip()])(image).shape == shape


@pytest.mark.parametrize(
    ("label", "shape", "mixed"),
    [
        (3, (), (5,)),
        (np.int64(3), (), (5,)),
        (np.uint16(3), (), (5,)),
        (torch.tensor(3), (), (5,)),
        (torch.tensor([0.0, 0.25, 0.75, 0.0, 0.0]), (5,), (5,)),
        (np.array([0.0, 0.25, 0.75, 0.0, 0.0]), (5,), (5,)),
    ],
    ids=str,
)
def test_the_label_of_one_image_has_no_first_axis_either(label, shape, mixed):
    image, out = POLICY(PLANAR, label)
    assert image.shape == (3, 9, 11) and out.shape == shape
    torch.testing.assert_close(out, torch.as_tensor(label), check_dtype=False)
    image, out = ga.Policy([ga.CutMix(1.0, 5)])(PLANAR, label)
    # alone in its batch, it is its own partner
    assert (
        image.shape == PLANAR.shape
        and out.shape == mixed
        and abs(float(out[3]) - float(torch.as_tensor(label) == 3 if shape == () else 0)) < 1e-6
    )
    params = POLICY.draw(torch.tensor([7]), size=(24, 30))
    assert POLICY.replay(PLANAR, params, label)[1].shape == shape


def folder(path) -> str:
    for name in "ab":
        (path / name).mkdir()
        for k in range(3):
            Image.fromarray(np.random.default_rng(k).integers(0, 256, (20 + k, 30, 3), np.uint8)).save(
                path / name / f"{k}.png"
            )
    return str(path)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("inside", [False, True])
def test_a_policy_is_a_transform_of_a_dataset(tmp_path, workers, inside):
    policy = v2.Compose([v2.Identity(), POLICY, v2.Identity()]) if inside else POLICY
    data = datasets.ImageFolder(folder(tmp_path), transform=policy)
    batches = list(DataLoader(data, batch_size=3, num_workers=workers))
    assert [b.shape for b, _ in batches] == [(3, 3, 9, 11)] * 2
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 0, 1, 1, 1]
    assert all(float(b.std()) > 0.05 for b, _ in batches), "vacuous"


def test_one_image_compiles_as_a_batch_of_one_does():
    whole = torch.compile(lambda x: POLICY(x, ids=torch.tensor([4])), fullgraph=True, backend="eager")
    compare(whole(PLANAR), POLICY(PLANAR, ids=4), "exact", "compiled")


@pytest.mark.parametrize(("name", "i"), cases())
def test_a_transform_called_by_itself_shows_a_policy(name, i):
    transform = build(name, case(name, i))
    for arguments in ((PLANAR,), (PLANAR[None],), (), (Image.fromarray(ARRAY), 3)):
        with pytest.raises(TypeError, match=r"ga\.Policy\(\[") as caught:
            transform(*arguments)
        assert repr(transform) in str(caught.value)


def test_a_batch_of_one_image_goes_in_and_comes_out_without_a_first_axis():
    batch = ga.Batch(PLANAR.expand(3, -1, -1, -1), labels=torch.arange(3), ids=torch.tensor([4, 9, 2]), epoch=1)
    whole = POLICY(batch)
    for n in range(3):
        one = POLICY(batch[n])
        compare(one.images, whole.images[n], "exact", f"sample {n}")
        assert one.images.shape == (3, 9, 11) and int(one.labels) == n and int(one.ids) == int(batch.ids[n])
    named = POLICY(replace(batch[0], ids=None), ids=9)
    compare(named.images, whole.images[1], "exact", "its id as an argument")
    with pytest.raises(TypeError, match="no length"):
        len(batch[0])


def test_the_call_says_in_its_docstring_what_one_image_is():
    assert "[H, W, C]" in (inspect.getdoc(ga.Policy.forward) or "")
