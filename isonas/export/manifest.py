"""What a user of an exported network must know: preprocessing, classes, costs, predicted memory."""

from __future__ import annotations

from typing import Any

import isonas
from isonas.cost import Deployment
from isonas.data.augment import MEAN, STD
from isonas.data.preprocessing import BACKGROUND, DECODER, PADDING, Fit, Preprocessing
from isonas.export.origin import Origin
from isonas.hardware import Budget, costs
from isonas.report.cost import cost_document
from isonas.space import columns_of


def manifest_of(origin: Origin, form: str, budget: Budget) -> dict[str, Any]:
    """The manifest of an export as plain data, but for its files; memory is under `budget`'s model.

    `predicted_peak_bytes` are peak activations at batch 1 with the image, `predicted_arena_bytes` with
    the runtime's overheads on top, likewise `predicted_file_bytes` beside `predicted_weight_bytes`;
    `measured_peak_bytes` is null until a runtime has been asked.
    """
    at = Deployment(origin.input_side, len(origin.class_names))
    predicted = costs(columns_of([origin.genome]), at, budget)
    return {
        "isonas": isonas.__version__,
        "format": form,
        "genome": str(origin.genome),
        "input": origin.input_side,
        "classes": len(origin.class_names),
        "class_names": list(origin.class_names),
        "origin": origin.description,
        "preprocessing": preprocessing_words(origin.preprocessing, origin.input_side),
        "memory": {
            "memory_model": str(budget.memory_model),
            "dtype": str(budget.dtype),
            "board": budget.board,
            "predicted_peak_bytes": int(predicted.peak_bytes[0]),
            "predicted_arena_bytes": int(predicted.arena_bytes[0]),
            "predicted_file_bytes": int(predicted.file_bytes[0]),
            "predicted_weight_bytes": int(predicted.weight_bytes[0]),
            "measured_peak_bytes": None,
        },
        "costs": cost_document(origin.genome, at, budget.dtype),
    }


def preprocessing_words(chain: Preprocessing | None, input_side: int) -> dict[str, Any]:
    """What is done to an encoded image before the network reads it, as numbers and in Pillow's words.

    It is what was done to the images that the reported accuracy is of. `recorded` is false where they were
    decoded by another version, and where nothing was written down with the weights: then the whole image
    is stretched to the input.
    """
    recorded = chain is not None and chain.decoder in (0, DECODER)
    if chain is None:
        chain = Preprocessing(Fit.STRETCH, input_side, input_side, input_side, 1, 0)
    side = chain.side
    steps = [
        f"image = PIL.Image.open(file); image.draft(None, {_DRAFT[chain.fit].format(double=2 * side)}), "
        "which lets a JPEG be decoded smaller; image = PIL.ImageOps.exif_transpose(image)",
        "to RGB: 16-bit grey is rint(value / 257); where there is transparency, image = "
        f"PIL.Image.alpha_composite(PIL.Image.new('RGBA', image.size, {(*BACKGROUND, 255)}), "
        "image.convert('RGBA')); image = image.convert('RGB'); colour profiles are not applied",
        "w, h = image.size; " + _FITTED[chain.fit].format(side=side, padding=PADDING),
    ]
    if chain.read < side:
        steps.append(
            f"each of {chain.read} × {chain.read} pixels is the mean of the area of the {side} × {side} that "
            "it covers, rounded to a whole number"
        )
    steps.append("x = (pixel / 255 - mean) / std, channel by channel")
    if chain.upsampled > chain.read:
        steps.append(
            f"torch.nn.functional.interpolate(x, ({chain.upsampled}, {chain.upsampled}), mode='bilinear', "
            "align_corners=False)"
        )
    if chain.repeated > 1:
        steps.append(f"each pixel is repeated {chain.repeated} × {chain.repeated} times")
    return {
        "recorded": recorded,
        "input": input_side,
        "fit": str(chain.fit),
        "side": side,
        "filter": "bilinear",
        "area_to": chain.read if chain.read < side else None,
        "upsample_to": chain.upsampled if chain.upsampled > chain.read else None,
        "repeat": chain.repeated,
        "background": list(BACKGROUND),
        "padding": list(PADDING),
        "mean": list(MEAN),
        "std": list(STD),
        "layout": "float32 (N, 3, input, input), RGB",
        "steps": steps,
    }


_DRAFT = {
    Fit.CROP: "({double}, {double})",
    Fit.STRETCH: "({double}, {double})",
    Fit.LETTERBOX: "size twice as large as the image is resized to below",
}
_FITTED = {
    Fit.CROP: "m = min(w, h); image.resize(({side}, {side}), PIL.Image.Resampling.BILINEAR, "
    "((w - m) / 2, (h - m) / 2, (w - m) / 2 + m, (h - m) / 2 + m))",
    Fit.STRETCH: "image.resize(({side}, {side}), PIL.Image.Resampling.BILINEAR)",
    Fit.LETTERBOX: "size = [max(1, round(n * {side} / max(w, h))) for n in (w, h)]; image.resize(size, "
    "PIL.Image.Resampling.BILINEAR), pasted at (({side} - size[0]) // 2, ({side} - size[1]) // 2) on "
    "{side} × {side} pixels of colour {padding}",
}
