"""What an experiment of the paper is: networks to train or to count, and how to report what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from isonas.paper.findings import Finding
from isonas.training.recipe import Recipe

if TYPE_CHECKING:
    from isonas.paper.results import Results

SMOKE, SMALL, FULL = "smoke", "small", "full"
"""For tests, for one processor core, and the paper's own setting."""


@dataclass(frozen=True)
class Cell:
    """One network of an experiment, to be trained at one input.

    `name` is its own within the experiment, `network` says what `build` makes. `input_side` is the side
    in pixels of the whole image that the network is given, `internal_resolution` the side of the feature
    map on which an isometric network works. `build` takes the number of classes and the weights of the
    cell called `after` from the same seed (none where there is no such cell).
    """

    name: str
    network: str
    input_side: int
    build: Callable[[int, Mapping[str, Tensor]], nn.Module]
    internal_resolution: int | None = None
    after: str | None = None


@dataclass(frozen=True)
class Scale:
    """How much is trained: so many `classes` and training `images` of the source (None: all), drawn by a
    fixed seed, under a recipe, from `seeds` fresh starts. `smaller` says in which respects this is less
    than the paper's setting."""

    classes: int | None
    images: int | None
    recipe: Recipe
    seeds: int
    smaller: str


@dataclass(frozen=True)
class Grid:
    """A table as text, the first column to the left."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Report:
    """What an experiment shows: tables, findings, remarks, and a figure.

    `draw` fills an empty matplotlib figure; `data` is whatever of the numbers JSON should hold.
    """

    tables: tuple[Grid, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    draw: Callable[[Any], None] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One table or figure of the paper.

    `cells` gives the networks at a scale and `scales` says how they are trained; both are empty where
    there is nothing to train. `report` says what is known from the trainings there are.
    """

    id: str
    report: Callable[[Results], Report]
    cells: Callable[[str], tuple[Cell, ...]] = lambda scale: ()
    scales: Mapping[str, Scale] = field(default_factory=dict)

    def largest_input(self, scale: str) -> int:
        """The side in pixels of the largest image that a network is given; images should have as much."""
        return max(cell.input_side for cell in self.cells(scale))
