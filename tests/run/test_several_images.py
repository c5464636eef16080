"""Certificates and verifications of several images in one pass: the records are those of one image at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from step_counts import demo_classifier

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.data.datasets import open_dataset
from caa_cli.data.decoding import ImageError
from caa_cli.data.images import ImageSet
from caa_cli.results.records import AttackRecord
from caa_cli.run.attack_pipeline import AttackPipeline
from caa_cli.run.registry import build_attack
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Purpose

PLAN = AttackPlan.of(
    checkpoint="demo", samples=100, iterations=8, verify_samples=1000, batch_size=4, step_min=0.4, step_max=0.8
)


class OneUnreadable:
    """The demo's images, of which one can't be read."""

    def __init__(self, images: ImageSet) -> None:
        self._images = images

    def __getattr__(self, name: str) -> object:
        return getattr(self._images, name)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> torch.Tensor:
        if index == 2:
            raise ImageError("it is damaged")
        return self._images.image(index)


def run(chunk: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[AttackRecord], list[tuple[Purpose, int]]]:
    """The records of eight images, and (purpose, images) of each pass of votes."""
    classifier, passes = demo_classifier("cpu"), []
    classifier.votes_chunk, classifier.gradient_chunk = chunk, 256
    votes = SmoothedClassifier.keyed_votes

    def noted(self, x, keys, *settings):
        passes.append((keys[0].purpose, len(x)))
        return votes(self, x, keys, *settings)

    monkeypatch.setattr(SmoothedClassifier, "keyed_votes", noted)
    pipeline = AttackPipeline(PLAN, build_attack(PLAN), classifier, OneUnreadable(open_dataset("demo", None, "test")))
    records = sorted((record for record, _ in pipeline.run(range(8))), key=lambda record: record.index)
    monkeypatch.undo()
    return records, passes


def test_records_are_the_same_and_passes_hold_several(monkeypatch: pytest.MonkeyPatch):
    one_by_one, single = run(100, monkeypatch)
    together, shared = run(8000, monkeypatch)
    assert [replace(record, seconds=0.0) for record in together] == [replace(r, seconds=0.0) for r in one_by_one]
    assert [record.index for record in together] == [*range(8)]
    assert {record.outcome for record in together} >= {"attacked", "failed"}
    assert all(record.seconds > 0 for record in together if record.error is None)
    for purpose in (Purpose.SELECTION, Purpose.CERTIFICATION, Purpose.PROBE, Purpose.VERIFICATION):
        assert max(count for drawn, count in single if drawn == purpose) == 1
        assert max(count for drawn, count in shared if drawn == purpose) > 1


def test_no_image_is_certified_before_the_search_has_a_place_for_it(monkeypatch: pytest.MonkeyPatch):
    _, passes = run(8000, monkeypatch)
    assert passes[0] == (Purpose.SELECTION, 3), "of four places, as one image can't be read"
