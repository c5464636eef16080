"""Imports run one way: the rules of the package's layout, read off its source."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import caa_cli

ROOT = Path(caa_cli.__file__).parent
ALGORITHMS = ["attacks", "smoothing", "verify"]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


SOURCES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}


def imported(tree: ast.AST) -> set[str]:
    """Every module that a piece of source imports, names out of caa_cli with the module they come from."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be read"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def at_start(tree: ast.Module) -> set[str]:
    """What is imported when the module is, not inside its functions."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= imported(ast.Module([node], []))
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return found


def below(name: str, tops: list[str]) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def modules(*stages: str) -> list[str]:
    return [name for name in SOURCES if below(name, [f"caa_cli.{stage}" for stage in stages])]


def offences(stages: list[str], forbidden: list[str]) -> list[str]:
    found = modules(*stages)
    assert len(found) >= len(stages), "the rule is about nothing: was a folder renamed?"
    return [f"{name} → {other}" for name in found for other in imported(SOURCES[name]) if below(other, forbidden)]


def own(*stages: str) -> list[str]:
    return [f"caa_cli.{stage}" for stage in stages]


@pytest.mark.parametrize(
    ("stages", "forbidden"),
    [
        (
            [
                "plan",
                "config",
                "selection",
                "sharding",
                "launchers",
                "errors",
                "results",
                "display",
                "data.decoding",
            ],
            ["torch", "torchvision"],
        ),
        (ALGORITHMS, own("cli", "run", "training", "results", "display", "data", "models", "plan")),
        (ALGORITHMS, ["rich", "typer", "pathlib", "argparse", "json"]),
        (["smoothing"], own("attacks", "verify")),
        (["attacks"], own("verify")),
        (["data", "models", "results", "display", "plan", "errors"], own("cli", "run", "training", *ALGORITHMS)),
        (["run", "training"], own("cli")),
        (["run"], own("training")),
        (["training"], own("run")),
        (["errors"], ["caa_cli"]),
        (["plan", "config"], own("data", "models", "results", "display")),
    ],
    ids="+".join,
)
def test_nothing_imports_back(stages, forbidden):
    assert offences(stages, forbidden) == []


def test_only_the_display_knows_rich():
    assert [name for name in SOURCES if any(below(other, ["rich"]) for other in imported(SOURCES[name]))] == [
        "caa_cli.display"
    ]


def test_only_the_command_line_knows_typer():
    users = [name for name in SOURCES if any(below(other, ["typer", "click"]) for other in imported(SOURCES[name]))]
    assert users
    assert set(users) <= set(modules("cli"))


def test_the_command_line_imports_nothing_heavy_before_it_must():
    """`caa_cli` alone is the root, which holds the version."""
    allowed = [
        "typer",
        *own("plan", "config", "train_plan", "compare_plan", "recipes"),
        *own("names", "paths", "sizes", "errors", "cli", "launchers", "sharding", "signals", "streams"),
        "caa_cli.__version__",
        *sys.stdlib_module_names,
    ]
    for name in modules("cli"):
        others = {other for other in at_start(SOURCES[name]) if other != "caa_cli"}
        assert [other for other in others if not below(other, allowed)] == [], name


def test_what_the_command_line_starts_with_is_light():
    """Plan, errors and the root are imported with it, so they must not import more."""
    for name in [
        *modules("config"),
        "caa_cli",
        "caa_cli.plan",
        "caa_cli.train_plan",
        "caa_cli.compare_plan",
        "caa_cli.recipes",
        "caa_cli.names",
        "caa_cli.selection",
        "caa_cli.launchers",
        "caa_cli.sharding",
        "caa_cli.signals",
        "caa_cli.streams",
        "caa_cli.paths",
        "caa_cli.sizes",
        "caa_cli.errors",
    ]:
        allowed = [
            *own("errors", "paths", "names", "selection", "launchers", "sharding", "plan", "config"),
            *sys.stdlib_module_names,
        ]
        others = {other for other in at_start(SOURCES[name]) if other != "caa_cli"}
        assert [other for other in others if not below(other, allowed)] == [], name
