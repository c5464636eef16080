"""Data sets by name: what is found where, the labels, the pixels, and the order that makes an index stable."""

from __future__ import annotations

import ast
import errno
import gzip
import hashlib
import io
import multiprocessing
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from support import ENVIRONMENT, assert_clean_error, caa, demo_images, write_mnist
from torchvision import transforms
from torchvision.datasets import CIFAR10, ImageFolder

from caa_cli.config.datasets import DATASETS, DatasetSpec
from caa_cli.data.cifar10 import CLASSES
from caa_cli.data.datasets import open_dataset
from caa_cli.data.decoding import ImageError
from caa_cli.data.files import ImageFiles
from caa_cli.data.imagenet import wnids
from caa_cli.data.images import Images, ImageSet, spread
from caa_cli.data.load import load
from caa_cli.errors import CaaError, UsageError

CAA_DATA = Path(os.environ.get("CAA_DATA", Path(__file__).parents[3] / "shared" / "data"))


def unpacked(archive: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (CAA_DATA / archive).is_file():
        pytest.skip(f"no {archive} in {CAA_DATA}: set CAA_DATA to a folder that holds it")
    root = tmp_path_factory.mktemp("data")
    with tarfile.open(CAA_DATA / archive) as tar:
        tar.extractall(root, (member for member in tar if member.name.split("/")[0] != "train"), filter="data")
    return root


@pytest.fixture(scope="session")
def cifar_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("cifar10-jpeg.tar.xz", tmp_path_factory)


@pytest.fixture(scope="session")
def imagenet_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("imagenet-sample.tar", tmp_path_factory)


def picture(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """(height, width) of noise."""
    shape = size if mode == "L" else (*size, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode)


def write_tree(root: Path, names: list[str], size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
    """A picture for each of the names, `<class>/<file>`, each of its own."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed, size, mode).save(root / name)
    return root


def open_folder(root: Path, split: str = "test", **settings: int) -> ImageFiles:
    images = open_dataset("folder", root, split, **settings)
    assert isinstance(images, ImageFiles)
    return images


# --- in memory ---


def test_mnist_is_byte_for_byte_what_its_files_hold(mnist_dir):
    images = open_dataset("mnist", mnist_dir, "test")
    content = (mnist_dir / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()
    assert images.images.numpy().tobytes() == content[16:]
    assert (len(images), images.input_shape, images.num_classes) == (10_000, (1, 28, 28), 10)
    labels = gzip.decompress((CAA_DATA / "mnist/t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    assert images.labels.tolist() == list(labels)


@pytest.mark.parametrize(("split", "other"), [("test", "train"), ("train", "t10k")])
def test_the_files_of_one_split_of_mnist_suffice(tmp_path, split, other):
    for file in write_mnist(tmp_path).glob(f"{other}*"):
        file.unlink()
    assert np.array_equal(open_dataset("mnist", tmp_path, split).images[:, 0].numpy(), demo_images()[0])


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        ("images-idx3", b"", "is no idx file of 3 dimensions"),
        ("images-idx3", struct.pack(">IIII", 0x803, 2, 28, 28) + bytes(1000), "cannot reshape"),
        ("images-idx3", struct.pack(">IIII", 0x803, 2, 14, 56) + bytes(1568), "2 images of 14×56 pixels, 100 labels"),
        ("images-idx3", struct.pack(">IIII", 0x803, 2, 28, 28) + bytes(1568), "2 images of 28×28 pixels, 100 labels"),
        ("labels-idx1", struct.pack(">II", 0xD01, 100) + bytes(400), "is no idx file of 1 dimension"),
        ("labels-idx1", struct.pack(">II", 0x801, 0), "100 images of 28×28 pixels, 0 labels"),
    ],
)
def test_damaged_files_of_mnist_are_said_to_be_that(tmp_path, kind, content, problem):
    raw = write_mnist(tmp_path)
    (raw / f"t10k-{kind}-ubyte").write_bytes(content)
    with pytest.raises(UsageError, match=problem) as caught:
        open_dataset("mnist", tmp_path, "test")
    assert (caught.value.hint or "").startswith("delete that folder")


def test_fashion_mnist_is_read_from_a_folder_of_its_own(tmp_path):
    write_mnist(tmp_path).rename(tmp_path / "raw")
    (tmp_path / "FashionMNIST").mkdir()
    (tmp_path / "raw").rename(tmp_path / "FashionMNIST/raw")
    images = open_dataset("fashion-mnist", tmp_path, "test")
    assert images.name == "fashion-mnist"
    assert (images.num_classes, images.class_names[0], images.class_names[9]) == (10, "T-shirt/top", "ankle boot")
    assert np.array_equal(images.images[:, 0].numpy(), demo_images()[0])
    with pytest.raises(UsageError, match="no MNIST in"):
        open_dataset("mnist", tmp_path, "test")


def test_the_recipe_for_a_new_data_set_works_as_it_is_written(tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "contributing" / "add-a-data-set.md"
    code, row = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "kmnist.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    name, spec = eval(f"[{row.replace(':', ',', 1)}]", {"DatasetSpec": DatasetSpec})
    monkeypatch.setitem(DATASETS, name, replace(spec, opens=spec.opens.removeprefix("caa_cli.data.")))
    with pytest.raises(UsageError, match=f"no KMNIST in {tmp_path}"):
        open_dataset(name, tmp_path, "test")
    write_mnist(tmp_path)
    (tmp_path / "MNIST").rename(tmp_path / "KMNIST")
    images = open_dataset(name, tmp_path, "test")
    assert np.array_equal(images.images[:, 0].numpy(), demo_images()[0])
    assert (images.input_shape, images.num_classes) == (spec.shape, spec.classes)


@pytest.mark.parametrize("inside", ["MNIST", "MNIST/raw"])
def test_a_folder_inside_the_data_set_is_answered_with_the_one_to_name(tmp_path, inside):
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    with pytest.raises(UsageError, match="is inside the MNIST folder") as refused:
        open_dataset("mnist", tmp_path / inside, "test")
    assert refused.value.hint == f"--data-dir {tmp_path.resolve()}"


def write_batches(root: Path) -> tuple[type[CIFAR10], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Small batches in CIFAR-10's format, with torchvision's class made to expect their checksums; and what is in
    each split."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    generator = np.random.default_rng(0)
    splits = {
        split: (generator.integers(0, 256, (12, 3072), dtype=np.uint8), generator.integers(0, 10, 12))
        for split in ("train", "test")
    }

    def write(name: str, entry: dict[str, object]) -> list[str]:
        content = pickle.dumps(entry)
        (folder / name).write_bytes(content)
        return [name, hashlib.md5(content).hexdigest()]

    meta = write("batches.meta", {"label_names": list(CLASSES)})
    files = [
        write(f"{split}_batch", {"data": data, "labels": labels.tolist()}) for split, (data, labels) in splits.items()
    ]

    class Small(CIFAR10):
        train_list, test_list = ([file] for file in files)

    Small.meta = {"filename": meta[0], "key": "label_names", "md5": meta[1]}
    return Small, splits


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_batches_of_cifar10_become_images_channel_first(tmp_path, monkeypatch, split):
    kind, splits = write_batches(tmp_path)
    monkeypatch.setattr("torchvision.datasets.CIFAR10", kind)
    data, labels = splits[split]
    images = open_dataset("cifar10", tmp_path, split)
    assert images.images.dtype == torch.uint8
    assert np.array_equal(images.images.numpy(), data.reshape(12, 3, 32, 32))
    assert images.labels.dtype == torch.int64
    assert images.labels.tolist() == labels.tolist()
    assert images.image(3).shape == (3, 32, 32)
    assert float(images.image(3)[1, 2, 5]) == pytest.approx(data.reshape(12, 3, 32, 32)[3, 1, 2, 5] / 255)


def test_batches_with_wrong_checksums_are_not_unpickled(tmp_path):
    """A pickle runs code when it is loaded; these would leave a file behind."""

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    write_batches(tmp_path)
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UsageError, match="incomplete or damaged"):
        open_dataset("cifar10", tmp_path, "test")
    assert not (tmp_path / "ran").exists()


def test_the_real_batches_of_cifar10(tmp_path):
    if not (CAA_DATA / "cifar-10-batches-py").is_dir():
        pytest.skip(f"no cifar-10-batches-py in {CAA_DATA}")
    images = open_dataset("cifar10", CAA_DATA, "test")
    assert isinstance(images, ImageSet)
    assert (len(images), images.labels[:4].tolist()) == (10_000, [3, 8, 8, 0])


# --- trees of files ---


def test_the_jpegs_of_cifar10(cifar_dir):
    images = open_dataset("cifar10", cifar_dir, "test")
    assert isinstance(images, ImageFiles)
    assert (len(images), images.input_shape, images.num_classes) == (10_000, (3, 32, 32), 10)
    assert images.labels.bincount().tolist() == [1000] * 10
    for index in range(0, 10_000, 501):
        assert images.path(index).parent.name == CLASSES[images.label(index)]
    assert "JPEG" in images.notes[0]
    reference = ImageFolder(str(cifar_dir / "test"), transforms.ToTensor())
    assert [str(images.path(index)) for index in range(10_000)] == [path for path, _ in reference.samples]
    assert torch.equal(images.image(1234), reference[1234][0])


def test_a_part_of_cifar10_keeps_its_labels(tmp_path):
    names = ["truck/b.png", "truck/a.png", "cat/x.png", "airplane/0.png"]
    write_tree(tmp_path / "test", names, (32, 32))
    images = open_dataset("cifar10", tmp_path, "test")
    found = [(images.path(i).name, images.label(i)) for i in range(4)]
    assert found == [("0.png", 0), ("x.png", 3), ("a.png", 9), ("b.png", 9)]
    assert images.num_classes == 10
    assert images.notes == ()  # PNG loses nothing
    write_tree(tmp_path / "cifar10-jpeg/test", ["dog/0.JPG"], (32, 32))
    images = open_dataset("cifar10", tmp_path, "test")
    assert images.labels.tolist() == [5], "this folder comes before --data-dir itself"
    assert "JPEG" in images.notes[0]


def test_the_imagenet_sample(imagenet_dir):
    images = open_dataset("imagenet", imagenet_dir, "test")
    assert isinstance(images, ImageFiles)
    assert (len(images), images.input_shape, images.num_classes) == (200, (3, 224, 224), 1000)
    every = (CAA_DATA / "imagenet-wnids.txt").read_text().split()
    assert wnids() == every
    assert images.class_names[images.label(0)] == "tench"
    assert [every[images.label(i)] for i in range(200)] == [images.path(i).parent.name for i in range(200)]
    pipeline = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    for index in range(0, 200, 7):
        with Image.open(images.path(index)) as image:
            assert torch.equal(images.image(index), pipeline(image.convert("RGB"))), images.path(index)


@pytest.mark.parametrize("size", [(300, 417), (417, 300), (97, 101), (256, 256), (500, 31)])
@pytest.mark.parametrize("wanted", [224, 64, 33])
def test_resizing_and_cropping_are_torchvisions(tmp_path, size, wanted):
    write_tree(tmp_path, ["a/0.png"], size)
    images = open_folder(tmp_path, image_size=wanted)
    pipeline = transforms.Compose(
        [transforms.Resize(round(wanted * 256 / 224)), transforms.CenterCrop(wanted), transforms.ToTensor()]
    )
    assert torch.equal(images.image(0), pipeline(images.pil(0)))
    assert images.image(0).shape == images.input_shape == (3, wanted, wanted)


@pytest.mark.parametrize("place", ["val", "imagenet/val", "imagenet-sample/val", "."])
def test_the_layouts_of_imagenet(tmp_path, place):
    write_tree(tmp_path / place, [f"{wnids()[999]}/b.JPEG", f"{wnids()[5]}/a.JPEG"])
    images = open_dataset("imagenet", tmp_path, "test", image_size=32)
    assert images.labels.tolist() == [5, 999]
    assert images.input_shape == (3, 32, 32)
    with pytest.raises(UsageError, match="no ImageNet"):
        open_dataset("imagenet", tmp_path, "train")


@pytest.mark.parametrize("place", ["train", "imagenet/train"])
def test_the_training_images_of_imagenet(tmp_path, place):
    write_tree(tmp_path / place, [f"{wnids()[7]}/a.JPEG"])
    assert open_dataset("imagenet", tmp_path, "train").labels.tolist() == [7]


def test_files_are_known_by_their_names_in_their_order(tmp_path):
    """A run does not go on with other files, or with the same ones under other indices."""
    write_tree(tmp_path / "x", ["a/0.png", "a/sub/1.png", "b/0.png"])
    assert open_folder(tmp_path / "x").files_sha256 == hashlib.sha256(b"a/0.png\na/sub/1.png\nb/0.png").hexdigest()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems want UTF-8")
def test_a_name_that_is_no_utf8_is_a_name(tmp_path):
    write_tree(tmp_path, ["a/0.png"])
    (tmp_path / "a/0.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xe9.png"))
    images = open_folder(tmp_path)
    assert images.files_sha256 == hashlib.sha256(b"a/\xe9.png").hexdigest()
    assert images.image(0).shape == (3, 8, 8)


def test_links_to_folders_are_followed(tmp_path):
    write_tree(tmp_path / "elsewhere", ["0.png", "deep/1.png"])
    (tmp_path / "set/a").mkdir(parents=True)
    (tmp_path / "set/a/inside").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/b").symlink_to(tmp_path / "elsewhere")
    names = ["a/inside/0.png", "a/inside/deep/1.png", "b/0.png", "b/deep/1.png"]
    assert open_folder(tmp_path / "set").files == names


def test_images_spread_over_a_set_are_from_all_of_it():
    assert (spread(10, 4), spread(3, 5), spread(0, 5)) == ([0, 2, 5, 7], [0, 1, 2], [])


def test_a_folder_is_in_the_order_of_torchvisions_imagefolder(tmp_path):
    names = ["b/10.png", "b/9.PNG", "b/deep/er/1.jpg", "b/Z.jpeg", "B/x.bmp", "a b/ä.webp", "a b/a/2.ppm", "c/1.tif"]
    write_tree(tmp_path, names)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    (tmp_path / "README").write_text("no class")
    images, reference = open_folder(tmp_path), ImageFolder(str(tmp_path), transforms.ToTensor())
    assert [(str(images.path(i)), images.label(i)) for i in range(len(images))] == reference.samples
    assert images.num_classes == len(reference.classes)
    for index in range(len(images)):
        assert torch.equal(images.image(index), reference[index][0])


@pytest.mark.parametrize(
    ("there", "split", "taken"),
    [
        (["test", "val", "train"], "test", "test"),
        (["val", "train"], "test", "val"),
        (["test", "train"], "train", "train"),
        (["."], "test", "."),
        (["."], "train", "."),
    ],
)
def test_which_folder_a_split_is(tmp_path, there, split, taken):
    for place in there:
        write_tree(tmp_path / place, ["x/0.png"])
    assert open_folder(tmp_path, split).root.resolve() == (tmp_path / taken).resolve()


def test_labels_of_a_folder_go_by_the_classes_of_train(tmp_path):
    write_tree(tmp_path / "train", ["a/0.png", "b/0.png"])
    write_tree(tmp_path / "test", ["b/0.png"])
    images = open_folder(tmp_path)
    assert (images.num_classes, images.labels.tolist()) == (2, [1])
    write_tree(tmp_path / "test", ["c/0.png"])
    with pytest.raises(UsageError, match="is no class of"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("classes", "note"),
    [
        (map(str, range(11)), ("10 is class 2",)),
        (("1", "2"), ("1 is class 0",)),
        (map(str, range(10)), ()),
        (("00", "01", "02"), ()),
        (("1", "cat"), ()),
    ],
)
def test_folders_that_are_numbered_otherwise_than_classes_are_said_to_be(tmp_path, classes, note):
    write_tree(tmp_path / "test", [f"{name}/0.png" for name in classes])
    assert tuple(text.rpartition(": ")[2] for text in open_folder(tmp_path).notes) == note


def test_a_folder_without_splits_is_said_to_be_that(tmp_path):
    write_tree(tmp_path, ["a/0.png", "b/0.png"])
    assert "either split" in open_folder(tmp_path).notes[0]


@pytest.mark.parametrize("beside", ["extra", "val"])
def test_a_folder_of_splits_is_no_folder_of_classes(tmp_path, beside):
    write_tree(tmp_path / "train", ["a/0.png"])
    write_tree(tmp_path / beside, ["a/0.png"])
    if beside == "val":
        assert open_folder(tmp_path).root.name == "val"
    else:
        with pytest.raises(UsageError, match="holds train, and no test images") as refused:
            open_folder(tmp_path)
        assert refused.value.hint.endswith("/test, or use --split train")


def test_training_needs_a_folder_of_its_own(tmp_path):
    """`caa train` has no --split to turn to."""
    write_tree(tmp_path / "test", ["a/0.png"])
    with pytest.raises(UsageError, match="holds test, and no train images") as refused:
        open_folder(tmp_path, split="train")
    assert refused.value.hint == f"add {tmp_path / 'train'}"


def test_grey_images_stay_grey_if_most_are(tmp_path):
    write_tree(tmp_path / "grey", [f"a/{number:02}.png" for number in range(40)], mode="L")
    late = (set(range(40)) - set(spread(40, 32))).pop()
    picture(0).save(tmp_path / f"grey/a/{late:02}.png")
    grey = open_folder(tmp_path / "grey")
    assert grey.input_shape == (1, 8, 8)
    assert np.array_equal(grey.image(1)[0].numpy() * 255, np.array(picture(1, mode="L")))
    with pytest.raises(ImageError, match=rf"{late:02}\.png is in colour"):
        grey.image(late)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_images_of_two_tones_and_grey_ones_with_transparency_are_grey(tmp_path, mode):
    write_tree(tmp_path, ["a/0.png"], mode="L")
    grey = picture(0, mode="L").convert(mode)
    grey.save(tmp_path / "a/0.png")
    image = open_folder(tmp_path).image(0)
    assert np.array_equal(255 * image.numpy(), np.array(grey.convert("L"))[None])


def test_a_grey_image_may_come_first_in_a_folder_of_colour(tmp_path):
    write_tree(tmp_path / "mixed", ["a/0.png"], mode="L")
    write_tree(tmp_path / "mixed", ["a/1.png", "b/0.png", "b/1.png"])
    (tmp_path / "mixed/a/2.png").write_bytes(b"no image")
    mixed = open_folder(tmp_path / "mixed")
    assert mixed.input_shape == (3, 8, 8)
    assert {mixed.image(index).shape for index in (0, 1, 3, 4)} == {(3, 8, 8)}


def test_a_grey_image_in_a_folder_of_colour_gets_three_channels(tmp_path):

    write_tree(tmp_path / "colour", ["a/0.png"])
    picture(1, mode="L").save(tmp_path / "colour/a/1.png")
    colour = open_folder(tmp_path / "colour").image(1)
    assert colour.shape == (3, 8, 8)
    assert torch.equal(colour[0], colour[2])


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path):
    """The files are replaced after the data set was opened; labels and length need none of them."""
    root = write_tree(tmp_path, ["a/0.png", "b/0.png", "b/1.png"])
    images = open_folder(root)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    assert (len(images), images.labels.tolist()) == (3, [0, 1, 1])
    picture(99).save(root / "b/0.png")
    assert np.array_equal(images.image(1).permute(1, 2, 0).numpy() * 255, np.array(picture(99)))
    with pytest.raises(ImageError, match=r"1\.png can't be read"):
        images.image(2)


def test_protocol():
    """mypy checks that both kinds fit it; that the embedded one behaves so is checked here."""
    images: Images = open_dataset("demo", None, "test")
    assert images.image(0).dtype == torch.float32
    assert 0 <= float(images.image(0).min()) < float(images.image(0).max()) <= 1
    assert isinstance(images.label(0), int)


# --- damage ---


def damaged(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "deep":
        Image.fromarray(np.full((8, 8), 60_000, dtype=np.uint16)).save(buffer, "PNG")
        return buffer.getvalue()
    if kind == "large":
        # Its header promises more pixels than Pillow is willing to decode.
        picture(0).save(buffer, "PNG")
        content = bytearray(buffer.getvalue())
        content[16:24] = (60_000).to_bytes(4, "big") * 2
        return bytes(content)
    picture(0, (64, 64)).save(buffer, "JPEG" if kind.startswith("jpeg") else "PNG")
    content = buffer.getvalue()
    return {
        "empty": b"",
        "text": b"no image at all",
        "jpeg cut": content[: len(content) // 2],
        "png cut": content[: len(content) // 2],
        "png header": content[:20],
        "png flipped": content[:60] + b"\x00\xff\x12" + content[63:],
    }[kind]


KINDS = ["empty", "text", "jpeg cut", "png cut", "png header", "png flipped", "deep", "large"]


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_wrong_with_a_file_is_one_kind_of_error(tmp_path, kind):
    write_tree(tmp_path, ["a/0.png", "a/1.png"], (64, 64))
    images = open_folder(tmp_path)
    images.path(1).write_bytes(damaged(kind))
    for read in (images.image, images.pil):
        with pytest.raises(ImageError, match=r"a/1\.png") as caught:
            read(1)
        assert "None" not in caught.value.problem


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_of_images_that_can_be_used(tmp_path, monkeypatch):
    """Pillow warns of images that are large, and of palettes with transparency."""
    write_tree(tmp_path, ["a/0.png", "a/1.png"], (64, 64))
    picture(1, (64, 64)).convert("P").save(tmp_path / "a/1.png", transparency=bytes(range(256)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    assert open_folder(tmp_path).image(1).shape == (3, 64, 64)


@pytest.mark.parametrize("first", [b"", b"nonsense"])
def test_a_damaged_first_image_does_not_decide_the_shape(tmp_path, first):
    write_tree(tmp_path, ["a/0.png", "a/1.png"], (9, 7), "L")
    (tmp_path / "a/0.png").write_bytes(first)
    assert open_folder(tmp_path).input_shape == (1, 9, 7)
    (tmp_path / "a/1.png").write_bytes(first)
    with pytest.raises(UsageError, match="none of 2 images"):
        open_folder(tmp_path)


def test_another_size_names_the_option_that_helps(tmp_path):
    write_tree(tmp_path, ["a/0.png"])
    picture(1, (8, 9)).save(tmp_path / "a/1.png")
    with pytest.raises(ImageError, match=r"8×9.*with --dataset folder, --image-size"):
        open_folder(tmp_path).image(1)
    assert open_folder(tmp_path, image_size=6).image(1).shape == (3, 6, 6)


def test_a_picture_that_would_fill_the_memory_when_resized_is_refused(tmp_path):
    write_tree(tmp_path, ["a/0.png", "a/1.png"], (1, 5000))
    with pytest.raises(ImageError, match="too long and thin"):
        open_folder(tmp_path, image_size=224).image(0)


# --- what is not there ---

MISSING = [
    ("mnist", "no MNIST in", "--download"),
    ("fashion-mnist", "no FashionMNIST in", "--download"),
    ("cifar10", "cifar-10-batches-py", "--download"),
    ("imagenet", "<wnid>", "ILSVRC2012_devkit"),
    ("folder", "holds no class folders", "DIR/<class>"),
]


@pytest.mark.parametrize(("name", "problem", "hint"), MISSING)
def test_an_empty_folder_is_told_what_was_looked_for(tmp_path, name, problem, hint):
    with pytest.raises(UsageError) as caught:
        open_dataset(name, tmp_path, "test")
    assert problem in caught.value.problem
    assert str(tmp_path) in caught.value.problem
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "demo"])
def test_a_path_that_the_system_refuses(name):
    with pytest.raises(UsageError, match="can't be read"):
        open_dataset(name, Path("x" * 5000), "test")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "demo"])
@pytest.mark.parametrize("where", [None, "nowhere", "file"])
def test_a_data_dir_is_needed(tmp_path, name, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"does not exist|is no folder|needs the folder") as caught:
        open_dataset(name, None if where is None else tmp_path / where, "test")
    assert "DIR" in (caught.value.hint or "")


def test_the_command_in_a_hint_is_one_that_a_shell_takes(tmp_path):
    """Python has to understand the quoted line, whatever the folder is called."""
    folder = tmp_path / 'it\'s a "folder"'
    folder.mkdir()
    with pytest.raises(UsageError) as caught:
        open_dataset("cifar10", folder, "test")
    line = (caught.value.hint or "").split("once: ")[1]
    check = line.replace("python -c", "printf %s")
    found = subprocess.run(["sh", "-c", check], capture_output=True, text=True, check=True).stdout
    (call,) = [node for node in ast.walk(ast.parse(found)) if isinstance(node, ast.Call)]
    assert ast.literal_eval(call.args[0]) == str(folder)


def test_packed_files_are_said_to_be_packed(tmp_path):
    folder = tmp_path / "my data"
    (folder / "MNIST/raw").mkdir(parents=True)
    (folder / "MNIST/raw/t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz"):
        pass
    for name, hint in (("cifar10", f"tar -xzf '{folder}/"), ("mnist", f"gunzip '{folder}/MNIST/raw'/*.gz")):
        with pytest.raises(UsageError, match="still packed") as caught:
            open_dataset(name, folder, "test")
        assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("place", [".", "val", "ILSVRC2012_img_val"])
def test_unsorted_imagenet_is_told_how_to_sort(tmp_path, place):
    write_tree(tmp_path / place, ["ILSVRC2012_val_00000001.JPEG"])
    with pytest.raises(UsageError, match="not sorted") as caught:
        open_dataset("imagenet", tmp_path, "test")
    assert "ILSVRC2012_img_val.tar" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "folder", "problem"),
    [
        ("imagenet", "val/tench", "tench is named after none of the 1,000"),
        ("imagenet", "val/n00000001", "n00000001 is named after none"),
        ("cifar10", "test/zebra", "zebra is named after no class"),
    ],
)
def test_a_folder_of_another_name_is_refused(tmp_path, name, folder, problem):
    write_tree(tmp_path / folder, ["a.png"])
    with pytest.raises(UsageError, match=problem) as caught:
        open_dataset(name, tmp_path, "test")
    assert "--dataset folder" in (caught.value.hint or "")


@pytest.mark.parametrize(("name", "empty"), [("folder", "b"), ("cifar10", "test/cat"), ("imagenet", "val/n01440764")])
def test_a_class_folder_without_images_is_refused(tmp_path, name, empty):
    (tmp_path / empty).mkdir(parents=True)
    (tmp_path / empty / "notes.txt").write_text("")
    with pytest.raises(UsageError, match="holds no images"):
        open_dataset(name, tmp_path, "test")


def test_a_folder_that_has_only_the_other_split_is_no_class_called_train(tmp_path):
    write_tree(tmp_path / "train", ["a/0.png"])
    with pytest.raises(UsageError, match="holds train, and no test images"):
        open_folder(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", [".", "a", "a/deep"])
def test_a_folder_that_may_not_be_read_is_no_empty_one(tmp_path, closed):
    """Images that go missing unnoticed would shift the indices of all the others."""
    write_tree(tmp_path, ["a/0.png", "a/deep/1.png", "b/0.png"])
    (tmp_path / closed).chmod(0)
    try:
        with pytest.raises(UsageError, match="can't be read"):
            open_folder(tmp_path)
    finally:
        (tmp_path / closed).chmod(0o755)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_files_that_may_not_be_read_are_not_called_damaged(tmp_path, monkeypatch, name):
    if name == "mnist":
        write_mnist(tmp_path)
    else:
        (tmp_path / "cifar-10-batches-py").mkdir()

    def closed(*words):
        raise PermissionError(errno.EACCES, "Permission denied", "the file")

    monkeypatch.setattr(Path, "read_bytes", closed)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", closed)
    with pytest.raises(UsageError, match=r"the file can't be read \(Permission denied\)") as caught:
        open_dataset(name, tmp_path, "test")
    assert "delete" not in str(caught.value.hint)


@pytest.mark.parametrize("name", ["imagenet", "folder"])
def test_what_cannot_be_downloaded_is_said(tmp_path, name):
    with pytest.raises(UsageError, match="can't be downloaded"):
        open_dataset(name, tmp_path, "test", download=True)


@pytest.mark.parametrize("command", ["attack --checkpoint demo", "certify --checkpoint demo", "train"])
def test_a_dry_run_downloads_nothing(tmp_path, command):
    words = ["--dataset", "mnist", "--data-dir", tmp_path / "new", "--download", "--dry-run"]
    refused = caa(*command.split(), *words)
    assert_clean_error(refused, 2, "new does not exist", "leave --dry-run out, which downloads nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_download_takes_up_what_is_there(mnist_dir):
    """With all four files in place torchvision goes to no network."""
    assert len(open_dataset("mnist", mnist_dir, "test", download=True)) == 10_000


def test_a_download_that_fails_is_one_message(tmp_path):
    """The folder can't be made, or what is there can't be read: neither needs a network, nor the lack of one."""
    (tmp_path / "file").write_text("")
    for name in ("mnist", "fashion-mnist", "cifar10"):
        with pytest.raises(CaaError, match="can't download"):
            open_dataset(name, tmp_path / "file", "test", download=True)
    (write_mnist(tmp_path) / "train-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(CaaError, match="can't download"):
        open_dataset("mnist", tmp_path, "test", download=True)


@pytest.mark.parametrize("name", ["demo", "mnist", "fashion-mnist", "cifar10"])
def test_images_of_one_size_are_not_resized(tmp_path, name):
    with pytest.raises(UsageError, match="--image-size"):
        open_dataset(name, tmp_path, "test", image_size=32)


# --- into memory ---


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_workers_decode_what_this_process_does(tmp_path, workers):
    write_tree(tmp_path, [f"{'abc'[i % 3]}/{i:03}.jpg" for i in range(600)])
    images = open_folder(tmp_path)
    held = load(images, workers=workers)
    assert (held.images.dtype, tuple(held.images.shape)) == (torch.uint8, (600, 3, 8, 8))
    assert torch.equal(held.labels, images.labels)
    for index in range(0, 600, 37):
        assert torch.equal(held.image(index), images.image(index))
    assert (held.name, held.split, held.num_classes, held.class_names) == ("folder", "test", 3, ("a", "b", "c"))


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_files_are_counted_and_named(tmp_path, workers):
    names = [f"a/{i:03}.png" for i in range(300)]
    write_tree(tmp_path, names)
    for index in (3, 70, 200, 299):
        (tmp_path / names[index]).write_bytes(b"nonsense")
    with pytest.raises(ImageError) as caught:
        load(open_folder(tmp_path), workers=workers)
    assert re.fullmatch(r"4 of 300 images.*003\.png.*070\.png.*200\.png.*and 1 more", caught.value.problem)


def test_a_worker_that_is_killed_is_one_message(tmp_path):
    """As by the kernel, where memory runs out."""
    write_tree(tmp_path, ["a/0.png", "b/0.png"])

    def kill() -> None:
        while not (workers := multiprocessing.active_children()):
            time.sleep(0.005)
        workers[0].kill()

    killer = Thread(target=kill)
    killer.start()
    with pytest.raises(CaaError, match="was ended from outside"):
        load(open_folder(tmp_path), workers=1)
    killer.join()


def test_a_worker_needs_no_torch():
    """It would take seconds to start, and hundreds of megabytes."""
    script = (
        "import sys, caa_cli.data.decoding; print([m for m in ('torch', 'torchvision', 'rich') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert found.stdout.strip() == "[]"
