"""The gradients of one step, computed as they come or replayed from a recording.

At a proxy's sizes a step is hundreds of kernels that each take a GPU some microseconds, less than
launching them takes. A CUDA graph launches them all at once. It holds forward pass, loss and backward
pass; the optimizer's few fused kernels follow it as they always do.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from isonas.data.augment import normalise
from isonas.training.machine import Machine

Run = Callable[[], None]
Record = Callable[[Run], Run]
"""Makes of a piece of work on tensors that stay what does it again; it may do it, some times."""

_WARM_UP = 3
"""Runs before a recording, in which libraries choose their kernels and take their workspaces."""


class Gradients:
    """The gradients of a batch's mean loss, in the network's `grad`s, whose last ones are dropped.

    uint8 images (N, 3, S, S) go through the network in `pieces` of nearly equal size, labels (N,) with
    them. `total` is a scalar to which every mean loss is added. With `record` the first batch's
    computation is recorded and done again for all others, which must be of its size. Where recording
    fails they are computed as they come, with a warning; memory that runs out is raised.
    """

    def __init__(
        self,
        network: nn.Module,
        machine: Machine,
        *,
        label_smoothing: float,
        pieces: int,
        record: Record | None = None,
    ) -> None:
        self.total = torch.zeros((), device=machine.device)
        self._network = network
        self._machine = machine
        self._label_smoothing = label_smoothing
        self._pieces = pieces
        self._record = record
        self._recorded: tuple[Tensor, Tensor, Run] | None = None

    def __call__(self, batch: Tensor, labels: Tensor) -> None:
        """Compute them for a batch."""
        if self._record is None:
            self._compute(batch, labels)
            return
        if self._recorded is None:
            own = batch.clone(), labels.clone()
            self._recorded = *own, self._again(self._record, partial(self._compute, *own))
        own_batch, own_labels, again = self._recorded
        own_batch.copy_(batch)
        own_labels.copy_(labels)
        again()

    def _compute(self, batch: Tensor, labels: Tensor) -> None:
        self._network.zero_grad(set_to_none=True)
        pieces = batch.tensor_split(self._pieces), labels.tensor_split(self._pieces)
        for piece, piece_labels in zip(*pieces, strict=True):
            with self._machine.autocast():
                logits = self._network(normalise(piece))
            loss = functional.cross_entropy(
                logits.float(), piece_labels, label_smoothing=self._label_smoothing
            )
            loss = loss * (len(piece) / len(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            self.total += loss.detach()

    def _again(self, record: Record, run: Run) -> Run:
        """Recording runs the work for its own sake: what that changed is put back."""
        changed = [self.total, *self._network.buffers()]
        before = [tensor.clone() for tensor in changed]
        try:
            return record(run)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), "")
            warnings.warn(f"no CUDA graph of this network's step ({reason}); it trains slower", stacklevel=2)
            return run
        finally:
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)


def cuda_graph(run: Run) -> Run:
    """Record work on the current GPU as a CUDA graph, after some runs; a `Record`."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    replay: Run = graph.replay
    return replay
