"""Networks that come with code: TorchScript, pickled modules, and factories of the user's own."""

from __future__ import annotations

import json
import re
import shutil
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support import ENVIRONMENT, assert_clean_error, assert_clean_text, caa, parse_strict, start
from torch import nn
from torchvision import models

from caa_cli.config.choices import NORMALISATIONS
from caa_cli.errors import CaaError
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, checkpoint_bytes, read_weights
from caa_cli.models.load import build_model
from caa_cli.models.resolve import Overrides, resolve_card
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio

RUN = ["--dataset", "demo", "--sigma", "0.5", "--limit", "1", "--samples", "100", "--chunk-size", "64"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Net(nn.Module):
    """Small, and of no architecture that caa knows."""

    def __init__(self, num_classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 5, stride=4)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 36, num_classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))


class Writer(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.head = nn.Linear(784, 10)

    def forward(self, x):
        torch.save(x, self.path)
        return self.head(x.flatten(1))


def network(**settings: int) -> Net:
    torch.manual_seed(0)
    found = Net(**settings).eval()
    found.norm.running_mean.uniform_(-0.2, 0.2)
    return found


def script(module: nn.Module, path: Path, trace: torch.Tensor | None = None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.jit.script(module) if trace is None else torch.jit.trace(module, trace)
        torch.jit.save(found, path)
    return path


def target(path: Path, said: Overrides, shape=(1, 28, 28), trust: bool = False):
    weights = read_weights(path, trust)
    card, notes = resolve_card(weights, said, "mnist", shape, 10)
    return build_model(weights, card), card, notes


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torchscript_gives_votes_and_gradients(tmp_path, traced, dtype):
    own = network()
    path = script(own, tmp_path / "x", torch.zeros(2, 1, 28, 28) if traced else None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that torch.jit is deprecated is no news for a user
        model, card, notes = target(path, Overrides(sigma=0.5), trust=True)
    assert (card.arch, card.num_classes, card.mean) == ("torchscript", 10, (0.0,))
    assert "--normalisation none is assumed" in notes[0]
    images, labels = torch.rand(2, 1, 28, 28), torch.tensor([0, 1])
    keys = [Key(0, index, Purpose.SEARCH) for index in range(2)]
    found = {}
    for name, module, chunk in (("script", model, 64), ("chunks", model, 24), ("module", own, 64)):
        classifier = SmoothedClassifier(
            module, sigma=0.5, num_classes=10, input_shape=(1, 28, 28), dtype=dtype,
            votes_chunk=chunk, gradient_chunk=chunk,
        )  # fmt: skip
        votes = classifier.keyed_votes(images, keys, 64)
        gradient = classifier.surrogate(images, labels, keys, 64, LogRatio(), pilot=64).gradient
        found[name] = votes, gradient
    for name in ("script", "chunks"):
        assert torch.equal(found[name][0], found["module"][0])
        torch.testing.assert_close(found[name][1], found["module"][1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout(), nn.BatchNorm2d(1)])
def test_a_network_traced_in_training_mode_is_refused(tmp_path, layer):
    """Its votes would be random, or depend on how many are counted at once; a scripted one is put into its mode."""
    held = nn.Sequential(layer, network())
    images = torch.rand(4, 1, 28, 28)
    assert read_weights(script(held.eval(), tmp_path / "x", images), trust=True).module is not None
    assert read_weights(script(held.train(), tmp_path / "x"), trust=True).module is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that dropout is random
        torch.jit.save(torch.jit.trace(held, images, check_trace=False), tmp_path / "x")
    with pytest.raises(CaaError, match="traced while it was in training mode"):
        read_weights(tmp_path / "x", trust=True)


def test_torchscript_takes_a_normalisation_in_front(tmp_path):
    own = network()
    model, _, notes = target(
        script(own, tmp_path / "x"), Overrides("resnet18", 0.5, (0.1307,), (0.3081,)), trust=True
    )
    assert "--arch resnet18 is not used" in notes[0]
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(model(images), own((images - 0.1307) / 0.3081), rtol=1e-5, atol=1e-6)


def test_torchscript_that_holds_its_normalisation_is_said_to(tmp_path):
    normalisation = nn.Module()
    for name, value in (("mean", 0.1307), ("std", 0.3081)):
        normalisation.register_buffer(name, torch.tensor([value]))
    own = network()
    own.add_module("normalisation", normalisation)
    path = script(own, tmp_path / "x")
    _, card, notes = target(path, Overrides(sigma=0.5), trust=True)
    assert card.mean == (0.0,)
    assert "normalises images itself" in notes[0]
    document = json.loads(caa("inspect", path, "--trust-checkpoint", "--json").stdout)
    assert document["missing"] == ["σ", "data set"]


def test_grey_images_are_repeated_for_a_network_of_colour_images(tmp_path):
    own = network(channels=3)
    model, _, notes = target(script(own, tmp_path / "x"), Overrides(sigma=0.5), trust=True)
    assert "repeated to three channels" in notes[0]
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(model(images), own(images.repeat(1, 3, 1, 1)), rtol=1e-5, atol=1e-6)


def test_certify_and_inspect_run_torchscript(tmp_path):
    path = script(network(), tmp_path / "x")
    result = caa("certify", "--checkpoint", path, *RUN, "--trust-checkpoint")
    assert result.exit_code == 0, result.output
    assert "deprecated" not in result.output
    document = json.loads(caa("inspect", path, "--trust-checkpoint", "--json").stdout)
    assert (document["format"], document["arch"], document["num_classes"]) == ("TorchScript", "torchscript", 10)
    assert document["input_shape"] == [1, 28, 28]
    assert "--trust-checkpoint" in document["attack"]


def test_torchscript_for_other_images_is_refused(tmp_path):
    path = script(nn.Sequential(nn.Flatten(), nn.Linear(99, 10)), tmp_path / "x")
    assert_clean_error(
        caa("certify", "--checkpoint", path, *RUN, "--trust-checkpoint"), 1, "can't take 1×28×28 images", "--dataset"
    )
    path = script(nn.Conv2d(1, 3, 3), tmp_path / "y")
    assert_clean_error(
        caa("certify", "--checkpoint", path, *RUN, "--trust-checkpoint"),
        1,
        "logits of shape (2, classes)",
        "--dataset",
    )


def test_torchscript_is_not_loaded_unless_it_is_trusted(tmp_path):
    path = script(Writer(str(tmp_path / "mark")), tmp_path / "x")
    for command in ("certify", "attack"):
        result = caa(command, "--checkpoint", path, *RUN)
        assert_clean_error(result, 1, "is TorchScript, a program", "add --trust-checkpoint")
    assert not (tmp_path / "mark").exists()
    assert caa("certify", "--checkpoint", path, *RUN, "--trust-checkpoint").exit_code == 0
    assert (tmp_path / "mark").exists()  # or the refusal would prove nothing


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (b"torch.save(", b"torch.save("),
        (b"torch.save(", b"(torch.save)("),
        (b"torch.save(", b"torch.save(# \n"),
    ],
    ids=["plain", "in brackets", "with a comment"],
)
def test_inspect_reports_torchscript_without_running_it(tmp_path, written, instead):
    """Whichever way the writing is spelt."""
    path, other = script(Writer(str(tmp_path / "mark")), tmp_path / "x"), tmp_path / "y"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as sink:
        for name in source.namelist():
            if not name.endswith(".debug_pkl"):
                sink.writestr(name, source.read(name).replace(written, instead))
    result = caa("inspect", other, "--json")
    assert result.exit_code == 1
    assert not (tmp_path / "mark").exists()
    assert_clean_text(result.stderr, "is TorchScript, a program", "add --trust-checkpoint")
    document = parse_strict(result.stdout)
    assert (document["format"], document["arch"]) == ("TorchScript, not loaded", None)
    assert "is TorchScript, a program" in document["problem"]
    assert document["missing"] == ["σ", "data set", "normalisation"]
    assert "--trust-checkpoint" in document["attack"]
    assert "--arch" not in document["attack"]
    assert "TorchScript, not loaded" in caa("inspect", other).stdout
    caa("inspect", other, "--trust-checkpoint")
    assert (tmp_path / "mark").exists()  # so it does write


def test_an_archive_with_only_the_constants_of_torchscript_is_taken_for_it(tmp_path):
    """That is what PyTorch goes by."""
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("x/constants.pkl", b"")
    assert_clean_error(caa("certify", "--checkpoint", tmp_path / "x", *RUN), 1, "is TorchScript, a program")


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("mark"),)


