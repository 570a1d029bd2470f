"""The first batch of a process: what is loaded while it is decoded."""

import gc
import os
import subprocess
import sys
import threading
import time

import loading
import pytest
import torch
from loading import loader, policy

import gpuaug as ga
import gpuaug.exec
from gpuaug.exec import cpu
from gpuaug.loading import uncollected


def test_an_executor_that_another_thread_still_imports_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "slow_to_load.py").write_text("import time\ntime.sleep(0.3)\nprepare = 1\n")
    monkeypatch.setattr(gpuaug.exec, "__path__", [*gpuaug.exec.__path__, str(tmp_path)])
    name = "gpuaug.exec.slow_to_load"
    thread = threading.Thread(target=gpuaug.exec.load, args=("slow_to_load",))
    thread.start()
    while name not in sys.modules and thread.is_alive():
        time.sleep(0.005)
    try:
        assert thread.is_alive(), "vacuous"
        assert gpuaug.exec.load("slow_to_load").prepare == 1
    finally:
        thread.join()
        sys.modules.pop(name, None)


def test_what_augments_is_loaded_before_the_first_batch_is_decoded(monkeypatch):
    loaded, begun = threading.Event(), threading.Event()
    load = cpu.load_compiled

    def noted():
        load()
        loaded.set()

    class Slow(list):
        def __getitem__(self, i):
            assert not begun.is_set() or loaded.wait(60), "nothing is loaded while this reads"
            return super().__getitem__(i)

    monkeypatch.setattr(cpu, "load_compiled", noted)
    with loader(Slow(loading.samples())) as one:
        batches = iter(one)
        begun.set()
        next(batches)
        assert loaded.is_set()


def test_a_policy_that_loads_nothing_is_a_policy():
    with loader(its_policy=lambda batch: batch) as one:
        assert len(list(one)) > 0


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_left_as_it_was(on):
    was = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with pytest.raises(KeyError), uncollected():
            raise KeyError(gc.isenabled())
        assert gc.isenabled() == on
    finally:
        (gc.enable if was else gc.disable)()


def test_loading_leaves_draws_and_numbers_alone():
    images, one = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), policy()
    state = torch.get_rng_state()
    ga.Policy._load_executor(one, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one(images, epoch=0), policy()(images, epoch=0))


def test_compiled_code_is_loaded_without_scipy_which_numba_still_finds():
    code = """if True:
        import sys
        import numpy as np
        from gpuaug.data import scan
        scan.table([b""])
        assert "numba" in sys.modules and "scipy.linalg" not in sys.modules
        import numba
        x = np.random.default_rng(0).random((5, 5))
        product, inverse, spread = numba.njit(lambda x: (np.dot(x, x), np.linalg.inv(x), np.cov(x)))(x)
        assert np.allclose(product, x @ x) and np.allclose(inverse, np.linalg.inv(x)) and np.allclose(spread, np.cov(x))
        assert "scipy.linalg" in sys.modules
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
