"""Counting right answers: top-1 and top-5, class by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from isonas.data.augment import normalise
from isonas.data.dataset import Images
from isonas.data.resize import downsample
from isonas.training.deployed import Upsampled
from isonas.training.machine import Machine

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RightAnswers:
    """For each class its `images`, and how many of them were right at first (`top1`) or among the five
    likeliest (`top5`; all of them where there are fewer classes)."""

    images: Counts
    top1: Counts
    top5: Counts

    @property
    def error(self) -> float:
        """1 − top-1 over all images."""
        return 1 - float(self.top1.sum()) / int(self.images.sum())

    @property
    def error_se(self) -> float:
        """The binomial standard error of `error`."""
        return float(np.sqrt(self.error * (1 - self.error) / int(self.images.sum())))

    @property
    def top5_accuracy(self) -> float:
        """Top-5 over all images."""
        return float(self.top5.sum()) / int(self.images.sum())


@torch.no_grad()
def right_answers(
    network: nn.Module, images: Images, side: int, machine: Machine, rows: Counts | None = None
) -> RightAnswers:
    """Put images, area-downsampled to `side` pixels as wholes, to a network in evaluation mode.

    All of them, or those of some `rows`; a few at a time, so that mapped ones stay in their file.
    """
    network.eval()
    count, found, size = 0, [], machine.validation_batch
    chosen = np.arange(len(images)) if rows is None else rows
    for start in range(0, len(chosen), size):
        now = chosen[start : start + size]
        part = Images(images.pixels[now], images.labels[now])
        pixels = torch.from_numpy(np.array(downsample(part, side).pixels)).to(machine.device)
        with machine.autocast():
            logits = network(normalise(pixels)).float()
        count = logits.shape[1]
        ranked = logits.topk(min(5, count)).indices.cpu().numpy()
        found.append(ranked == part.labels[:, None])
    right: npt.NDArray[np.bool_] = np.concatenate(found) if found else np.zeros((0, 1), bool)

    labels = images.labels[chosen]

    def by_class(which: npt.NDArray[np.bool_]) -> Counts:
        return np.bincount(labels[which], minlength=count)

    return RightAnswers(
        by_class(np.ones(len(labels), bool)),
        by_class(right[:, 0]),
        by_class(np.logical_or.reduce(right, axis=1)),
    )


def as_called(network: nn.Module, input_side: int, image_side: int) -> nn.Module:
    """A network for `input_side` pixels, upsampling images that are smaller."""
    return network if image_side >= input_side else Upsampled(network, input_side)
