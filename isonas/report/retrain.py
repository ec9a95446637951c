"""What a retraining shows while it runs and when it ends, and what an evaluation found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from isonas.report.console import console

if TYPE_CHECKING:
    from isonas.training.retrain_folder import Epoch


@contextmanager
def epochs_drawn(
    total: int, done: int, steps: int
) -> Iterator[tuple[Callable[[], None], Callable[[Epoch], None]]]:
    """Draw a progress bar with the time left; yields what is called after each step and each epoch."""
    columns = (
        TextColumn("epoch {task.fields[epoch]}/" + str(total)),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[standing]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True, speed_estimate_period=600) as bar:
        task = bar.add_task("", total=(total - done) * steps, epoch=done + 1, standing="")

        def ended(row: Epoch) -> None:
            standing = f"error {min(row.error, row.average_error):.3f}"
            bar.update(task, epoch=min(row.epoch + 1, total), standing=standing)
            bar.console.print(
                f"epoch {row.epoch}/{total}: loss {row.loss:.3f}, validation error {row.error:.3f}, of the "
                f"average {row.average_error:.3f}, in {row.seconds:.0f} s"
            )

        yield lambda: bar.advance(task), ended


def print_result(folder: Path, result: dict[str, Any]) -> None:
    """What came of a retraining, on the standard output."""
    best, test = result["best"], result["test"]
    what = "moving average" if best["average"] else "weights"
    lines = [
        f"{result['genome']} at input {result['input']}, {result['recipe']['epochs']} epochs: {folder}",
        f"  validation error {best['error']:.3f} ± {best['error_se']:.3f} ({what} of epoch {best['epoch']})",
    ]
    if result["proxy_error"] is not None:
        lines.append(f"  the proxy's was   {result['proxy_error']:.3f} (trial {result['trial']})")
    if test is not None:
        lines.append(
            f"  test error       {test['error']:.3f} ± {test['error_se']:.3f} on the {test['images']:,} "
            f"held-back images; top-1 {test['top1']:.3f}, top-5 {test['top5']:.3f}"
        )
    console().print("\n".join(lines))


def print_comparison(results: Sequence[dict[str, Any]]) -> None:
    """What several retrainings came to beside their proxies, and whether the order is the same."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("genome", no_wrap=True)
    for title in ("proxy error", "retrained", "±", "test error"):
        table.add_column(title, justify="right")
    for result in results:
        proxy, best, test = result["proxy_error"], result["best"], result["test"]
        table.add_row(
            result["genome"],
            "" if proxy is None else f"{proxy:.3f}",
            f"{best['error']:.3f}",
            f"{best['error_se']:.3f}",
            "" if test is None else f"{test['error']:.3f}",
        )
    out = console()
    out.print(table)
    pairs = [(result["proxy_error"], result["best"]["error"]) for result in results]
    judged = [
        (one[0] - other[0]) * (one[1] - other[1])
        for one, other in combinations([pair for pair in pairs if pair[0] is not None], 2)
    ]
    if judged:
        alike = sum(product > 0 for product in judged)
        out.print(f"{alike} of {len(judged)} pairs stand in the same order by the proxy and retrained.")


def print_evaluation(found: dict[str, Any]) -> None:
    """An evaluation's document as a table, on the standard output."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", no_wrap=True)
    for title in ("images", "top-1", "top-5"):
        table.add_column(title, justify="right")
    for row in found["per_class"]:
        shares = ["" if row[name] is None else f"{row[name]:.3f}" for name in ("top1", "top5")]
        table.add_row(row["class"], f"{row['images']:,}", *shares)
    out = console()
    out.print(table)
    out.print(
        f"\ntop-1 {found['top1']:.4f} ± {found['error_se']:.4f}, top-5 {found['top5']:.4f} on "
        f"{found['images']:,} images ({found['split']}) of {found['data']}."
    )
