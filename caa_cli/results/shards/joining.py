"""Result files joined: shards to attacks, and attacks that may be compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from caa_cli.config.compare_plan import SEARCH, SHARED, label_of
from caa_cli.config.plan import decisive
from caa_cli.config.ranges import flag
from caa_cli.errors import UsageError
from caa_cli.results.records import AttackRecord
from caa_cli.results.shards.result_file import R, ResultFile

# How many of the missing shards a message names.
MOST_NAMED = 20


@dataclass(frozen=True)
class AttackResult:
    """One attack with its settings on all its images, by index."""

    label: str
    parts: tuple[ResultFile[AttackRecord], ...]
    records: dict[int, AttackRecord]

    @property
    def attack(self) -> str:
        return self.parts[0].attack

    @property
    def interrupted(self) -> bool:
        """Whether it may lack images that others have: interrupted, or merged with gaps."""
        return any(part.status == "interrupted" or part.header.get("gaps") for part in self.parts)


def join(parts: Sequence[ResultFile[AttackRecord]]) -> list[AttackResult]:
    """The attacks that these files hold, in the order of their first files.

    Raises UsageError for files that can't be put together, and says what differs.
    """
    check_agreement(parts)
    groups: list[list[ResultFile[AttackRecord]]] = []
    for part in parts:
        group = next((g for g in groups if _same_attack(g[0], part)), None)
        if group is None:
            groups.append(group := [])
        group.append(part)
    return [
        AttackResult(label, tuple(group), union(group))
        for label, group in zip(labels([group[0] for group in groups]), groups, strict=True)
    ]


def _same_attack(one: ResultFile[AttackRecord], other: ResultFile[AttackRecord]) -> bool:
    return (one.attack, _decisive(one), one.surrogate) == (other.attack, _decisive(other), other.surrogate)


def _decisive(part: ResultFile[AttackRecord]) -> dict[str, Any]:
    return {name: decisive(name, value) for name, value in part.attack_settings.items()}


def check_agreement(parts: Sequence[ResultFile[Any]]) -> None:
    """Raise UsageError unless checkpoint, data set and all settings but an attack's own agree."""
    check_same(
        parts,
        {name: [part.setting(name) for part in parts] for name in SHARED},
        lambda names: f"only settings of the search may differ; repeat the second with {_flags(parts[0], names)}",
    )


def check_same(
    parts: Sequence[ResultFile[Any]], settings: dict[str, list[Any]], advice: Callable[[Sequence[str]], str]
) -> None:
    """Raises UsageError for files of different checkpoints, settings or data.

    settings: by name, a value a file. advice: what to do about those that differ, by their names.
    """
    first = parts[0]
    for position, part in enumerate(parts[1:], 1):
        both = f"{first.path} and {part.path}"
        ours, theirs = first.checkpoint["sha256"], part.checkpoint["sha256"]
        if ours != theirs:
            raise UsageError(
                f"{both} are of different checkpoints (sha256 {str(ours)[:12]} and {str(theirs)[:12]})",
                "put together results of one model",
            )
        differing = [name for name, values in settings.items() if values[0] != values[position]]
        if differing:
            listed = ", ".join(f"{name} ({settings[name][0]} and {settings[name][position]})" for name in differing)
            raise UsageError(f"{both} were made with different settings: {listed}", advice(differing))
        if first.images != part.images:
            raise UsageError(
                f"{both} are over different data: {_describe_data(first)} and {_describe_data(part)}",
                "put together results of one data set",
            )


def _flags(part: ResultFile[Any], names: Sequence[str]) -> str:
    values = {name: part.setting(name) for name in names}
    shown = {n: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else v for n, v in values.items()}
    return " ".join(f"{flag(name)} {value}" for name, value in shown.items())


def _describe_data(part: ResultFile[Any]) -> str:
    digest = part.images.get("files_sha256")
    return f"{part.images.get('count')} images" + (f" (files {digest[:12]})" if digest else "")


def labels(firsts: Sequence[ResultFile[Any]]) -> list[str]:
    """The attack's name, and those of its settings that are no default and differ: from the same attack's under
    another setting, or, of those that every attack has, from any other's."""
    found = []
    for part in firsts:
        alike = [other for other in firsts if other.attack == part.attack]
        shown = {}
        for name, value in part.attack_settings.items():
            others = firsts if name in SEARCH else alike
            if value != part.default(name) and any(other.attack_settings.get(name) != value for other in others):
                shown[name] = value
        found.append(label_of(part.attack, shown))
    return found


def union(parts: Sequence[ResultFile[R]], gaps: bool = False) -> dict[int, R]:
    """The records of one run's files. Raises UsageError where two hold the same image.

    Unless there may be `gaps`, it is also raised where a shard is missing; one that has no images need not be there.
    """
    holder: dict[int, ResultFile[R]] = {}
    records: dict[int, R] = {}
    for part in parts:
        for record in part.records:
            other = holder.setdefault(record.index, part)
            if other is not part:
                raise UsageError(
                    f"{other.path} and {part.path} overlap: both hold image {record.index} of the same run",
                    "name each shard once",
                )
            records[record.index] = record
    selections: dict[str, list[ResultFile[R]]] = {}
    for part in parts:
        selections.setdefault(json.dumps([part.selection, part.shard[1]], sort_keys=True), []).append(part)
    for alike in () if gaps else selections.values():
        absent = missing_shards(alike)
        if absent:
            shown = ", ".join(map(str, absent[:MOST_NAMED])) + (", …" if len(absent) > MOST_NAMED else "")
            raise UsageError(
                f"shard {shown} of {alike[0].shard[1]} is missing beside "
                f"{', '.join(str(part.path) for part in alike)}",
                "name the files of all shards (with the same --limit, --skip and --every)",
            )
    return records


def missing_shards(alike: Sequence[ResultFile[Any]]) -> list[int]:
    """The shards of one selection that have images, but no file among these."""
    given, first = {part.shard[0] for part in alike}, alike[0]
    return [
        index
        for index in range(first.shard[1])
        if index not in given and ((images := first.of_shard(index)) is None or len(images) > 0)
    ]
