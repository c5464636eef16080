"""Where the boundary line search, which shortens what any search has found, hides how far apart the searches are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import median

from caa_cli.config.choices import LINE_SEARCH
from caa_cli.results.shards.run_results import AttackResult, varying

# A difference that a reader would look for, how many times smaller it has to be after the line search, and the fewest
# images whose medians say anything.
_WORTH_A_NOTE, _HIDDEN, _FEWEST = 0.02, 2.0, 3


def hidden_by_line_search(attacks: Sequence[AttackResult], images: Sequence[int]) -> list[str]:
    """Notes on attacks that ran with several values of one or two settings, by the images that every value broke."""
    searched = sorted((a for a in attacks if a.parts[0].setting("finish") == LINE_SEARCH), key=lambda a: a.attack)
    groups = [list(group) for _, group in groupby(searched, key=lambda attack: attack.attack)]
    return [note for group in groups if 1 <= len(varying(group)) <= 2 for note in _note(group, images)]


def _note(group: Sequence[AttackResult], images: Sequence[int]) -> list[str]:
    records = [[run.records[index] for run in group] for index in images]
    broken = [row for row in records if all(record.radius and record.radius_search for record in row)]
    if len(broken) < _FEWEST:
        return []
    runs = list(zip(*broken, strict=True))
    before = _spread([median(record.radius_search or 0.0 for record in run) for run in runs])
    after = _spread([median(record.radius or 0.0 for record in run) for run in runs])
    if before < max(_WORTH_A_NOTE, _HIDDEN * after):
        return []
    names = " and ".join(name.replace("_", "-") for name in varying(group))
    return [
        f"the boundary line search hides most of what {names} does to {group[0].attack}: the medians of the searches "
        f"are up to {before:.1%} apart, and {after:.1%} after it; --finish none compares the searches themselves"
    ]


def _spread(medians: Sequence[float]) -> float:
    return max(medians) / min(medians) - 1.0
