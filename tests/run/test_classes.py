"""What the classes of a run are called: as the data set has it, or the checkpoint."""

from __future__ import annotations

import pytest
import torch
from support import CHEAP, assert_clean_error, attack, caa, demo_images

from caa_cli.config.datasets import DATASETS
from caa_cli.data.datasets import class_names, open_dataset
from caa_cli.data.images import ImageSet
from caa_cli.errors import UsageError
from caa_cli.models.card import ModelCard
from caa_cli.run.classes import classes_of

BLACK = torch.zeros((1, 1, 4, 4), dtype=torch.uint8)


def images(*names: str) -> ImageSet:
    return ImageSet("folder", "test", BLACK, torch.zeros(1, dtype=torch.int64), len(names) or 3, class_names=names)


def card(*names: str, classes: int = 3) -> ModelCard:
    return ModelCard("small-cnn", classes, (1, 4, 4), class_names=names)


def test_the_data_set_names_them_or_else_the_checkpoint():
    assert classes_of(images("a", "b", "c"), card()).names == ("a", "b", "c")
    assert classes_of(images(), card("x", "y", "z")).names == ("x", "y", "z")
    assert classes_of(images("airplane", "car", "ship"), card("airplane", "automobile", "ship")).names[1] == "car"
    assert classes_of(images("a", "b"), card("a", "b", "c")).names == ("a", "b", "c")
    assert (classes_of(images(), card()).count, classes_of(images(), card()).names) == (3, ())


def test_one_name_in_two_places_is_refused():
    with pytest.raises(UsageError, match="a is class 0 of folder, 1 of the checkpoint"):
        classes_of(images("a", "b", "c"), card("b", "a", "c"))
    with pytest.raises(UsageError, match="class names don't match"):
        classes_of(images("tench", "goldfish"), card("other", "goldfish, Carassius", "tench, Tinca", classes=3))
    with pytest.raises(UsageError, match="d is class 3 of folder, 4 of the checkpoint"):
        classes_of(images(*"abcdef"), card(*"abcedf", classes=6))
    assert classes_of(images(*"abcdef"), card(*"abcedg", classes=6)).names[3] == "d"
    # Two classes of one name say nothing of an order.
    assert classes_of(images("crane", "x", "crane"), card("x2", "crane", "x3")).names[0] == "crane"


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_with_classes_of_its_own_names_them(name: str):
    assert len(class_names(name)) == (DATASETS[name].classes or 0)


def test_the_demo_is_named_alike_by_both():
    assert open_dataset("demo", None, "test").class_names == class_names("demo")


def test_the_names_of_class_folders_go_before_those_of_the_data_set_that_the_model_was_trained_on(tmp_path):
    from PIL import Image

    pixels, labels = demo_images()
    for label in range(10):
        folder = tmp_path / "digits" / f"d{label}"
        folder.mkdir(parents=True)
        first = int((labels == label).argmax())
        Image.fromarray(pixels[first]).save(folder / "0.png")
    words = ["--dataset", "folder", "--data-dir", str(tmp_path / "digits"), "--indices", "7", "--target", "d2"]
    found = attack(tmp_path / "a.json", *words)
    assert found["config"]["target"] == "2"
    assert found["class_names"]["7"] == "d7"
    refused = caa("attack", *CHEAP, *words[:-1], "digit 2", "--output", tmp_path / "b.json")
    assert_clean_error(refused, 2, "there is no class 'digit 2'", "a name: d0, d1")
