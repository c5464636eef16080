"""What only a real GPU can show: its arithmetic, its noise, its memory, and that nothing waits for it in vain."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu import HostNoise, assert_near, needs_gpu
from step_counts import begin_search, demo_classifier
from support import attack, read_strict, start, timeless
from torch import Tensor, nn

from caa_cli.config.attacks import ATTACKS
from caa_cli.data.datasets import open_dataset
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.composite import ResizedClassifier
from caa_cli.runtime.device import in_mode, open_device
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, NoiseSource, Purpose
from caa_cli.smoothing.objective import CrossEntropy, GumbelGap, LogRatio, Objective

pytestmark = needs_gpu
CUDA = torch.device("cuda:0")
KEYS = [Key(0, index, Purpose.SEARCH) for index in range(3)]
LABELS = [7, 2, 1]


@pytest.fixture(autouse=True)
def _all_memory() -> None:
    """A command with --max-memory may have run in this process."""
    torch.cuda.set_per_process_memory_fraction(1.0)


def images(device: torch.device | str = CUDA) -> Tensor:
    data = open_dataset("demo", None, "test")
    return torch.stack([data.image(index) for index in range(3)]).to(device)


def on(device: torch.device | str, dtype: torch.dtype = torch.float32, chunk: int = 512) -> SmoothedClassifier:
    """The demo in this precision, with the CPU's noise."""
    classifier = demo_classifier(str(device), chunk, dtype=dtype)
    classifier.noise = HostNoise(classifier.input_shape, 256)
    return classifier


