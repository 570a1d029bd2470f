"""The specification of every pass in plain torch and Kornia: obvious, float32, one sample never seeing another.

Images are a dense float32 tensor [N, C, H, W], or a list of [C, H, W] where sizes differ.
"""

import math
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from gpuaug import ir, mixing, rng, targets, windows
from gpuaug.exec import bounds
from gpuaug.exec.jpeg import round_trip
from gpuaug.exec.stamped import in_box, pixel_normals
from gpuaug.exec.steps import Step, one_by_one
from gpuaug.exec.taps import between, weighed, weights
from gpuaug.fuse import Plan
from gpuaug.gathered import Gathered
from gpuaug.images import Images, Ragged

Dense = Any  # Tensor [N, C, H, W], or list of Tensor [C, H, W]
accounted, follow_labels = mixing.accounted, targets.follow


def run(plan: Plan, source: Images) -> Tensor:
    """The images after a plan: [N, C, H, W] in the plan's dtype and memory format."""
    return execute(prepare(plan), source)


def steps(plan: Plan) -> tuple[Step, ...]:
    """Every pass is a step of its own: a group of torch operations, whose result is written before the next begins."""
    return one_by_one(plan.passes, plan.frame)


def prepare(plan: Plan) -> tuple[ir.Sequence, rng.Keys]:
    """What there is to know of a plan without its images."""
    bounds.check(plan.passes, plan.frame)
    return tuple(p for step in steps(plan) for p in step.passes), plan.keys


def execute(prepared: tuple[ir.Sequence, rng.Keys], source: Images) -> Tensor:
    """What `run` gives, for images of the sizes that were prepared for."""
    passes, keys = prepared
    if isinstance(source, Ragged) and source.windows is not None and source.device.type == "cpu":
        windows.check(source, windows.reads(passes))
    out: Tensor = run_passes(passes, floats(source), keys)
    return out


def floats(source: Images) -> Dense:
    """float32 images, uint8 taken to [0, 1]; of a window the whole image, NaN where nothing is known."""
    if not isinstance(source, Ragged):
        return unit(source.dense() if isinstance(source, Gathered) else source)
    images = [unit(i.permute(2, 0, 1)) for i in source.images]
    return images if source.windows is None else list(map(_whole, images, source.shapes, source.windows.tolist()))


def _whole(image: Tensor, shape: tuple[int, ...], window: list[int]) -> Tensor:
    """An image of which a window is known.  image: [C, h, w]; shape: (H, W, C); window: top, left, height, width"""
    top, left, height, width = window
    out = image.new_full((shape[2], *shape[:2]), torch.nan)
    out[:, top : top + height, left : left + width] = image
    return out


def run_passes(passes: ir.Sequence, images: Dense, keys: rng.Keys) -> Dense:
    """The same on images that are float32 already."""
    for p in passes:
        images = apply(p, images, keys)
    return images


