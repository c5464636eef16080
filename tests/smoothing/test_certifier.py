"""Certificates and sequential decisions on votes that are written down, and the noise that they are drawn on."""

from __future__ import annotations

from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from networks import SmallNet
from prescribed import SHAPE, interval, prescribed, recording
from scipy import stats

from caa_cli.config.bounds import BOUNDS
from caa_cli.config.certificates import CERTIFICATES
from caa_cli.smoothing.bounds import clopper_pearson_lower, clopper_pearson_upper
from caa_cli.smoothing.certify import Certificate, Certifier
from caa_cli.smoothing.noise import Purpose
from caa_cli.smoothing.sequential import Decider, Decision

IMAGES = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))


def certify(certifier: Certifier, *tables: list[int], wanted: int | None = None) -> Certificate:
    """Of one image; the first table has the votes of the selection."""
    (found,) = certifier.certify(prescribed(*tables), IMAGES[:1], [0], None if wanted is None else [wanted])
    return found


def test_selection_and_certification_have_noise_of_their_own():
    """Only the images whose class is the one wanted are certified, each on the noise of its index."""
    classifier = recording(SmallNet(), 3)
    certifier = Certifier(selection_samples=50, samples=200, seed=5)
    selected = [found.prediction for found in certifier.certify(classifier, IMAGES, [4, 7, 9])]
    selection = [(Purpose.SELECTION, index, 0, 0, 50) for index in (4, 7, 9)]
    certification = [(Purpose.CERTIFICATION, index, 0, 0, 200) for index in (4, 7, 9)]
    assert [draw.noise for draw in classifier.draws] == selection + certification
    assert {draw.key.seed for draw in classifier.draws} == {5}

    classifier.draws.clear()
    wanted = [selected[0] + 1, *selected[1:]]
    found = certifier.certify(classifier, IMAGES, [4, 7, 9], wanted)
    assert [draw.noise for draw in classifier.draws] == selection + certification[1:]
    assert all(draw.image.equal(IMAGES[row]) for draw, row in zip(classifier.draws, (0, 1, 2, 1, 2), strict=True))
    assert [certificate.prediction for certificate in found] == selected
    assert [certificate.evaluations for certificate in found] == [50, 250, 250]


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_class_is_chosen_on_the_selection_alone(bound: str):
    certifier = Certifier(10, 1000, bound=bound)
    found = certify(certifier, [4, 6, 0, 0], [1000, 0, 0, 0])
    assert found == Certificate(1, False, 0.0, 0, 0, 1010, found.votes)
    assert found.votes.tolist() == [1000, 0, 0]


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("abstained", [0, 300])
def test_the_radius_is_that_of_the_bounds_of_the_certifications_votes(bound: str, abstained: int):
    """Samples that abstain count in the total, and for no class."""
    votes = [30, 900 - abstained, 70]
    found = certify(Certifier(10, 1000, 0.01, bound), [0, 10, 0, 0], [*votes, abstained])
    lower, _ = interval(votes[1], 1000, 3, 0.01, bound)
    upper = 1 - lower if BOUNDS[bound].one_sided else interval(70, 1000, 3, 0.01, bound)[1]
    assert found.radius == pytest.approx(0.25 * (stats.norm.ppf(lower) - stats.norm.ppf(upper)), rel=1e-6)
    assert (found.votes_top, found.abstentions, found.evaluations) == (900 - abstained, abstained, 1010)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_choice_judged_on_its_own_votes_needs_enough_of_them(bound: str):
    """One vote fewer is not enough. A one-sided bound is for a class named beforehand: here it may be any of three,
    each with a third of alpha; the others bound all classes in any case."""

    def confident(k: int) -> bool:
        lower, _ = interval(k, 1000, 3, 0.01 / 3 if BOUNDS[bound].one_sided else 0.01, bound)
        upper = 0.5 if BOUNDS[bound].one_sided else interval(900 - k, 1000, 3, 0.01, bound)[1]
        return lower > upper

    enough = next(k for k in range(450, 900) if confident(k))
    for k in (enough, enough - 1):
        found = certify(Certifier(1000, 5000, 0.01, bound), [k, 900 - k, 0, 100], wanted=1)
        assert found == Certificate(0, k == enough, 0.0, k, 100, 1000, found.votes)
        assert found.votes.tolist() == [k, 900 - k, 0]


def test_the_most_that_settings_can_certify_is_a_unanimous_vote():
    assert Certifier(10, samples=1500).best(10).radius(1.0) == pytest.approx(2.4084, abs=5e-5)
    cohen = Certifier(10, samples=100_000, alpha=0.001, bound="clopper-pearson")
    assert cohen.best(10).radius(1.0) == pytest.approx(3.8114565634)


def decide(decider: Decider, *tables: list[int], sigma: float = 0.5) -> Decision:
    """The first table has the votes of the selection, the others those of the stages."""
    return decider.decide(prescribed(*tables, sigma=sigma), IMAGES[0], 0)


