"""`caa attack` and `caa train` as a user or a program calls them."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from forking import fork
from rich.markup import render
from safetensors.numpy import load_file
from support import (
    CHEAP,
    ENVIRONMENT,
    assert_clean_error,
    attack,
    caa,
    demo_images,
    parse_strict,
    read_strict,
    read_terminal,
    timeless,
    write_mnist,
)
from typer.main import get_command

from caa_cli.cli.app import app

ROOT = Path(__file__).parents[2]
TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{2}:[0-9]{2}"
TOP = {"schema_version", "tool_version", "command", "created", "status", "config", "environment", "checkpoint"}
TOP |= {"shard", "examples", "summary"}
CHECKPOINT = {"path", "sha256", "arch", "dataset", "sigma"}
EXAMPLE = {"index", "label", "prediction", "outcome", "certified_radius", "radius", "radius_search"}
EXAMPLE |= {"adversarial_class", "iterations", "forward_evaluations", "backward_evaluations", "seconds"}
SUMMARY = {"examples", "eligible", "attacked", "success_rate", "median_radius", "median_percent_over_certified"}
SUMMARY |= {"median_seconds", "seconds"}
ELIGIBLE = {"attacked", "not_found", "not_verified"}
OUTCOMES = ELIGIBLE | {"misclassified", "abstained", "failed"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run with everything that can be written; image 18 is one that the demo model abstains on."""
    folder = tmp_path_factory.mktemp("run")
    files = {
        "output": folder / "attack.json",
        "save-adversarial": folder / "a.safetensors",
        "figure": folder / "f.png",
    }
    result = caa("attack", *CHEAP, "--limit", "13", "--skip", "6", "--json", *flags(files))
    assert result.exit_code == 0, result.output
    return result, read_strict(files["output"]), files


def flags(files):
    return [word for name, path in files.items() for word in (f"--{name}", path)]


@pytest.mark.parametrize("words", ["--version", "--help", "attack --help", "train --help"])
def test_help_and_version_import_nothing_heavy(words):
    script = (
        "import sys\n"
        "from caa_cli.cli.app import main\n"
        "sys.argv[0] = 'caa'\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'scipy', 'numpy', 'matplotlib', 'safetensors'}\n"
        "print(*sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words.split()], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert "caa" in done.stdout
    assert done.stderr.strip() == ""


def test_ctrl_c_while_the_command_is_loaded_shows_no_traceback():
    script = (
        "import sys\n"
        "from pkgutil import resolve_name\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "resolve_name(sys.argv[1])()"
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    command = [sys.executable, "-c", script, project["scripts"]["caa"]]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_help_of_no_option_loses_a_word_in_brackets():
    """Rich takes `[plot]` for a style and leaves it out."""
    for name, command in get_command(app).commands.items():
        for parameter in command.params:
            text, *_ = (getattr(parameter, "help", None) or "").split(" [dim]")
            assert render(text).plain == text, f"caa {name}: {parameter.name}"


def test_the_help_of_training_says_the_default_of_each_method():
    options = {parameter.name: parameter for parameter in get_command(app).commands["train"].params}
    assert options["draws"].show_default == "gaussian 1, consistency 2, macer 16, smoothadv 2"
    assert options["beta"].help.endswith(r"[dim]\[default: 16][/]")


def test_the_help_has_every_name_in_full_however_narrow_the_terminal():
    for command in ("attack", "compare", "train"):
        for columns in ("60", "80"):
            shown = caa(command, "--help", env={"COLUMNS": columns}).stdout
            assert "--output" in shown
            assert re.findall(r"--[a-z-]*…", shown) == []


def test_the_help_puts_parentheses_around_words_only():
    """`[default: (the true σ)]`, but `[default: 0.1]` and `[default: staged]`, as one would type them."""
    for command in ("attack", "compare", "train"):
        shown = re.findall(r"\[default: ([^\]]*)\]", " ".join(caa(command, "--help").stdout.split()))
        in_words = [text for text in shown if text.startswith("(")]
        assert in_words
        assert [text for text in in_words if re.fullmatch(r"\([0-9./e-]+\)", text)] == []
    shown = " ".join(caa("attack", "--help").stdout.replace("│", " ").split())
    for text in ("Shortest step, L2. [default: 0.1]", "[default: staged]", "[default: (the true σ)]"):
        assert text in shown


def test_the_help_shows_no_type_behind_a_switch():
    """Typer 0.29 and later: `--help <bool>`."""
    for words in (["--help"], ["attack", "--help"]):
        shown = caa(*words).stdout
        assert "--help" in shown
        assert "bool" not in shown


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("inspect", "[FILE]…"),
        ("compare", "[[NAME=]FILE.json]…"),
        ("merge", "FILE.json…"),
        ("status", "FILE…"),
        ("check", "FILE.json…"),
    ],
)
def test_the_help_shows_arguments_as_they_are_typed(command, words):
    """Typer 0.29 and later: `[[FILE]…]...` and `<list[str]>`."""
    shown = caa(command, "--help").stdout
    usage = [line.strip() for line in shown.splitlines() if "Usage" in line]
    assert usage == [f"Usage: caa {command} [OPTIONS] {words}"]
    assert "list[" not in shown


