"""Tuples that kernels hand each other: their elements go by names, in the machine code they cost nothing.

Triton's cache of compiled kernels does not see the order of these fields, only the text of the kernels: whoever swaps
two fields must touch what makes or reads them too.  A tuple that is a compile-time constant is in the cache's key."""

from typing import Any, NamedTuple


class Tile(NamedTuple):
    """The pixels of the output that a program of the grid makes."""

    y: Any  # [TILE * TILE] int32, row by row: neighbouring lanes lie side by side whatever Triton's layout
    x: Any  # [TILE * TILE] int32
    width: Any  # of the output
    channel: Any  # the first that the program holds: 0 where it holds three
    top: Any  # the first y
    left: Any  # the first x


class Image(NamedTuple):
    """One sample's image in memory; strides in elements, or in pixels of four uint16 each."""

    data: Any  # pointer to its first value
    channel_stride: Any
    row_stride: Any
    column_stride: Any


class Row(NamedTuple):
    """What a stage reads and writes of one sample beside its pixels."""

    floats: Any  # [columns] float32, its parameters
    integers: Any  # [columns] int32, its parameters and keys
    statistics: Any  # [columns] float32
    cells: Any  # [columns] int64, in a launch that reduces a statistic
    mask: Any  # [TILE * TILE] bool: pixels of the tile that are in the image


class Axis(NamedTuple):
    """Positions of input along one side of a tile: step * (first + k) + shift, for its row or column k."""

    first: Any  # int32, of the tile, in the output
    step: Any  # float64
    shift: Any  # float64


class Line(NamedTuple):
    """A coordinate of an affine map over a tile."""

    base: Any  # int32, of the pixel before the position of the tile's first pixel
    beyond: Any  # float32: how far that lies beyond it, plus NOTHING and less a half
    along: Any  # float32: from a column to the next
    across: Any  # float32: from a row to the next


class Sums(NamedTuple):
    """Weighted sums of three channels, and of the weights."""

    r: Any
    g: Any
    b: Any
    weight: Any


class Sample(NamedTuple):
    """What is given of a block of samples when their parameters are drawn."""

    id: Any  # [BLOCK] int64
    occurrence: Any  # [BLOCK] int64
    epoch: Any  # [BLOCK] int64
    sizes: Any  # pointer to [N, 2] int64, height and width
    partners: Any  # pointer to [slots, N] int64, rows of the batch
    low: Any  # the low word of the seed
    high: Any  # the high word of the seed


class Buffers(NamedTuple):
    """Pointers to the columns of all tables of one dtype."""

    floats: Any  # float32
    ints: Any  # int32
    doubles: Any  # float64
    longs: Any  # int64


# ---- compile-time constants of the kernels


class Format(NamedTuple):
    """Of the images that a chain reads."""

    channels: int  # that a program of the grid holds: 3, or 1
    blocks: int  # of four channels in the image, for noise
    groups: int  # programs that share a pixel
    form: int  # how they are read: EACH to PLANES of codes.py
    aligned: int  # 1 where every row begins at a multiple of eight bytes
    column_stride: int  # 3, or 0 where it is not known when compiling
    places: int  # int64 that say where an image lies: its address, or that and two strides; 0 where all are one tensor


class Layout(NamedTuple):
    """Of the images that a chain writes; all 0 where it reduces a statistic."""

    channels: int = 0  # that a program of the grid writes: 3, or 1
    written: int = 0  # of the output
    last: int = 0  # 1 where channels come last
    form: int = 0  # how a tile is written: PLAIN to QUARTERS of codes.py


class Widths(NamedTuple):
    """Columns of the tables, that is elements of a sample's row."""

    floats: int
    integers: int
    doubles: int
    statistics: int
    cells: int


class Parts(NamedTuple):
    """Where the stages of a program end; they begin at record 2."""

    before: int  # the record after the last stage before the mix
    end: int  # the record after the last stage of all
    statistics: int  # the most that a sample has before the mix


class Following(NamedTuple):
    """Where the statistic begins and ends that a launch gathers of what it writes, for the launch after it."""

    end: int = 0  # the record after the last stage before it; 0 where there is none
    kind_column: int = -1  # in the integers, 0 where a sample has no such statistic; -1 where every one has it


class Kinds(NamedTuple):
    """Whether some sample may have a statistic of this kind: 0 or 1."""

    mean: int
    range: int
    histogram: int
