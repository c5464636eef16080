"""Classifiers that caa does not know itself: factories with arguments, libraries, folders, any container."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import pytest
import torch
from networks import quantised
from PIL import Image
from pretended_device import PretendedDevice
from safetensors.torch import load_file, save_file, save_model
from support import assert_clean_error, caa
from torch import nn
from torchvision import models, transforms

from caa_cli.config.choices import NORMALISATIONS
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.checkpoint import find_checkpoint, read_weights
from caa_cli.models.factory import parse_call
from caa_cli.models.libraries import timm_preprocessing
from caa_cli.models.load import build_model, input_of
from caa_cli.models.resolve import Overrides, resolve_card
from caa_cli.python.model import load

RUN = ["--dataset", "demo", "--sigma", "0.5", "--limit", "1", "--samples", "100", "--chunk-size", "64"]
FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, num_classes=10, *, slope=0.0):
        super().__init__()
        self.slope = slope
        self.body = nn.Sequential(nn.Conv2d(1, width, 5, stride=4), nn.LeakyReLU(slope), nn.Flatten())
        self.head = nn.Linear(36 * width, num_classes)

    def forward(self, x):
        return self.head(self.body(x))

def trained(width=4):
    torch.manual_seed(width)
    return Net(width)

class Tied(Net):
    def __init__(self):
        super().__init__()
        self.again = nn.Linear(10, 10)
        self.more = nn.Linear(10, 10)
        self.more.weight = self.again.weight

    def forward(self, x):
        return self.more(self.again(super().forward(x)))

class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.25]))
        self.register_buffer("std", torch.tensor([0.5]))
        self.network = trained(5)

    def forward(self, x):
        return self.network((x - self.mean) / self.std)
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nets").mkdir()
    Path("nets/mine.py").write_text(FACTORY, encoding="utf-8")


def network(width: int, slope: float = 0.0) -> nn.Module:
    scope: dict[str, type] = {}
    exec(FACTORY, scope)
    torch.manual_seed(width)
    return scope["Net"](width, slope=slope).eval()


def built(checkpoint: str, arch: str | None = None, shape=(1, 28, 28), dataset: str = "mnist", classes: int = 10):
    weights = read_weights(find_checkpoint(checkpoint))
    card, notes = resolve_card(weights, Overrides(arch, 0.5), dataset, shape, classes)
    return build_model(weights, card).eval(), card, notes


def same(model: nn.Module, reference: nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference.eval()(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arch", ["nets/mine.py:Net(7, slope=0.3)", "nets.mine:Net(width=7, slope=0.3)"])
def test_a_factory_is_given_its_arguments(arch):
    reference = network(7, 0.3)
    torch.save(reference.state_dict(), "weights.pt")
    model, card, _ = built("weights.pt", arch)
    assert (card.arch, card.num_classes) == (arch, 10)
    same(model.network, reference, torch.randn(2, 1, 28, 28))


@pytest.mark.parametrize("value", ["[1, (2, None)]", "{'a': -1.5}", "'a, b)'", "True"])
def test_arguments_are_any_literals(value):
    call = parse_call("--arch", f"a.b:c.d({value}, key={value})")
    assert (call.source, call.name) == ("a.b", "c.d")
    assert call.arguments == (eval(value),)
    assert call.settings == {"key": eval(value)}


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("Net(open('mark', 'w'))", "the argument open('mark', 'w') is no literal"),
        ("Net(width)", "the argument width is no literal"),
        ("Net(*[1])", "the argument *[1] is no literal"),
        ("Net(**{'width': 3})", "** is no argument"),
        ("Net(7", "can't be read as a call"),
        ("Net(7)(8)", "is more than one call"),
        ("Net(" + "[" * 10_000, "can't be read as a call"),
    ],
)
def test_other_arguments_are_refused(call, problem):
    with pytest.raises(UsageError) as caught:
        parse_call("--arch", f"nets.mine:{call}")
    assert problem in caught.value.problem
    assert "for instance nets.mine:Net(10, width=2, kind='small')" in caught.value.hint
    assert not Path("mark").exists()


def test_a_wrong_argument_is_one_message_with_the_call():
    torch.save(network(4).state_dict(), "weights.pt")
    result = caa("certify", "--checkpoint", "weights.pt", "--arch", "nets.mine:Net(depth=3)", *RUN)
    assert_clean_error(result, 1, "nets.mine:Net(depth=3", "--arch 'nets.mine:Net(10, width=2)'")


@pytest.mark.parametrize("dtype", ["half", "double"])
def test_a_factory_may_return_a_network_of_any_precision(dtype):
    with Path("nets/mine.py").open("a", encoding="utf-8") as file:
        file.write(f"\ndef other(width=4):\n    return trained(width).{dtype}()\n")
    torch.save(network(4).state_dict(), "weights.pt")
    for checkpoint, arch in (("weights.pt", "nets/mine.py:other"), ("nets/mine.py:other", None)):
        model, _, _ = built(checkpoint, arch)
        assert model(torch.rand(2, 1, 28, 28)).dtype == torch.float32


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def parallel() -> nn.Module:
    """In parts that a machine with a GPU has wrapped."""
    wrapped = nn.DataParallel(plain())
    wrapped.device_ids, wrapped.output_device, wrapped.dim = [0], 0, 0
    wrapped.src_device_obj = torch.device("cuda:0")
    return nn.Sequential(wrapped)


def test_a_network_that_was_made_for_several_gpus_runs_on_one_device():
    torch.save(parallel(), "whole.pt")
    for checkpoint, trust in ((f"{__name__}:parallel", False), ("whole.pt", True)):
        found = load(checkpoint, sigma=0.5, dataset="mnist", mean=(0.0,), trust_checkpoint=trust, device="cpu")
        same(found.model, plain(), torch.rand(2, 1, 28, 28))


class Normalising(nn.Module):
    """With a plain tensor, as Cohen et al. have it: `to` and `cpu` leave it where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.tensor([0.3]).to("cuda:0")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.mean.view(1, -1, 1, 1)


