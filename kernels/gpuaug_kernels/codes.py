"""The vocabulary of a chain: a program is a tuple of records of five small integers, for Triton 3.6 takes neither
strings nor nested tuples.

Record 0 is the source, record 1 the mix, then come the stages before the mix, those after it, and what choices point
to.

    source   kind, extend or whether there is a fill or taps of a blur, column of the fill or of the factor or the weights, column in the integers,
             column in the doubles
    SWITCH   number of sources, first record of these, column of the index in the integers: each sample has one of several sources
    mix      code, column of lam in the floats, column of partner and box in the integers
    stage    code, column in the floats, column in the integers, flag, slot of its noise
    and of those with a statistic: code, column in the floats, channels, flag, room of a statistic in a row
    CHOICE   code, column of the index in the integers, steps, first record of its branches, number of branches
    branch   first record, last record + 1
"""

import triton.language as tl

RECORD = tl.constexpr(5)
# a tap that weighs less, of the 1 that it can, weighs nothing (gpuaug.ir.NOTHING), and is not multiplied
NOTHING = tl.constexpr(2.0**-15)

# sources
PIXEL, TRIANGLE, FLOOR, BILINEAR, NEAREST, SHARPEN, SWITCH, BLUR_ROWS, BLUR_COLUMNS, PROJECT = (
    tl.constexpr(i) for i in range(10)
)
# what a resample reads beyond its source
NONE, CONSTANT, EDGE, REFLECT, SYMMETRIC = (tl.constexpr(i) for i in range(5))
# mixes
ALONE, CUTMIX, MIXUP = (tl.constexpr(i) for i in range(3))
# stages
CHOICE, IDENTITY, AFFINE, NORMALIZE, SATURATION, CONTRAST, HUE = (tl.constexpr(i) for i in range(7))
GRAY, SOLARIZE, POSTERIZE, SALT_PEPPER, GAUSSIAN, ERASE, AUTOCONTRAST, EQUALIZE = (
    tl.constexpr(i) for i in range(7, 15)
)
# what a sample meets as a statistic; 0 is nothing
MEAN, RANGE, HISTOGRAM = (tl.constexpr(i) for i in range(1, 4))

# the first columns of every row of integers: c2, c3 and occurrence << 16 of the Philox counter, the two words of its
# key, elements in an input row
KEY_C2, KEY_C3, KEY_OCCURRENCE, KEY_LOW, KEY_HIGH, PITCH = (tl.constexpr(i) for i in range(6))
# bits above which Philox's second counter word names what the words are for, and the name of pixel noise
DOMAIN = tl.constexpr(1 << 28)
