"""Where and in which number format networks are trained."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from joblib import cpu_count

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

    @contextmanager
    def random_state_kept(self) -> Iterator[None]:
        """PyTorch's generators as they were, afterwards: the CPU's, and the current GPU's where it trains."""
        devices = [torch.cuda.current_device()] if self.device == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            yield

    def compute_exactly(self) -> None:
        """Let a GPU repeat its results to the bit and compute fp32 in fp32, not in TF32 of 10 bits."""
        if self.device == "cuda":
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False


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
        fast = _computes_bf16() if device == "cuda" else _bf16_pays()
    return Machine(device, "bf16" if fast else "fp32", threads)


def usable_cores() -> int:
    """Processor cores that this process may use, at least 1.

    The least of the machine's, its affinity's and its container's quota (cgroups 1 and 2), rounded up.
    """
    return int(cpu_count())


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


def _computes_bf16() -> bool:
    """Whether the GPU has bf16 arithmetic (Ampere, 8.0, and later): older ones emulate it."""
    return torch.cuda.get_device_capability() >= (8, 0)


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
