"""Ring 5 for wide accesses: whatever the width, the layout and the alignment, pixels that are only moved are the
reference's to the bit."""

from collections import Counter

import pytest
import torch
from build import quick
from compare import changed, compare
from gpuaug_kernels import codes, launch, read, source

import gpuaug as ga
from gpuaug import ir, rng
from gpuaug.exec import reference
from gpuaug.exec.triton import executor, rules

WIDTHS = (*range(1, 10), 16, 32, 33, 36, 48, 64)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)
LAST, FLAT = torch.channels_last, torch.contiguous_format


@pytest.fixture
def seen(monkeypatch) -> Counter:
    """How often a launch read words ("words"), in which form it wrote ("plain", "values", "halves", "bytes"), and how
    many tiles were moved but not as one stretch ("indirect"), or averaged ("triangles": words, "taps": not)."""
    counts: Counter = Counter()
    forms = {codes.PLAIN: "plain", codes.SHORTS: "shorts", codes.VALUES: "values"} | {
        codes.HALVES: "halves",
        codes.QUARTERS: "bytes",
    }

    def spy(owner, name: str, key) -> None:
        whole = getattr(owner, name)

        def wrapped(*args, **more):
            result = whole(*args, **more)
            counts[key(result)] += 1
            return result

        monkeypatch.setattr(owner, name, wrapped)

    spy(launch, "source_form", lambda r: "words" if r == codes.WORDS else "each")
    spy(launch, "output_layout", lambda r: forms[r.form])
    spy(source, "triangle_words", lambda _: "triangles")
    spy(source, "triangle_taps", lambda _: "taps")
    for owner in (source, read):
        spy(owner, "resample", lambda _: "indirect")
    return counts


def picture(
    n: int, channels: int, height: int, width: int, layout: torch.memory_format = LAST, dtype: torch.dtype = torch.uint8
) -> torch.Tensor:
    """No two neighbours alike, and all of the 256 values where there is room."""
    out = (torch.arange(n * channels * height * width) * 37 % 256).view(n, height, width, channels).permute(0, 3, 1, 2)
    out = out if dtype == torch.uint8 else out / 255
    return out.to(dtype).contiguous(memory_format=layout)


def moved(
    x: torch.Tensor, flips: tuple[ga.Transform, ...], dtype: torch.dtype, layout: torch.memory_format
) -> torch.Tensor:
    """The kernels' images, compared with the reference's."""
    policy = ga.Policy([*flips, ga.ToDtype(dtype, scale=True)], seed=3, memory_format=layout)
    got, want = (policy(x, ids=torch.arange(len(x)), backend=b) for b in ("triton", "reference"))
    assert got.is_contiguous(memory_format=layout)
    compare(got, want, "exact", f"{tuple(x.shape)} {x.dtype} to {dtype} {layout}")
    return got


FORMS = [(layout, dtype) for layout in (LAST, FLAT) for dtype in DTYPES]


# planes are written one value after the other, whatever the dtype
@pytest.mark.parametrize(("layout", "dtype"), quick(FORMS, *FORMS[:5]))
def test_moves_of_any_width_are_exact(layout, dtype, seen):
    flips = (ga.RandomHorizontalFlip(), ga.RandomVerticalFlip())
    for width in WIDTHS:
        x = picture(4, 3, 3, width)
        got = moved(x, flips, dtype, layout)
        upright = moved(x, (), dtype, layout)
        assert 0.1 < changed(got, upright) < 1.0, "vacuous: none are flipped, or all"
    # twice a width; whatever a row's alignment it is read by words, and moved as one stretch
    assert seen["words"] == 2 * len(WIDTHS) and seen["indirect"] == 0
    # the interpreter writes bfloat16 as float32
    size = 4 if dtype == torch.bfloat16 else dtype.itemsize
    values = {1: ("bytes", 4), 2: ("halves", 2), 4: ("values", 1)}[size]
    if layout == FLAT:
        assert seen["plain"] == 2 * len(WIDTHS)
    else:
        whole = 2 * sum(w % values[1] == 0 for w in WIDTHS)
        assert seen[values[0]] == whole >= 8 and seen["values"] >= 2 * len(WIDTHS) - whole


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8])
def test_other_numbers_of_channels_are_not_read_by_words(dtype, channels, seen):
    for layout in (LAST, FLAT):
        for width in (7, 32, 48):
            moved(picture(3, channels, 3, width), (ga.RandomHorizontalFlip(1.0),), dtype, layout)
    assert seen["words"] == 0 < seen["plain"]


