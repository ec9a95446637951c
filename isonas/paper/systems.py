"""Every network of the paper's tables and figures, what it costs, and what the paper says of it.

Counts are exact and closed forms, at the paper's scale: 1000 classes, batch 1. What the paper says is
quoted only where it gives a number; where it contradicts itself, `NOTES` says so. Where a figure's
points are not listed in the paper, the choice of points is ours and the docstring says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from isonas.cost import Deployment, MemoryModel, madds, params, peak_activations
from isonas.genome import Genome
from isonas.networks.feeding import BLOCKS, Feeding, Way
from isonas.networks.mobilenetv3_plan import BASE_SIDE, plan_mobilenetv3
from isonas.networks.parallel import check_parts
from isonas.space import columns_of

CLASSES = 1000
BASE_CHANNELS = 64
"""Bottleneck width c of the isometric networks at width multiplier m = 1."""

NOTES = {
    "fig2": "The paper contradicts itself on input 112 upsampled: about 1.5% below the base, which is 73.3 "
    "for 75.1 (section 5), and about 1% (section 7.1); and on space-to-depth of 32: nearly 50% where plain "
    "at input 56 has 75.1 less nearly 25 (section 5), and above that (section 6).",
    "table3": "What input 112 loses is nearly 8 points in section 5 and 12 in Table 3 (75.15 and 63).",
    "fig9": "Section 3 says that isometric networks need less than 20% of MobileNet's memory at the same "
    "accuracy; section 7.3's figures, 300K of nearly 800K at 75%, are 38%. Section 7.3 speaks of inputs + "
    "outputs of a layer, but its figures are elements of the largest single tensor, without the image: "
    "75,264, 301,056 and 802,816, where inputs + outputs are 81,536, 326,144 and 1,003,520.",
}
"""Where the paper contradicts itself, by the id of the table or figure."""


@dataclass(frozen=True)
class System:
    """One network and what it costs for one image of `input_side` pixels.

    `largest` is the largest single tensor and `inputs_and_outputs` the largest sum of one layer's, both
    in elements without the image. `paper` holds the paper's own figures by name, as it prints them.
    """

    network: str
    input_side: int
    params: int
    madds: int
    largest: int
    inputs_and_outputs: int
    paper: dict[str, str] = field(default_factory=dict)


def isometric(genome: Genome, input_side: int = BASE_SIDE, **paper: str) -> System:
    """A genome's network at an input; raises GenomeError where the two do not fit."""
    at, columns = Deployment(input_side, CLASSES), columns_of([genome])
    return System(
        str(genome),
        input_side,
        int(params(columns, at)[0]),
        int(madds(columns, at)[0]),
        int(peak_activations(columns, at, MemoryModel.LARGEST, with_input=False)[0]),
        int(peak_activations(columns, at, MemoryModel.PAPER, with_input=False)[0]),
        paper,
    )


def mobilenetv3(
    width: float = 1.0, feeding: Feeding | None = None, input_side: int = BASE_SIDE, **paper: str
) -> System:
    """MobileNetV3-Large, fed as asked; raises FeedingError where that does not fit the input."""
    plan = plan_mobilenetv3(width, feeding, input_side, classes=CLASSES)
    return System(
        f"mobilenetv3_w{width:g}_{plan.feeding}",
        input_side,
        plan.params,
        plan.madds,
        plan.largest_activation(with_input=False),
        plan.inputs_and_outputs(with_input=False),
        paper,
    )


def family(depth: int, resolution: int, width: float) -> Genome:
    """The paper's isometric network of depth l, internal resolution r and width multiplier m."""
    return Genome(depth, round(BASE_CHANNELS * width), resolution)


@dataclass(frozen=True)
class Scaling:
    """What a multiplier does to a network: the ratio of each cost to the unscaled network's.

    `activations` are of the largest tensor without the image.
    """

    family: str
    multiplier: str
    factor: float
    activations: float
    params: float
    madds: float


