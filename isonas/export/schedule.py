"""Where everything lies in memory, and when, while generated C runs a network.

The residual stream (D = r² positions of c bytes) lies at 0 from the first strip to the head. Behind it
each phase has its own buffers in the same bytes, and the arena ends where the longest phase ends. The
offsets of generated C are these; `isonas.cost.streamed_bytes` has the same total in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

from isonas.errors import ExportError
from isonas.export.quantise import reads_rows
from isonas.genome import Genome, Stem, stem_block


@dataclass(frozen=True)
class Buffer:
    """Bytes [`offset`, `offset` + `size`) of the arena."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.size


@dataclass(frozen=True)
class Phase:
    """What is alive at once beside the residual stream."""

    name: str
    buffers: tuple[Buffer, ...]


@dataclass(frozen=True)
class Schedule:
    """The stream, the phases in the order in which they run, and the arena's size in bytes."""

    stream: Buffer
    phases: tuple[Phase, ...]

    @property
    def arena_bytes(self) -> int:
        """The bytes that hold everything."""
        return max([self.stream.end, *(buffer.end for phase in self.phases for buffer in phase.buffers)])

    def offset(self, name: str) -> int:
        """Where the buffer of that name begins; 0 where this network has none."""
        buffers = [buffer for phase in self.phases for buffer in phase.buffers if buffer.name == name]
        return buffers[0].offset if buffers else 0


@dataclass(frozen=True)
class Strips:
    """How an image comes in: `count` strips of `rows` rows of `side` pixels of `planes` bytes."""

    count: int
    rows: int
    side: int
    planes: int

    @property
    def size(self) -> int:
        """Bytes of one strip."""
        return self.rows * self.side * self.planes


def strips_of(genome: Genome, input_side: int, planes: int = 3) -> Strips:
    """The strips of an image: the rows of one row of patches, or single rows where it is upsampled."""
    rows = stem_block(genome, input_side)
    return Strips(input_side // rows, rows, input_side, planes)


def ring_positions(genome: Genome) -> int:
    """Positions of the expanded tensor that are kept: those that a window still needs, and two."""
    r, q = genome.internal_resolution, genome.kernel_size
    area = r * r
    return min(area + area % 2, (q - 1) * r + q + 2)


def taps_of(genome: Genome, input_side: int) -> tuple[int, int]:
    """Taps of the stem's kernel along one side, and pixels of a tap along one side."""
    rows, block = reads_rows(genome, input_side), stem_block(genome, input_side)
    return (1 if genome.stem is Stem.S2D else 3), (1 if rows else block)


def padded(count: int, multiple: int) -> int:
    """The next multiple at or above a count."""
    return -(-count // multiple) * multiple


def schedule(genome: Genome, input_side: int, planes: int = 3) -> Schedule:
    """The buffers of a genome's C; raises ExportError where its channels are no multiple of 8."""
    if genome.channels % 8:
        raise ExportError(
            f"{genome} has {genome.channels} channels; C takes a multiple of 8, which SIMD instructions want."
        )
    r, c, hidden = genome.internal_resolution, genome.channels, genome.hidden
    squeeze = genome.squeeze
    stream = Buffer("stream", 0, padded(c * r * r, 4))
    ring = padded(ring_positions(genome) * hidden, 4)
    block = [
        ("ring", ring),
        ("pair", 4 * hidden),
        ("sums", 4 * hidden if squeeze else 0),
        ("padding", hidden),
    ]
    se = [("mean", 2 * hidden), ("squeezed", 2 * padded(squeeze, 4))] if squeeze else []
    head = [("totals", 4 * genome.head_width), ("head_pair", 4 * c)]
    tail = [("vector", 4 * genome.head_width), ("features", 2 * padded(genome.head_features, 4))]
    phases = (
        _phase("stem", stream.end, _stem(genome, input_side, planes)),
        _phase("block", stream.end, block),
        _phase("se", stream.end, se),
        _phase("head", stream.end, head),
        _phase("tail", stream.end, tail),
    )
    return Schedule(stream, phases)


def _stem(genome: Genome, input_side: int, planes: int) -> list[tuple[str, int]]:
    r, strip = genome.internal_resolution, strips_of(genome, input_side, planes)
    taps, tap = taps_of(genome, input_side)
    if not reads_rows(genome, input_side):
        patch = padded(planes * tap * tap, 8)
        partial = 12 * r * genome.channels if taps > 1 else 0
        return [("patch", 4 * patch), ("partial", partial), ("strip", strip.size)]
    patch = padded(planes * taps * taps, 8)
    before = strip.size if r > input_side else 0
    return [
        ("patch", 4 * patch),
        ("rows", 2 * planes * r * taps),
        ("before", before),
        ("strip", strip.size),
    ]


def _phase(name: str, start: int, sizes: list[tuple[str, int]]) -> Phase:
    buffers, at = [], start
    for buffer, size in sizes:
        buffers.append(Buffer(buffer, at, size))
        at += size
    return Phase(name, tuple(buffers))
