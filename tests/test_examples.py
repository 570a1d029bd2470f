"""Examples that train a network: each learns, goes on where it was stopped, and is the same in torchvision's words."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from loading import folder

import gpuaug as ga
from bench.bench_accuracy import EXAMPLE, VARIANTS, example, row

ROOT = EXAMPLE.parent.parent


@pytest.fixture(scope="module")
def trainer():
    return example()


def idx(path: Path, array: np.ndarray) -> None:
    """An array of bytes as MNIST's files hold it: a magic number, the sizes, the bytes."""
    head = (0x0800 + array.ndim).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(head + array.tobytes())


def test_the_network_learns_digits(trainer, capsys):
    found = trainer.main(["--dataset=digits", "--augment=suitable", "--epochs=2", "--batch-size=32", "--device=cpu"])
    assert len(found) == 2 and found[-1] > 0.8, found
    assert f"accuracy {found[-1]:.2%} after 2 epochs" in capsys.readouterr().out


def test_the_same_seed_trains_the_same_network(trainer):
    (images, labels), test = trainer.read("digits", "")
    few = (images[:128], labels[:128]), (test[0][:64], test[1][:64])
    runs = [trainer.train(few, "recipe", epochs=1, batch_size=32, seed=seed) for seed in (0, 0)]
    assert runs[0] == runs[1]


def test_fashion_mnist_is_read_by_torchvisions_class(trainer, tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.arange(20 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(20, 28, 28)
    for part, n in (("train", 20), ("t10k", 6)):
        idx(raw / f"{part}-images-idx3-ubyte", pixels[:n])
        idx(raw / f"{part}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    (images, labels), (tested, _) = trainer.read("fashion_mnist", str(tmp_path))
    assert np.array_equal(images.numpy(), pixels) and labels.tolist() == [*range(10), *range(10)] and len(tested) == 6
    options = ["--epochs=1", "--batch-size=10", "--device=cpu", "--augment=recipe"]
    assert len(trainer.main([f"--data={tmp_path}", *options])) == 1


def test_digits_are_split_without_an_overlap(trainer):
    (images, labels), (tested, answers) = trainer.read("digits", "")
    assert images.shape[1:] == (28, 28) and images.dtype == torch.uint8 and images.amax() == 255
    assert len(images) + len(tested) == 1797 and set(answers.tolist()) == set(labels.tolist()) == set(range(10))


def test_both_pipelines_have_the_same_words(trainer):
    for name, steps in trainer.AUGMENTATIONS.items():
        theirs = trainer.torchvision_steps(name)
        assert len(theirs) == len(steps)
        known = [(t, s) for t, s in zip(theirs, steps, strict=True) if not isinstance(s, ga.SaltAndPepper)]
        assert tuple(s for _, s in known) == ga.from_torchvision([t for t, _ in known]).transforms


@pytest.mark.parametrize("pipeline", ["gpuaug", "torchvision"])
def test_salt_and_pepper_replaces_as_many_pixels(trainer, pipeline):
    grey = torch.full((64, 28, 28), 128, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64)
    if pipeline == "gpuaug":
        pixels = ga.Policy([trainer.AUGMENTATIONS["recipe"][-1]], seed=3)(grey[0][:, None])
    else:
        torch.manual_seed(3)
        pixels = torch.stack([trainer.torchvision_steps("recipe")[-1](image[None]) for image in grey[0]])
    n = pixels.numel()
    for value in (0, 255):
        share, spread = (pixels == value).float().mean().item(), (0.025 * 0.975 / n) ** 0.5
        assert abs(share - 0.025) < 5 * spread


def test_accuracies_are_summed_up_over_seeds():
    made = row("x", [0.9, 0.92, 0.94])
    assert made["mean"] == pytest.approx(0.92) and made["std"] == pytest.approx(0.02) and made["n"] == 3
    assert {augment for augment, _ in VARIANTS.values()} == {"none", "suitable", "unsuitable"}


@pytest.mark.slow
def test_a_residual_network_trains_on_two_processes_and_goes_on_alone(tmp_path):
    """torchrun with gloo, stopped in the middle."""
    for part in ("train", "val"):
        folder(tmp_path / part)
    script = [str(ROOT / "examples" / "imagenet_folder.py"), f"--data={tmp_path}", f"--out={tmp_path / 'run'}"]
    options = ["--model=resnet18", "--size=32", "--epochs=2", "--save-every=1"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    consumed = []
    for command in ([*launch, *script, *options, "--batch-size=3", "--steps=2"], [sys.executable, *script, *options]):
        run(*command, *(() if command[0] == launch[0] and "--steps=2" in command else ("--batch-size=6",)))
        state = torch.load(tmp_path / "run" / "checkpoint.pt")
        consumed.append((state["loader"]["epoch"], state["loader"]["consumed"]))
        assert all(torch.isfinite(v).all() for v in state["model"].values())
    assert consumed[0] == (0, 12) and consumed[1][0] >= 1, consumed
    assert all(a < b for a, b in pairwise(consumed))
