"""Policies as plain data and as YAML."""

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
import yaml

from gpuaug import rng
from gpuaug.transforms import APART, REGISTRY, Transform

_KNOWN = REGISTRY | APART
# values of a file, its aliases written out; a policy at its largest has fewer
_MOST = 2**20
# how people write a number that YAML takes for text, because it has no point before the exponent or no sign in it
_EXPONENT = re.compile(r"([-+]?)(\d+\.?\d*|\.\d+)[eE]([-+]?)(\d+)")


def to_dict(transform: Transform) -> dict[str, Any]:
    """{"name": ..., argument: value, ...}."""
    kind = type(transform)
    name = kind.__name__
    if _KNOWN.get(name, kind) is not kind:
        raise ValueError(
            f"{kind.__module__}.{name} has the name of a transform of gpuaug, which a file would stand for; "
            "give the class another name"
        )
    if not is_dataclass(transform):
        raise TypeError(
            f"{name} is no dataclass, so that its arguments are unknown and cannot be written; "
            "decorate it with @dataclass(frozen=True)"
        )
    return {
        "name": name,
        **{f.name: _plain(f"{name}.{f.name}", getattr(transform, f.name)) for f in fields(transform) if f.init},
    }


def from_dict(data: Any, own: Sequence[type[Transform]] = ()) -> Transform:
    """The transform that `to_dict` wrote.  own: classes that the data may name beside gpuaug's."""
    if not isinstance(data, dict) or "name" not in data:
        raise ValueError(f"a transform must be a mapping with a name, got {short(data)}")
    known = _KNOWN | _named(own)
    cls = known.get(data["name"]) if isinstance(data["name"], str) else None
    if cls is None:
        raise ValueError(
            f"unknown transform {data['name']!r}; "
            f"known are {', '.join(sorted(known))}. Nothing is imported for a file: "
            "name a class of your own in the call, Policy.load(path, transforms=[RandomGain])"
        )
    taken = {f.name for f in fields(cls) if f.init}  # type: ignore[arg-type]
    arguments = {k: _rich(f"{data['name']}.{k}", v, own) for k, v in data.items() if k != "name"}
    for name in arguments:
        if name not in taken:
            raise ValueError(f"{data['name']} has no argument {name!r}; it has {', '.join(sorted(taken)) or 'none'}")
    return cls(**arguments)


def _named(own: Sequence[type[Transform]]) -> dict[str, type[Transform]]:
    """Classes of a user by name."""
    out: dict[str, type[Transform]] = {}
    if isinstance(own, str) or not isinstance(own, Sequence):
        raise TypeError(f"transforms must be a list of classes, got {own!r}; pass transforms=[RandomGain]")
    for cls in own:
        if not (isinstance(cls, type) and issubclass(cls, Transform) and is_dataclass(cls)):
            raise TypeError(
                f"transforms must be classes of gpuaug.Transform that are dataclasses, got {cls!r}; "
                "pass the class, RandomGain and not RandomGain()"
            )
        if {**_KNOWN, **out}.get(cls.__name__, cls) is not cls:
            raise ValueError(
                f"two transforms are called {cls.__name__}, and a file tells them apart by name; "
                f"give {cls.__module__}.{cls.__name__} another"
            )
        out[cls.__name__] = cls
    return out


def policy_fields(data: Any, own: Sequence[type[Transform]] = ()) -> tuple[list[Transform], dict[str, Any]]:
    """Transforms and options of a policy's data.  own: classes that it may name beside gpuaug's."""
    _check_size(data, _parts_of_data)
    if not isinstance(data, dict) or not isinstance(data.get("transforms"), list):
        raise ValueError(f"a policy must be a mapping with a list of transforms, got {short(data)}")
    known = ("version", "draws", "seed", "memory_format", "single_resample", "transforms")
    unknown = data.keys() - set(known)
    if unknown:
        raise ValueError(
            f"unknown keys {', '.join(sorted(map(str, unknown)))} in a policy; known are {', '.join(known)}"
        )
    if data.get("version", 1) != 1:
        raise ValueError(f"policy version {data['version']!r} is not known here, expected 1; update gpuaug")
    if data.get("draws", rng.VERSION) != rng.VERSION:
        raise ValueError(f"draws must be version {rng.VERSION}, got {data['draws']!r}: {rng.OTHER_DRAWS}")
    layouts = {"contiguous_format": torch.contiguous_format, "channels_last": torch.channels_last}
    options = {k: _rich(k, data[k], ()) for k in ("seed", "memory_format", "single_resample") if k in data}
    if options.setdefault("memory_format", "contiguous_format") not in layouts:
        raise ValueError(f"memory_format must be one of {', '.join(layouts)}, got {options['memory_format']!r}")
    options["memory_format"] = layouts[options["memory_format"]]
    return [from_dict(t, own) for t in data["transforms"]], options


