"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from isonas.cost import DType, MemoryModel
from isonas.data.preprocessing import Fit
from isonas.errors import BudgetError
from isonas.hardware import Budget, boards, budget_of, parse_bytes, parse_count
from isonas.paths import user_path

F = TypeVar("F", bound=Callable[..., Any])


class UserPath(click.Path):
    """A path as a `Path`, `~` expanded where no shell saw it, as in --run=~/x."""

    def __init__(self, **checks: bool) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path that was typed."""
        return super().convert(user_path(value), param, ctx)


class Size(click.ParamType[int]):
    """Bytes, such as 320KiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes from what was typed."""
        try:
            return value if isinstance(value, int) else parse_bytes(str(value))
        except BudgetError as error:
            self.fail(str(error), param, ctx)


class Count(click.ParamType[int]):
    """A count, such as 20M, within bounds."""

    name = "count"

    def __init__(self, low: int = 1, high: int = 2**62) -> None:
        self._low = low
        self._high = high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The count that was typed."""
        try:
            count = value if isinstance(value, int) else parse_count(str(value))
        except BudgetError as error:
            self.fail(str(error), param, ctx)
        if not self._low <= count <= self._high:
            self.fail(f"{value} is not between {self._low:,} and {self._high:,}.", param, ctx)
        return count


class Retrain(click.ParamType[str]):
    """Which members of a front to retrain: best, front, or how many."""

    name = "retrain"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """What was typed, if it is one of these."""
        text = str(value)
        if text not in ("best", "front") and not (text.isdecimal() and int(text) > 0):
            self.fail(f"{value!r} is not one of best, front, or a number of front members.", param, ctx)
        return text


RETRAIN = Retrain()
EPOCH_IMAGES = Count(2, 100_000_000)

BUDGET_OPTIONS = (
    "board",
    "max_memory",
    "max_flash",
    "max_params",
    "max_madds",
    "memory_model",
    "dtype",
)

_BUDGET = (
    click.option(
        "--board",
        help=f"A board: its memory, flash, memory model and reserves. One of {', '.join(boards())}.",
    ),
    click.option(
        "--max-memory",
        type=Size(),
        help="Memory: peak activations, and the board's runtime on top, such as 256KiB.",
    ),
    click.option(
        "--max-flash",
        type=Size(),
        help="File: the folded weights, and the board's format on top, such as 1MiB.",
    ),
    click.option("--max-params", type=Count(), help="Parameters, such as 500k."),
    click.option("--max-madds", type=Count(), help="Multiply-adds, such as 20M."),
    click.option(
        "--memory-model",
        type=click.Choice([str(model) for model in MemoryModel]),
        help="How peak activations are reckoned. Default: the board's, else litert.",
    ),
    click.option(
        "--dtype",
        type=click.Choice([str(dtype) for dtype in DType]),
        help="Number format of weights and activations. Default: the board's, else int8.",
    ),
)
_DEPLOYMENT = (
    click.option("--input", "input_side", type=click.IntRange(1, 4096),
                 help="Side of the deployment input in pixels. Default: the space's."),
    click.option("--classes", type=click.IntRange(2, 1_000_000),
                 help="Classes that costs are reckoned for. Default: the data's, else the space's."),
)  # fmt: skip

