"""Records, their summary, the journal, and files that are whole or not there."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from caa_cli.errors import CaaError, UsageError
from caa_cli.results.agreement import disagreements
from caa_cli.results.records import AttackRecord, summarise
from caa_cli.results.store.files import check_writable, write_atomically
from caa_cli.results.store.images import ImageJournal, save_images, saved_images
from caa_cli.results.store.journal import Journal, read_journal, unfinished
from caa_cli.results.store.locks import lock, lock_of, locked
from caa_cli.results.store.output import RunOutput

SETTINGS = {"attack": "caa", "sigma": 0.5, "samples": 100, "seed": 0}
HEADER = {"command": "attack", "config": SETTINGS, "checkpoint": {"sha256": "abc"}}
SHAPE = (1, 2, 3)

OUTCOMES = ["attacked", "not_found", "not_verified", "misclassified", "abstained", "failed"]


def record(index, outcome="attacked", certified=1.0, radius=1.5, **fields):
    fields = {"adversarial_class": 5, **fields}
    return AttackRecord(index, 3, outcome, certified_radius=certified, radius=radius, **fields)


def attacked(index, certified, radius, seconds):
    return record(index, certified=certified, radius=radius, seconds=seconds, forward_evaluations=10)


def test_summary_of_known_records():
    records = [
        attacked(0, 1.0, 1.5, 1.0),
        attacked(1, 2.0, 2.2, 2.0),
        attacked(2, 1.0, 3.0, 3.0),
        record(3, "not_found", certified=4.0, seconds=10.0),
        record(4, "not_verified", certified=5.0, seconds=20.0),
        record(5, "misclassified", certified=None, seconds=99.0),
        record(6, "abstained", certified=None, seconds=99.0),
        record(7, "failed", certified=None),
    ]
    summary = summarise(records, seconds=60.0)
    assert (summary.examples, summary.eligible, summary.attacked) == (8, 5, 3)
    assert summary.success_rate == pytest.approx(3 / 5)
    assert summary.median_radius == 2.2
    assert summary.median_percent_over_certified == pytest.approx(50.0)  # of 50, 10 and 200
    assert summary.median_certified_radius == 2.0  # of 1, 2, 1, 4, 5: all eligible ones
    assert summary.median_seconds == 3.0
    assert summary.forward_evaluations == 30
    assert summary.below_certified == 0
    assert summary.outcomes == {name: 3 if name == "attacked" else 1 for name in OUTCOMES}
    assert summary.seconds == 60.0


def test_median_of_an_even_number_lies_between_the_middle_two():
    summary = summarise([attacked(i, 1.0, radius, 1.0) for i, radius in enumerate([1.0, 2.0, 4.0, 9.0])], 1.0)
    assert summary.median_radius == 3.0


def test_nothing_eligible_has_no_rate():
    for records in ([], [record(0, "misclassified", certified=None)]):
        summary = summarise(records, 1.0)
        assert summary.success_rate is summary.median_radius is summary.median_seconds is None


def test_a_certified_radius_of_zero_has_no_percentage():
    summary = summarise([attacked(0, 0.0, 1.0, 1.0), attacked(1, 1.0, 1.25, 1.0)], 1.0)
    assert summary.median_percent_over_certified == pytest.approx(25.0)


def test_radii_below_the_certified_one_are_counted():
    summary = summarise([attacked(0, 1.0, 0.9, 1.0), attacked(1, 1.0, 1.0, 1.0)], 1.0)
    assert summary.below_certified == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_written_as_null(value):
    """JSON has neither NaN nor infinity."""
    written = record(0, certified=value, radius=value, seconds=value).to_json()
    assert written["certified_radius"] is written["radius"] is written["seconds"] is None
    json.dumps(written, allow_nan=False)
    json.dumps(summarise([attacked(0, 1.0, value, 1.0)], value).to_json(), allow_nan=False)


lengths = st.floats(0, 1e100)
records = st.builds(
    AttackRecord,
    index=st.integers(0, 10**6),
    label=st.integers(0, 999),
    outcome=st.sampled_from([name for name in OUTCOMES if name != "failed"]),
    prediction=st.none() | st.integers(0, 999),
    certified_radius=lengths,
    radius=lengths,
    radius_search=st.none() | lengths,
    adversarial_class=st.integers(0, 999),
    seconds=st.floats(0, 1e12),
    error=st.none() | st.text(),
)


def journal_of(folder: Path, entries) -> Journal:
    journal = Journal(folder / "attack.json.jsonl")
    journal.start(HEADER)
    for entry in entries:
        journal.append(entry)
    journal.close()
    return journal


@given(entries=st.lists(records, unique_by=lambda entry: entry.index, max_size=8))
def test_journal_gives_back_what_it_was_given(entries, tmp_path_factory):
    journal = journal_of(tmp_path_factory.mktemp("journal"), entries)
    assert Journal(journal.path).resume(HEADER, ["samples", "seed"]) == entries


@given(entries=st.lists(records, unique_by=lambda entry: entry.index, min_size=1, max_size=4), data=st.data())
def test_a_journal_cut_anywhere_keeps_its_whole_lines_and_goes_on(entries, data, tmp_path_factory):
    journal = journal_of(tmp_path_factory.mktemp("journal"), entries)
    content = journal.path.read_bytes()
    header = content.index(b"\n") + 1
    length = data.draw(st.integers(header, len(content)))
    journal.path.write_bytes(content[:length])
    whole = content[:length].count(b"\n") - 1

    again = Journal(journal.path)
    assert again.resume(HEADER, []) == entries[:whole]
    for entry in entries[whole:]:
        again.append(entry)
    again.close()
    assert journal.path.read_bytes() == content


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["empty", "half a header"])
def test_a_journal_killed_before_its_header_was_whole_begins_anew(tmp_path, share):
    """It holds nothing that could be lost, so --resume has no reason to refuse."""
    journal = journal_of(tmp_path, [])
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[: int(share * len(content))])
    again = Journal(journal.path)
    assert again.resume(HEADER, []) == []
    again.append(record(0))
    again.close()
    assert Journal(journal.path).resume(HEADER, []) == [record(0)]


def test_every_line_is_on_the_disk_at_once(tmp_path):
    journal = Journal(tmp_path / "a.jsonl")
    journal.start(HEADER)
    for index in range(3):
        journal.append(record(index))
        assert journal.path.read_bytes().count(b"\n") == index + 2
    journal.close()


def test_one_run_at_a_time_writes_a_journal(tmp_path):
    first, second = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    first.start(HEADER)
    first.append(record(0))
    with pytest.raises(CaaError, match="another run"):
        second.start(HEADER)
    with pytest.raises(CaaError, match="another run"):
        second.resume(HEADER, [])
    first.close()
    assert [found.index for found in second.resume(HEADER, [])] == [0]


@pytest.fixture
def running(tmp_path):
    """The output of a run that has finished one example."""
    output = RunOutput[AttackRecord](tmp_path / "runs" / "attack.json", {})
    output.output.parent.mkdir()
    with output.reserved():
        output.load_finished(HEADER, [], [0, 1, 2])
        output.begin()
        output.add(record(0))
        yield output


def test_a_journal_that_was_removed_meanwhile_is_written_anew(running):
    running.journal.path.unlink()
    running.add(record(1))
    assert list(read_journal(running.journal.path)[1]) == [0, 1]
    running.add(record(2))
    assert list(read_journal(running.journal.path)[1]) == [0, 1, 2]


def test_a_copy_to_the_journal_that_was_killed_is_completed(tmp_path):
    """A result is gone on with: its journal leads, and in the end has all of it, so that it suffices alone."""
    header = {**HEADER, "shard": {"index": 0, "count": 1}, "environment": {}, "images": {"count": 3}}
    finished = RunOutput[AttackRecord](tmp_path / "attack.json", {}, resume=True)
    finished.header = header
    finished.finish("interrupted", summarise([], 1.0).to_json(), [record(0), record(1)])
    finished.journal.start(header)
    finished.journal.append(record(0, radius=1.25))
    finished.journal.close()
    with finished.reserved():
        finished.load_finished(header, [], [0, 1, 2])
        finished.begin()
        found = read_journal(finished.journal.path)[1]
    assert {index: kept.radius for index, kept in found.items()} == {0: 1.25, 1: 1.5}
    assert finished.records == found
    assert finished.journal.path.read_bytes().count(b"\n") == 3, "each example once"


class Racing(type(Path())):
    """A file that its last holder removes after it was opened here, and before it is locked."""

    def open(self, *arguments, **settings):
        file = super().open(*arguments, **settings)
        if not self.with_name("removed").exists():
            self.with_name("removed").touch()
            self.unlink()
        return file


def test_a_lock_is_of_the_file_that_has_the_name(tmp_path):
    """Else two runs would each have the lock: one of the file that is there, one of the file that was."""
    path = Racing(tmp_path / "a.lock")
    with lock(path, path, "--output"), pytest.raises(CaaError, match="another run is writing"):
        lock(tmp_path / "a.lock", path, "--output")


class Interrupting(AttackRecord):
    def to_json(self):
        signal.raise_signal(signal.SIGINT)
        return super().to_json()


def test_an_example_that_a_signal_meets_is_in_the_journal_and_in_the_result(running):
    with pytest.raises(KeyboardInterrupt):
        running.add(Interrupting(**vars(record(1))))
    assert list(running.records) == list(read_journal(running.journal.path)[1]) == [0, 1]


def test_a_name_that_another_run_has_taken_meanwhile_is_left_to_it(running):
    running.journal.path.unlink()
    other = Journal(running.journal.path)
    other.start({**HEADER, "command": "certify"})
    before = running.journal.path.read_bytes()
    with pytest.raises(CaaError, match="another run is writing"):
        running.add(record(1))
    assert running.journal.path.read_bytes() == before
    other.close()


def test_no_message_promises_a_journal_that_was_moved_away(running):
    running.journal.path.parent.rename(running.journal.path.parent.with_name("moved"))
    for write in (lambda: running.add(record(1)), lambda: running.write({})):
        with pytest.raises(CaaError) as refused:
            write()
        assert "was removed or moved: bring it back" in refused.value.hint


TWO_DISKS = """
import fcntl, sys
from pathlib import Path
from caa_cli.results.store.locks import is_locked

