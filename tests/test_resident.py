"""The resident loader: its batches are those of the order and of the policy, on every rank and after every restart, and
no copy of their images is made first."""

import itertools

import numpy as np
import pytest
import torch
from build import build, case, cases
from policies import FLOAT, POLICIES, mixes
from waits import CARD, card

import gpuaug as ga
from gpuaug.data import ResidentLoader, order, resident
from gpuaug.gathered import Gathered

N = 53
IMAGES = torch.randint(0, 256, (N, 3, 28, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(N) % 7
POLICY = ga.Policy([ga.RandomCrop(20), ga.RandomHorizontalFlip(), ga.SaltAndPepper(0.2)], seed=5)
LAYOUTS = {
    "[N, C, H, W]": IMAGES,
    "[N, H, W, C]": IMAGES.permute(0, 2, 3, 1).contiguous(),
    "channels last": IMAGES.contiguous(memory_format=torch.channels_last),
    "an array": IMAGES.permute(0, 2, 3, 1).numpy(),
    "strided": IMAGES.repeat_interleave(2, 3)[..., ::2],
}


def loader(what=(IMAGES, LABELS), policy=POLICY, batch_size=8, **options):
    return ResidentLoader(what, policy, batch_size, device="cpu", **options)


def rows(batches):
    """What a run gave, sample by sample: (epoch, id, occurrence, label, pixels)."""
    return [
        (b.epoch, int(i), int(o), int(y), x.numpy().tobytes())
        for b in batches
        for i, o, y, x, v in zip(b.ids, b.occurrence, b.labels, b.images, b.valid, strict=True)
        if v
    ]


# ---- rows of a store


def every_way() -> list:
    """Each transform on a host's executor; the others, which read rows in one place for all transforms, with some."""
    found = []
    for k, (name, i) in enumerate(c.values for c in cases()):
        backends = ["cpu"] * (i == 0) + ["triton"] * (k % 6 == 0) + ["reference"] * (k % 6 == 3)
        # the interpreter takes as long as all others: half of its transforms are slow
        slow = {"triton": [pytest.mark.slow] * (k % 12 == 6)}
        found += [pytest.param(name, i, b, id=f"{name}-{i}-{b}", marks=slow.get(b, [])) for b in backends]
    return found


# channels of the store and what stands before the transform
FORMS = [(1, ()), (3, (FLOAT,))]
OTHERS = [(1, (FLOAT,)), (3, ())]


@pytest.mark.parametrize("forms", [FORMS, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["some", "others"])
@pytest.mark.parametrize(("name", "i", "backend"), every_way())
def test_rows_of_a_store_are_augmented_as_a_copy_of_them(name, i, backend, forms):
    args, index = case(name, i), torch.tensor([5, 1, 1, 8])
    labels = LABELS[index] if "Mix" in name else None
    for channels, before in forms:
        store = IMAGES[:9, :channels].contiguous(memory_format=torch.channels_last)
        policy = ga.Policy([*before, build(name, args)], seed=2)
        copied, read = (
            outcome(lambda v, policy=policy: policy(v, labels, ids=index, backend=backend), v)
            for v in (store[index], Gathered(store, index))
        )
        assert read == copied


def outcome(call, images):
    """Bits and dtypes that a call gives, or what it refuses."""
    try:
        made = call(images)
    except (TypeError, ValueError) as error:
        return str(error)
    return [
        (v.dtype, v.shape, v.contiguous().view(torch.uint8).numpy().tobytes())
        for v in (made if isinstance(made, tuple) else (made,))
    ]


def test_most_transforms_take_what_the_comparison_gives_them():
    index = torch.tensor([5, 1])
    made = [
        outcome(
            lambda v, name=p.values[0], i=p.values[1]: ga.Policy([FLOAT, build(name, case(name, i))])(v, LABELS[:2]),
            IMAGES[index],
        )
        for p in cases()
    ]
    assert sum(isinstance(m, list) for m in made) > 0.9 * len(made), "vacuous"


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
@pytest.mark.parametrize("name", POLICIES)
def test_whole_policies_take_rows_of_a_store(name, backend):
    # one of them takes floats
    policy, index = ga.Policy((*((FLOAT,) if "H1" in name else ()), *POLICIES[name]), seed=2), torch.tensor([5, 1, 8])
    labels = LABELS[index] if mixes(name) else None
    # the second call of a kind has a recipe
    for _ in range(2):
        made = [policy(v, labels, ids=index, backend=backend) for v in (IMAGES[index], Gathered(IMAGES, index))]
        one, other = (v if isinstance(v, tuple) else (v,) for v in made)
        assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_read_in_any_layout_and_never_copied_on_a_host(layout, monkeypatch):
    pixels = torch.as_tensor(LAYOUTS[layout])
    store = pixels if pixels.shape[1] == 3 else pixels.permute(0, 3, 1, 2)
    index = torch.tensor([7, 0, 52])
    wanted = POLICY(IMAGES[index], ids=index)

    def copy(self):
        raise AssertionError("the rows were copied")

    monkeypatch.setattr(Gathered, "dense", copy)
    assert torch.equal(POLICY(Gathered(store, index), ids=index), wanted)


def test_kernels_read_packed_rows_by_their_addresses(monkeypatch):
    index = torch.tensor([7, 0, 52])
    wanted = POLICY(IMAGES[index], ids=index, backend="triton")
    monkeypatch.setattr(Gathered, "dense", lambda self: pytest.fail("the rows were copied"))
    store = IMAGES.contiguous(memory_format=torch.channels_last)
    assert torch.equal(POLICY(Gathered(store, index), ids=index, backend="triton"), wanted)


def test_rows_on_a_card_make_nobody_wait():
    policy = ga.Policy([ga.RandomAffine(20), ga.RandomHorizontalFlip()], seed=1)
    with card() as on:
        store = torch.zeros(20, 28, 30, 3, dtype=torch.uint8, device=CARD).permute(0, 3, 1, 2)
        index = torch.zeros(6, dtype=torch.int64, device=CARD)

        def call():
            return policy(ga.Batch(Gathered(store, index), ids=index, epoch=0))

        on.refuses = False
        call()
        before, on.refuses = on.seen, True
        assert call().images.shape == (6, 3, 28, 30)
        assert on.seen > before, "vacuous: the card had nothing to do"


def test_rows_are_a_batch_like_others():
    index = torch.tensor([3, 9, 3])
    batch = ga.Batch(Gathered(IMAGES, index), LABELS[index], index)
    assert len(batch) == 3 and torch.equal(batch[1].images, IMAGES[9]) and repr(batch.images).startswith("Gathered(")
    assert torch.equal(batch[[2, 1]].images.dense(), IMAGES[[3, 9]]) and torch.equal(batch[:2].ids, index[:2])
    assert batch.to("cpu").images is batch.images


@pytest.mark.parametrize("index", [[-1], [0, N]])
def test_a_row_that_is_not_there_is_refused(index):
    with pytest.raises(IndexError, match=rf"index must be in \[0, {N}\)"):
        Gathered(IMAGES, torch.tensor(index))


def test_what_is_no_store_is_refused():
    for store, index in ((IMAGES.float(), LABELS), (IMAGES[0], LABELS), (IMAGES, LABELS.int())):
        with pytest.raises(TypeError, match="must be"):
            Gathered(store, index)


# ---- an epoch


def test_a_batch_is_what_the_order_and_the_policy_say():
    epoch, found = order.make(N).epoch(9, 0), []
    for b in loader(seed=9):
        n = len(found)
        ids = torch.from_numpy(epoch.at(np.arange(n, n + 8))[0])
        assert torch.equal(b.ids, ids) and torch.equal(b.labels, LABELS[ids]) and b.epoch == 0 and b.valid.all()
        assert torch.equal(b.images, POLICY(IMAGES[ids], ids=ids, epoch=0))
        found += ids.tolist()
    assert len(found) == len(set(found)) == 48 == 8 * len(loader())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_the_same_images_gives_the_same_batches(layout):
    given = loader((LAYOUTS[layout], LABELS.numpy()))
    assert given.state_dict() == loader().state_dict()
    assert rows(given) == rows(loader())


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_the_samples_whose_pixels_depend_on_nothing_else(world, batch_size, drop_last):
    if drop_last and world * batch_size > N:
        with pytest.raises(ValueError, match="no whole step"):
            next(iter(loader(batch_size=batch_size, rank=0, world_size=world)))
        return
    alone = {row[1]: row for row in rows(loader(batch_size=1))}
    ranks = [list(loader(batch_size=batch_size, drop_last=drop_last, rank=r, world_size=world)) for r in range(world)]
    assert len({len(r) for r in ranks}) == 1
    found = [row for r in ranks for row in rows(r)]
    assert len(found) == (N // (world * batch_size) * world * batch_size if drop_last else N)
    assert len({row[1] for row in found}) == len(found) and all(row == alone[row[1]] for row in found)


def test_padding_is_marked():
    last = list(loader(drop_last=False))[-1]
    assert last.valid.tolist() == [True] * 5 + [False] * 3 and last.images.shape == (8, 3, 20, 20)


def test_validation_is_in_order():
    found = rows(loader(shuffle=False, drop_last=False))
    assert [row[1] for row in found] == list(range(N))


def test_every_iteration_is_the_next_epoch_and_epochs_of_one_iteration_too():
    one, many = loader(), loader(epochs=3)
    separate = [rows(one) for _ in range(3)]
    assert len(many) == 3 * len(one) and list(itertools.chain(*separate)) == rows(many)
    assert [r[0][0] for r in separate] == [0, 1, 2] and len({tuple(r[1] for r in e) for e in separate}) == 3
    one.set_epoch(1)
    assert rows(one) == separate[1]


def test_weights_draw_the_minority_as_often_and_each_time_otherwise():
    labels = (torch.arange(N) < 4).long()
    found = rows(loader((IMAGES, labels), batch_size=1, weights="balanced"))
    minority = [row for row in found if row[3] == 1]
    assert len(minority) in (26, 27) and {row[1] for row in minority} == set(range(4))
    assert len({(row[1], row[4]) for row in minority}) == len(minority)


def test_without_a_policy_images_come_as_they_are():
    batch = next(iter(loader(policy=None)))
    assert torch.equal(batch.images, IMAGES[batch.ids])


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_batches_that_are_made_together_are_those_made_one_by_one(count, drop_last, monkeypatch):
    wanted = rows(loader(epochs=3, drop_last=drop_last))
    calls = []

    def policy(batch):
        calls.append(len(batch))
        return POLICY(batch)

    policy.per_sample, policy.to_dict = True, POLICY.to_dict
    monkeypatch.setattr(resident, "_MOST", count)
    together = loader(policy=policy, epochs=3, drop_last=drop_last)
    found = list(together)
    assert rows(found) == wanted and max(calls) == 8 * min(count, 6 if not drop_last else 5)
    assert all(b.valid is not None and len(b) == 8 and b.images.is_contiguous() for b in found)
    assert together.stats()["images"] == sum(int(b.valid.sum()) for b in found)


def test_a_state_counts_what_was_delivered_and_not_what_was_made():
    one = loader()
    had = rows(itertools.islice(one, 3))
    other = loader()
    other.load_state_dict(one.state_dict())
    assert had + rows(other) == rows(loader())


MIXED = ga.Policy([ga.ToDtype(torch.float32, scale=True), ga.CutMix(num_classes=7)])
TWICE = ga.Custom(lambda images: images * 2)


@pytest.mark.parametrize(
    ("policy", "alone"),
    [
        (POLICY, True),
        (MIXED, False),
        (ga.Policy([ga.ToDtype(torch.float32, scale=True), TWICE]), False),
        (ga.Policy([ga.ToDtype(torch.float32, scale=True), ga.RandomApply([TWICE])]), False),
        (ga.Policy([ga.Lambda(lambda image: image)]), False),
    ],
    ids=["draws", "a mix", "a function", "a function inside", "a function of an image"],
)
def test_only_policies_of_single_samples_get_several_batches_at_once(policy, alone):
    assert policy.per_sample == alone
    sizes = []

    def counted(batch):
        sizes.append(len(batch))
        return policy(batch)

    counted.per_sample = policy.per_sample
    list(loader(policy=counted, batch_size=4))
    assert set(sizes) == ({4, 48} if alone else {4})


def test_what_overrides_the_call_may_look_at_the_whole_batch():
    class Own(ga.Policy):
        def forward(self, *args, **options):
            return super().forward(*args, **options)

    assert not Own(POLICY.transforms).per_sample


def test_a_target_transform_makes_the_labels():
    found = list(loader(target_transform=lambda t: int(t) * 10))
    assert all(torch.equal(b.labels, b.ids % 7 * 10) for b in found)
    soft = next(iter(loader(target_transform=lambda t: np.eye(7, dtype=np.float32)[t])))
    assert torch.equal(soft.labels.argmax(1), soft.ids % 7) and soft.labels.dtype == torch.float32
    with pytest.raises(TypeError, match="target_transform must give a number"):
        loader(target_transform=str)
    with pytest.raises(TypeError, match="target_transform must be callable"):
        loader(target_transform=3)


# ---- going on


@pytest.mark.parametrize("step", range(7))
@pytest.mark.parametrize(("world", "batch_size"), [(1, 8), (2, 3)])
def test_a_state_goes_on_with_the_same_samples_in_another_world(step, world, batch_size):
    whole = rows(loader(epochs=2, drop_last=False))
    first = loader(drop_last=False)
    had = rows(itertools.islice(first, step))
    state = first.state_dict()
    assert state == first.state_dict(), "a state is pure"
    ranks = [loader(batch_size=batch_size, drop_last=False, rank=r, world_size=world, seed=1) for r in range(world)]
    for r in ranks:
        r.load_state_dict(state)
    rest = [row for r in ranks for row in rows(r)]
    assert sorted(had + rest) == sorted(whole[:N])


def test_a_state_of_other_data_or_another_policy_is_refused_by_name():
    state = loader().state_dict()
    changed = IMAGES.clone()
    changed[17, 0, 3, 3] ^= 1
    for other, word in (
        (loader((changed, LABELS)), "source"),
        (loader((IMAGES, (LABELS + 1) % 7)), "source"),
        (loader(policy=ga.Policy(POLICY.transforms, seed=6)), "policy"),
        (loader(shuffle=False), "shuffle"),
    ):
        with pytest.raises(ValueError, match=f"{word} was .* strict=False"):
            other.load_state_dict(state)
        other.load_state_dict(state, strict=False)


# ---- what it takes


class Torchvision(torch.utils.data.Dataset):
    """As torchvision's data sets in one array are."""

    transform = target_transform = None
    classes = ("one", "two", "three", "four", "five", "six", "seven")

    def __init__(self, data, **labels):
        self.data = data
        vars(self).update(labels)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        raise AssertionError("samples are not taken one by one")


GRAY = IMAGES[:, 0]


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(Torchvision(GRAY, targets=LABELS), id="MNIST"),
        pytest.param(Torchvision(GRAY.numpy(), targets=LABELS.tolist()), id="lists of labels"),
        pytest.param(Torchvision(GRAY[:, None].numpy(), labels=LABELS.numpy()), id="SVHN"),
        pytest.param(torch.utils.data.TensorDataset(GRAY, LABELS), id="TensorDataset"),
        pytest.param((GRAY.numpy(), LABELS.tolist()), id="a pair"),
        pytest.param([(image.numpy(), int(y)) for image, y in zip(GRAY, LABELS, strict=True)], id="decoded samples"),
    ],
)
def test_data_sets_are_taken_as_people_have_them(what):
    given = loader(what)
    assert rows(given) == rows(loader((GRAY, LABELS)))
    if hasattr(what, "classes"):
        assert given.source.classes == what.classes


def test_images_alone_have_no_labels():
    assert next(iter(loader(IMAGES))).labels is None


def test_soft_labels_stay_rows():
    soft = torch.eye(7)[LABELS]
    batch = next(iter(loader((IMAGES, soft))))
    assert torch.equal(batch.labels, soft[batch.ids])


def test_a_layout_that_a_shape_leaves_open_is_asked_for():
    small = torch.zeros(6, 3, 9, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="pass layout='hwc' or layout='chw'"):
        loader(small, None)
    assert next(iter(loader(small, None, 2, layout="hwc"))).images.shape == (2, 3, 3, 9)
    assert next(iter(loader(small, None, 2, layout="chw"))).images.shape == (2, 3, 9, 3)


class Transformed(Torchvision):
    transform = staticmethod(lambda image: image)


@pytest.mark.parametrize(
    ("what", "options", "kind", "word"),
    [
        (IMAGES.float(), {}, TypeError, "must be uint8"),
        (IMAGES[:0], {}, ValueError, "at least one"),
        (IMAGES[:, :2], {}, ValueError, "channels"),
        (IMAGES[None], {}, ValueError, r"\[N, H, W\]"),
        ((IMAGES, LABELS[:-1]), {}, ValueError, "one for each of 53"),
        (Transformed(GRAY, targets=LABELS), {}, ValueError, "transform"),
        ("nowhere", {}, ValueError, "nowhere"),
        (IMAGES, {"size": 4}, ValueError, "resize them in the policy"),
        ([(b"no image", 0)], {}, ValueError, "sample 0"),
        (IMAGES, {"weights": "balanced"}, ValueError, "weights need"),
        (IMAGES, {"policy": 3}, TypeError, "policy must be callable"),
        (IMAGES, {"batch_size": 0}, ValueError, "batch_size"),
        (IMAGES, {"epochs": 0}, ValueError, "epochs"),
        (IMAGES, {"layout": "nchw"}, ValueError, "layout"),
    ],
)
def test_bad_input_is_refused_in_words(what, options, kind, word):
    with pytest.raises(kind, match=word):
        loader(what, **options)


def test_a_source_of_many_sizes_is_decoded_to_one():
    samples = [(np.full((20 + i, 30, 3), i, np.uint8), i) for i in range(8)]
    with pytest.raises(ValueError, match=r"one size.*pass size="):
        loader(samples, None)
    batch = next(iter(loader(samples, None, 8, size=(10, 12))))
    assert batch.images.shape == (8, 3, 10, 12)
    assert all((image == i).all() for image, i in zip(batch.images, batch.ids, strict=True))


@pytest.mark.parametrize("first", [0, 40, 69])
def test_a_sample_without_a_label_is_refused_and_not_all_labels_dropped(first):
    samples = [(np.zeros((3, 3, 3), np.uint8), None if i >= first and first - i > -2 else i) for i in range(70)]
    with pytest.raises(ValueError, match=f"and sample {first}, {first}, has none"):
        loader(samples)


def test_names_of_a_data_set_are_classes_with_weights():
    samples = [(np.full((3, 3, 3), i, np.uint8), "dog" if i else "cat") for i in range(8)]
    batch = next(iter(loader(samples, None, 8, weights={"cat": 1, "dog": 1})))
    assert int((batch.labels == 0).sum()) == 4 and torch.equal(batch.labels == 0, batch.ids == 0)


# ---- the end


def test_it_says_what_it_did_and_gives_its_memory_back():
    with loader() as one:
        batch = next(iter(one))
        kept = batch.images.clone()
        told = one.stats()
        assert told["batches"] == 1 and told["images"] == 8 and told["images_per_second"] > 0
        assert told["memory_held"] == IMAGES.numel() + 8 * N and one.bad_files == []
        running = iter(one)
        next(running)
    assert torch.equal(batch.images, kept) and one.stats()["memory_held"] == 0
    one.close()
    assert loader().state_dict()["source"] == one.state_dict()["source"], "what it was is forgotten"
    for again in (lambda: next(running), lambda: next(iter(one))):
        with pytest.raises(RuntimeError, match="closed"):
            again()
