"""What is wrong with targets, mix by mix: an error in words, or the documented result."""

import pytest
import torch
import torchvision.transforms.v2 as v2
from build import build, case, spec
from torchvision import tv_tensors

import gpuaug as ga

BACKENDS = ("reference", "cpu", "triton")
MIXES = [n for n in ga.REGISTRY if spec(n).mixes]
X = torch.rand(4, 3, 12, 18, generator=torch.Generator().manual_seed(0))


def mix(name: str, classes: int | None) -> ga.Transform:
    arguments = {**case(name, 0), "num_classes": classes}
    return build(name, arguments)


def test_there_are_mixes():
    assert {"CutMix", "MixUp"} <= set(MIXES)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MIXES)
def test_a_mix_in_a_batch_of_one_has_itself_as_partner_and_an_exact_label(name, backend):
    policy = ga.Policy([mix(name, 5), mix(name, 5)], seed=3)
    for n in range(3):
        out, soft = policy(X[n : n + 1], torch.tensor([4]), ids=torch.tensor([n]), backend=backend)
        assert torch.allclose(out, X[n : n + 1], atol=1e-6)
        assert torch.equal(soft, torch.tensor([[0.0, 0, 0, 0, 1]]))
    one, label = policy(X[0], torch.tensor(2), ids=7, backend=backend)
    assert torch.allclose(one, X[0], atol=1e-6) and label.tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize(
    ("classes", "labels", "words"),
    [
        (3, [0, 1, 2, 3], r"labels must be in \[0, 3\), got 0 to 3"),
        (3, [0, 1, 2, -1], r"labels must be in \[0, 3\), got -1 to 2"),
        (None, [0, 1, 2, 2], "num_classes is needed"),
        (3, [0, 1, 2], "labels must have one row per image, 4"),
        (3, [[0.5, 0.5]] * 4, "soft labels must have 3 columns"),
        (3, None, "mixes labels too, got none"),
    ],
)
def test_labels_that_cannot_be_mixed_are_refused(name, classes, labels, words):
    policy = ga.Policy([ga.RandomHorizontalFlip(), mix(name, classes)])
    with pytest.raises((TypeError, ValueError), match=words):
        policy(X, None if labels is None else torch.tensor(labels))
    inside = ga.Policy([ga.RandomApply([mix(name, classes)], 1.0)])
    with pytest.raises((TypeError, ValueError), match=words):
        inside(ga.Batch(X, None if labels is None else torch.tensor(labels)))


@pytest.mark.parametrize("form", ["CXCYWHR", "XYWHR", "XYXYXYXY"])
def test_rotated_boxes_are_refused_by_their_format(form):
    width = 8 if form == "XYXYXYXY" else 5
    boxes = tv_tensors.BoundingBoxes(torch.ones(1, width), format=form, canvas_size=(12, 18))
    policy = ga.Policy([ga.RandomHorizontalFlip()])
    with pytest.raises(ValueError, match="boxes"):
        policy({"image": X[0], "boxes": boxes})
    with pytest.raises(ValueError, match=f"box_format must be one of XYXY, XYWH, CXCYWH, .*got {form}"):
        policy(ga.Batch(X[:1], boxes=[boxes]))


def test_a_detection_pipeline_of_torchvision_is_ported_by_one_call():
    pipeline = v2.Compose(
        [
            v2.RandomZoomOut(fill=0, side_range=(1.5, 1.5), p=1.0),
            v2.RandomHorizontalFlip(1.0),
            v2.Resize((24, 36)),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    boxes = tv_tensors.BoundingBoxes([[2.0, 3, 9, 8], [0, 0, 18, 12]], format="XYXY", canvas_size=(12, 18))
    image = tv_tensors.Image((X[0] * 255).byte())
    policy = ga.from_torchvision(pipeline, seed=1)
    out, target = policy(image, {"boxes": boxes, "labels": torch.tensor([1, 2])}, ids=3)
    left, top = policy.draw(torch.tensor([3]), size=(12, 18))[0]["padding"][0, :2].tolist()
    # the canvas is 18 by 27 pixels, mirrored and brought to 24 by 36
    x0, y0, x1, y1 = (boxes.as_subclass(torch.Tensor) + torch.tensor([left, top, left, top])).unbind(1)
    want = torch.stack([27 - x1, y0, 27 - x0, y1], 1) * (4 / 3)
    assert torch.allclose(target["boxes"].as_subclass(torch.Tensor), want, atol=1e-4)
    assert target["boxes"].canvas_size == (24, 36) and target["labels"].tolist() == [1, 2]
    assert out.shape == (3, 24, 36) and out.dtype == torch.float32 and isinstance(out, tv_tensors.Image)
