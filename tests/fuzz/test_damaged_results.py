"""Damaged results and journals, one command each: refused with one message, or read as what they still are."""

from __future__ import annotations

import json
import math
import signal
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from comparing import document, record
from damage import cut_or_flipped, dumps, mutations
from support import CHEAP, assert_clean_text, caa, parse_strict

ATTACK = ["attack", *CHEAP, "--limit", "2", "--quiet"]
CERTIFY = [
    "certify",
    "--checkpoint",
    "demo",
    "--samples",
    "200",
    "--limit",
    "2",
    "--chunk-size",
    "256",
    "--device",
    "cpu",
    "--quiet",
]
FORMATS = ("table", "markdown", "latex", "csv", "json")
PICTURES = ("--figure", "--figure-excess", "--figure-evaluations", "--figure-sweep", "--figure-examples")

# How many files, and whether pictures are drawn; the long run is for after a change to what is read.
SIZES = [(24, False), pytest.param(300, True, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def journals(tmp_path_factory):
    """The journals that an attack and a certification had before they were finished, by command."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for words in (ATTACK, CERTIFY):
        output = folder / f"{words[0]}.json"
        assert caa(*words, "--output", output).exit_code == 0
        finished = json.loads(output.read_text())
        examples = finished.pop("examples")
        for name in ("status", "summary", "created", "tool_version"):
            del finished[name]
        found[words[0]] = "".join(json.dumps(line) + "\n" for line in [finished, *examples]).encode()
    return found


@contextmanager
def limited(seconds: int = 60):
    """No damage may make a command compute without end."""

    def end(*_):
        raise AssertionError("it takes too long")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(what: str, *words: str | Path) -> int:
    """Runs the command; returns its exit code. Fails unless it is done, or refuses with one message."""
    with limited():
        result = caa(*words)
    assert result.exception is None or isinstance(result.exception, SystemExit), f"{what}: {result.exception!r}"
    assert result.exit_code in (0, 1, 2, 3), f"{what}: {result.output}"
    if result.exit_code in (1, 2):
        assert result.stdout == "", what
        assert_clean_text(result.stderr, "", "")
    shown = result.stdout.replace("\r\n", "\n") + result.stderr
    assert not any(letter in shown for letter in "\x1b\u202e\0"), what
    assert len(result.stderr) < 20_000, what
    return result.exit_code


def assert_believable(found) -> None:
    """What has been read and written again holds nothing that no run can have found."""
    seen = set()
    for example in found["examples"]:
        assert type(example["index"]) is int
        assert 0 <= example["index"] < 100
        assert example["index"] not in seen
        seen.add(example["index"])
        assert type(example["label"]) is int
        for name in ("radius", "certified_radius", "seconds"):
            value = example.get(name)
            assert value is None or (0 <= value < math.inf and not isinstance(value, bool)), (name, value)
        if example["outcome"] == "attacked":
            assert None not in (example["radius"], example["adversarial_class"], example["certified_radius"])


def damaged(good, count, lines=False):
    """(what was done, the content of the file): a third of them damaged as bytes, the others as JSON."""
    write = (lambda found: "".join(dumps(line) + "\n" for line in found)) if lines else dumps
    whole = write(good).encode()
    yield from ((what, write(found).encode()) for what, found in mutations(good, count - count // 3, seed=1))
    yield from cut_or_flipped(whole, count // 3, seed=1)


@pytest.mark.parametrize(("count", "pictures"), SIZES)
def test_damaged_results_are_refused_or_read_as_they_are(tmp_path, count, pictures):
    """By caa compare, in every format, and by caa merge."""
    good = document([record(i, 1.5 + i) for i in range(4)])
    good["config"]["of_tomorrow"] = 1
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**good, "config": {**good["config"], "overshoot": 1.2}}))
    path, output = tmp_path / "a.json", tmp_path / "out.json"
    counts: Counter[str] = Counter()
    for number, (what, content) in enumerate(damaged(good, count)):
        path.write_bytes(content)
        words = ["compare", path, *([other] if number % 2 else []), "--format", FORMATS[number % len(FORMATS)]]
        if pictures:
            words += [word for k, option in enumerate(PICTURES) for word in (option, tmp_path / f"{k}.png")]
            words += ["--html", tmp_path / "page.html", "--bootstrap", "40"]
        counts[f"compare {outcome(what, *words)}"] += 1
        counts[f"merge {outcome(what, 'merge', path, '--output', output, *['--partial'][number % 2 :])}"] += 1
        if output.exists():
            assert_believable(parse_strict(output.read_text()))
            output.unlink()
        assert path.read_bytes() == content, what
    print(f"{count} damaged results: {dict(sorted(counts.items()))}")
    assert min(counts["compare 1"], counts["compare 0"], counts["merge 1"]) > 0


@pytest.mark.parametrize(("count", "pictures"), SIZES)
@pytest.mark.parametrize("words", [ATTACK, CERTIFY], ids=["attack", "certify"])
def test_damaged_journals_are_refused_or_gone_on_with(journals, tmp_path, words, count, pictures):
    """By --resume, and by caa merge --partial where there is no result yet."""
    good = [json.loads(line) for line in journals[words[0]].splitlines()]
    output, merged = tmp_path / "a.json", tmp_path / "out.json"
    journal = output.with_name("a.json.jsonl")
    counts: Counter[str] = Counter()
    for what, content in damaged(good, count, lines=True):
        for path in tmp_path.iterdir():
            path.unlink()
        journal.write_bytes(content)
        counts[f"merge {outcome(what, 'merge', output, '--partial', '--output', merged)}"] += 1
        if merged.exists():
            assert_believable(parse_strict(merged.read_text()))
        assert journal.read_bytes() == content, what
        code = outcome(what, *words, "--output", output, "--resume")
        counts[f"{words[0]} {code}"] += 1
        if code in (0, 3):
            assert_believable(parse_strict(output.read_text()))
            # Only a line that was not whole may go, or a file without a whole line.
            whole = content[: content.rfind(b"\n") + 1]
            assert not journal.exists() or journal.read_bytes().startswith(whole), what
        else:
            assert journal.read_bytes() == content, what
    print(f"{count} damaged journals: {dict(sorted(counts.items()))}")
    assert min(counts[f"{words[0]} 1"], counts[f"{words[0]} 0"], counts["merge 1"]) > 0
