"""A model, its noisy inputs and its votes, in chunks that fit the memory."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from caa_cli.errors import CaaError, UsageError
from caa_cli.runtime.memory import is_out_of_memory
from caa_cli.runtime.words import counted, sizes
from caa_cli.smoothing.chunks import Piece, plan_pieces
from caa_cli.smoothing.depthwise import use_dense_gradients
from caa_cli.smoothing.noise import Key, NoiseSource
from caa_cli.smoothing.recompute import graph_bytes, recompute_activations
from caa_cli.smoothing.small_maps import use_matrices

E = TypeVar("E", bound="NoisyModel")
# Graphs of so many bytes may be kept at a time, where that saves evaluations.
_GRAPH_BYTES = 2 * 2**30
# `to(dtype)` would take the imaginary part from a model's complex tensors.
_CASTS: dict[torch.dtype, Callable[[nn.Module], nn.Module]] = {
    torch.float16: nn.Module.half,
    torch.bfloat16: nn.Module.bfloat16,
    torch.float32: nn.Module.float,
    torch.float64: nn.Module.double,
}


class Scratch(threading.local):
    """Memory that passes write their noisy inputs into, a thread its own. Classifiers of one model share it, so none
    holds it twice."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[tuple[str, torch.dtype], Tensor] = {}

    def __reduce__(self) -> tuple[type[Scratch], tuple[torch.device]]:
        return Scratch, (self._device,)  # a copy begins without memory

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor of this shape in the memory of this name; what was there is overwritten."""
        elements, key = math.prod(shape), (name, dtype)
        if key not in self._held or self._held[key].numel() < elements:
            self._held[key] = torch.empty(elements, device=self._device, dtype=dtype)
        return self._held[key][:elements].view(shape)

    def drop(self) -> None:
        """Gives the memory back."""
        self._held.clear()


class NoisyModel:
    """What every pass over noisy inputs needs: the model, σ, the keyed noise, votes, and work cut into chunks.

    `model` maps (batch, *input_shape) in [0, 1] pixel units to logits (batch, classes) and includes the
    normalisation, so that noise is added before it. Memory does not grow with the number of samples: a pass holds
    one chunk of noisy inputs, at most `votes_chunk` (or `gradient_chunk`) of them, of any examples.
    Running out of memory halves the chunk; the noise stays the same.
    """

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
        """Raises UsageError for a σ or a dtype that can't be used."""
        if not 0.0 < sigma < math.inf:
            raise UsageError(f"sigma must be above 0, not {sigma}", "for instance sigma=0.5")
        if dtype not in _CASTS:
            raise UsageError(f"dtype is {dtype!r}", f"give one of {', '.join(map(str, _CASTS))}")
        self.device = torch.device(device)
        self.dtype = dtype
        self.model = frozen(model, self.device, dtype)
        self.sigma = float(sigma)
        self.num_classes = num_classes
        self.input_shape = tuple(input_shape)
        self.votes_chunk = votes_chunk
        self.gradient_chunk = gradient_chunk
        # The most samples whose graphs may be kept where a chunk is smaller; None: not measured yet.
        self.graphs: int | None = None
        self.noise = NoiseSource(self.input_shape, self.device)
        self.memory_format = torch.contiguous_format
        # The name under which measured chunk sizes are kept.
        self.arch = type(model).__name__
        # By number; empty where they are not known.
        self.class_names: tuple[str, ...] = ()
        # Where the chunk sizes come from, for the record.
        self.chosen = "set"
        self._scratch = Scratch(self.device)
        # Whether blocks recompute their activations, and who is told when they begin to.
        self.recomputes = False
        self.notify: Callable[[str], None] = _ignore

    def __repr__(self) -> str:
        shape, dtype = sizes(self.input_shape), str(self.dtype).removeprefix("torch.")
        name = f"{type(self).__name__}: {self.arch}, σ = {self.sigma:g}"
        return f"<{name}, {counted(self.num_classes, 'class')} of {shape} images, {dtype} on {self.device}>"

    def with_sigma(self: E, sigma: float) -> E:
        """The same classifier smoothed with another σ; the model is shared, the chunk sizes are not."""
        if sigma == self.sigma:
            return self
        other = copy.copy(self)
        other.sigma = float(sigma)
        return other

    def lay_out(self, memory_format: torch.memory_format) -> None:
        """Puts weights and inputs in this layout: contiguous or channels-last, whichever is faster for the model. The
        noise stays the same; logits may change in their last bits."""
        self.model.to(memory_format=memory_format)
        self.memory_format = memory_format

    def describe(self) -> dict[str, object]:
        """Chunk sizes and layout, for the record; they change no result beyond its last bits."""
        return {
            "votes_chunk": self.votes_chunk,
            "gradient_chunk": self.gradient_chunk,
            "memory_format": "channels_last" if self.memory_format == torch.channels_last else "contiguous",
            "chosen": self.chosen,
            **({"activations": "recomputed"} if self.recomputes else {}),
        }

    def keyed_votes(self, x: Tensor, keys: Sequence[Key], samples: int, start: int = 0) -> Tensor:
        """Hard votes of `samples` noise draws: x (examples, *input_shape) → (examples, classes) int64.

        keys: the noise of each example. start: how many draws of these keys have been counted before. A draw whose
        logits hold a NaN abstains: a row then sums to less than `samples`.
        """
        x = self.on_device(x)
        counts = self.no_counts(len(x))
        if samples < 1:
            raise UsageError(f"samples = {samples}: there are no votes without samples", "samples=1000")

        def process(piece: Piece) -> None:
            winner = self.vote(self.noisy(x, keys, piece), piece)
            count_votes(counts[piece.examples], winner)

        self.votes_chunk = self.run(process, len(x), samples, self.votes_chunk, start)
        return counts[:, : self.num_classes]

    def on_device(self, images: Tensor) -> Tensor:
        """The images, also from an array, on the device. Raises UsageError as `check_images` does."""
        x = torch.as_tensor(images).detach().to(self.device)
        self.check_images(x)
        return x

    def check_images(self, x: Tensor) -> None:
        """Raises UsageError unless these are (examples, *input_shape) and floating-point."""
        if x.shape[1:] != self.input_shape:
            takes = ", ".join(map(str, self.input_shape))
            raise UsageError(f"images has the shape {tuple(x.shape)}", f"the model takes (N, {takes})")
        if not x.is_floating_point():
            raise UsageError(f"images has the dtype {x.dtype}", "give floating-point pixels in [0, 1]: images / 255")

    def no_counts(self, examples: int) -> Tensor:
        """Zeros (examples, classes + 1) int64: one column a class, and a last one for abstentions."""
        return torch.zeros((examples, self.num_classes + 1), dtype=torch.int64, device=self.device)

    def vote(self, noisy: Tensor, piece: Piece) -> Tensor:
        """The model's vote on each noisy input of a piece, as `votes_of` gives it."""
        with torch.no_grad():
            return votes_of(self.model(noisy), piece)

    def run(
        self,
        process: Callable[[Piece], None],
        examples: int,
        samples: int,
        chunk: int,
        start: int = 0,
        release: Callable[[], bool] = lambda: False,
    ) -> int:
        """Calls `process` on every piece of the work; returns the chunk size that memory allowed.

        A piece changes nothing before its last allocation, so one that ran out of memory is cut up and done again.
        release: frees memory that `process` holds from piece to piece, and says whether there was any; then the piece
        is done again as it is.
        """
        if self.model.training:  # a caller may have trained it on meanwhile
            self.model.eval()
        pieces = plan_pieces(examples, samples, chunk, self.noise.block, start)
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
            if not release():
                chunk = self._smaller(piece.size)
            pieces.appendleft(piece)
        return chunk

    def recompute(self) -> bool:
        """Make a backward pass keep less, or still less, where it can: whether it does. Gradients stay the same."""
        if not recompute_activations(self.differentiated, self.grey()):
            return False
        if not self.recomputes:
            self.notify("activations are computed again in each backward pass: the graph of one sample does not fit")
        self.recomputes = True
        return True

    def limit_graphs(self) -> int:
        """The most samples whose graphs may be kept at a time, where a chunk is smaller; measured if not set."""
        if self.graphs is None:
            self.graphs = _GRAPH_BYTES // max(1, graph_bytes(self.differentiated, self.grey()))
        return self.graphs

    def grey(self) -> Tensor:
        """A grey input, (1, *input_shape), as the model takes it."""
        return torch.full((1, *self.input_shape), 0.5, device=self.device, dtype=self.dtype)

    @property
    def differentiated(self) -> nn.Module:
        """The model whose backward passes there are."""
        return self.model

    def _smaller(self, size: int) -> int:
        if size == 1 and not self._recomputes_now():
            raise CaaError(
                f"one noise sample of this model does not fit in the memory of {self.device}",
                "free memory there, or raise --max-memory where it is set"
                + ("" if self.device.type == "cpu" else ", or choose another device with --device cpu"),
            )
        self._scratch.drop()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return max(1, size // 2)

    def _recomputes_now(self) -> bool:
        try:
            return self.recompute()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False

    def noisy(self, x: Tensor, keys: Sequence[Key], piece: Piece) -> Tensor:
        """x + σ·noise for a piece, (piece.size, *input_shape), as the model takes it: of its dtype and in its layout.

        The result lies in a buffer that the next piece overwrites. The noise is drawn as float32 in one order of
        pixels, whatever the layout; the sum is written where the model reads it, to save a copy.
        """
        shape = (piece.num_examples, piece.num_samples, *self.input_shape)
        noise = self._scratch.take("noise", shape, torch.float32)
        self.noise.gaussian(noise, keys[piece.examples], piece.samples.start, self.sigma)
        noisy, last = noise, self.memory_format == torch.channels_last
        if self.dtype != noise.dtype or (last and self.input_shape[0] > 1):
            channels, *pixels = self.input_shape
            noisy = self._scratch.take("laid out", (*shape[:2], *pixels, channels) if last else shape, self.dtype)
            noisy = noisy.movedim(-1, 2) if last else noisy
        torch.add(noise, x[piece.examples, None], out=noisy)
        return noisy.flatten(0, 1).detach()


def _ignore(notice: str) -> None:
    """What is told to nobody."""


def frozen(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The model on this device, in evaluation mode; its parameters take no gradients any more."""
    model = _CASTS[dtype](model).to(device).eval().requires_grad_(False)
    use_dense_gradients(model)
    use_matrices(model)
    return model


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
