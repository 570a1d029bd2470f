"""A policy gives from windows of its images, to the bit, what it gives from the whole images, and reads nothing else."""

import sys
from typing import Any

import children
import numpy as np
import pytest
import torch
from build import build, case, cases, quick, spec
from gpuaug_kernels import codes
from gpuaug_kernels import windows as kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuzz import POOL

import gpuaug as ga

BACKENDS = ("reference", "cpu", "triton")
SIZES = [(31, 45), (44, 33), (38, 38)]
N = len(SIZES)
IDS = torch.tensor([3, 1, 4])
NOISE = np.random.default_rng(0)
IMAGES = [torch.from_numpy(NOISE.integers(0, 256, (h, w, 3), np.uint8)) for h, w in SIZES]
WHOLE = ga.Ragged(IMAGES, "hwc")
FLOAT = ga.ToDtype(torch.float32, scale=True)


def alone(windows: np.ndarray, images: list[torch.Tensor] = IMAGES) -> ga.Ragged:
    """The windows as a decoder gives them, each in memory of its own."""
    parts = [i[t : t + h, l : l + w].clone() for i, (t, l, h, w) in zip(images, windows.tolist(), strict=True)]
    return ga.Ragged.windowed(parts, [i.shape[:2] for i in images], windows)


def poisoned(windows: np.ndarray) -> ga.Ragged:
    """The windows in images of which all else is another image."""
    parts = []
    for image, (t, l, h, w) in zip(IMAGES, windows.tolist(), strict=True):
        memory = 255 - image
        parts.append(memory[t : t + h, l : l + w])
        parts[-1].copy_(image[t : t + h, l : l + w])
    return ga.Ragged.windowed(parts, SIZES, windows)


def takes(transforms: list[ga.Transform]) -> bool:
    """Whether a policy takes images of different sizes, and at once."""
    try:
        ga.Policy(transforms).describe(backend="reference")
    except (ValueError, TypeError):
        return False
    return True


def same(transforms: list[ga.Transform], backend: str, seed: int = 5, single: bool = False) -> float:
    """The part of the pixels that the windows hold; raises where what comes of them differs."""
    policy = ga.Policy(transforms, seed, single_resample=single)
    labels = torch.eye(N, policy._classes or N) if policy._mixes else None
    share = 1.0
    # the third by a recipe
    for epoch in range(3 if backend == "cpu" else 1):
        found = policy.windows(IDS, SIZES, epoch=epoch)
        share = float(found.windows[:, 2:].prod(1).sum() / sum(h * w for h, w in SIZES))
        want = policy(ga.Batch(WHOLE, labels, IDS, epoch), backend=backend)
        ways = [(make(found.windows), params) for make in (alone, poisoned) for params in (found.params, None)]
        # the interpreter takes its time
        for windows, params in ways[:: 3 if backend == "triton" else 1]:
            got = policy(ga.Batch(windows, labels, IDS, epoch, params=params), backend=backend)
            assert got.params is None and torch.equal(got.images, want.images), (backend, epoch, found.windows)
            assert labels is None or torch.equal(got.labels, want.labels)
    return share


def policies(name: str, i: int) -> list[list[ga.Transform]]:
    """A transform where it takes the images first, and behind a crop where it can."""
    t = build(name, case(name, i))
    first = [[t, ga.CenterCrop((9, 11))], [t, ga.Resize((13, 12)), ga.CenterCrop(8)]]
    behind = [[*before, t] for before in ([], [FLOAT])]
    crop = [ga.Resize(20), ga.RandomCrop((16, 14) if not spec(name).square else 16)]
    return [*filter(takes, first), *filter(takes, ([*crop, *b] for b in behind))]


def on_each() -> list[Any]:
    """Every set of arguments on the host's executor, the first also on the reference, there half of the transforms in
    the fast suite."""
    of_reference = [c.values for c in cases() if c.values[1] == 0]
    return [
        *(pytest.param(*c.values, "cpu", marks=c.marks) for c in cases(quick=1)),
        *(
            pytest.param(*values, "reference", marks=[pytest.mark.slow] if k % 2 else [])
            for k, values in enumerate(of_reference)
        ),
    ]


