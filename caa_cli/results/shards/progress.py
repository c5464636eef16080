"""How far runs are, read from their results and journals; a run that is at work is not disturbed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from caa_cli.config.paths import JOURNAL, TRAINING, TRAINING_LOG, sidecar
from caa_cli.config.selection import read_indices
from caa_cli.errors import CaaError
from caa_cli.results.documents import KINDS, document_at
from caa_cli.results.records import FAILED
from caa_cli.results.shards.result_file import ResultFile, read_result_file, read_unfinished
from caa_cli.results.shards.run_results import missing_shards
from caa_cli.results.store.journal import Journal
from caa_cli.results.store.locks import is_locked, lock_of
from caa_cli.runtime.sharding import Shard

COMPLETE, PARTIAL, INTERRUPTED = "complete", "partial", "interrupted"  # as the document says
COMPARISON = "compare"
RUNNING, UNFINISHED, NOT_BEGUN, UNREADABLE = "running", "unfinished", "not begun", "unreadable"


@dataclass(frozen=True)
class RunProgress:
    """How far one run is, or one shard of it. output: its result file, there or not; None where its
    name is not known.

    images: how many it works on; None where that is not known. rate: images per second, while it worked. updated:
    when it finished its last image, in seconds since 1970. problem: why it can't be read. part: what was read.
    epochs: finished ones, of a training, which has no images; nor has a comparison, whose attacks have them.
    """

    output: Path | None
    state: str
    what: str = ""
    shard: tuple[int, int] = (0, 1)
    images: int | None = None
    done: int = 0
    failed: int = 0
    rate: float | None = None
    updated: float | None = None
    problem: str | None = None
    part: ResultFile[Any] | None = None
    epochs: int | None = None

    @property
    def merged(self) -> bool:
        """Whether it is the result of caa merge."""
        return self.part is not None and "merged" in self.part.metadata

    @property
    def has_images(self) -> bool:
        """Whether it works on images of its own, as neither a training nor a comparison does."""
        return self.epochs is None and self.what != COMPARISON

    @property
    def run(self) -> str:
        """What all shards of one run have in common, and the result that they are merged into."""
        part = self.part
        return "" if part is None else f"{self.what} {part.fingerprint} {part.selection}"

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the rate so far; None where that is not known."""
        if self.state in (COMPLETE, PARTIAL):
            return 0.0
        if self.images is None or self.rate is None:
            return None
        return (self.images - self.done) / self.rate

    def to_json(self) -> dict[str, Any]:
        return {
            "output": None if self.output is None else str(self.output),
            "state": self.state,
            "run": self.what,
            "shard": {"index": self.shard[0], "count": self.shard[1]},
            "images": self.images,
            "done": self.done,
            "failed": self.failed,
            "images_per_second": self.rate,
            "seconds_left": self.seconds_left,
            "updated": self.updated,
            "resume": self.part.metadata.get("resume") if self.part is not None else None,
            "problem": self.problem,
            **({} if self.epochs is None else {"epochs": self.epochs}),
        }


def read_progress(output: Path) -> RunProgress:
    """The progress of the run with this --output. A journal that is newer than the result leads."""
    journal = sidecar(output, JOURNAL)
    if is_training(output):
        return _of_training(output)
    if (state := state_of_comparison(output)) is not None:
        return RunProgress(output, state, COMPARISON)
    for _ in range(3):  # a run that ends meanwhile replaces one by the other
        try:
            if _leads(journal, output):
                return _of(output, read_unfinished(output, UNFINISHED), journal, is_locked(journal))
            if output.exists():
                part = read_result_file(output, KINDS)
                return _of(output, part, output, is_locked(journal))
            state = RUNNING if is_locked(journal) else NOT_BEGUN
            return RunProgress(output, state)
        except FileNotFoundError:
            continue
        except (CaaError, OSError) as error:
            return RunProgress(output, UNREADABLE, problem=getattr(error, "problem", str(error)))
    return RunProgress(output, UNREADABLE, problem=f"{output} and its record come and go")


def is_training(output: Path) -> bool:
    """Whether there is the log of a training with this --output."""
    try:
        with sidecar(output, TRAINING_LOG).open("rb") as log:
            return log.read(8) == b'{"epoch"'
    except OSError:
        return False


def state_of_comparison(output: Path) -> str | None:
    """How far `caa compare --output` is, its attacks apart; None where there is no sign of one."""
    document = {} if sidecar(output, JOURNAL).exists() else document_at(output)
    if document.get("command", COMPARISON) != COMPARISON:
        return None
    if is_locked(lock := lock_of(output)):
        return RUNNING
    # A kill leaves the lock behind, which alone says nothing.
    killed = lock.exists() and not output.exists() and attack_of_comparison(output)
    return UNFINISHED if killed else document.get("status")