def on_gpu() -> nn.Module:
    return nn.Sequential(Normalising(), plain()).to("cuda:0")


def test_a_factory_may_put_its_network_on_a_gpu():
    """As published ones do; the network is tried out on the CPU all the same, and may go back."""
    with PretendedDevice():
        model, _, _ = built(f"{__name__}:on_gpu")
        assert model(torch.rand(2, 1, 28, 28)).device.type == "cpu"
        assert model.to("cuda:0")(torch.rand(2, 1, 28, 28).to("cuda:0")).device.type == "cuda"
        assert not any("mean" in name for name in model.network.state_dict())


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("nn.Sequential(nn.Flatten(), nn.LazyLinear(10))", "its 1.weight is a tensor without values"),
        ("Net().to('meta')", "its body.0.weight is a tensor without values"),
        ("type('More', (Net,), {'get_extra_state': lambda self: 1})()", "its _extra_state is no tensor"),
    ],
)
def test_a_factory_that_returns_half_a_network_is_one_message(code, problem):
    with Path("nets/mine.py").open("a", encoding="utf-8") as file:
        file.write(f"\ndef half():\n    return {code}\n")
    torch.save(network(4).state_dict(), "weights.pt")
    for words in (["--checkpoint", "weights.pt", "--arch", "nets/mine.py:half"], ["--arch", "nets/mine.py:half"]):
        assert_clean_error(caa("certify", *words, *RUN), 1, problem, "return one that is complete")


def test_inspect_does_not_call_an_architecture_wrong_that_it_could_not_try():
    torch.save(network(4).state_dict(), "weights.pt")
    words = ["inspect", "weights.pt", "--arch", "nets.mine:Net(4)", "--json"]
    assert json.loads(caa(*words).stdout)["problem"] == "not tried: which images it takes follows from --dataset"
    assert json.loads(caa(*words, "--dataset", "mnist").stdout)["problem"] is None


