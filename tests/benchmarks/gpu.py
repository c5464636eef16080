"""How busy attacks keep a GPU: the time of its kernels in a step, over the time that the step takes.

The first images of a data set are searched together, in the loop of every search, for `--steps` steps from the same
start: once to load kernels, once by the clock, and once under PyTorch's profiler, which counts the kernels and adds
up their times. Prints JSON: microseconds a noise sample of a pass with votes and of one with gradients at the chunk
sizes that `auto` picks, and for each attack milliseconds a step, the kernels' share of it, and how many there are.

    python tests/benchmarks/gpu.py --attack caa caa-newton pgd
    python tests/benchmarks/gpu.py --checkpoint paper-mnist-0.5.safetensors --dataset mnist --data-dir data \\
        --dtype bfloat16 --images 40
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from setup import add_model_options, chosen_model, machine, synchronise

from caa_cli.attacks.common.loop import Example, Search
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attacks import ATTACKS
from caa_cli.data.datasets import ImageSet, open_dataset
from caa_cli.run.registry import build_attack
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.pace import measure_pace
from caa_cli.tuning.sweep import tune_chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", nargs="+", default=list(ATTACKS), choices=ATTACKS)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--samples", type=int, help="of a step; default: the attack's")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--device", default="cuda:0")
    add_model_options(parser)
    arguments = parser.parse_args()
    classifier = chosen_model(arguments, arguments.device)
    data = open_dataset(arguments.dataset or "demo", arguments.data_dir, "test")
    tune_chunks(classifier)
    pace = measure_pace(classifier, search=True)
    passes = {"votes": pace.forward, "gradient": pace.forward + pace.backward}
    report = {
        "machine": machine(classifier.device),
        "engine": classifier.describe(),
        "microseconds_a_sample": {name: round(1e6 * seconds, 2) for name, seconds in passes.items()},
        "attacks": {name: busy(classifier, data, name, arguments) for name in arguments.attack},
    }
    print(json.dumps(report, indent=2))


def busy(
    classifier: SmoothedClassifier, data: ImageSet, attack: str, arguments: argparse.Namespace
) -> dict[str, float]:
    """What a step of this attack takes, and what of that the kernels do."""
    settings = {} if arguments.samples is None else {"samples": arguments.samples}
    plan = AttackPlan.of(checkpoint="demo", attack=attack, **settings)
    device = classifier.device

    def search() -> tuple[int, float]:
        """Steps taken, and seconds."""
        running = Search(build_attack(plan), classifier, arguments.images)
        running.join([Example(i, data.image(i).to(device), data.label(i), 0.3) for i in range(arguments.images)])
        synchronise(device)
        began, steps = time.perf_counter(), 0
        while running.busy and steps < arguments.steps:
            running.advance()
            steps += 1
        synchronise(device)
        return steps, time.perf_counter() - began

    search()
    steps, seconds = search()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        search()
    kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    worked = sum(event.time_range.elapsed_us() for event in kernels) / 1e6
    return {
        "milliseconds_a_step": round(1e3 * seconds / steps, 2),
        "busy": round(worked / seconds, 3),
        "kernels_a_step": round(len(kernels) / steps, 1),
    }


if __name__ == "__main__":
    main()
