"""Triton kernels.  This package never imports gpuaug."""
