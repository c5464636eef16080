"""Training: it learns, it is reproducible, and the checkpoint in the package is what its metadata say."""

from __future__ import annotations

import errno
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn

from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.datasets import ImageSet, open_dataset
from caa_cli.display import Display
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights
from caa_cli.models.load import build_model
from caa_cli.smoothing.bounds import leader
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.training import evaluate
from caa_cli.training.consistency import Consistency
from caa_cli.training.devices import Ranks
from caa_cli.training.feed import MemoryFeed
from caa_cli.training.gaussian import Gaussian
from caa_cli.training.loop import Trainer
from caa_cli.training.macer import Macer
from caa_cli.training.new_classifier import NewClassifier
from caa_cli.training.optimizer import learning_rate_at
from caa_cli.training.smoothadv import SmoothAdv
from caa_cli.training.stability import Stability
from caa_cli.training.state import Unfinished
from caa_cli.training.step import Method, Outcome, Step

CARD = ModelCard("small-cnn", 10, (1, 28, 28), (0.1307,), (0.3081,), "demo", 0.25, "gaussian")


def trainer(
    plan: TrainPlan, arch: str = "small-cnn", count: int = 540, method: Method | None = None, frozen: int = 0
) -> Trainer:
    """frozen: how many of the network's first weights are not to be trained."""
    images = open_dataset("demo", None, "train")
    torch.manual_seed(plan.seed)
    card = replace(CARD, arch=arch)
    held = slice(540, 600)
    cpu = torch.device("cpu")
    network = build(card)
    for weight in list(network.parameters())[:frozen]:
        weight.requires_grad_(False)
    return Trainer(
        NewClassifier(network, card),
        method or Gaussian(),
        plan,
        MemoryFeed(images.images[:count], images.labels[:count], cpu),
        MemoryFeed(images.images[held], images.labels[held], cpu),
        cpu,
    )


def quiet(step: int, loss: float, accuracy: float) -> None:
    pass


def train(plan: TrainPlan, **settings: Any) -> Trainer:
    running = trainer(plan, **settings)
    while running.state.epoch < plan.epochs:
        running.run_epoch(quiet)
    return running


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_it_learns_the_embedded_images():
    state = train(TrainPlan(sigma=0.25, epochs=15, learning_rate=3e-3)).state
    assert state.history[-1].loss < 0.5 * state.history[0].loss
    assert state.best_accuracy is not None
    assert state.best_accuracy > 0.6
    assert state.best_accuracy == max(report.heldout_accuracy or 0 for report in state.history)


LEARNERS = {
    "stability": Stability(weight=1.0),
    "smoothadv pgd": SmoothAdv(epsilon=0.5, attack_steps=2, warmup=2),
    "smoothadv ddn": SmoothAdv(inner_attack="ddn", epsilon=0.5, attack_steps=2, warmup=2),
    "macer": Macer(draws=4, weight=1.0, defer=3),
    "consistency": Consistency(weight=1.0),
}


@pytest.mark.parametrize("method", LEARNERS.values(), ids=LEARNERS)
def test_every_method_learns(method: Method):
    plan = TrainPlan(sigma=0.25, epochs=8, optimizer="sgd", learning_rate=0.05, batch_size=32, clip_norm=1.0)
    state = train(plan, method=method).state
    assert state.best_accuracy is not None
    assert state.best_accuracy > 0.5


def test_mixed_precision_learns_and_keeps_float32_weights():
    running = train(TrainPlan(sigma=0.25, epochs=10, learning_rate=3e-3, dtype="bfloat16"))
    assert running.state.best_accuracy is not None
    assert running.state.best_accuracy > 0.5
    assert all(p.dtype == torch.float32 for p in running.model.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    first, again, other = (weights(train(TrainPlan(epochs=2, seed=seed)).model) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"schedule": "cosine"}, Gaussian()),
        ({"schedule": "step", "step_epochs": 1, "optimizer": "sgd", "weight_decay": 1e-3}, SmoothAdv(attack_steps=2)),
        # Few images: a CPU takes its time for float16.
        ({"dtype": "float16", "channels_last": False, "batch_size": 4}, Macer(draws=2, defer=1)),
    ],
    ids=["adam", "sgd", "float16"],
)
def test_resuming_after_an_epoch_takes_the_same_steps(tmp_path: Path, settings: dict[str, Any], method: Method):
    plan = TrainPlan(epochs=4, **settings)
    count = 8 if plan.dtype == "float16" else 200
    whole = train(plan, method=method, count=count)
    broken = trainer(plan, method=method, count=count)
    for _ in range(2):
        broken.run_epoch(quiet)
    torch.save(broken.state_dict(), tmp_path / "state")
    resumed = trainer(plan, method=method, count=count)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    while resumed.state.epoch < plan.epochs:
        resumed.run_epoch(quiet)
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert resumed.state.best_epoch == whole.state.best_epoch
    assert [vars(r) for r in resumed.state.history] == [vars(r) for r in whole.state.history]


