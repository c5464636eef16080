"""Starting points beyond the boundary, for attacks without gradients.

Where the label has every vote, votes show no direction. So the segment from the clean image to each of a few images
of other classes is bisected to where the label loses its lead, or the target gains it, with few votes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.common.state import Batch, Example, clean_images
from caa_cli.config.bounds import GOODMAN
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Purpose

# Votes of an evaluation, and evaluations along a segment: a hundredth of it is far less than a step of what follows.
SAMPLES, BISECTIONS = 64, 7
# The most images of other classes to begin with.
MOST_STARTING_POINTS = 9
# The level at which an image of another class counts as adversarial in the search.
ALPHA = 0.005


@dataclass
class Crossings:
    """The nearest crossings of each example, nearest first, at most C of them.

    point: (examples, C, dimensions), just beyond the boundary.  rival: (examples, C) int64, the leader there.
    exists: (examples, C) bool; where not, the point is the clean image.
    image: (examples, dimensions) the image at the end of the nearest one's segment; votes: (examples, classes) of it.
    evaluations: (examples,) int64 model evaluations, on the CPU.
    """

    point: Tensor
    rival: Tensor
    exists: Tensor
    image: Tensor
    votes: Tensor
    evaluations: Tensor


def crossing_evaluations() -> int:
    """The most model evaluations that `begin_beyond` takes of an image, all forward."""
    return MOST_STARTING_POINTS * SAMPLES * (BISECTIONS + 1)


def begin_beyond(
    state: Batch, examples: list[Example], classifier: SmoothedClassifier, count: int, seed: int
) -> Crossings:
    """Sets x of examples that have just joined to their nearest crossing; returns all crossings.

    The image at the end of its segment is remembered, so that there is a candidate whatever the search finds.
    """
    crossings = cross(examples, classifier, count, seed)
    state.forward += crossings.evaluations
    confident = state.aim.reached(crossings.votes, SAMPLES, ALPHA, GOODMAN) & crossings.exists[:, 0]
    state.x = crossings.image.view_as(state.x).clone()
    state.remember(confident, crossings.votes)
    state.x = crossings.point[:, 0].reshape(state.x.shape).clone()  # a copy, because x is written to
    return crossings


def cross(examples: list[Example], classifier: SmoothedClassifier, count: int, seed: int) -> Crossings:
    """Bisects the segments from each clean image to its starting points, on common noise, for `count` crossings."""
    clean = clean_images(examples).flatten(1)
    size = len(clean)
    crossings = Crossings(
        clean[:, None].repeat(1, count, 1),
        torch.zeros((size, count), dtype=torch.int64, device=clean.device),
        torch.zeros((size, count), dtype=torch.bool, device=clean.device),
        clean.clone(),
        torch.zeros((size, classifier.num_classes), dtype=torch.int64, device=clean.device),
        torch.zeros(size, dtype=torch.int64),
    )
    for row, example in enumerate(examples):
        if example.starting_points is None or len(example.starting_points) == 0:
            continue
        ends = example.starting_points.to(clean.device).flatten(1)
        point, rival, distance, votes = _bisect(example, ends, classifier, seed)
        for rank, end in enumerate(_nearest_of_each(distance, rival, count)):
            crossings.point[row, rank] = point[end]
            crossings.rival[row, rank] = rival[end]
            crossings.exists[row, rank] = True
            if rank == 0:
                crossings.image[row], crossings.votes[row] = ends[end], votes[end]
        crossings.evaluations[row] = len(ends) * SAMPLES * (BISECTIONS + 1)
    return crossings


def _bisect(
    example: Example, ends: Tensor, classifier: SmoothedClassifier, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bisects the segments from the clean image to these images, (M, dimensions), all at once.

    Returns (the points just beyond the boundary, (M, dimensions); the class that leads at each; their distances from
    the clean image, inf where the end is not beyond the boundary; the votes at the ends, (M, classes)).
    """
    clean, keys = example.image.flatten(), [example.key(seed, Purpose.START)] * len(ends)

    def votes_at(share: Tensor) -> Tensor:
        points = torch.lerp(clean, ends, share[:, None]).view(-1, *classifier.input_shape)
        return classifier.keyed_votes(points, keys, SAMPLES)

    def beyond(leader: Tensor) -> Tensor:
        return leader != example.label if example.target is None else leader == example.target

    low, high = torch.zeros_like(ends[:, 0]), torch.ones_like(ends[:, 0])
    at_ends = votes_at(high)
    rival = at_ends.argmax(dim=1)
    crosses = beyond(rival)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        leader = votes_at(middle).argmax(dim=1)
        over = beyond(leader)
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
        rival = torch.where(over, leader, rival)
    distance = torch.where(crosses, high * (ends - clean).norm(dim=1), torch.inf)
    return torch.lerp(clean, ends, high[:, None]), rival, distance, at_ends


def _nearest_of_each(distance: Tensor, rival: Tensor, count: int) -> list[int]:
    """Up to `count` numbers of segments with a finite distance, nearest first, one for each rival."""
    chosen: dict[int, int] = {}
    for length, number, other in sorted(zip(distance.tolist(), range(len(distance)), rival.tolist(), strict=True)):
        if length < math.inf:
            chosen.setdefault(other, number)
    return list(chosen.values())[:count]
