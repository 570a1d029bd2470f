"""Labels after mixes are the shares that samples have of the pixels: counted on rendered images."""

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuaug as ga
from gpuaug import fuse, ir, mixing, targets
from gpuaug.exec import reference

N, SIZE = 6, (12, 17)
IDS = torch.tensor([3, 1, 4, 15, 9, 26])
# an image of its own colour a sample: channel k is 1 for sample k alone
COLOURS = torch.eye(N)[:, :, None, None].expand(N, N, *SIZE).contiguous()
CUT, UP = ga.CutMix(1.0, N), ga.MixUp(0.7, N)
FLIP, TURN = ga.RandomHorizontalFlip(0.5), ga.RandomVerticalFlip(0.5)
MANY = ga.RandomMix([ga.CutMix(1.0), ga.MixUp(0.7)], p=[0.6, 0.4], num_classes=N, prob=0.8)
CHAINS: dict[str, list[ga.Transform]] = {
    "a cut": [CUT],
    "two cuts": [CUT, ga.CutMix(0.5)],
    "three cuts": [CUT, CUT, CUT],
    "a mean of cuts": [CUT, UP],
    "a cut of means": [UP, CUT],
    "means of means": [UP, UP, UP],
    "cuts and means": [CUT, UP, CUT, UP],
    "either, for most": [MANY],
    "either, twice": [MANY, MANY],
    "a cut of either": [MANY, CUT],
    "one for a batch": [ga.RandomMix([ga.CutMix(1.0), ga.MixUp(0.7)], per="batch", num_classes=N), CUT],
    "a cut for some": [CUT, ga.RandomApply([CUT], 0.5)],
    "a choice of mixes": [ga.RandomChoice([CUT, UP]), UP],
    "an order of mixes": [ga.RandomOrder([CUT, UP]), CUT],
    "a flip between cuts": [CUT, FLIP, TURN, CUT],
    "a flip or a cut": [CUT, ga.RandomChoice([FLIP, CUT]), CUT],
    "a crop of a cut": [CUT, ga.RandomCrop((7, 9))],
    "a crop of a flipped cut of a mean": [UP, CUT, FLIP, ga.RandomCrop((7, 9)), CUT],
    "a crop before a cut": [ga.RandomCrop((7, 9)), CUT],
}
BACKENDS = ("reference", "cpu", "triton")


def counted(images: Tensor) -> Tensor:
    """The mean of every channel, which has a colour of its own: [N, N]."""
    return images.double().mean((2, 3))


@pytest.mark.parametrize("name", CHAINS)
def test_label_weights_are_the_shares_of_the_pixels(name):
    policy = ga.Policy([*CHAINS[name]], seed=4)
    mixed = 0
    for epoch in range(8):
        images, labels = policy(COLOURS, torch.arange(N), ids=IDS, epoch=epoch, backend="reference")
        assert torch.allclose(counted(images).float(), labels, atol=1e-6), f"epoch {epoch}"
        mixed += int((labels.amax(1) < 1).sum())
    assert mixed > N, "vacuous: nothing was mixed"


# the interpreter of kernels takes seconds for a chain
QUICK = ("a mean of cuts", "either, twice", "one for a batch", "a flip or a cut")
RUNS = [
    pytest.param(name, backend, marks=[pytest.mark.slow] if backend == "triton" and name not in QUICK else [])
    for name in CHAINS
    for backend in BACKENDS[1:]
]


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_labels_do_not_depend_on_the_executor(name, backend):
    policy = ga.Policy([*CHAINS[name]], seed=4)
    x = COLOURS[:, :3].contiguous()
    # step by step, then by the recipe that is found, then by it alone
    for epoch in range(1 if backend == "triton" else 3):
        given = {"ids": IDS, "epoch": epoch}
        want = policy(x, torch.arange(N), **given, backend="reference")
        got = policy(x, torch.arange(N), **given, backend=backend)
        assert torch.equal(got[1], want[1]) and torch.allclose(got[0], want[0], atol=1e-6)
    falls = "by the reference" in policy.describe(SIZE, dtype=torch.float32, backend=backend)
    assert falls == (name == "a flip or a cut" and backend == "cpu")