@pytest.mark.parametrize("command", ["inspect", "certify", "attack"])
def test_pickled_modules_run_only_where_they_are_trusted(tmp_path, command):
    torch.save({"model": network(), "epoch": Hostile()}, tmp_path / "x")
    words = [command, "x"] if command == "inspect" else [command, "--checkpoint", "x", *RUN]
    assert_clean_error(caa(*words), 1, "could run code", "--trust-checkpoint")
    assert not Path("mark").exists()
    if command != "attack":
        result = caa(*words, "--trust-checkpoint")
        assert result.exit_code == 0, result.output
        assert Path("mark").exists()


def test_a_trusted_module_computes_what_it_did(tmp_path):
    own = network()
    torch.save(own, tmp_path / "x")
    model, card, _ = target(tmp_path / "x", Overrides(sigma=0.5), trust=True)
    assert card.arch == "module"
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(model(images), own(images))


def test_a_trusted_file_of_a_state_dict_is_read_as_one(tmp_path):
    weights = read_weights(DEMO_CHECKPOINT)
    torch.save({"state_dict": weights.tensors, "other": Path("x")}, tmp_path / "x")
    assert read_weights(tmp_path / "x", trust=True).tensors.keys() == weights.tensors.keys()


def test_a_pickled_module_whose_code_is_not_here_says_so(monkeypatch):
    elsewhere = ModuleType("elsewhere")
    elsewhere.Net = type("Net", (nn.Linear,), {"__module__": "elsewhere"})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "elsewhere", elsewhere)
        torch.save(elsewhere.Net(2, 2), "x")
    result = caa("certify", "--checkpoint", "x", *RUN, "--trust-checkpoint")
    assert_clean_error(result, 1, "whose code isn't here (No module named 'elsewhere')", "in the folder of the code")


