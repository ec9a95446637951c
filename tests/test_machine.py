"""What a process may use of its machine; limits and GPUs are stubs."""

from __future__ import annotations

import builtins
import io
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from isonas.training import distributed, machine
from isonas.training.distributed import PATIENCE, Processes, joined
from isonas.training.machine import Machine, probe_machine, usable_cores

GPU = Machine("cuda", "fp32", 1)


@pytest.mark.parametrize(
    ("files", "affinity", "cores"),
    [
        ({"cpu.max": "max 100000"}, 16, 16),
        ({"cpu.max": "400000 100000"}, 16, 4),
        ({"cpu.max": "250000 100000"}, 16, 3),
        ({"cpu.max": "50000 100000"}, 16, 1),
        ({"cpu.max": "400000 100000"}, 2, 2),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 16, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16, 16),
        ({}, 8, 8),
    ],
)
def test_a_containers_quota_and_the_affinity_are_honoured(
    files: dict[str, str], affinity: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, group = {f"/sys/fs/cgroup/{name}": text for name, text in files.items()}, "/sys/fs/cgroup/"
    exists, opened = os.path.exists, builtins.open

    def stubbed_open(file: Any, *arguments: Any, **options: Any) -> Any:
        return io.StringIO(limits[file]) if file in limits else opened(file, *arguments, **options)

    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    monkeypatch.setattr(
        os.path, "exists", lambda path: path in limits if str(path).startswith(group) else exists(path)
    )
    monkeypatch.setattr(builtins, "open", stubbed_open)
    assert usable_cores() == cores


def test_counting_cores_needs_no_torch() -> None:
    code = "import sys; from joblib import cpu_count; cpu_count(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((8, 9), "bf16"), ((9, 0), "bf16")]
)
def test_bf16_is_not_emulated(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert probe_machine("auto", 1) == Machine("cuda", precision, 1)


def test_fp32_on_a_gpu_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    from isonas.genome import Genome
    from isonas.networks.build import build_network
    from isonas.training.loop import prepare

    flags: list[tuple[Any, str]] = [
        (torch.backends.cudnn, "allow_tf32"),
        (torch.backends.cuda.matmul, "allow_tf32"),
        (torch.backends.cudnn, "benchmark"),
        (torch.backends.cudnn, "deterministic"),
    ]
    before = [getattr(place, name) for place, name in flags]
    network = build_network(Genome(1, 32, 4, 2, head_features=0), 8, 5)
    monkeypatch.setattr(type(network), "to", lambda *_, **__: network)
    try:
        for place, name in flags:
            setattr(place, name, name != "deterministic")
        prepare(network, GPU)
        assert [getattr(place, name) for place, name in flags] == [False, False, False, True]
    finally:
        for (place, name), value in zip(flags, before, strict=True):
            setattr(place, name, value)


@pytest.mark.parametrize(("device", "touched"), [("cpu", []), ("cuda", [3])])
def test_random_states_of_other_gpus_are_not_touched(
    device: str, touched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    fork = torch.random.fork_rng

    def noting(devices: Any = None) -> Any:
        given.append(devices)
        return fork(devices=[])

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.random, "fork_rng", noting)
    with Machine(device, "fp32", 1).random_state_kept():
        torch.rand(1)
    assert given == [touched]


def test_no_random_state_is_kept_of_every_gpu() -> None:
    """`fork_rng()` copies those of all of them, and makes a context of some 300 MB on each."""
    for path in Path(machine.__file__).parent.parent.rglob("*.py"):
        assert "fork_rng()" not in path.read_text(encoding="utf-8"), path


def test_processes_wait_for_the_first_as_long_as_it_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Dist:
        init_process_group = staticmethod(lambda backend: calls.append(("init", backend)))
        get_rank = staticmethod(lambda: int(os.environ["RANK"]))
        get_world_size = staticmethod(lambda: 2)
        destroy_process_group = staticmethod(lambda: calls.append("end"))
        barrier = staticmethod(lambda group=None: calls.append(("barrier", group)))

        @staticmethod
        def new_group(backend: str, timeout: timedelta) -> str:
            calls.append((backend, timeout))
            return "patient"

    monkeypatch.setattr(distributed, "dist", Dist)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, order in (
        ("0", ["through", ("barrier", "patient")]),
        ("1", [("barrier", "patient"), "through"]),
    ):
        calls.clear()
        monkeypatch.setenv("RANK", rank)
        with joined("cpu") as processes, processes.first_alone():
            calls.append("through")
        assert calls == [("init", "gloo"), ("gloo", PATIENCE), *order, "end"]
    assert timedelta(days=1) < PATIENCE
    calls.clear()
    with Processes().first_alone():
        pass
    assert not calls
