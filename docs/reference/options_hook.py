"""Hook of mkdocs: a line `::: caa COMMAND` in a page becomes tables of the options of that command."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import typer

from caa_cli.cli.app import app


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page's text, with every such line replaced."""
    return re.sub(r"^::: caa (\w+)$", lambda match: tables(match[1]), markdown, flags=re.MULTILINE)


def tables(command: str) -> str:
    """One table for each group of options, as in the command's --help."""
    root = typer.main.get_command(app)
    parameters = root.commands[command].params  # type: ignore[attr-defined]
    groups: dict[str, list[str]] = defaultdict(list)
    for parameter in parameters:
        if parameter.param_type_name == "option" and parameter.name != "help":
            groups[parameter.rich_help_panel or "Options"].append(row(parameter))
    return "\n\n".join(
        "\n".join([f"**{name}**", "", "| option | default | meaning |", "|---|---|---|", *rows])
        for name, rows in groups.items()
    )


def row(parameter: Any) -> str:
    """One option: its names and what it takes, its default, its help."""
    takes = "" if parameter.is_flag else f" `{parameter.metavar}`"
    names = " / ".join(map(unbroken, [*parameter.opts, *parameter.secondary_opts]))
    # Some defaults are a part of the help text, marked for the terminal.
    meaning, _, marked = (parameter.help or "").partition(" [dim]\\[default: ")
    shown, value = parameter.show_default, parameter.default
    if marked:
        default = f"`{marked.removesuffix('][/]')}`"
    elif isinstance(shown, str):
        default = shown
    elif shown and not parameter.is_flag and value not in (None, ()) and not callable(value):
        default = f"`{value}`"
    else:
        default = ""
    meaning = re.sub(r"(?<![\w`-])--[a-z][a-z-]*", lambda match: unbroken(match[0]), meaning)
    # A | in code begins no cell, and a backslash before it would be shown.
    return f"| {names}{takes} | {default} | {meaning} |"


def unbroken(name: str) -> str:
    """An option's name as code, which no line breaks at a hyphen."""
    return f'`{name}`{{: style="white-space: nowrap"}}'
