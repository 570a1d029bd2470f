"""A loader ends: no thread or process outlives it, nothing hangs, and what goes wrong is said where the loop is."""

import gc
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import loading
import pytest
import torch
from build import quick
from loading import N, folder, left_behind, loader, rows, samples, whole

import gpuaug as ga
from gpuaug.data import Source, Storage, decode
from gpuaug.data.making import BadImage


@pytest.fixture(autouse=True)
def _limit():
    with loading.within(100):
        yield


@pytest.fixture
def before():
    gc.collect()
    return set(threading.enumerate())


# ---- its own end


def test_iter_starts_nothing(before):
    with loader() as one:
        iterators = [iter(one) for _ in range(3)]
        assert not set(threading.enumerate()) - before
        next(iterators[1])
        assert len(set(threading.enumerate()) - before) >= 2, "vacuous"


@pytest.mark.parametrize("decoder", quick(["auto", "torchvision", "pillow"], "auto"))
@pytest.mark.parametrize("taken", [0, 1, 3, None])
def test_closing_ends_every_thread(before, taken, decoder, tmp_path):
    one = loader(folder(tmp_path), decoder=decoder, num_threads=2)
    it = iter(one)
    for _ in range(taken or 0):
        next(it)
    if taken is None:
        assert len(list(it)) == len(one)
    one.close()
    assert not left_behind(before, 0.5)
    one.close()
    for use in (lambda: next(it), lambda: iter(one)):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_an_iterator_that_is_dropped_ends_its_threads(before):
    one = loader()
    for _ in range(3):
        next(iter(one))
        for _ in one:
            break
    assert not [t for t in left_behind(before, 0.5) if "loader" in t]
    first, second = iter(one), iter(one)
    next(first), next(second)
    del first
    gc.collect()
    assert len(list(second)) == len(one) - 1
    del second, one
    assert not left_behind(before)


def test_a_loader_that_is_dropped_ends_everything(before, tmp_path):
    one = loader(folder(tmp_path), decoder="auto", num_threads=2)
    next(iter(one))
    it = iter(one)
    next(it)
    del one
    gc.collect()
    assert next(it) is not None, "an iterator keeps its loader"
    del it
    assert not left_behind(before)


def test_a_loader_that_is_dropped_after_an_error_ends_everything(before):
    """Though the error leads to the loop's variables, among which the loader is."""

    def loop():
        one = loader([*samples()[:3], (b"no image", 0)], None, 4, drop_last=False, num_threads=2)
        return list(one)

    with pytest.raises(BadImage):
        loop()
    gc.collect()
    assert not left_behind(before)


def test_an_error_that_is_raised_again_is_as_it_was():
    with loader([(b"no image", 0)], None, 1) as one:
        it, lengths = iter(one), []
        for _ in range(4):
            with pytest.raises(BadImage) as raised:
                next(it)
            lengths.append(len(traceback.extract_tb(raised.value.__traceback__)))
        assert len(set(lengths)) == 1, "its traceback grows"


def test_several_iterators_go_on_side_by_side():
    with loader() as one:
        pairs = list(zip(iter(one), iter(one), strict=True))
        assert rows(a for a, _ in pairs) == list(whole()[:36])
        assert rows(b for _, b in pairs) == list(whole(1)[:36])


def test_a_loop_that_waits_is_told_when_the_loader_is_closed(before):
    class Stuck(list):
        def __getitem__(self, i):
            time.sleep(0.1)
            return super().__getitem__(i)

    one = loader(Stuck(samples()))
    threading.Timer(0.2, one.close).start()
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(one))
    assert not left_behind(before)


SCRIPT = """if True:
    import sys, os, time, signal, threading
    sys.path[:0] = {path!r}
    import loading
    def main():
        one = loading.loader(num_threads=2, **{options!r})
        it = iter(one)
        next(it)
        {then}
    if __name__ == "__main__":
        main()
"""


def script(then: str, **options) -> subprocess.CompletedProcess:
    path = [os.path.join(os.path.dirname(__file__), "support"), *(p for p in sys.path if p)]
    code = SCRIPT.format(path=path, options=options, then=then.replace("\n", "\n        "))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)


@pytest.mark.parametrize(
    "then",
    [
        "globals().update(kept=it); sys.exit(7)",
        # as where a batch takes longer to decode than a file system is waited for
        "sys.modules['gpuaug.data.batches'].PATIENCE = 0.0; globals().update(kept=it); sys.exit(7)",
        *(
            pytest.param(t, marks=pytest.mark.slow)
            for t in ("sys.exit(7)", "del one; sys.exit(7)", "list(it); sys.exit(7)")
        ),
    ],
)
def test_a_process_ends_cleanly_whatever_runs(then):
    done = script(then, decoder="auto")
    assert done.returncode == 7 and not done.stderr, done.stderr


