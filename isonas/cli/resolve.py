"""From the options of a search to its inputs and its run's folder."""

from __future__ import annotations

import glob
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isonas.cli.options import BUDGET_OPTIONS, budget_from
from isonas.errors import IsonasError, LogError, RunError, UsageError
from isonas.paths import user_path

if TYPE_CHECKING:
    from isonas.data.dataset import Dataset, Labels
    from isonas.hardware import Budget
    from isonas.search.inputs import Inputs
    from isonas.search.log import Trial
    from isonas.training.machine import Machine
    from isonas.training.proxy import ProxySetting

CPU_EPOCH_IMAGES = 4000

IMBALANCE = 1.5
"""From so many times an even share of the validation images on, the largest class is told of."""


def new_inputs(options: dict[str, Any]) -> tuple[Inputs, Dataset]:
    """The inputs that the options of a new search describe, and its images."""
    from isonas.data.dataset import validation_images
    from isonas.data.preprocessing import Fit
    from isonas.data.sources import open_dataset
    from isonas.evaluation import chance_error
    from isonas.objectives import error_objective, parse_objectives
    from isonas.search.inputs import Inputs
    from isonas.space import load_space
    from isonas.training.version import TRAINING_VERSION

    space = load_space(options["space"])
    budget = budget_from(options)
    objectives = parse_objectives(options["objectives"])
    image_side, fit = options.get("image_side"), Fit(options.get("fit") or Fit.CROP)
    data = open_dataset(options["data"], cache_folder(options), image_side, fit)
    _check_engine(options["engine"], options)
    images = validation_images(data, options["seed"])
    chance = chance_error(error_objective(objectives), images)
    if "error" in objectives:
        _tell_imbalance(objectives, images, data.class_names, chance)
    machine = _machine(options)
    epoch_images = options["epoch_images"]
    if epoch_images is None and machine.device == "cpu":
        epoch_images = min(CPU_EPOCH_IMAGES, len(data.train))
    inputs = Inputs(
        space=space,
        input=options["input_side"] or space.input,
        classes=options["classes"] or data.classes,
        budget=budget,
        objectives=objectives,
        sampler=options["sampler"],
        seed=options["seed"],
        data=data.source,
        data_fingerprint=data.fingerprint,
        data_side=data.train.side,
        class_names=data.class_names,
        image_side=image_side,
        fit=fit,
        decoder=data.decoder,
        chance=chance,
        epochs=options["epochs"],
        epoch_images=epoch_images,
        batch_size=options["batch_size"],
        training_version=TRAINING_VERSION,
        proxy_input=options["proxy_input"],
        device=machine.device,
        precision=machine.precision,
        threads=machine.threads,
        early_stopping=options["early_stopping"],
        trials=options["trials"],
        repeats=options["repeats"],
        trial_timeout=timeout_from(options),
        engine=options["engine"],
        **_shares(options["engine"], machine.device, machine.threads, options),
    )
    return inputs, data


def _tell_imbalance(
    objectives: tuple[str, ...], images: Labels, class_names: tuple[str, ...], chance: float
) -> None:
    largest = int(images.argmax())
    if images[largest] * len(images) < IMBALANCE * images.sum():
        return
    balanced = ",".join("balanced_error" if name == "error" else name for name in objectives)
    click.echo(
        f"isonas: {images[largest] / images.sum():.1%} of the validation images are of class "
        f"{class_names[largest]!r}: always answering it has error {chance:.3f}, which counts as chance; "
        f"--objectives {balanced} weighs all classes alike.",
        err=True,
    )


def _check_engine(engine: str, options: dict[str, Any]) -> None:
    """Raise UsageError for given options that a cluster alone has use for."""
    for name in ("cpus_per_trial", "gpus_per_trial"):
        if engine == "local" and options.get(name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} is for a cluster (--engine ray); on this machine give --workers "
                "and --threads."
            )


def _shares(engine: str, device: str, threads: int, options: dict[str, Any]) -> dict[str, Any]:
    """Trainings side by side and what each takes, for a search that is new to an engine."""
    ray, gpus = engine == "ray", options["gpus_per_trial"]
    if ray and device == "cuda" and gpus == 0:
        raise UsageError(
            "--device cuda on a cluster takes GPUs of it; give --gpus-per-trial, such as 1, or --device cpu."
        )
    return {
        "workers": options["workers"] or (0 if ray else 1),
        "cpus_per_trial": options["cpus_per_trial"] or float(threads),
        "gpus_per_trial": gpus if gpus is not None else float(ray and device == "cuda"),
    }


