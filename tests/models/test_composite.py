"""Ensembles, and gradients through denoisers, resizing and classifiers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from networks import SmallNet
from published import ThinResNet, seasoned
from published_denoisers import dncnn, ffdnet, idle_dncnn, save_dncnn
from torch import Tensor, nn

import caa_cli
from caa_cli.errors import UsageError
from caa_cli.models.architectures import NormalisedClassifier, build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import checkpoint_bytes
from caa_cli.models.composite import DenoisedClassifier, Ensemble, ResizedClassifier
from caa_cli.models.denoisers.ffdnet import FFDNet
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio, strongest_rival
from caa_cli.tuning.cache import model_key

GENERATOR = torch.Generator().manual_seed(1)
X = torch.rand(5, 1, 8, 8, generator=GENERATOR)
KINDS = ["logits", "softmax", "votes"]


class Constant(nn.Module):
    """The same logits for every image; it has a gradient of 0."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits + 0.0 * x.flatten(1).sum(dim=1, keepdim=True)


def members(count: int = 3) -> list[nn.Module]:
    return [SmallNet(seed) for seed in range(count)]


def test_the_mean_of_the_logits_and_of_the_softmax():
    networks = members()
    logits = [network(X) for network in networks]
    assert torch.allclose(Ensemble(networks)(X), (logits[0] + logits[1] + logits[2]) / 3, rtol=1e-6)
    mean = (logits[0].softmax(1) + logits[1].softmax(1) + logits[2].softmax(1)) / 3
    assert torch.allclose(Ensemble(networks, "softmax")(X), mean.log(), rtol=1e-5, atol=1e-6)


def decision(*logits: tuple[float, ...], kind: str = "votes") -> int:
    return int(Ensemble([Constant(*each) for each in logits], kind)(X[:1]).argmax())


def test_the_majority_decides_however_sure_the_minority_is():
    sure, others = (9.0, 0.0, 0.0), (0.0, 0.1, 0.0)
    assert decision(sure, others, others, kind="softmax") == decision(sure, others, others, kind="logits") == 0
    assert decision(sure, others, others) == 1
    assert decision(others, sure, others) == 1


