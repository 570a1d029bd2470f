"""Pixels on their way to a card, played through without one: whatever is late, every batch is what a host makes, and
every thread of the loader speaks to its own card."""

from types import SimpleNamespace
from typing import Any

import loading
import pytest
import torch
from loading import within
from streams import Card, Host

from gpuaug.batch import Batch
from gpuaug.data import child, device
from gpuaug.data import loader as loaders
from gpuaug.data.child import ChildFeed, packed
from gpuaug.data.meter import Meter

ON_CARD = torch.device("cuda", 1)
SIDE = 4


@pytest.fixture(params=[(seed, late) for seed, late in enumerate((1.0, 1.0, 0.9, 0.5, 0.2, 0.0))], ids=str)
def card(request, monkeypatch):
    made = Card(ON_CARD.index, *request.param)
    for module in (device, child):
        monkeypatch.setattr(module, "torch", made)
    # ids and labels are not what is looked at here
    monkeypatch.setattr(device, "put", lambda values, there: values)
    monkeypatch.setattr(loaders, "address", lambda there: "")
    monkeypatch.setattr(loaders, "cores_near", lambda where: frozenset())
    return made


def corners(images: Any) -> torch.Tensor:
    """What is read of a batch: [N, 3, SIDE, SIDE]."""
    return torch.stack([i.as_subclass(torch.Tensor)[:SIDE, :SIDE].permute(2, 0, 1) for i in images.images])


def kernel(batch: Batch) -> Batch:
    """A policy whose kernel reads the pixels when its stream comes to it."""
    out, images = torch.zeros(len(batch.ids), 3, SIDE, SIDE, dtype=torch.uint8), batch.images
    if isinstance(device.torch, Card):
        device.torch.current().ask(lambda: out.copy_(corners(images)))
    else:
        out.copy_(corners(images))
    return batch.replace(images=out)


def epochs(there: Any, count: int = 2, left_early: int | None = None) -> list[torch.Tensor]:
    """The images of all batches.  left_early: an iteration before, of so many batches"""
    with loading.loader(its_policy=kernel, device=there, prefetch=2) as made:
        found = []
        if left_early is not None:
            batches = iter(made)
            for _ in range(left_early):
                found.append(next(batches).images)
            batches.close()
        for epoch in range(count):
            made.set_epoch(epoch)
            found += [b.images for b in made]
    return found


@pytest.mark.parametrize("left_early", [None, 3])
def test_every_batch_is_a_hosts_whatever_is_late(card, monkeypatch, left_early):
    with within(120):
        got = epochs(ON_CARD, left_early=left_early)
        card.synchronize()
        monkeypatch.undo()
        want = epochs("cpu", left_early=left_early)
    assert len(got) == len(want) > 12 and sum(int(w.sum()) for w in want) > 0, "vacuous"
    for number, (a, b) in enumerate(zip(got, want, strict=True)):
        assert torch.equal(a, b), f"batch {number}"


def test_every_thread_of_the_loader_has_its_own_card_as_the_current_one(card):
    with within(60):
        epochs(ON_CARD)
    assert not card.strays, "a thread that speaks to a card from another one makes a context there"


def test_the_model_sees_a_place_that_is_used_again_too_early(card, monkeypatch):
    """What the tests above rest on: without the event of the loop, pixels are those of later batches."""
    if card._late < 1.0:
        return
    monkeypatch.setattr(device, "handed", lambda made, there: None)
    monkeypatch.setattr("gpuaug.data.batches.handed", lambda made, there: None)
    with within(60):
        got = epochs(ON_CARD)
        card.synchronize()
        monkeypatch.undo()
        want = epochs("cpu")
    assert not all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


class Served:
    """A child without a process: makes a batch whenever it is asked and has memory for it."""

    def __init__(self, batches: list[Any], places: int):
        self._left, self._free, self._theirs = list(batches), list(range(places)), {}
        self.memory: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.ended = False

    def send(self, *message: Any) -> None:
        """What the loop says."""
        if message[0] == "free":
            assert message[1] not in self._free, "memory is given back twice"
            self._free.append(message[1])
        self.ended |= message[0] == "end"

    def receive(self, timeout: float) -> Any:
        """The next batch; it writes into memory that was given back, at once."""
        if self.ended:
            return ("ended",)
        if not self._left:
            return ("last",)
        if not self._free:
            return None
        message = packed(self._left.pop(0), self._free.pop(0), self._theirs)
        if "memory" in message:
            message["memory"] = message["memory"].as_subclass(Host)
        return "batch", message, {}, {}, {}, 0


def feed_of(made: Served, places: int, given: list[Any]) -> ChildFeed:
    """The loop's side of a child.  given: whether it ended well, when it is given back"""
    children: Any = SimpleNamespace(take=lambda: made, give=lambda one, well: given.append(well))
    return ChildFeed(None, children, places - 1, Meter(), ON_CARD)  # type: ignore[arg-type]


def test_memory_of_a_child_is_used_again_when_the_card_has_read_it(card):
    from test_loader_device import batch

    places, count = 3, 12
    sizes = [[(5 + number % 4, 4), (6, 7 + number % 3)] for number in range(count)]
    made = Served([batch(number, s) for number, s in enumerate(sizes)], places)
    given: list[Any] = []
    feed = feed_of(made, places, given)
    got: list[torch.Tensor] = []
    with within(60):
        while (one := feed.first()) is not None:
            images = device.received(one, ON_CARD)
            out = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8)
            card.current().ask(lambda out=out, images=images: out.copy_(corners(images)))
            got.append(out)
            feed.advance(one, device.handed(one, ON_CARD))
        feed.stop(5.0)
        card.synchronize()
    assert given == [True] and len(got) == count
    for number, out in enumerate(got):
        assert torch.equal(out, corners(batch(number, sizes[number]).images)), number
    assert set(card.registered) == {p.data_ptr() for p in made.pinned.values()}


def test_a_child_goes_on_when_no_copy_reads_its_memory_any_more(card):
    """A batch that nobody took is on its way still."""
    from test_loader_device import batch

    made = Served([batch(k, [(6, 7), (5, 5)]) for k in range(4)], 3)
    feed = feed_of(made, 3, [])
    with within(60):
        one = feed.first()
        feed.advance(one, device.handed(one, ON_CARD))
        assert feed.first() is not None
        made.send = lambda *message: asked.append((message[0], one_way(card)))  # type: ignore[method-assign]
        asked: list[tuple[str, int]] = []
        made.ended = True
        feed.stop(5.0)
    assert [left for what, left in asked if what == "end"] == [0]


def one_way(card: Card) -> int:
    """Tasks of the streams that copy to the card."""
    return sum(len(s.tasks) for s in card._streams if s is not card.current())
