"""The rules that keep the package a one-way street, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sketchynet"

LEVELS = [
    {"errors", "version"},
    {"_arrays", "sketch"},
    {"_core", "raster", "ops", "vectorize"},
    {"augment", "data", "models", "losses", "retrieval", "flops"},
    {"config", "checkpoint", "storage", "tables", "plots"},
    {"stages"},
    {"data_report", "distributed", "pictures", "recipes", "report", "results", "tracking"},
    {"bulk", "pipeline"},
    {"experiments"},
    {"cli", "cli_data", "cli_embed", "cli_results", "cli_track"},
]
"""A part of the package imports from its own level and from those above it in this list."""

LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}


def imports(file: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(file: Path) -> set[str]:
    names = (name.split(".") for name in imports(file))
    return {name[1] for name in names if name[0] == "sketchynet" and len(name) > 1 and name[1] in LEVEL}


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_part_has_its_level() -> None:
    assert {part_of(file) for file in FILES} | {"_core"} == set(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file: Path) -> None:
    upward = {part for part in imported_parts(file) if LEVEL[part] > LEVEL[part_of(file)]}
    assert not upward, f"{file.name} imports {sorted(upward)} from a higher level"


@pytest.mark.parametrize("part", ["ops", "models", "losses", "retrieval", "flops"])
def test_networks_and_operators_know_no_data(part: str) -> None:
    for file in FILES:
        if part_of(file) == part:
            assert not {"data", "augment"} & imported_parts(file), file


@pytest.mark.parametrize("framework, parts", [("mlflow", {"tracking"}), ("ray", {"distributed"})])
def test_frameworks_stay_behind_their_doors(framework: str, parts: set[str]) -> None:
    users = {part_of(file) for file in FILES if framework in {name.split(".")[0] for name in imports(file)}}
    assert users <= parts


def test_mlflow_is_imported_inside_functions() -> None:
    for file in FILES:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                assert (module or "").split(".")[0] != "mlflow", f"{file}:{node.lineno}"


def test_only_the_bindings_know_python() -> None:
    for file in (ROOT / "csrc").rglob("*.[ch]pp"):
        if file.name != "bindings.cpp":
            text = file.read_text(encoding="utf-8")
            assert "pybind11" not in text and "Python.h" not in text, file


def test_nothing_is_loaded_with_an_unrestricted_pickle() -> None:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            call = ast.unparse(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert call not in {"pickle.load", "pickle.loads"}, f"{file}:{node.lineno}"
            assert call != "torch.load" or keywords.get("weights_only") == "True", f"{file}:{node.lineno}"
            assert call != "np.load" or keywords.get("allow_pickle", "False") == "False", (
                f"{file}:{node.lineno}"
            )
