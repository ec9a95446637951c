"""`isonas bench proxy`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from isonas.cli.options import data_option, json_option, proxy_options

if TYPE_CHECKING:
    from isonas.bench.proxy import ProxySpeed

GENOME = "isonet_l8_c64_r14_e6_se4_s2d"


@click.command(short_help="Compare trial throughput with a plain script's.")
@click.argument("genome", default=GENOME)
@data_option
@proxy_options(epochs=2)
@click.option(
    "--plain-batch-size",
    default=128,
    show_default=True,
    type=click.IntRange(2),
    help="Images of a step of the plain loop.",
)
@click.option(
    "--rounds",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Paired runs, of which medians are told.",
)
@json_option
def proxy(genome: str, **options: Any) -> None:
    """Train GENOME as a search does, and as a plain script would: how many times as fast?

    The plain script takes timm's loader (its augmentation, a process for every core) over decoded images
    and trains the same network in fp32. Each runs in a fresh process on the same images, and start-up,
    decoding and validation count for both. Beside it stands the share of the machine's speed in
    multiplying matrices that training reaches.

    \b
    Example:
      isonas bench proxy --data parquet:imagenet64/ --epoch-images 1000
    """
    from isonas.bench.proxy import proxy_speed
    from isonas.cli.resolve import CPU_EPOCH_IMAGES
    from isonas.genome import parse_genome
    from isonas.training.machine import probe_machine
    from isonas.training.recipe import Recipe

    machine = probe_machine(options["device"], options["threads"], options["precision"])
    epoch_images = options["epoch_images"] or (CPU_EPOCH_IMAGES if machine.device == "cpu" else None)
    speed = proxy_speed(
        parse_genome(genome),
        options["data"],
        Recipe(options["epochs"], epoch_images, options["batch_size"]),
        options["plain_batch_size"],
        machine,
        options["proxy_input"] or 4096,
        options["seed"],
        options["rounds"],
    )
    if options["as_json"]:
        click.echo(json.dumps(_document(speed), indent=2))
    else:
        click.echo(_text(speed))


def _document(speed: ProxySpeed) -> dict[str, Any]:
    rounds = [
        {
            name: {**asdict(leg), "images_per_second": leg.images_per_second}
            for name, leg in (("proxy", each.proxy), ("plain", each.plain))
        }
        for each in speed.rounds
    ]
    return {
        **asdict(speed),
        "rounds": rounds,
        "ratio": speed.ratio,
        "epochs_ratio": speed.epochs_ratio,
        "peak_share": speed.peak_share(lambda each: each.proxy, speed.machine.precision),
        "plain_peak_share": speed.peak_share(lambda each: each.plain, "fp32"),
    }


def _text(speed: ProxySpeed) -> str:
    machine, last = speed.machine, speed.rounds[-1]
    share = speed.peak_share(lambda each: each.proxy, machine.precision)
    plain_share = speed.peak_share(lambda each: each.plain, "fp32")
    peaks = ", ".join(f"{flops / 1e9:,.0f} GFLOP/s {name}" for name, flops in speed.peak_flops.items())
    legs = [
        f"{name}: {leg.images_per_second:,.1f} images/s ({leg.images:,} images in {leg.seconds:.1f} s, of "
        f"which {leg.seconds - leg.epoch_seconds:.1f} s before the first epoch), error {leg.error:.3f}"
        for name, leg in (
            (f"isonas ({machine.precision}, batch {speed.batch_size})", last.proxy),
            (f"plain (fp32, batch {speed.plain_batch_size})", last.plain),
        )
    ]
    return "\n".join(
        [
            f"{speed.genome} on {speed.data} at {speed.side} pixels, {speed.epochs} epochs, validated on "
            f"{speed.validation_images:,} images after each; {machine.threads} threads.",
            *legs,
            f"{speed.ratio:.2f} times as many over the whole trial, {speed.epochs_ratio:.2f} times in its "
            f"epochs (medians of {len(speed.rounds)}).",
            f"{speed.processor} ({' '.join(speed.flags) or 'no known flags'}) multiplies matrices at "
            f"{peaks}; isonas trains at {share:.1%} of that, the plain loop at {plain_share:.1%} of fp32's.",
        ]
    )
