"""Who trains, and what each training takes of it, by what is given and what was recorded."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from isonas.cli.resolve import _machine, _shares, given_inputs
from isonas.data.synthetic import synthetic
from isonas.errors import TrainingError, UsageError
from isonas.search import cluster
from isonas.search.cluster import RayWorkers, RemoteState
from tests.studies import INPUTS

NOTHING: dict[str, Any] = {
    "workers": None,
    "threads": 1,
    "device": "auto",
    "precision": "fp32",
    "cpus_per_trial": None,
    "gpus_per_trial": None,
    "engine": "local",
}
DATA = synthetic()


def asked(gpu_here: bool, monkeypatch: pytest.MonkeyPatch, **given: Any) -> tuple[str, int, float, float]:
    """Device, workers, processors and GPUs of a new search."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu_here)
    options = {**NOTHING, **given}
    machine = _machine(options)
    shares = _shares(options["engine"], machine.device, machine.threads, options)
    return machine.device, shares["workers"], shares["cpus_per_trial"], shares["gpus_per_trial"]


@pytest.mark.parametrize(
    ("gpu_here", "given", "expected"),
    [
        (False, {"engine": "local"}, ("cpu", 1, 1, 0)),
        (True, {"engine": "local"}, ("cuda", 1, 1, 0)),
        (True, {"engine": "local", "workers": 4}, ("cuda", 4, 1, 0)),
        (False, {"engine": "ray"}, ("cpu", 0, 1, 0)),
        (True, {"engine": "ray"}, ("cuda", 0, 1, 1)),
        (True, {"engine": "ray", "gpus_per_trial": 0.25}, ("cuda", 0, 1, 0.25)),
        (False, {"engine": "ray", "gpus_per_trial": 0.25}, ("cuda", 0, 1, 0.25)),
        (True, {"engine": "ray", "gpus_per_trial": 0.0}, ("cpu", 0, 1, 0)),
        (False, {"engine": "ray", "device": "cuda"}, ("cuda", 0, 1, 1)),
        (True, {"engine": "ray", "device": "cpu"}, ("cpu", 0, 1, 0)),
        (False, {"engine": "ray", "cpus_per_trial": 2.0, "threads": None, "workers": 3}, ("cpu", 3, 2, 0)),
    ],
)
def test_who_trains_a_new_search(
    gpu_here: bool, given: dict[str, Any], expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(gpu_here, monkeypatch, **given) == expected


def test_a_gpu_and_none_at_a_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="give --gpus-per-trial, such as 1, or --device cpu"):
        asked(False, monkeypatch, engine="ray", device="cuda", gpus_per_trial=0.0)


LOCAL = replace(INPUTS, threads=2, cpus_per_trial=2.0)
CLUSTER = replace(INPUTS, engine="ray", workers=0, threads=2, cpus_per_trial=2.0)


@pytest.mark.parametrize(
    ("recorded", "given", "workers", "gpus"),
    [
        # As many as a cluster has room for is none on this machine.
        (CLUSTER, {"engine": "local"}, 1, 0),
        (replace(CLUSTER, workers=8), {"engine": "local"}, 1, 0),
        (replace(CLUSTER, device="cuda", gpus_per_trial=0.5), {"engine": "local"}, 1, 0),
        (CLUSTER, {"engine": "local", "workers": 3}, 3, 0),
        (LOCAL, {"engine": "ray"}, 0, 0),
        (LOCAL, {"engine": "ray", "workers": 5}, 5, 0),
        (replace(LOCAL, device="cuda"), {"engine": "ray"}, 0, 1),
        (replace(LOCAL, device="cuda"), {"engine": "ray", "gpus_per_trial": 0.25}, 0, 0.25),
        # The same engine goes on as it did.
        (CLUSTER, {}, 0, 0),
        (replace(CLUSTER, workers=8), {"engine": "ray"}, 8, 0),
        (replace(LOCAL, workers=4), {"engine": "local"}, 4, 0),
    ],
)
def test_who_trains_a_resumed_search(recorded: Any, given: dict[str, Any], workers: int, gpus: float) -> None:
    inputs = given_inputs(recorded, {**NOTHING, "engine": None, **given}, set(given), DATA)
    assert (inputs.workers, inputs.gpus_per_trial, inputs.cpus_per_trial) == (workers, gpus, 2)
    assert inputs.engine == given.get("engine", recorded.engine)


class Ray:
    """As much of Ray as a driver calls."""

    class exceptions:
        """Ray's errors."""

        class RayError(Exception):
            """All of them."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    def put(self, thing: Any) -> Any:
        """A reference."""
        return memoryview(b"reference")

    def remote(self, **options: Any) -> Any:
        """Notes what a task asks for."""
        self.options = options
        return lambda function: function

    def get(self, reference: Any) -> Any:
        """What has been lost."""
        raise self.exceptions.RayError("Failed to retrieve object\nand more")


@pytest.mark.parametrize(("gpus", "calls"), [(0.0, 0), (0.5, 1), (1.0, 1)])
def test_a_process_that_has_used_a_gpu_is_not_used_again(
    gpus: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next training might be given another GPU, and a process keeps to its first."""
    ray = Ray()
    monkeypatch.setattr(cluster, "_connected", lambda: ray)
    RayWorkers(lambda _: None, None, cpus=1, gpus=gpus)  # type: ignore[arg-type, return-value]
    assert (ray.options["num_gpus"], ray.options["max_calls"]) == (gpus, calls)


def test_weights_that_a_cluster_lost_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", Ray())
    with pytest.raises(TrainingError, match=r"handed over between processes \(Failed to retrieve object\)$"):
        RemoteState(None).weights()
