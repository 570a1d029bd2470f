"""Policies as plain data and as YAML."""

from dataclasses import fields
from typing import Any

import torch
import yaml

from gpuaug import rng
from gpuaug.transforms import REGISTRY, Transform


def to_dict(transform: Transform) -> dict[str, Any]:
    """{"name": ..., argument: value, ...}."""
    return {"name": type(transform).__name__, **{f.name: _plain(getattr(transform, f.name)) for f in fields(transform)}}  # type: ignore[arg-type]


def from_dict(data: Any) -> Transform:
    """The transform that `to_dict` wrote."""
    if not isinstance(data, dict) or "name" not in data:
        raise ValueError(f"a transform must be a mapping with a name, got {data!r}")
    cls = REGISTRY.get(data["name"]) if isinstance(data["name"], str) else None
    if cls is None:
        raise ValueError(f"unknown transform {data['name']!r}; known are {', '.join(sorted(REGISTRY))}")
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    arguments = {k: _rich(v) for k, v in data.items() if k != "name"}
    for name in arguments:
        if name not in known:
            raise ValueError(f"{data['name']} has no argument {name!r}; it has {', '.join(sorted(known)) or 'none'}")
    return cls(**arguments)


def policy_fields(data: Any) -> tuple[list[Transform], dict[str, Any]]:
    """Transforms and options of a policy's data."""
    if not isinstance(data, dict) or not isinstance(data.get("transforms"), list):
        raise ValueError(f"a policy must be a mapping with a list of transforms, got {data!r}")
    known = ("version", "draws", "seed", "memory_format", "single_resample", "transforms")
    unknown = data.keys() - set(known)
    if unknown:
        raise ValueError(f"unknown keys {', '.join(sorted(map(str, unknown)))} in a policy; known are {', '.join(known)}")
    if data.get("version", 1) != 1:
        raise ValueError(f"policy version {data['version']!r} is not known here, expected 1; update gpuaug")
    if data.get("draws", rng.VERSION) != rng.VERSION:
        raise ValueError(f"draws must be version {rng.VERSION}, got {data['draws']!r}: {rng.OTHER_DRAWS}")
    layouts = {"contiguous_format": torch.contiguous_format, "channels_last": torch.channels_last}
    options = {k: data[k] for k in ("seed", "memory_format", "single_resample") if k in data}
    if options.setdefault("memory_format", "contiguous_format") not in layouts:
        raise ValueError(f"memory_format must be one of {', '.join(layouts)}, got {options['memory_format']!r}")
    options["memory_format"] = layouts[options["memory_format"]]
    return [from_dict(t) for t in data["transforms"]], options


def to_yaml(data: dict[str, Any]) -> str:
    """YAML in the order of the arguments."""
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=None)


def from_yaml(text: str) -> Any:
    """Data from YAML; raises ValueError where it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not a policy: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Transform):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, torch.dtype) else value


def _rich(value: Any) -> Any:
    if isinstance(value, dict):
        return from_dict(value)
    if isinstance(value, list):
        return tuple(_rich(v) for v in value)
    if isinstance(value, str) and value.startswith("torch."):
        dtype = getattr(torch, value.removeprefix("torch."), None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"unknown dtype {value!r}")
        return dtype
    return value
