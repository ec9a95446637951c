"""MobileNetV3-Large at any width and feeding as a list of layers, and its counts in closed form.

Source: Howard et al. (2019), "Searching for MobileNetV3", Table 1; the width multiplier is timm's. No
PyTorch here: `isonas.networks.mobilenetv3` builds what this file plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from isonas.networks.feeding import Feeding, Way

BASE_SIDE = 224
"""The side in pixels of the images that MobileNetV3 was designed for, and the paper's base."""

FEATURES = 1280
"""Width of the hidden FC, whatever the width multiplier."""


@dataclass(frozen=True)
class Convolution:
    """A square convolution and its batch norm, without bias; `side` is its output's, in pixels."""

    inputs: int
    outputs: int
    kernel: int
    side: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    depthwise: bool = False

    @property
    def weights(self) -> int:
        """Weights of the kernel."""
        return self.outputs * self.kernel**2 * (1 if self.depthwise else self.inputs)

    @property
    def params(self) -> int:
        """Weights, and batch norm's γ and β."""
        return self.weights + 2 * self.outputs

    @property
    def madds(self) -> int:
        """Multiply-adds for one image."""
        return self.weights * self.side**2

    @property
    def elements(self) -> int:
        """Elements of the output at batch 1."""
        return self.outputs * self.side**2


@dataclass(frozen=True)
class BlockPlan:
    """An inverted bottleneck; `expand` is None in the first, `squeeze` is 0 without SE."""

    expand: Convolution | None
    depthwise: Convolution
    project: Convolution
    squeeze: int
    hard_swish: bool
    """h-swish after expansion and depthwise convolution, else ReLU."""
    residual: bool

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """In the order of execution."""
        expand = (self.expand,) if self.expand else ()
        return (*expand, self.depthwise, self.project)


@dataclass(frozen=True)
class MobileNetV3Plan:
    """The layers of a fed MobileNetV3-Large, and what they cost for one image of `input_side` pixels."""

    feeding: Feeding
    input_side: int
    grid_side: int
    stem: Convolution
    blocks: tuple[BlockPlan, ...]
    head: Convolution
    classes: int

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Every convolution with a batch norm, in the order of execution; SE's are not among them."""
        inner = (convolution for block in self.blocks for convolution in block.convolutions)
        return (self.stem, *inner, self.head)

    @property
    def params(self) -> int:
        """Parameters as trained: weights, biases, and batch norm's γ and β."""
        gates = sum(
            2 * block.squeeze * block.depthwise.outputs + block.squeeze + block.depthwise.outputs
            for block in self.blocks
            if block.squeeze
        )
        head = (self.head.outputs + 1) * FEATURES + (FEATURES + 1) * self.classes
        return sum(convolution.params for convolution in self.convolutions) + gates + head

    @property
    def madds(self) -> int:
        """Multiply-adds of convolutions and FCs, the SE's included; all else counts 0."""
        gates = sum(2 * block.squeeze * block.depthwise.outputs for block in self.blocks)
        head = self.head.outputs * FEATURES + FEATURES * self.classes
        return sum(convolution.madds for convolution in self.convolutions) + gates + head

    def largest_activation(self, *, with_input: bool = True) -> int:
        """Elements of the largest single tensor at batch 1 (memory model `largest`).

        Without the input, what comes before the stem's output is left out.
        """
        image = 3 * max(self.input_side, self.grid_side) ** 2 if with_input else 0
        return max(image, *(convolution.elements for convolution in self.convolutions), self.classes)

    def inputs_and_outputs(self, *, with_input: bool = True) -> int:
        """Largest inputs + outputs of one layer in elements at batch 1 (memory model `paper`)."""
        image, grid = 3 * self.input_side**2, 3 * self.grid_side**2
        first = max(grid + self.stem.elements, image + grid if image != grid else 0)
        sums = [first] if with_input else []
        for before, after in pairwise(self.convolutions):
            sums.append(before.elements + after.elements)
        for block in self.blocks:
            if block.squeeze:
                sums.append(2 * block.depthwise.elements + block.depthwise.outputs)
            if block.residual:
                sums.append(3 * block.project.elements)
        sums += [self.head.elements + self.head.outputs, self.head.outputs + FEATURES]
        return max(*sums, FEATURES + self.classes)