def unit(images: Tensor) -> Tensor:
    """Any dtype to float32, uint8 to [0, 1]; always a copy, so that nothing that follows can reach the input."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.to(torch.float32, copy=True)


@singledispatch
def apply(p: ir.Pass, images: Dense, keys: rng.Keys) -> Dense:
    """The images after one pass."""
    raise NotImplementedError(f"reference executor has no rule for {type(p).__name__}")


def per_sample(values: Tensor) -> Tensor:
    """[N] or [N, C] with axes added to broadcast against [N, C, H, W]."""
    return values.reshape(*values.shape, *(1,) * (4 - values.ndim))


def paint(values: tuple[float, ...], like: Tensor) -> Tensor:
    """One value or one per channel, made on the device without a copy that waits for it: [1 or C, 1, 1] in the dtype of
    `like`."""
    return ir.rows(values, like[:1], like.dtype).view(-1, 1, 1) if len(like) else like.new_zeros((len(values), 1, 1))


# ---- geometry


@apply.register
def _(p: ir.Resample, images: Dense, keys: rng.Keys) -> Dense:
    rows = list(zip(p.window.tolist(), p.source.tolist(), p.size.tolist(), strict=True))
    out = [_resample(p, n, image, *row) for n, (image, row) in enumerate(zip(images, rows, strict=True))]
    if not out:
        # of no image at all the channels are still known by the tensor
        return images if p.fixed is None else images.new_zeros((0, images.shape[1], *p.fixed))
    return out if p.fixed is None else torch.stack(out)


def _resample(p: ir.Resample, n: int, image: Tensor, window: list[int], source: list[int], size: list[int]) -> Tensor:
    """One sample: the padded window, then a weight matrix along each axis.  image: [C, H, W]"""
    x0, y0, x1, y1 = window
    tile, inside = _extended(image, window, source, p.extend)
    fill = paint(p.fill, image)
    tile = torch.where(inside, tile, fill)
    (xx, xy, x), (yx, yy, y) = p.inverse[n, :2]
    height, width = size
    ox, oy = (torch.arange(v, dtype=torch.float64, device=image.device) for v in (width, height))
    # after a quarter turn, input rows follow output columns
    turned = xx == 0
    cx, cy = torch.where(turned, xy, xx), torch.where(turned, yx, yy)
    along_x, along_y = (oy, ox) if turned else (ox, oy)
    px, py = cx * along_x + x, cy * along_y + y
    if p.integer_shift or p.kernel == "floor":
        # nothing is computed with what is only moved
        ix, iy = (v.floor().long().clamp(first, last - 1) - first for v, first, last in ((px, x0, x1), (py, y0, y1)))
        out = tile[:, iy[:, None], ix]
    else:
        down, across = (
            weights(v, first, last, p.footprint[n, axis], p.kernel)
            for v, first, last, axis in ((py, y0, y1, 1), (px, x0, x1, 0))
        )
        out = weighed(down, tile, across.T)
        out = out.clamp(0, 1) if p.clamp else out
    out = out.transpose(1, 2) if turned else out
    lx0, ly0, lx1, ly1 = p.live[n]
    live = (ox >= lx0) & (ox < lx1) & ((oy >= ly0) & (oy < ly1))[:, None]
    return torch.where(live, out, fill)


def _extended(image: Tensor, window: list[int], source: list[int], extend: str) -> tuple[Tensor, Tensor]:
    """The pixels of a window that may exceed the source, and where they are real: [C, h, w], [h, w]."""
    x0, y0, x1, y1 = window
    sx0, sy0, sx1, sy1 = source
    (ix, inx), (iy, iny) = (
        _reach(a, b, c, d, extend, image.device) for a, b, c, d in ((x0, x1, sx0, sx1), (y0, y1, sy0, sy1))
    )
    return image[:, iy[:, None], ix], iny[:, None] & inx


def _reach(first: int, last: int, low: int, high: int, extend: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where taps first to last - 1 are read in [low, high), and whether what is read counts."""
    i = torch.arange(first, last, device=device)
    n = max(high - low, 1)
    inside = (i >= low) & (i < high)
    if extend == "reflect":
        period = max(2 * n - 2, 1)
        j = (i - low) % period
        return low + torch.where(j < n, j, period - j), torch.ones_like(inside)
    if extend == "symmetric":
        j = (i - low) % (2 * n)
        return low + torch.where(j < n, j, 2 * n - 1 - j), torch.ones_like(inside)
    end = max(high, 1) - 1  # a source without pixels is read somewhere, and counts nowhere
    return i.clamp(min(low, end), end), torch.ones_like(inside) if extend == "edge" else inside


@apply.register
def _(p: ir.Warp, images: Tensor, keys: rng.Keys) -> Tensor:
    return _read(images, *_positions(p.inverse, p.fixed), p.kernel, p.fill)


@apply.register
def _(p: ir.Elastic, images: Tensor, keys: rng.Keys) -> Tensor:
    height, width = p.fixed
    words = keys.pixels(p.slot, height, width, 2)[..., 0, :2]
    y, x = (torch.arange(v, dtype=torch.float64, device=images.device) for v in p.fixed)
    positions = []
    for axis, grid in enumerate((x.expand(height, width), y[:, None].expand(height, width))):
        field = (2 * rng.unit(words[..., axis]) - 1).float()
        if p.reach[axis]:
            for along, sigma in ((2, p.sigma[0]), (1, p.sigma[1])):
                field = _smoothed(field, along, sigma, p.reach[axis])
        positions.append(grid + field.double() * (p.alpha[axis] / 2))
    return _read(images, positions[0], positions[1], p.kernel, p.fill)


