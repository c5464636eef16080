"""The pilot of a pass with gradients: its first samples, at whose mean prediction the slopes are taken."""

from __future__ import annotations

import torch
from torch import Tensor

from caa_cli.smoothing.chunks import Piece
from caa_cli.smoothing.objective import log_mean_probability
from caa_cli.smoothing.soft_model import Evaluated, SoftModel


class Pilot:
    """Evaluates the pieces of a pass, and the pilot before the first piece that needs it.

    The first of several chunks has its slopes only when the whole pilot has been evaluated. So the chunks of the
    pilot are evaluated ahead and wait, with their graphs, for their turn: as many as memory allows
    (`NoisyModel.limit_graphs`). The rest of the pilot is evaluated without a graph, and a second time in its turn.
    """

    def __init__(self, model: SoftModel, pilot: int, samples: int) -> None:
        """pilot: how many of an example's `samples` it takes, or all where there are fewer."""
        self.model = model
        self.pilot = min(pilot, samples)
        self.samples = samples
        self._ahead: dict[tuple[int, int, int], Evaluated] = {}

    def evaluate(self, piece: Piece) -> Evaluated:
        """The piece with its graph."""
        return self._ahead.pop(_place(piece), None) or self.model.evaluate(piece, graph=True)

    def log_mean(self, first: Piece) -> tuple[Tensor, int]:
        """log p̄ of the pilot for the examples whose first piece this is, (examples, classes) float32, and how many
        samples of each will have to be evaluated again."""
        alone, kept, again, parts = first.holds_first(self.pilot), 0, 0, []
        most = first.size if alone else self.model.classifier.limit_graphs()
        for start in range(0, self.pilot, first.num_samples):
            piece = first.at(start, self.samples)
            keep = kept + piece.size <= most
            if keep:
                evaluated = self.model.evaluate(piece, graph=True, lasting=not alone)
                self._ahead[_place(piece)] = evaluated
                kept += piece.size
            else:
                piece = first.at(start, self.pilot)
                evaluated = self.model.evaluate(piece, graph=False)
                again += piece.num_samples
            parts.append(evaluated.log_q)
        log_q = parts[0] if alone else torch.cat(parts, dim=1)
        return log_mean_probability(log_q[:, : self.pilot]), again

    def release(self) -> bool:
        """Drop what waits, and let nothing wait from now on, as memory does not allow it. Returns whether that frees
        any."""
        frees = bool(self._ahead and self.model.classifier.graphs)
        self._ahead.clear()
        if frees:
            self.model.classifier.graphs = 0
        return frees


def _place(piece: Piece) -> tuple[int, int, int]:
    return piece.examples.start, piece.samples.start, piece.samples.stop
