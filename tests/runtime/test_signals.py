"""Signals that come while results are written."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from support import CHEAP, COMMAND, ENVIRONMENT, caa, read_strict

from caa_cli.results.store.attack_output import AttackOutput
from caa_cli.runtime.signals import termination_interrupts, uninterrupted


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_heeded_after_the_writing(signum):
    done = []

    def work():
        with termination_interrupts():
            with uninterrupted():
                signal.raise_signal(signum)
                done.append("written")
            done.append("gone on")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["written"]


def test_what_ends_already_is_not_ended_again():
    with termination_interrupts():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)


def test_a_comparison_does_not_begin_the_next_attack(tmp_path, monkeypatch):
    write = AttackOutput.finish

    def signalled(self, *words):
        signal.raise_signal(signal.SIGINT)
        return write(self, *words)

    monkeypatch.setattr(AttackOutput, "finish", signalled)
    words = ["compare", *CHEAP, "--attacks", "caa,pgd", "--limit", "1", "--output", tmp_path / "c.json"]
    result = caa(*words)
    assert result.exit_code == 130, result.output
    assert "go on with: " in result.stderr
    assert not (tmp_path / "c.pgd.json").exists()
    assert list(read_strict(tmp_path / "c.json")["attacks"]) == ["caa"]


# torch's own code drops what interrupts it while it imports numpy; numpy, imported in part, then fails elsewhere.
_WHILE_TORCH_LOADS = """import signal, sys
class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == "numpy.linalg":
            sys.meta_path.remove(Finder)
            signal.raise_signal(signal.{signum})
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize(("signum", "attack"), [("SIGINT", "caa"), ("SIGTERM", "caa"), ("SIGTERM", "my.py:attack")])
def test_a_signal_is_not_lost_while_torch_is_imported(signum, attack, tmp_path):
    script = _WHILE_TORCH_LOADS.format(signum=signum) + COMMAND
    (tmp_path / "my.py").write_text(
        "import torch\ndef attack(classifier, images, labels, generator):\n    return images"
    )
    words = ["attack", "--checkpoint", "demo", "--limit", "1", "--attack", attack]
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert done.stderr == "interrupted; whatever was finished is kept beside --output (see --resume)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["my.py"]
