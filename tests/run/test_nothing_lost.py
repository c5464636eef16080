"""A finished result, and whatever else is in the way of an output, is replaced only where the user says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from forking import fork
from safetensors.numpy import load_file
from support import (
    CHEAP,
    assert_clean_error,
    attack,
    caa,
    journal_of,
    parse_strict,
    read_strict,
    timeless,
    wait_until,
)

from caa_cli.config.pictures import MOST_EXAMPLES
from caa_cli.models.checkpoint import DEMO_CHECKPOINT
from caa_cli.results.store.attack_output import AttackOutput
from caa_cli.run.session import Session

CERTIFY = "certify --checkpoint demo --samples 200 --limit 2 --chunk-size 200 --device cpu".split()  # noqa: SIM905
TRAIN = "train --dataset demo --epochs 1 --evaluate-samples 0 --device cpu".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, bytes]:
    """What an attack on two images leaves behind, by name."""
    folder = tmp_path_factory.mktemp("finished")
    attack(folder / "attack.json", "--limit", "2", "--save-adversarial", folder / "a.safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(finished, tmp_path, monkeypatch) -> Path:
    """The same in a folder of this test's own, which is the current one."""
    for name, content in finished.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def no_model(*_) -> None:
    raise AssertionError("a model was set up, although there is nothing to do")


def again(*words: str | Path):
    return caa("attack", *CHEAP, "--limit", "2", "--output", "attack.json", *words)


def test_what_a_kill_leaves_at_the_very_end_of_a_run_is_removed_by_the_next(tmp_path, monkeypatch, finished):
    """Its result and its images were written, its two journals not yet removed."""
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(AttackOutput, "close", lambda self, status: None)
        assert again("--save-adversarial", "a.safetensors").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} > finished.keys()
    assert again("--save-adversarial", "a.safetensors", "--resume").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == finished.keys()


def test_a_finished_run_leaves_its_result_alone(finished):
    assert set(finished) == {"attack.json", "a.safetensors"}


@pytest.mark.parametrize("more", [[], ["--resume"]], ids=["again", "resume"])
def test_the_same_command_again_does_nothing_and_shows_the_result(folder, finished, monkeypatch, more):
    monkeypatch.setattr(Session, "load_classifier", no_model)
    result = again(*more)
    assert result.exit_code == 0, result.output
    assert "attack.json is finished already: there is nothing to do" in result.stderr
    assert "attacked" in result.stdout
    assert contents(folder) == finished
    shown = again("--json", *more)
    assert parse_strict(shown.stdout) == json.loads(finished["attack.json"])
    fewer = caa("attack", *CHEAP, "--limit", "1", "--output", "attack.json", *more)
    assert fewer.exit_code == 0, fewer.output
    assert contents(folder) == finished


def test_another_configuration_is_refused_with_both_values(folder, finished):
    words = [word for word in CHEAP if not word.startswith(("--step", "0."))]
    result = caa("attack", *words, "--limit", "2", "--output", "attack.json", "--attack", "pgd", "--seed", "3")
    assert_clean_error(result, 2, "attack (caa there, pgd here), seed (0 there, 3 here)", "--overwrite")
    assert "overshoot" not in result.stderr  # which one of the two attacks does not have
    assert_clean_error(again("--seed", "3", "--resume"), 2, "seed (0 there, 3 here)", "--overwrite")
    assert_clean_error(caa(*CERTIFY, "--output", "attack.json"), 2, "command (attack there, certify here)")
    assert contents(folder) == finished
    assert again("--seed", "3", "--overwrite").exit_code == 0
    assert read_strict(folder / "attack.json")["config"]["seed"] == 3


def test_with_both_flags_a_run_is_gone_on_with_and_another_one_replaced(folder, finished, monkeypatch):
    """For the script of a job that may be started again."""
    both = ("--seed", "3", "--resume", "--overwrite")
    assert again(*both).exit_code == 0
    assert read_strict(folder / "attack.json")["config"]["seed"] == 3
    monkeypatch.setattr(Session, "load_classifier", no_model)
    assert "there is nothing to do" in again(*both).stderr


