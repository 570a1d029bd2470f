"""Where a run stands in the sequence of epochs, and the state that it goes on from: a few numbers, the same on every
rank.

The state counts samples of the global sequence, not batches, so another world or batch size can go on from it.
"""

from typing import Any, NamedTuple

from gpuaug import arguments, rng
from gpuaug.data.order import Order
from gpuaug.data.share import Share

# raised when the same seed no longer gives the same draws, or the same order
VERSIONS = {"draws_version": rng.VERSION, "order_version": 1}


class Position(NamedTuple):
    """So many samples of an epoch, on all ranks together, have been delivered."""

    epoch: int
    consumed: int


class Cursor:
    """Counts what was delivered, and says where the next pass through the data begins.

    That is where a loaded state says, or the beginning of the next epoch once a pass has delivered anything.
    """

    def __init__(self, seed: int, order: Order):
        self.seed, self.order = arguments.integer("seed", seed, 0, 2**64 - 1), order
        self._next = self._now = self._began = Position(0, 0)
        # the pass that counts: an older one that somebody still holds does not
        self._live: Pass | None = None
        # set_epoch has named the epoch of _next: it is meant even if nothing is left of it
        self._named = False

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass go through this epoch: from its beginning, or from where the present pass through it
        began."""
        epoch = arguments.integer("epoch", epoch, 0, rng.MAX_EPOCH - 1)
        if epoch != self._next.epoch:
            self._next = self._now = self._began = Position(epoch, 0)
            self._live = None
        self._named = True

    def begin(self, share: Share) -> "Pass":
        """A pass through what is left of an epoch."""
        length = self.order.length
        if share.steps(length) == 0:
            ranks = f"{share.world_size} rank{'s' if share.world_size > 1 else ''}"
            whole = (
                f"an epoch of {length} samples has no whole step of {share.step} ({ranks} with batches of "
                f"{share.batch_size})"
            )
            raise ValueError(f"{whole}; pass drop_last=False, or a smaller batch_size")
        start = self._next
        if not self._named:
            begun = self._live is not None and self._live.delivered
            if begun or share.steps(length - start.consumed) == 0:
                start = Position(start.epoch + 1, 0)
        arguments.integer("epoch", start.epoch, 0, rng.MAX_EPOCH - 1)
        self._next = self._now = self._began = start
        self._named = False
        self._live = Pass(self, start, share)
        return self._live

    def state(self, share: Share, batches: int | None = None) -> dict[str, Any]:
        """What to load to go on from here, or from after so many batches of the present pass."""
        at = self._live.at() if self._live is not None else self._now
        if batches is not None:
            left = share.steps(self.order.length - self._began.consumed)
            steps = arguments.integer("batches", batches, 0, left)
            at = (
                self._began
                if not steps
                else self._began._replace(consumed=share.after(self._began.consumed, steps, self.order.length))
            )
        return {**VERSIONS, "seed": self.seed, "epoch": at.epoch, "consumed": at.consumed, "data": self.order.about()}

    def load(self, state: dict[str, Any], strict: bool = True) -> None:
        """Go on from a state.  Streams and windows are taken from it; data or weights that differ are refused unless
        strict is False."""
        seed, at, about = unpack(state)
        order = self.order.adopt(about)
        if strict:
            compare(about, order.about())
        if at.consumed > order.length:
            if strict:
                raise ValueError(
                    f"the state counts {at.consumed} samples of an epoch that has {order.length}; pass "
                    "strict=False to begin the next epoch"
                )
            at = at._replace(consumed=order.length)
        self.seed, self.order = seed, order
        self._next = self._now = self._began = at
        self._live, self._named = None, False


class Pass:
    """One iteration."""

    def __init__(self, cursor: Cursor, start: Position, share: Share):
        self._cursor, self.start, self.share = cursor, start, share
        self.steps = share.steps(cursor.order.length - start.consumed)
        self.delivered = 0

    def deliver(self) -> None:
        """One more batch is in the user's hands."""
        self.delivered += 1

    def at(self) -> Position:
        """Where the last batch that was delivered ends."""
        if not self.delivered:
            return self.start
        length = self._cursor.order.length
        return self.start._replace(consumed=self.share.after(self.start.consumed, self.delivered, length))

    def end(self) -> None:
        """The user was told that there is no more."""
        cursor = self._cursor
        if cursor._live is self:
            cursor._next = cursor._now = Position(self.start.epoch + 1, 0)
            cursor._live, cursor._named = None, False

    def following(self) -> "Pass":
        """The pass through the next epoch by the same iteration, which counts where this one did."""
        cursor, live = self._cursor, self._cursor._live is self
        self.end()
        after = Pass(cursor, Position(self.start.epoch + 1, 0), self.share)
        if live:
            cursor._next = cursor._now = cursor._began = after.start
            cursor._live = after
        return after


def unpack(state: Any) -> tuple[int, Position, dict[str, Any]]:
    """Seed, position and what is said about the data, of a state that this version can read."""
    wanted = (*VERSIONS, "seed", "epoch", "consumed", "data")
    missing = [name for name in wanted if name not in state] if isinstance(state, dict) else wanted
    if missing:
        raise ValueError(
            f"the state of a sampler has {', '.join(map(repr, wanted))}; {missing[0]!r} is missing; pass what "
            "state_dict() gave"
        )
    for name, version in VERSIONS.items():
        if state[name] != version:
            raise ValueError(
                f"the state has {name} {state[name]!r}, and this gpuaug knows {version}; go on with the gpuaug "
                "that saved it"
            )
    seed = arguments.integer("the state's seed", state["seed"], 0, 2**64 - 1)
    epoch = arguments.integer("the state's epoch", state["epoch"], 0, rng.MAX_EPOCH - 1)
    consumed = arguments.integer("the state's consumed", state["consumed"], 0, rng.MAX_ID)
    if not isinstance(state["data"], dict):
        raise TypeError(f"the state's data must be a dict, got {state['data']!r}")
    return seed, Position(epoch, consumed), state["data"]


def compare(saved: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise ValueError where what a state says is not what is here, by name."""
    for name in [*saved, *(n for n in here if n not in saved)]:
        if saved.get(name) != here.get(name):
            changed = f"{name} was {saved.get(name)!r} when the state was saved, and is {here.get(name)!r} now"
            raise ValueError(
                f"{changed}: the rest of the epoch would be another; pass strict=False to go on all the same"
            )
