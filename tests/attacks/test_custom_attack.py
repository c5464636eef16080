"""An attack of the user's in the loop: what it is given, what it costs, what comes of what it returns."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from networks import Linear, make_linear, make_small
from prescribed import prescribed, recording
from pretended_device import PretendedDevice
from torch import nn

import caa_cli as caa
from caa_cli.attacks.baselines.ddn import Ddn
from caa_cli.attacks.common.loop import Search
from caa_cli.attacks.common.state import Batch, Example, Finding
from caa_cli.attacks.custom.classifier import AttackedClassifier
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.custom_attack import register
from caa_cli.errors import CaaError, UsageError
from caa_cli.run.registry import build_attack
from caa_cli.runtime.user_code import find_callable
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradients import SurrogateModel
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.stein import SteinEstimator
from caa_cli.verification.verifier import Verifier

SAMPLES = 200


def search(attack: Any, classifier: SmoothedClassifier, *images: torch.Tensor, **settings: Any) -> list[Finding]:
    """The findings of images with label 0, numbered from 0."""
    plan = AttackPlan.of(checkpoint="demo", attack=attack, samples=SAMPLES, **settings)
    examples = [Example(index, image, 0) for index, image in enumerate(images)]
    return list(Search(build_attack(plan), classifier, 2).run(examples))


def once(attack: Any, classifier: SmoothedClassifier, image: torch.Tensor, **settings: Any) -> Finding:
    (finding,) = search(attack, classifier, image, **settings)
    return finding


@pytest.fixture
def grey() -> torch.Tensor:
    return torch.full((1, 8, 8), 0.5)


def test_the_exact_crossing_of_a_linear_model_is_verified_close_to_it(linear: Linear):
    normal = (linear.weight / linear.weight.norm()).view(1, 20, 20)
    distance = 0.4
    clean = linear.at(-distance)

    def crossing(classifier, images, labels, generator):
        return images + distance * normal

    finding = once(crossing, linear.classifier, clean)
    assert finding.candidates
    assert finding.confident is None  # as likely one class as the other
    verified = Verifier(samples=10_000, probe_samples=1500).verify(finding, linear.classifier)
    assert verified.adversarial_class == 1
    # The boundary itself can't be verified: what 10,000 samples resolve lies a few hundredths of σ beyond it.
    assert distance < verified.radius < distance + 0.08 * linear.classifier.sigma


def test_a_point_beyond_is_confident_and_one_before_the_boundary_is_no_candidate(linear: Linear):
    normal = (linear.weight / linear.weight.norm()).view(1, 20, 20)
    clean = linear.at(-0.3)

    def moved(classifier, images, labels, generator, by=0.0):
        return images + by * normal

    beyond = once(partial(moved, by=0.6), linear.classifier, clean)
    assert beyond.confident is not None
    assert beyond.confident.distance == pytest.approx(0.6, abs=1e-4)
    before = once(partial(moved, by=0.1), linear.classifier, linear.at(-0.6))
    assert (before.candidates, before.error) == ([], None)
    stayed = once(moved, linear.classifier, linear.at(0.0))
    assert (stayed.candidates, stayed.error) == ([], None)


def test_every_evaluation_is_counted_whoever_makes_it(grey):
    def attack(classifier, images, labels, generator):
        classifier.votes(images, 7)
        classifier.smoothed_logits(torch.cat([images, images]), 5)
        classifier.gradient(images, labels, 150)
        x = images.repeat(3, 1, 1, 1).requires_grad_(True)
        classifier.model(x).sum().backward()
        classifier.as_module(11)(x).sum().backward()
        return images + 0.1

    finding = once(attack, make_small(), grey)
    assert finding.error is None
    # A gradient of the module evaluates its noise once more; the candidate's votes are drawn in the end.
    assert finding.forward_evaluations == 7 + 2 * 5 + 150 + 3 + 2 * 3 * 11 + SAMPLES
    assert finding.backward_evaluations == 150 + 3 + 3 * 11


def test_small_chunks_cost_the_module_nothing(grey):
    def attack(classifier, images, labels, generator):
        x = images.clone().requires_grad_(True)
        classifier.as_module(40)(x).sum().backward()
        return images

    finding = once(attack, make_small(gradient_chunk=8, votes_chunk=8), grey)
    assert (finding.forward_evaluations, finding.backward_evaluations) == (80, 40)


def test_a_candidate_is_judged_on_noise_that_the_attack_did_not_see(grey):
    seen: list[torch.Tensor] = []

    def attack(classifier, images, labels, generator):
        seen.append(classifier.votes(images + 0.1)[0])
        return images + 0.1

    classifier = make_small()
    classifier.model.layers[3].bias.data[0] -= 20.0  # another class wins
    (candidate,) = once(attack, classifier, grey).candidates
    # The same noise at the same point would give the same votes.
    assert not torch.equal(candidate.votes, seen[0])


@pytest.mark.parametrize("chunk", [256, 32])
def test_the_module_has_the_gradient_of_what_it_returns(grey, chunk):
    """Against the same expectation written out, for a function of several logits and of several images."""
    found: dict[str, torch.Tensor] = {}
    classifier = make_small(gradient_chunk=chunk, votes_chunk=chunk)

    def attack(view, images, labels, generator):
        x = (images + 0.1 * torch.rand(2, 1, 8, 8, generator=generator)).requires_grad_(True)
        module = view.as_module(60, fresh=False)
        assert torch.equal(module(x), module(x))
        assert not torch.equal(module(x), view.as_module(60, fresh=False)(x)), "each has noise of its own"
        precise = x.detach().double().requires_grad_(True)
        assert module(precise).dtype == torch.float64
        assert torch.equal(module(precise).float(), module(x))
        weights = torch.tensor([1.0, -0.5, 0.25])
        (found["of the module"],) = torch.autograd.grad((module(x) * weights).sum(), x)
        noise = torch.empty(1, 60, 1, 8, 8)
        classifier.noise.gaussian(noise, [Key(0, 0, Purpose.SEARCH, 0)], 0, classifier.sigma)
        logits = view.model((x[:, None] + noise).flatten(0, 1)).view(2, 60, 3)
        expected = torch.logsumexp(torch.log_softmax(logits, dim=2), dim=1) - np.log(60)
        assert torch.allclose(module(x), expected, atol=1e-5)
        (found["written out"],) = torch.autograd.grad((expected * weights).sum(), x)
        return images

    assert once(attack, classifier, grey).error is None
    assert torch.allclose(found["of the module"], found["written out"], atol=1e-6)


def test_fresh_noise_differs_from_call_to_call(grey):
    def attack(classifier, images, labels, generator):
        module = classifier.as_module(20)
        assert not torch.equal(module(images), module(images))
        return images

    assert once(attack, make_small(), grey).error is None


def test_what_an_image_is_given_does_not_depend_on_the_others(grey):
    """Every source of chance, in a batch of two and alone."""
    drawn: list[tuple[float, ...]] = []

    def attack(classifier, images, labels, generator):
        here = {"generator": generator, "device": classifier.device}
        drawn.append(
            (
                float(torch.rand(1, **here)),
                float(torch.rand(1)),
                random.random(),
                float(np.random.rand()),
                float(classifier.smoothed_logits(images, 10).sum()),
            )
        )
        return images

    search(attack, make_small(), grey, grey)
    first, second = drawn
    assert all(a != b for a, b in zip(first, second, strict=True))
    assert len({*first[:4], *second[:4]}) == 8
    once(attack, make_small(), grey)
    assert drawn[2] == first


def test_what_an_attack_does_to_the_model_and_to_the_generators_stays_its_own(grey):
    classifier = make_small()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        expected = torch.rand(1), random.random(), np.random.rand()
    weights = [parameter.clone() for parameter in classifier.model.parameters()]
    votes = classifier.keyed_votes(grey[None], [Key(0, 5, Purpose.SEARCH)], 50)
    threads = torch.get_num_threads()

    def attack(view, images, labels, generator):
        images += 1.0
        torch.manual_seed(0)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        view.model.train()
        for parameter in view.model.parameters():
            parameter.requires_grad_(True)
            parameter.data.zero_()
        torch.set_default_device("meta")
        torch.set_num_threads(threads + 1)
        torch.set_float32_matmul_precision("medium")
        return torch.rand(1, 1, 8, 8, device="cpu")

    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    finding = once(attack, classifier, grey)
    assert finding.error is None
    assert (torch.rand(1), random.random(), np.random.rand()) == expected
    assert torch.equal(grey, torch.full((1, 8, 8), 0.5))
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.empty(0).device == torch.device("cpu")
    assert torch.get_num_threads() == threads
    assert all(torch.equal(a, b) for a, b in zip(weights, classifier.model.parameters(), strict=True))
    assert not any(module.training for module in classifier.model.modules())
    assert not any(parameter.requires_grad for parameter in classifier.model.parameters())
    assert torch.equal(classifier.keyed_votes(grey[None], [Key(0, 5, Purpose.SEARCH)], 50), votes)


def raises(classifier, images, labels, generator):
    raise ValueError("no way out")


def returning(value: Any, classifier: Any, images: torch.Tensor, labels: Any, generator: Any) -> Any:
    return value(images) if callable(value) else value


@pytest.mark.parametrize(
    ("attack", "error"),
    [
        (raises, "raised ValueError: no way out \\(.*test_custom_attack.py, line "),
        (partial(returning, None), "returned NoneType, not a tensor"),
        (
            partial(returning, np.zeros((1, 1, 8, 8))),
            "returned a NumPy array, not a tensor: torch.from_numpy makes one of it",
        ),
        (partial(returning, lambda x: x[0]), r"shape \(1, 8, 8\), not \(1, 1, 8, 8\)"),
        (partial(returning, lambda x: x.mul(255).to(torch.uint8)), "torch.uint8: pixels are real numbers"),
        (partial(returning, lambda x: x.log() - x.log() / 0), "NaN or infinity in 64 of 64 values"),
        (partial(returning, lambda x: x + 0.51), r"outside of \[0, 1\]: from 1.01 to 1.01"),
        (partial(returning, lambda x: x - 0.75), r"outside of \[0, 1\]: from -0.25 to -0.25"),
        (lambda c, x, y, g: c.votes(x[0]), r"images has the shape \(1, 8, 8\): the model takes \(N, 1, 8, 8\)"),
        (lambda c, x, y, g: c.votes(x, -1), "raised UsageError: samples = -1"),
        (lambda c, x, y, g: c.gradient(x.repeat(3, 1, 1, 1), y), r"labels has the shape \(1,\): give .* \(3,\)"),
        (lambda c, x, y, g: c.is_adversarial(x.repeat(3, 1, 1, 1), y), r"labels has the shape \(1,\)"),
        (lambda c, x, y, g: c.gradient(x, y + 3), "labels holds 3: the model knows the classes 0 to 2"),
        (lambda c, x, y, g: exit(), "raised SystemExit"),
    ],
)
def test_what_can_be_no_candidate_fails_by_itself_and_says_why(grey, attack, error):
    """The other image's search goes on."""

    def attack_of_one(classifier, images, labels, generator):
        return attack(classifier, images, labels, generator) if float(images.max()) == 0.5 else images + 0.25

    failed, other = search(attack_of_one, make_small(), grey, grey / 2)
    assert failed.error is not None
    assert re.search(error, failed.error), failed.error
    assert "attack_of_one" in failed.error
    assert failed.candidates == []
    assert other.error is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_and_rounding_are_no_errors(grey, dtype):
    high = torch.nextafter(torch.ones(1, dtype=dtype), torch.full((1,), 2.0, dtype=dtype))

    def attack(classifier, images, labels, generator):
        return torch.full((1, 1, 8, 8), float(high), dtype=dtype)

    finding = once(attack, make_small(), grey)
    assert finding.error is None
    for candidate in finding.candidates:
        assert candidate.image.dtype == torch.float32
        assert float(candidate.image.max()) == 1.0


