"""ResNet-50 from a folder of class folders, on one GPU or on many:

torchrun --nproc-per-node 8 examples/imagenet_folder.py --data imagenet

DATA/train and DATA/val hold a folder for each class.  After a kill the same command goes on from the last
checkpoint."""

import argparse
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

import gpuaug as ga

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def policies(size: int, classes: int, seed: int) -> tuple[ga.Policy, ga.Policy]:
    """For training and for validation."""
    end = [ga.ToDtype(torch.float32, scale=True), ga.Normalize(MEAN, STD)]
    mix = ga.RandomMix([ga.MixUp(alpha=0.2, num_classes=classes), ga.CutMix(alpha=1.0, num_classes=classes)])
    train = [ga.RandomResizedCrop(size), ga.RandomHorizontalFlip(), ga.RandAugment(2, 9), *end, mix]
    val = [ga.Resize(size * 8 // 7), ga.CenterCrop(size), *end]
    return (
        ga.Policy(train, seed=seed, memory_format=torch.channels_last),
        ga.Policy(val, memory_format=torch.channels_last),
    )


@torch.no_grad()
def validate(model: nn.Module, loader: ga.data.Loader, precision: Any) -> float:
    """The share of images named right, of all ranks together."""
    model.eval()
    counts = torch.zeros(2, dtype=torch.int64, device=loader.device)
    for batch in loader:
        with precision:
            logits = model(batch.images)
        # places that only fill up the last batch are not counted
        counts[0] += ((logits.argmax(1) == batch.labels) & batch.valid).sum()
        counts[1] += batch.valid.sum()
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(counts)
    model.train()
    return (counts[0] / counts[1]).item()


def main(arguments: list[str] | None = None) -> float:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--data", type=Path, required=True)
    given.add_argument("--out", type=Path, default=Path("run"), help="where the checkpoint is kept, and found again")
    given.add_argument("--model", default="resnet50", help="of torchvision.models")
    given.add_argument("--size", type=int, default=224)
    given.add_argument("--epochs", type=int, default=90)
    given.add_argument("--batch-size", type=int, default=256, help="of each process")
    given.add_argument("--lr", type=float, default=0.1, help="for 256 images a step")
    given.add_argument("--save-every", type=int, default=1000, help="steps")
    given.add_argument("--steps", type=int, default=10**9, help="stop after so many, as a run that is killed")
    args = given.parse_args(arguments)

    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        torch.distributed.init_process_group()
    classes = sum(f.is_dir() for f in (args.data / "train").iterdir())
    train_policy, val_policy = policies(args.size, classes, seed=0)
    with (
        ga.data.Loader(args.data / "train", train_policy, args.batch_size, seed=0, on_error="substitute") as loader,
        ga.data.Loader(args.data / "val", val_policy, args.batch_size, shuffle=False, drop_last=False) as val_loader,
    ):
        device = loader.device
        torch.manual_seed(0)
        model = models.get_model(args.model, num_classes=classes).to(device, memory_format=torch.channels_last)
        lr = args.lr * args.batch_size * world / 256
        optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-5, nesterov=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, args.epochs * len(loader), pct_start=0.06)
        saved, best = args.out / "checkpoint.pt", 0.0
        if saved.exists():
            state = torch.load(saved, map_location=device)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            loader.load_state_dict(state["loader"])
        network = nn.parallel.DistributedDataParallel(model) if world > 1 else model
        # bfloat16 needs no scaling of the loss
        precision = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
        step = 0

        def save() -> None:
            if rank == 0:
                args.out.mkdir(parents=True, exist_ok=True)
                parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader}
                torch.save({name: part.state_dict() for name, part in parts.items()}, saved.with_suffix(".part"))
                # a run that is killed while it saves leaves the one before
                saved.with_suffix(".part").replace(saved)

        for epoch in range(loader.state_dict()["epoch"], args.epochs):
            # an epoch that was left in the middle goes on there
            loader.set_epoch(epoch)
            for batch in loader:
                with precision:
                    # labels are soft rows after a mix
                    loss = ga.losses.soft_cross_entropy(network(batch.images), batch.labels, label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                step += 1
                if step % args.save_every == 0:
                    save()
                if step % 100 == 0 and rank == 0:
                    stats = loader.stats()
                    print(
                        f"epoch {epoch}, step {step}: loss {loss.item():.3f}, {stats['images_per_second']:.0f} images/s"
                    )
                if step == args.steps:
                    break
            if step == args.steps:
                break
            best = validate(model, val_loader, precision)
            if rank == 0:
                print(f"epoch {epoch}: accuracy {best:.2%}, bottleneck {loader.stats()['bottleneck']}")
            save()
    if world > 1:
        torch.distributed.destroy_process_group()
    return best


if __name__ == "__main__":
    main()
