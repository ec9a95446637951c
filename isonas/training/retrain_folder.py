"""The folder of one retraining: what was asked, where it stands, what came of it.

    retrain.json          the resolved inputs, written once, compared on resume
    checkpoint.pt         everything that going on needs, replaced whole after every epoch
    best.safetensors      weights of the lowest validation error so far
    average.safetensors   the moving average after the last epoch
    history.parquet       one row an epoch
    result.json           written at the end

The checkpoint is the state; weights and history are derived from it and written after it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from isonas.atomic import PART_SUFFIX, write_atomically
from isonas.data.preprocessing import Fit, Preprocessing, preprocessing
from isonas.errors import IsonasError, LogError, RunError
from isonas.genome import Genome, parse_genome
from isonas.training.recipes import FullRecipe, parse_recipe
from isonas.training.weights_file import AVERAGE, BEST, Weights, write_weights

INPUTS, CHECKPOINT, HISTORY, RESULT = "retrain.json", "checkpoint.pt", "history.parquet", "result.json"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """The resolved inputs of a retraining; equal ones on equal machines give equal weights.

    `input_side` is the deployment input in pixels. `micro_batch` images share a forward pass and its
    batch-norm statistics; processes and accumulation make up the recipe's batch. `seed` is of weights,
    batches and augmentation, `split_seed` draws the validation images. `trial` is the search's that the
    genome is from, with its `proxy_error`; `warm_start` says whether its weights are started from.

    Images are squares of `image_side` pixels, photographs brought to them as `fit` says by that version of
    the `decoder`; training crops are cut from squares of `crop_side`. What an older file means, which does
    not say, are the source's own squares, stretched.
    """

    genome: Genome
    input_side: int
    data: str
    data_fingerprint: str
    class_names: tuple[str, ...]
    recipe: FullRecipe
    micro_batch: int
    seed: int
    split_seed: int
    device: str
    precision: str
    threads: int
    training_version: int
    image_side: int | None = None
    fit: Fit = Fit.STRETCH
    crop_side: int | None = None
    decoder: int = 0
    trial: int | None = None
    proxy_error: float | None = None
    warm_start: bool = False

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is done to images that the network is tested on; None where an older file does not say."""
        if self.image_side is None:
            return None
        return preprocessing(self.fit, self.image_side, self.input_side, self.decoder)


MAY_CHANGE = ("data", "recipe.description", "trial", "proxy_error")
"""Inputs that may be given anew on resume: where the same images lie, and what is told only."""


@dataclass(frozen=True)
class Epoch:
    """How a retraining stood after an epoch (from 1): the mean training `loss`, the last learning `rate`,
    the validation `error` (1 − top-1) of the weights and of their moving average, and `seconds`."""

    epoch: int
    loss: float
    rate: float
    error: float
    average_error: float
    seconds: float


@dataclass(frozen=True)
class State:
    """All that going on needs, on the CPU. `best` are the weights of the lowest validation error yet:
    those of `best_epoch`, the moving average's where `best_average`."""

    network: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    history: tuple[Epoch, ...]
    best: dict[str, Tensor]
    best_epoch: int
    best_average: bool
    best_error: float


def begin(folder: Path, retraining: Retraining) -> None:
    """Make the folder with its `retrain.json`.

    Raises RunError where it holds something else, LogError where it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(not _left_behind(path) for path in folder.iterdir())):
        raise RunError(f"{folder} exists and is no retraining; give another folder with --run DIR.")
    content = json.dumps({"version": _VERSION, **retraining_document(retraining)}, indent=2).encode()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / INPUTS, lambda stream: stream.write(content + b"\n"))


def read_retraining(folder: Path) -> Retraining | None:
    """The inputs of the retraining in a folder, None where there is none yet; raises LogError."""
    path = folder / INPUTS
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document.pop("version")
        if version > _VERSION:
            raise LogError(f"{path} is of version {version}; use the isonas that wrote it.")
        return Retraining(
            **{
                # What a file means that does not say.
                "training_version": 1,
                **document,
                "genome": parse_genome(document["genome"]),
                "class_names": tuple(document["class_names"]),
                "fit": Fit(document.get("fit", Fit.STRETCH)),
                "recipe": parse_recipe(document["recipe"], str(path)),
            }
        )
    except LogError:
        raise
    except (OSError, KeyError, TypeError, ValueError, IsonasError) as error:
        raise LogError(f"{path} cannot be read ({' '.join(str(error).split())}); restore the file.") from None


def changed(recorded: Retraining, given: Retraining) -> list[str]:
    """The keys in which two retrainings differ, but for those that may."""
    old, new = (_flat(retraining_document(one)) for one in (recorded, given))
    return [key for key in old if key not in MAY_CHANGE and old[key] != new[key]]


def retraining_document(retraining: Retraining) -> dict[str, Any]:
    """The inputs as plain values, for JSON."""
    plain = {entry.name: getattr(retraining, entry.name) for entry in fields(Retraining)}
    return {
        **plain,
        "genome": str(retraining.genome),
        "class_names": list(retraining.class_names),
        "fit": str(retraining.fit),
        "recipe": asdict(retraining.recipe),
    }


def save_state(folder: Path, retraining: Retraining, state: State) -> None:
    """Replace the checkpoint, then what is derived from it; raises LogError."""
    document = {**vars(state), "history": [asdict(row) for row in state.history]}
    with writing(folder):
        write_document(folder / CHECKPOINT, document)
    derive(folder, retraining, state)


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write what `torch.load` reads, whole or not at all; raises OSError."""
    # Through memory: PyTorch's own writer turns a full disk into an assertion, or into an abort.
    content = io.BytesIO()
    torch.save(document, content)
    write_atomically(path, lambda stream: stream.write(content.getbuffer()))


