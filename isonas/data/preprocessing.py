"""How an encoded image becomes a network's input: values, stated once and carried with the weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

DECODER = 2
"""Version of the pixels that an encoded image gives: part of every store's key, so that none is stale.

1 ignored EXIF orientation and transparency, saturated 16-bit grey, and averaged the whole image's areas.
"""

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels: white."""

PADDING = (124, 116, 104)
"""What fills up a letterbox: ImageNet's mean colour, about zero once it is normalised."""


class Fit(StrEnum):
    """How an image that is no square becomes one.

    `crop`: the short side is brought to the square's, and the centre is kept. `letterbox`: the long side
    is, and the rest is filled with PADDING. `stretch`: both are, whatever becomes of the proportions.
    """

    CROP = "crop"
    LETTERBOX = "letterbox"
    STRETCH = "stretch"


@dataclass(frozen=True)
class Squares:
    """Squares of `side` pixels that encoded images are fitted to.

    `typical` is the median of the images' shorter sides, for telling only.
    """

    side: int
    fit: Fit
    typical: int

    @property
    def key(self) -> str:
        """What tells a store of such squares from others of the same images."""
        return f"{self.side}-{self.fit}-v{DECODER}"

    def __str__(self) -> str:
        small = f"; half of them are smaller than {self.side}" if self.typical < self.side else ""
        return f"{self.side}×{self.side} pixels ({self.fit}{small})"


@dataclass(frozen=True)
class Preprocessing:
    """What was done to the images that weights were trained and tested on, in order; sides in pixels.

    An encoded image is fitted to a square of `side` by decoder version `decoder` (0: the source gave
    pixels), area-averaged to `read`, upsampled bilinearly to `upsampled`, and each pixel repeated
    `repeated` × `repeated` times: that is the network's input.
    """

    fit: Fit
    side: int
    read: int
    upsampled: int
    repeated: int
    decoder: int

    @property
    def input_side(self) -> int:
        """The side of the network's input."""
        return self.upsampled * self.repeated


def preprocessing(fit: Fit, side: int, input_side: int, decoder: int) -> Preprocessing:
    """That of a network which reads squares of `side` pixels at its input, upsampled where they are less."""
    return Preprocessing(fit, side, min(side, input_side), input_side, 1, decoder)


def preprocessing_document(chain: Preprocessing | None) -> dict[str, Any] | None:
    """As plain values, for JSON."""
    return None if chain is None else {**asdict(chain), "fit": str(chain.fit)}


def parse_preprocessing(document: Any) -> Preprocessing | None:
    """From `preprocessing_document`'s plain values; raises TypeError, ValueError."""
    return None if document is None else Preprocessing(**{**document, "fit": Fit(document["fit"])})
