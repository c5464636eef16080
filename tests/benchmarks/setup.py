"""What the benchmarks share: the demo model on one device, and fair timing on a noisy machine."""

from __future__ import annotations

import argparse
import ast
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from caa_cli import __version__
from caa_cli.data.datasets import ImageSet, open_dataset
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights
from caa_cli.models.load import build_model
from caa_cli.python.model import load
from caa_cli.smoothing.classifier import SmoothedClassifier


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


_MODEL_OPTIONS: dict[str, Callable[[str], object]] = {
    "ensemble": str,
    "denoiser": str,
    "arch": str,
    "normalisation": str,
    "mean": _numbers,
    "std": _numbers,
    "sigma": float,
    "dataset": str,
    "input_shape": ast.literal_eval,
}


def demo(device: str = "cpu", split: str = "test") -> tuple[SmoothedClassifier, ImageSet]:
    return trained(DEMO_CHECKPOINT, "demo", None, device, split)


def trained(
    checkpoint: Path, dataset: str, data_dir: Path | None, device: str = "cpu", split: str = "test"
) -> tuple[SmoothedClassifier, ImageSet]:
    """A model that `caa train` made, and the images of a data set."""
    weights = read_weights(checkpoint)
    assert weights.card is not None
    return smoothed(build_model(weights, weights.card), weights.card, device), open_dataset(dataset, data_dir, split)


def fresh(arch: str, input_shape: tuple[int, int, int], device: str = "cpu") -> SmoothedClassifier:
    """An untrained model: speed does not depend on what it has learnt."""
    card = ModelCard(arch, 10, input_shape, (0.1307,), (0.3081,), sigma=0.5)
    return smoothed(build(card), card, device)


def untrained(arch: str, size: int, channels: int = 3) -> torch.nn.Module:
    """A network of 1,000 classes for images of this size, its weights frozen."""
    card = ModelCard(arch, 1000, (channels, size, size), (0.5,), (0.5,), sigma=0.5)
    return build(card).eval().requires_grad_(False)


def input_gradient(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Of the sum of the logits: a forward and a backward pass."""
    x = batch.clone().requires_grad_(True)
    return torch.autograd.grad(network(x).sum(), x)[0]


def smoothed(
    model: torch.nn.Module, card: ModelCard, device: str, dtype: torch.dtype = torch.float32
) -> SmoothedClassifier:
    return SmoothedClassifier(
        model,
        sigma=card.sigma or 0.5,
        num_classes=card.num_classes,
        input_shape=card.input_shape,
        device=device,
        dtype=dtype,
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Those of `caa attack` that say which base classifier it is; `chosen_model` reads them."""
    group = parser.add_argument_group("model")
    group.add_argument("--checkpoint", action="append", help="several: an ensemble; default: the demo")
    for name, kind in _MODEL_OPTIONS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind)
    group.add_argument("--dtype", default="float32")


def chosen_model(arguments: argparse.Namespace, device: str = "cpu") -> SmoothedClassifier:
    """The whole of it: denoiser, members and normalisation."""
    settings = {name: getattr(arguments, name) for name in (*_MODEL_OPTIONS, "dtype")}
    return load(arguments.checkpoint or ["demo"], device=device, **settings)


def interleaved(runs: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each, taken turn by turn, so that a slow spell of the machine falls on all of them alike.

    On a CPU and one thread they are the thread's own, so that it does not count when others had the processor.
    """
    clock = time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            synchronise(device)
            begin = clock()
            run()
            synchronise(device)
            times[name].append(clock() - begin)
    return times


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def machine(device: torch.device) -> dict[str, object]:
    return {
        "caa": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
    }
