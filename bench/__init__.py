"""The bench: the same work by gpuaug and by other libraries, checked, alternated and timed in one run."""
