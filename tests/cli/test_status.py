"""`caa status`: what it says of runs that are at work, done, cut short or missing, and that it disturbs none."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from comparing import document, record, write
from forking import fork, signals_itself
from requiring import CERTIFICATES, certification
from support import CHEAP, assert_clean_error, attack, caa, in_journal, journal_of, parse_strict, wait_for_stop

from caa_cli.results.records import FAILED
from caa_cli.results.shards.progress import images_of
from caa_cli.results.shards.result_file import parse_result_file
from caa_cli.results.store.journal import Journal
from caa_cli.results.store.locks import locked


def status(*names: str | Path, code: int = 0) -> dict:
    result = caa("status", "--json", *names)
    assert result.exit_code == code, result.output
    return parse_strict(result.stdout)


@pytest.mark.parametrize("option", ["indices_list", "indices_file"])
def test_the_images_of_a_long_list_are_counted_in_no_time(tmp_path, option):
    """As many as ImageNet has; each record is not looked for in the whole list."""
    images = 50_000
    given = "0-49999" if option == "indices_list" else str(tmp_path / "i.txt")
    (tmp_path / "i.txt").write_text("\n".join(map(str, range(images))))
    header = document([], indices_list=None, indices_file=None, limit=None)
    header["images"]["count"] = images
    header["config"][option] = given
    records = tuple(record(index, 1.5) for index in range(images - 1))
    part = replace(parse_result_file(tmp_path / "a.json", header), records=records)
    began = time.process_time()
    assert part.missing == (1 if option == "indices_list" else 0)
    assert images_of(part) == images
    assert time.process_time() - began < 2.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with the two shards of one run."""
    folder = tmp_path_factory.mktemp("finished")
    for shard in range(2):
        words = ["--limit", "5", "--shard", f"{shard}/2"]
        attack(folder / f"attack.shard-{shard}-of-2.json", *words)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path, monkeypatch) -> Path:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cut(path: Path, examples: int) -> None:
    """As a kill leaves it: a journal with so many examples, and half a line."""
    lines = journal_of(json.loads(path.read_text()))
    path.with_name(path.name + ".jsonl").write_bytes(b"".join(lines[: 1 + examples]) + b'{"index": ')
    path.unlink()


@pytest.mark.parametrize(
    "names",
    [
        ["attack.json"],
        ["."],
        ["attack.shard-0-of-2.json", "attack.shard-1-of-2.json"],
        ["attack.shard-*.json"],
        [".", "attack.json", "attack.*"],
    ],
    ids=["the name under --shard auto", "folder", "files", "pattern", "each once"],
)
def test_finished_shards_are_complete_however_they_are_named(folder, names):
    found = status(*names)
    assert [Path(run["output"]).name for run in found["runs"]] == [
        "attack.shard-0-of-2.json",
        "attack.shard-1-of-2.json",
    ]
    assert [(run["state"], run["done"], run["images"]) for run in found["runs"]] == [
        ("complete", 3, 3),
        ("complete", 2, 2),
    ]
    total = found["total"]
    assert (total["runs"], total["complete"], total["images"], total["done"]) == (2, 2, 5, 5)
    assert total["seconds_left"] == 0.0


def test_a_run_that_was_killed_is_unfinished_and_its_rest_takes_as_long_as_what_is_done(folder):
    cut(Path("attack.shard-0-of-2.json"), 2)
    examples = [json.loads(line) for line in Path("attack.shard-0-of-2.json.jsonl").read_bytes().split(b"\n")[1:3]]
    run = status("attack.json", code=3)["runs"][0]
    assert (run["state"], run["done"], run["images"], run["failed"]) == ("unfinished", 2, 3, 0)
    seconds = sum(example["seconds"] for example in examples)
    assert run["images_per_second"] == pytest.approx(2 / seconds)
    assert run["seconds_left"] == pytest.approx(seconds / 2)
    shown = caa("status", "attack.json")
    assert f"attack.shard-0-of-2.json: finish it with: {run['resume']}\n" in shown.stderr
    assert "1 of 2 complete" in shown.stdout