def radius_at(p: float, sigma: float = 0.5) -> float:
    """At which p is just enough."""
    return sigma * float(stats.norm.ppf(p))


def test_every_stage_has_noise_of_its_own():
    classifier = recording(SmallNet(), 3)
    Decider(radius_at(0.5), samples=1000, alpha=1e-200, selection_samples=30, seed=5).decide(
        classifier, IMAGES[0], index=7
    )
    stages = [(Purpose.DECISION, 7, stage, 0, drawn) for stage, drawn in enumerate((100, 100, 200, 400, 200))]
    assert [draw.noise for draw in classifier.draws] == [(Purpose.SELECTION, 7, 0, 0, 30), *stages]
    assert {draw.key.seed for draw in classifier.draws} == {5}


def test_the_class_that_is_decided_on_is_chosen_on_the_selection_alone():
    decider = Decider(radius_at(0.5), selection_samples=10)
    assert decide(decider, [4, 6, 0], [100, 0, 0]) == Decision(1, False, 0, 100, 110)
    assert decide(decider, [4, 6, 0], [0, 100, 0]) == Decision(1, True, 100, 100, 110)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_a_stage_decides_at_its_share_of_alpha(sigma: float):
    """With 4 stages of at most 800. Unanimous votes prove p > (α/4)^(1/n), none at all p < 1 − (α/4)^(1/n)."""
    alpha, first, second = 0.01, [0, 100, 0], [0, 100, 0]
    at_once, later = (0.0025 ** (1 / n) for n in (100, 200))
    for p, samples in ((at_once - 1e-4, 100), (at_once + 1e-4, 200), (later - 1e-4, 200)):
        decider = Decider(radius_at(p, sigma), samples=800, selection_samples=10, alpha=alpha)
        found = decide(decider, [0, 10, 0], first, second, sigma=sigma)
        assert found == Decision(1, True, samples, samples, samples + 10)
    for p, samples in ((1 - at_once + 1e-4, 100), (1 - at_once - 1e-4, 200)):
        decider = Decider(radius_at(p, sigma), samples=800, selection_samples=10, alpha=alpha)
        found = decide(decider, [0, 10, 0], [100, 0, 0], [100, 0, 0], sigma=sigma)
        assert found == Decision(1, False, 0, samples, samples + 10)


def test_votes_of_all_stages_count_and_abstentions_for_nobody():
    decider = Decider(radius_at(0.7), samples=400, selection_samples=10, alpha=0.01)
    found = decide(decider, [0, 10, 0], [30, 65, 5], [30, 68, 2], [50, 140, 10])
    assert found == Decision(1, None, 273, 400, 410)


def test_a_bound_on_the_threshold_itself_decides_nothing():
    for votes in (0, 40, 90, 100):
        lower, upper = (float(bound(votes, 100, 0.01)) for bound in (clopper_pearson_lower, clopper_pearson_upper))
        assert Decider.verdict(votes, 100, lower, 0.01) is None
        assert Decider.verdict(votes, 100, upper, 0.01) is None
        if votes:
            assert Decider.verdict(votes, 100, np.nextafter(lower, 0), 0.01) is True
        if votes < 100:
            assert Decider.verdict(votes, 100, np.nextafter(upper, 1), 0.01) is False


@pytest.mark.parametrize("certificate", ["li", "lecuyer"])
def test_a_decision_is_that_of_the_radius_by_the_same_certificate(certificate: str):
    """Unanimous votes prove p > (α/4)^(1/n); the largest radius that this certifies is where the decision turns."""
    p = 0.0025 ** (1 / 800)
    most = float(resolve_name(CERTIFICATES[certificate].radius)(p, 1 - p))
    votes = [[0, 100, 0], [0, 100, 0], [0, 200, 0], [0, 400, 0]]
    for radius, verdict in ((0.999 * most, True), (1.001 * most, None)):
        decider = Decider(2.0 * radius, samples=800, selection_samples=10, alpha=0.01, certificate=certificate)
        assert decide(decider, [0, 10, 0], *votes, sigma=2.0).certified is verdict
        assert decider.largest_radius(2.0) == pytest.approx(2.0 * most)


def test_a_radius_beyond_a_certificates_reach_is_never_certified():
    decider = Decider(0.6, samples=100, selection_samples=10, certificate="lecuyer")
    assert decide(decider, [0, 10, 0], [0, 100, 0], sigma=1.0).certified is None
    assert decide(decider, [0, 10, 0], [5, 95, 0], sigma=1.0).certified is False


@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_a_certified_radius_is_the_certificates(certificate: str):
    tables = [0, 10, 0, 0], [50, 900, 30, 20]
    (found,) = Certifier(10, 1000, 0.01, "goodman", certificate=certificate).certify(
        prescribed(*tables, sigma=0.5), IMAGES[:1], [0]
    )
    lower, _ = interval(900, 1000, 3, 0.01, "goodman")
    _, upper = interval(50, 1000, 3, 0.01, "goodman")
    assert found.radius == pytest.approx(0.5 * float(resolve_name(CERTIFICATES[certificate].radius)(lower, upper)))
