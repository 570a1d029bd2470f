"""Processes that tests fork are to a test what subprocess would give it."""

import os
import signal
import subprocess
import sys

import children
import pytest

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("pass", 0),
        ("raise SystemExit", 0),
        ("raise SystemExit(7)", 7),
        ("raise SystemExit('in words')", 1),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os._exit(3)", 3),
    ],
)
def test_a_child_ends_as_an_interpreter_ends(code, status):
    mine, theirs = children.run([PYTHON, "-c", code]), subprocess.run([PYTHON, "-c", code], capture_output=True)
    assert mine.returncode == theirs.returncode == status
    last = mine.stderr.strip().splitlines()[-1:]
    assert last == theirs.stderr.decode().strip().splitlines()[-1:]


def test_a_child_has_the_arguments_the_environment_and_the_folder_it_is_given(tmp_path):
    (tmp_path / "beside.py").write_text("here = 5")
    code = (
        "import os, sys; sys.path.insert(0, ''); import beside; "
        "print(sys.argv[1:], os.environ['SAID'], beside.here, __name__, os.environ.get('HOME'), os.getcwd())"
    )
    (tmp_path / "file.py").write_text(code)
    env = {"SAID": "b", "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
    for command in (["-c", code], [tmp_path / "file.py"], ["-m", "file"], ["-W", "ignore", "-c", code]):
        done = children.run([PYTHON, *command, "a b", "c"], env=env, cwd=tmp_path)
        assert done.stdout.strip() == f"['a b', 'c'] b 5 __main__ None {tmp_path}", done.stderr


def test_what_is_registered_for_the_end_and_other_threads_have_their_turn():
    code = "import atexit, threading, time; atexit.register(print, 'end'); threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()"
    assert children.run([PYTHON, "-c", code]).stdout.split() == ["thread", "end"]


def test_a_child_that_takes_too_long_is_killed(tmp_path):
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(subprocess.TimeoutExpired):
        children.run([PYTHON, "-c", code], timeout=1.0)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_nothing_but_torch_is_imported_before():
    code = "import sys; print(*{'gpuaug', 'triton', 'numba', 'kornia', 'children', 'torchvision'} & set(sys.modules))"
    assert children.run([PYTHON, "-c", code]).stdout.strip() == ""


def test_what_is_read_before_a_child_is_there_cannot_be_asked_for():
    with pytest.raises(AssertionError, match="OMP_NUM_THREADS is read when torch is imported"):
        children.run([PYTHON, "-c", ""], env=os.environ | {"OMP_NUM_THREADS": "77"})
