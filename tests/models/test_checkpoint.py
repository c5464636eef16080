"""Checkpoints: what caa writes it reads, what others write it reads or refuses, and none of it ever runs."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from argparse import Namespace
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from caa_cli.errors import CaaError
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, checkpoint_bytes, find_checkpoint, read_weights
from caa_cli.models.load import build_model
from caa_cli.models.resolve import Overrides, resolve_card

# A network small enough that a file of it can be damaged in every place.
SHAPE = (1, 4, 4)
CARD = ModelCard("small-cnn", 3, SHAPE, (0.1,), (0.3,), "mnist", 0.5, "gaussian", "0.1.0", {"epochs": 2, "seed": 0})


def trained(card=CARD):
    torch.manual_seed(0)
    return build(card)


CONTENT = checkpoint_bytes(trained(), CARD)
STATE = trained().network.state_dict()
IMAGES = torch.rand((2, *SHAPE), generator=torch.Generator().manual_seed(0))


def load(path: Path, said: Overrides | None = None, classes: int = 3):
    """All the way from the file to the model, as a run goes it."""
    weights = read_weights(find_checkpoint(str(path)))
    card, _ = resolve_card(weights, said or Overrides(), "mnist", SHAPE, classes)
    return build_model(weights, card), card


def refused(path: Path, said: Overrides | None = None) -> CaaError:
    with pytest.raises(CaaError) as caught:
        load(path, said)
    assert str(path) in caught.value.problem or said is not None
    assert caught.value.hint
    return caught.value


def file_with(folder: Path, content: bytes, name: str = "model.safetensors") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_card_and_weights_come_back(tmp_path):
    model, card = load(file_with(tmp_path, CONTENT))
    assert card == CARD
    assert torch.equal(model(IMAGES), trained()(IMAGES))


def test_the_same_model_makes_the_same_file():
    assert checkpoint_bytes(trained(), CARD) == CONTENT


def test_the_demo_loads_and_describes_itself():
    weights = read_weights(find_checkpoint("demo"))
    assert weights.path == DEMO_CHECKPOINT
    assert weights.card.sigma == 0.5
    assert build_model(weights, weights.card)(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"net": state},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.1.{name}": value for name, value in state.items()}},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    ],
    ids=["bare", "state_dict", "net", "model", "module.", "state_dict and module.1.", "_orig_mod."],
)
def test_state_dicts_of_other_code_load(tmp_path, wrap, legacy):
    path = tmp_path / "model.pt"
    torch.save(wrap(STATE), path, _use_new_zipfile_serialization=not legacy)
    said = Overrides(arch="small-cnn", sigma=0.5, mean=(0.1,), std=(0.3,))
    model, card = load(path, said)
    assert card.num_classes == 3
    assert torch.equal(model(IMAGES), trained()(IMAGES))


def test_safetensors_without_a_card_load(tmp_path):
    model, _ = load(file_with(tmp_path, save(STATE)), Overrides("small-cnn", 0.5, (0.1,), (0.3,)))
    assert torch.equal(model(IMAGES), trained()(IMAGES))


def test_what_a_file_without_a_card_leaves_open_is_asked_for(tmp_path):
    path = file_with(tmp_path, save(STATE))
    assert "--sigma" in refused(path).hint
    weights = read_weights(path)
    card, notes = resolve_card(weights, Overrides(sigma=0.5), "mnist", SHAPE, 3)
    assert card.arch == "small-cnn"
    assert "--normalisation mnist is assumed" in notes[0]
    other = file_with(
        tmp_path, save({f"{name}.other": tensor for name, tensor in STATE.items()}), "other.safetensors"
    )
    assert "--arch" in refused(other).hint


class Hostile:
    """Unpickled, it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def hostile_files(folder: Path, mark: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.pt" for name in ("bare", "protocol 4", "zip", "legacy", "hidden")}
    paths["bare"].write_bytes(pickle.dumps(Hostile(mark), protocol=2))
    paths["protocol 4"].write_bytes(pickle.dumps({"state_dict": Hostile(mark)}, protocol=4))
    torch.save(Hostile(mark), paths["zip"])
    torch.save(Hostile(mark), paths["legacy"], _use_new_zipfile_serialization=False)
    torch.save({"state_dict": STATE, "epoch": Hostile(mark)}, paths["hidden"])
    return paths


@pytest.mark.parametrize("name", ["bare", "protocol 4", "zip", "legacy", "hidden"])
def test_a_hostile_pickle_never_runs(tmp_path, name):
    mark = tmp_path / "ran"
    path = hostile_files(tmp_path, mark)[name]
    error = refused(path, Overrides("small-cnn", 0.5))
    assert str(path) in error.problem
    assert not mark.exists()


def test_the_hostile_pickle_would_have_run(tmp_path):
    """Otherwise the test above proves nothing."""
    mark = tmp_path / "ran"
    torch.load(hostile_files(tmp_path, mark)["hidden"], weights_only=False)
    assert mark.exists()


def test_a_pickled_model_is_refused_with_what_to_save_instead(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(2, 2), path)
    assert "state_dict" in refused(path, Overrides("small-cnn", 0.5)).hint


def torch_file(folder: Path, content: object) -> bytes:
    torch.save(content, folder / "whole.pt")
    return (folder / "whole.pt").read_bytes()


def test_damaged_files_are_refused(tmp_path):
    zipped = torch_file(tmp_path, STATE)
    damaged = {
        "empty": b"",
        "one byte": b"\x80",
        "text": b"this is no checkpoint, it is a text of some length\n" * 20,
        "html": b"<!DOCTYPE html><html><body>404</body></html>",
        "safetensors cut in the header": CONTENT[:100],
        "safetensors cut in the weights": CONTENT[:-100],
        "safetensors with more behind": CONTENT + b"more",
        "torch cut in half": zipped[: len(zipped) // 2],
        "torch cut at the end": zipped[:-30],
        "a pickle that ends too early": b"\x80\x02J\x00",
        "a pickle of nothing": pickle.dumps(None, protocol=2),
        "a tensor": torch_file(tmp_path, torch.zeros(3)),
        "a list": torch_file(tmp_path, [torch.zeros(3)]),
        "no tensors": torch_file(tmp_path, {"epoch": 3}),
        "an empty safetensors file": save({}),
    }
    for name, content in damaged.items():
        path = file_with(tmp_path, content, f"{name}.pt")
        refused(path, Overrides("small-cnn", 0.5))


@pytest.mark.parametrize(
    ("content", "problem", "hint"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "a pointer of Git LFS",
            "git lfs pull",
        ),
        (b"<!DOCTYPE html><html><body>Virus scan warning</body></html>", "a web page", "download the file itself"),
        (gzip.compress(CONTENT), "packed by gzip", "unpack it"),
    ],
)
def test_what_is_often_found_in_place_of_a_checkpoint_is_named(tmp_path, content, problem, hint):
    error = refused(file_with(tmp_path, content, "model.pt"))
    assert problem in error.problem
    assert hint in error.hint


def test_a_zip_of_something_else_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")
    refused(path, Overrides("small-cnn", 0.5))


@pytest.mark.parametrize("name", [".", "missing.safetensors", "a" * 300, "pipe"])
def test_what_is_no_file_is_refused(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / name).exit_code == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    broken = {name: tensor.clone() for name, tensor in STATE.items()}
    broken["7.bias"][1] = value
    error = refused(file_with(tmp_path, save(broken, metadata=CARD.to_metadata())))
    assert "7.bias" in error.problem


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_weights_in_other_formats_load_or_are_refused(tmp_path, dtype):
    stored = {name: tensor.to(dtype) for name, tensor in STATE.items()}
    path = file_with(tmp_path, save(stored, metadata=CARD.to_metadata()))
    try:
        model, _ = load(path)
    except CaaError as error:
        assert error.hint  # noqa: PT017 (a refusal is as good as a model)
    else:
        assert model(IMAGES).dtype == torch.float32
        torch.testing.assert_close(model(IMAGES), trained()(IMAGES), atol=0.2, rtol=0)


@pytest.mark.parametrize(
    "other",
    [
        ModelCard("resnet18", 3, SHAPE, sigma=0.5),
        ModelCard("small-cnn", 4, SHAPE, sigma=0.5),
        ModelCard("small-cnn", 3, (3, 4, 4), sigma=0.5),
        ModelCard("small-cnn", 3, (1, 8, 8), sigma=0.5),
        ModelCard("no-such-net", 3, SHAPE, sigma=0.5),
    ],
    ids=["architecture", "classes", "channels", "size", "unknown"],
)
def test_weights_that_do_not_fit_their_card_are_refused(tmp_path, other):
    weights = read_weights(file_with(tmp_path, save(STATE, metadata=other.to_metadata())))
    with pytest.raises(CaaError) as caught:
        build_model(weights, other)
    assert caught.value.hint


def test_weights_that_were_quantised_to_integers_are_refused(tmp_path):
    quantised = {name: tensor.mul(100).round().to(torch.int8) for name, tensor in STATE.items()}
    weights = read_weights(file_with(tmp_path, save(quantised, metadata=CARD.to_metadata())))
    with pytest.raises(CaaError, match=r"is of type int8 \(8 such tensors\)"):
        build_model(weights, CARD)


def test_a_model_of_fewer_classes_than_the_data_is_refused(tmp_path):
    with pytest.raises(CaaError, match="3 classes, mnist has 10"):
        load(file_with(tmp_path, CONTENT), classes=10)


def test_a_model_of_other_images_is_refused(tmp_path):
    weights = read_weights(file_with(tmp_path, CONTENT))
    with pytest.raises(CaaError, match="1×4×4 images, cifar10 has 3×32×32"):
        resolve_card(weights, Overrides(), "cifar10", (3, 32, 32), 3)


def changed_card(change: dict[str, object]) -> dict[str, str]:
    """The metadata of a file, with other values in its card; the names in it are those of the card's fields."""
    metadata = CARD.to_metadata()
    if "caa" in metadata:
        return {"caa": json.dumps(json.loads(metadata["caa"]) | change)}
    return metadata | {f"caa.{name}": json.dumps(value) for name, value in change.items()}


@pytest.mark.parametrize(
    "change",
    [
        {"arch": None},
        {"arch": ["small-cnn"]},
        {"num_classes": "3"},
        {"num_classes": -1},
        {"num_classes": None},
        {"input_shape": [4, 4]},
        {"input_shape": [1, 4, "4"]},
        {"input_shape": 4},
        {"input_shape": [1, 10**9, 10**9]},
        {"num_classes": 10**15},
        {"mean": ["a"]},
        {"mean": None},
        {"std": [0.0]},
        {"std": []},
        {"sigma": "0.5"},
        {"sigma": -1.0},
        {"format_version": 2},
        {"format_version": "x"},
        {"num_classes": 10**400},
        {"num_classes": 10**7},
        {"input_shape": [1, 10**6, 4]},
        {"mean": [10**400]},
        {"std": [float("inf")]},
        {"sigma": 10**400},
        {"sigma": float("nan")},
        {"training": [1, 2]},
        {"training": None},
        {"method": {"a": 1}},
        {"tool_version": 1},
        {"method": "x" * 301},
        {"mean": []},
        {"input_shape": [1, 4, 4, 4]},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_card_that_makes_no_sense_is_refused(tmp_path, change):
    with pytest.raises(CaaError):
        load(file_with(tmp_path, save(STATE, metadata=changed_card(change))))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format_version": 1, "num_classes": ' + "9" * 5000 + "}"])
def test_a_description_that_cannot_be_parsed_is_refused(tmp_path, text):
    error = refused(file_with(tmp_path, save(STATE, metadata={"caa": text})))
    assert "metadata" in error.problem
    assert len(error.problem) < 500


def looped() -> dict[str, object]:
    found: dict[str, object] = {"epoch": 3}
    found["model"] = found
    return found


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are on their way out
        return torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (looped, "holds no tensors"),
        (lambda: {"w": torch.eye(5).to_sparse()}, "w is sparse"),
        (lambda: {"w": torch.eye(5).to_sparse_csr()}, "w is sparse"),
        (lambda: {"w": torch.empty(3, device="meta")}, "w is without values"),
        (lambda: {"w": torch.zeros(1).expand(10**13)}, "w is of shape (10000000000000,)"),
        (lambda: {"w": quantised()}, "w is of type qint8"),
        (lambda: {"w": torch.ones(3, dtype=torch.complex64)}, "w is of type complex64"),
        (lambda: STATE | {"mean": torch.ones(1).to_sparse()}, "mean is sparse"),
        (lambda: {"state_dict": {"w": torch.eye(5).to_sparse()}, "loss": torch.empty(1, device="meta")}, "sparse"),
    ],
    ids=["itself", "sparse", "csr", "meta", "expanded", "quantised", "complex", "constant", "beside"],
)
def test_odd_contents_are_refused_before_a_value_is_looked_at(tmp_path, content, problem):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the layouts that PyTorch calls experimental
        path = file_with(tmp_path, torch_file(tmp_path, content()), "model.pt")
        error = refused(path, Overrides("small-cnn", 0.5))
    assert problem in error.problem


