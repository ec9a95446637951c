"""The tail of an exported `model.py`: load the network beside it with PyTorch alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from torch import Tensor

from isonas.networks.isometric import IsometricNet

_DTYPES = {"F32": torch.float32, "I64": torch.int64}


def load_model(folder: str | Path | None = None) -> IsometricNet:
    """The exported network in evaluation mode; `folder` defaults to this file's.

    Preprocessing (side, mean, standard deviation, class names) is in `manifest.json`.
    """
    place = Path(folder) if folder is not None else Path(__file__).parent
    description = json.loads((place / "genome.json").read_text(encoding="utf-8"))
    network = IsometricNet(**description["network"])
    network.load_state_dict(read_safetensors(place / "model.safetensors"))
    return network.eval()


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file: 8 bytes of header length, a JSON header, the raw numbers."""
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        numbers = torch.frombuffer(content[start:end], dtype=_DTYPES[entry["dtype"]])
        tensors[name] = numbers.reshape(entry["shape"])
    return tensors
