"""Validation of JSON from files that may be damaged or foreign: type annotations are the schema.

Dataclasses and TypedDicts stand for objects (with any JSON in further fields), `Annotated[float, Range(0)]` for a
number at least 0, Path and str for texts, tuples and lists for lists, `X | None` for a value that may be null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NotRequired, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

from caa_cli.config.ranges import Range

# Sums and products of numbers of this size stay finite, so that they can be written as JSON.
LARGEST, SMALLEST = 1e100, 1e-100
DEEPEST = 32

Natural = Annotated[int, Range(0)]
PositiveInt = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, 1)]
PositiveFloat = Annotated[float, Range(0, above=True)]
Length = Annotated[float, Range(0)]
Seconds = Annotated[float, Range(0, 1e12)]


class SchemaError(ValueError):
    """A violation of the schema. place: the path of the value, `examples[0].radius`.  problem: what it is."""

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(f"{place} {problem}".lstrip())
        self.problem, self.place = problem, place

    def within(self, holder: str) -> SchemaError:
        """The same error with the place prefixed by the object or list that holds it."""
        between = " " if holder.endswith(":") else "" if self.place.startswith("[") or not self.place else "."
        return SchemaError(self.problem, f"{holder}{between}{self.place}")


Validator = Callable[[Any], None]
T = TypeVar("T")


def parse(text: str) -> Any:
    """Parse strict JSON, without NaN or Infinity. Raises SchemaError."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise SchemaError("is nested too deeply", "it") from error
    except SchemaError:
        raise
    except ValueError as error:
        raise SchemaError(f"is no JSON, or it was cut off ({error})", "it") from error


def _refuse(constant: str) -> None:
    raise SchemaError(f"{constant} is not allowed")


def check(value: Any, kind: Any) -> None:
    """Raises SchemaError, which names the place, unless the value has this type."""
    _checker(kind)(value)


def dataclass_from(document: Any, kind: type[T]) -> T:
    """The dataclass whose fields an object has; further fields are ignored. Raises SchemaError."""
    check(document, kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in document.items() if name in known})


def object_of(kinds: Mapping[str, Any], required: frozenset[str] = frozenset(), rest: Any = Any) -> Validator:
    """A validator of objects with fields of these types; further fields have the type `rest`."""
    check_other = _checker(rest)
    checks = {name: _checker(kind) for name, kind in kinds.items()}

    def check_object(value: Any) -> None:
        if not isinstance(value, dict):
            raise SchemaError(f"is {shown(value)}, not an object")
        for name in required:
            if name not in value:
                raise SchemaError("is missing", name)
        for name, held in value.items():
            try:
                checks.get(name, check_other)(held)
            except SchemaError as error:
                raise error.within(name if len(name) <= 40 else f"{name[:30]}…") from None

    return check_object


@cache
def _checker(kind: Any) -> Validator:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is NotRequired:
        return _checker(arguments[0])
    if origin is Annotated:
        return _number(arguments[0], arguments[1])
    if NoneType in arguments:
        (other,) = (argument for argument in arguments if argument is not NoneType)
        check_other = _checker(other)
        return lambda value: None if value is None else check_other(value)
    if origin is Literal:
        return _scalar(lambda value: isinstance(value, str) and value in arguments, f"one of {', '.join(arguments)}")
    if origin in (list, tuple):
        return _list(_checker(arguments[0]))
    if origin is dict:
        return object_of({}, rest=arguments[1])
    if is_dataclass(kind):
        mandatory = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
        return object_of(hints(kind), frozenset(mandatory))
    if is_typeddict(kind):
        kinds = get_type_hints(kind, include_extras=True)
        required = {name for name, held in kinds.items() if kind.__total__ and get_origin(held) is not NotRequired}
        return object_of(kinds, frozenset(required))
    return _SIMPLE[kind]


def hints(kind: Any, ranges: bool = True) -> dict[str, Any]:
    """The types of a dataclass's fields, by name, with or without the ranges that it declares."""
    types = get_type_hints(kind, include_extras=ranges)
    return {f.name: types[f.name] for f in fields(kind)}


def _scalar(fits: Callable[[Any], bool], expected: str) -> Validator:
    def check_scalar(value: Any) -> None:
        if not fits(value):
            raise SchemaError(f"is {shown(value)}, not {expected}")

    return check_scalar


def _number(kind: type, bounds: Range) -> Validator:
    """A validator of numbers in a range. bool is not accepted as int, nor NaN, which fails any comparison."""
    kinds = (int,) if kind is int else (int, float)
    most = 2**63 - 1 if kind is int else LARGEST
    what = "whole number" if kind is int else "number"
    return _scalar(lambda value: type(value) in kinds and value in bounds and value <= most, f"a {what} {bounds}")


def _list(check_entry: Validator) -> Validator:
    def check_list(value: Any) -> None:
        if not isinstance(value, list):
            raise SchemaError(f"is {shown(value)}, not a list")
        for position, entry in enumerate(value):
            try:
                check_entry(entry)
            except SchemaError as error:
                raise error.within(f"[{position}]") from None

    return check_list


def _plain(value: Any, depth: int = 0) -> None:
    """Validate any JSON that can be written again: numbers of a limited size, nested to a limited depth."""
    if depth > DEEPEST:
        raise SchemaError("is nested too deeply")
    if isinstance(value, (dict, list)):
        for entry in value.values() if isinstance(value, dict) else value:
            _plain(entry, depth + 1)
    elif isinstance(value, (int, float)) and not -LARGEST <= value <= LARGEST:
        raise SchemaError(f"is {shown(value)}, which is too large")


def shown(value: Any) -> str:
    """A short text for any JSON value, for messages."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value) if isinstance(value, (str, bool, NoneType)) else str(value)
    return text if len(text) <= 40 else f"{text[:30]}…"


_SIMPLE: dict[Any, Validator] = {
    Any: _plain,
    object: lambda value: None,  # checked elsewhere
    int: _scalar(lambda value: type(value) is int and -(2**63) <= value < 2**63, "a whole number"),
    float: _scalar(lambda value: type(value) in (int, float) and -LARGEST <= value <= LARGEST, "a number"),
    bool: _scalar(lambda value: isinstance(value, bool), "true or false"),
    str: _scalar(lambda value: isinstance(value, str), "a text"),
    Path: _scalar(lambda value: isinstance(value, str) and "\0" not in value, "the name of a file"),
}
