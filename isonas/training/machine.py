"""Where and in which number format networks are trained."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from isonas.errors import UsageError


@dataclass(frozen=True)
class Machine:
    """`device` is "cpu" or "cuda", `precision` "bf16" (mixed) or "fp32", `threads` the CPU threads."""

    device: str
    precision: str
    threads: int

    def autocast(self) -> torch.autocast:
        """The context in which a network computes."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def validation_batch(self) -> int:
        """Images that a network in evaluation mode is given at a time: few enough for a CPU's cache."""
        return 32 if self.device == "cpu" else 256

    @contextmanager
    def threads_set(self) -> Iterator[None]:
        """PyTorch held to this machine's threads, and set back afterwards."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def probe_machine(device: str = "auto", threads: int | None = None, precision: str = "auto") -> Machine:
    """The machine to train on; `threads` defaults to the usable cores, `precision` is measured.

    Raises UsageError where `device` is "cuda" and there is none.
    """
    require_device(device)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = threads or usable_cores()
    if precision != "auto":
        return Machine(device, precision, threads)
    unprobed = Machine(device, "fp32", threads)
    with unprobed.threads_set():
        fast = torch.cuda.is_bf16_supported() if device == "cuda" else _bf16_pays()
    return Machine(device, "bf16" if fast else "fp32", threads)


def usable_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus(device: str) -> list[str]:
    """The GPUs of "cuda" as CUDA_VISIBLE_DEVICES would name them, none of "cpu"."""
    if device != "cuda":
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]


def require_device(device: str) -> None:
    """Raise UsageError where `device` is "cuda" and none is usable."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is usable here; give --device cpu, or auto for a new run.")


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees for what it allocates next, where the C library can.

    A training allocates the same tensors of some MiB in every step. glibc hands them back to the system
    and gets them again page by page, each cleared first, which took a quarter of a step. Blocks above
    32 MiB, glibc's limit, are handed back as before.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    set_option(_TRIM_ABOVE, 2**31 - 1)
    set_option(_MAP_ABOVE, 32 * 2**20)


_TRIM_ABOVE, _MAP_ABOVE = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's mallopt(3)."""


def _bf16_pays() -> bool:
    """Whether a bf16 matrix product takes less than two thirds of an fp32 one's time."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(512, 512, dtype=dtype)
        runs = []
        for _ in range(20):
            start = time.perf_counter()
            matrix @ matrix
            runs.append(time.perf_counter() - start)
        seconds[dtype] = min(runs)
    return seconds[torch.bfloat16] < seconds[torch.float32] * 2 / 3
