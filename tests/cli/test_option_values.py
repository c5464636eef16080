"""Every option has a type and a range, the same in flags, variables and TOML."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import assert_clean_error, assert_clean_text, caa, parse_strict

# Arabic and full-width digits, which Python's int() and float() take.
FOREIGN = ("١٠٠", "１００")


def refused(said: str, *words: str) -> None:
    """One message from the command line's parser, whose frame is taken off before it is compared."""
    result = caa(*words)
    assert not isinstance(result.exception, Exception), repr(result.exception)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.replace("│", " ").split()), result.stderr


@pytest.mark.parametrize("text", [*FOREIGN, "1_000", "1.5", "0x10", "9" * 5000, " ", "true"])
def test_a_count_has_the_digits_of_the_standard(text: str):
    refused("is not a whole number", "attack", "--checkpoint", "demo", "--samples", text)


@pytest.mark.parametrize(
    ("words", "empty"),
    [
        (["attack", "--checkpoint", ""], "the word after --checkpoint"),
        (["train", "--data-dir=", "--epochs", "1"], "--data-dir"),
        (["compare", "", "a.json"], "the first word"),
        (["status", "a.json", ""], "the word after a.json"),
    ],
)
def test_a_variable_of_the_shell_that_is_not_set_names_no_folder(words: list[str], empty: str):
    """As in --checkpoint "$MODEL", which was read as the current folder."""
    assert_clean_error(caa(*words), 2, f"{empty} is empty", "is a variable of the shell not set?")


LONG, DEEP = "y" * 300, "z/" * 2500


@pytest.mark.parametrize(
    "words",
    [
        ["attack", "--checkpoint", "demo", "--output", f"{DEEP}x.json"],
        ["attack", "--checkpoint", "demo", "--attack", f"{DEEP}x.py:f"],
        ["compare", f"{LONG}=x.json"],
        ["merge", LONG, "--output", "x.json"],
        ["train", "--dataset", "demo", "--output", f"{DEEP}x"],
    ],
)
def test_a_name_that_no_file_system_takes_is_one_message(words: list[str]):
    result = caa(*words)
    assert result.exit_code in (1, 2), repr(result.exception)  # from Python 3.14 on pathlib finds no such file
    assert_clean_text(result.stderr, "", "")


@pytest.mark.parametrize("text", [*FOREIGN, "1_0.5", "0x1p3", "half", "1e", " "])
def test_a_number_has_the_digits_of_the_standard(text: str):
    refused("is not a number", "attack", "--checkpoint", "demo", "--step-max", text)
    assert_clean_error(caa("attack", "--checkpoint", "demo", "--mean", text), 2, "--mean")


@pytest.mark.parametrize("text", FOREIGN)
@pytest.mark.parametrize("option", ["--batch-size", "--chunk-size", "--max-memory", "--shard"])
def test_other_words_have_the_digits_of_the_standard_too(option: str, text: str):
    value = f"{text}GB" if option == "--max-memory" else f"0/{text}" if option == "--shard" else text
    assert_clean_error(caa("attack", "--checkpoint", "demo", option, value), 2, option)


_HUGE = "--step-max --cw-constant --cw-initial-constant --ddn-initial-norm --alma-mu-init --alma-rho-init --sigma"


@pytest.mark.parametrize("option", [*_HUGE.split(), "--attack-sigma", "--std"])
@pytest.mark.parametrize("value", ["1e308", "inf", "nan"])
def test_a_number_that_would_overflow_is_refused_with_the_largest(option: str, value: str):
    attack = option[2:].partition("-")[0]
    words = ["--attack", attack] if attack in ("cw", "ddn", "alma") else []
    assert_clean_error(caa("attack", "--checkpoint", "demo", *words, option, value), 2, f"{option} must be ")


@pytest.mark.parametrize("command", ["attack", "certify", "train", "inspect"])
@pytest.mark.parametrize("value", ["1e-308", "1e300", "0", "-1"])
def test_a_sigma_that_no_model_has_is_refused(command: str, value: str):
    words = {"train": ["train"], "inspect": ["inspect", "demo"]}.get(command, [command, "--checkpoint", "demo"])
    problem = "--sigma must be at least 1e-09 and at most 1000"
    assert_clean_error(caa(*words, "--sigma", value), 2, problem, "between 0.1 and 1")


