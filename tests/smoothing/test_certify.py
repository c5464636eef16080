"""Certificates: Cohen's rule, the sequential decision at one radius, and `caa certify` itself."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import make_linear, make_small
from scipy import stats
from scipy.special import ndtr, ndtri
from support import assert_clean_error, caa, read_strict

from caa_cli.config.bounds import BOUNDS
from caa_cli.smoothing.certify import Certifier
from caa_cli.smoothing.sequential import Decider


def test_a_class_chosen_on_its_own_votes_needs_more_of_them():
    """Without a draw of its own for the choice, Cohen's one-sided bound is shared out over the classes."""
    linear = make_linear()
    counts = []
    for index in range(300):
        (found,) = Certifier(40, 10, 0.3, "clopper-pearson").certify(
            linear.classifier, linear.at(0.0)[None], [index], wanted=[1]
        )
        counts.append(found.confident and found.prediction == 0)
    assert sum(counts) <= stats.binom.ppf(0.9999, 300, 0.3 / 2)


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_certified_radius_of_a_linear_model_is_its_distance_from_below(bound: str):
    linear = make_linear()
    distances = [0.2, 0.5, 0.9]
    x = torch.stack([linear.at(distance) for distance in distances])
    found = Certifier(samples=100_000, bound=bound).certify(linear.classifier, x, [0, 1, 2])
    for certificate, distance in zip(found, distances, strict=True):
        assert (certificate.prediction, certificate.confident) == (1, True)
        assert 0.93 * distance < certificate.radius <= distance


def test_cohens_rule_by_another_implementation():
    linear, n, alpha = make_linear(), 5000, 0.001
    (found,) = Certifier(100, n, alpha, "clopper-pearson").certify(linear.classifier, linear.at(0.4)[None], [3])
    lower = stats.beta.ppf(alpha, found.votes_top, n - found.votes_top + 1)
    assert found.radius == pytest.approx(0.5 * stats.norm.ppf(lower), rel=1e-9)


def test_a_batch_is_certified_as_its_images_alone():
    classifier = make_small()
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    certifier = Certifier(50, 2000)
    together = certifier.certify(classifier, x, range(5))
    assert together == [certifier.certify(classifier, x[i : i + 1], [i])[0] for i in range(5)]


def test_an_image_of_another_class_is_not_paid_for():
    linear = make_linear()
    x = torch.stack([linear.at(1.0), linear.at(-1.0)])
    right, wrong = Certifier(200, 3000).certify(linear.classifier, x, [0, 1], wanted=[1, 1])
    assert (right.evaluations, wrong.evaluations) == (3200, 200)
    assert (wrong.prediction, wrong.confident, wrong.radius) == (0, True, 0.0)


def simulate(decider: Decider, p: float, threshold: float, repeats: int) -> tuple[int, int, float]:
    """(certified, not certified, mean samples) over repeats with true probability p."""
    rng, stages = np.random.default_rng(0), decider.stages()
    yes = no = drawn = 0
    for _ in range(repeats):
        votes = total = 0
        for goal in stages:
            votes += rng.binomial(goal - total, p)
            total = goal
            verdict = decider.verdict(votes, total, threshold, decider.alpha / len(stages))
            if verdict is not None:
                yes, no = yes + verdict, no + (not verdict)
                break
        drawn += total
    return yes, no, drawn / repeats


def test_the_decision_is_wrong_no_more_often_than_alpha():
    """At the threshold itself either verdict is an error, and nowhere are they likelier."""
    alpha, repeats, threshold = 0.05, 3000, 0.93
    yes, no, _ = simulate(Decider(1.0, samples=20_000, alpha=alpha), threshold, threshold, repeats)
    most = stats.binom.ppf(0.9999, repeats, alpha)
    assert yes <= most, f"{yes} of {repeats} falsely certified"
    assert no <= most, f"{no} of {repeats} falsely refused"


