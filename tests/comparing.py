"""Result files of `caa attack` without a run: what the tests of comparisons are made of."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from caa_cli.plan import AttackPlan, Shard
from caa_cli.results.records import AttackRecord, summarise

ATTACKED, NOT_FOUND, MISCLASSIFIED, FAILED = "attacked", "not_found", "misclassified", "failed"


def record(index: int, radius: float | None, certified: float = 1.0, **others: Any) -> AttackRecord:
    """An eligible image, attacked at this radius or (None) not."""
    settings = {
        "prediction": index % 10,
        "expectation": 0.9,
        "certified_radius": certified,
        "radius": radius,
        "seconds": 0.5,
        "forward_evaluations": 1000,
        "backward_evaluations": 100,
    }
    outcome = NOT_FOUND if radius is None else ATTACKED
    return AttackRecord(index, index % 10, others.pop("outcome", outcome), **{**settings, **others})


def document(records: list[AttackRecord], attack: str = "caa", shard: Shard | None = None, **settings: Any) -> Any:
    """What a run with these settings would have written."""
    shard = shard or Shard()
    plan = AttackPlan(
        checkpoint="demo", arch="small-cnn", sigma=0.5, mean=(0.5,), std=(0.5,), dataset="demo", shard=shard
    )
    known = {f.name for f in fields(AttackPlan)}
    assert settings.keys() <= known
    return {
        "schema_version": 1,
        "tool_version": "0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "status": "partial" if any(r.outcome == FAILED for r in records) else "complete",
        "command": "attack",
        "config": {**json.loads(json.dumps(plan.config())), "attack": attack, **settings},
        "fingerprint": "0",
        "environment": {"caa": "0.1.0", "device": "cpu"},
        "checkpoint": {"path": "demo", "sha256": "a" * 64, "arch": None, "dataset": None, "sigma": None},
        "images": {"count": 100, "files_sha256": None},
        "shard": {"index": shard.index, "count": shard.count},
        "examples": [r.to_json() for r in records],
        "summary": summarise(records, 1.0).to_json(),
    }


def write(path: Path, found: Any) -> Path:
    path.write_text(json.dumps(found), encoding="utf-8")
    return path
