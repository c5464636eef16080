"""What a user can get wrong, and what can go wrong around a run: one message, what to do, the right exit code."""

from __future__ import annotations

import gzip
import resource
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from support import (
    CHEAP,
    assert_clean_error,
    assert_clean_text,
    attack,
    caa,
    timeless,
    write_mnist,
)

from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights

DEMO = ["--checkpoint", "demo"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Results go where nothing else is, and nothing may be left there by a command that was refused."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--sigma 0", "--sigma"),
        ("--sigma -0.5", "--sigma"),
        ("--sigma nan", "--sigma"),
        ("--sigma inf", "--sigma"),
        ("--alpha 0", "--alpha"),
        ("--alpha 1", "--alpha"),
        ("--alpha -0.1", "--alpha"),
        ("--alpha nan", "--alpha"),
        ("--samples 0", "--samples"),
        ("--iterations 0", "--iterations"),
        ("--verify-samples 0", "--verify-samples"),
        ("--certify-samples -1", "--certify-samples"),
        ("--limit 0", "--limit"),
        ("--skip -1", "--skip"),
        ("--batch-size 0", "--batch-size"),
        ("--chunk-size 0", "--chunk-size"),
        ("--chunk-size many", "--chunk-size"),
        ("--seed -1", "--seed"),
        ("--patience -1", "--patience"),
        ("--tolerance 1", "--tolerance"),
        ("--tolerance nan", "--tolerance"),
        ("--temperature 0", "--temperature"),
        ("--step-min 0", "--step-min"),
        ("--step-min 0.3 --step-max 0.2", "--step-max"),
        ("--step-max nan", "--step-max"),
        ("--step-max inf", "--step-max"),
        ("--overshoot 0.9", "--overshoot"),
        ("--overshoot nan", "--overshoot"),
        ("--overshoot inf", "--overshoot"),
        ("--undershoot 1.1", "--undershoot"),
        ("--attack nonsense", "--attack 'nonsense'"),
        ("--bound nonsense", "--bound 'nonsense'"),
        ("--dtype float8", "--dtype 'float8'"),
        ("--split validation", "--split 'validation'"),
        ("--surrogate nonsense", "--surrogate 'nonsense'"),
        ("--finish nonsense", "--finish 'nonsense'"),
        ("--dataset nonsense", "'nonsense'"),
        ("--arch nonsense", "'nonsense'"),
        ("--mean 0.1,x", "--mean"),
        ("--mean 0.1,0.2", "--mean"),
        ("--mean nan", "--mean"),
        ("--std 0", "--std"),
        ("--std nan", "--std"),
        ("--std inf", "--std"),
        ("--shard 1", "--shard"),
        ("--shard 2/2", "--shard"),
        ("--shard 0/0", "--shard"),
        ("--shard -1/2", "--shard"),
        ("--shard a/b", "--shard"),
        ("--skip 100", "--skip"),
        ("--skip 99 --shard 1/2", "--skip"),
        ("--device nonsense", "--device"),
        ("--device meta", "--device"),
        ("--device mps", "--device 'mps' is not supported"),
        ("--figure picture.xyz", "--figure"),
        ("--figure picture", "--figure"),
        ("--dataset mnist", "--data-dir"),
        ("--dataset mnist --data-dir nowhere", "nowhere"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_written(tmp_path, words, problem):
    result = caa("attack", *DEMO, "--limit", "1", *words.split())
    assert_clean_error(result, 2, "")
    assert problem in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_its_option_is_taken_for_one():
    """As `caa inspect weights.pt` is typed."""
    result = caa("attack", "demo", "--limit", "1")
    assert_clean_error(result, 2, "caa attack takes options only, not demo", "caa attack --checkpoint demo --limit 1")
    several = "caa attack --checkpoint a.pt --checkpoint b.pt"
    assert_clean_error(caa("attack", "a.pt", "b.pt"), 2, "caa attack takes options only, not a.pt b.pt", several)
    result = caa("attack", "--sigma", "0.5", "demo", "--limit", 3)
    assert_clean_error(result, 2, "not demo", "caa attack --sigma 0.5 --checkpoint demo --limit 3")
    assert_clean_error(caa("attack", "my model.pt"), 2, "not my model.pt", "caa attack --checkpoint 'my model.pt'")
    result = caa("attack", "--checkpoint", "demo", "--indices", "3,", "17")
    assert_clean_error(result, 2, "caa attack takes options only, not 17", "put a value that has blanks into quotes")
    assert_clean_error(caa("train", "demo"), 2, "extra argument", "caa train --help")


def test_a_file_in_place_of_a_folder_is_not_to_be_created(tmp_path):
    file = tmp_path / "a.json"
    file.touch()
    refused = caa("attack", *CHEAP, "--output", file / "b.json")
    assert_clean_error(refused, 1, f"{file} is no folder", "name a file in another folder with --output")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["attack", *CHEAP, "--output", "my results/a.json"], "mkdir -p 'my results'"),
        (["inspect", "demo", "--checkpoint", "my model.pt"], "caa inspect --checkpoint 'my model.pt'"),
        (["attack", "--checkpoint", "my model.pt", "--ensemble", "votes"], "--checkpoint 'my model.pt' --checkpoint"),
    ],
    ids=["folder", "inspect", "ensemble"],
)
def test_a_name_with_a_space_is_quoted_in_the_command_to_type(words, hint):
    result = caa(*words)
    assert result.exit_code in (1, 2)
    assert hint in result.stderr