def test_an_interruption_passes_through(grey):
    def attack(classifier, images, labels, generator):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(attack, make_small(), grey)


def test_an_attack_of_the_loop_is_the_same_search(linear: Linear):
    """A factory returns one; its candidates' votes are drawn anew."""
    clean = linear.at(-0.3)
    settings = {"samples": SAMPLES, "alpha": 0.005, "bound": "goodman", "seed": 0}
    (theirs,) = Search(Ddn(steps=30, **settings), linear.classifier).run([Example(0, clean, 0)])

    def factory(iterations, samples, alpha, bound, seed, gamma=0.05):
        return Ddn(steps=iterations, samples=samples, alpha=alpha, bound=bound, seed=seed, gamma=gamma)

    ours = once(factory, linear.classifier, clean, iterations=30)
    assert ours.error is None
    assert [c.distance for c in ours.candidates] == [c.distance for c in theirs.candidates]
    assert ours.iterations == theirs.iterations == 30
    assert ours.forward_evaluations == theirs.forward_evaluations + SAMPLES * len(theirs.candidates)
    assert ours.backward_evaluations == theirs.backward_evaluations
    assert not any(torch.equal(a.votes, b.votes) for a, b in zip(ours.candidates, theirs.candidates, strict=True))


def test_an_attack_of_the_loop_is_not_believed(linear: Linear):
    @dataclass(frozen=True)
    class Boastful(Ddn):
        def step(self, state, classifier):
            state.x = state.clean + 0.001
            state.remember(torch.tensor([True]), torch.tensor([[0, SAMPLES]]))
            state.done[:] = True

    finding = once(Boastful, linear.classifier, linear.at(-0.3))
    assert (finding.candidates, finding.error) == ([], None)