def test_control_c_ends_a_loop_as_it_ends_others():
    then = (
        "list(one)\nthreading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "try:\n    while True:\n        for batch in one: pass\n"
        "except KeyboardInterrupt:\n    print(len(one.state_dict()), one.stats()['batches'] > 1)\n    raise"
    )
    done = script(then)
    assert done.returncode in (-signal.SIGINT, 130) and done.stdout.endswith("True\n"), done.stderr
    assert done.stderr.rstrip().endswith("KeyboardInterrupt") and done.stderr.count("Traceback") == 1, done.stderr


def test_an_interrupt_in_the_policy_loses_no_batch():
    calls = []

    def interrupted(batch):
        calls.append(batch.epoch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return loading.policy()(batch)

    with loader(its_policy=interrupted) as one:
        it, seen = iter(one), []
        while len(seen) < len(one):
            try:
                seen.append(next(it))
            except KeyboardInterrupt:
                assert one.state_dict()["consumed"] == 8
        assert rows(seen) == list(whole()[:36])


def test_a_feed_that_is_stopped_by_who_holds_its_lock_ends():
    """As where its iteration is collected amid a thread's work on its queues."""
    with loader() as one:
        it = iter(one)
        next(it)
        feed = it._feed

        def collected():
            with feed._lock:
                feed.stop()

        thread = threading.Thread(target=collected, daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive(), "it waits for itself"


@pytest.mark.parametrize("again", [False, True])
def test_an_interrupt_while_threads_start_leaves_a_loader_that_ends_and_goes_on(monkeypatch, again):
    start, interrupted = threading.Thread.start, []

    def once(thread):
        if thread.name == "gpuaug-loader-decode" and not interrupted:
            interrupted.append(thread)
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", once)
    with loader() as one:
        it = iter(one)
        with pytest.raises(KeyboardInterrupt):
            next(it)
        assert interrupted
        if again:
            assert rows([next(it)]) == list(whole()[:4])


@pytest.mark.parametrize("begun", [False, True])
def test_a_forked_child_is_refused_in_words(begun, before):
    with loader() as one:
        it = iter(one)
        if begun:
            next(it)
        out, into = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                try:
                    next(it)
                except RuntimeError as error:
                    os.write(into, str(error).encode())
                one.close()
                del it
            finally:
                os._exit(0)
        os.close(into)
        with os.fdopen(out) as words:
            text = words.read()
        os.waitpid(pid, 0)
        assert "forked" in text and "process" in text
        assert next(it) is not None, "the parent's own was hurt"


@pytest.mark.skipif(bool(decode.missing("dali")), reason="DALI is not installed")
def test_a_forked_child_does_not_wait_for_the_threads_of_dali_as_it_ends():
    with loader(decoder="dali") as one:
        it = iter(one)
        next(it)
        pid = os.fork()
        if not pid:
            # what the interpreter calls as it ends
            importlib.import_module("nvidia.dali.pipeline")._shutdown_pipelines()
            os._exit(3)
        ended, until = (0, 0), time.monotonic() + 20
        while not ended[0] and time.monotonic() < until:
            time.sleep(0.01)
            ended = os.waitpid(pid, os.WNOHANG)
        if not ended[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert ended[0] == pid and os.waitstatus_to_exitcode(ended[1]) == 3
        assert next(it) is not None, "the parent's own was hurt"


# ---- what goes wrong


class Broken(Source):
    """Raises, which a source should not."""

    def __init__(self, when: str):
        self.when = when

    def __len__(self):
        return N

    def key(self, id):
        return f"path/of/{id}"

    def read(self, ids):
        if 9 in ids and self.when == "one":
            raise ZeroDivisionError("what the source said")
        if self.when == "many" and len(ids) > 1:
            raise ZeroDivisionError("what the source said")
        return [samples()[i][0] for i in ids]

    @property
    def fingerprint(self):
        return "0" * 16

    def describe(self):
        return "broken"


def test_what_a_source_raises_surfaces_with_id_and_path(before):
    one = loader(Broken("one"), shuffle=False)
    it = iter(one)
    next(it), next(it)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"sample 9 \(path/of/9\).*what the source said") as error:
            next(it)
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    assert one.state_dict()["consumed"] == 8
    with loader(Broken("many")) as other, pytest.raises(RuntimeError, match=r"sample \d+ \(path/of/\d+\)"):
        next(iter(other))
    one.close()
    assert not left_behind(before)


def test_what_the_threads_themselves_raise_surfaces(before, monkeypatch):
    from gpuaug.data import course

    monkeypatch.setattr(course.Course, "steps", lambda self: 1 // 0)
    with loader() as one, pytest.raises(ZeroDivisionError):
        next(iter(one))
    assert not left_behind(before)


def test_what_a_policy_raises_surfaces_and_the_batch_stays(before):
    fails = [True]

    def sometimes(batch):
        if fails[0]:
            raise ArithmeticError("what the policy said")
        return loading.policy()(batch)

    with loader(its_policy=sometimes) as one:
        it = iter(one)
        with pytest.raises(ArithmeticError, match="what the policy said"):
            next(it)
        fails[0] = False
        assert rows(it) == list(whole()[:36])
    assert not left_behind(before)


def test_what_windows_raise_surfaces(before):
    class Windowed:
        def windows(self, ids, size, epoch, occurrence):
            raise LookupError("what the windows said")

        def __call__(self, batch):
            return batch

    with loader(its_policy=Windowed()) as one, pytest.raises(LookupError, match="what the windows said"):
        next(iter(one))
    assert not left_behind(before)


@pytest.mark.parametrize("workers", ["threads", pytest.param("process", marks=pytest.mark.slow)])
def test_what_a_policy_or_a_target_transform_cannot_take_is_named(workers, before):
    with loader(its_policy=ga.Policy([ga.RandomCrop(45)]), shuffle=False, workers=workers) as one:
        with pytest.raises(ValueError, match=r"^sample \d+ \(\d+\) of \d+x\d+ pixels: size \(45, 45\) of RandomCrop"):
            list(one)
    with loader(target_transform=only_small, shuffle=False, workers=workers) as one:
        with pytest.raises(RuntimeError, match=r"target of sample 3 \(3\), 3: ArithmeticError: too large"):
            list(one)
    assert not left_behind(before)


def only_small(target):
    if target == 3:
        raise ArithmeticError("too large")
    return target


def test_threads_that_share_an_iteration_get_every_batch_once(before):
    with loader(batch_size=1) as one:
        it, got = iter(one), []
        threads = [threading.Thread(target=lambda: got.extend(int(b.ids) for b in it)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(got) == list(range(N))
    assert not left_behind(before)


def test_a_disk_that_vanishes_is_said_in_words(tmp_path, before):
    root = folder(tmp_path / "data")
    one = loader(root, prefetch=1)
    it = iter(one)
    next(it)
    root.rename(tmp_path / "gone")
    with pytest.raises(BadImage, match=r"class_\d/\d{4}.jpg.*no such file"):
        list(it)
    one.close()
    assert not left_behind(before)


def test_a_file_system_that_stalls_is_given_up_and_said(before):
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Stalling(MemoryFileSystem):
        stalls = False

        def cat_file(self, path, start=None, end=None, **options):
            if Stalling.stalls:
                time.sleep(1.5)
            return super().cat_file(path, start, end, **options)

    system = Stalling()
    for i, (data, _) in enumerate(samples()):
        system.pipe_file(f"/stalling/c/{i:04d}.jpg", data)
    one = loader(
        "memory://stalling", storage=Storage(filesystem=system, timeout=0.2, retries=1, reads_in_flight=4), prefetch=1
    )
    it = iter(one)
    next(it)
    Stalling.stalls = True
    with pytest.raises(BadImage, match=r"no answer within 0.2 s"):
        list(it)
    one.close()
    assert fsspec and not left_behind(before, 10)


def test_a_slow_source_is_waited_for():
    class Slow(list):
        def __getitem__(self, i):
            time.sleep(0.01)
            return super().__getitem__(i)

    with loader(Slow(samples())) as one:
        assert rows(one) == list(whole()[:36])


@pytest.mark.slow
def test_memory_and_threads_stay_the_same_over_fifty_epochs_and_forty_iterations(tmp_path, before):
    import resource

    root, peaks = folder(tmp_path), []
    with ga.data.Loader(root, loading.policy(), 4, device="cpu", num_threads=2) as one:
        for k in range(50):
            for _ in one:
                pass
            for _ in range(1 if k >= 10 else 0):
                next(iter(one))
            peaks.append(resident())
    assert resource.getpagesize() > 0
    assert peaks[-1] - peaks[12] < 24 << 20, [p >> 20 for p in peaks]
    assert not left_behind(before)


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_batches_do_not_change_once_they_are_given(tmp_path):
    """No memory of theirs is used again for a later batch."""
    for p in (None, loading.policy()):
        with loader(folder(tmp_path), p, decoder="auto") as one:
            batches = list(one)
            images = [b.images.images if p is None else b.images for b in batches]
            copies = [[i.clone() for i in each] for each in images]
            list(one)
            for a, b in zip(images, copies, strict=True):
                assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
