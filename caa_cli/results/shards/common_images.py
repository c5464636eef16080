"""The images that several results have in common."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from caa_cli.errors import UsageError
from caa_cli.results.records import FAILED
from caa_cli.results.shards.run_results import RunResult, gaps_between
from caa_cli.runtime.words import counted, first_few

# What to do about results over different images.
SAME_IMAGES = (
    "compare the images that all have with --common-images; or repeat one of them with the --limit, --skip, --every "
    "or --indices of the other (and --resume)"
)


def held_by_all(results: Sequence[RunResult[Any]]) -> set[int]:
    """The images that each of the results has."""
    return set.intersection(*(set(result.records) for result in results))


def common_images(
    results: Sequence[RunResult[Any]], notes: list[str], what: str = "attacks", among: Set[int] | None = None
) -> list[int]:
    """The images that all results have. Raises UsageError where a run that was not interrupted lacks some.

    notes: gets what was left out, for a reader.  what: the word for the results.  among: the images to take, which
    all have; then runs may have others, and shards may be missing.
    """
    common = held_by_all(results) if among is None else among
    for result in results:
        if result.interrupted:
            notes.append(f"{result.label} was interrupted after {counted(len(result.records), 'image')}")
        elif among is None:
            _check_complete(result, results)
        else:
            notes += gaps_between(result.parts)
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
    return f"{counted(len(indices), 'image')} ({first_few(indices, 3)})"


def _check_complete(result: RunResult[Any], results: Sequence[RunResult[Any]]) -> None:
    for other in results:
        lacking = other.records.keys() - result.records.keys()
        if lacking:
            raise UsageError(
                f"{result.label} and {other.label} are over different images: {min(lacking)} is in "
                f"{_files(other)}, but not in {_files(result)}",
                SAME_IMAGES,
            )


def _files(result: RunResult[Any]) -> str:
    return ", ".join(str(part.path) for part in result.parts)
