"""The smoothed classifier: votes and surrogate gradients over noise drawn in chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caa_cli.errors import CaaError
from caa_cli.smoothing.chunks import Piece, plan_pieces
from caa_cli.smoothing.noise import Key, NoiseSource
from caa_cli.smoothing.objective import Objective, cotangent, log_mean_probability


@dataclass
class SurrogatePass:
    """One forward and backward pass over n noise samples of each example.

    votes: (examples, classes) int64, counted on the very samples that the gradient comes from.
    gradient: like x, ∂J/∂x of the objective, float32.
    forward_evaluations: (examples,) int64: n, and the pilot's where a chunk was too small to hold it.
    """

    votes: Tensor
    gradient: Tensor
    forward_evaluations: Tensor


class SmoothedClassifier:
    """f smoothed with N(0, σ²): g(x) = the class that f(x + noise) takes most often.

    `model` maps (batch, *input_shape) in [0, 1] pixel units to logits (batch, classes) and holds its own
    normalisation, so that noise comes before it. Memory does not grow with the number of samples: a pass holds
    one chunk of noisy inputs, at most `votes_chunk` (or `gradient_chunk`) of them, whoever they belong to.
    Running out of memory halves the chunk and goes on with the same noise.
    """

    # The samples whose mean prediction linearises the objective. On smoothed MNIST models the gradient is within
    # a fraction of a degree of the one that takes all 1,500 (docs/engine.md).
    PILOT = 128

    def __init__(
        self,
        model: nn.Module,
        *,
        sigma: float,
        num_classes: int,
        input_shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        votes_chunk: int = 256,
        gradient_chunk: int = 256,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = dtype
        self.model = model.to(device=self.device, dtype=dtype).eval().requires_grad_(False)
        self.sigma = float(sigma)
        self.num_classes = num_classes
        self.input_shape = tuple(input_shape)
        self.votes_chunk = votes_chunk
        self.gradient_chunk = gradient_chunk
        self.noise = NoiseSource(self.input_shape, self.device)
        self.memory_format = torch.contiguous_format
        self._buffer = torch.empty(0, device=self.device)

    def lay_out(self, memory_format: torch.memory_format) -> None:
        """Puts weights and inputs in this layout (contiguous or channels-last): some models are faster in the one,
        some in the other. The noise stays the same; logits may move in their last bits."""
        self.model.to(memory_format=memory_format)
        self.memory_format = memory_format

    def votes(self, x: Tensor, keys: Sequence[Key], samples: int) -> Tensor:
        """Hard votes of `samples` noise draws: x (examples, *input_shape) → (examples, classes) int64.

        A draw whose logits hold a NaN abstains: a row then sums to less than `samples`.
        """
        counts = self._no_counts(len(x))

        def process(piece: Piece) -> None:
            noisy = self._noisy(x, keys, piece)
            with torch.inference_mode():
                _add_votes(counts[piece.examples], self._logits(noisy), piece)

        self.votes_chunk = self._run(process, len(x), samples, self.votes_chunk)
        return counts[:, : self.num_classes]

    def surrogate(
        self,
        x: Tensor,
        labels: Tensor,
        keys: Sequence[Key],
        samples: int,
        objective: Objective,
        pilot: int | None = None,
    ) -> SurrogatePass:
        """The gradient of `objective` at x, with the votes of the same samples.

        The objective's slopes ∂J/∂p̄ are taken at the mean prediction of the first `pilot` samples, whatever the
        chunk size; with pilot = samples the result is the gradient of J itself. The pilot costs no model
        evaluation unless a chunk is smaller than it.
        """
        pilot = min(samples, self.PILOT if pilot is None else pilot)
        counts = self._no_counts(len(x))
        gradient = torch.zeros(x.shape, device=self.device)
        evaluations = torch.full((len(x),), samples, dtype=torch.int64, device=self.device)
        slopes: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        scale = 1.0 / (samples * objective.temperature)

        def process(piece: Piece) -> None:
            whose = (piece.examples.start, piece.examples.stop)
            if whose not in slopes and not piece.holds_first(pilot):
                slopes[whose] = self._pilot_slopes(x, labels, keys, piece, pilot, objective)
                evaluations[piece.examples] += pilot
            noisy = self._noisy(x, keys, piece).requires_grad_(True)
            with torch.enable_grad():
                logits = self._logits(noisy)
            log_q = self._log_q(logits.detach(), keys, piece, objective)
            if whose not in slopes:
                log_mean = log_mean_probability(log_q[:, :pilot])
                slopes[whose] = objective.slopes(log_mean, labels[piece.examples])
            at_logits = cotangent(log_q, slopes[whose], scale).flatten(0, 1).to(logits.dtype)
            (at_inputs,) = torch.autograd.grad(logits, noisy, at_logits)
            # A sample that abstains has no say in the gradient either.
            at_inputs = torch.nan_to_num(at_inputs, nan=0.0).float()
            total = at_inputs.view(piece.num_examples, piece.num_samples, *self.input_shape).sum(dim=1)
            _add_votes(counts[piece.examples], logits.detach(), piece)
            gradient[piece.examples] += total

        self.gradient_chunk = self._run(process, len(x), samples, self.gradient_chunk)
        return SurrogatePass(counts[:, : self.num_classes], gradient, evaluations)

    def _run(self, process: Callable[[Piece], None], examples: int, samples: int, chunk: int) -> int:
        """Calls `process` on every piece of the work; returns the chunk size that memory allowed.

        A piece changes nothing before its last allocation, so one that ran out of memory is cut up and done again.
        """
        pieces = plan_pieces(examples, samples, chunk, self.noise.block)
        while pieces:
            piece = pieces.popleft()
            if piece.size > chunk:
                pieces.extendleft(reversed(piece.cut(chunk, self.noise.block)))
                continue
            try:
                process(piece)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the except clause, whose traceback would keep the failed piece's tensors alive.
            chunk = self._smaller(piece.size)
            pieces.appendleft(piece)
        return chunk

    def _smaller(self, size: int) -> int:
        if size == 1:
            raise CaaError(
                f"one noise sample of this model does not fit in the memory of {self.device}",
                "free memory there, or choose another device with --device cpu",
            )
        self._buffer = torch.empty(0, device=self.device)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return size // 2

    def _no_counts(self, examples: int) -> Tensor:
        """One column a class, and a last one for abstentions."""
        return torch.zeros((examples, self.num_classes + 1), dtype=torch.int64, device=self.device)

    def _noisy(self, x: Tensor, keys: Sequence[Key], piece: Piece) -> Tensor:
        """x + σ·noise for a piece: (piece.size, *input_shape), in a buffer that the next piece overwrites."""
        shape = (piece.num_examples, piece.num_samples, *self.input_shape)
        elements = torch.Size(shape).numel()
        if self._buffer.numel() < elements:
            self._buffer = torch.empty(elements, device=self.device)
        noisy = self._buffer[:elements].view(shape)
        self.noise.gaussian(noisy, keys[piece.examples], piece.samples.start, self.sigma)
        noisy += x[piece.examples, None]
        return noisy.flatten(0, 1).detach()

    def _logits(self, noisy: Tensor) -> Tensor:
        return self.model(noisy.to(dtype=self.dtype, memory_format=self.memory_format))

    def _log_q(self, logits: Tensor, keys: Sequence[Key], piece: Piece, objective: Objective) -> Tensor:
        """Soft predictions of a piece's samples: log q, (examples, samples, classes) float32."""
        shaped = logits.float().view(piece.num_examples, piece.num_samples, self.num_classes)
        if objective.gumbel:
            draws = torch.empty_like(shaped)
            self.noise.gumbel(draws, keys[piece.examples], piece.samples.start)
            shaped = torch.log_softmax(shaped, dim=2) + draws
        log_q = torch.log_softmax(shaped / objective.temperature, dim=2)
        # An abstaining sample has no probability for any class.
        return torch.where(log_q.isnan(), -torch.inf, log_q)

    def _pilot_slopes(
        self,
        x: Tensor,
        labels: Tensor,
        keys: Sequence[Key],
        piece: Piece,
        pilot: int,
        objective: Objective,
    ) -> tuple[Tensor, Tensor]:
        """The slopes for a piece that does not hold the whole pilot: extra forward passes."""
        parts = []
        for part in piece.first(pilot).cut(piece.size, self.noise.block):
            with torch.no_grad():
                logits = self._logits(self._noisy(x, keys, part))
            parts.append(self._log_q(logits, keys, part, objective))
        log_mean = log_mean_probability(torch.cat(parts, dim=1))
        return objective.slopes(log_mean, labels[piece.examples])


def _add_votes(counts: Tensor, logits: Tensor, piece: Piece) -> None:
    """Adds each sample's vote to its example's row of `counts`, in place and as the last thing."""
    # The maximum is NaN if any logit is; argmax alone would make that NaN a vote.
    top, winner = logits.max(dim=1)
    winner = torch.where(top.isnan(), counts.shape[1] - 1, winner)
    winner = winner.view(piece.num_examples, piece.num_samples)
    counts.scatter_add_(1, winner, torch.ones_like(winner))


# What other layers than PyTorch's own allocator say when memory runs out.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "could not create a memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device, or this machine, has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error) for text in _OUT_OF_MEMORY)