def derive(folder: Path, retraining: Retraining, state: State) -> None:
    """Write the weights files and the history that a state gives; raises LogError."""
    last = state.history[-1]
    training = {
        "epochs": retraining.recipe.epochs,
        "epochs_done": last.epoch,
        "data": retraining.data,
        "data_fingerprint": retraining.data_fingerprint,
        "split_seed": retraining.split_seed,
        "decoder": retraining.decoder,
        "training_version": retraining.training_version,
    }
    best = {"epoch": state.best_epoch, "average": state.best_average, "validation_error": state.best_error}
    average = {"epoch": last.epoch, "average": True, "validation_error": last.average_error}
    as_best = Weights(
        retraining.genome,
        retraining.input_side,
        retraining.class_names,
        state.best,
        {**training, **best},
        retraining.preprocessing,
    )
    table = pa.Table.from_pylist([asdict(row) for row in state.history])
    with writing(folder):
        write_weights(folder / BEST, as_best)
        write_weights(
            folder / AVERAGE, replace(as_best, tensors=state.average, training={**training, **average})
        )
        write_atomically(folder / HISTORY, lambda stream: pq.write_table(table, stream))


def load_state(folder: Path) -> State | None:
    """The state after the last whole epoch, None before the first; raises LogError."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream:
            document = torch.load(stream, weights_only=True, map_location="cpu")
        return State(**{**document, "history": tuple(Epoch(**row) for row in document["history"])})
    except Exception as error:
        # A torn or foreign file raises whatever its bytes happen to mean.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LogError(f"{path} cannot be read ({reason}); remove it to train from the start.") from None


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write `result.json`; raises LogError."""
    content = json.dumps(result, indent=2).encode() + b"\n"
    with writing(folder):
        write_atomically(folder / RESULT, lambda stream: stream.write(content))


def read_result(folder: Path) -> dict[str, Any] | None:
    """What came of a retraining, None where it has not ended; raises LogError."""
    path = folder / RESULT
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LogError(f"{path} cannot be read ({error}); remove it and retrain again.") from None
    return result


def is_retrained(folder: Path, input_side: int) -> bool:
    """Whether a folder holds a finished retraining at that input; raises LogError."""
    result = read_result(folder)
    return result is not None and result.get("input") == input_side


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder for writing; raises LogError where another process does."""
    lock = filelock.FileLock(folder / "lock", timeout=0)
    with writing(folder):
        try:
            lock.acquire()
        except filelock.Timeout:
            raise LogError(f"{folder} is being trained by another process; wait for it, or end it.") from None
    try:
        for path in folder.glob(f".*{PART_SUFFIX}"):
            path.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what a failed write into a training's folder raises into a LogError."""
    try:
        yield
    except OSError as error:
        raise LogError(
            f"{folder} cannot be written ({error.strerror or error}); mend that and give the same command "
            "again."
        ) from None


def _left_behind(path: Path) -> bool:
    return path.name == "lock" or path.name.endswith(PART_SUFFIX)


def _flat(document: dict[str, Any]) -> dict[str, Any]:
    recipe = {f"recipe.{key}": value for key, value in document["recipe"].items()}
    return {**{key: value for key, value in document.items() if key != "recipe"}, **recipe}
