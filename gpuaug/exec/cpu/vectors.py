"""The two inner loops of a resample, written in vectors of 16 and 8 floats; LLVM cuts those to what the machine has.

Numba's own vectoriser takes the innermost loop only, with its sum in memory; here the sum over taps stays in registers.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
# output columns of a banded product: the fewer, the fewer input columns that only some of them need
BAND = 8
ROWS = 4  # output rows resampled together, so that weights are read once for all
_F32, _I64, _I32, _I8 = ir.FloatType(), ir.IntType(64), ir.IntType(32), ir.IntType(8)
_VEC, _BAND = ir.VectorType(_F32, LANES), ir.VectorType(_F32, BAND)
_FUSED = ("contract",)
_GRID = 12288.0  # floats about it are 2^-10 apart


@intrinsic
def float_bits(typingctx, value):
    """The bits of a float32 as int32."""
    return types.int32(types.float32), lambda context, builder, signature, args: builder.bitcast(args[0], _I32)


@intrinsic
def bits_float(typingctx, value):
    """The float32 of 32 bits."""
    return types.float32(types.int32), lambda context, builder, signature, args: builder.bitcast(args[0], _F32)


def _load(builder, address, kind, align):
    return builder.load(builder.inttoptr(address, ir.PointerType()), align=align, typ=kind)


def _store(builder, value, address, align=4):
    return builder.store(value, builder.inttoptr(address, ir.PointerType()), align=align)


def _splat(builder, value, kind=_VEC):
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    places = ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), places)


def _add_product(builder, total, a, b):
    """total += a * b, fused where the machine can.  total: a stack slot that LLVM turns into a register"""
    product = builder.fmul(a, b, flags=_FUSED)
    builder.store(builder.fadd(builder.load(total, typ=a.type), product, flags=_FUSED), total)


def _times(builder, value, factor):
    return builder.mul(value, ir.Constant(_I64, factor))


def _vertical(element, blocks):
    """Weighted sums of rows: out[i] = sum_k weight[k] * row_k[i] for `count` runs of 16 * blocks elements from `first`
    on.

    out, rows, weights are addresses, rows that of a list of addresses.
    """
    wide = ir.VectorType(element, LANES)
    size = 4 if element is _F32 else 1

    @intrinsic
    def run(typingctx, out, rows, weights, taps, first, count):
        def codegen(context, builder, signature, args):
            out, rows, weights, taps, first, count = args
            totals = [cgutils.alloca_once(builder, _VEC) for _ in range(blocks)]
            with cgutils.for_range(builder, count, intp=_I64) as outer:
                start = builder.add(first, _times(builder, outer.index, LANES * blocks))
                for total in totals:
                    builder.store(ir.Constant(_VEC, None), total)
                with cgutils.for_range(builder, taps, intp=_I64) as inner:
                    weight = _splat(
                        builder, _load(builder, builder.add(weights, _times(builder, inner.index, 4)), _F32, 4)
                    )
                    row = _load(builder, builder.add(rows, _times(builder, inner.index, 8)), _I64, 8)
                    at = builder.add(row, _times(builder, start, size))
                    for b, total in enumerate(totals):
                        pixels = _load(builder, builder.add(at, ir.Constant(_I64, b * LANES * size)), wide, size)
                        pixels = pixels if element is _F32 else builder.uitofp(pixels, _VEC)
                        _add_product(builder, total, weight, pixels)
                to = builder.add(out, _times(builder, start, 4))
                for b, total in enumerate(totals):
                    _store(builder, builder.load(total, typ=_VEC), builder.add(to, ir.Constant(_I64, b * LANES * 4)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return run


vertical_u8, vertical_f32 = _vertical(_I8, 4), _vertical(_F32, 4)
vertical_u8_one, vertical_f32_one = _vertical(_I8, 1), _vertical(_F32, 1)


def _band(channels, together):
    """A banded matrix product: BAND output columns at a time, each a weighted sum over a run of input columns, for ROWS
    rows and `channels`.

    Weights lie as [run, BAND]: each input value meets the weights of BAND outputs, so that nothing is gathered.  The
    sum is divided by `divisor`, rounded correctly: a byte over 255 is exact.  together: the channels of a pixel lie
    side by side, so that one register addresses them all"""

    @intrinsic
    def run(typingctx, out, out_row, out_channel, source, row, column, channel, runs, weights, groups, divisor):
        def codegen(context, builder, signature, args):
            out, out_row, out_channel, source, row, column, channel, runs, weights, groups, divisor = args
            channel = ir.Constant(_I64, 4) if together else channel
            totals = [[cgutils.alloca_once(builder, _BAND) for _ in range(channels)] for _ in range(ROWS)]
            by = _splat(builder, divisor, _BAND)
            inverse = builder.fdiv(ir.Constant(_BAND, [1.0] * BAND), by)
            bytes_ = builder.fcmp_ordered("!=", divisor, ir.Constant(_F32, 1.0))
            grid = builder.select(bytes_, ir.Constant(_BAND, [_GRID] * BAND), ir.Constant(_BAND, [0.0] * BAND))
            with cgutils.for_range(builder, groups, intp=_I64) as outer:
                # runs: [groups, 3] int64 (first input column, columns, first row of weights)
                about = builder.add(runs, _times(builder, outer.index, 24))
                first, count, begin = (
                    _load(builder, builder.add(about, ir.Constant(_I64, 8 * i)), _I64, 8) for i in range(3)
                )
                for slots in totals:
                    for slot in slots:
                        builder.store(ir.Constant(_BAND, None), slot)
                left = builder.add(source, builder.mul(first, column))
                table = builder.add(weights, _times(builder, begin, 4 * BAND))
                with cgutils.for_range(builder, count, intp=_I64) as inner:
                    weight = _load(builder, builder.add(table, _times(builder, inner.index, 4 * BAND)), _BAND, 4)
                    at = builder.add(left, builder.mul(inner.index, column))
                    for r in range(ROWS):
                        for c in range(channels):
                            place = builder.add(at, builder.add(_times(builder, row, r), _times(builder, channel, c)))
                            pixel = _splat(builder, _load(builder, place, _F32, 4), _BAND)
                            _add_product(builder, totals[r][c], weight, pixel)
                to = builder.add(out, _times(builder, outer.index, 4 * BAND))
                for r in range(ROWS):
                    for c in range(channels):
                        place = builder.add(
                            to, builder.add(_times(builder, out_row, r), _times(builder, out_channel, c))
                        )
                        # a sum of weighted bytes to a thousandth of a level: what is constant is a whole level again
                        total = builder.fsub(builder.fadd(builder.load(totals[r][c], typ=_BAND), grid), grid)
                        _store(builder, builder.select(bytes_, _divide(builder, total, by, inverse), total), place)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10, types.float32), codegen

    return run


def _divide(builder, value, by, inverse):
    """value / by with one correction, which makes it exact where a multiply-add is fused."""
    quotient = builder.fmul(value, inverse)
    rest = builder.fsub(value, builder.fmul(quotient, by, flags=_FUSED), flags=_FUSED)
    return builder.fadd(quotient, builder.fmul(rest, inverse, flags=_FUSED), flags=_FUSED)


band_1, band_3, band_pixels = _band(1, False), _band(3, False), _band(3, True)


@intrinsic
def stream(typingctx, to, source, runs):
    """Copy `runs` times 16 floats past the caches, to an address that is a multiple of 64: a line that is written whole
    is not read first."""

    def codegen(context, builder, signature, args):
        to, source, runs = args
        mark = builder.module.add_metadata([ir.Constant(_I32, 1)])
        with cgutils.for_range(builder, runs, intp=_I64) as loop:
            place = _times(builder, loop.index, 4 * LANES)
            pixels = _load(builder, builder.add(source, place), _VEC, 4)
            _store(builder, pixels, builder.add(to, place), 4 * LANES).set_metadata("nontemporal", mark)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


@intrinsic
def settle_streams(typingctx):
    """Let whoever is told next see what was streamed."""

    def codegen(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen
