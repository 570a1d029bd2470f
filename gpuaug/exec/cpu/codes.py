"""The instructions of a compiled plan: rows of `WIDTH` int64.

    0 code   1 F: column in floats   2 I: column in ints   3 D: column in doubles   4 K: place in consts   5 count   6 flag   7, 8, 9 more

A CHOICE (I: column of its indices, count: branches, flag: steps, 7: where the plan goes on) is followed by one JUMP per
branch (7: where it starts); a branch ends with RETURN."""

WIDTH = 10
HALT, RETURN, JUMP, CHOICE = 0, 1, 2, 3
# these read other places than their own pixel
RESAMPLE, WARP, SHARPNESS, BLUR, CUTMIX, MIXUP, PROJECT = 4, 5, 6, 7, 8, 9, 10
# these work on a row in place
AFFINE, NORMALIZE, SATURATION, CONTRAST, HUE, GRAY, SOLARIZE, POSTERIZE = 11, 12, 13, 14, 15, 16, 17, 18
AUTOCONTRAST, EQUALIZE, SALT_PEPPER, GAUSSIAN, ERASE = 19, 20, 21, 22, 23
