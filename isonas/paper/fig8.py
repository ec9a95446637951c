"""Fig. 8: how large a part of the image a unit sees, by depth: its receptive field (sections 6.1 and 7.2).

    isonas paper fig8

Nothing is trained: sizes are closed forms, which the tests hold to the support of gradients. To expect:
an isometric network's field grows by 2k pixels a block, so at 224 pixels r = 7 sees the whole image
after 3 blocks and r = 28 only after 14; MobileNetV3's grows the faster the deeper it is; dilated at 224
pixels it covers about the share of its image that it covers plain at 112; skip-stride stretches nothing, so
it sees a larger part of its smaller image. SE is left out.
"""

from __future__ import annotations

from typing import Any

from isonas.networks.feeding import Feeding, Way
from isonas.networks.mobilenetv3_plan import plan_mobilenetv3
from isonas.networks.receptive_field import Field, depth_that_covers, isometric_fields, mobilenetv3_fields
from isonas.paper.draw import COLOURS, MARKS
from isonas.paper.experiment import Experiment, Grid, Report
from isonas.paper.results import Results
from isonas.paper.systems import family

DEPTH, SIDE = 32, 224
RESOLUTIONS = (7, 14, 28, 56)
COVERED_AFTER = {7: 3, 14: 7, 28: 14, 56: 28}
"""Blocks after which the field is the whole image: k(1 + 2n) ≥ 224, by internal resolution."""

MOBILE = {
    "plain, input 224": (Feeding(), 224),
    "plain, input 112": (Feeding(), 112),
    "plain, input 56": (Feeding(), 56),
    "upsample, input 56": (Feeding(Way.UPSAMPLE), 56),
    "skip, input 56": (Feeding(Way.SKIP), 56),
    "s2d 8, input 224": (Feeding(Way.S2D, 8), 224),
    "dilated, input 224": (Feeding(Way.DILATED), 224),
}


def fields() -> dict[str, tuple[int, tuple[Field, ...]]]:
    """By network the side in pixels of what its first layer reads, and its fields by depth."""
    found = {
        f"isometric r = {resolution}": (SIDE, isometric_fields(family(DEPTH, resolution, 1), SIDE))
        for resolution in RESOLUTIONS
    }
    for name, (feeding, side) in MOBILE.items():
        plan = plan_mobilenetv3(1.0, feeding, side)
        found[f"MobileNetV3 {name}"] = (plan.grid_side, mobilenetv3_fields(plan))
    return found


def report(results: Results) -> Report:
    """Size in pixels after some depths, and after how many blocks the image is covered."""
    rows = []
    for name, (side, sizes) in fields().items():
        covered = depth_that_covers(sizes, side)
        some = [f"{sizes[depth].size}" if depth < len(sizes) else "–" for depth in (0, 1, 3, 7, 14, 28)]
        rows.append((name, str(side), *some, str(covered) if covered is not None else "never"))
    header = ("", "reads (px)", *(f"{depth} blocks" for depth in (0, 1, 3, 7, 14, 28)), "covered after")
    grid = Grid("Receptive field in pixels of what the first layer reads", header, tuple(rows))
    return Report(
        (grid,), draw=_draw, data={name: [one.size for one in f] for name, (_, f) in fields().items()}
    )


def _draw(figure: Any) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    both = list(fields().items())
    for axes, chosen, title in (
        (left, both[: len(RESOLUTIONS)], "isometric, input 224"),
        (right, both[len(RESOLUTIONS) :], "MobileNetV3-Large"),
    ):
        for place, (name, (side, sizes)) in enumerate(chosen):
            axes.plot(
                range(len(sizes)),
                [100 * one.share(side) for one in sizes],
                label=name.removeprefix("MobileNetV3 ").removeprefix("isometric "),
                color=COLOURS[place],
                marker=MARKS[place],
                markersize=4,
            )
        axes.set_title(title)
        axes.set_xlabel("blocks (0: behind the stem)")
        axes.legend(fontsize=8)
    left.set_ylabel("receptive field (% of the side that is read)")


EXPERIMENT = Experiment(id="fig8", report=report)