def _machine(options: dict[str, Any]) -> Machine:
    """Where trainings run: threads are shared out among workers, on a cluster a training takes one
    unless told."""
    from isonas.training.machine import Machine, probe_machine, usable_cores

    device, precision, gpus = options["device"], options["precision"], options["gpus_per_trial"]
    if options["engine"] == "local":
        threads = options["threads"] or max(usable_cores() // (options["workers"] or 1), 1)
        return probe_machine(device, threads, precision)
    threads = options["threads"] or max(int(options["cpus_per_trial"] or 1), 1)
    if device == "auto" and gpus is not None:
        device = "cuda" if gpus else "cpu"
    if device == "cuda":
        # The driver may have no GPU to probe; those of a cluster that are worth having do bf16.
        return Machine("cuda", "fp32" if precision == "fp32" else "bf16", threads)
    return probe_machine(device, threads, precision)


def given_inputs(recorded: Inputs, options: dict[str, Any], given: set[str], data: Dataset) -> Inputs:
    """The recorded inputs, with what was given on the command line, and the images, in their place."""
    from isonas.objectives import parse_objectives
    from isonas.space import load_space

    alike = ("trials", "sampler", "seed", "epochs", "epoch_images", "batch_size", "proxy_input",
             "image_side", "fit", "threads", "classes", "early_stopping",
             "repeats", "workers", "engine", "cpus_per_trial",
             "gpus_per_trial")  # fmt: skip
    over = {name: options[name] for name in alike if name in given}
    engine = over.get("engine", recorded.engine)
    _check_engine(engine, over)
    if engine != recorded.engine:
        over |= _shares(engine, recorded.device, recorded.threads, options)
    if "space" in given:
        over["space"] = load_space(options["space"])
    if "input_side" in given:
        over["input"] = options["input_side"]
    if "objectives" in given:
        over["objectives"] = parse_objectives(options["objectives"])
        # A run that minimises the peak was given `peak_bytes` when that was what it meant.
        if options["objectives"].replace(" ", "").split(",") == list(recorded.objectives):
            over["objectives"] = recorded.objectives
    if given & set(BUDGET_OPTIONS):
        over["budget"] = _given_budget(recorded.budget, options, given)
    if "trial_timeout" in given:
        over["trial_timeout"] = timeout_from(options)
    for name in ("device", "precision"):
        if name in given and options[name] != "auto":
            over[name] = options[name]
    return replace(
        recorded,
        data=data.source,
        data_fingerprint=data.fingerprint,
        data_side=data.train.side,
        class_names=data.class_names,
        decoder=data.decoder,
        **over,
    )


def inputs_again(run: Path, recorded: Inputs, options: dict[str, Any]) -> Inputs:
    """A run's inputs for training more of it, with its images where `--data` says they lie now.

    Raises DataError where they cannot be opened, RunError where they are others or the run is of another
    training version, UsageError without the run's device.
    """
    from isonas.search.inputs import changed
    from isonas.training.machine import require_device
    from isonas.training.version import require_this_version

    require_this_version(run, recorded.training_version)
    inputs = given_inputs(recorded, options, set(), images_again(run, recorded, options))
    if changed(recorded, inputs):
        raise RunError(f"{run} was searched on other images than those of {inputs.data}; give its own.")
    require_device(inputs.device)
    return inputs


def images_again(run: Path, recorded: Inputs, options: dict[str, Any]) -> Dataset:
    """A run's images: those of `--data`, or where they were; raises as `open_dataset` does."""
    from isonas.data.sources import open_dataset

    source, form = options["data"] or recorded.data, (recorded.image_side, recorded.fit)
    if options["data"]:
        return open_dataset(source, cache_folder(options), *form)
    try:
        return open_dataset(source, cache_folder(options), *form)
    except IsonasError as error:
        raise type(error)(
            f"the images of {run} cannot be read where they were ({str(error).rstrip('.')}); say where they "
            "lie now by --data."
        ) from None


def proxy_setting(inputs: Inputs, cache: Path) -> ProxySetting:
    """What the trainings of a search or a table are made from."""
    from isonas.training.machine import Machine
    from isonas.training.proxy import ProxySetting
    from isonas.training.recipe import Recipe

    return ProxySetting(
        data=inputs.data,
        cache=cache,
        recipe=Recipe(inputs.epochs, inputs.epoch_images, inputs.batch_size),
        machine=Machine(inputs.device, inputs.precision, inputs.threads),
        input_side=inputs.input,
        source_side=inputs.source_side,
        split_seed=inputs.seed,
        trial_timeout=inputs.trial_timeout,
        image_side=inputs.image_side,
        fit=inputs.fit,
    )


def _given_budget(recorded: Budget, options: dict[str, Any], given: set[str]) -> Budget:
    """The budget of the given options, what was not given as recorded."""
    budget = budget_from({**options, "board": options["board"] or recorded.board})
    fields = {
        "max_memory": "max_memory_bytes",
        "max_flash": "max_flash_bytes",
        **{name: name for name in ("max_params", "max_madds", "memory_model", "dtype")},
    }
    kept = {field: getattr(recorded, field) for name, field in fields.items() if name not in given}
    return replace(budget, **kept)


def timeout_from(options: dict[str, Any]) -> float | None:
    """The seconds of `--trial-timeout`, None without one; raises UsageError."""
    text = options["trial_timeout"]
    return parse_seconds(text, "--trial-timeout") if text else None


def parse_seconds(text: str, option: str = "--time-limit") -> float:
    """Seconds from `600`, `600s`, `90m` or `2h`; raises UsageError, which names the option."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smh]?)", text.strip(), re.ASCII)
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise UsageError(f"{option} {text!r} is not a time; give one like 600s, 90m or 2h.")
    return seconds


def cache_folder(options: dict[str, Any]) -> Path:
    """The folder of decoded images: `--cache`, or the user's."""
    from isonas.data.store import default_cache

    return options["cache"] or default_cache()


def selected_trials(run: Path, select: str, objectives: tuple[str, ...]) -> list[Trial]:
    """The complete trials that `--select` names."""
    from isonas.objectives import front_of
    from isonas.search.log import COMPLETE, read_trials

    complete = [trial for trial in read_trials(run)[0] if trial.state == COMPLETE]
    if not complete:
        raise RunError(f"{run} has no complete trial yet; go on with: isonas resume {shlex.quote(str(run))}")
    front = front_of(complete, objectives)
    if select in ("best", "front"):
        return front if select == "front" else front[:1]
    found = [trial for trial in complete if select in (str(trial.number), str(trial.genome))]
    if not found:
        raise UsageError(
            f"--select {select!r} names no complete trial of {run}; give best, front, a number from "
            f"`isonas front {shlex.quote(str(run))}`, or a genome of it."
        )
    return found


def claim_run(space: str, data: str) -> Path:
    """Make the first folder `runs/<space>-<data>-<n>` that no earlier run has, however many start at once.

    Raises LogError where it cannot be made.
    """
    while True:
        stem, found = _numbered_runs(space, data)
        run = Path("runs") / f"{stem}-{max(found, default=0) + 1}"
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            if not run.is_dir():
                raise LogError(f"{run.parent} is no folder; move it away, or give --run DIR.") from None
        except OSError as error:
            raise LogError(f"{run} cannot be made ({error.strerror}); give --run DIR.") from None
        else:
            return run


def latest_run(space: str, data: str) -> Path:
    """The folder `runs/<space>-<data>-<n>` with the highest n; raises RunError where there is none."""
    stem, found = _numbered_runs(space, data)
    if not found:
        raise RunError(f"no run runs/{stem}-… to resume; name one with --run DIR.")
    return found[max(found)]


def _numbered_runs(space: str, data: str) -> tuple[str, dict[int, Path]]:
    kind, _, path = data.partition(":")
    name = user_path(path).resolve().name.split(".")[0] if path else kind
    stem = f"{Path(space).stem}-{re.sub(r'[^A-Za-z0-9_-]+', '-', name) or kind}"
    alike = Path("runs").glob(f"{glob.escape(stem)}-*")
    numbered = {folder.name.removeprefix(f"{stem}-"): folder for folder in alike}
    return stem, {int(number): folder for number, folder in numbered.items() if number.isdecimal()}
