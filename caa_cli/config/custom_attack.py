"""Attacks from the user's code: `package.module:name` or `path/file.py:name`, and their settings.

The name is of one of these:

- a function (classifier, images, labels, generator) → adversarial images; further parameters are its settings;
- a factory, whose parameters all have defaults, that returns such a function or an `Attack`; they are its settings;
- a subclass of `Attack`; its settings are the dataclass of `Settings` that it derives from.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, make_dataclass
from types import NoneType
from typing import Annotated, Any, ClassVar, get_args

from caa_cli.config.ranges import flag
from caa_cli.config.settings import Called, Setting, Settings, check_each
from caa_cli.errors import UsageError
from caa_cli.runtime.user_code import file_and_digest, find_callable, is_file

PREFIX = "argument_"
CODE = "attack_code"
FUNCTION, FACTORY, CLASS = "function", "factory", "class"
# What a function or a factory is passed if it has parameters of these names: the run's settings.
OF_THE_RUN = ("samples", "iterations", "alpha", "bound", "seed")
_CALLED_WITH = "(classifier, images, labels, generator)"
_SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class Origin:
    """The code of an attack. code: the callable.  kind: FUNCTION, FACTORY or CLASS.  file: that defines it, if any.

    sha256: of that file, or of the callable's text.
    """

    name: str
    code: Callable[..., Any]
    kind: str
    file: str | None
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CustomSettings(Settings):
    """The arguments of one attack of the user's, which subclasses declare."""

    origin_of_attack: ClassVar[Origin]

    def recorded(self) -> dict[str, Any]:
        return {CODE: self.origin_of_attack.sha256[:16]}


_known: dict[str, type[CustomSettings]] = {}
_registered: dict[str, Callable[..., Any]] = {}


def is_custom(attack: str) -> bool:
    """Whether this names code of the user's: a colon with a name behind it, not with a setting (caa:rivals=2)."""
    _, colon, behind = attack.partition(":")
    return bool(colon) and "=" not in behind.partition(":")[0]


def split(text: str) -> tuple[str, dict[str, str]]:
    """(name, arguments) of `my.py:attack:steps=50`. Raises UsageError."""
    if not is_custom(text):
        return text, {}
    parts = [part.strip() for part in text.split(":")]
    arguments: dict[str, str] = {}
    for pair in parts[2:]:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value:
            raise UsageError(
                f"{text!r}: {pair!r} is not of the form KEY=VALUE", f"for instance {parts[0]}:{parts[1]}"
            )
        arguments[PREFIX + key.replace("-", "_")] = value
    return ":".join(parts[:2]), arguments


def names_code(text: str) -> bool:
    """Whether a list of attacks, as --attacks takes it, names any of the user's."""
    return any(is_custom(entry) for entry in text.split(","))


def short_name(attack: str) -> str:
    """The name without the folder of its file: `my.py:attack`."""
    source, _, attribute = attack.partition(":")
    return f"{source.rsplit('/', 1)[-1]}:{attribute}" if is_custom(attack) and is_file(source) else attack


def load(attack: str) -> type[CustomSettings]:
    """The settings of an attack by its name; its module is imported, which runs code. Raises CaaError."""
    source, _, attribute = attack.partition(":")
    if not source or not attribute:
        raise UsageError(f"--attack {attack!r} is not of the form package.module:name or file.py:name", _FORM)
    code = _registered.get(attack) or find_callable(f"--attack {attack}", attack, _FORM, files=True)
    _known[attack] = _settings(attack, code)
    return _known[attack]


