"""One training in two real processes, torchrun's or like them: it learns, and a kill costs nothing finished."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from forking import fork
from support import ENVIRONMENT, assert_clean_error, caa, ended, rank_dies_once, torchrun
from torch.distributed import TCPStore

from caa_cli.models.checkpoint import read_weights

EPOCHS = 6
OPTIONS = (
    f"--dataset demo --method stability --sigma 0.25 --epochs {EPOCHS} --learning-rate 3e-3 --batch-size 20 "
    "--evaluate-samples 0"
)
TRAIN = ("train", *OPTIONS.split(), "--output")
# How many threads a process has when it ends, written at once so that the lines of two processes don't mix.
THREADS = """import atexit, os
if os.path.exists("/proc/self/task"):
    atexit.register(lambda: os.write(1, b"%d threads at the end\\n" % len(os.listdir("/proc/self/task"))))
"""


def two_ranks(*words: str | Path) -> str:
    """What the command writes to stderr in two processes that meet at a store of this one, as torchrun's do."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": store.host, "MASTER_PORT": str(store.port)}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    ranks = [{**ENVIRONMENT, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    processes = [fork(*words, env=environment) for environment in ranks]
    return "".join(ended(process)[1] for process in processes)


class Whole(NamedTuple):
    """A training that nothing happened to: its checkpoint, and what it wrote."""

    output: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    output = tmp_path_factory.mktemp("whole") / "model.safetensors"
    return Whole(output, *ended(torchrun(*TRAIN, output, before=THREADS)))


def test_two_processes_learn_together_and_one_of_them_reports(whole: Whole):
    assert "2 processes" in whole.stderr
    card = read_weights(whole.output).card
    assert card is not None
    assert card.training["heldout_noisy_accuracy"] > 0.5
    folder = whole.output.parent
    lines = [json.loads(line) for line in (folder / "model.safetensors.log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, EPOCHS + 1))
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "model.safetensors.log.jsonl"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in Linux's /proc")
def test_no_thread_is_left_to_abort_a_process_at_its_end(whole: Whole):
    """One of gloo's that releases a tensor while Python ends aborts the process, seldom enough to be overlooked."""
    assert re.findall(r"(\d+) threads at the end", whole.stdout) == ["1", "1"]


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_is_survived_and_resumed_to_the_same_weights(tmp_path: Path, whole: Whole, victim: int):
    output = tmp_path / "model.safetensors"
    unfinished = tmp_path / "model.safetensors.training"
    dies = rank_dies_once(victim, f"Path({str(unfinished)!r}).exists()")
    ended(torchrun(*TRAIN, output, before=dies), code=1)
    assert not output.exists()
    assert "going on after epoch" in two_ranks(*TRAIN, output, "--resume")
    assert output.read_bytes() == whole.output.read_bytes()


def test_two_processes_take_the_steps_of_one(tmp_path: Path):
    """Each has half of every batch; without noise, the mean of their gradients is that of the batch."""
    plain = "--method gaussian --sigma 1e-9 --epochs 1 --optimizer sgd --learning-rate 0.1 --heldout 0"
    together, alone = tmp_path / "together.safetensors", tmp_path / "alone.safetensors"
    assert "2 processes" in two_ranks(*TRAIN, together, *plain.split())
    assert caa(*TRAIN, alone, *plain.split()).exit_code == 0
    one, other = read_weights(alone).tensors, read_weights(together).tensors
    assert all(torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5) for name in one)


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK=0 of WORLD_SIZE=2, but has no MASTER_ADDR"),
        ({"RANK": "0", "WORLD_SIZE": "x", "MASTER_ADDR": "localhost"}, "WORLD_SIZE='x', which is no number"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, "RANK=2 of WORLD_SIZE=2: there is no such"),
    ],
)
def test_an_environment_that_torchrun_did_not_make(tmp_path: Path, environment: dict[str, str], problem: str):
    assert_clean_error(caa(*TRAIN, tmp_path / "m", env=environment), 2, problem, "env -u")


def test_processes_that_can_not_meet_are_one_message(tmp_path: Path):
    """As where Slurm starts two trainings with one MASTER_PORT on a machine."""
    ranks = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = caa(*TRAIN, tmp_path / "m", env={**ranks, "MASTER_PORT": port})
        assert_clean_error(result, 1, f"can't meet at 127.0.0.1:{port}", "--master-port")
    assert_clean_error(caa(*TRAIN, tmp_path / "m", env={**ranks, "MASTER_PORT": "x"}), 1, "can't meet at 127.0.0.1:x")


@pytest.mark.slow  # torchrun gives the first process half a minute to end
def test_an_error_of_one_process_alone_is_said(tmp_path: Path):
    """The second one finds no place to write to."""
    nowhere = "import os, sys\nif os.environ['RANK'] == '1': sys.argv[-1] = '/nowhere/m'\n"
    process = torchrun(*TRAIN, tmp_path / "m", before=nowhere)
    assert "process 1: " in ended(process, code=1)[1]
