"""Result files of `caa attack` without a run: what the tests of comparisons are made of."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attack_settings import declared
from caa_cli.config.attacks import ATTACKS
from caa_cli.results.comparison import Comparison, compare
from caa_cli.results.records import AttackRecord, summarise
from caa_cli.results.shards.result_file import parse_result_file
from caa_cli.results.shards.run_results import join
from caa_cli.runtime.sharding import Shard

ATTACKED, NOT_FOUND, MISCLASSIFIED, FAILED = "attacked", "not_found", "misclassified", "failed"


# Rows of radii, an image a row, from a small set, so that ties are common.
_radius = st.none() | st.sampled_from([1.0, 1.005, 1.5, 2.0, 2.015, 3.0])
tables = st.integers(1, 4).flatmap(
    lambda attacks: st.lists(st.lists(_radius, min_size=attacks, max_size=attacks), min_size=1, max_size=12)
)


def record(index: int, radius: float | None, certified: float = 1.0, **others: Any) -> AttackRecord:
    """An eligible image, attacked at this radius or (None) not."""
    settings = {
        "prediction": index % 10,
        "expectation": 0.9,
        "certified_radius": certified,
        "radius": radius,
        "adversarial_class": None if radius is None else (index + 1) % 10,
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
    # Counts that the file leaves open follow from the others: a reader has to fill them in.
    open_ = dict.fromkeys(("selection_samples", "certify_samples", "verify_samples"))
    known = {f.name for f in fields(AttackPlan)}.union(*map(declared, ATTACKS))
    assert settings.keys() <= known
    return {
        "schema_version": 1,
        "tool_version": "0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "status": "partial" if any(r.outcome == FAILED for r in records) else "complete",
        "command": "attack",
        "config": {**json.loads(json.dumps(plan.config())), **open_, "attack": attack, **settings},
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


def by_hand(found: Any, near: float = 1.01) -> Any:
    """The table again, from the document's examples alone, by other means: counting, and sorting."""

    def middle(values):
        values = sorted(values)
        half = len(values) // 2
        found = None if not values else values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
        return None if found == math.inf else found

    def area(radii, most):
        """Under the robust accuracy of the images with these radii, from budget to budget up to the most."""
        budgets = sorted({0.0, most, *(r for r in radii if r < most)})
        shares = [sum(r > budget for r in radii) / len(radii) for budget in budgets]
        return sum(share * (end - start) for share, start, end in zip(shares, budgets, budgets[1:], strict=False))

    attacks = found["attacks"]
    radii = {
        name: {e["index"]: e["radius"] for e in a["examples"] if e["outcome"] == "attacked"}
        for name, a in attacks.items()
    }
    images = [e["index"] for e in next(iter(attacks.values()))["examples"]]
    smallest = [min([r[i] for r in radii.values() if i in r], default=math.inf) for i in images]
    reach = max((r for r in smallest if r < math.inf), default=0.0)
    reference = radii[found["reference"]]
    everyone = [i for i in images if all(i in r for r in radii.values())]
    rows = {}
    for name, attack in attacks.items():
        certified = {e["index"]: e["certified_radius"] for e in attack["examples"]}
        best = near_best = 0.0
        for i in images:
            others = [r[i] for r in radii.values() if i in r]
            if i in radii[name] and not any(other < radii[name][i] for other in others):
                best += 1 / others.count(radii[name][i])
            near_best += i in radii[name] and all(radii[name][i] <= near * other for other in others)
        percent = {i: 100 * (r - certified[i]) / certified[i] for i, r in radii[name].items() if certified[i] > 0}
        mine, inf = radii[name], math.inf
        all_percent = [percent.get(i, inf) for i in images if certified[i] > 0]
        room = reach - area(smallest, reach) if images and reach else 0.0
        both = [i for i in images if i in mine and i in reference]
        held = {
            "nearer_share": sum(mine.get(i, inf) < reference.get(i, inf) for i in images) / len(images),
            "farther_share": sum(mine.get(i, inf) > reference.get(i, inf) for i in images) / len(images),
            "tied_share": sum(mine.get(i, inf) == reference.get(i, inf) for i in images) / len(images),
            "both_attacked": len(both),
            "median_radius_ratio": middle([mine[i] / reference[i] for i in both]),
            "median_radius_difference": middle([mine[i] - reference[i] for i in both]),
        }
        rows[name] = {
            **(dict.fromkeys(held) if name == found["reference"] else held),
            "overall_median_radius": middle([mine.get(i, inf) for i in images]),
            "overall_median_percent_over_certified": middle(all_percent),
            "optimality": 1 - (area([mine.get(i, inf) for i in images], reach) - area(smallest, reach)) / room
            if room > 1e-12
            else None,
            "eligible": len(images),
            "attacked": len(radii[name]),
            "success_rate": len(radii[name]) / len(images),
            "best_share": best / len(images),
            "near_best_share": near_best / len(images),
            "median_radius": middle(radii[name].values()),
            "median_percent_over_certified": middle(percent.values()),
            "common": len(everyone),
            "common_median_radius": middle([radii[name][i] for i in everyone]),
            "common_median_percent_over_certified": middle([percent[i] for i in everyone if i in percent]),
            "median_seconds": middle([e["seconds"] for e in attack["examples"]]),
            "forward_evaluations_an_image": sum(e["forward_evaluations"] for e in attack["examples"]) / len(images),
            "backward_evaluations_an_image": sum(e["backward_evaluations"] for e in attack["examples"]) / len(images),
        }
    return rows


