"""The work of `gpuaug expand` on Ray Data: actors that make pieces, one for each GPU, or for each core."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpuaug.expand import Job, Maker


def package() -> Any:
    """Ray, or a sentence that says how to get it."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError("--engine ray takes ray, which is not installed; pip install 'gpuaug[ray]'") from None
    return ray


def started() -> Any:
    """Ray on the cluster of RAY_ADDRESS, or on this machine."""
    ray = package()
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    return ray


def gpus() -> int:
    """How many the cluster has."""
    return int(started().cluster_resources().get("GPU", 0))


class Actor:
    """Makes pieces in a process of its own."""

    def __init__(self, job: Job, target: Path):
        self.maker = Maker(job, target, threads=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"told": np.array([self._told(int(k)) for k in batch["piece"]], object)}

    def _told(self, piece: int) -> str:
        try:
            return json.dumps(self.maker.made(piece))
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            # as a value: Ray would try a piece again, and wrap the sentence in tracebacks
            number = getattr(error, "errno", None)
            return json.dumps({"error": str(error), "errno": number, "text": getattr(error, "strerror", None)})


def lines(job: Job, target: Path, left: Sequence[int], actors: int | None) -> Iterator[dict[str, Any]]:
    """Pieces as they are made, in any order."""
    if not left:
        return
    ray = started()
    ray.data.DataContext.get_current().enable_progress_bars = False
    there = ray.cluster_resources()
    on_gpu = job.device == "cuda"
    most = int(there.get("GPU" if on_gpu else "CPU", 1))
    count = max(1, min(actors or most, most, len(left)))
    work = ray.data.from_items([{"piece": k} for k in left], override_num_blocks=min(len(left), 1000))
    made = work.map_batches(
        Actor,
        fn_constructor_args=(job, target.resolve()),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=count),
        **({"num_gpus": 1} if on_gpu else {"num_cpus": 1}),
    )
    for row in made.iter_rows():
        told = json.loads(row["told"])
        if "error" in told:
            if told["errno"] is not None:
                raise OSError(told["errno"], told["text"])
            raise ValueError(told["error"])
        yield told