class Remembering(nn.Module):
    """It goes on with a buffer that is no part of its checkpoint."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(784, num_classes)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = self.seen + 0.01
        return self.linear(x.flatten(1)) * (1 + self.seen)


def test_a_buffer_that_no_checkpoint_has_is_resumed(tmp_path: Path):
    plan, arch = TrainPlan(epochs=2, output=tmp_path / "m"), f"{__name__}:Remembering"
    first, resumed = trainer(plan, arch), trainer(plan, arch)
    first.run_epoch(quiet)
    Unfinished(plan).save(first, {})
    Unfinished(plan).restore(resumed, {})
    resumed.run_epoch(quiet)
    assert torch.equal(weights(resumed.model), weights(train(plan, arch=arch).model))


def dropping(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, num_classes))


def test_what_a_network_draws_itself_is_drawn_again_after_resuming():
    plan, arch = TrainPlan(epochs=2), f"{__name__}:dropping"
    whole = train(plan, arch=arch)
    first = trainer(plan, arch=arch)
    first.run_epoch(quiet)
    resumed = trainer(plan, arch=arch)
    resumed.load_state_dict(first.state_dict())
    resumed.run_epoch(quiet)
    assert torch.equal(weights(resumed.model), weights(whole.model))


def test_held_out_images_are_judged_as_in_use_and_under_the_same_noise_in_every_epoch():
    """Of a network that hardly moves all epochs say the same, though it drops other pixels in training."""
    history = train(TrainPlan(epochs=3, learning_rate=1e-12), arch=f"{__name__}:dropping", count=20).state.history
    assert len({report.heldout_accuracy for report in history}) == 1


class Attacking(Gaussian):
    """Looks at the network as an attack in a loss does."""

    def loss(self, step: Step) -> Outcome:
        with step.frozen() as model:
            once, again = model(step.images), model(step.images)
        assert torch.equal(once, again)
        assert not once.requires_grad
        assert not torch.equal(step.forward(step.images), step.forward(step.images))
        return super().loss(step)


def test_an_attack_in_a_loss_sees_the_network_as_in_use():
    train(TrainPlan(epochs=1), arch=f"{__name__}:dropping", count=20, method=Attacking())


def test_the_weights_of_the_best_epoch_are_kept():
    running = trainer(TrainPlan(epochs=2))
    running.run_epoch(quiet)
    first = weights(running.model)
    running.state.history[0].heldout_accuracy = 1.0
    running.run_epoch(quiet)
    kept = [running.state.best_weights[name].flatten() for name, _ in running.model.named_parameters()]
    assert torch.equal(torch.cat(kept), first)
    assert not torch.equal(weights(running.model), first)


def test_a_state_of_version_0_7_0_is_resumed():
    """Its optimizer did not update all weights in one kernel, which alone takes scaled gradients."""
    plan = TrainPlan(epochs=2, dtype="float16", channels_last=False, batch_size=4)
    running = trainer(plan, count=8)
    running.run_epoch(quiet)
    saved = running.state_dict()
    saved["optimizer"]["param_groups"][0]["fused"] = None
    resumed = trainer(plan, count=8)
    resumed.load_state_dict(saved)
    assert resumed.run_epoch(quiet).epoch == 2


def test_schedules():
    cosine = TrainPlan(learning_rate=0.1, schedule="cosine", epochs=10)
    assert learning_rate_at(cosine, 0) == pytest.approx(0.1)
    assert learning_rate_at(cosine, 5) == pytest.approx(0.05)
    assert learning_rate_at(cosine, 10) == pytest.approx(0.0, abs=1e-12)
    step = TrainPlan(learning_rate=0.1, schedule="step", step_epochs=30, epochs=90)
    assert [learning_rate_at(step, e) for e in (0, 29.9, 30, 59.9, 60)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001]
    )
    assert learning_rate_at(TrainPlan(learning_rate=0.1), 7) == 0.1
    (only,) = train(replace(cosine, epochs=1)).state.history
    assert only.learning_rate == learning_rate_at(replace(cosine, epochs=1), 4 / 5), "that of the last of five steps"


def test_clipping_bounds_the_step():
    """One step of plain SGD moves the weights by the rate times the length of the gradient."""
    plan = TrainPlan(epochs=1, batch_size=540, optimizer="sgd", momentum=0.0, learning_rate=1.0)
    before = weights(trainer(plan).model)
    moves = [
        float((weights(train(replace(plan, clip_norm=clip)).model) - before).norm()) for clip in (None, 0.01, 1e9)
    ]
    assert moves[1] == pytest.approx(0.01, rel=1e-3)
    assert moves[0] == moves[2] > 0.02


def test_without_held_out_images_the_last_epoch_is_kept():
    running = trainer(TrainPlan(epochs=3))
    running.heldout = MemoryFeed(torch.empty(0, 1, 28, 28, dtype=torch.uint8), torch.empty(0).long(), running.device)
    for _ in range(3):
        running.run_epoch(quiet)
    assert running.state.best_epoch == 3
    assert running.state.best_accuracy is None
    assert all(
        torch.equal(running.state.best_weights[name], tensor) for name, tensor in running.model.state_dict().items()
    )


def test_resnet18_trains_on_grey_images_with_a_last_batch_of_one():
    running = trainer(TrainPlan(epochs=1, batch_size=16), arch="resnet18", count=33)
    report = running.run_epoch(quiet)
    assert running.steps() == 2
    assert report.loss > 0


def test_a_training_that_diverges_says_so():
    with pytest.raises(CaaError, match=r"the loss became .* in epoch 1: training diverged"):
        train(TrainPlan(epochs=3, learning_rate=1e9))


class Vanishing(Gaussian):
    """A loss of 0 whose gradient is not a number."""

    def loss(self, step: Step) -> Outcome:
        logits = step.forward(step.images)
        return Outcome((logits.sum() * 0.0).abs().sqrt(), logits)


def test_weights_that_the_last_step_ruined_are_no_result():
    with pytest.raises(CaaError, match="the length of the weights became nan in epoch 1: training diverged"):
        train(TrainPlan(epochs=1, batch_size=540), method=Vanishing())


def test_weights_that_are_not_to_be_trained_stay_as_they_are():
    """Also with a method that attacks the network on the way, and so takes all its gradients away for a time."""
    running = trainer(TrainPlan(epochs=1))
    of_first, *of_others = running.model.parameters()
    running = trainer(TrainPlan(epochs=1), method=SmoothAdv(attack_steps=1), frozen=1)
    running.run_epoch(quiet)
    now = list(running.model.parameters())
    assert torch.equal(now[0], of_first)
    assert not any(torch.equal(*pair) for pair in zip(now[1:], of_others, strict=True))


class NoiseMeter(nn.Module):
    """Class 1 for images that vary by more than 0.25."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        above = x.flatten(1).std(dim=1) - 0.25
        return torch.stack([-above, above], dim=1)


