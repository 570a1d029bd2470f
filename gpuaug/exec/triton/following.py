"""Which statistic of a step the step before it gathers while it writes: then nothing is read for it."""

from gpuaug import ir
from gpuaug.exec.triton.canonical import Pick, is_source, source_and_points
from gpuaug.exec.triton.marshal import most_channels
from gpuaug.exec.triton.statistics import kinds_by_number, split_at_mix, stages_with


def gathered_before(before: ir.Sequence, frame: ir.Frame, passes: ir.Sequence) -> tuple[str, ...]:
    """The kinds of the first statistic of a step, if the step before it can gather it; none where it can't.

    It can where the statistic is of what it writes, pixel by pixel: no mix and nothing that reads around a pixel stands
    before the statistic, and a pixel has as many channels in both steps.

    before: the passes of the step before; frame: of the images that it reads"""
    channels = ir.after(before, frame).channels
    if not most_channels(before, frame.channels) == channels == most_channels(passes, channels):
        return ()
    early = [q for p in split_at_mix(passes)[0] for q in source_and_points(p)]
    points = tuple(p for p in early if not is_source(p))
    numbers = kinds_by_number(points)
    if not numbers:
        return ()
    sources = [p for p in early if is_source(p)]
    if sources and not (isinstance(sources[0], Pick) and _reads_pixels(sources[0], stages_with(points, 0)[-1] == 0)):
        return ()
    return tuple(numbers[0])


def _reads_pixels(p: Pick, own: bool) -> bool:
    """Whether samples with a statistic are read pixel by pixel.  own: the statistic is in the choice of the sources"""
    followed = {source is not None for source, follows in zip(p.sources, p.statistic_follows, strict=True) if follows}
    # where the choice has none at all, the statistic is of a later stage and of whatever each sample read
    return own and followed == {False}