@pytest.mark.parametrize(
    ("command", "words", "problem"),
    [
        ("train", "--weight-decay 1e308", "--weight-decay must be at least 0 and at most 1e+09, not 1e+308"),
        ("train", f"--epochs {10**23}", "--epochs must be at least 1 and at most 1,000,000"),
        ("train", "--workers 100000", "--workers must be at least 0 and at most 1,024"),
        ("attack", f"--samples {10**23}", "--samples must be at least 1 and at most 1,000,000,000"),
        ("attack", f"--iterations {10**23}", "--iterations must be at least 1 and at most 1,000,000"),
        ("attack", f"--limit {10**23}", "--limit must be"),
        ("attack", f"--batch-size {10**23}", "--batch-size must be"),
        ("attack", "--alpha 0.9999", "--alpha must be at least 1e-12 and at most 0.5, not 0.9999"),
        ("attack", "--alpha 0.50000001", "--alpha must be at least 1e-12 and at most 0.5, not 0.50000001"),
        ("certify", "--alpha 0.6", "--alpha must be at least 1e-12 and at most 0.5, not 0.6"),
        ("certify", "--radius 1e308", "--radius must be above 0"),
        ("attack", "--dataset nonsense", "--dataset 'nonsense' is not known"),
        ("attack", "--seed -1", "--seed must be at least 0"),
        ("attack", "--output .", "--output '.' names no file"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_what_no_run_can_take_is_refused_with_the_range(command: str, words: str, problem: str):
    needed = [] if command == "train" else ["--checkpoint", "demo"]
    assert_clean_error(caa(command, *needed, *words.split()), 2, problem)


def test_the_nearest_name_is_offered():
    refused = caa("attack", "--checkpoint", "demo", "--dataset", "mnst")
    assert_clean_error(refused, 2, "--dataset 'mnst' is not known", "did you mean mnist? use one of: demo, mnist,")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("samples = 2020-01-01", "c.toml: samples = 2020-01-01 is not a whole number"),
        ("[attack.samples]", "c.toml: samples = {} is not a whole number"),
        ("samples = true", "c.toml: samples = true is not a whole number"),
        ("samples = 100.5", "c.toml: samples = 100.5 is not a whole number"),
        ("samples = [1]", "c.toml: samples = [1] is not a whole number"),
        ("sigma = true", "c.toml: sigma = true is not a number"),
        ("step-max = 'x'", "c.toml: step-max = 'x' is not a number"),
        ("quiet = 5", "c.toml: quiet = 5 is neither true nor false"),
        ("output = 5", "c.toml: output = 5 is no text"),
        ("output = ['a', 'b']", "c.toml: output = ['a', 'b'] is no text"),
        ('save-adversarial = "\\u0000"', "c.toml: save-adversarial = a text with a null character"),
        ("bound = true", "c.toml: bound = true is no text"),
        ("mean = [0.5, true]", "c.toml: mean = [0.5, True] is no text"),
        ("samples = " + "[" * 5000, "c.toml is no TOML file that can be read"),
        ("samples = " + "9" * 5000, "c.toml is no TOML file that can be read"),
    ],
    ids=lambda value: value[:20],
)
def test_a_value_of_the_wrong_kind_is_refused_with_file_and_key(tmp_path: Path, monkeypatch, text: str, said: str):
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(text, encoding="utf-8")
    refused(said, "attack", "--checkpoint", "demo", "--config", "c.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


@pytest.mark.parametrize("text", ["output = ''", "[attack]\noutput = '.'"])
def test_an_output_that_is_no_file_is_refused_in_toml_too(tmp_path: Path, text: str):
    file = tmp_path / "c.toml"
    file.write_text(text, encoding="utf-8")
    assert_clean_error(caa("attack", "--checkpoint", "demo", "--config", file), 2, "--output '.' names no file")


def test_toml_may_write_numbers_lists_and_texts_as_one_would(tmp_path: Path):
    file = tmp_path / "c.toml"
    text = "sigma = 1\nchunk-size = 64\nmean = 0.5\nstd = [0.5]\nquiet = true\nmax-memory = '4GiB'\nstep-max = 1\n"
    file.write_text(text, encoding="utf-8")
    result = caa("attack", "--checkpoint", "demo", "--chunk-size", "64", "--dry-run", "--json", "--config", file)
    assert result.exit_code == 0, result.output
    config = parse_strict(result.stdout)["config"]
    assert (config["sigma"], config["chunk_size"], config["mean"], config["std"]) == (1.0, 64, [0.5], [0.5])


def test_variables_are_checked_as_flags_are():
    result = caa("attack", "--checkpoint", "demo", env={"CAA_ATTACK_SAMPLES": "1_000"})
    assert result.exit_code == 2
    assert "is not a whole number" in result.stderr
    problem = "--alpha must be at least 1e-12 and at most 0.5"
    assert_clean_error(caa("attack", "--checkpoint", "demo", env={"CAA_ATTACK_ALPHA": "0.9"}), 2, problem)


@pytest.mark.parametrize(("option", "what"), [("--certify-samples", "certify"), ("--verify-samples", "verify")])
def test_an_attack_that_can_prove_nothing_is_warned_of(option: str, what: str):
    result = caa("attack", "--checkpoint", "demo", "--chunk-size", "64", "--dry-run", option, "1")
    assert result.exit_code == 0, result.output
    assert f"{option} 1 can {what} nothing: not even a unanimous vote is enough at α = 0.005" in result.stderr
    assert "unanimous" not in caa("attack", "--checkpoint", "demo", "--chunk-size", "64", "--dry-run").stderr


@pytest.mark.parametrize(
    ("words", "problem", "hint"),
    [
        ("attack --html a.html", "caa attack has no --html: it is an option of caa compare", "caa compare --help"),
        ("attack --sampels 5", "caa attack has no --sampels", "did you mean --samples? caa attack --help"),
        ("compare --attack pgd", "caa compare has no --attack", "did you mean --attacks? caa compare --help"),
        ("attack --epsilon 1", "caa attack has no --epsilon", "did you mean --pgd-epsilon? caa attack --help"),
        ("attack --eps 1", "caa attack has no --eps", "did you mean --pgd-epsilon? caa attack --help"),
        (
            "train --checkpoint a.pt",
            "caa train has no --checkpoint: it is an option of caa attack, ",
            "caa attack --help",
        ),
        (
            "train --size 64",
            "caa train has no --size",
            "did you mean --image-size or --classifier-size or --batch-size?",
        ),
        ("attack --batch 8", "caa attack has no --batch", "did you mean --batch-size? caa attack --help"),
        ("attack --norm mnist", "has no --norm", "did you mean --normalisation or --ddn-initial-norm?"),
        ("attack --hlep", "caa attack has no --hlep", "did you mean --help? caa attack --help"),
        ("--versoin", "caa has no --versoin", "did you mean --version? caa --help"),
    ],
)
def test_an_unknown_option_is_answered_with_the_command_that_has_it_or_the_nearest(words, problem, hint):
    assert_clean_error(caa(*words.split()), 2, problem, hint)


@pytest.mark.parametrize("words", ["certify --eps 1", "train --lr 1", "compare --files a.json", "attack -o a.json"])
def test_an_option_like_no_other_is_answered_without_a_guess(words):
    command, option, *_ = words.split()
    result = caa(*words.split())
    assert_clean_error(result, 2, f"caa {command} has no {option}", f"caa {command} --help")
    assert "did you mean" not in result.stderr


@pytest.mark.parametrize(
    ("words", "meant"), [("attack --attack PGD", "pgd"), ("train --recipe MACER-MNIST", "macer-mnist")]
)
def test_capitals_do_not_hide_the_name_that_is_meant(words, meant):
    checkpoint = ["--checkpoint", "demo"] if words.startswith("attack") else []
    assert_clean_error(caa(*words.split(), *checkpoint), 2, "is not known", f"did you mean {meant}? use one of")
