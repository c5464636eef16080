"""Where an attack without gradients begins: on the boundary, on the way to an image of another class.

Where the label has every vote, votes say nothing of a direction. So images of other classes are taken, and the
segment from the clean image to each is bisected to where the label loses its lead: votes alone, and few of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.judge import adversarial
from caa_cli.attacks.loop import Batch, Example
from caa_cli.config.bounds import GOODMAN
from caa_cli.smoothing.bounds import leader
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose

# Votes a look, and looks along a segment: its hundredth part is far less than a step of what follows.
LOOK, LOOKS = 64, 7
# Images of other classes to begin with, at most.
MOST_OTHERS = 9
# For the image at the end of the way to count as adversarial in the search; proof is for `verify`.
ALPHA = 0.005


@dataclass
class Crossings:
    """The nearest crossings of each example, nearest first: (examples, C) rows, C = `count`.

    point: (examples, C, dimensions), just beyond the boundary.  rival: (examples, C) int64, the leader there.
    found: (examples, C) bool; where not, the point is the clean image.
    image: (examples, dimensions) the image at the end of the nearest one's way; votes: (examples, classes) of it.
    evaluations: (examples,) int64 model evaluations.
    """

    point: Tensor
    rival: Tensor
    found: Tensor
    image: Tensor
    votes: Tensor
    evaluations: Tensor


def begin_beyond(
    state: Batch, examples: list[Example], classifier: SmoothedClassifier, count: int, seed: int
) -> Crossings:
    """Crosses the boundary for examples that have just joined: x is the nearest crossing.

    What is remembered is the image that it was found on the way to, so that there is something to prove whatever
    comes of the search.
    """
    crossings = cross(examples, classifier, count, seed)
    state.forward += crossings.evaluations
    rows = torch.arange(len(state), device=state.x.device)
    confident = adversarial(crossings.votes, state.labels, LOOK, ALPHA, GOODMAN) & crossings.found[:, 0]
    state.x = crossings.image.view_as(state.x).clone()
    state.remember(rows[confident], crossings.votes[confident])
    state.x = crossings.point[:, 0].reshape(state.x.shape).clone()  # no view: x is written to
    return crossings


def cross(examples: list[Example], classifier: SmoothedClassifier, count: int, seed: int) -> Crossings:
    """Bisects the way from each clean image to its `others`, on common noise."""
    clean = torch.stack([example.image for example in examples]).flatten(1)
    size = len(clean)
    found = Crossings(
        clean[:, None].repeat(1, count, 1),
        torch.zeros((size, count), dtype=torch.int64, device=clean.device),
        torch.zeros((size, count), dtype=torch.bool, device=clean.device),
        clean.clone(),
        torch.zeros((size, classifier.num_classes), dtype=torch.int64, device=clean.device),
        torch.zeros(size, dtype=torch.int64, device=clean.device),
    )
    for row, example in enumerate(examples):
        if example.others is None or len(example.others) == 0:
            continue
        others = example.others.to(clean.device).flatten(1)
        key = Key(seed, example.index, Purpose.START)

        def look(share: Tensor, others: Tensor = others, row: int = row, key: Key = key) -> tuple[Tensor, Tensor]:
            """(votes, the class with the most of them) at these shares of the ways."""
            at = torch.lerp(clean[row], others, share[:, None]).view(-1, *classifier.input_shape)
            votes = classifier.votes(at, [key] * len(at), LOOK)
            found.evaluations[row] += LOOK * len(at)
            return votes, torch.from_numpy(leader(votes.cpu().numpy())).to(clean.device)

        low, high = torch.zeros(len(others), device=clean.device), torch.ones(len(others), device=clean.device)
        votes, rival = look(high)
        beyond = rival != example.label
        for _ in range(LOOKS):
            middle = 0.5 * (low + high)
            _, top = look(middle)
            over = top != example.label
            low, high = torch.where(over, low, middle), torch.where(over, middle, high)
            rival = torch.where(over, top, rival)
        distance = torch.where(beyond, high * (others - clean[row]).norm(dim=1), torch.inf)
        for place, other in enumerate(_nearest_of_each(distance, rival, count)):
            found.point[row, place] = torch.lerp(clean[row], others[other], high[other])
            found.rival[row, place] = rival[other]
            found.found[row, place] = True
            if place == 0:
                found.image[row], found.votes[row] = others[other], votes[other]
    return found


def _nearest_of_each(distance: Tensor, rival: Tensor, count: int) -> list[int]:
    """Up to `count` places with a finite distance, nearest first, one for each rival."""
    chosen: dict[int, int] = {}
    for place in distance.argsort().tolist():
        if distance[place] < torch.inf:
            chosen.setdefault(int(rival[place]), place)
    return list(chosen.values())[:count]
