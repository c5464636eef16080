"""The names of classes, as a document holds them: by number, in JSON a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from caa_cli.results.records import Record

ClassNames = Mapping[str, str]
_FIELDS = ("label", "prediction", "adversarial_class", "target")


def names_of_classes(records: Iterable[Record], names: Sequence[str]) -> dict[str, str]:
    """The names of the classes that these records mention. names: of all classes, by number."""
    numbers = {getattr(record, field, None) for record in records for field in _FIELDS}
    mentioned = sorted(number for number in numbers if number is not None)
    return {str(number): names[number] for number in mentioned if number < len(names)}


def class_name(number: int | None, names: ClassNames) -> str:
    """The name of a class, or its number where it has no name."""
    return names.get(str(number), f"class {number}")
