"""Which points a search keeps."""

from __future__ import annotations

import pytest
import torch

from caa_cli.attacks.common.state import Batch, Example

CLEAN = torch.full((1, 2, 2), 0.5)


def offer(state: Batch, distance: float, votes: list[int], offered: bool = True) -> None:
    state.x = CLEAN[None] + torch.tensor([[[[distance, 0.0], [0.0, 0.0]]]])
    state.remember(torch.tensor([offered]), torch.tensor([votes]))


@pytest.fixture
def state() -> Batch:
    return Batch.new([Example(0, CLEAN, 0)], 3)


def test_the_nearest_are_kept_nearest_first(state: Batch):
    for distance, votes in ((0.4, [0, 0, 4]), (0.1, [0, 0, 1]), (0.3, [0, 0, 3]), (0.2, [0, 0, 2])):
        offer(state, distance, votes)
    assert state.near_distance[0].tolist() == [pytest.approx(distance) for distance in (0.1, 0.2, 0.3)]
    assert state.near_votes[0, :, 2].tolist() == [1, 2, 3]
    assert (state.near_image[0, :, 0, 0, 0] - 0.5).tolist() == [pytest.approx(d) for d in (0.1, 0.2, 0.3)]
    assert state.near_confident.all()


def test_of_points_at_the_same_distance_the_earlier_stays(state: Batch):
    for votes in ([1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]):
        offer(state, 0.25, votes)
    assert state.near_votes[0, :, 0].tolist() == [1, 2, 3]


def test_the_clean_image_is_no_candidate_nor_is_what_was_not_offered(state: Batch):
    offer(state, 0.0, [0, 4, 0])
    offer(state, 0.2, [4, 0, 0], offered=False)
    offer(state, float("nan"), [0, 4, 0])
    assert not state.near_confident.any()
    assert state.near_distance.isinf().all()