def table1(factor: int = 2) -> tuple[Scaling, ...]:
    """Table 1, measured: width, resolution and depth multiplied by `factor`, each alone.

    By the law activations, size and MAdds grow by (m, m², m²), (ρ², 1, ρ²) and (1, d, d). Whole networks
    depart from it by their stem and FCs. The base networks are isometric l = 16, r = 14, m = 1 and
    MobileNetV3 at 224, which has no depth multiplier here.
    """
    base = family(16, 14, 1)
    plain = isometric(base)
    mobile = mobilenetv3()
    rows = (
        ("isometric", "width", plain, isometric(family(16, 14, factor))),
        ("isometric", "resolution", plain, isometric(family(16, 14 * factor, 1), BASE_SIDE * factor)),
        ("isometric", "depth", plain, isometric(family(16 * factor, 14, 1))),
        ("mobilenetv3", "width", mobile, mobilenetv3(factor)),
        ("mobilenetv3", "resolution", mobile, mobilenetv3(1, None, BASE_SIDE * factor)),
    )
    return tuple(
        Scaling(
            name,
            multiplier,
            factor,
            after.largest / before.largest,
            after.params / before.params,
            after.madds / before.madds,
        )
        for name, multiplier, before, after in rows
    )


@dataclass(frozen=True)
class Aligned:
    """Channels and layers of a network's two halvings at one resolution; (0, 0) where one has no block."""

    resolution: int
    half_width: tuple[int, int]
    half_resolution: tuple[int, int]


