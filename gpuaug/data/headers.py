"""What a file says about its image before anything is decoded: its kind, its size, and which way up it is.

A header decides three things: whether the image is decoded at all (a file of a hundred bytes may claim a billion
pixels), which decoder may be trusted with it, and, since windows are drawn for the upright image, how large that is.
Only the header is read, and no memory is asked for."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

Encoded = bytes | bytearray | memoryview

ORIENTATION = 0x0112
# frames of a JPEG: how the coefficients are coded, by the code of the marker
CODINGS = {
    0xC0: "baseline",
    0xC1: "extended",
    0xC2: "progressive",
    0xC3: "lossless",
    0xC9: "arithmetic",
    0xCA: "arithmetic",
    0xCB: "lossless",
}
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# a JPEG's last marker, which never stands in a scan; a few bytes may follow it
END = b"\xff\xd9"
# markers without a length: TEM, the restart markers
BARE = {0x01, *range(0xD0, 0xD8)}
# a marker and the length after it
MARKER = struct.Struct(">HH").unpack_from


class Undecodable(ValueError):
    """Why there is no image in these bytes, or none that may be decoded.  A value in a list rather than raised: one bad
    file is no reason to lose a batch."""


class Header(NamedTuple):
    """An image's header.  `height` and `width` are as stored; `size` is that of the upright image."""

    kind: str
    height: int
    width: int
    orientation: int = 1
    channels: int = 3
    bits: int = 8
    coding: str = ""
    # one frame, one EXIF block at most, well formed, nothing between the segments: all readers of such a file see the
    # same size.  DALI 2.4 writes past its memory where two blocks disagree about the orientation.  And an end: a file
    # that is cut off would fail the list that it is decoded in
    plain: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright image: orientations 5 to 8 lie on their side."""
        return (self.width, self.height) if self.orientation > 4 else (self.height, self.width)


def read(data: Encoded) -> Header:
    """The header of an encoded image; raises Undecodable where there is none, or it makes no sense."""
    head = bytes(data[:16])
    if not head:
        raise Undecodable("the file is empty")
    parse = next((parse for signature, parse in SIGNATURES if head.startswith(signature)), None)
    if parse is None:
        raise Undecodable(
            f"not an image of a known kind: it begins with {head!r}; JPEG, PNG, WebP, BMP, TIFF, GIF and PNM are read"
        )
    try:
        header = parse(memoryview(data))
    except (struct.error, IndexError):
        raise Undecodable("the header is cut off") from None
    if header.height < 1 or header.width < 1:
        raise Undecodable(f"the header says {header.height} x {header.width} pixels")
    return header


# ---- EXIF


def orientation(tiff: memoryview) -> tuple[int, bool]:
    """What the first directory of a TIFF structure says is up, 1 to 8, 1 where it says nothing that makes sense; and
    whether all readers must see the same.

    The value is read as 16 bits whatever type is given for it, as all decoders here do.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(tiff[:4]))
    if order is None or len(tiff) < 8:
        return 1, False
    found, clear = [], True
    try:
        at = struct.unpack_from(f"{order}I", tiff, 4)[0]
        for k in range(struct.unpack_from(f"{order}H", tiff, at)[0]):
            tag, form, count, value = struct.unpack_from(f"{order}HHIH", tiff, at + 2 + 12 * k)
            if tag == ORIENTATION:
                found.append(value)
                clear = clear and form == 3 and count == 1
    except struct.error:
        # a directory that is cut off says what it said until there
        clear = False
    return (found[0] if found and 1 <= found[0] <= 8 else 1), clear and len(found) < 2


# ---- kinds


def _jpeg(data: memoryview) -> Header:
    at, end, frame, plain, turned = 2, len(data), None, True, 1
    exifs = others = 0
    while True:
        marker, length = MARKER(data, at)
        code = marker & 0xFF
        if marker < 0xFF01 or code == 0xFF:
            # fill bytes, or what does not belong here: libjpeg looks for the next marker
            plain, at = False, at + 1
            continue
        if code in BARE:
            plain, at = False, at + 2
            continue
        if code == 0xD9:
            raise Undecodable("a JPEG without pixels")
        after = at + 2 + length
        if after > end or length < 2:
            raise Undecodable("the header is cut off")
        if code == 0xDA:
            break
        if code in FRAMES:
            plain = plain and frame is None
            if frame is None:
                bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
                plain = plain and after == at + 10 + 3 * channels
                frame = (height, width, channels, bits, CODINGS.get(code, "hierarchical"))
        elif code == 0xE1:
            if bytes(data[at + 4 : at + 10]) == b"Exif\0\0":
                exifs += 1
                if exifs == 1:
                    turned, clear = orientation(data[at + 10 : after])
                    # torchcodec looks into the first segment of this kind alone, whatever it calls itself
                    plain = plain and clear and (turned == 1 or not others)
                else:
                    plain = False
            else:
                others += 1
                plain = plain and bytes(data[at + 10 : at + 12]) not in (b"II", b"MM")
        elif code in (0xD8, 0xDC, 0xDE, 0xDF):
            # another image's beginning, or a size that is given again
            plain = False
        at = after
    if frame is None:
        raise Undecodable("a JPEG without a frame")
    height, width, channels, bits, coding = frame
    plain = plain and END in bytes(data[-64:])
    return Header("jpeg", height, width, turned, channels, bits, coding, plain)