def test_result_has_the_fixed_names(run):
    _, document, _ = run
    assert document.keys() >= TOP
    assert document["checkpoint"].keys() >= CHECKPOINT
    assert document["shard"].keys() >= {"index", "count"}
    assert document["summary"].keys() >= SUMMARY
    assert all(example.keys() >= EXAMPLE for example in document["examples"])
    assert document["status"] == "complete"
    assert document["command"] == "attack"
    assert [example["index"] for example in document["examples"]] == list(range(6, 19))


def test_examples_say_what_their_outcome_allows(run):
    """Every outcome fills the fields that it has a value for, and no others."""
    _, document, _ = run
    _, labels = demo_images()
    for example in document["examples"]:
        assert example["outcome"] in OUTCOMES
        assert example["label"] == labels[example["index"]]
        if example["outcome"] in ELIGIBLE:
            assert example["prediction"] == example["label"]
            assert example["certified_radius"] > 0
        else:
            assert example["radius"] is example["certified_radius"] is None
        if example["outcome"] == "attacked":
            assert example["radius"] >= example["certified_radius"]
            assert example["radius_search"] is not None
            assert example["adversarial_class"] not in (None, example["label"])
            assert 0 < example["iterations"] <= 8
        else:
            assert example["radius"] is example["adversarial_class"] is None
    assert len({example["outcome"] for example in document["examples"]}) > 1


def test_summary_follows_from_the_examples(run):
    _, document, _ = run
    examples, summary = document["examples"], document["summary"]
    eligible = [e for e in examples if e["outcome"] in ELIGIBLE]
    attacked = [e for e in examples if e["outcome"] == "attacked"]
    assert attacked
    assert summary["examples"] == len(examples) == 13
    assert summary["eligible"] == len(eligible)
    assert summary["attacked"] == len(attacked)
    assert summary["outcomes"] == Counter(e["outcome"] for e in examples)
    assert summary["success_rate"] == pytest.approx(len(attacked) / len(eligible))
    assert summary["median_radius"] == pytest.approx(median(e["radius"] for e in attacked))
    over = [100 * (e["radius"] / e["certified_radius"] - 1) for e in attacked]
    assert summary["median_percent_over_certified"] == pytest.approx(median(over))
    assert summary["median_seconds"] == pytest.approx(median(e["seconds"] for e in eligible))
    assert summary["forward_evaluations"] == sum(e["forward_evaluations"] for e in examples)


def test_json_puts_one_document_on_stdout_and_the_rest_on_stderr(run):
    result, document, _ = run
    assert parse_strict(result.stdout) == document
    assert "images 13/13" in result.stderr


def test_without_a_terminal_the_lines_are_plain(run):
    result, _, _ = run
    assert "\x1b" not in result.output
    assert "\r" not in result.output
    assert re.search(f"^{TIME} images 13/13 · ", result.stderr, re.MULTILINE)


def test_on_a_terminal_a_bar_is_shown(tmp_path):
    terminal, other_end = pty.openpty()
    process = fork("attack", *CHEAP, "--limit", "1", "--output", tmp_path / "a.json", stderr=other_end)
    os.close(other_end)
    shown = read_terminal(terminal)
    process.communicate()
    assert process.returncode == 0
    assert "━" in shown
    assert "ETA" in shown


def test_quiet_says_nothing(tmp_path):
    result = caa("attack", *CHEAP, "--limit", "1", "--quiet", "--output", tmp_path / "a.json")
    assert result.exit_code == 0
    assert result.output == ""


def test_the_table_goes_to_stdout_without_json(tmp_path):
    result = caa("attack", *CHEAP, "--limit", "1", "--output", tmp_path / "a.json")
    assert "median radius" in result.stdout
    assert "median radius –" not in result.stdout
    assert str(tmp_path / "a.json") in result.stdout


