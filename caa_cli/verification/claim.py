"""What a verification has to show of a point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caa_cli.smoothing.bounds import leader
from caa_cli.verification.line_search import Votes


@dataclass(frozen=True)
class Claim:
    """That some class is likelier than the label or, with a target, that the target is likelier than every other one.

    classes: how many there are.
    """

    label: int
    classes: int
    target: int | None = None

    @property
    def opponents(self) -> Votes:
        """The classes to beat, int64."""
        if self.target is None:
            return np.array([self.label])
        return np.delete(np.arange(self.classes), self.target)

    def sides(self, votes: Votes) -> tuple[int, int]:
        """(the class to verify, the strongest class that it has to beat) as these votes, (classes,), have it."""
        if self.target is None:
            return int(leader(votes, excluding=self.label)), self.label
        return self.target, int(leader(votes, excluding=self.target))
