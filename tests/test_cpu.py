"""The CPU executor: every pass against the reference, whatever the layout, and with no folder to cache in."""

import os
import sys
from pathlib import Path

import children
import numpy as np
import pytest
import torch
from compare import changed, compare
from specs import SPECS

import gpuaug as ga
from gpuaug import fuse, ir, rng
from gpuaug.exec import reference
from gpuaug.exec.cpu import executor as cpu
from gpuaug.exec.stamped import in_box

N = 5
KEYS = rng.Keys(2**63 + 11, 7, torch.tensor([3, 2**40 + 1, 9, 2**45, 0]), torch.tensor([0, 1, 0, 2, 4095]))
SIZES = [(1, 1), (1, 7), (2, 3), (17, 33), (40, 29)]


def noise(n: int, c: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Images off the grid of bytes, where floats can be."""
    x = torch.from_numpy(np.random.default_rng(c * h + w).random((n, c, h, w), dtype=np.float32))
    return (x * 255.999).floor().to(torch.uint8) if dtype == torch.uint8 else x.to(dtype)


def launched(passes: ir.Sequence, images: torch.Tensor, dtype: torch.dtype = torch.float32) -> fuse.Plan:
    """A plan of passes as a policy makes it."""
    n, c, h, w = images.shape
    frame = ir.Frame(torch.tensor([[h, w]]).expand(n, 2).clone(), (h, w), c, images.dtype)
    passes = (*passes, ir.Finish(dtype, torch.contiguous_format))
    ir.verify(passes, frame)
    return fuse.Plan(fuse.fold(passes), KEYS.take(torch.arange(n)), frame)


def agree(passes: ir.Sequence, images: torch.Tensor, kind: str, what: str = "") -> torch.Tensor:
    """Both executors on one plan; gives the image."""
    plan = launched(passes, images)
    assert not any(step.fallback for step in cpu.steps(plan)), f"{what} falls back: the test would look at nothing"
    got = cpu.run(plan, images)
    compare(got, reference.run(plan, images), kind, what)
    return got


# ---- every transform


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", sorted(ga.REGISTRY))
def test_every_transform_agrees_with_the_reference_at_every_size(name, channels):
    cls, looked = ga.REGISTRY[name], 0
    for h, w in SIZES:
        for dtype in (torch.uint8, torch.float32):
            transforms = [ga.ToDtype(torch.float32, scale=True), cls(**cls.example)]
            if SPECS[name].square:
                transforms.append(ga.Resize((6, 9)))
            policy, x = ga.Policy(transforms, seed=3), noise(N, channels, h, w, dtype)
            labels = torch.arange(N) if SPECS[name].mixes else None
            try:
                want = policy(x, labels, ids=KEYS.ids, backend="reference")
            except ValueError:
                with pytest.raises(ValueError, match=r"\w"):
                    policy(x, labels, ids=KEYS.ids, backend="cpu")
                continue
            got = policy(x, labels, ids=KEYS.ids, backend="cpu")
            got, want = (got, want) if labels is None else (got[0], want[0])
            compare(
                got,
                want,
                "resample, jump" if "jump" in SPECS[name].kind(cls.example) else "resample",
                f"{name} {channels}x{h}x{w} {dtype}",
                SPECS[name].gain(cls.example),
            )
            looked += 1
    assert (looked > 0) == SPECS[name].takes(channels, cls.example), "vacuous, or images that it should refuse"


def test_no_transform_of_the_registry_falls_back_unless_its_spec_says_so():
    for name, cls in ga.REGISTRY.items():
        policy = ga.Policy([ga.ToDtype(torch.float32, scale=True), cls(**cls.example), ga.Resize((5, 5))])
        falls = "runs by the reference" in policy.describe((33, 34), backend="cpu")
        assert falls == SPECS[name].falls_back, name


@pytest.mark.parametrize("extend", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_padding_of_every_kind_survives_a_resize_and_a_turn(extend, dtype):
    for transforms in (
        [ga.Pad((3, 2, 1, 4), 0.3, extend)],
        [ga.Pad((3, 2, 1, 4), 0.3, extend), ga.RandomHorizontalFlip(), ga.Resize((9, 21))],
        [ga.RandomCrop((12, 14), 4, False, 0.3, extend), ga.RandomVerticalFlip()],
        [ga.Pad(4, 0.3, extend), ga.RandomRot90(), ga.RandomResizedCrop(11)],
    ):
        policy = ga.Policy([ga.ToTensor(), *transforms], seed=1)
        for x in (noise(N, 3, 13, 17, dtype), noise(N, 3, 13, 17, dtype).contiguous(memory_format=torch.channels_last)):
            got, want = (policy(x, ids=KEYS.ids, backend=b) for b in ("cpu", "reference"))
            compare(got, want, "resample", f"{extend} {transforms}")


def test_a_crop_beside_the_image_is_all_fill():
    x = noise(N, 3, 5, 5)
    frame = ir.Frame(torch.full((N, 2), 5), (5, 5), 3, torch.float32)
    from gpuaug.transforms.geometry import crop

    far = torch.full((N,), 40)
    agree((crop(frame, far, -far, frame, "constant", (0.3,)),), x, "exact", "beside")
    for extend in ("edge", "reflect", "symmetric"):
        agree((crop(frame, far, -far, frame, extend),), x, "exact", extend)


def test_a_large_reduction_keeps_its_weights():
    x = noise(2, 3, 700, 900, torch.uint8)
    policy = ga.Policy([ga.ToTensor(), ga.Resize((7, 5))])
    compare(
        policy(x, ids=KEYS.ids[:2], backend="cpu"),
        policy(x, ids=KEYS.ids[:2], backend="reference"),
        "resample",
        "100 times smaller",
    )


def test_every_byte_comes_in_as_itself_over_255():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for transforms in (
        [],
        [ga.RandomHorizontalFlip(1.0), ga.RandomHorizontalFlip(1.0)],
        [ga.Pad(1), ga.CenterCrop(16)],
    ):
        got = ga.Policy([ga.ToTensor(), *transforms])(every, ids=KEYS.ids[:1], backend="cpu")
        compare(got, every.float() / 255, "exact", str(transforms))


# ---- passes that no transform makes yet, and orders that few do


def choice(*branches: ir.Sequence, steps: int = 1) -> ir.Choice:
    index = torch.from_numpy(np.random.default_rng(len(branches)).integers(0, len(branches), (N, steps)))
    return ir.Choice(index, tuple(branches))


def test_stencils_and_mixes_agree():
    x, half = noise(N, 3, 21, 18), torch.linspace(0.0, 2.0, N)
    partner = torch.tensor([1, 2, 3, 4, 0])
    box = torch.tensor([[0, 0, 0, 0], [2, 3, 9, 11], [0, 0, 18, 21], [-3, -4, 5, 6], [17, 20, 30, 30]])
    sizes = torch.tensor([[21, 18]] * N)
    sigma = torch.stack([half + 0.3, 2.0 - half + 0.2], 1)
    for p in (
        ir.Sharpness(half),
        ir.GaussianBlur(sigma, (5, 9)),
        ir.CutMix(partner, box, sizes),
        ir.MixUp(partner, half / 2),
    ):
        out = agree(
            (ir.Affine(half[:, None] + 0.1, half[:, None] * 0), p, ir.Solarize(half / 2)), x, "jump", type(p).__name__
        )
        assert changed(out, x) > 0.5, "vacuous"
    for shape in ((1, 9), (9, 2), (3, 3)):
        agree((ir.Sharpness(half),), noise(N, 3, *shape), "colour", f"sharpness of {shape}")


def test_a_statistic_may_follow_another_of_its_kind():
    """What a stage reads must not be what the next one gathers."""
    x, f = noise(N, 3, 19, 23), torch.linspace(0.2, 1.8, N)
    points = (ir.Contrast(f), ir.Autocontrast(), ir.Equalize())
    for a in points:
        for b in points:
            agree(
                (a, b, ir.Affine(f[:, None], f[:, None] * 0), b, a, a),
                x,
                "jump",
                f"{type(a).__name__}, {type(b).__name__}",
            )


def test_choices_nest_and_hold_anything_but_a_mix():
    x, f = noise(N, 3, 20, 20), torch.linspace(0.2, 1.8, N)
    warp = ga.RandomAffine(40.0, interpolation="bilinear")
    frame = ir.Frame(torch.full((N, 2), 20), (20, 20), 3, torch.float32)
    turned = warp.lower(warp.sample(rng.Draw(KEYS, 5), frame), frame, 5)
    inner = choice((ir.Hue(f - 1.0),), (), (ir.Contrast(f), ir.Gray(1), ir.Gray(3)), steps=2)
    outer = choice(
        (inner, ir.Sharpness(f)),
        turned,
        (ir.Equalize(),),
        (choice((), (ir.SaltPepper(4, f / 9, f / 4),)), *turned),
        steps=3,
    )
    out = agree((outer, ir.Saturation(f), outer), x, "resample, jump", "nested")
    assert changed(out, x) > 0.5, "vacuous"
    # a mix alone in its branch is a mix like another: beside more it is none
    mixed = ir.Choice(torch.zeros(N, 1, dtype=torch.int64), ((ir.MixUp(torch.arange(N), f), ir.Hue(f - 1.0)),))
    plan = launched((ir.Solarize(f), mixed), x)
    reasons = [step.fallback for step in cpu.steps(plan)]
    assert any("mix inside a choice" in r for r in reasons)
    compare(cpu.run(plan, x), reference.run(plan, x), "exact", "by the reference")


def test_a_users_function_runs_between_compiled_steps():
    x, f = noise(N, 3, 12, 14), torch.linspace(0.2, 1.8, N)
    custom = ir.Custom(lambda images: images.flip(2), "upside down")
    plan = launched((ir.Saturation(f), custom, ir.Hue(f - 1.0)), x)
    assert [bool(step.fallback) for step in cpu.steps(plan)] == [False, True, False]
    compare(cpu.run(plan, x), reference.run(plan, x), "colour", "custom")


def test_a_blur_wider_than_its_image_is_left_to_the_reference():
    x = noise(N, 3, 4, 30)
    blur = ir.GaussianBlur(torch.ones(N, 2), (5, 9))
    plan = launched((blur,), x)
    assert "wider" in cpu.steps(plan)[0].fallback


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_masks_of_noise_are_bit_identical(channels):
    x = noise(N, channels, 37, 41)
    salt, amount = torch.linspace(0.0, 0.3, N), torch.linspace(0.0, 0.6, N)
    for per_channel in (False, True):
        out = agree((ir.SaltPepper(65535, salt, amount, per_channel),), x, "exact", f"per_channel={per_channel}")
        assert 0.1 < changed(out, x) < 0.6, "vacuous"
    box = torch.tensor([[0, 0, 0, 0], [3, 5, 30, 20], [0, 0, 41, 37], [-5, -5, 4, 4], [40, 36, 50, 50]])
    value = torch.full((N, channels), float("nan"))
    value[3] = 0.25
    out = agree((ir.Erase(9, box, value),), x, "colour", "erase")
    assert torch.equal(out != x, in_box(box, x).expand_as(x)), "exactly the box is written"
    agree((ir.GaussianNoise(2, salt - 0.1, amount, False),), x, "colour", "normals")


# ---- memory


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_no_layout_of_memory_changes_a_bit(dtype, channels):
    x = noise(N, channels, 33, 47, dtype)
    steps = [
        ga.RandomResizedCrop((24, 19)),
        ga.RandomHorizontalFlip(),
        ga.SaltAndPepper(0.1),
        ga.RandomAffine(20, interpolation="bilinear"),
    ]
    policy = ga.Policy([*steps, ga.RandomErasing(value="random")], seed=5)
    want = policy(x, ids=KEYS.ids, backend="cpu")
    spread = torch.zeros(N, channels, 66, 3 * 47, dtype=dtype)
    spread[:, :, ::2, ::3] = x
    others = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "strided": spread[:, :, ::2, ::3],
        "offset": torch.cat([x[:1], x])[1:],
    }
    for name, other in others.items():
        assert torch.equal(other, x)
        compare(policy(other, ids=KEYS.ids, backend="cpu"), want, "exact", name)
    listed = list(x.permute(0, 2, 3, 1).contiguous()) if dtype == torch.uint8 else x
    compare(policy(listed, ids=KEYS.ids, backend="cpu"), want, "exact", "list")


def test_an_empty_batch_has_the_right_shape():
    for dtype in (torch.uint8, torch.float32, torch.float16):
        out = ga.Policy([ga.RandomResizedCrop((6, 7)), ga.RandAugment()])(
            torch.zeros(0, 3, 9, 9, dtype=dtype), backend="cpu"
        )
        assert out.shape == (0, 3, 6, 7) and out.dtype == dtype


def test_nan_and_infinity_come_out_without_a_crash():
    x = noise(N, 3, 20, 20)
    x[:, :, ::3, ::4] = float("nan")
    x[:, :, 1::3, ::5] = float("inf")
    for name, cls in ga.REGISTRY.items():
        labels = torch.arange(N) if SPECS[name].mixes else None
        out = ga.Policy([cls(**cls.example)])(x, labels, ids=KEYS.ids, backend="cpu")
        assert (out if labels is None else out[0]).shape[0] == N, name


# ---- the folder of compiled code

SCRIPT = """
import time, torch, gpuaug
policy = gpuaug.Policy([gpuaug.RandomHorizontalFlip(1.0)])
x = torch.arange(24, dtype=torch.uint8).view(1, 1, 4, 6)
start = time.process_time()
assert torch.equal(policy(x, backend="cpu"), x.flip(3))
print(time.process_time() - start)
"""
# the smallest of the compiled functions; the number of times that it was loaded instead of compiled
SMALLEST = """
import numpy as np
from gpuaug.rng import host
assert (host.apply("exp", np.zeros(3)) == 1).all()
print(sum(host._apply.stats.cache_hits.values()))
"""


def in_process(script: str = SCRIPT, **environment: str) -> float:
    """What a script prints in a fresh process: seconds of CPU time to the first result of a policy."""
    root = Path(__file__).parent.parent
    done = children.run([sys.executable, "-c", script], env={**os.environ, **environment}, cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_compiled_code_is_loaded_by_the_next_process(tmp_path):
    assert in_process(SMALLEST, NUMBA_CACHE_DIR=str(tmp_path)) == 0
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.nbc")}
    assert kept, "nothing was kept"
    assert in_process(SMALLEST, NUMBA_CACHE_DIR=str(tmp_path)) == 1, "compiled again"
    assert kept == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.nbc")}


@pytest.mark.slow
def test_the_first_use_compiles_in_half_a_minute_and_the_next_in_two_seconds(tmp_path):
    first = in_process(NUMBA_CACHE_DIR=str(tmp_path))
    assert first < 30 and in_process(NUMBA_CACHE_DIR=str(tmp_path)) < 2


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["a file in its place", "no such device", "half a file", "full"])
def test_a_folder_that_takes_no_compiled_code_is_survived(fault, tmp_path):
    folder = tmp_path / "cache"
    if fault == "a file in its place":
        folder.write_text("")
    elif fault == "no such device":
        folder = Path("/proc/gpuaug")
    elif fault == "half a file":
        in_process(NUMBA_CACHE_DIR=str(folder))
        broken = list(folder.rglob("*.nb[ci]"))
        assert broken, "nothing to break"
        for f in broken:
            f.write_bytes(f.read_bytes()[:100])
    else:
        folder = Path("/dev/full")
    in_process(NUMBA_CACHE_DIR=str(folder), HOME=str(tmp_path / "nowhere"))


def test_a_full_disk_while_saving_is_survived(tmp_path, monkeypatch):
    from numba import njit

    from gpuaug import numba_cache

    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numba_cache.FunctionCache, "save_overload", refuse)

    @numba_cache.kernel
    def twice(x):
        return 2 * x

    assert twice(21) == 42 and njit is not None


def test_a_change_in_any_compiled_file_makes_the_cache_stale():
    from gpuaug import numba_cache

    names = {f.name for f in numba_cache.compiled_files()}
    assert {
        "walk.py",
        "points.py",
        "entry.py",
        "layout.py",
        "interpreter.py",
        "host.py",
        "codes.py",
        "compiled.py",
    } <= names
    numba_cache._sources.cache_clear()
    assert len(numba_cache._sources()) == 64


def test_describe_says_what_runs_where():
    text = ga.Policy([ga.RandomResizedCrop(24), ga.ColorJitter(0.4, 0.4, 0.4, 0.1), ga.RandAugment()]).describe(
        (90, 80), backend="cpu"
    )
    assert "backend cpu" in text and "runs by the reference" not in text
    assert "no compiled rule" in cpu.lacks(
        ir.Custom(lambda i: i, "mine"), ir.Frame(torch.tensor([[4, 4]]), (4, 4), 3, torch.float32)
    )