@pytest.mark.parametrize(
    "words", [["--arch", "nets/mine.py:trained(6)"], ["--checkpoint", "nets/mine.py:trained(6)"]]
)
def test_a_factory_may_bring_its_weights(words):
    result = caa("certify", *words, *RUN)
    assert result.exit_code == 0, result.output
    document = json.loads(Path("certify.json").read_text(encoding="utf-8"))
    assert document["config"]["arch"] == "nets/mine.py:trained(6)"
    model = load("nets/mine.py:trained(6)", sigma=0.5, dataset="mnist", mean=(0.0,), device="cpu").model
    same(model, network(6), torch.rand(2, 1, 28, 28))
    digest = document["checkpoint"]["sha256"]
    assert read_weights(Path("nets/mine.py:trained(6)")).sha256 == digest
    assert read_weights(Path("nets/mine.py:trained(7)")).sha256 != digest
    inspected = json.loads(caa("inspect", *words, "--json").stdout)
    assert (inspected["arch"], inspected["num_classes"]) == ("nets/mine.py:trained(6)", 10)
    assert inspected["input_shape"] == [1, 28, 28]
    assert "--trust-checkpoint" not in inspected["attack"]


def test_a_factory_that_only_initialises_is_refused():
    result = caa("certify", "--arch", "nets/mine.py:Net", *RUN)
    assert_clean_error(result, 2, "holds none of its own", "add --checkpoint FILE")
    result = caa("certify", "--arch", "torchvision:resnet18", *RUN)
    assert_clean_error(result, 2, "holds none of its own", "torchvision:resnet18(weights='DEFAULT')")


def test_neither_checkpoint_nor_factory_is_one_message():
    assert_clean_error(caa("certify", "--arch", "resnet18", *RUN), 2, "needs --checkpoint", "--checkpoint demo")