FACTORY = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10, channels=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 5, stride=4)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 36, num_classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))

def plain():
    return Net()

def told(num_classes, input_shape):
    assert input_shape == (1, 28, 28), input_shape
    return Net(num_classes, input_shape[0])

def wide():
    return Net(20)

def colour():
    return Net(10, 3)

def fails(num_classes):
    raise ValueError("no such thing")

def leaves():
    sys.exit(3)

def text():
    return "a network"

number = 3
"""


def write_factory(name: str) -> None:
    Path(f"{name}.py").write_text(FACTORY, encoding="utf-8")
    torch.save(network().state_dict(), "weights.pt")


@pytest.mark.parametrize(("forward_pass", "ends"), [(1, "sys.exit()"), (9, "exit(0)")])
def test_a_network_must_not_end_caa(forward_pass, ends):
    name = f"leaving{forward_pass}"
    write_factory(name)
    code = f"""{FACTORY}
class Leaving(Net):
    passes = 0

    def forward(self, x):
        self.passes += 1
        if self.passes == {forward_pass}:
            {ends}
        return super().forward(x)
"""
    Path(f"{name}.py").write_text(code, encoding="utf-8")
    line = 1 + code.splitlines().index(f"            {ends}")
    result = caa("certify", "--checkpoint", "weights.pt", "--arch", f"{name}:Leaving", *RUN)
    assert_clean_error(result, 1, f"Leaving.forward ended caa ({Path(name).resolve()}.py, line {line})", "exception")


@pytest.mark.parametrize("factory", ["plain", "told", "Net"])
def test_a_factory_of_the_current_folder(factory):
    write_factory(f"mynet_{factory}")
    arch = f"mynet_{factory}:{factory}"
    model, card, _ = target(Path("weights.pt"), Overrides(arch, 0.5, (0.5,), (0.5,)))
    assert card.num_classes == 10
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(model.eval()(images), network()((images - 0.5) / 0.5), rtol=1e-5, atol=1e-6)
    result = caa("certify", "--checkpoint", "weights.pt", "--arch", arch, *RUN)
    assert result.exit_code == 0, result.output
    assert json.loads(Path("certify.json").read_text(encoding="utf-8"))["config"]["arch"] == arch


@pytest.mark.parametrize(
    ("arch", "code", "problem", "hint"),
    [
        ("nowhere.at:all", 2, "there is no module nowhere", "PYTHONPATH"),
        ("mynet:missing", 2, "mynet has no missing", "plain"),
        ("mynet:number", 2, "can't be called", "function or class"),
        ("mynet:fails", 1, "mynet:fails(num_classes=10) failed (ValueError: no such thing)", "try it in Python"),
        ("mynet:leaves", 1, "failed (SystemExit: 3)", "try it in Python"),
        ("mynet:text", 1, "returned a str", "callable"),
        ("mynet:wide", 1, "head.weight is (10, 144), wanted (20, 144)", "--arch"),
        ("mynet:colour", 1, "conv.weight is (4, 1, 5, 5), wanted (4, 3, 5, 5)", "--arch"),
        ("mynet:", 2, "package.module:factory", "for instance"),
        ("broken:Net", 1, "importing broken failed (ZeroDivisionError", "python -c"),
    ],
)
def test_a_factory_that_fails_says_how(arch, code, problem, hint):
    write_factory("mynet")
    Path("broken.py").write_text("1 / 0\n", encoding="utf-8")
    result = caa("certify", "--checkpoint", "weights.pt", "--arch", arch, *RUN)
    assert_clean_error(result, code, problem, hint)


HEADS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.first, self.last = nn.Linear(784, 10), nn.Linear(10, last)

    def forward(self, x):
        return self.last(self.first(x.flatten(1)))

def single():
    torch.manual_seed(0)
    return Net(1)
"""


