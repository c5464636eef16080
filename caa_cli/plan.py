"""What a run will do: frozen, checked, and free of torch, so that a wrong one is refused at once.

Values come from defaults < TOML file < environment (CAA_ATTACK_SAMPLES=…) < flags; the command line puts the
layers together (`cli.options`), a plan only checks the outcome.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from caa_cli.errors import UsageError

ATTACKS = ("caa",)
BOUNDS = ("goodman", "clopper-pearson", "cp-bonferroni")
SURROGATES = ("log-ratio", "gumbel")
FINISHES = ("ray", "none")
DTYPES = ("float32", "bfloat16", "float16", "float64")
SPLITS = ("test", "train")
METHODS = ("gaussian",)
SCHEDULES = ("constant", "cosine")
DEMO_LIMIT = 20


@dataclass(frozen=True)
class Shard:
    """Every `count`-th example, from the `index`-th on."""

    index: int = 0
    count: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match:
            raise UsageError(f"--shard {text!r} is not of the form k/n", "for instance --shard 0/4")
        shard = Shard(int(match[1]), int(match[2]))
        if not 0 <= shard.index < shard.count:
            raise UsageError(
                f"--shard {text}: there is no shard {shard.index} of {shard.count}",
                f"shards are numbered from 0: use 0/{shard.count} to {max(shard.count - 1, 0)}/{shard.count}",
            )
        return shard


@dataclass(frozen=True)
class AttackPlan:
    """One run of `caa attack`. Lengths are L2 in [0, 1] pixel units; sizes are counts of noise samples."""

    checkpoint: str
    arch: str | None = None
    sigma: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    dataset: str | None = None
    data_dir: Path | None = None
    split: str = "test"
    limit: int | None = None
    skip: int = 0
    shard: Shard = Shard()

    attack: str = "caa"
    samples: int = 1500
    iterations: int = 100
    alpha: float = 0.005
    bound: str = "goodman"
    seed: int = 0
    certify_samples: int | None = None
    verify_samples: int | None = None
    finish: str = "ray"
    overshoot: float = 1.05
    undershoot: float = 0.95
    step_min: float = 0.1
    step_max: float = 0.25
    patience: int = 8
    tolerance: float = 0.005
    surrogate: str = "log-ratio"
    temperature: float = 0.01

    device: str = "auto"
    dtype: str = "float32"
    batch_size: int | None = None
    chunk_size: int | None = None

    output: Path = Path("attack.json")
    save_adversarial: Path | None = None
    figure: Path | None = None
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    # What changes nothing in a result: where things are, and how the work is cut up.
    NOT_COMPARED = frozenset(
        [
            "checkpoint",
            "data_dir",
            "limit",
            "skip",
            "shard",
            "device",
            "batch_size",
            "chunk_size",
            "output",
            "save_adversarial",
            "figure",
            "resume",
            "overwrite",
            "dry_run",
        ]
    )

    def __post_init__(self) -> None:
        _one_of("--attack", self.attack, ATTACKS)
        _one_of("--bound", self.bound, BOUNDS)
        _one_of("--surrogate", self.surrogate, SURROGATES)
        _one_of("--finish", self.finish, FINISHES)
        _one_of("--dtype", self.dtype, DTYPES)
        _one_of("--split", self.split, SPLITS)
        _at_least_one("--samples", self.samples)
        _at_least_one("--iterations", self.iterations)
        _at_least_one("--certify-samples", self.certify_samples)
        _at_least_one("--verify-samples", self.verify_samples)
        _at_least_one("--batch-size", self.batch_size)
        _at_least_one("--chunk-size", self.chunk_size)
        _at_least_one("--limit", self.limit)
        _not_negative("--skip", self.skip)
        _not_negative("--patience", self.patience)
        _positive("--sigma", self.sigma)
        _positive("--temperature", self.temperature)
        _positive("--step-min", self.step_min)
        _fraction("--alpha", self.alpha)
        if not 0 <= self.tolerance < 1:
            raise UsageError(f"--tolerance must be at least 0 and below 1, not {self.tolerance:g}")
        _positive("--step-max", self.step_max)
        _positive("--overshoot", self.overshoot)
        if self.step_max < self.step_min:
            raise UsageError(f"--step-max {self.step_max:g} is below --step-min {self.step_min:g}")
        if self.overshoot < 1:
            raise UsageError(
                f"--overshoot must be at least 1, not {self.overshoot:g}",
                "below 1 a step would stay where no adversarial example can be",
            )
        if not 0 < self.undershoot <= 1:
            raise UsageError(f"--undershoot must be above 0 and at most 1, not {self.undershoot:g}")
        _seed(self.seed)
        _normalisation(self.mean, self.std)
        _apart(self)

    @property
    def certification_draws(self) -> int:
        """As many as verification, unless told otherwise."""
        return self.certify_samples or self.verification_draws

    @property
    def verification_draws(self) -> int:
        return self.verify_samples or max(10 * self.samples, 10_000)

    def config(self) -> dict[str, Any]:
        """Every setting, as JSON."""
        return _config(self)

    def indices(self, size: int) -> range:
        """The global indices of the examples to attack, out of a split of `size`."""
        limit = DEMO_LIMIT if self.limit is None and self.dataset == "demo" else self.limit
        stop = size if limit is None else min(size, self.skip + limit)
        return range(self.skip, stop)[self.shard.index :: self.shard.count]


@dataclass(frozen=True)
class TrainPlan:
    """One run of `caa train`."""

    dataset: str = "mnist"
    data_dir: Path | None = None
    arch: str = "small-cnn"
    sigma: float = 0.5
    method: str = "gaussian"
    epochs: int = 50
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: str = "constant"
    seed: int = 0
    heldout: int | None = None
    evaluate_samples: int = 100
    evaluate_limit: int = 1000
    device: str = "auto"
    output: Path = Path("model.safetensors")
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    # An interrupted run may be resumed elsewhere, and its evaluation is no part of the training.
    NOT_COMPARED = frozenset(
        ["data_dir", "device", "output", "resume", "overwrite", "dry_run", "evaluate_samples", "evaluate_limit"]
    )

    def __post_init__(self) -> None:
        _one_of("--method", self.method, METHODS)
        _one_of("--schedule", self.schedule, SCHEDULES)
        _at_least_one("--epochs", self.epochs)
        _at_least_one("--batch-size", self.batch_size)
        _at_least_one("--heldout", self.heldout)
        _not_negative("--evaluate-samples", self.evaluate_samples)
        _at_least_one("--evaluate-limit", self.evaluate_limit)
        _positive("--sigma", self.sigma)
        _positive("--learning-rate", self.learning_rate)
        _seed(self.seed)

    def config(self) -> dict[str, Any]:
        return _config(self)


def compared_keys(plan: AttackPlan | TrainPlan) -> list[str]:
    """The settings that decide a result: two runs that differ in one of them must not be mixed."""
    return [f.name for f in fields(plan) if f.name not in plan.NOT_COMPARED]


def fingerprint(config: dict[str, Any]) -> str:
    """A short digest of a configuration."""
    text = json.dumps(config, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _config(plan: AttackPlan | TrainPlan) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value

    return {name: plain(value) for name, value in asdict(plan).items()}


def _one_of(option: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} {value!r} is not known", f"use one of: {', '.join(allowed)}")


def _at_least_one(option: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{option} must be at least 1, not {value}")


def _not_negative(option: str, value: int) -> None:
    if value < 0:
        raise UsageError(f"{option} must not be negative, not {value}")


def _positive(option: str, value: float | None) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise UsageError(f"{option} must be a number above 0, not {value:g}")


def _fraction(option: str, value: float) -> None:
    if not 0 < value < 1:
        raise UsageError(
            f"{option} must lie between 0 and 1, not {value:g}",
            "it is the probability of error allowed an image; the paper uses 0.005",
        )


def _seed(value: int) -> None:
    if not 0 <= value < 2**63:
        raise UsageError(f"--seed must lie between 0 and 2⁶³ − 1, not {value}")


def _normalisation(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    for value in mean or ():
        if not math.isfinite(value):
            raise UsageError(f"--mean must be a number, not {value:g}")
    for value in std or ():
        _positive("--std", value)


def _apart(plan: AttackPlan) -> None:
    """The files of a run, with the two that it keeps beside the result, must not overwrite each other."""
    output = plan.output
    taken = {output: "the result", output.with_name(output.name + ".jsonl"): "the record of finished images"}
    taken[output.with_name(output.name + ".images")] = "the images while the run goes on"
    for option, path in (("--save-adversarial", plan.save_adversarial), ("--figure", plan.figure)):
        if path is not None:
            if path in taken:
                raise UsageError(f"{option} {path} is where {taken[path]} goes", f"name another file with {option}")
            taken[path] = option