CONTAINERS = {
    "another key": lambda state: {"model_state": state, "optimizer": {"state": {}, "param_groups": []}},
    "beside an optimizer by name": lambda state: {"weights": state, "averages": {"other": torch.zeros(3)}},
    "beside settings": lambda state: {"model": {"kind": "a", "width": {"least": 5}}, "params": {}, "weights": state},
    "Lightning's": lambda state: {
        "state_dict": {**{f"model.{name}": value for name, value in state.items()}, "loss.weight": torch.ones(2)}
    },
    "two deep": lambda state: {
        "epoch": 1,
        "run": {"classifier": state, "adam": {"state": {0: {"exp_avg": torch.ones(3)}}}},
    },
    "parts": lambda state: {
        part: {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(part)}
        for part in ("body", "head")
    },
    "deep": lambda state: {"a": {"net.classifier.module." + name: value for name, value in state.items()}},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_whatever_fits_the_named_network_is_found(name):
    reference = network(5)
    torch.save(CONTAINERS[name](reference.state_dict()), "weights.pt")
    model, _, _ = built("weights.pt", "nets.mine:Net(5)")
    same(model.network, reference, torch.randn(2, 1, 28, 28))


@pytest.mark.parametrize("arch", ["nets.mine:Normalised", "nets.mine:Net(5)"])
def test_constants_of_a_normalisation_are_used_once(arch):
    scope: dict[str, type] = {}
    exec(FACTORY, scope)
    reference = scope["Normalised"]().eval()
    torch.save(reference.state_dict(), "weights.pt")
    model, card, _ = built("weights.pt", arch)
    same(model, reference, torch.rand(2, 1, 28, 28))
    document = json.loads(caa("inspect", "weights.pt", "--arch", arch, "--dataset", "mnist", "--json").stdout)
    assert document["normalisation"]["mean"] == list(card.mean)


@pytest.mark.parametrize(
    ("arch", "given", "note"),
    [
        ("nets.mine:Normalised", (0.5,), "nets.mine:Normalised normalises images itself"),
        ("nets.mine:Normalised", (0.0,), None),
        ("nets.mine:Net(5)", (0.5,), "mean 0.5 overrides the checkpoint's 0.25"),
    ],
)
def test_a_normalisation_beside_that_of_the_file_is_said(arch, given, note):
    scope: dict[str, type] = {}
    exec(FACTORY, scope)
    torch.save(scope["Normalised"]().state_dict(), "weights.pt")
    weights = read_weights(find_checkpoint("weights.pt"))
    std = (0.5,) if given != (0.0,) else (1.0,)
    card, notes = resolve_card(weights, Overrides(arch, 0.5, given, std), "mnist", (1, 28, 28), 10)
    assert card.mean == given
    assert [text[: len(note or "")] for text in notes] == ([note] if note else [])


def test_a_misfit_below_a_prefix_names_the_shape_that_differs():
    scope: dict[str, type] = {}
    exec(FACTORY, scope)
    state = {f"model.{name}": value for name, value in scope["Normalised"]().state_dict().items()}
    state["model.network.head.bias"] = torch.zeros(7)
    torch.save({"state_dict": state}, "weights.pt")
    result = caa("certify", "--checkpoint", "weights.pt", "--arch", "nets.mine:Normalised", *RUN)
    assert_clean_error(result, 1, "network.head.bias is (7,), wanted (10,) (1 such difference)")


def test_an_unknown_architecture_is_refused_before_anything_is_shown():
    torch.save(network(5).state_dict(), "weights.pt")
    result = caa("certify", "--checkpoint", "weights.pt", "--arch", "mine", *RUN)
    assert_clean_error(result, 2, "unknown architecture 'mine'", "package.module:factory")
    assert "smoothing" not in result.stderr


def test_tied_weights_are_found_where_safetensors_keeps_them_once():
    scope: dict[str, type] = {}
    exec(FACTORY, scope)
    reference = scope["Tied"]().eval()
    save_model(reference, "weights.safetensors")
    assert len(load_file("weights.safetensors")) == len(reference.state_dict()) - 1
    model, _, _ = built("weights.safetensors", "nets.mine:Tied")
    same(model.network, reference, torch.randn(2, 1, 28, 28))


def test_two_that_fit_are_refused():
    state = network(5).state_dict()
    torch.save(
        {f"{who}.{name}": value + k for k, who in enumerate(("student", "teacher")) for name, value in state.items()},
        "weights.pt",
    )
    with pytest.raises(CaaError, match=r"begin with student\. and teacher\."):
        built("weights.pt", "nets.mine:Net(5)")


def test_where_nothing_is_found_the_names_are_listed():
    torch.save({"state_dict": {f"model.{name}": value for name, value in network(5).state_dict().items()}}, "x")
    result = caa("inspect", "x")
    assert "model.body.* (2 tensors), model.head.* (2 tensors)" in result.stdout
    result = caa("certify", "--checkpoint", "x", *RUN)
    names = "(4 tensors: model.body.* (2 tensors), model.head.* (2 tensors))"
    assert_clean_error(result, 2, names, "--arch PACKAGE.MODULE:FACTORY")


def test_torchvision_by_name_with_its_own_preparation(tmp_path):
    torch.manual_seed(0)
    reference = models.resnet34(weights=None, num_classes=7).eval()
    torch.save(reference.state_dict(), "weights.pt")
    model, card, _ = built("weights.pt", "torchvision:resnet34", (3, 64, 64), "folder", 7)
    own = models.get_model_weights("resnet34").DEFAULT.transforms()
    assert (list(card.mean), list(card.std)) == (own.mean, own.std)
    same(model.network, reference, torch.randn(2, 3, 64, 64))
    weights = read_weights(Path("weights.pt"))
    # Inception takes 299 pixels of images whose shorter side is 342.
    prepared = weights.preprocessing("torchvision:inception_v3")
    assert (prepared.size, prepared.resize, prepared.image_size("imagenet")) == (299, 342, 299)
    assert prepared.image_size("cifar10") is None


@pytest.mark.parametrize("arguments", ["", "(transform_input=True)"])
def test_networks_that_torchvision_has_transform_their_input_get_what_they_would(arguments):
    torch.manual_seed(0)
    reference = models.googlenet(weights=None, init_weights=False, num_classes=7, transform_input=True).eval()
    for module in reference.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    torch.save(reference.state_dict(), "weights.pt")
    model, _, _ = built("weights.pt", f"torchvision:googlenet{arguments}", (3, 64, 64), "folder", 7)
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(values)[:, None, None] for values in NORMALISATIONS["imagenet"])
    with torch.no_grad():
        wanted = reference((images - mean) / std)
        torch.testing.assert_close(model(images), wanted, rtol=1e-3, atol=1e-3)


