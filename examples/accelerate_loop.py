"""Accelerate prepares model and optimizer and passes the loader through; its state goes into the checkpoints."""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
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

    # first, so that the loader finds its rank
    accelerator = Accelerator()
    policy = ga.Policy(
        [
            ga.RandomResizedCrop(32),
            ga.RandomHorizontalFlip(),
            ga.ColorJitter(0.4, 0.4, 0.4),
            ga.ToDtype(torch.float32, scale=True),
        ],
        seed=0,
    )
    with ga.data.Loader(args.data, policy, args.batch_size, seed=0, device=accelerator.device) as loader:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
        )
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        # the loader shards by itself and comes back as it is
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        accelerator.register_for_checkpointing(loader)
        saved, step = args.out / "checkpoint", 0
        if saved.exists():
            accelerator.load_state(str(saved))
        for epoch in range(loader.state_dict()["epoch"], args.epochs):
            # no skip_first_batches: an epoch that was left in the middle goes on there
            loader.set_epoch(epoch)
            for batch in loader:
                loss = nn.functional.cross_entropy(model(batch.images), batch.labels)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                step += 1
                if step % 2 == 0:
                    accelerator.save_state(str(saved))
                    accelerator.print(f"epoch {epoch}: loss {loss.item():.3f}")
                if step == args.steps:
                    break
            if step == args.steps:
                break
    unwrapped = accelerator.unwrap_model(model)
    accelerator.end_training()
    return unwrapped


if __name__ == "__main__":
    main()
