"""An isometric network in integers: int8 weights and activations, int32 sums, no floating point.

The scheme, in which every scale is chosen from real images and no rounding happens twice:

- weights: symmetric, a scale for each output channel; batch norm and the pixels' normalisation folded;
- a layer's int32 sum becomes int8 by one multiplication, (sum · m + 2³¹) >> 32; its zero points and
  those of what it reads lie in its bias; h-swish is a table of 256 entries;
- the residual stream has a scale for each block, and stream and projection are rescaled, added and
  rounded together, once: that rounding is nearly the whole error of int8 here;
- pooled vectors and what SE's layers say have 12 bits, gates 15 bits, logits 16 bits.

`isonas.export.reference` runs it; generated C gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isonas.errors import ExportError
from isonas.export.folded import Affine, FoldedBlock, FoldedNetwork
from isonas.export.ranges import Seen, closest_range, h_swish
from isonas.genome import Genome, Stem, stem_block

Floats = npt.NDArray[np.float64]
Int8s = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]
Integers = npt.NDArray[np.int64]

VECTOR_STEPS = 16
"""Steps of a pooled vector in one of the int8 tensor it is the mean of: 12 bits in all."""

VECTOR_TOP = 4095
GATE_ONE = 32768
"""The gate 1.0 of SE."""

SWISH_STEPS = 1024
"""Steps in 1.0 of what the hidden FC's h-swish reads."""

ROW_STEPS = 16
"""Steps in one grey level of a pooled or upsampled image."""

_DEAD_STEPS = 300
_BIAS_LIMIT = 2.0**29
"""A weight step is never so small that a bias and 300 output steps pass this sum (a dead channel's)."""


@dataclass(frozen=True)
class Layer:
    """`weights` (outputs, inputs), `bias` and `multiplier` (outputs,); `table` (256,) is what follows.

    int8 out = table[clip((sum · multiplier + 2³¹) >> 32)], without a table the clipped value itself.
    """

    weights: Int8s
    bias: Int32s
    multiplier: Int32s
    table: Int8s | None


@dataclass(frozen=True)
class VectorLayer:
    """An FC on vectors of 12 bits: out = (sum · multiplier + 2^(shift − 1)) >> shift."""

    weights: Int8s
    bias: Int32s
    multiplier: Int32s
    shift: int


@dataclass(frozen=True)
class IntegerStem:
    """The first layer. `layer.weights` are (c, taps · planes); a tap is a k×k patch or one pixel.

    Its bias holds what taps inside the image subtract for the pixels' mean; `missing` (taps, c) is
    taken off for each tap that lies outside.
    """

    layer: Layer
    missing: Int32s


@dataclass(frozen=True)
class SqueezeExcite:
    """SE in integers; `mean_multiplier` makes sums to means (>> 24), `shift` scales gated values."""

    squeeze: VectorLayer
    excite: VectorLayer
    mean_multiplier: int
    shift: int


@dataclass(frozen=True)
class IntegerBlock:
    """A block: x' = clip((projection · multiplier + 256 x · residual + offset) >> 32).

    `padding` is the int8 zero of what the depthwise convolution reads, `zero` of what it gives.
    """

    expand: Layer
    depthwise: Layer
    project: Layer
    se: SqueezeExcite | None
    residual: int
    offset: int
    padding: int
    zero: int


@dataclass(frozen=True)
class IntegerNetwork:
    """A whole network for images of `input_side` pixels and `planes` (3, or 1 of grey).

    `pool_multiplier` makes the head's sums to means (>> 24), `head_zero` is the head's int8 zero,
    `swish_multiplier` (>> 32) scales the hidden FC's h-swish. One step of a 16-bit logit is
    `logit_step`.
    """

    genome: Genome
    input_side: int
    planes: int
    stem: IntegerStem
    blocks: tuple[IntegerBlock, ...]
    head: Layer
    head_zero: int
    pool_multiplier: int
    features: VectorLayer | None
    swish_multiplier: int
    classifier: VectorLayer
    logit_step: float