def test_densenets_as_torchvision_publishes_them():
    torch.manual_seed(0)
    reference = models.densenet121(weights=None, num_classes=7).eval()
    old = {re.sub(r"(denselayer\d+\.\D+)(\d\.)", r"\1.\2", name): t for name, t in reference.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, "weights.pt")
    model, _, _ = built("weights.pt", "torchvision:densenet121", (3, 32, 32), "folder", 7)
    same(model.network, reference, torch.randn(2, 3, 32, 32))


def test_the_preparation_goes_by_the_weights_content():
    from caa_cli.models.libraries import library_preprocessing

    first, second = (library_preprocessing("torchvision", "resnet50", {}, sha) for sha in ("0676ba61" + "0" * 56, ""))
    assert (first.resize, second.resize) == (256, 232)
    for name in ("IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V1"):  # torchvision takes both
        assert library_preprocessing("torchvision", "resnet50", {"weights": name}, "").resize == 256


def test_images_are_resized_as_the_library_does(tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "b").mkdir()
    pixels = torch.randint(0, 256, (300, 260, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for folder in "ab":
        Image.fromarray(pixels.numpy()).save(tmp_path / "data" / folder / "x.png")
    torch.save(models.efficientnet_b0(weights=None, num_classes=2).state_dict(), "weights.pt")
    words = ["--dataset", "folder", "--data-dir", "data", "--sigma", "0.5", "--limit", "1", "--chunk-size", "8"]
    words += ["--samples", "8", "--selection-samples", "8"]
    result = caa("certify", "--checkpoint", "weights.pt", "--arch", "torchvision:efficientnet_b0", *words)
    assert result.exit_code == 0, result.output
    config = json.loads(Path("certify.json").read_text(encoding="utf-8"))["config"]
    assert (config["image_size"], config["image_resize"], config["interpolation"]) == (224, 256, "bicubic")
    from caa_cli.data.datasets import open_dataset

    images = open_dataset("folder", tmp_path / "data", "test", image_size=224).prepared(256, "bicubic")
    own = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
        ]
    )
    assert torch.equal(images.image(0), own(Image.open(tmp_path / "data" / "a" / "x.png")))


@pytest.mark.parametrize(("name", "near"), [("resnet35", "resnet34"), ("fcn_resnet50", "resnet50")])
def test_a_name_of_no_classifier_of_a_library_is_answered_with_near_ones(name, near):
    torch.save(network(4).state_dict(), "weights.pt")
    result = caa("certify", "--checkpoint", "weights.pt", "--arch", f"torchvision:{name}", *RUN)
    assert_clean_error(result, 2, f"torchvision has no network {name}", near)


def test_a_missing_library_is_one_message_with_the_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    torch.save(network(4).state_dict(), "weights.pt")
    result = caa("certify", "--checkpoint", "weights.pt", "--arch", "timm:resnet18", *RUN)
    assert_clean_error(result, 1, "needs timm", "pip install 'caa-cli[timm]'")


class Centred(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.25))

    def forward(self, x):
        return x - self.mean


class Colour(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("made", "shape"),
    [
        (lambda: Colour(10), (3, 32, 32)),
        (lambda: Colour(1000), (3, 224, 224)),
        (lambda: network(4), (1, 28, 28)),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 10)), (3, 28, 28)),
        (lambda: nn.Sequential(Centred(), Colour(10)), (3, 32, 32)),  # takes grey images too
    ],
)
def test_the_images_of_a_whole_network_are_those_that_it_takes(made, shape):
    assert input_of(made())[0] == shape


def test_inspect_gives_the_shape_of_a_trusted_network_of_colour_images(tmp_path):
    torch.save(Colour(10), "x")
    document = json.loads(caa("inspect", "x", "--trust-checkpoint", "--json").stdout)
    assert document["input_shape"] == [3, 32, 32]


def exported(path: Path, fixed: bool = False) -> nn.Module:
    reference = network(4)
    shapes = None if fixed else ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(reference, (torch.zeros(4, 1, 28, 28),), dynamic_shapes=shapes), path)
    return reference