@pytest.mark.parametrize("name", ["attack.json", "attack.json.jsonl", "attack.json.images"])
def test_two_files_of_a_run_must_not_be_the_same(tmp_path, name):
    """One would destroy the other at the end of the work."""
    result = caa("attack", *CHEAP, "--limit", "1", "--save-adversarial", name)
    assert_clean_error(result, 2, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        "--alpha 0",
        "--attack nonsense",
        "--bound nonsense",
        "--dataset nonsense",
        "--arch nonsense",
        "--shard 2/2",
        "--shard x",
        "--skip 100",
        "--device nonsense",
        "--figure picture.xyz",
        "--dataset mnist",
        "--dataset mnist --data-dir nowhere",
        "--checkpoint missing.safetensors",
        "--checkpoint .",
        "--mean 0.1,x",
    ],
)
def test_an_error_that_does_not_explain_itself_says_what_to_try(words):
    assert_clean_error(caa("attack", *DEMO, *words.split()), 2, "", hint=" ")


@pytest.mark.parametrize("words", ["", "--nonsense 1", "--samples many", "--limit 1.5", "extra", "--shard"])
def test_what_the_parser_refuses_is_wrong_usage(words):
    demo = DEMO if words else []
    assert_clean_error(caa("attack", *demo, *words.split()), 2, "", "caa attack ")


def test_a_limit_past_the_end_takes_what_there_is(tmp_path):
    document = attack(tmp_path / "a.json", "--skip", "98", "--limit", "50")
    assert [example["index"] for example in document["examples"]] == [98, 99]


@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_a_device_that_is_not_here_is_said(tmp_path, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("here it is there")
    assert_clean_error(caa("attack", *DEMO, "--device", device), 1, f"--device {device}", "--device cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--output", "--save-adversarial", "--figure"])
