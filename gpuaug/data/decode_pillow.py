"""Decoding by Pillow, one image at a time: it reads every kind of file, and what it makes of one is what the other
decoders must make of it.

Upright, RGB, uint8.  Where Pillow alone would do otherwise than DALI, DALI is followed: 16 bits are scaled to 8 and
neither clipped nor cut off, alpha is dropped, and the orientation is the header's (Pillow's own helper believes XMP
too)."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gpuaug.data.headers import Encoded, Header, Undecodable

# only the reader of the kind that the header names, since others start programs or open files
READERS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF", "gif": "GIF", "pnm": "PPM"}
# what Pillow raises for files that are damaged: SyntaxError and its like from the readers of PNG and TIFF
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    Warning,
)
# 16-bit PNGs in colours, of which Pillow keeps 8: how it unpacks their samples -> unpackers under which all bytes come
# out, the upper ones first
BYTES = {"RGB;16B": ("RGB;16B", "RGB;16L"), "RGBA;16B": ("RGBA;16B", "RGBA;16L"), "LA;16B": ("RGBA",)}


def decode(data: Encoded, header: Header) -> Tensor:
    """One image as [H, W, 3] uint8, upright; raises Undecodable with Pillow's reason."""
    try:
        with Image.open(io.BytesIO(data), formats=(READERS[header.kind],)) as image:
            # of a TIFF Pillow shows the upright picture, of all else the stored one
            height, width, orientation = (*header.size, 1) if header.kind == "tiff" else header[1:4]
            # before Pillow 11 a TIFF that lies on its side has its stored size until it is loaded
            _check((height, width), image.size[::-1], (header.height, header.width))
            pixels = (
                _deep(data, image)
                if header.kind == "png" and header.bits == 16 and image.mode != "I;16"
                else _pixels(image, header)
            )
            _check((height, width), pixels.shape[:2])
            return torch.from_numpy(turn(pixels, orientation))
    except Undecodable:
        raise
    except (Image.DecompressionBombError, *DAMAGED) as error:
        raise Undecodable(_reason(error)) from None


def _check(said: tuple[int, int], found: tuple[int, ...], *also: tuple[int, int]) -> None:
    """Raise unless the height and width that Pillow finds are those that the header says, or may be besides."""
    if found not in (said, *also):
        raise Undecodable(f"its header says {said[0]} x {said[1]} pixels, Pillow finds {found[0]} x {found[1]}")


def _reason(error: BaseException) -> str:
    """In one line, without the address of the buffer that Pillow names for want of a file."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "the file is damaged" if "BytesIO" in text else text[:200]


def _pixels(image: Image.Image, header: Header) -> np.ndarray[Any, Any]:
    """[H, W, 3] uint8, as stored."""
    image.load()
    if image.mode == "I" and header.kind in ("png", "pnm"):
        return narrow(np.asarray(image)[..., None])
    if image.mode in ("LAB", "HSV"):
        raise _unread(image)
    return as_rgb(image)


def as_rgb(image: Image.Image) -> np.ndarray[Any, Any]:
    """[H, W, 3] uint8 of an image of Pillow, which stays as it is.  Raises Undecodable for what is no colour."""
    if image.mode.startswith("I;16"):
        return narrow(np.asarray(image)[..., None])
    if image.mode in ("I", "F"):
        raise _unread(image)
    if "transparency" in image.info:
        # the colour that means transparency is a colour here, and converting warns of it
        image = image.copy()
        del image.info["transparency"]
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _unread(image: Image.Image) -> Undecodable:
    return Undecodable(f"its pixels are {image.mode} numbers; only images of 8 or 16 bits are read: convert it first")


def _deep(data: Encoded, image: Any) -> np.ndarray[Any, Any]:
    """[H, W, 3] uint8 of a 16-bit PNG in colours or with alpha: its samples are unpacked as bytes, then rounded."""
    unpackers, halves = BYTES[str(image.tile[0][3])], []
    for unpacker in unpackers:
        again: Any
        with Image.open(io.BytesIO(data), formats=("PNG",)) as again:
            # a named tuple since Pillow 11, a plain one before
            tile = again.tile[0]
            again.tile = [tile._replace(args=unpacker) if hasattr(tile, "_replace") else (*tile[:3], unpacker)]
            halves.append(np.array(again).astype(np.uint32))
    if len(halves) == 1:
        # gray and alpha of two bytes each stand where red, green, blue and alpha would
        return narrow(halves[0][..., :1] << 8 | halves[0][..., 1:2])
    return narrow(halves[0] << 8 | halves[1])


def narrow(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[H, W, C] of 16 bits as [H, W, 3] uint8: 65535 becomes 255, rounded; alpha is dropped."""
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else np.broadcast_to(pixels[..., :1], (*pixels.shape[:2], 3))
    return ((colours.astype(np.uint32) + 128) // 257).astype(np.uint8)


def turn(pixels: np.ndarray[Any, Any], orientation: int) -> np.ndarray[Any, Any]:
    """[H, W, C] as stored, turned upright as EXIF says; contiguous."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
