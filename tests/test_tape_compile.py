"""Ring 6: the kernel of a tape compiles for GPUs that are not here, as a launch would compile it, and spills nothing.

The compiler and the interpreter cannot share a process, so that this file is also the script that a test runs.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__)
TARGETS = (80, 90, 100)


def compiled(names: list[str], targets: tuple[int, ...], folder: Path) -> list[dict]:
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(folder)}
    env["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), str(HERE.parents[1] / "kernels"), env.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE), ",".join(names), ",".join(map(str, targets))]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def check(rows: list[dict], count: int) -> None:
    assert len(rows) == count
    for row in rows:
        assert row["entries"] == [row["kernel"]] and row["arch"].rstrip("af") == f"sm_{row['target']}", row
        # sine and cosine of the library keep room for huge angles, which never come
        assert row["spills"] == 0 and row["stack"] <= 48 and 16 <= row["registers"] <= 255, row


def test_tapes_compile_for_every_architecture_and_spill_nothing(tmp_path):
    check(compiled(["seed recipe", "weak", "partner"], TARGETS, tmp_path), 9)


@pytest.mark.slow
def test_long_tapes_spill_nothing(tmp_path):
    rows = compiled(["moderate", "moderate + erasing + CutMix", "strong"], TARGETS, tmp_path)
    check(rows, 9)
    assert min(r["instructions"] for r in rows) > 500, "vacuous"


def policies():
    """Name, transforms, size and channels of the images."""
    import torch

    import gpuaug as ga

    crop, jitter = [ga.RandomResizedCrop(224), ga.RandomHorizontalFlip()], ga.ColorJitter(0.4, 0.4, 0.4, 0.1)
    ends = [ga.ToDtype(torch.float32, scale=True), ga.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ga.ToDtype(torch.bfloat16)]
    erase = ga.RandomErasing(0.25)
    flips = [ga.RandomHorizontalFlip(), ga.RandomVerticalFlip()]
    yield "seed recipe", [*flips, ga.RandomAffine(90, (0.3, 0.3), (1, 2)), ga.SaltAndPepper(0.05)], (28, 28), 1
    yield "weak", [*crop, *ends], None, 3
    yield "moderate", [*crop, jitter, *ends], None, 3
    yield "moderate + erasing + CutMix", [*crop, jitter, *ends, erase, ga.CutMix(1.0, 5)], None, 3
    yield "strong", [*crop, ga.RandAugment(2, 9), *ends, erase], None, 3


def sources(names: list[str]):
    """Name, kernel, what to compile, how, and how many instructions it holds."""
    import torch
    from gpuaug_kernels import tape as machine
    from triton.compiler import ASTSource

    import gpuaug as ga
    from gpuaug import ir
    from gpuaug.tape import device
    from gpuaug.tape.recipe import trace

    for name, transforms, fixed, channels in policies():
        if name in names:
            policy = ga.Policy(transforms)
            frame = ir.Frame(torch.zeros((2, 2), dtype=torch.int64), fixed, channels, torch.uint8)
            recipe = trace(policy.seed, frame, policy._builder("triton"))
            program = device.assemble(recipe.tape, recipe.tables, recipe.slots)
            yield name, "tape", machine.ahead(program), machine.OPTIONS, recipe.instructions
    if "partner" in names:
        types = {"ids": "*i64", "occurrences": "*i64", "epoch": "i64", "low": "i64", "high": "i64", "out": "*i64", "n": "i32"}
        constants = {"C1": (3 << 28) + 5, "BLOCK": 32, "CHUNK": 64}
        signature = {k: types.get(k, "constexpr") for k in machine.partner.arg_names}
        yield "partner", "partner", ASTSource(fn=machine.partner, signature=signature, constexprs=constants), {"num_warps": 4}, 0


def main(names: list[str], targets: list[int]) -> list[dict]:
    import triton
    from triton.backends.compiler import GPUTarget

    rows = []
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    for name, kernel, source, options, instructions in sources(names):
        for target in targets:
            ptx = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options).asm["ptx"]
            arch = re.search(r"\.target (sm_\w+)", ptx).group(1)
            tool = tools / ("ptxas-blackwell" if target >= 100 and (tools / "ptxas-blackwell").exists() else "ptxas")
            command = [tool, "-v", f"--gpu-name={arch}", "-o", os.devnull, "/dev/stdin"]
            said = subprocess.run(command, input=ptx, capture_output=True, text=True, check=True).stderr
            usage = said[said.index("Compiling entry function") :]
            stack, stores, loads = map(int, re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", usage).groups())
            rows.append(
                {
                    "name": name,
                    "kernel": kernel,
                    "target": target,
                    "arch": arch,
                    "entries": re.findall(r"\.entry (\w+)", ptx),
                    "registers": int(re.search(r"Used (\d+) registers", usage).group(1)),
                    "spills": stores + loads,
                    "stack": stack,
                    "instructions": instructions,
                }
            )
    return rows


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1].split(","), [int(t) for t in sys.argv[2].split(",")])))