def _smoothed(field: Tensor, axis: int, sigma: float, reach: int) -> Tensor:
    """A field under a Gaussian along one axis, reflected at its ends.  field: [N, h, w]

    Term by term: a library's convolution may round otherwise in another batch."""
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(reach + 1)]
    total = weights[0] + 2 * math.fsum(weights[1:])
    n = field.shape[axis]
    at = torch.arange(n, device=field.device)
    out = field * (weights[0] / total)
    for k in range(1, reach + 1):
        for step in (-k, k):
            # an end is not repeated
            place = (n - 1) - ((at + step).abs() - (n - 1)).abs()
            out = out + field.index_select(axis, place) * (weights[k] / total)
    return out


def _read(images: Tensor, sx: Tensor, sy: Tensor, kernel: str, fill: tuple[float, ...] | None) -> Tensor:
    """Images where each pixel is read from a position of its own.  sx, sy: [N, h, w] float64"""
    inside = torch.ones_like(images[:, :1])
    if kernel == "nearest":
        value, weight = (_tap(v, sx.round(), sy.round()) for v in (images, inside))
        return value if fill is None else torch.where(weight > 0, value, paint(fill, images))
    # beside a pixel by no more than rounding is on it
    sx, sy = (torch.where((v - v.round()).abs() < ir.NOTHING, v.round(), v) for v in (sx, sy))
    x0, y0 = sx.floor(), sy.floor()
    fx, fy = (sx - x0).float()[:, None], (sy - y0).float()[:, None]

    def weighted(image: Tensor) -> Tensor:
        upper, lower = (between(_tap(image, x0, y), _tap(image, x0 + 1, y), fx) for y in (y0, y0 + 1))
        return between(upper, lower, fy)

    if fill is None:
        return weighted(images)
    colour, value, share = paint(fill, images), weighted(images), weighted(inside)
    return torch.where(share == 1, value, (value - colour) * share + colour)


@apply.register
def _(p: ir.Project, images: Dense, keys: rng.Keys) -> Tensor:
    out = [
        _project(p, n, image, window) for n, (image, window) in enumerate(zip(images, p.window.tolist(), strict=True))
    ]
    return torch.stack(out) if out else images.new_zeros((0, images.shape[1], *p.fixed))


def _project(p: ir.Project, n: int, image: Tensor, window: list[int]) -> Tensor:
    """One sample, tap by tap.  image: [C, H, W]"""
    x0, y0, x1, y1 = window
    sx, sy = (v[0] for v in _positions(p.inverse[n : n + 1], p.fixed))
    wide, high = p.footprint[n].tolist()
    first_x, first_y = (sx - wide).ceil(), (sy - high).ceil()
    value, inside, every = (
        torch.zeros(image.shape[0], *p.fixed, dtype=torch.float64, device=image.device),
        torch.zeros_like(sx),
        torch.zeros_like(sx),
    )
    for ty in (first_y + j for j in range(int(2 * high) + 1)):
        for tx in (first_x + i for i in range(int(2 * wide) + 1)):
            wx, wy = 1 - (tx - sx).abs() / wide, 1 - (ty - sy).abs() / high
            w = torch.where((wx < ir.NOTHING) | (wy < ir.NOTHING), 0.0, wx * wy)
            known = w * ((tx >= x0) & (tx < x1) & (ty >= y0) & (ty < y1))
            value += torch.where(
                known > 0, known * image[:, ty.clamp(y0, y1 - 1).long(), tx.clamp(x0, x1 - 1).long()], 0.0
            )
            inside, every = inside + known, every + w
    if p.fill is None:
        return (value / inside).float()
    return (value / every + (1 - inside / every) * paint(p.fill, value)).float()


