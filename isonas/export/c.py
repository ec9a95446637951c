"""An integer network as C99: one `.c` and `.h`, and a second `.c` that tests them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isonas.export import reference
from isonas.export.quantise import (
    ROW_STEPS,
    IntegerBlock,
    IntegerNetwork,
    Layer,
    VectorLayer,
    reads_rows,
)
from isonas.export.schedule import Schedule, padded, ring_positions, schedule, strips_of, taps_of

_KERNELS = Path(__file__).with_name("kernels")
_PER_LINE = 24
_TYPES = {"int8": "int8_t", "int32": "int32_t", "uint8": "uint8_t"}


@dataclass(frozen=True)
class CSource:
    """The texts of a network's files, and the bytes that they ask for.

    `flash_bytes` counts weights, biases, multipliers and tables; code comes on top.
    """

    name: str
    source: str
    header: str
    test: str
    arena_bytes: int
    flash_bytes: int


def c_source(network: IntegerNetwork, images: npt.NDArray[np.uint8], name: str = "isonas_net") -> CSource:
    """The C of a network, and a test on images (n, planes, S, S) against the integer reference.

    `name` begins every public name. Raises ExportError for channels that are no multiple of 8.
    """
    plan = schedule(network.genome, network.input_side, network.planes)
    arrays = _Arrays()
    tables = list(_tables(network, arrays))
    source = "\n".join(
        [
            _banner(network, plan),
            f'#include "{name}.h"',
            "",
            f"#define FN(function) {name}_##function",
            *(f"#define {key} {value}" for key, value in _defines(network, plan).items()),
            "",
            (_KERNELS / "types.c").read_text(encoding="utf-8"),
            *arrays.declared,
            *tables,
            "",
            (_KERNELS / "network.c").read_text(encoding="utf-8"),
        ]
    )
    return CSource(
        name,
        source,
        _header(network, plan, name),
        _test(network, images, name),
        plan.arena_bytes,
        arrays.size,
    )


@dataclass
class _Arrays:
    """Constants by content: equal ones, such as the weights of a shared block, are written once."""

    declared: list[str] = field(default_factory=list)
    size: int = 0
    _names: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def name(self, numbers: npt.NDArray[Any]) -> str:
        """The name of the array that holds these numbers."""
        flat = np.ascontiguousarray(numbers).ravel()
        key = (str(flat.dtype), flat.tobytes())
        if key not in self._names:
            self._names[key] = f"k{len(self._names)}"
            self.declared.append(_array(self._names[key], flat))
            self.size += flat.nbytes
        return self._names[key]


def _array(name: str, numbers: npt.NDArray[Any]) -> str:
    values = [str(number) for number in numbers.tolist()]
    lines = [",".join(values[at : at + _PER_LINE]) for at in range(0, len(values), _PER_LINE)]
    # The least int32 cannot be written as a literal of its own type; no number here comes near.
    return (
        f"static const {_TYPES[str(numbers.dtype)]} {name}[{len(values)}] ALIGNED = {{\n"
        + ",\n".join(lines)
        + "};"
    )


def _tables(network: IntegerNetwork, arrays: _Arrays) -> Iterable[str]:
    genome = network.genome
    taps, _ = taps_of(genome, network.input_side)
    rows = reads_rows(genome, network.input_side)
    stem = network.stem.layer
    # Patches are taken one at a time, each padded; pixels of rows all at once.
    per_patch = taps * taps if not rows else 1
    wide = stem.weights.reshape(len(stem.weights), per_patch, -1)
    wide = np.pad(wide, ((0, 0), (0, 0), (0, padded(wide.shape[2], 8) - wide.shape[2])))
    cut = np.stack([_paired(wide[:, part]) for part in range(per_patch)])
    if taps > 1:
        yield f"#define stem_missing {arrays.name(network.stem.missing)}"
    yield f"static const Layer stem = {_layer(arrays, stem, cut)};"
    blocks = [_block(arrays, block) for block in network.blocks]
    yield "static const Block blocks[] = {\n" + ",\n".join(blocks) + "};"
    yield f"static const Layer head = {_layer(arrays, network.head, _paired(network.head.weights))};"
    if network.features is not None:
        yield f"static const VectorLayer features = {_vector_layer(arrays, network.features)};"
    yield f"static const VectorLayer classifier = {_vector_layer(arrays, network.classifier)};"


def _block(arrays: _Arrays, block: IntegerBlock) -> str:
    depthwise = block.depthwise.weights
    by_fours = depthwise.reshape(len(depthwise) // 4, 4, -1).transpose(0, 2, 1)
    none = "{0, 0, 0, 0}"
    parts = [
        _layer(arrays, block.expand, _paired(block.expand.weights)),
        _layer(arrays, block.depthwise, by_fours),
        _layer(arrays, block.project, _paired(block.project.weights)),
        _vector_layer(arrays, block.se.squeeze) if block.se else none,
        _vector_layer(arrays, block.se.excite) if block.se else none,
        f"{block.offset}LL",
        str(block.residual),
        str(block.padding),
        str(block.zero),
        str(block.se.shift if block.se else 0),
    ]
    return "    {" + ", ".join(parts) + "}"


def _layer(arrays: _Arrays, layer: Layer, weights: npt.NDArray[np.int8]) -> str:
    table = f"{arrays.name(layer.table)} + 128" if layer.table is not None else "0"
    names = (arrays.name(weights), arrays.name(layer.bias), arrays.name(layer.multiplier), table)
    return "{" + ", ".join(names) + "}"


def _vector_layer(arrays: _Arrays, layer: VectorLayer) -> str:
    inputs = layer.weights.shape[1]
    weights = np.pad(layer.weights, ((0, 0), (0, padded(inputs, 4) - inputs)))
    names = (arrays.name(weights), arrays.name(layer.bias), arrays.name(layer.multiplier), str(layer.shift))
    return "{" + ", ".join(names) + "}"


def _paired(weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Rows two by two, interleaved by fours."""
    outputs, inputs = weights.shape
    return np.ascontiguousarray(weights.reshape(outputs // 2, 2, inputs // 4, 4).transpose(0, 2, 1, 3))


def _defines(network: IntegerNetwork, plan: Schedule) -> dict[str, object]:
    genome, strips = network.genome, strips_of(network.genome, network.input_side, network.planes)
    taps, tap = taps_of(genome, network.input_side)
    features, squeeze = genome.head_features, genome.squeeze
    places = [buffer for phase in plan.phases for buffer in phase.buffers]
    r, side = genome.internal_resolution, network.input_side
    factor = ROW_STEPS / ((2 * r) ** 2 if r > side else (side // r) ** 2)
    multiplier, shift = reference.fixed_point(factor)
    return {
        "STEM_PATCHES": 0,
        "STEM_ROWS": 1,
        "STEM": "STEM_ROWS" if reads_rows(genome, side) else "STEM_PATCHES",
        "SIDE": side,
        "PLANES": network.planes,
        "TAPS": taps,
        "PATCH": tap,
        "POOL": strips.rows,
        "ROW_M": multiplier,
        "ROW_SHIFT": shift,
        "STRIPS": strips.count,
        "STRIP_BYTES": strips.size,
        "RES": r,
        "CHANNELS": genome.channels,
        "HIDDEN": genome.hidden,
        "KERNEL": genome.kernel_size,
        "RING": ring_positions(genome),
        "SQUEEZE": squeeze,
        "SQUEEZE_PADDED": padded(squeeze, 4),
        "DEPTH": genome.depth,
        "HEAD": genome.head_width,
        "HEAD_ZERO": f"({network.head_zero})",
        "MEAN_M": network.pool_multiplier,
        "FEATURES": features,
        "FEATURES_PADDED": padded(features, 4),
        "SWISH_M": network.swish_multiplier,
        "CLASSIFIER_IN": padded(features, 4) or genome.head_width,
        "CLASSES": len(network.classifier.bias),
        "ARENA": plan.arena_bytes,
        "AT_STREAM": plan.stream.offset,
        **{f"AT_{buffer.name.upper()}": buffer.offset for buffer in places},
    }


def _banner(network: IntegerNetwork, plan: Schedule) -> str:
    side = network.input_side
    return (
        f"/* {network.genome}, int8, input {side}x{side}x{network.planes},\n"
        f"   {len(network.classifier.bias)} classes, arena of {plan.arena_bytes:,} bytes; made by isonas. */"
    )


def _header(network: IntegerNetwork, plan: Schedule, name: str) -> str:
    strips = strips_of(network.genome, network.input_side, network.planes)
    upper = name.upper()
    pixel = "RGB bytes" if network.planes == 3 else "grey bytes"
    side, classes = network.input_side, len(network.classifier.bias)
    return f"""/* {network.genome}: {side} x {side} pixels ({pixel}, row by row) to {classes} logits. */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#define {upper}_SIDE {side}
#define {upper}_PLANES {network.planes}
#define {upper}_CLASSES {classes}
#define {upper}_STRIPS {strips.count}
#define {upper}_STRIP_ROWS {strips.rows}
#define {upper}_STRIP_BYTES {strips.size}
#define {upper}_ARENA_BYTES {plan.arena_bytes}
/* a logit is this times its int8 */
#define {upper}_LOGIT_STEP {network.logit_step * 256:.9g}

#ifdef __cplusplus
extern "C" {{
#endif

/* A whole image: writes {upper}_CLASSES logits and returns the class with the largest. */
int {name}_run(const uint8_t *image, int8_t *logits);

/* Strip by strip, as a camera delivers them: {name}_begin, then {name}_feed {upper}_STRIPS times with
   {upper}_STRIP_BYTES bytes each, then {name}_end, which returns what {name}_run does, or -1 while strips
   are missing. A strip may lie anywhere; {name}_strip gives a place for one in the arena, until
   {name}_end. Not re-entrant: there is one arena. */
void {name}_begin(void);
uint8_t *{name}_strip(void);
void {name}_feed(const uint8_t *strip);
int {name}_end(int8_t *logits);

extern const uint32_t {name}_arena_bytes;

#ifdef __cplusplus
}}
#endif
#endif
"""


def _test(network: IntegerNetwork, images: npt.NDArray[np.uint8], name: str) -> str:
    logits = reference.logits(network, images)
    shown = reference.shown(logits)
    upper = name.upper()
    stored = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    best = logits.argmax(1).astype(np.int32)
    return "\n".join(
        [
            f"/* Golden images and logits of {name}: {name}_selftest returns how many images give others. */",
            f'#include "{name}.h"',
            "",
            "#define ALIGNED",
            _array("images", stored.ravel()),
            _array("wanted", shown.ravel()),
            _array("classes", best),
            f"""
int {name}_selftest(void);
const uint8_t *{name}_golden(int image);

const uint8_t *{name}_golden(int image) {{ return images + image * {upper}_STRIPS * {upper}_STRIP_BYTES; }}

static int wrong(int image, int found, const int8_t *logits) {{
    int bad = found != classes[image];
    for (int i = 0; i < {upper}_CLASSES; i++) bad |= logits[i] != wanted[image * {upper}_CLASSES + i];
    return bad;
}}

int {name}_selftest(void) {{
    static int8_t logits[{upper}_CLASSES];
    int bad = {name}_arena_bytes != {upper}_ARENA_BYTES;
    for (int i = 0; i < {len(images)}; i++) {{
        const uint8_t *image = {name}_golden(i);
        bad += wrong(i, {name}_run(image, logits), logits);
        {name}_begin();
        for (int s = 0; s < {upper}_STRIPS; s++) {{
            uint8_t *strip = {name}_strip();
            for (int b = 0; b < {upper}_STRIP_BYTES; b++) strip[b] = image[s * {upper}_STRIP_BYTES + b];
            {name}_feed(strip);
        }}
        bad += wrong(i, {name}_end(logits), logits);
    }}
    return bad;
}}

#ifdef {upper}_MAIN
#include <stdio.h>
int main(void) {{
    int bad = {name}_selftest();
    printf(bad ? "%d of {2 * len(images)} runs differ\\n" : "all runs agree\\n", bad);
    return bad != 0;
}}
#endif
""",
        ]
    )
