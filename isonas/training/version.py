"""The version of how isonas trains: what one version began no other goes on with."""

from __future__ import annotations

from isonas.errors import RunError

TRAINING_VERSION = 2
"""Raised whenever the same inputs and seed train to other weights by intent.

1: depthwise kernels started √(their number) times too small.
2: every convolution starts with std √(2 / (q² · outputs / groups)).
"""


def require_this_version(began: object, recorded: int, remedy: str = "start a new run") -> None:
    """Raise RunError where `began` was recorded with another training version than this isonas has."""
    if recorded != TRAINING_VERSION:
        raise RunError(
            f"{began} was begun with training version {recorded}, this isonas trains by version "
            f"{TRAINING_VERSION}; {remedy}."
        )
