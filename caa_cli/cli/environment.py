"""Settings from environment variables: CAA_<SUBCOMMAND>_<OPTION> sets that option; and where a value comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand

from caa_cli.errors import UsageError

# Variables that set no option. CAA_DATA names the tests' data; scripts keep in CAA_VERSION which release to install.
_OTHER_VARIABLES = ("CAA_CACHE_DIR", "CAA_TUNING_CACHE", "CAA_DATA", "CAA_VERSION")
# Between values of an option that may be repeated. Checkpoints are separated as in PATH: the name of one may hold
# spaces. Spaces separate requirements, but not beside an operator: `eligible >= 4 seconds < 9` is two of them.
_SEPARATORS = {"checkpoint": os.pathsep, "require": r"(?<![<>=!\s])\s+(?![<>=!\s])"}


def name_variables(command: TyperCommand) -> None:
    """Give each option of a subcommand its variable, but not those that end the command at once, such as --help."""
    for parameter in command.params:
        ends_at_once = parameter.is_eager and getattr(parameter, "is_flag", False)
        if parameter.param_type_name == "option" and not ends_at_once:
            parameter.envvar = f"CAA_{command.name}_{parameter.name}".upper()
        if parameter.name in _SEPARATORS:
            parameter.value_from_envvar = partial(_several, parameter)  # type: ignore[method-assign]


def _several(option: Any, context: typer.Context) -> list[str] | None:
    value = option.resolve_envvar_value(context)
    return re.split(_SEPARATORS[option.name], value.strip()) if value else None


def check_variables(context: typer.Context) -> None:
    """Raise UsageError for a variable CAA_… that nothing reads. One that is empty counts as not set."""
    command = context.command
    commands = {command.name: command, **getattr(context.find_root().command, "commands", {})}
    options = [parameter.envvar for other in commands.values() for parameter in other.params if parameter.envvar]
    known = [*options, *_OTHER_VARIABLES]
    for name in sorted(os.environ):
        if name.startswith("CAA_") and os.environ[name] and name not in known:
            nearest = _nearest(name, known, f"CAA_{command.name}_".upper())
            raise UsageError(
                f"there is no setting for the environment variable {name}",
                f"the nearest is {nearest}; or type: unset {name}",
            )


def _nearest(name: str, known: Iterable[str], prefix: str) -> str:
    """The variable that may be meant. prefix: of this command's variables."""
    from difflib import SequenceMatcher

    def likeness(other: str) -> float:
        # CAA_SEED names an option in full, and means that of the command that is run.
        in_full = other not in _OTHER_VARIABLES and name.endswith("_" + other.split("_", 2)[2])
        bonus = 0.25 if other.startswith(prefix) else 0.15
        return SequenceMatcher(None, name, other).ratio() + in_full * bonus

    return max(known, key=likeness)


def source_of(context: typer.Context, name: str) -> str | None:
    """Where an option's value comes from: COMMANDLINE, ENVIRONMENT, DEFAULT_MAP (the TOML file) or DEFAULT."""
    source = context.get_parameter_source(name)
    return None if source is None else source.name


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line."""
    return source_of(context, name) == "COMMANDLINE"


def origins(context: typer.Context, problem: str) -> str:
    """A clause for each option in `problem` that a variable or the TOML file has set: the user has not typed it."""
    words = {word.strip(",.:;()'") for word in problem.split()}
    clauses = []
    for parameter in context.command.params:
        source = source_of(context, parameter.name or "")
        where = {
            "ENVIRONMENT": f"the environment variable {parameter.envvar}",
            "DEFAULT_MAP": context.params.get("config"),
        }
        if source in where:
            clauses += [f" ({flag} comes from {where[source]})" for flag in words.intersection(parameter.opts)]
    return "".join(clauses)
