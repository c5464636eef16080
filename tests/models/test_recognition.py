"""Published checkpoints: each layout is recognised by its content, and computes what its own code would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import CASES, CIFAR, Case, PublishedLeNet, ThinResNet, in_front, seasoned
from safetensors.torch import save_file
from support import caa
from torch import nn
from torchvision import models

from caa_cli.cli.layers import normalisation
from caa_cli.errors import CaaError
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import Weights, read_weights
from caa_cli.models.load import build_model
from caa_cli.models.prefixes import stored_normalisation
from caa_cli.models.recognise import recognise
from caa_cli.models.resolve import Overrides, resolve_card


@pytest.fixture(scope="module")
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Case, Path]]:
    """The case that the parameter names, and the file that its code saves."""
    case = CASES[request.param]
    path = case.write(tmp_path_factory.mktemp("published") / "x")
    yield case, path
    path.unlink()


def flagged(case: Case) -> Overrides:
    chosen = normalisation({"mean": None, "std": None, "normalisation": case.flags[1] if case.flags else None})
    return Overrides(sigma=0.5, **chosen)


def built(weights: Weights, case: Case):
    card, notes = resolve_card(weights, flagged(case), case.dataset, case.shape, case.classes)
    return build_model(weights, card).eval(), card, notes


@pytest.mark.parametrize("published", CASES, indirect=True)
def test_a_published_layout_computes_what_its_own_code_would(published):
    case, file = published
    weights = read_weights(file)
    assert len(weights.tensors) == case.tensors
    assert next(iter(weights.tensors)) == case.first
    model, card, notes = built(weights, case)
    assert (card.arch, card.num_classes) == (case.arch, case.classes)
    if not case.flags:
        assert any(f"--normalisation {case.normalisation} is assumed" in note for note in notes)
    images = torch.rand((2, *case.shape), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(images), case.logits(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("published", CASES, indirect=True)
def test_inspect_names_the_source_and_a_command_that_runs(published):
    case, file = published
    result = caa("inspect", file, "--dataset", case.dataset, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["arch"] == case.arch
    assert document["source"] == case.source
    assert document["num_classes"] == case.classes
    assert case.normalisation in document["normalisations_to_try"][:2]
    assert document["missing"] == ["σ", "normalisation"]
    assert document["problem"] is None
    assert "--sigma S" in document["attack"]
    if case.source.startswith("Cohen"):
        assert document["container"]["beside"]["epoch"] == 90


@pytest.mark.parametrize("published", ["Kuang Liu, ResNet-18"], indirect=True)
def test_the_name_of_the_file_changes_nothing(published, tmp_path):
    (case, file), found = published, []
    for other in ("imagenet-resnet50.safetensors", "y.onnx"):
        (tmp_path / other).symlink_to(file)
        weights = read_weights(tmp_path / other)
        card, _ = resolve_card(weights, flagged(case), case.dataset, case.shape, case.classes)
        found.append((weights.recognised, card))
    assert found[0] == found[1]


def test_torchvision_as_safetensors(tmp_path):
    network = seasoned(models.resnet18(weights=None, num_classes=10))
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    found = recognise(read_weights(tmp_path / "x.safetensors").tensors)
    assert (found.arch, found.num_classes, found.channels) == ("resnet18", 10, 3)


def test_the_images_decide_between_two_stems_of_the_same_weights(tmp_path):
    case = CASES["paper, ImageNet"]
    weights = read_weights(case.write(tmp_path / "x"))
    found = recognise(weights.tensors)
    assert (found.arch, found.other) == ("resnet18-cifar", "resnet18-3x3")
    for height, arch in ((224, "resnet18-3x3"), (64, "resnet18-3x3"), (32, "resnet18-cifar")):
        card, notes = resolve_card(weights, Overrides(sigma=0.5), "imagenet", (3, height, height), 1000)
        assert card.arch == arch
        assert "resnet18-cifar" in notes[0]
        assert "resnet18-3x3" in notes[0]


def test_a_network_of_kuang_lius_code_has_no_pooling_at_any_size(tmp_path):
    case = CASES["Kuang Liu, ResNet-18"]
    weights = read_weights(case.write(tmp_path / "x"))
    card, _ = resolve_card(weights, Overrides(sigma=0.5), "folder", (3, 64, 64), 10)
    assert card.arch == "resnet18-cifar"


@pytest.mark.parametrize("depth", [8, 32, 56])
def test_thin_networks_of_any_depth_are_recognised(tmp_path, depth):
    torch.save(seasoned(ThinResNet(depth, classes=7)).state_dict(), tmp_path / "x")
    found = recognise(read_weights(tmp_path / "x").tensors)
    assert (found.arch, found.num_classes) == (f"resnet{depth}", 7)


def refusal(path: Path, case: Case, said: Overrides, classes: int = 10) -> CaaError:
    weights = read_weights(path)
    with pytest.raises(CaaError) as caught:
        build_model(weights, resolve_card(weights, said, case.dataset, case.shape, classes)[0])
    return caught.value


def test_another_depth_is_named(tmp_path):
    torch.save({"net": ThinResNet(56).state_dict()}, tmp_path / "x")
    error = refusal(tmp_path / "x", CASES["MACER, CIFAR-10"], Overrides("resnet110", 0.5))
    assert "don't fit resnet110" in error.problem
    assert "those of resnet56 with 10 classes" in error.problem
    assert "--arch resnet56" in error.hint


def test_another_width_is_refused_with_its_shapes(tmp_path):
    torch.save({"net": ThinResNet(20, width=32).state_dict()}, tmp_path / "x")
    error = refusal(tmp_path / "x", CASES["MACER, CIFAR-10"], Overrides("resnet20", 0.5))
    assert "(32, 3, 3, 3), wanted (16, 3, 3, 3)" in error.problem
    assert "no architecture that caa knows" in refusal(
        tmp_path / "x", CASES["MACER, CIFAR-10"], Overrides(sigma=0.5)
    ).problem  # fmt: skip


def test_another_number_of_classes_is_refused(tmp_path):
    torch.save({"net": ThinResNet(20, classes=100).state_dict()}, tmp_path / "x")
    error = refusal(tmp_path / "x", CASES["MACER, CIFAR-10"], Overrides(sigma=0.5))
    assert "100 classes, cifar10 has 10" in error.problem


def test_constants_of_a_normalisation_saved_with_the_weights_are_used(tmp_path):
    network = seasoned(ThinResNet(20))
    state = {f"1.{name}": value for name, value in network.state_dict().items()}
    state |= {"0.mean": torch.tensor(CIFAR).view(1, 3, 1, 1), "0.std": torch.full((1, 3, 1, 1), 0.25)}
    torch.save({"state_dict": state}, tmp_path / "x")
    assert stored_normalisation(read_weights(tmp_path / "x").tensors)[1] == (0.25,) * 3
    model, _, notes = built(read_weights(tmp_path / "x"), CASES["MACER, CIFAR-10"])
    assert "as saved beside the weights" in notes[0]
    images = torch.rand(2, 3, 32, 32)
    wanted = network((images - torch.tensor(CIFAR).view(-1, 1, 1)) / 0.25)
    torch.testing.assert_close(model(images), wanted, rtol=1e-4, atol=1e-4)


def test_the_constants_in_a_file_go_before_the_normalisation_of_a_library(tmp_path):
    network = seasoned(models.resnet18(num_classes=10))
    state = {f"1.{name}": value for name, value in network.state_dict().items()}
    torch.save({**state, "0.mean": torch.tensor(CIFAR), "0.std": torch.tensor([0.25])}, tmp_path / "x")
    weights, said = read_weights(tmp_path / "x"), Overrides("torchvision:resnet18", 0.5)
    assert resolve_card(weights, said, "cifar10", (3, 32, 32), 10)[0].mean == pytest.approx(CIFAR)


class Robust(nn.Module):
    """As the `robustness` package saves a network: once for itself, and once below what attacks it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.normalizer = nn.Module()
        self.normalizer.register_buffer("new_mean", torch.tensor(CIFAR).view(3, 1, 1))
        self.normalizer.register_buffer("new_std", torch.full((3, 1, 1), 0.25))
        self.model = network
        self.attacker = nn.Module()
        self.attacker.normalize = self.normalizer
        self.attacker.model = network


