"""Every error that isonas raises on purpose.

    IsonasError                  exit code 1: something outside the command went wrong
    ├── DataError                images that cannot be read, decoded or split
    ├── LogError                 a run's folder that cannot be read, written or locked
    ├── TrainingError            a network that cannot be trained
    │   └── MemoryExhausted      one that memory does not hold
    ├── ExportError              a network that cannot be exported as asked
    └── UsageError               exit code 2: what was typed, or a file written by hand, is wrong
        ├── GenomeError          a genome that does not exist
        ├── FeedingError         a way to feed images to a network that does not exist, or does not fit
        ├── SpaceError           a search space that cannot be enumerated
        ├── BudgetError          a limit that cannot be read, or that nothing meets
        └── RunError             a run that exists, does not exist, or was started with other inputs

Each message is one sentence: what was given, what is allowed, what to do.
"""

from __future__ import annotations


class IsonasError(Exception):
    """The root: the command prints the message and exits with `exit_code`."""

    exit_code = 1


class DataError(IsonasError):
    """Images that cannot be read, decoded or split."""


class LogError(IsonasError):
    """A run's folder that cannot be read, written or locked."""


class TrainingError(IsonasError):
    """A network that cannot be trained."""


class MemoryExhausted(TrainingError):
    """A network whose training memory does not hold."""


class ExportError(IsonasError):
    """A network that cannot be exported as asked."""


class UsageError(IsonasError):
    """What was typed, or a file written by hand, is wrong."""

    exit_code = 2


class GenomeError(UsageError):
    """A genome that does not exist: text that does not parse, or values outside their range."""


class FeedingError(UsageError):
    """A way to feed images to a network that does not exist, or that does not fit the image or network."""


class SpaceError(UsageError):
    """A search space that cannot be enumerated: unknown keys, bad values, no genome at all."""


class BudgetError(UsageError):
    """A limit or a board that cannot be read, or limits that no genome meets."""


class RunError(UsageError):
    """A run that exists already, does not exist, or was started with other inputs."""
