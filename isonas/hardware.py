"""What the hardware can hold: limits, boards, and which genomes keep them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from isonas import cost
from isonas.cost import Deployment, DType, MemoryModel
from isonas.errors import BudgetError
from isonas.paths import read_yaml
from isonas.space import CHUNK, Bools, Columns, Ints

N = TypeVar("N", int, Ints)

_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "kB": 1000, "MB": 1000**2}


@dataclass(frozen=True)
class Overhead:
    """Bytes that a runtime adds for each output channel and for each operator of a network."""

    channel: int = 0
    operator: int = 0

    def bytes(self, channels: N, operators: N) -> N:
        """For networks of so many output channels and operators."""
        return self.channel * channels + self.operator * operators


@dataclass(frozen=True)
class Board:
    """A board as sold: sizes and reserves in bytes, where the figures come from, how it runs int8."""

    name: str
    title: str
    sram_bytes: int
    flash_bytes: int
    sram_reserve_bytes: int
    flash_reserve_bytes: int
    memory_model: MemoryModel
    dtype: DType
    arena: Overhead
    file: Overhead
    source: str


@dataclass(frozen=True)
class Budget:
    """Upper limits, None where there is none, and the convention they are meant in.

    `max_memory_bytes` holds peak activations under `memory_model` at `dtype`, image included, and the
    runtime's `arena` overhead; `max_flash_bytes` the folded weights and the `file` overhead. Plain
    limits have no overheads; a board's are its runtime's.
    """

    max_memory_bytes: int | None = None
    max_flash_bytes: int | None = None
    max_params: int | None = None
    max_madds: int | None = None
    memory_model: MemoryModel = MemoryModel.LITERT
    dtype: DType = DType.INT8
    board: str | None = None
    arena: Overhead = Overhead()
    file: Overhead = Overhead()


@dataclass(frozen=True)
class Costs:
    """n genomes' costs under a budget's convention, one array each.

    `arena_bytes` and `file_bytes` are `peak_bytes` and `weight_bytes` with the runtime's overheads.
    """

    params: Ints
    madds: Ints
    peak_bytes: Ints
    weight_bytes: Ints
    arena_bytes: Ints
    file_bytes: Ints

    def where(self, mask_or_indices: Bools | Ints) -> Costs:
        """The costs of the genomes that a mask or an array of indices picks."""
        return Costs(**{name: values[mask_or_indices] for name, values in vars(self).items()})


def costs(columns: Columns, at: Deployment, budget: Budget) -> Costs:
    """The costs of genomes in closed form, under the budget's memory model, dtype and overheads."""
    starts = range(0, max(len(columns), 1), CHUNK)
    parts = [_costs(columns.where(slice(start, start + CHUNK)), at, budget) for start in starts]
    every = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    return Costs(**every)


def _costs(columns: Columns, at: Deployment, budget: Budget) -> Costs:
    peak = cost.peak_activations(columns, at, budget.memory_model) * budget.dtype.size
    weight = cost.weight_bytes(columns, at, budget.dtype)
    channels, operators = cost.output_channels(columns, at), cost.operators(columns, at)
    return Costs(
        params=cost.params(columns, at),
        madds=cost.madds(columns, at),
        peak_bytes=peak,
        weight_bytes=weight,
        arena_bytes=peak + budget.arena.bytes(channels, operators),
        file_bytes=weight + budget.file.bytes(channels, operators),
    )


def within(budget: Budget, of: Costs) -> Bools:
    """Which genomes keep every limit."""
    mask = np.ones(len(of.params), dtype=np.bool_)
    for limit, values, *_ in _limits(budget, of):
        mask &= values <= limit
    return mask


def require_feasible(columns: Columns, of: Costs, budget: Budget) -> Ints:
    """The indices of the genomes that keep the budget.

    Raises BudgetError where there is none, naming the genome that comes nearest to keeping all limits
    and by how much it breaks which.
    """
    feasible = np.flatnonzero(within(budget, of))
    if len(feasible):
        return feasible
    limits = _limits(budget, of)
    excess = np.max([values / max(limit, 1) for limit, values, *_ in limits], axis=0)
    nearest = int(np.argmin(excess))
    broken = " and ".join(
        f"{name} by {said(int(values[nearest] - limit))} ({said(int(values[nearest]))} against {said(limit)})"
        for limit, values, name, said in limits
        if values[nearest] > limit
    )
    raise BudgetError(
        f"none of the {len(columns):,} genomes keeps the budget: the nearest, "
        f"{columns.genome(nearest)}, breaks {broken}; raise the limit or choose a smaller space."
    )


