"""Proxy weights of front members: `weights/<number>.safetensors` in a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from isonas.atomic import write_atomically
from isonas.errors import LogError
from isonas.evaluation import TrainingState


def weights_path(run: Path, number: int) -> Path:
    """Where the weights of a trial lie, if they are kept."""
    return run / "weights" / f"{number}.safetensors"


def save_weights(run: Path, number: int, state: TrainingState) -> None:
    """Save a trial's weights, before the row that says it ended; raises LogError."""
    content = save(dict(state.weights()))
    try:
        write_atomically(weights_path(run, number), lambda stream: stream.write(content))
    except OSError as error:
        raise _unwritable(run, error) from None


def prune_weights(run: Path, front: set[int]) -> None:
    """Drop the weights of all but the front's trials, after it is logged; raises LogError."""
    try:
        for path in (run / "weights").glob("*.safetensors"):
            if path.stem.isdecimal() and int(path.stem) not in front:
                path.unlink()
    except OSError as error:
        raise _unwritable(run, error) from None


def _unwritable(run: Path, error: OSError) -> LogError:
    return LogError(
        f"{run / 'weights'} cannot be written ({error.strerror}); the trials are safe, so mend that and "
        f"continue with: isonas resume {shlex.quote(str(run))}"
    )


def load_weights(run: Path, number: int) -> dict[str, npt.NDArray[Any]] | None:
    """The weights of a trial, None where none are kept; raises LogError where they are unreadable."""
    path = weights_path(run, number)
    if not path.exists():
        return None
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise LogError(f"{path} cannot be read ({error}); remove it and train again.") from None
