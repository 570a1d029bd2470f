"""Loading: decoders agree, find every bad file of a batch, cut windows out of nothing but the image, and say what they
are."""

import json
import os
import sys
import threading
from functools import cache

import children
import encoded
import numpy as np
import pytest
import torch
from shared import made_once

from gpuaug.data import decode, decode_batch, decode_check, decode_dali, decode_torch, headers
from gpuaug.data.decode_pillow import turn
from gpuaug.data.headers import Undecodable

THERE = [name for name in decode.ORDER if not decode.missing(name)]
EACH = pytest.mark.parametrize("name", THERE)
FILES, BAD = encoded.readable(), encoded.unreadable()
NAMES, ITEMS = list(FILES), list(FILES.values())


@cache
def made(name: str) -> decode_batch.Decoder:
    return decode.decoder(name, num_threads=2)


@cache
def expected() -> list[torch.Tensor]:
    images = made("pillow").decode(ITEMS).images
    assert not [image for image in images if isinstance(image, Exception)]
    return images


def test_the_decoders_of_a_usual_installation_are_there():
    assert {"torchvision", "pillow"} <= set(THERE)
    assert len(THERE) >= 3 or sys.platform != "linux", f"vacuous: only {THERE}"


@EACH
def test_decoders_give_the_same_pixels_of_every_kind_of_file(name):
    for what, image, wanted in zip(NAMES, made(name).decode(ITEMS).images, expected(), strict=True):
        assert isinstance(image, torch.Tensor), f"{what}: {image}"
        assert image.dtype == torch.uint8 and image.is_contiguous() and image.device.type == "cpu"
        assert torch.equal(image, wanted), f"{what} is not as Pillow has it"


def test_pixels_are_what_the_formats_say():
    """Against values that no decoder of ours has made."""
    image = dict(zip(NAMES, expected(), strict=True))
    photograph = torch.from_numpy(np.array(encoded.photograph()))
    for what in ("PNG", "PNG RGBA", "WebP lossless", "WebP alpha", "BMP", "TIFF", "TIFF LZW", "PPM"):
        assert torch.equal(image[what], photograph), what
    values = np.arange(23 * 31, dtype=np.uint32) * 4099 % 65536
    gray = torch.from_numpy(np.rint(values / 257).astype(np.uint8).reshape(23, 31, 1)).expand(-1, -1, 3)
    assert torch.equal(image["PNG 16-bit gray"], gray), "16 bits are scaled and rounded"
    for what, channels in (("PNG 16-bit RGB", 3), ("PNG 16-bit RGBA", 4)):
        values = (
            np.rint((np.arange(23 * 31 * channels, dtype=np.uint32) * 4099 % 65536) / 257)
            .astype(np.uint8)
            .reshape(23, 31, channels)
        )
        assert torch.equal(image[what], torch.from_numpy(values[..., :3])), what
    up = image["JPEG EXIF 1"]
    for k, (flips, transposed) in {
        2: ([1], 0),
        3: ([0, 1], 0),
        4: ([0], 0),
        5: ([], 1),
        6: ([1], 1),
        7: ([0, 1], 1),
        8: ([0], 1),
    }.items():
        stored = up.transpose(0, 1) if transposed else up
        assert torch.equal(image[f"JPEG EXIF {k}"], stored.flip(flips)), f"orientation {k}"


@EACH
def test_a_window_is_what_is_cut_out_of_the_whole_image(name):
    random = np.random.Generator(np.random.Philox(3))
    for _ in range(4):
        windows = np.array(
            [
                [*random.integers(0, (image.shape[0], image.shape[1])), *random.integers(1, 60, 2)]
                for image in expected()
            ]
        )
        out = made(name).decode(ITEMS, windows)
        for what, image, whole, (top, left, height, width) in zip(
            NAMES, out.images, expected(), out.windows.tolist(), strict=True
        ):
            assert torch.equal(image, whole[top : top + height, left : left + width]), (what, top, left, height, width)
        assert (out.windows[:, :2] == windows[:, :2]).all(), "vacuous: all windows were moved"
        assert (out.full == [image.shape[:2] for image in expected()]).all()


@EACH
def test_windows_are_clipped_to_the_upright_image_and_hold_a_pixel_at_least(name):
    files = [FILES["JPEG EXIF 6"]] * 6
    asked = [
        (-5, -5, 20, 20),
        (90, 60, 50, 50),
        (500, 500, 10, 10),
        (-50, -50, 10, 10),
        (10, 10, 0, 0),
        (0, 0, 1000, 1000),
    ]
    out = made(name).decode(files, np.array(asked))
    assert out.windows.tolist() == [
        [0, 0, 15, 15],
        [90, 60, 11, 7],
        [100, 66, 1, 1],
        [0, 0, 1, 1],
        [10, 10, 1, 1],
        [0, 0, 101, 67],
    ]
    assert [tuple(image.shape) for image in out.images] == [(h, w, 3) for _, _, h, w in out.windows.tolist()]


