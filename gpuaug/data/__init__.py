"""What stands before a policy: which sample comes when, on which rank, and where a run goes on."""

from gpuaug.data.sampler import BatchSampler, Key, Padding, Sampler

__all__ = ["BatchSampler", "Key", "Padding", "Sampler"]