def test_a_high_rate_is_shown_in_digits(folder):
    path = Path("attack.shard-0-of-2.json")
    whole = json.loads(path.read_text())
    for example in whole["examples"]:
        example["seconds"] = 0.05
    path.write_text(json.dumps(whole))
    assert re.search(r"complete +3/3 +0 +1,200 ", caa("status", path).stdout)


def test_a_missing_shard_is_named(folder):
    Path("attack.shard-1-of-2.json").rename("elsewhere")
    found = status("attack.json", code=3)
    missing = found["runs"][1]
    assert (missing["output"], missing["state"]) == ("attack.shard-1-of-2.json", "not begun")
    assert (missing["shard"], missing["images"]) == ({"index": 1, "count": 2}, 2)
    assert (found["total"]["images"], found["total"]["seconds_left"]) == (5, None)
    assert "shards not begun: 1." in caa("status", "attack.json").stdout


def test_shards_with_names_of_the_users_are_one_run_too(folder):
    """With --shard k/n the name says nothing."""
    Path("attack.shard-0-of-2.json").rename("first.json")
    Path("attack.shard-1-of-2.json").unlink()
    found = status("first.json", code=3)
    runs = [(run["output"], run["state"], run["shard"]["index"]) for run in found["runs"]]
    assert runs == [("first.json", "complete", 0), (None, "not begun", 1)]


def test_failed_images_are_counted(folder):
    path = Path("attack.shard-0-of-2.json")
    document = json.loads(path.read_text())
    document["examples"][0] = {"index": 0, "label": 7, "outcome": FAILED, "error": "unreadable"}
    path.write_text(json.dumps({**document, "status": "partial"}))
    found = status(path, "attack.shard-1-of-2.json", code=3)
    assert (found["runs"][0]["state"], found["runs"][0]["done"], found["runs"][0]["failed"]) == ("partial", 2, 1)
    assert found["runs"][0]["seconds_left"] == 0.0  # it has ended
    assert found["total"]["failed"] == 1


def test_images_of_an_earlier_part_of_the_run_count_too(folder):
    """It went on with fewer images asked for, and keeps those beyond."""
    path = Path("attack.shard-0-of-2.json")
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "config": {**found["config"], "limit": 3}}))
    assert [(run["done"], run["images"]) for run in status(path, code=3)["runs"] if run["state"] == "complete"] == [
        (3, 3)
    ]


def test_a_record_that_is_newer_than_the_result_leads(folder):
    """The run was interrupted, went on and was killed; of an older one, which a kill left, the result has all."""
    path, journal = Path("attack.shard-0-of-2.json"), Path("attack.shard-0-of-2.json.jsonl")
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "status": "interrupted", "examples": found["examples"][:1]}))
    journal.write_bytes(b"".join(journal_of(found)[:3]))
    for age, expected in ((-10.0, ("interrupted", 1)), (10.0, ("unfinished", 2))):
        written = path.stat().st_mtime + age
        os.utime(journal, (written, written))
        run = status(path, "attack.shard-1-of-2.json", code=3)["runs"][0]
        assert (run["state"], run["done"]) == expected


def test_a_damaged_file_is_named_and_the_others_are_shown(folder):
    path = Path("attack.shard-0-of-2.json")
    path.write_text(path.read_text()[:-200])
    result = caa("status", path, "attack.shard-1-of-2.json", "--json")
    assert result.exit_code == 1
    assert [run["state"] for run in parse_strict(result.stdout)["runs"]] == ["unreadable", "complete"]
    assert f"{path} is damaged" in result.stderr


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["nowhere.json"], "nowhere.json is no result"),
        (["x*.json"], "x*.json is no result"),
        (["empty"], "empty holds no result"),
        ([], "needs the outputs"),
    ],
)
def test_a_name_that_stands_for_nothing_is_wrong_usage(folder, names, problem):
    (folder / "empty").mkdir()
    assert_clean_error(caa("status", *names), 2, problem, "caa status" if not names else "shards")


