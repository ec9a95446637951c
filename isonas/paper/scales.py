"""How much the experiments train at each scale; an experiment that needs more or less says so itself."""

from __future__ import annotations

from isonas.paper.experiment import FULL, SMALL, SMOKE, Scale
from isonas.training.recipe import Recipe

FULL_RECIPE = Recipe(epochs=90, epoch_images=None, batch_size=256, peak_rate=0.1, weight_decay=4e-5)
"""One cycle of SGD to a peak rate of 0.4 at batch 256; the paper's recipe is recipes.yaml's `mobilenetv3`."""


MOBILENETV3_RATE = 0.1
"""Peak learning rate for MobileNetV3 at batch 32. Under 0.3 some trainings do not get going."""

MOBILENETV3_RATES = (0.03, MOBILENETV3_RATE, 0.3)
"""Those tried for a MobileNetV3 beside a front, of which the best counts."""


def scales(
    *,
    classes: int,
    images: int,
    epochs: int,
    smaller: str,
    seeds: int = 3,
    peak_rate: float = Recipe().peak_rate,
) -> dict[str, Scale]:
    """The three scales of an experiment, of which the small one is given; `smaller` says in which respects
    its networks and inputs are less than the paper's."""
    small = Recipe(epochs=epochs, epoch_images=None, peak_rate=peak_rate)
    return {
        SMOKE: Scale(4, 96, Recipe(epochs=2, epoch_images=None, batch_size=16), 2, "A test of the program."),
        SMALL: Scale(
            classes,
            images,
            small,
            seeds,
            f"Smaller than the paper's setting in {smaller}, in images ({images:,} of {classes} classes for "
            f"ImageNet's 1.28 million of 1,000) and in training ({epochs} epochs).",
        ),
        FULL: Scale(
            None,
            None,
            FULL_RECIPE,
            1,
            "The networks and inputs are the paper's.",
        ),
    }
