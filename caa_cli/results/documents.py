"""The schema of the results and journals of `caa attack` and `caa certify`, and the checks when they are read.

Fields that are not declared here are kept, so that files of other minor versions can be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from caa_cli import __version__
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attack_settings import declared
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.config.choices import INTERPOLATIONS, SPLITS
from caa_cli.config.ranges import Range
from caa_cli.config.schema import (
    Natural,
    PositiveFloat,
    PositiveInt,
    SchemaError,
    Seconds,
    Validator,
    check,
    hints,
    object_of,
    shown,
)
from caa_cli.errors import CaaError
from caa_cli.results.certificates import CertifyRecord
from caa_cli.results.records import SCHEMA_VERSION, AttackRecord, Record
from caa_cli.results.store.files import read_object
from caa_cli.runtime.words import counted

KINDS: dict[str, type[Record]] = {"attack": AttackRecord, "certify": CertifyRecord}
# Limits up to which reading a result can afford to enumerate images and shards.
_MOST_IMAGES, _MOST_SHARDS = 10**12, 10**5


class ShardOf(TypedDict):
    index: Natural
    count: Annotated[int, Range(1, _MOST_SHARDS)]


class File(TypedDict):
    sha256: str
    path: NotRequired[str | None]
    arch: NotRequired[str | None]


class DenoiserFile(File):
    """expected_sigma: the noise that it was trained for and is used with, where that is not exactly σ."""

    expected_sigma: NotRequired[float]


class Member(File):
    dataset: NotRequired[str | None]
    sigma: NotRequired[float | None]


class Checkpoint(Member):
    """members: the further checkpoints of an ensemble.  denoiser: the one in front."""

    ensemble: NotRequired[str | None]
    members: NotRequired[list[Member]]
    denoiser: NotRequired[DenoiserFile]


class Images(TypedDict, total=False):
    """The data set. count: images in the whole split.  files_sha256: None where the data set is no tree of files."""

    count: Annotated[int, Range(0, _MOST_IMAGES)] | None
    files_sha256: str | None


class MergedShard(TypedDict, total=False):
    file: str
    shard: ShardOf
    status: str | None
    resume: str | None


class Header(TypedDict):
    """The first line of a journal, and the fields that a result shares with it. config: see `_SETTINGS`."""

    schema_version: int
    command: Literal["attack", "certify"]
    config: dict[str, Any]
    checkpoint: Checkpoint
    surrogate_model: NotRequired[Checkpoint | None]
    fingerprint: NotRequired[str | None]
    environment: NotRequired[dict[str, Any]]
    images: NotRequired[Images]
    shard: NotRequired[ShardOf]
    resume: NotRequired[str | None]
    tool_version: NotRequired[str]
    created: NotRequired[str]


class Summary(TypedDict):
    """The part of a summary that is read; the rest follows from the examples."""

    seconds: Seconds


class Document(Header):
    """A result. examples: checked one by one by `read_record`.  class_names: by class, of those in the examples."""

    status: Literal["complete", "partial", "interrupted"]
    summary: Summary
    examples: list[object]
    class_names: NotRequired[dict[str, str]]
    merged: NotRequired[list[MergedShard]]
    gaps: NotRequired[list[str]]


class ComparedAttack(TypedDict):
    files: list[str]


class ComparedModel(TypedDict, total=False):
    files: list[str]


class Compared(TypedDict):
    """The part of a result of `caa compare` that is read: the files that it compares.

    models: of several models alone; certificates have no attacks, and the files are there.
    """

    attacks: dict[str, ComparedAttack]
    models: NotRequired[dict[str, ComparedModel]]


# Settings have the types that the plan declares. For these, reading a result also relies on the range.
_SETTINGS: dict[str, Any] = {
    "sigma": PositiveFloat,
    "samples": PositiveInt,
    "skip": Natural,
    "every": PositiveInt,
    "limit": PositiveInt | None,
    "split": Literal[SPLITS],
    **dict.fromkeys(("image_size", "image_resize"), Annotated[int, Range(1, 10_000)] | None),
    "interpolation": Literal[INTERPOLATIONS] | None,
    # Null in files of runs that left them open.
    **dict.fromkeys(("selection_samples", "certify_samples", "verify_samples"), int | None),
    "radius": PositiveFloat | None,
}


@cache
def _settings(command: str) -> Validator:
    """A validator of `config` by types alone: the version that wrote the file may have had other ranges."""
    if command == "attack":
        of_attacks = {name: setting.kind | None for attack in ATTACKS for name, setting in declared(attack).items()}
        return object_of({**_types(AttackPlan), **of_attacks, **_SETTINGS}, frozenset({"attack", "sigma"}))
    return object_of({**_types(CertifyPlan), **_SETTINGS}, frozenset({"samples"}))


def _types(plan: type) -> dict[str, Any]:
    return {name: kind for name, kind in hints(plan, ranges=False).items() if name != "settings"}


def head(command: str, status: str | None = None) -> dict[str, Any]:
    """The first fields of every document that is written now. status: of a result, which has its date too."""
    created = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "status": status}
    of_result = created if status is not None else {}
    return {"schema_version": SCHEMA_VERSION, "tool_version": __version__, **of_result, "command": command}


def agreed(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries of the first document that all of them have with one value."""
    first, *others = documents
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def check_header(header: Any, kind: Any = Header) -> None:
    """Raises SchemaError unless this is the header of a run (kind: Header or Document)."""
    check(header, kind)
    try:
        _settings(header["command"])(header["config"])
    except SchemaError as error:
        raise error.within("config") from None
    index, count = shard_of(header)
    if index >= count:
        raise SchemaError(f"{index} of {count}", "there is no shard")


def shard_of(header: Mapping[str, Any]) -> tuple[int, int]:
    """(index, count) of the shard that a run was; one of one where the header does not say it."""
    shard = header.get("shard") or {"index": 0, "count": 1}
    return shard["index"], shard["count"]


def check_version(path: Path, header: Mapping[str, Any]) -> None:
    """Raises CaaError for a file of another schema version."""
    version = header.get("schema_version")
    if isinstance(version, int) and version != SCHEMA_VERSION:
        raise CaaError(
            f"{path} was written in schema {shown(version)}, this is {SCHEMA_VERSION}",
            f"use the version of caa that wrote it: {shown(header.get('tool_version', 'another'))}",
        )


def read_record(value: Any, header: Mapping[str, Any]) -> Record:
    """Check and convert one example of a run; `header` is checked already. Raises SchemaError, naming the image."""
    try:
        record = KINDS[header["command"]].from_json(value)
        count = header.get("images", {}).get("count")
        if count is not None and record.index >= count:
            raise SchemaError(f"is {record.index}, and the data set has {counted(count, 'image')}", "index")
    except SchemaError as error:
        index = value.get("index") if isinstance(value, dict) else None
        raise (error.within(f"image {shown(index)}:") if type(index) is int else error) from None
    return record


def document_at(path: Path) -> dict[str, Any]:
    """Read the result at `path` without checking its examples; empty where it is missing or damaged.

    For a comparison only what `Compared` declares is checked.
    """
    document = read_object(path)
    try:
        if document.get("command") == "compare":
            check(document, Compared)
        else:
            check_header(document, Document)
    except SchemaError:
        return {}
    return document
