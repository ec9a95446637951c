"""The command line, called in this process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from isonas.cli import main


def isonas(*arguments: object) -> Result:
    """Run `isonas ARGUMENTS`; never ends in a traceback."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result


def document(*arguments: object) -> Any:
    """The one JSON document that a command prints with `--json`."""
    result = isonas(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