def test_padding_belongs_to_the_sample_that_was_padded():
    policy = ga.Policy([CUT, ga.Pad(3), CUT], seed=4)
    for epoch in range(8):
        labels = policy(COLOURS, torch.arange(N), ids=IDS, epoch=epoch)[1]
        # a black pixel is of whoever was padded: paint it in the colour of that sample
        first, _, last = policy.draw(IDS, epoch=epoch, size=SIZE, channels=N, dtype=torch.float32)
        painted = torch.eye(N)[:, :, None, None].expand(N, N, SIZE[0] + 6, SIZE[1] + 6).clone()
        painted[:, :, 3:-3, 3:-3] = ga.functional.cutmix(COLOURS, first["partner"], first["box"])
        want = ga.functional.cutmix(painted, last["partner"], last["box"])
        assert torch.allclose(counted(want).float(), labels, atol=1e-6)
        assert torch.allclose(labels.sum(1), torch.ones(N))


def test_what_is_turned_or_erased_leaves_the_shares_of_a_label_alone():
    plain = ga.Policy([CUT, CUT], seed=4)
    others = ga.RandomRotation(90.0), ga.RandomErasing(1.0), ga.ColorJitter(0.3), ga.GaussianBlur(3)
    x = COLOURS[:, :3].contiguous()
    want = plain(x, torch.arange(N), ids=IDS)[1]
    for t in others:
        assert torch.equal(ga.Policy([CUT, CUT, t], seed=4)(x, torch.arange(N), ids=IDS)[1], want), t


@pytest.mark.parametrize("size", [(24, 34), (5, 9), (7, 40)])
def test_a_resized_cut_keeps_its_share(size):
    cut = ga.Policy([CUT], seed=4)(COLOURS, torch.arange(N), ids=IDS)[1]
    images, labels = ga.Policy([CUT, ga.Resize(size)], seed=4)(COLOURS, torch.arange(N), ids=IDS)
    assert torch.allclose(labels, cut, atol=1e-6)
    # an edge is a blend of both sides
    assert torch.allclose(counted(images).float(), labels, atol=0.08)


def test_a_crop_that_resizes_weighs_what_it_shows():
    policy = ga.Policy([CUT, ga.RandomResizedCrop((24, 34), scale=(0.2, 0.6))], seed=4)
    moved = 0.0
    for epoch in range(8):
        given = {"ids": IDS, "epoch": epoch}
        images, labels = policy(COLOURS, torch.arange(N), **given)
        assert torch.allclose(counted(images).float(), labels, atol=0.05)
        cut = ga.Policy([CUT], seed=4)(COLOURS, torch.arange(N), **given)[1]
        moved = max(moved, (cut - labels).abs().max().item())
    assert moved > 0.2, "vacuous: a crop changes shares"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_soft_rows_are_mixed_as_class_numbers_are(dtype, smoothing):
    mixes = [ga.CutMix(1.0, N, smoothing), ga.MixUp(0.7, N, smoothing), FLIP, ga.CutMix(1.0, N, smoothing)]
    policy, numbers = ga.Policy(mixes, seed=4), torch.tensor([5, 0, 0, 3, 2, 1])
    want = policy(COLOURS, numbers, ids=IDS)[1]
    got = policy(COLOURS, torch.eye(N, dtype=dtype)[numbers], ids=IDS)[1]
    assert got.dtype == dtype and torch.allclose(got.float(), want, atol=2e-3 if dtype == torch.float16 else 1e-6)
    rows = counted(policy(COLOURS, torch.arange(N), ids=IDS)[0])
    smooth = (1 - smoothing) * torch.eye(N)[numbers].double() + smoothing / N
    # each source of pixels brings its own smoothed row
    assert torch.allclose(want.double(), rows @ smooth, atol=1e-6)