def equation1(resolution: int, channels: int, layers: Sequence[int]) -> tuple[Aligned, ...]:
    """Eq. 1: a network at half its width and at half its resolution, aligned by resolution.

    Block i (from 0) of the network has `layers[i]` layers of `channels`·2^i channels at `resolution`/2^i.
    """
    narrow = {resolution >> i: (channels * 2**i // 2, count) for i, count in enumerate(layers)}
    coarse = {resolution >> i + 1: (channels * 2**i, count) for i, count in enumerate(layers)}
    sides = [resolution >> i for i in range(len(layers) + 1)]
    return tuple(Aligned(side, narrow.get(side, (0, 0)), coarse.get(side, (0, 0))) for side in sides)


def table2() -> tuple[System, ...]:
    """The isometric family at input 224: l = 8, 16, 32 and r = 7, 14, 28 (Table 2), r = 56 (section 7.1),
    m = 0.5, 1, 2 (Fig. 9)."""
    return tuple(isometric(family(*point)) for point in product((8, 16, 32), (7, 14, 28, 56), (0.5, 1, 2)))


FIG2_INPUTS = (112, 56, 28, 14)
"""Section 5's smaller inputs in pixels."""
FIG2_ABOVE = (320, 448)
"""Inputs of Fig. 2b in pixels; the points are ours."""


def fig2() -> tuple[System, ...]:
    """MobileNetV3 fed in the ways of Fig. 1 from each input, space-to-depth(k) at 224, and larger images."""
    ways = (Way.PLAIN, Way.UPSAMPLE, Way.ZEROS, Way.SKIP)
    fed = [mobilenetv3(1, Feeding(way), side) for way, side in product(ways, (BASE_SIDE, *FIG2_INPUTS))]
    larger = (mobilenetv3(1, None, side) for side in FIG2_ABOVE)
    return (*fed, *(mobilenetv3(1, Feeding(Way.S2D, k)) for k in BLOCKS), *larger)


def fig3() -> tuple[System, ...]:
    """Width against resolution: MobileNetV3 by width and input, isometric by m and r (l = 16).

    The points are ours.
    """
    mobile = product((0.35, 0.5, 0.75, 1, 1.25), (96, 128, 160, 192, 224))
    ours = product((7, 14, 28, 56), (0.5, 1, 2))
    return (
        *(mobilenetv3(width, None, side) for width, side in mobile),
        *(isometric(family(16, resolution, width)) for resolution, width in ours),
    )


TABLE3_TOP1 = (75.6, 75.15, 63.0)
"""Top-1 in percent: dilated at 224, plain at 224, plain at 112."""


def table3() -> tuple[System, ...]:
    """MobileNetV3 dilated (rate 2, stride-2 layers 5×5) and as it is, at 224, and as it is at 112."""
    columns = ((Way.DILATED, BASE_SIDE), (Way.PLAIN, BASE_SIDE), (Way.PLAIN, BASE_SIDE // 2))
    return tuple(
        mobilenetv3(1, Feeding(way), side, top1_percent=f"{top1:g}")
        for (way, side), top1 in zip(columns, TABLE3_TOP1, strict=True)
    )


TABLE4_INPUTS = (14, 28, 56, 224)
TABLE4_TOP1 = {
    7: (48.8, 62.1, 67.7, 70.4),
    14: (53.7, 68.2, 74.7, 77.6),
    28: (53.6, 70.2, 77.1, 80.6),
}
"""The paper's top-1 in percent by internal resolution, one figure an input of `TABLE4_INPUTS`."""


def table4() -> tuple[System, ...]:
    """Input against internal resolution (section 7.1), l = 32, m = 2, with the paper's top-1.

    Where the input is below r it is upsampled.
    """
    return tuple(
        isometric(family(32, resolution, 2), side, top1_percent=str(accuracy))
        for resolution, accuracies in TABLE4_TOP1.items()
        for side, accuracy in zip(TABLE4_INPUTS, accuracies, strict=True)
    )


# Activations of section 7.3, by network; they do not depend on the depth.
_SECTION_73 = {
    **{str(family(depth, 7, 2)): "<100K" for depth in (8, 16, 32)},
    **{str(family(depth, 14, 2)): "300K" for depth in (8, 16, 32)},
    "mobilenetv3_w1_plain": "800K",
}


def fig7() -> tuple[System, ...]:
    """One network by input (7a) and one input by internal resolution (7b), l = 16, m = 1.

    Depth, width and all inputs but 224 are ours: section 7.4 has less than 5M params at r = 56, and the
    caption a baseline on both graphs whose blocks of pixels are 16×16.
    """
    return (
        *(isometric(family(16, 14, 1), side) for side in FIG7_INPUTS),
        *(isometric(family(16, resolution, 1)) for resolution in FIG7_RESOLUTIONS if resolution != 14),
    )


FIG7_INPUTS = (56, 112, 224, 448)
FIG7_RESOLUTIONS = (7, 14, 28, 56)


def fig9() -> tuple[System, ...]:
    """Accuracy against activations, size and MAdds: Table 2's networks, MobileNetV3 beside.

    The widths of MobileNetV3 are ours. Activations are section 7.3's: of the best 7×7 and 14×14
    models, m = 2 by their counts, and of MobileNetV3.
    """
    systems = (*table2(), *(mobilenetv3(width) for width in (0.35, 0.5, 0.75, 1, 1.25)))
    return tuple(
        replace(system, paper={"activations": _SECTION_73[system.network]})
        if system.network in _SECTION_73
        else system
        for system in systems
    )


def fig10(genome: Genome | None = None, parts: int = 4) -> tuple[System, ...]:
    """One network, then parts² parallel ones with averaged features and with averaged logits, at 224.

    Naive and swapped cost the same. Activations are of one sub-network at a time. The paper has 16
    replicas, 4×4 parts (section 7.5); the network (default l = 16, r = 28, m = 1) is ours. Raises
    GenomeError where `parts` does not divide the internal resolution.
    """
    whole = genome or family(16, 28, 1)
    check_parts(whole, BASE_SIDE, parts)
    part = isometric(
        replace(whole, internal_resolution=whole.internal_resolution // parts), BASE_SIDE // parts
    )
    features = whole.head_features
    fcs = whole.head_width * features + features * CLASSES if features else whole.head_width * CLASSES
    parallel = {
        "features": parts**2 * (part.madds - fcs) + fcs,
        "logits": parts**2 * part.madds,
    }
    return (
        isometric(whole),
        *(
            replace(part, network=f"{whole}_{parts}x{parts}_{name}", input_side=BASE_SIDE, madds=count)
            for name, count in parallel.items()
        ),
    )


def sharing(genome: Genome | None = None) -> tuple[System, ...]:
    """Weights apart, shared with a batch norm for each use, and shared batch norm included, at 224.

    The network (default l = 16, r = 14, m = 1) is ours.
    """
    apart = replace(genome or Genome(), shared=False)
    together = isometric(replace(apart, shared=True))
    # Each use but the first has γ and β of its own, for two hidden widths and the bottleneck.
    norms = (apart.depth - 1) * 2 * (2 * apart.hidden + apart.channels)
    per_use = replace(together, network=f"{together.network}_norms", params=together.params + norms)
    return isometric(apart), per_use, together
