"""Loading: what a header says, without decoding; damaged files neither end the process nor hang it, with any
decoder."""

import io
import os
import sys
from pathlib import Path

import children
import encoded
import numpy as np
import pytest
import torch
from PIL import Image

from gpuaug.data import decode, headers
from gpuaug.data.decode_pillow import turn
from gpuaug.data.headers import Header, Undecodable
from gpuaug.data.heads import Heads, ordinary
from gpuaug.data.scan import HEIGHT, table

FILES, BAD = encoded.readable(), encoded.unreadable()
THERE = [name for name in decode.ORDER if not decode.missing(name)]


@pytest.mark.parametrize("what", FILES)
def test_a_header_says_what_pillow_says(what):
    header = headers.read(FILES[what])
    with Image.open(io.BytesIO(FILES[what])) as image:
        turned = image.getexif().get(encoded.ORIENTATION, 1)
        # before Pillow 11 a TIFF is turned upright, its size with it, when it is loaded
        image.load()
        upright = (image.height, image.width) if what.startswith("TIFF") or turned < 5 else (image.width, image.height)
        assert (header.kind, header.size) == ({"ppm": "pnm"}.get(image.format.lower(), image.format.lower()), upright)
        assert header.orientation == turned
    assert (
        header.plain == (not any(w in what for w in ("PNG EXIF", "WebP EXIF", "WebP alpha lossy")))
        or what == "WebP alpha"
    )
    assert header.bits == (
        16 if "16-bit" in what else 1 if what == "PNG one bit" else 4 if what == "PNG palette transparent" else 8
    )


def test_a_header_says_how_a_jpeg_is_coded():
    found = {what: headers.read(data) for what, data in FILES.items() if what.startswith("JPEG")}
    assert found["JPEG progressive"].coding == "progressive" and found["JPEG 4:2:0"].coding == "baseline"
    assert found["JPEG CMYK"].channels == 4 and found["JPEG gray"].channels == 1
    whole = bytearray(FILES["JPEG 4:2:0"])
    frame = whole.index(b"\xff\xc0")
    for code, coding in ((0xC1, "extended"), (0xC3, "lossless"), (0xC9, "arithmetic"), (0xC5, "hierarchical")):
        whole[frame + 1] = code
        assert headers.read(bytes(whole)).coding == coding
    whole[frame + 1], whole[frame + 4] = 0xC1, 12
    assert headers.read(bytes(whole)).bits == 12


TAG = encoded.ORIENTATION
ODD = {
    "big endian": (encoded.tagged((TAG, 3, 1, 6)), 6, True),
    "little endian": (encoded.tagged((TAG, 3, 1, 6), order="II"), 6, True),
    "among others": (encoded.tagged((0x010F, 3, 1, 7), (TAG, 3, 1, 8), (0x0131, 3, 1, 2)), 8, True),
    "none": (encoded.tagged((0x010F, 3, 1, 7)), 1, True),
    "zero": (encoded.tagged((TAG, 3, 1, 0)), 1, True),
    "nine": (encoded.tagged((TAG, 3, 1, 9)), 1, True),
    "long, big endian": (encoded.tagged((TAG, 4, 1, 6)), 1, False),
    "long, little endian": (encoded.tagged((TAG, 4, 1, 6), order="II"), 6, False),
    "twice in a block": (encoded.tagged((TAG, 3, 1, 6), (TAG, 3, 1, 3)), 6, False),
    "two values": (encoded.tagged((TAG, 3, 2, 6)), 6, False),
    "no order": (encoded.tagged((TAG, 3, 1, 6)).replace(b"MM", b"]M"), 1, False),
    "another magic": (encoded.tagged((TAG, 3, 1, 6), magic=43), 1, False),
    "cut off": (encoded.tagged((TAG, 3, 1, 6))[:20], 1, False),
}


# Pillow warns of damage that it reads over
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("what", ODD)
def test_odd_exif_is_read_alike_by_all_decoders(what):
    block, turned, plain = ODD[what]
    data = encoded.with_segments(block)
    header = headers.read(data)
    assert (header.orientation, header.plain) == (turned, plain)
    images = [decode.decoder(name, num_threads=1).decode([data]).images[0] for name in THERE]
    assert all(isinstance(image, torch.Tensor) and torch.equal(image, images[-1]) for image in images)
    assert tuple(images[0].shape[:2]) == header.size


