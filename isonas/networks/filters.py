"""First-layer filters as images, sorted into two kinds, and training with some of them frozen.

Source: Fig. 6 of the paper, whose filters are of two kinds to the eye: blob-like (type I) and
maze-like (type II).
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

Floats = npt.NDArray[np.float64]


class FilterKind(StrEnum):
    """Type I of the paper is `blob`, type II `maze`."""

    BLOB = "blob"
    MAZE = "maze"


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """The name and the layer of the first convolution that reads RGB; raises ValueError for none."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 3 and layer.groups == 1:
            return name, layer
    raise ValueError("the network has no convolution that reads 3 channels")


def first_layer_filters(network: nn.Module) -> Floats:
    """The weights (channels, 3, k, k) with which a network reads images, as it applies them."""
    _, layer = first_convolution(network)
    weight = layer.effective_weight() if isinstance(layer, PartlyFrozenConv) else layer.weight
    return weight.detach().cpu().double().numpy()


def coarse_share(filters: Floats, cut: float = 0.25) -> Floats:
    """The share of each filter's spectral energy at radial frequencies up to `cut` cycles a pixel.

    (channels, 3, k, k) to (channels,), in [0, 1]. The default is half the highest frequency that pixels
    have, so what is coarse has strokes of two pixels and more. A blob varies slowly and scores near 1; a
    maze alternates from pixel to pixel and scores near 0; white noise scores the share of frequencies
    that are coarse (13/64 at k = 8). Energy is summed over the colours. The measure does not change with
    a filter's scale or sign, nor when it is mirrored, turned by 90°, rolled around its edges, or its
    colours are exchanged. A filter of zeros scores 1: it has no stroke.
    """
    energy = (np.abs(np.fft.fft2(filters)) ** 2).sum(1)
    frequencies = np.fft.fftfreq(filters.shape[-1])
    radius = np.hypot(frequencies[:, None], frequencies)
    total = energy.sum((1, 2))
    coarse = (energy * (radius <= cut + 1e-9)).sum((1, 2))
    return np.where(total > 0, coarse / np.where(total > 0, total, 1), 1.0)


def filter_kinds(filters: Floats, threshold: float = 0.5) -> tuple[FilterKind, ...]:
    """The kind of each filter: blob where most of its energy is coarse, else maze.

    Below k = 4 there are too few frequencies to tell the kinds apart; at k = 1 all are blobs.
    """
    return tuple(FilterKind.BLOB if share > threshold else FilterKind.MAZE for share in coarse_share(filters))


def filter_images(filters: Floats) -> Floats:
    """(channels, 3, k, k) to (channels, k, k, 3) in [0, 1]: grey is zero, each filter at full contrast."""
    largest = np.abs(filters).max((1, 2, 3), keepdims=True)
    scaled = filters / np.where(largest > 0, largest, 1)
    return (0.5 + 0.5 * scaled).transpose(0, 2, 3, 1)


def filter_grid(filters: Floats, columns: int = 8, gap: int = 1) -> Floats:
    """All filters as one RGB picture (height, width, 3) in [0, 1], row by row, white between.

    Raises ValueError where `columns` is below 1.
    """
    if columns < 1:
        raise ValueError(f"columns is {columns}; give 1 or more")
    images = filter_images(filters)
    count, side = images.shape[:2]
    rows, step = -(-count // columns), side + gap
    grid = np.ones((rows * step + gap, columns * step + gap, 3))
    for index, image in enumerate(images):
        top, left = (gap + place * step for place in divmod(index, columns))
        grid[top : top + side, left : left + side] = image
    return grid


class PartlyFrozenConv(nn.Conv2d):
    """A convolution some of whose output channels are fixed, under any optimiser and weight decay.

    The state has two buffers more, `frozen` (outputs, 1, 1, 1) and `fixed` (the weight's shape); of
    `weight` only the rows that are not frozen are used.
    """

    frozen: Tensor
    fixed: Tensor

    def __init__(self, source: nn.Conv2d, fixed: Tensor, frozen: Tensor) -> None:
        super().__init__(
            source.in_channels,
            source.out_channels,
            source.kernel_size,  # type: ignore[arg-type]
            source.stride,  # type: ignore[arg-type]
            source.padding,  # type: ignore[arg-type]
            bias=False,
        )
        self.weight = source.weight
        self.register_buffer("frozen", frozen.reshape(-1, 1, 1, 1))
        self.register_buffer("fixed", fixed)

    def effective_weight(self) -> Tensor:
        """The weight as applied: fixed rows and trained ones."""
        return torch.where(self.frozen, self.fixed, self.weight)

    def forward(self, input: Tensor) -> Tensor:
        """(N, inputs, S, S) to (N, outputs, S', S')."""
        return functional.conv2d(input, self.effective_weight(), None, self.stride, self.padding)


def freeze_filters(
    network: nn.Module, filters: Floats, kept: npt.NDArray[np.bool_], *, remove_others: bool = False
) -> None:
    """Fix the `kept` channels (boolean, one each) of a network's first layer to those of `filters`.

    In place. The other channels are trained from what the network has, or, with `remove_others`, fixed
    at zero: their channel is then a constant, its batch norm's offset. Raises ValueError where shapes
    do not match the first layer.
    """
    name, layer = first_convolution(network)
    if filters.shape != tuple(layer.weight.shape) or kept.shape != filters.shape[:1]:
        raise ValueError(
            f"filters {filters.shape} and kept {kept.shape} do not fit a first layer of weights "
            f"{tuple(layer.weight.shape)}"
        )
    chosen = torch.from_numpy(kept)
    fixed = torch.from_numpy(np.where(kept[:, None, None, None], filters, 0)).to(layer.weight)
    frozen = torch.ones_like(chosen) if remove_others else chosen
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, PartlyFrozenConv(layer, fixed, frozen.to(fixed.device)))