@pytest.mark.parametrize("layout", [LAST, FLAT])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_float_images_move_exactly(dtype, layout):
    for given in (torch.float32, torch.float16):
        for width in (9, 32, 36):
            moved(picture(3, 3, 3, width, layout, given), (ga.RandomHorizontalFlip(),), dtype, layout)


def test_flips_of_whole_tiles_are_read_by_words(seen):
    for width in (32, 48, 96):
        moved(picture(2, 3, 34, width), (ga.RandomHorizontalFlip(1.0), ga.RandomVerticalFlip(1.0)), torch.float16, LAST)
    assert seen["words"] == seen["halves"] == 3 and seen["indirect"] == 0


@pytest.mark.parametrize("padding", [None, 5])
def test_crops_are_exact_wherever_they_begin(padding, seen):
    x = picture(12, 3, 37, 64)
    for width in (32, 20):
        moved(
            x,
            (ga.RandomCrop((35, width), padding, pad_if_needed=True), ga.RandomHorizontalFlip()),
            torch.bfloat16,
            LAST,
        )
    tiles = 12 * 2 * 2
    # only a border is made pixel by pixel
    assert (seen["indirect"] == 0) == (padding is None) and seen["indirect"] < tiles, "vacuous: all by words, or none"


def test_quarter_turns_are_exact(seen):
    # a tile lies over another: nothing of it is one stretch
    x = picture(6, 3, 32, 32)
    moved(x, (ga.RandomRot90(),), torch.bfloat16, LAST)
    assert 0 < seen["indirect"] < 6, "vacuous: all turned, or none"


def test_windows_of_larger_images_are_exact(seen):
    whole = picture(2, 3, 6, 96)
    for left, width in ((0, 32), (8, 32), (16, 48), (3, 32), (4, 48)):
        part = whole[:, :, 1:5, left : left + width]
        moved(part, (ga.RandomHorizontalFlip(),), torch.float16, LAST)
    assert seen["words"] == 5 and seen["indirect"] == 0