def test_a_network_that_mixes_its_images_up_is_refused(tmp_path):
    """Votes would depend on how many samples share a pass, and a certificate is of a function of one image."""
    mixing = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10, track_running_stats=False))
    torch.save(mixing, tmp_path / "x")
    with pytest.raises(CaaError, match="other logits beside other images"):
        target(tmp_path / "x", Overrides(sigma=0.5), trust=True)


def test_a_network_of_other_classes_than_a_matrix_of_its_suggests_is_refused():
    Path("heads.py").write_text(HEADS, encoding="utf-8")
    shapes = {"first.weight": (10, 784), "first.bias": (10,), "last.weight": (12, 10), "last.bias": (12,)}
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, "weights.pt")
    words = ["--checkpoint", "weights.pt", "--arch", "heads:Net(12)"]
    result = caa("certify", *words, *RUN)
    assert_clean_error(
        result, 2, "heads:Net(12) gives 12 logits for an image, not one for each of 10 classes", "num_cl"
    )
    assert caa("inspect", *words, "--dataset", "demo").exit_code == 1


def test_a_network_of_one_logit_is_refused_with_what_makes_it_two():
    Path("heads.py").write_text(HEADS, encoding="utf-8")
    for name in ("a", "b"):
        Path("images", name).mkdir(parents=True)
        Image.new("L", (28, 28)).save(f"images/{name}/0.png")
    words = ["--arch", "heads:single", "--dataset", "folder", "--sigma", "0.5"]
    for folder in ("b", "a"):
        result = caa("certify", *words, "--data-dir", "images")
        assert_clean_error(result, 2, "the model has one logit", "torch.cat([-logit, logit], dim=1)")
        shutil.rmtree(f"images/{folder}")


