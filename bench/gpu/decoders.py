"""What decoders do on a card, without a loader: images in a second, whether every image is right while memory changes
hands, and how far pixels are from the CPU's."""

import io
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.contenders.registry import Absent
from bench.gpu.parts import summary
from bench.sources import photographs
from bench.timing import wait
from gpuaug.data import as_source, decode
from gpuaug.data.decode_batch import Decoded, Decoder, cores

CPU = torch.device("cpu")
GPU_DECODERS = ("dali", "torchcodec", "torchvision")
ON_GPU, ON_CPU = " on the GPU", " on the CPU"
OWN_DALI = "DALI's own pipeline"
ALONE, RIGHT, PIXELS = "decoders alone", "images that are not right", "pixels against Pillow's"
HEIGHTS, WIDTHS, QUALITIES = (355, 396), (480, 521), (84, 91)
CLASSES, PICTURES = 10, 40
SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0", "gray")
ITERATIONS = 200


@dataclass(frozen=True)
class Task:
    """Where a part is measured, and for how long.

    device: where batches shall be.  folder: JPEG files in class folders.  seconds: after which no round begins.  tiny:
    small work, to try the bench.  found: what earlier parts found, by stage and part."""

    device: torch.device
    folder: Path
    seconds: float
    tiny: bool = False
    found: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    def over(self, share: float = 1.0) -> bool:
        """Whether this part of the time is gone."""
        return time.perf_counter() - self.began > share * self.seconds


# ---- the files


def write(folder: Path, files: int) -> None:
    """JPEG files of about 375 x 500 in class folders, about 80 to 105 kB each; a class is a few pictures, seen through
    windows, so that it can be learned."""
    pictures = photographs(min(PICTURES, files), HEIGHTS[1], WIDTHS[1], 3)
    rng = np.random.default_rng(5)
    sizes = rng.integers((HEIGHTS[0], WIDTHS[0]), (HEIGHTS[1], WIDTHS[1]), (files, 2)).tolist()
    corners = rng.random((files, 2)).tolist()
    qualities = rng.integers(*QUALITIES, files).tolist()
    for c in range(CLASSES):
        (folder / f"class_{c}").mkdir(parents=True, exist_ok=True)

    def one(i: int) -> None:
        k, (height, width) = i % len(pictures), sizes[i]
        top, left = int(corners[i][0] * (HEIGHTS[1] - height)), int(corners[i][1] * (WIDTHS[1] - width))
        image = Image.fromarray(np.ascontiguousarray(pictures[k][top : top + height, left : left + width]))
        image.save(folder / f"class_{k % CLASSES}" / f"{i:05d}.jpg", quality=qualities[i])

    with ThreadPoolExecutor(cores()) as pool:
        deque(pool.map(one, range(files)), 0)


def in_memory(folder: Path) -> list[Any]:
    """All files' bytes, as the loader's source reads them."""
    with as_source(str(folder)) as source:
        return source.read(range(len(source)))


# ---- the decoders


def placed(part: str, task: Task) -> tuple[str, torch.device]:
    """Name and device of a decoder; raises Absent where there is none."""
    name = part.removesuffix(ON_GPU).removesuffix(ON_CPU)
    device = task.device if part.endswith(ON_GPU) else CPU
    if part.endswith(ON_GPU) and device.type != "cuda":
        raise Absent("no CUDA card is here")
    why = decode.missing("dali" if name == OWN_DALI else name)
    if why:
        raise Absent(why)
    return name, device


