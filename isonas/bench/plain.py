"""What a user would write instead of the proxy: timm's loader, and a plain training loop in fp32."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset as TorchDataset

import isonas.networks.timm  # noqa: F401  (makes timm importable beside any torchvision)
from isonas.data.dataset import Dataset, Images, split_validation
from isonas.genome import Genome
from isonas.networks.build import build_network
from isonas.training.recipe import Recipe


class DecodedImages(TorchDataset[tuple[Any, int]]):
    """Decoded images as timm's loaders take them; `transform` is theirs to set."""

    def __init__(self, images: Images) -> None:
        self.transform: Any = None
        self._images = [Image.fromarray(np.moveaxis(pixels, 0, -1)) for pixels in images.pixels]
        self._labels = images.labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self._images[index]
        return (self.transform(image) if self.transform else image), int(self._labels[index])


def train_plainly(
    genome: Genome,
    data: Dataset,
    side: int,
    recipe: Recipe,
    device: str,
    workers: int,
    seed: int,
) -> tuple[list[float], int, float]:
    """Train a genome at `side` pixels, validating after every epoch.

    Returns the seconds of each epoch, the images trained on in all, and the error at the end. `recipe`
    gives the epochs, the images of an epoch, the batch and the rates; crops, flips and colours are timm's
    own defaults, made by `workers` processes; the network computes in fp32 as PyTorch has it
    (a GPU's convolutions in TF32), contiguous.
    """
    from timm.data.loader import create_loader

    torch.manual_seed(seed)
    chosen, carved = split_validation(data.train, seed)
    count = min(recipe.epoch_images or len(chosen), len(chosen))
    chosen = np.random.default_rng(seed).permutation(chosen)[:count]
    common: dict[str, Any] = {
        "input_size": (3, side, side),
        "batch_size": recipe.batch_size,
        "num_workers": workers,
        "device": torch.device(device),
    }
    parts: tuple[Any, Any] = _part(data, chosen), _part(data, carved)
    training = create_loader(parts[0], is_training=True, **common)
    validation = create_loader(parts[1], is_training=False, crop_pct=1.0, **common)
    network = build_network(genome, side, data.classes).to(device)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=0.0,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    seconds, error, step, seen = [], 1.0, 0, 0
    steps = len(training) * recipe.epochs
    for _ in range(recipe.epochs):
        began = time.perf_counter()
        network.train()
        for images, labels in training:
            step, seen = step + 1, seen + len(labels)
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step / steps)
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(images), labels, label_smoothing=recipe.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        error = _error(network, validation, device)
        seconds.append(time.perf_counter() - began)
    return seconds, seen, error


def _part(data: Dataset, rows: Any) -> DecodedImages:
    return DecodedImages(Images(data.train.pixels[rows], data.train.labels[rows]))


@torch.no_grad()
def _error(network: nn.Module, validation: Any, device: str) -> float:
    network.eval()
    wrong = seen = 0
    for images, labels in validation:
        labels = labels.to(device)
        wrong += int((network(images.to(device)).argmax(1) != labels).sum())
        seen += len(labels)
    return wrong / seen
