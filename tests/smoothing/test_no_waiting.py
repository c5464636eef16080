"""A pass never waits for its device: on one, a question of the host about a tensor's values would drain its queue."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from networks import SmallNet
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from caa_cli.attacks.caa.balls import Balls
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.logit_ratio import LogitRatio
from caa_cli.smoothing.noise import Key, NoiseSource, Purpose
from caa_cli.smoothing.objective import CrossEntropy, GumbelGap, LogRatio, Objective
from caa_cli.smoothing.wiener import wiener_filter

KEYS = [Key(0, index, Purpose.SEARCH) for index in range(3)]


class NoGenerator(NoiseSource):
    """Meta tensors have no generator."""

    def __init__(self, input_shape: Sequence[int], device: torch.device) -> None:
        self.block = 64

    def gaussian(self, out: Tensor, keys: Sequence[Key], start: int, sigma: float) -> None:
        out.zero_()

    def gumbel(self, out: Tensor, keys: Sequence[Key], start: int) -> None:
        out.zero_()


@pytest.fixture(autouse=True)
def _no_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caa_cli.smoothing.sampling.NoiseSource", NoGenerator)


def on_meta(dtype: torch.dtype = torch.float32) -> SmoothedClassifier:
    """On the device whose tensors have no values: whoever asks for one, or for how many there are, gets an error."""
    settings = {"sigma": 0.5, "num_classes": 3, "input_shape": (1, 8, 8), "votes_chunk": 50, "gradient_chunk": 50}
    return SmoothedClassifier(SmallNet(), device="meta", dtype=dtype, **settings)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_votes_are_counted_without_asking(dtype: torch.dtype, layout: torch.memory_format):
    classifier = on_meta(dtype)
    classifier.lay_out(layout)
    votes = classifier.keyed_votes(torch.empty(3, 1, 8, 8, device="meta"), KEYS, 700)
    assert votes.is_meta
    assert votes.shape == (3, 3)


@pytest.mark.parametrize("objective", [LogRatio(), GumbelGap(), CrossEntropy(), LogitRatio()], ids=str)
def test_a_gradient_is_taken_without_asking(objective: Objective):
    x, labels = torch.empty(3, 1, 8, 8, device="meta"), torch.empty(3, dtype=torch.int64, device="meta")
    passed = on_meta().surrogate(x, labels, KEYS, 130, objective)
    assert passed.gradient.is_meta
    rivals = torch.empty(3, 2, dtype=torch.int64, device="meta")
    assert on_meta().rival_gradients(x, labels, rivals, KEYS, 130).gradient.shape == (3, 2, 1, 8, 8)
    along = torch.empty(3, 64, device="meta")
    assert on_meta().towards(x, labels, rivals[:, 0], KEYS, 130, along).moments.shape == (3, 4)
    assert on_meta().log_mean(x, KEYS, 130).shape == (3, 3)


class Questions(TorchDispatchMode):
    """Counts what would make the host wait: values asked for, and sizes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        masks = [
            t
            for part in args
            if isinstance(part, (list, tuple))
            for t in part
            if isinstance(t, Tensor) and t.dtype == torch.bool
        ]
        name = str(function)
        asked = ("_local_scalar_dense", "nonzero", "bincount", "unique")
        self.count += any(part in name for part in asked) or ("index" in name and bool(masks))
        return function(*args, **(kwargs or {}))


def test_a_gradient_is_filtered_without_asking_again_which_frequencies_there_are():
    gradient, variance = torch.randn(2, 3 * 8 * 6), torch.ones(2)
    wiener_filter(gradient, variance, (3, 8, 6))
    with Questions() as asked:
        wiener_filter(gradient, variance, (3, 8, 6))
    assert asked.count == 0


def test_balls_are_added_without_asking_how_many_there_are():
    balls, rows = Balls(4, 16, torch.device("cpu")), torch.arange(4)
    counts = []
    for step in range(63):
        with Questions() as asked:
            balls.add(torch.randn(4, 16), torch.where(rows % 2 == step % 2, 0.1, 0.0), rows < 2)
        counts.append(asked.count)
    assert sum(counts) <= 16, "only where the places may have run out"
    assert (balls.radii > 0).sum(dim=1).tolist() == [32, 31, 32, 31]
    assert balls.capacity == 32, "no more places than there are balls"
