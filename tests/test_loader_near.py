"""Threads that read and decode stay on the cores near the GPU, and nobody else is moved."""

import os
import threading
from types import SimpleNamespace

import pytest
import torch
from loading import loader, rows

from gpuaug.data import near

MINE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pytestmark = pytest.mark.skipif(not MINE, reason="threads are kept on cores on Linux alone")


def bus(root, text: str, where: str = "0000:3b:00.0"):
    """A folder that says which cores are near."""
    place = root / "bus" / "pci" / "devices" / where
    place.mkdir(parents=True)
    (place / "local_cpulist").write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0", {0}), ("0-3,8\n", {0, 1, 2, 3, 8}), ("4-5,7-7", {4, 5, 7}), ("", set()), ("\n", set())],
)
def test_lists_of_cores_are_read_as_the_kernel_writes_them(text, wanted):
    assert near.parsed(text) == wanted


def test_of_the_near_cores_those_of_this_process_are_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 9})
    root = bus(tmp_path, "0-3")
    assert near.cores_near("0000:3b:00.0", root) == {2, 3}


@pytest.mark.parametrize("text", ["", "words", "100-120", "0-4095"], ids=["empty", "no list", "others'", "all"])
def test_where_nothing_is_gained_nothing_is_moved(tmp_path, text):
    assert near.cores_near("0000:3b:00.0", bus(tmp_path, text)) == frozenset()


def test_an_unknown_card_has_no_near_cores(tmp_path):
    assert near.cores_near("0000:3b:00.0", tmp_path) == frozenset()


def test_a_card_is_named_as_the_kernel_names_it(monkeypatch):
    card = SimpleNamespace(pci_domain_id=0, pci_bus_id=0x3B, pci_device_id=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    assert near.address(torch.device("cuda", 0)) == "0000:3b:00.0"


def test_a_thread_and_those_that_it_starts_stay_and_others_are_left(monkeypatch):
    seen, where = {}, frozenset(MINE[:1])

    def look(name):
        seen[name] = os.sched_getaffinity(0)

    def work():
        with near.staying(where):
            child = threading.Thread(target=look, args=("child",))
            child.start()
            child.join()
            look("inside")
        look("after")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    look("outside")
    assert seen["child"] == seen["inside"] == where and seen["after"] == seen["outside"] == set(MINE)


def test_decoding_threads_are_where_the_loader_says_and_the_loop_is_not():
    with loader(num_threads=2) as usual, loader(num_threads=2) as one:
        one._cores = frozenset(MINE[-1:])
        wanted, found, decode = rows(usual), set(), one._decoder.decode

        def looking(*arguments):
            found.add(frozenset(os.sched_getaffinity(0)))
            return decode(*arguments)

        one._decoder.decode = looking
        assert rows(one) == wanted
    assert found == {frozenset(MINE[-1:])} and os.sched_getaffinity(0) == set(MINE)