@pytest.mark.parametrize("arch", [None, "resnet20"])
def test_a_network_that_is_stored_twice_is_one(tmp_path, arch):
    network = seasoned(ThinResNet(20))
    state = {f"module.{name}": value for name, value in Robust(network).state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "x")
    weights = read_weights(tmp_path / "x")
    card, _ = resolve_card(weights, Overrides(arch, 0.5), "cifar10", (3, 32, 32), 10)
    images = torch.rand(2, 3, 32, 32)
    wanted = network((images - torch.tensor(CIFAR).view(-1, 1, 1)) / 0.25)
    torch.testing.assert_close(build_model(weights, card).eval()(images), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_what_wraps_a_part_of_the_network_is_taken_out_of_the_names(tmp_path, wrapper):
    network = seasoned(ThinResNet(20))
    state = {name.replace("layer1.", f"layer1.{wrapper}."): t for name, t in network.state_dict().items()}
    torch.save(state, tmp_path / "x")
    model, card, _ = built(read_weights(tmp_path / "x"), CASES["MACER, CIFAR-10"])
    assert card.arch == "resnet20"
    torch.testing.assert_close(model.network(images := torch.rand(2, 3, 32, 32)), network(images))


def test_a_block_that_wide_networks_never_use_is_left_out(tmp_path):
    case = CASES["smoothing code, WRN-40-2"]
    network = seasoned(case.network())
    unused = {f"sub_block1.{name}": value for name, value in network.block1.state_dict().items()}
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in {**network.state_dict(), **unused}.items()}}, tmp_path / "x"
    )
    card, notes = resolve_card(read_weights(tmp_path / "x"), Overrides(sigma=0.5), "cifar10", (3, 32, 32), 10)
    model = build_model(read_weights(tmp_path / "x"), card).eval()
    assert (card.arch, card.mean) == ("wrn-40-2", (0.0,))
    assert "the likeliest for TRADES or Carmon et al." in notes[0]
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model.network(images), network(images), rtol=1e-4, atol=1e-4)


