"""A warp's tiles that show nothing of the border are computed without what the border takes, to the same values."""

import pytest
import torch
from compare import changed, compare
from executed import FINISH, IDS, both, planned
from gpuaug_kernels import warp

import gpuaug as ga
from gpuaug import ir

# tiles of 32 x 32, some wholly inside and some not
SIZE = (67, 100)
MAPS = {
    "identity": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    "half a pixel": [[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]],
    "turned": [[0.9, -0.3, 12.0], [0.3, 0.9, -9.0]],
    "mirrored, larger": [[-0.4, 0.0, 80.3], [0.0, -0.4, 60.1]],
    "far beside": [[1.0, 0.0, 0.0], [0.0, 1.0, -3e12]],
    "without end": [[1e30, 0.0, 1.0], [0.0, 1e9, 0.0]],
    "perspective": [[0.9, -0.3, 12.0], [0.3, 0.9, -9.0]],
}


def never(line, size):
    return (line.beyond != line.beyond) & (size < 0)


def passes(kernel: str, fill: object) -> tuple[ir.Pass, ...]:
    inverse = torch.zeros(len(MAPS), 3, 3, dtype=torch.float64)
    inverse[:, 2, 2] = 1.0
    inverse[:, :2] = torch.tensor(list(MAPS.values()), dtype=torch.float64)
    inverse[-1, 2, 0] = 0.001
    source = torch.tensor([[0, 0, SIZE[1], SIZE[0]]]).expand(len(MAPS), 4)
    return ir.Warp(inverse, torch.tensor([SIZE]).expand(len(MAPS), 2), SIZE, source, kernel, fill), FINISH


def pictures(dtype: torch.dtype, layout: torch.memory_format) -> torch.Tensor:
    x = torch.randint(0, 256, (len(MAPS), 3, *SIZE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return (x if dtype == torch.uint8 else x / 255).contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["pixels", "planes"])
@pytest.mark.parametrize(
    ("kernel", "dtype"), [("bilinear", torch.uint8), ("nearest", torch.uint8), ("nearest", torch.float32)]
)
@pytest.mark.parametrize("fill", [None, (0.9, 0.1, 0.5)])
def test_tiles_inside_have_the_values_that_the_borders_way_gives(kernel, dtype, fill, layout, monkeypatch):
    x, made = pictures(dtype, layout), passes(kernel, fill)
    got, want = planned(made, x)
    compare(got, want, "resample, jump", f"{kernel} {fill}")
    monkeypatch.setattr(warp, "stays_inside", never)
    assert torch.equal(got, planned(made, x)[0])


def test_tiles_that_are_taken_for_inside_are_inside(monkeypatch):
    asked, real = [], warp.stays_inside

    def watched(line, size):
        out = real(line, size)
        asked.append([float(v.handle.data.item()) for v in (*line, size, out)])
        return out

    monkeypatch.setattr(warp, "stays_inside", watched)
    planned(passes("nearest", None), pictures(torch.uint8, torch.channels_last))
    base, beyond, along, across, size, inside = torch.tensor(asked, dtype=torch.float64).unbind(1)
    first = base + beyond + 0.5
    least = first + 31 * (along.clamp(max=0) + across.clamp(max=0))
    most = first + 31 * (along.clamp(min=0) + across.clamp(min=0))
    there = (least >= 0) & (most <= size - 1)
    assert there[inside == 1].all()
    # and few of those that are get lost to rounding's room
    assert 0.05 < inside.mean() < 0.9 and inside.sum() > 0.7 * there.sum(), "vacuous"


def test_a_batch_of_a_policy_turns_as_the_reference_does():
    policy = ga.Policy([ga.RandomRotation(30, "bilinear"), ga.ToDtype(torch.float32, scale=True)], seed=3)
    x = pictures(torch.uint8, torch.channels_last)[: len(IDS)]
    got, want = both(policy, x)
    compare(got, want, "resample", "rotation")
    assert changed(got, x / 255) > 0.5, "vacuous"