one, other = (Path(folder, "file") for folder in sys.argv[1:])
one.touch(), other.touch()
assert one.stat().st_ino == other.stat().st_ino
held = one.open("ab")
fcntl.flock(held, fcntl.LOCK_EX)
print(is_locked(one), is_locked(other))
"""


def test_a_lock_on_another_disk_is_not_taken_for_one_on_this_file(tmp_path):
    """New file systems number their files alike."""
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    mounts = " && ".join(f"mount -t tmpfs none {folder}" for folder in folders)
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*own, mounts], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    script = shlex.join([sys.executable, "-c", TWO_DISKS, *map(str, folders)])
    done = subprocess.run([*own, f"{mounts} && {script}"], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_failed_examples_are_tried_again(tmp_path):
    journal = journal_of(tmp_path, [record(0), record(1, "failed"), record(2)])
    assert [entry.index for entry in Journal(journal.path).resume(HEADER, [])] == [0, 2]


def test_an_example_written_twice_counts_once(tmp_path):
    journal = journal_of(tmp_path, [record(0, "failed"), record(1), record(0, radius=2.0)])
    assert Journal(journal.path).resume(HEADER, []) == [record(0, radius=2.0), record(1)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": {**SETTINGS, "samples": 200}}, "samples (100 there, 200 here)"),
        ({"checkpoint": {"sha256": "xyz"}}, "checkpoint content"),
        ({"command": "certify"}, "command"),
    ],
)
def test_a_journal_of_other_settings_is_refused_and_left_alone(tmp_path, change, said):
    journal = journal_of(tmp_path, [record(0)])
    before = journal.path.read_bytes()
    with pytest.raises(UsageError) as refused:
        Journal(journal.path).resume({**HEADER, **change}, ["samples", "seed"])
    assert said in refused.value.problem
    assert refused.value.hint
    assert journal.path.read_bytes() == before


def test_settings_that_decide_nothing_may_differ(tmp_path):
    journal = journal_of(tmp_path, [record(0)])
    header = {**HEADER, "config": {**SETTINGS, "seed": 1}}
    assert Journal(journal.path).resume(header, ["samples"]) == [record(0)]


@pytest.mark.parametrize(
    "content",
    [
        b"something else\n",
        b"[]\n",
        b"7\n",
        b"{}\n",
        b'{"schema_version": 1, "config": 3}\n',
        b'{"schema_version": 1, "config": {}}\n{"index": 0}\n',
        b'{"schema_version": 1, "config": {}}\n5\n',
        b'{"schema_version": 1, "config": {}}\n{"index": [], "label": 1, "outcome": "failed"}\n',
        b'{"schema_version": 99, "config": {}}\n',
        b"\xff\xfe\n",
    ],
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(CaaError) as refused:
        Journal(path).resume(HEADER, ["samples"])
    assert refused.value.hint
    assert path.read_bytes() == content


def test_a_run_is_unfinished_until_its_result_is_complete(tmp_path):
    output = tmp_path / "attack.json"
    assert not unfinished(output)
    journal_of(tmp_path, [record(0)])
    assert unfinished(output)
    whole, other = json.dumps(record(0).to_json()), json.dumps(record(0, radius=2.0).to_json())
    for text, expected in [
        ("", True),
        ("[]", True),
        (f'{{"status": "interrupted", "examples": [{whole}]}}', True),
        (f'{{"status": "complete", "examples": [{other}]}}', True),
        ('{"status": "complete", "examples": []}', True),
        (f'{{"status": "complete", "examples": [{whole}]}}', False),
    ]:
        output.write_text(text)
        assert unfinished(output) is expected


def test_a_run_that_was_killed_before_its_first_image_has_nothing_to_go_on_with(tmp_path):
    """Not even its settings count."""
    output, journal = tmp_path / "attack.json", journal_of(tmp_path, [])
    assert not unfinished(output)
    assert Journal(journal.path).resume({**HEADER, "config": {**HEADER["config"], "seed": 1}}, ["seed"]) == []
    output.write_text(json.dumps({"status": "interrupted", "examples": [record(0).to_json()]}))
    assert unfinished(output)


def test_a_header_that_was_cut_off_takes_nothing_from_the_result_beside_it(tmp_path):
    """A disk that is full leaves one, when a run with --overwrite begins."""
    output, journal = tmp_path / "attack.json", tmp_path / "attack.json.jsonl"
    journal.write_text('{"schema_ver')
    assert not unfinished(output)
    output.write_text(json.dumps({"status": "complete", "examples": [record(0).to_json()]}))
    assert not unfinished(output)
    with pytest.raises(CaaError, match="line 1"):
        read_journal(journal)


def test_writing_replaces_a_file_at_once(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


SLOW_WRITE = """
import sys, time
from pathlib import Path
from caa_cli.results.store.files import write_atomically