SMALL_STATE = build(ModelCard("small-cnn", 10, (1, 28, 28))).network.state_dict()
LENET_STATE = PublishedLeNet().state_dict()


PREFIXES = ("_orig_mod.", "module.", "model.", "network.", "1.", "net.", "classifier.", "anything.")


@settings(max_examples=60)
@given(stack=st.lists(st.sampled_from(PREFIXES), max_size=5), lenet=st.booleans())
def test_prefixes_come_off_in_any_order(stack, lenet):
    state, prefix = LENET_STATE if lenet else SMALL_STATE, "".join(stack)
    found = recognise({prefix + name: value for name, value in state.items()})
    assert found is not None
    assert found.arch == ("lenet" if lenet else "small-cnn")
    assert found.prefix == prefix


@settings(max_examples=60)
@given(names=st.dictionaries(st.text(max_size=12), st.lists(st.integers(0, 3), max_size=4), max_size=8))
def test_weights_of_anything_else_are_not_recognised(names):
    assert recognise({name: torch.zeros(shape) for name, shape in names.items()}) is None


def test_averaged_weights_come_second(tmp_path):
    state, average = SMALL_STATE, {name: value + 1 for name, value in SMALL_STATE.items()}
    torch.save({"model_ema": average, "model": state, "ema": 0.9}, tmp_path / "x")
    torch.save({"ema": average, "optimizer": {"state": {0: {"step": state["0.weight"]}}}}, tmp_path / "y")
    said = "those under model are used, others are under model_ema"
    for name, wanted, note in (("x", state, [said]), ("y", average, [])):
        weights = read_weights(tmp_path / name)
        assert torch.equal(weights.tensors["0.weight"], wanted["0.weight"])
        _, notes = resolve_card(weights, Overrides(sigma=0.5), "mnist", (1, 28, 28), 10)
        assert [text.rpartition(": ")[2] for text in notes if "under" in text] == note


def test_certify_runs_on_a_published_layout_without_a_word_on_its_architecture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CASES["Consistency, MNIST"].write(tmp_path / "noise_0.50.pth.tar")
    words = ["--dataset", "demo", "--limit", "2", "--samples", "200", "--chunk-size", "64"]
    result = caa("certify", "--checkpoint", "noise_0.50.pth.tar", *words)
    assert result.exit_code == 2
    assert "its name suggests σ = 0.5" in result.stderr
    assert result.stderr.endswith(" --sigma 0.5\n")
    result = caa("certify", "--checkpoint", "noise_0.50.pth.tar", *words, "--sigma", "0.5")
    assert result.exit_code == 0, result.output
    assert "--normalisation none is assumed" in result.stderr
    document = json.loads(Path("certify.json").read_text(encoding="utf-8"))
    assert document["config"]["arch"] == "lenet"
    assert document["config"]["mean"] == [0.0]


def test_parallel_training_of_a_wrapped_network(tmp_path):
    torch.save(nn.DataParallel(in_front(ThinResNet(20))).state_dict(), tmp_path / "x")
    assert recognise(read_weights(tmp_path / "x").tensors).prefix == "module.1."