def _limits(budget: Budget, of: Costs) -> list[tuple[int, Ints, str, Callable[[int], str]]]:
    """What is limited: limit, costs, the option's name, and how its numbers are told."""
    every = (
        (budget.max_memory_bytes, of.arena_bytes, "--max-memory", format_bytes),
        (budget.max_flash_bytes, of.file_bytes, "--max-flash", format_bytes),
        (budget.max_params, of.params, "--max-params", "{:,}".format),
        (budget.max_madds, of.madds, "--max-madds", "{:,}".format),
    )
    return [(limit, values, name, said) for limit, values, name, said in every if limit is not None]


def budget_of(
    board: str | None = None,
    max_memory_bytes: int | None = None,
    max_flash_bytes: int | None = None,
    max_params: int | None = None,
    max_madds: int | None = None,
    memory_model: MemoryModel | None = None,
    dtype: DType | None = None,
) -> Budget:
    """The budget of a board, of plain limits, or of both (the tighter limit holds).

    A memory model or dtype given by name replaces the board's. Raises BudgetError for an unknown
    board.
    """
    if board is None:
        return Budget(
            max_memory_bytes,
            max_flash_bytes,
            max_params,
            max_madds,
            memory_model or MemoryModel.LITERT,
            dtype or DType.INT8,
        )
    found = boards().get(board)
    if found is None:
        raise BudgetError(f"board {board!r} is unknown; choose one of {', '.join(boards())}.")
    memory = found.sram_bytes - found.sram_reserve_bytes
    flash = found.flash_bytes - found.flash_reserve_bytes
    return Budget(
        min(memory, max_memory_bytes or memory),
        min(flash, max_flash_bytes or flash),
        max_params,
        max_madds,
        memory_model or found.memory_model,
        dtype or found.dtype,
        board,
        found.arena,
        found.file,
    )


@cache
def boards() -> dict[str, Board]:
    """The boards of boards.yaml by name."""
    document = read_yaml(Path(__file__).with_name("boards.yaml"))
    runtimes: dict[str, Any] = document["runtimes"]
    return {
        name: Board(
            name=name,
            title=entry["title"],
            sram_bytes=parse_bytes(entry["sram"]),
            flash_bytes=parse_bytes(entry["flash"]),
            sram_reserve_bytes=parse_bytes(entry["sram_reserve"]),
            flash_reserve_bytes=parse_bytes(entry["flash_reserve"]),
            memory_model=MemoryModel(entry["memory_model"]),
            dtype=DType(entry["dtype"]),
            arena=Overhead(**runtimes[entry["runtime"]]["arena"]),
            file=Overhead(**runtimes[entry["runtime"]]["file"]),
            source=entry["source"],
        )
        for name, entry in document["boards"].items()
    }


def parse_bytes(text: str) -> int:
    """Bytes from `320KiB`, `1 MiB`, `64 kB`, `0.5MB`, `4096` or `4096B`; raises BudgetError."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*(B|KiB|MiB|kB|MB)?", text.strip(), re.ASCII)
    size = float(match[1]) * _UNITS[match[2] or "B"] if match else 0.0
    if size < 1:
        raise BudgetError(f"{text!r} is not a size; give one like 320KiB, 1MiB, 64kB or 4096.")
    return math.floor(size)


def parse_count(text: str) -> int:
    """A count from `20000000`, `20_000_000`, `20e6`, `20M` or `500k`; raises BudgetError."""
    match = re.fullmatch(
        r"(\d{1,15}(?:_\d{1,3}){0,5}(?:\.\d{1,9})?(?:e\d{1,2})?)([kMG])?", text.strip(), re.ASCII
    )
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}
    count = float(match[1]) * scale.get(match[2] or "", 1) if match else 0.0
    if not 1 <= count < 2**63:
        raise BudgetError(f"{text!r} is not a count; give one like 20000000, 20e6, 20M or 500k.")
    return math.floor(count)


def format_bytes(size: int) -> str:
    """A size in KiB or MiB, for people."""
    return f"{size / 1024**2:.2f} MiB" if size >= 1024**2 else f"{size / 1024:.1f} KiB"