class Turned(nn.Module):
    """Pairs of pixels are turned by angles that it keeps as complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(784, 10)
        self.register_buffer("turns", torch.polar(torch.ones(392), torch.arange(392.0)))

    def forward(self, x):
        pairs = torch.view_as_complex(x.flatten(1).float().unflatten(1, (392, 2))) * self.turns
        return self.head(torch.view_as_real(pairs).flatten(1).to(x.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_complex_numbers_of_a_network_stay_complex(dtype):
    network, images = Turned(), torch.rand(2, 1, 28, 28)
    wanted = network(images)
    classifier = SmoothedClassifier(network, sigma=0.5, num_classes=10, input_shape=(1, 28, 28), dtype=dtype)
    assert network.turns.dtype == torch.complex64
    torch.testing.assert_close(classifier.model(images.to(dtype)).float(), wanted, rtol=0.05, atol=0.02)


HOSTILE_MODULE = "from pathlib import Path\nPath('mark').touch()\nraise ImportError('a stranger')\n"


@pytest.mark.parametrize("given", ["state dict", "card", "flag"])
def test_a_torchvision_in_the_current_folder_is_never_run(tmp_path, given):
    """In a process of its own, started like the installed command: here the true torchvision is imported already."""
    arch = "torchvision.models:resnet34"
    state = models.resnet34(weights=None, num_classes=10).state_dict()
    card = ModelCard(arch, 10, (3, 32, 32), dataset="cifar10", sigma=0.5)
    save_file(state, "weights", metadata=card.to_metadata() if given == "card" else None)
    Path("torchvision").mkdir()
    for file in (Path("torchvision.py"), Path("torchvision/__init__.py"), Path("torchvision/models.py")):
        file.write_text(HOSTILE_MODULE, encoding="utf-8")
    words = ["--arch", arch] if given == "flag" else []
    process = start("inspect", "weights", *words, env={**ENVIRONMENT, "PYTHONSAFEPATH": "1"})
    stdout, stderr = process.communicate()
    assert not Path("mark").exists()
    assert process.returncode == 0, stderr
    assert arch in stdout


def test_an_installed_module_goes_before_one_of_the_same_name_here():
    write_factory("safetensors")
    result = caa("certify", "--checkpoint", "weights.pt", "--arch", "safetensors:plain", *RUN)
    assert_clean_error(result, 2, "safetensors (", "it has: ")
    assert "__init__.py) has no plain" in result.stderr


def demo_without_card(path: Path) -> Path:
    torch.save(read_weights(DEMO_CHECKPOINT).tensors, path)
    return path


@pytest.fixture
def _unhurried(monkeypatch):
    """Accuracies under noise are measured on all images that may be, on a busy machine too."""
    monkeypatch.setattr("caa_cli.run.normalisation_check.MOST_SECONDS", 1e6)


@pytest.mark.usefixtures("_unhurried")
@pytest.mark.parametrize("flags", ["--mean 5 --std 10", "--mean 0.5 --std 0.5"])
def test_a_wrong_normalisation_is_noticed(tmp_path, flags):
    path = demo_without_card(tmp_path / "x")
    result = caa("certify", "--checkpoint", path, *RUN, *flags.split())
    assert result.exit_code == 0, result.output
    assert "warning: accuracy under noise is" in result.stderr
    # On a busy machine it is tried on fewer images, of which all may be right.
    assert re.search(r"with --normalisation mnist it is (9\d|100)%", result.stderr)


@pytest.mark.usefixtures("_unhurried")
def test_the_right_normalisation_is_left_alone(tmp_path):
    path = demo_without_card(tmp_path / "x")
    for flags in ([], ["--normalisation", "mnist"]):
        result = caa("certify", "--checkpoint", path, *RUN, *flags, "--overwrite")
        assert "accuracy under noise" not in result.stderr
        assert ("is assumed" in result.stderr) == (not flags)


@pytest.mark.usefixtures("_unhurried")
def test_a_flag_that_spoils_a_described_checkpoint_is_noticed():
    result = caa("certify", "--checkpoint", "demo", *RUN, "--mean", "5", "--std", "10")
    # On a busy machine it is tried on fewer images, of which all may be right.
    assert re.search(r"with --normalisation mnist it is (9\d|100)%", result.stderr)


@pytest.mark.usefixtures("_unhurried")
def test_a_model_that_guesses_is_noticed(tmp_path):
    torch.save(read_weights(DEMO_CHECKPOINT).tensors | {"7.weight": torch.zeros(10, 64)}, tmp_path / "x")
    result = caa("certify", "--checkpoint", tmp_path / "x", *RUN)
    assert "no better than guessing" in result.stderr


def test_a_name_and_numbers_for_the_normalisation_are_one_too_many():
    for command in (["certify", "--checkpoint", "demo"], ["inspect", "demo"]):
        both = caa(*command, "--normalisation", "mnist", "--mean", "0.5")
        assert_clean_error(both, 2, "say the same thing twice", "a name, or the numbers")
        unknown = caa(*command, "--normalisation", "nonsense")
        assert_clean_error(unknown, 2, "'nonsense' is not known", "cifar10-mean-only")


@pytest.mark.parametrize(
    "command", ["certify --checkpoint", "inspect", "train --dataset demo --sigma 1 --method denoiser --classifier"]
)
def test_a_checkpoint_that_is_not_there_is_answered_for_every_command_alike(tmp_path, command):
    refused = caa(*command.split(), tmp_path / "x.pt")
    assert_clean_error(refused, 2, "x.pt does not exist", "check the path; `demo` is one that comes with caa")


@pytest.mark.parametrize(
    ("words", "problem", "hint"),
    [
        (
            "--normalisation imagenet",
            "the normalisation imagenet is for 3 channels",
            "one of: none, mnist, fashion-mnist",
        ),
        ("--mean 0.1,0.2 --std 1", "--mean has 2 values", "give one value"),
    ],
)
def test_a_normalisation_for_other_channels_is_refused_as_it_was_given(words, problem, hint):
    assert_clean_error(caa("attack", "--checkpoint", "demo", *words.split()), 2, problem, hint)


def test_inspect_a_normalisation_that_begins_like_a_preset_and_has_a_channel_more(tmp_path):
    mean, std = (*NORMALISATIONS["cifar10"][0], 0.5), (*NORMALISATIONS["cifar10"][1], 0.5)
    card = ModelCard("small-cnn", 10, (4, 8, 8), mean, std, sigma=0.5)
    (tmp_path / "x").write_bytes(checkpoint_bytes(build(card), card))
    result = caa("inspect", tmp_path / "x", "--json")
    assert parse_strict(result.stdout)["normalisation"] == {"mean": list(mean), "std": list(std), "preset": None}


def test_a_size_that_the_classifier_does_not_take_is_not_blamed_on_the_data_set():
    refused = caa("attack", "--checkpoint", "demo", "--classifier-size", "14")
    assert_clean_error(
        refused, 2, "--classifier-size 14 is not the size of the model's images, 1×28×28", "leave it out"
    )


def test_inspect_the_demo():
    result = caa("inspect", "demo")
    assert result.exit_code == 0
    for text in (
        "small-cnn",
        "106,122",
        "mean 0.1307, std 0.3081 (mnist)",
        "nothing",
        "caa attack --checkpoint demo",
    ):
        assert text in result.stdout


def test_inspect_what_is_not_recognised(tmp_path):
    torch.save(network().state_dict(), tmp_path / "x")
    result = caa("inspect", tmp_path / "x")
    assert result.exit_code == 1
    assert "not recognised" in result.stdout
    assert "PACKAGE.MODULE:FACTORY" in result.stdout
    assert_clean_error(caa("inspect", tmp_path / "missing"), 2, "does not exist")
    (tmp_path / "y").write_text("no checkpoint", encoding="utf-8")
    assert_clean_error(caa("inspect", tmp_path / "y"), 1, "neither safetensors nor", "ONNX")


@pytest.mark.parametrize("held", ["weights", "network", "factory"])
def test_grey_images_of_a_colour_network_may_be_normalised_as_colour_images(tmp_path, held):
    """A torchvision ResNet that was fine-tuned on MNIST with ImageNet's mean and std, for instance."""
    torch.manual_seed(0)
    reference = models.resnet18(num_classes=10).eval() if held == "weights" else network(channels=3).eval()
    mean, std = NORMALISATIONS["imagenet"]
    overrides = Overrides(sigma=0.5, mean=mean, std=std)
    if held == "weights":
        torch.save(reference.state_dict(), tmp_path / "x")
        overrides = replace(overrides, arch="resnet18")
    elif held == "network":
        script(reference, tmp_path / "x")
    else:
        torch.save(reference.state_dict(), tmp_path / "x")
        overrides = replace(overrides, arch=f"{__name__}:Net(channels=3)")
    model, _, _ = target(tmp_path / "x", overrides, trust=True)
    images = torch.rand(2, 1, 28, 28)
    normalised = (images.repeat(1, 3, 1, 1) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(model.eval()(images), reference(normalised), rtol=1e-4, atol=1e-5)
