"""The command line: what the demo prints and draws, and what bad input says."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import children
import numpy as np
import pytest
import torch
from commands import gpuaug, refused
from PIL import Image

import gpuaug as ga
from gpuaug.apps import demo, photographs
from gpuaug.apps import sheet as show

WITHOUT = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in %r else find(name, *rest)
from gpuaug.apps.cli import main
main()
"""
# several commands in one process, which takes seconds to start: the exit status of each, a line of its own
EACH = """
for command in %r:
    sys.argv = ["gpuaug", *command]
    try:
        main()
    except SystemExit as stop:
        print(f"status {stop.code or 0}", file=sys.stderr, flush=True)
"""
ROOT = Path(ga.__file__).parent.parent
SIZES = {
    "blue/a.jpg": (60, 90),
    "blue/b.png": (81, 50),
    "red/c.jpg": (40, 40),
    "red/d.jpg": (33, 120),
    "red/e.jpg": (64, 48),
}  # (H, W)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five small pictures in two classes, each a gradient of its own."""
    root = tmp_path / "photographs"
    for k, (name, (height, width)) in enumerate(SIZES.items()):
        y, x = np.meshgrid(np.linspace(0, 255, height), np.linspace(0, 255, width), indexing="ij")
        picture = np.stack([x, y, np.full_like(x, 50 * k)], 2).astype(np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(root / name, quality=95)
    return root


def without(packages: tuple[str, ...], *commands: tuple[str, ...], where: Path) -> list[tuple[int, str]]:
    """Status and stderr of each command where packages are missing."""
    code = (WITHOUT % (packages,)).removesuffix("main()\n") + EACH % (commands,)
    done = children.run([sys.executable, "-c", code], cwd=where)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(.*?)^status (\d+)\n", done.stderr, re.M | re.S)
    assert len(found) == len(commands), done.stderr
    return [(int(status), text) for text, status in found]


def test_demo_prints_device_backend_plan_and_speeds_whose_ratio_is_right(folder: Path, tmp_path: Path) -> None:
    result = gpuaug("demo", "--data", folder, "--epochs", 1, "--batch-size", 4, "--output", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert re.search(rf"^device: +{device}", result.output, re.M)
    assert re.search(r"^backend: +(cpu|triton|reference)$", result.output, re.M)
    assert "5 images in 2 classes" in result.output
    assert "Policy([RandomResizedCrop(size=(224, 224)" in result.output
    assert re.search(r"backend \w+: \d+ step", result.output)
    assert "5/5 images" in result.output
    rates = {
        name: int(rate)
        for name, rate in re.findall(r"(gpuaug|torchvision v2(?: in float32)?) +│ +(\d+) │", result.output)
    }
    ratios = [float(r) for r in re.findall(r"([\d.]+) x as fast", result.output)]
    assert list(rates) == ["gpuaug", "torchvision v2", "torchvision v2 in float32"]
    assert min(rates.values()) > 0
    assert len(ratios) == 2
    for rival, ratio in zip(list(rates.values())[1:], ratios, strict=True):
        # both rates are printed rounded to an integer
        low, high = (rates["gpuaug"] - 0.5) / (rival + 0.5), (rates["gpuaug"] + 0.5) / (rival - 0.5)
        assert low - 0.006 <= ratio <= high + 0.006


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    """A place of the contact sheet; column 0 is the original's."""
    top = show.HEAD + row * (show.CELL + show.FOOT)
    left = show.MARGIN if column == 0 else show.MARGIN + show.WIDE + show.GAP + (column - 1) * (show.CELL + show.GAP)
    return sheet[top : top + show.CELL, left : left + (show.WIDE if column == 0 else show.CELL)]


def test_sheet_shows_originals_in_their_proportions_and_the_draws_of_each_epoch(folder: Path, tmp_path: Path) -> None:
    result = gpuaug("demo", "--data", folder, "--epochs", 1, "--seed", 7, "--output", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out.png") as image:
        assert image.format == "PNG"
        sheet = np.array(image)
    width = 2 * show.MARGIN + show.WIDE + demo.DRAWS * (show.CELL + show.GAP)
    assert sheet.shape == (show.HEAD + 5 * (show.CELL + show.FOOT) + show.MARGIN, width, 3)
    policy, originals = demo.Demo(seed=7).policy(), [photographs.decode(folder / name) for name in SIZES]
    for row, original in enumerate(originals):
        room, (height, wide) = cell(sheet, row, 0), original.shape[:2]
        scale = min(show.CELL / height, show.WIDE / wide)
        h, w = round(height * scale), round(wide * scale)
        top, left = (show.CELL - h) // 2, (show.WIDE - w) // 2
        expected = np.array(Image.fromarray(original).resize((w, h), Image.Resampling.BICUBIC)).astype(float)
        assert expected.std() > 40, "vacuous"
        assert np.abs(room[top : top + h, left : left + w] - expected).mean() < 3
        paper = np.ones(room.shape[:2], bool)
        paper[top : top + h, left : left + w] = False
        assert (room[paper] == 255).all()
    for epoch in range(demo.DRAWS):
        out = policy(originals, ids=torch.arange(5), epoch=epoch)
        values = out * torch.tensor(demo.STD).view(3, 1, 1) + torch.tensor(demo.MEAN).view(3, 1, 1)
        for row in range(5):
            expected = values[row].clamp(0, 1).permute(1, 2, 0).numpy() * 255
            small = np.array(
                Image.fromarray(expected.round().astype(np.uint8)).resize(
                    (show.CELL, show.CELL), Image.Resampling.LANCZOS
                )
            )
            assert np.abs(cell(sheet, row, epoch + 1).astype(float) - small).max() <= 2
    draws = [cell(sheet, 0, k + 1).astype(float) for k in range(demo.DRAWS)]
    assert all(np.abs(a - b).mean() > 2 for k, a in enumerate(draws) for b in draws[:k])


def test_the_ending_of_output_chooses_the_format(folder: Path, tmp_path: Path) -> None:
    assert gpuaug("demo", "--data", folder, "--epochs", 1, "--output", tmp_path / "out.jpg").exit_code == 0
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.format == "JPEG"


def test_a_flat_folder_smaller_than_a_batch_runs(folder: Path, tmp_path: Path) -> None:
    result = gpuaug("demo", "--data", folder / "red", "--epochs", 2, "--output", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert "3 images in 1 class\n" in result.output
    assert "6/6 images" in result.output


def test_missing_empty_and_mistaken_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    refused(gpuaug("demo", "--data", tmp_path / "nowhere"), "nowhere is not a folder")
    refused(gpuaug("demo", "--data", folder / "red" / "c.jpg"), "c.jpg is not a folder")
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    (tmp_path / "empty" / ".hidden" / "x.jpg").write_bytes((folder / "red" / "c.jpg").read_bytes())
    refused(gpuaug("demo", "--data", tmp_path / "empty"), "empty holds no images")


def damaged(folder: Path, name: str) -> Path:
    """A file that cannot be decoded, first of its folder."""
    whole = (folder / "red" / "c.jpg").read_bytes()
    bad = folder / "red" / name
    if name.endswith("deep.png"):
        Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(bad)
    else:
        bad.write_bytes(whole[: len(whole) // 2] if name.endswith("cut.jpg") else b"no picture")
    return bad


@pytest.mark.parametrize("batch_size", [2, 16])
def test_files_that_cannot_be_decoded_are_skipped_counted_and_listed(
    folder: Path, tmp_path: Path, batch_size: int
) -> None:
    bad = [damaged(folder, name) for name in ("a_cut.jpg", "a_text.png", "z_deep.png")]
    result = gpuaug(
        "demo", "--data", folder, "--epochs", 2, "--batch-size", batch_size, "--output", tmp_path / "out.png"
    )
    assert result.exit_code == 0, result.output
    assert "skipped 3 files:" in result.output and "16/16 images" in result.output
    lines = result.output.splitlines()
    assert all(sum(line.startswith(f"  {b} ") for line in lines) == 1 for b in bad)
    with Image.open(tmp_path / "out.png") as image:
        # the sheet shows the five that are whole
        assert image.height == show.HEAD + 5 * (show.CELL + show.FOOT) + show.MARGIN


def test_a_long_list_of_skipped_files_is_cut(folder: Path, tmp_path: Path) -> None:
    for k in range(demo.LISTED + 3):
        damaged(folder, f"{k}text.png")
    result = gpuaug("demo", "--data", folder, "--epochs", 1, "--output", tmp_path / "out.png")
    assert (
        result.exit_code == 0
        and f"skipped {demo.LISTED + 3} files:" in result.output
        and "  and 3 more" in result.output
    )


def test_a_folder_of_nothing_but_damaged_files_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in SIZES:
        (folder / name).write_bytes(b"no picture")
    refused(
        gpuaug("demo", "--data", folder, "--output", tmp_path / "out.png"),
        "none of the 5 images",
        str(folder / "blue" / "a.jpg"),
    )
    assert not (tmp_path / "out.png").exists()


def test_bad_options_are_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    refused(
        gpuaug("demo", "--data", folder, "--output", tmp_path / "out.text"),
        "output must end as a picture does",
        "out.text",
    )
    refused(gpuaug("demo", "--data", folder, "--output", tmp_path / "no" / "out.png"), "no is not a folder")
    refused(
        gpuaug("demo", "--data", folder, "--backend", "quantum"),
        "backend must be one of auto, reference, cpu, triton, got 'quantum'",
    )
    assert gpuaug("demo", "--data", folder, "--epochs", 0).exit_code == 2
    assert gpuaug("demo", "--data", folder, "--batch-size", 0).exit_code == 2


def test_the_builtin_photographs_are_written_once_in_classes_and_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photographs.write(Path("demo_data"))
    assert [p.name for p in tmp_path.iterdir()] == ["demo_data"]
    found = photographs.find(Path("demo_data"))
    pictures = [photographs.decode(p) for p in found.paths]
    assert len(pictures) >= 24
    assert len(found.classes) >= 6
    assert len({p.shape for p in pictures}) >= 15
    assert all(p.std() > 10 for p in pictures)
    assert {p.suffix for p in found.paths} == {".jpg"}
    shown = [found.labels[i] for i in found.varied(8)]
    assert len(set(shown)) == min(8, len(found.classes))
    # a second run takes what is there: with only one picture left, that one
    for path in found.paths[1:]:
        path.unlink()
    result = gpuaug("demo", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "1/1 images" in result.output
    assert (tmp_path / "demo.png").exists()


def test_without_scikit_image_the_demo_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    refused(gpuaug("demo"), "scikit-image, which is not installed", "gpuaug[demo]", "--data")
    assert not list(tmp_path.iterdir())


def test_the_demo_runs_where_triton_and_dali_have_no_wheel(folder: Path, tmp_path: Path) -> None:
    command = ("demo", "--data", str(folder))
    (status, said), (refused, refusal) = without(
        ("triton", "nvidia"), (*command, "--epochs", "1"), (*command, "--backend", "triton"), where=tmp_path
    )
    assert status == 0, said
    assert (tmp_path / "demo.png").exists()
    assert refused == 1
    assert refusal.startswith('gpuaug: backend "triton" needs the package triton, which is not installed')
    assert refusal.count("\n") == 1


@pytest.mark.parametrize(
    ("package", "commands"),
    [("torchvision", {"demo": "demo", "bench": "bench"}), ("matplotlib", {"bench": "bench"})],
)
def test_a_command_names_the_extra_that_it_lacks(package: str, commands: dict[str, str], tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = without((package,), *((command,) for command in commands), where=tmp_path)
    for (status, said), extra in zip(found, commands.values(), strict=True):
        assert status == 1, said
        assert re.fullmatch(rf"gpuaug: .*{package}, which is not installed; pip install 'gpuaug\[{extra}\]'\n", said)
        assert any(one.startswith(package) for one in project["optional-dependencies"][extra])
    assert not list(tmp_path.iterdir())


def test_what_every_user_needs_imports_no_extra(folder: Path, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.split(r"[^\w.-]", one)[0] for ones in project["optional-dependencies"].values() for one in ones}
    extras = named - {"types-PyYAML"}
    assert {"torchvision", "matplotlib"} <= extras, "vacuous"
    modules = ["skimage" if name == "scikit-image" else name.replace("-", "_") for name in extras]
    code = (WITHOUT % (tuple(modules),)).replace(
        "from gpuaug.apps.cli import main\nmain()",
        "import torch, gpuaug as ga\n"
        "policy = ga.Policy([ga.RandomResizedCrop(24), ga.ColorJitter(0.2, 0.2), ga.RandomErasing(p=1.0)])\n"
        "for backend in ('reference', 'cpu'):\n"
        "    out = policy(torch.zeros(2, 3, 30, 40, dtype=torch.uint8), backend=backend)\n"
        "import gpuaug.data, gpuaug.apps.photographs, gpuaug.apps.sheet\n"
        "assert ga.data.Sampler(range(9)) and out.shape == (2, 3, 24, 24)\n"
        "assert not {'torchvision', 'matplotlib', 'skimage'} & set(sys.modules)",
    )
    done = children.run([sys.executable, "-c", code], cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_interrupted_write_leaves_no_folder_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(photographs.WHEEL, "zebra", ("not_in_the_wheel.png",))
    with pytest.raises(FileNotFoundError):
        photographs.write(tmp_path / "demo_data")
    assert not list(tmp_path.iterdir())


def test_describe_prints_the_plan_of_a_saved_policy(tmp_path: Path) -> None:
    policy = ga.Policy([ga.Resize((32, 24)), ga.RandomHorizontalFlip()], seed=3)
    policy.save(tmp_path / "p.yaml")
    result = gpuaug("describe", tmp_path / "p.yaml", "--size", "375x500")
    assert result.exit_code == 0, result.output
    assert result.output == policy.describe((375, 500)) + "\n"
    assert gpuaug("describe", tmp_path / "p.yaml").output == policy.describe() + "\n"


def test_describe_refuses_what_is_no_policy_and_no_size(tmp_path: Path) -> None:
    refused(gpuaug("describe", tmp_path / "none.yaml"), "none.yaml")
    (tmp_path / "p.yaml").write_text("transforms: [{name: Dream}]")
    refused(gpuaug("describe", tmp_path / "p.yaml"), "unknown transform 'Dream'")
    ga.Policy([ga.Resize(8)]).save(tmp_path / "p.yaml")
    refused(
        gpuaug("describe", tmp_path / "p.yaml", "--size", "375"),
        "size must be height x width, such as 375x500, got '375'",
    )


@pytest.mark.parametrize(
    "bad",
    [
        ("--backend", "cuda"),
        ("--backend", "quantum"),
        ("--output", "out.text"),
        ("--output", "no/out.png"),
        ("--seed", 2**64),
    ],
    ids=lambda v: " ".join(map(str, v)),
)
def test_a_refused_demo_writes_nothing(bad: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(gpuaug("demo", *bad), "got" if bad[1] != "no/out.png" else "no is not a folder")
    assert not list(tmp_path.iterdir())


def test_the_backend_of_cuda_is_named() -> None:
    refused(gpuaug("demo", "--backend", "cuda"), "backend must be one of", "'cuda'", '"triton" runs on CUDA')


def test_describe_says_what_is_wrong_with_a_path(tmp_path: Path) -> None:
    refused(gpuaug("describe", tmp_path / "nope.yaml"), f"{tmp_path / 'nope.yaml'} is not there", "Policy.save")
    refused(gpuaug("describe", tmp_path), f"{tmp_path} is a folder")
    for text in (
        b"\xff\xfe\x00p",
        b"transforms: [",
        b"transforms: [{name: RandomInvert, p: 1e-3}]",
        b"transforms: &a [*a]",
        b"\0",
    ):
        (tmp_path / "p.yaml").write_bytes(text)
        result = gpuaug("describe", tmp_path / "p.yaml")
        refused(result)
        assert "Errno" not in result.stderr


@pytest.mark.parametrize(
    ("command", "texts"),
    [("demo", ["photographs written to demo_data"]), ("describe", ["images of different sizes"]), ("bench", ["all"])],
)
def test_help_says_every_default(command: str, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    shown = " ".join(gpuaug(command, "--help").output.split())
    for text in texts:
        assert f"[default: ({text})]" in shown
    # what stands in brackets in a help text is markup, and is not shown
    source = (Path(ga.__file__).parent / "apps" / "cli.py").read_text()
    assert not re.search(r"help=[^,)]*\[", source)


INTERRUPTED = """
import signal, sys
sys.orig_argv = ["python", "/usr/bin/gpuaug", "demo"]
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def found(name, *rest):
    # Ctrl-C in the middle of imports, while this one is looked for
    if name == %r:
        signal.raise_signal(signal.SIGINT)
    return find(name, *rest)
PathFinder.find_spec = found
from gpuaug.apps.cli import main
main()
"""


# those that are looked for after torch, which takes seconds: one is enough each time
LATE = [pytest.param("yaml", marks=pytest.mark.slow), "gpuaug.policy"]


@pytest.mark.parametrize("name", ["gpuaug.rng", *LATE, "typer"])
def test_ctrl_c_during_imports_ends_the_command_without_a_traceback(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED % name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, ""), done.stderr


def test_ctrl_c_during_the_imports_of_a_program_is_the_programs() -> None:
    code = (
        INTERRUPTED.replace("/usr/bin/gpuaug", "train.py").replace(
            "from gpuaug.apps.cli import main\nmain()", "import gpuaug"
        )
        % "gpuaug.rng"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "KeyboardInterrupt" in done.stderr


def test_ctrl_c_during_the_command_ends_it_without_a_traceback(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(photographs, "decode", stopped)
    result = gpuaug("demo", "--data", folder, "--output", tmp_path / "out.png")
    assert result.exit_code == 130 and "Traceback" not in result.output


def test_version_is_the_packages() -> None:
    assert gpuaug("--version").output == f"gpuaug {ga.__version__}\n"


def test_the_command_starts_without_the_heavy_packages() -> None:
    code = "import sys, gpuaug.apps.cli; print(*sorted({'triton', 'numba', 'kornia', 'nvidia.dali', 'torchvision', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
