"""Result files grouped by attack, and the checks that they may be put together."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from caa_cli.config.compared_settings import SEARCH, SHARED
from caa_cli.config.custom_attack import short_name
from caa_cli.config.differences import decisive, in_words
from caa_cli.config.named_attacks import label_of
from caa_cli.config.ranges import flag
from caa_cli.errors import UsageError
from caa_cli.results.model_files import model_digest
from caa_cli.results.records import AttackRecord
from caa_cli.results.shards.result_file import R, ResultFile
from caa_cli.runtime.words import counted, first_few

# How many of the missing shards a message names.
MOST_NAMED = 20


@dataclass(frozen=True)
class RunResult(Generic[R]):
    """The results of one run, with one set of settings. records: by image index, over all its files."""

    label: str
    parts: tuple[ResultFile[R], ...]
    records: dict[int, R]

    @property
    def interrupted(self) -> bool:
        """Whether images may be missing: a file is of an interrupted run, or was merged from incomplete shards."""
        return any(part.status == "interrupted" or part.metadata.get("gaps") for part in self.parts)


class AttackResult(RunResult[AttackRecord]):
    """The results of one attack."""

    @property
    def attack(self) -> str:
        return self.parts[0].attack


def join(parts: Sequence[ResultFile[AttackRecord]], gaps: bool = False) -> list[AttackResult]:
    """Group result files by attack and settings, in the order of each attack's first file. gaps: see `union`.

    Raises UsageError, which names the difference, for files that can't be compared, and for two attacks of one name.
    """
    check_agreement(parts)
    groups = grouped(parts, lambda one, other: _identity(one) == _identity(other))
    named = by_label(labels([group[0] for group in groups]), groups, "but their settings differ")
    return [AttackResult(label, tuple(group), union(group, gaps)) for label, group in named.items()]


def by_label(
    labels: Sequence[str], groups: Sequence[list[ResultFile[R]]], difference: str
) -> dict[str, list[ResultFile[R]]]:
    """The groups by their labels. Raises UsageError for two of one label. difference: between them, in words."""
    named: dict[str, list[ResultFile[R]]] = {}
    for label, group in zip(labels, groups, strict=True):
        other = named.setdefault(label, group)
        if other is not group:
            raise UsageError(
                f"{other[0].path} and {group[0].path} are both called {label}, {difference}",
                f"name one of them: caa compare {shlex.quote(f'NAME={group[0].path}')} …",
            )
    return named


def grouped(
    parts: Sequence[ResultFile[R]], alike: Callable[[ResultFile[R], ResultFile[R]], bool]
) -> list[list[ResultFile[R]]]:
    """The files in groups that are alike, in the order of each group's first file."""
    groups: list[list[ResultFile[R]]] = []
    for part in parts:
        group = next((g for g in groups if alike(g[0], part)), None)
        if group is None:
            groups.append(group := [])
        group.append(part)
    return groups


def _identity(part: ResultFile[AttackRecord]) -> tuple[object, ...]:
    """What the files of one attack share."""
    settings = {name: decisive(name, value) for name, value in part.attack_settings.items()}
    return part.name, part.attack, settings, part.surrogate


def check_agreement(parts: Sequence[ResultFile[Any]]) -> None:
    """Raises UsageError unless all files share the checkpoint, the data and all settings but those of the search."""
    check_same(
        parts,
        SHARED,
        lambda names: f"only settings of the search may differ; repeat the second {_flags(parts[0], names)}",
    )


def check_same(
    parts: Sequence[ResultFile[Any]],
    settings: Collection[str],
    advice: Callable[[Sequence[str]], str],
    one_model: bool = True,
) -> None:
    """Raises UsageError for files of different checkpoints (of `one_model`), settings or data.

    settings: the names of those that have to agree.  advice: the hint, given the names of those that differ.
    """
    first = parts[0]
    for part in parts[1:]:
        both = f"{first.path} and {part.path}"
        ours, theirs = model_digest(first.checkpoint), model_digest(part.checkpoint)
        if one_model and ours != theirs:
            raise UsageError(
                f"{both} are of different checkpoints (sha256 {str(ours)[:12]} and {str(theirs)[:12]})",
                "put together results of one model",
            )
        values = {name: [decisive(name, file.setting(name)) for file in (first, part)] for name in settings}
        differing = {name: pair for name, pair in values.items() if pair[0] != pair[1]}
        if "attack" in differing:  # whose settings the other one lacks
            differing = {"attack": differing["attack"]}
        if differing:
            shown = ", ".join(f"{name} ({in_words(a)} and {in_words(b)})" for name, (a, b) in differing.items())
            raise UsageError(f"{both} were made with different settings: {shown}", advice(list(differing)))
        if first.images != part.images:
            raise UsageError(
                f"{both} are over different data: {_data(first)} and {_data(part)}",
                "put together results of one data set",
            )


