"""The CPU executor's short cuts: pixels that only move, rectangles that are cut in place, short rows that are taken
together, and outputs too large for the caches give what the long way gives, to the bit where that is settled."""

import pytest
import torch
from compare import changed, compare

import gpuaug as ga
from gpuaug import fuse, ir, rng
from gpuaug.exec import reference
from gpuaug.exec.cpu import blocks, walk
from gpuaug.exec.cpu import executor as cpu

N = 6
IDS = torch.arange(N) + 11
MOVES = {
    "nothing": (),
    "flip": (ga.RandomHorizontalFlip(1.0),),
    "upside down": (ga.RandomVerticalFlip(1.0),),
    "either": (ga.RandomHorizontalFlip(), ga.RandomVerticalFlip()),
    "crop": (ga.RandomCrop((33, 21)),),
    "centre": (ga.CenterCrop((31, 47)), ga.RandomHorizontalFlip()),
    "padded crop": (ga.RandomCrop((41, 64), 9, fill=0.3), ga.RandomHorizontalFlip()),
    "turn": (ga.RandomRot90(),),
    "nearest": (ga.Resize((29, 90), interpolation="nearest"),),
    "turn by degrees": (ga.RandomAffine(90, (0.3, 0.3), (1.0, 2.0), 10, fill=0.3),),
    "perspective": (ga.RandomPerspective(0.5, 1.0, "nearest"),),
    **{f"pad, {mode}": (ga.Pad((3, 2, 5, 4), 0.3, mode),) for mode in ("constant", "edge", "reflect", "symmetric")},
}


