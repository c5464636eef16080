"""The result files of `caa attack` and `caa certify`, read back and checked one by one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from caa_cli.compare_plan import SHARED, default_of, formerly, own_settings
from caa_cli.config.attacks import foreign
from caa_cli.errors import CaaError, UsageError
from caa_cli.plan import AttackPlan
from caa_cli.results.certificates import CERTIFIED, NOT_CERTIFIED, UNDECIDED, CertifyRecord
from caa_cli.results.records import (
    ABSTAINED,
    ATTACKED,
    ELIGIBLE,
    FAILED,
    MISCLASSIFIED,
    SCHEMA_VERSION,
    AttackRecord,
    Record,
)
from caa_cli.selection import default_limit, select

R = TypeVar("R", bound=Record)
KINDS: dict[str, type[Record]] = {"attack": AttackRecord, "certify": CertifyRecord}
_OUTCOMES = {
    "attack": {*ELIGIBLE, MISCLASSIFIED, ABSTAINED, FAILED},
    "certify": {CERTIFIED, NOT_CERTIFIED, UNDECIDED, ABSTAINED, FAILED},
}
_MAY_LACK = ("certified_radius", "radius", "expectation", "votes_top", "seconds")
_NUMBERS = (*_MAY_LACK, "forward_evaluations", "backward_evaluations", "samples", "evaluations")
_AS = {"attack_sigma": "sigma", "selection_samples": "samples"}


@dataclass(frozen=True)
class Part(Generic[R]):
    """One result file: a run with its settings, on one shard or selection of the images.

    said: the document without its examples.
    """

    path: Path
    said: dict[str, Any]
    status: str
    fingerprint: str
    config: dict[str, Any]
    checkpoint: dict[str, Any]
    environment: dict[str, Any]
    images: dict[str, Any]
    shard: tuple[int, int]
    seconds: float
    records: tuple[R, ...]

    @property
    def attack(self) -> str:
        return str(self.config["attack"])

    def setting(self, name: str) -> Any:
        """As the run had it; a file from before there was such a setting has its default, or what was done then."""
        if name not in self.config and (before := formerly(self.attack, name)) is not None:
            return before
        found = self.config.get(name)
        return self.default(name) if found is None else found

    def default(self, name: str) -> Any:
        """Of a setting; some are as another one is."""
        return self.setting(_AS[name]) if name in _AS else default_of(self.attack, name)

    @property
    def own(self) -> dict[str, Any]:
        """The settings of the attack itself; those that this version does not know too."""
        own = own_settings(self.attack)
        unknown = self.config.keys() - {*own, *foreign(self.attack), *SHARED, *AttackPlan.NOT_COMPARED, "attack"}
        return {name: self.setting(name) for name in (*own, *sorted(unknown))}

    @property
    def surrogate(self) -> str | None:
        """The digest of the checkpoint that gradients come from, where it is not the model's own."""
        found = self.said.get("surrogate_model")
        return str(found.get("sha256")) if isinstance(found, dict) else None

    @property
    def selection(self) -> dict[str, object]:
        """Which images the shards are shards of."""
        return {name: self.config.get(name) for name in ("skip", "every", "limit", "indices_file")}

    def of_shard(self, index: int) -> Sequence[int] | None:
        """The images that are another shard's of the same selection; None where only a file said which they are."""
        size, limit = self.images.get("count"), self.config.get("limit")
        if size is None or self.config.get("indices_file") is not None:
            return None
        limit = default_limit(limit, self.config.get("dataset"), None)
        chosen = select(size, self.config.get("skip", 0), self.config.get("every", 1), limit, None)
        return chosen[index :: self.shard[1]]

    @property
    def missing(self) -> list[int]:
        """Images of this shard that are not in it, as far as that can be known."""
        held = {record.index for record in self.records}
        return [index for index in self.of_shard(self.shard[0]) or () if index not in held]

    @property
    def unfinished(self) -> bool:
        return self.status == "interrupted" or bool(self.missing)