def pieces():
    yield b"half"
    print("begun", flush=True)
    time.sleep(600)

write_atomically(Path(sys.argv[1]), pieces())
"""


def test_what_a_kill_leaves_of_a_write_is_removed_by_the_next_of_the_same_file(tmp_path):
    path, others = tmp_path / "result [1].json", [".result 1.json.abcdefgh.tmp", ".result [1].json.tmp", "b.tmp"]
    for name in others:
        (tmp_path / name).touch()
    with subprocess.Popen([sys.executable, "-c", SLOW_WRITE, path], stdout=subprocess.PIPE, text=True) as writing:
        assert writing.stdout.readline() == "begun\n"
        write_atomically(path, b"new")  # what a process is still writing stays
        assert len(list(tmp_path.iterdir())) == len(others) + 2
        writing.kill()
    write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, *others}


def test_what_can_not_be_removed_hides_no_error(tmp_path):
    """As in a folder that can't be written any more; here folders are in the way, for tests may run as root."""

    def in_the_way(place: Path) -> None:
        place.unlink()
        place.mkdir()

    def pieces(_):
        yield b"half"
        in_the_way(next(tmp_path.glob("*.tmp")))
        raise KeyboardInterrupt

    path = tmp_path / "result.json"
    with pytest.raises(KeyboardInterrupt), locked({"--output": path}):
        write_atomically(path, pieces(in_the_way(lock_of(path))))


