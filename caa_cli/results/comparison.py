"""The comparison of attacks over the same eligible images, and its document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from caa_cli.config.compare_plan import SEARCH, SHARED
from caa_cli.errors import UsageError
from caa_cli.results.bootstrap import LEVEL, Interval, intervals
from caa_cli.results.documents import head
from caa_cli.results.metrics import Figures, columns, figures
from caa_cli.results.records import FAILED, AttackRecord, summarise
from caa_cli.results.shards.joining import AttackResult, check_agreement


@dataclass(frozen=True)
class Comparison:
    """Attacks, each with a row of `figures` and of `intervals` (empty without a bootstrap).

    images: the indices that every attack has finished.  eligible: those of them that are eligible in every file.
    notes: what was left out, for a reader.
    """

    attacks: tuple[AttackResult, ...]
    images: tuple[int, ...]
    eligible: tuple[int, ...]
    figures: tuple[Figures, ...]
    intervals: tuple[dict[str, Interval | None], ...]
    resamples: int
    notes: tuple[str, ...]
    partial: bool

    @property
    def labels(self) -> list[str]:
        return [attack.label for attack in self.attacks]

    def records(self, attack: AttackResult) -> list[AttackRecord]:
        return [attack.records[index] for index in self.eligible]

    @property
    def certified(self) -> list[float]:
        """The certified radii of the eligible images, by the first attack's files."""
        return [record.certified_radius or 0.0 for record in self.records(self.attacks[0])]

    @property
    def config(self) -> dict[str, Any]:
        """The settings that all attacks share: the mandatory ones, and those of the search that happen to agree."""
        parts = [attack.parts[0] for attack in self.attacks]
        agreed = [name for name in SEARCH if len({part.setting(name) for part in parts}) == 1]
        return {name: parts[0].setting(name) for name in (*SHARED, *agreed)}

    @property
    def summary(self) -> dict[str, float | None]:
        """The numbers of all attacks together."""
        return {
            "attacks": len(self.attacks),
            "examples": len(self.images),
            "eligible": len(self.eligible),
            "broken_by_any": self._broken(any),
            "broken_by_all": self._broken(all),
            "median_certified_radius": median(self.certified) if self.eligible else None,
        }

    @property
    def fingerprint(self) -> str:
        """A short digest of the compared attacks, the model and the images."""
        runs = [[a.label, a.parts[0].fingerprint, a.parts[0].images.get("files_sha256")] for a in self.attacks]
        return hashlib.sha256(json.dumps(sorted(runs, key=str)).encode()).hexdigest()[:16]

    def to_json(self, status: str) -> dict[str, Any]:
        """The document of `caa compare`, strict JSON."""
        first = self.attacks[0].parts[0]
        return {
            **head(status),
            "command": "compare",
            "config": self.config,
            "fingerprint": self.fingerprint,
            "environment": first.environment,
            "checkpoint": first.checkpoint,
            "images": first.images,
            "notes": list(self.notes),
            "summary": {
                **self.summary,
                "bootstrap": {"resamples": self.resamples, "level": LEVEL} if self.resamples else None,
            },
            "attacks": {
                attack.label: self._attack(attack, row, self.intervals[i] if self.intervals else None)
                for i, (attack, row) in enumerate(zip(self.attacks, self.figures, strict=True))
            },
        }

    def _attack(
        self, attack: AttackResult, row: Figures, interval: dict[str, Interval | None] | None
    ) -> dict[str, Any]:
        records = self.records(attack)
        return {
            **attack_summary(records, row, sum(part.seconds for part in attack.parts)),
            "intervals": interval,
            "attack": attack.attack,
            "settings": attack.parts[0].attack_settings,
            "files": [str(part.path) for part in attack.parts],
            "examples": [record.to_json() for record in records],
        }

    def _broken(self, which: Any) -> int:
        return sum(
            which(attack.records[index].outcome == "attacked" for attack in self.attacks) for index in self.eligible
        )


