"""A genome's costs as a document and as tables."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from isonas import cost
from isonas.cost import Deployment, DType, MemoryModel
from isonas.genome import Genome
from isonas.hardware import format_bytes
from isonas.layers import Layer, layers
from isonas.report.console import console
from isonas.space import columns_of

CHUNKS = (2, 4, 8)


def cost_document(genome: Genome, at: Deployment, dtype: DType) -> dict[str, Any]:
    """Every cost of a genome as plain data: what `--json` prints."""
    columns = columns_of([genome])
    activations = {
        str(model): {
            f"{with_or_without}_input": int(
                cost.peak_activations(columns, at, model, with_input=with_or_without == "with")[0]
            )
            for with_or_without in ("with", "without")
        }
        for model in MemoryModel
    }
    for chunks in CHUNKS:
        activations[f"chunked({chunks})"] = {
            f"{with_or_without}_input": int(
                cost.chunked_activations(columns, at, chunks, with_input=with_or_without == "with")[0]
            )
            for with_or_without in ("with", "without")
        }
    weights = int(cost.weights(columns, at)[0])
    return {
        "genome": str(genome),
        "input": at.input,
        "classes": at.classes,
        "dtype": str(dtype),
        "params": int(cost.params(columns, at)[0]),
        "params_folded": weights + int(cost.biases(columns, at)[0]),
        "madds": int(cost.madds(columns, at)[0]),
        "weight_bytes": int(cost.weight_bytes(columns, at, dtype)[0]),
        "activations": activations,
        "streamed_bytes": int(cost.streamed_bytes(columns, at)[0]),
    }


def print_cost(genome: Genome, at: Deployment, document: dict[str, Any]) -> None:
    """The layer table with its sums, then the memory models, on the standard output."""
    out = console()
    out.print(_layer_table(layers(genome, at), genome.depth))
    dtype = DType(document["dtype"])
    out.print(
        f"\n{document['genome']} at input {at.input}, {at.classes} classes: "
        f"{document['params']:,} params, {document['madds']:,} MAdds.\n"
        f"Batch norm folded: {document['params_folded']:,} params, "
        f"{format_bytes(document['weight_bytes'])} of {dtype} weights and biases.\n"
    )
    memory = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for title in ("peak activations", "elements", f"{dtype} bytes", "without input"):
        memory.add_column(title, justify="left" if title == "peak activations" else "right")
    for model, found in document["activations"].items():
        size = format_bytes(found["with_input"] * dtype.size)
        memory.add_row(model, f"{found['with_input']:,}", size, f"{found['without_input']:,}")
    out.print(memory)
    streamed = format_bytes(document["streamed_bytes"])
    out.print(f"\nThe arena of isonas's own int8 C, the image in strips (streamed): {streamed}.")


def _layer_table(listed: tuple[Layer, ...], depth: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("layer", "operator", "output"):
        table.add_column(title)
    for title in ("params", "MAdds", "in + out", "alive"):
        table.add_column(title, justify="right")
    alike = [layer for layer in listed if _is_later_block(layer)]
    for layer in listed:
        if not _is_later_block(layer):
            table.add_row(
                layer.name,
                layer.operator,
                f"{layer.channels} × {layer.side} × {layer.side}",
                *(f"{n:,}" for n in (layer.params, layer.madds, layer.reads + layer.writes, layer.alive)),
            )
        if layer.name == "block1.add" and alike:
            params, madds = sum(one.params for one in alike), sum(one.madds for one in alike)
            blocks = "block2" if depth == 2 else f"block2 … block{depth}"
            table.add_row(blocks, "as block1", "", f"{params:,}", f"{madds:,}", "", "", style="dim")
    params, madds = sum(layer.params for layer in listed), sum(layer.madds for layer in listed)
    table.add_row("sum", "", "", f"{params:,}", f"{madds:,}", "", "", style="bold")
    return table


def _is_later_block(layer: Layer) -> bool:
    return layer.name.startswith("block") and not layer.name.startswith("block1.")
