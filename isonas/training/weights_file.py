"""Trained weights as one safetensors file that says itself what network they are of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from isonas.atomic import write_atomically
from isonas.data.preprocessing import Preprocessing, parse_preprocessing, preprocessing_document
from isonas.errors import IsonasError, LogError, UsageError
from isonas.genome import Genome, parse_genome
from isonas.networks.build import build_network
from isonas.networks.isometric import IsometricNet

BEST, AVERAGE = "best.safetensors", "average.safetensors"
"""In a retraining's folder: the chosen weights, and the moving average after the last epoch."""

_METADATA = "isonas"


@dataclass(frozen=True)
class Weights:
    """A genome's weights for `input_side` pixels; `training` is what is to be known of how they came,
    `preprocessing` what was done to the images, None of weights from before that was written down."""

    genome: Genome
    input_side: int
    class_names: tuple[str, ...]
    tensors: dict[str, Tensor]
    training: dict[str, Any]
    preprocessing: Preprocessing | None

    def network(self) -> IsometricNet:
        """The network with these weights, in evaluation mode; raises ValueError where they do not fit."""
        network = build_network(self.genome, self.input_side, len(self.class_names))
        try:
            network.load_state_dict(self.tensors)
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[0]) from None
        return network.eval()


def write_weights(path: Path, weights: Weights) -> None:
    """Write a weights file whole; raises OSError."""
    head = {
        "genome": str(weights.genome),
        "input": weights.input_side,
        "class_names": list(weights.class_names),
        "training": weights.training,
        "preprocessing": preprocessing_document(weights.preprocessing),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.tensors.items()}
    content = save(tensors, {_METADATA: json.dumps(head)})
    write_atomically(path, lambda stream: stream.write(content))


def read_weights(path: Path) -> Weights:
    """Read a weights file, or the chosen weights of a retraining's folder.

    Raises UsageError where there are none, LogError where they are not what `write_weights` wrote.
    """
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        raise UsageError(
            f"{file} is not there; train with isonas retrain, and give its folder or its weights."
        )
    try:
        with safe_open(file, framework="pt") as stored:
            head = json.loads((stored.metadata() or {})[_METADATA])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        weights = Weights(
            parse_genome(head["genome"]),
            int(head["input"]),
            tuple(head["class_names"]),
            tensors,
            dict(head["training"]),
            parse_preprocessing(head.get("preprocessing")),
        )
        weights.network()
    except KeyError:
        raise LogError(
            f"{file} does not say what network it is of; give weights that isonas wrote."
        ) from None
    except (OSError, SafetensorError, TypeError, ValueError, IsonasError) as error:
        raise LogError(f"{file} is no readable weights file ({' '.join(str(error).split())}).") from None
    return weights
