"""Which images a comparison is over, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from caa_cli.config.datasets import DEMO
from caa_cli.config.selection import default_limit
from caa_cli.runtime.words import ordinal

# How many ranges of indices are listed.
MOST_RANGES = 100


def chosen_by(selection: Mapping[str, Any], dataset: str | None) -> str:
    """How a run chose its images, with the options that did. selection: skip, every, limit and indices_file."""
    skip, every, file = selection.get("skip") or 0, selection.get("every") or 1, selection.get("indices_file")
    file = file or selection.get("indices_list")
    limit = default_limit(selection.get("limit"), dataset, file is not None)
    first = "" if limit is None else f"the first {limit} of "
    if file is not None:
        chosen = f"{first}those listed in {file} (--indices)"
    elif every > 1:
        chosen = f"{first}every {ordinal(every)} image (--every {every})"
    else:
        chosen = f"{first}all images"
    if skip:
        chosen += f" from image {skip} on (--skip {skip})"
    if limit is not None:
        chosen += f" (--limit {limit})" if selection.get("limit") is not None else f" (the default for {DEMO})"
    return chosen


def listed(indices: Sequence[int]) -> str:
    """Ascending indices as ranges: 0–5, 9; evenly spaced ones as 0, 20, …, 480; "none" for none."""
    steps = {following - index for index, following in pairwise(indices)}
    if len(indices) > 4 and len(steps) == 1 and steps != {1}:
        return f"{indices[0]}, {indices[1]}, …, {indices[-1]}"
    ranges: list[tuple[int, int]] = []
    for index in indices:
        first = ranges.pop()[0] if ranges and ranges[-1][1] == index - 1 else index
        ranges.append((first, index))
    shown = [str(first) if first == last else f"{first}–{last}" for first, last in ranges[:MOST_RANGES]]
    more = f", … ({len(ranges) - MOST_RANGES} more ranges)" if len(ranges) > MOST_RANGES else ""
    return (", ".join(shown) or "none") + more
