"""Votes, from logits and into counts."""

from __future__ import annotations

from torch import Tensor

from caa_cli.smoothing.chunks import Piece


def votes_of(logits: Tensor, piece: Piece) -> Tensor:
    """Each sample's vote, (examples, samples) int64; one beyond the last class is an abstention."""
    # The maximum is NaN if any logit is; argmax alone would make that NaN a vote.
    top, winner = logits.max(dim=1)
    winner = winner.masked_fill(top.isnan(), logits.shape[1])
    return winner.view(piece.num_examples, piece.num_samples)


def count_votes(counts: Tensor, votes: Tensor) -> None:
    """Adds votes, (examples, samples) int64, to the counts of each class, (examples, classes + 1) int64; allocates
    nothing."""
    counts.scatter_(1, votes, 1, reduce="add")