def test_a_result_is_as_readable_as_other_files(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "result.json", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "result.json").stat().st_mode & 0o777 == 0o640


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    """A folder in the way makes the last step, the rename, fail even for root."""
    path = tmp_path / "result.json"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"new")
    assert (path / "old").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    check_writable(path, "--output")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


@pytest.mark.parametrize("where", ["missing/a.json", "file/a.json", "folder", "a" * 300, "fifo"])
def test_a_place_that_cannot_be_written_is_known_beforehand(tmp_path, where):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")  # renaming over a pipe, or over /dev/null, would destroy it
    with pytest.raises(CaaError) as refused:
        check_writable(tmp_path / where, "--output")
    assert "--output" in refused.value.problem + (refused.value.hint or "")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder", "fifo"}


def test_folders_that_take_no_files_are_known_beforehand():
    with pytest.raises(CaaError, match="/proc"):
        check_writable(Path("/proc/attack.json"), "--output")


def picture(value):
    return np.full(SHAPE, value, np.float32)


def test_images_cut_off_by_a_kill_are_dropped(tmp_path):
    journal = ImageJournal(tmp_path / "a.images", SHAPE, "run")
    journal.start()
    for index in range(3):
        journal.append(index, picture(index / 4))
    with journal.path.open("r+b") as file:
        file.truncate(journal.path.stat().st_size - 5)
    assert journal.resume() == {0, 1}
    journal.append(2, picture(0.9))
    found = journal.read()
    assert sorted(found) == [0, 1, 2]
    for index, value in [(0, 0.0), (1, 0.25), (2, 0.9)]:
        np.testing.assert_array_equal(found[index], picture(value))


