"""The engine's overhead: a votes pass and a gradient step over the bare model and one draw of the same noise.

For every chunk size of a sweep, on the same number of samples: the engine's pass, and beside it the bare model's
forward (or forward and backward) pass over a ready batch plus one `torch.randn` of the noise. Prints JSON: the
ratio at the chunk size where the bare model is fastest, at the one where the engine is, and how far the chunk
size that `auto` picks is from the best of the sweep. All in the memory layout that `auto` picks.

    python tests/benchmarks/engine.py --arch lenet
    python tests/benchmarks/engine.py --checkpoint resnet20.th --denoiser ffdnet_color.pth --normalisation imagenet \\
        --sigma 0.25 --dataset cifar10 --dtype bfloat16 --samples 128 --chunks 16,32,64

Without --checkpoint a network of --arch is untrained, or it is the demo.
"""

from __future__ import annotations

import argparse
import json

import torch
from setup import add_model_options, chosen_model, fresh, interleaved, machine, median

from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio
from caa_cli.tuning.sweep import tune_chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--chunks", default="64,128,256,512,1024,2048")
    parser.add_argument("--device", default="cpu")
    add_model_options(parser)
    arguments = parser.parse_args()
    untrained = arguments.arch and not arguments.checkpoint
    classifier = (
        fresh(arguments.arch, (1, 28, 28), arguments.device)
        if untrained
        else chosen_model(arguments, arguments.device)
    )
    shape, device, samples = classifier.input_shape, classifier.device, arguments.samples
    sizes = [int(size) for size in arguments.chunks.split(",")]
    x = torch.rand(1, *shape, device=device)
    label = torch.zeros(1, dtype=torch.int64, device=device)
    keys = [Key(0, 0, Purpose.TUNING)]
    objective = LogRatio()

    def bare(chunk: int, backward: bool) -> None:
        batch = torch.rand(chunk, *shape, device=device)
        batch = batch.to(classifier.dtype).contiguous(memory_format=classifier.memory_format)
        for _ in range(samples // chunk):
            torch.randn(chunk, *shape, device=device)
            if backward:
                batch.requires_grad_(True)
                logits = classifier.model(batch)
                torch.autograd.grad(logits, batch, torch.ones_like(logits))
            else:
                with torch.inference_mode():
                    classifier.model(batch)

    def votes(chunk: int) -> None:
        classifier.votes_chunk = chunk
        classifier.keyed_votes(x, keys, samples)

    def gradient(chunk: int) -> None:
        classifier.gradient_chunk = chunk
        classifier.surrogate(x, label, keys, samples, objective)

    tune_chunks(classifier)
    auto = classifier.describe()
    report: dict[str, object] = {
        "model": arguments.checkpoint or arguments.arch or "demo",
        "samples": samples,
        "machine": machine(device),
        "auto": auto,
    }
    for name, engine, backward in (("votes", votes, False), ("gradient", gradient, True)):
        runs = {}
        for size in sizes:
            runs[f"bare {size}"] = lambda size=size, backward=backward: bare(size, backward)
            runs[f"engine {size}"] = lambda size=size, engine=engine: engine(size)
        times = {run: median(seconds) for run, seconds in interleaved(runs, arguments.rounds, device).items()}
        bare_best = min(sizes, key=lambda size: times[f"bare {size}"])
        engine_best = min(sizes, key=lambda size: times[f"engine {size}"])
        picked = auto[f"{name}_chunk"]
        again = {"best": lambda: engine(engine_best), "picked": lambda: engine(picked)}  # noqa: B023
        repeated = {run: median(seconds) for run, seconds in interleaved(again, arguments.rounds, device).items()}
        report[name] = {
            "microseconds_a_sample": {run: round(1e6 * seconds / samples, 2) for run, seconds in times.items()},
            "best_chunk": {"bare": bare_best, "engine": engine_best},
            "ratio_of_bests": round(times[f"engine {engine_best}"] / times[f"bare {bare_best}"], 3),
            "ratio_at_engine_best": round(times[f"engine {engine_best}"] / times[f"bare {engine_best}"], 3),
            "efficiency": round(times[f"bare {bare_best}"] / times[f"engine {engine_best}"], 3),
            "auto": {"chunk": picked, "time_over_best": round(repeated["picked"] / repeated["best"], 3)},
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
