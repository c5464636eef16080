"""A denoiser is trained in front of a classifier: losses, what never changes, resuming, and what is written."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import assert_clean_error, caa, parse_strict
from torch import nn

from caa_cli.config.methods import Denoiser as Settings
from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.datasets import open_dataset
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, checkpoint_bytes, read_weights, trained_with
from caa_cli.models.composite import DenoisedClassifier
from caa_cli.models.denoisers.card import DenoiserCard, FrozenClassifier
from caa_cli.models.denoisers.dncnn import DnCNN
from caa_cli.models.denoisers.open import open_denoiser
from caa_cli.models.denoisers.read import read_denoiser
from caa_cli.models.load import build_model
from caa_cli.smoothing.bounds import leader
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.training.denoiser import Denoiser
from caa_cli.training.describe import next_command
from caa_cli.training.feed import MemoryFeed
from caa_cli.training.loop import Trainer
from caa_cli.training.new_denoiser import NewDenoiser
from caa_cli.training.optimizer import learning_rate_at
from caa_cli.training.progress import EpochReport
from caa_cli.training.state import Unfinished
from caa_cli.training.step import Step

IMAGES, CLASSES, SIGMA = 6, 4, 0.5
CPU = torch.device("cpu")


def networks() -> tuple[nn.Module, nn.Module]:
    """A denoiser and a classifier of 3×4 images, in double precision."""
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    return nn.Conv2d(1, 1, 3, padding=1).double(), classifier.double().requires_grad_(False)


def step_of(denoiser: nn.Module, classifier: nn.Module | None, epoch: int) -> Step:
    def never() -> Any:
        raise AssertionError("no attack is in this loss")

    generator = torch.Generator().manual_seed(0)
    return Step(
        forward=denoiser,
        frozen=never,
        images=torch.rand((IMAGES, 1, 3, 4), generator=generator, dtype=torch.float64),
        labels=torch.randint(CLASSES, (IMAGES,), generator=generator),
        sigma=SIGMA,
        generator=torch.Generator().manual_seed(1),
        epoch=epoch,
        classify=classifier,
    )


def denoised_and_clean(denoiser: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The denoised images under the noise that the method drew, and the clean ones."""
    step = step_of(denoiser, None, 0)
    return denoiser(step.images + step.noise(1)).detach(), step.images


@pytest.mark.parametrize(
    ("method", "epoch"),
    [(Denoiser(objective="mse"), 99), (Denoiser(mse_epochs=3), 2), (Denoiser(), 9)],
    ids=["objective", "first epochs", "default"],
)
def test_mse_is_the_mean_squared_error_and_needs_no_classifier(method: Denoiser, epoch: int):
    denoiser, _ = networks()
    found = method.loss(step_of(denoiser, None, epoch))
    denoised, clean = denoised_and_clean(denoiser)
    assert float(found.loss.detach()) == pytest.approx(np.mean((denoised.numpy() - clean.numpy()) ** 2))
    assert math.isnan(float(found.correct(torch.zeros(IMAGES).long())))


@pytest.mark.parametrize("objective", ["stability", "classification"])
def test_after_mse_the_classifier_is_to_say_of_the_denoised_image_what_it_says_of_the_clean_one(objective: str):
    denoiser, classifier = networks()
    step = step_of(denoiser, classifier, 3)
    found = Denoiser(objective=objective, mse_epochs=3).loss(step)
    denoised, clean = denoised_and_clean(denoiser)
    log_p = classifier(denoised).log_softmax(dim=1).numpy()
    wanted = classifier(clean).numpy().argmax(axis=1) if objective == "stability" else step.labels.numpy()
    assert float(found.loss.detach()) == pytest.approx(-np.mean([log_p[i, wanted[i]] for i in range(IMAGES)]))
    right = sum(log_p[i].argmax() == int(step.labels[i]) for i in range(IMAGES))
    assert float(found.correct(step.labels)) == right


def test_the_two_objectives_differ_where_the_classifier_is_wrong():
    denoiser, classifier = networks()
    stability, classification = (
        Denoiser(objective=objective, mse_epochs=0).loss(step_of(denoiser, classifier, 0)).loss
        for objective in ("stability", "classification")
    )
    assert float(stability.detach()) != float(classification.detach())


