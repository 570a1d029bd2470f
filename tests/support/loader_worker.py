"""A training loop in a process of its own: writes what it gets, saves its state after every step, and may be killed."""

import argparse
import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from loading import loader


def epochs_done(one: Any) -> int:
    """Epochs of which all was delivered: a state that was saved with the last batch of one is not yet in the next."""
    state = one.state_dict()
    return int(state["epoch"]) + (state["consumed"] >= len(one.source))


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("data")
    given.add_argument("out", type=Path)
    given.add_argument("--epochs", type=int, default=1)
    given.add_argument("--steps", type=int, default=10**9)
    given.add_argument("--pause", type=float, default=0.0)
    given.add_argument("--kill", action="store_true")
    args = given.parse_args()
    torch.set_num_threads(1)
    ranked = "RANK" in os.environ
    if ranked:
        torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank() if ranked else 0
    one = loader(args.data, batch_size=2, drop_last=False)
    saved, done = args.out / "state.json", 0
    if saved.exists():
        one.load_state_dict(json.loads(saved.read_text()))
    with (args.out / f"log-{rank}-{os.getpid()}.jsonl").open("w") as log:
        while epochs_done(one) < args.epochs:
            for batch in one:
                rows = [
                    (batch.epoch, int(i), int(o), hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()[:16])
                    for i, o, x, v in zip(batch.ids, batch.occurrence, batch.images, batch.valid, strict=True)
                    if v
                ]
                log.write(json.dumps({"rows": rows}) + "\n")
                log.flush()
                if ranked:
                    torch.distributed.barrier()
                if rank == 0:
                    part = saved.with_suffix(".part")
                    part.write_text(json.dumps(one.state_dict()))
                    part.replace(saved)
                done += 1
                time.sleep(args.pause)
                if (
                    args.kill
                    and done >= args.steps
                    and rank == (torch.distributed.get_world_size() if ranked else 1) - 1
                ):
                    os.kill(os.getpid(), signal.SIGKILL)
    one.close()
    if ranked:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