def test_weights_that_are_numpy_arrays_are_told_how_to_become_tensors(tmp_path):
    path = file_with(tmp_path, torch_file(tmp_path, {"state_dict": {"0.weight": np.ones((3, 3))}}), "model.pt")
    error = refused(path, Overrides("small-cnn", 0.5))
    assert "holds no tensors" in error.problem
    assert "torch.from_numpy" in error.hint


def test_what_lies_beside_the_weights_and_is_no_plain_number_is_left_out(tmp_path):
    beside = {"lr": float("nan"), "seed": 10**400, "loss": torch.empty(1, device="meta"), "epoch": torch.tensor(3)}
    path = file_with(tmp_path, torch_file(tmp_path, {"state_dict": STATE, **beside}), "model.pt")
    assert read_weights(path).entries == {"lr": None, "seed": None, "loss": None, "epoch": 3}


class Split(Enum):
    TRAIN = "train"


@dataclass
class Config:
    """Of a training script, whose module may not be there when the file is read."""

    widths: list[int]
    split: Split = Split.TRAIN


BESIDE = {
    "config": Config([16, 32]),
    "schedule": partial(replace, 0.1),
    "optimizer": Config,
    "history": defaultdict(list, loss=[0.5, 0.4]),
    "recent": deque([0.5, 0.4], maxlen=2),
    "seen": Counter("aab"),
    "frozen": frozenset({"conv1"}),
    "args": Namespace(lr=0.1, folder=Path("runs")),
    "settings": SimpleNamespace(depth=20),
    "accuracy": np.float64(0.5),
    "epoch": np.int64(90),
    "losses": np.arange(3.0),
    "generator": np.random.default_rng(0).bit_generator.state,
    "saved": datetime(2024, 2, 29, tzinfo=UTC),
}