# How far a precision may be from float64: votes that differ, of 1,000, and the relative error of a gradient.
PRECISIONS = {
    "float64": (0, 1e-6),
    "float32": (1, 1e-4),
    "tf32": (4, 1e-2),
    "float16": (4, 1e-2),
    "bfloat16": (30, 0.1),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("mode", PRECISIONS)
def test_votes_and_gradients_are_those_of_the_cpu(mode: str, layout: torch.memory_format):
    votes_off, error = PRECISIONS[mode]
    exact = on("cpu", torch.float64)
    labels = torch.tensor(LABELS)
    expected = exact.surrogate(images("cpu"), labels, KEYS, 1000, LogRatio())
    with in_mode(mode):
        classifier = on(CUDA, torch.float32 if mode == "tf32" else getattr(torch, mode))
        classifier.lay_out(layout)
        votes = classifier.keyed_votes(images(), KEYS, 1000)
        passed = classifier.surrogate(images(), labels.to(CUDA), KEYS, 1000, LogRatio())
    assert torch.equal(votes.sum(1).cpu(), torch.full((3,), 1000))
    for found in (votes, passed.votes):
        assert int((found.cpu() - expected.votes).abs().max()) <= votes_off
    off = (passed.gradient.cpu() - expected.gradient).flatten(1).norm(dim=1) / expected.gradient.flatten(1).norm(
        dim=1
    )
    assert float(off.max()) < error
    torch.testing.assert_close(passed.log_mean.cpu(), expected.log_mean, rtol=10 * error, atol=10 * error)


def test_noise_is_normal_and_a_function_of_its_key_alone():
    source = NoiseSource((3, 32, 32), CUDA)
    whole = torch.empty((3, 1000, 3, 32, 32), device=CUDA)
    source.gaussian(whole, KEYS, 0, 0.5)
    part = torch.empty((1, 300, 3, 32, 32), device=CUDA)
    source.gaussian(part, KEYS[1:2], 450, 0.5)
    assert torch.equal(part[0], whole[1, 450:750])
    values = whole.double() / 0.5
    error = 1 / math.sqrt(values.numel())
    assert abs(float(values.mean())) < 5 * error
    assert abs(float(values.var()) - 1) < 5 * error * math.sqrt(2)
    assert abs(float((values**4).mean()) - 3) < 5 * error * math.sqrt(96)
    # No two samples are alike: all products of different ones are small.
    samples = values[:, ::10].reshape(300, -1)
    products = (samples @ samples.T).fill_diagonal_(0.0) / samples.shape[1]
    assert float(products.abs().max()) < 7 / math.sqrt(samples.shape[1])


def test_the_chunk_changes_no_vote_and_no_gradient():
    labels = torch.tensor(LABELS, device=CUDA)
    votes, gradients = [], []
    for chunk in (4096, 1000, 300, 37):
        classifier = on(CUDA, chunk=chunk)
        votes.append(classifier.keyed_votes(images(), KEYS, 1500))
        gradients.append(classifier.surrogate(images(), labels, KEYS, 1500, LogRatio()).gradient)
    for vote, gradient in zip(votes[1:], gradients[1:], strict=True):
        assert int((vote - votes[0]).abs().max()) <= 1
        off = (gradient - gradients[0]).flatten(1).norm(dim=1)
        assert bool((off < 1e-3 * gradients[0].flatten(1).norm(dim=1)).all())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("arch", ["small-cnn", "lenet", "resnet18", "resnet20", "resnet18, resized"])
def test_the_same_pass_has_the_same_result(arch: str, dtype: torch.dtype, layout: torch.memory_format):
    open_device(CUDA)
    torch.manual_seed(0)
    arch, _, resized = arch.partition(", ")
    channels = 3 if arch == "resnet20" else 1
    size = 32 if arch == "resnet20" else 28
    card = ModelCard(arch, 10, (channels, size, size), (0.5,) * channels, (0.5,) * channels, sigma=0.5)
    settings: dict[str, Any] = {"sigma": 0.5, "num_classes": 10, "input_shape": card.input_shape, "device": CUDA}
    model = ResizedClassifier(build(card), (56, 56)) if resized else build(card)
    classifier = SmoothedClassifier(model, dtype=dtype, votes_chunk=4096, gradient_chunk=4096, **settings)
    classifier.lay_out(layout)
    x, labels = torch.rand((3, *card.input_shape), device=CUDA), torch.tensor(LABELS, device=CUDA)
    along = torch.rand((3, math.prod(card.input_shape)), device=CUDA)

    def passes() -> list[Tensor]:
        passed = classifier.surrogate(x, labels, KEYS, 1000, LogRatio())
        moments = classifier.towards(x, labels, (labels + 1) % 10, KEYS, 1000, along).moments
        return [classifier.keyed_votes(x, KEYS, 1000), passed.votes, passed.gradient, passed.log_mean, moments]

    first = passes()
    for _ in range(3):
        assert all(map(torch.equal, passes(), first))


@contextmanager
def waiting_is(mode: str) -> Iterator[None]:
    """What PyTorch does where the host waits for the device: `error` or `warn`."""
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("objective", [LogRatio(), GumbelGap(), CrossEntropy()], ids=lambda o: type(o).__name__)
def test_a_pass_never_waits(objective: Objective):
    classifier, x = demo_classifier("cuda:0", 512), images()
    labels = torch.tensor(LABELS, device=CUDA)
    rivals = torch.tensor([[1, 3], [3, 7], [7, 4]], device=CUDA)

    def passes() -> None:
        classifier.keyed_votes(x, KEYS, 1000)
        classifier.surrogate(x, labels, KEYS, 1000, objective)
        classifier.rival_gradients(x, labels, rivals, KEYS, 1000)
        classifier.log_mean(x, KEYS, 1000)

    passes()  # loads kernels
    with waiting_is("error"):
        passes()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_step_of_an_attack_waits_seldom(attack: str):
    search = begin_search(attack, images=8, samples=300)
    waits = []
    for _ in range(12):
        if not search.busy:
            break
        with waiting_is("warn"), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            search.advance()
        waits.append(sum("synchroniz" in str(warning.message) for warning in caught))
    assert sum(waits[4:]) <= 4 * len(waits[4:]), waits


def test_the_same_run_has_the_same_result(tmp_path: Path):
    def run(name: str, batch: int) -> list[dict[str, Any]]:
        words = ("--device", "cuda", "--limit", "6", "--batch-size", str(batch))
        return timeless(attack(tmp_path / f"{name}.json", *words))

    first = run("first", 6)
    assert run("again", 6) == first
    for record, alone in zip(first, run("alone", 1), strict=True):
        assert record["outcome"] == alone["outcome"]
        assert_near(record.get("radius"), alone.get("radius"), 0.02)


def test_max_memory_is_kept_and_changes_no_certificate(tmp_path: Path):
    def certify(name: str, *options: str) -> tuple[int, str, Path]:
        words = ("certify", "--checkpoint", "demo", "--device", "cuda", "--limit", "4", "--samples", "20000")
        output = tmp_path / f"{name}.json"
        process = start(*words, "--chunk-size", "20000", "--quiet", "--output", output, *options)
        _, said = process.communicate(timeout=300)
        return process.returncode, said, output

    (done, _, free), (kept, _, tight) = certify("free"), certify("tight", "--max-memory", "100MB")
    assert done == kept == 0
    for record, expected in zip(timeless(read_strict(tight)), timeless(read_strict(free)), strict=True):
        assert record["radius"] == pytest.approx(expected["radius"], rel=0.01)
    code, said, _ = certify("none", "--max-memory", "1MB")
    assert code == 1
    assert "memory" in said
    assert "Traceback" not in said


class Hungry(nn.Module):
    """A network whose activations take a hundred times its input's memory."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.flatten(1).repeat(1, 100) * 1.0
        return torch.stack([wide.mean(1) - 0.5, 0.5 - wide.mean(1)], dim=1)


def limited(work: Callable[[], Tensor], megabytes: int) -> Tensor:
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + megabytes * 1e6) / total, CUDA)
    try:
        return work()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)


def test_chunks_are_halved_where_memory_runs_out():
    def classifier(chunk: int) -> SmoothedClassifier:
        settings: dict[str, Any] = {"sigma": 0.5, "num_classes": 2, "input_shape": (1, 64, 64), "device": CUDA}
        return SmoothedClassifier(Hungry(), votes_chunk=chunk, gradient_chunk=chunk, **settings)

    x = torch.full((1, 1, 64, 64), 0.5, device=CUDA)
    small, large = classifier(64), classifier(8192)
    expected = small.keyed_votes(x, KEYS[:1], 4096)
    found = limited(lambda: large.keyed_votes(x, KEYS[:1], 4096), 500)
    assert large.votes_chunk < 8192
    assert torch.equal(found, expected)
    label = torch.zeros(1, dtype=torch.int64, device=CUDA)
    gradient = small.surrogate(x, label, KEYS[:1], 4096, LogRatio()).gradient
    lower = limited(lambda: large.surrogate(x, label, KEYS[:1], 4096, LogRatio()).gradient, 500)
    assert large.gradient_chunk < 8192
    torch.testing.assert_close(lower, gradient, rtol=1e-4, atol=1e-7)
