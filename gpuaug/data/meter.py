"""Where a loader's time goes: seconds by stage, counts, and which stage holds up the rest."""

from collections import defaultdict
from threading import RLock
from time import perf_counter
from typing import Any

# a loop that waits for less than this part of its time is itself what holds up the rest
_FREE = 0.1
STAGES = ("reading", "decoding", "augmenting")


class Meter:
    """Counts of one loader; several threads add to it."""

    def __init__(self) -> None:
        # an iteration may be collected, and its pass ended, while this thread holds it
        self._lock = RLock()
        self._pass = 0
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        self._seconds: defaultdict[str, float] = defaultdict(float)
        # what a source in another process has counted
        self.outside: dict[str, int] = {}
        self.images = self.batches = 0
        self._began, self._ended = 0.0, 0.0

    def add(self, stage: str, seconds: float) -> None:
        """Time that was spent in a stage."""
        with self._lock:
            self._seconds[stage] += seconds

    def taken(self) -> dict[str, float]:
        """The times by stage, which begin again."""
        with self._lock:
            seconds, self._seconds = self._seconds, defaultdict(float)
        return dict(seconds)

    def begun(self) -> int:
        """A pass begins, whatever became of the one before; its number, for `paused`."""
        with self._lock:
            self._pause()
            self._pass += 1
            return self._pass

    def asked(self) -> None:
        """The loop wants a batch."""
        now = perf_counter()
        with self._lock:
            if self._ended:
                self._seconds["loop"] += now - self._ended
            elif not self._began:
                self._began = now

    def raised(self) -> None:
        """The loop has an error instead."""
        with self._lock:
            self._ended = perf_counter()

    def delivered(self, images: int) -> None:
        """The loop has one."""
        with self._lock:
            self.images, self.batches = self.images + images, self.batches + 1
            self._ended = perf_counter()

    def paused(self, number: int) -> None:
        """A pass is over, or the loop has left it: the time from its last batch until the next pass is not counted.
        Nothing where another has begun since."""
        with self._lock:
            if number == self._pass:
                self._pause()

    def _pause(self) -> None:
        if self._ended:
            self._seconds["before"] += self._ended - self._began
        self._began = self._ended = 0.0

    def bottleneck(self) -> str:
        """What the others wait for: "reading", "decoding", "augmenting" or "the loop"."""
        s = self._seconds
        there = s["waiting"] + s["augmenting"] + s["loop"]
        if not self.batches or not there:
            return "nothing yet"
        if s["waiting"] > _FREE * there:
            return "reading" if s["starving"] > s["decoding"] else "decoding"
        return "augmenting" if s["augmenting"] > s["loop"] else "the loop"

    def report(self) -> dict[str, Any]:
        """Rates since the beginning, and the parts of the time: a stage's are of the whole time, in which stages
        overlap."""
        with self._lock:
            seconds = self._seconds["before"] + (self._ended - self._began if self._ended else 0.0)
            parts = {name: self._seconds[name] for name in (*STAGES, "waiting", "loop")}
        return {
            "images": self.images,
            "batches": self.batches,
            "seconds": round(seconds, 3),
            "images_per_second": round(self.images / seconds, 1) if seconds else 0.0,
            "bottleneck": self.bottleneck(),
            "busy": {name: round(value / seconds, 3) if seconds else 0.0 for name, value in parts.items()},
        }