@pytest.mark.parametrize(("name", "i", "backend"), on_each())
def test_windows_give_what_whole_images_give(name, i, backend):
    found = policies(name, i)
    assert found, "vacuous: there is no policy of this transform"
    assert min(same(t, backend) for t in found) < 0.9, "vacuous: nothing was left out"


FIRST = [c for c in cases() if takes([build(c.values[0], case(*c.values)), ga.CenterCrop(8)])]


@pytest.mark.parametrize(("name", "i"), quick([c.values for c in FIRST], *(c.values for c in FIRST[::8])))
def test_kernels_give_from_windows_what_they_give_from_whole_images(name, i):
    same([build(name, case(name, i)), ga.CenterCrop((9, 11))], "triton")


def test_most_geometry_takes_images_of_different_sizes():
    assert {c.values[0] for c in FIRST} >= {
        *("CenterCrop", "Pad", "RandomCrop", "RandomHorizontalFlip", "RandomResizedCrop", "RandomRot90"),
        *("RandomVerticalFlip", "Resize"),
    }


# what takes another way through windows: borders, nearest, no antialias, crops of crops, one resample of two, mixes
WAYS: dict[str, list[ga.Transform]] = {
    **{
        f"padding {mode}": [ga.RandomCrop((24, 26), 9, True, 0.25, mode), ga.RandomHorizontalFlip()]
        for mode in ("constant", "edge", "reflect", "symmetric")
    },
    **{
        # reflections reach no further than the image
        f"far beyond, {mode}": [ga.RandomCrop(size, None, True, 0.25, mode)]
        for mode, size in (("edge", (90, 70)), ("reflect", (49, 64)), ("symmetric", (50, 65)))
    },
    "all of it padding": [ga.Pad(30, fill=0.5), ga.RandomCrop(12)],
    "nearest": [ga.Resize((50, 60), "nearest"), ga.RandomCrop(12), ga.RandomRot90()],
    "nearest, exact": [ga.RandomVerticalFlip(), ga.Resize((14, 60), "nearest-exact"), ga.RandomCrop(12)],
    "no antialias": [ga.Resize(16, antialias=False), ga.CenterCrop((12, 11))],
    "enlarged": [ga.Resize(90), ga.RandomCrop((14, 11)), ga.RandomHorizontalFlip()],
    "crops of crops": [ga.RandomRot90(), ga.RandomCrop(26), ga.RandomResizedCrop(20), ga.RandomCrop(11), FLOAT],
    "then rotated": [ga.RandomResizedCrop(20), ga.RandomRotation(30.0, "bilinear"), ga.CenterCrop(14)],
    "then mixed": [ga.RandomResizedCrop(16), ga.ColorJitter(contrast=0.5), ga.CutMix()],
    "integers of 16 bits": [ga.RandomResizedCrop(16), ga.ToDtype(torch.int16, scale=True)],
}  # fmt: skip


SINGLE = [(n, b) for n in WAYS for b in ("reference", "cpu")]
# where there are two resamples to make one of
TWO_OF_ONE = ("crops of crops", "then rotated", "no antialias", "enlarged", "nearest")


@pytest.mark.parametrize(
    ("name", "backend", "single"),
    [
        *((n, b, False) for n in WAYS for b in BACKENDS),
        *quick(((*s, True) for s in SINGLE), *((*s, True) for s in SINGLE if s[0] in TWO_OF_ONE)),
    ],
)
def test_every_way_through_a_window_gives_what_whole_images_give(name, backend, single):
    same(WAYS[name], backend, single=single)


def test_kernels_of_one_resample_for_two_read_windows_too():
    same(WAYS["then rotated"], "triton", single=True)


