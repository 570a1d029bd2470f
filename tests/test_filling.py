"""Triton's cache filled ahead for a card that is not here: what a process on such a card then finds in it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import children
import pytest
import torch

import gpuaug as ga

ROOT = Path(ga.__file__).parent.parent


def program(cache: Path, *command: Any) -> subprocess.CompletedProcess[str]:
    """A process that compiles, with a cache of its own."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "tests" / "support")))
    more = {"PYTHONPATH": path, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    return children.run([sys.executable, *command], env=os.environ | more, timeout=500)


# several commands in one process, which takes seconds to start; its status is that of the last
COMMANDS = """
import json, sys
from gpuaug.apps.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["gpuaug", *arguments]
    try:
        main()
    except SystemExit as end:
        status = end.code
        print("status", status or 0)
"""


def test_a_second_process_compiles_nothing_after_the_cache_was_filled(tmp_path):
    saved, cache = tmp_path / "p.yaml", tmp_path / "cache"
    steps = [ga.RandomCrop(24), ga.RandomHorizontalFlip(), ga.ToDtype(torch.bfloat16, scale=True)]
    ga.Policy(steps, memory_format=torch.channels_last).save(saved)
    kinds = [["compile", str(saved), "--target", "cuda:90", *kind] for kind in ((), ("--size", "50x53"))]
    done = program(cache, "-c", COMMANDS, json.dumps(kinds))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 kernels compiled for cuda:90") == done.stdout.count("2/2") == 2
    before = {p.name for p in cache.iterdir()}
    assert len(before) >= 3, "vacuous: two kinds of images, and a kernel each that draws and that writes"
    done = program(cache, ROOT / "tests" / "support" / "filled.py", saved)
    assert done.returncode == 0, done.stderr
    asked = json.loads(done.stdout.splitlines()[-1])
    assert asked == {"dense": 2, "ragged": 2, "launched": 4}, "vacuous: Triton is asked for every kernel"
    assert {p.name for p in cache.iterdir()} == before, "something was compiled after all"


def test_what_cannot_be_compiled_for_is_told(tmp_path):
    policy = ga.Policy([ga.RandomHorizontalFlip()])
    with pytest.raises(RuntimeError, match="kernels are interpreted and not compiled"):
        policy.warmup((2, 3, 9, 9), target="cuda:90")
    policy.save(tmp_path / "p.yaml")
    targets = ("h100", "cuda:70", "cuda:9.0", "cuda:91")
    done = program(
        tmp_path, "-c", COMMANDS, json.dumps([["compile", str(tmp_path / "p.yaml"), "--target", t] for t in targets])
    )
    assert done.stdout.count("status 1\n") == 4 and "status 0" not in done.stdout, done.stdout + done.stderr
    assert done.stderr.count('target must be "cuda:"') == 4 and "Traceback" not in done.stderr