def test_the_accuracy_at_the_end_is_that_under_the_noise_of_the_plan():
    black = ImageSet("black", "test", torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([1, 1, 0]), 2)
    for sigma, right in ((0.5, 2), (0.01, 1)):
        plan = TrainPlan(sigma=sigma, evaluate_samples=10)
        found = evaluate.smoothed_accuracy(NoiseMeter(), 2, black, torch.device("cpu"), plan, Display(quiet=True))
        assert found["smoothed_accuracy"] == right / 3


def smoothed_accuracy(images: ImageSet, count: int, samples: int) -> float:
    """Of the demo checkpoint, by votes of its own, on noise that its training did not see."""
    found = read_weights(DEMO_CHECKPOINT)
    card = found.card
    assert card is not None
    classifier = SmoothedClassifier(
        build_model(found, card),
        sigma=card.sigma or 0.0,
        num_classes=card.num_classes,
        input_shape=card.input_shape,
    )
    right = 0
    for index in range(count):
        votes = classifier.keyed_votes(images.image(index)[None], [Key(1, index, Purpose.EVALUATION)], samples)
        right += int(leader(votes.numpy())[0]) == images.label(index)
    return right / count


def claimed_accuracy() -> float:
    card = read_weights(DEMO_CHECKPOINT).card
    assert card is not None
    assert (card.sigma, card.arch, card.dataset) == (0.5, "small-cnn", "mnist")
    assert card.training["smoothed_accuracy_images"] == 10_000
    return card.training["smoothed_accuracy"]