def named(attack: str | Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """(name, arguments) of an attack as it is given: a text, see `split`, or a callable, which is registered."""
    return split(register(attack) if callable(attack) else attack)


def register(attack: Callable[..., Any]) -> str:
    """A name for a callable, under which `load` finds it until another of that name is registered."""
    owner = attack if hasattr(attack, "__qualname__") else type(attack)
    name = f"{owner.__module__}:{owner.__qualname__}"
    _registered[name] = attack
    return name


def known(attack: str) -> type[CustomSettings]:
    """The settings of an attack as it was last loaded or registered, so that a run has one and the same code."""
    return _known[attack] if attack in _known else load(attack)


def checked(attack: str, declared: Mapping[str, Setting], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments among given values, texts converted to their types. Raises UsageError for an unknown one."""
    values = {name: value for name, value in given.items() if name.startswith(PREFIX) and value is not None}
    for name in values.keys() - declared.keys():
        has = ", ".join(known.removeprefix(PREFIX) for known in declared) or "none"
        raise UsageError(f"--attack {attack} has no argument {name.removeprefix(PREFIX)!r}", f"it has: {has}")
    return {name: _typed(attack, declared[name], value) for name, value in values.items()}


def check_ranges(attack: str, settings: Settings) -> None:
    """As `check_each`, but messages name arguments as users write them."""
    with as_written(attack):
        check_each(settings, PREFIX)


@contextmanager
def as_written(attack: str) -> Iterator[None]:
    """A context whose errors name arguments of the user's code as they are written, `my.py:attack:steps`: there are
    no flags of them."""
    try:
        yield
    except UsageError as error:
        texts = [text.replace(flag(PREFIX), f"{attack}:") for text in (error.problem, error.hint or "")]
        raise UsageError(*texts) from None


def _typed(attack: str, setting: Setting, value: Any) -> Any:
    """The value of an argument; a text is converted to the parameter's type. Raises UsageError."""
    kind: Any = setting.kind
    try:
        if isinstance(value, str):
            value = _literal(value) if kind in (Any, bool) else kind(value)
        if (kind is bool and not isinstance(value, bool)) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(value)
    except ValueError as error:
        name = {bool: "true or false", int: "a whole number"}.get(kind, "a number")
        raise UsageError(
            f"--attack {attack}: {setting.name}={value} is not {name}", f"its default is {setting.default}"
        ) from error
    return value


def _literal(text: str) -> Any:
    """True of `true`, 3 of `3`, None of `None`; what is no literal is a text."""
    try:
        value = ast.literal_eval(text.capitalize() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if isinstance(value, (*_SCALARS, NoneType)) else text


_FORM = f"name a function {_CALLED_WITH} that returns adversarial images, a factory of one, or a subclass of Attack"


def _settings(name: str, code: Callable[..., Any]) -> type[CustomSettings]:
    """The dataclass of an attack's settings, one and the same for the same code. Raises UsageError for no attack."""
    before = _known.get(name)
    if before is not None and before.origin_of_attack.code is code:
        return before

    def made(kind: str, bases: tuple[type, ...], fields: Sequence[Any] = ()) -> type[CustomSettings]:
        origin = Origin(name, code, kind, *file_and_digest(code))
        namespace = {"origin_of_attack": origin}
        return make_dataclass("Arguments", fields, bases=bases, namespace=namespace, frozen=True, kw_only=True)

    if isinstance(code, type) and all(hasattr(code, part) for part in ("of", "start", "step")):
        declared = next((b for b in code.__mro__ if issubclass(b, Settings) and not hasattr(b, "step")), Settings)
        return made(CLASS, (CustomSettings,) if declared is Settings else (declared, CustomSettings))
    signature = _signature(name, code)
    parameters = list(signature.parameters.values())
    needed = [p for p in parameters if p.default is p.empty and p.name not in OF_THE_RUN and p.kind not in _VARIABLE]
    positional = [p for p in needed if p.kind is not p.KEYWORD_ONLY]
    if len(needed) not in (0, 4) or len(positional) != len(needed) or positional != parameters[: len(positional)]:
        raise UsageError(f"--attack {name}: {name.partition(':')[2]}{signature} is not called as an attack is", _FORM)
    fields = [
        (PREFIX + p.name, Annotated[_kind(p), Called(p.name)], field(default=p.default))
        for p in parameters
        if p.default is not p.empty and p.name not in OF_THE_RUN and isinstance(p.default, (*_SCALARS, NoneType))
    ]
    return made(FUNCTION if needed else FACTORY, (CustomSettings,), fields)


_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _signature(name: str, code: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(code, eval_str=True)
    except NameError:  # annotations for type checkers alone
        return inspect.signature(code)
    except (TypeError, ValueError) as error:  # a builtin
        raise UsageError(f"--attack {name}: its parameters are not known ({error})", _FORM) from error


def _kind(parameter: inspect.Parameter) -> Any:
    """The type of a parameter's values but None: as annotated, or that of its default; Any where neither says."""
    annotation = parameter.annotation
    if hasattr(annotation, "__metadata__"):
        return annotation  # with checks, as a declared setting
    kinds = {kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType}
    if len(kinds) == 1 and kinds <= set(_SCALARS):
        return kinds.pop()
    return Any if parameter.default is None else type(parameter.default)


def arguments(settings: CustomSettings, run: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of the callable: its settings, and those of the run that it has parameters for."""
    wanted = inspect.signature(settings.origin_of_attack.code).parameters
    given = {name.removeprefix(PREFIX): value for name, value in vars(settings).items()}
    return {**{key: value for key, value in run.items() if key in wanted}, **given}