def random_passes(rng: np.random.Generator, depth: int) -> ir.Sequence:
    """Mixes, flips and choices of them, by anybody's parameters."""
    h, w = SIZE
    far = torch.tensor([[h, w]]).expand(N, 2)
    out: list[ir.Pass] = []
    for _ in range(int(rng.integers(1, 4))):
        partner = torch.from_numpy(rng.integers(0, N, N))
        box = torch.from_numpy(rng.integers(-4, 22, (N, 4)))
        lam = torch.from_numpy(rng.choice([0.0, 1.0, 0.25, 0.6], N)).float()
        kind = int(rng.integers(0, 5 if depth else 4))
        if kind == 0:
            out.append(ir.CutMix(partner, box, far))
        elif kind == 1:
            out.append(ir.MixUp(partner, lam))
        elif kind == 2:
            out.append(ir.MixInside(partner, box, lam, far))
        elif kind == 3:
            flip = torch.from_numpy(rng.integers(0, 2, N)).bool()
            inverse = torch.eye(3, dtype=torch.float64).repeat(N, 1, 1)
            inverse[flip, 0, 0], inverse[flip, 0, 2] = -1.0, w - 1.0
            whole = torch.tensor([[0, 0, w, h]]).expand(N, 4)
            foot = torch.ones(N, 2, dtype=torch.float64)
            out.append(ir.Resample(inverse, foot, whole, whole, whole, far, SIZE, integer_shift=True))
        else:
            branches = tuple(random_passes(rng, 0) if rng.integers(0, 3) else () for _ in range(3))
            out.append(ir.Choice(torch.from_numpy(rng.integers(0, 3, (N, int(rng.integers(1, 3))))), branches))
    return tuple(out)


@pytest.mark.parametrize("seed", range(40))
def test_any_composition_counts_what_it_draws(seed):
    passes = random_passes(np.random.default_rng(seed), 1)
    images = reference.run_passes(passes, COLOURS, None)
    labels = targets.mixed_labels(mixing.accounted(mixing.for_labels(passes)), torch.eye(N).double())
    assert torch.allclose(counted(images), labels), f"{passes}"


@pytest.mark.parametrize("seed", range(20))
def test_a_choice_among_mixes_is_folded_into_one_that_gives_the_same_images(seed):
    rng = np.random.default_rng(seed)
    index = torch.from_numpy(rng.integers(0, 4, (N, 2)))
    each = [p for p in random_passes(rng, 0) if isinstance(p, ir.Mix)] * 2
    inner = ir.Choice(index[:, :1] % 2, (tuple(each[:1]), ()))
    choice = ir.Choice(index, (tuple(each[:1]), (), (inner,), tuple(each[-1:])))
    folded = fuse.fold((choice,))
    if each:
        assert len(folded) == 2 and all(isinstance(p, ir.Mix) for p in folded)
    got, want = (reference.run_passes(passes, COLOURS, None) for passes in (folded, (choice,)))
    assert torch.allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_what_one_mix_leaves_is_what_the_whole_account_leaves(seed):
    mixes = [p for p in random_passes(np.random.default_rng(seed), 0) if isinstance(p, ir.Mix)]
    for p in mixes:
        # a choice that nobody takes behind it makes it a row of two
        nobody = ir.Choice(torch.zeros(N, 1, dtype=torch.int64), ((), (p,)))
        one, both = (
            targets.mixed_labels(mixing.accounted(passes), torch.eye(N).double()) for passes in ((p,), (p, nobody))
        )
        assert torch.allclose(one, both, atol=1e-12)


def test_six_mixes_in_a_row_are_still_exact():
    policy = ga.Policy([CUT, UP, FLIP, CUT, CUT, UP, CUT], seed=9)
    images, labels = policy(COLOURS, torch.arange(N), ids=IDS, backend="reference")
    assert torch.allclose(counted(images).float(), labels, atol=1e-6)


@pytest.mark.parametrize("mix", [CUT, UP, MANY])
@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_in_a_batch_of_one_a_sample_is_its_own_partner(mix, backend):
    x = COLOURS[:1, :3].contiguous()
    for epoch in range(3):
        images, labels = ga.Policy([mix], 2)(x, torch.tensor([4]), ids=IDS[:1], epoch=epoch, backend=backend)
        assert torch.allclose(images, x, atol=1e-6) and torch.allclose(labels, torch.eye(N)[4:5])
