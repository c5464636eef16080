"""Result files put together: shards to attacks, and attacks that may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caa_cli.checks import flag
from caa_cli.compare_plan import SEARCH, SHARED, label_of
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
        differing = [name for name in SHARED if first.setting(name) != part.setting(name)]
        if differing:
            said = ", ".join(f"{name} ({first.setting(name)} and {part.setting(name)})" for name in differing)
            raise UsageError(
                f"{both} were made with different settings: {said}",
                f"only settings of the search may differ; repeat the second with {_flags(first, differing)}",
            )
        if first.images != part.images:
            raise UsageError(
                f"{both} are over different data: {_said(first)} and {_said(part)}", "compare attacks on one data set"
            )


def _flags(part: Part, names: Sequence[str]) -> str:
    values = {name: part.setting(name) for name in names}
    shown = {n: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else v for n, v in values.items()}
    return " ".join(f"{flag(name)} {value}" for name, value in shown.items())


def _said(part: Part) -> str:
    digest = part.images.get("files_sha256")
    return f"{part.images.get('count')} images" + (f" (files {digest[:12]})" if digest else "")


def labels(firsts: Sequence[Part]) -> list[str]:
    """The attack's name, and those of its settings that are no default and differ: from the same attack's under
    another setting, or, of those that every attack has, from any other's."""
    found = []
    for part in firsts:
        alike = [other for other in firsts if other.attack == part.attack]
        shown = {}
        for name, value in part.own.items():
            others = firsts if name in SEARCH else alike
            if value != part.default(name) and any(other.own.get(name) != value for other in others):
                shown[name] = value
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
