"""One training in several processes, as `torchrun` starts them.

Every process computes the gradients of its share of each batch and all take the same step. Batch norm
normalises each share by its own statistics, as gradient accumulation does (PyTorch's synchronised batch
norm does not exist on CPUs); running statistics are averaged over the processes after every epoch.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(weeks=1)
"""How long processes wait for the first, which decodes images and tests weights alone.

PyTorch's own half hour is for processes that compute side by side. One that dies ends the wait.
"""


@dataclass(frozen=True)
class Processes:
    """Which process of how many this is; rank 0 alone writes and speaks."""

    rank: int = 0
    count: int = 1
    patient: Any = None
    """The group of processes whose members wait as long as decoding a large set may take."""

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through, then the others; they end where the first does not get by."""
        if self.rank:
            try:
                dist.barrier(self.patient)
            except RuntimeError:
                raise SystemExit(1) from None
        yield
        if not self.rank and self.count > 1:
            dist.barrier(self.patient)

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network as it is called in training: its gradients become the mean over all processes."""
        if self.count == 1:
            return network
        with warnings.catch_warnings():
            # The option's new name is not known to the PyTorch of two years ago.
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(network, broadcast_buffers=False)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, which each of them gets; in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def average_buffers(self, network: nn.Module) -> None:
        """Bring every floating-point buffer to its mean over all processes, in place."""
        if self.count > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self.count


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the processes that `torchrun` started beside this one; alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        patient = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield Processes(dist.get_rank(), dist.get_world_size(), patient)
    finally:
        dist.destroy_process_group()


def processes_here() -> int:
    """Processes of this training on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
