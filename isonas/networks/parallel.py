"""Parallel isometric networks: one isometric network run on p² parts of an image, and averaged.

Source: Fig. 10 of the paper (section 7.5). Space-to-batch(p) hands every p-th row and column to a
sub-network of its own; the sub-networks have the same weights. With the stem's block k,

- `naive` is space-to-batch, then space-to-depth: a part is every p-th pixel, a coarse whole image;
- `swapped` is space-to-depth, then space-to-batch: a part is every p-th k×k block of pixels, each as
  fine as in the image.

Both are a rearrangement of pixels, in blocks of 1 or k, before an isometric network of internal
resolution r/p on images of side R/p.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from isonas.errors import GenomeError
from isonas.genome import Genome, stem_block
from isonas.networks.build import build_network
from isonas.networks.isometric import IsometricNet


class Split(StrEnum):
    """Which pixels a part is made of; see the head of this file."""

    NAIVE = "naive"
    SWAPPED = "swapped"


class Average(StrEnum):
    """What of the sub-networks is averaged: pooled features, before the FCs, or logits."""

    FEATURES = "features"
    LOGITS = "logits"


class ParallelIsometricNet(nn.Module):
    """(N, 3, R, R) images to (N, classes) logits: `body` on parts² parts, averaged.

    `block` is the side in pixels of what is kept together: 1 for the naive split, the stem's k for the
    swapped one.
    """

    def __init__(self, body: IsometricNet, parts: int, block: int, average: Average) -> None:
        super().__init__()
        self.body = body
        self.parts = parts
        self.block = block
        self.average = average

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        maps = self.body.forward_features(split_pixels(x, self.parts, self.block))
        if self.average is Average.LOGITS:
            return self._mean(self.body.forward_head(maps))
        return self.body.forward_head(self._mean(maps))

    def _mean(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.parts**2, *x.shape[1:]).mean(1)


def build_parallel(
    genome: Genome,
    input_side: int,
    classes: int,
    *,
    parts: int,
    split: Split,
    average: Average = Average.FEATURES,
) -> ParallelIsometricNet:
    """A genome's network as parts² sub-networks of internal resolution r / parts, freshly initialised.

    Its parameters are those of the genome's own network at the same stem block k = R/r, and so are its
    MAdds, but that SE's FCs (and the head's, where logits are averaged) run once a part. Raises
    GenomeError where the internal resolution does not divide the input or `parts` not the internal
    resolution.
    """
    k = check_parts(genome, input_side, parts)
    resolution = genome.internal_resolution
    body = build_network(
        replace(genome, internal_resolution=resolution // parts), input_side // parts, classes
    )
    return ParallelIsometricNet(body, parts, 1 if split is Split.NAIVE else k, average)


def check_parts(genome: Genome, input_side: int, parts: int) -> int:
    """The stem's block k = R/r; raises GenomeError where a network cannot be taken apart like this."""
    resolution = genome.internal_resolution
    if resolution > input_side:
        raise GenomeError(
            f"internal resolution {resolution} is above input {input_side}; choose at most the input, "
            "since parallel networks take the image apart and never enlarge it."
        )
    if parts < 1 or resolution % parts:
        raise GenomeError(
            f"{parts} parts a side do not divide internal resolution {resolution}; choose a divisor of it."
        )
    return stem_block(genome, input_side)


def split_pixels(x: Tensor, parts: int, block: int) -> Tensor:
    """(N, C, R, R) to (N·parts², C, R/parts, R/parts): every parts-th block×block of pixels.

    The parts of an image follow each other, by row phase, then by column phase.
    """
    count, channels, height, width = x.shape
    cut = x.reshape(
        count, channels, height // (parts * block), parts, block, width // (parts * block), parts, block
    )
    return cut.permute(0, 3, 6, 1, 2, 4, 5, 7).reshape(-1, channels, height // parts, width // parts)


def mask_view(input_side: int, parts: int, block: int) -> npt.NDArray[np.bool_]:
    """(parts², R, R): which pixels of the image each sub-network sees. They are a partition."""
    rows = np.arange(input_side) // block % parts
    phase = rows[:, None] * parts + rows
    seen: npt.NDArray[np.bool_] = phase == np.arange(parts**2)[:, None, None]
    return seen


def batch_view(image: npt.NDArray[np.uint8], parts: int, block: int) -> npt.NDArray[np.uint8]:
    """(R, R, 3) to (parts², R/parts, R/parts, 3): the image that each sub-network is given."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    return np.ascontiguousarray(split_pixels(pixels, parts, block).permute(0, 2, 3, 1).numpy())


def dilate(network: IsometricNet, rate: int) -> None:
    """Give every depthwise convolution of an isometric network a dilation, and the padding it needs.

    In place, weights as they are. With `rate` parts a side the result computes what a swapped parallel
    network with the same weights does if its stem is `s2d`, `rate` divides the internal resolution,
    padding is zero, there is no SE, and features are averaged.
    """
    for block in network.blocks:
        convolution = block.get_submodule("depthwise.conv")
        assert isinstance(convolution, nn.Conv2d)
        size = rate * (convolution.kernel_size[0] // 2)
        convolution.dilation = (rate, rate)
        convolution.padding = (size, size)
        # Read by every padding mode but zeros.
        convolution._reversed_padding_repeated_twice = [size] * 4
