"""A line on stderr: how far an iteration is, how fast, and what holds it up."""

from time import monotonic
from typing import Any

# seconds between two looks of the line
_EVERY = 0.25


class Line:
    """One iteration's.  It is written by the loop itself, and starts no thread."""

    def __init__(self, batches: int, epoch: int):
        # imported where a line is asked for: most loops have their own
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._shown = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
        self._task = self._shown.add_task(f"epoch {epoch}", total=batches, text="")
        self._next = 0.0
        self._shown.start()

    def step(self, epoch: int, rate: float, bottleneck: str, bad: int) -> None:
        """The loop has one more batch."""
        text = f"{rate:,.0f} images/s, waits for {bottleneck}" + (f", {bad} bad" if bad else "")
        words: dict[str, Any] = {"text": text}
        self._shown.update(self._task, advance=1, description=f"epoch {epoch}", **words)
        if monotonic() >= self._next:
            self._shown.refresh()
            self._next = monotonic() + _EVERY

    def stop(self) -> None:
        """Leave the line as it is."""
        self._shown.refresh()
        self._shown.stop()