# not those of two interpolations, of which the second leaves out what the first has read, nor those of no floats
@pytest.mark.parametrize("name", [w for w in WAYS if not w.startswith(("then", "integers", "nearest, exact"))])
def test_a_window_is_not_larger_than_what_is_read(name):
    """Every row and every column at its edges changes an image: of one that is read no more is cut away."""
    policy = ga.Policy([*WAYS[name], FLOAT], 5)
    found = policy.windows(IDS, SIZES, epoch=0).windows
    seen = 0
    before = policy(WHOLE, ids=IDS, epoch=0, backend="reference")
    for n, (t, l, h, w) in enumerate(found.tolist()):
        for rows, columns in (
            (slice(t, t + 1), slice(l, l + w)),
            (slice(t + h - 1, t + h), slice(l, l + w)),
            (slice(t, t + h), slice(l, l + 1)),
            (slice(t, t + h), slice(l + w - 1, l + w)),
        ):
            images = [i.clone() for i in IMAGES]
            images[n][rows, columns] += 128
            after = policy(ga.Ragged(images, "hwc"), ids=IDS, epoch=0, backend="reference")
            changed = not torch.equal(after[n], before[n])
            if h * w == 1 or name.startswith(("padding sym", "far", "all of it")):
                # one pixel stays where nothing is read; and a mirror is taken one pixel deeper than it may need
                continue
            assert changed, (n, (t, l, h, w), rows, columns)
            seen += 1
    assert seen or "far" in name or "all" in name or "sym" in name, "vacuous"


def test_the_window_of_a_random_resized_crop_is_the_crop():
    ids, sizes = torch.arange(400), torch.from_numpy(NOISE.integers(20, 500, (400, 2)))
    for more in ([], [ga.RandomHorizontalFlip()], [ga.ColorJitter(0.4), ga.RandomErasing()]):
        policy = ga.Policy([ga.RandomResizedCrop(32), *more], 1)
        box = policy.draw(ids, epoch=3, size=sizes)[0]
        want = np.stack([box[k].numpy() for k in ("top", "left", "height", "width")], 1)
        assert np.array_equal(policy.windows(ids, sizes, epoch=3).windows, want)


def test_the_window_of_a_validation_crop_is_the_middle_alone():
    sizes = torch.tensor([[375, 500], [500, 375], [256, 256], [1200, 900]])
    found = ga.Policy([ga.Resize(256), ga.CenterCrop(224)]).windows(torch.arange(4), sizes).windows
    scale = sizes.amin(1).double().numpy() / 256
    # the crop in pixels of the image, and on either side less than the taps of one more
    assert (found[:, 2:] <= np.minimum(224 * scale[:, None] + 2 * scale[:, None], sizes.numpy())).all()
    assert (found[:, 2:] >= 224 * scale[:, None] - 1).all()


@pytest.mark.parametrize("transforms", [[ga.ColorJitter(0.3), ga.CenterCrop(8)], [ga.RandomRotation(9.0)], [FLOAT]])
def test_what_needs_the_whole_image_asks_for_it_and_refuses_a_window(transforms):
    policy = ga.Policy(transforms)
    found = policy.windows(IDS, (31, 45))
    assert found.windows.tolist() == [[0, 0, 31, 45]] * N
    images = [IMAGES[0]] * N
    whole = ga.Ragged.windowed(images, [(31, 45)] * N, found.windows)
    want = policy(ga.Ragged(images, "hwc"), ids=IDS, epoch=0)
    assert torch.equal(policy(ga.Batch(whole, ids=IDS, params=found.params)).images, want)
    part = ga.Ragged.windowed([i[:20] for i in images], [(31, 45)] * N, [(0, 0, 20, 45)] * N)
    with pytest.raises(ValueError, match="whole"):
        policy(part, ids=IDS)


