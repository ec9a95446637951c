"""From a genome to its network, and from a proxy's weights to a larger input's."""

from __future__ import annotations

from torch import Tensor

from isonas.errors import GenomeError
from isonas.genome import Genome, Stem, stem_block
from isonas.networks.isometric import IsometricNet


def network_arguments(genome: Genome, input_side: int, classes: int) -> dict[str, int | str | bool]:
    """What `IsometricNet` is made from: plain values, as an exported model stores them."""
    stem_block(genome, input_side)
    return {
        "depth": genome.depth,
        "channels": genome.channels,
        "internal_resolution": genome.internal_resolution,
        "expansion": genome.expansion,
        "squeeze": genome.squeeze,
        "stem": str(genome.stem),
        "kernel_size": genome.kernel_size,
        "head_width": genome.head_width,
        "head_features": genome.head_features,
        "shared": genome.shared,
        "input_side": input_side,
        "classes": classes,
    }


def build_network(genome: Genome, input_side: int, classes: int) -> IsometricNet:
    """The network of a genome for images of `input_side` pixels, freshly initialised.

    Raises GenomeError where the internal resolution does not fit the input.
    """
    return IsometricNet(**network_arguments(genome, input_side, classes))  # type: ignore[arg-type]


def inflation_factor(genome: Genome, from_side: int, to_side: int) -> int:
    """How many pixels of the larger input one pixel of the smaller stands for, at the stem.

    Raises GenomeError where that is not a whole number (or an input does not fit the genome).
    """
    small, large = stem_block(genome, from_side), stem_block(genome, to_side)
    if large % small:
        raise GenomeError(
            f"the stem's block grows from {small} (input {from_side}) to {large} (input {to_side}), "
            "which is no whole factor; train at the larger input instead."
        )
    return large // small


def inflate_stem(
    weights: dict[str, Tensor], genome: Genome, from_side: int, to_side: int
) -> dict[str, Tensor]:
    """Weights for input `to_side` from weights for `from_side`, as a new dictionary.

    With f = k_to / k_from, W'[o, c, i, j] = W[o, c, ⌊i/f⌋, ⌊j/f⌋] / f²: the larger network computes
    on an image what the smaller one computes on the f×f box-averaged image. The `resize` stem
    averages by itself and keeps its weights. Raises GenomeError where f is not whole.
    """
    factor = inflation_factor(genome, from_side, to_side)
    inflated = dict(weights)
    if factor > 1 and genome.stem is not Stem.RESIZE:
        kernel = weights["stem.conv.conv.weight"]
        wide = kernel.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        inflated["stem.conv.conv.weight"] = wide / factor**2
    return inflated
