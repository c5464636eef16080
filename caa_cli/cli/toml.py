"""The TOML file of --config: its values become the defaults of a command's options, checked as those are."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from caa_cli.cli.values import kinds, parser_of, shortened
from caa_cli.config.ranges import did_you_mean, flag
from caa_cli.errors import UsageError


def load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes a TOML file the command's defaults: top-level keys, and those of the table of the command's name.

    Raises UsageError for a file that can't be read, and for what is no setting in it.
    """
    if path is None or context.resilient_parsing:
        return path
    content, name = _read(path), context.info_name or ""
    commands = context.parent.command.commands if context.parent else {name: context.command}  # type: ignore[attr-defined]
    settings = {
        command: {str(p.name) for p in at.params if p.param_type_name == "option"}
        - {"config"}  # files are no settings
        for command, at in commands.items()
    }
    for level in (content, *(value for value in content.values() if isinstance(value, dict))):
        spelt = {_parameter(key): key for key in level}
        for key in level.keys() - spelt.values():  # TOML takes verify-samples and verify_samples for two
            raise UsageError(f"{path} has both {key} and {spelt[_parameter(key)]}", "delete one of them")
    defaults: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            if key not in settings:
                tables = [f"[{command}]" for command in settings]
                raise UsageError(
                    f"{path}: there is no subcommand for the table [{key}]",
                    f"{did_you_mean(f'[{key}]', tables)}its tables are {', '.join(tables)}",
                )
        elif not any(_parameter(key) in known for known in settings.values()):
            raise UsageError(
                f"{path}: no subcommand has a setting {key!r}", _meant(key, set().union(*settings.values()), name)
            )
        elif _parameter(key) in settings[name]:
            defaults[_parameter(key)] = value
    table = content.get(name)  # may be a plain setting too: caa attack has one of its own name
    for key, value in table.items() if isinstance(table, dict) else ():
        if _parameter(key) not in settings[name]:
            raise UsageError(f"{path}: [{name}] has no setting {key!r}", _meant(key, settings[name], name))
        defaults[_parameter(key)] = value
    parameters = {p.name: p for p in context.command.params}
    annotations = inspect.signature(context.command.callback).parameters  # type: ignore[arg-type]
    checked: dict[str, Any] = {}
    for key, value in defaults.items():
        try:
            checked[key] = _from_toml(parameters[key], annotations[key].annotation, value)
        except typer.BadParameter as error:
            problem = f"{path}: {key.replace('_', '-')} = {error.message}"
            raise UsageError(
                problem, f"correct that line of {path}; caa {name} --help says what it may be"
            ) from error
    context.default_map = {**(context.default_map or {}), **checked}
    return path


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path} can't be read ({error.strerror})", "check the path of --config") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"--config {path} is no TOML file that can be read ({error})",
            "a setting a line, for instance samples = 2000; a text in quotes",
        ) from error


def _meant(key: str, known: Iterable[str], command: str) -> str:
    meant = did_you_mean(key.replace("_", "-"), [name.replace("_", "-") for name in known])
    return f"{meant}caa {command} --help lists the settings"


def _from_toml(parameter: Any, annotation: Any, value: Any) -> Any:
    """The value in the form that the option takes: for a text also a number, or a list of texts or numbers."""
    if parameter.is_flag:
        if isinstance(value, bool):
            return value
        raise typer.BadParameter(f"{shortened(value)} is neither true nor false")
    if (parser := parser_of(annotation)) is not None:
        return parser(value)
    words, is_path = value if isinstance(value, list) else [value], Path in kinds(annotation)
    possible = (str,) if is_path or parameter.multiple else (str, int, float)
    if any(type(word) not in possible for word in words) or (words != [value] and is_path):
        raise typer.BadParameter(f'{shortened(value)} is no text, for instance {flag(parameter.name)[2:]} = "…"')
    if any(isinstance(word, str) and "\0" in word for word in words):
        raise typer.BadParameter("a text with a null character, which no name has")
    return words if parameter.multiple else ",".join(map(str, words))


def _parameter(key: str) -> str:
    return key.replace("-", "_")
