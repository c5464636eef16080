"""Options made from what `config` declares, and how a command gets them into the signature that typer reads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from caa_cli.cli.completion import Completion, among
from caa_cli.cli.values import metavar_of, parser_of
from caa_cli.config import methods
from caa_cli.config.attack_settings import declared
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.pictures import PICTURES
from caa_cli.config.ranges import flag
from caa_cli.config.settings import Setting

DATA, METHOD, COMPARISON, RUN, COMPUTE = "Model and data", "Method", "Comparison", "Run", "Compute"
SEARCH, CERTIFICATE = "Attack", "Certificate and verification"
Command = TypeVar("Command", bound=Callable[..., None])
Options = dict[str, inspect.Parameter]


def option(
    *names: str,
    help: str,
    panel: str,
    choices: Iterable[str] | Completion | None = None,
    show_default: str | bool = True,
    **settings: Any,
) -> Any:
    """A typer.Option in a panel of the help. docs/reference/environment-variables.md is on variables.

    choices: what a shell offers for its value.  show_default: the default in words, or as the user would type it.
    """
    completion = choices if choices is None or callable(choices) else among(choices)
    if isinstance(show_default, str) and _is_value(show_default, choices):
        # Typer puts parentheses around every default that is given as a text; they are for words.
        help, show_default = rf"{help} [dim]\[default: {show_default}][/]", False
    return typer.Option(
        *names,
        help=help,
        rich_help_panel=panel,
        show_envvar=False,
        autocompletion=completion,
        show_default=show_default,
        **settings,
    )


def _is_value(text: str, choices: Iterable[str] | Completion | None) -> bool:
    """Whether the text of a default is a value, not a description: a number, or one of the choices."""
    number = re.fullmatch(r"[0-9][0-9./e-]*", text) is not None
    return number or (choices is not None and not callable(choices) and text in choices)


def with_options(added: Options, before: str | None = None) -> Callable[[Command], Command]:
    """Adds options before the command's option `before`, or at the end. They arrive as keyword arguments.

    Of two options with one name the command's own stays.
    """

    def extend(command: Command) -> Command:
        parameters = options_of(command)
        names = list(parameters)
        place = len(names) if before is None else names.index(before)
        new = [name for name in added if name not in parameters]
        order = [*names[:place], *new, *names[place:]]
        return _with_parameters(command, {name: {**added, **parameters}[name] for name in order})

    return extend


def attack_settings() -> Options:
    """The settings of all registered attacks, in one panel of the help for each attack."""
    return {
        name: _of_some(name, setting, f"Only for the attack {attack}")
        for attack in ATTACKS
        for name, setting in declared(attack).items()
    }


def method_settings() -> Options:
    """The settings of every training method; one that several methods have is one option."""
    options: Options = {}
    for name, methods_ in methods.every_setting().items():
        several = [methods.declared(method)[name] for method in methods_]
        help = f"{', '.join(methods_)}: {next(setting.help for setting in several if setting.help)}"
        defaults = {method: setting.shown for method, setting in zip(methods_, several, strict=True)}
        alike = len(set(defaults.values())) == 1
        shown = several[0].shown if alike else ", ".join(f"{method} {value}" for method, value in defaults.items())
        options[name] = _of_some(name, replace(several[0], help=help, shown=shown), METHOD)
    return options


def _of_some(name: str, setting: Setting, panel: str) -> inspect.Parameter:
    """The option of a setting that only some attacks or methods have: None where it is not given."""
    metavar = "NAME" if setting.kind is str else None
    return _of_setting(name, replace(setting, metavar=metavar, default=None), panel)


def plan_setting(setting: Setting, panel: str) -> inspect.Parameter:
    """The option of a plan's setting, with what the plan declares of it."""
    return _of_setting(setting.field, setting, panel)


def _of_setting(name: str, setting: Setting, panel: str) -> inspect.Parameter:
    has_default = setting.default is not None
    about = option(
        *([flag(name)] if setting.kind is bool and not setting.default else []),  # without --no-…
        help=setting.help,
        panel=panel,
        choices=setting.choices,
        show_default=has_default or setting.shown or False,
        metavar=setting.metavar,
    )
    return _parameter(name, setting.kind if has_default else setting.kind | None, about, setting.default)


def pictures() -> Options:
    """The files of the pictures of a comparison."""
    return {
        spec.option: _parameter(
            spec.option, Path | None, option(help=spec.help, panel=COMPARISON, metavar="FILE.png"), None
        )
        for spec in PICTURES.values()
    }


def _parameter(name: str, kind: Any, about: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, about])


def with_strict_numbers(command: Command) -> Command:
    """The command with parsers of our own for whole numbers and numbers, and words for what its options take."""
    return _with_parameters(command, options_of(command))


def options_of(command: Callable[..., None]) -> Options:
    """By name, their annotations evaluated, without `**given`."""
    hints = get_type_hints(command, include_extras=True)
    return {
        name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _with_parameters(command: Command, parameters: Options) -> Command:
    for parameter in parameters.values():
        for info in get_args(parameter.annotation)[1:]:
            if isinstance(info, OptionInfo):
                info.parser = parser_of(parameter.annotation)
                if info.metavar is None:
                    info.metavar = metavar_of(parameter.annotation)
    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return command
