"""`gpuaug expand --engine ray`: a local Ray cluster writes the same bytes as one process."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from commands import gpuaug, refused
from test_expand import COUNT, FACTOR, expanded, policy, rows, source, tree

__all__ = ["policy", "source"]


def on_ray(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose cluster ends with it."""
    code = "from gpuaug.data import decoding; decoding.CHUNK = 4\nfrom gpuaug.apps.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "expand", *map(str, arguments), "--engine", "ray"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jpeg", "webdataset"])
def test_ray_writes_the_same_bytes(source, policy, tmp_path, form):
    expanded(source, tmp_path / "whole", policy, "--format", form)
    options = ("--policy", policy, "--factor", FACTOR, "--format", form)
    run = on_ray(source, tmp_path / "out", *options, "--actors", 2)
    assert run.returncode == 0, run.stdout + run.stderr
    found, wanted = tree(tmp_path / "out"), tree(tmp_path / "whole")
    assert found.keys() == wanted.keys() and len(rows(tmp_path / "out")) == COUNT * FACTOR
    assert all(found[name] == wanted[name] for name in wanted if name != "manifest.parquet")
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")


@pytest.mark.slow
def test_a_bad_file_is_one_sentence_on_ray_too_and_either_engine_goes_on(source, policy, tmp_path):
    good = (source / "two" / "07.png").read_bytes()
    (source / "two" / "07.png").write_bytes(b"no image")
    run = on_ray(source, tmp_path / "out", "--policy", policy, "--factor", FACTOR, "--actors", 1)
    assert run.returncode == 1 and "two/07.png" in run.stderr, run.stdout + run.stderr
    told = [line for line in run.stderr.splitlines() if line.startswith("gpuaug: ")]
    assert len(told) == 1 and "Traceback" not in run.stderr
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    (source / "two" / "07.png").write_bytes(good)
    expanded(source, tmp_path / "out", policy)
    assert len(rows(tmp_path / "out")) == COUNT * FACTOR


def test_without_ray_it_is_one_sentence(source, policy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(gpuaug("expand", source, tmp_path / "out", "--policy", policy, "--engine", "ray"), "gpuaug[ray]")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ray_is_here():
    assert find_spec("ray"), "the tests above need ray: pip install '.[test]'"