def test_arguments_have_the_types_that_the_parameters_say():
    def attack(
        classifier, images, labels, generator, seed, steps: int = 3, rate=0.5, note: str | None = None, a=None
    ):
        return images

    def factory(eager=False):
        return attack

    def settings(text: str, named: Any = attack) -> dict[str, Any]:
        plan = AttackPlan.of(checkpoint="demo", attack=f"{register(named)}{text}")
        return {name[len("argument_") :]: value for name, value in vars(plan.settings).items()}

    assert settings("") == {"steps": 3, "rate": 0.5, "note": None, "a": None}
    assert settings(":steps=7:rate=2:note=5:a=4") == {"steps": 7, "rate": 2.0, "note": "5", "a": 4}
    assert settings(":a=four")["a"] == "four"
    assert settings("", factory) == {"eager": False}
    assert settings(":eager=true", factory) == {"eager": True}
    for wrong in ("steps=2.5", "rate=much", "rate=nan", "rate=1e999", "colour=1", "seed=3", "steps"):
        with pytest.raises(UsageError):
            settings(f":{wrong}")
    with pytest.raises(UsageError):
        settings(":eager=2", factory)


@pytest.mark.parametrize(
    "attack", [lambda classifier, images: images, lambda a, b, c, d, e: a, lambda a, b, c, *, d: a, print]
)
def test_what_is_called_otherwise_is_no_attack(attack):
    with pytest.raises(CaaError) as raised:
        build_attack(AttackPlan.of(checkpoint="demo", attack=attack))
    assert "(classifier, images, labels, generator)" in (raised.value.hint or "")


