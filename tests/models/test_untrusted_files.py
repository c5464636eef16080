"""Checkpoints of others: what is no file, what is too large, what PyTorch would believe, and how a child ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import psutil
import pytest
import torch
from crashing import crash
from safetensors.torch import save_file
from support import COMMAND, ENVIRONMENT, assert_clean_error, caa, start, wait_until

from caa_cli.errors import CaaError
from caa_cli.models import pickled
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights
from caa_cli.models.confined import read_confined
from caa_cli.models.load import build_model
from caa_cli.models.plain import pack, unpack

ROOT = Path(__file__).parents[2]
DAMAGED = CaaError("it is damaged", "copy it again")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def state() -> dict[str, torch.Tensor]:
    return read_weights(DEMO_CHECKPOINT).tensors


def saved(value: object, legacy: bool = False) -> bytes:
    buffer = BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@pytest.mark.parametrize("command", [["inspect"], ["attack", "--checkpoint"]])
def test_what_is_no_file_says_what_it_is(command):
    os.mkfifo("pipe")
    for path, problem, hint in (
        ("pipe", "is a pipe", "save it to a file first"),
        ("/dev/zero", "is a device", "name a file"),
        (".", "is a folder", "name the file in it"),
    ):
        assert_clean_error(caa(*command, path), 2, problem, hint)


def test_a_pipe_that_a_shell_opened_is_named_one():
    with subprocess.Popen(["cat", DEMO_CHECKPOINT], stdout=subprocess.PIPE) as source:
        assert_clean_error(caa("inspect", f"/dev/fd/{source.stdout.fileno()}"), 2, "is a pipe", "save it to a file")
        source.kill()


@pytest.mark.parametrize("beginning", [b"", b"\x80\x02", b"PK\x03\x04", DEMO_CHECKPOINT.read_bytes()])
def test_a_file_larger_than_the_memory_is_refused_unread(beginning):
    with Path("x").open("wb") as file:
        file.write(beginning)
        file.truncate(2**43)
    assert_clean_error(caa("inspect", "x"), 1, "too much for the memory", "check that it is the right file")


def test_a_header_that_does_not_go_with_the_size_is_refused_before_the_rest_is_read():
    content = DEMO_CHECKPOINT.read_bytes()
    with Path("x").open("wb") as file:
        file.write(content)
        file.truncate(2**32)
    before = psutil.Process().memory_info().rss
    assert_clean_error(caa("inspect", "x"), 1, "its header does not go with its size", "copy it again")
    assert psutil.Process().memory_info().rss - before < 2**30


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_8_bits_become_numbers_of_32(dtype):
    card = read_weights(DEMO_CHECKPOINT).card
    rounded = {name: tensor.to(dtype) for name, tensor in state().items()}
    save_file(rounded, "x", metadata=card.to_metadata())
    model = build_model(read_weights(Path("x")), card)
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, rounded[name].float())
    rounded["7.bias"][0] = float("nan")
    save_file(rounded, "x", metadata=card.to_metadata())
    assert_clean_error(caa("inspect", "x"), 1, "NaN or infinite weights (7.bias, 1 tensor in all)")


def test_a_flipped_bit_of_an_archive_is_noticed():
    content = bytearray(saved(state()))
    content[content.index(state()["5.weight"].numpy().tobytes())] ^= 1
    Path("x").write_bytes(content)
    assert_clean_error(caa("inspect", "x"), 1, "does not have its checksum", "copy it again")


def test_an_archive_without_checksums_is_read():
    content = bytearray(saved(state()))
    with zipfile.ZipFile(BytesIO(content)) as archive:
        entries, place = archive.infolist(), archive.start_dir
    for _ in entries:  # as PyTorch writes them where it is told to compute none
        content[place + 16 : place + 20] = bytes(4)
        place += 46 + sum(int.from_bytes(content[place + at : place + at + 2], "little") for at in (28, 30, 32))
    Path("x").write_bytes(content)
    assert read_weights(Path("x")).tensors.keys() == state().keys()


def test_a_compressed_archive_is_refused():
    with zipfile.ZipFile(BytesIO(saved(state()))) as source, zipfile.ZipFile("x", "w", zipfile.ZIP_DEFLATED) as sink:
        for name in source.namelist():
            sink.writestr(name, source.read(name))
    assert_clean_error(caa("inspect", "x"), 1, "compressed zip archive", "unpack it")


@pytest.mark.parametrize(
    ("legacy", "fresh"), [(False, False), (True, False), (False, True)], ids=["zip", "legacy", "zip-new interpreter"]
)
def test_the_child_hands_back_the_very_same_tensors(legacy, fresh):
    weights = {"state_dict": state() | {"tied": state()["7.bias"]}, "epoch": 90, "best": 0.75}
    weights["state_dict"]["view"] = weights["state_dict"]["5.weight"].T[3:]
    weights["state_dict"]["number"] = torch.tensor(7)
    weights["state_dict"]["half"] = torch.ones(3, dtype=torch.bfloat16)
    found = read_confined(pickled.read_state, Path("x"), saved(weights, legacy), DAMAGED, fresh)
    assert (found["keys"], found["entries"], found["odd"]) == (("state_dict",), {"epoch": 90, "best": 0.75}, {})
    assert list(found["tensors"]) == list(weights["state_dict"])
    for name, tensor in weights["state_dict"].items():
        assert found["tensors"][name].dtype == tensor.dtype
        assert found["tensors"][name].stride() == tensor.stride()
        assert torch.equal(found["tensors"][name], tensor)


ENDS = {
    "memory": (
        pickled.read_state,
        b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R.",
        "takes more memory",
    ),
    "crash": (crash, b"", r"crash \(SIGABRT"),
    "damaged": (pickled.read_state, b"\x80\x02", "it is damaged"),
    "code": (pickled.read_state, b"\x80\x02cos\nmkdir\nX\x03\x00\x00\x00ran\x85R.", "could run code"),
}


# A new interpreter takes seconds to start, and does the same from there on.
@pytest.mark.parametrize(("end", "fresh"), [*((end, False) for end in ENDS), ("memory", True), ("crash", True)])
def test_what_ends_the_child_is_one_message(end, fresh):
    read, content, problem = ENDS[end]
    before = psutil.Process().children()  # other tests' helpers of multiprocessing live as long as this process
    with pytest.raises(CaaError, match=problem) as caught:
        read_confined(read, Path("x"), content, DAMAGED, fresh)
    assert caught.value.hint
    assert not Path("ran").exists()
    assert psutil.Process().children() == before


@pytest.mark.slow
def test_starting_the_interpreter_does_not_count():
    import slow_to_import

    assert read_confined(slow_to_import.read, Path("x"), b"four", DAMAGED, fresh=True) == 4


def endless_keys() -> bytes:
    """Two equal keys of a dictionary: comparing them takes 2¹⁰⁰ steps, and hashing them too before Python 3.14."""

    def entry(first: int) -> bytes:
        memo = (bytes([n]) for n in range(first, first + 100))
        return b"G" + bytes(8) + b"".join(b"q" + n + b"h" + n + b"\x86" for n in memo) + b"K\x01s"

    return b"\x80\x02}" + entry(0) + entry(100) + b"."


def test_an_interrupt_ends_the_child_too():
    Path("x").write_bytes(endless_keys())
    process = start("inspect", "x")
    whole, children = psutil.Process(process.pid), []

    def reading() -> bool:
        children[:] = [child for child in whole.children() if child.cpu_times().user > 0.2]
        return bool(children)

    wait_until(reading, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert not any(child.is_running() for child in children)


def test_the_output_may_be_closed_while_a_file_is_read():
    """The pipe to the child then has the number of the standard output."""
    Path("x").write_bytes(saved(state()))
    words = 'exec "$0" -c "$1" inspect x --json >&- 2>"errors"'
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])}
    subprocess.run(["sh", "-c", words, sys.executable, COMMAND], env=environment, check=False)
    assert "PyTorch crash" not in Path("errors").read_text(encoding="utf-8")


def test_training_goes_on_from_what_the_child_read_and_from_nothing_else():
    words = "train --dataset demo --epochs 1 --evaluate-samples 0 --device cpu --output m.safetensors --resume"
    with zipfile.ZipFile("m.safetensors.training", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.")
        archive.writestr("archive/version", "3\n")
    result = caa(*words.split())
    assert not isinstance(result.exception, Exception), repr(result.exception)
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr


def test_plain_data_comes_back_as_it_was():
    value = {"a": [1, None, True, 0.5, "é\ud800"], 3: (1, [2]), "t": torch.arange(6.0).view(2, 3)[:, 1:], "e": {}}
    value["same"], value["empty"] = value["t"][0], torch.zeros(0, 4)
    header, *storages = pack(value, 10**3)
    rest = memoryview(b"".join(storages))
    assert len(rest) == 6 * 4

    def fill(buffer: memoryview) -> None:
        nonlocal rest
        buffer[:], rest = rest[: len(buffer)], rest[len(buffer) :]

    found = unpack(bytearray(header), fill, 10**3)
    assert torch.equal(found["same"], value["same"])
    assert found["same"].untyped_storage().data_ptr() == found["t"].untyped_storage().data_ptr()
    assert torch.equal(found.pop("t"), value.pop("t"))
    for key in ("same", "empty"):
        assert found.pop(key).shape == value.pop(key).shape
    assert found == value


def test_only_plain_data_can_be_handed_back():
    for value in (object(), {(1, 2): 3}, {"t": torch.eye(3).to_sparse()}, 1j):
        with pytest.raises((ValueError, NotImplementedError, RuntimeError)):
            pack(value, 10**3)
    with pytest.raises(MemoryError):
        pack(torch.zeros(10), 39)


@pytest.mark.parametrize(
    "description", [[0, "float32", 0, [3], [1]], [0, "float32", -1, [1], [1]], [0, "float32", 0, [2], [-1]]]
)
def test_a_tensor_outside_of_its_storage_is_refused(description):
    header = json.dumps({"value": {"tensor": description}, "storages": [8]}).encode()
    with pytest.raises(ValueError, match="outside"):
        unpack(bytearray(header), lambda buffer: None, 100)
