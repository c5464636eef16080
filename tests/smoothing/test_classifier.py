"""Votes and gradients: right, the same however they are cut up, and in constant memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from networks import Linear, SmallNet, make_linear, make_small
from scipy import stats
from torch import Tensor, nn

from caa_cli.attacks.common.vectors import unit
from caa_cli.errors import CaaError, UsageError
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientPass
from caa_cli.smoothing.gradients import SurrogateModel
from caa_cli.smoothing.logit_ratio import LogitRatio
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import CrossEntropy, GumbelGap, LogRatio, Objective, strongest_rival
from caa_cli.tuning.sweep import tune_chunks

KEYS = [Key(0, index, Purpose.SEARCH) for index in range(3)]
X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2])


def test_votes_of_a_linear_model_follow_the_normal_law(linear: Linear):
    n, distance = 20_000, 0.3
    votes = linear.classifier.keyed_votes(linear.at(distance)[None], KEYS[:1], n)[0]
    p = stats.norm.cdf(distance / linear.classifier.sigma)
    assert votes.sum() == n
    assert abs(int(votes[1]) - n * p) < 4.5 * np.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("chunk", [1, 7, 64, 200, 1000, 5000])
def test_votes_do_not_depend_on_chunk_or_batch(chunk: int):
    expected = make_small(votes_chunk=10_000).keyed_votes(X, KEYS, 350)
    assert torch.equal(make_small(votes_chunk=chunk).keyed_votes(X, KEYS, 350), expected)
    alone = [make_small(votes_chunk=chunk).keyed_votes(x[None], [key], 350) for x, key in zip(X, KEYS, strict=True)]
    assert torch.equal(torch.cat(alone), expected)
    classifier = make_small(votes_chunk=chunk)
    first, rest = classifier.keyed_votes(X, KEYS, 150), classifier.keyed_votes(X, KEYS, 200, start=150)
    assert torch.equal(first + rest, expected)


@pytest.mark.parametrize("objective", [LogRatio(), GumbelGap(temperature=0.5)])
@pytest.mark.parametrize("chunk", [1, 50, 128, 300, 10_000])
def test_the_gradient_does_not_depend_on_the_chunk(chunk: int, objective: LogRatio | GumbelGap):
    whole = make_small(gradient_chunk=100_000).surrogate(X, LABELS, KEYS, 400, objective)
    cut = make_small(gradient_chunk=chunk).surrogate(X, LABELS, KEYS, 400, objective)
    for one, other in zip(cut.gradient, whole.gradient, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5
    assert torch.equal(cut.votes, whole.votes)


def test_no_samples_are_refused_by_name(linear: Linear):
    x = linear.at(0.0)[None]
    for call in (
        linear.classifier.votes,
        lambda x, samples: linear.classifier.gradient(x, torch.tensor([0]), samples),
    ):
        with pytest.raises(UsageError, match="samples = 0"):
            call(x, samples=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1], r"^labels has the shape \(1,\)"),
        ([[0, 1]], r"^labels has the shape \(1, 2\)"),
        ([0.0, 1.0], r"^labels has the dtype torch.float32"),
        ([0, 3], "^labels holds 3"),
        ([-1, 0], "^labels holds -1"),
    ],
)
def test_labels_that_are_not_one_class_an_image_are_refused(labels: list[int], message: str):
    """One label for two images was taken for that of the first: the other's gradient was of no objective."""
    with pytest.raises(UsageError, match=message):
        make_small().gradient(X[:2], torch.tensor(labels), 10)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"votes_chunk": -3}, "votes_chunk must"),
        ({"gradient_chunk": 0}, "gradient_chunk must"),
        ({}, "num_classes must"),
    ],
)
def test_settings_with_which_nothing_would_be_counted_are_refused(setting: dict[str, int], message: str):
    """A chunk below 0 left every vote out."""
    with pytest.raises(UsageError, match=message):
        SmoothedClassifier(SmallNet(), sigma=0.5, num_classes=3 if setting else 1, input_shape=(1, 8, 8), **setting)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sigma_that_is_no_deviation_is_refused(linear: Linear, sigma: float):
    for call in (linear.classifier.with_sigma, lambda sigma: make_linear(sigma=sigma)):
        with pytest.raises(UsageError, match="sigma must be above 0"):
            call(sigma)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_network_of_another_number_of_classes_is_refused(classes: int):
    """Of one class more its votes counted as abstentions; of one fewer abstentions counted as votes for the last."""
    classifier = SmoothedClassifier(SmallNet(), sigma=0.5, num_classes=classes, input_shape=(1, 8, 8))
    for call in (classifier.votes, lambda x, samples: classifier.gradient(x, LABELS * 0, samples)):
        with pytest.raises(UsageError, match=rf"of shape \(30, 3\) for 30 images, not \(30, {classes}\)"):
            call(X, 10)