@EACH
def test_all_bad_files_of_a_batch_are_found_at_once_and_the_decoder_lives_on(name):
    decoder = made(name)
    for _ in range(3):
        mixed = [item for pair in zip(list(BAD.values()) * 2, ITEMS, strict=False) for item in pair]
        out = decoder.decode(mixed)
        assert sorted(out.bad) == list(range(0, len(mixed), 2)), [
            list(BAD)[i // 2 % len(BAD)] for i in set(range(0, len(mixed), 2)) ^ set(out.bad)
        ]
        for i, error in out.bad.items():
            assert isinstance(error, Undecodable) and str(error) and "\n" not in str(error), mixed[i][:20]
            assert out.addresses[i] == 0 and not out.full[i].any() and not out.windows[i].any()
        for image, wanted in zip(out.images[1::2], expected(), strict=False):
            assert torch.equal(image, wanted), "a neighbour's damage changed an image"
    assert torch.equal(decoder.decode([FILES["PNG"]]).images[0], expected()[NAMES.index("PNG")])
    assert len(decoder.decode(list(BAD.values())).bad) == len(BAD), "a batch of nothing but bad files"
    assert len(decoder.decode([])) == 0


@EACH
def test_the_batch_around_an_image_is_invisible(name):
    """Also to damage that one decoder forgives and another does not: what becomes of a file is decided alone."""
    files = [*encoded.fuzzed(24), *ITEMS[:8]]
    together, alone = made(name).decode(files), [made(name).decode([f]).images[0] for f in files]
    for a, b in zip(together.images, alone, strict=True):
        assert isinstance(a, Exception) == isinstance(b, Exception)
        assert isinstance(a, Exception) or torch.equal(a, b)
    assert 4 < len(together.bad) < 28, "vacuous"


@pytest.fixture(scope="module")
def peaks(request) -> dict[str, int]:
    """MB that each decoder asks for where files claim to be huge, measured in one process that has nothing else to do;
    nothing where the system does not tell."""
    code = f"""if True:
        import json, re, sys
        from pathlib import Path
        sys.path.insert(0, {str(os.path.dirname(__file__))!r})
        import encoded
        from gpuaug.data import decode

        def highest():
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

        found, huge = {{}}, [encoded.claiming(65000, 65000), encoded.claiming(100000, 100000, "PNG")]
        for name in {THERE!r}:
            d = decode.decoder(name, num_threads=1)
            d.decode([encoded.readable()["JPEG 4:2:0"]])
            # the highest is counted from here on
            Path("/proc/self/clear_refs").write_text("5")
            before = highest()
            assert len(d.decode(huge).bad) == 2
            found[name] = (highest() - before) // 1024
        print(json.dumps(found))
    """

    def ran() -> dict[str, int]:
        command = [sys.executable, "-W", "ignore", "-c", code]
        done = children.run(command, env=environment())
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return made_once(request, "decode_peaks", ran) if sys.platform == "linux" else {}


@EACH
def test_a_huge_image_is_refused_by_its_header_before_memory_is_asked_for(name, peaks):
    decoder = decode.decoder(name, num_threads=1, max_pixels=101 * 67)
    files = [
        encoded.claiming(65000, 65000),
        encoded.claiming(100_000, 100_000, "PNG"),
        encoded.claiming(101, 68),
        FILES["JPEG 4:2:0"],
    ]
    out = decoder.decode(files)
    assert list(out.bad) == [0, 1, 2]
    assert "65000 x 65000" in str(out.bad[0]) and "max_pixels=6767" in str(out.bad[0])
    assert sys.platform != "linux" or peaks[name] < 16, f"{peaks[name]} MB were asked for"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


@EACH
def test_what_is_no_file_passes_through(name):
    image = torch.arange(20 * 30 * 3, dtype=torch.uint8).view(20, 30, 3)
    gone = OSError("no such file")
    items = [
        image,
        gone,
        image[..., :1],
        torch.cat([image, image[..., :1]], 2),
        FILES["PNG"],
        bytearray(FILES["PNG"]),
        memoryview(FILES["PNG"]),
    ]
    out = made(name).decode(items, np.array([[2, 3, 10, 11]] * len(items)))
    cut = image[2:12, 3:14]
    assert torch.equal(out.images[0], cut) and out.images[1] is gone
    assert torch.equal(out.images[2], cut[..., :1].expand(-1, -1, 3)) and torch.equal(out.images[3], cut)
    assert torch.equal(out.images[4], out.images[5]) and torch.equal(out.images[4], out.images[6])
    assert made(name).decode([image]).images[0].data_ptr() == image.data_ptr(), (
        "an image that is there already was copied"
    )


@EACH
def test_images_outlive_the_batches_after_them(name):
    first = made(name).decode([FILES["JPEG 4:2:0"], FILES["PNG"]])
    before = [image.clone() for image in first.images]
    assert first.addresses.tolist() == [image.data_ptr() for image in first.images]
    for _ in range(20):
        made(name).decode([FILES["JPEG 4:4:4"]] * 8)
    assert all(torch.equal(a, b) for a, b in zip(first.images, before, strict=True))


@EACH
def test_threads_may_decode_side_by_side(name):
    results: dict[int, list] = {}

    def work(k: int) -> None:
        results[k] = [made(name).decode([*ITEMS[k:], *ITEMS[:k]]).images for _ in range(3)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    for k in range(3):
        for images in results[k]:
            assert all(torch.equal(a, b) for a, b in zip(images, [*expected()[k:], *expected()[:k]], strict=True))


def test_batches_larger_than_a_pipeline_was_built_for_are_decoded():
    count = decode_dali.CAPACITY + 3
    for name in THERE:
        out = made(name).decode([FILES["JPEG of one pixel"], FILES["JPEG gray"]] * (count // 2))
        assert not out.bad and len(out) == count // 2 * 2


def test_headers_may_be_read_once_and_handed_in():
    decoder = made("pillow")
    heads = decoder.inspect([*ITEMS, b"nothing"])
    assert [h.size for h in heads[:-1]] == [tuple(image.shape[:2]) for image in expected()] and isinstance(
        heads[-1], Undecodable
    )
    assert torch.equal(decoder.decode(ITEMS[:1], None, heads[:1]).images[0], expected()[0])


# ---- which one


def test_auto_takes_the_first_that_is_there_and_says_why_not_another():
    made_ = decode.decoder()
    assert made_.name == THERE[0]
    text = made_.describe()
    for name in decode.ORDER:
        assert name == made_.name or f"not {name}: " in text, text
    assert f"{made_.num_threads} threads" in text


@EACH
def test_a_decoder_says_what_it_is(name):
    text = made(name).describe()
    assert "2 threads" in text and "CPU" in text and any(c.isdigit() for c in text), text


def test_a_missing_decoder_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(decode_dali, "installed", lambda name: False)
    assert "pip install nvidia-dali-cuda120" in decode.missing("dali")
    with pytest.raises(ValueError, match="decoder='dali' can't be had: not installed"):
        decode.decoder("dali")
    assert decode.decoder().name != "dali" and "not dali: not installed" in decode.decoder().describe()
    monkeypatch.setattr(decode_dali, "installed", lambda name: True)
    assert "both installed" in decode.missing("dali")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            dict(name="opencv"),
            "decoder must be 'auto' or one of 'dali', 'torchcodec', 'torchvision', 'pillow', got 'opencv'",
        ),
        (dict(device="mps"), "on the CPU or on a CUDA device, got device='mps'"),
        (dict(num_threads=0), "num_threads must be at least 1, got 0"),
        (dict(max_pixels=0), "max_pixels must be at least 1, got 0"),
    ],
)
def test_bad_arguments_of_a_decoder_are_said_in_words(arguments, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        decode.decoder(**arguments)


def test_bad_windows_are_said_in_words():
    for windows in (np.zeros((2, 4), int), np.zeros((1, 3), int), np.zeros((1, 4))):
        with pytest.raises(ValueError, match=r"windows must be \[1, 4\] integers"):
            made("pillow").decode([FILES["PNG"]], windows)


@EACH
def test_a_closed_decoder_says_so_and_leaves_no_thread(name):
    decoder = decode.decoder(name, num_threads=3)
    decoder.decode(ITEMS)
    decoder.close()
    decoder.close()
    assert not [
        t for t in threading.enumerate() if t.name == f"gpuaug-{name}" and t in vars(decoder).get("_pool")._threads
    ]
    with pytest.raises(RuntimeError, match="closed, or belongs to another process"):
        decoder.decode(ITEMS)


# ---- what a card needs, as far as it can be tried without one


def test_a_list_that_fails_is_halved_until_the_bad_are_alone():
    calls = []

    def together(part: slice) -> list[torch.Tensor]:
        calls.append(part)
        if any(k in (3, 4, 17) for k in range(part.start, part.stop)):
            raise RuntimeError("nvjpegDecodeBatched failed:\n 5")
        return [torch.full((1, 1, 3), k) for k in range(part.start, part.stop)]

    out = decode_batch.halved(together, 0, 20)
    assert [k for k, image in enumerate(out) if isinstance(image, Exception)] == [3, 4, 17]
    assert all(isinstance(image, Exception) or int(image[0, 0, 0]) == k for k, image in enumerate(out))
    assert str(out[3]) == "nvjpegDecodeBatched failed: 5" and len(calls) < 30


def test_an_image_that_was_not_written_is_found():
    written = [image for image in expected() if image.numel() >= decode_torch.PROBES]
    black, stale = (
        torch.zeros(67, 101, 3, dtype=torch.uint8),
        torch.full((3, 40, 30), 165, dtype=torch.uint8).permute(1, 2, 0),
    )
    small, planar = torch.zeros(1, 1, 3, dtype=torch.uint8), written[0].permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert decode_torch.unwritten([written[0], black, Undecodable("x"), stale, small, planar, *written]) == [1, 3]
    assert len(written) > 20 and decode_torch.unwritten([]) == []


def test_a_gpu_turns_images_as_the_cpu_does():
    image = torch.arange(4 * 5 * 3, dtype=torch.uint8).view(4, 5, 3)
    for k in range(1, 9):
        assert torch.equal(decode_torch.upright(image, k), torch.from_numpy(turn(image.numpy(), k))), k


def test_what_a_gpu_cannot_decode_goes_to_the_cpu_by_its_header():
    takes = {what: decode_torch.CudaDecoder.takes(None, headers.read(data)) for what, data in FILES.items()}  # type: ignore[arg-type]
    assert all(takes[what] for what in ("JPEG 4:2:0", "JPEG progressive", "JPEG gray", "JPEG EXIF 6"))
    assert not [what for what, taken in takes.items() if taken and (not what.startswith("JPEG") or "CMYK" in what)]
    plain = headers.read(FILES["JPEG 4:2:0"])
    for odd in (
        plain._replace(bits=12),
        plain._replace(coding="lossless"),
        plain._replace(coding="arithmetic"),
        plain._replace(plain=False),
    ):
        assert not decode_torch.CudaDecoder.takes(None, odd)  # type: ignore[arg-type]


def test_windows_on_a_gpu_need_a_version_that_can_and_a_trial_in_a_child(monkeypatch):
    device = torch.device("cuda", 0)
    for version in ((0, 9, 0), (0, 10), (999,)):
        monkeypatch.setattr(decode_check, "codec", lambda version=version: version)
        assert "fails on ordinary windows" in decode_check.windows(device)
    monkeypatch.setattr(decode_check, "codec", lambda: (0, 8, 0))
    if not torch.cuda.is_available():
        assert "a trial of windows ended with 1" in decode_check.windows(device)
    monkeypatch.setattr(decode_check, "SECONDS", 0.01)
    assert "had no end" in decode_check.windows(device)


def test_the_trial_of_windows_passes_where_they_are_right_and_fails_where_not(monkeypatch):
    assert decode_check.trial(torch.device("cpu")) == ""
    run = decode_dali.Pipe.run

    def shifted(self, data, windows, stream=None):
        return run(self, data, np.concatenate([np.maximum(windows[:, :2] - 1, 0), windows[:, 2:]], 1), stream)

    monkeypatch.setattr(decode_dali.Pipe, "run", shifted)
    assert "differs from the whole image" in decode_check.trial(torch.device("cpu"))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.uint64])
def test_windows_are_clipped_to_their_images_and_keep_a_pixel(dtype):
    rng = np.random.default_rng(3)
    full = rng.integers(1, 40, (200, 2))
    full[::20] = 0
    given = np.asfortranarray(rng.integers(0 if np.dtype(dtype).kind == "u" else -30, 60, (200, 4)).astype(dtype))
    seen = 0
    for window, size, got in zip(
        given.tolist(), full.tolist(), decode_batch.clipped(given, full).tolist(), strict=True
    ):
        for axis in (0, 1):
            start = min(max(window[axis], 0), max(size[axis] - 1, 0))
            end = min(max(window[axis] + window[axis + 2], min(start + 1, size[axis])), size[axis])
            assert (got[axis], got[axis + 2]) == (start, end - start)
            seen += (start, end - start) != (window[axis], window[axis + 2])
    assert seen > 100, "vacuous"