data_option = click.option(
    "--data",
    default="clutter",
    show_default=True,
    help="Images: clutter, digits, synthetic, imagenet32:DIR, parquet:PATH or folder:DIR.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
cache_option = click.option(
    "--cache",
    type=UserPath(file_okay=False),
    help="Folder for decoded images. Default: the user's cache folder.",
)


def image_options(default: str) -> Callable[[F], F]:
    """Add how photographs become squares: --image-side and --fit."""
    options = (
        click.option(
            "--image-side",
            type=click.IntRange(1, 4096),
            help=f"Side in pixels of the squares that photographs are fitted to. Default: {default}.",
        ),
        click.option(
            "--fit",
            type=click.Choice([str(fit) for fit in Fit]),
            help="How photographs become squares: short side and centre crop, long side and margins, or "
            "stretched. Default: crop; a run's or the weights' own where there are any.",
        ),
    )
    return lambda command: _add(command, options)


timeout_option = click.option(
    "--trial-timeout",
    help="Fail a trial whose training takes longer than this, such as 10m; the search goes on.",
)


def budget_options(command: F) -> F:
    """Add --board, the limits, --memory-model and --dtype."""
    return _add(command, _BUDGET)


def deployment_options(command: F) -> F:
    """Add --input and --classes."""
    return _add(command, _DEPLOYMENT)


def worker_options(*, resuming: bool = False) -> Callable[[F], F]:
    """Add who trains: --engine, --workers, --cpus-per-trial and --gpus-per-trial."""

    def by_default(new: str) -> str:
        return f"Default: {'as at the start' if resuming else new}."

    options = (
        click.option(
            "--engine",
            default=None if resuming else "local",
            type=click.Choice(["local", "ray"]),
            help="Train in processes of this machine, or on a Ray cluster (pip install 'isonas[ray]'). "
            + by_default("local"),
        ),
        click.option(
            "--workers",
            type=click.IntRange(1, 4096),
            help="Trainings side by side. " + by_default("1; on a cluster as many as it has room for"),
        ),
        click.option(
            "--cpus-per-trial",
            type=click.FloatRange(0, min_open=True),
            help="Processors that a training takes of a Ray cluster. " + by_default("--threads, else 1"),
        ),
        click.option(
            "--gpus-per-trial",
            type=click.FloatRange(0),
            help="GPUs that a training takes of a Ray cluster, such as 0.5. "
            + by_default("1 where it trains on one (--device), else 0"),
        ),
    )
    return lambda command: _add(command, options)


def machine_options(
    training: str, *, precision: str = "auto", threads: str = "all usable"
) -> Callable[[F], F]:
    """Add where and how numbers are computed: --device, --precision and --threads."""
    options = (
        click.option(
            "--device",
            default="auto",
            show_default=True,
            type=click.Choice(["auto", "cpu", "cuda"]),
            help=f"Where {training}.",
        ),
        click.option(
            "--precision",
            default=precision,
            show_default=True,
            type=click.Choice(["auto", "bf16", "fp32"]),
            help="Number format; auto measures whether bf16 is fast here.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1),
            help="CPU threads; fewer than there are where others are at work. Default: " + threads + ".",
        ),
    )
    return lambda command: _add(command, options)


def proxy_options(*, epochs: int) -> Callable[[F], F]:
    """Add what decides how a genome is trained briefly, `epochs` epochs unless told."""
    options = (
        click.option(
            "--epochs",
            default=epochs,
            show_default=True,
            type=click.IntRange(1),
            help="Epochs of a training.",
        ),
        click.option(
            "--epoch-images",
            type=EPOCH_IMAGES,
            help="Training images an epoch takes. Default: 4,000 on a CPU, all on a GPU.",
        ),
        click.option(
            "--batch-size",
            default=32,
            show_default=True,
            type=click.IntRange(2),
            help="Images of a training step; the learning rate grows with them, up to 128.",
        ),
        click.option(
            "--proxy-input",
            type=click.IntRange(1),
            help="Largest side in pixels that trials read. Default: the data's, the deployment's.",
        ),
        click.option(
            "--seed",
            default=0,
            show_default=True,
            type=click.IntRange(0, 2**32 - 1),
            help="Of the split, the order of genomes and the trainings.",
        ),
    )
    machine = machine_options("genomes train", threads="all usable, shared out among the workers")
    return lambda command: _add(machine(command), options)


def budget_from(options: dict[str, Any]) -> Budget:
    """The budget that the budget options describe; raises BudgetError for an unknown board."""
    model, dtype = options["memory_model"], options["dtype"]
    return budget_of(
        options["board"],
        options["max_memory"],
        options["max_flash"],
        options["max_params"],
        options["max_madds"],
        MemoryModel(model) if model else None,
        DType(dtype) if dtype else None,
    )


def explain_board(budget: Budget) -> str | None:
    """What a board's promise rests on, None without a board."""
    if budget.board is None:
        return None
    board = boards()[budget.board]
    return (
        f"{board.title}: {board.sram_bytes // 1024} KiB SRAM less {board.sram_reserve_bytes // 1024} KiB "
        f"reserve, {board.flash_bytes // 1024} KiB flash less {board.flash_reserve_bytes // 1024} KiB; "
        f"memory model {budget.memory_model}, {budget.dtype}. The fit is predicted, not measured on the "
        "board."
    )


def _add(command: F, options: tuple[Callable[[F], F], ...]) -> F:
    for option in reversed(options):
        command = option(command)
    return command
