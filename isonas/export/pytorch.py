"""A network as PyTorch files: safetensors, a standalone `model.py`, and a `.pt2` program."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import io
import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from isonas.errors import ExportError, UsageError
from isonas.export import standalone
from isonas.genome import Genome
from isonas.networks import isometric
from isonas.networks.build import network_arguments
from isonas.networks.isometric import IsometricNet

TOLERANCE = 1e-4
"""The most by which an exported network's logits may differ from the source's, as a share of the
largest logit (or absolutely, below 1)."""


@dataclass(frozen=True)
class Exported:
    """A written file: its size, digest, and the largest logit difference from the source network."""

    name: str
    size_bytes: int
    sha256: str
    parity_error: float


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
    if folder.exists():
        raise UsageError(f"{folder} exists; remove it, or give another folder with --output DIR.")
    network = network.eval().to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            files = _write(network, genome, input_side, examples, manifest, part)
            entries = {
                file.name: {
                    "bytes": file.size_bytes,
                    "sha256": file.sha256,
                    "parity_error": file.parity_error,
                }
                for file in files
            }
            complete = {**manifest, "files": entries}
            (part / "manifest.json").write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")
            part.chmod(0o755)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise ExportError(
            f"{folder} cannot be written ({error.strerror or error}); mend that, or give another folder with "
            "--output DIR."
        ) from None
    return complete


def _write(
    network: IsometricNet,
    genome: Genome,
    input_side: int,
    examples: Tensor,
    manifest: dict[str, Any],
    folder: Path,
) -> tuple[Exported, ...]:
    description = {
        "genome": str(genome),
        "network": network_arguments(genome, input_side, network.num_classes),
    }
    (folder / "genome.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    config = timm_config(genome, input_side, manifest)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
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
    return (
        _exported(folder / "model.safetensors", standalone_error),
        _exported(folder / "model.py", standalone_error),
        _exported(folder / "model.pt2", program_error),
    )


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


def _exported(path: Path, parity_error: float) -> Exported:
    content = path.read_bytes()
    return Exported(path.name, len(content), hashlib.sha256(content).hexdigest(), parity_error)
