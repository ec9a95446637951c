"""`isonas verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from isonas.cli.options import UserPath, json_option
from isonas.errors import ExportError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

CORES = ("cortex-m7", "cortex-m4", "cortex-m3")


@click.command()
@click.argument("export", type=UserPath())
@click.option(
    "--core",
    "cores",
    multiple=True,
    type=click.Choice(CORES),
    help="A core to emulate; give it again for another. Default: all of them, where the tools are there.",
)
@json_option
def verify(export: Path, cores: tuple[str, ...], as_json: bool) -> None:
    """Compile an EXPORT of --format c, run it, and compare memory and logits with its manifest.

    On this machine it is compiled with warnings as errors and run under sanitizers; on emulated Cortex-M
    cores (arm-none-eabi-gcc and qemu-system-arm; Debian has both) its stack and its executed instructions
    are measured too. What was measured goes into the manifest. Exits with 1 where logits or the arena are
    not those that were promised.

    \b
    Example:
      isonas verify runs/quick-clutter-1/export/isonet_l8_c64_r8_e3_se0_s2d_m4_h0
    """
    from isonas.export.c_folder import NAME, disagreements
    from isonas.export.measure import CORES as KNOWN
    from isonas.export.measure import on_core, on_host, tools_for_cores
    from isonas.export.whole import write_json

    manifest = _manifest(export)
    if not cores and not tools_for_cores():
        click.echo(
            "isonas: arm-none-eabi-gcc or qemu-system-arm is not installed; no Cortex-M is emulated.",
            err=True,
        )
    ram = manifest["int8"]["arena_bytes"] + 64 * 1024
    emulated = cores or (CORES if tools_for_cores() else ())
    measured = [on_host(export, NAME), *(on_core(export, NAME, KNOWN[core], ram) for core in emulated)]
    wrong = [sentence for one in measured for sentence in disagreements(manifest, one)]
    manifest["measured"] = [asdict(one) for one in measured]
    write_json(export / "manifest.json", manifest)
    if as_json:
        click.echo(json.dumps({"promised": manifest["int8"], "measured": manifest["measured"]}, indent=2))
    else:
        for one in measured:
            parts = [f"{one.static_bytes:,} B of variables", f"{one.code_bytes:,} B of code"]
            if one.stack_bytes is not None and one.instructions is not None:
                parts += [f"{one.stack_bytes:,} B of stack", f"{one.instructions / 1e6:.1f} M instructions"]
            agrees = "logits as promised" if not one.differing else "other logits"
            click.echo(f"{one.target}: {', '.join(parts)}; {agrees}")
    if wrong:
        raise ExportError(f"{'; '.join(wrong)}.")


def _manifest(export: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((export / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != "c" or "arena_bytes" not in manifest["int8"]:
            raise KeyError("format")
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{export} is no export of isonas export --format c; give the folder of one."
        ) from None
    return manifest