def quantise(
    folded: FoldedNetwork, seen: dict[str, Seen], genome: Genome, input_side: int, planes: int = 3
) -> IntegerNetwork:
    """The integer network of a folded one; `seen` is `observe`'s.

    Raises ExportError where a sum could pass 32 bits.
    """
    area = genome.internal_resolution**2
    streams = [_scale(*closest_range(seen[f"stream{at}"], activated=False)) for at in range(genome.depth + 1)]
    uses = [_use(block, streams[at], streams[at + 1], seen, at) for at, block in enumerate(folded.blocks)]
    blocks = [
        _block(block, use, uses if genome.shared else [use], area)
        for block, use in zip(folded.blocks, uses, strict=True)
    ]
    head_pre, head_out = _activation(folded.head, streams[-1].step, seen["head"])
    vector = head_out.scale.step / VECTOR_STEPS
    features, swish = None, 0
    if folded.features is not None:
        features = _vector_layer(folded.features, [(vector, 1 / SWISH_STEPS)])
        vector = max(float(h_swish(np.array(seen["features"].high))), 0.375) * 1.25 / VECTOR_TOP
        swish = round(2.0**32 / (6 * SWISH_STEPS * SWISH_STEPS * vector))
    step = max(abs(seen["logits"].low), seen["logits"].high, 1e-3) * 1.3 / 32767
    return IntegerNetwork(
        genome=genome,
        input_side=input_side,
        planes=planes,
        stem=_stem(folded, genome, input_side, streams[0], seen["stem"]),
        blocks=tuple(blocks),
        head=_layer(folded.head, streams[-1], head_pre, [(streams[-1].step, head_pre.step)], head_out.table),
        head_zero=round(head_out.scale.zero),
        pool_multiplier=_mean_multiplier(area),
        features=features,
        swish_multiplier=swish,
        classifier=_vector_layer(folded.classifier, [(vector, step)]),
        logit_step=step,
    )


@dataclass(frozen=True)
class _Scale:
    """real = step · (integer − zero). Of a pre-activation `zero` need not be whole, nor in range."""

    step: float
    zero: float


@dataclass(frozen=True)
class _Activated:
    """An h-swish as a table from a pre-activation's int8 to its own."""

    table: Int8s
    scale: _Scale


@dataclass(frozen=True)
class _Use:
    """The scales of one use of a block: what each of its layers reads and gives."""

    reads: _Scale
    expand: _Scale
    expanded: _Activated
    depthwise: _Scale
    filtered: _Activated
    squeezed: float
    gated: float
    gives: _Scale
    shift: int


def _use(block: FoldedBlock, reads: _Scale, gives: _Scale, seen: dict[str, Seen], at: int) -> _Use:
    expand, expanded = _activation(block.expand, reads.step, seen[f"expand{at}"])
    depthwise, filtered = _activation(block.depthwise, expanded.scale.step, seen[f"depthwise{at}"])
    shift, squeezed = 0, 0.0
    gated = filtered.scale.step
    if block.squeeze is not None:
        squeezed = max(seen[f"squeeze{at}"].high, 1e-3) * 1.25 / VECTOR_TOP
        shift = _gate_shift(block.project)
        gated = filtered.scale.step * 2.0**shift / GATE_ONE
    return _Use(reads, expand, expanded, depthwise, filtered, squeezed, gated, gives, shift)


