"""A run that is stopped loses nothing that was finished, and goes on to the same result.

Kills at any moment are tests/fuzz/test_kills.py's.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forking import fork, signals_itself
from safetensors.numpy import load_file
from safetensors.torch import save
from support import (
    CHEAP,
    COMMAND,
    ENVIRONMENT,
    assert_clean_error,
    attack,
    caa,
    in_journal,
    journal_of,
    read_strict,
    timeless,
    wait_until,
)

from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights

# Enough images that a signal sent after the first few falls into the middle of the run.
IMAGES = 18
MANY = ["--limit", str(IMAGES)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing interrupts, and its images."""
    folder = tmp_path_factory.mktemp("whole")
    document = attack(folder / "attack.json", *MANY, "--save-adversarial", folder / "a.safetensors")
    return document, load_file(folder / "a.safetensors")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_saves_what_is_finished_and_says_how_to_go_on(tmp_path, whole, signum):
    output, images = tmp_path / "attack.json", tmp_path / "a.safetensors"
    sends = signals_itself(lambda: in_journal(output) >= 2, signum)
    process = fork("attack", *CHEAP, *MANY, "--save-adversarial", images, "--output", output, before=sends)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr

    document = read_strict(output)
    done = {example["index"] for example in document["examples"]}
    assert document["status"] == "interrupted"
    assert 1 <= len(done) < IMAGES
    assert timeless(document) == [example for example in timeless(whole[0]) if example["index"] in done]
    assert document["summary"]["examples"] == len(done)
    assert f"{len(done)} of {IMAGES} images done" in stderr
    # The signal may fall between the line of an image in the journal and its place in the document.
    kept = in_journal(output)
    assert len(done) <= kept <= len(done) + 1

    # The command that it says is the one that works.
    (said,) = [line.split("go on with: ")[1] for line in stderr.splitlines() if "go on with: " in line]
    program, *words = shlex.split(said)
    assert program == "caa"
    result = caa(*words)
    assert result.exit_code == 0, result.output
    assert f"{kept} images done already" in result.stderr
    document = read_strict(output)
    assert document["status"] == "complete"
    assert timeless(document) == timeless(whole[0])
    same_images(load_file(images), whole[1])


@pytest.mark.parametrize("words", [["attack"], ["attack", "--json"], ["compare", "--attacks", "caa"]])
def test_an_interruption_is_said_although_it_ended_the_reader_of_stdout(tmp_path, words):
    """As in `caa attack | tee log`: Ctrl-C reaches both."""
    output = tmp_path / ("c.caa.json" if "compare" in words else "c.json")
    sends = signals_itself(lambda: in_journal(output) >= 2, signal.SIGINT)
    process = fork(*words, *CHEAP, *MANY, "--output", tmp_path / "c.json", before=sends)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait() == 130, stderr
    assert f"go on with: caa {words[0]}" in stderr