def test_other_weights_are_refused_with_both_digests(folder, finished):
    trained = caa(*TRAIN, "--output", "m.safetensors")
    assert trained.exit_code == 0, trained.output
    words = [word if word != "demo" else "m.safetensors" for word in CHEAP]
    result = caa("attack", *words, "--dataset", "demo", "--limit", "2", "--output", "attack.json")
    there = read_strict(folder / "attack.json")["checkpoint"]["sha256"]
    assert_clean_error(result, 2, f"checkpoint content (sha256 {there[:12]} there, sha256 ")


def test_more_images_go_on_from_the_document(folder, finished):
    def more(*words):
        return caa("attack", *CHEAP, "--limit", "3", "--output", "attack.json", *words)

    assert_clean_error(more(), 2, "but it lacks 1 of the images asked for", "--resume")
    assert contents(folder) == finished
    result = more("--resume")
    assert result.exit_code == 0, result.output
    assert "going on with attack.json: 2 images done already" in result.stderr
    document, before = read_strict(folder / "attack.json"), json.loads(finished["attack.json"])
    assert document["examples"][:2] == before["examples"]  # the seconds too
    assert timeless(document) == timeless(attack(folder / "straight.json", "--limit", "3"))
    assert not (folder / "attack.json.jsonl").exists()


def test_images_that_were_not_kept_are_not_found_missing_in_silence(folder, finished):
    (folder / "a.safetensors").unlink()
    assert_clean_error(again("--save-adversarial", "a.safetensors"), 2, "images were not kept", "--resume")
    assert again("--save-adversarial", "a.safetensors", "--resume").exit_code == 0
    assert (folder / "a.safetensors").read_bytes() == finished["a.safetensors"]
    assert timeless(read_strict(folder / "attack.json")) == timeless(json.loads(finished["attack.json"]))


def test_a_figure_attacks_no_more_images_again_than_it_shows(tmp_path):
    output, words = tmp_path / "a.json", ("--limit", "15", "--resume", "--figure", tmp_path / "f.png")
    first = attack(output, "--limit", "14")
    attacked = [example["index"] for example in first["examples"] if example["outcome"] == "attacked"]
    assert len(attacked) > MOST_EXAMPLES
    result = caa("attack", *CHEAP, "--output", output, *words)
    assert result.exit_code == 0, result.output
    assert f"attacking {MOST_EXAMPLES} images again" in result.stderr
    assert f"{14 - MOST_EXAMPLES} images done already" in result.stderr
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert timeless(read_strict(output))[:14] == timeless(first)


def test_a_figure_attacks_no_more_images_again_than_it_lacks(tmp_path):
    output, kept = tmp_path / "a.json", tmp_path / "a.safetensors"
    first = attack(output, "--limit", "3", "--save-adversarial", kept)
    attacked = sum(example["outcome"] == "attacked" for example in first["examples"])
    attack(output, "--limit", "14", "--resume")
    result = caa("attack", *CHEAP, "--limit", "14", "--output", output, "--resume", "--figure", tmp_path / "f.png")
    assert result.exit_code == 0, result.output
    assert f"attacking {MOST_EXAMPLES - attacked} images again" in result.stderr


