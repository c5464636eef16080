"""A model, its noisy inputs and its votes, in chunks that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from caa_cli.errors import CaaError, UsageError
from caa_cli.runtime.memory import is_out_of_memory
from caa_cli.runtime.words import counted
from caa_cli.smoothing.arguments import (
    check_is_network,
    check_whole_numbers,
    checked_classes,
    checked_device,
    checked_shape,
    checked_sigma,
)
from caa_cli.smoothing.chunks import Piece, plan_pieces
from caa_cli.smoothing.frozen import frozen, use_faster_layers
from caa_cli.smoothing.noise import Key, NoiseSource
from caa_cli.smoothing.recompute import graph_bytes, recompute_activations
from caa_cli.smoothing.scratch import Scratch
from caa_cli.smoothing.votes import count_votes, votes_of

# Graphs of so many bytes may be kept at a time, where that saves evaluations.
_GRAPH_BYTES = 2 * 2**30


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
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        votes_chunk: int = 256,
        gradient_chunk: int = 256,
    ) -> None:
        """Raises UsageError for a setting that can't be used."""
        check_is_network(model)
        for name, chunk in (("votes_chunk", votes_chunk), ("gradient_chunk", gradient_chunk)):
            if chunk < 1:
                raise UsageError(f"{name} must be at least 1, not {chunk}", "leave it out, or give fewer samples")
        self.sigma = checked_sigma(sigma)
        self.num_classes = checked_classes(num_classes)
        self.input_shape = checked_shape(input_shape)
        self.device = checked_device(device, model)
        self.dtype = dtype
        self.model = frozen(model, self.device, dtype)
        self.votes_chunk = votes_chunk
        self.gradient_chunk = gradient_chunk
        # The most samples whose graphs may be kept where a chunk is smaller; None: not measured yet.
        self.graphs: int | None = None
        self.noise = NoiseSource(self.input_shape, self.device)
        self.memory_format = torch.contiguous_format
        self._scratch = Scratch(self.device)
        # Whether blocks recompute their activations, and who is told when they begin to.
        self.recomputes = False
        self.notify: Callable[[str], None] = _ignore

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy is as fast as the original, and equal to it to the last bit."""
        self.__dict__.update(state)
        for model in (self.model, self.differentiated):
            use_faster_layers(model)

    def keyed_votes(self, x: Tensor, keys: Sequence[Key], samples: int, start: int = 0) -> Tensor:
        """Hard votes of `samples` noise draws: x (examples, *input_shape) → (examples, classes) int64.

        keys: the noise of each example. start: how many draws of these keys have been counted before. A draw whose
        logits hold a NaN abstains: a row then sums to less than `samples`.
        """
        x = self.on_device(x)
        counts = self.no_counts(len(x))
        self.check_samples(samples)

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

    def labels_on_device(self, labels: Tensor, images: int) -> Tensor:
        """The labels of so many images, also from an array, (images,) int64 on the device. Raises UsageError as
        `check_labels` does."""
        y = torch.as_tensor(labels)
        self.check_labels(y, images)
        return y.to(self.device, torch.int64)

    def check_labels(self, labels: Tensor, images: int) -> None:
        """Raises UsageError unless these are the numbers of so many images' classes, (images,)."""
        check_whole_numbers("labels", labels, images)
        wrong = labels[(labels < 0) | (labels >= self.num_classes)]
        if len(wrong):
            raise UsageError(
                f"labels holds {int(wrong[0])}", f"the model knows the classes 0 to {self.num_classes - 1}"
            )

    @staticmethod
    def check_samples(samples: int) -> None:
        """Raises UsageError for fewer than one."""
        if samples < 1:
            raise UsageError(f"samples = {samples}: there are no votes without samples", "samples=1000")

    def no_counts(self, examples: int) -> Tensor:
        """Zeros (examples, classes + 1) int64: one column a class, and a last one for abstentions."""
        return torch.zeros((examples, self.num_classes + 1), dtype=torch.int64, device=self.device)

    def vote(self, noisy: Tensor, piece: Piece) -> Tensor:
        """The model's vote on each noisy input of a piece, as `votes_of` gives it."""
        with torch.no_grad():
            logits = self.model(noisy)
        self.check_logits(logits, piece)
        return votes_of(logits, piece)

    def check_logits(self, logits: Tensor, piece: Piece) -> None:
        """Raises UsageError unless there is one logit for each class: of others votes would be for another class."""
        shape, wanted = tuple(logits.shape), (piece.size, self.num_classes)
        if shape != wanted:
            raise UsageError(
                f"the network gives a tensor of shape {shape} for {counted(piece.size, 'image')}, not {wanted}",
                "num_classes is the number of its logits",
            )

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
        for model in {self.model, self.differentiated}:  # a caller may have trained them on meanwhile
            if model.training:
                model.eval()
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
        """Let backward passes compute activations again, or more of them than before, instead of keeping them.
        Returns whether there are any more; gradients stay the same."""
        if not recompute_activations(self.differentiated, self.grey()):
            return False
        if not self.recomputes:
            self.notify("activations are computed again in each backward pass: the graph of one sample does not fit")
        self.recomputes = True
        return True

    def limit_graphs(self) -> int:
        """`graphs`, which is measured where it is not known yet."""
        if self.graphs is None:
            self.graphs = _GRAPH_BYTES // max(1, graph_bytes(self.differentiated, self.grey()))
        return self.graphs

    def grey(self) -> Tensor:
        """A grey input, (1, *input_shape), as the model takes it."""
        return torch.full((1, *self.input_shape), 0.5, device=self.device, dtype=self.dtype)

    @property
    def differentiated(self) -> nn.Module:
        """The model that gradients are taken of, by backward passes."""
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