def test_gradients_go_through_the_classifier_to_every_weight_of_the_denoiser_alone():
    denoiser, classifier = networks()
    Denoiser(mse_epochs=0).loss(step_of(denoiser, classifier, 0)).loss.backward()
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in denoiser.parameters())
    assert all(parameter.grad is None for parameter in classifier.parameters())


def report(epoch: int, accuracy: float | None, mse: float | None) -> EpochReport:
    return EpochReport(epoch, 1.0, None, accuracy, 0.1, heldout_mse=mse)


def test_the_best_epoch_is_the_most_accurate_else_the_one_of_least_error_else_the_last():
    assert report(2, 0.6, 0.9).better_than(report(1, 0.5, 0.1))
    assert not report(2, 0.5, 0.1).better_than(report(1, 0.5, 0.9)), "of equal ones the first is kept"
    assert report(2, None, 0.1).better_than(report(1, None, 0.2))
    assert not report(2, None, 0.2).better_than(report(1, None, 0.1))
    assert report(2, None, None).better_than(report(1, None, None))


def batchnorm_classifier() -> nn.Module:
    """A classifier whose running statistics would move in training mode."""
    torch.manual_seed(7)
    return build(ModelCard("resnet20", 10, (1, 28, 28)))


def demo_classifier() -> nn.Module:
    weights = read_weights(DEMO_CHECKPOINT)
    assert weights.card is not None
    return build_model(weights, weights.card)


def trainer(plan: TrainPlan, classifier: nn.Module | None, count: int = 540) -> Trainer:
    images = open_dataset("demo", None, "train")
    torch.manual_seed(plan.seed)
    settings = plan.settings
    assert isinstance(settings, Settings)
    card = DenoiserCard("dncnn", 1, settings.depth, settings.width, plan.sigma)
    held = slice(540, 600)
    return Trainer(
        NewDenoiser(DnCNN(1, settings.depth, settings.width), card, classifier, 10),
        Denoiser(**vars(settings)),
        plan,
        MemoryFeed(images.images[:count], images.labels[:count], CPU),
        MemoryFeed(images.images[held], images.labels[held], CPU),
        CPU,
    )


def plan_of(epochs: int, sigma: float = 0.5, **settings: Any) -> TrainPlan:
    of_method = {name: settings.pop(name) for name in ("objective", "mse_epochs") if name in settings}
    return TrainPlan(
        method="denoiser",
        settings=Settings(depth=3, width=8, **of_method),
        classifier="demo",
        epochs=epochs,
        sigma=sigma,
        **{"learning_rate": 1e-2, **settings},
    )


def quiet(step: int, loss: float, accuracy: float | None) -> None:
    pass


def test_training_reduces_the_error_far_below_that_of_the_noise():
    running = trainer(plan_of(6, objective="mse"), None)
    for _ in range(6):
        running.run_epoch(quiet)
    errors = [report.heldout_mse for report in running.state.history]
    assert min(errors) < 0.5 * errors[0]
    assert min(errors) < 0.4 * 0.5**2, "what noise alone leaves"
    assert running.state.best_epoch == 1 + int(np.argmin(errors))
    assert running.state.best_accuracy is None
    assert all(report.train_accuracy is None for report in running.state.history)


def test_an_error_beyond_all_numbers_ends_the_training_with_a_message():
    """The loss of the only step is finite: it is the weights after it that make nothing of the held-out images."""
    with pytest.raises(CaaError, match=r"the squared error of held-out images became .* training diverged"):
        trainer(plan_of(1, objective="mse", learning_rate=1e9, batch_size=540), None).run_epoch(quiet)


