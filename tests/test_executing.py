"""Ring 5: backends on the host agree, whatever comes in; who else is in the batch, and where its memory lies, cannot be
seen."""

import numpy as np
import pytest
import torch
from build import build, case, cases, spec
from compare import changed, compare, unit
from PIL import Image
from specs import SPECS

import gpuaug as ga

BACKENDS = ("reference", "cpu")
IDS = torch.tensor([3, 2**33 + 141, 59, 26, 2**45, 5, 8])
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def side_of(name: str) -> tuple[int, int]:
    """The size to test a transform at."""
    return (41, 41) if spec(name).square else (41, 53)


def chain(mix: bool = False) -> list[ga.Transform]:
    """Something of everything."""
    return [
        ga.RandomResizedCrop((24, 19)),
        ga.RandomHorizontalFlip(),
        ga.ColorJitter(0.4, 0.4, 0.4, 0.1),
        ga.RandAugment(2, 12),
        ga.SaltAndPepper(0.1),
        ga.RandomApply([ga.GaussianNoise(0.0, 0.1), ga.RandomInvert()], 0.4),
        *([ga.CutMix(1.0, 4)] if mix else []),
        ga.ToDtype(torch.float32, scale=True),
        ga.Normalize(MEAN, STD),
        ga.RandomErasing(0.5, value="random"),
    ]


@pytest.mark.parametrize(("name", "i"), cases())
def test_cpu_agrees_with_the_reference(name, i, images):
    args = case(name, i)
    x, policy = images(7, *side_of(name)), ga.Policy([build(name, args)], seed=4)
    labels = (torch.arange(7) % 5 if "num_classes" in args else torch.eye(7)) if spec(name).mixes else None
    params = policy.draw(IDS, epoch=1, size=side_of(name), dtype=x.dtype)
    got, want = (policy.replay(x, params, labels, backend=b) for b in ("cpu", "reference"))
    if labels is not None:
        (got, a), (want, b) = got, want
        before = torch.nn.functional.one_hot(labels).float() if labels.ndim == 1 else labels
        assert torch.equal(a, b) and changed(a, before) > 0.01
    compare(got, want, spec(name).kind(args), f"{name}({args})", spec(name).gain(args))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "i"), [c for c in cases(quick=1) if not spec(c.values[0]).mixes])