def test_images_that_were_kept_are_drawn_or_moved_without_an_attack(folder, finished, monkeypatch):
    assert again("--save-adversarial", "b.safetensors", "--resume").exit_code == 0
    assert (folder / "b.safetensors").read_bytes() == finished["a.safetensors"]
    monkeypatch.setattr(Session, "load_classifier", no_model)
    for _ in range(2):  # the second time it is there, and named by the result
        assert again("--figure", "f.png").exit_code == 0
        assert (folder / "f.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_result_takes_another_name_without_an_attack(folder, finished, monkeypatch):
    monkeypatch.setattr(Session, "load_classifier", no_model)
    result = again("--name", "other")
    assert result.exit_code == 0
    assert "called other from now on" in result.stderr
    before, document = json.loads(finished["attack.json"]), read_strict(folder / "attack.json")
    assert document == {**before, "config": {**before["config"], "name": "other"}}
    assert again().exit_code == 0  # asks for no name
    assert read_strict(folder / "attack.json") == document


@pytest.mark.parametrize("done", [0, 1, 2], ids=["header", "half", "all"])
def test_a_journal_beside_a_finished_result_is_no_obstacle(folder, finished, done):
    """As versions before left it, and as a kill does while a resumed run copies the result into its journal."""
    lines = journal_of(json.loads(finished["attack.json"]))
    for more, code in (([], 0), (["--resume"], 0), (["--limit", "3", "--resume"], 0)):
        (folder / "attack.json.jsonl").write_bytes(b"".join(lines[: done + 1]) + b'{"index": 5')
        result = again(*more)
        assert result.exit_code == code, result.output
        assert not (folder / "attack.json.jsonl").exists()
    document = read_strict(folder / "attack.json")
    assert document["examples"][:2] == json.loads(finished["attack.json"])["examples"]
    assert len(document["examples"]) == 3


FOREIGN = {
    "text": b"my notes\n",
    "json": b'{"results": [1, 2, 3]}',
    "toml": b"samples = 100\n",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "checkpoint": DEMO_CHECKPOINT.read_bytes(),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_caa_did_not_write_is_never_replaced(tmp_path, what):
    place = tmp_path / "file"
    place.write_bytes(FOREIGN[what])
    for more in ([], ["--resume"], ["--overwrite"]):
        for words in (
            ["attack", *CHEAP, "--limit", "1", "--output", place],
            ["attack", *CHEAP, "--limit", "1", "--output", tmp_path / "a.json", "--save-adversarial", place],
            [*CERTIFY, "--output", tmp_path / "c.json", "--tsv", place],
            ["compare", *CHEAP, "--attacks", "caa", "--output", place],
            ["compare", *CHEAP, "--attacks", "caa", "--output", tmp_path / "c.json", "--html", place],
            *([[*TRAIN, "--output", place]] if what != "checkpoint" else []),
        ):
            assert_clean_error(caa(*words, *more), 2, f"{place} is in the way of", "another file")
    assert contents(tmp_path) == {"file": FOREIGN[what]}


@pytest.mark.parametrize(
    ("command", "option", "name", "kind"),
    [
        (["attack"], "--save-adversarial", "a.json", "a file of adversarial images"),
        (["attack"], "--figure", "a.png", "a picture"),
        (["compare", "--attacks", "caa"], "--html", "a.json", "a page"),
    ],
)
def test_a_result_in_the_way_of_another_file_is_not_called_foreign(tmp_path, command, option, name, kind):
    """A result that is named by mistake is a file that caa wrote, too."""
    place = tmp_path / name
    place.write_text('{"schema_version": 1}')
    words = [*command, *CHEAP, "--output", tmp_path / "c.json", option, place, "--overwrite"]
    assert_clean_error(caa(*words), 2, f"{place} is in the way of {option}: it is not {kind} that caa wrote")
    assert contents(tmp_path) == {name: b'{"schema_version": 1}'}


@pytest.mark.parametrize("suffix", [".jsonl", ".images"])
def test_what_caa_did_not_write_beside_the_result_is_never_replaced(tmp_path, suffix):
    (tmp_path / f"a.json{suffix}").write_text("not ours\n")
    for more in ([], ["--resume"], ["--overwrite"]):
        words = ("--limit", "1", "--output", tmp_path / "a.json", "--save-adversarial", tmp_path / "a.safetensors")
        assert_clean_error(caa("attack", *CHEAP, *words, *more), 2, f"a.json{suffix} is in the way of --output")
    assert contents(tmp_path) == {f"a.json{suffix}": b"not ours\n"}


def test_side_files_of_another_run_are_not_replaced(folder, finished):
    words = ("--limit", "1", "--output", "other.json", "--save-adversarial", "a.safetensors")
    refused = caa("attack", *CHEAP, *words)
    assert_clean_error(refused, 2, "--save-adversarial a.safetensors is there already", "--overwrite")
    assert contents(folder) == finished
    assert caa("attack", *CHEAP, *words, "--overwrite").exit_code == 0
    assert len(load_file(folder / "a.safetensors")["indices"]) == 1


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_log_and_a_figure_of_certificates_follow_the_same_rule(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    figure = f"f{suffix}"
    assert caa(*CERTIFY, "--output", "a.json").exit_code == 0
    first = read_strict(tmp_path / "a.json")
    # From the document alone, and then there is nothing to do.
    monkeypatch.setattr(Session, "load_classifier", no_model)
    words = ("--tsv", "a.tsv", "--figure", figure)
    assert caa(*CERTIFY, "--output", "a.json", *words).exit_code == 0
    document = read_strict(tmp_path / "a.json")
    assert (document["config"]["tsv"], document["config"]["figure"]) == ("a.tsv", figure)
    assert {**document, "config": None} == {**first, "config": None}
    assert (tmp_path / "a.tsv").read_text().startswith("idx\tlabel")
    before = contents(tmp_path)
    assert caa(*CERTIFY, "--output", "a.json", *words).exit_code == 0
    assert contents(tmp_path) == before

    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    for option, name in (("--figure", figure), ("--tsv", "a.tsv")):
        assert_clean_error(caa(*CERTIFY, "--output", "b.json", option, name), 2, name, "another file")
    assert contents(tmp_path) == before
    assert caa(*CERTIFY, "--output", "b.json", "--figure", figure, "--overwrite").exit_code == 0
    # A log in Cohen's format does not say who wrote it.
    assert_clean_error(caa(*CERTIFY, "--output", "b.json", "--tsv", "a.tsv", "--overwrite"), 2, "a.tsv is in the way")


def test_comparisons_follow_the_same_rule(folder, finished, monkeypatch):
    words = ("compare", *CHEAP, "--limit", "2", "--output", "c.json")
    two = "caa,caa:overshoot=1.2"
    assert caa(*words, "--attacks", two, "--html", "c.html").exit_code == 0
    names = {path.name for path in folder.iterdir()}
    monkeypatch.setattr(Session, "load_classifier", no_model)
    results = {name: (folder / name).read_bytes() for name in names if name.startswith("c.caa")}
    assert caa(*words, "--attacks", two, "--html", "c.html").exit_code == 0
    assert {name: (folder / name).read_bytes() for name in results} == results
    refused = caa(*words, "--attacks", "caa")
    assert_clean_error(refused, 2, "attacks (caa, caa:overshoot=1.2 there, caa here)", "--overwrite")
    assert_clean_error(caa(*words, "--attacks", two, "--seed", "1"), 2, "seed (0 there, 1 here)", "--overwrite")
    assert_clean_error(caa("compare", "c.caa.json", "--output", "attack.json"), 2, "command (attack there")

    # Of files: what is shown may be written again, but not in place of another comparison.
    read = ("compare", "c.caa.json", "c.caa-overshoot=1.2.json")
    for place in ("--output", "read.json"), ("--html", "read.html"), ("--figure", "read.svg"):
        assert caa(*read, *place).exit_code == 0
        assert caa(*read, *place).exit_code == 0
        before = (folder / place[1]).read_bytes()
        refused = caa("compare", "c.caa.json", *place)
        assert_clean_error(refused, 2, place[1], "--overwrite")
        assert (folder / place[1]).read_bytes() == before
        assert caa("compare", "c.caa.json", *place, "--overwrite").exit_code == 0

    # With fewer images it is another one, and in another order the same.
    assert caa(*read, "--output", "all.json").exit_code == 0
    for name in read[1:]:
        found = read_strict(folder / name)
        (folder / f"fewer.{name}").write_text(
            json.dumps({**found, "examples": found["examples"][:1], "status": "partial"})
        )
    fewer = caa("compare", *(f"fewer.{name}" for name in read[1:]), "--output", "all.json")
    assert_clean_error(fewer, 2, "all.json is another comparison: 1 of the images under caa are missing")
    assert caa(*read, "--figure", "all.svg").exit_code == 0
    assert caa("compare", *read[:0:-1], "--figure", "all.svg").exit_code == 0


def test_merging_replaces_only_what_the_shards_hold(folder, finished):
    for shard in "01":
        attack(folder / f"{shard}.json", "--limit", "2", "--shard", f"{shard}/2", "--save-adversarial", f"{shard}.st")
    words = ("merge", "0.json", "1.json", "--output")
    assert_clean_error(caa(*words, "attack.json"), 2, "2 of its images are not so in these shards", "--overwrite")
    assert_clean_error(
        caa(*words, "m.json", "--save-adversarial", "a.safetensors"), 2, "a.safetensors", "--overwrite"
    )
    assert {name: (folder / name).read_bytes() for name in finished} == finished
    for _ in range(2):
        assert caa(*words, "m.json", "--save-adversarial", "m.safetensors").exit_code == 0
    assert caa(*words, "attack.json", "--overwrite").exit_code == 0
    assert "merged" in read_strict(folder / "attack.json")


def test_trainings_follow_the_same_rule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = (*TRAIN, "--output", "m.safetensors")
    assert caa(*words).exit_code == 0
    before = contents(tmp_path)
    again = caa(*words)
    assert again.exit_code == 0, again.output
    assert "m.safetensors is finished already: there is nothing to do" in again.stderr
    assert_clean_error(caa(*words, "--sigma", "0.3"), 2, "sigma (0.5 there, 0.3 here)", "--overwrite")
    assert contents(tmp_path) == before
    (tmp_path / "m.safetensors").rename("kept.safetensors")
    assert_clean_error(caa(*words), 2, "m.safetensors.log.jsonl is the log of another training", "--overwrite")
    assert caa(*words, "--overwrite").exit_code == 0
    assert (tmp_path / "m.safetensors").read_bytes() == before["m.safetensors"]
    assert "there is nothing to do" in caa(*words, "--resume", "--overwrite").stderr
    assert caa(*words, "--sigma", "0.3", "--resume", "--overwrite").exit_code == 0
    assert (tmp_path / "m.safetensors").read_bytes() != before["m.safetensors"]


def refused_meanwhile(begun: Path, first: list[str], *others: list[str]) -> None:
    """Runs `first` in a process of its own, and the others once it has begun to write; none of them may."""
    process = fork(*first)
    wait_until(lambda: begun.exists() and begun.stat().st_size, process)
    try:
        for words in others:
            assert_clean_error(caa(*words), 1, "another run is writing to", "wait for it to end")
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def as_typed(words: list[str]) -> list[list[str]]:
    """The same command, where the system tells before its lock is tried that another process holds it."""
    return [words] if sys.platform == "linux" else []


def test_two_runs_at_once_do_not_write_one_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = ["--save-adversarial", "a.safetensors"]
    first = ["attack", *CHEAP, "--limit", "100", "--output", "a.json", *images]
    other = ["attack", *CHEAP, "--limit", "1", "--output", "b.json", *images]
    refused_meanwhile(tmp_path / "a.json.jsonl", first, *as_typed(first), [*first, "--resume"], other)
    assert not (tmp_path / "b.json").exists()
    assert caa(*other).exit_code == 0  # a lock ends with its process


def test_two_trainings_at_once_do_not_write_one_checkpoint(tmp_path):
    words = [*TRAIN, "--epochs", "1000", "--output", str(tmp_path / "m.safetensors")]
    others = [*as_typed(words), [*words, "--resume"], [*words, "--overwrite"]]
    refused_meanwhile(tmp_path / "m.safetensors.training", words, *others)


def test_a_symbolic_link_is_followed(folder, finished):
    (folder / "runs").mkdir()
    (folder / "runs" / "attack.json").write_bytes(finished["attack.json"])
    (folder / "link.json").symlink_to("runs/attack.json")
    (folder / "images.safetensors").symlink_to("runs/a.safetensors")
    result = caa("attack", *CHEAP, "--limit", "3", "--output", "link.json", "--resume")
    assert result.exit_code == 0, result.output
    assert (folder / "link.json").is_symlink()
    assert len(read_strict(folder / "runs" / "attack.json")["examples"]) == 3
    words = ("--limit", "1", "--save-adversarial", "images.safetensors", "--output", "new.json")
    assert caa("attack", *CHEAP, *words).exit_code == 0
    assert (folder / "images.safetensors").is_symlink()
    assert len(load_file(folder / "runs" / "a.safetensors")["indices"]) == 1
    assert {path.name for path in (folder / "runs").iterdir()} == {"attack.json", "a.safetensors"}
    (folder / "loop.json").symlink_to("loop.json")
    assert_clean_error(caa("attack", *CHEAP, "--output", "loop.json"), 1, "loop.json is no regular file", "--output")