STEPS = st.lists(
    st.sampled_from([t for t in POOL if takes([t, ga.CenterCrop(8)]) or takes([ga.CenterCrop(8), t])]), max_size=5
)
ENDS = st.sampled_from(
    [[ga.CenterCrop((10, 9))], [ga.RandomCrop(8, 3, True)], [ga.Resize((9, 12)), ga.RandomRot90(0.0)]]
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(STEPS, ENDS, STEPS, st.integers(0, 2**64 - 1), st.booleans())
def test_random_policies_give_from_windows_what_they_give_from_whole_images(first, end, last, seed, single):
    transforms = [*[t for t in first if takes([t, ga.CenterCrop(8)])], *end]
    for t in last:
        transforms += [t] if takes([*transforms, t]) else []
    if takes(transforms):
        for backend in ("reference", "cpu"):
            try:
                ga.Policy(transforms, seed).windows(IDS, SIZES)
            except ValueError:
                # such as a crop that is larger than some image
                return
            same(transforms, backend, seed, single)


GUARDED = """
import ctypes, mmap, os
os.environ["TRITON_INTERPRET"] = "1"
import numpy as np, torch
import gpuaug as ga
page, libc, kept = mmap.PAGESIZE, ctypes.CDLL(None), []

def guarded(image, last):
    '''The pixels right before a page that may not be touched, or right behind one.'''
    size = -(-image.numel() // page) * page
    memory = mmap.mmap(-1, size + 2 * page)
    whole = torch.from_numpy(np.frombuffer(memory, np.uint8))
    kept.append(memory)
    for place in (0, size + page):
        assert libc.mprotect(ctypes.c_void_p(whole.data_ptr() + place), ctypes.c_size_t(page), 0) == 0
    first = page + (size - image.numel() if last else 0)
    out = whole[first : first + image.numel()].view(image.shape)
    out.copy_(image)
    return out

ids, sizes = torch.arange(6), [(40 + n, 60 - n) for n in range(6)]
images = [torch.randint(0, 256, (*s, 3), dtype=torch.uint8) for s in sizes]
for transforms in (
    [ga.RandomResizedCrop(20), ga.RandomHorizontalFlip()],
    [ga.Resize(36), ga.RandomCrop(24)],
    [ga.Resize(30, "nearest"), ga.CenterCrop(16)],
    [ga.RandomRot90(), ga.RandomCrop(30)],
    [ga.RandomCrop(30, 9, padding_mode="reflect")],
    [ga.RandomCrop(30, 9, padding_mode="edge")],
):
    policy = ga.Policy(transforms, 1)
    found = policy.windows(ids, sizes, epoch=0)
    for last in (False, True):
        parts = [guarded(i[t : t + h, l : l + w], last) for i, (t, l, h, w) in zip(images, found.windows.tolist())]
        for backend in ("cpu", "triton"):
            few = slice(None if backend == "cpu" else 2)
            batch = ga.Batch(ga.Ragged.windowed(parts, sizes, found.windows), ids=ids, epoch=0)[few]
            whole = policy(images[few], ids=ids[few], epoch=0, backend=backend)
            assert torch.equal(policy(batch, backend=backend).images, whole)
        # with what was drawn for them, on the way that a card takes from the second of a kind on
        for _ in range(2):
            drawn = policy.windows(ids[:2], sizes[:2], epoch=0).params
            given = ga.Batch(batch.images, ids=ids[:2], epoch=0, params=drawn)
            assert torch.equal(policy(given, backend="triton").images, whole)
        assert "triton" in drawn.filled
print("untouched")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to guard pages")
def test_no_byte_beyond_a_window_is_touched():
    done = children.run([sys.executable, "-c", GUARDED])
    assert done.stdout.strip().endswith("untouched"), f"ended with {done.returncode}: {done.stderr[-2000:]}"


# ---- a Ragged of windows


def some() -> ga.Ragged:
    return alone(np.array([(3, 5, 20, 30), (0, 0, 44, 33), (10, 10, 1, 1)]))


def test_a_ragged_of_windows_says_the_sizes_of_the_images():
    images = some()
    assert images.shapes == [(*s, 3) for s in SIZES] and images.size.tolist() == [list(s) for s in SIZES]
    assert "windows of 31x45 to 44x33" in repr(images) and len(images) == N
    assert images.pitches.tolist() == [90, 99, 3] and images.corners.tolist()[0] == [5, 3, 35, 23]
    # torch says anything of the strides of one pixel
    odd = torch.zeros(1, 9, 3, dtype=torch.uint8)[:, ::4][:, :1]
    assert odd.stride(1) == 12 and odd.is_contiguous(), "vacuous"
    pixel = ga.Ragged.windowed([odd], [(31, 45)], [(2, 7, 1, 1)])
    assert int(pixel.addresses[0]) == odd.data_ptr() - 2 * 3 - 7 * 3 and pixel.pitches.tolist() == [3]
    first = images.images[0]
    assert int(images.addresses[0]) == first.data_ptr() - 3 * 90 - 5 * 3


def test_windows_of_whole_images_are_whole_images():
    images = ga.Ragged.windowed(IMAGES, SIZES, [(0, 0, *s) for s in SIZES])
    assert images.windows is None and torch.equal(images[1], IMAGES[1].permute(2, 0, 1))


def test_a_ragged_of_windows_is_taken_apart_moved_and_pickled():
    import pickle

    images = some()
    for other in (images[1:], images[[1, 2]], images[torch.tensor([False, True, True])]):
        assert other.shapes == images.shapes[1:] and np.array_equal(other.windows, images.windows[1:])
    for other in (
        pickle.loads(pickle.dumps(images)),
        images.to("cpu"),
        images.pin_memory(),
        images.laid_out(torch.cat([i.reshape(-1) for i in images.images])),
    ):
        assert other.shapes == images.shapes and np.array_equal(other.windows, images.windows)
        assert all(map(torch.equal, other.images, images.images))
    assert torch.equal(images[1], IMAGES[1].permute(2, 0, 1))
    for wrong in (lambda: images[0], images.dense):
        with pytest.raises(ValueError, match="window"):
            wrong()


@pytest.mark.parametrize(
    ("full", "windows", "match"),
    [
        ([(31, 45)], [(0, 0, 20, 30)] * N, r"full must be integers \[3, 2\]"),
        (SIZES, [(0, 0, 20)] * N, r"windows must be integers \[3, 4\]"),
        (SIZES, [(0.5, 0, 20, 30)] * N, "windows must be integers"),
        (SIZES, "many", "windows must be integers"),
        (SIZES, [(0, 0, 20, 31)] * N, "image 0 must have the pixels of its window, 20 x 31"),
        (SIZES, [(0, 0, 20, 30), (25, 0, 20, 30), (0, 0, 20, 30)], "window 1 must lie in its image of 44 x 33"),
        (SIZES, [(-1, 0, 20, 30)] * N, "window 0 must lie in its image"),
    ],
)
def test_windows_that_cannot_be_are_refused(full, windows, match):
    with pytest.raises((ValueError, TypeError), match=match):
        ga.Ragged.windowed([i[:20, :30] if i.shape[1] >= 30 else i[:20] for i in IMAGES], full, windows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_than_a_window_is_never_read_in_silence(backend):
    policy = ga.Policy([ga.RandomResizedCrop(12)], 3)
    images = some()
    for _ in range(3):
        with pytest.raises(ValueError, match=r"window . must hold what the policy reads of its image"):
            policy(images, ids=IDS, epoch=0, backend=backend)


@pytest.mark.parametrize("inside", [0, 1])
def test_a_kernel_cuts_a_table_to_windows_as_torch_would(inside):
    n, columns, first = 37, 19, 9
    made = torch.Generator().manual_seed(inside)
    table = torch.randint(-50, 90, (n, columns), dtype=torch.int32, generator=made)
    near = torch.randint(0, 40, (n, 2), generator=made)
    corners = torch.cat([near, near + torch.randint(1, 30, (n, 2), generator=made)], 1)
    pitches = torch.randint(1, 2**31 - 1, (n,), generator=made)
    want = table.clone()
    want[:, codes.PITCH] = pitches.int()
    low, high = corners[:, :2].repeat(1, 2), corners[:, 2:].repeat(1, 2)
    low[:, 2:] += inside
    high[:, :2] -= inside
    want[:, first : first + 4] = table[:, first : first + 4].long().clamp(low, high).int()
    got = kernels.fitted(table, pitches, corners, first, inside)
    assert torch.equal(got, want) and not torch.equal(got[:, first : first + 4], table[:, first : first + 4])
    with pytest.raises(ValueError, match="must be contiguous"):
        kernels.fitted(table.long(), pitches, corners, first, inside)