def test_of_classes_with_as_many_votes_the_surer_one_is_taken():
    assert decision((2.0, 0.0, 0.0), (0.0, 0.0, 3.0)) == 2
    assert decision((0.0, 0.0, 3.0), (4.0, 0.0, 0.0)) == 0
    # Class 1 is nobody's first, but has the largest mean softmax.
    unsure = [(3.0, 2.9, 0.0, 0.0), (0.0, 2.9, 3.0, 0.0)]
    assert decision(*unsure, kind="softmax") == 1
    assert decision(*unsure) in (0, 2)
    with_two = [*unsure, (3.1, 3.0, 0.0, 0.0)]
    assert decision(*with_two) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_votes_of_an_ensemble_are_those_of_its_majority(dtype):
    x = torch.rand(500, 1, 8, 8, generator=GENERATOR).to(dtype)
    networks = [network.to(dtype) for network in members(5)]
    counts = sum(nn.functional.one_hot(network(x).argmax(1), 3) for network in networks)
    clear = counts.topk(2, dim=1).values.diff(dim=1)[:, 0] < 0
    ensemble = Ensemble(networks, "votes")
    winners = ensemble(x).argmax(1)
    assert 100 < int(clear.sum()) < 500
    assert torch.equal(winners[clear], counts.argmax(1)[clear])
    assert bool((counts.gather(1, winners[:, None]) == counts.amax(1, keepdim=True)).all())
    soft = Ensemble(networks, "softmax")(x).argmax(1)
    assert int((soft != winners).sum()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_abstains_where_a_member_does(kind):
    logits = Ensemble([*members(), Constant(0.0, float("nan"), 0.0)], kind)(X)
    assert bool(logits.isnan().any(dim=1).all())


def test_the_gradient_of_the_majority_is_that_of_the_mean_softmax():
    """Of each logit: what the majority adds is a constant."""
    networks = [network.double() for network in members()]
    x = torch.rand(200, 1, 8, 8, generator=GENERATOR).double().requires_grad_(True)
    weights = torch.randn(200, 3, generator=GENERATOR).double()
    gradients = []
    for kind in ("votes", "softmax"):
        logits = Ensemble(networks, kind)(x)
        gradients.append(torch.autograd.grad((weights * logits).sum(), x)[0])
    assert torch.allclose(*gradients, rtol=1e-10)
    assert float(gradients[0].norm()) > 1.0


def stacked(kind: str) -> nn.Module:
    """Every part at once, in float64: FFDNet, an ensemble, one of its members on larger images."""
    network = FFDNet(0.25, 1, 4, 8)
    network.load_state_dict(ffdnet(1).state_dict())
    large = ResizedClassifier(nn.Sequential(nn.AvgPool2d(2), SmallNet(3)), (16, 16))
    normalised = NormalisedClassifier(SmallNet(1), (0.3,), (0.7,), 1)
    return DenoisedClassifier(network, Ensemble([normalised, SmallNet(2), large], kind)).double().eval()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_through_all_parts_are_those_of_finite_differences(kind):
    model = stacked(kind)
    x = X[:2].double().requires_grad_(True)
    assert torch.autograd.gradcheck(model, (x,), eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("denoiser", ["dncnn", "ffdnet"])
@pytest.mark.parametrize("chunk", [1, 37, 1000])
def test_gradients_of_a_denoised_model_are_those_of_one_big_graph(denoiser, chunk):
    front = FFDNet(0.25, 3, 4, 8) if denoiser == "ffdnet" else dncnn(3, 4, 8)
    if denoiser == "ffdnet":
        front.load_state_dict(ffdnet(3).state_dict())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = seasoned(ThinResNet(8))
    model = DenoisedClassifier(front, NormalisedClassifier(network, (0.5,), (0.2,), 1))
    classifier = SmoothedClassifier(
        model, sigma=0.25, num_classes=10, input_shape=(3, 8, 8), gradient_chunk=chunk, dtype=torch.float64
    )
    classifier.model.classifier.network.avgpool = nn.AvgPool2d(2)
    x, samples = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(4)), 100
    keys, labels = [Key(0, index, Purpose.SEARCH) for index in range(2)], torch.tensor([0, 1])
    noise = torch.empty(2, samples, 3, 8, 8)
    classifier.noise.gaussian(noise, keys, 0, 0.25)
    leaf = x.double().requires_grad_(True)
    # Noise is added in float32; else a ReLU at its kink would once in a while have another slope.
    noisy = (x[:, None] + noise).double() + (leaf - leaf.detach())[:, None]
    logits = classifier.model(noisy.flatten(0, 1)).view(2, samples, 10)
    z = logits.softmax(dim=2).mean(dim=1).log()
    rival = strongest_rival(z.detach(), labels)
    (z.gather(1, labels[:, None]) - z.gather(1, rival[:, None])).sum().backward()
    passed = classifier.surrogate(x, labels, keys, samples, LogRatio(), pilot=samples)
    assert float((passed.gradient - leaf.grad).norm() / leaf.grad.norm()) < 1e-5


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (40, 23), (7, 41)])
def test_resizing_is_bicubic_and_antialiased_as_in_the_published_code(size):
    classifier = ResizedClassifier(nn.Identity(), size)
    x, exact = torch.rand(2, 3, 16, 20), torch.rand(2, 3, 16, 20, dtype=torch.float64, requires_grad=True)
    expected = nn.functional.interpolate(x, size, mode="bicubic", antialias=True)
    assert torch.allclose(classifier(x), expected, atol=1e-6)
    assert torch.allclose(classifier(x.bfloat16()).float(), expected, atol=0.02)
    weights = torch.rand(2, 3, *size, dtype=torch.float64)
    theirs = nn.functional.interpolate(exact, size, mode="bicubic", antialias=True)
    gradients = [torch.autograd.grad((weights * y).sum(), exact)[0] for y in (classifier(exact), theirs)]
    assert torch.allclose(*gradients, atol=1e-12)


# What `caa_cli.load` makes of files.


def checkpoint(path: Path, seed: int = 0, **said: object) -> Path:
    settings = {"arch": "small-cnn", "num_classes": 10, "input_shape": (1, 28, 28), "sigma": 0.5, "dataset": "mnist"}
    card = ModelCard(**{**settings, **said})  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        path.write_bytes(checkpoint_bytes(build(card), card))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_members_of_other_architectures_and_normalisations_behind_a_denoiser(tmp_path, kind):
    paths = [
        checkpoint(tmp_path / "a", 1, mean=(0.1307,), std=(0.3081,)),
        checkpoint(tmp_path / "b", 2, arch="lenet"),
    ]
    save_dncnn(dncnn(1, 4, 8), tmp_path / "den.pt")
    found = caa_cli.load(paths, ensemble=kind, denoiser=tmp_path / "den.pt", device="cpu")
    one, other = (caa_cli.load(path, device="cpu").model for path in paths)
    x = torch.rand(50, 1, 28, 28, generator=GENERATOR)
    with torch.no_grad():
        clean = dncnn(1, 4, 8)(x)
        expected = Ensemble([one, other], kind)(clean)
        assert torch.allclose(found.model(x), expected, rtol=1e-5)
        if kind == "logits":
            assert torch.allclose(expected, (one(clean) + other(clean)) / 2, rtol=1e-6)
    assert (found.sigma, found.num_classes, found.input_shape) == (0.5, 10, (1, 28, 28))
    assert found.arch == "DnCNN, 4 layers of 8 channels, small-cnn + lenet"