def test_a_name_that_can_not_be_looked_up_is_an_error(folder):
    assert_clean_error(caa("status", "x" * 300), 1, "can't be read", "name the --output")


@pytest.fixture
def trained(folder: Path) -> Path:
    """A finished training of two epochs beside the shards."""
    words = "train --dataset demo --epochs 2 --evaluate-samples 0 --device cpu --output m.safetensors".split()  # noqa: SIM905
    assert caa(*words).exit_code == 0
    return Path("m.safetensors")


@pytest.mark.parametrize("name", ["m.safetensors", "m.safetensors.log.jsonl", "m.safetensors.training", "."])
def test_a_training_has_a_row_with_its_epochs(trained, name):
    state = trained.with_name("m.safetensors.training")
    if name == state.name:
        state.touch()  # a kill may leave it behind the result
    result = caa("status", name, "attack.json", "--json")
    found = parse_strict(result.stdout)
    runs = {run["output"]: run for run in found["runs"]}
    assert (runs["m.safetensors"]["run"], runs["m.safetensors"]["epochs"]) == ("train", 2)
    assert runs["m.safetensors"]["state"] == ("unfinished" if state.exists() else "complete")
    assert result.exit_code == (3 if state.exists() else 0)
    assert (found["total"]["runs"], found["total"]["images"], found["total"]["done"]) == (3, 5, 5)
    shown = caa("status", name)
    assert re.search(r"m\.safetensors +(complete|unfinished) +2 epochs ", shown.stdout)
    for said in ("m.safetensors.log.jsonl has a line for each epoch", "--resume"):
        assert (said in shown.stderr) == state.exists()


def test_a_training_at_work_is_running(trained):
    with locked({"--output": trained}):
        assert status(trained, code=3)["runs"][0]["state"] == "running"


def test_a_merged_result_does_not_count_beside_its_shards(folder):
    shards = [f"attack.shard-{shard}-of-2.json" for shard in range(2)]
    assert caa("merge", *shards, "--output", "all.json", "--quiet").exit_code == 0
    attack(Path("other.json"), "--limit", "1")
    total = status(".")["total"]
    assert (total["runs"], total["complete"], total["images"], total["done"]) == (3, 3, 6, 6)
    assert "all.json (merged) " in caa("status", ".").stdout
    assert status("all.json", "other.json")["total"]["done"] == 6


def test_of_a_sharded_comparison_the_attacks_are_shown_and_no_shard_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slurm = {f"SLURM_ARRAY_TASK_{name}": value for name, value in {"MIN": "0", "MAX": "2", "COUNT": "3"}.items()}
    words = ("--attacks", "caa,ddn", "--limit", "2", "--shard", "auto", "--output", "c.json", "--quiet")
    monkeypatch.setattr(sys, "argv", ["caa", "compare", *words])  # results say how they go on
    for shard in "02":  # the last has no image
        result = caa("compare", *CHEAP, *words, env={**slurm, "SLURM_ARRAY_TASK_ID": shard})
        assert result.exit_code == 0, result.output
    for name in ("c.json", "."):
        states = [(run["output"], run["state"]) for run in status(name, code=3)["runs"]]
        assert states == [
            (f"c.{attack}.shard-{shard}-of-3.json", "not begun" if shard == 1 else "complete")
            for attack in ("caa", "ddn")
            for shard in range(3)
        ]
    assert "shards not begun: 1. " in caa("status", "c.json").stdout
    # As a kill between the attacks leaves it: a lock, and no table.
    Path("c.shard-0-of-3.json").unlink()
    Path(".c.shard-0-of-3.json.lock").touch()
    for name in ("c.json", "."):
        states = {run["output"]: run["state"] for run in status(name, code=3)["runs"]}
        assert states["c.shard-0-of-3.json"] == "unfinished"


