"""The certified accuracies of several models over the same images, and their document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caa_cli.config.plan import fingerprint_of
from caa_cli.errors import UsageError
from caa_cli.results.certificates import CertifyRecord, CertifySummary, summarise_certificates
from caa_cli.results.documents import agreed, head
from caa_cli.results.proportions import Interval, clopper_pearson
from caa_cli.results.shards.by_model import MODEL_SETTINGS
from caa_cli.results.shards.common_images import common_images, held_by_all, without_failures
from caa_cli.results.shards.result_file import ResultFile
from caa_cli.results.shards.run_results import RunResult, union

CertifiedModel = RunResult[CertifyRecord]


@dataclass(frozen=True)
class CertifiedComparison:
    """Certificates of several models, each with its summary and its certified accuracies.

    images: the indices that all models have finished.  shares: by radius ("0.00", "0.25", …, the same for all models)
    the share of these images that are right and certified, with its 95% interval.  notes: what was left out, for a
    reader.
    """

    models: tuple[CertifiedModel, ...]
    images: tuple[int, ...]
    summaries: tuple[CertifySummary, ...]
    shares: tuple[dict[str, tuple[float, Interval]], ...]
    notes: tuple[str, ...]
    partial: bool

    @property
    def labels(self) -> list[str]:
        return [model.label for model in self.models]

    @property
    def radius(self) -> float | None:
        """The only radius that was decided on (`caa certify --radius`), if it was so."""
        radius: float | None = self.models[0].parts[0].config.get("radius")
        return radius

    def records(self, model: CertifiedModel) -> list[CertifyRecord]:
        return [model.records[index] for index in self.images]

    @property
    def fingerprint(self) -> str:
        """A short digest of the models and the images."""
        return fingerprint_of(sorted([model.label, model.parts[0].fingerprint] for model in self.models))

    def to_json(self, status: str) -> dict[str, Any]:
        """The document of `caa compare`, strict JSON; no `attacks`."""
        first = self.models[0].parts[0]
        configs = [model.parts[0].config for model in self.models]
        return {
            **head("compare", status),
            "config": {name: value for name, value in agreed(configs).items() if name not in MODEL_SETTINGS},
            "fingerprint": self.fingerprint,
            "environment": first.environment,
            "images": first.images,
            "notes": list(self.notes),
            "models": {
                model.label: self._model(model, summary, shares)
                for model, summary, shares in zip(self.models, self.summaries, self.shares, strict=True)
            },
            "summary": {"models": len(self.models), "examples": len(self.images)},
            "attacks": {},
        }

    def _model(
        self, model: CertifiedModel, summary: CertifySummary, shares: dict[str, tuple[float, Interval]]
    ) -> dict[str, Any]:
        first = model.parts[0]
        return {
            "checkpoint": first.checkpoint,
            **{name: first.config.get(name) for name in MODEL_SETTINGS},
            **summary.to_json(),
            "certified_accuracy": {at: share for at, (share, _) in shares.items()},
            "intervals": {f"certified_accuracy@{at}": ends for at, (_, ends) in shares.items()},
            "files": [str(part.path) for part in model.parts],
            "examples": [record.to_json() for record in self.records(model)],
        }


def compare_certificates(
    groups: dict[str, list[ResultFile[CertifyRecord]]], common: bool = False
) -> CertifiedComparison:
    """Compare the certificates of several models.

    groups: see `by_model`.  common: on the images that all have.  Raises UsageError where images differ otherwise.
    """
    models = [RunResult(label, tuple(parts), union(parts, gaps=common)) for label, parts in groups.items()]
    notes: list[str] = []
    images = common_images(models, notes, "models", held_by_all(models) if common else None)
    finished = without_failures(models, images, notes)
    if not finished:
        raise UsageError("no image is certified in all of the results", "finish them with --resume")
    records = [[model.records[index] for index in finished] for model in models]
    radius = models[0].parts[0].config.get("radius")
    summaries = [
        summarise_certificates(mine, model.parts[0].config["samples"], sum(p.seconds for p in model.parts), radius)
        for model, mine in zip(models, records, strict=True)
    ]
    grid = sorted({at for summary in summaries for at in summary.certified_accuracy}, key=float)
    return CertifiedComparison(
        models=tuple(models),
        images=tuple(finished),
        summaries=tuple(summaries),
        shares=tuple({at: _share(mine, float(at)) for at in grid} for mine in records),
        notes=tuple(notes),
        partial=len(finished) < len(images) or any(model.interrupted for model in models),
    )


def _share(records: Sequence[CertifyRecord], radius: float) -> tuple[float, Interval]:
    count = sum(record.certified_at(radius) for record in records)
    return count / len(records), clopper_pearson(count, len(records))
