"""The Parquet file of an experiment: one row a training, and the settings under which they were made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isonas.atomic import write_atomically
from isonas.cost import MemoryModel
from isonas.data.preprocessing import Fit
from isonas.errors import LogError
from isonas.paper.findings import Finding, Interval, interval, rises
from isonas.training.recipe import Recipe
from isonas.training.recipes import FullRecipe

RESULTS = "results.parquet"
_VERSION = 2
_METADATA = b"isonas_paper"
_ACTIVATIONS = [f"activations_{model}{ending}" for model in MemoryModel for ending in ("", "_without_input")]

SCHEMA = pa.schema(
    [
        ("cell", pa.string()),
        ("seed", pa.int64()),
        ("network", pa.string()),
        ("input_side", pa.int64()),
        ("internal_resolution", pa.int64()),
        ("params", pa.int64()),
        ("madds", pa.int64()),
        *((name, pa.int64()) for name in _ACTIVATIONS),
        ("accuracy", pa.float64()),
        ("accuracy_se", pa.float64()),
        ("curve_accuracy", pa.list_(pa.float64())),
        ("curve_loss", pa.list_(pa.float64())),
        ("micro_batch", pa.int64()),
        ("seconds", pa.float64()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class Counts:
    """What a network costs at its input: counts, and peak activations by column of the results file, in
    elements at batch 1."""

    params: int
    madds: int
    activations: dict[str, int]


@dataclass(frozen=True)
class Training:
    """One cell trained from one seed.

    The curves hold one entry an epoch: top-1 on the scored images and mean training loss. `accuracy_se`
    is the binomial standard error of the last top-1. `micro_batch` is the most images that went through the
    network at a time (None where a file of version 1 does not say). Where training failed, `accuracy` is
    None, `reason` says why.
    """

    cell: str
    seed: int
    network: str
    input_side: int
    internal_resolution: int | None
    counts: Counts
    accuracy: float | None
    accuracy_se: float | None
    curve_accuracy: tuple[float, ...]
    curve_loss: tuple[float, ...]
    seconds: float
    reason: str | None = None
    micro_batch: int | None = None


@dataclass(frozen=True)
class Settings:
    """What decides the trainings of an experiment; `cells` maps names to networks at their inputs.

    `images` and `scored_images` are how many are trained and scored on, `image_side` in pixels the
    source's own, to which photographs were fitted by that version of the `decoder`; `scored_on` is "held
    back" or "carved from training". `micro_batch` is the most images that go through a network at a time,
    None where that is left to memory and cache.
    """

    experiment: str
    scale: str
    data: str
    data_fingerprint: str
    class_names: tuple[str, ...]
    images: int
    scored_images: int
    scored_on: str
    image_side: int
    recipe: Recipe | FullRecipe
    device: str
    precision: str
    threads: int
    training_version: int
    cells: dict[str, str]
    fit: Fit = Fit.STRETCH
    decoder: int = 0
    micro_batch: int | None = None

    @property
    def classes(self) -> int:
        """Number of classes trained on."""
        return len(self.class_names)


MAY_CHANGE = ("data", "threads", "recipe.description")
"""Settings that may be given anew: where the same images lie, how many threads work, and words."""


@dataclass(frozen=True)
class Results:
    """The trainings there are, of `seeds` asked for, and the folder they are kept in; neither folder nor
    settings where nothing is trained."""

    settings: Settings | None
    seeds: int
    trainings: tuple[Training, ...]
    folder: Path | None = None

    @cached_property
    def _accuracy(self) -> dict[tuple[str, int], float]:
        return {(one.cell, one.seed): one.accuracy for one in self.trainings if one.accuracy is not None}

    def whole_seeds(self, cells: Sequence[str]) -> list[int]:
        """The seeds from which every one of these cells was trained, lowest first."""
        every = {seed for _, seed in self._accuracy}
        return sorted(seed for seed in every if all((cell, seed) in self._accuracy for cell in cells))

    def paired(self, weights: dict[str, float]) -> list[float]:
        """For each seed that has all of the cells the weighted sum of their accuracies."""
        return [
            sum(weight * self._accuracy[cell, seed] for cell, weight in weights.items())
            for seed in self.whole_seeds(list(weights))
        ]

    def rising(self, claims: Iterable[tuple[str, dict[str, float]]]) -> list[Finding]:
        """Of each claim that a weighted sum of accuracies is above zero what the seeds say.

        Claims of which no seed has all cells are left out.
        """
        paired = [(claim, self.paired(weights)) for claim, weights in claims]
        return [rises(claim, differences) for claim, differences in paired if differences]

    def interval(self, cell: str) -> Interval | None:
        """A cell's accuracy over the seeds there are, None where there is none."""
        found = self.paired({cell: 1.0})
        return interval(found) if found else None

    def of(self, cell: str) -> Training | None:
        """One training of a cell, for what is alike in all of them."""
        return next((one for one in self.trainings if one.cell == cell), None)


