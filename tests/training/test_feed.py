"""Batches of training images: from memory and from files, whatever the number of worker processes."""

from __future__ import annotations

import json
import os
import resource
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from forking import fork
from PIL import Image
from support import assert_clean_error, assert_clean_text, caa, write_mnist
from torch import nn

from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.datasets import open_dataset
from caa_cli.data.files import ImageFiles
from caa_cli.data.imagenet import wnids
from caa_cli.errors import CaaError
from caa_cli.models.checkpoint import read_weights
from caa_cli.training.feed import FileFeed, MemoryFeed
from caa_cli.training.sources import open_sources

CPU = torch.device("cpu")


def write_tree(root: Path, classes: list[str], count: int, side: int) -> Path:
    """A folder of PNGs, in which every class has a grey level of its own, give or take some noise."""
    random = np.random.default_rng(0)
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = 255 * (place + 0.5) / len(classes) + random.normal(0, 10, (side, side, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    write_tree(tmp_path / "train", ["a", "b"], 6, 16)
    found = open_dataset("folder", tmp_path, "train")
    assert isinstance(found, ImageFiles)
    return found


def batches(feed: FileFeed | MemoryFeed, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    order = torch.arange(len(feed)).flip(0).split(4)
    return list(feed.batches(order, torch.Generator().manual_seed(seed)))


def test_files_give_the_images_in_the_order_asked_for(files: ImageFiles):
    feed = FileFeed(files, [0, 3, 5, 7, 8, 11], CPU, "none", workers=0)
    found = batches(feed)
    assert [len(labels) for _, labels in found] == [4, 2]
    images, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    assert torch.equal(images, torch.stack([files.image(index) for index in (11, 8, 7, 5, 3, 0)]))
    assert labels.tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("augment", ["none", "flip", "crop-flip", "resized-crop-flip"])
def test_workers_change_nothing(files: ImageFiles, augment: str):
    here, there, again = (
        batches(FileFeed(files, range(12), CPU, augment, workers), seed) for workers, seed in ((0, 0), (2, 0), (0, 1))
    )
    assert all(torch.equal(a, b) and torch.equal(k, m) for (a, k), (b, m) in zip(here, there, strict=True))
    assert all(images.shape[1:] == (3, 16, 16) and 0 <= images.min() <= images.max() <= 1 for images, _ in here)
    differs = any(not torch.equal(a, b) for (a, _), (b, _) in zip(here, again, strict=True))
    assert differs == (augment != "none"), "another epoch has other crops"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="limits the cores of this process")
@pytest.mark.filterwarnings("error:This DataLoader")
def test_more_workers_than_cores_are_no_warning(files: ImageFiles):
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert len(batches(FileFeed(files, range(8), CPU, "none", workers=2))) == 2
    finally:
        os.sched_setaffinity(0, cores)


def test_a_readable_image_stands_in_for_one_that_is_not(files: ImageFiles):
    files.path(9).write_bytes(b"no image")
    feed = FileFeed(files, range(12), CPU, "none", workers=0)
    (images, labels), *_ = batches(feed)
    assert len(images) == len(labels) == 4
    assert torch.equal(images[:3], torch.stack([files.image(index) for index in (11, 10, 8)]))
    assert torch.equal(images[3], images[0])
    assert feed.unreadable == {9}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_of_nothing_readable_ends_the_training_with_a_message(files: ImageFiles, workers: int):
    for index in range(12):
        files.path(index).write_bytes(b"no image")
    with pytest.raises(CaaError, match="can be read"):
        batches(FileFeed(files, range(12), CPU, "none", workers))


def dark_to_light(root: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 16).astype(np.uint8)[None, :, None], (16, 16, 3))
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(np.ascontiguousarray(ramp)).save(root / name / f"{number}.png")


def test_half_of_the_resized_crops_are_mirrored(tmp_path: Path):
    dark_to_light(tmp_path / "train")
    found = open_dataset("folder", tmp_path, "train")
    assert isinstance(found, ImageFiles)
    images = torch.cat([images for images, _ in batches(FileFeed(found, range(40), CPU, "resized-crop-flip", 0))])
    mirrored = int((images[..., 0].mean(dim=(1, 2)) > images[..., -1].mean(dim=(1, 2))).sum())
    assert 10 <= mirrored <= 30


@pytest.mark.parametrize(
    ("dataset", "augment"), [("demo", "crop-flip"), ("folder", "crop-flip"), ("folder", "resized-crop-flip")]
)
def test_held_out_images_lie_evenly_among_the_others_and_are_not_augmented(
    files: ImageFiles, tmp_path: Path, dataset: str, augment: str
):
    plan = TrainPlan(dataset=dataset, data_dir=tmp_path, augment=augment, heldout=4, evaluate_samples=0, workers=0)
    sources = open_sources(plan, CPU, lambda note: None)
    every = len(sources.images) // 4
    ((images, labels),) = sources.heldout.batches([torch.arange(4)], torch.Generator())
    assert torch.equal(images, torch.stack([sources.images.image(every * place) for place in range(4)]))
    assert labels.tolist() == [sources.images.label(every * place) for place in range(4)]
    assert len(sources.train) == len(sources.images) - 4


def test_memory_and_files_agree(files: ImageFiles):
    pixels = torch.stack([(255 * files.image(index)).round().to(torch.uint8) for index in range(12)])
    there, here = MemoryFeed(pixels, files.labels, CPU), FileFeed(files, range(12), CPU, "none", 0)
    for (a, k), (b, m) in zip(batches(there), batches(here), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(k, m)


_TRAIN = "--epochs 2 --batch-size 8 --sigma 0.05 --learning-rate 3e-3 --evaluate-samples 20 --heldout 4 --quiet"
TRAIN = _TRAIN.split()


def test_a_folder_of_images_is_trained_on_and_attacked(tmp_path: Path):
    for split in ("train", "test"):
        write_tree(tmp_path / split, ["dark", "light"], 20, 16)
    checkpoint, data = tmp_path / "model.safetensors", ["--data-dir", tmp_path]
    result = caa("train", "--dataset", "folder", *data, *TRAIN, "--epochs", "6", "--output", checkpoint)
    assert result.exit_code == 0, result.output
    card = read_weights(checkpoint).card
    assert card is not None
    assert (card.num_classes, card.input_shape, card.dataset) == (2, (3, 16, 16), "folder")
    assert card.training["smoothed_accuracy"] > 0.9
    words = ["--samples", "200", "--limit", "4", "--output", tmp_path / "c.json", "--quiet"]
    assert caa("certify", "--checkpoint", checkpoint, *data, *words).exit_code == 0


def test_imagenet_is_trained_on_from_its_files(tmp_path: Path):
    classes = [wnids()[0], wnids()[500]]
    for split in ("train", "val"):
        write_tree(tmp_path / split, classes, 8, 40)
    (tmp_path / "train" / classes[0] / "3.png").write_bytes(b"cut off")
    checkpoint = tmp_path / "model.safetensors"
    words = ["--dataset", "imagenet", "--data-dir", tmp_path, "--image-size", "32", "--arch", "resnet20"]
    words += [*TRAIN, "--optimizer", "sgd", "--workers", "1", "--evaluate-samples", "2", "--heldout", "2"]
    result = caa("train", *words, "--output", checkpoint)
    assert result.exit_code == 0, result.output
    card = read_weights(checkpoint).card
    assert card is not None
    assert (card.num_classes, card.input_shape) == (1000, (3, 32, 32))
    log = checkpoint.with_name("model.safetensors.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["unreadable"] for line in log] == [1, 1]


def test_a_damaged_image_of_a_set_held_in_memory_is_named(tmp_path: Path):
    write_tree(tmp_path / "train", ["a", "b"], 6, 16)
    (tmp_path / "train" / "b" / "3.png").write_bytes(b"cut off")
    words = ["--dataset", "folder", "--data-dir", tmp_path, *TRAIN, "--evaluate-samples", "0"]
    result = caa("train", *words, "--output", tmp_path / "m")
    assert result.exit_code == 1
    assert "3.png" in result.stderr
    assert "Traceback" not in result.stderr


def refused(tmp_path: Path, *words: str) -> str:
    """The message of a training that must not begin."""
    result = caa("train", "--data-dir", tmp_path, *TRAIN, "--output", tmp_path / "m.safetensors", *words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("m.safetensors*"))
    return result.stderr


def test_a_test_split_that_is_missing_is_missed_before_the_first_epoch(tmp_path: Path):
    write_tree(tmp_path / "train", ["a", "b"], 6, 16)
    said = refused(tmp_path, "--dataset", "folder")
    assert "for the evaluation at the end" in said
    assert "--evaluate-samples 0" in said
    assert "--split" not in said, "caa train has no such option"


def test_test_images_of_another_size_are_refused_before_the_first_epoch(tmp_path: Path):
    write_tree(tmp_path / "train", ["a", "b"], 6, 16)
    write_tree(tmp_path / "test", ["a", "b"], 6, 12)
    assert "training images are 3×16×16 of 2 classes, test images 3×12×12" in refused(tmp_path, "--dataset", "folder")


def test_the_same_images_are_not_both_trained_and_tested_on(tmp_path: Path):
    write_tree(tmp_path, ["a", "b"], 10, 16)
    output = tmp_path / "m.safetensors"
    words = [word for word in TRAIN if word != "--quiet"]
    result = caa("train", "--dataset", "folder", "--data-dir", tmp_path, *words, "--output", output)
    assert result.exit_code == 0, result.output
    assert "no test images to evaluate" in result.stderr
    assert result.stderr.startswith("decoding 20 images of folder, to be held in memory\n")
    card = read_weights(output).card
    assert card is not None
    assert "smoothed_accuracy" not in card.training


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--arch", "resnet18", "--batch-size", "1"], "--batch-size 1 is too small for resnet18"),
        (["--augment", "resized-crop-flip"], "needs image files"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path: Path, words: list[str], problem: str):
    assert problem in refused(tmp_path, "--dataset", "demo", *words)


@pytest.mark.parametrize(
    ("classes", "count", "problem"),
    [(["a"], 6, "folder has one class: a classifier needs two"), (["a"], 1, "folder has 1 image: training takes")],
)
def test_too_few_images_or_classes_are_refused(tmp_path: Path, classes: list[str], count: int, problem: str):
    write_tree(tmp_path / "train", classes, count, 8)
    assert problem in refused(tmp_path, "--dataset", "folder", "--evaluate-samples", "0")


def fixed(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes)).requires_grad_(False)


def test_a_label_beyond_the_classes_is_refused(tmp_path: Path):
    labels = write_mnist(tmp_path) / "train-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[8 + 1] = 77
    labels.write_bytes(content)
    assert "a label of mnist is 77, and its classes are 0 to 9" in refused(tmp_path, "--dataset", "mnist")


def test_a_network_with_nothing_to_train_is_refused(tmp_path: Path):
    assert "fixed has no weights to train" in refused(tmp_path, "--dataset", "demo", "--arch", f"{__name__}:fixed")


def interrupting(num_classes: int) -> nn.Module:
    """Ctrl-C comes as the state of the first epoch is saved: then its weights are read for the second time since they
    were trained, after they were kept as the best so far."""
    network, stepped, reads = nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes)), [], []

    def interrupt(*_: object) -> None:
        reads.extend(stepped[:1])
        if len(reads) == 2:
            signal.raise_signal(signal.SIGINT)

    network.register_forward_hook(lambda *_: stepped.append(True) if network.training else None)
    network.register_state_dict_post_hook(interrupt)
    return network