def test_a_seed_of_more_than_64_bits_is_refused():
    classifier = make_small()
    assert classifier.votes(X, 10, seed=2**63 - 1).sum() == 30
    with pytest.raises(UsageError, match=f"seed = {2**63}"):
        classifier.votes(X, 10, seed=2**63)


@pytest.mark.parametrize("first", [[nn.ReLU(inplace=True)], [nn.Flatten(), nn.ReLU(inplace=True)]])
@pytest.mark.parametrize("samples", [10, 300])  # in one chunk, and in several, whose graphs are measured first
def test_a_network_that_changes_its_input_is_told_so(first: list[nn.Module], samples: int):
    network = nn.Sequential(*first, nn.Flatten(), nn.Linear(64, 3))
    classifier = SmoothedClassifier(network, sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    assert classifier.votes(X, samples).sum() == 3 * samples
    with pytest.raises(CaaError, match="changes its input in place") as caught:
        classifier.gradient(X, LABELS, samples)
    assert "clone" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("scale", "distance"),
    [
        (0.004, 0.0),  # so flat that a sample's part in the gradient is nothing in float16
        (80.0, 2.0),  # so steep that the likeliest sample outweighs the pilot's mean by more than float16 can hold
    ],
)
def test_a_gradient_in_float16_keeps_what_its_numbers_can_not_hold(scale: float, distance: float):
    linear, samples = make_linear(scale=scale, dtype=torch.float16), 3000
    passed = linear.classifier.surrogate(linear.at(distance)[None], torch.tensor([1]), KEYS[:1], samples, LogRatio())
    assert torch.cosine_similarity(passed.gradient.flatten(), linear.weight, dim=0) > 0.9999


@pytest.mark.parametrize("scale", [100.0, 400.0])
def test_however_steep_the_logits_are_the_gradient_has_a_length(scale: float):
    """The samples after the pilot may have a probability that its mean is nothing beside, by orders of magnitude."""
    linear, keys = make_linear(scale=scale), [Key(0, index, Purpose.SEARCH) for index in range(8)]
    x, labels = linear.at(2.0).repeat(8, 1, 1, 1), torch.ones(8, dtype=torch.int64)
    gradient = linear.classifier.surrogate(x, labels, keys, 1500, LogRatio()).gradient.flatten(1)
    directions, _, lost = unit(gradient)
    assert not lost.any()
    assert torch.cosine_similarity(directions, linear.weight[None]).min() > 0.9999


class WithAnImpossibleClass(nn.Module):
    """A network that has masked its last class."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = SmallNet()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(self.inner(x), (0, 1), value=-torch.inf)


@pytest.mark.parametrize("objective", [LogRatio(), CrossEntropy(), LogitRatio()])
def test_a_class_whose_logit_is_minus_infinity_changes_no_gradient(objective: Objective):
    classifier = SmoothedClassifier(WithAnImpossibleClass(), sigma=0.5, num_classes=4, input_shape=(1, 8, 8))
    masked, without = (c.surrogate(X, LABELS, KEYS, 300, objective) for c in (classifier, make_small()))
    assert torch.allclose(masked.gradient, without.gradient, rtol=1e-4, atol=1e-6)
    rivals = torch.tensor([[1, 2], [0, 2], [0, 1]])
    masked, without = (c.rival_gradients(X, LABELS, rivals, KEYS, 300) for c in (classifier, make_small()))
    assert torch.allclose(masked.gradient, without.gradient, rtol=1e-4, atol=1e-6)


def noisy_logits(classifier: SmoothedClassifier, x: Tensor, samples: int) -> Tensor:
    """The logits of every sample with all of the graph, as the paper's code holds them: (3, samples, 3)."""
    noise = torch.empty(len(x), samples, 1, 8, 8)
    classifier.noise.gaussian(noise, KEYS, 0, classifier.sigma)
    return classifier.model((x[:, None] + noise).flatten(0, 1)).view(len(x), samples, -1)


