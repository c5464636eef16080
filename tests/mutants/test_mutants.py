"""The mutation run as a test: that every mutant still applies and, slowly, that only the equivalent ones survive."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "run.py"


def run(*words: str) -> dict:
    done = subprocess.run([sys.executable, str(RUN), *words], check=False, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_every_mutant_applies_to_the_code_as_it_is():
    """Whoever changes a line that is mutated changes the mutant too."""
    assert sum(run("--check").values()) > 100


@pytest.mark.slow
def test_only_the_equivalent_mutants_survive():
    score = run()
    assert score["survived"] == []
    assert score["not_equivalent"] == []
    assert score["killed"] + len(score["equivalent"]) == score["mutants"] == sum(run("--check").values())
