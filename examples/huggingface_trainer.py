"""Hugging Face's Trainer trains from the loader: batches as pixel_values and labels, its state in the checkpoints."""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import gpuaug as ga
from gpuaug.data.huggingface import LoaderCallback, inputs


class LoaderTrainer(Trainer):
    """Trains from a loader that is there already."""

    def __init__(self, loader: ga.data.Loader, **options: Any):
        self.loader = ga.data.Mapped(loader, inputs)
        super().__init__(**options)

    def get_train_dataloader(self) -> Any:
        return self.loader


def main(arguments: list[str] | None = None) -> nn.Module:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--data", required=True, help="a folder of class folders")
    given.add_argument("--out", type=Path, default=Path("run"), help="where checkpoints are kept, and found again")
    given.add_argument("--epochs", type=int, default=1)
    given.add_argument("--batch-size", type=int, default=4, help="of each process")
    given.add_argument("--steps", type=int, default=-1, help="stop at so many, as a run that is killed")
    args = given.parse_args(arguments)

    # first, so that the loader finds its rank
    training = TrainingArguments(
        output_dir=str(args.out),
        num_train_epochs=args.epochs,
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        save_steps=2,
        logging_steps=1,
        report_to=[],
    )
    policy = ga.Policy(
        [
            ga.RandomResizedCrop(32),
            ga.RandomHorizontalFlip(),
            ga.ColorJitter(0.4, 0.4, 0.4),
            ga.ToDtype(torch.float32, scale=True),
        ],
        seed=0,
    )
    with ga.data.Loader(args.data, policy, args.batch_size, seed=0, device=training.device) as loader:
        torch.manual_seed(0)
        model = ResNetForImageClassification(
            ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=10)
        )
        trainer = LoaderTrainer(loader, model=model, args=training, callbacks=[LoaderCallback()])
        last = get_last_checkpoint(str(args.out)) if args.out.exists() else None
        trainer.train(resume_from_checkpoint=last)
    return model


if __name__ == "__main__":
    main()
