"""A loop of one's own, on one process or on many: torchrun --nproc-per-node 2 examples/plain.py --data FOLDER."""

import argparse
import os
from pathlib import Path

import torch
from torch import nn

import gpuaug as ga


def main(arguments: list[str] | None = None) -> nn.Module:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--data", required=True, help="a folder of class folders")
    given.add_argument("--out", type=Path, default=Path("run"), help="where the checkpoint is kept, and found again")
    given.add_argument("--epochs", type=int, default=1)
    given.add_argument("--batch-size", type=int, default=4, help="of each process")
    given.add_argument("--steps", type=int, default=10**9, help="stop after so many, as a run that is killed")
    args = given.parse_args(arguments)

    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several:
        torch.distributed.init_process_group()
    rank = int(os.environ.get("RANK", 0))
    policy = ga.Policy(
        [
            ga.RandomResizedCrop(32),
            ga.RandomHorizontalFlip(),
            ga.ColorJitter(0.4, 0.4, 0.4),
            ga.ToDtype(torch.float32, scale=True),
        ],
        seed=0,
    )
    with ga.data.Loader(args.data, policy, args.batch_size, seed=0) as loader:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
        ).to(loader.device)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        saved, step = args.out / "checkpoint.pt", 0
        if saved.exists():
            state = torch.load(saved, map_location=loader.device)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            loader.load_state_dict(state["loader"])
        network = nn.parallel.DistributedDataParallel(model) if several else model
        for epoch in range(loader.state_dict()["epoch"], args.epochs):
            # an epoch that was left in the middle goes on there
            loader.set_epoch(epoch)
            for batch in loader:
                loss = nn.functional.cross_entropy(network(batch.images), batch.labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                if step % 2 == 0 and rank == 0:
                    args.out.mkdir(parents=True, exist_ok=True)
                    state = {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "loader": loader.state_dict(),
                    }
                    # a run that is killed while it saves leaves the one before
                    torch.save(state, saved.with_suffix(".part"))
                    saved.with_suffix(".part").replace(saved)
                    print(f"epoch {epoch}: loss {loss.item():.3f}, {loader.stats()['images_per_second']:.0f} images/s")
                if step == args.steps:
                    break
            if step == args.steps:
                break
    if several:
        torch.distributed.destroy_process_group()
    return model


if __name__ == "__main__":
    main()
