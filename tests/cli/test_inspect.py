"""`caa inspect`: what it says is strict JSON, and holds for the run whose command it prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support import assert_clean_error, caa, parse_strict, read_strict

from caa_cli.data.datasets import class_names
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, checkpoint_bytes, read_weights

RUN = ["--limit", "2", "--samples", "100", "--selection-samples", "20", "--chunk-size", "64"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def inspected(*words: str) -> dict[str, object]:
    result = caa("inspect", *words, "--json")
    assert result.exit_code == 0, result.output
    return parse_strict(result.stdout)


def test_a_folder_of_several_checkpoints_and_results_is_not_called_a_denoiser():
    for name in ("a.safetensors", "b.safetensors"):
        Path(name).write_bytes(DEMO_CHECKPOINT.read_bytes())
    Path("attack.json").write_text("{}")
    assert_clean_error(caa("inspect", "."), 2, "the checkpoint . is a folder", "name the file in it")


def test_numbers_of_the_training_are_rounded_for_a_person_only():
    training = {"heldout_noisy_accuracy": 0.26666666666666666, "weight_decay": 0.0, "epochs": 2}
    card = ModelCard("small-cnn", 10, (1, 28, 28), dataset="mnist", sigma=0.5, training=training)
    save_file(read_weights(DEMO_CHECKPOINT).tensors, "x", metadata=card.to_metadata())
    assert "heldout noisy accuracy 0.2667, weight decay 0, epochs 2" in caa("inspect", "x").stdout
    assert inspected("x")["training"]["heldout_noisy_accuracy"] == training["heldout_noisy_accuracy"]


def test_what_json_has_no_word_for_becomes_null():
    weights = read_weights(DEMO_CHECKPOINT)
    deep: list[object] = []
    for _ in range(400):
        deep = [deep]
    training = {"loss": float("nan"), "losses": [1.5, float("-inf")], "deep": deep}
    card = ModelCard("small-cnn", 10, (1, 28, 28), dataset="mnist", sigma=0.5, training=training)
    save_file(weights.tensors, "x", metadata=card.to_metadata())
    found = inspected("x")["training"]
    assert (found["loss"], found["losses"]) == (None, [1.5, None])
    assert "loss" not in caa("inspect", "x").stdout
    torch.save({"state_dict": weights.tensors, "best": float("inf"), "lr": float("nan"), "epoch": 3}, "y")
    assert inspected("y")["container"]["beside"] == {"best": None, "lr": None, "epoch": 3}


@pytest.mark.parametrize(
    ("flags", "mean", "std"),
    [("--mean 0.5", [0.5], [0.3081]), ("--std 0.5", [0.1307], [0.5]), ("--mean 0.5 --std 0.25", [0.5], [0.25])],
)
def test_half_a_normalisation_leaves_the_other_half_of_the_card(flags, mean, std):
    document = inspected("demo", *flags.split())
    assert document["normalisation"] == {"mean": mean, "std": std, "preset": None}
    result = caa("certify", "--checkpoint", "demo", *flags.split(), *RUN)
    assert result.exit_code == 0, result.output
    config = read_strict(Path("certify.json"))["config"]
    assert (config["mean"], config["std"]) == (mean, std)
    words = shlex.split(document["attack"])
    assert words[words.index("--mean") + 1] == f"{mean[0]:g}"
    assert words[words.index("--std") + 1] == f"{std[0]:g}"


def write_checkpoint(dataset: str, image_size: int | None, classes: int = 2) -> None:
    card = ModelCard(
        "small-cnn", classes, (3, 16, 16), (0.5,), (0.25,), dataset, 0.5, training={"image_size": image_size}
    )
    torch.manual_seed(0)
    Path("x").write_bytes(checkpoint_bytes(build(card), card))


def write_images(root: str, classes: list[str], height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for name in classes:
        folder = Path("data") / root / name
        folder.mkdir(parents=True)
        Image.fromarray(pixels).save(folder / "0.png")


@pytest.mark.parametrize("dataset", [[], ["--dataset", "folder"]])
@pytest.mark.parametrize(("trained_on", "image_size"), [("folder", 16), ("folder", None), ("imagenet", None)])
def test_images_of_a_folder_are_brought_to_the_size_that_the_model_was_trained_on(trained_on, image_size, dataset):
    if trained_on == "imagenet" and not dataset:
        return  # then they are ImageNet's, below
    write_checkpoint(trained_on, image_size)
    own = trained_on == "folder" and image_size is None  # images that had this size already, and were not cropped
    write_images(".", ["a", "b"], *((16, 16) if own else (30, 40)))
    document = inspected("x", *dataset)
    assert (document["input_shape"], document["problem"]) == ([3, 16, 16], None)
    words = shlex.split(document["attack"])[2:]
    words[words.index("DIR")] = "data"
    result = caa("certify", *words, *RUN)
    assert result.exit_code == 0, result.output
    assert read_strict(Path("certify.json"))["config"]["image_size"] == (None if own else 16)


def test_images_of_imagenet_are_brought_to_the_size_that_the_model_was_trained_on():
    write_checkpoint("imagenet", 16, classes=1000)
    write_images("val", ["n01440764", "n01443537"], 30, 40)
    for dataset in ([], ["--dataset", "imagenet"]):
        document = inspected("x", *dataset)
        assert (document["input_shape"], document["problem"]) == ([3, 16, 16], None)
        words = shlex.split(document["attack"])[2:]
        words[words.index("DIR")] = "data"
        result = caa("certify", *words, *RUN)
        assert result.exit_code == 0, result.output
        assert read_strict(Path("certify.json"))["config"]["image_size"] == 16


def test_a_flag_goes_before_the_size_of_the_checkpoint():
    write_checkpoint("folder", 16)
    write_images(".", ["a", "b"], 30, 40)
    result = caa("certify", "--checkpoint", "x", "--data-dir", "data", "--image-size", "20", *RUN)
    assert result.exit_code == 2
    assert "3×16×16 images, folder has 3×20×20" in result.stderr


@pytest.mark.parametrize(
    ("words", "problem", "hint"),
    [
        (["demo", "--dataset", "cifar10"], "takes 1×28×28 images, cifar10 has 3×32×32", "--dataset mnist"),
        (["demo", "demo", "--dataset", "cifar10"], "takes 1×28×28 images, cifar10 has 3×32×32", "--dataset mnist"),
        (
            ["moved", "--dataset", "fashion-mnist"],
            "trouser is class 1 of fashion-mnist, 2 of the checkpoint",
            "trained on",
        ),
        (["x", "--dataset", "mnist", "--arch", "torchvision:resnet19"], "no network resnet19", "near it"),
    ],
)
def test_no_command_is_offered_that_would_be_refused(words, problem, hint):
    save_file({"weight": torch.zeros(10, 3)}, "x")
    names = list(class_names("fashion-mnist"))
    names[1:3] = names[2:0:-1]
    moved = ModelCard("small-cnn", 10, (1, 28, 28), sigma=0.5, class_names=tuple(names))
    Path("moved").write_bytes(checkpoint_bytes(build(moved), moved))
    result = caa("inspect", *words)
    assert result.exit_code == 1
    assert re.search(rf"^problem .*{problem}.*\ntry .*{hint}", result.stdout, re.MULTILINE)
    assert "caa attack" not in result.stdout
    assert ("missing        architecture" in result.stdout) == ("--arch" in words)


def test_the_checkpoint_is_named_as_in_the_other_subcommands_too():
    by_flag, by_word = (caa("inspect", *words, "--json") for words in (["--checkpoint", "demo"], ["demo"]))
    assert by_flag.exit_code == 0
    assert by_flag.stdout == by_word.stdout
    by_variable = caa("inspect", "--json", env={"CAA_INSPECT_CHECKPOINT": "demo"})
    assert by_variable.stdout == by_word.stdout
    assert_clean_error(caa("inspect"), 2, "needs --checkpoint", "caa inspect --checkpoint demo")
    both = caa("inspect", "a.pt", "--checkpoint", "b.pt")
    assert_clean_error(both, 2, "a.pt and --checkpoint b.pt are two", "caa inspect --checkpoint b.pt")
