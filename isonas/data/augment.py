"""Augmentation of whole batches on the device they lie on."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Channel statistics of ImageNet in [0, 1], for every source: a deployed model carries them along."""


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (N, 3, S, S) to float32, channels-last, zero mean and unit variance on ImageNet."""
    mean = torch.tensor(MEAN, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(1, 3, 1, 1)
    batch = pixels.float().div_(255).sub_(mean).div_(std)
    return batch.contiguous(memory_format=torch.channels_last)


def augment(pixels: Tensor, *, mirror: bool, generator: torch.Generator) -> Tensor:
    """A shifted copy of a uint8 batch (N, 3, S, S), mirrored half the time where `mirror`.

    Each image moves by up to an eighth of its side in each direction, its edge pixels repeated. All
    random numbers come from `generator`, which is a CPU one.
    """
    count, _, side, _ = pixels.shape
    reach = side // 8
    rows, columns = (torch.randint(-reach, reach + 1, (count, 1), generator=generator) for _ in range(2))
    place = torch.arange(side).expand(count, side)
    if mirror:
        flipped = torch.rand(count, 1, generator=generator) < 0.5
        columns_read = torch.where(flipped, side - 1 - place, place) + columns
    else:
        columns_read = place + columns
    rows_read = (place + rows).clamp_(0, side - 1).to(pixels.device)
    columns_read = columns_read.clamp_(0, side - 1).to(pixels.device)
    image = torch.arange(count, device=pixels.device)
    moved = pixels.permute(0, 2, 3, 1)[image[:, None, None], rows_read[:, :, None], columns_read[:, None, :]]
    return moved.permute(0, 3, 1, 2)
