"""Encoded images for the tests of loading: the photographs that scikit-image's wheel carries, and every odd file that a
data set has been seen to hold."""

import io
import struct
import zlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


@cache
def photograph(width: int = 101, height: int = 67, name: str = "chelsea.png") -> Image.Image:
    """A photograph in odd sizes, so that no plane of chroma divides evenly."""
    spec = find_spec("skimage")
    assert spec is not None and spec.origin is not None
    with Image.open(Path(spec.origin).parent / "data" / name) as image:
        small = image.convert("RGB").resize((width, height))
    # without its colour profile, which readers complain of in what is converted to gray
    small.info.clear()
    return small


def encode(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    """A file's bytes."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def turned(orientation: int, form: str = "JPEG", **options) -> bytes:
    """The photograph with an EXIF orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(photograph(), form, exif=exif.tobytes(), **options)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, for what Pillow does not write: `rows` is a filter byte and packed samples, row by row."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    more = b"".join(chunk(k, b) for k, b in extra)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def deep(channels: int, colour: int) -> bytes:
    """A 16-bit PNG of 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA) channels."""
    values = (np.arange(23 * 31 * channels, dtype=np.uint32) * 4099 % 65536).astype(">u2").reshape(23, 31 * channels)
    return png(31, 23, 16, colour, b"".join(b"\0" + row.tobytes() for row in values))


@cache
def readable() -> dict[str, bytes]:
    """Every kind of file that is an image: what it is -> its bytes."""
    image, gray = photograph(), photograph().convert("L")
    half = Image.new("L", image.size, 128)
    half.paste(0, (0, 0, 30, 30))
    translucent = image.copy()
    translucent.putalpha(half)
    files = {
        "JPEG 4:2:0": encode(image, quality=90, subsampling="4:2:0"),
        "JPEG 4:2:2": encode(image, quality=90, subsampling="4:2:2"),
        "JPEG 4:4:4": encode(image, quality=90, subsampling="4:4:4"),
        "JPEG progressive": encode(image, quality=90, progressive=True),
        "JPEG restart markers": encode(image, quality=75, restart_marker_blocks=3),
        "JPEG gray": encode(gray),
        "JPEG CMYK": encode(image.convert("CMYK")),
        "JPEG of one pixel": encode(image.crop((0, 0, 1, 1))),
        "PNG": encode(image, "PNG"),
        "PNG gray": encode(gray, "PNG"),
        "PNG gray alpha": encode(translucent.convert("LA"), "PNG"),
        "PNG palette": encode(image.quantize(37), "PNG"),
        "PNG palette transparent": encode(image.quantize(16), "PNG", transparency=3),
        "PNG one bit": encode(gray.point(lambda v: 255 * (v > 120)).convert("1"), "PNG"),
        "PNG RGBA": encode(translucent, "PNG"),
        "PNG 16-bit gray": deep(1, 0),
        "PNG 16-bit gray alpha": deep(2, 4),
        "PNG 16-bit RGB": deep(3, 2),
        "PNG 16-bit RGBA": deep(4, 6),
        "WebP": encode(image, "WEBP", quality=80),
        "WebP lossless": encode(image, "WEBP", lossless=True),
        "WebP alpha": encode(translucent, "WEBP", lossless=True, exact=True),
        "BMP": encode(image, "BMP"),
        "BMP gray": encode(gray, "BMP"),
        "BMP palette": encode(image.quantize(16), "BMP"),
        "TIFF": encode(image, "TIFF"),
        "TIFF gray": encode(gray, "TIFF"),
        "TIFF LZW": encode(image, "TIFF", compression="tiff_lzw"),
        "TIFF 16-bit gray": encode(
            Image.fromarray((np.arange(23 * 31, dtype=np.uint32) * 911 % 65536).astype(np.uint16).reshape(23, 31)),
            "TIFF",
        ),
        "GIF": encode(image.quantize(64), "GIF"),
        "PPM": encode(image, "PPM"),
        "PGM": encode(gray, "PPM"),
    }
    files |= {f"JPEG EXIF {k}": turned(k, quality=92) for k in range(1, 9)}
    files |= {f"JPEG CMYK EXIF {k}": encode(image.convert("CMYK"), exif=exif(k)) for k in (3, 6)}
    files |= {f"PNG EXIF {k}": turned(k, "PNG") for k in (3, 6)}
    files |= {f"WebP EXIF {k}": turned(k, "WEBP", lossless=True) for k in (3, 6)}
    files |= {f"TIFF EXIF {k}": encode(image, "TIFF", tiffinfo={ORIENTATION: k}) for k in (3, 6)}
    return files


def exif(orientation: int) -> bytes:
    """The EXIF block that says an orientation."""
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block.tobytes()


@cache
def unreadable() -> dict[str, bytes]:
    """Files of which nobody can make an image: what they are -> their bytes."""
    whole = encode(photograph(), quality=90)
    scan = whole.index(b"\xff\xda")
    return {
        "nothing": b"",
        "one byte": b"\xff",
        "two bytes": b"\xff\xd8",
        "a page of HTML": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "text": b"the quick brown fox " * 40,
        "a JPEG cut in its scan": whole[: scan + (len(whole) - scan) // 2],
        "a JPEG's header": whole[: scan + 14],
        "a JPEG cut in its header": whole[: whole.index(b"\xff\xc0") + 4],
        # headers and ends are as they should be
        "a JPEG with a broken table": whole.replace(
            b"\xff\xc4\x00\x1f\x00\x00\x01", b"\xff\xc4\x00\x1f\x00\xff\xff", 1
        ),
        "a PNG with broken pixels": readable()["PNG"].replace(b"IDAT", b"IDAT\0\0", 1),
        "a PNG cut in its pixels": readable()["PNG"][:4000],
        "a PNG's header": readable()["PNG"][:33],
        "a WebP cut": readable()["WebP"][:300],
        "a BMP cut": readable()["BMP"][:3000],
        "zeros": bytes(5000),
    }


def claiming(width: int, height: int, form: str = "JPEG") -> bytes:
    """A small file whose header says that it is huge."""
    if form == "PNG":
        return png(width, height, 8, 2, bytes(1000))
    whole = bytearray(encode(photograph(), quality=90))
    frame = whole.index(b"\xff\xc0")
    whole[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(whole)


def fuzzed(count: int, form: str = "JPEG") -> list[bytes]:
    """Files of a kind with bytes flipped, cut out, doubled or cut off: from nothing but a counter, so the same ones
    everywhere."""
    bases = [data for what, data in readable().items() if what.startswith(form)]
    random, out = np.random.Generator(np.random.Philox(7)), []
    for k in range(count):
        data = bytearray(bases[k % len(bases)])
        for _ in range(int(random.integers(1, 12))):
            at = int(random.integers(2, 700 if random.random() < 0.6 else len(data)))
            data[at % len(data)] = int(random.integers(256))
        match k % 4:
            case 1:
                del data[int(random.integers(1, len(data))) :]
            case 2:
                at = int(random.integers(len(data)))
                del data[at : at + int(random.integers(1, 64))]
            case 3:
                at = int(random.integers(len(data)))
                data[at:at] = data[at // 2 : at // 2 + 64]
        out.append(bytes(data))
    return out


def segment(payload: bytes, code: int = 0xE1) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, code)) + struct.pack(">H", len(payload) + 2) + payload


def tagged(*tags: tuple[int, int, int, int], order: str = "MM", magic: int = 42) -> bytes:
    """An EXIF block with a directory of (tag, type, count, value)."""
    mark = ">" if order == "MM" else "<"
    body = order.encode() + struct.pack(f"{mark}HIH", magic, 8, len(tags))
    for tag, form, count, value in tags:
        packed = struct.pack(f"{mark}I", value) if form == 4 else struct.pack(f"{mark}HH", value, 0)
        body += struct.pack(f"{mark}HHI", tag, form, count) + packed
    return b"Exif\0\0" + body + bytes(4)


def with_segments(*payloads: bytes) -> bytes:
    """The photograph as a JPEG with segments after its first marker."""
    whole = encode(photograph(), quality=92)
    return whole[:2] + b"".join(segment(p) for p in payloads) + whole[2:]
