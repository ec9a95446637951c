"""The ways to feed images of one side to MobileNetV3, as values with a text form.

Source: Fig. 1 and Fig. 2 of the paper (section 5); `dilated` is its Table 3 (section 7.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from isonas.errors import FeedingError


class Way(StrEnum):
    """How a network designed for a base side B reads images of side R; f = B / R.

    `plain`: the network as it is, on the R×R image: the resolution multiplier.
    `upsample`: the image is brought to B×B bilinearly.
    `zeros`: the image is spread over a B×B grid, pixel (i, j) to (f·i, f·j), with zeros between.
    `skip`: the first log2 f stride-2 operators, the stem's first, have stride 1; the weights are the same.
    `s2d`: the first layer is space-to-depth(k) and a 3×3 convolution, and k replaces the strides of the
        first log2 k stride-2 operators, the stem's included. B plays no part.
    `dilated`: stride-1 depthwise convolutions have dilation 2, and stride-2 layers, the stem's
        included, 5×5 kernels, without which the dilation leaves holes. B plays no part.
    """

    PLAIN = "plain"
    UPSAMPLE = "upsample"
    ZEROS = "zeros"
    SKIP = "skip"
    S2D = "s2d"
    DILATED = "dilated"


BLOCKS = (2, 4, 8, 16, 32)
"""Block sizes k of the space-to-depth first layer."""


@dataclass(frozen=True)
class Feeding:
    """A way to feed a network; `block` is k of `s2d` (2 to 32, a power of two), else 1.

    Raises FeedingError for any other block.
    """

    way: Way = Way.PLAIN
    block: int = 1

    def __post_init__(self) -> None:
        allowed = BLOCKS if self.way is Way.S2D else (1,)
        if self.block not in allowed:
            raise FeedingError(
                f"block {self.block} does not go with {self.way}; choose {', '.join(map(str, allowed))}."
            )

    def __str__(self) -> str:
        return f"{self.way}{self.block}" if self.way is Way.S2D else str(self.way)

    def grid_side(self, input_side: int, base_side: int) -> int:
        """The side in pixels of what the first convolution reads.

        Raises FeedingError where the image's side does not go with the way and the base side.
        """
        factor, rest = divmod(base_side, input_side) if input_side > 0 else (0, 1)
        if input_side < 1 or base_side < 1:
            raise FeedingError(
                f"input {input_side} with base {base_side} is no image; give sides of 1 or more."
            )
        match self.way:
            case Way.UPSAMPLE if input_side > base_side:
                wanted = f"at most {base_side}"
            case Way.ZEROS if rest:
                wanted = f"a divisor of {base_side}"
            case Way.SKIP if rest or factor not in (1, *BLOCKS):
                wanted = f"{base_side} divided by 1, 2, 4, 8, 16 or 32"
            case Way.S2D if input_side % self.block:
                wanted = f"a multiple of {self.block}"
            case Way.UPSAMPLE | Way.ZEROS:
                return base_side
            case _:
                return input_side
        raise FeedingError(
            f"input {input_side} cannot be fed by {self} (base {base_side}); choose an input of {wanted}."
        )

    def strides_removed(self, input_side: int, base_side: int) -> int:
        """How many of the stride-2 operators, counted from the stem, this feeding takes the place of."""
        factor = base_side // input_side if self.way is Way.SKIP else self.block
        return factor.bit_length() - 1


FEEDINGS = (*(Feeding(way) for way in Way if way is not Way.S2D), *(Feeding(Way.S2D, k) for k in BLOCKS))


def parse_feeding(text: str) -> Feeding:
    """The feeding of a text: `parse_feeding(str(feeding)) == feeding`; raises FeedingError."""
    match = re.fullmatch(r"([a-z]+|s2d(?=\d))(\d{0,3})", text, re.ASCII)
    if match is None or match[1] not in list(Way):
        raise FeedingError(f"feeding {text!r} is unknown; choose one of {', '.join(map(str, FEEDINGS))}.")
    feeding = Feeding(Way(match[1]), int(match[2] or 1))
    if str(feeding) != text:
        raise FeedingError(f"{text!r} is not canonical; write {feeding}.")
    return feeding
