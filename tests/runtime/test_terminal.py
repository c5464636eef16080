"""Colours and live bars: on a terminal, in a log, in CI, and as the user asks, each in a real process.

That of the help is a new interpreter: typer reads the variables when it is imported.
"""

from __future__ import annotations

import os
import pty
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from forking import fork
from support import ENVIRONMENT, read_terminal, start

from caa_cli.display import Display

COLOUR = re.compile(r"\x1b\[([0-9]+;)*3[0-7]m")


def output(terminal: bool, *words: str, show: Callable[[], Any] | None = None, **environment: str) -> str:
    """stderr and stdout of the command, or of what else shows something, both on a terminal or both in a pipe."""
    begin = start if "--help" in words else fork
    settings: dict[str, Any] = {"env": {**ENVIRONMENT, **environment}}
    if show is not None:
        settings["before"] = lambda: sys.exit(show())
    if not terminal:
        process = begin(*words, **settings)
        return "".join(process.communicate())
    ours, theirs = pty.openpty()
    process = begin(*words, stdout=theirs, stderr=theirs, **settings)
    os.close(theirs)
    shown = read_terminal(ours)
    process.wait()
    return shown


def show_table() -> None:
    Display().grid("title", ["name", "value"], [["alpha", "1"]], "caption")


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        # As GitHub sets them: no terminal. Others give a job a terminal.
        (False, {"CI": "true", "GITHUB_ACTIONS": "true"}, False),
        (True, {"CI": "true"}, False),
        (True, {"CI": "false"}, True),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"CI": "true", "GITHUB_ACTIONS": "true", "FORCE_COLOR": "1"}, True),
        (True, {"NO_COLOR": "1"}, False),
        (False, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {"PY_COLORS": "1"}, False),
    ],
)
@pytest.mark.parametrize("what", ["help", "error", "table"])
def test_colours_are_for_terminals_and_for_those_who_ask(what: str, terminal: bool, environment, coloured: bool):
    words = {"help": "attack --help", "error": "attack --checkpoint demo --alpha 2", "table": ""}[what]
    shown = output(terminal, *words.split(), show=show_table if what == "table" else None, **environment)
    assert "alpha" in shown
    assert (COLOUR.search(shown) is not None) == coloured


def test_an_empty_variable_counts_as_not_set():
    shown = output(True, "attack", "--checkpoint", "demo", "--alpha", "2", NO_COLOR="")
    assert COLOUR.search(shown)
    shown = output(False, "attack", "--checkpoint", "demo", "--alpha", "2", FORCE_COLOR="")
    assert not COLOUR.search(shown)


def show_bar() -> None:
    with Display().bar("images", 2) as bar:
        bar.update(1, "half")


@pytest.mark.parametrize(
    ("terminal", "environment", "live"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, True),
        (True, {"CI": "true"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {"FORCE_COLOR": "1"}, False),  # colours are no terminal
        (False, {"TTY_COMPATIBLE": "1"}, False),
    ],
)
def test_a_bar_is_drawn_only_for_somebody_who_watches(terminal: bool, environment, live: bool):
    shown = output(terminal, show=show_bar, **environment)
    assert ("━" in shown) == live
    assert ("images 1/2 · half" in shown) != live


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "log"])
@pytest.mark.parametrize(
    ("words", "command"),
    [
        (
            "attack --checkpoint demo --dataset mnist --output a-long-name-for-a-result.json",
            "caa attack --checkpoint demo --dataset mnist --output a-long-name-for-a-result.json --data-dir DIR",
        ),
        (
            "inspect --checkpoint demo --sigma 0.25 --dataset mnist",
            "caa attack --checkpoint demo --sigma 0.25 --dataset mnist --data-dir DIR",
        ),
        ("attack --checkpoint demo --an-option-that-is-not-known-at-all-and-is-long", "caa attack --help"),
    ],
    ids=["missing settings", "inspect", "parser"],
)
def test_a_command_to_copy_is_one_line_at_60_columns(terminal: bool, words: str, command: str):
    """What is too long for the terminal is broken by the terminal itself, which copies it as one line."""
    shown = output(terminal, *words.split(), COLUMNS="60", NO_COLOR="1")
    assert command in shown
    if "not-known" in words:
        assert "--an-option-that-is-not-known-at-all-and-is-long" in shown
        assert "│" not in shown


def test_the_command_that_follows_a_training_is_one_line_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "a-long-name-for-a-checkpoint-of-a-training.safetensors"
    words = f"train --dataset demo --epochs 1 --evaluate-samples 0 --device cpu --output {name}"
    assert f"caa attack --checkpoint {name} --limit 20" in output(True, *words.split(), COLUMNS="60", NO_COLOR="1")