@pytest.mark.parametrize("legacy", [False, True])
def test_objects_beside_the_weights_are_left_out_whatever_they_are_of(tmp_path, legacy):
    path = tmp_path / "model.pt"
    torch.save({**BESIDE, "state_dict": STATE}, path, _use_new_zipfile_serialization=not legacy)
    weights = read_weights(path)
    assert weights.tensors.keys() == STATE.keys()
    assert all(torch.equal(weights.tensors[name], tensor) for name, tensor in STATE.items())
    assert weights.entries == dict.fromkeys(BESIDE)


def test_a_class_beside_the_weights_need_not_be_here(tmp_path, monkeypatch):
    with monkeypatch.context() as there:
        there.setattr(Config, "__module__", "train")
        there.setitem(sys.modules, "train", sys.modules[__name__])
        torch.save({"config": Config([16]), "state_dict": STATE}, tmp_path / "model.pt")
    with pytest.raises(ModuleNotFoundError):
        torch.load(tmp_path / "model.pt", weights_only=False)
    assert read_weights(tmp_path / "model.pt").tensors.keys() == STATE.keys()


def test_a_function_beside_the_weights_is_not_called(tmp_path):
    mark = tmp_path / "ran"

    class Caller:
        def __reduce__(self):
            return subprocess.call, (["touch", str(mark)],)

    torch.save({"epoch": Caller(), "state_dict": STATE}, tmp_path / "model.pt")
    assert read_weights(tmp_path / "model.pt").tensors.keys() == STATE.keys()
    assert not mark.exists()
    torch.load(tmp_path / "model.pt", weights_only=False)
    assert mark.exists()


