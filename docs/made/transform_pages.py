"""A page for each transform, made from its class and its Spec: arguments, draws, formula, picture, oracle, speed."""

import inspect
import io
from collections.abc import Iterator
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import torch
from build import build
from compare import TOLERANCES
from PIL import Image
from reference_pages import escaped
from specs import FAMILIES, SPECS, Spec
from torch import Tensor

import gpuaug as ga
from bench.report import results
from gpuaug import ir, rng
from gpuaug.apps.photographs import decode
from gpuaug.transforms.base import lower_all, sample_all

ROOT = Path(__file__).parents[2]
# pictures are so many times the image of a Spec, and with them what a Spec says in pixels
TIMES = 6
PIXELS = ("size", "min_size", "max_size", "target_size", "padding")
GAP = 6
PHOTOGRAPHS = ("chelsea.png", "astronaut.png", "coffee.png", "rocket.jpg")
CATALOGUE = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8").splitlines()


def pages() -> dict[str, str | bytes]:
    """Text and pictures by uri."""
    found: dict[str, str | bytes] = {"transforms/index.md": index()}
    for name in ga.REGISTRY:
        picture = drawing(name)
        if picture is not None:
            found[f"transforms/{name}.jpg"] = picture
        found[f"transforms/{name}.md"] = page(name, picture is not None)
    return found


def navigation() -> list[dict[str, list[dict[str, str]]]]:
    """A section for each family."""
    return [{family: [{n: f"transforms/{n}.md"} for n in names]} for family, names in families()]


def families() -> Iterator[tuple[str, list[str]]]:
    for family in FAMILIES:
        names = [n for n in ga.REGISTRY if n in family.SPECS]
        yield family.__name__.rsplit(".", 1)[-1].replace("auto_timm", "timm's").replace("_", " "), names


