"""One program of a kernel's grid, run from its TTGIR on NumPy arrays as a card would: which address every lane reads
and writes, how often loops run, how many requests, sectors and cache lines that makes.

Nothing here is a rule of thumb about a kernel: addresses are what the code computes for given images and tables, and
which lane has which is what its layouts say.  Only how many bytes one instruction moves is read from the PTX."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import shared_memory
import ttgir
from arrays import ARITHMETIC, COMPARE, FREE, Memory, Value, bf16, moved_bits, unsigned, varying
from lanes import SECTOR, Access, access_width, count_requests, elements, instruction_widths

DTYPES = {
    "f64": np.float64,
    "f32": np.float32,
    "f16": np.float16,
    "i64": np.int64,
    "i32": np.int32,
    "i16": np.int16,
    "i8": np.int8,
    "i1": np.bool_,
}
WIDTHS = {"f64": 8, "i64": 8, "f32": 4, "i32": 4, "f16": 2, "bf16": 2, "i16": 2, "i8": 1, "i1": 1}


@dataclass
class Counts:
    """What one program did."""

    accesses: dict[int, Access] = field(default_factory=dict)
    threads: dict[str, float] = field(default_factory=dict)  # operations of threads, by kind
    shared: float = 0.0  # wavefronts of shared memory
    barriers: int = 0  # after what was stored in shared memory for other warps
    rounds: float = 0.0  # loads that wait for each other, summed over what ran one after the other
    global_sectors: dict[str, set[int]] = field(default_factory=dict)  # touched at least once, by kind


class _Return(Exception):
    pass


class Program:
    """A kernel that can be run, one program of its grid at a time.  ptx: of the same kernel"""

    def __init__(self, text: str, ptx: str) -> None:
        self.module = ttgir.parse(text)
        self.widths = instruction_widths(ptx)
        self.shared_widths = instruction_widths(ptx, r"st\.shared(?:::cta)?")

    def run(self, memory: Memory, arguments: dict[str, Value], grid: tuple[int, ...], at: tuple[int, ...]) -> Counts:
        """What a program does.  arguments: by name; those that are constants of the kernel may be there too"""
        run = _Run(self, memory, grid, at)
        values = {k: _scalar(v) for k, v in arguments.items()}
        missing = [k for k in self.module.arguments if k not in values]
        if missing:
            raise ValueError(f"the kernel has arguments {self.module.arguments}, none given for {missing}")
        run.values.update({k: values[k] for k in self.module.arguments})
        try:
            run.blocks(self.module.blocks)
        except _Return:
            pass
        return run.counts


def _scalar(v: Value) -> Value:
    return np.int64(v) if isinstance(v, int) and abs(v) > 2**31 - 1 else np.int32(v) if isinstance(v, int) else v


class _Run:
    def __init__(self, program: Program, memory: Memory, grid: tuple[int, ...], at: tuple[int, ...]) -> None:
        self.module, self.widths, self.memory, self.grid, self.at = program.module, program.widths, memory, grid, at
        self.shared_widths = program.shared_widths
        # the index whose addresses in shared memory were computed last
        self.addressed: Value = None
        self.allocated = 0
        self.values: dict[str, Value] = {}
        self.counts = Counts()
        # of each tensor which bits of its flat index it varies with, and whether that is known from its values: what
        # does not vary between registers of a thread, the compiler computes once
        self.varies: dict[str, tuple[int, bool]] = {}
        # of each value how many loads of this stretch of code it waits for: [stretch, loads]
        self.waits: dict[str, tuple[int, int]] = {}
        self.stretch, self.deepest = 0, 0

    # ---- control

    def blocks(self, blocks: list[ttgir.Block]) -> list[str]:
        """Run from the first block; gives the operands of the terminator."""
        by_label = {b.label: b for b in blocks}
        block = blocks[0]
        while True:
            target = None
            for op in block.ops:
                if op.name == "cf.cond_br":
                    labels = re.findall(r"\^\w+", op.text)
                    target = by_label[labels[0] if bool(self.values[op.operands[0]]) else labels[1]]
                elif op.name == "cf.br":
                    target = by_label[re.findall(r"\^\w+", op.text)[0]]
                elif op.name == "tt.return":
                    self._end_stretch()
                    raise _Return
                elif op.name in ("scf.yield", "tt.reduce.return"):
                    return op.operands
                else:
                    self.step(op)
            if target is None:
                return []
            block = target

    def step(self, op: ttgir.Op) -> None:
        """One operation."""
        handler = getattr(self, "_" + op.name.replace(".", "_"), None)
        if handler:
            handler(op)
            return
        if op.name in shared_memory.RULES:
            shared_memory.RULES[op.name](self, op)
            return
        kind, _, name = op.name.partition(".")
        function = ARITHMETIC.get(name) if kind in ("arith", "math") else None
        if function is None:
            raise NotImplementedError(f"no rule for {op.name}: {op.text}")
        types = self.types(op)
        inputs = [self.values[o] for o in op.operands]
        with np.errstate(all="ignore"):
            self._set(op, function(*inputs), types[-1])
        if (name, types[0].element, types[-1].element) not in FREE:
            self.count_registers(name, types[-1], op.operands)

    def types(self, op: ttgir.Op) -> list[ttgir.TensorType]:
        text = op.text.rsplit(" : ", 1)[-1]
        return [
            ttgir.parse_type(t) for part in re.split(r" to | -> ", text) for t in ttgir.split_types(part.strip("() "))
        ]

    def _vary(self, op: ttgir.Op, loaded: bool = False) -> None:
        """Note which bits of its index the result varies with: as its values do, unless a load made them."""
        value = np.asarray(self.values[op.results[0]])
        known = [self.varies.get(o, (0, True)) for o in op.operands]
        pure = not loaded and all(k for _, k in known)
        if pure and value.ndim:
            self.varies[op.results[0]] = (varying(value), True)
        elif value.ndim:
            mask = 0
            for m, _ in known:
                mask |= m
            self.varies[op.results[0]] = (mask, False)
        elif not pure:
            self.varies[op.results[0]] = (0, False)

    def _set(self, op: ttgir.Op, value: Value, type_: ttgir.TensorType) -> None:
        if type_.element == "bf16":
            value = bf16(value)
        elif type_.element in DTYPES:
            with np.errstate(all="ignore"):
                value = np.asarray(value).astype(DTYPES[type_.element], copy=False)
        self.values[op.results[0]] = value
        self._wait(op.results[0], op.operands)
        self._vary(op)

    def _wait(self, result: str, operands: list[str], more: int = 0) -> None:
        loads = max(
            (w for o in operands if o in self.waits for s, w in (self.waits[o],) if s == self.stretch), default=0
        )
        if loads + more:
            self.waits[result] = (self.stretch, loads + more)
            self.deepest = max(self.deepest, loads + more)

    def _end_stretch(self) -> None:
        self.counts.rounds += self.deepest
        self.stretch, self.deepest = self.stretch + 1, 0

    def count_registers(self, name: str, type_: ttgir.TensorType, operands: list[str] | None = None) -> None:
        """Operations of threads: of a tensor each register of each thread that the operands vary with."""
        mask = 0
        for o in operands or ():
            mask |= self.varies.get(o, (0, True))[0]
        registers = self._registers(type_, mask) if operands else self._registers(type_, -1)
        self.counts.threads[name] = self.counts.threads.get(name, 0) + registers * 32 * self.module.warps

    def _registers(self, type_: ttgir.TensorType, mask: int) -> int:
        """Registers of a thread that differ in the bits of a mask."""
        if not type_.shape:
            return 1
        count = 1
        for basis in self.module.layout(type_).register:
            flat = 0
            for size, v in zip(type_.shape, basis, strict=True):
                flat = flat * size + v
            count *= 2 if flat & mask else 1
        return count

    # ---- structure

    def _scf_for(self, op: ttgir.Op) -> None:
        found = re.match(r"\s*(?:unsigned )?%([\w$.]+) = %([\w$.#]+) to %([\w$.#]+) step %([\w$.#]+)", op.text)
        assert found is not None
        low, high, step = (int(self.values[found[k]]) for k in (2, 3, 4))
        carried = re.search(r"iter_args\((.*?)\) ->", op.text)
        pairs = re.findall(r"%([\w$.]+) = %([\w$.#]+)", carried[1]) if carried else []
        values = [self.values[v] for _, v in pairs]
        self._end_stretch()
        # what goes round a loop is made anew in it
        notes = [self.varies.get(v, (0, True)) for _, v in pairs]
        for k in range(low, high, step):
            self.values[found[1]] = np.int32(k)
            self.values.update({name: v for (name, _), v in zip(pairs, values, strict=True)})
            self.varies.update({name: note for (name, _), note in zip(pairs, notes, strict=True)})
            names = self.blocks(op.regions)
            values = [self.values[v] for v in names]
            notes = [self.varies.get(v, (0, True)) for v in names]
            self._end_stretch()
        self.values.update(dict(zip(op.results, values, strict=True)))
        self.varies.update(dict(zip(op.results, notes, strict=True)))

    def _scf_if(self, op: ttgir.Op) -> None:
        taken = bool(self.values[op.operands[0]])
        self._end_stretch()
        names = self.blocks([op.regions[0 if taken else 1]]) if taken or len(op.regions) > 1 else []
        self._end_stretch()
        self.values.update({r: self.values[v] for r, v in zip(op.results, names, strict=True)})
        self.varies.update({r: self.varies.get(v, (0, True)) for r, v in zip(op.results, names, strict=True)})

    def _scf_while(self, op: ttgir.Op) -> None:
        raise NotImplementedError("a while loop: none of our kernels has one")

    def _arith_constant(self, op: ttgir.Op) -> None:
        type_ = self.types(op)[-1] if " : " in op.text else ttgir.TensorType((), "i1", "")
        found = re.match(r"\s*(?:dense<(.*?)>|(\S+))", op.text)
        assert found is not None
        word = found[1] if found[1] is not None else found[2]
        if word in ("true", "false"):
            value: Value = word == "true"
        elif word.startswith("0x"):
            bits = int(word, 16)
            value = (
                np.array([bits], np.uint64).view(np.float64)[0]
                if type_.element == "f64"
                else (
                    np.array([bits], np.uint32).view(np.float32)[0]
                    if type_.element in ("f32",)
                    else (np.array([bits << 16], np.uint32).view(np.float32)[0] if type_.element == "bf16" else bits)
                )
            )
        else:
            value = float(word) if type_.element[0] in "fb" else int(word)
        dtype = DTYPES.get(type_.element, np.float32)
        self.values[op.results[0]] = np.full(type_.shape, value).astype(dtype) if type_.shape else dtype(value)

    def _arith_cmpi(self, op: ttgir.Op) -> None:
        name = re.match(r"\s*(\w+),", op.text)[1]  # type: ignore[index]
        a, b = (self.values[o] for o in op.operands)
        if name[0] == "u":
            a, b, name = unsigned(a), unsigned(b), "s" + name[1:]
        self._compare(op, COMPARE[name[-2:]](a, b))

    def _arith_cmpf(self, op: ttgir.Op) -> None:
        name = re.match(r"\s*(\w+),", op.text)[1]  # type: ignore[index]
        a, b = (self.values[o] for o in op.operands)
        out = COMPARE[name[1:]](a, b)
        if name[0] == "u":
            out = out | np.isnan(a) | np.isnan(b)
        self._compare(op, out)

    def _compare(self, op: ttgir.Op, out: Value) -> None:
        self.values[op.results[0]] = out
        self._wait(op.results[0], op.operands)
        self._vary(op)
        self.count_registers("cmp", self.types(op)[-1], op.operands)

    def _arith_select(self, op: ttgir.Op) -> None:
        c, a, b = (self.values[o] for o in op.operands)
        self._set(op, np.where(c, a, b), self.types(op)[-1])
        self.count_registers("select", self.types(op)[-1], op.operands)

    def _arith_bitcast(self, op: ttgir.Op) -> None:
        before, after = self.types(op)
        x = np.asarray(self.values[op.operands[0]])
        if "bf16" in (before.element, after.element):
            raw = (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16) if before.element == "bf16" else x
            x = (
                (raw.astype(np.uint16).astype(np.uint32) << 16).view(np.float32)
                if after.element == "bf16"
                else raw.view(np.int16)
            )
            self._set(op, x, after)
        else:
            self._set(op, np.ascontiguousarray(x).view(DTYPES[after.element]).reshape(x.shape), after)

    def _tt_bitcast(self, op: ttgir.Op) -> None:
        types = self.types(op)
        if types[-1].element.startswith("!tt.ptr"):
            self._move(op, lambda x: x)
        else:
            self._arith_bitcast(op)

    def _tt_int_to_ptr(self, op: ttgir.Op) -> None:
        self._move(op, lambda x: np.asarray(x).astype(np.int64))

    _tt_ptr_to_int = _tt_int_to_ptr

    def _tt_get_program_id(self, op: ttgir.Op) -> None:
        self.values[op.results[0]] = np.int32(self.at["xyz".index(op.text.split()[0])])

    def _tt_get_num_programs(self, op: ttgir.Op) -> None:
        self.values[op.results[0]] = np.int32(self.grid["xyz".index(op.text.split()[0])])

    def _tt_make_range(self, op: ttgir.Op) -> None:
        end, start = (int(re.search(rf"{k} = (-?\d+)", op.text)[1]) for k in ("end", "start"))  # type: ignore[index]
        self.values[op.results[0]] = np.arange(start, end, dtype=np.int32)
        self._vary(op)

    def _move(self, op: ttgir.Op, function: Callable[[Value], Value]) -> None:
        before = np.asarray(self.values[op.operands[0]])
        self.values[op.results[0]] = function(self.values[op.operands[0]])
        self._wait(op.results[0], op.operands)
        mask, known = self.varies.get(op.operands[0], (0, True))
        if known:
            self._vary(op)
        else:
            # a marked axis follows the same way as the values do
            self.varies[op.results[0]] = (moved_bits(mask, before.shape, function), False)

    def _tt_splat(self, op: ttgir.Op) -> None:
        self._move(op, lambda x: np.broadcast_to(np.asarray(x), self.types(op)[-1].shape))

    _tt_broadcast = _tt_splat

    def _tt_reshape(self, op: ttgir.Op) -> None:
        self._move(op, lambda x: np.asarray(x).reshape(self.types(op)[-1].shape))

    _tt_expand_dims = _tt_reshape

    def _tt_trans(self, op: ttgir.Op) -> None:
        order = [int(v) for v in re.search(r"array<i32: ([\d, ]+)>", op.text)[1].split(",")]  # type: ignore[index]
        self._move(op, lambda x: np.transpose(x, order))

    def _tt_join(self, op: ttgir.Op) -> None:
        a, b = (self.values[o] for o in op.operands)
        self.values[op.results[0]] = np.stack([a, b], -1)
        self._wait(op.results[0], op.operands)
        known = [self.varies.get(o, (0, True)) for o in op.operands]
        self.varies[op.results[0]] = ((known[0][0] | known[1][0]) << 1 | 1, known[0][1] and known[1][1])

    def _tt_split(self, op: ttgir.Op) -> None:
        x = self.values[op.operands[0]]
        self.values[op.results[0]], self.values[op.results[1]] = x[..., 0], x[..., 1]
        mask, known = self.varies.get(op.operands[0], (0, True))
        for r in op.results:
            self._wait(r, op.operands)
            self.varies[r] = (mask >> 1, known)

    def _tt_addptr(self, op: ttgir.Op) -> None:
        element = re.search(r"!tt\.ptr<(\w+)", op.text)[1]  # type: ignore[index]
        p, o = (self.values[v] for v in op.operands)
        self.values[op.results[0]] = np.asarray(p, np.int64) + np.asarray(o, np.int64) * WIDTHS[element]
        self._wait(op.results[0], op.operands)
        self._vary(op)
        self.count_registers("addptr", self.types(op)[0], op.operands)

    def _ttg_convert_layout(self, op: ttgir.Op) -> None:
        before, after = self.types(op)
        self._move(op, lambda x: x)
        a, b = self.module.layout(before), self.module.layout(after)
        if (a.lane, a.warp) != (b.lane, b.warp):
            width = 8 if before.element.startswith("!tt.ptr") else WIDTHS.get(before.element, 4)
            for x in (a, b):
                threads = 1 << len(x.register)
                # what a lane holds of one thread is written together, sixteen bytes at most
                self.counts.shared += threads * self.module.warps * max(1.0, 32 * width / 128)

    def _tt_mulhiui(self, op: ttgir.Op) -> None:
        a, b = (np.asarray(self.values[o]).astype(np.uint32).astype(np.uint64) for o in op.operands)
        self._set(op, ((a * b) >> np.uint64(32)).astype(np.uint32).view(np.int32), self.types(op)[-1])
        self.count_registers("mulhi", self.types(op)[-1], op.operands)

    def _tt_reduce(self, op: ttgir.Op) -> None:
        axis = int(re.search(r"axis = (\d+)", op.text)[1])  # type: ignore[index]
        x = self.values[op.operands[0]]
        body = next(o.name for o in op.regions[0].ops if o.name != "tt.reduce.return")
        function = {
            "arith.addi": np.sum,
            "arith.addf": np.sum,
            "arith.maxsi": np.max,
            "arith.maxnumf": np.max,
            "arith.maximumf": np.max,
            "arith.minsi": np.min,
            "arith.minnumf": np.min,
            "arith.ori": np.bitwise_or.reduce,
        }[body]
        types = self.types(op)
        self.values[op.results[0]] = function(x, axis=axis).astype(x.dtype)
        self._wait(op.results[0], op.operands)
        self.count_registers("reduce", types[0])
        self.counts.shared += self.module.warps

    def _tt_histogram(self, op: ttgir.Op) -> None:
        x = self.values[op.operands[0]]
        if len(op.operands) > 1:
            x = x[self.values[op.operands[1]]]
        types = self.types(op)
        bins = types[-1].shape[0]
        self.values[op.results[0]] = np.bincount(x.reshape(-1), minlength=bins)[:bins].astype(np.int32)
        self.count_registers("histogram", types[0])

    def loaded(self, op: ttgir.Op, type_: ttgir.TensorType) -> None:
        """Note a result that was gathered, which varies as its index does."""
        self._wait(op.results[0], op.operands)
        self._vary(op, loaded=True)
        self.count_registers("gather", type_)

    # ---- memory

    def _tt_load(self, op: ttgir.Op) -> None:
        address, mask, *other = self._access(op, "load", op.operands)
        type_ = self._pointer(op)
        element, shape = type_.element, np.shape(address)
        size = WIDTHS[element]
        raw = np.zeros((*shape, size), np.uint8)
        mask = np.broadcast_to(mask, shape)
        raw[mask] = self.memory.load(np.asarray(address)[mask], size)
        if element == "bf16":
            value = (raw.view(np.uint16)[..., 0].astype(np.uint32) << 16).view(np.float32)
        else:
            value = raw.view(DTYPES[element])[..., 0]
        if other:
            value = np.where(mask, value, np.asarray(other[0]).astype(value.dtype))
        self.values[op.results[0]] = value if shape else value[()]
        self._wait(op.results[0], op.operands, 1)
        if shape:
            self._vary(op, loaded=True)

    def _tt_store(self, op: ttgir.Op) -> None:
        names = [op.operands[0], *op.operands[2:]]
        address, mask, *_ = self._access(op, "store", names)
        value = np.asarray(self.values[op.operands[1]])
        mask = np.broadcast_to(mask, np.shape(address))
        if self._pointer(op).element == "bf16":
            value = (np.asarray(value, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        value = np.broadcast_to(value, np.shape(address))
        data = np.ascontiguousarray(value)[..., None].view(np.uint8).reshape(*np.shape(address), -1)
        self.memory.store(np.asarray(address)[mask], data[mask])

    def _tt_atomic_rmw(self, op: ttgir.Op) -> None:
        kind = re.match(r"\s*(\w+),", op.text)[1]  # type: ignore[index]
        address, mask, *_ = self._access(op, "atomic", [op.operands[0], *op.operands[2:]])
        value = np.broadcast_to(np.asarray(self.values[op.operands[1]]), np.shape(address))
        mask = np.broadcast_to(mask, np.shape(address))
        dtype, size = value.dtype, value.dtype.itemsize
        found = self.memory.load(np.asarray(address)[mask], size).reshape(-1, size).view(dtype)[:, 0]
        new = found + value[mask] if kind in ("add", "fadd") else np.maximum(found, value[mask])
        data = np.ascontiguousarray(new)[..., None].view(np.uint8).reshape(-1, size)
        self.memory.store(np.asarray(address)[mask].reshape(-1), data)
        self.values[op.results[0]] = np.zeros(np.shape(address), dtype)

    def _pointer(self, op: ttgir.Op) -> ttgir.TensorType:
        text = op.text.rsplit(" : ", 1)[-1].lstrip("( ")
        first = ttgir.parse_type(ttgir.split_types(text.split(" -> ")[0].strip("() "))[0])
        element = re.search(r"!tt\.ptr<(\w+)", first.element)[1]  # type: ignore[index]
        return ttgir.TensorType(first.shape, element, first.layout)

    def _access(self, op: ttgir.Op, kind: str, names: list[str]) -> list[Value]:
        """Count an access; gives its addresses, its mask and what else it was given."""
        address, *rest = (self.values[o] for o in names)
        mask = np.asarray(rest[0] if rest else True)
        type_ = self._pointer(op)
        size = WIDTHS[type_.element]
        place = self.module.place(op.loc)
        if not mask.any():
            return [address, mask, *rest[1:]]
        found = self.counts.accesses.get(id(op))
        if found is None:
            first = np.asarray(address)[np.broadcast_to(mask, np.shape(address))].reshape(-1)[0]
            width = access_width(self.widths, place, size, self.module.layout(type_).register if type_.shape else ())
            found = Access(kind, place, self.memory.name(int(first)), width, not type_.shape)
            self.counts.accesses[id(op)] = found
        if not type_.shape:
            # one address for all threads
            count = 1 if kind != "load" else self.module.warps
            found.requests += count
            found.sectors += count
            found.lines += count
            found.wavefronts += count
            found.bytes += count * size
            found.least += count
            self._touch(kind, np.array([int(address) // SECTOR]))
            return [address, mask, *rest[1:]]
        held = elements(self.module.layout(type_), type_.shape)
        flat = np.asarray(address).reshape(-1)[held]
        live = np.broadcast_to(mask, type_.shape).reshape(-1)[held]
        count_requests(found, flat, live, size)
        self._touch(kind, np.unique(np.asarray(address)[np.broadcast_to(mask, type_.shape)] // SECTOR))
        return [address, mask, *rest[1:]]

    def _touch(self, kind: str, sectors: np.ndarray) -> None:
        self.counts.global_sectors.setdefault(kind, set()).update(sectors.tolist())
