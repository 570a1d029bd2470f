"""The loader in other people's training loops: each example runs, and a run in parts is, to the bit, the run as a whole."""

import copy
import json
import os
import pickle
import sys
from functools import cache
from pathlib import Path
from typing import Any

import children
import loading
import pytest
import torch
from loading import folder, loader, rows, whole

import gpuaug as ga
from gpuaug.data.timm import Pairs

ROOT = Path(ga.__file__).parent.parent
SUPPORT = ROOT / "tests" / "support"
BATCH, EPOCHS = 6, 3
# batches of an epoch
STEPS = loading.N // BATCH

# an end at an epoch's end, one within an epoch, and the rest; some count the steps of all runs, some of each.  Lightning
# itself, given max_steps, ends the next epoch early after a checkpoint of an epoch's end, whatever it loads from
PARTS = {
    "plain": ["--steps=6", "--steps=3", ""],
    "accelerate_loop": ["--steps=6", "--steps=3", ""],
    "timm_loop": ["--steps=6", "--steps=3", ""],
    "huggingface_trainer": ["--steps=6", "--steps=9", ""],
    "lightning_trainer": ["--steps=3", "--epochs=2 --save-steps=0", ""],
}


def run(command: list[str], **more: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "OMP_NUM_THREADS": "1",
        **more,
    }
    done = children.run(command, env=environment, timeout=280)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def report(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What an example did, run once."""

    @cache
    def of(name: str) -> dict:
        out = tmp_path_factory.mktemp(name)
        run([sys.executable, str(SUPPORT / "fitted.py"), name, str(data), str(out), *PARTS[name]])
        return json.loads((out / "report.json").read_text())

    return of


# a process for each framework, of which one stands for all in the fast suite beside the plain loop
SLOW = {"accelerate_loop", "timm_loop", "huggingface_trainer"}
EXAMPLES = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in PARTS]
)


@EXAMPLES
def test_a_run_in_parts_is_the_run_as_a_whole(name, report):
    """The same ids in the same order with the same pixels, and in the end the same weights."""
    made = report(name)
    expected, parts, end = made["whole"]["rows"], [part["rows"] for part in made["parts"]], 0
    assert len(expected) == EPOCHS * STEPS * BATCH
    for number, part in enumerate(parts):
        begin = expected.index(part[0])
        assert part == expected[begin : begin + len(part)], f"part {number} is no part of the run"
        # from the last checkpoint on: nothing is left out, and not more is done again than was not saved
        assert end - 2 * BATCH < begin <= end and (begin == 0) == (number == 0), (number, begin, end)
        end = begin + len(part)
    assert end == len(expected)
    assert len({row[3] for row in expected}) > 0.9 * len(expected), "vacuous: epochs have the same pixels"
    assert made["parts"][-1]["weights"] == made["whole"]["weights"]
    assert made["parts"][0]["weights"] != made["whole"]["weights"], "vacuous: nothing was trained"


@EXAMPLES
def test_no_framework_makes_a_plain_data_loader_of_it(name, report):
    assert report(name)["plain"] == []


def test_every_example_is_tested():
    """Those of frameworks here, those that train a network in test_examples.py."""
    elsewhere = {"fashion_mnist", "imagenet_folder"}
    assert PARTS.keys() | elsewhere == {path.stem for path in (ROOT / "examples").glob("*.py")}


@pytest.mark.slow
def test_an_example_runs_as_two_processes_that_share_the_data(data, tmp_path):
    """torchrun with gloo, stopped in the middle; one process goes on."""
    example = str(ROOT / "examples" / "plain.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    options = ["--data", str(data), "--out", str(tmp_path)]
    run([*launch, example, *options, "--steps=3", "--batch-size=3"])
    state = torch.load(tmp_path / "checkpoint.pt")["loader"]
    assert (state["epoch"], state["consumed"]) == (0, 2 * 2 * 3)
    alone = [sys.executable, example, *options, "--batch-size=6"]
    assert run(alone).count("loss") == 2, "four steps are left, and every second is saved"
    state = torch.load(tmp_path / "checkpoint.pt")["loader"]
    assert (state["epoch"], state["consumed"]) == (0, loading.N)
    assert "loss" not in run(alone), "a run that is over trains on"


# ---- the forms of batches


def test_there_is_nothing_to_make_a_plain_data_loader_of():
    with loader() as one:
        for each in (one, ga.data.Mapped(one, len)):
            for name in ("dataset", "sampler", "batch_sampler"):
                assert not hasattr(each, name), f"{type(each).__name__} has {name}"
                with pytest.raises(AttributeError, match=f"has no attribute '{name}': order, ranks and decoding"):
                    getattr(each, name)
        pairs = Pairs(one)
        assert not hasattr(pairs, "dataset") and not hasattr(pairs, "batch_sampler")
        assert [n for n in dir(pairs.sampler) if not n.startswith("_")] == ["set_epoch"]


@pytest.mark.parametrize("way", [pickle.dumps, copy.deepcopy], ids=["pickled", "copied"])
def test_a_loader_that_is_sent_elsewhere_says_why_it_cannot(way):
    with loader() as one, pytest.raises(TypeError, match=r"a loader can't be copied, pickled or sent.*make one where"):
        way(ga.data.Mapped(one, len))


def test_mapped_batches_are_the_loaders_and_so_is_the_state():
    with loader() as one:
        mapped = ga.data.Mapped(one, lambda batch: {"pixels": batch.images, "batch": batch})
        assert len(mapped) == len(one) == 9
        it = iter(mapped)
        seen = [next(it) for _ in range(3)]
        state = mapped.state_dict()
        assert state == one.state_dict() and state["consumed"] == 12
        assert seen[0]["pixels"] is seen[0]["batch"].images
    with ga.data.Mapped(loader(), lambda batch: batch) as again:
        again.load_state_dict(state)
        assert rows(again) == list(whole()[12:36])
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(again))
    for bad, match in (([], "list, which has no"), (object(), "object")):
        with pytest.raises(TypeError, match=match):
            ga.data.Mapped(bad, len)
    with pytest.raises(TypeError, match="callable"):
        ga.data.Mapped(again.loader, 3)


def test_a_resident_loader_is_mapped_too():
    digits = torch.arange(8 * 16, dtype=torch.uint8).reshape(8, 4, 4), torch.arange(8)
    with ga.data.ResidentLoader(digits, None, 4, device="cpu") as one:
        pairs = list(Pairs(one))
        assert sorted(torch.cat([target for _, target in pairs]).tolist()) == list(range(8))


def test_pairs_leave_out_what_is_not_valid():
    files = loading.samples()
    with Pairs(loader(batch_size=10, drop_last=False)) as pairs:
        taken = list(pairs)
        assert [len(x) for x, _ in taken] == [10, 10, 10, 7] == [len(y) for _, y in taken]
    files[5] = (b"no image", 1)
    with Pairs(loader(files, batch_size=37, on_error="skip")) as pairs:
        ((images, target),) = list(pairs)
        assert len(images) == len(target) == 36
    with Pairs(loader(files, its_policy=None)) as pairs, pytest.raises(TypeError, match="fixes the size"):
        next(iter(pairs))


def test_pairs_are_told_the_epoch_by_their_sampler():
    with Pairs(loader(batch_size=36)) as pairs:
        pairs.sampler.set_epoch(3)
        ((images, _),) = list(pairs)
        pixels = [x.contiguous().numpy().tobytes() for x in images]
    assert pixels == [row[3] for row in whole(3)[:36]]
