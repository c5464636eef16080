"""`caa compare`: real runs and their interruption, and every file that it refuses."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from comparing import assert_as_by_hand, document, record, write
from forking import fork, signals_itself
from support import (
    CHEAP,
    assert_clean_error,
    attack,
    caa,
    in_journal,
    journal_of,
    parse_strict,
    read_strict,
    timeless,
)

from caa_cli.config.compare_plan import path_for_attack
from caa_cli.config.named_attacks import NamedAttack
from caa_cli.errors import UsageError

TWO = "caa,caa:surrogate=gumbel:temperature=1"
LABELS = TWO.split(",")


def compare(output: Path, *words: str | Path, attacks: str = TWO, limit: int = 3):
    result = caa("compare", *CHEAP, "--attacks", attacks, "--limit", limit, "--output", output, *words)
    return result, read_strict(output) if output.exists() else None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two attacks on three images, in one go."""
    folder = tmp_path_factory.mktemp("whole")
    result, found = compare(folder / "compare.json", "--bootstrap", "100")
    assert result.exit_code == 0, result.output
    return result, found, folder


def test_attacks_run_one_after_the_other_on_the_same_images(whole):
    result, found, folder = whole
    assert list(found["attacks"]) == LABELS
    assert found["status"] == "complete"
    assert found["command"] == "compare"
    assert_as_by_hand(found)
    assert "caa (1 of 2)" in result.stderr
    assert f"{LABELS[1]} (2 of 2)" in result.stderr
    for label in LABELS:
        assert label in result.stdout
        part = read_strict(path_for_attack(folder / "compare.json", label, ".json"))
        assert part["command"] == "attack"
        assert part["status"] == "complete"
        held = found["attacks"][label]
        assert held["files"] == [part["config"]["output"]]
        eligible = [e for e in part["examples"] if e["certified_radius"] is not None]
        assert held["examples"] == eligible
        assert held["intervals"]["success_rate"][0] <= held["success_rate"] <= held["intervals"]["success_rate"][1]
    # What is not about an attack is said once.
    assert result.stderr.count("small-cnn from demo") == 1


def test_all_attacks_agree_on_the_clean_images(whole):
    """The certificate's noise has nothing to do with the attack."""
    first, second = (whole[1]["attacks"][label]["examples"] for label in LABELS)
    assert first
    for name in ("index", "label", "prediction", "certified_radius", "expectation"):
        assert [e[name] for e in first] == [e[name] for e in second]
    assert all(0.5 < example["expectation"] <= 1 for example in first)


def test_an_attack_of_a_comparison_is_the_attack_alone(whole, tmp_path):
    alone = attack(tmp_path / "attack.json", "--limit", "3", "--surrogate", "gumbel", "--temperature", "1")
    there = read_strict(path_for_attack(whole[2] / "compare.json", LABELS[1], ".json"))
    assert timeless(alone) == timeless(there)
    assert alone["fingerprint"] == there["fingerprint"]


def test_reading_the_files_gives_the_same_table(whole, tmp_path):
    files = [path_for_attack(whole[2] / "compare.json", label, ".json") for label in LABELS]
    result = caa("compare", *files, "--bootstrap", "100", "--output", tmp_path / "again.json")
    assert result.exit_code == 0, result.output
    again, found = read_strict(tmp_path / "again.json"), whole[1]
    assert {**again, "created": None, "attacks": None} == {**found, "created": None, "attacks": None}
    assert list(again["attacks"].values()) == list(found["attacks"].values())


