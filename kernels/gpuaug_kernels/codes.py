"""Every number that stands for something in more than one language, once, as plain integers: Triton (`constants`), the
compiled rows of the CPU executor and both interpreters of traces take it from here.

A chain, which one kernel runs, is a tuple of records of `RECORD` small integers each: Triton 3.6 takes neither strings
nor nested tuples.  Record 0 is the source and record 1 the mix; then come the stages before the mix, those after it,
and what choices point to.  The fields of a record, by its code:

    a source         code, border, whether there is a fill, or number of taps of a blur; column of the fill, the factor
                     or the weights in the floats; column in the integers; column in the doubles
    SWITCH           code, number of sources, first record of these, column of the index in the integers, 0: each sample
                     has one of several sources
    CUTMIX           code, 0, column of partner and box in the integers, 0, 0
    MIXUP            code, column of lam in the floats, column of the partner in the integers, 0, 0
    MIX_INSIDE       code, column of lam in the floats, column of partner and box in the integers, 0, 0
    AFFINE           code, column of the scales and column of the biases, both in the floats; whether to clamp; 0
    NORMALIZE        code, column of the means and column of 1 / std, both in the floats; 0, 0
    CONTRAST         code, column of the factor in the floats, channels, whether there is one channel, floats that a
                     statistic takes in a row; AUTOCONTRAST and EQUALIZE the same without a factor
    any other stage  code, column in the floats, column in the integers, flag, slot of its noise
    CHOICE           code, first column of its words in the integers, steps, first record of its branches, number of
                     branches: a word holds as many indices of `choice_bits` as fit 31, the first step's lowest
    a branch         first record, last record + 1, 0, 0, 0
"""


def _named(first: str, last: str) -> dict[str, int]:
    """The constants from one to another in the order of this file, by their names in lower case."""
    names = list(globals())
    return {n.lower(): globals()[n] for n in names[names.index(first) : names.index(last) + 1]}


def choice_bits(branches: int) -> int:
    """Bits of an index into branches, in the words of a CHOICE."""
    return 4 if branches <= 16 else 8 if branches <= 256 else 16


# integers a record
RECORD = 5
# rows and columns of the square of pixels that a program of the grid makes
TILE_BITS = 5
TILE = 1 << TILE_BITS
# a tap that weighs less than this, of the 1 that it can weigh, is left out: rounding left it of one that weighs 0
NOTHING = 2.0**-15
# what the least subnormal float32 is, and by how much weights are larger that multiply such
BYTE_UNIT = 2.0**-149
LIFT = 2.0**100
LIFTED = 1.0 / (LIFT * BYTE_UNIT)

# where a field lies in its record, by the kind of record; field 0 is the code
SOURCE_OPTION, SOURCE_FLOATS, SOURCE_INTEGERS, SOURCE_DOUBLES = range(1, 5)
SWITCH_COUNT, SWITCH_FIRST, SWITCH_INDEX = range(1, 4)
MIX_LAM, MIX_PARTNER = range(1, 3)
STAGE_FLOATS, STAGE_INTEGERS, STAGE_FLAG, STAGE_SLOT = range(1, 5)
STATISTIC_FLOATS, STATISTIC_CHANNELS, STATISTIC_MONO, STATISTIC_WIDTH = range(1, 5)
CHOICE_INDEX, CHOICE_STEPS, CHOICE_FIRST, CHOICE_COUNT = range(1, 5)
# a branch has no code
BRANCH_FIRST, BRANCH_LAST = range(2)

