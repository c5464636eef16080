"""Result files put together: shards to attacks, and attacks that may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caa_cli.compare_plan import SHARED, default_of, label_of
from caa_cli.errors import UsageError
from caa_cli.results.parts import Part
from caa_cli.results.records import AttackRecord


@dataclass(frozen=True)
class AttackResult:
    """One attack with its settings on all its images, by index."""

    label: str
    parts: tuple[Part, ...]
    records: dict[int, AttackRecord]

    @property
    def attack(self) -> str:
        return self.parts[0].attack

    @property
    def interrupted(self) -> bool:
        return any(part.status == "interrupted" for part in self.parts)


def join(parts: Sequence[Part]) -> list[AttackResult]:
    """The attacks that these files hold, in the order of their first files.

    Raises UsageError for files that can't be put together, and says what differs.
    """
    check_agreement(parts)
    groups: list[list[Part]] = []
    for part in parts:
        group = next((g for g in groups if (g[0].attack, g[0].own) == (part.attack, part.own)), None)
        if group is None:
            groups.append(group := [])
        group.append(part)
    return [
        AttackResult(label, tuple(group), _union(group))
        for label, group in zip(labels([group[0] for group in groups]), groups, strict=True)
    ]


def check_agreement(parts: Sequence[Part]) -> None:
    """One checkpoint, one data set, and one set of everything that is not an attack's own."""
    first = parts[0]
    for part in parts[1:]:
        both = f"{first.path} and {part.path}"
        ours, theirs = first.checkpoint["sha256"], part.checkpoint["sha256"]
        if ours != theirs:
            raise UsageError(
                f"{both} attack different checkpoints (sha256 {str(ours)[:12]} and {str(theirs)[:12]})",
                "compare attacks on one model",
            )
        differing = [
            f"{name} ({first.setting(name)} and {part.setting(name)})"
            for name in SHARED
            if first.setting(name) != part.setting(name)
        ]
        if differing:
            raise UsageError(
                f"{both} were made with different settings: {', '.join(differing)}",
                "only settings of an attack itself may differ; repeat one of them with the settings of the other",
            )
        if first.images != part.images:
            raise UsageError(
                f"{both} are over different data: {_said(first)} and {_said(part)}", "compare attacks on one data set"
            )


def _said(part: Part) -> str:
    digest = part.images.get("files_sha256")
    return f"{part.images.get('count')} images" + (f" (files {digest[:12]})" if digest else "")


def labels(firsts: Sequence[Part]) -> list[str]:
    """The attack's name; and where it comes more than once, those of its differing settings that are no default."""
    found = []
    for part in firsts:
        alike = [other for other in firsts if other.attack == part.attack]
        differing = [name for name in part.own if any(other.own.get(name) != part.own[name] for other in alike)]
        shown = {n: part.own[n] for n in differing if part.own[n] != default_of(part.attack, n)}
        found.append(label_of(part.attack, shown))
    return found


def _union(parts: Sequence[Part]) -> dict[int, AttackRecord]:
    """The records of one attack's files. Raises UsageError where two hold the same image, or a shard is missing."""
    holder: dict[int, Part] = {}
    records: dict[int, AttackRecord] = {}
    for part in parts:
        for record in part.records:
            other = holder.setdefault(record.index, part)
            if other is not part:
                raise UsageError(
                    f"{other.path} and {part.path} overlap: both hold image {record.index} of the same attack",
                    "name each shard once",
                )
            records[record.index] = record
    for selection in dict.fromkeys(part.selection for part in parts):
        alike = [part for part in parts if part.selection == selection]
        given = {part.shard[0] for part in alike}
        count = alike[0].shard[1]
        missing = [str(index) for index in range(count) if index not in given]
        if missing:
            beside = ", ".join(str(part.path) for part in alike)
            raise UsageError(
                f"shard {', '.join(missing)} of {count} is missing beside {beside}",
                "name the files of all shards (with the same --limit, --skip and --every)",
            )
    return records
