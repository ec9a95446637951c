"""Tables that several experiments print: what networks cost, and how accurate they became."""

from __future__ import annotations

from collections.abc import Sequence

from isonas.paper.experiment import Cell, Grid
from isonas.paper.results import Results
from isonas.paper.systems import CLASSES, System


def counted(systems: Sequence[System]) -> Grid:
    """The paper's own networks with all counts, and the paper's figures where it gives them."""
    said = [", ".join(f"{name} {value}" for name, value in system.paper.items()) for system in systems]
    return Grid(
        f"The paper's networks, counted ({CLASSES:,} classes, batch 1; activations in elements, without "
        "the image)",
        (
            *("network", "input", "params", "MAdds", "largest tensor", "inputs + outputs"),
            *(("the paper says",) if any(said) else ()),
        ),
        tuple(
            (
                system.network,
                str(system.input_side),
                f"{system.params:,}",
                f"{system.madds:,}",
                f"{system.largest:,}",
                f"{system.inputs_and_outputs:,}",
                *((figures,) if any(said) else ()),
            )
            for system, figures in zip(systems, said, strict=True)
        ),
    )


def trained(results: Results, cells: Sequence[Cell]) -> Grid:
    """Every cell with its counts as trained and its top-1."""
    rows = []
    for cell in cells:
        found, one = results.interval(cell.name), results.of(cell.name)
        counts = one.counts if one else None
        largest = counts.activations.get("activations_largest_without_input") if counts else None
        rows.append(
            (
                cell.name,
                cell.network,
                str(cell.input_side),
                f"{counts.params / 1e3:.1f}" if counts else "–",
                f"{counts.madds / 1e6:.2f}" if counts else "–",
                f"{largest:,}" if largest is not None else "–",
                found.points() if found else "–",
            )
        )
    return Grid(
        "Trained here: top-1 in %, mean and 95% interval over seeds",
        ("", "network", "input", "params (k)", "MAdds (M)", "largest tensor", "top-1"),
        tuple(rows),
    )
