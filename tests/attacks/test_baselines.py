"""The baseline attacks: right where the nearest point is known, and the same however they are batched."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from networks import SmallNet, make_linear, make_small
from torch import Tensor, nn

from caa_cli.attacks.baselines.alma import Alma
from caa_cli.attacks.baselines.apgd_min import ApgdMin
from caa_cli.attacks.baselines.autoattack import AutoAttack
from caa_cli.attacks.baselines.baseline import Baseline
from caa_cli.attacks.baselines.cw import CarliniWagner
from caa_cli.attacks.baselines.ddn import Ddn
from caa_cli.attacks.baselines.deepfool import DeepFool
from caa_cli.attacks.baselines.fmn import Fmn
from caa_cli.attacks.baselines.pdgd import Pdgd
from caa_cli.attacks.baselines.pgd import Pgd
from caa_cli.attacks.baselines.sdf import Sdf
from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.common.loop import Batch, Example, Finding, Search
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.verification.verifier import Verifier

# One of every kind, and of every branch: small budgets that end some examples earlier than others.
CHEAP: dict[str, Baseline] = {
    "pgd": Pgd(steps=12, epsilon=0.25),
    "cw": CarliniWagner(steps=5, binary_search_steps=3, initial_constant=0.5, learning_rate=1.0),
    "cw-fixed": CarliniWagner(steps=8, constant=5.0, learning_rate=1.0),
    "deepfool": DeepFool(steps=12),
    "deepfool-two": DeepFool(steps=12, candidates=2),
    "autoattack": AutoAttack(steps=8),
    "autoattack-minimise": AutoAttack(steps=4, minimise=True, searches=4),
    "ddn": Ddn(steps=12),
    "fmn": Fmn(steps=12),
    "alma": Alma(steps=12, average=0.5),
    "pdgd": Pdgd(steps=12, primal_lr=0.2),
    "sdf": Sdf(steps=12),
    "apgd-min": ApgdMin(steps=4, targets=2, searches=4),
}
CHEAP = {name: replace(attack, samples=200) for name, attack in CHEAP.items()}
everyone = pytest.mark.parametrize("name", CHEAP)


def search(attack: Baseline, classifier: SmoothedClassifier, examples: list[Example], batch: int) -> list[Finding]:
    found = list(Search(attack, classifier, batch).run(examples))
    return sorted(found, key=lambda finding: finding.example.index)


def small_examples(classifier: SmoothedClassifier, count: int = 4) -> list[Example]:
    """Images with black and white pixels among them, so that the box binds."""
    images = (1.6 * torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(3)) - 0.3).clamp(0, 1)
    labels = classifier.model(images).argmax(dim=1).tolist()
    return [Example(i, image, label, 0.2) for i, (image, label) in enumerate(zip(images, labels, strict=True))]


@pytest.mark.parametrize(
    ("attack", "within"),
    [
        (Pgd(), 0.05),
        (DeepFool(), 0.02),
        (Ddn(steps=40), 0.05),
        (Fmn(steps=40), 0.02),
        (Alma(steps=60, average=0.5), 0.05),
        (AutoAttack(steps=10, minimise=True, searches=8), 0.05),
        (Pdgd(steps=250), 0.05),
        (Sdf(), 0.02),
        (ApgdMin(steps=10, searches=8), 0.05),
        (CarliniWagner(steps=60, constant=2.0, learning_rate=0.02), 0.05),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Baseline) else "",
)
def test_on_a_linear_model_the_radius_is_the_distance_to_the_plane(attack: Baseline, within: float):
    linear, distances = make_linear(gradient_chunk=2048, votes_chunk=2048), (1.2, 1.8)
    examples = [Example(index, linear.at(distance), 1, distance) for index, distance in enumerate(distances)]
    attack = replace(attack, samples=1000)
    verifier = Verifier(samples=40_000, probe_samples=4000)
    for finding, distance in zip(search(attack, linear.classifier, examples, 2), distances, strict=True):
        assert finding.lost_gradients == 0
        # What it found itself: off by the confidence that 1,000 votes leave, and by its last step.
        assert finding.candidates[0].distance < 1.12 * distance
        proved = verifier.verify(finding, linear.classifier)
        assert proved.radius is not None
        assert 0.995 * distance <= proved.radius <= (1 + within) * distance


def test_pgd_stops_within_a_step_of_the_boundary_it_could_prove():
    linear = make_linear()
    (finding,) = search(Pgd(samples=4000), linear.classifier, [Example(0, linear.at(1.0), 1)], 1)
    (found,) = finding.candidates
    # 4,000 votes are confident from about 0.03 beyond the plane.
    assert 1.0 < found.distance < 1.03 + 0.03 + 20 / 255
    assert finding.iterations < 20


@everyone
@pytest.mark.parametrize("batch", [3, 4])
def test_an_examples_result_depends_on_neither_batch_nor_chunk(name: str, batch: int):
    examples = small_examples(make_small())
    alone = search(CHEAP[name], make_small(gradient_chunk=1000), examples, 1)
    together = search(CHEAP[name], make_small(gradient_chunk=150), examples, batch)
    assert any(finding.candidates for finding in alone)
    for one, other in zip(alone, together, strict=True):
        assert (one.iterations, one.forward_evaluations) == (other.iterations, other.forward_evaluations)
        assert one.backward_evaluations == other.backward_evaluations
        ours, theirs = ([c.distance for c in finding.candidates] for finding in (one, other))
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("name", ["pgd", "deepfool", "autoattack"])
def test_examples_of_one_batch_end_at_different_times(name: str):
    examples = small_examples(make_small(), 6)
    assert len({finding.iterations for finding in search(CHEAP[name], make_small(), examples, 6)}) > 1


class Counting(nn.Module):
    """Counts the inputs that go forward and those whose gradient is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = SmallNet()
        self.forward_evaluations = self.backward_evaluations = 0

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        self.forward_evaluations += len(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backward_evaluations += len(gradient)


@everyone
def test_the_evaluations_are_those_that_were_made(name: str):
    model = Counting()
    # Chunks too small for the pilot, of which not all graphs may wait, cost evaluations of their own.
    classifier = SmoothedClassifier(model, sigma=0.5, num_classes=3, input_shape=(1, 8, 8), gradient_chunk=50)
    classifier.graphs = 50
    examples = small_examples(make_small(), 3)
    found = search(CHEAP[name], classifier, examples, 2)
    assert sum(finding.forward_evaluations for finding in found) == model.forward_evaluations
    assert sum(finding.backward_evaluations for finding in found) == model.backward_evaluations


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0, 0.5]).expand(len(x), 3) + 0.0 * x.sum()


