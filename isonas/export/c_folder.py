"""`--format c`: a folder of C99 with the network in int8, tested against its integer reference."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from isonas.data.augment import normalise
from isonas.data.dataset import Dataset, Images, Pixels, split_validation
from isonas.data.preprocessing import Preprocessing
from isonas.data.resize import downsample
from isonas.errors import UsageError
from isonas.export import reference
from isonas.export.c import CSource, c_source
from isonas.export.folded import fold
from isonas.export.measure import Measured
from isonas.export.origin import Origin
from isonas.export.quantise import IntegerNetwork, quantise
from isonas.export.ranges import observe
from isonas.export.whole import digest_of, whole_folder, write_json

NAME = "isonas_net"
CALIBRATED, SCORED, GOLDEN = 512, 500, 3
"""At most so many images to choose ranges from, to count top-1 on, and to test the C with."""

_BATCH = 32

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Int8Score:
    """int8 beside fp32: top-1 of both on the same images, and how often they give the same class.

    `scored_on` says which images, None of an untrained network, which is not scored.
    """

    calibration_images: int
    scored_images: int
    scored_on: str | None
    fp32_top1: float | None
    int8_top1: float | None
    top1_loss: float | None
    agreement: float | None


def export_c(
    origin: Origin, data: Dataset, split_seed: int, manifest: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Write a network's folder of C, whole or not at all; returns the manifest as it is written.

    Ranges are chosen from training images of `data`, top-1 is counted on its held-back images, or on
    the validation images that `split_seed` draws. Raises UsageError where the folder exists or the
    images are of classes that the network has not, ExportError where it cannot be written or quantised.
    """
    network = origin.network.eval().to("cpu")
    chain = origin.preprocessing
    kept, carved = split_validation(data.train, split_seed)
    calibration = _input_pixels(data.train, _spread(kept, CALIBRATED), chain, origin.input_side)
    integers = quantise(fold(network), observe(network, calibration), origin.genome, origin.input_side)
    images, rows, called = data.train, carved, "validation images"
    if data.held_back is not None:
        images, rows, called = data.held_back, np.arange(len(data.held_back)), "held-back images"
    chosen = _spread(rows, SCORED)
    pixels = _input_pixels(images, chosen, chain, origin.input_side)
    score = Int8Score(len(calibration), 0, None, None, None, None, None)
    if origin.description["weights"] != "untrained":
        labels = _labels(origin, data, images.labels[chosen])
        score = _scored(origin, integers, pixels, labels, len(calibration), called)
    source = c_source(integers, pixels[:GOLDEN], NAME)
    with whole_folder(folder) as part:
        files = _texts(source, origin, score)
        for name, text in files.items():
            (part / name).write_text(text, encoding="utf-8")
        complete = {
            **manifest,
            # What this folder's C takes, whatever runtime the search was held to.
            "memory": {
                "memory_model": "streamed",
                "dtype": "int8",
                "board": manifest["memory"]["board"],
                "predicted_arena_bytes": source.arena_bytes,
                "predicted_file_bytes": source.flash_bytes,
            },
            "int8": {
                **asdict(score),
                "arena_bytes": source.arena_bytes,
                "constant_bytes": source.flash_bytes,
                "logit_step": 256 * integers.logit_step,
            },
            "files": {name: digest_of(part / name) for name in files},
            "measured": [],
        }
        write_json(part / "manifest.json", complete)
    return complete


def disagreements(manifest: dict[str, Any], measured: Measured) -> list[str]:
    """In what a measurement is not what the manifest promises; sentences."""
    promised = manifest["int8"]
    wrong = []
    if measured.differing:
        wrong.append(f"{measured.differing} runs on {measured.target} give other logits than the reference")
    # Beside the arena there is one counter, and a compiler for a desktop may align both.
    spare = measured.static_bytes - promised["arena_bytes"] - 4
    if not 0 <= spare < (32 if measured.target == "host" else 1):
        wrong.append(
            f"the arena on {measured.target} takes {measured.static_bytes - 4:,} bytes, promised are "
            f"{promised['arena_bytes']:,}"
        )
    return wrong