@pytest.mark.parametrize("where", ["nowhere/a", "file/a", "folder", "/proc/a"])
def test_a_place_that_cannot_be_written_is_found_out_before_the_model_is_loaded(tmp_path, option, where):
    """The checkpoint does not exist either; that it is not spoken of shows what was looked at first."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    file = f"{where}.png" if option == "--figure" and where != "folder" else where
    result = caa("attack", "--checkpoint", "missing.safetensors", option, file)
    assert_clean_error(result, 1, where.removesuffix("/a"), hint=" ")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


@pytest.mark.parametrize("where", ["nowhere/m.safetensors", "file/m.safetensors", "folder", "/proc/m.safetensors"])
def test_train_too_knows_beforehand_that_it_cannot_write(tmp_path, where):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    result = caa("train", "--dataset", "demo", "--epochs", "1", "--output", where)
    assert_clean_error(result, 1, where.split("/m.")[0], hint=" ")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--epochs 0", "--epochs"),
        ("--batch-size 0", "--batch-size"),
        ("--sigma 0", "--sigma"),
        ("--sigma nan", "--sigma"),
        ("--learning-rate 0", "--learning-rate"),
        ("--learning-rate inf", "--learning-rate"),
        ("--heldout 600", "--heldout"),
        ("--heldout 599", "--heldout"),
        ("--method nonsense", "--method"),
        ("--schedule nonsense", "--schedule"),
        ("--arch nonsense", "'nonsense'"),
        ("--dataset nonsense", "'nonsense'"),
        ("--dataset mnist", "--data-dir"),
        ("--evaluate-samples -1", "--evaluate-samples"),
        ("--seed -1", "--seed"),
    ],
)
def test_wrong_usage_of_train_is_refused(tmp_path, words, problem):
    dataset = [] if "--dataset" in words else ["--dataset", "demo"]
    result = caa("train", *dataset, "--epochs", "1", *words.split())
    assert_clean_error(result, 2, "")
    assert problem in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_training_that_diverges_says_so():
    result = caa("train", "--dataset", "demo", "--epochs", "2", "--learning-rate", "1e9", "--device", "cpu")
    assert not isinstance(result.exception, Exception), repr(result.exception)
    assert result.exit_code == 1
    assert_clean_text(result.stderr, "diverged", "--learning-rate")


def rewritten(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:10],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"more",
        lambda content: b"random bytes in place of numbers" * 100,
        lambda content: b"\xff" * len(content),
        lambda content: struct.pack(">I", 0x803 + 0x1F00) + content[4:],
        gzip.compress,
    ],
    ids=["empty", "header cut", "half", "one byte short", "longer", "text", "ones", "other type", "still packed"],
)
@pytest.mark.parametrize("which", ["images-idx3", "labels-idx1"])
def test_damaged_mnist_files_are_named(tmp_path, change, which):
    raw = write_mnist(tmp_path)
    rewritten(raw / f"t10k-{which}-ubyte", change)
    result = caa("attack", *DEMO, "--dataset", "mnist", "--data-dir", tmp_path, "--limit", "1", "--dry-run")
    assert_clean_error(result, 2, "can't be read", "MNIST")
    assert str(raw) in result.stderr


def test_mnist_files_that_do_not_belong_together_are_refused(tmp_path):
    raw = write_mnist(tmp_path)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 5) + bytes(5))
    result = caa("attack", *DEMO, "--dataset", "mnist", "--data-dir", tmp_path, "--skip", "50", "--limit", "1")
    assert_clean_error(result, 2, "MNIST", hint=" ")


def test_a_data_dir_that_is_not_used_is_said(tmp_path):
    words = ["certify", *DEMO, "--dataset", "demo", "--data-dir", tmp_path, "--limit", "1", "--samples", "10"]
    assert "is not used: the images of demo come with caa" in caa(*words, "--chunk-size", "10").stderr


def test_a_data_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert_clean_error(caa("attack", *DEMO, "--dataset", "mnist", "--data-dir", "file"), 2, "file", "--dataset demo")


def write_demo(path: Path, change) -> Path:
    """The demo checkpoint with changed weights."""
    card = read_weights(DEMO_CHECKPOINT).card
    path.write_bytes(save(change(load_file(DEMO_CHECKPOINT)), metadata=card.to_metadata()))
    return path


def overflowing(tensors):
    """Every weight is finite; the sum of a large positive and a large negative product is not."""
    tensors["5.weight"][:] = 3e38
    tensors["7.weight"][:, ::2], tensors["7.weight"][:, 1::2] = 3e38, -3e38
    return tensors


def test_a_model_that_returns_nan_is_refused(tmp_path):
    checkpoint = write_demo(tmp_path / "huge.safetensors", overflowing)
    result = caa("attack", "--checkpoint", checkpoint, "--dataset", "demo", "--limit", "1", "--device", "cpu")
    assert not isinstance(result.exception, Exception), repr(result.exception)
    assert result.exit_code == 1
    assert_clean_text(result.stderr, "NaN", "--dtype float32")
    assert list(tmp_path.iterdir()) == [checkpoint]


@pytest.mark.parametrize(
    ("content", "hint"),
    [(b"", "copy it again"), (b"nonsense" * 10, "check that it is the right file"), (b"\x80", "copy it again")],
)
def test_a_checkpoint_that_is_none_is_refused(tmp_path, content, hint):
    (tmp_path / "bad.safetensors").write_bytes(content)
    assert_clean_error(caa("attack", "--checkpoint", "bad.safetensors"), 1, "bad.safetensors", hint)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    card = ModelCard("small-cnn", 10, (3, 32, 32), (0.5,), (0.5,), "cifar10", 0.5)
    weights = {name: torch.zeros(1) for name in ("a", "b")}
    (tmp_path / "c.safetensors").write_bytes(save(weights, metadata=card.to_metadata()))
    result = caa("attack", "--checkpoint", "c.safetensors", "--dataset", "demo")
    assert_clean_error(result, 2, "3×32×32", "--dataset cifar10")


def run_on_a_full_disk(size: int, *words: str | Path) -> str:
    """What a command says that fails because no file may grow beyond `size` bytes: the disk fills up meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        result = caa(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not isinstance(result.exception, Exception), repr(result.exception)
    assert result.exit_code == 1, result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def older(tmp_path_factory) -> bytes:
    """A result that is there already, of another seed."""
    output = tmp_path_factory.mktemp("older") / "attack.json"
    attack(output, "--limit", "1", "--seed", "5")
    return output.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[dict[str, Any]]:
    """The examples of a run that finds all the room it needs."""
    return timeless(attack(tmp_path_factory.mktemp("whole") / "attack.json", "--limit", "5"))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (3300, ["--limit", "5"]),  # room for the journal's header and a few of its lines
        (3600, ["--limit", "2"]),  # room for the whole journal, but not for the result
        (5000, ["--limit", "3", "--save-adversarial", "a.safetensors"]),  # room for the journal, but for one image
    ],
    ids=["journal", "result", "images"],
)
def test_a_full_disk_loses_nothing_that_was_finished(tmp_path, older, whole, size, words):
    output = tmp_path / "attack.json"
    output.write_bytes(older)
    stderr = run_on_a_full_disk(size, "attack", *CHEAP, "--output", output, *words, "--overwrite")
    assert_clean_text(stderr, "File too large", "--resume")
    assert str(output) + ".jsonl" in stderr
    assert output.read_bytes() == older
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    kept = (tmp_path / "attack.json.jsonl").read_bytes().count(b"\n") - 1
    assert kept > 0
    assert "what is finished is kept in" in stderr

    resumed = timeless(attack(output, *words, "--resume"))
    assert len(resumed) == int(words[1])
    assert resumed == whole[: len(resumed)]
    if "--save-adversarial" in words:
        found = [example for example in resumed if example["outcome"] == "attacked"]
        assert load_file(tmp_path / "a.safetensors")["indices"].tolist() == [example["index"] for example in found]


