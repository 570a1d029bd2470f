"""Which decoder: `decoder("auto", device)` takes the fastest one that is there, and says why it took none of the
others."""

from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec

import torch

from gpuaug.data import decode_check, decode_dali
from gpuaug.data.decode_batch import MAX_PIXELS, Decoder
from gpuaug.data.decode_dali import CudaDaliDecoder, DaliDecoder
from gpuaug.data.decode_torch import (
    CudaTorchcodecDecoder,
    CudaTorchvisionDecoder,
    PillowDecoder,
    TorchcodecDecoder,
    TorchvisionDecoder,
)
from gpuaug.loading import uncollected

# the fastest first, measured on a CPU
ORDER = ("dali", "torchcodec", "torchvision", "pillow")
TORCHCODEC = (0, 17)


def decoder(
    name: str = "auto", device: torch.device | str = "cpu", num_threads: int | None = None, max_pixels: int = MAX_PIXELS
) -> Decoder:
    """A decoder by name: "dali", "torchcodec", "torchvision", "pillow"; "auto": the first of these that is installed.

    device: where the images shall be.  A GPU decodes by DALI or torchcodec, or by torchvision if that is named; Pillow,
    and "auto" where neither is installed, decode on the CPU, and the images are in its memory (`Decoder.device` says
    where).  Raises ValueError for a name that can't be had, and says why."""
    place = torch.device(device)
    if place.type not in ("cpu", "cuda"):
        raise ValueError(f"images are decoded on the CPU or on a CUDA device, got device={str(device)!r}")
    if name not in ("auto", *ORDER):
        raise ValueError(f"decoder must be 'auto' or one of {', '.join(map(repr, ORDER))}, got {name!r}")
    if name != "auto":
        why = missing(name)
        if why:
            raise ValueError(f"decoder={name!r} can't be had: {why}")
        return _made(name, place, num_threads, max_pixels)
    others: dict[str, str] = {}
    taken = ""
    for candidate in ORDER:
        # what is slower than the one that is taken is not loaded: it would cost seconds and hundreds of megabytes
        why = missing(candidate, load=not taken) or (f"{taken} is faster" if taken else "")
        if why:
            others[candidate] = why
        else:
            taken = candidate
    # torchvision's decoding on a GPU is deprecated and races: only who names it gets it
    made = _made(taken, place if taken in ("dali", "torchcodec") else torch.device("cpu"), num_threads, max_pixels)
    made.others = others
    return made


def _made(name: str, device: torch.device, num_threads: int | None, max_pixels: int) -> Decoder:
    here: dict[str, Callable[[int | None, int], Decoder]] = {
        "dali": DaliDecoder,
        "torchcodec": TorchcodecDecoder,
        "torchvision": TorchvisionDecoder,
        "pillow": PillowDecoder,
    }
    if device.type == "cpu" or name == "pillow":
        return here[name](num_threads, max_pixels)
    if name == "dali":
        index = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        why = decode_check.windows(index)
        return CudaDaliDecoder(index, num_threads, max_pixels, region=not why, why=why)
    return (CudaTorchcodecDecoder if name == "torchcodec" else CudaTorchvisionDecoder)(device, num_threads, max_pixels)


# ---- what is there


def missing(name: str, load: bool = True) -> str:
    """Why a decoder can't be had; empty if it can.  load: import it, which some can't be."""
    found: dict[str, Callable[[], tuple[str, str]]] = {
        "dali": _dali,
        "torchcodec": _torchcodec,
        "torchvision": _torchvision,
        "pillow": lambda: ("", "PIL.Image"),
    }
    why, module = found[name]()
    return why if why or not load else _importing(module)


def _dali() -> tuple[str, str]:
    """Why it is not installed as it should be, and what to import."""
    both = [n for n in ("nvidia-dali-cuda120", "nvidia-dali-cuda130") if decode_dali.installed(n)]
    why = ""
    if len(both) == 2:
        why = (
            "nvidia-dali-cuda120 and nvidia-dali-cuda130 are both installed and overwrite each other; "
            "uninstall both, then install the one for your CUDA"
        )
    elif not both:
        why = "not installed; pip install nvidia-dali-cuda120, or nvidia-dali-cuda130 for CUDA 13"
    return why, "nvidia.dali"


def _torchcodec() -> tuple[str, str]:
    """As `_dali`."""
    why = ""
    if find_spec("torchcodec") is None:
        why = "not installed; pip install 'torchcodec>=0.17', in the version that goes with your torch"
    else:
        found = metadata.version("torchcodec")
        if tuple(int(part) for part in found.split("+")[0].split(".")[:2]) < TORCHCODEC:
            why = f"version {found} is too old; 0.17 or newer is needed"
    return why, "torchcodec.decoders"


def _torchvision() -> tuple[str, str]:
    """As `_dali`."""
    return "" if find_spec("torchvision") else "not installed; pip install torchvision", "torchvision.io"


def _importing(module: str) -> str:
    try:
        with uncollected():
            import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        return f"can't be loaded: {' '.join(str(error).split())[:200]}"
    return ""
