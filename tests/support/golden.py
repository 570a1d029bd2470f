"""What is drawn, as digests in tests/support/golden.json: a seed must give the same augmentations in every version with
the same `gpuaug.rng.VERSION`.

`python tests/support/golden.py` says what differs from the file; with `--write` it adds what the file lacks.  It
changes nothing that stands there, unless `gpuaug.rng.VERSION` is above the file's: old seeds then mean other
augmentations, which takes a new major version and a sentence in CHANGELOG.md."""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from build import build
from specs import SPECS

import gpuaug as ga
from gpuaug import numbering, rng

FILE = Path(__file__).with_name("golden.json")
N = 96
SEED, EPOCH, SIZE = 0x0123456789ABCDEF, 70_003, (64, 80)
# both halves of an id matter, and so does a second copy
IDS = torch.arange(N) * 0x3_0000_0007 + 5
OCCURRENCE = torch.arange(N) % 3
KEYS = rng.Keys(SEED, EPOCH, IDS, OCCURRENCE)


def digest(value: Any) -> str:
    """Integers to the last bit; floats to five digits, so that the last bit of another machine's logarithm is not
    seen."""
    t = torch.as_tensor(value)
    numbers = (
        [f"{v + 0.0:.4e}" for v in t.double().flatten().tolist()]
        if t.is_floating_point()
        else t.long().flatten().tolist()
    )
    return hashlib.sha256(json.dumps([list(t.shape), numbers]).encode()).hexdigest()[:16]


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor of what was drawn, by its place: transforms.1.apply."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def of_transform(t: ga.Transform) -> dict[str, str]:
    """What a transform draws, in the second place of a policy, whose words are not those of the first."""
    policy = ga.Policy([ga.RandomInvert(), t], seed=SEED)
    drawn = policy.draw(IDS, epoch=EPOCH, occurrence=OCCURRENCE, size=SIZE, dtype=torch.float32)
    return {name: digest(value) for name, value in leaves(drawn[1])}


def of_generator() -> dict[str, str]:
    """What all transforms draw by: words, the numbers made of them, pixels, partners, and the keys of other
    processes."""
    draws = {
        "uniform": lambda d: d.uniform(-2.0, 3.0, 5),
        "coin": lambda d: d.coin(0.3),
        "integer": lambda d: d.integer(-7, 1000),
        "normal": lambda d: d.normal(1.0, 2.0),
        "beta 0.2": lambda d: d.beta(0.2),
        "beta 1": lambda d: d.beta(1.0),
        "beta 4": lambda d: d.beta(4.0),
        "permutation": lambda d: d.permutation(6),
        "choice of 31": lambda d: d.choice(31),
        "weighted choice": lambda d: d.choice([0.5, 0.2, 0.3]),
        "second draw": lambda d: (d.words(3), d.words(5))[1],
    }
    counter = torch.arange(N)
    pixels = KEYS.pixels(2, 5, 6, 7)
    return {
        "philox": digest(torch.stack(rng.philox(SEED, counter, counter * 3, counter * 5, counter * 7))),
        **{name: digest(draw(rng.Draw(KEYS, 3))) for name, draw in draws.items()},
        "pixels": digest(pixels),
        "gauss of pixels": digest(torch.stack(rng.gauss(pixels[..., 0], pixels[..., 1]))),
        "partners": digest(KEYS.partners(4)),
        "mixed keys": digest([numbering.mix(i, SEED + j) >> 1 for i in range(8) for j in range(8)]),
    }


def known() -> dict[str, Any]:
    """The file."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def found() -> dict[str, Any]:
    """The file as it would be now: every set of arguments of the Specs, and those that are in it already."""
    made = {repr(t): t for name in sorted(ga.REGISTRY) for t in (build(name, args) for args in SPECS[name].arguments)}
    if FILE.exists():
        made |= {code: eval(code, {"torch": torch, **vars(ga)}) for code in known()["transforms"]}
    return {
        "version": rng.VERSION,
        "generator": of_generator(),
        "transforms": {code: of_transform(made[code]) for code in sorted(made)},
    }


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What is drawn otherwise than the file says."""
    changed = [f"generator: {name}" for name, value in old["generator"].items() if new["generator"].get(name) != value]
    return changed + [code for code, value in old["transforms"].items() if new["transforms"].get(code) != value]


def main(*arguments: str) -> str | None:
    """Compare, and write where that is asked for; a sentence where it must not be."""
    new = found()
    old = known() if FILE.exists() else {"version": 0, "generator": {}, "transforms": {}}
    changed = changes(old, new)
    print(*changed, sep="\n")
    if changed and not new["version"] > old["version"]:
        return (
            f"{len(changed)} draws changed, and gpuaug.rng.VERSION is still {new['version']}: old seeds would give "
            "other augmentations without a word"
        )
    if "--write" not in arguments:
        return None if new == old else "tests/support/golden.json is not complete; --write adds to it"
    FILE.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
