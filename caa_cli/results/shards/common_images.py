"""The images that several results have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caa_cli.errors import UsageError
from caa_cli.results.records import FAILED
from caa_cli.results.shards.run_results import RunResult
from caa_cli.runtime.words import counted


def common_images(results: Sequence[RunResult[Any]], notes: list[str], what: str = "attacks") -> list[int]:
    """The images that all results have. Raises UsageError where a run that was not interrupted lacks some.

    notes: gets what was left out, for a reader.  what: the word for the results.
    """
    common = set.intersection(*(set(result.records) for result in results))
    for result in results:
        if result.interrupted:
            notes.append(f"{result.label} was interrupted after {counted(len(result.records), 'image')}")
            continue
        more = next((other for other in results if set(other.records) - set(result.records)), None)
        if more is not None:
            index = min(set(more.records) - set(result.records))
            raise UsageError(
                f"{result.label} and {more.label} are over different images: {index} is in "
                f"{_files(more)}, but not in {_files(result)}",
                "repeat one of them with the --limit, --skip, --every or --indices of the other (and --resume)",
            )
    if not common:
        raise UsageError(f"the {what} have no finished image in common", "finish them with --resume")
    if any(len(result.records) > len(common) for result in results):
        notes.append(f"compared on {counted(len(common), 'image')} that all {what} have finished")
    for index in common:
        if len({result.records[index].label for result in results}) > 1:
            raise UsageError(
                f"the {what} are over different images: {index} has another label in each",
                "compare results of the same data set: repeat one of them with the --data-dir of the other",
            )
    return sorted(common)


def without_failures(results: Sequence[RunResult[Any]], images: Sequence[int], notes: list[str]) -> list[int]:
    """The images that failed in no run: a failure is not evidence about an attack or a model."""
    failed: set[int] = set()
    for result in results:
        mine = [index for index in images if result.records[index].outcome == FAILED]
        if mine:
            notes.append(f"left out: {number_of(mine)} failed in {result.label}")
            failed.update(mine)
    return [index for index in images if index not in failed]


def number_of(indices: Sequence[int]) -> str:
    """How many images, and the first of them."""
    shown = ", ".join(map(str, indices[:3])) + (", …" if len(indices) > 3 else "")
    return f"{counted(len(indices), 'image')} ({shown})"


def _files(result: RunResult[Any]) -> str:
    return ", ".join(str(part.path) for part in result.parts)