def test_with_a_full_pilot_the_gradient_is_that_of_the_log_mean_softmax():
    classifier, samples = make_small(gradient_chunk=64), 500
    x = X.clone().requires_grad_(True)
    z = noisy_logits(classifier, x, samples).softmax(dim=2).mean(dim=1).log()
    rival = strongest_rival(z.detach(), LABELS)
    (z.gather(1, LABELS[:, None]) - z.gather(1, rival[:, None])).sum().backward()
    passed = classifier.surrogate(X, LABELS, KEYS, samples, LogRatio(), pilot=samples)
    assert float((passed.gradient - x.grad).norm() / x.grad.norm()) < 1e-5


def test_a_short_pilot_hardly_turns_the_gradient():
    classifier = make_small()
    short = classifier.surrogate(X, LABELS, KEYS, 1500, LogRatio()).gradient.flatten(1)
    full = classifier.surrogate(X, LABELS, KEYS, 1500, LogRatio(), pilot=1500).gradient.flatten(1)
    assert torch.cosine_similarity(short, full).min() > 0.999


def test_the_gumbel_gradient_is_that_of_the_straight_through_draws():
    classifier, samples, temperature = make_small(), 300, 0.3
    x = X.clone().requires_grad_(True)
    log_pi = noisy_logits(classifier, x, samples).log_softmax(dim=2)
    draws = torch.empty_like(log_pi)
    classifier.noise.gumbel(draws, KEYS, 0)
    soft = ((log_pi + draws) / temperature).softmax(dim=2)
    hard = nn.functional.one_hot(soft.argmax(dim=2), 3).float()
    straight_through = (hard - soft).detach() + soft
    mean = straight_through.mean(dim=1)
    rival = strongest_rival(soft.detach().mean(dim=1), LABELS)
    (mean.gather(1, LABELS[:, None]) - mean.gather(1, rival[:, None])).sum().backward()
    passed = classifier.surrogate(X, LABELS, KEYS, samples, GumbelGap(temperature), pilot=samples)
    assert float((passed.gradient - x.grad).norm() / x.grad.norm()) < 1e-5


def test_votes_come_with_the_gradient_from_the_same_samples():
    classifier = make_small()
    assert torch.equal(
        classifier.surrogate(X, LABELS, KEYS, 400, LogRatio()).votes, classifier.keyed_votes(X, KEYS, 400)
    )


class NanWhere(nn.Module):
    """Gives NaN where the mean pixel is above a threshold; otherwise like the small network."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.inner, self.threshold = SmallNet(), threshold

    def forward(self, x: Tensor) -> Tensor:
        bad = (x.flatten(1).mean(dim=1) > self.threshold)[:, None]
        return torch.where(bad, torch.full((), torch.nan), self.inner(x))


def test_nan_logits_abstain_and_do_not_spoil_the_gradient():
    classifier = SmoothedClassifier(NanWhere(0.5), sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    n = 2000
    votes = classifier.keyed_votes(X, KEYS, n)
    abstained = n - votes.sum(dim=1)
    assert (abstained > 0).all()
    assert (votes.sum(dim=1) > 0).all()
    passed = classifier.surrogate(X, LABELS, KEYS, n, LogRatio())
    assert torch.isfinite(passed.gradient).all()
    assert torch.equal(passed.votes, votes)


def test_a_model_that_is_all_nan_votes_for_nothing():
    classifier = SmoothedClassifier(NanWhere(-100.0), sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    assert int(classifier.keyed_votes(X, KEYS, 100).sum()) == 0


@pytest.mark.parametrize(
    ("chunk", "graphs", "extra"),
    [(200, 0, 0), (128, 0, 0), (64, 0, 128), (10, 0, 128), (64, 128, 0), (10, 130, 0), (10, 55, 78), (64, 63, 128)],
)
def test_the_pilot_costs_evaluations_where_its_graphs_may_not_wait(chunk: int, graphs: int, extra: int):
    classifier = make_small(gradient_chunk=chunk)
    classifier.graphs = graphs
    passed = classifier.surrogate(X, LABELS, KEYS, 300, LogRatio())
    assert passed.forward_evaluations.tolist() == [300 + extra] * 3
    whole = make_small(gradient_chunk=100_000).surrogate(X, LABELS, KEYS, 300, LogRatio())
    torch.testing.assert_close(passed.gradient, whole.gradient, rtol=1e-5, atol=1e-6)
    assert torch.equal(passed.votes, whole.votes)
    assert torch.allclose(passed.log_mean, whole.log_mean, atol=1e-6)


class Squared(SmallNet):
    """Its backward pass needs the very inputs that it was given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * x)


