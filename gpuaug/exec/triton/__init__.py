"""The Triton executor: marshals a plan into records and tables, and launches the kernels of gpuaug_kernels.  No arithmetic of its own."""

from gpuaug.exec.triton.executor import execute, lacks, prepare, regroup, run

__all__ = ["execute", "lacks", "prepare", "regroup", "run"]
