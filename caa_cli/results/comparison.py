"""The comparison of attacks over the same eligible images, and its document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import median
from typing import Any

from caa_cli.config.compare_plan import check_reference
from caa_cli.config.compared_settings import SEARCH, SHARED
from caa_cli.config.plan import fingerprint_of
from caa_cli.results import bootstrap, metrics
from caa_cli.results.documents import head
from caa_cli.results.line_search import hidden_by_line_search
from caa_cli.results.metrics import Figures
from caa_cli.results.proportions import LEVEL, Interval
from caa_cli.results.records import ATTACKED, AttackRecord, finite, summarise
from caa_cli.results.shards.common_images import common_images, number_of, without_failures
from caa_cli.results.shards.run_results import AttackResult, check_agreement
from caa_cli.runtime.words import counted


@dataclass(frozen=True)
class Comparison:
    """Attacks over the same images.

    images: the indices that every attack has finished.  eligible: those of them that are eligible in every file.
    notes: what was left out, for a reader.  reference: the label of the attack that the others are held against;
    None: the first, whose label it becomes (UsageError: there is no such attack).  resamples, seed: of the bootstrap.
    """

    attacks: tuple[AttackResult, ...]
    images: tuple[int, ...]
    eligible: tuple[int, ...]
    notes: tuple[str, ...]
    partial: bool
    reference: str | None = None
    resamples: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.reference is not None:
            check_reference(self.reference, self.labels)
        elif self.attacks:
            object.__setattr__(self, "reference", self.labels[0])

    @property
    def labels(self) -> list[str]:
        return [attack.label for attack in self.attacks]

    @cached_property
    def figures(self) -> list[Figures]:
        """A row for each attack."""
        return metrics.figures(*self._table)

    @cached_property
    def intervals(self) -> list[dict[str, Interval | None]]:
        """A row for each attack, by name; without resamples the exact ones alone."""
        return bootstrap.intervals(metrics.columns(*self._table), self.resamples, self.seed)

    @property
    def _table(self) -> tuple[list[dict[int, AttackRecord]], tuple[int, ...], int]:
        """(records of each attack, eligible images, position of the reference)."""
        return [attack.records for attack in self.attacks], self.eligible, self.labels.index(str(self.reference))

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
    def class_names(self) -> dict[str, str]:
        """The names of the classes, by number as a text; empty where no file has them."""
        parts = [part for attack in self.attacks for part in attack.parts]
        return {number: name for part in parts for number, name in part.class_names.items()}

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
        return fingerprint_of(sorted(runs, key=str))

    def to_json(self, status: str) -> dict[str, Any]:
        """The document of `caa compare`, strict JSON."""
        first = self.attacks[0].parts[0]
        resampling = {"resamples": self.resamples, "level": LEVEL, "seed": self.seed} if self.resamples else None
        return {
            **head("compare", status),
            "config": self.config,
            "fingerprint": self.fingerprint,
            "environment": first.environment,
            "checkpoint": first.checkpoint,
            "images": first.images,
            "class_names": self.class_names,
            "indices": list(self.images),
            "notes": list(self.notes),
            "reference": self.reference,
            "summary": {**self.summary, "bootstrap": resampling},
            "attacks": {
                attack.label: self._attack(attack, row, ends)
                for attack, row, ends in zip(self.attacks, self.figures, self.intervals, strict=True)
            },
        }

    def _attack(self, attack: AttackResult, row: Figures, ends: dict[str, Interval | None]) -> dict[str, Any]:
        records = self.records(attack)
        return {
            **attack_summary(records, row, sum(part.seconds for part in attack.parts)),
            "intervals": _intervals(ends),
            "attack": attack.attack,
            "settings": attack.parts[0].attack_settings,
            "files": [str(part.path) for part in attack.parts],
            "runs": [
                {
                    "file": str(part.path),
                    "fingerprint": part.fingerprint,
                    **{name: part.config.get(name) for name in ("save_adversarial", "data_dir")},
                    "selection": part.selection,
                }
                for part in attack.parts
            ],
            "examples": [record.to_json() for record in records],
        }

    def _broken(self, by: Callable[[Iterable[bool]], bool]) -> int:
        """How many images were broken. by: `any` or `all` of the attacks."""
        return sum(
            by(attack.records[index].outcome == ATTACKED for attack in self.attacks) for index in self.eligible
        )


# The names of figures that the document calls otherwise.
_IN_DOCUMENT = {
    **{f"{which}median_percent": f"{which}median_percent_over_certified" for which in ("", "overall_", "common_")},
    "seconds": "median_seconds",
    "forward": "forward_evaluations_an_image",
    "backward": "backward_evaluations_an_image",
}


def attack_summary(records: Sequence[AttackRecord], row: Figures, seconds: float) -> dict[str, Any]:
    """One attack's numbers under their names in the document: its summary, and the figures of the comparison."""
    values = {_IN_DOCUMENT.get(name, name): finite(value) for name, value in asdict(row).items()}
    return {**summarise(records, seconds).to_json(), **values}


def _intervals(ends: dict[str, Interval | None]) -> dict[str, list[float | None] | None]:
    """The intervals as the document has them: by the names of its values, those of %-C by its shorter ones too."""
    pairs = {name: pair and [finite(end) for end in pair] for name, pair in ends.items()}
    return {**pairs, **{_IN_DOCUMENT[name]: pair for name, pair in pairs.items() if name in _IN_DOCUMENT}}


def compare(
    attacks: Sequence[AttackResult],
    resamples: int = 0,
    seed: int = 0,
    reference: str | None = None,
    among: Set[int] | None = None,
    usable: Set[int] | None = None,
) -> Comparison:
    """Compare attacks.

    reference: the label of the attack that the others are held against; None: the first.  among: the images to take
    of those that all attacks have; None: they have the same.  usable: those that no other model lacks; None: all.
    Raises UsageError where images or mandatory settings differ, or there is no such attack.
    """
    check_agreement([part for attack in attacks for part in attack.parts])
    notes: list[str] = []
    images = common_images(attacks, notes, among=among)
    finished = without_failures(attacks, images, notes)
    if usable is not None and not set(finished) <= usable:
        finished = [index for index in finished if index in usable]
        notes.append(f"compared on {counted(len(finished), 'image')} that all models have finished")
    eligible = _eligible(attacks, finished, notes)
    notes += hidden_by_line_search(attacks, eligible)
    partial = len(finished) < len(images) or any(attack.interrupted for attack in attacks)
    return Comparison(
        tuple(attacks), tuple(finished), tuple(eligible), tuple(notes), partial, reference, resamples, seed
    )


def _eligible(attacks: Sequence[AttackResult], images: Sequence[int], notes: list[str]) -> list[int]:
    """The images that are eligible in every file. They can differ only between devices, which draw other noise."""
    by_all = [index for index in images if all(attack.records[index].eligible for attack in attacks)]
    by_any = [index for index in images if any(attack.records[index].eligible for attack in attacks)]
    disputed = sorted(set(by_any) - set(by_all))
    if disputed:
        notes.append(
            f"left out: {number_of(disputed)} eligible in some files only (another kind of device draws other noise)"
        )
    differing = [index for index in by_all if len({attack.records[index].certified_radius for attack in attacks}) > 1]
    if differing:
        notes.append(
            f"the certified radii of {number_of(differing)} differ between files (another kind of device "
            f"draws other noise): each attack is held against its own; the pictures show those of {attacks[0].label}"
        )
    return by_all
