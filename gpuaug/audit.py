"""How far each transform of a policy moves images, and whether what they show survives.

    for row in ga.audit(policy, ga.Batch(images, labels, boxes=boxes, box_format="XYXY"), model=model):
        print(row)

Each transform is looked at alone, with the draws that it has in the whole policy: what converts values stays, and every
other transform is left out, the whole image being resized where one of them fixed the size.  It is compared with the
same images without it.  All figures are of the samples that it changed.  PSNR and SSIM compare pixel by pixel, and so
are low for whatever moves, a flip too: of moves the model and what is left in view say more."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuaug import arguments, pictures, variants
from gpuaug.batch import Batch
from gpuaug.follow.read import to_xyxy
from gpuaug.images import Ragged, as_images
from gpuaug.policy import Policy
from gpuaug.transforms import Transform

__all__ = ["Row", "audit", "scaled"]

# points of a side of a box, and of a mask, that are followed
_SIDE, _POINTS = 8, 256
# gray images: what is the same for all of them does not show its image.  No two of them meet by an inversion above a
# threshold
_GRAYS = (0.2, 0.45, 0.7)
# argument -> the value at which a transform does nothing; those of a class take precedence
_NEUTRAL: dict[str, float] = {
    **dict.fromkeys(("brightness", "contrast", "saturation", "sharpness_factor"), 1.0),
    **dict.fromkeys(("hue", "degrees", "translate", "shear", "distortion_scale", "magnitude", "severity"), 0.0),
    **{"sigma": 0.0, "amount": 0.0, "quality": 100.0, "bits": 8.0, "threshold": 1.0},
}
_OF_CLASS: dict[str, dict[str, float]] = {
    "RandomResizedCrop": {"scale": 1.0},
    "RandomAffine": {"scale": 1.0},
    "RandomErasing": {"scale": 0.0},
    "ElasticTransform": {"alpha": 0.0},
}


@dataclass(frozen=True)
class Row:
    """One transform at one strength."""

    place: int  # in the policy
    transform: str  # the code that makes it
    strength: float  # 1 as in the policy; otherwise its arguments are so many times as far from doing nothing
    changed: float  # share of the samples that it changed
    psnr: float  # dB, in the mean; infinite where nothing changed
    ssim: float  # in the mean; 1 where nothing changed
    in_view: float | None  # share of the objects' boxes or masks that can still be seen
    agreement: float | None  # share of the samples of which the model says the same class

    @property
    def name(self) -> str:
        """Its class."""
        return self.transform.split("(", 1)[0]


def audit(
    policy: Policy,
    images: Any,
    *,
    model: Callable[[Tensor], Any] | None = None,
    strengths: Sequence[float] = (0.5, 1.0, 2.0),
    draws: int = 2,
    progress: Callable[[int, int], Any] | None = None,
) -> list[Row]:
    """The table of a policy, from harmless to harmful: by the model's agreement, then by what is left in view, then by
    SSIM.

    images: a Batch, with boxes or masks where objects are to be followed, or what a policy takes.  model: called with
    what the policy gives, [N, C, H, W]; gives scores [N, K].  strengths: see `scaled`; a transform has those rows that
    its arguments allow.  draws: epochs that are drawn, from 0.  progress: told how many comparisons are done, and of
    how many.  Mixes keep their images in view, whatever covers them.  Needs scikit-image."""
    _needs_scikit_image()
    if not isinstance(policy, Policy):
        raise TypeError(f"policy must be a gpuaug.Policy, got {type(policy).__name__}")
    arguments.integer("draws", draws, 1)
    factors = [arguments.number("strengths", s, low=0.0) for s in strengths]
    batch = _whole(policy, images)
    stand = variants.switchable(policy, batch)
    work = [(i, s, t) for i in stand for s, t in _strengths(policy.transforms[i], factors)]
    plain = variants.without(policy, list(stand), stand)
    points = _points(batch)
    rows = []
    for done, (i, strength, transform) in enumerate(work):
        if progress is not None:
            progress(done, len(work))
        # the draws of its slot, and nothing of the others
        alone = variants.of(plain, [transform if k == i else t for k, t in enumerate(plain.transforms)])
        figures = [_compared(plain, alone, batch.replace(epoch=e), points, model) for e in range(draws)]
        rows.append(_row(i, transform, strength, figures))
    if progress is not None:
        progress(len(work), len(work))
    return sorted(rows, key=_harm)


def scaled(transform: Transform, factor: float) -> Transform:
    """The transform with its arguments of strength so many times as far from where they do nothing: 0 degrees, a
    brightness of 1, a crop of the whole area, JPEG at a quality of 100.  Transforms inside it are scaled alike, and
    probabilities stay.  Raises ValueError where an argument allows no such value."""
    if not factor >= 0:
        raise ValueError(f"factor must be >= 0, got {factor}")
    if factor == 1:
        return transform
    known = _NEUTRAL | _OF_CLASS.get(type(transform).__name__, {})
    changes: dict[str, Any] = {}
    for field in fields(transform):  # type: ignore[arg-type]
        value = getattr(transform, field.name)
        if field.name in known:
            changes[field.name] = _moved(value, known[field.name], factor)
        elif field.name == "transforms" and isinstance(value, tuple):
            changes[field.name] = tuple(scaled(t, factor) for t in value)
    return replace(transform, **changes) if changes else transform  # type: ignore[type-var]


def _moved(value: Any, neutral: float, factor: float) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(v, neutral, factor) for v in value)
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    out = neutral + (value - neutral) * factor
    if neutral == 1.0 and out < 0 <= value:
        # factors and shares end at 0
        out = 0.0
    return round(out) if isinstance(value, int) else out


def _strengths(transform: Transform, factors: Sequence[float]) -> Iterator[tuple[float, Transform]]:
    """What can be had of a transform, each once."""
    seen: list[Transform] = []
    for factor in sorted(factors, key=lambda f: f != 1.0):
        try:
            one = scaled(transform, factor)
        except (ValueError, TypeError):
            continue
        if (factor == 1.0 or one != transform) and one not in seen:
            seen.append(one)
            yield factor, one


# ---- one comparison


class _Figures(NamedTuple):
    """Of each sample of one draw."""

    changed: list[bool]
    psnr: list[float]
    ssim: list[float]
    in_view: list[float | None]
    agrees: list[bool] | None


def _compared(plain: Policy, alone: Policy, batch: Batch, points: list[Tensor] | None, model: Any) -> _Figures:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    if points is not None:
        batch = batch.replace(keypoints=points, visible=None)
    before, after = plain(batch), alone(batch)
    undone = pictures.statistics(plain.transforms, batch.images.dtype)
    pairs = list(zip(pictures.as_bytes(before.images, undone), pictures.as_bytes(after.images, undone), strict=True))
    if pairs[0][0].shape != pairs[0][1].shape:
        raise ValueError(
            f"images must keep the size of what they are compared with, {pairs[0][0].shape[:2]}, got "
            f"{pairs[0][1].shape[:2]}; put a Resize at the end of the policy"
        )
    if min(pairs[0][0].shape[:2]) < 7:
        raise ValueError(f"SSIM needs images of at least 7 x 7 pixels, got {pairs[0][0].shape[:2]}")
    changed = [bool((a != b).any()) for a, b in pairs]
    psnr = [float(peak_signal_noise_ratio(a, b)) if c else inf for (a, b), c in zip(pairs, changed, strict=True)]
    ssim = [
        float(structural_similarity(a, b, channel_axis=2)) if c else 1.0
        for (a, b), c in zip(pairs, changed, strict=True)
    ]
    in_view: list[float | None] = [None] * len(pairs)
    if points is not None:
        in_view = _in_view(alone, batch, after, points)
    agrees = None
    if model is not None:
        agrees = (_classes(model, before.images) == _classes(model, after.images)).tolist()
    return _Figures(changed, psnr, ssim, in_view, agrees)


def _row(place: int, transform: Transform, strength: float, figures: Sequence[_Figures]) -> Row:
    changed = [c for f in figures for c in f.changed]

    def mean(values: Sequence[Any], nothing: Any) -> Any:
        found = [v for v, c in zip(values, changed, strict=True) if c and v is not None]
        return sum(found) / len(found) if found else nothing

    views = [v for f in figures for v in f.in_view]
    told = [a for f in figures for a in f.agrees] if all(f.agrees is not None for f in figures) else None  # type: ignore[union-attr]
    return Row(
        place,
        repr(transform),
        strength,
        sum(changed) / len(changed),
        mean([v for f in figures for v in f.psnr], inf),
        mean([v for f in figures for v in f.ssim], 1.0),
        None if all(v is None for v in views) else mean(views, 1.0),
        None if told is None else mean(told, 1.0),
    )


def _harm(row: Row) -> tuple[float, ...]:
    figures = (row.agreement, row.in_view, row.ssim)
    return (*(-(1.0 if v is None else v) for v in figures), row.place, row.strength)


# ---- what is in view


def _points(batch: Batch) -> list[Tensor] | None:
    """Points [P, 2] of every sample's objects; None where there are no objects."""
    n = len(batch)
    if batch.masks is not None:
        return [_of_mask(torch.as_tensor(batch.masks[i]).cpu()) for i in range(n)]
    if batch.boxes is None:
        return None
    out = []
    for i in range(n):
        xyxy = to_xyxy(torch.as_tensor(batch.boxes[i]).cpu().double(), str(batch.box_format or "").upper() or "XYXY")
        valid = (xyxy[:, 2:] > xyxy[:, :2]).all(1)
        if batch.box_valid is not None:
            valid &= torch.as_tensor(batch.box_valid[i]).cpu()
        share = (torch.arange(_SIDE, dtype=torch.float64, device="cpu") + 0.5) / _SIDE
        near, side = xyxy[valid, :2], xyxy[valid, 2:] - xyxy[valid, :2]
        # a keypoint at (0, 0) is the centre of the first pixel, a box there begins half a pixel before
        x = near[:, None, 0] + share * side[:, None, 0] - 0.5
        y = near[:, None, 1] + share * side[:, None, 1] - 0.5
        grid = torch.stack([x[:, None, :].expand(-1, _SIDE, -1), y[:, :, None].expand(-1, -1, _SIDE)], -1)
        out.append(grid.reshape(-1, 2))
    return out


