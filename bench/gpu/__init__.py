"""The kernels on a card: `python -m bench.gpu`."""
