"""Draws, lowering and tables of parameters as one straight row of instructions: found once by tracing, run for every
batch.

`record` holds the instructions, `tensor` and `aten` find them by running torch code on symbols, `host` runs them on a
CPU."""