def test_dry_run_counts_evaluations_and_writes_nothing(tmp_path, run):
    _, document, files = run
    here = {name: tmp_path / path.name for name, path in files.items()}
    result = caa("attack", *CHEAP, "--limit", "13", "--skip", "6", "--dry-run", "--json", *flags(here))
    assert result.exit_code == 0
    assert list(tmp_path.iterdir()) == []
    assert "forward evaluations" in result.stderr
    plan = parse_strict(result.stdout)
    assert plan["images"] == 13
    for way in ("forward", "backward"):
        assert document["summary"][f"{way}_evaluations"] <= plan[f"{way}_evaluations_at_most"]
    assert {**plan["config"], "dry_run": False} == {**document["config"], **_paths(here)}


def _paths(files):
    return {name.replace("-", "_"): str(path) for name, path in files.items()}


def test_defaults_then_file_then_environment_then_flags(tmp_path):
    def samples(*words, env=None):
        result = caa("attack", "--checkpoint", "demo", "--chunk-size", "64", "--dry-run", "--json", *words, env=env)
        return parse_strict(result.stdout)["config"]["samples"]

    file = tmp_path / "caa.toml"
    file.write_text("samples = 70\n[attack]\nsamples = 80\n[train]\nsamples = 1\n")
    environment = {"CAA_ATTACK_SAMPLES": "90"}
    assert samples() == 1500
    assert samples("--config", file) == 80
    assert samples("--config", file, env=environment) == 90
    assert samples("--config", file, "--samples", "100", env=environment) == 100


def test_a_file_may_set_what_all_subcommands_share(tmp_path):
    file = tmp_path / "caa.toml"
    file.write_text("seed = 7\nepochs = 3\n[attack]\nverify-samples = 5000\nmean = [0.5]\n")
    result = caa("attack", "--checkpoint", "demo", "--chunk-size", "64", "--dry-run", "--json", "--config", file)
    config = parse_strict(result.stdout)["config"]
    assert (config["seed"], config["verify_samples"], config["mean"]) == (7, 5000, [0.5])


def test_a_file_may_name_the_attack_at_its_top(tmp_path):
    """`attack` is an option as well as a subcommand."""
    file = tmp_path / "caa.toml"
    file.write_text('attack = "caa"\n')
    result = caa("attack", "--checkpoint", "demo", "--chunk-size", "64", "--dry-run", "--json", "--config", file)
    assert result.exit_code == 0, repr(result.exception)
    assert parse_strict(result.stdout)["config"]["attack"] == "caa"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[attack]\nsampels = 5", "did you mean samples? caa attack --help lists the settings"),
        ("[attack]\nconfig = 'x'", "caa attack --help lists the settings"),
        ("[attack", "a setting a line, for instance samples = 2000"),
        ("[attack]\nsamples = 'x'", "correct that line of "),
        ("sampels = 5", "did you mean samples?"),
        ("[atack]\nsamples = 5", "did you mean [attack]?"),
        ("[attack]\nverify-samples = 5000\nverify_samples = 9000", "delete one of them"),
        ("shards = 'x'", "did you mean shard?"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path, text, hint):
    file = tmp_path / "caa.toml"
    file.write_text(text)
    result = caa("attack", "--checkpoint", "demo", "--chunk-size", "64", "--dry-run", "--config", file)
    assert_clean_error(result, 2, str(file), hint)
    assert result.stdout == ""


def test_a_value_that_a_file_has_set_is_said_to_come_from_it(tmp_path):
    file = tmp_path / "caa.toml"
    file.write_text("[attack]\nalpha = 0.9\nstep-min = 0.5\n")
    words = ["attack", "--checkpoint", "demo", "--config", file]
    assert_clean_error(caa(*words), 2, f"not 0.9 (--alpha comes from {file})")
    assert_clean_error(caa(*words, "--alpha", "0.1"), 2, f"below --step-min 0.5 (--step-min comes from {file})")
    assert "comes from" not in caa(*words, "--alpha", "0.8").stderr


