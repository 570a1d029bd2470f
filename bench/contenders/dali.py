"""A policy as a DALI pipeline: its own operators and its own draws, fed with decoded images."""

import contextlib
import io
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.contenders.words import Unsupported, jitter, span
from bench.sources import Source


def pipeline(workload: Any, device: torch.device, threads: int) -> Callable[[Source], Tensor]:
    """A function from a batch to float32 [N, C, H, W]; raises Unsupported."""
    from nvidia.dali import fn, pipeline_def, types

    on_gpu = device.type == "cuda"

    @pipeline_def(
        enable_conditionals=True, exec_dynamic=False, exec_pipelined=False, exec_async=False, prefetch_queue_depth=1
    )
    def graph() -> Any:
        kind = {"device": "gpu" if on_gpu else "cpu", "dtype": types.FLOAT if workload.floats else types.UINT8}
        return chain(fn.external_source(name="images", layout="HWC", no_copy=True, **kind), workload)

    try:
        # its own notes about deprecated aliases of itself go to stderr whatever the filters say
        with contextlib.redirect_stderr(io.StringIO()):
            pipe = graph(batch_size=workload.batch, num_threads=threads, device_id=0 if on_gpu else None, seed=11)
            pipe.build()
    except Exception as error:
        # what is raised inside a graph comes out wrapped in the graph's own traceback
        if "Unsupported: " in str(error):
            raise Unsupported(str(error).rsplit("Unsupported: ", 1)[1].strip()) from None
        raise

    def run(source: Source) -> Tensor:
        # on a card the images are there already, as they are for every contender
        pipe.feed_input("images", source.hwc_on_device if on_gpu else source.hwc)
        (out,) = pipe.run()
        return torch.from_dlpack(out.as_tensor())

    return run


def chain(x: Any, workload: Any) -> Any:
    """The policy's operators one after the other.  A flip waits for the step that normalises: it mirrors for
    nothing."""
    from nvidia.dali import fn, types
    from nvidia.dali import math as dali_math

    mirror: Any = None
    transforms = list(workload.transforms)
    size, top = workload.size, 1.0 if workload.floats else 255.0
    planar = False
    for t in transforms:
        name = type(t).__name__
        if name == "RandomHorizontalFlip" and mirror is None:
            mirror = fn.random.coin_flip(probability=t.p)
        elif name == "ToDtype" and any(type(u).__name__ == "Normalize" for u in transforms):
            continue
        elif name in ("ToDtype", "Normalize"):
            scale = (
                {"mean": [m * top for m in t.mean], "std": [s * top for s in t.std]}
                if name == "Normalize"
                else {"std": [top]}
            )
            x = fn.crop_mirror_normalize(
                x, dtype=types.FLOAT, output_layout="CHW", mirror=0 if mirror is None else mirror, **scale
            )
            mirror, planar = None, True
        elif name == "RandomErasing":
            x = _erase(x, t)
        elif name == "GaussianNoise" and planar:
            x = dali_math.clamp(fn.noise.gaussian(x, mean=t.mean, stddev=t.sigma), 0.0, 1.0)
        elif planar:
            raise Unsupported(f"DALI has no {name} on what is normalised already")
        else:
            x = _step(x, t, size, top)
            size = (size[0], size[1]) if not hasattr(t, "size") or t.size is None else t.size
    return x


def _uniform(low: float, high: float) -> Any:
    from nvidia.dali import fn

    return fn.random.uniform(range=[low, high]) if high > low else low


def _step(x: Any, t: Any, size: tuple[int, int], top: float) -> Any:
    """One transform on [H, W, C]."""
    from nvidia.dali import fn, types
    from nvidia.dali.auto_aug import rand_augment

    how = {"nearest": types.INTERP_NN, "bilinear": types.INTERP_LINEAR}[getattr(t, "interpolation", "bilinear")]

    def sides(value: Any) -> list[int]:
        return list(value) if isinstance(value, tuple) else [value, value]

    def crop() -> Any:
        own = {"crop_pos_x": _uniform(0.0, 1.0), "crop_pos_y": _uniform(0.0, 1.0)}
        if t.padding:
            raise Unsupported("DALI crops without padding first")
        return fn.crop(x, crop=sides(t.size), **own)

    def twist(**factors: tuple[float, float]) -> Any:
        drawn = {k: _uniform(*v) for k, v in factors.items()}
        return fn.color_twist(x, **drawn)

    ranges = jitter(t) if type(t).__name__ == "ColorJitter" else {}
    made = {
        "RandomResizedCrop": lambda: fn.random_resized_crop(
            x, size=sides(t.size), random_area=list(t.scale), random_aspect_ratio=list(t.ratio)
        ),
        "Resize": lambda: fn.resize(x, size=sides(t.size)),
        "CenterCrop": lambda: fn.crop(x, crop=sides(t.size)),
        "RandomCrop": crop,
        "RandomVerticalFlip": lambda: fn.flip(x, horizontal=0, vertical=fn.random.coin_flip(probability=t.p)),
        "RandomRotation": lambda: fn.rotate(
            x, angle=_uniform(*span(t.degrees)), keep_size=True, fill_value=0, interp_type=how
        ),
        "RandomAffine": lambda: _affine(x, t, size, how),
        "ColorJitter": lambda: twist(**{**ranges, "hue": tuple(360 * v for v in ranges["hue"])}),
        "Grayscale": lambda: fn.color_twist(x, saturation=0.0),
        "RandomGrayscale": lambda: fn.color_twist(x, saturation=1.0 - fn.random.coin_flip(probability=t.p)),
        "RandomInvert": lambda: _inverted(x, t, top),
        "SaltAndPepper": lambda: fn.noise.salt_and_pepper(
            x, prob=t.amount, salt_vs_pepper=t.salt_vs_pepper, per_channel=False
        ),
        "RandAugment": lambda: rand_augment.rand_augment(x, n=t.num_ops, m=t.magnitude, shape=size, fill_value=0),
    }
    name = type(t).__name__
    if name not in made:
        raise Unsupported(f"DALI has no {name}")
    return made[name]()


def _inverted(x: Any, t: Any, top: float) -> Any:
    from nvidia.dali import types

    if t.p != 1.0 or top != 255.0:
        raise Unsupported("DALI has no RandomInvert; its arithmetic inverts all images or none")
    return types.Constant(255, dtype=types.UINT8) - x


def _affine(x: Any, t: Any, size: tuple[int, int], how: Any) -> Any:
    from nvidia.dali import fn

    if t.shear is not None and any(span(t.shear)):
        tilt = fn.transforms.shear(
            angles=fn.stack(_uniform(*span(t.shear)[:2]), 0.0), center=[size[1] / 2, size[0] / 2]
        )
    else:
        tilt = None
    middle = [size[1] / 2, size[0] / 2]
    zoom = _uniform(*(t.scale or (1.0, 1.0)))
    moves = [] if tilt is None else [tilt]
    moves.append(fn.transforms.scale(scale=fn.stack(zoom, zoom) if t.scale else [1.0, 1.0], center=middle))
    moves.append(fn.transforms.rotation(angle=_uniform(*span(t.degrees)), center=middle))
    if t.translate is not None:
        far = (t.translate[0] * size[1], t.translate[1] * size[0])
        moves.append(fn.transforms.translation(offset=fn.stack(_uniform(-far[0], far[0]), _uniform(-far[1], far[1]))))
    return fn.warp_affine(x, fn.transforms.combine(*moves), inverse_map=False, fill_value=0, interp_type=how)


def _erase(x: Any, t: Any) -> Any:
    """One rectangle on [C, H, W]; a draw that does not fit is clipped where others try again."""
    from nvidia.dali import fn
    from nvidia.dali import math as dali_math

    if not isinstance(t.value, int | float):
        raise Unsupported("DALI erases with one number only")
    area, ratio = _uniform(*t.scale), dali_math.exp(_uniform(math.log(t.ratio[0]), math.log(t.ratio[1])))
    height, width = dali_math.min(dali_math.sqrt(area * ratio), 1.0), dali_math.min(dali_math.sqrt(area / ratio), 1.0)
    applies = fn.random.coin_flip(probability=t.p)
    anchor = fn.stack(_uniform(0.0, 1.0) * (1.0 - height), _uniform(0.0, 1.0) * (1.0 - width))
    shape = fn.stack(height * applies, width * applies)
    return fn.erase(x, anchor=anchor, shape=shape, axis_names="HW", normalized=True, fill_value=float(t.value))
