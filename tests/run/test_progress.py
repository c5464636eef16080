"""What a bar says of the images that are searched."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comparing import record

from caa_cli.run.progress import AttackProgress


class Batch(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.indices)


@pytest.mark.parametrize(
    ("steps", "earlier", "shown"),
    [
        ([3], 0, "image 40: step 3"),
        ([3], 1, "image 40: search 2, step 3"),
        ([3, 3], 1, "2 images: step 3"),
        ([5, 3], 0, "2 images: steps 3–5"),
    ],
)
def test_where_a_search_is(steps, earlier, shown):
    updates: list[tuple[Any, ...]] = []
    bar = SimpleNamespace(update=lambda *words: updates.append(words))
    progress = AttackProgress(bar, 10, lambda: [])
    search = torch.full((len(steps),), earlier)
    progress.show_step(Batch(indices=40 + torch.arange(len(steps)), iteration=torch.tensor(steps), search=search))
    assert updates[-1] == (0, "", shown)


def test_radii_are_named_once_there_are_any():
    progress = AttackProgress(SimpleNamespace(update=lambda *_: None), 10, lambda: [])
    assert progress.describe([record(0, None)]) == "0% attacked"
    assert progress.describe([record(0, None), record(1, 2.0)]).startswith("50% attacked · median radius 2.000 · ")