def attack_of_comparison(output: Path) -> dict[str, Any]:
    """The document of a finished attack of `caa compare --output`; empty where there is none."""
    stem, *shard = map(escape, re.split(r"(?=\.shard-\d+-of-\d+$)", output.stem))
    for path in sorted(output.parent.glob(f"{stem}.*{''.join(shard)}{escape(output.suffix)}")):
        document = document_at(path)
        if "caa compare " in str(document.get("resume")):
            return document
    return {}


def missing_progress(runs_read: Sequence[RunProgress]) -> list[RunProgress]:
    """The shards that have images, but neither a result nor a journal among these."""
    runs: dict[str, list[ResultFile[Any]]] = {}
    for one in runs_read:
        if one.part is not None and one.shard[1] > 1:
            runs.setdefault(f"{one.run} {one.shard[1]}", []).append(one.part)
    missing, unread = [], {one.output for one in runs_read if one.part is None}
    for parts in runs.values():
        first = parts[0]
        for index in missing_shards(parts):
            chosen = first.of_shard(index)
            output = Shard(*first.shard).sibling(first.path, index)
            if output not in unread:
                place = None if output == first.path else output  # a name without the shard's number says nothing
                images = None if chosen is None else len(chosen)
                missing.append(RunProgress(place, NOT_BEGUN, _what(first), (index, first.shard[1]), images))
    return missing


def total_of(progress: Iterable[RunProgress]) -> dict[str, Any]:
    """The figures of all runs together, a merged result left out beside its shards; images: but of trainings.

    seconds_left: of the slowest, as if all worked in parallel.
    """
    progress = list(progress)
    sharded = {one.run for one in progress if one.shard[1] > 1}
    progress = [one for one in progress if not (one.merged and one.run in sharded)]
    images = [one.images for one in progress if one.has_images]
    left = [one.seconds_left for one in progress]
    rates = [one.rate for one in progress if one.state == RUNNING and one.rate is not None]
    return {
        "runs": len(progress),
        "complete": sum(one.state == COMPLETE for one in progress),
        "images": None if None in images else sum(filter(None, images)),
        "done": sum(one.done for one in progress),
        "failed": sum(one.failed for one in progress),
        "images_per_second": sum(rates) if rates else None,
        "seconds_left": None if None in left else max([0.0, *filter(None, left)]),
    }


def _leads(journal: Path, output: Path) -> bool:
    """Whether the journal holds more than the result: a run goes on, or ended without writing one."""
    if not Journal[Any](journal).begun:
        return False
    return not output.exists() or is_locked(journal) or journal.stat().st_mtime > output.stat().st_mtime


def _of_training(output: Path) -> RunProgress:
    """A training as its log has it, which does not say how many epochs there will be."""
    log = sidecar(output, TRAINING_LOG)
    finished = output.exists() and not sidecar(output, TRAINING).exists()
    state = RUNNING if is_locked(lock_of(output)) else COMPLETE if finished else UNFINISHED
    epochs = log.read_bytes().count(b"\n")
    return RunProgress(output, state, "train", updated=log.stat().st_mtime, epochs=epochs)


def _of(output: Path, part: ResultFile[Any], newest: Path, running: bool) -> RunProgress:
    done = [record for record in part.records if record.outcome != FAILED]
    spent = sum(record.seconds for record in part.records)
    return RunProgress(
        output,
        RUNNING if running else part.status,
        _what(part),
        part.shard,
        images=images_of(part),
        done=len(done),
        failed=len(part.records) - len(done),
        rate=len(part.records) / spent if spent > 0 else None,
        updated=newest.stat().st_mtime,
        part=part,
    )


def _what(part: ResultFile[Any]) -> str:
    """What the run does, in words."""
    return f"{part.command} {part.attack}".rstrip()


def images_of(part: ResultFile[Any]) -> int | None:
    """How many images the run works on: what was asked for and what an earlier part of it has besides."""
    index, count = part.shard
    chosen, file, size = part.of_shard(index), part.config.get("indices_file"), part.images.get("count")
    if file is not None and size is not None:
        try:
            chosen = read_indices(Path(file), size)[: part.config.get("limit")][index::count]
        except CaaError:  # it is elsewhere, or was changed
            return None
    if chosen is None:
        return None
    return len(chosen) + len(part.records) - part.among(chosen)