def test_with_votes_alone_there_is_no_model(grey):
    classifier = make_small()
    classifier.gradients = SteinEstimator()

    def uses_votes(view, images, labels, generator):
        return images + 0.01 * view.gradient(images, labels).sign()

    def uses_the_model(view, images, labels, generator):
        return view.model(images)

    finding = once(uses_votes, classifier, grey, gradient="votes")
    assert (finding.error, finding.backward_evaluations) == (None, 0)
    assert "votes alone" in str(once(uses_the_model, classifier, grey, gradient="votes").error)


def test_with_a_surrogate_the_model_is_the_surrogate(grey):
    surrogate = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    classifier = make_small()
    classifier.gradients = SurrogateModel(surrogate)
    seen: list[torch.Tensor] = []

    def attack(view, images, labels, generator):
        seen.append(view.model(images))
        view.votes(images, 5)
        return images

    finding = once(attack, classifier, grey)
    assert torch.equal(seen[0], surrogate(grey[None]))
    assert finding.forward_evaluations == 1 + 5


@pytest.mark.parametrize("given", [list, np.array, torch.tensor])
def test_labels_may_be_given_on_the_host_in_any_form(given):
    with PretendedDevice():
        classifier = make_small(device="cuda:0")
        example = Example(0, torch.full((1, 8, 8), 0.5, device="cuda:0"), 1)
        settings = {"samples": 50, "iterations": 1, "alpha": 0.005, "bound": "goodman", "seed": 0}
        images = np.full((2, 1, 8, 8), 0.5, dtype=np.float32)
        labels, expected = given([1, 2]), torch.tensor([1, 2], device="cuda:0")
        one, other = (AttackedClassifier(classifier, example, **settings) for _ in range(2))
        assert torch.equal(one.is_adversarial(images, labels), other.is_adversarial(images, expected))
        assert torch.equal(one.gradient(images, labels), other.gradient(images, expected))


