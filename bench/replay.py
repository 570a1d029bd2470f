"""pytest-benchmark's clock in the bench: it shows times that are measured already."""

from collections.abc import Iterator


class Replay:
    """A clock that shows times already measured: contenders took turns then, which pytest-benchmark by itself does not
    let them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.left: Iterator[float] = iter(())

    def load(self, seconds: tuple[float, ...]) -> None:
        """The times to show."""
        self.left = iter(seconds)

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self) -> None:
        """One round passes."""
        self.now += next(self.left)


CLOCK = Replay()
