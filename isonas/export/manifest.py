"""What a user of an exported network must know: preprocessing, classes, costs, predicted memory."""

from __future__ import annotations

from typing import Any

import isonas
from isonas.cost import Deployment
from isonas.data.augment import MEAN, STD
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
        "preprocessing": {
            "side": origin.input_side,
            "resize": "the whole image, area-averaged to side × side, never cropped",
            "layout": "float32 (N, 3, side, side), RGB",
            "scale": "pixel / 255, then minus mean, divided by std, channel by channel",
            "mean": list(MEAN),
            "std": list(STD),
        },
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
