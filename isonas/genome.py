"""One isometric architecture as a value, and its text form.

Source of the family: Sandler, Baccash, Zhmoginov, Howard (2019), "Non-discriminative data or weak
model?", Table 2 and Fig. 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any

from isonas.errors import GenomeError


class Stem(StrEnum):
    """How the image reaches the internal resolution; k is the stem's block size.

    `s2d` is a k×k stride-k convolution (space-to-depth(k), then 1×1), `conv` a 3k×3k stride-k one
    (space-to-depth(k), then 3×3), `resize` a k×k average pooling and a 3×3 convolution.
    """

    S2D = "s2d"
    CONV = "conv"
    RESIZE = "resize"


@dataclass(frozen=True, slots=True)
class Genome:
    """An isometric network, up to its input side and class count.

    The defaults are the paper's `l = 16, r = 14, m = 1` network (Table 2). `se_ratio` is 0 or 1/n,
    the squeeze width as a part of the hidden width; `head_features` 0 means no hidden FC; `shared`
    means one block, batch norm included, used `depth` times.

    Raises GenomeError for values out of range and for a squeeze width that is not whole.
    """

    depth: int = 16
    channels: int = 64
    internal_resolution: int = 14
    expansion: int = 6
    se_ratio: Fraction = Fraction(1, 4)
    stem: Stem = Stem.S2D
    kernel_size: int = 3
    head_multiple: int = 12
    head_features: int = 1280
    shared: bool = False

    def __post_init__(self) -> None:
        for gene, (low, high) in RANGES.items():
            value = getattr(self, gene)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise GenomeError(f"{gene} is {value!r}; give a whole number from {low} to {high}.")
        if self.kernel_size % 2 == 0:
            raise GenomeError(f"kernel_size is {self.kernel_size}; give an odd number.")
        if not isinstance(self.shared, bool):
            raise GenomeError(f"shared is {self.shared!r}; give true or false.")
        object.__setattr__(self, "stem", parse_stem(self.stem))
        object.__setattr__(self, "se_ratio", parse_se_ratio(self.se_ratio))
        if self.hidden % (self.se_ratio.denominator if self.se_ratio else 1):
            raise GenomeError(
                f"se_ratio {self.se_ratio} of {self.hidden} hidden channels is not whole; "
                "choose a ratio 1/n whose n divides expansion × channels."
            )

    @property
    def hidden(self) -> int:
        """Hidden width E of a block, in channels."""
        return self.expansion * self.channels

    @property
    def squeeze(self) -> int:
        """Squeeze width s of a block's SE, in channels; 0 without SE."""
        return int(self.hidden * self.se_ratio)

    @property
    def head_width(self) -> int:
        """Width h of the 1×1 convolution before the pooling, in channels."""
        return self.head_multiple * self.channels

    def __str__(self) -> str:
        squeeze = self.se_ratio.denominator if self.se_ratio else 0
        text = (
            f"isonet_l{self.depth}_c{self.channels}_r{self.internal_resolution}"
            f"_e{self.expansion}_se{squeeze}_{self.stem}"
        )
        for gene, letter in SUFFIXES.items():
            if (value := getattr(self, gene)) != DEFAULTS[gene]:
                text += f"_{letter}{value}"
        return text + ("_shared" if self.shared else "")


# Far beyond any useful network, and low enough that every cost fits 64 bits.
RANGES = {
    "depth": (1, 1000),
    "channels": (1, 4096),
    "internal_resolution": (1, 512),
    "expansion": (1, 16),
    "kernel_size": (1, 31),
    "head_multiple": (1, 64),
    "head_features": (0, 65536),
}
SUFFIXES = {"kernel_size": "k", "head_multiple": "m", "head_features": "h"}
GENES = tuple(field.name for field in fields(Genome))
DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Genome)}

_TEXT = re.compile(
    r"isonet_l(?P<depth>\d+)_c(?P<channels>\d+)_r(?P<internal_resolution>\d+)_e(?P<expansion>\d+)"
    r"_se(?P<se>\d+)_(?P<stem>[a-z0-9]+)(?:_k(?P<kernel_size>\d+))?(?:_m(?P<head_multiple>\d+))?"
    r"(?:_h(?P<head_features>\d+))?(?P<shared>_shared)?",
    re.ASCII,
)


def parse_genome(text: str) -> Genome:
    """The genome that a canonical text names: `parse_genome(str(g)) == g`.

    Raises GenomeError where the text is not of the form, is not canonical (leading zeros, a default
    written out), or names values out of range.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise GenomeError(
            f"{text!r} is not a genome; write one like {Genome()} "
            "(then _k5, _m8, _h0, _shared, in this order, where they differ from the default)."
        )
    found = match.groupdict()
    squeeze = _whole(found.pop("se"))
    genome = Genome(
        stem=parse_stem(found.pop("stem")),
        shared=found.pop("shared") is not None,
        se_ratio=Fraction(1, squeeze) if squeeze else Fraction(0),
        **{gene: _whole(digits) for gene, digits in found.items() if digits is not None},
    )
    if str(genome) != text:
        raise GenomeError(f"{text!r} is not canonical; write {genome}.")
    return genome


def _whole(digits: str) -> int:
    # int() refuses more than 4,300 digits with an error of its own; no gene has more than five.
    return int(digits[:19])


def parse_stem(value: object) -> Stem:
    """The stem of that name; raises GenomeError for any other."""
    try:
        return Stem(str(value))
    except ValueError:
        raise GenomeError(f"stem {str(value)!r} is unknown; choose one of {', '.join(Stem)}.") from None


def parse_se_ratio(value: object) -> Fraction:
    """0 or 1/n, from a fraction, a number (0.25) or a text ("1/4"); raises GenomeError."""
    try:
        if isinstance(value, bool) or not isinstance(value, Fraction | int | float | str):
            raise ValueError
        ratio = Fraction(value).limit_denominator(4096)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise GenomeError(f"se_ratio is {value!r}; give 0 or 1/n, such as 1/4 or 0.25.") from None
    if abs(ratio - Fraction(value)) > Fraction(1, 10**9) or (ratio and ratio.numerator != 1):
        raise GenomeError(f"se_ratio is {value!r}; give 0 or 1/n, such as 1/4 or 0.25.")
    return ratio


def stem_block(genome: Genome, input_side: int) -> int:
    """Block size k of the stem for square images of `input_side` pixels.

    1 where the image is upsampled to the internal resolution (or has it already). Raises GenomeError
    where the internal resolution is below the input and does not divide it.
    """
    resolution = genome.internal_resolution
    if resolution >= input_side:
        return 1
    if input_side % resolution:
        raise GenomeError(
            f"internal resolution {resolution} does not divide input {input_side}; choose an input "
            f"that is a multiple of {resolution}, or at most {resolution} (then it is upsampled)."
        )
    return input_side // resolution


def canonical(genome: Genome, input_side: int) -> Genome:
    """The one genome by which a network is known: equal networks have equal canonical genomes.

    At k = 1 the `conv` and the `resize` stem are the same 3×3 convolution, and at depth 1 a shared
    block is a block.
    """
    if genome.stem is Stem.RESIZE and stem_block(genome, input_side) == 1:
        genome = replace(genome, stem=Stem.CONV)
    return replace(genome, shared=False) if genome.depth == 1 else genome
