"""A search space under a budget, as a document and as tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from isonas.cost import Deployment
from isonas.errors import BudgetError
from isonas.genome import GENES
from isonas.hardware import Budget, costs, format_bytes, require_feasible, within
from isonas.report.console import console
from isonas.report.front import format_count, memory_titles
from isonas.space import STEMS, SearchSpace

CHEAPEST = 5


def space_report(space: SearchSpace, classes: int, budget: Budget) -> dict[str, Any]:
    """Counts, marginals of the feasible set, and its cheapest genomes by MAdds: what `--json` prints."""
    columns = space.columns
    of = costs(columns, Deployment(space.input, classes), budget)
    feasible = np.flatnonzero(within(budget, of))
    kept, kept_costs = columns.where(feasible), of.where(feasible)
    marginals: dict[str, dict[str, int]] = {}
    for gene in GENES:
        values = getattr(kept, "se_divisor" if gene == "se_ratio" else gene)
        shown = {_shown(gene, value): 0 for value in getattr(space, gene)}
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            listed = STEMS[value] if gene == "stem" else value
            shown[_shown(gene, listed, divisor=gene == "se_ratio")] = int(count)
        marginals[gene] = shown
    cheapest = [
        {
            "genome": str(kept.genome(int(index))),
            **{name: int(values[index]) for name, values in vars(kept_costs).items()},
        }
        for index in np.argsort(kept_costs.madds, kind="stable")[:CHEAPEST]
    ]
    excluded = asdict(space.excluded)
    report = {
        "space": space.name,
        "input": space.input,
        "classes": classes,
        "board": budget.board,
        "memory_model": str(budget.memory_model),
        "dtype": str(budget.dtype),
        "genomes": len(columns),
        "feasible": len(feasible),
        "excluded": sum(excluded.values()),
        "excluded_because": excluded,
        "marginals": marginals,
        "cheapest": cheapest,
    }
    try:
        require_feasible(columns, of, budget)
    except BudgetError as error:
        report["why_none"] = str(error)
    return report


def print_space(space: SearchSpace, report: dict[str, Any], budget: Budget) -> None:
    """The report for people, on the standard output."""
    out = console()
    because = report["excluded_because"]
    out.print(
        f"{space.name}: {report['genomes']:,} genomes at input {report['input']}, {report['feasible']:,} "
        f"of them within the budget ({report['classes']} classes). Left out: {because['stem']:,} whose "
        f"internal resolution does not fit the input, {because['squeeze']:,} without a whole squeeze "
        f"width, {because['same_network']:,} that are another genome's network.\n"
    )
    if "why_none" in report:
        out.print(report["why_none"])
        return
    marginals = Table(box=None, pad_edge=False, header_style="bold")
    marginals.add_column("gene")
    marginals.add_column("share of the feasible set by value")
    for gene, counts in report["marginals"].items():
        if len(counts) > 1:
            shares = (f"{value}: {count / report['feasible']:.0%}" for value, count in counts.items())
            marginals.add_row(gene, "  ".join(shares))
    out.print(marginals)
    cheapest = Table(box=None, pad_edge=False, header_style="bold")
    memory, file = memory_titles(budget)
    for title in ("cheapest by MAdds", "MAdds", "params", memory, file):
        cheapest.add_column(title, justify="left" if title.startswith("cheap") else "right")
    for row in report["cheapest"]:
        cheapest.add_row(
            row["genome"],
            format_count(row["madds"]),
            format_count(row["params"]),
            format_bytes(row["arena_bytes"]),
            format_bytes(row["file_bytes"]),
        )
    out.print()
    out.print(cheapest)


def _shown(gene: str, value: object, divisor: bool = False) -> str:
    if gene == "shared":
        return "true" if value else "false"
    return (f"1/{value}" if value else "0") if divisor else str(value)
