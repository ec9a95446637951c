"""What a constant guess comes to: a training that does not differ from it did not get going."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LOSS_MARGIN = 0.01
_ERROR_DEVIATIONS = 2


@dataclass(frozen=True)
class Chance:
    """The best constant prediction on images of some classes.

    `loss` is the cross-entropy of predicting each class by its share of the training labels, ln(classes)
    where all are as frequent; `error` is 1 − the share of the most frequent class.
    """

    loss: float
    error: float

    def is_beaten(self, loss: float, error: float, error_se: float) -> bool:
        """Whether an epoch's mean training loss, or its validation error, is below chance.

        The loss has to be below by a hundredth, or the error by two standard errors.
        """
        by_loss = loss < self.loss * (1 - _LOSS_MARGIN)
        return by_loss or error < self.error - _ERROR_DEVIATIONS * error_se


def chance_of(labels: Tensor, classes: int, label_smoothing: float = 0.0) -> Chance:
    """Chance on labels (N,), of which `label_smoothing` is spread evenly over all classes."""
    shares = torch.bincount(labels.cpu(), minlength=classes).double() / len(labels)
    smoothed = (1 - label_smoothing) * shares + label_smoothing / classes
    return Chance(-float(torch.special.xlogy(smoothed, smoothed).sum()), 1 - float(shares.max()))