def test_saved_images_are_at_the_reported_distance(run):
    _, document, files = run
    saved = load_file(files["save-adversarial"])
    attacked = [example for example in document["examples"] if example["outcome"] == "attacked"]
    assert saved["indices"].tolist() == [example["index"] for example in attacked]
    assert saved["labels"].tolist() == [example["label"] for example in attacked]
    assert saved["adversarial_classes"].tolist() == [example["adversarial_class"] for example in attacked]
    clean = demo_images()[0][saved["indices"]][:, None] / 255.0
    distances = np.sqrt(((saved["images"].astype(np.float64) - clean) ** 2).sum(axis=(1, 2, 3)))
    reported = [example["radius"] for example in attacked]
    np.testing.assert_allclose(distances, reported, rtol=1e-5)
    np.testing.assert_allclose(saved["radii"], reported, rtol=1e-12)
    assert saved["images"].min() >= 0
    assert saved["images"].max() <= 1


def test_figure_is_a_picture(run):
    _, _, files = run
    content = files["figure"].read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 5000


def test_only_the_asked_for_files_stay(run):
    _, _, files = run
    left = {path.name for path in files["output"].parent.iterdir()}
    assert left == {"attack.json", "a.safetensors", "f.png"}


def test_shards_together_are_the_whole_run(run, tmp_path):
    _, document, _ = run
    shards = [
        attack(tmp_path / f"{k}.json", "--limit", "13", "--skip", "6", "--shard", f"{k}/2", "--quiet") for k in (0, 1)
    ]
    assert [shard["shard"] for shard in shards] == [{"index": 0, "count": 2}, {"index": 1, "count": 2}]
    together = sorted(timeless(shards[0]) + timeless(shards[1]), key=lambda example: example["index"])
    assert together == timeless(document)


@pytest.mark.parametrize("cut", ["--batch-size 1 --chunk-size 50", "--batch-size 3 --chunk-size 1000"])
def test_how_the_work_is_cut_up_changes_no_result(run, tmp_path, cut):
    _, document, _ = run
    other = attack(tmp_path / "a.json", "--limit", "3", "--skip", "6", "--quiet", *cut.split())
    assert len(other["examples"]) == 3
    for here, there in zip(other["examples"], document["examples"], strict=False):
        assert (here["index"], here["outcome"]) == (there["index"], there["outcome"])
        assert here["radius"] == pytest.approx(there["radius"], rel=1e-3)
        assert here["certified_radius"] == pytest.approx(there["certified_radius"], rel=1e-3)


def test_another_seed_gives_another_result(run, tmp_path):
    _, document, _ = run
    other = attack(tmp_path / "a.json", "--limit", "2", "--skip", "6", "--seed", "1", "--quiet")
    assert [e["radius"] for e in other["examples"]] != [e["radius"] for e in document["examples"][:2]]


def test_a_flag_that_overrides_the_checkpoint_is_said_aloud():
    words = ["attack", "--checkpoint", "demo", "--chunk-size", "64", "--dry-run", "--sigma"]
    assert "warning: --sigma 0.4 overrides the 0.5" in caa(*words, "0.4", "--quiet").stderr
    assert "warning" not in caa(*words, "0.5").stderr
    unnormalised = caa(*words, "0.5", "--normalisation", "none", "--quiet").stderr
    assert "warning: mean 0 overrides the checkpoint's 0.1307\n" in unnormalised
    assert "warning: std 1 overrides the checkpoint's 0.3081\n" in unnormalised


def test_mnist_files_give_what_the_demo_gives(run, tmp_path):
    """The demo is the beginning of MNIST's test split."""
    _, document, _ = run
    write_mnist(tmp_path)
    words = ["--dataset", "mnist", "--data-dir", tmp_path, "--limit", "2", "--skip", "6", "--quiet"]
    assert timeless(attack(tmp_path / "a.json", *words)) == timeless(document)[:2]


def test_attack_reads_what_train_writes(tmp_path):
    checkpoint = tmp_path / "model.safetensors"
    words = "--dataset demo --epochs 2 --sigma 0.3 --evaluate-samples 20 --evaluate-limit 20 --device cpu --json"
    trained = caa("train", *words.split(), "--output", checkpoint)
    assert trained.exit_code == 0, trained.output
    assert re.search(f"^{TIME} epoch 2/2", trained.stderr, re.MULTILINE)
    report = parse_strict(trained.stdout)
    assert report["training"]["smoothed_accuracy_images"] == 20
    assert [line["epoch"] for line in report["history"]] == [1, 2]
    assert sorted(tmp_path.iterdir()) == [checkpoint, tmp_path / "model.safetensors.log.jsonl"]

    data = ["--dataset", "demo", "--limit", "2"]
    document = attack(tmp_path / "attack.json", "--checkpoint", checkpoint, *data)
    assert document["checkpoint"]["arch"] == "small-cnn"
    assert document["config"]["sigma"] == document["checkpoint"]["sigma"] == 0.3
