"""Images that can't be used in the middle of a run: they fail, the others don't, and --resume tries them again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import CHEAP, Result, assert_clean_error, caa, demo_images, read_strict, timeless, write_mnist

from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, checkpoint_bytes, read_weights

DATA = ["--dataset", "folder"]
_CERTIFY = "--samples 300 --selection-samples 20 --chunk-size 256 --device cpu"
CERTIFY = _CERTIFY.split()
COMMANDS = ["attack", "certify"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The demo's first images as a folder of their classes; the demo checkpoint knows them."""
    images, labels = demo_images()
    for index in range(12):
        folder = tmp_path / "digits" / str(labels[index])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[index]).save(folder / f"{index:02}.png")
    for label in range(10):  # a folder without an image would be refused, and one that is missing would shift labels
        if not (tmp_path / "digits" / str(label)).exists():
            index = int(np.flatnonzero(labels == label)[0])
            (tmp_path / "digits" / str(label)).mkdir()
            Image.fromarray(images[index]).save(tmp_path / "digits" / str(label) / f"{index:02}.png")
    return tmp_path / "digits"


def files(tree: Path) -> list[Path]:
    return sorted(tree.rglob("*.png"))


def run(command: str, tree: Path, output: Path, *words: str | Path) -> Result:
    settings = CHEAP if command == "attack" else ["--checkpoint", "demo", *CERTIFY]
    return caa(command, *settings, *DATA, "--data-dir", tree, "--limit", "5", "--output", output, *words)


def finished(result: Result, output: Path, code: int) -> dict[str, Any]:
    assert not isinstance(result.exception, Exception), repr(result.exception)
    assert result.exit_code == code, result.output
    return read_strict(output)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_image_fails_alone_and_is_tried_again_once_it_is_mended(tmp_path, tree, command):
    whole = finished(run(command, tree, tmp_path / "whole.json"), tmp_path / "whole.json", 0)
    path = files(tree)[2]
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])

    result = run(command, tree, tmp_path / "part.json")
    part = finished(result, tmp_path / "part.json", 3)
    assert part["status"] == "partial"
    (failed,) = [example for example in part["examples"] if example["outcome"] == "failed"]
    assert failed["index"] == 2
    assert failed["label"] == whole["examples"][2]["label"]
    assert str(path) in failed["error"]
    others = [i for i in range(5) if i != 2]
    assert [timeless(part)[i] for i in others] == [timeless(whole)[i] for i in others]
    assert "1 of the images failed" in result.stderr
    assert "--resume" in result.stderr
    assert "1 failed" in result.stdout

    assert finished(run(command, tree, tmp_path / "part.json", "--resume"), tmp_path / "part.json", 3)
    path.write_bytes(good)
    mended = finished(run(command, tree, tmp_path / "part.json", "--resume"), tmp_path / "part.json", 0)
    assert mended["status"] == "complete"
    assert timeless(mended) == timeless(whole)


def test_in_a_comparison_it_fails_alone_too(tmp_path, tree):
    """In one attack it can be read, in the other no more: it counts in neither, and the others are as they were."""
    place = [*DATA, "--data-dir", tree, "--limit", "4", "--output", tmp_path / "c.json"]
    words = ["compare", *CHEAP, *place, "--attacks", "caa,pgd:epsilon=0.6"]
    assert caa(*words).exit_code == 0
    whole = {name: timeless(attack) for name, attack in read_strict(tmp_path / "c.json")["attacks"].items()}
    files(tree)[2].write_bytes(b"no image")
    (tmp_path / "c.pgd-epsilon=0.6.json").unlink()
    result = caa(*words, "--resume")
    assert result.exit_code == 3, result.output
    assert "left out: 1 image (2) failed in pgd:epsilon=0.6" in result.stderr
    part = read_strict(tmp_path / "c.json")
    assert part["status"] == "partial"
    for name, attack in part["attacks"].items():
        assert timeless(attack) == [example for example in whole[name] if example["index"] != 2]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_first_image_may_be_damaged_and_another_of_another_size(tmp_path, tree, command):
    """The model is tried out on the next."""
    files(tree)[0].write_bytes(b"nonsense")
    Image.new("L", (28, 29)).save(files(tree)[2])
    document = finished(run(command, tree, tmp_path / "a.json"), tmp_path / "a.json", 3)
    assert [example["outcome"] == "failed" for example in document["examples"]] == [True, False, True, False, False]
    assert "--image-size" in document["examples"][2]["error"]


@pytest.mark.parametrize("command", COMMANDS)
def test_all_of_them_may_be_damaged(tmp_path, tree, command):
    """All that were asked for: others in the data set say how large an image is."""
    for path in files(tree)[:5]:
        path.unlink()
        path.symlink_to("nowhere")
    document = finished(run(command, tree, tmp_path / "a.json"), tmp_path / "a.json", 3)
    assert {example["outcome"] for example in document["examples"]} == {"failed"}
    assert all("No such file" in example["error"] for example in document["examples"])
    assert document["summary"]["examples"] == 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_label_that_the_model_does_not_know_fails(tmp_path, command):
    """A label file holds bytes: nothing keeps them below the number of classes."""
    raw = write_mnist(tmp_path)
    content = bytearray((raw / "t10k-labels-idx1-ubyte").read_bytes())
    content[8 + 1] = 10
    (raw / "t10k-labels-idx1-ubyte").write_bytes(content)
    settings = CHEAP if command == "attack" else ["--checkpoint", "demo", *CERTIFY]
    words = ["--dataset", "mnist", "--data-dir", tmp_path, "--limit", "3", "--output", tmp_path / "a.json"]
    document = finished(caa(command, *settings, *words), tmp_path / "a.json", 3)
    assert [example["outcome"] == "failed" for example in document["examples"]] == [False, True, False]
    assert document["examples"][1]["label"] == 10
    assert "label 10" in document["examples"][1]["error"]