def test_the_command_that_goes_on_has_the_settings_that_came_from_variables(tmp_path):
    output = tmp_path / "an attack.json"
    settings = {"CAA_ATTACK_SAMPLES": "60", "CAA_ATTACK_OUTPUT": str(output), "CAA_ATTACK_LIMIT": "12"}
    words = [word for word in CHEAP if word not in ("--samples", "64")]
    sends = signals_itself(lambda: in_journal(output) >= 1, signal.SIGTERM)
    process = fork("attack", *words, env={**ENVIRONMENT, **settings}, before=sends)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    (said,) = [line.split("go on with: ")[1] for line in stderr.splitlines() if "go on with: " in line]
    program = f'caa() {{ {shlex.quote(sys.executable)} -c {shlex.quote(COMMAND)} "$@"; }}\n{said}'
    again = subprocess.run(["bash", "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    document = read_strict(output)
    assert (document["status"], len(document["examples"]), document["config"]["samples"]) == ("complete", 12, 60)


def test_a_run_gone_on_with_still_names_the_images_that_it_saved(tmp_path):
    output, images = tmp_path / "attack.json", tmp_path / "a.safetensors"
    attack(output, "--limit", "2", "--save-adversarial", images)
    assert attack(output, "--limit", "2", "--resume")["config"]["save_adversarial"] == str(images)
    assert attack(output, "--limit", "3", "--resume")["config"]["save_adversarial"] == str(images)
    images.unlink()
    assert attack(output, "--limit", "4", "--resume")["config"]["save_adversarial"] is None


def same_images(here, there):
    assert here.keys() == there.keys()
    assert len(here["images"]) > 0
    for name, expected in there.items():
        assert here[name].tobytes() == expected.tobytes(), name


def unfinished(folder: Path, whole, done: int = 3, cut: int = 0) -> Path:
    """The journal that a kill leaves behind after `done` images, with the beginning of another line."""
    source = journal_of(whole[0])
    output = folder / "attack.json"
    journal = b"".join(source[: done + 1]) + source[done + 1][:cut]
    output.with_name("attack.json.jsonl").write_bytes(journal)
    return output


def test_a_line_that_was_cut_off_is_done_again(tmp_path, whole):
    output = unfinished(tmp_path, whole, cut=40)
    assert timeless(attack(output, *MANY, "--resume")) == timeless(whole[0])


def test_without_resume_the_finished_images_are_not_thrown_away(tmp_path, whole):
    output = unfinished(tmp_path, whole)
    journal = output.with_name("attack.json.jsonl")
    before = journal.read_bytes()
    result = caa("attack", *CHEAP, "--limit", "1", "--output", output)
    assert_clean_error(result, 2, str(journal), "--resume")
    assert "--overwrite" in result.stderr
    assert journal.read_bytes() == before


def test_overwrite_begins_anew(tmp_path, whole):
    output = unfinished(tmp_path, whole)
    document = attack(output, "--limit", "1", "--seed", "5", "--overwrite")
    assert [example["index"] for example in document["examples"]] == [0]
    assert in_journal(output) == 0


def test_an_older_result_does_not_hide_a_run_that_was_killed(tmp_path, whole):
    """attack.json is complete, but the journal beside it is that of a later run."""
    output = unfinished(tmp_path, whole)
    journal = output.with_name("attack.json.jsonl").read_bytes()
    attack(output, "--limit", "1", "--seed", "5", "--overwrite")
    output.with_name("attack.json.jsonl").write_bytes(journal)
    result = caa("attack", *CHEAP, *MANY, "--output", output)
    assert_clean_error(result, 2, "attack.json.jsonl", "--resume")
    assert output.with_name("attack.json.jsonl").read_bytes() == journal


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--samples", "65"], "samples (64 there, 65 here)"),
        (["--sigma", "0.4"], "sigma (0.5 there, 0.4 here)"),
        (["--seed", "1"], "seed (0 there, 1 here)"),
        (["--iterations", "9"], "iterations (8 there, 9 here)"),
        (["--bound", "cp-bonferroni"], "bound (goodman there, cp-bonferroni here)"),
        (["--dtype", "float64"], "dtype (float32 there, float64 here)"),
        (["--verify-samples", "1001"], "verify_samples (1000 there, 1001 here)"),
        (["--split", "train"], "split (test there, train here)"),
    ],
)
def test_other_settings_do_not_go_on_with_a_run(tmp_path, whole, words, named):
    output = unfinished(tmp_path, whole)
    before = output.with_name("attack.json.jsonl").read_bytes()
    assert_clean_error(
        caa("attack", *CHEAP, *words, *MANY, "--output", output, "--resume", "--quiet"), 2, named, "--output"
    )
    assert output.with_name("attack.json.jsonl").read_bytes() == before


def test_another_checkpoint_of_the_same_name_does_not_go_on_with_a_run(tmp_path):
    checkpoint, output = tmp_path / "model.safetensors", tmp_path / "attack.json"
    checkpoint.write_bytes(DEMO_CHECKPOINT.read_bytes())
    words = ["--checkpoint", checkpoint, "--dataset", "demo", "--limit", "1"]
    attack(output, *words)
    demo = read_weights(DEMO_CHECKPOINT)
    demo.tensors["7.bias"] += 0.01
    checkpoint.write_bytes(save(demo.tensors, metadata=demo.card.to_metadata()))
    result = caa("attack", *CHEAP[2:], *words, "--output", output, "--resume")
    assert_clean_error(result, 2, "checkpoint content", "--output")


def test_what_changes_no_result_may_change(tmp_path, whole):
    output = unfinished(tmp_path, whole, done=10)
    document = attack(output, *MANY, "--resume", "--batch-size", "1")
    assert timeless(document)[:10] == timeless(whole[0])[:10]
    assert [example["index"] for example in document["examples"]] == list(range(IMAGES))