def test_it_works_on_a_model_of_lower_precision(grey):
    classifier = make_linear(dtype=torch.bfloat16).classifier

    def attack(view, images, labels, generator):
        assert view.model(images).dtype == torch.float32
        x = images.clone().requires_grad_(True)
        view.as_module(20)(x)[0, 1].backward()
        return (images + x.grad).clamp(0, 1)

    assert once(attack, classifier, torch.full((1, 20, 20), 0.5)).error is None


def test_names_of_arguments_may_be_any(grey):
    """Also those of the fields that hold an attack's origin, and a callable that has no hash."""

    @dataclass
    class Attack:
        by: float

        def __call__(self, classifier, images, labels, generator, name="a", code=1, kind="k", check=True, file=None):
            assert (name, code, kind, check, file) == ("b", 1, "k", True, None)
            return (images + self.by).clamp(0, 1)

    plan = AttackPlan.of(checkpoint="demo", attack=Attack(0.1), argument_name="b", samples=SAMPLES)
    (finding,) = Search(build_attack(plan), make_small()).run([Example(0, grey, 0)])
    assert finding.error is None
    assert plan.config()["argument_name"] == "b"


def test_a_function_in_python_is_an_attack_like_that_of_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def attack(classifier, images, labels, generator, stride=1.0):\n"
        "    gradient = classifier.gradient(images, labels)\n"
        "    return (images - stride * gradient / gradient.norm()).clamp(0, 1)\n",
        encoding="utf-8",
    )
    model = caa.load("demo", device="cpu")
    images, labels = caa.load_images("demo", indices=range(4))
    settings = {"samples": 60, "verify_samples": 600, "chunk_size": 256}
    from_file = caa.attack(model, images, labels, f"{file}:attack:stride=3", **settings)
    function = find_callable("method", f"{file}:attack", "", files=True)
    given = caa.attack(model, images, labels, function, stride=3, **settings)
    np.testing.assert_array_equal(from_file.radius, given.radius)
    assert np.isfinite(given.radius).any()
    with pytest.raises(UsageError, match="has no setting 'step'"):
        caa.attack(model, images, labels, function, step=1, **settings)