def test_the_demo_checkpoint_is_small_and_as_accurate_as_it_says_on_the_embedded_images():
    assert DEMO_CHECKPOINT.stat().st_size <= 1_000_000
    claimed, count = claimed_accuracy(), 100
    assert claimed > 0.98
    least = stats.binom.ppf(1e-4, count, claimed) / count
    assert smoothed_accuracy(open_dataset("demo", None, "test"), count, 100) >= least


def test_the_demo_checkpoint_is_as_accurate_as_it_says_on_mnist(mnist_dir: Path):
    claimed, count = claimed_accuracy(), 2000
    found = smoothed_accuracy(open_dataset("mnist", mnist_dir, "test"), count, 100)
    low, high = (stats.binom.ppf(q, count, claimed) / count for q in (1e-4, 1 - 1e-4))
    # The first 5,000 MNIST test images are the cleaner half, but 2,000 of 10,000 are a sample all the same.
    assert low - 0.005 <= found <= high


def test_the_embedded_images_are_mnist(mnist_dir: Path):
    demo, mnist = open_dataset("demo", None, "test"), open_dataset("mnist", mnist_dir, "test")
    assert torch.equal(demo.images, mnist.images[:100])
    assert torch.equal(demo.labels, mnist.labels[:100])
    assert demo.image(3).dtype == torch.float32
    assert float(demo.image(3).max()) <= 1.0


def test_a_state_is_not_resumed_on_other_images_and_other_processes_are_said(tmp_path: Path):
    running = trainer(TrainPlan(epochs=2))
    running.run_epoch(quiet)
    unfinished = Unfinished(TrainPlan(dataset="demo", output=tmp_path / "m.safetensors"))
    unfinished.save(running, {"images": 600, "files_sha256": "a"})
    assert unfinished.restore(trainer(TrainPlan(epochs=2)), {"images": 600, "files_sha256": "a"}) == []
    with pytest.raises(UsageError, match="other images"):
        unfinished.restore(trainer(TrainPlan(epochs=2)), {"images": 600, "files_sha256": "b"})
    several = trainer(TrainPlan(epochs=2))
    several.ranks = Ranks(0, 3)
    (note,) = unfinished.restore(several, {"images": 600, "files_sha256": "a"})
    assert "processes of this training: 1 before, 3 now" in note
    assert [line["epoch"] for line in unfinished.history()] == [1]


def test_a_state_that_can_not_be_read_for_a_while_is_not_called_damaged(tmp_path: Path, monkeypatch: Any):
    running = trainer(TrainPlan(epochs=2))
    running.run_epoch(quiet)
    unfinished = Unfinished(TrainPlan(dataset="demo", output=tmp_path / "m.safetensors"))
    unfinished.save(running, {"images": 600, "files_sha256": None})

    def full(*words: Any) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    for start in ("fork", "posix_spawn"):
        monkeypatch.setattr(os, start, full)
    with pytest.raises(CaaError, match="no process can be started") as caught:
        unfinished.restore(running, {"images": 600, "files_sha256": None})
    assert str(caught.value.hint).startswith("close other programs")


@pytest.mark.skipif(sys.platform != "linux", reason="limits what is mapped")
def test_a_state_that_does_not_fit_into_the_memory_is_a_want_of_memory(tmp_path: Path):
    running = trainer(TrainPlan(epochs=2))
    unfinished = Unfinished(TrainPlan(dataset="demo", output=tmp_path / "m.safetensors"))
    unfinished.save(running, {})
    before = unfinished.path.read_bytes()
    running.state.best_weights = {"large": torch.zeros(2**26)}
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + 2**26, limits[1]))
    try:
        with pytest.raises(MemoryError):
            unfinished.save(running, {})
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert unfinished.path.read_bytes() == before