def test_a_file_of_torch_export_is_run_where_it_is_trusted(tmp_path):
    reference = exported(tmp_path / "x.pt2")
    result = caa("certify", "--checkpoint", "x.pt2", *RUN)
    assert_clean_error(result, 1, "x.pt2 is torch.export, a program", "--trust-checkpoint")
    result = caa(
        "attack", "--checkpoint", "x.pt2", *RUN, "--trust-checkpoint", "--attack", "pgd", "--iterations", "2"
    )
    assert result.exit_code == 0, result.output
    document = json.loads(caa("inspect", "x.pt2", "--trust-checkpoint", "--json").stdout)
    assert (document["format"], document["arch"]) == ("torch.export", "torch-export")
    model = load("x.pt2", sigma=0.5, dataset="mnist", mean=(0.0,), trust_checkpoint=True, device="cpu").model
    same(model, reference, torch.rand(3, 1, 28, 28))


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.BatchNorm2d(3)])
def test_a_network_exported_in_training_mode_is_refused(tmp_path, layer):
    """Its dropout would stay random, its batch normalisation would go by the noisy copies at hand."""
    dynamic = ({0: torch.export.Dim("batch")},)
    for train, problem in ((False, None), (True, "exported while it was in training mode")):
        network = nn.Sequential(layer, Colour(4)).train(train)
        program = torch.export.export(network, (torch.rand(2, 3, 8, 8),), dynamic_shapes=dynamic)
        torch.export.save(program, "x.pt2")
        if problem is None:
            assert read_weights(Path("x.pt2"), trust=True).module is not None
        else:
            with pytest.raises(CaaError, match=problem):
                read_weights(Path("x.pt2"), trust=True)


def test_an_exported_network_that_takes_no_images_is_refused(tmp_path):
    torch.export.save(torch.export.export(nn.ReLU(), (torch.tensor(1.0),)), "x.pt2")
    with pytest.raises(CaaError, match="takes something other than images"):
        read_weights(Path("x.pt2"), trust=True)


def test_a_fixed_batch_is_one_message(tmp_path):
    exported(tmp_path / "x.pt2", fixed=True)
    result = caa("certify", "--checkpoint", "x.pt2", *RUN, "--trust-checkpoint")
    assert_clean_error(result, 1, "batches of exactly 4", "dynamic_shapes")


def test_a_folder_without_a_configuration_or_weights(tmp_path):
    result = caa("certify", "--checkpoint", tmp_path / "nets", *RUN)
    assert_clean_error(result, 2, "is a folder without a config.json", "name the file in it")
    config = tmp_path / "nets" / "config.json"
    config.write_text('{"_class_name": "UNet2DModel"}', encoding="utf-8")
    result = caa("certify", "--checkpoint", tmp_path / "nets", *RUN)
    assert_clean_error(result, 2, "describes no network of timm or transformers", "--denoiser")
    config.write_text('{"architecture": "resnet18"}', encoding="utf-8")
    result = caa("certify", "--checkpoint", tmp_path / "nets", *RUN)
    assert_clean_error(result, 2, "but no model.safetensors", "download model.safetensors")


def timm_folder(folder: Path, **changed: object) -> nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    reference = timm.create_model("resnet10t", num_classes=3).eval()
    folder.mkdir()
    save_file(reference.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "resnet10t",
        "num_classes": 3,
        "pretrained_cfg": {
            "input_size": [3, 160, 160],
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.2, 0.1],
            "interpolation": "bicubic",
            "crop_pct": 0.8,
            "label_names": ["n1", "n2", "n3"],
            "label_descriptions": {"n1": "cat", "n2": "dog"},
        },
        **changed,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return reference