def test_chunks_of_the_pilot_that_wait_keep_their_noise():
    """The chunks evaluated meanwhile draw theirs in the same memory."""
    rivals, along = torch.tensor([1, 2, 0]), torch.randn(3, 64, generator=torch.Generator().manual_seed(0))

    def passed(chunk: int) -> GradientPass:
        classifier = make_small(gradient_chunk=chunk, gradients=SurrogateModel(Squared(seed=1)))
        return classifier.towards(X, LABELS, rivals, KEYS, 300, along)

    waited, whole = passed(50), passed(100_000)
    assert torch.equal(waited.votes, make_small().keyed_votes(X, KEYS, 300))
    torch.testing.assert_close(waited.moments, whole.moments, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(waited.gradient, whole.gradient, rtol=1e-4, atol=1e-6)


class OutOfMemoryLate(nn.Module):
    """Memory that runs out once, in the middle of a backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = SmallNet(), 0

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        if logits.requires_grad:
            logits.register_hook(self.fail_once)
        return logits

    def fail_once(self, gradient: Tensor) -> None:
        self.calls += 1
        if self.calls == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_memory_that_runs_out_late_counts_nothing_twice():
    settings = {"sigma": 0.5, "num_classes": 3, "input_shape": (1, 8, 8), "gradient_chunk": 256}
    ours = SmoothedClassifier(OutOfMemoryLate(), **settings).surrogate(X, LABELS, KEYS, 700, LogRatio())
    theirs = SmoothedClassifier(SmallNet(), **settings).surrogate(X, LABELS, KEYS, 700, LogRatio())
    assert torch.equal(ours.votes, theirs.votes)
    torch.testing.assert_close(ours.gradient, theirs.gradient, rtol=1e-4, atol=1e-6)


class OutOfMemoryAbove(nn.Module):
    """A device with room for only so many samples: raises what PyTorch raises."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.inner, self.limit, self.refused = SmallNet(), limit, 0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.limit:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)


@pytest.mark.parametrize("limit", [1, 10, 100])
def test_out_of_memory_halves_the_chunk_and_changes_nothing(limit: int):
    model = OutOfMemoryAbove(limit)
    tight = SmoothedClassifier(
        model, sigma=0.5, num_classes=3, input_shape=(1, 8, 8), votes_chunk=5000, gradient_chunk=5000
    )
    roomy = make_small(votes_chunk=5000, gradient_chunk=5000)
    assert torch.equal(tight.keyed_votes(X, KEYS, 150), roomy.keyed_votes(X, KEYS, 150))
    ours = tight.surrogate(X, LABELS, KEYS, 150, LogRatio())
    theirs = roomy.surrogate(X, LABELS, KEYS, 150, LogRatio())
    torch.testing.assert_close(ours.gradient, theirs.gradient, rtol=1e-4, atol=1e-6)
    assert torch.equal(ours.votes, theirs.votes)
    assert tight.votes_chunk <= limit
    refused = model.refused
    tight.keyed_votes(X, KEYS, 150)
    assert model.refused == refused, "the smaller chunk is remembered"


def test_tuning_stays_below_the_size_that_memory_refused():
    classifier = SmoothedClassifier(OutOfMemoryAbove(100), sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    chunks = tune_chunks(classifier, seconds=0.3).chunks
    assert max(chunks["votes"], chunks["gradient"]) <= 100
    assert (classifier.votes_chunk, classifier.gradient_chunk) == (chunks["votes"], chunks["gradient"])


def test_one_sample_that_does_not_fit_is_an_error_with_advice():
    classifier = SmoothedClassifier(OutOfMemoryAbove(0), sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    with pytest.raises(CaaError, match="one noise sample"):
        classifier.keyed_votes(X, KEYS, 10)


def test_an_error_of_the_model_is_not_taken_for_lack_of_memory():
    classifier = SmoothedClassifier(nn.Linear(5, 3), sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    with pytest.raises(RuntimeError, match="shape"):
        classifier.keyed_votes(X, KEYS, 10)


def test_double_precision_agrees_with_single():
    single, double = make_small(), make_small()
    double = SmoothedClassifier(SmallNet(), sigma=0.5, num_classes=3, input_shape=(1, 8, 8), dtype=torch.float64)
    assert (single.keyed_votes(X, KEYS, 1000) - double.keyed_votes(X, KEYS, 1000)).abs().max() <= 2


MEMORY = """
import resource, sys, torch
sys.path.insert(0, {helpers!r})
from networks import make_linear
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio
linear = make_linear(votes_chunk=256, gradient_chunk=256)
x, label, keys = linear.at(0.5)[None], torch.tensor([1]), [Key(0, 0, Purpose.SEARCH)]
def work(n):
    linear.classifier.keyed_votes(x, keys, n)
    linear.classifier.surrogate(x, label, keys, n, LogRatio())
work(1500)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
work({samples})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_memory_does_not_grow_with_the_samples():
    """Peak memory of 50 times as many samples: all at once they would take 120 MB."""
    script = MEMORY.format(helpers=str(Path(networks.__file__).parent), samples=75_000)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000, f"{done.stdout} kB more"


def test_make_linear_is_what_it_says():
    linear = make_linear()
    for distance in (-1.0, 0.25):
        assert linear.distance(linear.at(distance)) == pytest.approx(distance, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_memory_layout_changes_no_vote_and_hardly_a_gradient(channels: int):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.Tanh(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    classifier = SmoothedClassifier(network, sigma=0.5, num_classes=3, input_shape=(channels, 8, 8), votes_chunk=64)
    x, keys = torch.rand(2, channels, 8, 8), [Key(0, index, Purpose.SEARCH) for index in range(2)]
    labels = torch.tensor([0, 1])
    votes = classifier.keyed_votes(x, keys, 300)
    gradient = classifier.surrogate(x, labels, keys, 300, LogRatio()).gradient
    classifier.lay_out(torch.channels_last)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(classifier.keyed_votes(x, keys, 300), votes)
    assert torch.allclose(
        classifier.surrogate(x, labels, keys, 300, LogRatio()).gradient, gradient, rtol=1e-4, atol=1e-7
    )


def test_tuning_for_votes_alone_leaves_the_gradient_alone():
    classifier = make_small(gradient_chunk=77)
    assert set(tune_chunks(classifier, seconds=0.05, gradients=False).chunks) == {"votes"}
    assert classifier.gradient_chunk == 77


def test_a_network_that_takes_one_layout_alone_is_tuned_in_that():
    class Stubborn(nn.Module):
        def forward(self, x):
            if x.stride(1) == 1:
                raise RuntimeError("only contiguous images, please")
            return x.mean(dim=(2, 3))

    classifier = SmoothedClassifier(Stubborn(), sigma=0.5, num_classes=3, input_shape=(3, 8, 8))
    tune_chunks(classifier, seconds=0.05)
    assert classifier.memory_format == torch.contiguous_format
    assert int(classifier.keyed_votes(torch.rand(1, 3, 8, 8), [Key(0, 0, Purpose.SEARCH)], 50).sum()) == 50


class Remembering(SmallNet):
    """Keeps what depends on the shape of its input alone, as position embeddings do, until another shape comes."""

    def forward(self, x: Tensor) -> Tensor:
        if getattr(self, "kept", x[:0]).shape != x.shape:
            self.kept = torch.linspace(0.5, 1.0, x.numel()).view(x.shape)
        return super().forward(x * self.kept)


def test_what_a_model_keeps_of_a_pass_for_votes_serves_one_for_gradients():
    classifier = SmoothedClassifier(Remembering(), sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    x, labels = torch.full((1, 1, 8, 8), 0.5), torch.zeros(1, dtype=torch.int64)
    votes = classifier.votes(x, samples=50)
    assert classifier.gradient(x, labels, samples=50).abs().sum() > 0
    assert torch.equal(classifier.votes(x, samples=50), votes)
