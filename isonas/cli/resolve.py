"""From the options of a search to its inputs and its run's folder."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isonas.cli.options import BUDGET_OPTIONS, budget_from
from isonas.errors import IsonasError, LogError, RunError, UsageError

if TYPE_CHECKING:
    from isonas.data.dataset import Dataset
    from isonas.hardware import Budget
    from isonas.search.inputs import Inputs
    from isonas.search.log import Trial
    from isonas.training.machine import Machine
    from isonas.training.proxy import ProxySetting

CPU_EPOCH_IMAGES = 4000


def new_inputs(options: dict[str, Any]) -> tuple[Inputs, Dataset]:
    """The inputs that the options of a new search describe, and its images."""
    from isonas.data.sources import open_dataset
    from isonas.objectives import parse_objectives
    from isonas.search.inputs import Inputs
    from isonas.space import load_space
    from isonas.training.version import TRAINING_VERSION

    space = load_space(options["space"])
    budget = budget_from(options)
    objectives = parse_objectives(options["objectives"])
    data = open_dataset(options["data"], cache_folder(options))
    _check_engine(options["engine"], options)
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
        workers=options["workers"] or (1 if options["engine"] == "local" else 0),
        engine=options["engine"],
        cpus_per_trial=options["cpus_per_trial"] or float(machine.threads),
        gpus_per_trial=options["gpus_per_trial"] or 0.0,
    )
    return inputs, data


def _check_engine(engine: str, options: dict[str, Any]) -> None:
    """Raise UsageError for given options that a cluster alone has use for."""
    for name in ("cpus_per_trial", "gpus_per_trial"):
        if engine == "local" and options.get(name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} is for a cluster (--engine ray); on this machine give --workers "
                "and --threads."
            )


def _machine(options: dict[str, Any]) -> Machine:
    """Where trainings run: threads are shared out among workers, on a cluster a training takes one
    unless told."""
    from isonas.training.machine import Machine, probe_machine, usable_cores

    if options["engine"] == "local":
        threads = options["threads"] or max(usable_cores() // (options["workers"] or 1), 1)
    else:
        threads = options["threads"] or max(int(options["cpus_per_trial"] or 1), 1)
        if options["device"] == "cuda":
            if not options["gpus_per_trial"]:
                raise UsageError(
                    "--device cuda on a cluster takes GPUs of it; give --gpus-per-trial, such as 1."
                )
            # The driver may have no GPU to probe; those of a cluster that are worth having do bf16.
            return Machine("cuda", "fp32" if options["precision"] == "fp32" else "bf16", threads)
    return probe_machine(options["device"], threads, options["precision"])


def given_inputs(recorded: Inputs, options: dict[str, Any], given: set[str], data: Dataset) -> Inputs:
    """The recorded inputs, with what was given on the command line, and the images, in their place."""
    from isonas.objectives import parse_objectives
    from isonas.space import load_space

    alike = ("trials", "sampler", "seed", "epochs", "epoch_images", "batch_size", "proxy_input",
             "threads", "classes", "early_stopping", "repeats", "workers", "engine", "cpus_per_trial",
             "gpus_per_trial")  # fmt: skip
    over = {name: options[name] for name in alike if name in given}
    _check_engine(over.get("engine", recorded.engine), over)
    if "space" in given:
        over["space"] = load_space(options["space"])
    if "input_side" in given:
        over["input"] = options["input_side"]
    if "objectives" in given:
        over["objectives"] = parse_objectives(options["objectives"])
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

    if options["data"]:
        return open_dataset(options["data"], cache_folder(options))
    try:
        return open_dataset(recorded.data, cache_folder(options))
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
        raise LogError(f"{run} has no complete trial yet; go on with: isonas resume {run}")
    front = front_of(complete, objectives)
    if select in ("best", "front"):
        return front if select == "front" else front[:1]
    found = [trial for trial in complete if select in (str(trial.number), str(trial.genome))]
    if not found:
        raise UsageError(
            f"--select {select!r} names no complete trial of {run}; give best, front, a number from "
            f"`isonas front {run}`, or a genome of it."
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
    name = Path(path).resolve().name.split(".")[0] if path else kind
    stem = f"{Path(space).stem}-{re.sub(r'[^A-Za-z0-9_-]+', '-', name) or kind}"
    numbered = {folder.name.removeprefix(f"{stem}-"): folder for folder in Path("runs").glob(f"{stem}-*")}
    return stem, {int(number): folder for number, folder in numbered.items() if number.isdecimal()}