def test_a_folder_of_timm(tmp_path):
    reference = timm_folder(tmp_path / "hub")
    weights = read_weights(find_checkpoint("hub"))
    prepared = weights.preprocessing(None)
    assert (prepared.size, prepared.resize, prepared.interpolation) == (160, 200, "bicubic")
    assert weights.origin.class_names == ("cat", "dog", "n3")
    model, card, _ = built("hub", None, (3, 160, 160), "folder", 3)
    assert (card.arch, card.mean, card.std) == ("timm:resnet10t", (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    same(model.network, reference, torch.randn(2, 3, 160, 160))
    document = json.loads(caa("inspect", "hub", "--json").stdout)
    assert (document["arch"], document["input_shape"]) == ("timm:resnet10t", [3, 160, 160])
    assert "--trust-checkpoint" not in document["attack"]


def test_a_folder_of_timm_of_before_its_configuration_had_two_parts(tmp_path):
    timm_folder(tmp_path / "hub")
    config = json.loads(Path("hub/config.json").read_text(encoding="utf-8"))
    flat = {**config.pop("pretrained_cfg"), **config}
    flat["labels"] = flat.pop("label_names")
    Path("hub/config.json").write_text(json.dumps(flat), encoding="utf-8")
    weights = read_weights(find_checkpoint("hub"))
    assert (weights.preprocessing(None).mean, weights.preprocessing(None).size) == ((0.5, 0.4, 0.3), 160)
    assert weights.origin.class_names == ("cat", "dog", "n3")


def test_the_length_that_timm_resizes_to_is_rounded_down():
    assert timm_preprocessing({"input_size": (3, 224, 224), "crop_pct": 0.9}).resize == 248


@pytest.mark.parametrize(
    ("name", "settings", "shape"),
    [("resnet10t", {"in_chans": 1}, (1, 160, 160)), ("vit_tiny_patch16_224", {"img_size": 32}, (3, 32, 32))],
)
def test_a_folder_of_timm_may_say_the_shape_of_its_images_in_one_place(tmp_path, name, settings, shape):
    said = {"input_size": shape, "fixed_input_size": "vit" in name, "mean": [0.5], "std": [0.5]}
    timm_folder(tmp_path / "hub", architecture=name, pretrained_cfg=said)
    timm = pytest.importorskip("timm")
    reference = timm.create_model(name, num_classes=3, **settings).eval()
    save_file(reference.state_dict(), "hub/model.safetensors")
    same(built("hub", None, shape, "folder", 3)[0].network, reference, torch.randn(2, *shape))


def test_timm_by_name():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    reference = timm.create_model("resnet10t", num_classes=4).eval()
    torch.save({"state_dict_ema": reference.state_dict()}, "weights.pt")
    model, card, _ = built("weights.pt", "timm:resnet10t", (3, 64, 64), "folder", 4)
    config = timm.data.resolve_data_config({}, model=reference)
    assert (card.mean, card.std) == (config["mean"], config["std"])
    same(model.network, reference, torch.randn(2, 3, 64, 64))
    assert read_weights(Path("weights.pt")).preprocessing("timm:resnet10t").interpolation == config["interpolation"]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"architecture": "hf_hub:somebody/something"}, "timm has no network hf_hub:somebody/something"),
        ({"num_classes": 5}, "don't go with its config.json"),
        ({"model_args": {"no_such": 1}}, "no network can be built"),
        ({"pretrained_cfg": {"input_size": "large"}}, "no network can be built"),
        ({"pretrained_cfg": {"std": [0.2, 0.0, 0.2]}}, "images can't be normalised by a std of (0.2, 0.0, 0.2)"),
        ({"pretrained_cfg": {"mean": [0.5, math.nan, 0.5]}}, "can't be normalised by a mean of (0.5, nan, 0.5)"),
    ],
)
def test_a_folder_that_is_damaged_or_made_to_do_harm(tmp_path, changed, problem):
    timm_folder(tmp_path / "hub", **changed)
    with pytest.raises(CaaError) as caught:
        read_weights(find_checkpoint("hub"))
    assert problem in caught.value.problem


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_folder_of_weights_that_were_quantised_to_integers_is_refused(tmp_path, library):
    pytest.importorskip(library)
    if library == "timm":
        timm_folder(tmp_path / "hub")
    else:
        save_resnet_of_transformers(tmp_path / "hub")
    file = tmp_path / "hub" / "model.safetensors"
    save_file(quantised(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(CaaError, match=r"model\.safetensors holds a tensor that can't be used: .* is of type int8"):
        read_weights(find_checkpoint("hub"))


def save_resnet_of_transformers(folder: Path) -> None:
    import transformers

    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=3)
    transformers.ResNetForImageClassification(config).save_pretrained(folder)


def test_a_folder_may_not_name_other_weights(tmp_path):
    reference = timm_folder(tmp_path / "hub", model_args={"pretrained": True, "checkpoint_path": "/nowhere"})
    model, _, _ = built("hub", None, (3, 160, 160), "folder", 3)
    same(model.network, reference, torch.randn(2, 3, 160, 160))


def test_a_folder_of_transformers(tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "owl"}, label2id={"cat": 0, "dog": 1, "owl": 2},
    )  # fmt: skip
    reference = transformers.ViTForImageClassification(config).eval()
    reference.save_pretrained(tmp_path / "hub")
    preparation = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
        "resample": 3,
    }
    (tmp_path / "hub" / "preprocessor_config.json").write_text(json.dumps(preparation), encoding="utf-8")
    capsys.readouterr()
    weights = read_weights(find_checkpoint("hub"))
    assert capsys.readouterr() == ("", "")  # not even a progress bar of the library's
    assert transformers.utils.logging.is_progress_bar_enabled()
    assert weights.origin.class_names == ("cat", "dog", "owl")
    assert "3: cat, dog, owl" in caa("inspect", "hub").stdout
    assert weights.preprocessing(None).interpolation == "bicubic"
    model, card, _ = built("hub", None, (3, 32, 32), "folder", 3)
    assert (card.arch, card.mean) == ("transformers:ViTForImageClassification", (0.5,) * 3)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.network(images), reference(images).logits, rtol=1e-5, atol=1e-5)
    described = json.loads((tmp_path / "hub" / "config.json").read_text(encoding="utf-8"))
    described["auto_map"] = {"AutoModelForImageClassification": "evil.Net", "AutoConfig": "evil.Config"}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(described), encoding="utf-8")
    (tmp_path / "hub" / "evil.py").write_text("from pathlib import Path\nPath('mark').touch()\n", encoding="utf-8")
    built("hub", None, (3, 32, 32), "folder", 3)
    assert not Path("mark").exists()
    assert not (tmp_path / "hub" / "mark").exists()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViTImageProcessor", {}),
        ("ViTImageProcessor", {"rescale_factor": 1 / 127.5}),
        ("ViTImageProcessor", {"do_rescale": False}),
        ("ViTImageProcessor", {"do_normalize": False}),
        ("EfficientNetImageProcessor", {"image_std": [0.5, 0.4, 0.3]}),
        ("EfficientNetImageProcessor", {"rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False}),
        ("MobileViTImageProcessor", {"crop_size": {"height": 32, "width": 32}}),
        ("PPLCNetImageProcessor", {"crop_size": {"height": 32, "width": 32}, "resize_short": 32}),
    ],
)
def test_the_network_gets_what_the_image_processor_of_transformers_makes(tmp_path, kind, settings):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, kind):
        pytest.skip(f"no {kind} in this version of transformers")
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], num_labels=3)
    torch.manual_seed(0)
    reference = transformers.ResNetForImageClassification(config).eval()
    reference.save_pretrained(tmp_path / "hub")
    processor = getattr(transformers, kind)(size={"height": 32, "width": 32}, **settings)
    processor.save_pretrained(tmp_path / "hub")
    weights = read_weights(find_checkpoint("hub"))
    assert weights.preprocessing(None).size == 32
    model, _, _ = built("hub", None, (3, 32, 32), "folder", 3)
    image = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        wanted = reference(**processor(image, return_tensors="pt")).logits
        torch.testing.assert_close(model(image[None] / 255), wanted, rtol=1e-4, atol=1e-4)


def test_the_published_resnet20_loads_by_itself():
    file = Path(os.environ.get("CAA_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cifar10-resnet20.th"
    if not file.is_file():
        pytest.skip(f"no {file}: set CAA_DATA to a folder that holds it")
    model, card, notes = built(str(file), None, (3, 32, 32), "cifar10")
    assert (card.arch, card.mean) == ("resnet20-a", (0.485, 0.456, 0.406))
    assert "--normalisation imagenet is assumed" in notes[0]
    assert sum(parameter.numel() for parameter in model.parameters()) == 269_722
