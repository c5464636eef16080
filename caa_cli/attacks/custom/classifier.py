"""What an attack of the user's sees of the smoothed classifier: its model, its votes and its gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from caa_cli.attacks.common.criterion import adversarial
from caa_cli.attacks.common.state import Example
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientRequest
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio, Slopes

# Tensors, or whatever torch.as_tensor takes.
Images = Any
Labels = Any


@dataclass
class Evaluations:
    """Model evaluations, forward and backward."""

    forward: int = 0
    backward: int = 0


def copied(classifier: SmoothedClassifier, count: Evaluations) -> SmoothedClassifier:
    """The classifier with copies of its models: whatever an attack does to them does not affect the run.

    Every row that passes through the copies, forwards or backwards, is added to `count`.
    """
    other = copy.copy(classifier)
    other.model, other.gradients = copy.deepcopy((classifier.model, classifier.gradients))
    differentiated = other.gradients.differentiated(other)
    for model in {other.model, differentiated or other.model}:
        model.register_forward_hook(_counter(count))
    return other


def _counter(count: Evaluations) -> Callable[[nn.Module, Any, Tensor], None]:
    def passed_back(gradient: Tensor) -> None:
        count.backward += len(gradient)

    def passed(model: nn.Module, inputs: Any, output: Tensor) -> None:
        count.forward += len(output)
        if output.requires_grad:
            output.register_hook(passed_back)

    return passed


class AttackedClassifier:
    """The smoothed classifier as one image's attack may use it. Images are (N, *input_shape) in [0, 1].

    samples, iterations: as --samples and --iterations say; `samples` is the default number of noise samples of every
    evaluation here. Each call draws fresh noise, which depends on the run's seed and on the attacked image alone.
    Raises UsageError for images of another shape, and where there is not one label an image.
    certified_radius: of the clean image, L2. starting_points: with --gradient votes, (M, *input_shape) images of
    other classes, nearest first; else None.
    """

    def __init__(
        self,
        classifier: SmoothedClassifier,
        example: Example,
        *,
        samples: int,
        iterations: int,
        alpha: float,
        bound: str,
        seed: int,
    ) -> None:
        self.smoothed, self._key = classifier, example.key(seed, Purpose.SEARCH)
        self.certified_radius, self.starting_points = example.certified_radius, example.starting_points
        self._alpha, self._bound = alpha, bound
        self.samples, self.iterations = samples, iterations
        self._calls = 0

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise."""
        return self.smoothed.sigma

    @property
    def num_classes(self) -> int:
        return self.smoothed.num_classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.smoothed.input_shape

    @property
    def device(self) -> torch.device:
        return self.smoothed.device

    @property
    def model(self) -> nn.Module:
        """The base classifier, or with --gradient surrogate-model the surrogate: images → logits (N, classes)
        float32, without noise, differentiable. Raises RuntimeError with --gradient votes."""
        model = self.smoothed.gradients.differentiated(self.smoothed)
        if model is None:
            raise RuntimeError("with --gradient votes an attack sees votes alone: use classifier.votes")
        return _Plain(model, self.smoothed.dtype)

    def votes(self, images: Images, samples: int | None = None) -> Tensor:
        """How many noise samples each class gets, (N, classes) int64."""
        x = self._images(images)
        return self.smoothed.keyed_votes(x, self._keys(len(x)), self._samples(samples))

    def is_adversarial(self, images: Images, labels: Labels, samples: int | None = None) -> Tensor:
        """Whether another class is confidently above the label, by the criterion of all attacks, (N,) bool."""
        n, votes = self._samples(samples), self.votes(images, samples)
        return adversarial(votes, self.smoothed.labels_on_device(labels, len(votes)), n, self._alpha, self._bound)

    def smoothed_logits(self, images: Images, samples: int | None = None) -> Tensor:
        """log p̄, the log of the mean softmax over the noise, without a gradient: (N, classes) float32."""
        x = self._images(images)
        return self.smoothed.log_mean(x, self._keys(len(x)), self._samples(samples))

    def gradient(self, images: Images, labels: Labels, samples: int | None = None) -> Tensor:
        """The gradient of log p̄_label − log p̄_rival, the most likely other class, like the images. Steps against it
        lead to the boundary."""
        x = self._images(images)
        classes, keys = self.smoothed.labels_on_device(labels, len(x)), self._keys(len(x))
        return self.smoothed.surrogate(x, classes, keys, self._samples(samples), LogRatio()).gradient

    def as_module(self, samples: int | None = None, fresh: bool = True) -> nn.Module:
        """The smoothed logits as a network, images → log p̄ (N, classes), through which gradients flow back: what the
        attacks of other libraries take for a model. fresh: new noise at every call; else always the same, so that
        the network is a fixed function."""
        return _Smoothed(self, self._samples(samples), None if fresh else self._keys(1)[0])

    def random_seed(self, number: int) -> int:
        """One of several seeds that depend on the run's and on the attacked image alone."""
        return replace(self._key, purpose=Purpose.PROPOSAL).block_seed(number)

    def _keys(self, rows: int) -> list[Key]:
        """The noise of one call, the same for all its images."""
        self._calls += 1
        return [replace(self._key, iteration=self._calls - 1)] * rows

    def _images(self, images: Images) -> Tensor:
        x = torch.as_tensor(images).detach().to(self.device, torch.float32)
        self.smoothed.check_images(x)
        return x

    def _samples(self, samples: int | None) -> int:
        """How many noise samples an evaluation takes. Raises UsageError for fewer than one."""
        count = self.samples if samples is None else samples
        self.smoothed.check_samples(count)
        return count


class _Plain(nn.Module):
    """A model of some dtype as one of float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.to(self.dtype))
        return logits.float()


class _Smoothed(nn.Module):
    """key: of the noise of every call; None: fresh noise for each."""

    def __init__(self, view: AttackedClassifier, samples: int, key: Key | None) -> None:
        super().__init__()
        self.view, self.samples, self.key = view, samples, key
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        keys = self.view._keys(len(images)) if self.key is None else [self.key] * len(images)
        logits: Tensor = _LogMean.apply(images, self.view.smoothed, keys, self.samples)
        return logits


class _LogMean(torch.autograd.Function):
    """log p̄ of images, with its vector–Jacobian product. Both passes go through the noise in chunks, so memory does
    not grow with the samples; the backward pass evaluates the same noise once more."""

    @staticmethod
    def forward(
        context: Any, images: Tensor, classifier: SmoothedClassifier, keys: Sequence[Key], samples: int
    ) -> Tensor:
        x = images.detach().float()
        log_mean = classifier.log_mean(x, keys, samples)
        context.save_for_backward(x, log_mean)
        context.classifier, context.keys, context.samples, context.dtype = classifier, keys, samples, images.dtype
        return log_mean.to(images.dtype)

    @staticmethod
    def backward(context: Any, *at_logits: Tensor) -> tuple[Tensor, None, None, None]:
        x, log_mean = context.saved_tensors
        (weights,) = at_logits
        weights = weights.float()

        def slopes(pilot: Tensor, rows: slice) -> Slopes:
            # ∂/∂p̄ = ∂/∂z / p̄ with z = log p̄ of all samples, which is known: no pilot is needed.
            log_slopes = weights[rows].abs().log() - log_mean[rows]
            return log_slopes.nan_to_num(nan=-torch.inf)[None], weights[rows].sign()[None]

        request = GradientRequest(LogRatio(), slopes, pilot=1)
        passed = context.classifier.gradients.gradients(context.classifier, x, context.keys, context.samples, request)
        return passed.single().gradient.to(context.dtype), None, None, None
