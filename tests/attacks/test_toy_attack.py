"""Adding an attack: one class and one row give it flags, help, checks, TOML keys, variables, results and rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ENVIRONMENT

# What somebody who adds an attack writes: the settings, and the attack.
TOY = '''
from dataclasses import dataclass
from typing import Annotated

from caa_cli.attacks.baselines.baseline import Baseline, delta, set_perturbation
from caa_cli.attacks.common.state import Batch
from caa_cli.config.attacks import ATTACKS, AttackSpec
from caa_cli.config.ranges import Between
from caa_cli.config.settings import Settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import LogRatio


@dataclass(frozen=True, kw_only=True)
class Toy(Settings):
    """Steps of one length down the margin."""

    stride: Annotated[float, Between(0, 2), "How far each step of the toy goes."] = 1.0
    eager: Annotated[bool, "Stop at the first success."] = False


@dataclass(frozen=True)
class ToyAttack(Toy, Baseline[Batch]):
    def step(self, state: Batch, classifier: SmoothedClassifier) -> None:
        evaluation = self.evaluate(state, classifier, LogRatio())
        if self.eager:
            state.done |= evaluation.adversarial
        set_perturbation(state, delta(state) - self.stride * evaluation.direction)


ATTACKS["toy"] = AttackSpec(Toy, "toy:ToyAttack")
'''
# Runs commands with it in one process, and hands back what came of each.
RUNNER = """
import json, sys
import toy
from typer.testing import CliRunner
from caa_cli.cli.app import app

found = []
for words, env in json.load(sys.stdin):
    result = CliRunner(env={"COLUMNS": "200", **env}).invoke(app, words)
    found.append({"code": result.exit_code, "out": result.stdout, "err": result.stderr})
json.dump(found, sys.stdout)
"""
_TINY = "--checkpoint demo --limit 2 --samples 60 --verify-samples 600 --chunk-size 256 --device cpu --iterations 6"
TINY = _TINY.split()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.py").write_text(TOY, encoding="utf-8")
    (folder / "c.toml").write_text("[attack]\nattack = 'toy'\ntoy-stride = 0.75\n", encoding="utf-8")
    dry = [*TINY, "--dry-run", "--json"]
    commands: dict[str, tuple[list[str], dict[str, str]]] = {
        "help": (["attack", "--help"], {}),
        "range": (["attack", *TINY, "--attack", "toy", "--toy-stride", "2"], {}),
        "foreign": (["attack", *TINY, "--attack", "pgd", "--toy-stride", "1"], {}),
        "toml": (["attack", *dry, "--config", "c.toml"], {}),
        "variable": (["attack", *dry, "--attack", "toy", "--toy-eager"], {"CAA_ATTACK_TOY_STRIDE": "0.25"}),
        "attack": (["attack", *TINY, "--attack", "toy", "--output", "a.json"], {}),
        "compare": (["compare", *TINY, "--attacks", "toy,toy:stride=1.5", "--format", "csv"], {}),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(list(commands.values())),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": f"{folder}:{':'.join(path for path in sys.path if path)}"},
        check=True,
    )
    return folder, dict(zip(commands, json.loads(done.stdout), strict=True))


def test_its_settings_are_options_with_a_panel_and_help(ran):
    shown = ran[1]["help"]["out"]
    assert "caa, caa-newton" in shown
    assert ", toy;" in shown
    assert "Only for the attack toy" in shown
    (line,) = (line for line in shown.splitlines() if "--toy-stride" in line)
    assert "How far each step of the toy goes. [default: 1]" in line


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("range", "error: --toy-stride must be above 0 and below 2, not 2"),
        ("foreign", "error: --toy-stride is a setting of the attack toy, not of pgd"),
    ],
)
def test_its_settings_are_checked(ran, name, problem):
    assert ran[1][name]["code"] == 2
    assert problem in ran[1][name]["err"]


def test_its_settings_come_from_toml_and_variables(ran):
    config = json.loads(ran[1]["toml"]["out"])["config"]
    assert (config["attack"], config["toy_stride"], config["toy_eager"]) == ("toy", 0.75, False)
    config = json.loads(ran[1]["variable"]["out"])["config"]
    assert (config["toy_stride"], config["toy_eager"]) == (0.25, True)


def test_it_runs_and_its_result_records_its_settings(ran):
    folder, results = ran
    assert results["attack"]["code"] == 0, results["attack"]
    document = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    assert document["config"]["toy_stride"] == 1.0
    assert "pgd_epsilon" not in document["config"]
    assert all(example["backward_evaluations"] > 0 for example in document["examples"])
    assert document["summary"]["attacked"] > 0


def test_it_has_rows_in_a_comparison_by_its_settings(ran):
    assert ran[1]["compare"]["code"] == 0, ran[1]["compare"]
    rows = ran[1]["compare"]["out"].splitlines()[1:]
    assert [row.split(",")[0] for row in rows if row] == ["toy", "toy:stride=1.5"]
    assert (ran[0] / "compare.toy-stride=1.5.json").is_file()