def _flags(part: ResultFile[Any], names: Sequence[str]) -> str:
    """How to repeat these settings of a run: `with --seed 1 and without --target`."""
    values = {name: part.setting(name) for name in names}
    if "target" in values:  # a digest stands for a file of targets, and can't be typed
        values["target"] = part.config.get("target_file") or values["target"]
    shown = {n: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else v for n, v in values.items()}
    given = [f"{flag(name)} {shlex.quote(str(value))}" for name, value in shown.items() if value is not None]
    absent = [flag(name) for name, value in shown.items() if value is None]
    return " and ".join(
        f"{word} {' '.join(flags)}" for word, flags in (("with", given), ("without", absent)) if flags
    )


def _data(part: ResultFile[Any]) -> str:
    digest = part.images.get("files_sha256")
    return counted(part.images.get("count", 0), "image") + (f" (files {digest[:12]})" if digest else "")


def labels(firsts: Sequence[ResultFile[Any]]) -> list[str]:
    """A label for each attack: the user's name for it, or else the attack's and the settings that tell it apart.

    These are not at their default, and differ from another entry of the same attack or, for the settings that every
    attack has, from any other entry.
    """
    distinct = []
    for part in firsts:
        alike = [other for other in firsts if other.attack == part.attack]
        shown = {}
        for name, value in part.attack_settings.items():
            others = firsts if name in SEARCH else alike
            if value != part.default(name) and any(other.attack_settings.get(name) != value for other in others):
                shown[name] = value
        distinct.append((part, shown))
    short = [part.name or label_of(short_name(part.attack), shown) for part, shown in distinct]
    return [
        label if part.name or short.count(label) == 1 else label_of(part.attack, shown)
        for label, (part, shown) in zip(short, distinct, strict=True)
    ]


def varying(group: Sequence[AttackResult]) -> list[str]:
    """The names of the settings in which runs of one attack differ."""
    settings = [run.parts[0].attack_settings for run in group]
    return [name for name in settings[0] if any(other.get(name) != settings[0][name] for other in settings[1:])]


def union(parts: Sequence[ResultFile[R]], gaps: bool = False) -> dict[int, R]:
    """Unite the records of the files of one run, by image index.

    Raises UsageError where two files hold the same image and, unless `gaps` are allowed, where a shard with images is
    missing.
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
    for gap in () if gaps else gaps_between(parts):
        raise UsageError(
            gap,
            "name the files of all shards (with the same --limit, --skip and --every); or take what is there: "
            "caa merge --partial, caa compare --common-images",
        )
    return records


def gaps_between(parts: Sequence[ResultFile[Any]]) -> list[str]:
    """Which shards with images are missing between the files of one run, in words."""
    selections: dict[str, list[ResultFile[Any]]] = {}
    for part in parts:
        selections.setdefault(json.dumps([part.selection, part.shard[1]], sort_keys=True), []).append(part)
    gaps = []
    for alike in selections.values():
        if absent := missing_shards(alike):
            files = ", ".join(str(part.path) for part in alike)
            gaps.append(f"shard {first_few(absent, MOST_NAMED)} of {alike[0].shard[1]} is missing beside {files}")
    return gaps


def missing_shards(alike: Sequence[ResultFile[Any]]) -> list[int]:
    """The indices of the shards of one run that have images, but no file here."""
    given, first = {part.shard[0] for part in alike}, alike[0]
    return [
        index
        for index in range(first.shard[1])
        if index not in given and ((images := first.of_shard(index)) is None or len(images) > 0)
    ]