# Every column of the tables: its heading, the value's name above, and how it is written.
COLUMNS = {
    "success %": ("success_rate", 100, 0),
    "best %": ("best_share", 100, 0),
    "r₅₀": ("overall_median_radius", 1, 3),
    "%-C": ("overall_median_percent_over_certified", 1, 0),
    "optimality": ("optimality", 1, 3),
    "nearer %": ("nearer_share", 100, 0),
    "ratio (n)": ("median_radius_ratio", 1, 3),
    "evals k": ("evaluations", 0.001, 1),
    "near-best %": ("near_best_share", 100, 0),
    "farther %": ("farther_share", 100, 0),
    "tied %": ("tied_share", 100, 0),
    "difference": ("median_radius_difference", 1, 3),
    "r₅₀ successes": ("median_radius", 1, 3),
    "%-C successes": ("median_percent_over_certified", 1, 0),
    "r₅₀ common": ("common_median_radius", 1, 3),
    "%-C common": ("common_median_percent_over_certified", 1, 0),
    "s/image": ("median_seconds", 1, 2),
    "forward k": ("forward_evaluations_an_image", 0.001, 1),
    "backward k": ("backward_evaluations_an_image", 0.001, 1),
}


def assert_as_by_hand(found: Any) -> None:
    """The table of a comparison's document is what its examples say."""
    for name, row in by_hand(found).items():
        for key, value in row.items():
            shown = found["attacks"][name][key]
            assert shown == (value if value is None else pytest.approx(value)), f"{name}: {key}"


def by_index(table: Any) -> list[dict[int, AttackRecord]]:
    """Rows of radii, an image a row, as the records of each attack."""
    return [
        {index: record(index, row[attack], certified=0.5 + index / 10) for index, row in enumerate(table)}
        for attack in range(len(table[0]))
    ]


def comparison_of(
    records: list[dict[int, AttackRecord]], resamples: int = 0, reference: str | None = None
) -> Comparison:
    """Of attacks that differ in --iterations."""
    parts = [
        parse_result_file(Path(f"{n}.json"), document(list(found.values()), iterations=100 + n))
        for n, found in enumerate(records)
    ]
    return compare(join(parts), resamples, reference=reference)


def named(comparison: Comparison, label: str) -> Comparison:
    """The comparison with its first attack under another name."""
    first, *others = comparison.attacks
    return replace(comparison, attacks=(replace(first, label=label), *others), reference=label)
