"""Lightning trains from the loader as it is: a Batch is moved, counted and given to training_step."""

import argparse
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import gpuaug as ga
from gpuaug.data.lightning import LoaderCallback


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
        )

    def training_step(self, batch: ga.Batch, index: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.network(batch.images), batch.labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def main(arguments: list[str] | None = None) -> nn.Module:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--data", required=True, help="a folder of class folders")
    given.add_argument("--out", type=Path, default=Path("run"), help="where checkpoints are kept, and found again")
    given.add_argument("--epochs", type=int, default=1)
    given.add_argument("--batch-size", type=int, default=4, help="of each process")
    given.add_argument("--steps", type=int, default=-1, help="stop at so many, as a run that is killed")
    given.add_argument("--save-steps", type=int, default=2, help="between checkpoints; 0: one after every epoch")
    args = given.parse_args(arguments)

    policy = ga.Policy(
        [
            ga.RandomResizedCrop(32),
            ga.RandomHorizontalFlip(),
            ga.ColorJitter(0.4, 0.4, 0.4),
            ga.ToDtype(torch.float32, scale=True),
        ],
        seed=0,
    )
    # Lightning starts processes for several GPUs, which find their share of the data by themselves
    with ga.data.Loader(args.data, policy, args.batch_size, seed=0) as loader:
        lightning.seed_everything(0, verbose=False)
        model = Classifier()
        trainer = lightning.Trainer(
            max_epochs=args.epochs,
            max_steps=args.steps,
            default_root_dir=args.out,
            callbacks=[
                LoaderCallback(loader),
                ModelCheckpoint(args.out, every_n_train_steps=args.save_steps or None, save_last=True, save_top_k=-1),
            ],
            logger=False,
            log_every_n_steps=1,
            enable_model_summary=False,
        )
        last = "last" if any(args.out.glob("last*.ckpt")) else None
        trainer.fit(model, loader, ckpt_path=last, weights_only=True)
    return model


if __name__ == "__main__":
    main()
