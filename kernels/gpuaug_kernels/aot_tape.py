"""What drawing costs on cards that are not here: the kernels of tapes, compiled ahead by `python -m gpuaug_kernels.aot`.

Which is tapes.json beside this file, written by tests/tapes.py from policies.  A tape has no loop, so that its machine code counts itself; what the
library keeps for huge angles in sine and cosine is counted, and never run.
"""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("tapes.json")
# the kernel that finds partners
PARTNER = "partners of a mix"
# bytes of stack that sine and cosine of the library keep for huge angles, which never come
ANGLES = 48


def names() -> list[str]:
    """What there is to compile."""
    return [*(f"draws of {e['name']}" for e in json.loads(FILE.read_text(encoding="utf-8"))), PARTNER]


def sources(name: str) -> tuple[Any, dict[str, Any], int]:
    """The kernel of a name as a launch would compile it, its options, and how many numbers of a tape it makes."""
    from triton.compiler import ASTSource

    from gpuaug_kernels import tape

    if name == PARTNER:
        pointers = dict.fromkeys(("ids", "occurrences", "out"), "*i64")
        types = {**pointers, **dict.fromkeys(("epoch", "low", "high"), "i64"), "n": "i32"}
        constants: dict[str, Any] = {"C1": 3 << 28, "BLOCK": tape.BLOCK, "CHUNK": tape.CHUNK}
        signature = {k: types.get(k, "constexpr") for k in tape.partner.arg_names}
        aligned = {(tape.partner.arg_names.index(k),): [["tt.divisibility", 16]] for k in pointers}
        return ASTSource(fn=tape.partner, signature=signature, constexprs=constants, attrs=aligned), {"num_warps": tape.WARPS}, 0
    entry = next(e for e in json.loads(FILE.read_text(encoding="utf-8")) if f"draws of {e['name']}" == name)
    program = tape.Program(tape.Code(entry["code"]), tuple(entry["columns"]))
    return tape.ahead(program), tape.OPTIONS, len(entry["code"]) // tape.FIELDS.value


def inspect(name: str, target: int, tool: Callable[..., str]) -> dict[str, Any]:
    """What one kernel costs on one architecture.  tool: runs one of those that come with triton"""
    import triton
    from triton.backends.compiler import GPUTarget

    source, options, instructions = sources(name)
    kernel = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        code = tool("cuobjdump", "-sass", str(cubin))
        usage = tool("cuobjdump", "--dump-resource-usage", str(cubin))
    entry = usage[usage.index(f"Function {kernel.metadata.name}") :]
    lines = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+ )?([A-Z0-9_.]+)", code, re.MULTILINE)
    return {
        "name": name,
        "target": f"sm_{target}",
        "registers": int(re.search(r"REG:(\d+)", entry)[1]),  # type: ignore[index]
        "spills": max(0, int(re.search(r"STACK:(\d+)", entry)[1]) - ANGLES),  # type: ignore[index]
        "shared": int(kernel.metadata.shared),
        "numbers": instructions,
        "static": sum(not op.startswith(("NOP", "BRA")) for op in lines),
    }
