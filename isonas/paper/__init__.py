"""The paper as software: each table and figure of Sandler et al. (2019) by its name.

"Non-discriminative data or weak model? On the relative importance of data and model resolution". One
file an id, imported when it is asked for; it holds an `EXPERIMENT`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """What an id shows, the paper's sections it is from, and whether it trains, which needs images."""

    title: str
    sections: str
    trains: bool = True


EXPERIMENTS = {
    "table1": Entry("width, resolution and depth multipliers: activations, size, MAdds; eq. 1", "4", False),
    "fig2": Entry(
        "MobileNetV3 fed other images: plain, upsampled, zero-filled, skip-stride, space-to-depth", "5"
    ),
    "fig3": Entry("width against resolution, both families", "4, 6"),
    "table2": Entry("the isometric family, depth × internal resolution × width", "6", False),
    "fig6": Entry(
        "first-layer filters: blob-like and maze-like, and training with half of them fixed", "6.1"
    ),
    "fig7": Entry("one isometric network by input, and by internal resolution", "7.1"),
    "fig8": Entry("receptive field by depth", "6.1, 7.2", False),
    "table3": Entry("dilated MobileNetV3", "7.2"),
    "table4": Entry("input against internal resolution, isometric networks", "7.1"),
    "fig9": Entry("accuracy against activation memory, size and MAdds, MobileNetV3 beside", "7.3, 7.4"),
    "fig10": Entry("parallel isometric networks, naive and swapped", "7.5"),
    "sharing": Entry("weight sharing across layers", "8"),
}
"""What can be run, by id, in the paper's order."""