def test_weights_in_a_defaultdict_are_read(tmp_path):
    torch.save(defaultdict(list, STATE), tmp_path / "model.pt")
    assert read_weights(tmp_path / "model.pt").tensors.keys() == STATE.keys()


@pytest.mark.parametrize(
    "value", [SimpleNamespace(weights=STATE), Config([STATE]), {"a": np.zeros(2), "b": nn.Linear(2, 2)}]
)
def test_objects_that_hold_tensors_or_code_are_not_left_out(tmp_path, value):
    torch.save({"other": value, "ema": STATE}, tmp_path / "model.pt")
    assert "pickled with more than plain tensors" in refused(tmp_path / "model.pt").problem


def test_a_card_may_say_more_than_this_version_knows(tmp_path):
    metadata = {**changed_card({"new_in_1_1": "x"}), "author": "someone"}
    assert load(file_with(tmp_path, save(STATE, metadata=metadata)))[1] == CARD


def survives(path: Path, content: bytes) -> None:
    """A model, or a CaaError; whatever else is raised fails the test."""
    path.write_bytes(content)
    try:
        model, _ = load(path, Overrides(arch="small-cnn", sigma=0.5))
    except CaaError as error:
        assert error.problem  # noqa: PT017 (either end is right)
    else:
        assert model(IMAGES).shape == (2, 3)


