"""A table of really trained genomes: one Parquet file that a search can be replayed on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isonas.atomic import write_atomically
from isonas.errors import IsonasError, LogError, UsageError
from isonas.genome import Genome, parse_genome
from isonas.search.inputs import Inputs, inputs_document, parse_inputs, versions

VERSION = 1
_METADATA = b"isonas_table"

SCHEMA = pa.schema(
    [
        ("genome", pa.string()),
        ("seed", pa.int64()),
        ("error", pa.list_(pa.float64())),
        ("test_error", pa.float64()),
        ("seconds", pa.float64()),
        ("core_seconds", pa.float64()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Training:
    """One genome trained once: `seed` counts its trainings (`trial_seed`'s `repeat`).

    `error` is 1 − top-1 on the validation images after each epoch, `test_error` on the held-back
    images after the last (None where the source has none). `seconds` is what the training took by the
    clock, validation included, `core_seconds` the processor time of all its threads, which a busy
    machine stretches less. Where it failed, `error` is empty and `reason` says why.
    """

    genome: Genome
    seed: int
    error: tuple[float, ...]
    test_error: float | None
    seconds: float
    core_seconds: float
    reason: str | None = None


@dataclass(frozen=True)
class Table:
    """Trainings, and the resolved inputs under which they were made (no sampler has part in them)."""

    inputs: Inputs
    versions: dict[str, str]
    trainings: tuple[Training, ...]


def write_table(path: Path, inputs: Inputs, trainings: Sequence[Training]) -> None:
    """Write a table whole, in place of what is there; raises LogError where it cannot be written."""
    head = {"version": VERSION, "inputs": inputs_document(inputs), "versions": versions()}
    schema = SCHEMA.with_metadata({_METADATA: json.dumps(head)})
    rows = [{**vars(training), "genome": str(training.genome)} for training in trainings]
    table = pa.Table.from_pylist(rows, schema=schema)
    try:
        write_atomically(path, lambda stream: pq.write_table(table, stream, compression="zstd"))
    except OSError as error:
        raise LogError(
            f"{path} cannot be written ({error.strerror}); the trainings before are safe, so mend that "
            "and give the same command again."
        ) from None


def read_table(path: Path) -> Table:
    """Read a table; raises UsageError where the file is not there, LogError where it is no table that can
    be used."""
    try:
        # Opened once: a recording may put a new file in its place meanwhile.
        with path.open("rb") as stream, pq.ParquetFile(stream) as file:
            table = file.read()
        head: dict[str, Any] = json.loads((table.schema.metadata or {})[_METADATA])
        if head["version"] > VERSION:
            raise LogError(
                f"{path} is of table version {head['version']}, this isonas reads up to {VERSION}; use the "
                "isonas that wrote it."
            )
        rows = table.select(SCHEMA.names).to_pylist()
        trainings = tuple(_training(row) for row in rows)
        return Table(parse_inputs(head["inputs"]), dict(head["versions"]), trainings)
    except LogError:
        raise
    except FileNotFoundError:
        raise UsageError(f"{path} is not there; record a table with isonas bench record.") from None
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException, IsonasError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise LogError(
            f"{path} is no table that isonas bench record wrote, or is damaged ({reason}); give another, or "
            "record it anew."
        ) from None


def _training(row: dict[str, Any]) -> Training:
    return Training(**{**row, "genome": parse_genome(row["genome"]), "error": tuple(row["error"] or ())})
