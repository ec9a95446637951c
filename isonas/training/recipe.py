"""How a network is trained: numbers with their units, and schedules of progress in [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass

RATE_GROWTH = 4
"""Times the peak rate at batch size 32 that larger batches have at most: that of 128 images."""


@dataclass(frozen=True)
class Recipe:
    """The short schedule of a proxy: SGD with Nesterov momentum, one cycle, label smoothing.

    `epochs`, `epoch_images` and `batch_size` are what a user sets: an epoch takes the next
    `epoch_images` of the endlessly reshuffled training images (all of them where it is None), so a
    large data set need not be walked through to see a learning curve. `peak_rate` is the learning
    rate at batch size 32 (it grows with the batch, and is no more than RATE_GROWTH times that, for at
    higher rates trainings stay at chance), `warmup` the share of all steps until the peak;
    `weight_decay` is applied to weights of convolutions and FCs, not to biases and batch norm.
    """

    epochs: int = 4
    epoch_images: int | None = 4000
    batch_size: int = 32
    peak_rate: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.25
    label_smoothing: float = 0.1

    def rate(self, progress: float) -> float:
        """The learning rate at a share of all steps: linear up to the peak, then cosine to zero."""
        peak = self.peak_rate * min(self.batch_size / 32, RATE_GROWTH)
        if progress < self.warmup:
            return peak * progress / self.warmup
        return peak * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2
