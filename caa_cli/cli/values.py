"""A value of an option, from the words of a flag or a variable, or from TOML: the same is refused in all three."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

import typer

# By the standard's digits alone: int() and float() would take those of other scripts, and 1_000.
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(inf|nan)", re.IGNORECASE)


def whole(value: Any) -> int:
    """Raises typer.BadParameter for what is no whole number."""
    if type(value) is int:
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    raise typer.BadParameter(f"{shortened(value)} is not a whole number, for instance 100")


def number(value: Any) -> float:
    """Raises typer.BadParameter for what is no number; nan and infinities are left to the range of the setting."""
    if type(value) is float or (type(value) is int and abs(value) < 10**40):
        return float(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    raise typer.BadParameter(f"{shortened(value)} is not a number, for instance 0.5")


def shortened(value: Any) -> str:
    """A value as a message shows it: nobody reads five thousand digits."""
    text = f"'{value}'" if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else f"{value}"
    return text if len(text) <= 60 else f"{text[:50]}… ({len(text)} characters)"


_PARSERS: dict[type, Callable[[Any], Any]] = {int: whole, float: number}


def kinds(annotation: Any) -> tuple[Any, ...]:
    """The types of an option: (int, NoneType) of `Annotated[int | None, option(…)]`."""
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return get_args(kind) or (kind,)


def parser_of(annotation: Any) -> Callable[[Any], Any] | None:
    """What makes a value of this option; None where it stays a text."""
    return next((_PARSERS[kind] for kind in kinds(annotation) if kind in _PARSERS), None)


def metavar_of(annotation: Any) -> str:
    """What an option takes, for the help: the words of versions of typer differ."""
    kind = kinds(annotation)[0]
    return f"<{(get_args(kind) or (kind,))[0].__name__}>"
