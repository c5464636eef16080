"""Settings from environment variables: which there are, what is refused, and where a message says a value is from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from support import CHEAP, ENVIRONMENT, assert_clean_error, caa, parse_strict

from caa_cli.cli.app import app

PLAN = ["attack", *CHEAP, "--limit", "1", "--dry-run", "--json"]


def config(**environment: str) -> dict:
    result = caa(*PLAN, env=environment)
    assert result.exit_code == 0, result.output
    return parse_strict(result.stdout)["config"]


@pytest.mark.parametrize("value", ["1", "0.1.0", "x"])
def test_a_variable_does_not_ask_for_the_version(value: str):
    assert config(CAA_VERSION=value) == config()


@pytest.mark.parametrize("name", ["CAA_HELP", "CAA_ATTACK_HELP", "CAA_INSTALL_COMPLETION", "CAA_SHOW_COMPLETION"])
def test_flags_that_end_the_command_have_no_variable(name: str):
    assert_clean_error(caa(*PLAN, env={name: "1"}), 2, name, f"unset {name}")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("CAA_ATTACK_SAMPELS", "CAA_ATTACK_SAMPLES"),
        ("CAA_ATTACK_VERIFY-SAMPLES", "CAA_ATTACK_VERIFY_SAMPLES"),
        ("CAA_TRIAN_EPOCHS", "CAA_TRAIN_EPOCHS"),
        ("CAA_CASHE_DIR", "CAA_CACHE_DIR"),
        ("CAA_ATTACKS", "CAA_COMPARE_ATTACKS"),
        ("CAA_ATTACK_FORMAT", "CAA_COMPARE_FORMAT"),
    ],
)
@pytest.mark.parametrize(
    "words",
    ["attack --checkpoint demo", "certify --checkpoint demo", "compare", "merge", "train", "inspect demo", "attack"],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(words: str, name: str, nearest: str):
    result = caa(*words.split(), env={name: "3"})
    assert_clean_error(result, 2, f"environment variable {name}", f"the nearest is {nearest};")


@pytest.mark.parametrize("command", ["attack", "certify", "compare", "train"])
@pytest.mark.parametrize("option", ["SEED", "DATA_DIR", "OUTPUT"])
def test_an_option_without_a_command_is_meant_for_the_one_that_is_run(command: str, option: str):
    refused = caa(command, env={f"CAA_{option}": "3"})
    assert_clean_error(refused, 2, f"variable CAA_{option}", f"the nearest is CAA_{command.upper()}_{option};")


def test_every_variable_of_every_subcommand_is_known_to_all():
    commands = typer.main.get_command(app).commands
    names = {
        f"CAA_{command}_{parameter.name}".upper()
        for command, its in commands.items()
        for parameter in its.params
        if parameter.param_type_name == "option" and parameter.name != "help"
    }
    assert {"CAA_ATTACK_SAMPLES", "CAA_TRAIN_EPOCHS", "CAA_COMPARE_FORMAT", "CAA_MERGE_PARTIAL"} <= names
    others = {name: "x" for name in names if not name.startswith("CAA_INSPECT_")}
    others |= {"CAA_CACHE_DIR": "x", "CAA_TUNING_CACHE": "off", "CAA_DATA": "x"}
    result = caa("inspect", "demo", "--json", env=others)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("words", ["--version", "--help", "attack --help", "inspect -h"])
def test_help_and_version_are_there_whatever_is_set(words: str):
    wrong = {"CAA_ATTACK_SAMPELS": "3", "CAA_ATTACK_SAMPLES": "x", "CAA_VERSION": "0", "CAA_HELP": "0"}
    result = caa(*words.split(), env=wrong)
    assert result.exit_code == 0, result.output
    assert "caa" in result.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", "x"),
        ("samples", "1.5"),
        ("samples", "-3"),
        ("sigma", "nan"),
        ("alpha", "2"),
        ("json", "maybe"),
        ("bound", "none"),
        ("device", "abacus"),
        ("shard", "3/2"),
        ("max_memory", "much"),
        ("chunk_size", "0"),
        ("mean", "a,b"),
        ("attack", "x\x1b[2J"),
    ],
)
def test_a_value_is_checked_as_that_of_a_flag_and_the_message_says_whence_it_is(name: str, value: str):
    words = ["attack", "--checkpoint", "demo", "--dry-run"]
    flag, variable = f"--{name.replace('_', '-')}", f"CAA_ATTACK_{name.upper()}"
    if name != "json":  # its flag takes no value
        typed = caa(*words, flag, value)
        assert typed.exit_code == 2, typed.output
        assert "CAA_" not in typed.output
    found = caa(*words, env={variable: value})
    assert found.exit_code == 2
    assert isinstance(found.exception, SystemExit)
    assert variable in found.stderr
    assert flag in found.stderr
    assert "\x1b" not in found.stderr


def test_a_flag_is_not_said_to_come_from_the_variable_that_it_overrides():
    result = caa("attack", "--checkpoint", "demo", "--samples", "-3", env={"CAA_ATTACK_SAMPLES": "5"})
    assert_clean_error(result, 2, "--samples")
    assert "CAA_" not in result.stderr


def test_an_empty_variable_counts_as_not_set():
    empty = {"CAA_ATTACK_SAMPLES": "", "CAA_ATTACK_QUIET": "", "CAA_ATTACK_OUTPUT": "", "CAA_ATTACK_SAMPELS": ""}
    assert config(**empty) == config()


def test_the_settings_file_can_be_named_by_a_variable(tmp_path: Path):
    file = tmp_path / "caa.toml"
    file.write_text("[attack]\nskip = 7\nevery = 2\n")
    found = config(CAA_ATTACK_CONFIG=str(file), CAA_ATTACK_SKIP="5")
    assert (found["skip"], found["every"]) == (5, 2)


def test_a_name_that_is_no_text_is_shown_and_refused():
    """Bytes that are no UTF-8, and what a terminal would act on."""
    command = [sys.executable, "-c", "from caa_cli.cli.app import main; main()", *PLAN]
    named = {**{os.fsencode(k): os.fsencode(v) for k, v in ENVIRONMENT.items()}, b"CAA_\xff\x1b[2J": b"1"}
    done = subprocess.run(command, env=named, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"CAA_\\udcff\\x1b[2J" in done.stderr


HOSTILE = {
    **{"TTY_COMPATIBLE": "0", "NO_COLOR": "1", "FORCE_COLOR": "1", "COLUMNS": "20", "GITHUB_ACTIONS": "true"},
    **{"CAA_ATTACK_SAMPLES": "3", "RANK": "1", "WORLD_SIZE": "4", "SLURM_ARRAY_TASK_ID": "3", "OMP_NUM_THREADS": "7"},
    **{
        "LC_ALL": "C",
        "PYTHONIOENCODING": "latin-1",
        "TERM": "dumb",
        "MPLBACKEND": "nonsense",
        "ENVIRONMENT": "BATCH",
    },
}


def test_tests_do_not_see_what_their_caller_has_set():
    script = "import os, environment\nfor name, value in os.environ.items(): print(f'{name}={value}')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1] / "helpers",
        env={**ENVIRONMENT, **HOSTILE, "CAA_DATA": "/data"},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert not [name for name, value in HOSTILE.items() if seen.get(name) == value]
    assert seen["CAA_DATA"] == "/data"
