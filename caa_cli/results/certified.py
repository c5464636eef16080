"""The certified accuracies of several models over the same images, and their document."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from caa_cli.errors import UsageError
from caa_cli.results.certificates import CertifyRecord, CertifySummary, summarise_certificates
from caa_cli.results.comparison import document_head
from caa_cli.results.proportions import Interval, clopper_pearson
from caa_cli.results.shards.common import common_images, without_failures
from caa_cli.results.shards.joining import RunResult, union
from caa_cli.results.shards.models import MODEL
from caa_cli.results.shards.result_file import ResultFile

CertifiedModel = RunResult[CertifyRecord]


@dataclass(frozen=True)
class CertifiedComparison:
    """Certificates of several models. images: the indices that all models have finished.

    notes: what was left out, for a reader.
    """

    models: tuple[CertifiedModel, ...]
    images: tuple[int, ...]
    notes: tuple[str, ...]
    partial: bool

    @property
    def labels(self) -> list[str]:
        return [model.label for model in self.models]

    @property
    def radius(self) -> float | None:
        """The only radius that was decided on (`caa certify --radius`), if it was so."""
        return self.models[0].parts[0].config.get("radius")

    def records(self, model: CertifiedModel) -> list[CertifyRecord]:
        return [model.records[index] for index in self.images]

    def summary(self, model: CertifiedModel) -> CertifySummary:
        """A model's summary over the images of the comparison."""
        seconds = sum(part.seconds for part in model.parts)
        samples = model.parts[0].config["samples"]
        return summarise_certificates(self.records(model), samples, seconds, self.radius)

    def shares(self, model: CertifiedModel) -> dict[str, tuple[float, Interval | None]]:
        """By radius ("0.00", "0.25", …, the same for all models) certified accuracy and its 95% interval."""
        grid = {at: float(at) for other in self.models for at in self.summary(other).certified_accuracy}
        if self.radius is not None:
            grid = dict.fromkeys(grid, self.radius)  # its name may be rounded
        records, total = self.records(model), len(self.images)
        counts = {at: sum(record.certified_at(grid[at]) for record in records) for at in sorted(grid, key=float)}
        return {at: (count / total, clopper_pearson(count, total)) for at, count in counts.items()}

    @property
    def fingerprint(self) -> str:
        """A short digest of the models and the images."""
        runs = sorted([model.label, model.parts[0].fingerprint] for model in self.models)
        return hashlib.sha256(json.dumps(runs).encode()).hexdigest()[:16]

    def to_json(self, status: str) -> dict[str, Any]:
        """The document of `caa compare`, strict JSON; no `attacks`."""
        first = self.models[0].parts[0]
        shared = {name: first.config.get(name) for name in first.config if name not in MODEL}
        return {
            **document_head(status),
            "config": {
                name: value
                for name, value in shared.items()
                if all(model.parts[0].config.get(name) == value for model in self.models)
            },
            "fingerprint": self.fingerprint,
            "environment": first.environment,
            "images": first.images,
            "notes": list(self.notes),
            "models": {model.label: self._model(model) for model in self.models},
            "summary": {"models": len(self.models), "examples": len(self.images)},
            "attacks": {},
        }

    def _model(self, model: CertifiedModel) -> dict[str, Any]:
        first, shares = model.parts[0], self.shares(model)
        return {
            "checkpoint": first.checkpoint,
            **{name: first.config.get(name) for name in MODEL},
            **self.summary(model).to_json(),
            "certified_accuracy": {at: share for at, (share, _) in shares.items()},
            "intervals": {f"certified_accuracy@{at}": ends for at, (_, ends) in shares.items()},
            "files": [str(part.path) for part in model.parts],
            "examples": [record.to_json() for record in self.records(model)],
        }


def compare_certificates(groups: dict[str, list[ResultFile[CertifyRecord]]]) -> CertifiedComparison:
    """Compare the certificates of several models. groups: see `by_model`. Raises UsageError where images differ."""
    models = [RunResult(label, tuple(parts), union(parts)) for label, parts in groups.items()]
    notes: list[str] = []
    images = common_images(models, notes, "models")
    finished = without_failures(models, images, notes)
    if not finished:
        raise UsageError("no image is certified in all of the results", "finish them with --resume")
    partial = len(finished) < len(images) or any(model.interrupted for model in models)
    return CertifiedComparison(tuple(models), tuple(finished), tuple(notes), partial)