@pytest.mark.parametrize("offset", [0, 1, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8])
def test_an_out_at_any_address_is_written_right_and_nothing_beside_it(dtype, offset, seen):
    n, height, width = 2, 3, 48
    x, size = picture(n, 3, height, width), n * 3 * height * width
    room = torch.full((size + 32,), 77, dtype=dtype)
    start = (-room.data_ptr() // room.element_size()) % (16 // room.element_size()) + offset
    out = room[start : start + size].view(n, height, width, 3).permute(0, 3, 1, 2)
    frame, keys = (
        ir.Frame(torch.tensor([[height, width]] * n), (height, width), 3, x.dtype),
        rng.Keys(1, 0, torch.arange(n), torch.zeros(n, dtype=torch.int64)),
    )
    passes = (ir.Solarize(torch.tensor([2.0] * n)), ir.Finish(dtype, LAST))
    assert executor.execute((rules.prepare(passes, frame, keys),), x, out) is out
    compare(out, reference.run_passes(passes, x.float() / 255, keys), "exact", f"{dtype} at {offset}")
    assert (room[:start] == 77).all() and (room[start + size :] == 77).all()
    words = {1: "bytes", 2: "halves", 4: "values"}[dtype.itemsize]
    assert seen[words if offset * dtype.itemsize % 4 == 0 else "values"] == 1


def test_a_source_at_any_address_is_read_by_words(seen):
    for start in (0, 1, 2, 7):
        room = torch.empty(2 * 3 * 4 * 37 + 8, dtype=torch.uint8)
        x = room[start : start + 2 * 3 * 4 * 37].view(2, 4, 37, 3).permute(0, 3, 1, 2)
        x.copy_(picture(2, 3, 4, 37))
        moved(x, (ga.RandomHorizontalFlip(),), torch.float32, LAST)
        moved(x, (), torch.float32, LAST)
    assert seen["words"] == 8 and seen["indirect"] == 0


def test_all_bytes_become_what_a_division_gives():
    x = torch.arange(256, dtype=torch.uint8).repeat(3, 1, 1)[None].contiguous(memory_format=LAST)
    got = moved(x, (), torch.float32, LAST)
    assert torch.equal(got[0, 1, 0], torch.arange(256) / 255)


def test_what_lies_between_two_launches_holds_every_level_exactly():
    keys = rng.Keys(1, 0, torch.arange(1), torch.zeros(1, dtype=torch.int64))
    for given, most in ((torch.arange(256, dtype=torch.uint8), 0.0), (torch.linspace(0, 1, 256), 2.0**-17 + 2.0**-25)):
        x = given.repeat(3, 3, 1)[None].contiguous(memory_format=LAST)
        frame = ir.Frame(torch.tensor([[3, 256]]), (3, 256), 3, x.dtype)
        between = executor.execute((rules.prepare((), frame, keys, torch.uint16),), x)
        assert between.dtype == torch.uint16 and between.stride() == (4 * 3 * 256, 1, 4 * 256, 4)
        got = executor.execute((rules.prepare((ir.Finish(torch.float32, FLAT),), frame, keys),), between)
        want = x / 255 if x.dtype == torch.uint8 else x
        assert (got - want).abs().max() <= most


def test_only_values_of_bytes_that_stay_in_range_are_kept_in_sixteen_bits():
    crop, jitter, ends = ga.RandomResizedCrop(8), ga.ColorJitter(0.1, 0.1), ga.ToDtype(torch.float32, scale=True)
    bytes_, floats = picture(2, 3, 9, 9), picture(2, 3, 9, 9, dtype=torch.float32)

    def kept(chain: list, x: torch.Tensor) -> list[torch.dtype]:
        frame = ir.Frame(torch.tensor([[9, 9]] * len(x)), (9, 9), x.shape[1], x.dtype)
        keys = rng.Keys(1, 0, torch.arange(len(x)), torch.zeros(len(x), dtype=torch.int64))
        policy = ga.Policy(chain, seed=1)
        return [s.stores[-1].dtype for s in executor.steps(policy._plan(keys, frame, policy._draw(keys, frame)))]

    assert kept([crop, jitter, ends], bytes_) == [torch.uint16, torch.float32]
    assert kept([crop, jitter, ends], floats) == [torch.float32] * 2
    assert kept([crop, jitter, ends], picture(2, 1, 9, 9)) == [torch.float32] * 2
    wide = ga.Normalize((0.5,) * 3, (0.5,) * 3)
    assert set(kept([ends, wide, crop, jitter], bytes_)) == {torch.float32}


@pytest.mark.parametrize("layout", [LAST, FLAT])
def test_an_average_of_one_byte_is_what_a_division_gives(layout, seen):
    x = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(1, 3, 8, 32).contiguous(memory_format=layout)
    got = moved(x, (ga.Resize((8, 32)),), torch.float32, LAST)
    assert seen["triangles"] == 1 and seen["taps"] == 0, "vacuous: nothing is averaged"
    assert torch.equal(got[0, 1].flatten(), torch.arange(256) / 255)


@pytest.mark.parametrize("dtype", DTYPES)
def test_averages_of_any_width_are_the_references(dtype, seen):
    x = picture(1, 3, 21, 34)
    for width in (1, 2, 7, 16, 33, 34, 36):
        policy = ga.Policy(
            [ga.RandomResizedCrop((5, width)), ga.RandomHorizontalFlip(), ga.ToDtype(dtype, scale=True)],
            seed=5,
            memory_format=LAST,
        )
        # each width is another sample, so that some are flipped
        got, want = (policy(x, ids=torch.tensor([width]), backend=b) for b in ("triton", "reference"))
        compare(got, want, "resample", f"{width} {dtype}")
        assert width == 1 or got.float().std() > 0.005, "vacuous: flat"
    whole = {"halves": 4, "bytes": 2, "values": 7}[{1: "bytes", 2: "halves", 4: "values"}[dtype.itemsize]]
    rounded = dtype == torch.bfloat16
    assert seen["triangles"] and seen[
        "values" if rounded else {1: "bytes", 2: "halves", 4: "values"}[dtype.itemsize]
    ] == (7 if rounded else whole)