def test_the_classifier_never_changes():
    classifier = batchnorm_classifier()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    running = trainer(plan_of(2, mse_epochs=1, batch_size=20), classifier, count=60)
    start = [parameter.detach().clone() for parameter in running.model.parameters()]
    for _ in range(2):
        running.run_epoch(quiet)
        assert not classifier.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    changed = [not torch.equal(a, b) for a, b in zip(start, running.model.parameters(), strict=True)]
    assert all(changed)
    assert running.state_dict()["model"].keys() == DnCNN(1, 3, 8).state_dict().keys()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_resuming_between_and_within_the_objectives_takes_the_same_steps(tmp_path: Path, dtype: str):
    plan = plan_of(4, mse_epochs=2, dtype=dtype, schedule="cosine")
    whole = trainer(plan, demo_classifier(), count=200)
    for _ in range(4):
        whole.run_epoch(quiet)
    for cut in (2, 3):
        broken = trainer(plan, demo_classifier(), count=200)
        for _ in range(cut):
            broken.run_epoch(quiet)
        torch.save(broken.state_dict(), tmp_path / "state")
        resumed = trainer(plan, demo_classifier(), count=200)
        resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
        while resumed.state.epoch < plan.epochs:
            resumed.run_epoch(quiet)
        there, here = whole.model.state_dict(), resumed.model.state_dict()
        assert all(torch.equal(tensor, here[name]) for name, tensor in there.items())
        assert [vars(r) for r in resumed.state.history] == [vars(r) for r in whole.state.history]
        assert resumed.state.best_epoch == whole.state.best_epoch


def test_a_state_is_not_resumed_for_another_classifier(tmp_path: Path):
    images = {"images": 600, "files_sha256": "a"}

    def with_classifier(digest: str) -> Trainer:
        running = trainer(plan, demo_classifier(), count=60)
        running.trainee.card = replace(running.trainee.card, classifier=FrozenClassifier("demo", digest, "small-cnn"))
        return running

    plan = plan_of(2, mse_epochs=1, output=tmp_path / "d.safetensors")
    running = with_classifier("one")
    running.run_epoch(quiet)
    Unfinished(plan).save(running, images)
    assert Unfinished(plan).restore(with_classifier("one"), images) == []
    with pytest.raises(UsageError, match="for another --classifier"):
        Unfinished(plan).restore(with_classifier("two"), images)


def test_after_squared_error_the_rate_is_a_share_of_what_it_was():
    tuned = plan_of(4, mse_epochs=2)
    assert [learning_rate_at(tuned, e) for e in (0, 1.9, 2, 3.9)] == pytest.approx([1e-2, 1e-2, 5e-4, 5e-4])
    cosine = replace(tuned, schedule="cosine")
    assert learning_rate_at(cosine, 2) == pytest.approx(5e-4 / 2)
    from_the_start = plan_of(4, mse_epochs=0)
    assert learning_rate_at(from_the_start, 3) == 1e-2, "there is nothing to ruin"
    assert learning_rate_at(plan_of(4, objective="mse"), 3) == 1e-2


SMALL = ("--method", "denoiser", "--dataset", "demo", "--depth", "4", "--width", "12", "--learning-rate", "5e-3")


@pytest.fixture(scope="module")
def clean_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that was trained with next to no noise."""
    path = tmp_path_factory.mktemp("clean") / "clean.safetensors"
    words = ["--dataset", "demo", "--sigma", "0.01", "--epochs", "12", "--learning-rate", "3e-3", "--quiet"]
    result = caa("train", *words, "--evaluate-samples", "0", "--output", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="module", params=["dncnn", "ffdnet"])
def trained(request: pytest.FixtureRequest, clean_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser that was trained for that classifier."""
    path = tmp_path_factory.mktemp("denoiser") / "den.safetensors"
    words = ["--classifier", clean_classifier, "--sigma", "0.8", "--mse-epochs", "3", "--epochs", "5"]
    words += ["--arch", request.param, "--evaluate-samples", "20", "--batch-size", "32"]
    result = caa("train", *SMALL, *words, "--output", path)
    assert result.exit_code == 0, result.output
    assert f"--checkpoint {clean_classifier} --denoiser {path} --sigma 0.8 --dataset demo" in result.output
    return path


def accuracy(model: nn.Module, sigma: float) -> float:
    """Of the smoothed model, on the demo's test images."""
    images = open_dataset("demo", None, "test")
    classifier = SmoothedClassifier(model, sigma=sigma, num_classes=10, input_shape=(1, 28, 28))
    x = torch.stack([images.image(index) for index in range(100)])
    votes = classifier.keyed_votes(x, [Key(1, index, Purpose.EVALUATION) for index in range(100)], 20)
    return float(np.mean(leader(votes.numpy()) == images.labels.numpy()))