def test_what_can_be_read_in_two_ways_is_not_plain():
    """DALI 2.4 ends the process at two blocks that disagree."""
    six, three = encoded.tagged((TAG, 3, 1, 6)), encoded.tagged((TAG, 3, 1, 3))
    whole = FILES["JPEG 4:2:0"]
    scan = whole.index(b"\xff\xda")
    frame = whole.index(b"\xff\xc0")
    odd = {
        "two blocks": encoded.with_segments(six, three),
        "a block before and one after the frame": (d := encoded.with_segments(six))[: d.index(b"\xff\xda")]
        + encoded.segment(three)
        + d[d.index(b"\xff\xda") :],
        "two frames": whole[:scan] + whole[frame : frame + 19] + whole[scan:],
        "a second beginning": whole[:2] + whole[:2] + whole[2:],
        "fill bytes": whole[:2] + b"\xff\xff\xff" + whole[2:],
        "bytes between segments": whole[:scan] + b"\0\1\2" + whole[scan:],
        "a size given again": whole[:scan] + encoded.segment(b"\0\1", 0xDC) + whole[scan:],
    }
    for what, data in odd.items():
        try:
            assert not headers.read(data).plain, what
        except Undecodable:
            assert what == "a second beginning"
    for name in THERE:
        images = decode.decoder(name, num_threads=1).decode([odd["two blocks"], odd["fill bytes"]]).images
        assert [tuple(image.shape) for image in images] == [(101, 67, 3), (67, 101, 3)], name
    assert headers.read(encoded.with_segments(b"http://ns.adobe.com/xap/1.0/\0<tiff:Orientation>6", b"Exif")).plain


def test_a_file_without_its_end_is_not_decoded_in_a_list():
    """What a broken download leaves would fail the list, which then is decoded again in parts."""
    for what in ("a JPEG cut in its scan", "a JPEG's header", "a PNG cut in its pixels", "a PNG's header"):
        assert not headers.read(BAD[what]).plain, what
    for more in (b"", b"\n", bytes(40)):
        assert headers.read(FILES["JPEG 4:2:0"] + more).plain and headers.read(FILES["PNG"] + more).plain
    for name in THERE:
        assert decode.decoder(name, num_threads=1).decode([FILES["JPEG 4:2:0"] + bytes(400)]).images[0].shape == (
            67,
            101,
            3,
        )


@pytest.mark.parametrize("turned", range(1, 9))
def test_exif_is_found_wherever_it_stands_and_nothing_else_is_taken_for_it(turned):
    """torchcodec looks into the first segment of its kind alone."""
    block, other = encoded.tagged((TAG, 3, 1, turned)), b"http://ns.adobe.com/xap/1.0/\0<x/>"
    for segments, wanted in (
        ([other, block], turned),
        ([block, other], turned),
        ([block.replace(b"Exif", b"exif")], 1),
        ([other, other], 1),
    ):
        data = encoded.with_segments(*segments)
        assert headers.read(data).orientation == wanted
        plain = turn(
            decode.decoder("pillow", num_threads=1).decode([encoded.with_segments()]).images[0].numpy(), wanted
        )
        for name in THERE:
            assert np.array_equal(decode.decoder(name, num_threads=1).decode([data]).images[0].numpy(), plain), name
    # what is usual stays with the decoder
    assert (
        headers.read(encoded.with_segments(block, other)).plain
        and headers.read(encoded.with_segments(other, encoded.tagged((0x010F, 3, 1, 7)))).plain
    )


def test_orientation_in_xmp_is_not_believed():
    text = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></x:xmpmeta>'
    for name in THERE:
        assert decode.decoder(name, num_threads=1).decode([encoded.with_segments(text)]).images[0].shape == (67, 101, 3)


def test_of_several_frames_the_first_is_decoded():
    first, others = encoded.photograph(), [encoded.photograph().rotate(k) for k in (90, 180)]
    for form, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})):
        data = encoded.encode(first, form, save_all=True, append_images=others, **options)
        for name in THERE:
            image = decode.decoder(name, num_threads=1).decode([data]).images[0]
            assert image.shape == (67, 101, 3), (form, name)
            assert form == "GIF" or np.array_equal(image.numpy(), np.array(first)), (form, name)


def test_pixels_that_are_no_8_or_16_bit_integers_are_refused_by_name():
    gray = encoded.photograph().convert("L")
    for mode in ("F", "I"):
        out = decode.decoder("pillow", num_threads=1).decode([encoded.encode(gray.convert(mode), "TIFF")])
        assert f"its pixels are {mode} numbers" in str(out.bad[0])


