"""What goes beyond the paper's algorithm, refinement along the boundary and runs after several rivals, against models
whose nearest adversarial point is known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import make_linear
from support import CHEAP, caa, read_strict
from torch import Tensor, nn

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.caa.tangential import slide
from caa_cli.attacks.common.loop import Example, Finding, Search
from caa_cli.attacks.common.ranking import ranking_samples, top_classes
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.choices import RADIAL, REFINEMENTS, TANGENTIAL
from caa_cli.run.registry import build_attack
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.verification.verifier import Verifier

GREY = torch.full((1, 20, 20), 0.5)
AXES = torch.linalg.qr(torch.randn(400, 3, generator=torch.Generator().manual_seed(7))).Q.T
CHUNKS = {"votes_chunk": 2048, "gradient_chunk": 2048}


class Misleading(nn.Module):
    """Votes, and so the smoothed classifier, of a linear model whose boundary is `distance` away from grey. But its
    scores grow to one side, and the more the further away from the boundary, so there the gradient points sideways:
    z = 2m·exp(−0.6a), m the distance to the boundary and a along another axis, and ∇z ∝ ∇m − 0.6m·∇a."""

    def __init__(self, distance: float) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, x: Tensor) -> Tensor:
        m, a = (torch.tensor([self.distance, 0.0]) - (x - 0.5).flatten(1) @ AXES[:2].T).unbind(dim=1)
        return torch.stack([torch.zeros_like(m), 2.0 * m * torch.exp(-0.6 * a)], dim=1)


class Nearer(nn.Module):
    """Class 0, at right angles the likelier class 1 at a distance of 2, and the steeper class 2 at 1.2 from grey."""

    def forward(self, x: Tensor) -> Tensor:
        along = (x - 0.5).flatten(1) @ AXES[:2].T.to(x)
        return torch.stack([torch.zeros_like(along[:, 0]), 2 * (along[:, 0] - 2.0), 8 * (along[:, 1] - 1.2)], 1)


class FourClasses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 6.0 * torch.stack([x[:, 0, row].mean(dim=1) for row in (0, 2, 4, 6)], dim=1)


def smoothed(model: nn.Module, classes: int) -> SmoothedClassifier:
    return SmoothedClassifier(model, sigma=0.5, num_classes=classes, input_shape=(1, 20, 20), **CHUNKS)


def four_classes() -> tuple[SmoothedClassifier, list[Example]]:
    classifier = SmoothedClassifier(FourClasses(), sigma=0.25, num_classes=4, input_shape=(1, 8, 8), **CHUNKS)
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    images[1, 0, 0, 0] = torch.nan  # never usable
    labels = classifier.model(images).argmax(dim=1).tolist()
    return classifier, [Example(i, image, label) for i, (image, label) in enumerate(zip(images, labels, strict=True))]


def found(
    attack: CertificationAware, classifier: SmoothedClassifier, *examples: Example, batch: int = 1
) -> list[Finding]:
    return sorted(Search(attack, classifier, batch).run(examples), key=lambda finding: finding.example.index)


def radius(attack: CertificationAware, classifier: SmoothedClassifier, example: Example) -> float:
    (finding,) = found(attack, classifier, example)
    proved = Verifier(samples=10_000).verify(finding, classifier)
    assert proved.radius is not None
    return proved.radius


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sliding_makes_good_what_a_misleading_gradient_spoilt(seed: int):
    distance, classifier = 2.4, smoothed(Misleading(2.4), 2)
    radii = {
        refine: radius(CertificationAware(refine=refine, seed=seed), classifier, Example(0, GREY, 1))
        for refine in REFINEMENTS
    }
    # A proof takes a margin of 0.03 here, 1.3%, and its own noise.
    assert 0.995 * distance < radii[TANGENTIAL] < 1.02 * distance
    assert radii[RADIAL] > 1.025 * distance


@pytest.mark.parametrize("refine", REFINEMENTS)
def test_of_several_rivals_the_nearest_counts(refine: str):
    classifier, example = smoothed(Nearer(), 3), Example(0, GREY, 0)
    assert top_classes([example], classifier, 2, 0, 1500).tolist() == [[1, 2]], "the further one is the likelier"
    assert radius(CertificationAware(refine=refine), classifier, example) > 1.9
    both = CertificationAware(refine=refine, rivals=2, iterations=200)
    assert 0.99 * 1.2 < radius(both, classifier, example) < 1.06 * 1.2


def test_any_class_above_the_label_counts_whichever_is_followed():
    attack, classifier = CertificationAware(rivals=2), smoothed(Nearer(), 3)
    state = attack.start([Example(0, GREY, 0)], classifier)
    state.run[0] = 1
    assert state.rivals[0, 1] == 2
    state.x = (GREY.flatten() + 2.5 * AXES[0]).view(1, 1, 20, 20)
    attack.step(state, classifier)
    assert float(state.near_distance[0, 0]) == pytest.approx(2.5, rel=1e-4)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), longest=st.floats(0.05, 0.5), across=st.floats(-0.3, 0.3))
def test_a_slide_stays_in_the_box_and_comes_nearer_in_its_half_space(seed: int, longest: float, across: float):
    generator = np.random.default_rng(seed)
    clean, point = torch.tensor(generator.random((2, 1, 6)))
    normal = torch.nn.functional.normalize(torch.tensor(generator.normal(size=(1, 6))), dim=1)
    need = float(((point - clean) * normal).sum()) + across
    limit = torch.tensor([longest], dtype=torch.float64)
    moved = slide(clean, point, normal, torch.tensor([across], dtype=torch.float64), limit)
    assert float(moved.min()) >= 0.0
    assert float(moved.max()) <= 1.0
    assert float((moved - point).norm()) <= longest + 1e-9
    for _ in range(int(3 / longest) + 5):
        point = slide(clean, point, normal, need - ((point - clean) * normal).sum(dim=1), limit)
    # All the way: in the half-space, as far as the box has such points, and nearer than any point drawn from it.
    most = float((torch.where(normal > 0, 1.0 - clean, -clean) * normal).sum())
    assert float(((point - clean) * normal).sum()) >= min(need, most) - 1e-2
    others = torch.tensor(generator.random((500, 6)))
    others = others[((others - clean) * normal).sum(dim=1) >= need]
    assert all((point - clean).norm() <= (other - clean).norm() + 1e-2 for other in others)


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("rivals", [1, 3])
def test_an_example_of_a_batch_goes_as_if_alone(refine: str, rivals: int):
    attack = CertificationAware(samples=600, iterations=20 * rivals, refine=refine, rivals=rivals)
    classifier, examples = four_classes()
    alone = [found(attack, classifier, example)[0] for example in examples]
    together = found(attack, classifier, *examples, batch=3)
    assert alone[1].candidates == []
    assert sum(bool(finding.candidates) for finding in alone) == 4
    for one, other in zip(alone, together, strict=True):
        assert one.iterations == other.iterations
        assert one.forward_evaluations == other.forward_evaluations
        assert one.backward_evaluations == other.backward_evaluations
        assert one.lost_gradients == other.lost_gradients
        assert [c.distance for c in one.candidates] == pytest.approx([c.distance for c in other.candidates], rel=1e-3)
        for candidate in one.candidates:
            assert 0.0 <= float(candidate.image.min()) <= float(candidate.image.max()) <= 1.0


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("rivals", [1, 2, 7])
def test_evaluations_are_counted_one_by_one_and_announced(refine: str, rivals: int):
    plan = AttackPlan.of(checkpoint="demo", samples=900, iterations=12, refine=refine, rivals=rivals)
    classifier, examples = four_classes()
    taken = [0, 0]

    def count(_: nn.Module, inputs: tuple[Tensor]) -> None:
        taken[0] += len(inputs[0])
        taken[1] += len(inputs[0]) if torch.is_grad_enabled() else 0

    classifier.model.register_forward_pre_hook(count)
    (finding,) = found(build_attack(plan), classifier, examples[0])
    assert [finding.forward_evaluations, finding.backward_evaluations] == taken
    forward, backward = build_attack(plan).budget(classifier.num_classes)
    assert finding.forward_evaluations <= forward
    assert finding.backward_evaluations <= backward
    assert finding.iterations <= 12 * min(rivals, 3)
    assert finding.candidates


def test_tangential_steps_take_the_gradient_with_the_votes():
    linear = make_linear(**CHUNKS)
    attack = CertificationAware(refine=TANGENTIAL, patience=0, iterations=30)
    (finding,) = found(attack, linear.classifier, Example(0, linear.at(1.0), 1))
    first, last = attack.stages()
    assert finding.iterations == 30
    assert finding.backward_evaluations == 30 * first
    assert 30 * first < finding.forward_evaluations <= 30 * last


@pytest.mark.parametrize("refine", REFINEMENTS)
def test_every_run_begins_anew_and_patience_ends_it(refine: str):
    attack, classifier = CertificationAware(refine=refine, rivals=2, iterations=120), smoothed(Nearer(), 3)
    state = attack.start([Example(0, GREY, 0)], classifier)
    assert state.forward.tolist() == [ranking_samples(1500)]
    while int(state.run) == 0:
        attack.step(state, classifier)
        state.iteration += 1
    assert bool(state.x.equal(state.clean))
    assert int(state.iteration) == int(state.begun) < 60, "not for lack of steps"
    assert not bool(state.succeeded)
    assert not bool(state.balls.radii.any())
    first = float(state.near_distance[0, 0])
    assert 1.9 < first < 2.4
    while not bool(state.done):
        attack.step(state, classifier)
        state.iteration += 1
    assert float(state.near_distance[0, 0]) < 0.7 * first
    assert int(state.iteration) < 120


def test_a_run_that_finds_nothing_has_its_share_of_the_steps():
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.0, 1.0, 0.5]).expand(len(x), 3) + 0.0 * x.sum()

    classifier, example = smoothed(Constant(), 3), Example(0, GREY, 1)
    for refine in REFINEMENTS:
        attack = CertificationAware(samples=200, iterations=8, rivals=2, refine=refine)
        state = attack.start([example], classifier)
        assert state.rivals.tolist() == [[2, 0]]
        (finding,) = found(attack, classifier, example)
        assert finding.candidates == []
        assert (finding.iterations, finding.lost_gradients) == (8, 8)
        (finding,) = found(replace(attack, rivals=4), classifier, example)
        assert finding.iterations == 2 * (8 // 4), "of four rivals there are two"


def test_on_the_command_line_and_in_a_comparison(tmp_path):
    words = [*CHEAP, "--limit", "2", "--samples", "100"]
    output = tmp_path / "attack.json"
    result = caa("attack", *words, "--refine", "tangential", "--rivals", "20", "--output", output)
    assert result.exit_code == 0, result.output
    document = read_strict(output)
    assert (document["config"]["refine"], document["config"]["rivals"]) == ("tangential", 20)
    assert [example["outcome"] for example in document["examples"]] == ["attacked"] * 2
    assert all(8 < example["iterations"] <= 9 * 8 for example in document["examples"]), "of 20 rivals there are nine"

    output = tmp_path / "compare.json"
    attacks = "caa,caa:refine=tangential:rivals=3"
    words = [*CHEAP, "--limit", "1", "--attacks", attacks, "--output", output]
    result = caa("compare", *words)
    assert result.exit_code == 0, result.output
    assert "caa:refine=tangential:rivals=3" in result.stdout
    assert (tmp_path / "compare.caa.json").exists()