def test_a_clear_case_is_decided_on_a_few_samples():
    decider = Decider(1.0, samples=100_000, alpha=0.001)
    yes, no, samples = simulate(decider, p=0.999, threshold=0.93, repeats=200)
    assert (yes, no) == (200, 0)
    assert samples < 1000
    yes, no, samples = simulate(decider, p=0.6, threshold=0.93, repeats=200)
    assert (yes, no) == (0, 200)
    assert samples < 500


def test_decisions_agree_with_full_certificates_on_a_linear_model():
    linear, radius = make_linear(), 0.6
    decider = Decider(radius, samples=40_000)
    certifier = Certifier(100, 40_000, 0.001, "clopper-pearson")
    for index, distance in enumerate((0.3, 0.5, 0.58, 0.62, 0.7, 0.9)):
        decision = decider.decide(linear.classifier, linear.at(distance), index)
        (full,) = certifier.certify(linear.classifier, linear.at(distance)[None], [index])
        if decision.certified is not None and abs(distance - radius) > 0.05:
            assert decision.certified == (full.radius >= radius) == (distance > radius)
        assert decision.samples <= 40_000
    clear = decider.decide(linear.classifier, linear.at(1.5), 9)
    assert clear.certified
    assert clear.samples <= 1600


def test_stages_double_up_to_the_budget():
    assert Decider(1.0, samples=1000).stages() == [100, 200, 400, 800, 1000]
    assert Decider(1.0, samples=50).stages() == [50]


CHEAP = "certify --checkpoint demo --samples 400 --chunk-size 256 --device cpu --quiet --limit 8".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("certify")
    result = caa(*CHEAP, "--output", folder / "c.json", "--tsv", folder / "c.tsv", "--figure", folder / "c.png")
    assert result.exit_code == 0, result.output
    return folder, read_strict(folder / "c.json")


def test_the_document_has_its_fixed_names(run: tuple[Path, dict]):
    _, document = run
    assert (document["command"], document["status"]) == ("certify", "complete")
    assert len(document["examples"]) == 8
    for example in document["examples"]:
        assert {"index", "label", "prediction", "radius", "correct", "votes_top", "seconds"} <= example.keys()
    assert {"examples", "certified_accuracy", "average_certified_radius", "abstained"} <= document["summary"].keys()


def test_the_summary_follows_from_the_examples(run: tuple[Path, dict]):
    examples, summary = run[1]["examples"], run[1]["summary"]
    radii = np.array([e["radius"] if e["correct"] else 0.0 for e in examples])
    assert summary["average_certified_radius"] == pytest.approx(radii.mean())
    assert summary["average_certified_radius_error"] == pytest.approx(radii.std(ddof=1) / math.sqrt(len(radii)))
    right = np.array([e["correct"] for e in examples])
    for radius, share in summary["certified_accuracy"].items():
        assert share == pytest.approx((right & (radii >= float(radius))).mean())
    assert summary["abstained"] == sum(e["prediction"] is None for e in examples)


