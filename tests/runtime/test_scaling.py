"""Shards in real processes: torchrun's, a Slurm array's, and what is left when they are signalled or killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forking import fork, signals_itself
from support import (
    CHEAP,
    COMMAND,
    ENVIRONMENT,
    attack,
    caa,
    ended,
    once,
    rank_dies_once,
    read_strict,
    start,
    timeless,
    torchrun,
    wait_until,
)

IMAGES = 24
EACH = IMAGES // 2  # of two shards
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "guides" / "scaling-out.md"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run in one process that nothing happens to."""
    return attack(tmp_path_factory.mktemp("whole") / "attack.json", "--limit", str(IMAGES), "--quiet")


def shard_file(folder: Path, index: int, count: int = 2) -> Path:
    return folder / f"attack.shard-{index}-of-{count}.json"


def finished(output: Path) -> list[int]:
    """The images in the record of a run, in the order in which they were finished; or those in its whole result."""
    journal = output.with_name(output.name + ".jsonl")
    if output.exists() and not journal.exists():
        return [example["index"] for example in read_strict(output)["examples"]]
    lines = journal.read_bytes().split(b"\n")[1:-1] if journal.exists() else []
    return [json.loads(line)["index"] for line in lines]


def merged(folder: Path, images: int = IMAGES):
    """Of two shards; every image is recorded just once."""
    files = [shard_file(folder, index) for index in range(2)]
    assert [sorted(finished(file)) for file in files] == [list(range(images))[k::2] for k in range(2)]
    result = caa("merge", *files, "--output", folder / "all.json", "--quiet")
    assert result.exit_code == 0, result.output
    return read_strict(folder / "all.json")


def run_words(folder: Path, images: int = IMAGES) -> list[str | Path]:
    return ["attack", *CHEAP, "--limit", str(images), "--output", folder / "attack.json"]


def test_two_ranks_of_torchrun_one_of_them_killed_are_the_run_in_one_process(tmp_path, whole):
    """The same command goes on; then all is as if nothing had happened."""
    words = [*run_words(tmp_path), "--shard", "auto", "--resume"]
    journals = [str(shard_file(tmp_path, k)) for k in range(2)]
    dies = rank_dies_once(1, f"all(in_journal(Path(name)) >= 2 for name in {journals})")
    _, stderr = ended(torchrun(*words, before=dies), code=1)
    assert not shard_file(tmp_path, 1).exists()
    # The other one was ended by torchrun and has saved what it had.
    assert re.search(rf"interrupted: \d+ of {EACH} images done and saved in .*shard-0-of-2", stderr)
    assert read_strict(shard_file(tmp_path, 0))["status"] == "interrupted"
    refused = caa("merge", *(shard_file(tmp_path, k) for k in range(2)), "--output", tmp_path / "all.json")
    assert refused.exit_code == 2
    assert "finish it with: RANK=" in refused.stderr

    for rank in range(2):
        result = caa(*words, env={"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)})
        assert result.exit_code == 0, result.output
        assert "images done already" in result.stderr
        assert f"{rank} of 2: process {rank} of torchrun's 2" in result.stderr
        assert f"shard {rank} of 2: images {EACH}/{EACH}" in result.stderr
    document = merged(tmp_path)
    assert timeless(document) == timeless(whole)
    assert document["fingerprint"] == whole["fingerprint"]
    assert {n: v for n, v in document["summary"].items() if "seconds" not in n} == {
        n: v for n, v in whole["summary"].items() if "seconds" not in n
    }


@pytest.mark.slow
def test_torchrun_itself_starts_a_killed_rank_again(tmp_path, whole):
    dies = rank_dies_once(0, f"in_journal(Path({str(shard_file(tmp_path, 0))!r})) >= 2")
    ended(torchrun(*run_words(tmp_path), "--shard", "auto", "--resume", options=("--max-restarts", "1"), before=dies))
    assert timeless(merged(tmp_path)) == timeless(whole)


@pytest.mark.parametrize("loading", [True, False], ids=["while loading", "while working"])
def test_sigusr1_saves_what_is_finished(tmp_path, loading):
    output = tmp_path / "a.json"
    words = ("attack", *CHEAP, "--limit", "100", "--output", output)
    signals = (signal.SIGUSR1, signal.SIGTERM)  # Slurm may send both, or one twice
    if loading:
        process = start(*words)
        # The first module that a subcommand loads: signals are heeded by then.
        wait_until(lambda: b"torch" in Path(f"/proc/{process.pid}/maps").read_bytes(), process)
        for signum in signals:
            process.send_signal(signum)
    else:
        process = fork(*words, before=signals_itself(lambda: len(finished(output)) >= 2, *signals))
    _, stderr = ended(process, code=130)
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    if not loading:
        document = read_strict(output)
        assert document["status"] == "interrupted"
        assert document["examples"]


def test_a_node_that_dies_between_writing_and_renaming(tmp_path, whole):
    """The result is not there, its images are in the record, and a half-written file is not taken for it."""

    def die_in_time() -> None:
        Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

    words = [*run_words(tmp_path), "--shard", "1/2"]
    ended(fork(*words, before=die_in_time), code=-signal.SIGKILL)
    output = tmp_path / "attack.json"
    assert not output.exists()
    assert sorted(finished(output)) == list(range(IMAGES))[1::2]
    refused = caa("merge", output, "--output", tmp_path / "all.json")
    assert f"is not there: its run ended before it could write it, with {EACH} images finished" in refused.stderr
    result = caa(*words, "--resume")
    assert f"{EACH} images done already" in result.stderr
    assert timeless(read_strict(output)) == timeless(whole)[1::2]


@pytest.mark.parametrize(("kills", "images"), [(3, 12), pytest.param(50, 64, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_and_double_no_image(tmp_path, kills, images):
    """Two shards of a Slurm array in turn; the moments fall into reading, working and writing."""
    moments = random.Random(kills)
    settings = {"SLURM_ARRAY_TASK_MIN": "4", "SLURM_ARRAY_TASK_MAX": "5", "SLURM_ARRAY_TASK_COUNT": "2"}
    words = [*run_words(tmp_path, images), "--shard", "auto", "--resume", "--quiet"]

    def life(task: int, moment: Callable[[], bool]) -> bool:
        """Whether the run was killed, and not done before."""
        before = len(finished(shard_file(tmp_path, task)))
        environment = {**ENVIRONMENT, **settings, "SLURM_ARRAY_TASK_ID": str(4 + task)}
        process = fork(*words, before=signals_itself(moment, signal.SIGKILL), env=environment)
        process.communicate()
        assert len(finished(shard_file(tmp_path, task))) >= before
        return process.returncode == -signal.SIGKILL

    began = time.monotonic()
    killed = life(0, lambda: bool(finished(shard_file(tmp_path, 0))))
    first = time.monotonic() - began  # to the first image; less where a run is done before its moment
    for number in range(1, 10 * kills):
        if killed == kills:
            break
        moment = time.monotonic() + first * moments.uniform(0.3, 2.0)
        died = life(number % 2, lambda moment=moment: time.monotonic() >= moment)
        killed += died
        first *= 1 if died else 0.5
    assert killed == kills, "the runs end before they can be killed"
    for index in range(2):
        assert caa(*words, env={**settings, "SLURM_ARRAY_TASK_ID": str(4 + index)}).exit_code == 0
    whole = attack(tmp_path / "whole.json", "--limit", str(images), "--quiet")
    assert timeless(merged(tmp_path, images)) == timeless(whole)


def test_the_documented_slurm_script_requeues_and_goes_on(tmp_path):
    """As sbatch would run it: the variables set, SIGUSR1 to the script, an scontrol that notes what it is told."""
    (script,) = re.findall(r"```bash\n(#!.*?#SBATCH.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    # A second --checkpoint would make an ensemble.
    (tmp_path / "attack.sbatch").write_text(script.replace("--checkpoint model.safetensors ", ""))
    programs = tmp_path / "bin"
    programs.mkdir()
    output, told = shard_file(tmp_path, 1, 8), tmp_path / "told"
    in_time = f"not Path({str(told)!r}).exists() and in_journal(Path({str(output)!r})) >= 2"
    (programs / "caa.py").write_text(once(in_time, "os.kill(os.getppid(), signal.SIGUSR1)") + COMMAND)
    (programs / "caa").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{programs / "caa.py"}" "$@"\n')
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> "{told}"\n')
    for name in ("caa", "scontrol"):
        (programs / name).chmod(0o755)
    # Task 1 of 0-7, sent again alone; PYTHONPATH is for a package that is not installed.
    slurm = {"SLURM_JOB_ID": "77", **{f"SLURM_ARRAY_TASK_{name}": "1" for name in ("ID", "MIN", "MAX", "COUNT")}}
    environment = {**ENVIRONMENT, **slurm, "PATH": f"{programs}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)

    def submitted() -> subprocess.Popen[str]:
        words = ["bash", "attack.sbatch", *CHEAP, "--dataset", "demo", "--limit", "96"]
        return subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment)

    ended(submitted(), code=130)
    assert told.read_text() == "requeue 77\n"
    assert read_strict(output)["status"] == "interrupted"

    ended(submitted())
    assert told.read_text() == "requeue 77\n"
    document = read_strict(output)
    assert document["status"] == "complete"
    assert [example["index"] for example in document["examples"]] == list(range(96))[1::8]
    assert document["config"]["shard"]["chosen"] == "task 1 of a Slurm array of 8"
