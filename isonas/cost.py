"""What genomes cost, in closed form, for one genome or a whole space at once.

Source: the network of Table 2 and Fig. 5 of the paper; its parameter and multiply-add counts follow
from the layers' dimensions. Symbols: input side R (I = 3R² elements), internal resolution r (D = r²),
c channels, E = e·c hidden, s squeeze, h head width, H head features, N classes, q kernel size, l
depth, stem block k = R/r. Everything is for batch size 1, and every array holds one number a genome.

Nothing here knows how the network is built (`isonas.networks`) or listed (`isonas.layers`): that the
three agree is what the tests check.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np

from isonas.genome import Stem
from isonas.space import STEMS, Columns, Ints


class DType(StrEnum):
    """The number format of weights and activations; biases of int8 networks have 4 bytes."""

    INT8 = "int8"
    FP16 = "fp16"
    FP32 = "fp32"

    @property
    def size(self) -> int:
        """Bytes of one weight or activation."""
        return {"int8": 1, "fp16": 2, "fp32": 4}[self]

    @property
    def bias_size(self) -> int:
        """Bytes of one bias."""
        return 4 if self is DType.INT8 else self.size


class MemoryModel(StrEnum):
    """A convention for peak activations (elements, batch 1). Batch norm is folded in all of them.

    `paper`: the largest inputs + outputs of one layer, activations fused (section 7.3's sentence).
    `largest`: the largest single tensor (section 7.3's figures).
    `fused`: all that is alive at once, the residual kept, activations in place.
    `inplace`: `fused`, and depthwise convolutions in place (one plane of scratch), the SE's scale in
        place, and the projection accumulated into the residual's buffer.
    `tflm`: all that is alive, h-swish, scale and add out of place: the head of TensorFlow Lite
        Micro's arena.
    `litert`: `tflm`, and the image kept to the end: LiteRT's arena.
    `executorch`: all that is alive with h-swish as add, clamp, multiply, divide: ExecuTorch's planned
        arena with portable kernels.
    """

    PAPER = "paper"
    LARGEST = "largest"
    FUSED = "fused"
    INPLACE = "inplace"
    TFLM = "tflm"
    LITERT = "litert"
    EXECUTORCH = "executorch"


@dataclass(frozen=True)
class Deployment:
    """What costs are reckoned for: the image's side in pixels and the number of classes."""

    input: int
    classes: int


@dataclass(frozen=True)
class _Dimensions:
    """The symbols of this file's docstring, one array each."""

    c: Ints
    E: Ints
    s: Ints
    h: Ints
    H: Ints
    q: Ints
    D: Ints
    N: Ints
    blocks: Ints
    """l: how often a block runs."""
    own_blocks: Ints
    """How many blocks have weights of their own: l, or 1 where they are shared."""
    image: Ints
    """I = 3R² elements."""
    before: Ints
    """Elements of the r×r image that upsampling or pooling puts before the stem's convolution."""
    stem_weights: Ints
    se: Ints
    """1 with SE, 0 without."""
    fc: Ints
    """1 with a hidden FC, 0 without."""


def _dimensions(columns: Columns, at: Deployment) -> _Dimensions:
    depth, c, r, expansion, se_divisor, stem, q, head_multiple, head_features, shared = (
        np.asarray(getattr(columns, gene.name), np.int64) for gene in fields(Columns)
    )
    k = np.maximum(at.input // r, 1)
    pooled = (stem == STEMS.index(Stem.RESIZE)) & (k > 1)
    kernel_area = np.select(
        [stem == STEMS.index(Stem.S2D), stem == STEMS.index(Stem.CONV)],
        [k**2, 9 * k**2],
        default=np.full_like(k, 9),
    )
    hidden = expansion * c
    has_se = se_divisor > 0
    return _Dimensions(
        c=c,
        E=hidden,
        s=np.where(has_se, hidden // np.maximum(se_divisor, 1), 0),
        h=head_multiple * c,
        H=head_features,
        q=q,
        D=r**2,
        N=np.full_like(c, at.classes),
        blocks=depth,
        own_blocks=np.where(shared == 1, 1, depth),
        image=np.full_like(c, 3 * at.input**2),
        before=np.where((r > at.input) | pooled, 3 * r**2, 0),
        stem_weights=3 * kernel_area * c,
        se=has_se.astype(np.int64),
        fc=(head_features > 0).astype(np.int64),
    )


def weights(columns: Columns, at: Deployment) -> Ints:
    """Weights of convolutions and FCs, without biases and batch norm."""
    d = _dimensions(columns, at)
    block: Ints = 2 * d.E * d.c + d.q * d.q * d.E + 2 * d.E * d.s
    head: Ints = d.c * d.h + np.where(d.fc == 1, d.h * d.H + d.H * d.N, d.h * d.N)
    return d.stem_weights + d.own_blocks * block + head


def params(columns: Columns, at: Deployment) -> Ints:
    """Parameters as trained: weights, biases, and γ and β of every batch norm."""
    d = _dimensions(columns, at)
    block = d.s + d.se * d.E + 2 * (2 * d.E + d.c)
    total: Ints = weights(columns, at) + 2 * d.c + d.own_blocks * block + 2 * d.h + d.H + d.N
    return total


def biases(columns: Columns, at: Deployment) -> Ints:
    """Biases once every batch norm is folded into the convolution before it."""
    d = _dimensions(columns, at)
    block = d.s + d.se * d.E + 2 * d.E + d.c
    return d.c + d.own_blocks * block + d.h + d.H + d.N


def weight_bytes(columns: Columns, at: Deployment, dtype: DType) -> Ints:
    """Bytes of the batch-norm-folded network's weights and biases."""
    return weights(columns, at) * dtype.size + biases(columns, at) * dtype.bias_size


def madds(columns: Columns, at: Deployment) -> Ints:
    """Multiply-adds of convolutions and FCs, the SE's included; all else counts 0."""
    d = _dimensions(columns, at)
    block = (2 * d.E * d.c + d.q * d.q * d.E) * d.D + 2 * d.E * d.s
    head = d.c * d.h * d.D + np.where(d.fc == 1, d.h * d.H + d.H * d.N, d.h * d.N)
    return d.stem_weights * d.D + d.blocks * block + head


def peak_activations(
    columns: Columns, at: Deployment, model: MemoryModel, *, with_input: bool = True
) -> Ints:
    """Peak activations in elements under a memory model.

    Without the input, every layer up to and including the stem's first convolution is left out; its
    output stays.
    """
    d = _dimensions(columns, at)
    pinned = d.image if with_input and model is MemoryModel.LITERT else np.zeros_like(d.c)
    entry = _entry(d, pinned) if with_input else np.zeros_like(d.c)
    cD, ED, hD = d.c * d.D, d.E * d.D, d.h * d.D
    gate = d.se * d.E
    match model:
        case MemoryModel.LARGEST:
            image = np.maximum(d.image, d.before) if with_input else entry
            return _largest(image, ED, hD, d.H, d.N)
        case MemoryModel.PAPER:
            return _largest(entry, 2 * ED + gate, 3 * cD, cD + hD, hD + d.h, _vectors(d))
        case MemoryModel.FUSED:
            return _largest(entry, cD + 2 * ED + gate, cD + hD, hD + d.h, _vectors(d))
        case MemoryModel.INPLACE:
            block = cD + ED + np.maximum(d.D, gate + d.s)
            return _largest(entry, block, cD + hD, hD + d.h, _vectors(d))
        case MemoryModel.TFLM | MemoryModel.LITERT:
            block = cD + 2 * ED + gate
            return _largest(entry, pinned + _largest(block, 2 * hD, 2 * d.H, _vectors(d)))
        case MemoryModel.EXECUTORCH:
            return _largest(entry, cD + 3 * ED, 3 * hD, 3 * d.H, _vectors(d))


def chunked_activations(columns: Columns, at: Deployment, chunks: int, *, with_input: bool = True) -> Ints:
    """Peak activations in elements when a block's hidden channels are worked off in `chunks` slices.

    A block holds its input, an accumulator and one slice before and after an operator, or four
    bottleneck-wide tensors while adding; the head's 1×1 convolution is cut into slices no wider. The
    SE's vectors are not counted. Runtimes' planners land up to 25% above this, so it is a
    prediction, not a promise.
    """
    d = _dimensions(columns, at)
    entry = _entry(d, np.zeros_like(d.c)) if with_input else np.zeros_like(d.c)
    width = -(-d.E // np.int64(chunks))
    cD = d.c * d.D
    block: Ints = np.maximum(2 * cD + 2 * width * d.D, 4 * cD)
    head: Ints = cD + 2 * np.minimum(width, d.h) * d.D + d.h
    return _largest(entry, block, head, 2 * d.H, _vectors(d))


def streamed_bytes(columns: Columns, at: Deployment, *, planes: int = 3) -> Ints:
    """The arena in bytes of isonas's own int8 C, the image fed in strips of `planes` bytes a pixel.

    The residual stream lies in cD bytes, and behind it the largest of what each phase needs: a block's
    ring of expanded positions, two widened positions, sums for SE and a padding vector; SE's vectors;
    the stem's widened patches, rows or partial sums, and one strip; the head's sums, and the vectors
    around the hidden FC. Depth and classes do not matter. Sums and widened values have 4 and 2 bytes,
    so this is no count of elements times a dtype.
    """
    d = _dimensions(columns, at)
    # Columns hold the smallest types that their values fit.
    r = columns.internal_resolution.astype(np.int64)
    k = np.maximum(at.input // r, 1)
    ring = np.minimum(d.D + d.D % 2, (d.q - 1) * r + d.q + 2)
    block = _up(ring * d.E, 4) + 5 * d.E + 4 * d.E * d.se
    se = 2 * d.E + 2 * _up(d.s, 4)
    head = 4 * d.h + np.maximum(4 * d.c, 2 * _up(d.H, 4))
    taps = np.where(columns.stem == STEMS.index(Stem.S2D), 1, 3)
    upsampled = r > at.input
    # Pooled, upsampled or 3×3 over single pixels: rows of r pixels in 2 bytes, as many as the kernel is high.
    in_rows = upsampled | (columns.stem == STEMS.index(Stem.RESIZE)) | ((k == 1) & (taps == 3))
    strip = planes * k * at.input
    rows = 4 * _up(planes * taps**2, 8) + 2 * planes * r * taps + np.where(upsampled, 2, 1) * strip
    patches = 4 * _up(planes * k**2, 8) + np.where(taps == 3, 12 * r * d.c, 0) + strip
    return _up(d.c * d.D, 4) + _largest(block, se, head, np.where(in_rows, rows, patches))


def _up(values: Ints, multiple: int) -> Ints:
    up: Ints = -(-values // multiple) * multiple
    return up


def _entry(d: _Dimensions, pinned: Ints) -> Ints:
    # The image and what upsampling or pooling makes of it; then that (or the image) and the stem's
    # first bottleneck-wide tensor.
    read: Ints = np.where(d.before > 0, d.before + pinned, d.image)
    entry: Ints = np.maximum(d.image + d.before, read + d.c * d.D)
    return entry


def _vectors(d: _Dimensions) -> Ints:
    return np.where(d.fc == 1, np.maximum(d.h + d.H, d.H + d.N), d.h + d.N)


def output_channels(columns: Columns, at: Deployment) -> Ints:
    """Output channels of all convolutions and FCs as they run, shared blocks counted every time.

    A quantised network stores a scale for each of them.
    """
    d = _dimensions(columns, at)
    return d.c + d.blocks * (2 * d.E + d.c + d.s + d.se * d.E) + d.h + d.H + d.N


def operators(columns: Columns, at: Deployment) -> Ints:
    """Operators of the TensorFlow Lite graph: batch norm and ReLU fused, each other one counted.

    Stem 2 (3 with pooling or upsampling); block 6, with SE 5 more; head 4, with a hidden FC 2 more.
    """
    d = _dimensions(columns, at)
    resized = (d.before > 0).astype(np.int64)
    return 2 + resized + d.blocks * (6 + 5 * d.se) + 4 + 2 * d.fc


def _largest(*arrays: Ints) -> Ints:
    largest: Ints = np.maximum.reduce(list(np.broadcast_arrays(*arrays)))
    return largest
