"""The way of decoded images to a GPU, played through without one: streams and events that only count."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gpuaug.data import decode_dali, device
from gpuaug.data.course import Step
from gpuaug.data.making import Made
from gpuaug.images import Ragged


class Event:
    """Counts who waited for it."""

    def __init__(self) -> None:
        self.recorded: Any = None
        self.waits = 0

    def record(self, stream: Any) -> None:
        self.recorded = stream

    def synchronize(self) -> None:
        assert self.recorded is not None, "waits for what was never asked for"
        self.waits += 1


class NoCard:
    """torch, with the host's memory in the place of a card's."""

    def __init__(self) -> None:
        self.loop = SimpleNamespace(waited=[])
        self.loop.wait_event = self.loop.waited.append
        self.cuda = SimpleNamespace(
            Stream=lambda _: SimpleNamespace(),
            Event=Event,
            stream=lambda _: nullcontext(),
            device=lambda _: nullcontext(),
            current_stream=lambda _: self.loop,
        )

    def empty(self, size: int, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        return torch.empty(size, **{**options, "device": "cpu"})

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@pytest.fixture
def card(monkeypatch):
    made = NoCard()
    monkeypatch.setattr(device, "torch", made)
    return made


def batch(number: int, sizes: list[tuple[int, int]]) -> Made:
    images = [torch.full((h, w, 3), (number * 7 + k) % 256, dtype=torch.uint8) for k, (h, w) in enumerate(sizes)]
    ids = np.arange(len(images))
    return Made(Step(number, 0, ids, ids * 0, ids >= 0), Ragged.of(tuple(images)))


def test_a_ring_carries_every_batch_and_uses_a_place_again_when_the_loop_has_done_with_it(card):
    places = 3
    carrier, given, pointers, last = device.Carrier(torch.device("cuda", 0), places), [], set(), None
    for number in range(12):
        made = batch(number, [(5, 4), (3, 6), (2 + number % 3, 2)])
        expected = [i.clone() for i in made.images.images]
        carrier(made)
        pointers.add(made.images.images[0].data_ptr())
        images = device.received(made, torch.device("cuda", 0))
        assert card.loop.waited[-1] is made.ready and made.ready.recorded is not None
        assert all(torch.equal(a, b) for a, b in zip(images.images, expected, strict=True))
        if number >= places:
            assert given[number - places].waits == 1, "a place was used again before the loop had done with it"
        done = device.handed(made, torch.device("cuda", 0))
        assert done.recorded is card.loop and done is not last and not done.waits
        given.append(done)
        last = done
    assert len(pointers) == places, "buffers are made anew"


def test_a_larger_batch_gets_a_larger_place_and_windows_travel(card):
    carrier = device.Carrier(torch.device("cuda", 0), 1)
    for number, side in enumerate((2, 40, 3)):
        made = batch(number, [(side, side)] * 2)
        full, windows = np.array([[50, 60]] * 2), np.array([[1, 2, side, side]] * 2)
        made.images = Ragged.of(made.images.images, full, windows)
        expected = [i.clone() for i in made.images.images]
        carrier(made)
        assert (made.images.windows == windows).all() and made.images.shapes[0] == (50, 60, 3)
        assert all(torch.equal(a, b) for a, b in zip(made.images.images, expected, strict=True))
        device.handed(made, torch.device("cuda", 0))


def test_rings_belong_to_the_loader_and_are_lent_to_iterations(card):
    rings = device.Carriers(torch.device("cuda", 0), torch.device("cpu"), prefetch=2)
    with rings.lent() as first:
        with rings.lent() as second:
            assert first is not None and second is not None and first is not second
    with rings.lent() as again:
        assert again is first or again is second, "a stream and its buffers for every iteration"
    with device.Carriers(torch.device("cuda", 0), torch.device("cuda", 0), 2).lent() as none:
        assert none is None
    with device.Carriers(torch.device("cpu"), torch.device("cpu"), 2).lent() as none:
        assert none is None


def test_images_that_nobody_augments_get_memory_of_their_own():
    images = batch(0, [(4, 5), (6, 7)]).images
    mine = device.own(images)
    for a, b in zip(mine.images, images.images, strict=True):
        assert torch.equal(a, b) and a.data_ptr() != b.data_ptr()


def test_what_dali_has_decoded_on_a_card_stays_there(monkeypatch):
    """Older versions of torch copy what has a `__cuda_array_interface__` to the host, unless a device is named."""
    shapes, asked = [(3, 4, 3), (2, 5, 3)], []
    memory = torch.arange(sum(h * w * c for h, w, c in shapes), dtype=torch.uint8)

    class Images(list):
        def data_ptr(self) -> int:
            return self[0].data_ptr()

    parts = memory.split([h * w * c for h, w, c in shapes])
    images = Images(
        SimpleNamespace(data_ptr=part.data_ptr, shape=lambda shape=shape: shape)
        for part, shape in zip(parts, shapes, strict=True)
    )

    def as_tensor(given: Any, device: Any = None) -> torch.Tensor:
        assert given.__cuda_array_interface__["data"] == (memory.data_ptr(), False)
        asked.append(device)
        return memory

    monkeypatch.setattr(decode_dali, "torch", SimpleNamespace(as_tensor=as_tensor))
    pipe = object.__new__(decode_dali.Pipe)
    pipe._cuda, pipe._device = True, torch.device("cuda", 1)
    made = pipe._views(images, np.array([[0, 0, h, w] for h, w, _ in shapes]), None)
    assert asked == [torch.device("cuda", 1)]
    assert [tuple(i.shape) for i in made] == shapes and made[1].flatten().tolist() == parts[1].tolist()


def test_auto_is_the_cpu_where_there_is_no_card_and_of_its_rank_where_there_are_some(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.place("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for rank, index in (("0", 0), ("3", 3), ("5", 1)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert device.place("auto") == torch.device("cuda", index)
    assert device.place("cuda:2") == torch.device("cuda", 2)
    with pytest.raises(ValueError, match="4 GPUs"):
        device.place("cuda:7")
