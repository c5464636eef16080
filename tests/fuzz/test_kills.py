"""Real processes, killed at random moments and gone on with: nothing is lost, doubled or different at the end.

A few kills are part of every suite; `pytest -m slow tests/fuzz/test_kills.py -s` kills 80 times, and says so.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from support import CHEAP, caa

# Each process begins where all is imported already: a kill then falls into the work. PyTorch imports the last two
# with its first gradient, and with its first optimiser.
PROCESSES = multiprocessing.get_context("fork")
PIPELINES = [f"caa_cli.run.{name}" for name in ("attack", "certify", "compare", "train")]
IMPORTED = [*PIPELINES, "torch.fx.experimental.symbolic_shapes", "torch._dynamo"]

CERTIFY = "certify --checkpoint demo --samples 2000 --limit 4 --chunk-size 256 --device cpu"
TRAIN = "train --dataset demo --epochs 3 --evaluate-samples 0 --device cpu"
RUNS: dict[str, list[str]] = {
    "attack": ["attack", *CHEAP, "--limit", "3", "--output", "{}/a.json", "--save-adversarial", "{}/a.safetensors"],
    "certify": [*CERTIFY.split(), "--output", "{}/c.json", "--tsv", "{}/c.tsv"],
    "compare": ["compare", *CHEAP, "--limit", "1", "--attacks", "caa,caa:iterations=5", "--output", "{}/c.json"],
    "train": [*TRAIN.split(), "--output", "{}/m.safetensors"],
}
# What a process does to files: every kill just before one of these is tried sooner or later.
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.truncate", "fcntl.flock"}


def work(words: list[str], folder: str, last: int, seen: Any) -> None:
    """Runs the command; kills itself just before the `last`-th thing that it does to the files in the folder."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and (isinstance(arguments[0], int) or folder in str(arguments[0])):
            seen.value += 1
            if seen.value == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    os._exit(caa(*words).exit_code)


@dataclass
class Command:
    """One of RUNS in a folder of its own. `events` and `seconds`: of a whole run, nothing killed."""

    name: str
    folder: Path
    events: int = 0
    seconds: float = 0.0

    def run(self, last: int = 0, after: float | None = None) -> int:
        """The exit code, of a process that is killed at its `last`-th event, or `after` so many seconds."""
        self.folder.mkdir(exist_ok=True)
        words = [word.replace("{}", str(self.folder)) for word in RUNS[self.name]]
        seen, began = PROCESSES.Value("i", 0, lock=False), time.monotonic()  # a kill may not leave it locked
        process = PROCESSES.Process(target=work, args=([*words, "--resume"], str(self.folder), last, seen))
        process.start()
        process.join(after)
        process.kill()
        process.join()
        self.events, self.seconds = max(self.events, seen.value), max(self.seconds, time.monotonic() - began)
        assert process.exitcode in (0, -signal.SIGKILL), f"{self.name} ended with {process.exitcode}"
        return process.exitcode

    def examples(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Every finished example, of the documents and of the whole lines of journals, by output and index."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for path in sorted(self.folder.glob("*.json")):
            examples = json.loads(path.read_text()).get("examples", [])
            assert len({example["index"] for example in examples}) == len(examples)
            found |= {(path.name, example["index"]): example for example in examples}
        for path in self.folder.glob("*.json.jsonl"):
            lines = path.read_bytes().split(b"\n")[1:-1]
            found |= {(path.stem, example["index"]): example for example in map(json.loads, lines)}
        return found

    def result(self) -> dict[str, Any]:
        """All that is left but for times, by file. Hidden files are what kills leave of locks and writes."""
        found: dict[str, Any] = {}
        for path in self.folder.iterdir():
            if path.suffix == ".safetensors":
                found[path.name] = {name: tensor.tobytes() for name, tensor in load_file(path).items()}
            elif path.suffix == ".tsv":
                found[path.name] = [line.rpartition("\t")[0] for line in path.read_text().splitlines()]
            elif path.suffix == ".jsonl":
                found[path.name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
            elif not path.name.startswith("."):
                document = json.loads(path.read_text())
                attacks = {name: attack["examples"] for name, attack in document.get("attacks", {}).items()}
                found[path.name] = [document["status"], timeless(document.get("examples")), timeless(attacks)]
        return found


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: timeless(part) for name, part in value.items() if name != "seconds"}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def kill(name: str, folder: Path, kills: int, moments: random.Random) -> Counter[str]:
    """Runs the command over and over until it was killed so often; returns what was done."""
    straight = Command(name, folder / f"{name}-straight")
    assert straight.run() == 0
    expected, done = straight.result(), Counter[str]()
    while done[name] < kills:
        command, before = Command(name, folder / f"{name}-{done['finished']}"), {}
        finished = False
        while not finished:
            if done[name] == kills:
                finished = command.run() == 0
            elif moments.random() < 0.6:
                finished = command.run(last=moments.randint(1, straight.events)) == 0
            else:
                finished = command.run(after=moments.uniform(0.0, straight.seconds)) == 0
            done[name] += not finished
            now = command.examples()
            # What was finished once stays as it was, the seconds that it took too: nothing is done again.
            assert before.items() <= now.items()
            before = now
        assert command.result() == expected
        done["finished"] += 1
    return done


def kill_all(folder: Path, kills: int, seed: int) -> None:
    for module in IMPORTED:
        import_module(module)
    moments, done = random.Random(seed), Counter[str]()
    for name in RUNS:
        done += kill(name, folder, kills, moments)
    finished = done.pop("finished")
    print(f"\n{done.total()} kills ({dict(done)}), {finished} runs finished, each as the one that nothing killed")
    assert done.total() == kills * len(RUNS)


def test_a_few_kills_lose_double_and_change_nothing(tmp_path):
    kill_all(tmp_path, kills=2, seed=0)


@pytest.mark.slow
def test_many_kills_lose_double_and_change_nothing(tmp_path):
    kill_all(tmp_path, kills=20, seed=1)
