"""What came of an experiment: on the console, as `report.json`, and as a figure."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from isonas.atomic import write_atomically
from isonas.errors import LogError
from isonas.paper.draw import can_draw, save
from isonas.paper.experiment import FULL, Experiment, Grid, Report
from isonas.paper.results import Results, Settings, Training
from isonas.report.console import console
from isonas.training.recipe import Recipe
from isonas.training.recipes import FullRecipe
from isonas.training.version import TRAINING_VERSION


def print_report(experiment: Experiment, results: Results, report: Report) -> None:
    """Tables, findings and remarks on the standard output."""
    out = console()
    for grid in report.tables:
        out.print(grid.title)
        out.print(_table(grid))
        out.print()
    for finding in report.findings:
        out.print(f"• {finding}")
    for note in remarks(experiment, results, report):
        out.print(f"  {note}")


def remarks(experiment: Experiment, results: Results, report: Report) -> list[str]:
    """How this was measured, in which respects it is smaller than the paper's, and what is missing."""
    said = list(report.notes)
    if (settings := results.settings) is not None:
        said += [_measured(settings), experiment.scales[settings.scale].smaller]
        if settings.training_version != TRAINING_VERSION:
            said.append(
                f"All of it is of training version {settings.training_version}; this isonas trains by "
                f"version {TRAINING_VERSION}."
            )
        if settings.scale == FULL and isinstance(settings.recipe, Recipe):
            said.append(
                "The recipe is one cycle of SGD and no augmentation but mirroring and shifts; the paper's is "
                "--recipe mobilenetv3."
            )
        if (largest := experiment.largest_input(settings.scale)) > settings.image_side:
            said.append(
                f"The images have {settings.image_side} pixels a side: inputs above that, up to {largest}, "
                "are upsampled and say nothing of larger images."
            )
        names = {cell.name for cell in experiment.cells(settings.scale)}
        wanted = results.seeds * len(names)
        trained = [one for one in results.trainings if one.seed < results.seeds and one.cell in names]
        if failed := [one for one in trained if one.accuracy is None]:
            said.append(f"{len(failed)} trainings failed; the first ({failed[0].cell}): {failed[0].reason}.")
        if weak := [cell.name for cell in experiment.cells(settings.scale) if _at_chance(results, cell.name)]:
            said.append(
                f"Not above chance ({100 / settings.classes:.1f}%): {', '.join(weak)}; what differs among "
                "those says nothing."
            )
        if len(trained) < wanted:
            said.append(f"{len(trained)} of {wanted} trainings are in.")
    return said


def _at_chance(results: Results, cell: str) -> bool:
    assert results.settings is not None
    found = results.interval(cell)
    return found is not None and found.mean - 2 * _one_se(results) <= 1 / results.settings.classes


def _one_se(results: Results) -> float:
    """The binomial standard error of a guess on the scored images."""
    assert results.settings is not None
    chance = 1 / results.settings.classes
    return math.sqrt(chance * (1 - chance) / results.settings.scored_images)


def _measured(settings: Settings) -> str:
    recipe = settings.recipe
    optimizer = recipe.optimizer if isinstance(recipe, FullRecipe) else "SGD"
    averaged = ", the weights a moving average" if isinstance(recipe, FullRecipe) else ""
    return (
        f"Trained on {settings.images:,} images of {settings.classes} classes, {recipe.epochs} epochs of "
        f"{optimizer} at batch {recipe.batch_size}, {settings.precision} on "
        f"{settings.device}; scored on {settings.scored_images:,} images ({settings.scored_on}), after the "
        f"last epoch{averaged}."
    )


def training_line(training: Training, results: Results, total: int) -> str:
    """One finished training, for the standard error."""
    came = f"top-1 {100 * training.accuracy:.1f}%" if training.accuracy is not None else training.reason
    return (
        f"{len(results.trainings)}/{total} {training.cell}, seed {training.seed}: {came} in "
        f"{training.seconds:.1f} s"
    )


def document(experiment: Experiment, results: Results, report: Report) -> dict[str, Any]:
    """All of it as plain data."""
    settings = results.settings
    return {
        "id": experiment.id,
        "settings": asdict(settings) if settings else None,
        "seeds": results.seeds,
        "tables": [asdict(grid) for grid in report.tables],
        "findings": [
            {
                "claim": finding.claim,
                "verdict": str(finding.verdict),
                "mean": finding.difference.mean,
                "low": finding.difference.low if finding.difference.seeds > 1 else None,
                "high": finding.difference.high if finding.difference.seeds > 1 else None,
                "seeds": finding.difference.seeds,
                "paper": finding.paper,
            }
            for finding in report.findings
        ],
        "notes": remarks(experiment, results, report),
        "data": dict(report.data),
    }


def write_outcome(folder: Path, experiment: Experiment, results: Results, report: Report) -> list[Path]:
    """Write `report.json`, and the figure where matplotlib is there, into the folder; the paths written.

    Raises LogError where that is not possible.
    """
    path = folder / "report.json"
    content = json.dumps(document(experiment, results, report), indent=2).encode() + b"\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda stream: stream.write(content))
        drawn = save(report.draw, folder / "figure") if report.draw and can_draw() else []
    except OSError as error:
        raise LogError(
            f"{folder} cannot be written ({error.strerror}); mend that and give the same command again."
        ) from None
    return [path, *drawn]


def _table(grid: Grid) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(grid.header):
        table.add_column(title, justify="right" if place else "left", no_wrap=True)
    for row in grid.rows:
        table.add_row(*row)
    return table