def test_it_is_told_how_the_run_is_set_and_what_is_known_of_the_image(grey):
    told: list[tuple[Any, ...]] = []

    def attack(view, images, labels, generator):
        told.append((view.samples, view.iterations, view.sigma, view.certified_radius, view.starting_points))
        return images

    plan = AttackPlan.of(checkpoint="demo", attack=attack, samples=70, iterations=12)
    ends = torch.rand(2, 1, 8, 8)
    example = Example(0, grey, 0, 0.25, starting_points=ends)
    list(Search(build_attack(plan), make_small(sigma=0.3)).run([example]))
    assert told == [(70, 12, 0.3, 0.25, ends)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"alpha": 0.05, "bound": "goodman"}, [True, True]),
        ({"alpha": 1e-4, "bound": "goodman"}, [False, False]),
        ({"alpha": 0.05, "bound": "cp-bonferroni"}, [False, True]),
    ],
)
def test_what_it_calls_adversarial_goes_by_the_level_and_the_bound_of_the_run(settings, expected):
    """116 of 200 votes are enough by Goodman's bound at 5%, and 35 of 50, which would be too few of 200."""
    judged: list[bool] = []

    def attack(view, images, labels, generator):
        judged.extend(bool(view.is_adversarial(images, labels, samples)) for samples in (None, 50))
        return images

    classifier = prescribed((84, 116, 0), (15, 35, 0))
    assert once(attack, classifier, torch.full((1, 8, 8), 0.5), **settings).error is None
    assert judged == expected


def test_no_memory_for_a_sample_ends_the_run_and_not_the_image(grey):
    """It would fail every image in the same way."""

    def attack(view, images, labels, generator):
        raise CaaError("one noise sample of this model does not fit")

    with pytest.raises(CaaError, match="does not fit"):
        once(attack, make_small(), grey)


def ddn(iterations, samples, alpha, bound, seed):
    return Ddn(steps=iterations, samples=samples, alpha=alpha, bound=bound, seed=seed)


def test_each_candidate_of_a_loop_is_judged_on_noise_of_its_own(linear: Linear):
    classifier = recording(linear.classifier.model, 2, (1, 20, 20))
    finding = once(ddn, classifier, linear.at(-0.3), iterations=30)
    assert len(finding.candidates) == Batch.KEPT == 3
    assert [draw.noise[:3] for draw in classifier.draws] == [(Purpose.PROPOSAL, 0, n) for n in (1, 2, 3)]


def test_steps_without_a_gradient_of_a_loop_are_counted(grey):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.zeros_(flat[1].weight)
    classifier = SmoothedClassifier(flat, sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    label = int(flat(grey[None]).argmax())
    plan = AttackPlan.of(checkpoint="demo", attack=ddn, samples=SAMPLES, iterations=7)
    (finding,) = Search(build_attack(plan), classifier).run([Example(0, grey, label)])
    assert (finding.iterations, finding.lost_gradients) == (7, 7)


def test_the_most_evaluations_of_a_loop_are_its_own_and_those_that_judge():
    plan = AttackPlan.of(checkpoint="demo", attack=ddn, samples=100, iterations=10)
    assert build_attack(plan).budget(10) == (1000 + 3 * 100, 1000)


def test_the_module_has_a_gradient_where_a_class_is_impossible(grey):
    class Impossible(nn.Module):
        def forward(self, x):
            z = x.flatten(1)[:, :2]
            return torch.cat([z, torch.full_like(z[:, :1], -torch.inf)], dim=1)

    def attack(view, images, labels, generator):
        x = images.clone().requires_grad_(True)
        logits = view.as_module(50)(x)[0]
        (gradient,) = torch.autograd.grad(logits[1] - logits[0], x)
        assert gradient.isfinite().all()
        assert gradient[0, 0, 0, 0] < 0 < gradient[0, 0, 0, 1]
        return images

    classifier = SmoothedClassifier(Impossible(), sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    assert once(attack, classifier, grey).error is None