def test_what_else_a_run_leaves_is_without_the_failed_ones(tmp_path, tree):
    files(tree)[1].write_bytes(b"")
    words = ["--save-adversarial", tmp_path / "a.safetensors", "--figure", tmp_path / "a.png"]
    document = finished(run("attack", tree, tmp_path / "a.json", *words), tmp_path / "a.json", 3)
    attacked = [example["index"] for example in document["examples"] if example["outcome"] == "attacked"]
    assert attacked
    assert load_file(tmp_path / "a.safetensors")["indices"].tolist() == attacked
    assert (tmp_path / "a.png").stat().st_size > 0

    words = ["--tsv", tmp_path / "c.tsv", "--figure", tmp_path / "c.png"]
    document = finished(run("certify", tree, tmp_path / "c.json", *words), tmp_path / "c.json", 3)
    assert document["summary"]["failed"] == 1
    assert len((tmp_path / "c.tsv").read_text().splitlines()) == 1 + 4
    right = sum(example["correct"] and example["outcome"] == "certified" for example in document["examples"])
    assert document["summary"]["certified_accuracy"]["0.00"] == right / 4


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_came_or_went_change_what_an_index_means(tmp_path, tree, command):
    finished(run(command, tree, tmp_path / "a.json"), tmp_path / "a.json", 0)
    files(tree)[0].rename(files(tree)[0].with_name("renamed.png"))
    result = run(command, tree, tmp_path / "a.json", "--resume")
    assert_clean_error(result, 2, "the data set's files", hint=" ")


def test_fewer_class_folders_than_classes_are_said_aloud(tmp_path, tree):
    result = run("certify", tree, tmp_path / "a.json", "--dry-run")
    assert "classes" not in result.stderr
    for path in (tree / "9").iterdir():
        path.unlink()
    (tree / "9").rmdir()
    result = run("certify", tree, tmp_path / "a.json", "--dry-run")
    assert result.exit_code == 0
    assert "the model knows 10 classes, the images have 9" in result.stderr


def test_damaged_training_images_are_named_before_the_training(tmp_path, tree):
    """Training looks at all of them, so it can't go on without one."""
    files(tree)[3].write_bytes(b"")
    words = ["--dataset", "folder", "--data-dir", tree, "--epochs", "1", "--output", tmp_path / "m.safetensors"]
    result = caa("train", *words)
    assert_clean_error(result, 1, str(files(tree)[3]), "a good copy")


def imagenet_like(path: Path, size: int) -> Path:
    """Random weights for 1,000 classes."""
    torch.manual_seed(0)
    card = ModelCard("small-cnn", 1000, (3, size, size), (0.5,), (0.5,), "imagenet", 0.5)
    path.write_bytes(checkpoint_bytes(build(card), card))
    return path


def test_a_part_of_imagenet_from_the_command_line(tmp_path):
    checkpoint = imagenet_like(tmp_path / "m.safetensors", 28)
    for wnid, seed in (("n15075141", 0), ("n01440764", 1)):
        (tmp_path / "val" / wnid).mkdir(parents=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "val" / wnid / "a.JPEG")
    words = ["--checkpoint", checkpoint, "--data-dir", tmp_path, *CERTIFY, "--output", tmp_path / "c.json"]
    document = finished(caa("certify", *words), tmp_path / "c.json", 0)
    said = finished(caa("certify", *words, "--image-size", "28"), tmp_path / "c.json", 0)
    assert timeless(said) == timeless(document)  # the size is the checkpoint's where nothing is said
    assert [example["label"] for example in document["examples"]] == [0, 999]
    assert document["config"]["image_size"] == 28
    result = caa("certify", *words, "--image-size", "56", "--resume")
    assert_clean_error(result, 2, "3×56×56")


def test_a_checkpoint_of_two_grey_classes(tmp_path, tree):
    """The whole data set is refused where it has more classes than the model."""
    card = replace(read_weights(DEMO_CHECKPOINT).card, num_classes=2)
    (tmp_path / "m.safetensors").write_bytes(checkpoint_bytes(build(card), card))
    result = caa("certify", "--checkpoint", tmp_path / "m.safetensors", *DATA, "--data-dir", tree)
    assert_clean_error(result, 2, "the model knows 2 classes, folder has 10")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_image_ends_no_look_at_the_accuracy(tmp_path, tree, command):
    """A checkpoint that does not say how images are normalised is tried out on images from all over the split."""
    torch.save(load_file(DEMO_CHECKPOINT), tmp_path / "weights.pt")
    files(tree)[2].write_bytes(b"no image")
    words = ["--checkpoint", tmp_path / "weights.pt", "--sigma", "0.5", "--mean", "5", "--std", "10"]
    result = run(command, tree, tmp_path / "x.json", *words)
    part = finished(result, tmp_path / "x.json", 3)
    assert [example["outcome"] == "failed" for example in part["examples"]] == [i == 2 for i in range(5)]
