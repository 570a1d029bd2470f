"""ByClass: every sample gets what a policy of its own class would give it."""

import pickle

import numpy as np
import pytest
import torch
from compare import compare
from PIL import Image
from torch.utils.data import DataLoader
from waits import CARD, card

import gpuaug as ga

N = 9
IDS = torch.arange(N) * 37 + 5
LABELS = torch.tensor([0, 1, 2, 3, 1, 0, 7, 3, 1])
FLOAT, NORMAL = ga.ToDtype(torch.float32, scale=True), ga.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
CROP, FLIP = ga.RandomResizedCrop(18), ga.RandomHorizontalFlip()
JITTER = ga.ColorJitter(0.4, 0.4, 0.4, 0.1)
BACKENDS = ("reference", "cpu", "triton")
# (the default, {classes: transforms}); each leaves images of one size
ROWS = {
    "colours": ([], {1: [ga.RandomInvert(1.0), ga.SaltAndPepper(0.2)], (2, 3): [JITTER]}),
    "whole policies": (
        [ga.Resize(20), ga.CenterCrop(18), FLOAT, NORMAL],
        {(1, 3): [CROP, FLIP, JITTER, FLOAT, NORMAL, ga.RandomErasing(0.7)]},
    ),
    "two crops": ([ga.RandomResizedCrop(18, (0.9, 1.0)), FLIP], {1: [CROP], 3: [FLIP, CROP, ga.RandomRotation(40)]}),
    "bicubic crops": (
        [ga.RandomResizedCrop(18, interpolation="bicubic"), FLIP],
        {1: [ga.RandomResizedCrop(18, (0.1, 0.3), interpolation="bicubic")]},
    ),
    "flips": ([FLIP], {1: [JITTER, FLIP], 2: [ga.RandomVerticalFlip(1.0)], 3: []}),
    "a crop of pixels": ([ga.RandomCrop(18, padding=3)], {1: [CROP], 2: [ga.CenterCrop(18)]}),
    "nested": ([ga.RandomApply([ga.RandomSolarize(0.3)], 0.8)], {1: [ga.RandAugment(2, 9)], 3: [ga.GaussianBlur(3)]}),
    "one in another": ([], {(1, 3): [ga.ByClass({3: ga.RandomInvert(1.0)}, default=ga.RandomSolarize(0.2, 1.0))]}),
}


