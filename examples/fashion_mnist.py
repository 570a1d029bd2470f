"""A small network on Fashion-MNIST, or on scikit-learn's handwritten digits, which need no download:

python examples/fashion_mnist.py --dataset digits"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

import gpuaug as ga

SIDE = 28
DATASETS = ("fashion_mnist", "digits")
# [N, 28, 28] uint8 and [N] int64
Pictures = tuple[Tensor, Tensor]

AUGMENTATIONS: dict[str, list[ga.Transform]] = {
    "none": [],
    # for pieces of clothing seen from anywhere
    "recipe": [
        ga.RandomHorizontalFlip(),
        ga.RandomVerticalFlip(),
        ga.RandomAffine(90, (0.3, 0.3), (1, 2)),
        ga.SaltAndPepper(0.05),
    ],
    # what a hand does to a digit
    "suitable": [ga.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 5)],
    # what makes a six of a nine
    "unsuitable": [ga.RandomVerticalFlip(), ga.RandomHorizontalFlip()],
}


def read(dataset: str, folder: str) -> tuple[Pictures, Pictures]:
    """What is trained on, and what is tested on."""
    if dataset == "fashion_mnist":
        from torchvision.datasets import FashionMNIST

        train, test = (FashionMNIST(folder, train=part, download=True) for part in (True, False))
        return (train.data, train.targets), (test.data, test.targets)
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images / 16)[:, None].float()
    images = nn.functional.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    images, labels = (images * 255).round().to(torch.uint8), torch.from_numpy(digits.target).long()
    tested = np.arange(len(labels)) % 3 == 0
    return (images[~tested], labels[~tested]), (images[tested], labels[tested])


def network() -> nn.Module:
    """Two blocks of convolution and pooling, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (SIDE // 4) ** 2, 10),
    )


def torchvision_steps(name: str) -> list[nn.Module]:
    """The same augmentation in torchvision's words."""
    from torchvision.transforms import v2

    class SaltAndPepper(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            chance = torch.rand(image.shape[-2:])
            return image.masked_fill(chance < 0.05, 0).masked_fill(chance < 0.025, 255)

    steps: dict[str, list[nn.Module]] = {
        "none": [],
        "recipe": [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomAffine(90, (0.3, 0.3), (1, 2)),
            SaltAndPepper(),
        ],
        "suitable": [v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 5)],
        "unsuitable": [v2.RandomVerticalFlip(), v2.RandomHorizontalFlip()],
    }
    return steps[name]


class ThroughTorchvision:
    """One image at a time, behind torch's DataLoader."""

    def __init__(self, pictures: Pictures, name: str, batch_size: int, seed: int):
        from torchvision.transforms import v2

        transform = v2.Compose([*torchvision_steps(name), v2.ToDtype(torch.float32, scale=True)])
        images, labels = pictures
        # batches are shuffled, and draws are made, by torch's own generator
        torch.manual_seed(seed)
        self.loader = torch.utils.data.DataLoader(
            [(image[None], label) for image, label in zip(images, labels, strict=True)],
            batch_size,
            shuffle=True,
            drop_last=True,
            collate_fn=lambda rows: (torch.stack([transform(i) for i, _ in rows]), torch.stack([y for _, y in rows])),
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.loader)


class ThroughGpuaug:
    """The data set lies on the device, and a batch is augmented from there in one call."""

    def __init__(self, pictures: Pictures, name: str, batch_size: int, seed: int, device: torch.device | str):
        policy = ga.Policy([*AUGMENTATIONS[name], ga.ToDtype(torch.float32, scale=True)], seed=seed)
        self.loader = ga.data.ResidentLoader(pictures, policy, batch_size, seed=seed, device=device)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((batch.images, batch.labels) for batch in self.loader)


@torch.no_grad()
def accuracy(model: nn.Module, pictures: Pictures, device: torch.device | str) -> float:
    """The share of images that the model names, nothing of them augmented."""
    model.eval()
    right = 0
    for images, labels in zip(*(p.split(1000) for p in pictures), strict=True):
        logits = model(images[:, None].to(device).float() / 255)
        right += int((logits.argmax(1) == labels.to(device)).sum())
    model.train()
    return right / len(pictures[1])


def train(
    pictures: tuple[Pictures, Pictures],
    augment: str = "recipe",
    pipeline: str = "gpuaug",
    epochs: int = 10,
    batch_size: int = 128,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> list[float]:
    """The accuracy on the test images after each epoch."""
    torch.manual_seed(seed)
    model = network().to(device)
    batches = (
        ThroughGpuaug(pictures[0], augment, batch_size, seed, device)
        if pipeline == "gpuaug"
        else ThroughTorchvision(pictures[0], augment, batch_size, seed)
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, epochs * len(batches))
    found = []
    for epoch in range(epochs):
        task = None if progress is None else progress.add_task(f"epoch {epoch + 1}", total=len(batches))
        for images, labels in batches:
            loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress.advance(task)
        found.append(accuracy(model, pictures[1], device))
        if progress is not None:
            progress.update(task, description=f"epoch {epoch + 1}: accuracy {found[-1]:.2%}")
    return found


def main(arguments: list[str] | None = None) -> list[float]:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--dataset", choices=DATASETS, default="fashion_mnist")
    given.add_argument("--data", type=Path, default=Path("data"), help="where Fashion-MNIST is, or goes")
    given.add_argument("--augment", choices=list(AUGMENTATIONS), default="recipe")
    given.add_argument("--pipeline", choices=("gpuaug", "torchvision"), default="gpuaug")
    given.add_argument("--epochs", type=int, default=10)
    given.add_argument("--batch-size", type=int, default=128)
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = given.parse_args(arguments)

    pictures = read(args.dataset, str(args.data))
    with Progress() as progress:
        found = train(
            pictures, args.augment, args.pipeline, args.epochs, args.batch_size, args.seed, args.device, progress
        )
    print(f"{args.dataset}, {args.augment}, {args.pipeline}: accuracy {found[-1]:.2%} after {len(found)} epochs")
    return found


if __name__ == "__main__":
    main()