def test_batch_composition_is_invisible(name, i, backend, images):
    args = case(name, i)
    x, policy = images(7, *side_of(name)), ga.Policy([build(name, args)], seed=4)
    whole = policy(x, ids=IDS, epoch=2, backend=backend)
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    compare(
        policy(x[order], ids=IDS[order], epoch=2, backend=backend), whole[order], "exact", f"{name}({args}) permuted"
    )
    for n in (0, 4, 6):
        compare(
            policy(x[n : n + 1], ids=IDS[n : n + 1], epoch=2, backend=backend),
            whole[n : n + 1],
            "exact",
            f"{name}({args}) alone",
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_batch_composition_is_invisible_to_a_whole_chain(backend, dtype, images):
    x, policy = images(40, 45, 38, dtype=dtype), ga.Policy(chain(), seed=8)
    ids = torch.arange(40) * 17
    whole = policy(x, ids=ids, backend=backend)
    order = torch.from_numpy(np.random.default_rng(1).permutation(40))
    compare(policy(x[order], ids=ids[order], backend=backend), whole[order], "exact", "permuted")
    for n in range(0, 40, 5):
        compare(
            policy(x[n : n + 1], ids=ids[n : n + 1], backend=backend), whole[n : n + 1], "exact", f"sample {n} alone"
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_permuted_batch_is_mixed_alike(backend, images):
    x, labels, policy = images(9, 30, 26), torch.arange(9) % 4, ga.Policy(chain(mix=True), seed=8)
    ids = torch.arange(9) + 100
    whole, soft = policy(x, labels, ids=ids, backend=backend)
    assert (
        changed(
            whole, ga.Policy([t for t in chain() if not isinstance(t, ga.CutMix)], seed=8)(x, ids=ids, backend=backend)
        )
        > 0.05
    ), "vacuous: nothing was mixed"
    order = torch.tensor([4, 0, 6, 2, 8, 1, 7, 5, 3])
    moved, moved_soft = policy(x[order], labels[order], ids=ids[order], backend=backend)
    compare(moved, whole[order], "exact", "mixed, permuted")
    assert torch.equal(moved_soft, soft[order])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mix_pulls_the_partner_as_it_would_be_without_the_mix(backend, images):
    """Its crop, its jitter and its noise, under its own id."""
    x, labels, ids = images(8, 30, 26), torch.arange(8), torch.arange(8) * 5
    before = [ga.RandomResizedCrop(16), ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.SaltAndPepper(0.2)]
    policy = ga.Policy([*before, ga.CutMix(1.0, 8)], seed=8)
    p = policy.draw(ids, size=(30, 26), dtype=torch.float32)[3]
    got, soft = policy(x, labels, ids=ids, backend=backend)
    alone = ga.Policy(before, seed=8)(x, ids=ids, backend=backend)
    pasted = 0
    for n in range(8):
        x0, y0, x1, y1 = p["box"][n].tolist()
        want = alone[n].clone()
        want[:, y0:y1, x0:x1] = alone[p["partner"][n], :, y0:y1, x0:x1]
        compare(got[n], want, "exact", f"sample {n}")
        share = (x1 - x0) * (y1 - y0) / 256
        pasted += 0 < share < 1
        row = torch.zeros(8, dtype=torch.float64)
        row[n] += 1 - share
        row[int(p["partner"][n])] += share
        torch.testing.assert_close(soft[n].double(), row, rtol=0, atol=1e-6)
    assert pasted > 3, "vacuous"


# ---- who a sample is


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_id_that_occurs_twice_is_augmented_twice_alike(backend, images):
    one = images(1, 30, 30)
    x, ids, policy = one.repeat(4, 1, 1, 1), torch.tensor([7, 7, 8, 7]), ga.Policy(chain(), seed=1)
    out = policy(x, ids=ids, backend=backend)
    compare(out[1], out[0], "exact", "the same id")
    compare(out[3], out[0], "exact", "the same id")
    assert changed(out[2], out[0]) > 0.5, "another id must differ"
    again = policy(x, ids=ids, occurrence=torch.tensor([0, 1, 0, 2]), backend=backend)
    compare(again[0], out[0], "exact", "occurrence 0 is the default")
    assert min(changed(again[1], out[0]), changed(again[3], out[0]), changed(again[1], again[3])) > 0.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_epoch_and_seed_change_every_sample(backend, images):
    x, ids = images(4, 30, 30), torch.arange(4)
    out = ga.Policy(chain(), seed=1)(x, ids=ids, backend=backend)
    for other in (
        ga.Policy(chain(), seed=1)(x, ids=ids, epoch=1, backend=backend),
        ga.Policy(chain(), seed=2)(x, ids=ids, backend=backend),
    ):
        for n in range(4):
            assert changed(other[n], out[n]) > 0.3, n


# ---- what images are made of


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_any_dtype_is_computed_in_float32_and_rounded_at_the_end(dtype, backend, images):
    x = images(6, 45, 38, dtype=dtype)
    transforms = [
        ga.RandomResizedCrop(24),
        ga.RandomHorizontalFlip(),
        ga.ColorJitter(0.4, 0.4, 0.4, 0.1),
        ga.SaltAndPepper(0.1),
        ga.RandomErasing(value=0.5),
    ]
    ids = torch.arange(6)
    got = ga.Policy(transforms, seed=3)(x, ids=ids, backend=backend)
    exact = ga.Policy(transforms, seed=3)(unit(x).float(), ids=ids, backend="reference")
    assert got.dtype == dtype, "without ToDtype the input's dtype comes out"
    want = (exact.clamp(0, 1) * 255.999).floor().to(torch.uint8) if dtype == torch.uint8 else exact.to(dtype)
    compare(got, want, "exact" if backend == "reference" else "resample", f"{dtype}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_todtype_decides_what_comes_out(dtype, backend, images):
    for source in (torch.uint8, torch.float32):
        x = images(3, 20, 20, dtype=source)
        got = ga.Policy([ga.RandomHorizontalFlip(1.0), ga.ToDtype(dtype, scale=True)])(x, backend=backend)
        exact = unit(x).float().flip(3)
        compare(
            got,
            (exact * 255.999).floor().to(torch.uint8) if dtype == torch.uint8 else exact.to(dtype),
            "exact",
            f"{source} to {dtype}",
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_todtype_without_scale_keeps_the_numbers_of_uint8(backend, images):
    x = images(3, 20, 20, dtype=torch.uint8)
    got = ga.Policy([ga.ToDtype(torch.float32)])(x, backend=backend)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, x.float(), rtol=0, atol=1e-4)


def test_uint8_survives_a_policy_that_does_nothing():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for backend in BACKENDS:
        compare(ga.Policy([ga.RandomHorizontalFlip(0.0)])(every, backend=backend), every, "exact", "levels")


def layouts(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same images in other memory."""
    n, c, h, w = x.shape
    wide = torch.full((n, c, h + 4, 2 * w + 5), 77, dtype=x.dtype)
    wide[:, :, 3 : 3 + h, 2 : 2 + 2 * w : 2] = x
    flat = torch.full((n * c * h * w + 13,), 77, dtype=x.dtype)
    flat[13:] = x.flatten()
    more = torch.full((n, 2 * c, h, w), 77, dtype=x.dtype)
    more[:, 1::2] = x
    return {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "strided window": wide[:, :, 3 : 3 + h, 2 : 2 + 2 * w : 2],
        "offset": flat[13:].view(n, c, h, w),
        "every second channel": more[:, 1::2],
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "batch last": x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_layout_of_memory_changes_a_pixel(dtype, backend, images):
    x, ids = images(5, 33, 28, dtype=dtype), torch.arange(5)
    for transforms in (chain(), [ga.RandomInvert(), ga.SaltAndPepper()], [ga.RandomAffine(20), ga.RandAugment()]):
        policy = ga.Policy(transforms, seed=2)
        want = policy(x, ids=ids, backend=backend)
        for name, other in layouts(x).items():
            assert torch.equal(other, x)
            # rows that are read another way may be summed another way, to the last bits
            compare(
                policy(other, ids=ids, backend=backend),
                want,
                "exact" if backend == "reference" else "resample, jump",
                name,
                5.0,
            )


@pytest.mark.parametrize("backend", BACKENDS)
def test_expanded_images_are_read_and_never_written(backend, images):
    one, ids = images(1, 33, 28), torch.arange(5)
    policy = ga.Policy(chain(), seed=2)
    compare(
        policy(one.expand(5, -1, -1, -1), ids=ids, backend=backend),
        policy(one.repeat(5, 1, 1, 1), ids=ids, backend=backend),
        "exact",
        "expanded samples",
    )
    gray = one[:, :1]
    compare(
        policy(gray.expand(5, 3, -1, -1), ids=ids, backend=backend),
        policy(gray.repeat(5, 3, 1, 1), ids=ids, backend=backend),
        "exact",
        "expanded channels",
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_inputs_are_never_written_to(dtype, backend, images):
    x, labels, ids, occurrence = (
        images(5, 24, 24, dtype=dtype),
        torch.arange(5) % 4,
        torch.arange(5),
        torch.ones(5, dtype=torch.int64),
    )
    kept = x.clone()
    for transforms in (
        chain(mix=True),
        [ga.Normalize(MEAN, STD, inplace=True)],
        [ga.RandomErasing(1.0, value=1.0, inplace=True)],
        [ga.RandAugment(2, 30)],
    ):
        if dtype == torch.uint8 and isinstance(transforms[0], ga.Normalize):
            continue
        policy = ga.Policy(transforms)
        out = policy(x, labels, ids=ids, occurrence=occurrence, backend=backend)[0]
        out.fill_(0)
        assert torch.equal(x, kept), transforms
        assert labels.tolist() == [0, 1, 2, 3, 0] and ids.tolist() == [0, 1, 2, 3, 4] and occurrence.tolist() == [1] * 5
    frozen = np.random.default_rng(0).integers(0, 256, (2, 3, 9, 9), np.uint8)
    frozen.flags.writeable = False
    ga.Policy([ga.RandomInvert(1.0)])(frozen, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "transforms", [[], [ga.ToImage()], [ga.ToTensor()], [ga.RandomHorizontalFlip(0.0)], [ga.ColorJitter()]], ids=str
)
def test_writing_to_the_output_never_reaches_the_input(transforms, backend, images):
    x = images(2, 9, 9)
    kept = x.clone()
    ga.Policy(transforms)(x, backend=backend).fill_(7)
    assert torch.equal(x, kept), "the output shares memory with the input"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_output_has_the_memory_format_that_the_policy_names(backend, images):
    x, ids = images(4, 30, 30, dtype=torch.uint8), torch.arange(4)
    for transforms in (chain(), [ga.RandomInvert()], []):
        plain = ga.Policy(transforms, seed=2)(x, ids=ids, backend=backend)
        last = ga.Policy(transforms, seed=2, memory_format=torch.channels_last)(x, ids=ids, backend=backend)
        assert plain.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last)
        compare(last, plain, "exact", "memory format")


# ---- images of different sizes

SIZES = [(31, 22), (18, 40), (1, 1), (25, 25), (60, 7)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "first",
    [
        [ga.RandomResizedCrop((12, 15)), ga.RandomHorizontalFlip()],
        [ga.RandomVerticalFlip(), ga.RandomRot90(), ga.Resize((9, 14))],
        [ga.Resize(16), ga.CenterCrop((14, 20))],
        [ga.Pad(3, 0.5), ga.RandomCrop(12, pad_if_needed=True)],
        [ga.Resize(10, "nearest", max_size=13), ga.CenterCrop(12)],
    ],
    ids=str,
)
def test_a_list_of_sizes_gives_what_each_image_gives_alone(first, backend, pictures):
    x, ids = pictures(SIZES), torch.arange(5) + 2**34
    policy = ga.Policy(
        [*first, ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.SaltAndPepper(0.1), ga.ToDtype(torch.float32, scale=True)],
        seed=6,
    )
    whole = policy(x, ids=ids, epoch=1, backend=backend)
    for n, (picture, size) in enumerate(zip(x, SIZES, strict=True)):
        if size[0] != size[1] and any(isinstance(t, ga.RandomRot90) for t in first):
            continue
        dense = torch.from_numpy(picture).permute(2, 0, 1)[None]
        compare(
            policy(dense, ids=ids[n : n + 1], epoch=1, backend=backend), whole[n : n + 1], "fused", f"image {n} alone"
        )
    order = [3, 0, 4, 2, 1]
    compare(policy([x[n] for n in order], ids=ids[order], epoch=1, backend=backend), whole[order], "exact", "permuted")


def test_cpu_agrees_with_the_reference_on_images_of_different_sizes(pictures):
    x, ids, labels = pictures(SIZES), torch.arange(5), torch.arange(5) % 4
    policy = ga.Policy(chain(mix=True), seed=6)
    (got, a), (want, b) = (policy(x, labels, ids=ids, backend=k) for k in ("cpu", "reference"))
    compare(got, want, "resample, jump", "ragged", 5.0)
    assert torch.equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_tensors_and_pictures_of_a_list_are_the_same_images(backend, pictures):
    x, ids = pictures(SIZES), torch.arange(5)
    policy = ga.Policy([ga.RandomResizedCrop(12)], seed=6)
    want = policy(x, ids=ids, backend=backend)
    others = {
        "tensors": [torch.from_numpy(i) for i in x],
        "PIL": [Image.fromarray(i) for i in x],
        "a tuple": tuple(x),
        "strided": [np.ascontiguousarray(i[::-1])[::-1] for i in x],
        "mixed": [x[0], torch.from_numpy(x[1]), *(Image.fromarray(i) for i in x[2:])],
        "tensors of other memory": [torch.from_numpy(i).permute(2, 0, 1).contiguous().permute(1, 2, 0) for i in x],
    }
    for name, other in others.items():
        compare(policy(other, ids=ids, backend=backend), want, "exact", name)
    gray = [i[:, :, 0] for i in x]
    assert policy(gray, ids=ids, backend=backend).shape == (5, 1, 12, 12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_list_of_equal_sizes_needs_no_step_that_fixes_them(backend, pictures):
    x = pictures([(20, 24)] * 3)
    dense = torch.stack([torch.from_numpy(i) for i in x]).permute(0, 3, 1, 2)
    policy = ga.Policy([ga.RandomInvert(), ga.RandomRotation(20)])
    ids = torch.arange(3)
    want = policy(dense, ids=ids, backend=backend)
    compare(policy(x, ids=ids, backend=backend), want, "exact", "list")
    compare(policy(dense.numpy(), ids=ids, backend=backend), want, "exact", "array")


# ---- edges


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", sorted(SPECS))
def test_an_empty_batch_gives_an_empty_batch(name, backend):
    of = spec(name)
    for args in of.arguments:
        policy = ga.Policy([build(name, args), *([ga.Resize((5, 5))] if of.square else [])])

        def call(n: int, policy: ga.Policy = policy) -> tuple[torch.Tensor, torch.Tensor | None]:
            x = torch.zeros(n, 3, *side_of(name))
            return policy(x, torch.zeros(n, 5), backend=backend) if of.mixes else (policy(x, backend=backend), None)

        (out, soft), (one, _) = call(0), call(1)
        assert out.shape == (0, *one.shape[1:]) and out.dtype == one.dtype, args
        assert soft is None or soft.shape == (0, 5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2)])
def test_images_of_a_pixel_go_through_everything(size, backend, images):
    x = images(4, 9, 9)[:, :, : size[0], : size[1]]
    policy = ga.Policy(chain(mix=True), seed=3)
    out, soft = policy(x, torch.arange(4), ids=torch.arange(4), backend=backend)
    assert out.shape == (4, 3, 24, 19) and not out.isnan().any() and torch.allclose(soft.sum(1), torch.ones(4))
    want = policy(x, torch.arange(4), ids=torch.arange(4), backend="reference")[0]
    compare(out, want, "resample, jump", f"{size}", 5.0)
    small = ga.Policy([ga.RandomAffine(30), ga.RandAugment(3, 25), ga.RandomErasing(1.0), ga.SaltAndPepper(0.5)])
    assert small(x, backend=backend).shape == x.shape


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [1, 2, 4, 5, 9])
def test_any_number_of_channels_goes_through_what_is_not_colour(channels, backend, images):
    x, ids = images(4, 33, 27, channels), torch.arange(4)
    policy = ga.Policy(
        [
            ga.RandomResizedCrop(17),
            ga.RandomRotation(20, fill=0.5),
            ga.RandomInvert(),
            ga.SaltAndPepper(0.1, per_channel=True),
            ga.GaussianNoise(),
            ga.Normalize((0.5,), (0.5,)),
            ga.RandomErasing(1.0, value="random"),
        ],
        seed=3,
    )
    compare(
        policy(x, ids=ids, backend=backend),
        policy(x, ids=ids, backend="reference"),
        "resample, jump",
        f"{channels} channels",
        2.0,
    )


def test_one_channel_of_many_has_the_noise_of_its_own():
    """Channels beyond the fourth come from further blocks of words, not from the first again."""
    out = ga.Policy([ga.GaussianNoise(0.0, 1.0, clip=False)])(torch.zeros(2, 9, 32, 32), backend="reference")
    r = np.corrcoef(out.permute(1, 0, 2, 3).reshape(9, -1).numpy())
    assert np.abs(r - np.eye(9)).max() < 4.5 / 2048**0.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch_passes_where_its_images_would_differ_in_size(backend):
    policy = ga.Policy([ga.RandomRot90(), ga.Resize(9), ga.Resize((21, 6)), ga.RandomInvert()])
    out = policy(torch.zeros((0, 4, 7, 15), dtype=torch.uint8), backend=backend)
    assert out.shape == (0, 4, 21, 6) and out.dtype == torch.uint8