def test_a_finished_run_goes_on_with_a_larger_limit(tmp_path, whole):
    output, images = tmp_path / "attack.json", tmp_path / "a.safetensors"
    attack(output, "--limit", "4", "--save-adversarial", images)
    result = caa("attack", *CHEAP, *MANY, "--save-adversarial", images, "--output", output, "--resume")
    assert result.exit_code == 0, result.output
    assert "4 images done already" in result.stderr
    assert timeless(read_strict(output)) == timeless(whole[0])
    same_images(load_file(images), whole[1])


def test_images_asked_for_too_late_are_not_left_out_in_silence(tmp_path, whole):
    """The images of a run that kept none can't be had from its journal: do them again, or say so."""
    output, images = unfinished(tmp_path, whole), tmp_path / "a.safetensors"
    result = caa("attack", *CHEAP, *MANY, "--output", output, "--save-adversarial", images, "--resume")
    if result.exit_code == 0:
        same_images(load_file(images), whole[1])
    else:
        assert_clean_error(result, 2, "--save-adversarial", hint=" ")


def test_resuming_a_finished_run_does_no_work(tmp_path):
    output = tmp_path / "attack.json"
    first = attack(output, "--limit", "2")
    again = attack(output, "--limit", "2", "--resume")
    assert again == first  # the seconds too
    assert list(tmp_path.iterdir()) == [output]


def test_resume_with_nothing_to_resume_begins(tmp_path, whole):
    assert timeless(attack(tmp_path / "attack.json", "--limit", "2", "--resume")) == timeless(whole[0])[:2]


@pytest.mark.parametrize("more", [[], ["--resume"]], ids=["again", "resume"])
@pytest.mark.parametrize("content", [b"", b'{"schema_ver', None], ids=["empty", "half a header", "header"])
def test_a_journal_killed_at_its_very_beginning_is_no_obstacle(tmp_path, whole, content, more):
    output = tmp_path / "attack.json"
    output.with_name("attack.json.jsonl").write_bytes(journal_of(whole[0])[0] if content is None else content)
    assert timeless(attack(output, "--limit", "2", *more)) == timeless(whole[0])[:2]


TRAIN = "train --dataset demo --epochs 8 --evaluate-samples 0 --device cpu --quiet"


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The checkpoint of a training that nothing interrupts."""
    output = tmp_path_factory.mktemp("straight") / "m.safetensors"
    assert caa(*TRAIN.split(), "--output", output).exit_code == 0
    return output


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(tmp_path, straight):
    output, unfinished = tmp_path / "m.safetensors", tmp_path / "m.safetensors.training"
    process = fork(*TRAIN.split(), "--output", output, before=signals_itself(unfinished.exists, signal.SIGINT))
    _, stderr = process.communicate()
    assert "Traceback" not in stderr
    assert not output.exists()
    assert process.returncode == 130
    assert str(unfinished) in stderr
    assert "--resume" in stderr

    refused = caa(*TRAIN.split(), "--output", output)
    assert_clean_error(refused, 2, str(unfinished), "--resume")
    other = caa(*TRAIN.split(), "--output", output, "--resume", "--seed", "1")
    assert_clean_error(other, 2, "seed (0 there, 1 here)", "--output")

    resumed = caa(*TRAIN.split(), "--output", output, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert not unfinished.exists()
    here, there = read_weights(output), read_weights(straight)
    assert here.card == there.card
    assert here.tensors.keys() == there.tensors.keys()
    for name, expected in there.tensors.items():
        assert here.tensors[name].numpy().tobytes() == expected.numpy().tobytes(), name


def test_a_training_stopped_during_its_evaluation_is_not_lost(tmp_path):
    """The last epoch is saved by then; what is said must not be that nothing was finished."""
    output, unfinished = tmp_path / "m.safetensors", tmp_path / "m.safetensors.training"
    words = "train --dataset demo --epochs 1 --evaluate-samples 1000000 --device cpu"
    process = fork(*words.split(), "--output", output)
    wait_until(unfinished.exists, process)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert unfinished.exists()
    assert "--resume" in stderr
    assert str(unfinished) in stderr


def test_resuming_a_finished_training_does_nothing(tmp_path):
    output = tmp_path / "m.safetensors"
    words = ("train", "--dataset", "demo", "--epochs", "1", "--evaluate-samples", "0", "--output", output)
    assert caa(*words).exit_code == 0
    before = output.stat()
    again = caa(*words, "--resume")
    assert again.exit_code == 0
    assert "nothing to do" in again.stderr
    assert (output.stat().st_mtime_ns, output.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