def test_files_of_a_comparison_are_found_from_another_folder(folder, monkeypatch):
    """Its document names them from the folder where it was made."""
    (folder / "table").mkdir()
    monkeypatch.chdir(folder / "table")
    shards = [f"../attack.shard-{shard}-of-2.json" for shard in range(2)]
    assert caa("compare", *shards, "--output", "c.json").exit_code == 0
    monkeypatch.chdir(folder)
    for names in (["table"], ["table/c.json"], [".", "table"]):
        assert [run["state"] for run in status(*names)["runs"]] == ["complete", "complete"]
    Path("attack.shard-0-of-2.json").unlink()
    assert [run["output"] for run in status("table", code=3)["runs"]] == [
        "attack.shard-0-of-2.json",
        "attack.shard-1-of-2.json",
    ]


def test_results_of_one_name_in_several_folders_are_all_found(tmp_path, monkeypatch):
    """The comparison is beside one of them, whose name the other has too."""
    monkeypatch.chdir(tmp_path)
    files = [f"{name}/attack.json" for name in ("one", "two")]
    for file, iterations in zip(files, (10, 20), strict=True):
        Path(file).parent.mkdir()
        write(Path(file), document([record(0, 1.5)], iterations=iterations, limit=1))
    assert caa("compare", *files, "--output", "one/c.json").exit_code == 0
    assert [run["output"] for run in status("one/c.json")["runs"]] == files
    assert_clean_error(caa("merge", "one/c.json", "--output", "x.json"), 2, "caa compare", " ".join(files))


def test_the_certificates_of_a_comparison_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("a.json"), certification(CERTIFICATES[:4]))
    assert caa("compare", "a.json", "--output", "c.json").exit_code == 0
    assert [run["output"] for run in status("c.json")["runs"]] == ["a.json"]


def test_other_files_of_a_folder_are_passed_over(folder):
    Path("notes.json").write_text("{}")
    Path("log.jsonl").write_text('{"epoch": 1}\n')
    Path("attack.png").write_text("no picture")
    assert len(status(".")["runs"]) == 2
    assert len(status("attack.json")["runs"]) == 2


def test_images_of_a_file_of_indices_are_known_while_it_is_there(folder):
    Path("i.txt").write_text("3\n4\n8\n")
    attack(Path("some.json"), "--indices", "i.txt")
    assert status("some.json")["runs"][0]["images"] == 3
    Path("i.txt").unlink()
    assert status("some.json")["runs"][0]["images"] is None
    assert "3/?" in caa("status", "some.json").stdout


def test_a_run_at_work_is_running_and_is_not_disturbed(tmp_path, monkeypatch):
    """Asked about after each image; a comparison has a row an attack, and both appear under its name."""
    monkeypatch.chdir(tmp_path)
    words = ["--quiet", "--attacks", "caa,ddn", "--limit", "2", "--output", "c.json"]

    def stop_after_each_record() -> None:
        append = Journal.append

        def stopping(journal, *records):
            append(journal, *records)
            if records:
                os.kill(os.getpid(), signal.SIGSTOP)

        Journal.append = stopping

    process = fork("compare", *CHEAP, *words, before=stop_after_each_record)
    for states in [["running"]] * 2 + [["complete", "running"]] * 2:
        wait_for_stop(process)
        runs = status("c.json", code=3)["runs"]
        assert [run["state"] for run in runs] == [*states, "running"]
        assert runs[-1]["run"] == "compare"
        process.send_signal(signal.SIGCONT)
    output = process.communicate()[1]
    assert process.returncode == 0, output
    found = status("c.json")
    assert [Path(run["output"]).name for run in found["runs"]] == ["c.caa.json", "c.ddn.json"]
    assert [run["state"] for run in found["runs"]] == ["complete", "complete"]
    assert [run["run"] for run in found["runs"]] == ["attack caa", "attack ddn"]
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".jsonl"]


