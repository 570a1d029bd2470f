"""Launches are bound once: what a call on a card then takes, tried without a card by tests/support/bound.py."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import children
import older_triton
import pytest
from gpuaug_kernels import bind, draws, labels
from shared import made_once

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", params=["installed", pytest.param(older_triton.OLDEST, marks=pytest.mark.slow)])
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the program finds: kernels are compiled there, for a card that is not in this machine."""
    first = () if request.param == "installed" else (older_triton.folder(),)
    return made_once(request, f"bound {request.param}", lambda: ran(*first))


def ran(*first: Path) -> dict[str, Any]:
    path = os.pathsep.join(map(str, (*first, ROOT, ROOT / "kernels", ROOT / "tests" / "support")))
    done = children.run(
        [sys.executable, ROOT / "tests" / "support" / "bound.py"],
        env=os.environ | {"PYTHONPATH": path, "TRITON_INTERPRET": "0"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_kernel_says_whether_products_and_sums_are_one_operation():
    # Triton 3.9 warns where none says so; what draws and what mixes labels rounds as torch does
    some = bind.Bound(draws.find_partners, {}, {"num_warps": 4})
    assert some.options == {"num_warps": 4, "enable_fp_fusion": True}
    for exact in (draws.OPTIONS, labels.options(8)):
        assert bind.Bound(draws.find_partners, {}, exact).options["enable_fp_fusion"] is False


def test_a_second_call_goes_past_tritons_own_launcher(found):
    assert found["first"] == found["launches"] == 4, "vacuous: the first call binds every launch"
    assert found["again"] == found["other batch"] == 0


def test_a_bound_launch_hands_over_what_tritons_own_would(found):
    assert found["alike"]


def test_a_bound_call_hands_over_what_the_same_call_does_launch_by_launch(found):
    assert found["bound calls"] == 1, "vacuous"
    assert found["a call alike"]


def test_the_stream_is_read_at_every_call(found):
    assert found["streams"] == ["99"]


def test_another_card_is_bound_anew_and_the_first_stays_bound(found):
    assert (found["another card"], found["back"]) == (4, 0)


@pytest.mark.parametrize("what", ["dtype", "layout"])
def test_other_images_are_bound_anew(found, what):
    assert found[what] == 1


def test_images_at_another_alignment_are_bound_anew(found):
    assert found["alignment"] == ["chain"]


def test_a_kernel_that_somebody_hooks_into_goes_through_triton(found):
    assert found["hooks"] == 2, "the statistic and the images"


def test_a_new_size_compiles_nothing(found):
    assert any(found["sizes"]), "vacuous: nothing is compiled at all"
    # two policies at four sizes each, of which the first is of another alignment class
    half = len(found["sizes"]) // 2
    assert found["sizes"][2:half] == found["sizes"][half + 2 :] == [[], []], found["sizes"]


def test_ten_sizes_compile_as_many_kernels_as_there_are_classes_of_alignment(found):
    # a row that begins at multiples of 16 bytes or not, and so does an image
    assert found["ten sizes"].count("chain") <= 3 and len(found["ten sizes"]) <= 4, found["ten sizes"]


@pytest.mark.parametrize("how", ["threads", "threads of loaders"])
def test_threads_share_no_memory_that_is_written(found, how):
    assert found[how]["by"] == 2 and found[how]["memory"] > 100, "vacuous"
    assert found[how]["shared"] == 0


def test_seeds_and_epochs_of_every_width_share_the_kernels_that_draw(found):
    assert sorted(k for k in found["seeds"] if k in ("draw_parameters", "find_partners")) == [
        "draw_parameters",
        "find_partners",
    ]


def test_launches_that_are_collected_are_compiled_and_not_made(found):
    assert found["collected"] == 4 and found["launched while compiling"] == 0


# with targets one kernel more for boxes and one for masks
@pytest.mark.parametrize(("kind", "kernels"), [("dense", 4), ("ragged", 4), ("targets", 6)])
def test_a_warmup_compiles_side_by_side_says_how_far_it_is_and_leaves_nothing(found, kind, kernels):
    made = found["warmed"][kind]
    assert not made["by this thread"] and made["launches"] == 2 * kernels, "two calls follow, which find all compiled"
    assert made["said"] == [[k, kernels] for k in range(kernels + 1)]
    assert made["left"] == [0, 0]


# of each row of bench/bench_host.py: pieces of memory that a call asks for, and its launches.  One piece holds all that
# is small; then come the output, soft labels, and images between two launches, which are large
FEWEST = {
    "flip": (2, 2),
    "weak": (2, 2),
    "moderate": (3, 4),
    "cutmix": (3, 4),
    "flip, 1 image": (2, 2),
    "moderate, 1 image": (2, 4),
    "moderate, Batch": (3, 4),
    "cutmix, Batch": (3, 4),
    "weak, list": (2, 2),
    "moderate, list": (3, 4),
    # what was drawn ahead is brought to its images in memory of the host
    "weak, loader": (3, 1),
    "moderate, loader": (4, 3),
    "loader, 1 image": (3, 3),
    # boxes and points are outputs, and so are their marks
    "moderate, boxes": (5, 5),
    "moderate, keypoints": (5, 5),
    "moderate, masks": (4, 5),
    "moderate, classes": (4, 5),
    "boxes, loader": (6, 4),
    "weak, windows": (2, 3),
}


def test_a_call_asks_torch_for_its_memory_and_for_nothing_else(found):
    assert found["operations"].keys() == FEWEST.keys()
    for row, (pieces, launches) in FEWEST.items():
        done = found["operations"][row]
        asked = [name for name in done["torch"] if name.startswith("empty")]
        other = set(done["torch"]) - set(asked)
        assert len(asked) <= pieces and done["launches"] == launches, row
        # where images of a list lie is sent to the card
        views = {"lift_fresh", "detach", "slice", "view"}
        if "masks" in row or "classes" in row:
            views |= {"unsqueeze", "unbind", "permute", "select"}
        sends = row.endswith("list") or "loader" in row
        assert other <= ({*views, "_to_copy"} if sends else views if "masks" in row or "classes" in row else set()), (
            row,
            done,
        )
        # what targets take is known when they are, and sent by itself
        assert done["torch"].count("_to_copy") <= 1 + (row == "boxes, loader"), row


@pytest.mark.slow
@pytest.mark.parametrize("version", ["installed", older_triton.OLDEST])
def test_tritons_launchers_in_c_take_what_bound_calls_hand_over(version):
    first = () if version == "installed" else (older_triton.folder(),)
    path = os.pathsep.join(map(str, (*first, ROOT, ROOT / "kernels", ROOT / "tests" / "support")))
    env = os.environ | {"PYTHONPATH": path, "TRITON_INTERPRET": "0"}
    program = [sys.executable, ROOT / "tests" / "support" / "launched.py"]
    done = subprocess.run(program, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # compiled, watched, then bound
    assert found["bound"] == 1 and found["launches"] == [4, 8, 12, 16], found
    assert found["otherwise"] == [] and (version == "installed" or found["triton"] == version), found