def test_the_denoiser_raises_the_smoothed_accuracy_of_a_classifier_that_knows_no_noise(
    trained: Path, clean_classifier: Path
):
    weights = read_weights(clean_classifier)
    assert weights.card is not None
    alone = build_model(weights, weights.card)
    behind = DenoisedClassifier(open_denoiser(trained).build(0.8), alone)
    with_denoiser, without = accuracy(behind, 0.8), accuracy(alone, 0.8)
    assert with_denoiser > without + 0.2
    facts = trained_with(trained)
    assert facts is not None
    assert facts["smoothed_accuracy"] == pytest.approx(with_denoiser, abs=0.1)
    assert facts["smoothed_accuracy_images"] == 100


def test_the_two_are_certified_as_one_at_the_noise_of_the_denoiser(
    tmp_path: Path, trained: Path, clean_classifier: Path
):
    words = ["--checkpoint", clean_classifier, "--denoiser", trained, "--samples", "200", "--limit", "10", "--quiet"]
    result = caa("certify", *words, "--output", tmp_path / "c.json")
    assert result.exit_code == 0, result.output
    document = parse_strict((tmp_path / "c.json").read_text())
    assert document["config"]["sigma"] == 0.8
    assert document["checkpoint"]["denoiser"]["sha256"] == open_denoiser(trained).sha256
    assert sum(example["prediction"] == example["label"] for example in document["examples"]) >= 7
    other = caa("certify", *words, "--output", tmp_path / "d.json", "--sigma", "0.5")
    assert "--sigma 0.5 is not the 0.8 that the denoiser was trained to remove" in other.stderr
    command = parse_strict(caa("inspect", trained, "--json").stdout)["attack"]
    assert command.endswith("--sigma 0.8 --dataset demo"), "the images come with caa"
    assert "--dataset mnist --data-dir DIR" in caa("inspect", trained, "--dataset", "mnist").stdout


def test_the_file_says_what_it_was_trained_for(trained: Path, clean_classifier: Path):
    facts = trained_with(trained)
    assert facts is not None
    digest = read_weights(clean_classifier).sha256
    assert (facts["method"], facts["objective"], facts["mse_epochs"], facts["sigma"]) == (
        "denoiser",
        "stability",
        3,
        0.8,
    )
    assert facts["classifier_sha256"] == digest
    assert facts["best_epoch"] >= 1
    assert facts["heldout_noisy_accuracy"] > 0.5
    denoiser = open_denoiser(trained)
    assert denoiser.family == facts["arch"]
    assert denoiser.channels == 1
    assert read_denoiser(trained).weights.card is None, "it is no classifier's card"


def test_over_a_finished_denoiser_there_is_nothing_to_do_unless_the_classifier_is_another(
    tmp_path: Path, clean_classifier: Path
):
    path = tmp_path / "den.safetensors"
    classifier = tmp_path / "classifier.safetensors"
    classifier.write_bytes(clean_classifier.read_bytes())
    words = [*SMALL, "--classifier", classifier, "--mse-epochs", "1", "--epochs", "2", "--evaluate-samples", "0"]
    assert caa("train", *words, "--output", path).exit_code == 0
    content = path.read_bytes()
    moved = classifier.rename(tmp_path / "moved.safetensors")
    words[words.index(classifier)] = moved
    again = caa("train", *words, "--output", path)
    assert again.exit_code == 0
    assert "finished already" in again.stderr
    moved.write_bytes(DEMO_CHECKPOINT.read_bytes())
    assert_clean_error(caa("train", *words, "--output", path), 2, "classifier_sha256", "--overwrite")
    assert path.read_bytes() == content


def test_a_denoiser_can_be_trained_without_a_classifier(tmp_path: Path):
    path = tmp_path / "den.safetensors"
    words = [*SMALL, "--objective", "mse", "--epochs", "2", "--output", path]
    result = caa("train", *words)
    assert result.exit_code == 0, result.output
    assert "--checkpoint CLASSIFIER --denoiser" in result.stdout
    document = parse_strict(caa("train", *words, "--json").stdout)
    assert document["training"]["heldout_noisy_accuracy"] is None
    assert document["training"]["heldout_mse"] == min(line["heldout_mse"] for line in document["history"])
    assert "smoothed_accuracy" not in document["training"]
    assert open_denoiser(path).family == "dncnn"