def _block(block: FoldedBlock, use: _Use, alike: Sequence[_Use], area: int) -> IntegerBlock:
    """A use of a block; `alike` are all uses of its weights, which must have the same int8 values."""
    se = None
    if block.squeeze is not None and block.excite is not None:
        mean = use.filtered.scale.step / VECTOR_STEPS
        means = [(one.filtered.scale.step / VECTOR_STEPS, one.squeezed) for one in alike]
        gates = [(one.squeezed, 6 / GATE_ONE) for one in alike]
        se = SqueezeExcite(
            _vector_layer(block.squeeze, means, (mean, use.squeezed)),
            _vector_layer(block.excite, gates, (use.squeezed, 6 / GATE_ONE)),
            _mean_multiplier(area),
            use.shift,
        )
    ratio = use.reads.step / use.gives.step
    residual = round(ratio * 2.0**24)
    if not 0 < residual < 2**31:
        raise ExportError("the residual stream grows or shrinks too much in one block; train longer.")
    # Gated values have their zero point taken off already.
    projected = _Scale(use.gated, 0.0 if se else use.filtered.scale.zero)
    return IntegerBlock(
        expand=_layer(
            block.expand,
            use.reads,
            use.expand,
            [(one.reads.step, one.expand.step) for one in alike],
            use.expanded.table,
        ),
        depthwise=_layer(
            block.depthwise,
            use.expanded.scale,
            use.depthwise,
            [(one.expanded.scale.step, one.depthwise.step) for one in alike],
            use.filtered.table,
        ),
        project=_layer(
            block.project,
            projected,
            _Scale(use.gives.step, 0.0),
            [(one.gated, one.gives.step) for one in alike],
            None,
            reach=((255 * GATE_ONE) >> use.shift) if se else 128,
        ),
        se=se,
        residual=residual,
        offset=2**31 + round((use.gives.zero - use.reads.zero * residual / 2.0**24) * 2.0**32),
        padding=round(use.expanded.scale.zero),
        zero=round(use.filtered.scale.zero),
    )


def _stem(folded: FoldedNetwork, genome: Genome, input_side: int, gives: _Scale, seen: Seen) -> IntegerStem:
    """Taps are the k×k patches of a 3k×3k kernel, the pixels of a 3×3 one over rows, or one alone."""
    weights, means = folded.stem.weights, folded.stem_means
    outputs, planes, side, _ = weights.shape
    block = stem_block(genome, input_side)
    rows = reads_rows(genome, input_side)
    tap = 1 if rows else block
    taps = side // tap
    # (c, taps, taps, tap, tap, planes): patches are read row by row, planes innermost.
    cut = weights.reshape(outputs, planes, taps, tap, taps, tap).transpose(0, 2, 4, 3, 5, 1)
    per_tap = means.reshape(outputs, taps, tap, taps, tap).sum((2, 4)).reshape(outputs, taps * taps)
    inside = Affine(cut.reshape(outputs, -1), folded.stem.bias - per_tap.sum(1))
    step = 1 / ROW_STEPS if rows else 1.0
    pre = _pre_activation(inside, step, seen)
    layer = _layer(
        inside,
        _Scale(step, 0.0),
        pre,
        [(step, pre.step)],
        _table(pre, gives),
        reach=255 * (ROW_STEPS if rows else 1),
    )
    scale = _weight_step(inside, [(step, pre.step)])
    missing = np.rint(-per_tap.T / (step * scale))
    return IntegerStem(layer, _fitting(missing).astype(np.int32))


def reads_rows(genome: Genome, input_side: int) -> bool:
    """Whether the stem's convolution reads rows of the image pooled, upsampled or widened to r pixels."""
    block = stem_block(genome, input_side)
    if input_side < genome.internal_resolution or genome.stem is Stem.RESIZE:
        return True
    return genome.stem is Stem.CONV and block == 1


def _scale(low: float, high: float) -> _Scale:
    """The int8 scale of a range, with zero on it."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / 255, 1e-8)
    return _Scale(step, float(np.clip(round(-128 - low / step), -128, 127)))


def _activation(layer: Affine, reads: float, seen: Seen) -> tuple[_Scale, _Activated]:
    """A pre-activation's scale, and its h-swish with a scale of its own."""
    pre = _pre_activation(layer, reads, seen)
    top = float(h_swish(np.array((127 - pre.zero) * pre.step)))
    gives = _scale(-0.375, max(top, 0.01))
    return pre, _Activated(_table(pre, gives), gives)