@pytest.mark.parametrize(
    ("signum", "state"), [(signal.SIGINT, "interrupted"), (signal.SIGKILL, "unfinished")], ids=["Ctrl-C", "kill"]
)
def test_a_comparison_cut_short_between_two_attacks_is_not_complete(tmp_path, monkeypatch, signum, state):
    """All attacks that have begun are complete, so only the comparison can say that there are more to come."""
    monkeypatch.chdir(tmp_path)
    words = ["--quiet", "--attacks", "caa,ddn", "--limit", "1", "--output", "c.json"]

    def wait_between() -> None:
        from caa_cli.run import attack

        run = attack.run_attack

        def once(plan, *words, **settings):
            if plan.attack == "ddn":
                print("caa is done", flush=True)
                time.sleep(120)
            return run(plan, *words, **settings)

        attack.run_attack = once

    process = fork("compare", *CHEAP, *words, before=wait_between)
    assert process.stdout is not None
    assert process.stdout.readline() == "caa is done\n"
    for name in ("c.json", "."):
        runs = status(name, code=3)["runs"]
        assert [(run["output"], run["state"]) for run in runs] == [("c.caa.json", "complete"), ("c.json", "running")]
    process.send_signal(signum)
    process.communicate()
    for name in ("c.json", "."):
        runs = status(name, code=3)["runs"]
        assert [(run["output"], run["state"]) for run in runs] == [("c.caa.json", "complete"), ("c.json", state)]
    shown = caa("status", "c.json")
    assert shown.stderr.startswith("c.json: finish it with: caa compare ")
    assert shown.stderr.endswith("--output c.json --resume\n")
    if signum == signal.SIGKILL:  # what was given up and moved away leaves a lock alone, which is no sign of a run
        Path("c.caa.json").rename("done.json")
        assert [run["output"] for run in status(".")["runs"]] == ["done.json"]
        Path("done.json").rename("c.caa.json")
    assert caa("compare", *CHEAP, *words, "--resume").exit_code == 0
    assert [run["output"] for run in status("c.json")["runs"]] == ["c.caa.json", "c.ddn.json"]


def test_a_comparison_and_its_attack_are_finished_by_one_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--quiet", "--attacks", "caa,ddn", "--limit", "50", "--output", "c.json"]
    sends = signals_itself(lambda: in_journal(tmp_path / "c.caa.json") >= 1, signal.SIGINT)
    fork("compare", *CHEAP, *words, before=sends).communicate()
    notes = caa("status", ".").stderr
    assert notes.startswith("c.caa.json, c.json: finish it with: caa compare ")
    assert notes.count("--resume") == 1


def test_a_process_that_was_killed_no_longer_runs(tmp_path):
    stops = signals_itself(partial(in_journal, tmp_path / "a.json"), signal.SIGSTOP)
    process = fork("attack", *CHEAP, "--limit", "50", "--quiet", "--output", tmp_path / "a.json", before=stops)
    wait_for_stop(process)
    assert status(tmp_path / "a.json", code=3)["runs"][0]["state"] == "running"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    run = status(tmp_path / "a.json", code=3)["runs"][0]
    assert run["state"] == "unfinished"
    assert run["done"] >= 1
    assert run["images"] == 50


def test_rows_are_in_the_order_of_the_shards_and_say_which_they_are(folder):
    """Shard 10 comes after shard 2, and a name of the user's is followed by the shard's number."""
    document = json.loads(Path("attack.shard-0-of-2.json").read_text())
    for index in (10, 2, 0):
        shard = {"shard": {"index": index, "count": 12}, "examples": []}
        Path(f"many.shard-{index}-of-12.json").write_text(json.dumps({**document, **shard}))
    Path("attack.shard-0-of-2.json").rename("first.json")
    shown = caa("status", "many.json", "first.json").stdout.splitlines()
    rows = [line for line in shown if ".json" in line]
    assert [row.split()[0] for row in rows[:2]] == ["first.json", "many.shard-0-of-12.json"]
    assert "first.json (0 of 2) " in rows[0]
    places = [int(row.split(".shard-")[1].split("-")[0]) for row in rows[1:]]
    assert places == sorted(places)