def _positions(inverse: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Input x and y of every output pixel: 2 x [N, h, w] float64; where a map has none, far outside.

    inverse: [N, 3, 3]"""
    y, x = torch.meshgrid(*(torch.arange(v, dtype=torch.float64, device=inverse.device) for v in size), indexing="ij")
    # term by term: a matrix product may round otherwise in another batch
    m = inverse[:, :, :, None, None]
    sx, sy, sz = (m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2] for i in range(3))
    far = 1e9
    return tuple((v / sz).nan_to_num(-far, far, -far).clamp(-far, far) for v in (sx, sy))  # type: ignore[return-value]


def _tap(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Pixels at whole positions, 0 outside.  images: [N, C, H, W]; x, y: [N, oh, ow]"""
    n, c, height, width = images.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    at = torch.where(inside, y * width + x, 0).long()
    flat = images.flatten(2).gather(2, at.flatten(1)[:, None].expand(-1, c, -1))
    return torch.where(inside[:, None], flat.view(n, c, *x.shape[1:]), 0.0)


# ---- points


def gray(images: Tensor) -> Tensor:
    """[N, 1, H, W]."""
    if images.shape[1] == 1:
        return images
    from kornia.color import rgb_to_grayscale

    weights = ir.rows((0.2989, 0.587, 0.114), images.new_empty(1), torch.float32)[0]
    out: Tensor = rgb_to_grayscale(images, weights)
    return out


def blend(factor: Tensor, images: Tensor, other: Tensor) -> Tensor:
    """clamp(f x + (1 - f) other)."""
    f = per_sample(factor)
    return (f * images + (1 - f) * other).clamp(0, 1)


@apply.register
def _(p: ir.Affine, images: Tensor, keys: rng.Keys) -> Tensor:
    out = per_sample(p.scale) * images + per_sample(p.bias)
    return out.clamp(0, 1) if p.clamp else out


@apply.register
def _(p: ir.Normalize, images: Tensor, keys: rng.Keys) -> Tensor:
    from kornia.enhance import normalize

    # Kornia 0.8.1 refuses a batch of none here, and in solarize
    if not len(images):
        return images
    mean, std = (ir.rows(v, images.new_empty(1), torch.float32)[0].expand(images.shape[1]) for v in (p.mean, p.std))
    out: Tensor = normalize(images, mean, std)
    return out


@apply.register
def _(p: ir.Saturation, images: Tensor, keys: rng.Keys) -> Tensor:
    return images if images.shape[1] == 1 else blend(p.factor, images, gray(images))


@apply.register
def _(p: ir.Contrast, images: Tensor, keys: rng.Keys) -> Tensor:
    # a sample at a time, in float64: the sum does not know its batch
    means = [g.double().mean().float() for g in gray(images)]
    return blend(p.factor, images, per_sample(torch.stack(means))) if means else images


@apply.register
def _(p: ir.Hue, images: Tensor, keys: rng.Keys) -> Tensor:
    if images.shape[1] == 1:
        return images
    r, g, b = images.unbind(1)
    high, low = images.amax(1), images.amin(1)
    spread = high - low
    safe = torch.where(spread == 0, 1.0, spread)
    turns = torch.where(high == r, (g - b) / safe, torch.where(high == g, 2 + (b - r) / safe, 4 + (r - g) / safe)) / 6
    h = (turns + per_sample(p.shift)[:, 0]).remainder(1.0)
    k = (paint((5.0, 3.0, 1.0), images) + h[:, None] * 6) % 6
    return high[:, None] - spread[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


@apply.register
def _(p: ir.Gray, images: Tensor, keys: rng.Keys) -> Tensor:
    return gray(images).expand(-1, p.channels, -1, -1)


@apply.register
def _(p: ir.PermuteChannels, images: Tensor, keys: rng.Keys) -> Tensor:
    return images.gather(1, per_sample(p.order).expand_as(images))


@apply.register
def _(p: ir.Solarize, images: Tensor, keys: rng.Keys) -> Tensor:
    from kornia.enhance import solarize

    if not len(images):
        return images
    out: Tensor = solarize(images, p.threshold)
    return out


@apply.register
def _(p: ir.AddBelow, images: Tensor, keys: rng.Keys) -> Tensor:
    brighter = (images + per_sample(p.addition)).clamp(max=1.0)
    return torch.where(images < per_sample(p.threshold), brighter, images)


@apply.register
def _(p: ir.Posterize, images: Tensor, keys: rng.Keys) -> Tensor:
    levels = per_sample(torch.exp2(p.bits.float()))
    return torch.minimum((images * levels).floor().clamp(min=0), levels - 1) / levels


@apply.register
def _(p: ir.Autocontrast, images: Tensor, keys: rng.Keys) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    stretched = ((images - low) / torch.where(high == low, 1.0, high - low)).clamp(0, 1)
    return torch.where(high == low, images, stretched)


@apply.register
def _(p: ir.Equalize, images: Tensor, keys: rng.Keys) -> Tensor:
    n, c, height, width = images.shape
    q = (images * 255.999).floor().nan_to_num(0).clamp(0, 255).long().flatten(0, 1).flatten(1)
    count = torch.zeros(n * c, 256, dtype=torch.int64, device=images.device).scatter_add_(1, q, torch.ones_like(q))
    level = torch.arange(256, device=images.device).expand_as(count)
    last = torch.where(count > 0, level, 0).amax(1, keepdim=True)
    step = (height * width - count.gather(1, last)) // 255
    before = count.cumsum(1) - count
    lut = torch.where(step == 0, level, ((before + step // 2) // step.clamp(min=1)).clamp(0, 255))
    return (lut.gather(1, q).float() / 255).view_as(images)


@apply.register
def _(p: ir.SaltPepper, images: Tensor, keys: rng.Keys) -> Tensor:
    _, c, height, width = images.shape
    words = keys.pixels(p.slot, height, width, c).flatten(3)[..., : c if p.per_channel else 1]
    u = ((words >> 8).float() * 2.0**-24).permute(0, 3, 1, 2)
    salt = (u < per_sample(p.salt)).float()
    return torch.where(u < per_sample(p.amount), salt, images)


@apply.register
def _(p: ir.GaussianNoise, images: Tensor, keys: rng.Keys) -> Tensor:
    out = images + per_sample(p.mean) + per_sample(p.sigma) * pixel_normals(keys, p.slot, images)
    return out.clamp(0, 1) if p.clip else out


@apply.register
def _(p: ir.Erase, images: Tensor, keys: rng.Keys) -> Tensor:
    value = per_sample(p.value)
    if bool(p.value.isnan().any()):
        value = torch.where(value.isnan(), pixel_normals(keys, p.slot, images), value)
    return torch.where(in_box(p.box, images), value, images)


# ---- neighbourhoods, partners, branches


@apply.register
def _(p: ir.Sharpness, images: Tensor, keys: rng.Keys) -> Tensor:
    height, width = images.shape[2:]
    if height <= 2 or width <= 2:
        return images
    around = [images[:, :, y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3)]
    blurred = images.clone()
    # term by term: a sum over an axis may round otherwise at another place in memory
    blurred[:, :, 1:-1, 1:-1] = sum(around, start=4 * around[4]) / 13
    return blend(p.factor, images, blurred)


@apply.register
def _(p: ir.Jpeg, images: Tensor, keys: rng.Keys) -> Tensor:
    return round_trip(images, p.quality)


@apply.register
def _(p: ir.GaussianBlur, images: Tensor, keys: rng.Keys) -> Tensor:
    from kornia.filters import filter2d_separable, get_gaussian_kernel1d

    kx, ky = (get_gaussian_kernel1d(k, s[:, None]) for k, s in zip(p.kernel_size, p.sigma.unbind(1), strict=True))
    out: Tensor = filter2d_separable(images, kx, ky, border_type="reflect")
    return out


@apply.register
def _(p: ir.CutMix, images: Tensor, keys: rng.Keys) -> Tensor:
    return torch.where(in_box(p.box, images), images[p.partner], images)


@apply.register
def _(p: ir.MixUp, images: Tensor, keys: rng.Keys) -> Tensor:
    lam = per_sample(p.lam)
    return torch.where(lam == 0, 0.0, lam * images) + torch.where(lam == 1, 0.0, (1 - lam) * images[p.partner])


@apply.register
def _(p: ir.MixInside, images: Tensor, keys: rng.Keys) -> Tensor:
    mixed: Tensor = apply(ir.MixUp(p.partner, p.lam), images, keys)
    return torch.where(in_box(p.box, images), mixed, images)


@apply.register
def _(p: ir.Choice, images: Dense, keys: rng.Keys) -> Tensor:
    for step in p.index.unbind(1):
        chosen = per_sample(step)
        # every branch on every sample, so that nothing waits for the host
        ways = [run_passes(branch, images, keys) for branch in p.branches]
        # where all branches end in another size there is nothing to keep
        images = images if p.fixed is None else ways[0]
        for i, way in enumerate(ways):
            images = torch.where(chosen == i, way, images)
    return images  # type: ignore[no-any-return]


@apply.register
def _(p: ir.Blend, images: Tensor, keys: rng.Keys) -> Tensor:
    own, *weights = p.weights.unbind(1)
    out = per_sample(own) * images
    for weight, chain in zip(weights, p.chains, strict=True):
        out = out + per_sample(weight) * run_passes(chain, images, keys)
    return out


@apply.register
def _(p: ir.Custom, images: Tensor, keys: rng.Keys) -> Tensor:
    out: Tensor = p.function(images)
    return out


@apply.register
def _(p: ir.Finish, images: Tensor, keys: rng.Keys) -> Tensor:
    if p.dtype == torch.uint8:
        images = (images.clamp(0, 1) * 255.999).floor()
    return images.to(p.dtype).contiguous(memory_format=p.memory_format)
