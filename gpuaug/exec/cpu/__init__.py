"""The CPU executor: a plan as data, walked by one compiled entry, a row of pixels at a time through all stages, so that
the row stays in the cache."""

from gpuaug.exec.cpu.executor import execute, load_compiled, prepare, run, steps
from gpuaug.mixing import accounted
from gpuaug.targets import follow as follow_labels

__all__ = ["accounted", "execute", "follow_labels", "load_compiled", "prepare", "run", "steps"]
