"""Everything that decides a search's result, as `study.yaml` records it."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

import isonas
from isonas.atomic import write_atomically
from isonas.cost import DType, MemoryModel
from isonas.data.preprocessing import Fit
from isonas.errors import IsonasError, LogError, RunError
from isonas.hardware import Budget, Overhead
from isonas.objectives import Reference, recorded_objectives
from isonas.paths import read_yaml
from isonas.search import SAMPLER_NAMES
from isonas.search.log import hold
from isonas.space import SearchSpace, parse_space, space_document

STUDY_FILE = "study.yaml"
_VERSION = 4


@dataclass(frozen=True)
class Inputs:
    """The resolved inputs of a search; equal inputs on equal machines give equal trials.

    `input` (pixels, in place of the space's) and `classes` are what costs are reckoned for. `data_*`
    and `class_names` describe the images; their number of classes may differ from `classes`.
    `image_side` is the side in pixels that photographs were asked to be fitted to, None for the source's own,
    `fit` says how, by which version of the `decoder` (0: the source gives pixels, or nobody said). `chance`
    is the best constant answer's error on the validation images, in the error that is minimised.
    `training_version` is that of the isonas that began it (`isonas.training.version`).
    `proxy_input` limits the proxy's side in pixels, None for no limit; `epoch_images` None means all.
    `trials` is the total to reach, `repeats` how often a front member is trained in all,
    `trial_timeout` the seconds that a training may take, None for no limit; the last four say who trains
    (`workers` 0: as many as a cluster has room for). These may change: results depend on them only
    through the order in which trials end, and on which take too long.
    """

    space: SearchSpace
    input: int
    classes: int
    budget: Budget
    objectives: tuple[str, ...]
    sampler: str
    seed: int
    data: str
    data_fingerprint: str
    data_side: int
    class_names: tuple[str, ...]
    image_side: int | None
    fit: Fit
    decoder: int
    chance: float
    epochs: int
    epoch_images: int | None
    batch_size: int
    training_version: int
    proxy_input: int | None
    device: str
    precision: str
    threads: int
    early_stopping: bool
    trials: int
    repeats: int
    trial_timeout: float | None
    workers: int
    engine: str
    cpus_per_trial: float
    gpus_per_trial: float

    @property
    def source_side(self) -> int:
        """The side in pixels of the largest image that a trial may read."""
        return min(self.data_side, self.proxy_input or self.data_side)


MAY_CHANGE = (
    "data", "trials", "repeats", "trial_timeout", "workers", "engine", "cpus_per_trial", "gpus_per_trial"
)  # fmt: skip
"""Inputs that a resumed run may be given anew: its length, where the same images lie, who trains."""

_ERRORS_ALIKE = {
    *MAY_CHANGE,
    "space",
    "budget",
    "sampler",
    "early_stopping",
    "device",
    "threads",
    "class_names",
}
"""Inputs on which a complete trial's error does not hang, but for noise."""

_COMMON = (
    "objectives", "input", "classes", "data_fingerprint", "budget.memory_model", "budget.dtype",
    "budget.arena.channel", "budget.arena.operator", "budget.file.channel", "budget.file.operator",
)  # fmt: skip
"""Inputs without whose being equal two runs have no common front."""

_SINCE_2 = {
    "early_stopping": False,
    "repeats": 1,
    "workers": 1,
    "engine": "local",
    "cpus_per_trial": 1.0,
    "gpus_per_trial": 0.0,
}
"""What a `study.yaml` of version 1 means, which does not say."""

_SINCE_3 = {"trial_timeout": None}

_SINCE_4: dict[str, Any] = {"image_side": None, "fit": "stretch", "decoder": 0, "training_version": 1}


def create_run(run: Path, inputs: Inputs, reference: Reference) -> None:
    """Make a run's folder with its `study.yaml`.

    Raises RunError where the folder holds anything already, LogError where it cannot be written.
    """
    document = {
        "version": _VERSION,
        "inputs": inputs_document(inputs),
        "reference": {
            "objectives": list(reference.objectives),
            "ideal": list(reference.ideal),
            "point": list(reference.point),
        },
        "versions": versions(),
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()
    refuse_existing(run)
    try:
        run.mkdir(parents=True, exist_ok=True)
        with hold(run):
            refuse_existing(run)
            write_atomically(run / STUDY_FILE, lambda stream: stream.write(text))
    except OSError as error:
        raise LogError(
            f"{run} cannot be written ({error.strerror}); give another folder with --run DIR."
        ) from None


def record_changes(run: Path, recorded: Inputs, inputs: Inputs) -> None:
    """Write into `study.yaml` what of the inputs that may change is no longer as recorded, so that a resume
    without options goes on to what was asked for last; the caller holds the run. Raises LogError."""
    old, new = inputs_document(recorded), inputs_document(inputs)
    changes = {key: new[key] for key in MAY_CHANGE if new[key] != old[key]}
    if not changes:
        return
    path = run / STUDY_FILE
    try:
        document = read_yaml(path)
        document["inputs"].update(changes)
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()
        write_atomically(path, lambda stream: stream.write(text))
    except OSError as error:
        raise LogError(f"{path} cannot be written ({error.strerror}); mend that and resume.") from None


def refuse_existing(run: Path) -> None:
    """Raise RunError where a new run's folder holds anything but what a killed start leaves behind."""
    if not run.exists():
        return
    if run.is_dir():
        foreign = [path for path in run.iterdir() if path.name not in ("lock", "lock.holder")]
        if all(path.is_dir() and not any(path.iterdir()) for path in foreign):
            return
    raise RunError(f"{run} exists; go on with it by --resume, or give another folder with --run DIR.")


def require_run(run: Path) -> None:
    """Raise RunError where a folder is no run, at a glance."""
    if not (run / STUDY_FILE).is_file():
        raise RunError(f"{run} is no run: it has no {STUDY_FILE}; give the folder of a search.")


def read_run(run: Path) -> tuple[Inputs, Reference, dict[str, str]]:
    """The inputs of a run, its reference box, and the versions it was started with.

    Raises RunError where there is no run, LogError where its `study.yaml` cannot be used.
    """
    require_run(run)
    path = run / STUDY_FILE
    try:
        document = read_yaml(path)
        if document["version"] > _VERSION:
            raise LogError(
                f"{path} is of version {document['version']}, this isonas reads up to {_VERSION}; use "
                "the isonas that wrote it."
            )
        inputs = parse_inputs(document["inputs"])
        box = document["reference"]
        ideal, point = (tuple(float(value) for value in box[corner]) for corner in ("ideal", "point"))
        if not len(inputs.objectives) == len(ideal) == len(point):
            raise ValueError("the reference box does not have one entry an objective")
        return inputs, Reference(inputs.objectives, ideal, point), dict(document["versions"])
    except LogError:
        raise
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, IsonasError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise LogError(f"{path} cannot be read ({reason}); restore the file.") from None


def changed(recorded: Inputs, given: Inputs) -> list[str]:
    """In what two inputs differ that may not change, as options are called, with the recorded value."""
    old, new = _flat(inputs_document(recorded)), _flat(inputs_document(given))
    keys = [*old, *(key for key in new if key not in old)]
    # Chance follows from the images, the seed and the objectives.
    compared = [key for key in keys if key not in (*MAY_CHANGE, "chance")]
    differing = [key for key in compared if old.get(key) != new.get(key)]
    if "space.name" in differing:
        differing = [key for key in differing if not key.startswith("space.") or key == "space.name"]
    if "budget.board" in differing:
        differing = [key for key in differing if not key.startswith("budget.") or key == "budget.board"]
    return list(dict.fromkeys(_said(key, old.get(key)) for key in differing))


def incomparable(one: Inputs, other: Inputs) -> tuple[list[str], list[str]]:
    """The inputs in which two runs differ so that their trials do not compare.

    First those that costs or the task hang on: such runs have no common front. Then those that only the
    errors hang on: how long, on what and how genomes were trained, and on which images they were judged.
    """
    old, new = _flat(inputs_document(one)), _flat(inputs_document(other))
    differing = [key for key in old if old[key] != new.get(key)]
    of_costs = [key.removeprefix("budget.") for key in differing if key in _COMMON]
    rest = [key for key in differing if key not in _COMMON and key.split(".")[0] not in _ERRORS_ALIKE]
    return of_costs, rest


def _said(key: str, recorded: object) -> str:
    if key in ("data_fingerprint", "data_side", "class_names"):
        return "data"
    if key == "decoder":
        return f"how images are decoded (version {recorded} there)"
    name = key.removeprefix("budget.").removesuffix("_bytes") if key != "space.name" else "space"
    return f"{name} ({recorded} there)" if isinstance(recorded, bool | int | float | str) else name


def versions() -> dict[str, str]:
    """Versions of isonas and of the libraries that decide a search's numbers."""
    libraries = ("torch", "optuna", "numpy", "scipy", "moocore", "scikit-learn", "pillow")
    found = {name: _version(name) for name in libraries}
    return {"isonas": isonas.__version__, **found}


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def inputs_document(inputs: Inputs) -> dict[str, Any]:
    """Inputs as plain values, for YAML or JSON."""
    plain = {field.name: getattr(inputs, field.name) for field in fields(Inputs)}
    budget = asdict(inputs.budget)
    for name in ("memory_model", "dtype"):
        budget[name] = str(budget[name])
    return {
        **plain,
        "space": space_document(inputs.space),
        "budget": budget,
        "objectives": list(inputs.objectives),
        "fit": str(inputs.fit),
        "class_names": list(inputs.class_names),
    }


def parse_inputs(document: dict[str, Any]) -> Inputs:
    """Inputs from `inputs_document`'s plain values; raises KeyError, TypeError, ValueError, IsonasError."""
    budget = dict(document["budget"])
    budget["memory_model"] = MemoryModel(budget["memory_model"])
    budget["dtype"] = DType(budget["dtype"])
    for name in ("arena", "file"):
        budget[name] = Overhead(**budget[name])
    inputs = Inputs(
        **{
            **_SINCE_2,
            **_SINCE_3,
            **_SINCE_4,
            "chance": 1 - 1 / max(len(document["class_names"]), 1),
            **document,
            "space": parse_space(document["space"], ""),
            "budget": Budget(**budget),
            "objectives": recorded_objectives(document["objectives"]),
            "class_names": tuple(document["class_names"]),
            "fit": Fit(document.get("fit", _SINCE_4["fit"])),
        }
    )
    if inputs.sampler not in SAMPLER_NAMES:
        raise ValueError(f"sampler {inputs.sampler!r} is unknown")
    for name in (
        "input",
        "classes",
        "seed",
        "data_side",
        "epochs",
        "batch_size",
        "threads",
        "trials",
        "training_version",
    ):
        if not isinstance(getattr(inputs, name), int):
            raise TypeError(f"{name} is {getattr(inputs, name)!r}")
    return inputs


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
