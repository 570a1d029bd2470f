"""Whether a GPU decodes windows rightly: tried once, in a process of its own, since a decoder that does not may end its
process.

    python -m gpuaug.data.decode_check DEVICE

exits with 0 where windows of photographs are what is cut out of the whole images.
"""

import subprocess
import sys
from importlib import metadata

import numpy as np
import torch

from gpuaug.data.decode_dali import Pipe

# nvImageCodec that fails on ordinary windows or ends the process: github.com/NVIDIA/nvImageCodec/issues/55
FAILS = (0, 9)
SECONDS = 120.0


def windows(device: torch.device) -> str:
    """Why windows are not decoded on a device; empty where they are."""
    found = codec()
    if found >= FAILS:
        return f"nvImageCodec {'.'.join(map(str, found))} fails on ordinary windows"
    command = [sys.executable, "-m", "gpuaug.data.decode_check", str(device)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"a trial of windows had no end in {SECONDS:g} s"
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()
        return f"a trial of windows ended with {done.returncode}: {last[-1][:200] if last else 'no message'}"
    return ""


def codec() -> tuple[int, ...]:
    """The version of nvImageCodec that DALI uses; (999,) where it can't be told, which is trusted with nothing."""
    for name in ("nvidia-nvimgcodec-cu12", "nvidia-nvimgcodec-cu13"):
        try:
            return tuple(int(part) for part in metadata.version(name).split(".")[:3])
        except (metadata.PackageNotFoundError, ValueError):
            continue
    return (999,)


def trial(device: torch.device) -> str:
    """What is wrong with windows on a device, in this process; empty if nothing is."""
    import io

    from PIL import Image

    y, x = np.mgrid[0:375, 0:500]
    picture = np.stack([x * 255 // 499, y * 255 // 374, (x * y) % 256], 2).astype(np.uint8)
    data, boxes = [], []
    for k, sampling in enumerate(("4:4:4", "4:2:2", "4:2:0") * 4):
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "JPEG", quality=90, subsampling=sampling, progressive=k >= 6)
        data.append(np.frombuffer(out.getvalue(), np.uint8))
        # odd and even corners, inside and at every edge
        boxes.append(
            [
                (0, 0, 375, 500),
                (17, 33, 224, 224),
                (150, 275, 225, 225),
                (1, 0, 64, 499),
                (374, 499, 1, 1),
                (100, 3, 8, 300),
            ][k % 6]
        )
    wanted = np.array(boxes, np.int64)
    whole = Pipe(len(data), 2, device, region=False).run(data, wanted)
    parts = Pipe(len(data), 2, device, region=True).run(data, wanted)
    for image, part, (top, left, height, width) in zip(whole, parts, boxes, strict=True):
        expected = image[top : top + height, left : left + width]
        if part.shape != expected.shape:
            return f"the window {(top, left, height, width)} has the shape {tuple(part.shape)}"
        if not torch.equal(part, expected):
            return (
                f"the window {(top, left, height, width)} differs from the whole image by up to "
                f"{int((part.int() - expected.int()).abs().max())}"
            )
    return ""


if __name__ == "__main__":
    wrong = trial(torch.device(sys.argv[1]))
    print(wrong or "windows are decoded as whole images are")
    sys.exit(1 if wrong else 0)
