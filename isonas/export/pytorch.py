"""A network as PyTorch files: safetensors, a standalone `model.py`, and a `.pt2` program."""

from __future__ import annotations

import importlib.util
import inspect
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from isonas.errors import ExportError
from isonas.export import standalone
from isonas.export.whole import digest_of, whole_folder, write_json
from isonas.genome import Genome
from isonas.networks import isometric
from isonas.networks.build import network_arguments
from isonas.networks.isometric import IsometricNet

TOLERANCE = 1e-4
"""The most by which an exported network's logits may differ from the source's, as a share of the
largest logit (or absolutely, below 1)."""


def export_pytorch(
    network: IsometricNet,
    genome: Genome,
    input_side: int,
    examples: Tensor,
    manifest: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Write a network's folder, whole or not at all, and load every form of it again.

    `examples` are (N, 3, input_side, input_side) normalised images, N ≥ 2, on which each form's logits
    are compared with the network's. Returns `manifest` with the files' entries added, as it is written.
    Raises UsageError where the folder exists, ExportError where it cannot be written, or a form does not
    compute the same.
    """
    network = network.eval().to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with whole_folder(folder) as part:
        errors = _write(network, genome, input_side, examples, manifest, part)
        entries = {name: {**digest_of(part / name), "parity_error": error} for name, error in errors.items()}
        complete = {**manifest, "files": entries}
        write_json(part / "manifest.json", complete)
    return complete


def _write(
    network: IsometricNet,
    genome: Genome,
    input_side: int,
    examples: Tensor,
    manifest: dict[str, Any],
    folder: Path,
) -> dict[str, float]:
    """The files, and the largest logit difference of each form of the network from the source's."""
    description = {
        "genome": str(genome),
        "network": network_arguments(genome, input_side, network.num_classes),
    }
    write_json(folder / "genome.json", description)
    write_json(folder / "config.json", timm_config(genome, input_side, manifest))
    (folder / "model.py").write_text(standalone_source(), encoding="utf-8")
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(tensors))
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, (examples,), dynamic_shapes={"x": {0: batch}})
        # Through memory: PyTorch's own writer aborts the process where the disk is full.
        content = io.BytesIO()
        torch.export.save(program, content)
        (folder / "model.pt2").write_bytes(content.getbuffer())
        loaded = torch.export.load(folder / "model.pt2").module()
    with torch.no_grad():
        wanted = network(examples)
        standalone_error = _parity(_load_standalone(folder), examples, wanted)
        program_error = _parity(loaded, examples, wanted)
    return {
        "model.safetensors": standalone_error,
        "model.py": standalone_error,
        "model.pt2": program_error,
    }


_CROP_MODES = {"crop": "center", "letterbox": "border", "stretch": "squash"}


def timm_config(genome: Genome, input_side: int, manifest: dict[str, Any]) -> dict[str, Any]:
    """The `config.json` with which `timm.create_model("local-dir:FOLDER", pretrained=True)` works."""
    preprocessing = manifest["preprocessing"]
    return {
        "architecture": "isonet",
        "num_classes": manifest["classes"],
        "label_names": manifest["class_names"],
        "model_args": {"genome": str(genome), "img_size": input_side},
        "pretrained_cfg": {
            "input_size": [3, input_side, input_side],
            "fixed_input_size": True,
            "interpolation": preprocessing["filter"],
            "crop_pct": 1.0,
            "crop_mode": _CROP_MODES[preprocessing["fit"]],
            "mean": preprocessing["mean"],
            "std": preprocessing["std"],
            "num_classes": manifest["classes"],
            "first_conv": "stem.conv.conv",
            "classifier": "classifier",
        },
    }


def standalone_source() -> str:
    """The text of `model.py`: the network's own source, and a loader that needs PyTorch alone."""
    body = inspect.getsource(isometric)
    tail = inspect.getsource(standalone)
    imports = [line for line in tail.splitlines() if line.startswith(("import ", "from "))]
    own = [line for line in imports if "isonas" not in line and "__future__" not in line]
    rest = tail[tail.index("_DTYPES") :]
    marker = "from __future__ import annotations\n"
    head, code = body.split(marker, 1)
    wanted = [line for line in own if line not in code.splitlines() and line != "from torch import Tensor"]
    return f"{head}{marker}\n" + "\n".join(wanted) + f"{code.rstrip()}\n\n\n{rest}"


def _load_standalone(folder: Path) -> nn.Module:
    spec = importlib.util.spec_from_file_location("exported_isonas_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.load_model(folder)
    assert isinstance(network, nn.Module)
    return network


def _parity(network: nn.Module, examples: Tensor, wanted: Tensor) -> float:
    error = float((network(examples) - wanted).abs().max())
    if not error <= TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise ExportError(
            f"an exported form's logits differ by {error:.2g} from the network's; nothing was written."
        )
    return error
