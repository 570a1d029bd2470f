"""How passes lie in memory for the compiled rows: the numbers of the instructions, and what stands where in an
instruction and in the rows of parameters that it points to.

An instruction is `LENGTH` int64.  Stages have the numbers of `gpuaug_kernels.codes`.  A CHOICE is followed by one JUMP
for each branch, and a branch ends with RETURN."""

from gpuaug_kernels import codes

# ---- instructions beside the stages
HALT, RETURN, JUMP = range(len(codes.STAGES), len(codes.STAGES) + 3)
# these read other places than their own pixel: they make the rows that stages work on.  No other number is as large;
# where the kernels have two sources, which one it is stands in the instruction
PRODUCERS, MIXES = 32, 64
RESAMPLE, WARP, SHARPNESS = PRODUCERS + codes.TRIANGLE, PRODUCERS + codes.BILINEAR, PRODUCERS + codes.SHARPEN
BLUR, PROJECT = PRODUCERS + codes.BLUR_ROWS, PRODUCERS + codes.PROJECT
CUTMIX, MIXUP, MIX_INSIDE = MIXES + codes.CUTMIX, MIXES + codes.MIXUP, MIXES + codes.MIX_INSIDE

# ---- fields of an instruction: its code, its first column in each table of parameters and its first constant, how many
# there are of what it has several of, a flag, two more, and the slot of its noise
OP, FLOAT_COLUMN, INT_COLUMN, DOUBLE_COLUMN, CONSTANT, COUNT, FLAG, A, B, SLOT = range(10)
LENGTH = 10
# what they hold in one instruction or another, where that is not their own name
FILLS = COUNT  # RESAMPLE, WARP, PROJECT: values of the fill, which are constants; 0 without one
IS_COPY, BORDER = FLAG, A  # RESAMPLE: whether each pixel is one of the source, and the code of what lies beyond it
FILTER, IS_CLAMPED = B, SLOT  # RESAMPLE: what weighs its taps, by the kernels' code, and whether to clamp what it makes
IS_NEAREST = FLAG  # WARP
MADE_HEIGHT, MADE_WIDTH = A, B  # WARP, PROJECT
TAPS_X, TAPS_Y = A, B  # BLUR
# AFFINE: COUNT scales in the floats, and as many biases as B says from column A on
BIAS_COLUMN, BIAS_COUNT = A, B
CLAMPS = FLAG  # AFFINE, GAUSSIAN
# NORMALIZE: COUNT scales 1 / std among the constants, and after them as many biases -mean / std
SECOND_COLUMN = A  # SALT_PEPPER: of the amounts; GAUSSIAN: of the sigmas; ADD_BELOW: of the thresholds
PER_CHANNEL = FLAG  # SALT_PEPPER: whether each channel has a word of its own
BRANCHES, STEPS = COUNT, FLAG  # CHOICE, of whose index INT_COLUMN is the first column
NEXT = A  # CHOICE: the instruction after its branches; JUMP: the first of its branch

# ---- rows of parameters, from the column on that the instruction names
# a rectangle: the far edges do not belong to it
LEFT, TOP, RIGHT, BOTTOM = range(4)
# RESAMPLE, integers: three rectangles, and the size of what comes out
WINDOW, INSIDE, LIVE, OUT_HEIGHT, OUT_WIDTH, RESAMPLE_INTS = 0, 4, 8, 12, 13, 14
# RESAMPLE, doubles: input x = STEP_XX * x + STEP_XY * y + OFFSET_X, and y the same; and how far a tap reaches
STEP_XX, STEP_XY, OFFSET_X, STEP_YX, STEP_YY, OFFSET_Y, FOOTPRINT_X, FOOTPRINT_Y = range(8)
# PROJECT, doubles: a matrix, and after it how far a tap reaches
MATRIX = 9
PROJECT_FOOTPRINT_X, PROJECT_FOOTPRINT_Y = MATRIX, MATRIX + 1
# BLUR, floats
SIGMA_X, SIGMA_Y = range(2)
# CUTMIX, MIXUP and MIX_INSIDE, integers; but for MIXUP the rectangle too
PARTNER, BOX = range(2)

# ---- an image: where it lies, its size, and bytes from one row, column and channel to the next
IMAGE_ADDRESS, IMAGE_HEIGHT, IMAGE_WIDTH, IMAGE_ROW, IMAGE_COLUMN, IMAGE_CHANNEL = range(6)
IMAGE_LENGTH = 6