def index() -> str:
    """All transforms by family, with the first line of each."""
    parts = [
        "# Transforms",
        "Every one draws for each sample by its key, on a GPU and on a CPU, and is a frozen value.",
    ]
    for family, names in families():
        rows = [f"| [{n}]({n}.md) | {escaped(_first(ga.REGISTRY[n]))} |" for n in names]
        parts += [f"## {family}", "\n".join(["| transform | what it does |", "|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def page(name: str, picture: bool) -> str:
    spec, example = SPECS[name], shown(name)
    parts = [f"# {name}", escaped(inspect.getdoc(ga.REGISTRY[name]) or ""), "## Arguments", _arguments(name, spec)]
    parts += ["## Looks like", f"`{example!r}`"]
    if picture:
        parts.append(f"![Four photographs above, two draws of each below]({name}.jpg)")
        parts.append("The originals above, below them two draws of each.")
    else:
        parts.append("It changes the type of the values, or nothing: no picture would show it.")
    parts += ["## Draws", _draws(name), "## Computes", _formula(name)]
    parts += ["## Is compared with", _oracle(name, spec), "## Speed", _speed(name), "## Elsewhere", _elsewhere(name)]
    return "\n\n".join(parts) + "\n"


def shown(name: str) -> ga.Transform:
    """The transform by the first arguments of its Spec, as large as the pictures, and applied to every sample."""
    args = dict(SPECS[name].arguments[0])
    for key in PIXELS:
        if key in args:
            value = args[key]
            args[key] = tuple(TIMES * v for v in value) if isinstance(value, tuple) else TIMES * value
    names = {f.name for f in fields(ga.REGISTRY[name])}
    if "p" in names and isinstance(args.get("p", 0.5), float):
        args["p"] = 1.0
    return build(name, args)


@cache
def photographs() -> Tensor:
    """[4, 3, H, W] uint8: photographs of scikit-image's wheel, cut to the shape of a Spec's image."""
    import skimage

    h, w = (TIMES * side for side in (21, 35))
    found = []
    for file in PHOTOGRAPHS:
        image = Image.fromarray(decode(Path(skimage.__file__).parent / "data" / file))
        scale = max(w / image.width, h / image.height)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        left, top = (image.width - w) // 2, (image.height - h) // 2
        found.append(torch.from_numpy(np.asarray(image.crop((left, top, left + w, top + h))).copy()))
    return torch.stack(found).permute(0, 3, 1, 2).contiguous()


def _views(name: str) -> list[list[Tensor]]:
    """Two draws of the four photographs.  What leaves them in sizes of their own is cut to one afterwards, which is
    what a policy has to do."""
    size = tuple(photographs().shape[-2:])
    try:
        return _drawn(name, [])
    except ValueError as e:
        if "different sizes" not in str(e):
            raise
        return _drawn(name, [ga.CenterCrop(size)])


def _drawn(name: str, after: list[ga.Transform]) -> list[list[Tensor]]:
    before = [] if _takes_bytes(name) else [ga.ToDtype(torch.float32, scale=True)]
    policy, images, ids = ga.Policy([*before, shown(name), *after], seed=0), photographs(), torch.arange(4)
    labels = (ids,) if SPECS[name].mixes else ()
    found = [policy(images, *labels, ids=ids, epoch=epoch, backend="reference") for epoch in range(2)]
    return [list(got[0] if isinstance(got, tuple) else got) for got in found]


def _takes_bytes(name: str) -> bool:
    spec = SPECS[name]
    return spec.dtype(spec.arguments[0], torch.uint8) is not None


def drawing(name: str) -> bytes | None:
    """The photographs and two draws of each, as a JPEG; None where a picture would show nothing."""
    images, drawn = list(photographs()), _views(name)
    rows = [[_pixels(i) for i in row] for row in (images, *drawn)]
    if all(
        a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 1
        for r in rows[1:]
        for a, b in zip(rows[0], r, strict=True)
    ):
        return None
    width = max(p.shape[1] for r in rows for p in r)
    heights = [max(p.shape[0] for p in r) for r in rows]
    sheet = np.full((sum(heights) + GAP * 2, 4 * width + GAP * 3, 3), 255, np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for k, p in enumerate(row):
            left = k * (width + GAP) + (width - p.shape[1]) // 2
            sheet[top : top + p.shape[0], left : left + p.shape[1]] = p
        top += height + GAP
    out = io.BytesIO()
    Image.fromarray(sheet).save(out, "JPEG", quality=82)
    return out.getvalue()


def _pixels(image: Tensor) -> np.ndarray[Any, Any]:
    """[3, H, W] as [H, W, 3] uint8; floats beyond [0, 1] are brought into it by their own range."""
    x = image.float() / 255 if image.dtype == torch.uint8 else image.float()
    if x.min() < -0.01 or x.max() > 1.01:
        x = (x - x.min()) / (x.max() - x.min())
    x = x.expand(3, -1, -1) if x.shape[0] == 1 else x
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _first(value: Any) -> str:
    """The first paragraph of a docstring in one line."""
    return " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())


def _arguments(name: str, spec: Spec) -> str:
    rows = ["| name | type | default |", "|---|---|---|"]
    found = fields(ga.REGISTRY[name])
    for f in found:
        # a bar would end the cell
        kind = inspect.formatannotation(f.type).replace(" | ", " or ").replace("gpuaug.transforms.base.", "")
        default = "-" if f.default is MISSING else f"`{f.default!r}`"
        rows.append(f"| `{f.name}` | `{kind}` | {default} |")
    whose = (
        "torchvision has no transform of this name." if spec.ours else "Names, order and defaults are torchvision's."
    )
    more = [f"Beside them: {_names(spec.adds)}."] if spec.adds else []
    less = [f"It does not take torchvision's {_names(spec.lacks)}."] if spec.lacks else []
    return "\n\n".join([*(["\n".join(rows)] if found else ["It takes none."]), " ".join([whose, *more, *less])])


def _names(names: frozenset[str]) -> str:
    return ", ".join(f"`{n}`" for n in sorted(names))


def _lowered(name: str) -> tuple[dict[str, Any], ir.Sequence]:
    """What it draws for the four photographs, and the passes that this becomes."""
    size = tuple(photographs().shape[-2:])
    dtype = torch.uint8 if _takes_bytes(name) else torch.float32
    frame = ir.Frame(torch.tensor([size] * 4), size, 3, dtype)
    keys = rng.Keys(0, 0, torch.arange(4), torch.zeros(4, dtype=torch.int64), labels=torch.arange(4))
    example = shown(name)
    drawn = sample_all([example], rng.Draw(keys, 0), frame, 0)
    return drawn[0], lower_all([example], drawn, frame, 0)[0]


def _draws(name: str) -> str:
    drawn, _ = _lowered(name)
    rows = ["| parameter | type | of each sample | of the photographs above, epoch 0 |", "|---|---|---|---|"]
    for key, value in _flat(drawn):
        shape = tuple(value.shape[1:])
        each = "a number" if not shape else " x ".join(map(str, shape))
        first = ", ".join(_short(v) for v in value) if value.numel() <= 16 else f"{_short(value[0])}, ..."
        rows.append(f"| `{key}` | {str(value.dtype).removeprefix('torch.')} | {each} | {first} |")
    if len(rows) == 2:
        return "Nothing: it does the same to every sample."
    return "\n".join(rows) + "\n\n`policy.draw(ids, epoch=, size=)` gives them."


def _flat(drawn: Any, before: str = "") -> Iterator[tuple[str, Tensor]]:
    items = drawn.items() if isinstance(drawn, dict) else enumerate(drawn)
    for key, value in items:
        if isinstance(value, Tensor):
            yield f"{before}{key}", value
        elif isinstance(value, dict | list | tuple):
            yield from _flat(value, f"{before}{key}.")


def _short(value: Tensor) -> str:
    numbers = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in value.flatten()[:6].tolist()]
    more = ", ..." if value.numel() > 6 else ""
    return numbers[0] if value.dim() == 0 else f"({', '.join(numbers)}{more})"


def _formula(name: str) -> str:
    """The passes that it becomes, each with what executors compute for it."""
    _, passes = _lowered(name)
    every = dict.fromkeys(type(p) for p in ir.walk(passes))
    if not every:
        return "Nothing: values and places stay as they are."
    meanings = [f"**{p.__name__}**: {escaped(inspect.getdoc(p) or '')}" for p in every]
    return "\n\n".join(
        [*meanings, "`gpuaug/exec/reference.py` defines it in plain torch; `policy.describe()` says how it runs."]
    )


def _oracle(name: str, spec: Spec) -> str:
    kinds = dict.fromkeys(spec.kind(a) for a in spec.arguments)
    rows = [f"| {k} | {TOLERANCES[k][0]:g} | {TOLERANCES[k][1]:g} |" for k in kinds]
    table = ["| kind | largest difference, of 1 | share of values beyond it |", "|---|---:|---:|", *rows]
    whose = "numpy and torch alone" if spec.ours else f"`torchvision.transforms.v2`'s {name} and its functions"
    head = f"Tests compare every executor with an oracle that does not import gpuaug, made of {whose}:"
    try:
        code = dedent(inspect.getsource(spec.meaning)).strip()
    except OSError:
        code = ""
    block = f"```python\n{code}\n```" if code.startswith("def ") else f"`tests/support/specs/`: {spec.meaning.__name__}"
    return "\n\n".join([head, block if "<lambda>" not in block else _where(name), "\n".join(table)])


def _where(name: str) -> str:
    return f"It stands in `tests/support/specs/`, as `SPECS[{name!r}]`."


@cache
def _measured() -> dict[str, list[str]]:
    """Rows of speed by transform, of every stored machine."""
    from bench.report import readme

    found: dict[str, list[str]] = {}
    for path in readme.files():
        data = results.load(path)
        for m in results.from_json(data):
            if m.group == "transform":
                rates = [m.rate(n) for n in (m.base, *readme.FEW)]
                cells = " | ".join(results.number(r.median) if r else "-" for r in rates)
                place = f"{data['conditions']['device']}, {results.place(data)}, {data['conditions']['date']}"
                found.setdefault(m.workload, []).append(f"| {place}: {escaped(m.description)} | {cells} |")
    return found


def _speed(name: str) -> str:
    rows = _measured().get(name)
    if not rows:
        return "Not measured by itself; [Speed](../speed.md) has whole policies."
    from bench.report import readme

    head = ["| images/s | gpuaug | " + " | ".join(readme.FEW) + " |", "|---|" + "---:|" * (1 + len(readme.FEW))]
    return "\n".join(head + rows) + "\n\nA dash: not measured, or its work is not equal."


def _elsewhere(name: str) -> str:
    head = next(line for line in CATALOGUE if line.startswith("| gpuaug |"))
    row = next(line for line in CATALOGUE if line.startswith(f"| `{name}` |"))
    rule = "|---" * (head.count("|") - 1) + "|"
    return "\n".join([head, rule, row]) + "\n\n[The catalogue](../catalogue.md) has all of them."
