"""`caa status`: how far runs are, from the files that they write."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import escape, glob
from pathlib import Path
from typing import Any

from caa_cli.config.paths import IMAGES, JOURNAL, TRAINING, TRAINING_LOG, exists, sidecar
from caa_cli.display import Display, clock
from caa_cli.errors import DONE, ERROR, PARTIAL, CaaError, UsageError
from caa_cli.results.documents import KINDS, document_at, head
from caa_cli.results.shards.compared_files import compared_files
from caa_cli.results.shards.progress import (
    COMPARISON,
    COMPLETE,
    INTERRUPTED,
    NOT_BEGUN,
    RUNNING,
    UNFINISHED,
    UNREADABLE,
    RunProgress,
    attack_of_comparison,
    is_training,
    missing_progress,
    read_progress,
    state_of_comparison,
    total_of,
)
from caa_cli.results.shards.result_file import how_to_go_on
from caa_cli.results.shards.run_results import MOST_NAMED
from caa_cli.results.store.journal import header_of
from caa_cli.runtime.words import counted, first_few

# per min: images per minute; idle: since the last write.
_HEADINGS = ["run", "state", "done", "failed", "per min", "left", "idle"]


@dataclass
class StatusRun:
    """Shows every run that the names stand for; nothing is written, and no lock is taken."""

    display: Display
    names: Sequence[Path]

    def execute(self) -> int:
        """Returns the exit code: 3 where something is not complete, 1 where a file can't be read."""
        runs = [read_progress(output) for output in outputs_of(self.names)]
        runs = sorted([*runs, *missing_progress(runs)], key=_place)
        total = total_of(runs)
        self.display.document({**head("status"), "runs": [one.to_json() for one in runs], "total": total})
        self._show(runs, total)
        if any(one.state == UNREADABLE for one in runs):
            return ERROR
        return DONE if all(one.state == COMPLETE for one in runs) else PARTIAL

    def _show(self, runs: Sequence[RunProgress], total: dict[str, Any]) -> None:
        rows = [_cells(one) for one in runs]
        if len(runs) > 1:
            state = f"{total['complete']} of {total['runs']} complete"
            rate, left = _rate(total["images_per_second"]), _left(total["seconds_left"])
            done = _of(total) if any(one.has_images for one in runs) else ""
            rows.append(["together", state, done, str(total["failed"]), rate, left, ""])
        absent = [str(one.shard[0]) for one in runs if one.state == NOT_BEGUN and one.shard[1] > 1]
        missing = list(dict.fromkeys(absent))  # the attacks of a comparison lack the same
        caption = f"shards not begun: {first_few(missing, MOST_NAMED)}. " if missing else ""
        caption += "Left: at the rate so far; together: that of the slowest."
        self.display.grid("caa status", _HEADINGS, rows, caption)
        for one in runs:
            if one.problem is not None:
                self.display.warn(one.problem)
        self._say_how_to_go_on(runs)

    def _say_how_to_go_on(self, runs: Sequence[RunProgress]) -> None:
        stopped: dict[str, list[str]] = {}  # runs by advice: a comparison and its attacks go on with one command
        for one in runs:
            document = _document(one) if one.state not in (COMPLETE, RUNNING, NOT_BEGUN) else None
            if document is not None:
                stopped.setdefault(how_to_go_on(document), []).append(str(one.output))
        for again, names in list(stopped.items())[:MOST_NAMED]:
            self.display.note(f"{', '.join(names)}: {again}")
        trainings = [(one.output, one.state) for one in runs if one.epochs is not None and one.output is not None]
        going_on = [(output, state) for output, state in trainings if state != COMPLETE]
        for output, state in going_on[:MOST_NAMED]:
            again = "; to finish it, repeat its caa train with --resume" if state == UNFINISHED else ""
            self.display.note(f"{sidecar(output, TRAINING_LOG)} has a line for each epoch{again}")


def outputs_of(names: Sequence[Path]) -> list[Path]:
    """The --output of every run that files, folders and patterns name, in that order. Raises UsageError for none."""
    outputs_named: dict[Path, None] = {}
    for name in names:
        try:
            matching = [] if exists(name) else [Path(place) for place in sorted(glob(str(name)))]  # noqa: PTH207
            outputs = [output for place in matching or [name] for output in _outputs_at(place)]
        except OSError as error:
            raise CaaError(
                f"{name} can't be read ({error.strerror})", "name the --output of a run, or the folder that holds it"
            ) from error
        if not outputs:
            raise UsageError(
                f"{name} {'holds' if name.is_dir() else 'is'} no result of caa, nor one that a run has begun",
                "name the --output of a run, its shards (attack.shard-*.json), or the folder that holds them; a "
                "training is shown from the end of its first epoch on",
            )
        outputs_named |= dict.fromkeys(outputs)
    return list(outputs_named)