def write_results(path: Path, settings: Settings, trainings: Sequence[Training]) -> None:
    """Write the file whole, in place of what is there; raises LogError where it cannot be written."""
    head = {"version": _VERSION, "settings": asdict(settings)}
    schema = SCHEMA.with_metadata({_METADATA: json.dumps(head)})
    table = pa.Table.from_pylist([_row(training) for training in trainings], schema=schema)
    try:
        write_atomically(path, lambda stream: pq.write_table(table, stream, compression="zstd"))
    except OSError as error:
        raise LogError(
            f"{path} cannot be written ({error.strerror}); mend that and give the same command again."
        ) from None


def read_results(path: Path) -> tuple[Settings, list[Training]] | None:
    """What the file holds, None where there is none; raises LogError where it is no such file."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream:
            table = pq.read_table(stream)
        head = json.loads((table.schema.metadata or {})[_METADATA])
        if head["version"] > _VERSION:
            raise LogError(f"{path} is of version {head['version']}; use the isonas that wrote it.")
        plain = head["settings"]
        settings = Settings(
            **{
                # What a file means that does not say.
                "training_version": 1,
                **plain,
                "recipe": (FullRecipe if "optimizer" in plain["recipe"] else Recipe)(**plain["recipe"]),
                "class_names": tuple(plain["class_names"]),
                "fit": Fit(plain.get("fit", Fit.STRETCH)),
            }
        )
        return settings, [_training(row) for row in table.to_pylist()]
    except LogError:
        raise
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise LogError(f"{path} holds no results that can be read ({reason}); move it away.") from None


def weights_path(folder: Path, cell: str, seed: int) -> Path:
    """Where the trained weights of a cell lie that another cell, or a figure, starts from."""
    return folder / "weights" / f"{cell}-{seed}.safetensors"


def changed(recorded: Settings, given: Settings) -> list[str]:
    """The keys in which two settings differ, but for those that may; a new cell is no difference."""
    old, new = _flat(recorded), _flat(given)
    cells = {key for key in old.keys() ^ new.keys() if key.startswith("cells.")}
    return [
        key
        for key in sorted(old.keys() | new.keys())
        if key not in MAY_CHANGE and key not in cells and old.get(key) != new.get(key)
    ]


def _flat(settings: Settings) -> dict[str, Any]:
    nested = asdict(settings)
    inner = {
        f"{name}.{key}": value for name in ("recipe", "cells") for key, value in nested.pop(name).items()
    }
    return {**nested, **inner}


def _row(training: Training) -> dict[str, Any]:
    counts = training.counts
    plain = {name: value for name, value in vars(training).items() if name != "counts"}
    return {**plain, "params": counts.params, "madds": counts.madds, **counts.activations}


def _training(row: dict[str, Any]) -> Training:
    activations = {name: row.pop(name) for name in _ACTIVATIONS if name in row}
    counts = Counts(
        row.pop("params"),
        row.pop("madds"),
        {name: count for name, count in activations.items() if count is not None},
    )
    for name in ("curve_accuracy", "curve_loss"):
        row[name] = tuple(row[name] or ())
    return Training(**row, counts=counts)
