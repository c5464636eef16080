"""Options made from what `config` declares, and how a command gets them into the signature that typer reads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
from caa_cli.config.plan import Plan
from caa_cli.config.ranges import OneOf, flag
from caa_cli.config.settings import Setting, settings_of

DATA, METHOD, COMPARISON, RUN, COMPUTE = "Model and data", "Method", "Comparison", "Run", "Compute"
SEARCH = "Attack"
Command = TypeVar("Command", bound=Callable[..., None])


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


def with_options_of(
    source: Callable[..., None], before: str | None = None, without: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Adds the parameters of another function as options, so that a new one there needs no change here."""
    return with_options({name: p for name, p in _parameters(source).items() if name not in without}, before)


def with_options(added: Mapping[str, inspect.Parameter], before: str | None = None) -> Callable[[Command], Command]:
    """Adds options before the command's option `before`, or at the end. They arrive as keyword arguments.

    Of two options with one name the command's own stays.
    """

    def extend(command: Command) -> Command:
        parameters = _parameters(command)
        names = list(parameters)
        place = len(names) if before is None else names.index(before)
        new = [name for name in added if name not in parameters]
        order = [*names[:place], *new, *names[place:]]
        return _with_parameters(command, {name: {**added, **parameters}[name] for name in order})

    return extend


def attack_settings() -> dict[str, inspect.Parameter]:
    """The settings of all registered attacks, in one panel of the help for each attack."""
    return {
        name: _optional(
            name,
            setting.kind,
            setting.help,
            setting.shown,
            f"Only for the attack {attack}",
            choices=_names([setting]),
        )
        for attack in ATTACKS
        for name, setting in declared(attack).items()
    }


def method_settings() -> dict[str, inspect.Parameter]:
    """The settings of every training method; one that several methods have is one option."""
    options: dict[str, inspect.Parameter] = {}
    for name, methods_ in methods.every_setting().items():
        several = [methods.declared(method)[name] for method in methods_]
        help = f"{', '.join(methods_)}: {next(setting.help for setting in several if setting.help)}"
        defaults = {method: setting.shown for method, setting in zip(methods_, several, strict=True)}
        alike = len(set(defaults.values())) == 1
        shown = several[0].shown if alike else ", ".join(f"{method} {value}" for method, value in defaults.items())
        options[name] = _optional(name, several[0].kind, help, shown, METHOD, choices=_names(several))
    return options


def plan_settings(plan: type[Plan], panel: str, names: Iterable[str]) -> dict[str, inspect.Parameter]:
    """Settings of a plan, with the help that it declares for them."""
    by_name = {setting.field: setting for setting in settings_of(plan)}
    options: dict[str, inspect.Parameter] = {}
    for name in names:
        setting = by_name[name]
        has_default = setting.default is not None
        about = option(
            help=setting.help,
            panel=panel,
            choices=_names([setting]),
            show_default=has_default or setting.shown or False,
        )
        kind = setting.kind if has_default else setting.kind | None
        options[name] = _parameter(name, Annotated[kind, about], setting.default)
    return options


def pictures() -> dict[str, inspect.Parameter]:
    """The files of the pictures of a comparison."""
    return {
        spec.option: _optional(spec.option, Path, spec.help, None, COMPARISON, "FILE.png")
        for spec in PICTURES.values()
    }


def _names(settings: Sequence[Setting]) -> Iterable[str] | None:
    """The names that a setting may have, where it has one of a few."""
    return next((check.names for setting in settings for check in setting.checks if isinstance(check, OneOf)), None)


def _optional(
    name: str,
    kind: Any,
    help: str,
    default: str | None,
    panel: str,
    metavar: str | None = None,
    choices: Iterable[str] | None = None,
) -> inspect.Parameter:
    if kind is str:
        metavar = "NAME"
    about = option(
        flag(name), help=help, panel=panel, choices=choices, show_default=default or False, metavar=metavar
    )
    return _parameter(name, Annotated[kind | None, about], None)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def with_strict_numbers(command: Command) -> Command:
    """The command with parsers of our own for whole numbers and numbers, and words for what its options take."""
    return _with_parameters(command, _parameters(command))


def _parameters(command: Callable[..., None]) -> dict[str, inspect.Parameter]:
    """By name, their annotations evaluated, without `**given`."""
    hints = get_type_hints(command, include_extras=True)
    return {
        name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _with_parameters(command: Command, parameters: dict[str, inspect.Parameter]) -> Command:
    for parameter in parameters.values():
        for info in get_args(parameter.annotation)[1:]:
            if isinstance(info, OptionInfo):
                info.parser = parser_of(parameter.annotation)
                if info.metavar is None:
                    info.metavar = metavar_of(parameter.annotation)
    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return command