def read_part(path: Path, commands: Collection[str] = ("attack",)) -> Part[Any]:
    """Raises CaaError for a file that is missing, empty, cut off, damaged, or of another kind or schema version."""
    kinds = " or ".join(f"caa {command}" for command in commands)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CaaError(f"{path} can't be read ({error.strerror})", f"name result files of {kinds}") from error
    except UnicodeDecodeError as error:
        raise CaaError(f"{path} is no result of {kinds}: it is no text", "name its --output") from error
    if not text.strip():
        raise CaaError(f"{path} is empty", _AGAIN)
    if path.suffix == ".jsonl":
        raise UsageError(
            f"{path} is the record of a run, not its result",
            f"finish that run with {kinds} … --resume, and name its --output",
        )
    try:
        document = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise CaaError(f"{path} is no JSON, or it was cut off ({error})", _AGAIN) from error
    return part_of(path, document, commands)


_AGAIN = "repeat the command that wrote it with --resume: what it finished is kept beside it"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not allowed")


def part_of(path: Path, document: Any, commands: Collection[str] = ("attack",)) -> Part[Any]:
    """The document of a run of one of these commands, checked. Raises CaaError."""
    kinds = " or ".join(f"caa {command}" for command in commands)
    if not isinstance(document, dict) or "schema_version" not in document:
        raise CaaError(f"{path} is no result of {kinds}", "name the file that its --output wrote")
    if document["schema_version"] != SCHEMA_VERSION:
        raise CaaError(
            f"{path} was written in schema {document['schema_version']}, this is {SCHEMA_VERSION}",
            f"it was made by caa {document.get('tool_version', 'of another version')}: read it with that",
        )
    command = str(document.get("command"))
    if command not in commands:
        hint = f"name the files of {kinds}"
        if command == "compare":
            found = [file for attack in document.get("attacks", {}).values() for file in attack.get("files", [])]
            # Of all shards, where it is one: they differ in this mark alone.
            every = [re.sub(r"\.shard-\d+-of-(\d+)", r".shard-*-of-\1", file) for file in found]
            hint = f"name the files that it compares: {' '.join(dict.fromkeys(every))}"
            if "certify" in commands:  # caa merge
                hint = f"name one attack's files of all shards: {' or '.join(dict.fromkeys(every))}"
        raise UsageError(f"{path} is a result of caa {command}, not of {kinds}", hint)
    try:
        records = tuple(_record(entry, command) for entry in document["examples"])
        part = Part(
            path,
            {name: value for name, value in document.items() if name != "examples"},
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
        if not 0 <= part.shard[0] < part.shard[1]:
            raise ValueError(f"there is no shard {part.shard[0]} of {part.shard[1]}")
        _ = part.config["attack" if command == "attack" else "samples"], part.checkpoint["sha256"], part.of_shard(0)
    except (KeyError, TypeError, ValueError) as error:
        what = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise CaaError(f"{path} is damaged ({what})", _AGAIN) from error
    return part


def how_to_go_on(said: dict[str, Any]) -> str:
    """With an unfinished run, from its document: one that was merged is finished in its shards."""
    shards = said.get("merged")
    if not isinstance(shards, list):
        again = said.get("resume")
        return f"finish it with: {again}" if again else "finish that run with --resume"
    unfinished = [shard for shard in shards if shard.get("status") != "complete"]
    commands = [str(shard["resume"]) for shard in unfinished if shard.get("resume")]
    files = ", ".join(str(shard.get("file")) for shard in shards)
    how = f"finish its shards with: {'; '.join(commands)}" if commands else f"finish its shards ({files}, …)"
    return f"{how}, and merge them again"


def _record(entry: Any, command: str) -> Record:
    """Raises ValueError or TypeError for what can't be one."""
    if not isinstance(entry, dict):
        raise TypeError("an example is no object")
    record = KINDS[command].from_json(entry)
    if type(record.index) is not int or record.outcome not in _OUTCOMES[command]:
        raise ValueError(f"an example has index {record.index!r} and outcome {record.outcome!r}")
    for name in _NUMBERS:
        value = getattr(record, name, 0)
        if value is None and name in _MAY_LACK:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{name} of image {record.index} is {value!r}")
    if isinstance(record, AttackRecord) and record.eligible and record.certified_radius is None:
        raise ValueError(f"image {record.index} has no certified radius")
    if record.outcome == ATTACKED and getattr(record, "radius", None) is None:
        raise ValueError(f"image {record.index} was attacked at no radius")
    return record