def images() -> torch.Tensor:
    return torch.randint(0, 256, (N, 3, 26, 31), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def ragged() -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return [torch.randint(0, 256, (3, 22 + n, 34 - n), dtype=torch.uint8, generator=g) for n in range(N)]


def made(name: str) -> ga.Policy:
    default, policies = ROWS[name]
    return ga.Policy([ga.ByClass(policies, default=default)], seed=11)


def alone(name: str, label: int) -> ga.Policy:
    """The transforms of one class at the slots that they have inside."""
    by_class = made(name).transforms[0]
    before, found = 1, by_class.default
    for classes, row in by_class.policies:
        if label in classes:
            found = row
            before += sum(ga.transforms.base.span(t) for t in by_class.default)
            for others, earlier in by_class.policies:
                if others == classes:
                    break
                before += sum(ga.transforms.base.span(t) for t in earlier)
    return ga.Policy([*[ga.Identity()] * before, *found], seed=11)


# the interpreter is slow: a row of each kind stands for its like
ON_EACH = [
    pytest.param(
        name, backend, marks=[pytest.mark.slow] if backend == "triton" and ("crop" in name or "one in" in name) else []
    )
    for name in ROWS
    for backend in BACKENDS
]


@pytest.mark.parametrize(("name", "backend"), ON_EACH)
def test_every_sample_gets_what_the_transforms_of_its_class_give(name, backend):
    policy = made(name)
    for turn in range(3):  # step by step, by the recipe that is found, and by the recipe
        out, labels = policy(images(), LABELS, ids=IDS, epoch=turn, backend=backend)
        assert torch.equal(labels, LABELS)
        for label in LABELS.unique().tolist():
            own = LABELS == label
            # one in another is told by the label too
            given = (LABELS[own],) if name == "one in another" else ()
            want = alone(name, label)(images()[own], *given, ids=IDS[own], epoch=turn, backend="reference")
            want = want[0] if given else want
            # where a Normalize stands last, values are 1 / std as large
            scale = 5.0 if out.dtype == torch.float32 else 1.0
            compare(out[own], want, "resample, jump", f"{name}, class {label}, call {turn}", scale)


@pytest.mark.parametrize("backend", BACKENDS)
def test_images_of_different_sizes_are_cropped_by_class_in_one_step(backend):
    policy = made("whole policies")
    out, _ = policy(ragged(), LABELS, ids=IDS, backend=backend)
    for label in (0, 1, 3, 7):
        rows = [n for n in range(N) if LABELS[n] == label]
        want = alone("whole policies", label)([ragged()[n] for n in rows], ids=IDS[rows], backend="reference")
        compare(out[rows], want, "resample, jump", f"class {label}", 5.0)
    assert policy.describe(backend="cpu").startswith(f"{policy!r}\nbackend cpu: 1 step\n")


def test_the_batch_around_a_sample_is_invisible():
    policy = made("whole policies")
    out, _ = policy(images(), LABELS, ids=IDS)
    for n in range(N):
        assert torch.equal(policy(images()[n : n + 1], LABELS[n : n + 1], ids=IDS[n : n + 1])[0], out[n : n + 1])


def test_the_label_decides_and_nothing_else_changes():
    policy = made("colours")
    out, _ = policy(images(), LABELS, ids=IDS)
    other, _ = policy(images(), torch.where(LABELS == 1, 0, LABELS), ids=IDS)
    changed = (out != other).flatten(1).any(1)
    assert torch.equal(changed, LABELS == 1)


def test_a_class_that_is_added_does_not_redraw_the_default():
    rows = [JITTER]
    one = ga.Policy([ga.ByClass({1: ga.RandomInvert(1.0)}, default=rows)])
    two = ga.Policy([ga.ByClass({1: ga.RandomInvert(1.0), 2: []}, default=rows)])
    a, b = (p(images(), LABELS, ids=IDS)[0] for p in (one, two))
    assert torch.equal(a[LABELS != 2], b[LABELS != 2]) and not torch.equal(a[LABELS == 2], b[LABELS == 2])


@pytest.mark.parametrize("name", ["whole policies", "nested", "flips"])
def test_it_draws_in_a_recipe(name):
    for backend in ("cpu", "triton"):
        assert "step by step: " not in made(name).describe((26, 31), backend=backend)
        assert "draws in " in made(name).describe((26, 31), backend=backend)


def test_describe_says_where_a_child_cannot_share_a_launch():
    policy = ga.Policy([ga.ByClass({1: [ga.ElasticTransform()]}, default=[JITTER])])
    assert "runs by the reference" in policy.describe((26, 31), backend="cpu")


@pytest.mark.parametrize("name", ROWS)
def test_it_prints_and_saves_as_what_makes_it(name, tmp_path):
    policy = made(name)
    policy.save(tmp_path / "policy.yaml")
    assert ga.Policy.load(tmp_path / "policy.yaml") == policy
    assert eval(repr(policy), {**vars(ga), "torch": torch}) == policy
    assert pickle.loads(pickle.dumps(policy)) == policy and hash(policy.transforms[0]) == hash(made(name).transforms[0])
    (tmp_path / "policy.yaml").read_text().index("policies:")


def test_what_was_drawn_is_replayed_without_labels():
    policy = made("whole policies")
    out, _ = policy(images(), LABELS, ids=IDS, epoch=2)
    params = policy.draw(IDS, epoch=2, size=(26, 31), labels=LABELS)
    assert params[0]["index"].tolist() == [0, 1, 0, 1, 1, 0, 0, 1, 1]
    torch.testing.assert_close(policy.replay(images(), params), out, rtol=0, atol=0)


def test_masks_and_boxes_follow_the_transforms_of_the_class():
    policy = made("two crops")
    masks = torch.randint(0, 5, (N, 26, 31), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    out = policy(ga.Batch(images(), labels=LABELS, ids=IDS, masks=masks))
    for label in (0, 1, 3):
        own = LABELS == label
        want = alone("two crops", label)(ga.Batch(images()[own], ids=IDS[own], masks=masks[own]))
        assert torch.equal(out.masks[own], want.masks)


def test_windows_are_those_of_the_class():
    policy = made("whole policies")
    sizes = torch.tensor([i.shape[1:] for i in ragged()])
    found = policy.windows(IDS, sizes, labels=LABELS)
    boxes = found.windows.tolist()
    assert len({tuple(b[2:]) for b in boxes}) > 3, "vacuous"
    cut = [i[:, t : t + h, l : l + w].permute(1, 2, 0) for i, (t, l, h, w) in zip(ragged(), boxes, strict=True)]
    pixels = ga.Ragged.windowed(cut, sizes, found.windows)
    out = policy(ga.Batch(pixels, labels=LABELS, ids=IDS, params=found.params))
    assert torch.equal(out.images, policy(ragged(), LABELS, ids=IDS)[0])
    with pytest.raises(ValueError, match="params must be of the same labels"):
        policy(ga.Batch(pixels, labels=LABELS.flip(0), ids=IDS, params=found.params))


@pytest.mark.parametrize("compiled", [True, False], ids=["traced", "step by step"])
@pytest.mark.parametrize("name", ["whole policies", "flips"])
def test_on_a_card_it_does_not_wait(name, compiled):
    policy = made(name)
    with card(compiled) as on:
        x = torch.zeros(N, 3, 26, 31, dtype=torch.uint8, device=CARD)
        labels, ids = (torch.zeros(N, dtype=torch.int64, device=CARD) for _ in range(2))
        on.refuses = False
        policy(x, labels, ids=ids)
        before, on.refuses = on.seen, True
        policy(x, labels, ids=ids)
        assert on.seen > before, "vacuous"


def test_inside_torch_compile_it_is_the_same():
    policy = made("colours")
    want = policy(images(), LABELS, ids=IDS)[0]
    got = torch.compile(lambda x, y, i: policy(x, y, ids=i)[0], backend="eager", fullgraph=True)(images(), LABELS, IDS)
    assert torch.equal(got, want)


def test_one_image_has_its_own_label():
    policy = made("colours")
    out, label = policy(images()[1], 1, ids=5)
    assert int(label) == 1 and torch.equal(out, policy(images()[1:2], [1], ids=[5])[0][0])


def test_a_loader_draws_windows_by_the_labels_of_its_source(tmp_path):
    for c in ("a", "b"):
        (tmp_path / c).mkdir()
        for n in range(4):
            pixels = np.random.default_rng(n).integers(0, 256, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / c / f"{n}.png")
    crop = ga.RandomResizedCrop(16, (0.1, 0.3))
    policy = ga.Policy([ga.ByClass({1: [crop, ga.RandomInvert(1.0)]}, default=[ga.Resize(20), ga.CenterCrop(16)])])
    seen = 0
    for batch in ga.data.Loader(str(tmp_path), policy, 4):
        files = sorted(tmp_path.rglob("*.png"))
        whole = [np.asarray(Image.open(files[i])) for i in batch.ids.tolist()]
        want, _ = policy(whole, batch.labels, ids=batch.ids, epoch=batch.epoch)
        assert torch.equal(batch.images, want)
        seen += int((batch.labels == 1).sum())
    assert seen == 4


def test_a_data_loader_hands_it_batches():
    policy = made("colours")
    rows = [(images()[n], int(LABELS[n])) for n in range(N)]
    for x, y in DataLoader(rows, 3):
        assert policy(x, y)[0].shape == x.shape


# ---- bad input


@pytest.mark.parametrize(
    "labels", [None, torch.rand(N, 4), torch.rand(N), torch.ones(N, dtype=torch.bool)], ids=["none", "rows", "f", "b"]
)
def test_labels_must_be_class_numbers(labels):
    with pytest.raises(ValueError, match="ByClass chooses by class and needs labels that are class numbers"):
        made("colours")(images(), labels, ids=IDS)
    with pytest.raises(ValueError, match="ByClass chooses by class and needs labels"):
        made("colours").draw(IDS, size=(9, 9), labels=labels)


def test_a_warmup_needs_no_labels():
    made("colours").warmup((2, 3, 26, 31))


@pytest.mark.parametrize(
    ("policies", "default", "says"),
    [
        ({-1: []}, [], "integers from 0"),
        ({True: []}, [], "integers from 0"),
        ({"cat": []}, [], "number the names"),
        ({1: [], (1, 2): []}, [], "1 twice"),
        ({(): []}, [], "at least one class"),
        ({1: "flip"}, [], "must be gpuaug transforms"),
        ({1: [3]}, [], "must be gpuaug transforms"),
        ([FLIP], [], "mapping"),
        ({1: []}, None, "default must be"),
    ],
)
def test_bad_arguments_are_refused(policies, default, says):
    with pytest.raises((ValueError, TypeError), match=says):
        ga.ByClass(policies, default=default)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([ga.CenterCrop(9)], "end in the same size"),
        ([ga.Grayscale()], "end in the same size, channels and dtype"),
        ([FLOAT], "end in the same size, channels and dtype"),
        ([ga.CenterCrop(9), JITTER, ga.Resize((26, 31))], "steps that differ in kind"),
    ],
)
def test_classes_must_end_alike(row, says):
    policy = ga.Policy([ga.ByClass({1: row})])
    with pytest.raises(ValueError, match=says):
        policy(images(), LABELS, ids=IDS)
