"""When a point counts as adversarial during the search: the votes that are just enough, by other means."""

from __future__ import annotations

import pytest
import torch
from prescribed import fewest_votes

from caa_cli.attacks.common.criterion import adversarial
from caa_cli.config.bounds import BOUNDS

SAMPLES, ALPHA = 1500, 0.01


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("abstained", [0, 500])
def test_one_vote_decides(bound: str, abstained: int):
    """Samples that abstain count in the total, and every row has a label of its own."""
    both = SAMPLES - abstained
    enough = fewest_votes(both, SAMPLES, 3, ALPHA, bound)
    votes = torch.tensor(
        [
            [both - enough, enough, 0],
            [both - enough + 1, enough - 1, 0],
            [0, both - enough, enough],
            [enough, 0, both - enough],
        ]
    )
    labels = torch.tensor([0, 0, 1, 0])
    assert adversarial(votes, labels, SAMPLES, ALPHA, bound).tolist() == [True, False, True, False]


@pytest.mark.parametrize("bound", ["goodman", "cp-bonferroni"])
def test_the_other_class_needs_to_be_above_the_label_alone(bound: str):
    """Two others that are even are both above the label."""
    votes = torch.tensor([[100, 700, 700]])
    assert adversarial(votes, torch.tensor([0]), 1500, ALPHA, bound).tolist() == [True]
    assert adversarial(votes, torch.tensor([1]), 1500, ALPHA, bound).tolist() == [False]
