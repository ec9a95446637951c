"""Exported C compiled and run: on this machine, and on Cortex-M cores that QEMU emulates.

What is measured is set beside what was promised: the arena and the constants by the object file, the
stack by paint, executed instructions by the emulator's clock, logits against the integer reference.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isonas.errors import ExportError, UsageError

_EMULATED = Path(__file__).with_name("emulated")
ARM_COMPILER = "arm-none-eabi-gcc"
EMULATOR = "qemu-system-arm"
INSTRUCTIONS_PER_TICK = 40
"""At one instruction a nanosecond (-icount shift=0), of a timer of 25 MHz."""

STACK_RESERVE = 16 * 1024
_TIMEOUT_SECONDS = 1800
_STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
_SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@dataclass(frozen=True)
class Core:
    """A processor that QEMU emulates: the compiler's and the emulator's name for it, and their board's."""

    cpu: str
    machine: str
    psram: int
    """Where the board's 16 MiB of external memory begin, which hold weights."""


CORES = {
    core.cpu: core
    for core in (
        Core("cortex-m7", "mps2-an500", 0x60000000),
        Core("cortex-m4", "mps2-an386", 0x21000000),
        Core("cortex-m3", "mps2-an385", 0x21000000),
    )
}


@dataclass(frozen=True)
class Measured:
    """What one target gave, in bytes and instructions for one image; None where it was not measured.

    `static_bytes` are all of the network's variables (the arena and a counter), `constant_bytes` its
    weights, biases, multipliers and tables, `code_bytes` its instructions. `differing` counts runs
    whose logits are not the reference's.
    """

    target: str
    compiler: str
    static_bytes: int
    constant_bytes: int
    code_bytes: int
    stack_bytes: int | None
    instructions: int | None
    differing: int


def on_host(folder: Path, name: str, compiler: str = "cc") -> Measured:
    """Compile for this machine, warnings as errors, and run the self-test under sanitizers.

    Raises UsageError without the compiler, ExportError where it refuses the files.
    """
    _require(compiler)
    folder = folder.resolve()
    with tempfile.TemporaryDirectory() as place:
        built = Path(place)
        _run([compiler, *_STRICT, "-O2", "-c", str(folder / f"{name}.c"), "-o", "net.o"], built)
        main = f"-D{name.upper()}_MAIN"
        sources = [str(folder / f"{name}.c"), str(folder / f"{name}_test.c")]
        _run([compiler, *_STRICT, *_SANITIZED, main, *sources, "-o", "selftest"], built)
        ended = subprocess.run([built / "selftest"], capture_output=True, text=True, check=False)
        if ended.returncode not in (0, 1) or "runs" not in ended.stdout:
            raise ExportError(f"the self-test of {folder} stopped: {_last_line(ended.stderr)}")
        differing = int(found[0]) if (found := re.findall(r"^(\d+) of", ended.stdout)) else 0
        return Measured(
            "host", _version(compiler), *_sections("size", built / "net.o"), None, None, differing
        )


def on_core(folder: Path, name: str, core: Core, ram_bytes: int, *, optimise: str = "-O3") -> Measured:
    """Compile for a core, link into a RAM of `ram_bytes`, run the self-test and one measured image.

    Raises UsageError without the tools, ExportError where the network does not fit or does not end.
    """
    _require(ARM_COMPILER)
    _require(EMULATOR)
    folder = folder.resolve()
    compiler = [ARM_COMPILER, f"-mcpu={core.cpu}", "-mthumb", "-mfloat-abi=soft", "-ffreestanding"]
    with tempfile.TemporaryDirectory() as place:
        built = Path(place)
        script = (_EMULATED / "board.ld").read_text(encoding="utf-8")
        script = script.replace("RAM_BYTES", str(ram_bytes)).replace("PSRAM_AT", hex(core.psram))
        (built / "board.ld").write_text(script, encoding="utf-8")
        _run([*compiler, "-std=c99", optimise, "-c", str(folder / f"{name}.c"), "-o", "net.o"], built)
        _run([*compiler, "-std=c99", "-O2", "-c", str(folder / f"{name}_test.c"), "-o", "test.o"], built)
        harness = [f'-DHEADER="{name}.h"', f"-DNAME={name}", f"-DCLASSES={name.upper()}_CLASSES"]
        paths = [f"-I{folder}", "-c", str(_EMULATED / "main.c"), "-o", "main.o"]
        _run([*compiler, "-std=gnu99", "-O2", "-fno-tree-loop-distribute-patterns", *harness, *paths], built)
        linked = ["-nostdlib", "-Tboard.ld", "main.o", "net.o", "test.o", "-lgcc", "-o", "net.elf"]
        _run([*compiler, *linked], built)
        told = _emulated(built / "net.elf", core)
        sections = _sections("arm-none-eabi-size", built / "net.o")
    return Measured(
        core.cpu,
        _version(ARM_COMPILER),
        *sections,
        told["stack"],
        told["ticks"] * INSTRUCTIONS_PER_TICK,
        told["differing"],
    )


def tools_for_cores() -> bool:
    """Whether the compiler and the emulator of Cortex-M cores are installed."""
    return all(shutil.which(tool) for tool in (ARM_COMPILER, EMULATOR))


def _emulated(program: Path, core: Core) -> dict[str, int]:
    command = [EMULATOR, "-M", core.machine, "-cpu", core.cpu, "-nographic", "-monitor", "none"]
    command += ["-serial", "null", "-icount", "shift=0"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(program)]
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"the network did not end on an emulated {core.cpu} in half an hour.") from None
    told = {
        key: int(number) for key, number in re.findall(r"^(\w+) (\d+)$", ended.stdout + ended.stderr, re.M)
    }
    if not {"differing", "stack", "ticks"} <= told.keys():
        raise ExportError(f"the emulated {core.cpu} stopped: {_last_line(ended.stderr + ended.stdout)}")
    return told


def _sections(tool: str, compiled: Path) -> tuple[int, int, int]:
    """Static, constant and code bytes of an object file; each section counts as its name begins."""
    listing = subprocess.run([tool, "-A", compiled], capture_output=True, text=True, check=True).stdout
    sizes = re.findall(r"^(\.\S+)\s+(\d+)", listing, re.M)

    def total(*beginnings: str) -> int:
        return sum(int(size) for section, size in sizes if section.startswith(beginnings))

    # Tables of pointers to weights are constants too, which a position-independent host must relocate.
    return total(".bss", ".data") - total(".data.rel.ro"), total(".rodata", ".data.rel.ro"), total(".text")


def _require(tool: str) -> None:
    if shutil.which(tool) is None:
        raise UsageError(f"{tool} is not installed; install it to compile and measure exported C.")


def _version(compiler: str) -> str:
    ended = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return ended.stdout.splitlines()[0] if ended.stdout else compiler


def _run(command: Sequence[str], folder: Path) -> None:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ExportError(f"{command[0]} refuses the exported C: {_last_line(ended.stderr)}")


def _last_line(text: str) -> str:
    lines = (
        [line for line in text.splitlines() if "error" in line] or text.strip().splitlines() or ["no word"]
    )
    return lines[0]