def _outputs_at(place: Path) -> Iterator[Path]:
    """The runs that one name stands for: a folder's, those of a comparison, the shards of one --output."""
    if place.is_dir():
        for entry in sorted(place.iterdir()):
            if entry.suffix in (".json", JOURNAL) and (_command_of(entry) or is_training(_trained(entry))):
                yield from _outputs_at(entry)
        yield from _comparisons(place, "*.json")
        return
    if is_training(trained := _trained(place)):
        yield trained
        return
    output = place.with_name(place.name.removesuffix(JOURNAL).removesuffix(IMAGES))
    document = document_at(output)
    if sidecar(output, JOURNAL).exists() or (output.exists() and document.get("command") != "compare"):
        yield output
        return
    # What caa compare and --shard auto write beside it, or in its place.
    yield from (file for file in compared_files(output, document) if file.exists())
    for part in sorted(output.parent.glob(f"{escape(output.stem)}.*")):
        run = part.with_name(part.name.removesuffix(JOURNAL))
        if run.suffix == output.suffix and run != output and _command_of(part) in KINDS:
            yield run
    for name in (escape(output.name), f"{escape(output.stem)}.shard-*{escape(output.suffix)}"):
        yield from _comparisons(output.parent, name)


def _comparisons(folder: Path, pattern: str) -> Iterator[Path]:
    """The comparisons of these names that go on, or were cut short: between two attacks nothing else says so."""
    locks = [lock.name.removeprefix(".").removesuffix(".lock") for lock in folder.glob(f".{pattern}.lock")]
    for name in sorted({*locks, *(file.name for file in folder.glob(pattern))}):
        if state_of_comparison(folder / name) in (RUNNING, UNFINISHED, INTERRUPTED):
            yield folder / name


def _trained(place: Path) -> Path:
    """The --output of the training that has a file of this name, if it is of one."""
    return place.with_name(place.name.removesuffix(TRAINING_LOG).removesuffix(TRAINING))


def _command_of(path: Path) -> str | None:
    """The command that wrote a result or a journal; None for other files."""
    return (document_at(path) or header_of(path)).get("command") if path.is_file() else None


def _place(one: RunProgress) -> tuple[list[tuple[int, str]], int]:
    """For the order of the rows: numbers in names count as numbers, and what has no name comes last."""
    words = re.split(r"([0-9]+)", str(one.output)) if one.output is not None else ["\uffff"]
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words], one.shard[0]


def _document(one: RunProgress) -> dict[str, Any] | None:
    """What says how a run goes on; None of one that can't be read, and of a training."""
    if one.what == COMPARISON and one.output is not None:
        return document_at(one.output) or attack_of_comparison(one.output)
    return None if one.part is None else one.part.metadata


def _cells(one: RunProgress) -> list[str]:
    name = str(one.output or "?")
    if one.shard[1] > 1 and f".shard-{one.shard[0]}-of-" not in name:
        name += f" ({one.shard[0]} of {one.shard[1]})"
    name += " (merged)" if one.merged else ""
    failed = "" if one.state == NOT_BEGUN or not one.has_images else str(one.failed)
    last = "" if one.updated is None else clock(max(time.time() - one.updated, 0))
    left = "" if one.state == NOT_BEGUN or one.seconds_left == 0.0 else _left(one.seconds_left)
    if one.epochs is not None:
        done = counted(one.epochs, "epoch")
    else:
        done = _of({"done": one.done, "images": one.images}) if one.has_images else ""
    return [name, one.state, done, failed, _rate(one.rate), left, last]


def _of(counts: dict[str, Any]) -> str:
    return f"{counts['done']}/{'?' if counts['images'] is None else counts['images']}"


def _rate(rate: float | None) -> str:
    """Images per minute."""
    if rate is None:
        return "–"
    return f"{60 * rate:,.0f}" if 60 * rate >= 100 else f"{60 * rate:.3g}"


def _left(seconds: float | None) -> str:
    return "–" if seconds is None else clock(seconds)