def test_a_state_that_is_being_saved_is_saved_in_full(tmp_path: Path):
    output = tmp_path / "m.safetensors"
    result = caa("train", "--dataset", "demo", *TRAIN, "--arch", f"{__name__}:interrupting", "--output", output)
    assert result.exit_code == 130, result.output
    assert "1 of 2 epochs saved" in result.stderr
    assert torch.load(f"{output}.training", weights_only=True)["epoch"] == 1


@pytest.mark.parametrize(("dtype", "advised"), [("float32", True), ("bfloat16", False)])
def test_a_batch_beyond_the_memory_is_told_with_what_would_help(tmp_path: Path, dtype: str, advised: bool):
    """The noisy images of one step take 19 GB, and the process is allowed 17."""
    words = ["train", "--dataset", "demo", *TRAIN, "--batch-size", "600", "--draws", "10000", "--dtype", dtype]
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (2**34, 2**34))
    process = fork(*words, "--output", tmp_path / "m", before=limit)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert_clean_text(stderr, "cpu is out of memory", "use a smaller --batch-size")
    assert ("--dtype bfloat16" in stderr) == advised


def test_a_network_that_does_not_take_the_images_is_refused(tmp_path: Path):
    write_tree(tmp_path / "train", ["a", "b"], 6, 8)
    words = ["--dataset", "folder", "--data-dir", tmp_path, *TRAIN, "--arch", "lenet", "--evaluate-samples", "0"]
    result = caa("train", *words, "--output", tmp_path / "m.safetensors")
    assert_clean_error(result, 1, "the network of lenet can't take 3×8×8 images")


def test_a_finished_training_with_other_settings_is_not_resumed_away(tmp_path: Path):
    output = tmp_path / "m.safetensors"
    words = ["--dataset", "demo", *TRAIN, "--evaluate-samples", "0", "--output", output]
    assert caa("train", *words).exit_code == 0
    before = output.read_bytes()
    other = caa("train", *words, "--resume", "--learning-rate", "0.5")
    assert other.exit_code == 2
    assert "learning_rate" in other.stderr
    assert output.read_bytes() == before
    same = caa("train", *words, "--resume", "--json")
    assert same.exit_code == 0
    document = json.loads(same.stdout)
    assert document["training"]["epochs"] == len(document["history"]) == 2
