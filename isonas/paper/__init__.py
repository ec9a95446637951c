"""The paper as software: each table and figure of Sandler et al. (2019) by its name.

"Non-discriminative data or weak model? On the relative importance of data and model resolution". One
file an id, imported when it is asked for; it holds an `EXPERIMENT`.
"""

from __future__ import annotations

EXPERIMENTS = {
    "table1": "width, resolution and depth multipliers: activations, size, MAdds (counts)",
    "fig2": "MobileNetV3 fed smaller images: plain, upsampled, zero-filled, skip-stride, space-to-depth",
    "fig3": "width against resolution, both families",
    "table2": "the isometric family, depth × internal resolution × width (counts)",
    "fig6": "first-layer filters: blob-like and maze-like, and training with half of them fixed",
    "fig7": "table4 as a figure",
    "fig8": "receptive field by depth (counts)",
    "table3": "dilated MobileNetV3",
    "table4": "input against internal resolution, isometric networks",
    "fig9": "accuracy against activation memory, size and MAdds, MobileNetV3 beside",
    "fig10": "parallel isometric networks, naive and swapped",
    "sharing": "weight sharing across layers",
}
"""What can be run, by id, in the paper's order."""