# PyTorch looks at the name before it looks into the file.
NAMES = st.sampled_from(["model.safetensors", "model.pt"])
# Each example writes over the file of the one before.
UNCHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
several = settings(max_examples=60, suppress_health_check=UNCHECKED)


@several
@given(content=st.binary(max_size=200), name=NAMES)
def test_random_bytes_are_refused(tmp_path, content, name):
    path = file_with(tmp_path, content, name)
    with pytest.raises(CaaError):
        read_weights(path)


@several
@given(header=st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=4))
def test_random_headers_are_refused(tmp_path, header):
    text = json.dumps(header).encode()
    survives(tmp_path / "model.safetensors", struct.pack("<Q", len(text)) + text)


@several
@given(opening=st.sampled_from([b"\x80\x02", b"\x80\x04", b"PK\x03\x04"]), content=st.binary(max_size=60))
def test_random_pickles_are_refused(tmp_path, opening, content):
    survives(tmp_path / "model.pt", opening + content)


@several
@given(length=st.integers(0, len(CONTENT) - 1), name=NAMES)
def test_a_file_cut_off_anywhere_is_refused(tmp_path, length, name):
    path = file_with(tmp_path, CONTENT[:length], name)
    with pytest.raises(CaaError):
        read_weights(path)


HEADER_END = 8 + int.from_bytes(CONTENT[:8], "little")


@several
@given(places=st.lists(st.tuples(st.integers(0, HEADER_END + 50), st.integers(0, 255)), min_size=1, max_size=3))
def test_flipped_bytes_in_a_checkpoint_never_crash(tmp_path, places):
    content = bytearray(CONTENT)
    for place, value in places:
        content[place] = value
    survives(tmp_path / "model.safetensors", bytes(content))


@several
@given(data=st.data())
def test_flipped_bytes_in_a_torch_file_never_crash(tmp_path, data):
    content = bytearray(torch_file(tmp_path, {"a": torch.zeros(2), "b": torch.ones(3)}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    survives(tmp_path / "model.pt", bytes(content))


def test_a_checkpoint_cannot_have_code_imported_by_naming_it(tmp_path, monkeypatch):
    """A module of that name lies in the current folder, and must not run; unless the user names it too."""
    (tmp_path / "lurking.py").write_text(
        "from pathlib import Path\nfrom caa_cli.models.architectures import small_cnn\n"
        "Path('ran').touch()\n\n"
        "def network(num_classes, input_shape):\n    return small_cnn(num_classes, input_shape)\n"
    )
    monkeypatch.chdir(tmp_path)
    path = file_with(tmp_path, checkpoint_bytes(trained(), replace(CARD, arch="lurking:network")))
    error = refused(path)
    assert "lurking:network" in error.problem
    assert "--arch lurking:network" in error.hint
    assert not (tmp_path / "ran").exists()
    model, _ = load(path, Overrides(arch="lurking:network"))
    assert (tmp_path / "ran").exists()
    assert torch.equal(model(IMAGES), trained()(IMAGES))


def test_class_names_stay_with_the_model():
    card = replace(CARD, class_names=("cat", "great white, shark", "chat à neuf queues"))
    assert ModelCard.from_metadata(card.to_metadata()) == card
    # A file without them is as it was before there were names.
    assert "class_names" not in CARD.to_metadata()["caa"]
    assert ModelCard.from_metadata(CARD.to_metadata()) == CARD


def test_folders_of_any_name_make_a_card_that_can_be_read():
    card = replace(CARD, class_names=("polar\u00a0bear", "caf\udce9", "a\x1b\n"))
    assert ModelCard.from_metadata(card.to_metadata()).class_names == ("polar bear", "caf\ufffd", "a\ufffd ")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["cat", "dog"], "names 2 classes, and has 3"),
        (["cat", "dog", "\x1b[31mred"], "no name of a class"),
        (["cat", "dog", "x" * 400], "no name of a class"),
        ("cat", "class_names"),
        (["cat", "dog", 3], "class_names"),
    ],
)
def test_class_names_that_are_none(names: object, problem: str):
    document = {**json.loads(CARD.to_metadata()["caa"]), "class_names": names}
    with pytest.raises(ValueError, match=problem):
        ModelCard.from_metadata({"caa": json.dumps(document)})
