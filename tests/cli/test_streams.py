"""stdout and stderr that are closed, full, without UTF-8 or without a reader: real processes with such streams.

Most of them read finished results, which takes no torch.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from comparing import document, record, write
from support import CHEAP, COMMAND, ENVIRONMENT, assert_clean_text, parse_strict, read_strict

# As a login without UTF-8 has it, and as a user may ask for it.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1"}
ATTACK = ["attack", *CHEAP, "--limit", "1", "--skip", "6"]


def shell(words: list[str | Path], streams: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command with its streams as the shell's `streams` say."""
    command = shlex.join([sys.executable, "-c", COMMAND, *map(str, words)])
    env = {**ENVIRONMENT, **environment}
    done = subprocess.run(["bash", "-c", f"{command} {streams}"], capture_output=True, env=env, check=False)
    # Bytes as they are: what is no UTF-8 then shows up in an assertion instead of failing here.
    stdout, stderr = (stream.decode(errors="backslashreplace") for stream in (done.stdout, done.stderr))
    assert "Traceback" not in stderr, stderr
    assert "Exception ignored" not in stderr, stderr
    return subprocess.CompletedProcess(words, done.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished attacks; the table names the second by its surrogate model, which no ASCII can spell."""
    folder = tmp_path_factory.mktemp("results")
    records = [record(index, 1.5) for index in range(3)]
    first = write(folder / "a.json", document(records))
    return [first, write(folder / "b.json", document(records, gradient="surrogate-model=ю·σ.pt"))]


@pytest.mark.parametrize(
    ("encoding", "name"), [(ASCII, "\\u044e|sigma.pt"), (LATIN, "\\u044e\\xb7sigma.pt")], ids=["ascii", "latin-1"]
)
@pytest.mark.parametrize("format", ["table", "markdown", "latex", "csv", "json"])
def test_what_an_encoding_lacks_is_spelt_out(results, format: str, encoding: dict[str, str], name: str):
    done = shell(["compare", *results, "--format", format], "", **encoding)
    assert done.returncode == 0, done.stderr
    if format == "json":
        assert any("ю·σ.pt" in row["attack"] for row in parse_strict(done.stdout))
    elif format == "csv":
        assert next(csv.reader(io.StringIO(done.stdout)))[0] == "attack"
        assert name in done.stdout
    elif format == "table":
        assert "sigma = 0.5" in done.stdout
        assert "a failure at inf" in done.stdout
        assert name in done.stdout
    else:
        assert {"markdown": "sigma.pt", "latex": r"$\sigma$.pt"}[format] in done.stdout


def test_what_is_spelt_out_moves_no_column(tmp_path: Path):
    """∞ is three letters long, σ five."""
    failed = write(tmp_path / "a.json", document([record(index, None) for index in range(3)]))
    table = [line for line in shell(["compare", failed], "", **ASCII).stdout.splitlines() if line[:1] in "+|"]
    assert any("inf" in line for line in table)
    assert len({len(line) for line in table}) == 1
    rows = shell(["inspect", "demo"], "", **ASCII).stdout.splitlines()
    starts = [re.match(r"\w+ +", row).end() for row in rows if row.startswith(("classes", "sigma", "normalisation"))]
    assert len(starts) == 3
    assert len(set(starts)) == 1


def test_an_attack_can_speak_without_utf_8(tmp_path: Path):
    done = shell([*ATTACK, "--output", tmp_path / "ю.json"], "", **ASCII)
    assert done.returncode == 0, done.stderr
    assert "sigma = 0.5, cohen certificate, goodman bounds at alpha = 0.005" in done.stderr
    assert "median radius" in done.stdout
    assert (done.stdout + done.stderr).isascii()
    assert read_strict(tmp_path / "ю.json")["status"] == "complete"


@pytest.mark.parametrize(
    "words", ["--help", "attack --help", "train --help", "attack --sampels", "attack --checkpoint demo --alpha 2"]
)
def test_help_and_messages_need_no_utf_8(words: str):
    done = shell(words.split(), "", **ASCII)
    assert done.returncode == (0 if "--help" in words else 2)
    assert (done.stdout + done.stderr).isascii()
    assert "\\" not in done.stdout + done.stderr  # no escape in place of a character


@pytest.mark.parametrize("words", [["--json"], [], ["--json", "--quiet"]], ids=str)
@pytest.mark.parametrize("subcommand", ["attack", "compare"])
def test_a_closed_stdout_is_an_error_before_any_work(tmp_path: Path, results, subcommand: str, words: list[str]):
    command = ATTACK if subcommand == "attack" else ["compare", *results]
    done = shell([*command, *words, "--output", tmp_path / "a.json"], ">&-")
    assert done.returncode == 1
    assert_clean_text(done.stderr, "stdout is closed")
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_for_stdout_alone_needs_it_although_quiet(results):
    done = shell(["compare", *results, "--quiet", "--format", "csv"], ">&-")
    assert done.returncode == 1
    assert_clean_text(done.stderr, "stdout is closed")


def test_a_quiet_run_needs_no_stream_at_all(tmp_path: Path):
    """The file that it opens first must not become its stderr: the warning about σ would end up in there."""
    done = shell([*ATTACK, "--quiet", "--sigma", "0.4", "--output", tmp_path / "a.json"], "<&- >&- 2>&-")
    assert done.returncode == 0
    assert read_strict(tmp_path / "a.json")["status"] == "complete"
    assert not any("warning" in path.read_text() for path in tmp_path.iterdir())


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full"])
def test_messages_that_can_not_be_written_are_dropped(tmp_path: Path, results, streams: str):
    done = shell(["compare", *results, "--json", "--output", tmp_path / "c.json"], streams)
    assert done.returncode == 0
    assert parse_strict(done.stdout) == read_strict(tmp_path / "c.json")
    assert shell(["attack", "--sampels"], streams).returncode == 2


def test_a_full_disk_behind_the_streams_is_an_error_and_the_result_is_safe(tmp_path: Path):
    done = shell([*ATTACK, "--json", "--output", tmp_path / "a.json"], "> /dev/full")
    assert done.returncode == 1
    assert_clean_text(done.stderr, "can't write to stdout (No space left on device)")
    assert read_strict(tmp_path / "a.json")["status"] == "complete"


@pytest.mark.parametrize("words", ["--version", "--help", "attack --help", "compare", "compare --format markdown"])
@pytest.mark.parametrize(("streams", "problem"), [("> /dev/full", "No space left"), (">&-", "stdout is closed")])
def test_whatever_is_written_to_stdout_can_fail(results, words: str, streams: str, problem: str):
    done = shell([*words.split(), *(results if words.startswith("compare") else [])], streams)
    assert done.returncode == 1
    assert_clean_text(done.stderr, problem)


def test_a_reader_that_goes_away_loses_no_result(tmp_path: Path):
    """As in `caa attack --json | head -0`; `true` may read nothing."""
    done = shell([*ATTACK, "--json", "--output", tmp_path / "a.json"], "| true; exit ${PIPESTATUS[0]}")
    assert done.returncode == 1
    assert "rror" not in done.stderr
    assert read_strict(tmp_path / "a.json")["status"] == "complete"


@pytest.mark.parametrize("words", ["compare", "compare --json", "compare --format csv", "--help", "--version"])
def test_a_reader_that_goes_away_ends_the_command_without_a_word(results, words: str):
    files = results if words.startswith("compare") else []
    # The reader is gone before the command begins.
    done = shell([*words.split(), *files], "> >(exec <&-; sleep 0.01); exit $?")
    assert done.returncode in (0, 1)
    assert "rror" not in done.stderr


def test_a_reader_of_the_messages_that_goes_away_ends_nothing(results, tmp_path: Path):
    done = shell(["compare", *results, "--json", "--output", tmp_path / "c.json"], "2> >(true)")
    assert done.returncode == 0
    assert parse_strict(done.stdout) == read_strict(tmp_path / "c.json")