def _scored(
    origin: Origin, integers: IntegerNetwork, pixels: Pixels, labels: Rows, calibrated: int, called: str
) -> Int8Score:
    with torch.no_grad():
        answers = np.concatenate(
            [
                origin.network(normalise(torch.from_numpy(pixels[at : at + _BATCH]))).argmax(1).numpy()
                for at in range(0, len(pixels), _BATCH)
            ]
        )
    int8 = reference.logits(integers, pixels).argmax(1)
    fp32_top1, int8_top1 = float((answers == labels).mean()), float((int8 == labels).mean())
    agreement = float((answers == int8).mean())
    loss = fp32_top1 - int8_top1
    return Int8Score(calibrated, len(pixels), called, fp32_top1, int8_top1, loss, agreement)


def _labels(origin: Origin, data: Dataset, labels: Rows) -> Rows:
    """Labels by the network's numbers of the classes of those names."""
    number = {name: index for index, name in enumerate(origin.class_names)}
    if unknown := [name for name in data.class_names if name not in number]:
        raise UsageError(
            f"{data.source} has a class {unknown[0]!r} that the network was not trained on; give its images."
        )
    mapped: Rows = np.array([number[name] for name in data.class_names])[labels]
    return mapped


def _spread(rows: Rows, most: int) -> Rows:
    """At most so many of some rows, evenly spread over them."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)]


def _input_pixels(images: Images, rows: Rows, chain: Preprocessing | None, input_side: int) -> Pixels:
    """Images as the network reads them, in whole grey levels, (n, 3, input_side, input_side)."""
    read = min(images.side, chain.read if chain else input_side)
    part = Images(np.array(images.pixels[rows]), images.labels[rows])
    pixels = downsample(part, read).pixels
    upsampled = chain.upsampled if chain else input_side
    if upsampled > read:
        size = (upsampled, upsampled)
        wide = torch.from_numpy(np.array(pixels)).float()
        wide = functional.interpolate(wide, size, mode="bilinear", align_corners=False)
        pixels = wide.round().clamp(0, 255).byte().numpy()
    repeated = input_side // upsampled
    return np.ascontiguousarray(pixels.repeat(repeated, axis=2).repeat(repeated, axis=3))


def _texts(source: CSource, origin: Origin, score: Int8Score) -> dict[str, str]:
    return {
        f"{NAME}.c": source.source,
        f"{NAME}.h": source.header,
        f"{NAME}_test.c": source.test,
        "classes.txt": "".join(f"{name}\n" for name in origin.class_names),
        "README.md": _readme(source, origin, score),
    }


def _readme(source: CSource, origin: Origin, score: Int8Score) -> str:
    accuracy = "The weights are untrained."
    if score.fp32_top1 is not None and score.int8_top1 is not None:
        accuracy = (
            f"Top-1 on {score.scored_images} {score.scored_on}: {score.int8_top1:.4f} in int8, "
            f"{score.fp32_top1:.4f} in fp32; both give the same class for {score.agreement:.1%}."
        )
    side = origin.input_side
    return f"""# {origin.genome}

An image classifier in C99: {side}×{side} RGB images, {len(origin.class_names)} classes (`classes.txt`, in
the order of the logits). {accuracy}

- `{NAME}.c`, `{NAME}.h`: the network. It needs `stdint.h` alone, allocates nothing, and uses no floating
  point. Its one static arena takes {source.arena_bytes:,} bytes, its constants {source.flash_bytes:,} bytes
  of flash; code comes on top. The stack was below 0.5 KiB wherever it was measured.
- `{NAME}_test.c`: golden images and logits; `{NAME}_selftest()` returns how many runs differ.
- `manifest.json`: preprocessing, accuracy, what was promised and measured.

## A whole image

    #include "{NAME}.h"

    static int8_t logits[{NAME.upper()}_CLASSES];
    int best = {NAME}_run(image, logits);     /* {side} rows of {side} RGB bytes */

## Strip by strip, as a camera delivers

    {NAME}_begin();
    for (int i = 0; i < {NAME.upper()}_STRIPS; i++) {{
        uint8_t *strip = {NAME}_strip();      /* a place in the arena, or any other buffer */
        read_rows(strip, {NAME.upper()}_STRIP_ROWS);
        {NAME}_feed(strip);
    }}
    int best = {NAME}_end(logits);

## Compile

    cc -O3 -c {NAME}.c
    cc -D{NAME.upper()}_MAIN {NAME}.c {NAME}_test.c && ./a.out

Give -O3 to plain C. Where the compiler says that the core has the DSP extension (Cortex-M4, M7, M33), it
uses those instructions. `isonas verify` compiles and runs the folder on this machine and, where
arm-none-eabi-gcc and qemu-system-arm are installed, on emulated cores.
"""
