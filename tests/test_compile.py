"""Ring 6: the kernels compile for sm_80, sm_90 and sm_100 on a machine without a GPU, as a launch would compile them,
and spill nothing.

The compiler and the interpreter cannot share a process, so that this file is also the script that a test runs.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import children
import pytest
from gpuaug_kernels import codes
from shared import made_once

TARGETS = (80, 90, 100)
HERE = Path(__file__)
# the stages, sources, borders and mixes that some program must hold
KINDS = {"sources": codes.SOURCES, "extends": codes.BORDERS, "mixes": codes.MIXES, "stages": codes.STAGES}


# bytes that are spilled: floats of different sizes, which only the reference leaves, in the registers of photographs, of
# which more would cost these a third of what runs at once
SPILLED = {("ragged floats", "sm_80"): 32, ("ragged floats", "sm_90a"): 16}

# each time one of them, without the programs that tests/test_aot.py has compiled for it; everything in the slow suite
ELSEWHERE = {"weak", "moderate", "salt and pepper"}
EACH = [
    pytest.param((90, *sorted(ELSEWHERE)), id="sm_90"),
    *(pytest.param((t,), id=f"sm_{t}, all programs", marks=pytest.mark.slow) for t in TARGETS),
]


@pytest.fixture(scope="module", params=EACH)
def compiled(request) -> dict[str, dict]:
    """What came out for one target, by the name of the program.  What Triton's cache holds, under a digest of the
    kernel, its options and the compiler, is not compiled again."""

    target, *without = request.param

    def ran() -> dict[str, dict]:
        env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        paths = [str(HERE.parents[1]), str(HERE.parents[1] / "kernels"), str(HERE.parent / "support")]
        env["PYTHONPATH"] = os.pathsep.join([*paths, env.get("PYTHONPATH", "")])
        done = children.run([sys.executable, HERE, target, *without], env=env, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    out = made_once(request, f"programs_sm_{target}_{len(without)}", ran)
    assert {v["arch"].rstrip("af") for v in out.values()} == {f"sm_{target}"}
    names = {name.split(",")[0] for name in out}
    assert not names & {*without} and len(names) >= 20, "vacuous"
    return out


def test_no_program_spills(compiled):
    assert {"noise", "dense", "dense, statistic 0", "dense, statistic 0, finish", "RandAugment"} <= compiled.keys()
    for name, program in compiled.items():
        assert (
            program["entries"] == ["finish" if name.endswith("finish") else "chain"]
            and 16 <= program["registers"] <= 255
        ), name
        # registers are spilled to a frame on the stack
        room = SPILLED.get((name, program["arch"]), 0)
        assert program["stack"] <= room and program["local"] == 0, f"{name}: {program}"


def test_what_is_compiled_ahead_is_what_a_launch_compiles(compiled):
    assert {name for name, program in compiled.items() if program.get("as launched", True)} == set(compiled)


def test_every_kind_of_stage_is_compiled(compiled):
    for kind, names in KINDS.items():
        assert set().union(*(p.get(kind, ()) for p in compiled.values())) == set(names.values()), f"of {names}"


def test_memory_is_read_and_written_four_values_at_a_time(compiled):
    assert compiled["dense"]["wide loads"] >= 3 and compiled["dense"]["wide stores"] >= 3, compiled["dense"]


def test_without_its_interpreter_the_backend_says_what_to_do():
    script = 'import torch, gpuaug as ga; ga.Policy([ga.RandomInvert()])(torch.zeros(1, 3, 4, 4), backend="triton")'
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), str(HERE.parents[1] / "kernels")])
    done = children.run([sys.executable, "-c", script], env=env, timeout=120)
    assert done.returncode == 1
    assert (
        'RuntimeError: backend "triton" runs images on the CPU only in its interpreter, got images on the CPU; set TRITON_INTERPRET=1'
        in done.stderr
    )


# ---- the script


def programs():
    """Name, transforms or passes, images, memory format of the output."""
    import torch

    import gpuaug as ga
    from gpuaug import ir

    as_float, normal, half = (
        ga.ToDtype(torch.float32, scale=True),
        ga.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ga.ToDtype(torch.bfloat16),
    )
    crop = [ga.RandomResizedCrop(224), ga.RandomHorizontalFlip()]
    jitter = ga.ColorJitter(0.4, 0.4, 0.4, 0.1)
    ragged = [torch.zeros(375, 500, 3, dtype=torch.uint8), torch.zeros(300, 400, 3, dtype=torch.uint8)]
    dense = torch.zeros(2, 3, 224, 224)
    flat, last = torch.contiguous_format, torch.channels_last
    bytes_last = dense.to(torch.uint8).contiguous(memory_format=last)
    yield "weak", [*crop, as_float, normal, half], ragged, last
    yield "moderate", [*crop, jitter, ga.CutMix(1.0, 5), as_float, normal, half], ragged, last
    yield "salt and pepper", [*crop, ga.SaltAndPepper(0.05), as_float, normal, half], ragged, last
    yield (
        "noise",
        [*crop, ga.SaltAndPepper(0.05, per_channel=True), ga.GaussianNoise(), ga.RandomErasing(value="random")],
        bytes_last,
        flat,
    )
    yield "dense", [jitter, ga.RandomInvert(), normal], dense, flat
    yield (
        "choices",
        [
            ga.RandomApply([jitter], 0.8),
            ga.RandomGrayscale(),
            ga.RandomSolarize(0.5),
            ga.RandomPosterize(4),
            as_float,
            half,
        ],
        bytes_last,
        flat,
    )
    yield "bilinear", [ga.RandomRotation(30, "bilinear"), normal, half], dense, flat
    yield "nearest", [ga.RandomAffine(30, fill=0.5), ga.ToDtype(torch.float16)], dense.bfloat16(), flat
    yield "floor", [ga.Resize((64, 64), "nearest")], dense.half(), flat
    yield "bicubic", [ga.RandomResizedCrop(64, interpolation="bicubic")], dense, flat
    yield "lanczos", [ga.RandomResizedCrop(64, interpolation="lanczos")], dense.half(), flat
    yield "bicubic without antialias", [ga.Resize((64, 64), "bicubic", antialias=False)], dense, flat
    for mode in ("constant", "edge", "reflect", "symmetric"):
        yield mode, [ga.Pad(16, padding_mode=mode)], bytes_last, flat
    yield (
        "many channels",
        [ga.RandomResizedCrop(224), ga.GaussianNoise(), ga.SaltAndPepper(per_channel=True)],
        torch.zeros(2, 6, 256, 256),
        flat,
    )
    yield "gray", [ga.Grayscale(1), jitter], bytes_last, flat
    yield (
        "one pixel",
        [ga.RandomResizedCrop(1), jitter, ga.SaltAndPepper(), ga.CutMix(1.0, 5)],
        torch.zeros(2, 3, 1, 1),
        flat,
    )
    yield (
        "a choice that moves",
        [
            ga.RandomChoice([ga.RandomHorizontalFlip(), ga.RandomRotation(30, "bilinear"), jitter]),
            as_float,
            normal,
            half,
        ],
        bytes_last,
        last,
    )
    yield "RandAugment", [ga.RandAugment(1), as_float, normal, half], bytes_last, last
    yield (
        "mixup",
        (ir.MixUp(torch.tensor([1, 0]), torch.tensor([0.3, 0.4])), ir.Finish(torch.float32, flat)),
        dense,
        flat,
    )
    yield "either mix", [ga.RandomMix([ga.CutMix(), ga.MixUp()], num_classes=5)], dense, flat
    order, share = torch.tensor([[2, 0, 1]] * 2), torch.tensor([0.2, 0.4])
    yield "points", (ir.PermuteChannels(order), ir.AddBelow(share, share), ir.Finish(torch.float32, flat)), dense, flat
    yield "sharpness", (ir.Sharpness(torch.tensor([0.5, 2.0])), ir.Finish(torch.float32, flat)), dense, flat
    yield "blur", (ir.GaussianBlur(torch.ones(2, 2), (23, 23)), ir.Finish(torch.float32, flat)), dense, flat
    inverse, half_widths, size = (
        torch.eye(3, dtype=torch.float64).repeat(2, 1, 1),
        torch.ones(2, 2).double(),
        (224, 224),
    )
    whole = torch.tensor([[0, 0, *size]] * 2)
    for name, fill in (("project", None), ("project, filled", (0.5,))):
        yield (
            name,
            (
                ir.Project(inverse, half_widths, whole, torch.tensor([size] * 2), size, fill),
                ir.Finish(torch.float32, flat),
            ),
            bytes_last,
            flat,
        )
    # what the reference leaves in different sizes is taken up as floats
    yield "ragged floats", [ga.Resize((64, 64))], [torch.zeros(3, 40, 50), torch.zeros(3, 30, 20)], flat


def inspect(kernel) -> dict:
    """What a compiled kernel takes of a card."""
    import triton

    ptx = kernel.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        said = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    ((registers, stack, local),) = re.findall(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", said)
    return {
        "arch": re.search(r"\.target (sm_\w+)", ptx).group(1),
        "entries": re.findall(r"Function (\w+):", said),
        "registers": int(registers),
        "stack": int(stack),
        "local": int(local),
        "wide loads": len(re.findall(r"ld\.global\S*\.v4", ptx)),
        "wide stores": len(re.findall(r"st\.global\S*\.v4", ptx)),
    }


def marshalled(chain, images, layout):
    """The steps of a policy or of passes made by hand, and the source of each."""
    import torch
    from gpuaug_kernels import launch

    import gpuaug as ga
    from gpuaug import fuse, ir, rng
    from gpuaug.exec.triton import executor

    images = tuple(images) if isinstance(images, list) and images[0].dtype == torch.uint8 else images
    source = executor._source(ga.Ragged(images) if isinstance(images, tuple) else images)
    sizes = torch.tensor([i.shape[:2] if isinstance(images, tuple) else i.shape[1:] for i in images])
    frame = ir.Frame(sizes, None if source.ragged else tuple(images.shape[2:]), source.channels, source.dtype)
    keys = rng.Keys(0, 0, torch.arange(2), torch.zeros(2, dtype=torch.int64))
    if isinstance(chain, list):
        policy = ga.Policy(chain, memory_format=layout)
        chain = fuse.fold(policy._lower(frame, policy._draw(keys, frame)))
    made = []
    plan = fuse.Plan(chain, keys, frame)
    for step, one in zip(executor.steps(plan), executor.prepare(plan), strict=True):
        assert step.fallback == "", chain
        dtype = step.stores[-1].dtype
        made.append((one, source))
        # later steps read what the one before has written
        frame = ir.after(step.passes, step.frame)
        shape = (2, frame.channels, *frame.fixed)
        written = launch.pixels16(shape, "cpu") if dtype == torch.uint16 else torch.empty(shape)
        source = executor._source(written)
    return made


def code(text: str) -> str:
    """A program without the places of its source: what another checkout has compiled is found in the cache."""
    return re.sub(r"(?m)^#loc.*\n| loc\([^\n]*?\)(?=$|[,) {])", "", text)


def launched(one, source, statistics, reduction, target: int) -> str:
    """The first stage of what a launch on a card of this kind would compile."""
    import torch
    from gpuaug_kernels import launch
    from gpuaug_kernels.chain import chain
    from gpuaug_kernels.tuples import Layout
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    # a driver that knows which card it has, for there is none
    card = {"get_current_target": GPUTarget("cuda", target, 32), "get_current_device": 0, "get_current_stream": 0}
    driver.set_active(type("Card", (), {k: lambda *_, v=v: v for k, v in card.items()})())
    t, program = one.tables, reduction.program if reduction else one.program
    out = torch.empty(1024, dtype=torch.int64 if reduction else one.dtype)
    layout = Layout() if reduction else launch.output_layout(source, program, one.channels_last, one.size[1], out.dtype)
    following = None if reduction else one.following
    cells = statistics if reduction else torch.empty(2, following.width, dtype=torch.int64) if following else None
    width = 0 if cells is None else cells.shape[1]
    constant = launch.chain_constants(source, program, t, statistics, layout, reduction, following, width)
    numbers = (*source.strides(), *one.size)
    return chain.warmup(
        source.data,
        t.floats,
        t.integers,
        t.doubles,
        statistics,
        out,
        torch.empty(1024, dtype=torch.float32 if cells is None else torch.int64),
        *numbers,
        **constant,
        **launch.options(program, target, following),
        grid=(1,),
    ).asm["ttir"]


def main(target: int, without: list[str]) -> dict[str, dict]:
    """Compile every program but some, and the launches that reduce its means."""
    import triton
    from gpuaug_kernels import launch
    from gpuaug_kernels.bind import complete
    from triton.backends.compiler import GPUTarget

    out = {}
    for name, chain, images, layout in (p for p in programs() if p[0] not in without):
        for number, (one, source) in enumerate(marshalled(chain, images, layout)):
            statistics = launch.statistics_table(one.reductions, 2, one.tables.integers.device)
            for reduction in (None, *one.reductions):
                program = reduction.program if reduction else one.program
                following = None if reduction else one.following
                width = statistics.shape[1] if reduction else following.width if following else 0
                how = (one.size, one.dtype, one.channels_last, reduction, following, width)
                made = launch.ahead(source, program, one.tables, statistics, *how)
                options = launch.options(program, target, following)
                kernel = triton.compile(made, target=GPUTarget("cuda", target, 32), options=complete(options))
                label = ", ".join(
                    [
                        name,
                        *([f"launch {number}"] if number else []),
                        *([f"statistic {reduction.number}"] if reduction else []),
                    ]
                )
                same = code(kernel.asm["ttir"]) == code(launched(one, source, statistics, reduction, target))
                out[label] = inspect(kernel) | held(program) | {"as launched": same}
                if reduction:
                    made = launch.finish_ahead(reduction, one.tables, statistics)
                    out[f"{label}, finish"] = inspect(
                        triton.compile(made, target=GPUTarget("cuda", target, 32), options=complete({"num_warps": 1}))
                    )
    return out


def held(program) -> dict[str, list[int]]:
    """The codes that a program holds."""
    records = [program.records[k : k + 5] for k in range(0, len(program.records), 5)]
    extends = [records[0][1]] if records[0][0] in codes.RESAMPLES else []
    points = sorted(set(stages(records, 2, program.end)))
    kind, count, first, _, _ = records[0]
    ways = records[first : first + count] if kind == codes.SWITCH else []
    return {"sources": [kind, *(r[0] for r in ways)], "extends": extends, "mixes": [records[1][0]], "stages": points}


def stages(records: list, first: int, last: int) -> list[int]:
    """The codes of a row of records, and of what its choices point to."""
    found = [r[0] for r in records[first:last]]
    for code, _, _, branch, count in records[first:last]:
        if code == 0:
            found += [c for begin, end, *_ in records[branch : branch + count] for c in stages(records, begin, end)]
    return found


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2:])))