class Blind(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 3), torch.nan) * x.sum()


@everyone
@pytest.mark.parametrize("model", [Constant, Blind])
def test_a_model_without_gradient_is_said_to_have_none(name: str, model: type[nn.Module]):
    classifier = SmoothedClassifier(model(), sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    (finding,) = search(CHEAP[name], classifier, [Example(0, torch.full((1, 8, 8), 0.5), 1, 0.2)], 1)
    assert finding.candidates == []
    assert finding.iterations == CHEAP[name].iterations
    assert finding.lost_gradients == finding.iterations


class BlindToBright(SmallNet):
    """NaN for bright inputs: an image on which every attack fails."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(dim=1, keepdim=True) > 0.7
        return torch.where(bright, torch.nan, super().forward(x))


@pytest.mark.parametrize("name", [*CHEAP, "caa"])
def test_an_image_on_which_an_attack_fails_leaves_the_others_untouched(name: str):
    attack = CHEAP.get(name) or CertificationAware(samples=200, iterations=12, step_min=0.4, step_max=0.8)
    good = small_examples(make_small(), 3)
    bad = Example(7, torch.full((1, 8, 8), 0.98), 1, 0.2)

    def run(examples: list[Example]) -> list[Finding]:
        model = SmoothedClassifier(BlindToBright(), sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
        return search(attack, model, examples, 2)

    alone = run(good)
    *together, failed = run([good[0], bad, *good[1:]])
    if name not in (
        "autoattack-minimise",
        "apgd-min",
    ):  # which starts ever further from the image, at last where there are gradients
        assert failed.candidates == []
    assert failed.lost_gradients > 0
    assert any(finding.candidates for finding in alone)
    for one, other in zip(alone, together, strict=True):
        ours, theirs = ([c.distance for c in finding.candidates] for finding in (one, other))
        assert ours == pytest.approx(theirs, rel=1e-3)
        assert (one.iterations, one.forward_evaluations) == (other.iterations, other.forward_evaluations)


@everyone
def test_candidates_are_in_the_box_in_order_and_another_class(name: str):
    classifier = make_small()
    for finding in search(CHEAP[name], classifier, small_examples(classifier), 4):
        distances = [candidate.distance for candidate in finding.candidates]
        assert distances == sorted(distances)
        for candidate in finding.candidates:
            assert 0.0 <= float(candidate.image.min()) <= float(candidate.image.max()) <= 1.0
            measured = float((candidate.image - finding.example.image).norm())
            assert candidate.distance == pytest.approx(measured, rel=1e-4)
            assert int(candidate.votes.sum()) == 200
            assert int(candidate.votes.argmax()) != finding.example.label


@pytest.mark.parametrize("name", ["ddn", "autoattack"])
def test_the_seed_decides(name: str):
    def distances(seed: int) -> list[float]:
        found = search(replace(CHEAP[name], seed=seed), make_small(), small_examples(make_small()), 4)
        return [candidate.distance for finding in found for candidate in finding.candidates]

    assert distances(1) == distances(1)
    assert distances(1) != distances(2)


def path_of(attack: Baseline, classifier: SmoothedClassifier, example: Example) -> list[Tensor]:
    """x after every step."""
    points: list[Tensor] = []
    list(Search(attack, classifier, 1, lambda state: points.append(note(state))).run([example]))
    return points


def note(state: Batch) -> Tensor:
    return state.x[0].clone()


def test_ddn_lengthens_and_shortens_by_gamma():
    linear = make_linear()
    example = Example(0, linear.at(1.0), 1)
    lengths = [
        float((x - example.image).norm()) for x in path_of(Ddn(samples=200, steps=10), linear.classifier, example)
    ]
    ratios = [after / before for before, after in pairwise(lengths)]
    assert lengths[0] == pytest.approx(1.05, rel=1e-4)
    assert all(min(abs(ratio - 0.95), abs(ratio - 1.05)) < 1e-4 for ratio in ratios)


def test_pgd_steps_are_epsilon_long():
    linear = make_linear()
    points = path_of(Pgd(samples=200, steps=5, epsilon=0.1), linear.classifier, Example(0, linear.at(2.0), 1))
    assert [float((b - a).norm()) for a, b in pairwise(points)] == pytest.approx([0.1] * 4, rel=1e-3)


def test_autoattack_stays_in_its_ball_and_starts_on_its_sphere():
    linear = make_linear()
    example = Example(0, linear.at(2.0), 1, 0.1)
    lengths = [
        float((x - example.image).norm())
        for x in path_of(AutoAttack(samples=100, steps=10), linear.classifier, example)
    ]
    assert max(lengths) <= 0.5 * 1.0001
    assert path_of(AutoAttack(samples=100, steps=2, radius=0.3), linear.classifier, example)


def test_a_fixed_radius_takes_the_place_of_the_certified_one():
    linear = make_linear()
    state = AutoAttack(radius=0.3).start([Example(0, linear.at(2.0), 1, 5.0)], linear.classifier)
    assert state.epsilon.tolist() == pytest.approx([0.3])
    state = AutoAttack().start([Example(0, linear.at(2.0), 1, 0.01)], linear.classifier)
    assert state.epsilon.tolist() == pytest.approx([0.1])
    assert float((state.x - state.clean).norm()) == pytest.approx(0.1, rel=1e-3)


def test_of_two_classes_autoattack_runs_on_the_cross_entropy_alone():
    linear = make_linear()
    (finding,) = search(AutoAttack(samples=100, steps=4), linear.classifier, [Example(0, linear.at(3.0), 1, 0.1)], 1)
    assert finding.candidates == []
    assert finding.iterations == 4


@pytest.mark.parametrize("attack", [AutoAttack(), ApgdMin()])
def test_a_run_that_too_few_classes_leave_out_is_said_before(attack):
    assert [heading for heading, _ in attack.notes(2)] == ["two classes"]
    assert attack.notes(4) == []


def test_autoattack_says_what_a_target_among_three_classes_leaves_out():
    assert AutoAttack().runs(3, targeted=True) < AutoAttack().runs(3)
    ((heading, text),) = AutoAttack().notes(3)
    assert heading == "three classes"
    assert "--target" in text


def test_carlini_and_wagner_multiply_c_by_ten_until_success_and_then_bisect():
    linear = make_linear()
    attack = CarliniWagner(samples=200, steps=20, initial_constant=0.01, binary_search_steps=5, learning_rate=0.05)
    constants: list[float] = []
    list(
        Search(attack, linear.classifier, 1, lambda state: constants.append(float(state.constant[0]))).run(
            [Example(0, linear.at(0.6), 1)]
        )
    )
    rounds = constants[19::20]
    first = next(i for i, c in enumerate(rounds) if c not in (0.1, 1.0, 10.0, pytest.approx(0.1), pytest.approx(1.0)))
    assert rounds[0] == pytest.approx(0.1)
    assert first >= 1
    assert all(c < 10 for c in rounds[first:])


@pytest.mark.parametrize(("start_at", "first"), [("image", 0.0), ("grey", 0.5)])
def test_every_round_of_carlini_and_wagner_begins_at_the_image_or_at_grey(start_at: str, first: float):
    linear = make_linear()
    attack = CarliniWagner(samples=50, steps=3, binary_search_steps=2, learning_rate=0.01, start_at=start_at)
    image, begun = torch.zeros(1, 20, 20), []
    state = attack.start([Example(0, image, 0)], linear.classifier)
    for _ in range(2):
        begun.append(state.x.clone())
        for _ in range(3):
            attack.step(state, linear.classifier)
            state.iteration += 1
    for x in begun:
        torch.testing.assert_close(x, torch.full_like(x, first), rtol=0, atol=1e-5)
