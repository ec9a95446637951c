"""A trained network as plain numbers: batch norm folded, the pixels' normalisation folded in.

What int8 formats are made from. Weights are float64 NumPy arrays; images are pixels 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from isonas.data.augment import MEAN, STD
from isonas.networks.isometric import Block, ConvNorm, IsometricNet, SqueezeExcite

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """A convolution or FC: `weights` (outputs, inputs per group, height, width), `bias` (outputs,)."""

    weights: Floats
    bias: Floats


@dataclass(frozen=True)
class FoldedBlock:
    """A block's layers; `squeeze` and `excite` are its SE's, None without."""

    expand: Affine
    depthwise: Affine
    project: Affine
    squeeze: Affine | None
    excite: Affine | None


@dataclass(frozen=True)
class FoldedNetwork:
    """An isometric network whose first layer reads pixels.

    `stem` multiplies pixels 0 to 255. What it adds for the pixels' mean is not in its bias: a tap
    outside the image is zero after normalisation, so it contributes neither a pixel nor a mean.
    `stem_means` (outputs, height, width) is what each tap inside the image subtracts. `blocks` has one
    entry a use: where weights are shared, `depth` equal ones.
    """

    stem: Affine
    stem_means: Floats
    blocks: tuple[FoldedBlock, ...]
    head: Affine
    features: Affine | None
    classifier: Affine


def fold(network: IsometricNet, planes: int = 3) -> FoldedNetwork:
    """The network's numbers, for images of 3 colours or of 1 plane of grey that stands for all three."""
    stem = _normed(network.stem.conv)
    deviation = np.array(STD)[:, None, None]
    mean = np.array(MEAN)[:, None, None]
    pixels = stem.weights / (255 * deviation)
    used = [network.blocks[use % len(network.blocks)] for use in range(network.depth)]
    return FoldedNetwork(
        stem=Affine(pixels if planes == 3 else pixels.sum(1, keepdims=True), stem.bias),
        stem_means=(stem.weights * (mean / deviation)).sum(1),
        blocks=tuple(_block(block) for block in used),
        head=_normed(network.head_conv),
        features=None if isinstance(network.features, nn.Identity) else _plain(network.features),
        classifier=_plain(network.classifier),
    )


def _block(block: nn.Module) -> FoldedBlock:
    assert isinstance(block, Block)
    se = block.se if isinstance(block.se, SqueezeExcite) else None
    return FoldedBlock(
        expand=_normed(block.expand),
        depthwise=_normed(block.depthwise),
        project=_normed(block.project),
        squeeze=_plain(se.reduce) if se else None,
        excite=_plain(se.expand) if se else None,
    )


def _normed(layer: nn.Module) -> Affine:
    assert isinstance(layer, ConvNorm)
    norm = layer.norm
    assert norm.running_var is not None
    assert norm.running_mean is not None
    gain = _numbers(norm.weight) / np.sqrt(_numbers(norm.running_var) + norm.eps)
    bias = _numbers(norm.bias) - _numbers(norm.running_mean) * gain
    return Affine(_numbers(layer.conv.weight) * gain[:, None, None, None], bias)


def _plain(layer: nn.Module) -> Affine:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    weights = _numbers(layer.weight)
    return Affine(weights.reshape(*weights.shape[:2], 1, 1), _numbers(layer.bias))


def _numbers(tensor: Tensor | None) -> Floats:
    assert tensor is not None
    numbers: Floats = tensor.detach().cpu().double().numpy()
    return numbers
