"""Memory by address: what a sample needs is one table of integers, whose address is all that the compiled
functions hand on.

Arrays of Numba carry seven fields and a reference count each; handing thirty of them to every row costs more than the
row."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from gpuaug.exec.cpu import layout

_POINTER, _I64 = ir.PointerType(), ir.IntType(64)


def _array(element):
    @intrinsic
    def array(typingctx, address, length):
        """An array that lies at an address.  It owns nothing."""
        made, size = types.Array(element, 1, "C"), element.bitwidth // 8

        def codegen(context, builder, signature, args):
            out = context.make_array(made)(context, builder)
            data = builder.inttoptr(args[0], out.data.type)
            populate_array(out, data, (args[1],), (ir.IntType(64)(size),), ir.IntType(64)(size), None)
            return out._getvalue()

        return made(types.int64, types.int64), codegen

    return array


def _load(element):
    @intrinsic
    def load(typingctx, address):
        def codegen(context, builder, signature, args):
            kind = context.get_value_type(element)
            return builder.load(builder.inttoptr(args[0], _POINTER), align=element.bitwidth // 8, typ=kind)

        return element(types.int64), codegen

    return load


def _store(element):
    @intrinsic
    def store(typingctx, address, value):
        def codegen(context, builder, signature, args):
            builder.store(args[1], builder.inttoptr(args[0], _POINTER), align=element.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(types.int64, element), codegen

    return store


floats, doubles, longs, words, bytes_ = (
    _array(e) for e in (types.float32, types.float64, types.int64, types.uint32, types.uint8)
)
load_float, load_double, load_long, load_byte = (
    _load(e) for e in (types.float32, types.float64, types.int64, types.uint8)
)
store_long, store_double, store_float, store_byte = (
    _store(e) for e in (types.int64, types.float64, types.float32, types.uint8)
)


def _field(element):
    @intrinsic
    def field(typingctx, address, place):
        """A number by its place in a row of them at an address."""

        def codegen(context, builder, signature, args):
            at = builder.add(args[0], builder.mul(args[1], ir.Constant(_I64, element.bitwidth // 8)))
            kind = context.get_value_type(element)
            return builder.load(builder.inttoptr(at, _POINTER), align=element.bitwidth // 8, typ=kind)

        return element(types.int64, types.int64), codegen

    return field


field, double_field, float_field = _field(types.int64), _field(types.float64), _field(types.float32)


def _parameters(slot, column, size):
    @intrinsic
    def parameters(typingctx, t, code):
        """The address of the parameters of the instruction at `code`: of the sample at work, or constants."""

        def codegen(context, builder, signature, args):
            def load(address, place):
                at = builder.add(address, ir.Constant(_I64, 8 * place))
                return builder.load(builder.inttoptr(at, _POINTER), align=8, typ=_I64)

            return builder.add(load(args[0], slot), builder.mul(load(args[1], column), ir.Constant(_I64, size)))

        return types.int64(types.int64, types.int64), codegen

    return parameters


def _copy(size):
    @intrinsic
    def copy(typingctx, to, source, count):
        """Copy numbers of `size` bytes between addresses; the two may be the same."""

        def codegen(context, builder, signature, args):
            to, source = (builder.inttoptr(a, _POINTER) for a in args[:2])
            length = builder.mul(args[2], ir.Constant(_I64, size))
            kind = ir.FunctionType(ir.VoidType(), [_POINTER, _POINTER, _I64, ir.IntType(1)])
            move = builder.module.declare_intrinsic("llvm.memmove", [_POINTER, _POINTER, _I64], kind)
            builder.call(move, [to, source, length, ir.Constant(ir.IntType(1), 0)])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    return copy


copy_floats, copy_bytes = _copy(4), _copy(1)


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line at an address, which need not be one that can be read."""

    def codegen(context, builder, signature, args):
        kinds = [_POINTER, *[ir.IntType(32)] * 3]
        ask = builder.module.declare_intrinsic("llvm.prefetch", [_POINTER], ir.FunctionType(ir.VoidType(), kinds))
        # to read, to be kept in all caches, data
        more = [ir.Constant(ir.IntType(32), v) for v in (0, 3, 1)]
        builder.call(ask, [builder.inttoptr(args[0], _POINTER), *more])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