def _of_mask(mask: Tensor) -> Tensor:
    """Pixels of a mask, as many as are followed."""
    where = ((mask > 0) if mask.ndim == 2 else (mask > 0).any(0)).nonzero()
    step = max(1, -(-len(where) // _POINTS))
    return where[::step].flip(1).double()


def _in_view(policy: Policy, batch: Batch, after: Batch, points: Sequence[Tensor]) -> list[float | None]:
    """Share of each sample's points that lie in its image, where the image can be seen."""
    shown = _shown(policy, batch)
    height, width = shown.shape[1:]
    out: list[float | None] = []
    for i, given in enumerate(points):
        if not len(given):
            out.append(None)
            continue
        xy, there = after.keypoints[i, : len(given)].cpu(), after.visible[i, : len(given)].cpu().bool()
        place = xy.nan_to_num(0.0).round().long()
        x, y = place[:, 0].clamp(0, width - 1), place[:, 1].clamp(0, height - 1)
        out.append(float((there & shown[i, y, x]).double().mean()))
    return out


def _shown(policy: Policy, batch: Batch) -> Tensor:
    """[N, H, W] bool: pixels that depend on the images, found by giving gray ones."""
    source = as_images(batch.images)
    made = []
    for gray in _GRAYS:
        blank = batch.replace(images=_gray(source, gray), boxes=None, masks=None, keypoints=None, visible=None)
        made.append(policy(blank.replace(box_valid=None, box_format=None)).images.cpu().double())
    # what noise moves a little is still seen
    near = 1e-9
    same = ((made[0] - made[1]).abs() <= near) & ((made[1] - made[2]).abs() <= near)
    shown: Tensor = ~same.all(1)
    return shown


def _gray(source: Any, value: float) -> Any:
    def like(image: Tensor) -> Tensor:
        top = 1.0 if image.is_floating_point() else float(torch.iinfo(image.dtype).max)
        return torch.full_like(image, value * top if image.is_floating_point() else round(value * top))

    return source.mapped(like) if isinstance(source, Ragged) else like(source)


# ---- what is given


def _whole(policy: Policy, images: Any) -> Batch:
    batch = images if isinstance(images, Batch) else Batch(images)
    source = as_images(batch.images)
    if not len(source):
        raise ValueError("there is nothing to audit: the batch has no samples")
    labels = batch.labels
    if labels is None and policy._mixes:
        # mixes need labels, and nothing here reads them
        labels = torch.zeros(len(source), dtype=torch.int64, device=source.device)
    ids = torch.arange(len(source), device=source.device) if batch.ids is None else batch.ids
    return batch.replace(images=source, labels=labels, ids=ids, params=None)


def _classes(model: Any, images: Tensor) -> np.ndarray[Any, Any]:
    """[N] the class of the highest score."""
    with torch.inference_mode():
        try:
            out = model(images)
        except Exception as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"the model can't take images {list(images.shape)} of {images.dtype}: {said[0]:.200}; give it what the "
                "policy makes"
            ) from error
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(images) or out.shape[1] < 1:
        got = f"shape {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"the model must give a score a class, [{len(images)}, K], got {got}")
    classes: np.ndarray[Any, Any] = out.argmax(1).cpu().numpy()
    return classes


def _needs_scikit_image() -> None:
    from importlib.util import find_spec

    if find_spec("skimage") is None:
        raise RuntimeError("PSNR and SSIM come with scikit-image, which is not installed; pip install 'gpuaug[audit]'")
