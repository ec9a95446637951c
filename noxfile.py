"""Sessions: `nox` runs lint, types and tests; `nox -s smoke` the main job from a wheel."""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True

GROUPS = nox.project.load_toml("pyproject.toml")["dependency-groups"]
PINNED = ("--constraint", str(Path(__file__).with_name("constraints.txt")))


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting of package and tests."""
    session.install(*PINNED, *GROUPS["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types of package and tests."""
    session.install(*PINNED, ".", "nox", *GROUPS["types"], *GROUPS["tests"])
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The default test suite against the built wheel; arguments go to pytest (`-- -m slow`)."""
    session.install(*PINNED, ".[fvcore,plot,ray]", *GROUPS["tests"])
    session.run("pytest", "--numprocesses=2", "--dist=loadfile", "--durations=10", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that are longer than the default suite allows, but for the cluster's."""
    session.install(*PINNED, ".[fvcore,plot,ray]", *GROUPS["tests"])
    ignored = ("--ignore=tests/test_cluster.py", "--numprocesses=2", "--dist=loadfile")
    session.run("pytest", "-m", "slow", *ignored, *session.posargs)


@nox.session
def cluster(session: nox.Session) -> None:
    """Searches on two Ray nodes of this machine, with workers, nodes and drivers killed."""
    session.install(*PINNED, ".[ray]", *GROUPS["tests"])
    session.run("pytest", "-m", "slow or not slow", "tests/test_cluster.py", *session.posargs)


@nox.session
def smoke(session: nox.Session) -> None:
    """Build the wheel, install it outside the checkout, and run the main job to an exported model."""
    session.install(*PINNED, "build")
    wheels = Path(session.create_tmp()).resolve() / "wheels"
    session.run("python", "-m", "build", "--wheel", "--outdir", str(wheels), str(Path.cwd()), silent=True)
    (wheel,) = wheels.glob("*.whl")
    session.install(*PINNED, str(wheel))
    elsewhere = Path(session.create_tmp()).resolve() / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    run = elsewhere / f"run-{os.getpid()}"
    with session.chdir(elsewhere):
        session.run("isonas", "space", "mcu", "--board", "stm32f746")
        session.run("isonas", "search", "--run", str(run), "--trials", "12")
        session.run("isonas", "export", str(run))
        session.run("isonas", "export", str(run), "--format", "c", "--output", str(run / "c"))
        session.run("isonas", "verify", str(run / "c"))
        session.run("isonas", "front", str(run), "--csv")
