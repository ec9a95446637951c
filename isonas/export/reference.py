"""The integer network run by NumPy: what int8 means here. Generated C gives the same bits.

Sums are products of float64 matrices, which are exact below 2^53.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isonas.export.quantise import (
    GATE_ONE,
    ROW_STEPS,
    SWISH_STEPS,
    VECTOR_TOP,
    IntegerBlock,
    IntegerNetwork,
    Layer,
    VectorLayer,
    reads_rows,
)
from isonas.genome import stem_block

Integers = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

BATCH = 16


def logits(network: IntegerNetwork, pixels: Pixels) -> npt.NDArray[np.int16]:
    """16-bit logits (n, classes) of images (n, planes, S, S); a class is the first largest."""
    parts = [_logits(network, pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    return np.concatenate(parts).astype(np.int16)


def shown(logits: npt.NDArray[np.int16]) -> npt.NDArray[np.int8]:
    """Logits in 8 bits, as C hands them out."""
    return (_clip(logits.astype(np.int64) + 128, -32768, 32767) >> 8).astype(np.int8)


def _logits(network: IntegerNetwork, pixels: Pixels) -> Integers:
    count, area = len(pixels), network.genome.internal_resolution**2
    x = _stem(network, pixels)
    for block in network.blocks:
        x = _block(block, x, network.genome.internal_resolution)
    wide = _activated(network.head, _sums(x, network.head)).reshape(count, area, -1)
    vector = _shifted(wide.sum(1) - area * network.head_zero, network.pool_multiplier, 24)
    if network.features is not None:
        before = _clip(_vector(network.features, vector), -32768, 32767)
        gate = _clip(before + 3 * SWISH_STEPS, 0, 6 * SWISH_STEPS)
        vector = _clip(_shifted(before * gate, network.swish_multiplier, 32), -VECTOR_TOP, VECTOR_TOP)
    return _clip(_vector(network.classifier, vector), -32768, 32767)


def _stem(network: IntegerNetwork, pixels: Pixels) -> Integers:
    """int8 (n · D, c)."""
    genome, stem = network.genome, network.stem
    r = genome.internal_resolution
    rows = reads_rows(genome, network.input_side)
    tap = 1 if rows else stem_block(genome, network.input_side)
    image = (rows_of(pixels, r) if rows else pixels.astype(np.int64)).transpose(0, 2, 3, 1)
    taps = round(len(stem.missing) ** 0.5)
    edge = taps // 2
    padded = np.pad(image, ((0, 0), (edge * tap,) * 2, (edge * tap,) * 2, (0, 0)))
    inside = np.pad(np.ones((r, r), np.int64), edge)
    patches, missing = [], np.zeros((r, r, stem.missing.shape[1]), np.int64)
    for down in range(taps):
        for right in range(taps):
            part = padded[:, down * tap : (down + r) * tap, right * tap : (right + r) * tap]
            patch = part.reshape(len(image), r, tap, r, tap, -1).transpose(0, 1, 3, 2, 4, 5)
            patches.append(patch.reshape(len(image), r * r, -1))
            outside = 1 - inside[down : down + r, right : right + r]
            missing += outside[..., None] * stem.missing[down * taps + right].astype(np.int64)
    read = np.concatenate(patches, 2)
    sums = _product(read.reshape(len(image) * r * r, -1), stem.layer.weights) + stem.layer.bias
    sums -= np.tile(missing.reshape(r * r, -1), (len(image), 1))
    return _activated(stem.layer, sums)


def rows_of(pixels: Pixels, resolution: int) -> Integers:
    """Images (n, planes, S, S) at r×r in 1/ROW_STEPS grey levels: block means, or bilinear where r > S."""
    count, planes, side, _ = pixels.shape
    wide = pixels.astype(np.int64)
    if resolution <= side:
        block = side // resolution
        sums = wide.reshape(count, planes, resolution, block, resolution, block).sum((3, 5))
        multiplier, shift = fixed_point(ROW_STEPS / block**2)
        return _shifted(sums, multiplier, shift)
    first, second, fraction = bilinear_taps(side, resolution)
    whole = 2 * resolution
    down = wide[:, :, first] * (whole - fraction)[:, None] + wide[:, :, second] * fraction[:, None]
    sums = (down[..., first] * (whole - fraction) + down[..., second] * fraction).astype(np.int64)
    multiplier, shift = fixed_point(ROW_STEPS / whole**2)
    return _shifted(sums, multiplier, shift)


def bilinear_taps(side: int, resolution: int) -> tuple[Integers, Integers, Integers]:
    """For each of r outputs the two inputs it lies between and, in 1/(2r), how far from the first.

    Pixel centres are at halves (PyTorch's `align_corners=False`), and edges repeat.
    """
    place = np.maximum((2 * np.arange(resolution) + 1) * side - resolution, 0)
    first = place // (2 * resolution)
    return first, np.minimum(first + 1, side - 1), place % (2 * resolution)


def fixed_point(factor: float) -> tuple[int, int]:
    """A multiplier of 31 bits and the shift with which it stands for a factor below 2^30."""
    shift = 30 - int(np.floor(np.log2(factor)))
    return round(factor * 2.0**shift), shift


def _block(block: IntegerBlock, x: Integers, resolution: int) -> Integers:
    area = resolution**2
    wide = _activated(block.expand, _sums(x, block.expand))
    hidden = wide.shape[1]
    taps = block.depthwise.weights.astype(np.int64)
    kernel = round(taps.shape[1] ** 0.5)
    edge = kernel // 2
    grid = np.pad(
        wide.reshape(-1, resolution, resolution, hidden),
        ((0, 0), (edge,) * 2, (edge,) * 2, (0, 0)),
        constant_values=block.padding,
    )
    sums = np.zeros((len(grid), resolution, resolution, hidden), np.int64) + block.depthwise.bias
    for down in range(kernel):
        for right in range(kernel):
            part = grid[:, down : down + resolution, right : right + resolution]
            sums += part * taps[:, down * kernel + right]
    filtered = _activated(block.depthwise, sums.reshape(-1, hidden))
    if block.se is not None:
        pooled = filtered.reshape(-1, area, hidden).sum(1) - area * block.zero
        mean = _shifted(pooled, block.se.mean_multiplier, 24)
        squeezed = _clip(_vector(block.se.squeeze, mean), 0, VECTOR_TOP)
        gate = _clip(_vector(block.se.excite, squeezed) + GATE_ONE // 2, 0, GATE_ONE)
        filtered = ((filtered - block.zero) * np.repeat(gate, area, 0)) >> block.se.shift
    projected = _sums(filtered, block.project) * block.project.multiplier.astype(np.int64)
    return _clip((projected + x * 256 * block.residual + block.offset) >> 32, -128, 127)


def _activated(layer: Layer, sums: Integers) -> Integers:
    assert layer.table is not None
    index = _clip(_shifted(sums, layer.multiplier.astype(np.int64), 32), -128, 127) + 128
    return layer.table[index].astype(np.int64)


def _sums(values: Integers, layer: Layer) -> Integers:
    return _product(values, layer.weights) + layer.bias


def _vector(layer: VectorLayer, values: Integers) -> Integers:
    sums = _product(values, layer.weights) + layer.bias
    return _shifted(sums, layer.multiplier.astype(np.int64), layer.shift)


def _product(values: Integers, weights: npt.NDArray[np.int8]) -> Integers:
    product: Integers = (values.astype(np.float64) @ weights.T.astype(np.float64)).astype(np.int64)
    return product


def _shifted(values: Integers, multiplier: Integers | int, shift: int) -> Integers:
    return (values * multiplier + (1 << (shift - 1))) >> shift


def _clip(values: Integers, low: int, high: int) -> Integers:
    return np.minimum(np.maximum(values, low), high)
