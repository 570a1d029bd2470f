"""The Triton executor: marshals a plan into records and tables, and launches the kernels of gpuaug_kernels.  No
arithmetic of its own."""

from gpuaug_kernels.shapes import NUMBERS, moved_boxes, moved_points

from gpuaug.exec.triton.ahead import compile_ahead, compile_for
from gpuaug.exec.triton.calls import again
from gpuaug.exec.triton.executor import execute, prepare, run, steps
from gpuaug.exec.triton.labels import accounted, follow_labels, label_launches
from gpuaug.exec.triton.windowed import fit, fitted, load_compiled, may_fit, without_cells

__all__ = [
    "NUMBERS",
    "accounted",
    "again",
    "compile_ahead",
    "compile_for",
    "execute",
    "fit",
    "fitted",
    "follow_labels",
    "label_launches",
    "load_compiled",
    "may_fit",
    "moved_boxes",
    "moved_points",
    "prepare",
    "run",
    "steps",
    "without_cells",
]