def to_yaml(data: dict[str, Any]) -> str:
    """YAML in the order of the arguments."""
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=None)


def read(path: str | Path) -> Any:
    """Data from a YAML file; raises ValueError, or the OSError that there is, in a sentence."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there; pass the path of a policy that Policy.save wrote") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{path} is a folder; pass the path of a policy that Policy.save wrote") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no policy: byte {error.start} is not UTF-8 text; pass a YAML file, saved as UTF-8"
        ) from None
    except OSError as error:
        raise type(error)(
            f"{path} cannot be read: {error.strerror}; pass the path of a policy that Policy.save wrote"
        ) from None
    return from_yaml(text)


def from_yaml(text: str) -> Any:
    """Data from YAML; raises ValueError where it is none."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            _check_size(node, _parts_of_node)
            return None if node is None else _constructed(loader, node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ValueError(
            f"not a policy: {error.problem or error.context}"
            f"{f', line {mark.line + 1}, column {mark.column + 1}' if mark else ''}"
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(f"not a policy: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError("not a policy: it is nested too deep") from None


def _constructed(loader: Any, node: Any) -> Any:
    try:
        return loader.construct_document(node)
    except ValueError as error:
        # a date of no calendar
        raise ValueError(f"not a policy: {error}") from None


def _parts_of_node(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        names = [k.value for k, _ in node.value if isinstance(k, yaml.ScalarNode)]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise ValueError(f"not a policy: {twice!r} stands twice in the mapping of line {node.start_mark.line + 1}")
        return [v for pair in node.value for v in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _parts_of_data(data: Any) -> list[Any]:
    return list(data.values()) if isinstance(data, dict) else data if isinstance(data, list) else []


def _check_size(root: Any, parts: Callable[[Any], list[Any]]) -> None:
    """Refuse what an alias makes endless, or longer than any policy: counted without writing it out."""
    sizes: dict[int, int | None] = {}

    def size(node: Any) -> int:
        known = sizes.get(id(node), 0)
        if known is None:
            raise ValueError("not a policy: an alias stands inside what it stands for; write it out")
        if not known:
            sizes[id(node)] = None
            known = sizes[id(node)] = 1 + sum(map(size, parts(node)))
            if known > _MOST:
                raise ValueError(
                    f"not a policy: with its aliases written out it has more than {_MOST} values; "
                    "write out what it needs"
                )
        return known

    try:
        size(root)
    except RecursionError:
        raise ValueError("not a policy: it is nested too deep") from None


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Transform):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(name, v) for v in value]
    if isinstance(value, torch.dtype):
        return str(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"{name} must be numbers, text, dtypes, transforms or tuples of them to be written, "
        f"got {type(value).__name__}; convert it when it is made"
    )


def _rich(name: str, value: Any, own: Sequence[type[Transform]]) -> Any:
    if isinstance(value, dict):
        return from_dict(value, own)
    if isinstance(value, list):
        return tuple(_rich(name, v, own) for v in value)
    if not isinstance(value, str):
        return value
    if value.startswith("torch."):
        dtype = getattr(torch, value.removeprefix("torch."), None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"unknown dtype {value!r}")
        return dtype
    exponent = _EXPONENT.fullmatch(value)
    if exponent:
        sign, digits, way, power = exponent.groups()
        better = f"{sign}{digits if '.' in digits else digits + '.0'}e{way or '+'}{power}"
        raise ValueError(
            f"{name} must be a number, got the text {value!r}: "
            f"YAML wants a point and a sign in a number with an exponent; write {better}"
        )
    return value