def test_the_next_command_is_of_the_model_that_was_trained():
    settings = {"dataset": "imagenet", "data_dir": Path("data"), "sigma": 0.25, "image_size": 64}
    words = next_command(
        TrainPlan(method="denoiser", classifier="net.ts", trust_checkpoint=True, classifier_size=96, **settings)
    )
    assert words.startswith("caa attack --checkpoint net.ts --denoiser model.safetensors --sigma 0.25 ")
    for option in ("--trust-checkpoint", "--image-size 64", "--classifier-size 96", "--dataset imagenet"):
        assert option in words
    assert "--image-size" not in next_command(TrainPlan(**settings)), "the checkpoint says it"


def test_a_classifier_of_another_size_sees_the_denoised_images_resized(tmp_path: Path):
    card = ModelCard("small-cnn", 10, (1, 16, 16))
    (tmp_path / "small.safetensors").write_bytes(checkpoint_bytes(build(card), card))
    words = ["--classifier", tmp_path / "small.safetensors", "--mse-epochs", "0", "--epochs", "1", "--heldout", "560"]
    result = caa("train", *SMALL, *words, "--evaluate-samples", "1", "--output", tmp_path / "den.safetensors")
    assert result.exit_code == 0, result.output


def of_other_classes(folder: Path) -> Path:
    card = ModelCard("small-cnn", 7, (1, 28, 28))
    (folder / "seven.safetensors").write_bytes(checkpoint_bytes(build(card), card))
    return folder / "seven.safetensors"


def of_another_size(folder: Path) -> Path:
    card = ModelCard("small-cnn", 10, (3, 32, 32))
    (folder / "colour.safetensors").write_bytes(checkpoint_bytes(build(card), card))
    return folder / "colour.safetensors"


def a_denoiser(folder: Path) -> Path:
    save_file(DnCNN(1, 4, 8).state_dict(), folder / "den.safetensors")
    return folder / "den.safetensors"


def unknown_weights(folder: Path) -> Path:
    save_file({"first": torch.zeros(3)}, folder / "unknown.safetensors")
    return folder / "unknown.safetensors"


@pytest.mark.parametrize(
    ("classifier", "problem", "hint"),
    [
        (of_other_classes, "the model knows 7 classes, demo has 10", "another checkpoint"),
        (of_another_size, "the model takes 3×32×32 images, demo has 1×", "data set"),
        (a_denoiser, "holds a denoiser (DnCNN, 4 layers of 8 channels), not a classifier", "--classifier CLASSIFIER"),
        (unknown_weights, "weights of no architecture", "add --classifier-arch"),
        (lambda folder: folder / "missing.pt", "does not exist", "check the path"),
    ],
    ids=["classes", "size", "a denoiser", "unknown", "missing"],
)
def test_what_can_not_be_the_classifier_is_refused_before_training(
    tmp_path: Path, classifier: Any, problem: str, hint: str
):
    words = ["--classifier", classifier(tmp_path), "--output", tmp_path / "out.safetensors", "--overwrite"]
    result = caa("train", *SMALL, *words)
    assert_clean_error(result, 2, problem, hint)
    assert not list(tmp_path.glob("out*"))


def test_a_card_that_is_damaged_is_no_training_and_no_denoiser(tmp_path: Path):
    good = DenoiserCard("dncnn", 1, 4, 8, 0.5, classifier=FrozenClassifier("c", "d", "lenet"), training={"epochs": 3})
    assert DenoiserCard.from_metadata(good.to_metadata()) == good
    assert DenoiserCard.from_metadata({}) is None
    (text,) = good.to_metadata().values()
    path = tmp_path / "den.safetensors"
    replaced = [
        ('"sigma": 0.5', '"sigma": "much"'),
        ('"path": "c", ', ""),
        ('"format_version": 1', '"format_version": 2'),
    ]
    for damaged in ("{}", "[1", *(text.replace(*pair) for pair in replaced)):
        assert damaged != text
        save_file(DnCNN(1, 4, 8).state_dict(), path, metadata={"caa_denoiser": damaged})
        assert trained_with(path) is None
        with pytest.raises(CaaError, match=r"the metadata of .* can't be read") as caught:
            open_denoiser(path)
        assert caught.value.hint == "update caa, or train again"
