"""The API: a page for each module that users import, from its docstrings."""

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import gpuaug as ga

# the names at the top that are no transform of the registry, which have pages of their own
TOP = [n for n in ga.__all__ if n not in ga.REGISTRY and not inspect.ismodule(getattr(ga, n)) and n != "__version__"]
# characters of a signature in one line
WIDTH = 84
MODULES = [n for n in ga.__all__ if inspect.ismodule(getattr(ga, n))]


def pages() -> dict[str, str]:
    """Text by uri."""
    top = [_entry(n, getattr(ga, n)) for n in TOP]
    found = {"api/gpuaug.md": "# gpuaug\n\n" + "\n\n".join(top) + "\n"}
    for name in MODULES:
        module = getattr(ga, name)
        body = [_entry(n, v) for n, v in _public(module)]
        found[f"api/{name}.md"] = f"# gpuaug.{name}\n\n{_doc(module)}\n\n" + "\n\n".join(body) + "\n"
    return found


def navigation() -> list[dict[str, str]]:
    return [{"gpuaug": "api/gpuaug.md"}, *({f"gpuaug.{n}": f"api/{n}.md"} for n in MODULES)]


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """What a module offers: its `__all__`, or what is defined in it."""
    names = getattr(module, "__all__", None) or [
        n for n, v in vars(module).items() if not n.startswith("_") and getattr(v, "__module__", "") == module.__name__
    ]
    for name in names:
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value


def _doc(value: Any) -> str:
    """A docstring as Markdown: it is plain text, in which an indented block is code already."""
    return escaped(inspect.getdoc(value) or "")


def escaped(text: str) -> str:
    """Without what Markdown would take for emphasis, a link or a tag; code in backquotes stays as it is."""
    lines, code = [], text.split("`")
    for i, part in enumerate(code):
        lines.append(
            part if i % 2 else part.replace("*", "\\*").replace("[", "\\[").replace("<", "&lt;").replace("_", "\\_")
        )
    return "`".join(lines)


def _signature(name: str, value: Any) -> str:
    """A call as it is written, an argument a line where one line would be too long."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    whole = f"{name}{found}"
    if len(whole) <= WIDTH or not found.parameters:
        return whole
    parts, kinds = [], [p.kind for p in found.parameters.values()]
    for i, p in enumerate(found.parameters.values()):
        if p.kind is p.KEYWORD_ONLY and p.KEYWORD_ONLY not in kinds[:i] and p.VAR_POSITIONAL not in kinds:
            parts.append("    *,")
        parts.append(f"    {p},")
    given = found.return_annotation
    end = "" if given is found.empty else f" -> {inspect.formatannotation(given)}"
    return "\n".join([f"{name}(", *parts, f"){end}"])


def _entry(name: str, value: Any) -> str:
    """A class with its public methods, or a function."""
    kind = "class " if inspect.isclass(value) else ""
    parts = [f"## {name}", f"```python\n{kind}{_signature(name, value)}\n```", _doc(value)]
    # what a transform has beside its arguments is for executors
    if inspect.isclass(value) and not issubclass(value, ga.Transform):
        for method, found in vars(value).items():
            if method.startswith("_") or not (text := inspect.getdoc(found)):
                continue
            if callable(found) or isinstance(found, property | classmethod | staticmethod):
                signature = method if isinstance(found, property) else _signature(method, getattr(value, method))
                parts += [f"### {name}.{method}", f"```python\n{signature}\n```", escaped(text)]
    return "\n\n".join(p for p in parts if p)
