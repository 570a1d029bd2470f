"""Stands in until the engine is written: the reference runs everything."""

from gpuaug.exec.reference import lacks as lacks
from gpuaug.exec.reference import run as run