def test_a_classifier_of_its_own_size_behind_a_denoiser(tmp_path):
    path = checkpoint(tmp_path / "a", input_shape=(1, 16, 16), dataset="folder")
    save_dncnn(idle_dncnn(), tmp_path / "den.pt")
    x = torch.rand(2, 1, 40, 40, generator=GENERATOR)
    small = nn.functional.interpolate(x, (16, 16), mode="bicubic", antialias=True)
    alone = caa_cli.load(path, device="cpu")
    with torch.no_grad():
        found = caa_cli.load(path, denoiser=tmp_path / "den.pt", input_shape=(1, 40, 40), device="cpu")
        assert torch.allclose(found.model(x), alone.model(small), atol=1e-6)
        plain = caa_cli.load(path, input_shape=(1, 40, 40), classifier_size=16, device="cpu")
        assert torch.allclose(plain.model(x), alone.model(small), atol=1e-6)
    with pytest.raises(UsageError, match=r"has \(1, 16, 16\) .*classifier_size"):
        caa_cli.load(path, input_shape=(1, 40, 40), device="cpu")


def test_chunk_sizes_are_kept_for_each_size_of_the_classifiers_images(tmp_path):
    """Each sample of a larger one takes more memory; names and shapes of the weights are the same."""
    torch.save(build(ModelCard("resnet8", 10, (1, 28, 28))).network.state_dict(), tmp_path / "c.pt")
    save_dncnn(dncnn(1, 3, 4), tmp_path / "den.pt")
    settings = {"sigma": 0.5, "dataset": "mnist", "denoiser": tmp_path / "den.pt", "mean": (0.0,), "device": "cpu"}
    small, large = (caa_cli.load(tmp_path / "c.pt", classifier_size=size, **settings) for size in (32, 64))
    assert model_key(small, small.arch) != model_key(large, large.arch)


def test_an_ensemble_of_copies_votes_as_the_one_does(tmp_path):
    """Whatever becomes of the members: attack and certificate are the same to the bit."""
    images, labels = caa_cli.load_images()
    alone = caa_cli.load("demo", device="cpu")
    expected = caa_cli.certify(alone, images[:3], labels[:3], samples=500)
    for kind in KINDS:
        found = caa_cli.load(["demo", "demo"], ensemble=kind, device="cpu")
        again = caa_cli.certify(found, images[:3], labels[:3], samples=500)
        assert (again.votes_top == expected.votes_top).all()


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"num_classes": 11}, "knows 11 classes"),
        ({"sigma": 0.25}, r"a was trained with σ = 0.5, .*b with σ = 0.25"),
        ({"input_shape": (1, 14, 14)}, "takes 1×14×14 images, mnist has 1×28×28"),
        ({"dataset": "fashion-mnist"}, "a was trained on mnist, .*b on fashion-mnist"),
    ],
)
def test_members_that_do_not_belong_together(tmp_path, said, problem):
    paths = [checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b", **said)]
    with pytest.raises(UsageError, match=problem) as caught:
        caa_cli.load(paths, device="cpu")
    assert caught.value.hint
    assert str(paths[1]) in caught.value.problem


def test_members_of_other_classes_in_a_folder_data_set(tmp_path):
    paths = [
        checkpoint(tmp_path / "a", dataset="folder"),
        checkpoint(tmp_path / "b", dataset="folder", num_classes=12),
    ]
    with pytest.raises(UsageError, match=r"a knows 10 classes, .*b 12"):
        caa_cli.load(paths, num_classes=10, device="cpu")


def test_a_sigma_that_is_said_is_for_all_members(tmp_path):
    paths = [checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b", sigma=0.25)]
    with pytest.warns(UserWarning, match="a: sigma=1 overrides the 0.5"), pytest.warns(UserWarning, match="b: "):
        assert caa_cli.load(paths, sigma=1.0, device="cpu").sigma == 1.0
    silent = [checkpoint(tmp_path / "a"), checkpoint(tmp_path / "c", sigma=None)]
    assert caa_cli.load(silent, device="cpu").sigma == 0.5


def test_an_ensemble_needs_several(tmp_path):
    for paths in ("demo", ["demo"]):
        with pytest.raises(UsageError, match="ensemble votes needs several"):
            caa_cli.load(paths, ensemble="votes")
    with pytest.raises(UsageError, match="is not known"):
        caa_cli.load(["demo", "demo"], ensemble="mode")
    with pytest.raises(UsageError, match="names no file"):
        caa_cli.load([])


def test_parts_are_moved_and_laid_out_together():
    classifier = SmoothedClassifier(
        copy.deepcopy(stacked("logits")), sigma=0.25, num_classes=3, input_shape=(1, 8, 8), dtype=torch.bfloat16
    )
    classifier.lay_out(torch.channels_last)
    assert {p.dtype for p in classifier.model.parameters()} == {torch.bfloat16}
    votes = classifier.votes(X, samples=20)
    assert bool((votes.sum(dim=1) == 20).all())
