"""Augmentation of whole batches on the device they lie on."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Channel statistics of ImageNet in [0, 1], for every source: a deployed model carries them along."""


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (N, 3, S, S) to float32, channels-last, zero mean and unit variance on ImageNet."""
    mean, std = _statistics(pixels.device)
    batch = pixels.float().div_(255).sub_(mean).div_(std)
    return batch.contiguous(memory_format=torch.channels_last)


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return mean, std


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; this machine does not wait for what a GPU still has to do before."""
    if tensor.device == device or device.type == "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


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
    rows_read = sent((place + rows).clamp_(0, side - 1), pixels.device)
    columns_read = sent(columns_read.clamp_(0, side - 1), pixels.device)
    image = torch.arange(count, device=pixels.device)
    moved = pixels.permute(0, 2, 3, 1)[image[:, None, None], rows_read[:, :, None], columns_read[:, None, :]]
    return moved.permute(0, 3, 1, 2)