@dataclass(frozen=True)
class _Row:
    kernel: int
    stride: int
    expansion: float
    channels: int
    squeezes: bool
    hard_swish: bool


def _rows(*groups: tuple[int, int, int, tuple[float, ...], int, bool, bool]) -> tuple[_Row, ...]:
    rows = []
    for kernel, first_stride, stride, expansions, channels, squeezes, hard_swish in groups:
        for index, expansion in enumerate(expansions):
            step = stride if index else first_stride
            rows.append(_Row(kernel, step, expansion, channels, squeezes, hard_swish))
    return tuple(rows)


# Kernel, stride of the first and of the others, expansion ratios, channels, SE, h-swish (else ReLU).
_TABLE = _rows(
    (3, 1, 1, (1,), 16, False, False),
    (3, 2, 1, (4, 3), 24, False, False),
    (5, 2, 1, (3, 3, 3), 40, True, False),
    (3, 2, 1, (6, 2.5, 2.3, 2.3), 80, False, True),
    (3, 1, 1, (6, 6), 112, True, True),
    (5, 2, 1, (6, 6, 6), 160, True, True),
)
_STEM_CHANNELS = 16
_HEAD_CHANNELS = 960


def plan_mobilenetv3(
    width: float = 1.0,
    feeding: Feeding | None = None,
    input_side: int = BASE_SIDE,
    *,
    base_side: int = BASE_SIDE,
    classes: int = 1000,
) -> MobileNetV3Plan:
    """The layers of MobileNetV3-Large for images of `input_side` pixels, fed as asked (default: plain).

    Channels are those of the table times `width`, in multiples of eight; a hidden width is the table's
    ratio of the block's actual input width, and the stem is not narrowed below width 0.75 (as in timm).
    Whether a block has a residual is the table's doing, not the feeding's. Raises FeedingError where
    the image does not go with the feeding, ValueError where `width` is not above 0.
    """
    if not width > 0:
        raise ValueError(f"width is {width}; give a number above 0")
    feeding = feeding or Feeding()
    grid = feeding.grid_side(input_side, base_side)
    removed = feeding.strides_removed(input_side, base_side)
    channels = _STEM_CHANNELS if width < 0.75 else _divisible(_STEM_CHANNELS * width)
    stem = _stem(feeding, removed, grid, channels)
    to_remove = max(removed - 1, 0)
    side = stem.side
    blocks = []
    for row in _TABLE:
        hidden, outputs = _divisible(channels * row.expansion), _divisible(row.channels * width)
        stride, kernel, dilation = row.stride, row.kernel, 1
        if stride == 2 and to_remove:
            stride, to_remove = 1, to_remove - 1
        if feeding.way is Way.DILATED:
            kernel, dilation = (5, 1) if stride == 2 else (row.kernel, 2)
        expand = Convolution(channels, hidden, 1, side) if row.expansion > 1 else None
        side = -(-side // stride)
        hidden = hidden if expand else channels
        depthwise = Convolution(
            hidden, hidden, kernel, side, stride, dilation * (kernel // 2), dilation, depthwise=True
        )
        blocks.append(
            BlockPlan(
                expand,
                depthwise,
                Convolution(hidden, outputs, 1, side),
                _divisible(hidden / 4) if row.squeezes else 0,
                row.hard_swish,
                residual=row.stride == 1 and channels == outputs,
            )
        )
        channels = outputs
    head = Convolution(channels, _divisible(_HEAD_CHANNELS * width), 1, side)
    return MobileNetV3Plan(feeding, input_side, grid, stem, tuple(blocks), head, classes)


def _stem(feeding: Feeding, removed: int, grid: int, channels: int) -> Convolution:
    if feeding.way is Way.S2D:
        # Space-to-depth(k) and a 3×3 convolution are one 3k×3k convolution of stride k.
        k = feeding.block
        return Convolution(3, channels, 3 * k, grid // k, stride=k, padding=k)
    stride = 1 if removed else 2
    kernel = 5 if feeding.way is Way.DILATED else 3
    return Convolution(3, channels, kernel, -(-grid // stride), stride, kernel // 2)


def _divisible(value: float) -> int:
    """The multiple of 8 nearest to a width, at least 8 and not more than a tenth below it."""
    nearest = max(8, int(value + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * value else nearest
