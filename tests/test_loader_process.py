"""Reading and decoding in a child process: what comes out is what threads make, and the child ends with its loader."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import loading
import pytest
import torch
from loading import CLASSES, loader, rows, samples, whole

from gpuaug.data.child import ChildFeed, packed
from gpuaug.data.making import BadImage, Made
from gpuaug.data.meter import Meter


@pytest.fixture(autouse=True)
def _limit():
    with loading.within(150):
        yield


def children() -> set[int]:
    """Processes that this one has started by multiprocessing, and that live."""
    return {p.pid for p in multiprocessing.active_children() if p.pid is not None}


def ends(pids: set[int], patience: float = 10.0) -> bool:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        gc.collect()
        if not pids & children():
            return True
        time.sleep(0.05)
    return False


def test_a_child_makes_what_threads_make_and_lives_for_all_iterations(tmp_path):
    root = loading.folder(tmp_path)
    with loader(root, workers="process", decoder="auto", prefetch=2, drop_last=False) as one:
        assert not children(), "it was started before it was needed"
        assert [r[1:] for r in rows(one)] == [r[1:] for r in whole()]
        (child,) = children()
        assert one.stats()["bytes_read"] > 10_000 and one.stats()["images"] == loading.N
        it = iter(one)
        first = next(it)
        state = one.state_dict()
        assert state["consumed"] == 4 and rows([first]) == list(whole(1)[:4])
        # left in the middle, and the same child goes on
        del it
        one.load_state_dict(state)
        kept = list(one)
        assert rows(kept) == list(whole(1)[4:])
        assert children() == {child}
        assert rows(kept) == list(whole(1)[4:]), "memory of a batch was used again"
        assert (first.labels < CLASSES).all() and children() == {child}
    assert ends({child}) and not children()


def test_the_time_that_a_child_waits_is_not_the_loops():
    """The loop may be at work meanwhile, and would look starved."""
    feed = ChildFeed(None, None, 1, Meter(), torch.device("cpu"))
    feed._child = SimpleNamespace(memory={})
    made = Made(None, targets=[1])
    feed._taken(("batch", packed(made, 0, {}), {"waiting": 5.0, "starving": 4.0, "decoding": 1.0}, {}, {}, 0))
    assert feed._made.targets == [1] and feed._meter.taken() == {"starving": 4.0, "decoding": 1.0}


@pytest.mark.slow
def test_iterations_side_by_side_have_a_child_each():
    with loader(workers="process", drop_last=False) as one:
        both = list(zip(iter(one), iter(one), strict=True))
        assert rows(a for a, _ in both) == list(whole(0)) and rows(b for _, b in both) == list(whole(1))
        assert len(children()) == 2
        list(one)
        assert len(children()) == 2
    assert not children()


@pytest.mark.slow
def test_images_without_a_policy_and_bad_files_come_through():
    data = samples()
    data[6] = (b"", 0)
    with (
        loader(data, None, workers="process", on_error="skip", shuffle=False) as one,
        loader(data, None, on_error="skip", shuffle=False) as two,
    ):
        batches = list(one)
        for a, b in zip(batches, two, strict=True):
            assert torch.equal(a.valid, b.valid) and torch.equal(a.labels, b.labels)
            assert all(torch.equal(x, y) for x, y in zip(a.images.images, b.images.images, strict=True))
        assert [f.id for f in one.bad_files] == [6]
        it = iter(one)
        next(it)
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="was killed"):
            list(it)
    assert ends({child})


@pytest.mark.slow
def test_errors_come_through_in_words_and_again():
    data = samples()
    data[6] = (b"", 0)
    with loader(data, workers="process", shuffle=False) as one:
        it = iter(one)
        next(it)
        for _ in range(2):
            with pytest.raises(BadImage, match=r"sample 6 \(6\): the file is empty"):
                next(it)
        assert one.state_dict()["consumed"] == 4
        del it
    with loader(workers="process", its_policy=lambda batch: batch) as one:
        assert len(list(one)) == len(one), "a function that is called here alone was sent"
    with loader([(d, lambda: 0) for d, _ in samples()], workers="process") as one:
        with pytest.raises(TypeError, match="pickled"):
            next(iter(one))


@pytest.mark.slow
def test_a_dropped_loader_leaves_no_child():
    one = loader(workers="process")
    next(iter(one))
    pids = children()
    assert pids
    del one
    assert ends(pids)


@pytest.mark.slow
def test_a_loader_that_is_dropped_after_an_error_leaves_no_child_and_no_words(recwarn):
    def loop():
        return list(loader([*samples()[:3], (b"no image", 0)], None, 4, workers="process"))

    with pytest.raises(BadImage):
        loop()
    pids = children()
    gc.collect()
    # what a finalizer raises is a warning of pytest's
    assert ends(pids) and not recwarn.list


@pytest.mark.slow
def test_a_script_that_is_not_guarded_is_told_what_to_do(tmp_path):
    path = [os.path.join(os.path.dirname(__file__), "support"), *(p for p in sys.path if p)]
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path[:0] = {path!r}\nimport loading\nlist(loading.loader(workers='process'))\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "A script that makes a loader needs `if __name__ == '__main__':`" in done.stderr


@pytest.mark.slow
def test_a_killed_parent_leaves_no_child():
    path = [os.path.join(os.path.dirname(__file__), "support"), *(p for p in sys.path if p)]
    code = (
        f"import sys, time; sys.path[:0] = {path!r}\nimport loading\n"
        "if __name__ == '__main__':\n    one = loading.loader(workers='process')\n    it = iter(one)\n    next(it)\n"
        "    print(one._children._all[0]._process.pid, flush=True)\n    time.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while os.path.exists(f"/proc/{child}") and time.monotonic() < until:
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break
        time.sleep(0.05)
    assert time.monotonic() < until, "the child outlives its parent"
