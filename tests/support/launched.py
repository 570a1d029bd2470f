"""Bound calls through the launchers of Triton in C, on a machine without a card: a driver of CUDA that only notes what
it is asked to launch.  Prints, as JSON, how many launches came, and every argument that came otherwise.

A program of its own: run with the folder of a Triton first on PYTHONPATH."""

import atexit
import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from bound import SMALL, addressed, call
from gpuaug_kernels.calls import BoundCall
from triton.backends.nvidia import driver

import gpuaug as ga
from bench import no_card

# the functions of the driver that launchers call, and one that notes a launch
DRIVER = """
#include <stdint.h>
#include <string.h>
uint64_t seen[64]; int want; unsigned grid[3]; int calls;
int cuLaunchKernelEx(const unsigned *config, void *f, void **p, void **extra) {
  calls++; memcpy(grid, config, 12); for (int i = 0; i < want; i++) memcpy(seen + i, p[i], 8); return 0; }
int cuGetErrorString(int code, const char **text) { *text = "no card"; return 0; }
int cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)1; return 0; }
int cuCtxSetCurrent(void *context) { return 0; }
int cuPointerGetAttribute(void *out, int attribute, uint64_t address) { *(uint64_t *)out = address; return 0; }
int cuFuncSetAttribute(void *f, int attribute, int value) { return 0; }
"""
FOLDER = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, FOLDER, True)
NAME = "libcuda.so.1"


def built(text: str, name: str, *more: str) -> Path:
    """A library of a text in C."""
    source = FOLDER / f"{name}.c"
    source.write_text(text)
    folders = [f"-I{p}" for p in (Path(driver.__file__).parent / "include", sysconfig.get_paths()["include"])]
    command = ["gcc", str(source), "-O1", "-shared", "-fPIC", "-Wno-psabi", *folders, *more, "-o", str(FOLDER / name)]
    subprocess.run(command, check=True, capture_output=True)
    return FOLDER / name


def module(path: Path, name: str) -> Any:
    """A library as a module; what it never calls of the driver need not be there."""
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


class InC:
    """What a launch is handed to: Triton's launcher of this version, and a look at what came out of it."""

    made = 0
    otherwise: list[str] = []

    def __init__(self, source: Any, metadata: Any):
        names, self.signature = source.fn.arg_names, {}
        for k, (name, kind) in enumerate(source.signature.items()):
            self.signature[names.index(name) if isinstance(name, str) else k] = kind
        self.name = metadata.name
        if hasattr(driver, "make_launcher"):
            text = driver.make_launcher({}, self.signature, None)
            InC.made += 1
            launch = module(built(text, f"launcher_{InC.made}.so", *LINK), "__triton_launcher").launch
            self._launch = lambda grid, stream, f, packed, hooks, args: launch(
                *grid, stream, f, False, False, None, None, packed, *hooks, *args
            )
            return
        from triton.backends.driver import expand_signature

        expanded = expand_signature(self.signature.values(), None, "nvTmaDesc")
        how = (driver.annotate_arguments(expanded), driver.make_kernel_signature(expanded))
        self._launch = lambda grid, stream, f, packed, hooks, args: UTILS.launch(
            *grid, stream, f, False, False, packed, *hooks, None, None, *how, args
        )

    def __call__(
        self, x: int, y: int, z: int, stream: int, f: int, packed: Any, told: Any, enter: Any, leave: Any, *args: Any
    ) -> None:
        given = [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in args]
        kinds = list(self.signature.values())
        sent = [(kind, a) for kind, a in zip(kinds, given, strict=True) if kind != "constexpr"]
        ctypes.c_int.in_dll(CARD, "want").value = len(sent)
        self._launch((x, y, z), stream, f, packed, (told, enter, leave), tuple(given))
        seen = (ctypes.c_uint64 * 64).in_dll(CARD, "seen")
        if list((ctypes.c_uint * 3).in_dll(CARD, "grid")) != [x, y, z]:
            InC.otherwise.append(f"{self.name}: grid")
        for k, (kind, a) in enumerate(sent):
            mask = 2**32 - 1 if kind == "i32" else 2**64 - 1
            if seen[k] & mask != a & mask:
                InC.otherwise.append(f"{self.name}, argument {k}: {a} came as {seen[k] & mask}")


# by its name it is then found wherever a launcher looks for it
CARD = ctypes.CDLL(str(built(DRIVER, NAME, f"-Wl,-soname,{NAME}")), mode=ctypes.RTLD_GLOBAL)
LINK = (f"-L{FOLDER}", f"-l:{NAME}")
UTILS: Any = None
if not hasattr(driver, "make_launcher"):
    # one launcher in C serves all kernels
    UTILS = module(built((Path(driver.__file__).parent / "driver.c").read_text(), "cuda_utils.so", *LINK), "cuda_utils")
    for constant in ("PyKernelArg", "ARG_CONSTEXPR", "ARG_KERNEL", "ARG_TUPLE"):
        setattr(driver, constant, getattr(UTILS, constant))


def main() -> None:
    """A call compiled, one that is watched, and those that are bound."""
    no_card.NoCard.launcher_cls = InC  # type: ignore[assignment]
    policy = ga.Policy(SMALL, seed=2**63 + 2**31 + 5, memory_format=torch.channels_last)
    counts = []
    with no_card.no_card() as (card, _), addressed():
        if UTILS is not None:
            card.utils.build_signature_metadata = UTILS.build_signature_metadata  # type: ignore[attr-defined]
        for _ in range(4):
            call(policy)
            counts.append(ctypes.c_int.in_dll(CARD, "calls").value)
    bound = sum(isinstance(v, BoundCall) for v in policy._recipes.calls.values())
    print(
        json.dumps({"triton": triton.__version__, "launches": counts, "bound": bound, "otherwise": InC.otherwise}),
        flush=True,
    )


if __name__ == "__main__":
    main()