# ---- what a chain is made of
# sources
PIXEL, TRIANGLE, FLOOR, BILINEAR, NEAREST, SHARPEN, SWITCH, BLUR_ROWS, BLUR_COLUMNS, PROJECT = range(10)
# resamples whose weights are a cubic of a = -1/2, one of a = -3/4, and Lanczos's of three lobes
CATMULL_ROM, CUBIC, LANCZOS = range(10, 13)
SOURCES = _named("PIXEL", "LANCZOS")
RESAMPLES = (TRIANGLE, FLOOR, CATMULL_ROM, CUBIC, LANCZOS)
# what a resample reads beyond its source; "none": it never reads there
NONE, CONSTANT, EDGE, REFLECT, SYMMETRIC = range(5)
BORDERS = _named("NONE", "SYMMETRIC")
# mixes
ALONE, CUTMIX, MIXUP, MIX_INSIDE = range(4)
MIXES = _named("ALONE", "MIX_INSIDE")
# what moves pixels between mixes, where labels follow a chain of them: a tuple of records from the last pass to the
# first, each its code, the column of its numbers, the mixes that stand after it, and the half pixels that it adds
MOVED = 4
CHAIN_FIELDS = 4
CHAIN_COLUMN, CHAIN_BEHIND, CHAIN_HALVES = range(1, 4)
# stages
CHOICE, IDENTITY, AFFINE, NORMALIZE, SATURATION, CONTRAST, HUE, GRAY = range(8)
SOLARIZE, POSTERIZE, SALT_PEPPER, GAUSSIAN, ERASE, AUTOCONTRAST, EQUALIZE, PERMUTE, ADD_BELOW = range(8, 17)
STAGES = _named("CHOICE", "ADD_BELOW")
# how an image is read: value by value, by words of [H, W, 3] bytes, a pixel as four uint16, round(65535 x), or by words
# of three planes of bytes, [3, H, W]
EACH, WORDS, PIXELS16, PLANES = range(4)
# how an image is written: value by value; a pixel as four uint16; three channels that come last, a lane a value, or a
# lane two values of 16 bits, or four of 8
PLAIN, SHORTS, VALUES, HALVES, QUARTERS = range(5)
# kinds of statistic; 0 stands for none
MEAN, RANGE, HISTOGRAM = range(1, 4)
STATISTICS = _named("MEAN", "HISTOGRAM")

# the first columns of every row of integers: c2, c3 and the occurrence in its place in c1 of the Philox counter, the
# two words of its key; then elements in an input row.  The compiled rows have only the key, as uint32
KEY_C2, KEY_C3, KEY_OCCURRENCE, KEY_LOW, KEY_HIGH, PITCH = range(6)
KEY_LENGTH = PITCH

# ---- Philox: what the words of a counter are for, and where the fields of a counter begin
PARAMETERS, PIXELS, SAMPLER, MIX = range(4)
# c1: domain, occurrence, slot, from the highest bit to the lowest
SLOT_BITS, OCCURRENCE_BITS, DOMAIN_BITS = 16, 12, 4
OCCURRENCE_SHIFT, DOMAIN_SHIFT = SLOT_BITS, SLOT_BITS + OCCURRENCE_BITS
# c2: the lower half of the id; c3: the rest of it, and below that the epoch
EPOCH_BITS = 18
ID_BITS = 64 - EPOCH_BITS

# ---- traces
# integers an instruction
FIELDS = 5
# constants, and what is given of a sample
ICONST, DCONST, ID, OCCURRENCE, EPOCH, LOW, HIGH, HEIGHT, WIDTH, PARTNER = range(10)
# one word of a counter; the interpreters make all four at once
WORD = 10
# integers from integers
IADD, ISUB, IMUL, IAND, IOR, ISHL, ISHR, IDIV, IMIN, IMAX, ILT, ILE, IEQ, IWHERE = range(11, 25)
# floats from floats, the library's functions last
DADD, DSUB, DMUL, DDIV, DMIN, DMAX, DNEG, DABS, DSQRT, DFLOOR, DTRUNC, DROUND, SINGLE = range(25, 38)
DEXP, DLOG, DSIN, DCOS = range(38, 42)
# from both kinds, or from one to the other
DLT, DLE, DEQ, DWHERE, TO_INTEGER, TO_FLOAT = range(42, 48)
OPERATIONS = _named("ICONST", "TO_FLOAT")
# a store, by the dtype of the table
FLOAT32, INT32, FLOAT64, INT64 = range(48, 52)
DTYPES = _named("FLOAT32", "INT64")
