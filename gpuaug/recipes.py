"""What calls of one policy prepare before they look at an image: for a kind of batch that comes again, by a recipe."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from gpuaug import ir
from gpuaug.rng import Keys

Build = Callable[[Keys, ir.Frame], Any]

# kinds that are remembered; a policy that meets more of them meets few twice
_MOST = 64


class Recipes:
    """Recipes by kind of batch.  On a host they are found at the second batch of a kind: most policies of a test or a notebook see one."""

    def __init__(self) -> None:
        # a recipe; why there is none; or nothing yet, for a kind that was seen once
        self._known: dict[Hashable, Any] = {}

    def prepare(self, kind: Hashable, keys: Keys, size: Tensor | None, frame: Callable[[], ir.Frame], build: Build) -> Any:
        """What `build` makes of keys and a frame, by the recipe of its kind where there is one.

        size: [N, 2] int64 where images differ.  frame: makes the frame, which a recipe can do without.
        """
        host = keys.ids.device.type == "cpu"
        first = (host, kind) not in self._known
        if first:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[host, kind] = None
        recipe = self._known.get((host, kind))
        # on a GPU the first call compiles, as everywhere, unless a graph captures it: nothing can be compiled there
        if (first and host) or (recipe is None and not host and torch.cuda.is_current_stream_capturing()):
            return build(keys, frame())
        if recipe is None:
            recipe = self._known[host, kind] = find(keys.seed, frame(), build)
        made = None if isinstance(recipe, str) else recipe.fill(keys, size)
        # what the recipe found amiss, the long way says in words
        return build(keys, frame()) if made is None else made


def find(seed: int, frame: ir.Frame, build: Build) -> Any:
    """The recipe of `build` for batches of a kind, or a sentence that says why there is none."""
    from gpuaug.tape.recipe import trace

    try:
        return trace(seed, frame, build)
    except Exception as error:
        # transforms of users may do anything: what stops a symbol stops nothing else
        return f"{type(error).__name__}: {error}"
