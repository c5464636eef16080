"""The numbers of a result by their names in its document, as `--require` refers to them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from sys import float_info
from typing import Any

from caa_cli.config.ranges import did_you_mean
from caa_cli.errors import UsageError
from caa_cli.results.certificates import CertifyRecord, CertifySummary, certified_share, summarise_certificates
from caa_cli.results.comparison import Comparison, attack_summary
from caa_cli.results.comparison_of_models import ModelsComparison
from caa_cli.results.metrics import figures
from caa_cli.results.records import (
    ABSTAINED,
    ELIGIBLE,
    FAILED,
    LABEL_IS_TARGET,
    MISCLASSIFIED,
    AttackSummary,
    summarise,
)

# float() also accepts 1_000 and digits of other scripts, which nobody means to type here.
NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_AT_RADIUS = re.compile(rf"(.*)certified_accuracy@({NUMBER})", re.DOTALL)
_OUTCOMES = (*ELIGIBLE, MISCLASSIFIED, ABSTAINED, FAILED, LABEL_IS_TARGET)
# Fields that a run with --radius does not have.
_NEEDS_RADII = ("average_certified_radius", "average_certified_radius_error", "median_radius")


@dataclass(frozen=True)
class Fields:
    """The fields of one result.

    command: that wrote the result.  values: by name, None where there is no value.  listing: the names, in words.
    is_empty: whether the result is about no image at all; `reason` says why.  certified: the records of which the
    certified accuracy at any radius is a field, by what comes before its name.  radius: that of --radius, if it was
    given: the only one then.
    """

    command: str
    values: Mapping[str, float | None]
    listing: str
    is_empty: bool
    reason: str = "no image is eligible"
    certified: Mapping[str, Sequence[CertifyRecord]] = field(default_factory=dict)
    radius: float | None = None

    def check(self, name: str) -> None:
        """Raises UsageError, which suggests the nearest name, for an unknown field."""
        if name not in self.values and self._at_radius(name) is None:
            radius = "RADIUS" if self.radius is None else self.radius
            names = [*self.values, *(f"{before}certified_accuracy@{radius}" for before in self.certified)]
            hint = f"{did_you_mean(name, names)}its fields: {self.listing}"
            raise UsageError(f"--require: {self.command} has no field {name!r}", hint)

    def value(self, name: str) -> float | None:
        """The value of a field; None where it has none."""
        if (at := self._at_radius(name)) is None:
            return self.values.get(name)
        records, radius = at
        finished = [record for record in records if record.outcome != FAILED]
        return certified_share(finished, radius) if finished else None

    def _at_radius(self, name: str) -> tuple[Sequence[CertifyRecord], float] | None:
        """The records and the radius of a certified accuracy; None for a name of no such field."""
        match = _AT_RADIUS.fullmatch(name)
        if match is None or match[1] not in self.certified:
            return None
        radius = float(match[2])
        return (self.certified[match[1]], radius) if math.isfinite(radius) and self.radius in (None, radius) else None


def attack_fields(summary: AttackSummary | None = None) -> Fields:
    """The fields of a result of `caa attack`; without a summary only their names are meaningful."""
    values = _flat((summary or summarise((), 0.0)).to_json())
    return Fields("caa attack", values, ", ".join(values), not values["eligible"])


def certify_fields(
    summary: CertifySummary | None = None, records: Sequence[CertifyRecord] = (), radius: float | None = None
) -> Fields:
    """The fields of a result of `caa certify`. radius: that of --radius, if it was given."""
    summary = summary or summarise_certificates((), 0, 0.0)
    values = {name: value for name, value in summary.to_json().items() if not isinstance(value, dict)}
    command, at = "caa certify", "RADIUS"
    if radius is not None:
        values = {name: value for name, value in values.items() if name not in _NEEDS_RADII}
        command, at = f"caa certify --radius {radius}", str(radius)
    listing = ", ".join([*values, f"certified_accuracy@{at}"])
    is_empty = summary.examples == summary.failed
    return Fields(command, values, listing, is_empty, "no image was read", {"": records}, radius)


def fields_of_comparison(document: Mapping[str, Any]) -> Fields:
    """The fields of a document of `caa compare`, of whatever kind.

    Raises KeyError, ValueError, TypeError or AttributeError where it is damaged.
    """
    attacks = document["attacks"].keys()
    return _of_models(document) if not attacks and document.get("models") else compare_fields(attacks, document)


def _of_models(document: Mapping[str, Any]) -> Fields:
    """The fields of the certificates of several models: LABEL.FIELD."""
    radius = document["config"].get("radius")
    values: dict[str, float | None] = {name: document["summary"][name] for name in ("models", "examples")}
    certified, listing = dict[str, Sequence[CertifyRecord]](), ""
    for label, entry in document["models"].items():
        records = [CertifyRecord.from_json(example) for example in entry["examples"]]
        one = certify_fields(
            summarise_certificates(records, entry["samples"], entry["seconds"], radius), records, radius
        )
        values |= {f"{label}.{name}": value for name, value in one.values.items()}
        certified[f"{label}."], listing = records, one.listing
    labels = ", ".join(document["models"])
    listing = f"models, examples; and LABEL.FIELD, LABEL one of {labels}, FIELD one of {listing}"
    return Fields("caa compare", values, listing, not values["examples"], certified=certified, radius=radius)


def compare_fields(labels: Collection[str], document: Mapping[str, Any] | None = None) -> Fields:
    """The fields of attacks: those of the shared summary, LABEL.FIELD for each attack, MODEL.FIELD for each model.

    Without a document only their names are meaningful. Raises ValueError, TypeError or AttributeError where it is
    damaged.
    """
    document = document or {}
    summary, attacks, models = (document.get(name, {}) for name in ("summary", "attacks", "models"))
    of_model = Comparison((), (), (), (), False).summary
    shared = ModelsComparison({}).summary if models else of_model
    of_attack = _flat(attack_summary([], figures([{}], [])[0], 0.0))
    del of_attack["examples"]  # in the document this is the list of examples
    values: dict[str, float | None] = {}
    for label in labels:
        entry = _flat(attacks.get(label, {}))
        values |= {f"{label}.{name}": _number(entry.get(name), f"{label}.{name}") for name in of_attack}
    for model, entry in models.items():
        values |= {f"{model}.{name}": _number(entry["summary"].get(name), f"{model}.{name}") for name in of_model}
    values |= {name: _number(summary.get(name), name) for name in shared}
    listing = (
        f"{', '.join(shared)}; LABEL.FIELD, LABEL one of {', '.join(labels)}, FIELD one of {', '.join(of_attack)}"
    )
    if models:
        listing += f"; MODEL.FIELD, MODEL one of {', '.join(models)}, FIELD one of {', '.join(of_model)}"
    return Fields("caa compare", values, listing, not values["eligible"])


def _flat(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of an attack's summary, with one `outcomes.NAME` for each outcome, 0 where it did not occur."""
    outcomes = summary.get("outcomes") or {}
    numbers = {name: value for name, value in summary.items() if name != "outcomes"}
    return {**numbers, **{f"outcomes.{name}": outcomes.get(name, 0) for name in _OUTCOMES}}


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= float_info.max:
        raise ValueError(f"{name} is no number")
    return value
