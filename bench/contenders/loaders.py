"""Who goes from a folder of JPEG files to batches: loaders that augment, and decoders alone.

Each gives the images of a folder in torchvision's order, batch by batch; the last one only where it is whole."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gpuaug as ga
from bench.contenders import words
from bench.contenders.registry import Absent
from bench.scenarios import Workload

Epoch = Callable[[], Iterator[Any]]
SIDE = 224


@dataclass(frozen=True)
class Folder:
    """What all are given.  workers: processes or threads."""

    root: Path
    workload: Workload  # whose batch is that of the loaders
    workers: int

    @property
    def files(self) -> list[Path]:
        """In the order of ImageFolder."""
        return sorted(self.root.rglob("*.jpg"))

    @property
    def batches(self) -> int:
        """Whole ones."""
        return len(self.files) // self.workload.batch


def dataloader(folder: Folder, read: str) -> Epoch:
    """torchvision's ImageFolder behind torch's DataLoader; workers stay alive between epochs."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    steps = words.torchvision(folder.workload.transforms, False)
    if read == "Pillow":
        # crop and flip on Pillow's images, as torchvision's own recipes have them
        data = ImageFolder(str(folder.root), v2.Compose([*steps[:2], v2.ToImage(), *steps[2:]]))
    else:
        data = ImageFolder(str(folder.root), v2.Compose(steps), loader=partial(decode_image, mode=ImageReadMode.RGB))
    loader = DataLoader(
        data, folder.workload.batch, num_workers=folder.workers, persistent_workers=folder.workers > 0, drop_last=True
    )
    return lambda: (images for images, _ in loader)


def dali(folder: Folder) -> Epoch:
    """DALI alone: it decodes only the part that its crop keeps, and augments by its own operators."""
    try:
        from nvidia.dali import fn, pipeline_def, types
    except ImportError:
        raise Absent("nvidia-dali-cuda120 is not installed; pip install 'gpuaug[dali]'") from None
    from bench.contenders.dali import chain

    crop, *rest = folder.workload.transforms
    after = replace(folder.workload, transforms=tuple(rest), size=crop.size)

    @pipeline_def(
        batch_size=folder.workload.batch,
        num_threads=folder.workers,
        device_id=None,
        seed=5,
        enable_conditionals=True,
    )
    def graph() -> Any:
        # in the order of ImageFolder: class by class, names sorted
        encoded, _ = fn.readers.file(file_root=str(folder.root), name="files")
        pixels = fn.decoders.image_random_crop(
            encoded, output_type=types.RGB, random_area=list(crop.scale), random_aspect_ratio=list(crop.ratio)
        )
        return chain(fn.resize(pixels, size=list(crop.size)), after)

    pipe = graph()
    pipe.build()
    left = len(folder.files) - folder.batches * folder.workload.batch
    if left:
        raise Absent(f"its reader goes on past the end of {len(folder.files)} files; give a whole number of batches")

    def epoch() -> Iterator[Tensor]:
        for _ in range(folder.batches):
            (out,) = pipe.run()
            # the next run reuses the memory
            yield torch.from_dlpack(out.as_tensor()).clone()

    return epoch


def torchcodec(folder: Folder) -> Epoch:
    """torchcodec in threads: whole images, nothing else."""
    try:
        from torchcodec.decoders import decode_image
    except (ImportError, OSError, RuntimeError) as error:
        raise Absent(f"torchcodec can't be loaded: {error}") from None
    pool = ThreadPoolExecutor(folder.workers)
    return lambda: _batched(pool, decode_image, folder)


def spdl(folder: Folder) -> Epoch:
    """SPDL in threads: whole images, nothing else."""
    try:
        import spdl.io
    except ImportError:
        raise Absent("spdl is not installed; pip install spdl spdl-io") from None
    try:
        spdl.io.load_image(str(folder.files[0]))
    except Exception as error:
        raise Absent(f"spdl decodes nothing here: {' '.join(str(error).split())[:150]}") from None
    pool = ThreadPoolExecutor(folder.workers)
    return lambda: _batched(
        pool, lambda path: spdl.io.to_numpy(spdl.io.convert_frames(spdl.io.load_image(path))), folder
    )


