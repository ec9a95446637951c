"""`isonas cost`."""

from __future__ import annotations

import json
from typing import Any

import click

from isonas.cli.options import json_option
from isonas.cost import DType


@click.command()
@click.argument("genome")
@click.option(
    "--input", "input_side", default=224, show_default=True, type=click.IntRange(1, 4096),
    help="Side of the input in pixels.",
)  # fmt: skip
@click.option(
    "--classes", default=1000, show_default=True, type=click.IntRange(2, 1_000_000),
    help="Classes told apart.",
)  # fmt: skip
@click.option(
    "--dtype", default="int8", show_default=True, type=click.Choice([str(dtype) for dtype in DType]),
    help="Number format of weights and activations.",
)  # fmt: skip
@json_option
def cost(genome: str, input_side: int, classes: int, dtype: str, as_json: bool) -> None:
    """Print what a genome costs: the layer table, its sums, and peak activations by memory model.

    All numbers are exact, for batch size 1. MAdds are those of convolutions and FCs.

    \b
    Example:
      isonas cost isonet_l16_c64_r14_e6_se4_s2d --input 224 --classes 1000
    """
    from isonas.cost import Deployment
    from isonas.genome import parse_genome, stem_block
    from isonas.report.cost import cost_document, print_cost

    parsed, at = parse_genome(genome), Deployment(input_side, classes)
    stem_block(parsed, input_side)
    document: dict[str, Any] = cost_document(parsed, at, DType(dtype))
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        print_cost(parsed, at, document)
