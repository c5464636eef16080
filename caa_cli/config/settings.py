"""Settings as a frozen dataclass declares them: `gamma: Annotated[float, Between(0, 1), "What it is."] = 0.05`.

Flags, help, environment variables, TOML keys, checks, labels and the record in a result are all made from that.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, Protocol, TypeVar, get_args, get_origin, get_type_hints

from caa_cli.config.ranges import OneOf, flag
from caa_cli.errors import UsageError

S = TypeVar("S")


class Check(Protocol):
    def check(self, option: str, value: Any) -> None: ...


@dataclass(frozen=True)
class Called:
    """The name of a setting for users, where it differs from the field's."""

    name: str


@dataclass(frozen=True)
class Shown:
    """The help's text for a default that depends on other settings."""

    default: str


@dataclass(frozen=True)
class Takes:
    """What the help says that the option takes, such as FILE, where the type would say too little."""

    metavar: str


@dataclass(frozen=True)
class Suggested:
    """Values that a shell offers, of a setting that has others too."""

    names: Iterable[str]


@dataclass(frozen=True)
class Formerly:
    """The value of the setting in files from before it existed, if that is not its default."""

    value: Any


@dataclass(frozen=True)
class Setting:
    """One field of a dataclass. name: for users.  kind: the type of its values, None left out.

    help: empty for one that is no option of its own.  shown: the default as the help shows it.  choices: the values
    that a shell offers.  formerly: the value in files that lack the setting.
    """

    field: str
    name: str
    kind: Any
    default: Any
    help: str
    shown: str | None
    metavar: str | None
    choices: Iterable[str] | None
    checks: tuple[Check, ...]
    formerly: Any


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one attack or training method."""

    def check(self, by_votes: bool) -> None:
        """Raises UsageError where settings, each in its range, are incompatible. by_votes: with --gradient votes."""

    def check_target(self) -> None:
        """Raises UsageError for settings that don't go with --target."""

    def recorded(self) -> dict[str, Any]:
        """Further entries for the record in a result."""
        return {}


def settings_of(owner: object) -> tuple[Setting, ...]:
    """The settings that a dataclass declares, in its order."""
    return _read(owner)


@cache  # a function of its own, as mypy takes no class for hashable
def _read(owner: Any) -> tuple[Setting, ...]:
    hints = get_type_hints(owner, include_extras=True)
    return tuple(_setting(f.name, hints[f.name], None if f.default is MISSING else f.default) for f in fields(owner))


def _setting(name: str, hint: Any, default: Any) -> Setting:
    kind, *about = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
    if get_origin(kind) is types.UnionType:
        (kind,) = set(get_args(kind)) - {type(None)}
    by_type: dict[type, Any] = {type(word): word for word in about}
    called, shown, takes = by_type.get(Called), by_type.get(Shown), by_type.get(Takes)
    return Setting(
        field=name,
        name=called.name if called else name,
        kind=kind,
        default=default,
        help=by_type.get(str, ""),
        shown=shown.default if shown else _shown(default),
        metavar=takes.metavar if takes else None,
        choices=next((word.names for word in about if isinstance(word, (OneOf, Suggested))), None),
        checks=tuple(word for word in about if hasattr(word, "check")),
        formerly=by_type[Formerly].value if Formerly in by_type else None,
    )


def _shown(default: Any) -> str | None:
    if default is None or isinstance(default, bool):
        return None
    return f"{default:.4g}" if isinstance(default, (int, float)) else str(default)


def check_each(values: Any, prefix: str = "") -> None:
    """Raises UsageError for a value of a dataclass that is not in the range declared for it. None is no value."""
    for setting in settings_of(type(values)):
        value = getattr(values, setting.field)
        for check in setting.checks if value is not None else ():
            check.check(flag(prefix + setting.name), value)


def refuse_foreign(
    what: str, name: str, declared: Mapping[str, Mapping[str, Setting]], given: Mapping[str, Any]
) -> None:
    """Raises UsageError for a value of a setting that this attack or method lacks and another one has."""
    for other, settings in declared.items():
        for setting in settings:
            if given.get(setting) is not None and setting not in declared[name]:
                own = ", ".join(map(flag, declared[name])) or "no settings of its own"
                raise UsageError(
                    f"{flag(setting)} is a setting of the {what} {other}, not of {name}",
                    f"leave it out, or use --{what} {other}; {name} has {own}",
                )


def filled(owner: type[S], given: Mapping[str, Any], prefix: str = "") -> S:
    """Create the dataclass from values by users' names; missing ones and None get the defaults."""
    values = {s.field: given.get(prefix + s.name) for s in settings_of(owner)}
    return owner(**{name: value for name, value in values.items() if value is not None})