def settings(name: str, device: torch.device, tiny: bool) -> list[tuple[int, int]]:
    """Threads and batches to try."""
    if tiny:
        return [(1, 4), (2, 8)]
    many, few = cores(), max(1, cores() // 4)
    if device.type == "cpu":
        return [(many, 64), (many, 256), (max(1, many // 2), 256)]
    # the others decode a list in one call, and their threads only what nvJPEG can't
    threads = (few, many) if name == "dali" else (few,)
    return [(t, b) for t in threads for b in (64, 256, 512)]


def turn(decoder: Decoder, batches: Sequence[tuple[Any, Any]], seconds: float) -> float:
    """Images in a second, of batches of files with their windows again and again, to the last pixel."""
    held: deque[Decoded] = deque(maxlen=2)
    done, began = 0, time.perf_counter()
    for k in count():
        items, windows = batches[k % len(batches)]
        out = decoder.decode(items, windows)
        if out.bad:
            raise RuntimeError(f"{len(out.bad)} of {len(items)} images have no pixels: {next(iter(out.bad.values()))}")
        held.append(out)
        done += len(items)
        if time.perf_counter() - began >= seconds:
            break
    if out.ready is not None:
        out.ready.synchronize()
    return done / (time.perf_counter() - began)


def in_batches(items: Sequence[Any], batch: int) -> list[tuple[Any, Any]]:
    """Whole batches, of whole images."""
    size = min(batch, len(items))
    return [(items[k : k + size], None) for k in range(0, len(items) - size + 1, size)]


def alone(task: Task, part: str) -> dict[str, Any]:
    """Images in a second of the best setting of a decoder, files in memory, whole images."""
    name, device = placed(part, task)
    items = in_memory(task.folder)
    if name == OWN_DALI:
        rates = {s: _dali(items, device, *s) for s in _dali_settings(device, task.tiny)}
        return _best(task, rates, "{} threads, batches of {}, hardware load {}")

    def rate(threads: int, batch: int) -> Callable[[float], float]:
        batches, made = in_batches(items, batch), list[Decoder]()

        def run(seconds: float) -> float:
            if not seconds:
                made.pop().close()
                return 0.0
            if not made:
                made.append(decode.decoder(name, device, threads))
                turn(made[0], batches, 0.0)
            return turn(made[0], batches, seconds)

        return run

    return _best(task, {s: rate(*s) for s in settings(name, device, task.tiny)}, "{} threads, batches of {}")


def _best(task: Task, rates: Mapping[tuple[Any, ...], Callable[[float], float]], words: str) -> dict[str, Any]:
    """Every setting once, then the best one for the rest of the time.  A rate of 0 seconds ends its decoder."""
    length = 0.01 if task.tiny else max(0.2, min(1.0, task.seconds / 30))
    tried: dict[tuple[Any, ...], float] = {}
    failed: dict[str, str] = {}
    for key, rate in rates.items():
        if tried and task.over(0.6):
            break
        try:
            tried[key] = rate(length)
            rate(0.0)
        except RuntimeError as error:
            failed[words.format(*key)] = " ".join(str(error).split())[:200]
    if not tried:
        raise RuntimeError(f"no setting works: {failed}")
    best = max(tried, key=lambda k: tried[k])
    found = [rates[best](length)]
    while len(found) < (2 if task.tiny else 20) and not (len(found) >= 3 and task.over()):
        found.append(rates[best](length))
    rates[best](0.0)
    return {
        "images/s": summary(found),
        "setting": words.format(*best),
        "threads": best[0],
        "batch": best[1],
        "settings tried, images/s": {words.format(*k): round(v, 1) for k, v in tried.items()},
        **({"settings that failed": failed} if failed else {}),
    }


def _dali_settings(device: torch.device, tiny: bool) -> list[tuple[int, int, float]]:
    """Threads, batches, and the part of the images that the hardware's decoder gets, of which a CPU has none."""
    if tiny:
        return [(2, 4, 0.65)]
    many, few = cores(), max(1, cores() // 4)
    if device.type == "cpu":
        return [(many, 256, 0.0)]
    # DALI's own default first
    loads = [(many, 256, load) for load in (0.65, 1.0, 0.8, 0.0)]
    return [*loads, (few, 256, 0.65), (many, 512, 0.65)]


def _dali(
    items: Sequence[Any], device: torch.device, threads: int, batch: int, load: float
) -> Callable[[float], float]:
    """A pipeline as DALI's documentation has it, fed from memory, two batches ahead."""
    made: list[Any] = []

    def run(seconds: float) -> float:
        from nvidia.dali import Pipeline, fn, types

        if not seconds:
            made.clear()
            return 0.0
        if not made:
            arrays, turns = [np.frombuffer(i, np.uint8) for i in items], count()
            size, cuda = min(batch, len(arrays)), device.type == "cuda"

            def following() -> list[Any]:
                first = next(turns) * size
                return [arrays[(first + i) % len(arrays)] for i in range(size)]

            more: dict[str, Any] = {"device": "mixed", "hw_decoder_load": load} if cuda else {"device": "cpu"}
            index = (device.index or 0) if cuda else None
            pipe = Pipeline(size, threads, index, prefetch_queue_depth=2, exec_dynamic=True, set_affinity=False)
            with pipe:
                encoded = fn.external_source(source=following, dtype=types.UINT8, ndim=1, no_copy=True)
                pipe.set_outputs(fn.decoders.image(encoded, output_type=types.RGB, jpeg_fancy_upsampling=True, **more))
            pipe.build()
            for _ in range(3):
                pipe.run()
            made.append((pipe, size))
        pipe, size = made[0]
        wait(device)
        done, began = 0, time.perf_counter()
        while done == 0 or time.perf_counter() - began < seconds:
            pipe.run()
            done += size
        wait(device)
        return done / (time.perf_counter() - began)

    return run


# ---- whether every image is right


@dataclass
class Blocks:
    """That changed hands, and those of them that somebody else has written into."""

    count: int = 0
    spoiled: int = 0


@contextmanager
def changing_hands(device: torch.device) -> Iterator[Blocks]:
    """While this lasts a thread takes blocks of memory, fills them with a pattern, reads them and gives them back."""
    ended, blocks = Event(), Blocks()

    def work() -> None:
        stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            while not ended.is_set():
                block = torch.full((1 << (18 + blocks.count % 6),), 0xA5, dtype=torch.uint8, device=device)
                blocks.spoiled += bool((block != 0xA5).any())
                blocks.count += 1
                del block

    thread = Thread(target=work, name="bench-blocks", daemon=True)
    thread.start()
    try:
        yield blocks
    finally:
        ended.set()
        thread.join(30)


class _Busy:
    """Blocks of the size of images on the current stream: filled, read a while later, freed at once."""

    def __init__(self, device: torch.device, blocks: int = 8):
        made = [torch.full((375, 500, 3), 0x5A, dtype=torch.uint8, device=device) for _ in range(blocks)]
        if device.type == "cuda":
            # about a millisecond
            torch.cuda._sleep(2_000_000)  # type: ignore[no-untyped-call]
        self._wrong: list[Tensor] = [(block != 0x5A).any() for block in made]

    def written(self) -> int:
        """Blocks that somebody wrote into before they were read."""
        return sum(map(bool, self._wrong))


def corrupt(task: Task, part: str) -> dict[str, Any]:
    """Images that differ from their first decode, over many decodes with busy readers while memory changes hands."""
    name, device = placed(part, task)
    size, iterations = (6, 5) if task.tiny else (64, ITERATIONS)
    items = _sampled(2 if task.tiny else 4) + in_memory(task.folder)
    items = items[:size]
    kept: deque[tuple[Decoded, list[Tensor], Any, list[_Busy]]] = deque()
    different, written, done = 0, 0, 0
    with closing(decode.decoder(name, device, cores())) as decoder:
        out = decoder.decode(items)
        if out.bad:
            raise RuntimeError(f"{len(out.bad)} images have no pixels: {next(iter(out.bad.values()))}")
        _ordered(out, device)
        first = [image.clone() for image in _images(out)]
        wait(device)

        def look() -> None:
            nonlocal different, written
            held, copies, event, busy = kept.popleft()
            if event is not None:
                event.synchronize()
            different += sum(not torch.equal(a, b) for a, b in zip(copies, first, strict=True))
            written += sum(one.written() for one in busy)
            del held

        with changing_hands(device) as blocks:
            for done in range(1, iterations + 1):
                busy = [_Busy(device)]
                with decoder.here():
                    # freed memory of the decoder's own stream, whose readers have not begun: it may be used again only
                    # behind them
                    busy.append(_Busy(device))
                out = decoder.decode(items)
                different += len(out.bad)
                _ordered(out, device)
                copies = [i.clone() if isinstance(i, Tensor) else f for i, f in zip(out.images, first, strict=True)]
                event: Any = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
                if event is not None:
                    event.record(torch.cuda.current_stream(device))
                kept.append((out, copies, event, busy))
                # two batches stay ahead of the look at them, as in a loader
                if len(kept) > 2:
                    look()
                if task.over() and done >= 5:
                    break
            while kept:
                look()
    if not blocks.count:
        raise RuntimeError("no block of memory has changed hands: nothing was tried")
    return {
        "corrupt images": different,
        "of images": done * len(items),
        "iterations": done,
        "iterations asked": iterations,
        "blocks that changed hands": blocks.count,
        "blocks of others that were written to": blocks.spoiled + written,
        "asked": "0 corrupt",
        "met": different == 0 and not blocks.spoiled and not written and done == iterations,
    }


def _ordered(out: Decoded, device: torch.device) -> None:
    if out.ready is not None:
        torch.cuda.current_stream(device).wait_event(out.ready)


def _images(out: Decoded) -> list[Tensor]:
    return [image for image in out.images if isinstance(image, Tensor)]


# ---- how far pixels are from the CPU's


def _sampled(each: int) -> list[bytes]:
    return [file for sampling in SAMPLINGS for file in _files(sampling, each)]


def _files(sampling: str, each: int) -> list[bytes]:
    """JPEG files of one chroma subsampling."""
    found = []
    for pixels in photographs(each, 375, 500, 3, seed=11):
        image, out = Image.fromarray(pixels), io.BytesIO()
        if sampling == "gray":
            image.convert("L").save(out, "JPEG", quality=90)
        else:
            image.save(out, "JPEG", quality=90, subsampling=sampling)
        found.append(out.getvalue())
    return found


def pixels(task: Task, part: str) -> dict[str, Any]:
    """Levels of 255 between a decoder's pixels and Pillow's, by chroma subsampling."""
    name, device = placed(part, task)
    rows: dict[str, Any] = {}
    with closing(decode.decoder(name, device, cores())) as decoder, closing(decode.decoder("pillow")) as pillow:
        for sampling in SAMPLINGS:
            items = _files(sampling, 1 if task.tiny else 16)
            out, wanted = decoder.decode(items), pillow.decode(items)
            if out.bad:
                rows[sampling] = {"status": "failed", "why": str(next(iter(out.bad.values())))}
                continue
            _ordered(out, device)
            apart = [
                (a.cpu().int() - b.int()).abs().flatten() for a, b in zip(_images(out), _images(wanted), strict=True)
            ]
            every = torch.cat(apart)
            rows[sampling] = {
                "mean": float(f"{every.double().mean():.4g}"),
                "largest": int(every.max()),
                "within 3 levels": float(f"{(every <= 3).double().mean():.5g}"),
                "pixels that differ": float(f"{(every > 0).double().mean():.4g}"),
                "images": len(items),
            }
    return rows
