"""The attacks on several models over the same images, and their document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caa_cli.config.plan import fingerprint_of
from caa_cli.errors import UsageError
from caa_cli.results.comparison import Comparison, compare
from caa_cli.results.documents import agreed, head
from caa_cli.results.records import AttackRecord
from caa_cli.results.shards.by_model import MODEL_SETTINGS
from caa_cli.results.shards.common_images import SAME_IMAGES, held_by_all, without_failures
from caa_cli.results.shards.result_file import ResultFile
from caa_cli.results.shards.run_results import AttackResult, join

# What the document has of each model apart, besides the settings of the model.
OF_EACH = ("checkpoint", "environment", "reference", "summary", "indices", "class_names", "notes")


@dataclass(frozen=True)
class ModelsComparison:
    """Attacks on several models. comparisons: one for each model, by its label, over the same images."""

    comparisons: dict[str, Comparison]

    @property
    def notes(self) -> tuple[str, ...]:
        comparisons = self.comparisons.items()
        return tuple(f"{label}: {note}" for label, comparison in comparisons for note in comparison.notes)

    @property
    def partial(self) -> bool:
        return any(comparison.partial for comparison in self.comparisons.values())

    @property
    def labels(self) -> list[str]:
        """`MODEL/ATTACK` for each attack on each model."""
        return [f"{label}/{attack}" for label, comparison in self.comparisons.items() for attack in comparison.labels]

    @property
    def summary(self) -> dict[str, float | None]:
        """The numbers of all models together. eligible: images, counted once a model."""
        summaries = [comparison.summary for comparison in self.comparisons.values()]
        return {
            "models": len(summaries),
            "attacks": len(self.labels),
            "examples": max((summary["examples"] or 0 for summary in summaries), default=0),
            "eligible": sum(summary["eligible"] or 0 for summary in summaries),
        }

    @property
    def fingerprint(self) -> str:
        """A short digest of the compared attacks, the models and the images."""
        return fingerprint_of(sorted(comparison.fingerprint for comparison in self.comparisons.values()))

    def to_json(self, status: str) -> dict[str, Any]:
        """The document of `caa compare`, strict JSON; `attacks` by `labels`."""
        documents = {label: comparison.to_json(status) for label, comparison in self.comparisons.items()}
        first = next(iter(documents.values()))
        return {
            **head("compare", status),
            "config": agreed([document["config"] for document in documents.values()]),
            "fingerprint": self.fingerprint,
            "environment": agreed([document["environment"] for document in documents.values()]),
            "images": first["images"],
            "notes": list(self.notes),
            "models": {
                label: {
                    **{name: document[name] for name in OF_EACH},
                    **{name: document["config"][name] for name in MODEL_SETTINGS},
                }
                for label, document in documents.items()
            },
            "summary": {**self.summary, "bootstrap": first["summary"]["bootstrap"]},
            "attacks": {
                f"{label}/{attack}": {"model": label, **entry}
                for label, document in documents.items()
                for attack, entry in document["attacks"].items()
            },
        }


def compare_models(
    groups: dict[str, list[ResultFile[AttackRecord]]],
    resamples: int = 0,
    seed: int = 0,
    reference: str | None = None,
    common: bool = False,
) -> ModelsComparison:
    """Compare attacks on several models.

    groups: see `by_model`.  reference: for all models; None: the first attack of the first model, and of a model that
    lacks it the first.  common: on the images that all results have.  Raises UsageError where images differ, unless
    `common`; those that failed, or that an interrupted run has not come to, are left out for all models.
    """
    joined = {label: join(parts, gaps=common) for label, parts in groups.items()}
    if not common:
        _check_same_images(joined)
    results = [attack for attacks in joined.values() for attack in attacks]
    held = held_by_all(results)
    if not held:
        raise UsageError("the results have no finished image in common", "finish them with --resume")
    usable = set(without_failures(results, sorted(held), []))
    first_attack = results[0].label
    comparisons: dict[str, Comparison] = {}
    for label, attacks in joined.items():
        default = first_attack if first_attack in [attack.label for attack in attacks] else None
        comparisons[label] = compare(attacks, resamples, seed, reference or default, held if common else None, usable)
    return ModelsComparison(comparisons)


def _check_same_images(joined: Mapping[str, Sequence[AttackResult]]) -> None:
    """Raises UsageError for models over different images, unless a run was interrupted."""
    complete = [(label, held_by_all(each)) for label, each in joined.items() if not any(a.interrupted for a in each)]
    for label, images in complete[1:]:
        first, expected = complete[0]
        if differing := images ^ expected:
            raise UsageError(
                f"the results of {first} and {label} are over different images: only one of them has image "
                f"{min(differing)}",
                SAME_IMAGES,
            )
