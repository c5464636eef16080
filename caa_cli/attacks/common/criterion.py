"""The criterion by which a point counts as adversarial during the search, the same for every attack."""

from __future__ import annotations

import torch
from torch import Tensor

from caa_cli.smoothing.bounds import leader, separation


def adversarial(votes: Tensor, labels: Tensor, samples: int, alpha: float, bound: str) -> Tensor:
    """Whether another class is confidently above the label (the paper's Eq. attack_criteria), (examples,) bool.

    votes: (examples, classes) of `samples` draws each. The other class is the one with the most votes. This is no
    verification: `verify` draws fresh noise.
    """
    counts, label = votes.cpu().numpy(), labels.cpu().numpy()
    rival = leader(counts, excluding=label)
    ahead = separation(counts, samples, rival, alpha, bound, against=label)
    return torch.from_numpy(ahead.confident).to(labels.device)
