"""Whatever is in a file, reading it ends soon, in one message, within bounded memory, and runs nothing of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from checkpoints import FAMILIES, damaged, hostile
from containers import CANARY
from processes import Ended, prepare, run

from caa_cli.models import confined

MOST_BYTES, MOST_SECONDS = 4 * 2**30, 30
# All that goes before the work itself, which is that of an honest file.
DRY = ("--limit", "1", "--chunk-size", "64", "--dry-run")
COMMANDS = (
    ("inspect", "x"),
    ("attack", "--checkpoint", "x", "--dataset", "demo", "--sigma", "0.5", *DRY),
    ("attack", "--checkpoint", "demo", "--gradient", "surrogate-model=x", *DRY),
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The time that a small file may take, a fifth of the real one: some would go on for ever.
    monkeypatch.setattr(confined, "_SECONDS", 1.0)
    prepare()


def complaint(ended: Ended) -> str | None:
    """What is wrong with the way in which a command ended; None for nothing."""
    text = ended.stdout + ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    for wrong, what in (
        (Path(CANARY).exists(), "code out of the file ran"),
        ("Traceback" in text or "Exception ignored" in text, "a traceback"),
        (ended.code not in (0, 1, 2), f"exit code {ended.code}"),
        (len(errors) > 1 or (ended.code == 2 and not errors), f"{len(errors)} messages"),
        # `inspect` ends with 1 where it recognises nothing, which is no error.
        (ended.code == 1 and not errors and "not recognised" not in ended.stdout, "no message"),
        (ended.seconds > MOST_SECONDS, f"{ended.seconds:.0f} s"),
        (ended.peak > MOST_BYTES, f"{ended.peak / 2**30:.1f} GiB"),
        (max(map(len, text.splitlines()), default=0) > 2_000, "a name echoed whole"),
    ):
        if wrong:
            return f"{what}: {text[:1_500]}"
    return None


def try_all(files: Iterable[tuple[str, bytes]], seed: int) -> Counter[str]:
    """Reads every file; fails on the first that ends in another way than it should."""
    counts, rng = Counter(), random.Random(seed)
    worst = {"seconds": 0.0, "peak": 0.0}
    for name, content in files:
        Path("x").write_bytes(content)
        command = rng.choice(COMMANDS)
        ended = run(*command)
        wrong = complaint(ended)
        assert wrong is None, f"{name}, {' '.join(command)}: {wrong}"
        counts["files"] += 1
        counts[f"exit code {ended.code}"] += 1
        worst = {key: max(value, getattr(ended, key)) for key, value in worst.items()}
    print(dict(counts), f"slowest {worst['seconds']:.1f} s, most memory {worst['peak'] / 2**30:.2f} GiB")
    return counts


def test_a_checkpoint_of_each_kind_that_does_harm():
    files = ((name, content) for name, content in hostile(0, 1) if not name.startswith("keys of one hash"))
    assert try_all(files, 0)["files"] == len(FAMILIES) - 1


def test_damaged_checkpoints():
    assert try_all(damaged(0, 20), 0)["files"] == 20


@pytest.mark.slow
def test_hostile_checkpoints_at_length():
    assert try_all(hostile(1, 8), 1)["files"] == 8 * len(FAMILIES)


@pytest.mark.slow
def test_damaged_checkpoints_at_length():
    assert try_all(damaged(1, 500), 1)["files"] == 500
