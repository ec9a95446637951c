"""Imports run one way, and nothing of the outside leaks in."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import isonas

PACKAGE = Path(isonas.__file__).parent
LAYERS = [
    {"errors", "atomic", "paths"},
    {"genome"},
    {"space"},
    {"cost", "pareto"},
    {"layers", "hardware"},
    {"objectives", "evaluation"},
    {"data"},
    {"networks"},
    {"training"},
    {"search"},
    {"report"},
    {"export", "bench"},
    {"paper"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
WITHOUT_TORCH = {"errors", "atomic", "paths", "genome", "space", "cost", "pareto", "layers", "hardware",
                 "objectives", "evaluation", "search", "report"}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


def room(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if own == "__init__":
        assert not {name for name in imports(path) if name.startswith("isonas")}
        return
    for name in imports(path):
        if name.startswith("isonas.") and room(name) != own and room(name) != "__version__":
            assert LEVEL[room(name)] < LEVEL[own], f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_cycle_inside_a_room(path: Path) -> None:
    graph = {file: {name for name in imports(file) if name.startswith("isonas.")} for file in FILES}
    names = {".".join(("isonas", *file.relative_to(PACKAGE).with_suffix("").parts)): file for file in FILES}
    start = next(name for name, file in names.items() if file == path)
    reached, waiting = set(), [start]
    while waiting:
        for name in graph[names[waiting.pop()]]:
            if name in names and name not in reached:
                reached.add(name)
                waiting.append(name)
    assert start not in reached


def test_cost_and_networks_know_nothing_of_each_other() -> None:
    def uses(path: Path, other: str) -> bool:
        return any(name.startswith(f"isonas.{other}") for name in imports(path))

    for file in ("cost.py", "layers.py"):
        assert not uses(PACKAGE / file, "networks")
    for path in (PACKAGE / "networks").glob("*.py"):
        assert path.name == "liveness.py" or not uses(path, "cost")
    # The tracer shares the models' names with the closed forms, and none of their numbers.
    used = {name for name in imports(PACKAGE / "networks" / "liveness.py") if "isonas.cost" in name}
    assert used == {"isonas.cost", "isonas.cost.MemoryModel"}


def test_the_search_never_imports_torch() -> None:
    for path in FILES:
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if own in WITHOUT_TORCH:
            heavy = {name for name in imports(path) if name.split(".")[0] in ("torch", "timm")}
            assert not heavy, path


def test_only_the_log_touches_trial_files() -> None:
    allowed = {
        "search/log.py",
        "data/columns.py",
        "data/parquet.py",
        "bench/table.py",
        "training/retrain_folder.py",
        "paper/results.py",
    }
    users = {
        str(path.relative_to(PACKAGE)) for path in FILES if any("pyarrow" in name for name in imports(path))
    }
    assert users == allowed


def test_nothing_is_unpickled_unrestricted() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        used = {name for name in imports(path) if name.split(".")[0] in ("pickle", "shelve", "joblib")}
        used -= {"joblib", "joblib.cpu_count"}
        if path.relative_to(PACKAGE) == Path("data", "unpickle.py"):
            # Its subclass admits what it names; `tests/test_imagenet32.py` holds that it admits no more.
            assert set(re.findall(r"pickle\.\w+", text)) == {"pickle._Unpickler"}
        else:
            assert not used
        assert all("weights_only=True" in line for line in re.findall(r"torch\.load\(.*", text))
        assert all("allow_pickle=False" in line for line in re.findall(r"np\.load\(.*", text))


def test_every_public_thing_says_what_it_is() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"
