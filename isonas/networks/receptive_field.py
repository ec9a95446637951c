"""Receptive fields in closed form: which pixels a unit at some depth can depend on.

SE and the final pooling, through which every unit depends on the whole image, are left out, and so are
1×1 convolutions. Sizes are in pixels of what the first convolution (or pooling) reads: the enlarged
image where a network upsamples or spreads its input. Source: Fig. 8 of the paper (sections
6.1 and 7.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from isonas.genome import Genome, Stem, stem_block
from isonas.networks.mobilenetv3_plan import Convolution, MobileNetV3Plan


@dataclass(frozen=True)
class Field:
    """What a unit sees: `size` pixels a side, every unit `jump` pixels further, unit 0's from `start`.

    `start` is negative where padding is seen.
    """

    size: int = 1
    jump: int = 1
    start: int = 0

    def after(self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Field:
        """The field of a unit that reads a kernel of units with this field."""
        return Field(
            self.size + (kernel - 1) * dilation * self.jump,
            self.jump * stride,
            self.start - padding * self.jump,
        )

    def seen(self, unit: int, side: int) -> tuple[int, int]:
        """First and last pixel that a unit (0 is the first) sees of an image of `side` pixels."""
        first = self.start + unit * self.jump
        return max(first, 0), min(first + self.size, side) - 1

    def share(self, side: int) -> float:
        """The part of an image's side that a unit in the middle sees, up to 1."""
        return min(self.size / side, 1.0)


def isometric_fields(genome: Genome, input_side: int, *, dilation: int = 1) -> tuple[Field, ...]:
    """Behind the stem and behind each block, so depth + 1 fields.

    With the `s2d` stem of block k, after n blocks of kernel q the size is k(1 + (q − 1)n); with the
    other stems (3×3 on the grid of k×k blocks) k(3 + (q − 1)n). A dilation of the depthwise
    convolutions multiplies q − 1; it is that of a swapped parallel network of as many parts a side.
    Raises GenomeError where the internal resolution does not fit the input.
    """
    k, q = stem_block(genome, input_side), genome.kernel_size
    match genome.stem:
        case Stem.S2D:
            stem = Field().after(k, k)
        case Stem.CONV:
            stem = Field().after(3 * k, k, padding=k)
        case Stem.RESIZE:
            stem = Field().after(k, k).after(3, padding=1)
    reach = dilation * (q // 2)
    return tuple(
        Field(stem.size + (q - 1) * dilation * k * n, k, stem.start - reach * k * n)
        for n in range(genome.depth + 1)
    )


def mobilenetv3_fields(plan: MobileNetV3Plan) -> tuple[Field, ...]:
    """Behind the stem and behind each of the fifteen blocks."""

    def through(field: Field, layer: Convolution) -> Field:
        return field.after(layer.kernel, layer.stride, layer.padding, layer.dilation)

    layers = (plan.stem, *(block.depthwise for block in plan.blocks))
    return tuple(accumulate(layers, through, initial=Field()))[1:]


def depth_that_covers(fields: tuple[Field, ...], side: int) -> int | None:
    """How many blocks it takes until a field is as large as an image of `side` pixels; None: too few."""
    return next((depth for depth, field in enumerate(fields) if field.size >= side), None)