def test_a_journal_that_cannot_be_begun_is_an_error(tmp_path):
    stderr = run_on_a_full_disk(100, "attack", *CHEAP, "--limit", "1", "--output", tmp_path / "attack.json")
    assert_clean_text(stderr, "File too large", "free some space")
    assert not (tmp_path / "attack.json").exists()


def test_a_full_disk_keeps_the_training(tmp_path):
    """The state of a training is larger than the checkpoint at its end."""
    words = "--dataset demo --epochs 1 --evaluate-samples 0 --device cpu"
    stderr = run_on_a_full_disk(200_000, "train", *words.split(), "--output", tmp_path / "m.safetensors")
    assert_clean_text(stderr, "File too large", "free some space")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", {"weights": torch.zeros(3)}])
def test_a_training_state_that_is_damaged_or_something_elses_is_not_resumed(tmp_path, content):
    state = tmp_path / "m.safetensors.training"
    if isinstance(content, bytes):
        state.write_bytes(content)
    else:
        torch.save(content, state)
    words = "--dataset demo --epochs 1 --device cpu --output m.safetensors --resume"
    result = caa("train", *words.split())
    assert not isinstance(result.exception, Exception), repr(result.exception)
    assert result.exit_code == 1
    assert_clean_text(result.stderr, "m.safetensors.training", "--overwrite")


def test_a_path_with_odd_characters_works(tmp_path):
    folder = tmp_path / "späce [bold] 'q'"
    folder.mkdir()
    document = attack(folder / "a b.json", "--limit", "1")
    assert document["config"]["output"] == str(folder / "a b.json")
    assert {path.name for path in folder.iterdir()} == {"a b.json"}


@pytest.mark.parametrize("words", [("attack", *DEMO), ("status", ".")])
def test_a_current_folder_that_was_deleted_is_said(tmp_path, monkeypatch, words):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert_clean_error(caa(*words), 1, "the current folder does not exist any more", "cd to")


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("attack", *DEMO, "--limit", "1", "--target", 300 * "x"), 2, "there is no class"),
        (("merge", "a.json", "b.json", "--output", 300 * "x"), 1, "File name too long"),
        (("inspect", 300 * "x"), 2, "File name too long"),
    ],
)
def test_a_name_that_no_file_can_have_is_no_traceback(words, code, problem):
    assert_clean_error(caa(*words), code, problem)