def test_reading_writes_no_document_unless_asked(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert caa("compare", path_for_attack(whole[2] / "compare.json", "caa", ".json")).exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_shards_of_two_attacks_are_read_as_two_attacks(whole, tmp_path):
    for shard in ("0/2", "1/2"):
        result, _ = compare(tmp_path / f"{shard[0]}.json", "--shard", shard)
        assert result.exit_code == 0, result.output
    files = sorted(tmp_path.glob("*.caa*.json"), reverse=True)
    assert len(files) == 4
    assert caa("compare", *files, "--output", tmp_path / "c.json").exit_code == 0
    joined = read_strict(tmp_path / "c.json")
    assert [a["files"] for a in joined["attacks"].values() if len(a["files"]) != 2] == []

    def without_time(attacks):
        return sorted(str(timeless(found)) for found in attacks.values())

    assert without_time(joined["attacks"]) == without_time(whole[1]["attacks"])


def test_json_takes_stdout_for_itself(tmp_path):
    result, found = compare(tmp_path / "c.json", "--json", limit=1)
    assert parse_strict(result.stdout) == found
    result, _ = compare(tmp_path / "c.json", "--json", "--format", "csv")
    assert_clean_error(result, 2, "--json and --format csv")


def test_quiet_says_nothing(tmp_path):
    result, _ = compare(tmp_path / "c.json", "--quiet", limit=1)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_a_dry_run_says_what_each_attack_would_take(tmp_path):
    result, found = compare(tmp_path / "c.json", "--dry-run", "--json")
    assert result.exit_code == 0
    assert found is None
    assert list(tmp_path.iterdir()) == []
    said = parse_strict(result.stdout)["attacks"]
    assert list(said) == LABELS
    assert said[LABELS[1]]["config"]["surrogate"] == "gumbel"
    assert said["caa"]["forward_evaluations_at_most"] > 0


def test_adversarial_images_are_kept_attack_by_attack(tmp_path):
    result, _ = compare(tmp_path / "c.json", "--save-adversarial", tmp_path / "a.safetensors", limit=1)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {
        path_for_attack(tmp_path / "a.safetensors", label, ".safetensors").name for label in LABELS
    }


def test_settings_come_from_a_file_too(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('seed = 7\n[compare]\nattacks = ["caa", "caa:iterations=5"]\niterations = 8\n')
    words = ("--checkpoint", "demo", "--config", config, "--chunk-size", "64", "--dry-run", "--json")
    result = caa("compare", *words)
    assert result.exit_code == 0, result.output
    said = parse_strict(result.stdout)["attacks"]
    assert [(a["config"]["iterations"], a["config"]["seed"]) for a in said.values()] == [(8, 7), (5, 7)]


def test_one_sweep_in_a_file_needs_no_list(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('sweep = "samples=50,100"\n')
    words = ("--checkpoint", "demo", "--config", config, "--chunk-size", "64", "--dry-run", "--json")
    result = caa("compare", "--attacks", "caa", *words)
    assert result.exit_code == 0, result.output
    assert [a["config"]["samples"] for a in parse_strict(result.stdout)["attacks"].values()] == [50, 100]


def signalled(output: Path, signum: int, label: str, limit: int, *more: str) -> tuple[int, str]:
    """A comparison that is signalled when it has finished an image with this attack."""
    words = ("compare", *CHEAP, "--attacks", TWO, "--limit", limit, "--output", output, *more)
    sends = signals_itself(lambda: in_journal(path_for_attack(output, label, ".json")) >= 1, signum)
    process = fork(*words, before=sends)
    _, stderr = process.communicate()
    return process.returncode, stderr


def test_a_signal_in_the_second_attack_loses_nothing(tmp_path):
    output = tmp_path / "c.json"
    code, stderr = signalled(output, signal.SIGTERM, LABELS[1], 5, "--reference", LABELS[1])
    assert code == 130, stderr
    assert "Traceback" not in stderr
    assert "--resume" in stderr
    cut = read_strict(output)
    assert cut["status"] == "interrupted"
    assert list(cut["attacks"]) == ["caa"]
    assert cut["reference"] == "caa", "the one that was asked for is not finished"
    assert f"not finished yet, so left out: {LABELS[1]}" in cut["notes"]
    assert cut["summary"]["examples"] == 5
    first = path_for_attack(output, "caa", ".json")
    journal = Path(f"{path_for_attack(output, LABELS[1], '.json')}.jsonl")
    done = {line["index"]: line for line in map(json.loads, journal.read_text().splitlines()[1:])}
    assert done

    refused, _ = compare(output, limit=5)
    assert_clean_error(refused, 2, LABELS[1].replace(":", "-"), "--resume")

    before = read_strict(first)["examples"]
    result, found = compare(output, "--resume", limit=5)
    assert result.exit_code == 0, result.output
    assert read_strict(first)["examples"] == before  # the seconds too: nothing was done again
    kept = {
        example["index"]: example for example in read_strict(path_for_attack(output, LABELS[1], ".json"))["examples"]
    }
    assert all(kept[index] == example for index, example in done.items())
    assert found["status"] == "complete"
    straight, expected = compare(tmp_path / "straight.json", limit=5)
    assert straight.exit_code == 0
    for label in LABELS:
        assert timeless(found["attacks"][label]) == timeless(expected["attacks"][label])


def test_a_kill_between_two_attacks_is_not_begun_anew_unasked(tmp_path):
    output = tmp_path / "c.json"
    compare(output, attacks="caa", limit=1)
    output.unlink()
    refused, _ = compare(output, limit=1)
    assert_clean_error(refused, 2, f"others have not begun: {LABELS[1]}", "--resume")
    result, found = compare(output, "--resume", limit=1)
    assert result.exit_code == 0
    assert list(found["attacks"]) == LABELS
    assert compare(output, "--overwrite", limit=1)[0].exit_code == 0


def test_a_kill_before_the_first_image_leaves_nothing_to_ask_about(tmp_path):
    output = tmp_path / "c.json"
    _, whole = compare(output, attacks="caa", limit=1)
    output.unlink()
    header = journal_of(read_strict(path_for_attack(output, "caa", ".json")))[0]
    path_for_attack(output, "caa", ".json").unlink()
    path_for_attack(output, "caa", ".json.jsonl").write_bytes(header)
    result, found = compare(output, limit=1)
    assert result.exit_code == 0, result.output
    assert timeless(found["attacks"]["caa"]) == timeless(whole["attacks"]["caa"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cca", "'cca' is not known"),
        ("caa:overshoot", "'overshoot' is not of the form KEY=VALUE"),
        ("caa:overshoot=", "is not of the form KEY=VALUE"),
        ("caa:speed=3", "caa has no setting 'speed'"),
        ("caa:overshot=1.1", "caa has no setting 'overshot'"),
        ("caa:verify-samples=3", "verify-samples has to be the same for all attacks"),
        ("caa:sigma=3", "sigma has to be the same for all attacks"),
        ("caa:seed=3", "seed has to be the same for all attacks"),
        ("caa:output=x", "caa has no setting 'output'"),
        ("caa:iterations=3:iterations=4", "says iterations twice"),
    ],
)
def test_what_attacks_can_not_say(text, problem):
    with pytest.raises(UsageError) as refused:
        NamedAttack.parse(text)
    assert problem in refused.value.problem
    assert refused.value.hint


@pytest.mark.parametrize(
    ("attacks", "problem"),
    [
        (",", "--attacks names no attack"),
        ("caa,caa", "names caa twice"),
        ("caa,caa:overshoot=1.05", "one attack with the same settings"),
        ("caa,caa:overshoot=x", "--attacks caa:overshoot=x: 'x' is not a number"),
        ("caa,caa:overshoot=0.5", "--overshoot must be at least 1"),
    ],
)
def test_attacks_that_make_no_comparison(tmp_path, attacks, problem):
    result, _ = compare(tmp_path / "c.json", attacks=attacks)
    assert_clean_error(result, 2, problem)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ("ddn:gradient=surrogate-model=nowhere.pt", "--gradient surrogate-model=nowhere.pt: the checkpoint"),
        ("ddn:search-dtype=tf32", "--search-dtype tf32 needs"),
    ],
)
def test_an_attack_that_can_not_begin_is_refused_before_the_first_one_runs(tmp_path, second, problem):
    result, _ = compare(tmp_path / "c.json", attacks=f"caa,{second}")
    assert_clean_error(result, 2, problem)
    assert list(tmp_path.iterdir()) == []


def test_advice_keeps_the_exit_code():
    assert UsageError("problem", "hint").with_advice("more").exit_code == 2


def test_settings_are_named_as_options_are():
    found = NamedAttack.parse(" caa : step-min = 0.2 : step_max=0.3 ")
    assert found.settings == {"step_min": "0.2", "step_max": "0.3"}
    assert found.label == "caa:step-min=0.2:step-max=0.3"


@pytest.mark.parametrize("words", ["caa, pgd, ddn", "caa ,pgd, ddn", "caa , pgd , ddn"])
def test_spaces_in_a_list_of_attacks_are_told_from_files(words):
    refused = caa("compare", "--checkpoint", "demo", "--attacks", *words.split())
    assert_clean_error(refused, 2, "files to read are named", "without spaces between them: --attacks caa,pgd,ddn")


def test_running_and_reading_are_not_mixed(tmp_path):
    assert_clean_error(caa("compare"), 2, "neither --checkpoint nor result files", "caa compare")
    hint = "caa compare --checkpoint demo --limit 2 --attacks caa,pgd"
    assert_clean_error(caa("compare", "--checkpoint", "demo", "--limit", "2"), 2, "--attacks names no attack", hint)
    assert_clean_error(caa("compare", "--checkpoint", "demo", "--format", "xml"), 2, "--format 'xml' is not known")
    one = write(tmp_path / "a.json", document([record(0, 1.0)]))
    assert_clean_error(caa("compare", one, "--checkpoint", "demo"), 2, "--checkpoint says how to run")
    assert_clean_error(caa("compare", one, "--step-min", "0.2"), 2, "--step-min says how to run")
    assert caa("compare", one, env={"CAA_COMPARE_SAMPLES": "3"}).exit_code == 0


def test_wrong_usage_is_said_before_anything_runs(tmp_path, monkeypatch):
    one = write(tmp_path / "a.json", document([record(0, 1.0)]))
    for words, problem in [
        (["--format", "xml"], "--format 'xml' is not known"),
        (["--bootstrap", "-1"], "--bootstrap must be 0, or at least 40"),
        (["--bootstrap", "39"], "--bootstrap must be 0, or at least 40"),
        (["--output", one], "is the same file as a result to read"),
        (["--output", "c.json", "--html", "c.json"], "is the same file as --output"),
        (["--figure", "c.xyz"], "no picture format is called '.xyz'"),
        (["--figure", "c"], "--figure c: its name has no picture format"),
    ]:
        assert_clean_error(caa("compare", one, *words), 2, problem)
    monkeypatch.chdir(tmp_path)
    assert_clean_error(caa("compare", one, "--output", "a.json"), 2, "is the same file as a result to read")
    place = tmp_path / "nowhere" / "c.json"
    assert_clean_error(caa("compare", one, "--output", place), 1, "does not exist", "mkdir")
    words = ("--checkpoint", "demo", "--attacks", "caa", "--output", tmp_path / "c.json")
    assert_clean_error(
        caa("compare", *words, "--html", tmp_path / "c.caa.json"), 2, "is the same file as --output of caa"
    )


def test_without_matplotlib_pictures_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.backends.backend_agg", None)
    for option in ("--figure", "--figure-excess", "--figure-evaluations", "--html"):
        result, _ = compare(tmp_path / "c.json", option, tmp_path / ("x.html" if option == "--html" else "x.svg"))
        assert_clean_error(result, 1, f"{option} needs matplotlib", "pip install matplotlib")
    assert list(tmp_path.iterdir()) == []