def _pre_activation(layer: Affine, reads: float, seen: Seen) -> _Scale:
    low, high = closest_range(seen, activated=True)
    low, high = min(low, 0.0), max(high, 0.0, low + 1e-3)
    # A multiplier has 32 bits behind the point and must stay below a half.
    step = max((high - low) / 255, 2.02 * reads * float(np.abs(layer.weights).max()) / 127)
    return _Scale(step, -128 - low / step)


def _table(pre: _Scale, gives: _Scale) -> Int8s:
    real: Floats = (np.arange(-128, 128, dtype=np.float64) - pre.zero) * pre.step
    table: Int8s = np.clip(np.rint(h_swish(real) / gives.step) + gives.zero, -128, 127).astype(np.int8)
    return table


def _weight_step(layer: Affine, scales: Iterable[tuple[float, float]]) -> Floats:
    """The weights' step for each output: by their largest, and no smaller than a dead channel's sums bear.

    `scales` are the steps that the layer reads and gives, in each of its uses.
    """
    rows = layer.weights.reshape(len(layer.weights), -1)
    step: Floats = np.abs(rows).max(1) / 127
    for reads, gives in scales:
        step = np.maximum(step, (np.abs(layer.bias) + _DEAD_STEPS * gives) / (reads * _BIAS_LIMIT))
    return step


def _weights(layer: Affine, step: Floats) -> Int8s:
    rows = layer.weights.reshape(len(layer.weights), -1)
    weights: Int8s = np.clip(np.rint(rows / step[:, None]), -127, 127).astype(np.int8)
    return weights


def _layer(
    layer: Affine,
    reads: _Scale,
    gives: _Scale,
    scales: Sequence[tuple[float, float]],
    table: Int8s | None,
    reach: int = 128,
) -> Layer:
    """`reach` is the largest value that the layer can read, in its steps."""
    step = _weight_step(layer, scales)
    weights = _weights(layer, step)
    multiplier = np.maximum(np.rint(reads.step * step / gives.step * 2.0**32), 1)
    if (multiplier >= 2**31).any():
        raise ExportError("a layer's outputs are too small for its int8 inputs; train the network longer.")
    rows = weights.astype(np.int64)
    bias = np.rint(
        layer.bias / (reads.step * step) - reads.zero * rows.sum(1) + gives.zero / (multiplier / 2.0**32)
    )
    _fitting(np.abs(bias) + reach * np.abs(rows).sum(1))
    return Layer(weights, bias.astype(np.int32), multiplier.astype(np.int32), table)


def _vector_layer(
    layer: Affine, scales: Sequence[tuple[float, float]], use: tuple[float, float] | None = None
) -> VectorLayer:
    reads, gives = use or scales[0]
    step = _weight_step(layer, scales)
    weights = _weights(layer, step)
    factor = reads * step / gives
    shift = 32 - max(int(np.ceil(np.log2(float(factor.max()) * 2))), 0)
    multiplier = np.maximum(np.rint(factor * 2.0**shift), 1)
    if shift < 1 or (multiplier >= 2**31).any():
        raise ExportError("a vector's outputs are too small for its inputs; train the network longer.")
    bias = np.rint(layer.bias / (reads * step))
    _fitting(np.abs(bias) + VECTOR_TOP * np.abs(weights.astype(np.int64)).sum(1))
    return VectorLayer(weights, bias.astype(np.int32), multiplier.astype(np.int32), shift)


def _gate_shift(project: Affine) -> int:
    """The least shift at which gated values fit 16 bits and their projection 31."""
    rows = project.weights.reshape(len(project.weights), -1)
    largest = np.maximum(np.abs(rows).max(1), np.finfo(np.float64).tiny)
    sums = float(np.rint(np.abs(rows) / largest[:, None] * 127).sum(1).max())
    return next(shift for shift in range(8, 32) if sums * ((255 * GATE_ONE) >> shift) < 2**30.9)


def _mean_multiplier(area: int) -> int:
    return round(VECTOR_STEPS / area * 2.0**24)


def _fitting(sums: Floats) -> Floats:
    if (np.abs(sums) >= 2**31).any():
        raise ExportError("a sum of this network could pass 32 bits; choose narrower layers.")
    return sums
