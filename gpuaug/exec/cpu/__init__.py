"""The CPU executor: a plan as data, walked by one compiled entry, a row of pixels at a time through all stages, so that
the row stays in the cache."""

from gpuaug.exec.cpu.executor import execute, prepare, run, steps

__all__ = ["execute", "prepare", "run", "steps"]