def attack_summary(records: Sequence[AttackRecord], row: Figures, seconds: float) -> dict[str, Any]:
    """One attack's numbers under their names in the document: its summary, and the figures of the comparison."""
    found = asdict(row)
    found["median_percent_over_certified"] = found.pop("median_percent")
    found["common_median_percent_over_certified"] = found.pop("common_median_percent")
    found["median_seconds"] = found.pop("seconds")
    found["forward_evaluations_an_image"] = found.pop("forward")
    found["backward_evaluations_an_image"] = found.pop("backward")
    return {**summarise(records, seconds).to_json(), **found}


def compare(attacks: Sequence[AttackResult], resamples: int = 0, seed: int = 0) -> Comparison:
    """Compare attacks. Raises UsageError where images or mandatory settings differ."""
    check_agreement([part for attack in attacks for part in attack.parts])
    notes: list[str] = []
    images = _common_images(attacks, notes)
    finished = _finished(attacks, images, notes)
    eligible = _eligible(attacks, finished, notes)
    records = [attack.records for attack in attacks]
    found = columns(records, eligible)
    return Comparison(
        attacks=tuple(attacks),
        images=tuple(finished),
        eligible=tuple(eligible),
        figures=tuple(figures(records, eligible)),
        intervals=tuple(intervals(found, resamples, seed)) if resamples else (),
        resamples=resamples,
        notes=tuple(notes),
        partial=len(finished) < len(images) or any(attack.interrupted for attack in attacks),
    )


def _common_images(attacks: Sequence[AttackResult], notes: list[str]) -> list[int]:
    """The images that all attacks have. Raises UsageError where a run that was not interrupted lacks some."""
    common = set.intersection(*(set(attack.records) for attack in attacks))
    for attack in attacks:
        if attack.interrupted:
            notes.append(f"{attack.label} was interrupted after {len(attack.records)} images")
            continue
        more = next((other for other in attacks if set(other.records) - set(attack.records)), None)
        if more is not None:
            index = min(set(more.records) - set(attack.records))
            raise UsageError(
                f"{attack.label} and {more.label} are over different images: {index} is in "
                f"{_files(more)}, but not in {_files(attack)}",
                "repeat one of them with the --limit, --skip, --every or --indices of the other (and --resume)",
            )
    if not common:
        raise UsageError("the attacks have no finished image in common", "finish them with --resume")
    if any(len(attack.records) > len(common) for attack in attacks):
        notes.append(f"compared on the {len(common)} images that all attacks have finished")
    for index in common:
        if len({attack.records[index].label for attack in attacks}) > 1:
            raise UsageError(f"the attacks are over different images: {index} has another label in each", None)
    return sorted(common)


def _finished(attacks: Sequence[AttackResult], images: Sequence[int], notes: list[str]) -> list[int]:
    """Leave out images that failed in any run: a failure is not evidence about an attack."""
    failed: set[int] = set()
    for attack in attacks:
        mine = [index for index in images if attack.records[index].outcome == FAILED]
        if mine:
            notes.append(f"left out: {_number_of(mine)} failed in {attack.label}")
            failed.update(mine)
    return [index for index in images if index not in failed]


def _eligible(attacks: Sequence[AttackResult], images: Sequence[int], notes: list[str]) -> list[int]:
    """The images that are eligible in every file. They can differ only between devices, which draw other noise."""
    by_all = [index for index in images if all(attack.records[index].eligible for attack in attacks)]
    by_any = [index for index in images if any(attack.records[index].eligible for attack in attacks)]
    disputed = sorted(set(by_any) - set(by_all))
    if disputed:
        notes.append(
            f"left out: {_number_of(disputed)} eligible in some files only (another kind of device draws other noise)"
        )
    differing = [index for index in by_all if len({attack.records[index].certified_radius for attack in attacks}) > 1]
    if differing:
        notes.append(
            f"the certified radii of {_number_of(differing)} differ between files (another kind of device "
            f"draws other noise): each attack is held against its own; the pictures show those of {attacks[0].label}"
        )
    return by_all


def _number_of(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:3])) + (", …" if len(indices) > 3 else "")
    return f"{len(indices)} image{'s' if len(indices) > 1 else ''} ({shown})"


def _files(attack: AttackResult) -> str:
    return ", ".join(str(part.path) for part in attack.parts)