def picture(channels: int, dtype: torch.dtype) -> torch.Tensor:
    """Images of an even size, so that a turn keeps it, wide enough for vectors."""
    bytes_ = torch.randint(0, 256, (N, channels, 50, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    return bytes_ if dtype == torch.uint8 else bytes_ / 251


def layouts(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same images otherwise in memory."""
    spread = x.new_zeros((N, x.shape[1], 100, 150))
    spread[:, :, ::2, ::3] = x
    return {
        "planes": x,
        "pixels": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "strided": spread[:, :, ::2, ::3],
    }


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_only_moves_is_exact_from_any_memory_to_any(name, channels):
    for dtype in (torch.uint8, torch.float32):
        for end in (torch.uint8, torch.float32):
            to = [ga.ToDtype(end, scale=True)] if end != dtype else []
            for target in (torch.contiguous_format, torch.channels_last):
                policy = ga.Policy([*MOVES[name], *to], seed=4, memory_format=target)
                want = None
                for where, x in layouts(picture(channels, dtype)).items():
                    want = policy(x, ids=IDS, backend="reference") if want is None else want
                    got = policy(x, ids=IDS, backend="cpu")
                    compare(got, want, "exact", f"{name} {channels} {dtype} to {end}, {where} to {target}")
                    assert got.is_contiguous(memory_format=target)
    assert name == "nothing" or want.shape != x.shape or changed(want, x.to(want.dtype)) > 0.3, "vacuous"


@pytest.mark.parametrize("size", [(28, 28), (47, 33), (2, 1100)])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_that_are_taken_together_are_those_of_the_reference(channels, size):
    assert (size[0] * size[1] > walk.AT_ONCE) == (size != (28, 28)), "some images take several turns"
    x = picture(channels, torch.uint8)[..., :1, :1].expand(N, channels, *size).clone()
    x += torch.arange(x[0].numel(), dtype=torch.uint8).view(x.shape[1:])
    drawn = [ga.SaltAndPepper(0.3, per_channel=True), ga.GaussianNoise(), ga.RandomErasing(1.0, value="random")]
    policies = {
        "map, words": [ga.RandomAffine(90, (0.3, 0.3), fill=0.3), ga.SaltAndPepper(0.3)],
        "words": [ga.ToDtype(torch.float32, scale=True), *drawn],
        "statistics": [ga.RandomHorizontalFlip(), ga.RandomAutocontrast(1.0), ga.ColorJitter(0.4, 0.4, 0.4)],
        "neighbours": [ga.GaussianBlur(3), ga.RandomAdjustSharpness(2.0, 1.0), ga.SaltAndPepper(0.3)],
    }
    for name, steps in policies.items():
        policy = ga.Policy([*steps, ga.ToDtype(torch.float32, scale=True)], seed=6)
        want = policy(x, ids=IDS, backend="reference")
        for source in (x, x.contiguous(memory_format=torch.channels_last)):
            compare(policy(source, ids=IDS, backend="cpu"), want, "colour", f"{name}, {channels} channels of {size}")
        assert changed(want, x / 255) > 0.2, "vacuous"


def test_nan_and_infinity_only_move():
    x = picture(3, torch.float32)
    x[:, :, ::3, ::4], x[:, :, 1::3, ::5] = float("nan"), float("inf")
    got = ga.Policy([ga.RandomHorizontalFlip(1.0)])(x, ids=IDS, backend="cpu")
    assert torch.equal(got.view(torch.int32), x.flip(3).contiguous().view(torch.int32))


def cut(
    partner: torch.Tensor, before: ir.Sequence, channels: int, memory_format: torch.memory_format, mixes: str = "cut"
) -> fuse.Plan:
    """A plan that ends with a CutMix, a MixUp, or both by sample."""
    frame = ir.Frame(torch.tensor([[50, 50]]).expand(N, 2).clone(), (50, 50), channels, torch.float32)
    box = torch.tensor([[0, 0, 50, 50], [3, 5, 30, 20], [-4, -4, 9, 60], [7, 7, 7, 30], [40, 0, 90, 1], [1, 9, 49, 12]])
    finish = ir.Finish(torch.float32, memory_format)
    share = torch.tensor([0.3, 1.0, 0.0, 0.5, 0.999, 0.25])
    made: dict[str, ir.Pass] = {
        "cut": ir.CutMix(partner, box, frame.size),
        "blend": ir.MixUp(partner, share),
        "either": ir.MixInside(partner, box, share, frame.size),
    }
    passes = (*before, made[mixes], finish)
    ir.verify(passes, frame)
    return fuse.Plan(fuse.fold(passes), rng.Keys(1, 0, IDS, torch.zeros_like(IDS)), frame)


# one cycle; one partner for all; several cycles; and branches that lead to each other and into cycles, as they do where
# samples are nobody's partner
@pytest.mark.parametrize(
    "partner", [(1, 2, 3, 4, 5, 0), (0, 0, 0, 0, 0, 0), (1, 0, 2, 5, 3, 4), (1, 1, 5, 2, 3, 2), (5, 0, 0, 1, 2, 5)]
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mixes", ["cut", "blend", "either"])
def test_a_mix_takes_from_partners_as_they_were(mixes, partner, memory_format, monkeypatch):
    half, only = (ir.Affine(torch.full((N, 1), 0.5), torch.full((N, 1), 0.1)),), cpu._only_mixes
    looked: list[bool] = []
    for channels in (1, 3, 4):
        x = picture(channels, torch.float32)
        plan = cut(torch.tensor(partner), half, channels, memory_format, mixes)
        want = reference.run(plan, x)
        assert changed(want, x * 0.5 + 0.1) > 0.05, "vacuous"
        monkeypatch.setattr(cpu, "_only_mixes", lambda step, images: False)
        apart = cpu.run(plan, x)
        monkeypatch.setattr(cpu, "_only_mixes", lambda *given: looked.append(only(*given)) or looked[-1])
        for threads in (1, 3):
            got = cpu.run(plan, x, threads)
            compare(got, want, "colour", f"{partner} {memory_format}")
            assert torch.equal(got, apart), "not the bits of a step that writes elsewhere"
        # a step writes planes where another follows
        assert looked[-1] or memory_format == torch.channels_last, "not in place"


def test_images_that_somebody_else_holds_are_not_cut_into():
    x, partner = picture(3, torch.float32), torch.tensor([1, 2, 3, 4, 5, 0])
    kept, held = x.clone(), x * 0.5
    custom = ir.Custom(lambda images: held, "what it keeps")
    for before in ((), (custom,)):
        want = held.clone()
        cpu.run(cut(partner, before, 3, torch.contiguous_format), x)
        assert torch.equal(x, kept) and torch.equal(held, want)


def test_a_partner_that_is_no_row_of_the_batch_is_refused_in_place_too():
    half = (ir.Affine(torch.full((N, 1), 0.5), torch.zeros((N, 1))),)
    for wrong in (-1, N):
        prepared = cpu.prepare(cut(torch.tensor([1, 2, 3, 4, 5, 0]), half, 3, torch.contiguous_format))
        # as a recipe may fill it in, which no check of passes sees
        prepared[1].ints[2, 0] = wrong
        with pytest.raises(ValueError, match="the partner of sample 2 must be a row of this batch"):
            cpu.execute(prepared, picture(3, torch.float32))


@pytest.mark.parametrize("width", [224, 205])
def test_an_output_too_large_for_the_caches_has_the_same_bits(width):
    x = torch.randint(0, 256, (32, 3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    policy = ga.Policy([ga.RandomResizedCrop((224, width)), ga.ToDtype(torch.float32, scale=True)], seed=3)
    ids = torch.arange(len(x))
    whole = policy(x, ids=ids, backend="cpu")
    assert whole.numel() * 4 >= blocks.LARGE > whole[:2].numel() * 4, "vacuous"
    for first in (0, 7, 30):
        part = policy(x[first : first + 2], ids=ids[first : first + 2], backend="cpu")
        assert torch.equal(part, whole[first : first + 2])


def test_a_wide_blur_agrees_with_the_reference():
    for channels in (1, 3):
        for kernel in (23, (5, 31), (49, 3)):
            policy = ga.Policy([ga.GaussianBlur(kernel, (0.3, 9.0)), ga.ToDtype(torch.float32, scale=True)])
            x = picture(channels, torch.uint8)
            got, want = (policy(x, ids=IDS, backend=b) for b in ("cpu", "reference"))
            compare(got, want, "colour", str(kernel))
            assert changed(got, x / 255) > 0.5, "vacuous"
