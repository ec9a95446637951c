"""The layers of a genome's network one by one: what `isonas cost` prints.

Source: Table 2 and Fig. 5 of the paper. Written beside `isonas.cost`, not from it: the sums of this
list and the closed forms there are checked against each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isonas.cost import Deployment
from isonas.genome import Genome, Stem, stem_block


@dataclass(frozen=True)
class Layer:
    """One operator, its batch norm and activation included.

    `channels` and `side` are its output's. `reads` and `writes` are the elements of its inputs and
    output at batch 1, `held` of what else is alive (a block's residual, the tensor SE will scale).
    With a batch norm, `biases` are its folded biases. Weights that an earlier layer owns (`shared`)
    are not counted again.
    """

    name: str
    operator: str
    channels: int
    side: int
    reads: int
    writes: int
    held: int = 0
    weights: int = 0
    biases: int = 0
    batch_norm: bool = False
    madds: int = 0

    @property
    def params(self) -> int:
        """Trained numbers: weights, and biases or batch norm's γ and β."""
        return self.weights + self.biases * (2 if self.batch_norm else 1)

    @property
    def alive(self) -> int:
        """Elements alive while the layer runs, activation in place (memory model `fused`)."""
        return self.reads + self.writes + self.held


def layers(genome: Genome, at: Deployment) -> tuple[Layer, ...]:
    """Every layer in the order of execution; raises GenomeError where the input does not fit."""
    return (*_stem(genome, at), *_blocks(genome), *_head(genome, at))


def _stem(genome: Genome, at: Deployment) -> Iterator[Layer]:
    side, k = genome.internal_resolution, stem_block(genome, at.input)
    image = 3 * at.input**2
    small = 3 * side**2
    if side > at.input:
        yield Layer("stem.upsample", "bilinear", 3, side, image, small)
        image = small
    if genome.stem is Stem.RESIZE and k > 1:
        yield Layer("stem.pool", f"average {k}×{k}", 3, side, image, small)
        image = small
    kernel = {Stem.S2D: k, Stem.CONV: 3 * k, Stem.RESIZE: 3}[genome.stem]
    stride = 1 if genome.stem is Stem.RESIZE else k
    operator = f"conv {kernel}×{kernel} /{stride}"
    yield _convolution("stem.conv", operator, genome.channels, side, image, 3 * kernel**2)


def _blocks(genome: Genome) -> Iterator[Layer]:
    c, hidden, squeeze = genome.channels, genome.hidden, genome.squeeze
    side, area = genome.internal_resolution, genome.internal_resolution**2
    residual, wide = c * area, hidden * area
    for block in range(genome.depth):
        name, first = f"block{block + 1}", block == 0 or not genome.shared
        yield _convolution(f"{name}.expand", "conv 1×1", hidden, side, residual, c, own=first)
        yield _convolution(
            f"{name}.depthwise",
            f"depthwise {genome.kernel_size}×{genome.kernel_size}",
            hidden,
            side,
            wide,
            genome.kernel_size**2,
            held=residual,
            own=first,
        )
        if squeeze:
            held = residual + wide
            yield Layer(f"{name}.se.pool", "mean", hidden, 1, wide, hidden, residual)
            yield _fc(f"{name}.se.reduce", squeeze, hidden, held=held, own=first)
            yield _fc(f"{name}.se.expand", hidden, squeeze, held=held, own=first)
            yield Layer(f"{name}.se.scale", "scale", hidden, side, wide + hidden, wide, residual)
        yield _convolution(f"{name}.project", "conv 1×1", c, side, wide, hidden, held=residual, own=first)
        yield Layer(f"{name}.add", "add", c, side, 2 * residual, residual)


def _head(genome: Genome, at: Deployment) -> Iterator[Layer]:
    side, area, width = genome.internal_resolution, genome.internal_resolution**2, genome.head_width
    c, features = genome.channels, genome.head_features
    yield _convolution("head.conv", "conv 1×1", width, side, c * area, c)
    yield Layer("head.pool", "mean", width, 1, width * area, width)
    if features:
        yield _fc("head.features", features, width)
    yield _fc("head.classes", at.classes, features or width)


def _convolution(
    name: str,
    operator: str,
    channels: int,
    side: int,
    reads: int,
    fan_in: int,
    *,
    held: int = 0,
    own: bool = True,
) -> Layer:
    return Layer(
        name,
        operator,
        channels,
        side,
        reads,
        channels * side**2,
        held,
        weights=fan_in * channels if own else 0,
        biases=channels if own else 0,
        batch_norm=True,
        madds=fan_in * channels * side**2,
    )


def _fc(name: str, width: int, fan_in: int, *, held: int = 0, own: bool = True) -> Layer:
    return Layer(
        name,
        "fc",
        width,
        1,
        fan_in,
        width,
        held,
        weights=fan_in * width if own else 0,
        biases=width if own else 0,
        madds=fan_in * width,
    )
