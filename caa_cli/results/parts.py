"""The result files of `caa attack`, read back and checked one by one."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caa_cli.compare_plan import OWN, SHARED, default_of, own_settings
from caa_cli.errors import CaaError, UsageError
from caa_cli.plan import AttackPlan
from caa_cli.results.records import (
    ABSTAINED,
    ATTACKED,
    ELIGIBLE,
    FAILED,
    MISCLASSIFIED,
    SCHEMA_VERSION,
    AttackRecord,
)

_MAY_LACK = ("certified_radius", "radius", "expectation", "seconds")
_NUMBERS = (*_MAY_LACK, "forward_evaluations", "backward_evaluations")
_AS = {"attack_sigma": "sigma", "selection_samples": "samples"}
_OUTCOMES = {*ELIGIBLE, MISCLASSIFIED, ABSTAINED, FAILED}


@dataclass(frozen=True)
class Part:
    """One result file: one attack with its settings, on one shard or selection of the images."""

    path: Path
    status: str
    fingerprint: str
    config: dict[str, Any]
    checkpoint: dict[str, Any]
    environment: dict[str, Any]
    images: dict[str, Any]
    shard: tuple[int, int]
    seconds: float
    records: tuple[AttackRecord, ...]

    @property
    def attack(self) -> str:
        return str(self.config["attack"])

    def setting(self, name: str) -> Any:
        """As the run had it; a file from before there was such a setting has its default."""
        found = self.config.get(name)
        return self.default(name) if found is None else found

    def default(self, name: str) -> Any:
        """Of a setting; some are as another one is."""
        return self.setting(_AS[name]) if name in _AS else default_of(self.attack, name)

    @property
    def own(self) -> dict[str, Any]:
        """The settings of the attack itself; those that this version does not know too."""
        unknown = self.config.keys() - {*OWN, *SHARED, *AttackPlan.NOT_COMPARED, "attack"}
        return {name: self.setting(name) for name in (*own_settings(self.attack), *sorted(unknown))}

    @property
    def selection(self) -> tuple[object, ...]:
        """Which images the shards are shards of."""
        chosen = [self.config.get(name) for name in ("skip", "every", "limit", "indices_file")]
        return (*chosen, self.shard[1])


def read_part(path: Path) -> Part:
    """Raises CaaError for a file that is missing, empty, cut off, damaged, or of another kind or schema version."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CaaError(f"{path} can't be read ({error.strerror})", "name result files of caa attack") from error
    except UnicodeDecodeError as error:
        raise CaaError(f"{path} is no result of caa attack: it is no text", "name its --output") from error
    if not text.strip():
        raise CaaError(f"{path} is empty", _AGAIN)
    if path.suffix == ".jsonl":
        raise UsageError(
            f"{path} is the record of a run, not its result",
            "finish that run with caa attack … --resume, and name its --output",
        )
    try:
        document = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise CaaError(f"{path} is no JSON, or it was cut off ({error})", _AGAIN) from error
    return part_of(path, document)


_AGAIN = "repeat the caa attack that wrote it with --resume: what it finished is kept beside it"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not allowed")


def part_of(path: Path, document: Any) -> Part:
    """The document of an attack run, checked. Raises CaaError."""
    if not isinstance(document, dict) or "schema_version" not in document:
        raise CaaError(f"{path} is no result of caa attack", "name the file that its --output wrote")
    if document["schema_version"] != SCHEMA_VERSION:
        raise CaaError(
            f"{path} was written in schema {document['schema_version']}, this is {SCHEMA_VERSION}",
            f"it was made by caa {document.get('tool_version', 'of another version')}: read it with that",
        )
    if document.get("command") != "attack":
        hint = "name the files of caa attack"
        if document.get("command") == "compare":
            found = [file for attack in document.get("attacks", {}).values() for file in attack.get("files", [])]
            hint = f"name the files that it compares: {' '.join(found)}"
        raise UsageError(f"{path} is a result of caa {document.get('command')}, not of an attack", hint)
    try:
        records = tuple(_record(entry) for entry in document["examples"])
        part = Part(
            path,
            str(document["status"]),
            str(document.get("fingerprint")),
            dict(document["config"]),
            dict(document["checkpoint"]),
            dict(document.get("environment", {})),
            dict(document.get("images", {})),
            (int(document["shard"]["index"]), int(document["shard"]["count"])),
            float(document["summary"]["seconds"]),
            records,
        )
        seen: set[int] = set()
        for record in records:
            if record.index in seen:
                raise ValueError(f"image {record.index} is in it twice")
            seen.add(record.index)
        _ = part.attack, part.checkpoint["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        what = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise CaaError(f"{path} is damaged ({what})", _AGAIN) from error
    return part


def _record(entry: Any) -> AttackRecord:
    """Raises ValueError or TypeError for what can't be one."""
    if not isinstance(entry, dict):
        raise TypeError("an example is no object")
    record = AttackRecord.from_json(entry)
    if type(record.index) is not int or record.outcome not in _OUTCOMES:
        raise ValueError(f"an example has index {record.index!r} and outcome {record.outcome!r}")
    for name in _NUMBERS:
        value = getattr(record, name)
        if value is None and name in _MAY_LACK:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{name} of image {record.index} is {value!r}")
    if record.eligible and record.certified_radius is None:
        raise ValueError(f"image {record.index} has no certified radius")
    if record.outcome == ATTACKED and record.radius is None:
        raise ValueError(f"image {record.index} was attacked at no radius")
    return record
