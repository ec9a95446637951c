"""Networks with the ranges of trained ones, and what int8 makes of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from isonas.data.augment import normalise
from isonas.export.folded import fold
from isonas.export.quantise import IntegerNetwork, quantise
from isonas.export.ranges import observe
from isonas.genome import parse_genome
from isonas.networks.build import build_network
from isonas.networks.isometric import IsometricNet

CLASSES = 10


def lively_network(text: str, side: int, seed: int = 0) -> IsometricNet:
    """Random weights; batch norms that have seen images, with shifts and gains of their own."""
    torch.manual_seed(seed)
    network = build_network(parse_genome(text), side, CLASSES)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.get_parameter("bias"), 0, 0.3)
            layer.momentum = None
    nn.init.normal_(network.classifier.get_parameter("weight"), std=0.1)
    network.train()
    with torch.no_grad():
        network(normalise(torch.from_numpy(smooth_images(4, side, seed))))
    return network.eval()


def smooth_images(count: int, side: int, seed: int) -> npt.NDArray[np.uint8]:
    """(count, 3, side, side): a few colours that run into each other, and noise."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.integers(0, 256, (count, 3, 8, 8)).astype(np.float32))
    smooth = nn.functional.interpolate(coarse, (side, side), mode="bilinear").numpy()
    noisy = smooth + rng.normal(0, 12, smooth.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def integers_of(network: IsometricNet, text: str, side: int, planes: int = 3) -> IntegerNetwork:
    """The integer network, calibrated on smooth images."""
    images = smooth_images(16, side, 5)
    return quantise(fold(network, planes), observe(network, images), parse_genome(text), side, planes)