def test_the_log_reads_as_cohens(run: tuple[Path, dict]):
    folder, document = run
    with (folder / "c.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == ["idx", "label", "predict", "radius", "correct", "time"]
    for row, example in zip(rows, document["examples"], strict=True):
        assert int(row["idx"]) == example["index"]
        assert float(row["radius"]) == pytest.approx(example["radius"], rel=1e-5)
        assert int(row["correct"]) == example["correct"]
        assert int(row["predict"]) == (-1 if example["prediction"] is None else example["prediction"])


def test_the_curve_is_drawn(run: tuple[Path, dict]):
    assert (run[0] / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_longer_run_goes_on_from_a_shorter_one(run: tuple[Path, dict], tmp_path: Path):
    output = tmp_path / "c.json"
    assert caa(*CHEAP, "--limit", "3", "--output", output).exit_code == 0
    assert caa(*CHEAP, "--output", output, "--resume").exit_code == 0

    def timeless(document: dict) -> list[dict]:
        return [{k: v for k, v in example.items() if k != "seconds"} for example in document["examples"]]

    assert timeless(read_strict(output)) == timeless(run[1])
    refused = caa(*CHEAP, "--output", output, "--resume", "--samples", "300")
    assert refused.exit_code == 2
    assert "samples (400 there, 300 here)" in refused.stderr


def test_one_radius_is_decided_on_fewer_samples(tmp_path: Path):
    output = tmp_path / "d.json"
    result = caa(*CHEAP, "--samples", "20000", "--radius", "0.5", "--output", output)
    assert result.exit_code == 0, result.output
    document = read_strict(output)
    assert list(document["summary"]["certified_accuracy"]) == ["0.50"]
    assert document["summary"]["average_certified_radius"] is None
    assert document["summary"]["mean_samples"] < 10_000
    assert {e["outcome"] for e in document["examples"]} <= {"certified", "not_certified", "undecided"}


def test_the_accuracy_is_under_the_radius_that_was_decided(tmp_path: Path):
    result = caa(*CHEAP, "--radius", "0.753", "--output", tmp_path / "d.json", "--figure", tmp_path / "f.png")
    assert result.exit_code == 0
    assert "f.png is not drawn: only the radius 0.753 was decided on" in result.stderr
    assert list(read_strict(tmp_path / "d.json")["summary"]["certified_accuracy"]) == ["0.753"]
    compared = caa("compare", tmp_path / "d.json", "--output", tmp_path / "c.json")
    assert "0.753" in compared.stdout
    (model,) = read_strict(tmp_path / "c.json")["models"].values()
    assert [*model["certified_accuracy"], *model["intervals"]] == ["0.753", "certified_accuracy@0.753"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--samples", "3"], "not even a unanimous vote certifies"),
        (["--samples", "100", "--radius", "1.9"], "not even a unanimous vote reaches"),
    ],
)
def test_settings_that_can_certify_nothing_are_warned_of(words: list[str], said: str):
    result = caa("certify", "--checkpoint", "demo", "--chunk-size", "64", "--dry-run", *words)
    assert result.exit_code == 0
    assert said in result.stderr


RADIUS_LIMIT = 0.5 * float(ndtri((0.001 / 5) ** (1 / 1000)))  # 1000 samples in 5 stages, σ = 0.5


@pytest.mark.parametrize("bound", BOUNDS)
def test_whether_a_radius_can_be_decided_at_all_does_not_depend_on_the_bound(bound: str):
    decider = Decider(1.0, samples=1000, alpha=0.001)
    assert decider.largest_radius(0.5) == pytest.approx(RADIUS_LIMIT, rel=1e-9)
    for radius, possible in ((RADIUS_LIMIT - 1e-6, True), (RADIUS_LIMIT + 1e-6, False)):
        assert (decider.verdict(1000, 1000, float(ndtr(radius / 0.5)), decider.share()) is True) == possible
        words = ["--dry-run", "--chunk-size", "64", "--samples", "1000", "--radius", f"{radius:.9f}"]
        result = caa("certify", "--checkpoint", "demo", *words, env={"CAA_CERTIFY_BOUND": bound})
        assert result.exit_code == 0
        assert ("not even a unanimous vote reaches" in result.stderr) == (not possible)
        assert "exact bounds, α = 0.001 shared out over 5 stages" in result.stderr
        assert bound not in result.stderr


def test_a_bound_that_would_decide_nothing_is_refused_where_it_is_typed():
    refused = caa("certify", "--checkpoint", "demo", "--radius", "0.5", "--bound", "goodman")
    assert_clean_error(refused, 2, "--bound goodman has no part in the decision on one --radius", "leave one")


def test_a_radius_that_is_none_is_refused():
    result = caa("certify", "--checkpoint", "demo", "--radius", "0")
    assert result.exit_code == 2
    assert "error: --radius" in result.stderr