def test_images_whose_file_was_removed_do_not_begin_a_file_that_nobody_can_read(tmp_path):
    journal = ImageJournal(tmp_path / "a.images", SHAPE, "run")
    journal.start()
    journal.path.unlink()
    with pytest.raises(FileNotFoundError):
        journal.append(0, picture(0.5))


def test_saved_images_follow_their_records(tmp_path):
    path = tmp_path / "a.safetensors"
    kept = [record(9, radius=2.0, adversarial_class=1), record(4, radius=1.0, adversarial_class=7)]
    save_images(path, {4: picture(0.4), 9: picture(0.9), 5: picture(0.5)}, [*kept, record(5, "not_verified")], "run")
    saved = load_file(path)
    assert saved["indices"].tolist() == [4, 9]
    assert saved["radii"].tolist() == [1.0, 2.0]
    assert saved["adversarial_classes"].tolist() == [7, 1]
    np.testing.assert_array_equal(saved["images"], np.stack([picture(0.4), picture(0.9)]))
    assert sorted(saved_images(path, "run")) == [4, 9]
    assert saved_images(path, "another run") == {}


def test_images_of_another_run_are_never_taken_for_ones_own(tmp_path):
    old = ImageJournal(tmp_path / "a.images", SHAPE, "old")
    old.start()
    old.append(3, picture(0.3))
    assert ImageJournal(old.path, SHAPE, "new").resume() == set()
    assert ImageJournal(old.path, SHAPE, "old").resume() == set()


def test_no_images_is_a_file_too(tmp_path):
    path = tmp_path / "a.safetensors"
    save_images(path, {}, [], "run")
    assert len(load_file(path)["images"]) == 0


def test_images_that_are_no_files_differ_by_their_number_alone():
    there, here = (
        {"command": "attack", "config": {}, "images": {"count": count, "files_sha256": None}}
        for count in (100, 10_000)
    )
    what = "the data set's files, so that an index means another image"
    assert disagreements(there, here, []) == [f"{what} (100 images there, 10000 images here)"]