def _png(data: memoryview) -> Header:
    length, name, width, height, bits, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if name != b"IHDR":
        raise Undecodable("a PNG whose first chunk is no header")
    turned, plain, at = 1, length == 13, 8 + 12 + length
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"eXIf":
            plain = False
            if turned == 1:
                turned, _ = orientation(data[at + 8 : at + 8 + length])
        elif name in (b"IHDR", b"acTL"):
            plain = False
        elif name == b"IEND":
            break
        at += 12 + length
    else:
        # cut off
        plain = False
    return Header("png", height, width, turned, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 0), bits, "", plain)


def _webp(data: memoryview) -> Header:
    if bytes(data[8:12]) != b"WEBP":
        raise Undecodable("a RIFF file that is no WebP")
    name = bytes(data[12:16])
    if name == b"VP8 ":
        width, height = (v & 0x3FFF for v in struct.unpack_from("<HH", data, 26))
        return Header("webp", height, width)
    if name == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return Header("webp", (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1)
    if name != b"VP8X":
        raise Undecodable(f"a WebP that begins with {name!r}")
    flags, (wide, high) = data[20], (int.from_bytes(data[k : k + 3], "little") + 1 for k in (24, 27))
    turned, at = 1, 12
    while flags & 0x08 and at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            block = data[at + 8 : at + 8 + length]
            turned, _ = orientation(block[6:] if bytes(block[:6]) == b"Exif\0\0" else block)
            break
        at += 8 + length + length % 2
    # bit 1: several frames; they are decoded as the first
    return Header("webp", high, wide, turned, coding="animated" if flags & 0x02 else "", plain=False)


def _bmp(data: memoryview) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH", data, 18) if size == 12 else struct.unpack_from("<ii", data, 18)
    # a negative height is a picture stored from its top row on
    return Header("bmp", abs(height), width)


def _tiff(data: memoryview) -> Header:
    order = "<" if data[0] == 0x49 else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    values: dict[int, int] = {}
    for k in range(struct.unpack_from(f"{order}H", data, at)[0]):
        tag, form, count = struct.unpack_from(f"{order}HHI", data, at + 2 + 12 * k)
        where = at + 10 + 12 * k
        if tag == 258 and count > 2:
            (where,) = struct.unpack_from(f"{order}I", data, where)
        if tag in (256, 257, 258, 277):
            values.setdefault(tag, struct.unpack_from(f"{order}{'I' if form == 4 else 'H'}", data, where)[0])
    turned, _ = orientation(data)
    return Header("tiff", values.get(257, 0), values.get(256, 0), turned, values.get(277, 1), values.get(258, 1))


def _gif(data: memoryview) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("gif", height, width)


def _words(data: memoryview) -> Iterator[int]:
    """The numbers of a PNM's header; a # begins a comment that ends with its line."""
    at, head = 2, bytes(data[:4096])
    while True:
        while head[at : at + 1].isspace() or head[at : at + 1] == b"#":
            at = head.index(b"\n", at) + 1 if head[at] == 0x23 else at + 1
        end = at
        while head[end : end + 1].isdigit():
            end += 1
        yield int(head[at:end])
        at = end


def _pnm(data: memoryview) -> Header:
    magic, words = data[1] - 0x30, _words(data)
    try:
        width, height = next(words), next(words)
        deepest = 1 if magic in (1, 4) else next(words)
    except ValueError:
        raise Undecodable("the header of a PNM makes no sense") from None
    return Header("pnm", height, width, 1, 3 if magic in (3, 6) else 1, 16 if deepest > 255 else 8)


SIGNATURES = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"RIFF", _webp),
    (b"BM", _bmp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    *((b"P%d" % k, _pnm) for k in range(1, 7)),
)
