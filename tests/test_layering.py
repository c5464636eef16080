"""Imports run one way: the rules of the package's layout, read off its source."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import caa_cli

ROOT = Path(caa_cli.__file__).parent
ALGORITHMS = ["attacks", "smoothing", "verification"]
# What of `runtime` needs no torch, so that the command line can start with it.
LIGHT_RUNTIME = [
    "runtime.collector",
    "runtime.launchers",
    "runtime.sharding",
    "runtime.signals",
    "runtime.streams",
    "runtime.terminal",
    "runtime.user_code",
    "runtime.words",
]


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


# Each room, and those that it may import from. They stand from the bottom to the top: a room knows only rooms that
# stand before it, so that no arrow runs up and there is no circle.
ROOMS = {
    "errors": "",
    "runtime": "errors",
    "config": "errors runtime",
    "display": "errors runtime",
    "smoothing": "errors runtime config",
    "data": "errors runtime config",
    "models": "errors runtime config",
    "results": "errors runtime config",
    "report": "errors runtime config display results",
    "attacks": "errors runtime config smoothing",
    "verification": "config smoothing attacks",
    "tuning": "errors runtime config display smoothing results",
    "training": "errors runtime config display smoothing data models results tuning",
    "run": "errors runtime config display smoothing data models results report attacks verification tuning training",
    "python": "errors runtime config display smoothing data models results attacks tuning run",
    "cli": "errors runtime config display models results run",
}
# The package's public names, and the module that `python -m caa_cli` runs: of no room.
DOORS = {"caa_cli", "caa_cli.__main__"}


def room(name: str) -> str:
    return name.split(".")[1]


def test_every_module_is_in_a_room():
    assert {room(name) for name in SOURCES if name not in DOORS} == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_no_arrow_runs_up(name):
    allowed = {name, *ROOMS[name].split()}
    before = list(ROOMS)[: list(ROOMS).index(name)]
    assert allowed - {name} <= set(before), "the table itself has an arrow up"
    used = {
        f"{module} → {other}"
        for module in modules(name)
        for other in imported(SOURCES[module])
        if other.startswith("caa_cli.") and room(other) not in (*allowed, "__version__")
    }
    assert used == set()


@pytest.mark.parametrize(
    ("stages", "forbidden"),
    [
        (["config", "errors", "results", "report", "display", "data.decoding"], ["torch", "torchvision"]),
        (ALGORITHMS, ["rich", "typer", "pathlib", "argparse", "json"]),
        (ALGORITHMS, [name for name in modules("config") if name.endswith("plan")]),
    ],
    ids=["without torch", "without input and output", "without a plan"],
)
def test_what_a_room_may_not_know(stages, forbidden):
    assert offences(stages, forbidden) == []


def test_only_the_display_knows_rich():
    users = [name for name in SOURCES if any(below(other, ["rich"]) for other in imported(SOURCES[name]))]
    assert users
    assert set(users) <= set(modules("display"))


def test_only_the_command_line_knows_typer():
    users = [name for name in SOURCES if any(below(other, ["typer", "click"]) for other in imported(SOURCES[name]))]
    assert users
    assert set(users) <= set(modules("cli"))


def test_the_command_line_imports_nothing_heavy_before_it_must():
    """`caa_cli` alone is the root, which holds the version."""
    light = own("cli", "config", "errors", *LIGHT_RUNTIME)
    allowed = ["typer", *light, "caa_cli.__version__", *sys.stdlib_module_names]
    for name in modules("cli", "config", "errors", *LIGHT_RUNTIME):
        others = {other for other in at_start(SOURCES[name]) if other not in ("caa_cli", "caa_cli.runtime")}
        assert [other for other in others if not below(other, allowed)] == [], name


@pytest.mark.parametrize("name", SOURCES)
def test_every_error_says_what_to_do_next(name):
    for call in ast.walk(SOURCES[name]):
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id in {"CaaError", "UsageError"}
        ):
            spread = any(isinstance(argument, ast.Starred) for argument in call.args)
            hint = call.args[1] if len(call.args) > 1 else None
            silent = hint is None or (isinstance(hint, ast.Constant) and not hint.value)
            assert spread or not silent, f"{name}, line {call.lineno}: {ast.unparse(call)}"
