"""Runs a plan on the host."""

from gpuaug.exec.reference import lacks, run