def _batched(pool: ThreadPoolExecutor, decode: Callable[[str], Any], folder: Folder) -> Iterator[list[Any]]:
    files, n = list(map(str, folder.files)), folder.workload.batch
    ahead = [pool.map(decode, files[:n])]
    for k in range(folder.batches):
        if k + 1 < folder.batches:
            ahead.append(pool.map(decode, files[(k + 1) * n : (k + 2) * n]))
        yield list(ahead.pop(0))


# ---- gpuaug


def _loader(folder: Folder, policy: Any) -> Any:
    return ga.data.Loader(
        folder.root, policy, folder.workload.batch, shuffle=False, num_threads=folder.workers, device="cpu"
    )


def _policy(folder: Folder) -> ga.Policy:
    return ga.Policy(folder.workload.transforms, seed=3)


def gpuaug(folder: Folder) -> Epoch:
    """The loader: decoding and augmentation."""
    loader = _loader(folder, _policy(folder))
    return lambda: (batch.images for batch in loader)


class Decoding:
    """A policy that asks for its windows, and augments nothing."""

    def __init__(self, policy: ga.Policy):
        if callable(getattr(policy, "windows", None)):
            self.windows = policy.windows  # type: ignore[attr-defined]

    def __call__(self, batch: ga.Batch) -> ga.Batch:
        return batch


def gpuaug_decoding(folder: Folder) -> Epoch:
    """Its decoding alone: files, windows and pixels as the loader has them, in one thread that decodes by many."""
    from gpuaug.data.course import Course
    from gpuaug.data.cursor import Position
    from gpuaug.data.decode import decoder
    from gpuaug.data.making import Maker
    from gpuaug.data.order import Samples
    from gpuaug.data.share import Share
    from gpuaug.data.sources import as_source

    source = as_source(folder.root)
    windows = getattr(_policy(folder), "windows", None)
    maker = Maker(source, decoder("auto", "cpu", folder.workers), windows, "raise", None)
    share = Share(0, 1, folder.workload.batch, True)
    epochs = count()

    def epoch() -> Iterator[Any]:
        number = next(epochs)
        course = Course(0, Samples(len(source), False), share, Position(number, 0), number)
        for step in course.steps():
            made = maker.make(maker.read(step), course)
            if made.error is not None:
                raise made.error
            yield made.images

    return epoch


def gpuaug_augmenting(folder: Folder) -> Epoch:
    """Its augmentation alone: of two batches that were decoded before, in turn."""
    policy = _policy(folder)
    held = list(islice(_loader(folder, Decoding(policy)), 2))

    def epoch() -> Iterator[Tensor]:
        for batch in islice(cycle(held), folder.batches):
            yield policy(batch).images

    return epoch


@dataclass(frozen=True)
class Side:
    """A contender.  whole: it gives augmented batches, which are checked; else why it is no equal."""

    make: Callable[[Folder], Epoch]
    note: str
    whole: bool = True
    unit: str = "batch"


ALONE = "decodes whole images and does nothing else"
DATALOADER = "one image at a time"
SIDES: dict[str, Side] = {
    "gpuaug loader": Side(gpuaug, "decoded by the fastest decoder that is there, augmented by one policy"),
    "torchvision DataLoader, Pillow": Side(
        partial(dataloader, read="Pillow"), "ImageFolder's default", unit=DATALOADER
    ),
    "torchvision DataLoader, torchvision.io": Side(partial(dataloader, read="io"), "decode_image", unit=DATALOADER),
    "DALI alone": Side(dali, "decodes only what its crop keeps"),
    "torchcodec alone": Side(torchcodec, ALONE, whole=False),
    "SPDL alone": Side(spdl, ALONE, whole=False),
    "gpuaug, decoding alone": Side(gpuaug_decoding, "a part of the loader", whole=False),
    "gpuaug, augmenting alone": Side(gpuaug_augmenting, "a part of the loader", whole=False),
}


def names(asked: Sequence[str] = ()) -> list[str]:
    """Sides in their order; all where none are asked for.  Raises ValueError for one that does not exist."""
    unknown = [name for name in asked if name not in SIDES]
    if unknown:
        raise ValueError(f"a side must be one of {', '.join(SIDES)}, got {unknown[0]!r}")
    return [name for name in SIDES if not asked or name in asked]