# ---- the table: what the host fills in: the plan and its parameters,
CODE, ROWS_OF_CODE, CONSTS, INTS, INT_BYTES, FLOATS, FLOAT_BYTES, DOUBLES, DOUBLE_BYTES = range(9)
# the images: rows of `layout`, bytes from one sample's row to the next, and bytes that each sample's pixels lie after
# those of the one before where samples share a row; whether bytes
SOURCES, SOURCE_ROW, SOURCE_SAMPLE, SOURCE_KIND = range(9, 13)
# what the keys of samples are made of: the address of their ids and of their occurrences, and numbers
IDS, OCCURRENCES, EPOCH, SEED_LOW, SEED_HIGH = range(13, 18)
CHANNELS, MOST_CHANNELS, LONGEST = range(18, 21)
TARGET, TARGET_SAMPLE, TARGET_CHANNEL, TARGET_ROW, TARGET_COLUMN, TARGET_KIND = range(21, 27)
GIVEN = range(27)
# how many samples there are, and the next that a thread takes, which is 0 at first
SAMPLES, NEXT_SAMPLE = range(27, 29)
# what TARGET_KIND says goes out: floats, bytes, or floats past the caches, which could not hold them all
FLOAT_OUT, BYTE_OUT, STREAMED_OUT = range(3)
# the sample at work: its parameters, and the image as it stands: address, size, strides in bytes of row, column and
# channel, whether bytes, and which buffer (0: none, it is the source)
INT_ROW, FLOAT_ROW, DOUBLE_ROW, ADDRESS, HEIGHT, WIDTH, ROW, COLUMN, CHANNEL, BYTES, BUFFER = range(29, 40)
# a resample at work: window, source and live rectangle (as in `layout`), how pixels lie, columns that are read, whether
# columns are mapped, and the address of its doubles
X0, Y0, X1, Y1, SX0, SY0, SX1, SY1, LX0, LY0, LX1, LY1, LAYOUT, FIRST, LAST, MAPPED, PLACE = range(40, 57)
# a move at work: the columns of the output that follow one another in the source, where in a row of it the first one
# is, and bytes from each to the next
RUN_FIRST, RUN_LAST, RUN_START, RUN_STEP = range(57, 61)
# a number of the workspace, and addresses in that of the thread
SCRATCH_LONG = 61
BUFFER_A, BUFFER_B, TILE, MIDDLE, WIDE, RUNS, WEIGHTS, SCRATCH, ROW_WEIGHTS, ADDRESSES, KEY = range(62, 73)
PX, PY, AT, FX, FY, SHARE, NOISE, COSINE, SINE, SUM, LOW, HIGH, COUNTS, TABLES, ORDER, STACK, BLURRED, SLOTS = range(
    73, 91
)


@intrinsic
def take_next(typingctx, address):
    """The number at an address, which becomes one more, whatever other threads do meanwhile."""

    def codegen(context, builder, signature, args):
        place = builder.inttoptr(args[0], _POINTER)
        return builder.atomic_rmw("add", place, ir.Constant(_I64, 1), "monotonic")

    return types.int64(types.int64), codegen


# not functions that are inlined: there are hundreds of calls, each of which Numba would compile anew
get = field
ints_of = _parameters(INT_ROW, layout.INT_COLUMN, 8)
floats_of, second_floats_of = (_parameters(FLOAT_ROW, c, 4) for c in (layout.FLOAT_COLUMN, layout.A))
doubles_of = _parameters(DOUBLE_ROW, layout.DOUBLE_COLUMN, 8)
constants_of = _parameters(CONSTS, layout.CONSTANT, 4)


@intrinsic
def put(typingctx, t, slot, value):
    """Set a number of the table at address t."""

    def codegen(context, builder, signature, args):
        place = builder.add(args[0], builder.mul(args[1], ir.Constant(_I64, 8)))
        builder.store(args[2], builder.inttoptr(place, _POINTER), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen
