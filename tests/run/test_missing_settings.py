"""Settings that neither the command line nor the checkpoint says are named in one message, with the whole command."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from support import assert_clean_error, caa

from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A checkpoint without metadata, one whose folder names σ, and one of a foreign network."""
    monkeypatch.chdir(tmp_path)
    plain = dict(read_weights(DEMO_CHECKPOINT).tensors)
    Path("noise_0.25").mkdir()
    torch.save(plain, "plain.pt")
    torch.save(plain, "noise_0.25/plain.pt")
    torch.save({"weights": torch.zeros(3, 4), "others": torch.zeros(2)}, "foreign.pt")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "problems", "command"),
    [
        (
            "attack --checkpoint foreign.pt --attack pgd",
            ["which data set", "which noise", "no architecture that caa knows"],
            "caa attack --checkpoint foreign.pt --attack pgd "
            "--arch PACKAGE.MODULE:FACTORY --dataset D --data-dir DIR --sigma S",
        ),
        (
            "certify --checkpoint plain.pt",
            ["which data set", "which noise"],
            "caa certify --checkpoint plain.pt --dataset D --data-dir DIR --sigma S",
        ),
        (
            "certify --checkpoint plain.pt --dataset mnist",
            ["which noise", "the data set mnist needs the folder"],
            "caa certify --checkpoint plain.pt --dataset mnist --data-dir DIR --sigma S",
        ),
        (
            "compare --checkpoint noise_0.25/plain.pt --attacks caa",
            ["which data set", "its name suggests σ = 0.25"],
            "caa compare --checkpoint noise_0.25/plain.pt --attacks caa --dataset D --data-dir DIR --sigma 0.25",
        ),
        (
            "attack --checkpoint demo --dataset mnist --output 'a b.json'",
            ["the data set mnist needs the folder"],
            "caa attack --checkpoint demo --dataset mnist --output 'a b.json' --data-dir DIR",
        ),
        ("attack --attack pgd", ["needs --checkpoint"], "caa attack --attack pgd --checkpoint demo"),
    ],
)
def test_all_that_is_missing_is_named_at_once(folder, words, problems, command):
    result = caa(*shlex.split(words))
    assert_clean_error(result, 2, problems[0], command)
    assert all(problem in result.stderr for problem in problems)
    assert result.stderr.endswith(f"{command}\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("attack --attack PGD", "--attack 'PGD' is not known"),
        ("attack --ensemble votes", "--ensemble votes needs several checkpoints"),
        ("certify --limit 0", "--limit must be at least 1"),
    ],
)
def test_what_is_wrong_comes_before_what_is_missing(words: str, problem: str):
    """The hint for what is missing repeats the command, which would be refused again."""
    assert_clean_error(caa(*words.split()), 2, problem)


def test_the_command_named_is_complete(folder):
    """With the capitals filled in it runs."""
    refused = caa("certify", "--checkpoint", "plain.pt", "--dataset", "demo", "--dry-run", "--json")
    words = refused.stderr.split("caa certify ")[1].replace("--sigma S", "--sigma 0.5").split()
    assert caa("certify", *words).exit_code == 0