def test_any_part_of_any_file_gets_a_header_or_a_reason():
    parts = silent = 0
    for data in [*FILES.values(), *BAD.values()]:
        for end in [*range(min(len(data), 200)), *range(200, len(data), 97)]:
            try:
                assert isinstance(headers.read(data[:end]), Header)
            except Undecodable as error:
                silent += not str(error)
            parts += 1
    assert not silent
    random = np.random.Generator(np.random.Philox(11))
    for signature, _ in headers.SIGNATURES:
        for _ in range(200):
            try:
                header = headers.read(signature + random.bytes(int(random.integers(0, 90))))
                assert header.height > 0 and header.width > 0
            except Undecodable:
                parts += 1
    assert parts > 5000, "vacuous"


FUZZ = """
import faulthandler, sys
faulthandler.enable()
import encoded, numpy as np, torch
from gpuaug.data import decode
decoder = decode.decoder({name!r}, num_threads=2, max_pixels=10**6)
files = encoded.fuzzed(200) + encoded.fuzzed(75, "PNG") + encoded.fuzzed(50, "WebP") + [d for w, d in encoded.unreadable().items() if "PNG" in w] * 25
good, bad = 0, 0
for k in range(0, len(files) // 25 * 25, 25):
    whole = decoder.decode(files[k : k + 25])
    windows = np.array([[k % 30, i, 40, 40] for i in range(25)])
    parts = decoder.decode(files[k : k + 25], windows)
    for image, part, box in zip(whole.images, parts.images, parts.windows.tolist()):
        if isinstance(image, Exception) or isinstance(part, Exception):
            bad += 1
            continue
        good += 1
        assert image.dtype == torch.uint8 and image.shape[2] == 3 and part.shape[:2] == tuple(box[2:])
print(good, bad)
"""


@pytest.mark.parametrize("name", THERE)
def test_damaged_files_neither_end_the_process_nor_hang_it(name):
    paths = [str(Path(__file__).parent), *(p for p in sys.path if p)]
    done = children.run(
        [sys.executable, "-W", "ignore", "-c", FUZZ.format(name=name)],
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, f"{name} ended with {done.returncode}: {done.stderr[-2000:]}"
    good, bad = map(int, done.stdout.split()[-2:])
    assert good > 20 and bad > 20, f"vacuous: {good} images, {bad} damaged files"


def test_ordinary_headers_are_read_by_the_batch_as_they_are_one_by_one():
    files = [*encoded.readable().values(), *encoded.unreadable().values(), *encoded.fuzzed(1500)]
    files += [encoded.with_segments(b"JFXX\0\x10"), encoded.with_segments(encoded.tagged((0x0112, 3, 1, 6)))]
    known = 0
    for data, row in zip(files, table([memoryview(f) for f in files]).tolist(), strict=True):
        if row[HEIGHT]:
            assert ordinary(row) == headers.read(data), data[:40]
            known += 1
        assert row[HEIGHT] or not any(row), "a slot that says nothing of its size says something else"
    assert known > 200, "vacuous"
    ordinary_files = [
        data for what, data in encoded.readable().items() if what in ("JPEG 4:2:0", "JPEG progressive", "JPEG gray")
    ]
    assert table(ordinary_files)[:, HEIGHT].all(), "an ordinary file is read one by one"
    assert not table([ValueError("no bytes"), torch.zeros(2, 2, 3), b""]).any()


def test_headers_of_a_batch_are_those_of_its_files_one_by_one():
    files = [*encoded.readable().values(), b"nothing"] * 2
    decoder = decode.decoder("pillow", "cpu", 1)
    heads = decoder.inspect(files)
    listed = Heads.of(list(heads))
    assert 0 < len(heads.others) < len(heads) == len(listed.others) == len(files), "vacuous"
    for k, file in enumerate(files[:-1]):
        assert (heads[k] == headers.read(file)) if file != b"nothing" else isinstance(heads[k], Undecodable)
    assert heads[:3] == listed[:3] and heads[-2] == headers.read(files[-2]) and Heads.of(heads) is heads
    assert heads.sizes.tolist() == listed.sizes.tolist()
    assert heads.sizes.tolist() == [list(h.size) if isinstance(h, Header) else [0, 0] for h in heads]

    def takes(header):
        return header.kind == "jpeg" and header.channels == 3 and header.coding != "progressive"

    wanted = [k for k, h in enumerate(heads) if isinstance(h, Header) and takes(h)]
    rest = [k for k, h in enumerate(heads) if isinstance(h, Header) and not takes(h)]
    for given in (heads, listed):
        mine, others = given.which(takes)
        assert mine.tolist() == wanted and others == rest
    assert list(heads.some([5, 0, len(files) - 2])) == [heads[5], heads[0], heads[len(files) - 2]]
