"""A success is what fresh noise proves: right on models whose boundary is known, and rare where there is none."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from networks import Linear, make_linear
from prescribed import SHAPE, Recording, fewest_votes, prescribed, recording
from scipy import stats
from torch import nn

from caa_cli.attacks.common.loop import Candidate, Example, Finding
from caa_cli.config.bounds import BOUNDS
from caa_cli.smoothing.noise import Purpose
from caa_cli.verification.claim import Claim
from caa_cli.verification.line_search import Crossing, margin, margin_to_pass
from caa_cli.verification.rules import RULES
from caa_cli.verification.verifier import Verifier

intervals = partial(Verifier, rule="intervals")


def finding(linear: Linear, beyond: list[float], distance: float = 1.0, index: int = 0) -> Finding:
    """Candidates this far beyond the plane, for an image at `distance` on the side of class 1."""
    clean = linear.at(distance)
    candidates = []
    for b in beyond:
        image = linear.at(-b)
        p = stats.norm.cdf(b / linear.classifier.sigma)
        votes = torch.tensor([round(1500 * p), 1500 - round(1500 * p)])
        candidates.append(Candidate(image, float((image - clean).norm()), votes))
    return Finding(Example(index, clean, 1), candidates, 10, 0, 0, 0, 0.0)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("beyond", [0.02, 0.1, 0.5])
def test_the_finish_finds_the_shortest_provable_distance_on_the_ray(bound: str, beyond: float):
    linear = make_linear()
    proved = intervals(bound=bound).verify(finding(linear, [beyond]), linear.classifier)
    assert proved.radius is not None
    assert 1.0 < proved.radius < 1.05
    assert proved.radius == pytest.approx(float((proved.image - linear.at(1.0)).norm()), rel=1e-6)


FAR = [*((rule, *place) for rule in RULES for place in ((1.0, 25.0), (8.0, 30.0))), ("exact", 1.0, 60.0)]
FAR += [("exact", 50.0, 30.0)]


@pytest.mark.parametrize(("rule", "boundary", "beyond"), FAR)
def test_the_finish_comes_back_from_a_candidate_far_beyond_the_boundary(rule: str, boundary: float, beyond: float):
    """All distances in σ. A unanimous vote does not say how far away the boundary is."""
    sigma = 0.03
    linear = make_linear(sigma)
    for index in range(3):
        proposed = finding(linear, [beyond * sigma], boundary * sigma, index)
        proved = Verifier(rule=rule).verify(proposed, linear.classifier)
        assert proved.radius is not None
        assert boundary < proved.radius / sigma < boundary + 0.25


def test_without_the_finish_the_nearest_candidate_that_passes_is_taken():
    linear = make_linear()
    proved = intervals(finish="none").verify(finding(linear, [0.0, 0.1, 0.2]), linear.classifier)
    assert proved.radius == pytest.approx(1.1, rel=1e-4)
    assert proved.tries == 2
    assert proved.forward_evaluations == 2 * 15000


def test_without_the_finish_it_backs_off_beyond_the_last_candidate():
    linear = make_linear()
    verifier = intervals(finish="none", samples=50_000)
    proved = verifier.verify(finding(linear, [0.0]), linear.classifier)
    assert proved.tries > 1
    assert 1.01 < proved.radius < 1.07


def test_nothing_to_try_is_no_success():
    linear = make_linear()
    empty = Finding(Example(0, linear.at(1.0), 1), [], 10, 0, 0, 0, 0.0)
    assert intervals().verify(empty, linear.classifier).image is None


def test_a_candidate_on_the_wrong_side_is_never_proved_where_it_is():
    linear = make_linear()
    proved = intervals(finish="none", tries=1).verify(finding(linear, [-0.2]), linear.classifier)
    assert proved.image is None
    assert proved.radius is None


# A short ray through grey, on which the verifier's points can be told apart: `ray(d)` is d away from grey.
GREY = torch.full(SHAPE, 0.5)


def ray(distance: float) -> torch.Tensor:
    return GREY + distance / 8.0


def on_ray(*distances: float, votes: tuple[int, ...] = (700, 800), confident: bool = True, index: int = 7) -> Finding:
    """Candidates at these distances; grey has label 0."""
    candidates = [Candidate(ray(d), d, torch.tensor(votes), confident) for d in distances]
    return Finding(Example(index, GREY, 0), candidates, 10, 0, 0, 0, 0.0)


def distances(classifier: Recording) -> list[float]:
    return [float((draw.image - GREY).norm()) for draw in classifier.draws]


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("abstained", [0, 400])
def test_each_try_takes_as_many_votes_as_its_share_of_alpha_asks_for(bound: str, abstained: int):
    """One vote fewer fails. Samples that abstain count in the total."""
    enough = fewest_votes(1000 - abstained, 1000, 3, 0.02 / 4, bound)
    fails, passes = ([1000 - abstained - k, k, 0, abstained] for k in (enough - 1, enough))
    verifier = intervals(samples=1000, alpha=0.02, bound=bound, finish="none")
    proved = verifier.verify(on_ray(1.0, 1.5, 1.7, votes=(700, 800, 0)), prescribed(fails, passes))
    assert (proved.tries, proved.adversarial_class) == (2, 1)
    assert proved.radius == pytest.approx(1.5)
    assert proved.forward_evaluations == 2000


@pytest.mark.parametrize("finish", ["ray", "none"])
def test_every_probe_and_every_try_has_noise_of_its_own(finish: str):
    classifier = prescribed(*[[500, 500, 0]] * 4, *[[1000, 0, 0]] * 4)
    if finish == "none":
        classifier = prescribed(*[[1000, 0, 0]] * 4)
    verifier = intervals(samples=1000, probe_samples=1000, seed=5, finish=finish)
    proved = verifier.verify(on_ray(1.0), classifier)
    assert (proved.image, proved.tries, proved.samples) == (None, 4, 1000)
    probes = [(Purpose.PROBE, 7, probe, 0, 1000) for probe in range(4)]
    tries = [(Purpose.VERIFICATION, 7, attempt, 0, 1000) for attempt in range(4)]
    assert [draw.noise for draw in classifier.draws] == (probes + tries if finish == "ray" else tries)
    assert {draw.key.seed for draw in classifier.draws} == {5}


def test_the_class_of_a_one_sided_bound_is_named_by_the_search():
    """Else the class with the most votes would be chosen on the votes that are to prove it."""
    verifier = intervals(samples=1000, bound="clopper-pearson", finish="none", tries=2)
    found = on_ray(1.0, votes=(100, 900, 500))
    assert verifier.verify(found, prescribed(*[[0, 0, 1000, 0]] * 2)).image is None
    assert verifier.verify(found, prescribed([0, 1000, 0, 0])).adversarial_class == 1


def test_with_simultaneous_bounds_any_other_class_may_be_proved():
    """Though the search took it for weaker."""
    proved = intervals(samples=1000, finish="none").verify(
        on_ray(1.0, votes=(100, 900, 500)), prescribed([0, 0, 1000, 0])
    )
    assert (proved.tries, proved.adversarial_class) == (1, 2)


def test_the_label_is_never_the_class_that_is_proved():
    """An unconfirmed candidate may have its votes for the label."""
    verifier = intervals(samples=1000, bound="clopper-pearson", finish="none")
    found = on_ray(1.0, votes=(900, 500, 100), confident=False)
    assert verifier.verify(found, prescribed(*[[1000, 0, 0, 0]] * 4)).image is None


def test_a_third_class_may_be_even_with_the_one_that_is_proved():
    """A success is another class above the label, whatever the rest."""
    verifier = intervals(samples=1000, finish="none")
    proved = verifier.verify(on_ray(1.0, votes=(700, 800, 0)), prescribed([100, 455, 445, 0]))
    assert (proved.tries, proved.adversarial_class) == (1, 1)


def test_without_the_finish_the_points_are_the_candidates_and_then_beyond_the_last():
    classifier = prescribed(*[[1000, 0, 0]] * 5)
    intervals(samples=1000, finish="none", tries=5).verify(on_ray(1.0, 1.5), classifier)
    assert distances(classifier) == pytest.approx([1.0, 1.5, 1.5 * 1.02, 1.5 * 1.04, 1.5 * 1.06])


def test_points_beyond_the_box_are_moved_into_it_and_measured_there():
    classifier = prescribed([1000, 0, 0], [0, 1000, 0])
    image = GREY.clone()
    image[0, 0, 0], image[0, 0, 1] = 0.99, 0.6
    found = Finding(Example(0, GREY, 0), [Candidate(image, 0.5, torch.tensor([0, 9]))], 1, 0, 0, 0, 0.0)
    proved = intervals(samples=1000, finish="none").verify(found, classifier)
    expected = GREY.clone()
    expected[0, 0, 0], expected[0, 0, 1] = 0.9998, 0.602
    torch.testing.assert_close(proved.image, expected)

    image[0, 0, 0] = 1.0
    proved = intervals(samples=1000, finish="none").verify(found, prescribed([1000, 0, 0], [0, 1000, 0]))
    expected[0, 0, 0] = 1.0
    torch.testing.assert_close(proved.image, expected)
    assert proved.radius == pytest.approx(float((expected - GREY).norm()))


@pytest.mark.parametrize(("search_sigma", "sigma"), [(None, 0.5), (0.25, 0.25)])
def test_the_first_probe_is_where_the_search_puts_the_boundary(search_sigma: float | None, sigma: float):
    classifier = prescribed(*[[500, 500, 0]] * 2)
    verifier = intervals(samples=1000, probes=1, probe_samples=1000, tries=1, search_sigma=search_sigma)
    verifier.verify(on_ray(1.0, votes=(300, 700)), classifier)
    beyond = sigma * stats.norm.ppf(0.7)
    assert distances(classifier)[0] == pytest.approx(1.0 - beyond / 0.75, rel=1e-5), "at the slope of most rays"


def test_no_probe_lies_behind_the_clean_image():
    classifier = prescribed([1000, 0, 0], [1000, 0, 0])
    verifier = intervals(samples=1000, probes=1, probe_samples=1000, tries=1)
    verifier.verify(on_ray(0.3, votes=(0, 1500)), classifier)
    assert torch.equal(classifier.draws[0].image, GREY)


@pytest.mark.parametrize("bound", BOUNDS)
def test_probes_and_tries_are_where_the_line_says_that_a_proof_will_pass(bound: str):
    """With half a standard error to spare, then 1, 2 and 3; failed tries sharpen the line."""
    tables = [[320, 280, 0, 0], [300, 296, 4, 0], [250, 320, 30, 0], [280, 290, 10, 20]]
    tries = [[1010, 980, 10, 0], [1000, 985, 15, 0], [990, 1000, 5, 5], [1005, 985, 10, 0]]
    classifier = prescribed(*tables, *tries)
    verifier = intervals(samples=2000, probe_samples=600, alpha=0.02, bound=bound)
    verifier.verify(on_ray(0.9, votes=(740, 760, 0)), classifier)
    assert [draw.samples for draw in classifier.draws] == [600] * 4 + [2000] * 4

    visited, line = distances(classifier), Crossing()
    for number, (draw, distance) in enumerate(zip(classifier.draws, visited, strict=True)):
        if number > 0:
            spare = (0.5, 0.5, 0.5, 0.5, 1.0, 2.0, 3.0)[number - 1]
            target = margin_to_pass(line.mass, 2000, 3, 0.02 / 4, bound, 0.5, spare)
            expected = line.solve(spare if number > 3 else 0.0, target)
            assert distance == pytest.approx(expected, rel=1e-5), number
        line.add(distance, margin(draw.votes, draw.samples, Claim(0, 3).sides(draw.votes), 0.5))
    assert visited[4:] == sorted(visited[4:])


def test_each_try_goes_further_out_though_the_line_may_not():
    """The first fails by one vote of many; then the line would have the next hardly further out."""
    samples, level = 60_000, 0.001
    enough = fewest_votes(samples, samples, 2, level, "goodman")
    classifier = prescribed([500, 500, 0], *[[samples - enough + 1, enough - 1, 0]] * 3)
    verifier = intervals(samples=samples, probes=1, probe_samples=1000, alpha=3 * level, tries=3)
    verifier.verify(on_ray(3.9, votes=(750, 750)), classifier)
    first, second = distances(classifier)[1:3]
    assert second == pytest.approx(1.003 * first, rel=1e-5)


def test_the_last_try_is_at_least_as_far_out_as_the_candidate():
    classifier = prescribed([500, 500, 0], *[[1000, 0, 0]] * 2)
    verifier = intervals(samples=1000, probes=1, probe_samples=1000, tries=2)
    verifier.verify(on_ray(2.0, votes=(300, 1200)), classifier)
    assert distances(classifier)[1] < 1.9
    assert distances(classifier)[2] == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize(("sure", "last"), [(3.0, 3.0), (1.2, None)])
def test_the_last_try_of_an_unconfirmed_candidate_is_on_the_ray_of_one_that_looked_adversarial(
    sure: float, last: float | None
):
    """At its own distance, or further out if the line says so."""
    found = on_ray(1.0, votes=(800, 700), confident=False)
    image = GREY.clone()
    image[0, :, :4] += sure / np.sqrt(32)
    found.candidates.append(Candidate(image.clamp(0, 1), sure, torch.tensor([700, 800])))
    classifier = prescribed([800, 200, 0], *[[1000, 0, 0]] * 2)
    verifier = intervals(samples=1000, probes=1, probe_samples=1000, tries=2)
    verifier.verify(found, classifier)
    first, final = (draw.image for draw in classifier.draws[1:])
    assert float((first - GREY)[0, :, 4:].norm()) > 0.1, "on its own ray"
    assert float((final - GREY)[0, :, 4:].norm()) == 0.0
    if last is None:
        assert float((final - GREY).norm()) > 1.3
    else:
        torch.testing.assert_close(final, image.clamp(0, 1))


class Even(nn.Module):
    """Classes whose shares do not depend on the image but for its first pixel, which stays grey: the label, 0, and
    class 1 have the same, all others together `rest`."""

    def __init__(self, classes: int, rest: float) -> None:
        super().__init__()
        shares = torch.tensor([(1.0 - rest) / 2] * 2 + [rest / max(classes - 2, 1)] * (classes - 2))
        self.edges, self.classes = shares.cumsum(0)[:-1].contiguous(), classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        uniform = torch.special.ndtr((x[:, 0, 0, 0] - 0.5) / 0.5)
        return nn.functional.one_hot(torch.bucketize(uniform, self.edges), self.classes).float()


@pytest.mark.parametrize(
    ("bound", "classes", "rest", "finish"),
    [
        ("clopper-pearson", 2, 0.0, "none"),
        ("clopper-pearson", 2, 0.0, "ray"),
        ("goodman", 10, 0.12, "none"),
    ],
)
def test_where_the_label_is_even_with_another_class_a_proof_is_no_likelier_than_alpha(
    bound: str, classes: int, rest: float, finish: str
):
    """Every point tried has the label even with its strongest rival, and any of the others may be claimed."""
    shape, repeats = (1, 1, 2), 50
    classifier = recording(Even(classes, rest), classes, shape)
    clean = torch.full(shape, 0.5)
    image = clean + torch.tensor([0.0, 0.3])
    votes = torch.tensor([450, 550] + [0] * (classes - 2))
    verifier = intervals(samples=250, alpha=0.2, bound=bound, finish=finish, probes=1, probe_samples=250)
    false = 0
    for index in range(repeats):
        found = Finding(Example(index, clean, 0), [Candidate(image, 0.3, votes)], 10, 0, 0, 0, 0.0)
        false += verifier.verify(found, classifier).image is not None
    assert false <= stats.binom.ppf(0.9999, repeats, 0.2), f"{false} of {repeats}"
