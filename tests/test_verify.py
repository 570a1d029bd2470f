"""`gpuaug verify`: what it compares, what it says, and its exit code."""

import sys
from pathlib import Path
from unittest import mock

import children
import numpy as np
import PIL.Image
import pytest
import torch
import torchvision.transforms.v2 as v2
from build import build, case, cases, spec
from oracles import torch_has_lanczos
from typer.testing import CliRunner

import gpuaug as ga
from gpuaug.apps import peers, verify
from gpuaug.apps.cli import app

# of what torchvision has, what draws pixel by pixel or a batch at a time
ALONE = {"CutMix", "MixUp", "ElasticTransform", "GaussianNoise"}
PIPELINE = """
import torch
import torchvision.transforms.v2 as v2

pipeline = v2.Compose([v2.RandomResizedCrop(24), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
                       v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,) * 3, (0.2,) * 3)])
number, nested = 3, v2.Compose([v2.RandomApply([v2.RandomGrayscale(1.0)], 0.5), v2.UniformTemporalSubsample(2)])

def made():
    import gpuaug as ga
    return ga.Policy([ga.RandAugment(), ga.SaltAndPepper(0.1)], seed=4)
"""


def target(folder: Path, name: str, text: str = PIPELINE) -> str:
    (folder / "train.py").write_text(text)
    return f"{folder / 'train.py'}:{name}"


def called(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *arguments], env={"COLUMNS": "120"})
    return result.exit_code, result.output


def floats(size: tuple[int, int], channels: int, n: int = 3) -> list[torch.Tensor]:
    return [verify.made(k, *size)[:channels] for k in range(n)]


@pytest.mark.parametrize(("name", "i"), [p for p in cases() if hasattr(v2, p.values[0])])
def test_every_transform_that_torchvision_has_is_the_same(name, i):
    channels = 1 if name == "RGB" and not i else 3
    policy = ga.Policy([build(name, case(name, i))], seed=3)
    # in a few pixels the waves are too fine for an encoder
    size = (192, 256) if name == "JPEG" else spec(name).image
    (row,) = verify.compare(policy, iter(floats(size, channels)))
    noisy = name == "RandomErasing" and case(name, i).get("value") == "random"
    alone = [c[0] for c in case(name, i).get("transforms", ()) if not hasattr(v2, c[0]) or c[0] in ALONE]
    older = case(name, i).get("interpolation") == "lanczos" and not torch_has_lanczos()
    if name in ALONE or noisy or alone or older or spec(name).adds & case(name, i).keys():
        assert row.note, "it is said why it is not compared"
    else:
        assert row.images == 3 and not row.fails, (row.largest, row.share, row.note)


def test_a_lanczos_that_an_older_torch_has_not_is_not_compared(monkeypatch):
    def refused(*_: object) -> torch.Tensor:
        raise NotImplementedError("Input Error: ... (got lanczos)")

    monkeypatch.setattr(v2.Resize, "transform", refused)
    lanczos, flip = verify.compare(
        ga.Policy([ga.Resize(9, "lanczos"), ga.RandomHorizontalFlip(1.0)]), iter(floats((20, 30), 3))
    )
    assert "Lanczos" in lanczos.note and flip.images == 3 and not flip.fails
    with pytest.raises(NotImplementedError):
        verify.compare(ga.Policy([ga.Resize(9, "bicubic")]), iter(floats((20, 30), 3)))


def test_a_difference_is_seen_and_is_of_its_own_transform():
    def wrong(t, image, drawn):
        out = real(t, image, drawn)
        return out + 0.01 if isinstance(t, ga.RandomInvert) else out

    real = peers.apply
    policy = ga.Policy([ga.CenterCrop(20), ga.RandomInvert(1.0), ga.RandomHorizontalFlip()])
    with mock.patch.object(peers, "apply", wrong):
        rows = verify.compare(policy, iter(floats((24, 30), 3)))
    assert [r.fails for r in rows] == [False, True, False] and rows[1].largest == pytest.approx(0.01, rel=0.01)
    with mock.patch.object(peers, "apply", lambda t, image, drawn: image[:, :4]):
        assert verify.compare(policy, iter(floats((24, 30), 3)))[0].fails


def test_a_pipeline_is_compared_on_photographs_and_the_exit_code_says_so(tmp_path):
    code, said = called(target(tmp_path, "pipeline"), "--images", "2")
    assert code == 0 and said.count("same") == 5 and "RandomResizedCrop" in said and "Normalize" in said
    with mock.patch.object(peers, "apply", lambda t, image, drawn: image):
        code, said = called(target(tmp_path, "pipeline"), "--images", "2")
    assert code == 1 and "differs" in said


def test_a_function_may_make_the_policy_and_what_torchvision_lacks_is_named(tmp_path):
    code, said = called(target(tmp_path, "made"), "--images", "2", "--backend", "reference")
    assert code == 0 and "not compared: torchvision has none" in said


def test_images_come_from_a_folder(tmp_path):
    folder = tmp_path / "pictures" / "class"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(folder / "a.png")
    found = list(verify.images(tmp_path / "pictures", 5))
    assert len(found) == 1 and torch.equal((found[0] * 255).round().byte(), torch.from_numpy(pixels).permute(2, 0, 1))
    assert called(target(tmp_path, "pipeline"), "--data", str(tmp_path / "pictures"))[0] == 0


def test_images_are_made_where_there_are_no_photographs():
    with mock.patch.object(verify, "find_spec", return_value=None):
        found = list(verify.images(None, 3))
    assert len(found) == 3 and all(x.shape[0] == 3 and 0 <= x.min() < 0.3 and 0.7 < x.max() <= 1 for x in found)
    assert len({tuple(x.shape) for x in verify.images(None, 20)}) > 3, "photographs of different sizes"


def test_fixed_views_are_compared_view_by_view():
    rows = verify.compare(ga.Policy([ga.Resize(30), ga.TenCrop(20)]), iter(floats((40, 50), 3)))
    assert [r.fails for r in rows] == [False, False] and rows[1].images == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "has no missing; it has"),
        ("number", "a pipeline must hold transforms or functions, got 3"),
        ("nested", "UniformTemporalSubsample of the pipeline has no counterpart"),
    ],
)
def test_what_a_file_holds_is_checked(name, words, tmp_path):
    code, said = called(target(tmp_path, name))
    assert code == 1 and words in " ".join(said.split()) and "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1 / 0", "cannot be run: ZeroDivisionError"),
        ("import nowhere_to_be_found", "cannot be run: ModuleNotFound"),
    ],
)
def test_a_file_that_does_not_run_is_named(text, words, tmp_path):
    code, said = called(target(tmp_path, "x", text))
    assert code == 1 and words in " ".join(said.split())


def test_a_target_that_is_none_and_a_folder_without_images_are_refused(tmp_path):
    assert "must be FILE.py:name" in called("train.py")[1]
    assert "is no file" in called(f"{tmp_path}/nothing.py:x")[1]
    code, said = called(target(tmp_path, "pipeline"), "--data", str(tmp_path))
    assert code == 1 and "holds no images" in " ".join(said.split())
    assert called(target(tmp_path, "pipeline"), "--images", "0")[0] == 2


def test_the_command_runs_by_itself(tmp_path):
    command = [sys.executable, "-m", "gpuaug.apps.cli", "verify", target(tmp_path, "pipeline"), "--images", "1"]
    done = children.run(command, timeout=300)
    assert done.returncode == 0 and "largest difference" in done.stdout, done.stderr
