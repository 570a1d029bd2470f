"""timm's model, optimizer, schedule and checkpoints around the loader, in the manner of its training script."""

import argparse
import json
from pathlib import Path

import torch
from timm.models import create_model, resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter, CheckpointSaver
from torch import nn

import gpuaug as ga
from gpuaug.data.timm import Pairs


def main(arguments: list[str] | None = None) -> nn.Module:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--data", required=True, help="a folder of class folders")
    given.add_argument("--out", type=Path, default=Path("run"), help="where checkpoints are kept, and found again")
    given.add_argument("--epochs", type=int, default=1)
    given.add_argument("--batch-size", type=int, default=4, help="of each process")
    given.add_argument("--steps", type=int, default=10**9, help="stop after so many, as a run that is killed")
    args = given.parse_args(arguments)

    # what timm calls auto_augment; its Mixup is ga.CutMix and ga.MixUp
    policy = ga.Policy(
        [
            ga.RandomResizedCrop(32),
            ga.RandomHorizontalFlip(),
            ga.RandAugment.from_timm("rand-m9-mstd0.5-inc1"),
            ga.ToDtype(torch.float32, scale=True),
        ],
        seed=0,
    )
    with Pairs(ga.data.Loader(args.data, policy, args.batch_size, seed=0)) as loader_train:
        device = loader_train.loader.device
        torch.manual_seed(0)
        model = create_model("test_byobnet", num_classes=10).to(device)
        optimizer = create_optimizer_v2(model, opt="sgd", lr=0.05)
        scheduler = CosineLRScheduler(optimizer, t_initial=args.epochs)
        args.out.mkdir(parents=True, exist_ok=True)
        saver = CheckpointSaver(model, optimizer, checkpoint_dir=str(args.out), recovery_dir=str(args.out))
        position, start, step = args.out / "loader.json", 0, 0
        if position.exists():
            state = json.loads(position.read_text())
            resume_checkpoint(model, str(args.out / state["checkpoint"]), optimizer)
            loader_train.load_state_dict(state["loader"])
            start = state["loader"]["epoch"]
        for epoch in range(start, args.epochs):
            scheduler.step(epoch)
            # an epoch that was left in the middle goes on there
            loader_train.sampler.set_epoch(epoch)
            losses = AverageMeter()
            for images, target in loader_train:
                loss = nn.functional.cross_entropy(model(images), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.update(loss.item(), len(target))
                step += 1
                if step % 2 == 0:
                    saver.save_recovery(epoch, batch_idx=step)
                    state = {"checkpoint": Path(saver.curr_recovery_file).name, "loader": loader_train.state_dict()}
                    position.write_text(json.dumps(state))
                if step == args.steps:
                    return model
            print(f"epoch {epoch}: loss {losses.avg:.3f}")
    return model


if __name__ == "__main__":
    main()
