"""What recomputing activations costs in time and saves in memory: a forward and backward pass, kept and recomputed.

Of a network of --arch (as `caa attack` takes it, untrained) at --size pixels, or of improved-diffusion's U-Net for
CIFAR-10 with random weights. Prints JSON: processor seconds of a forward pass, and of forward and backward with and
without recomputing, the median of rounds in turn; how many forward passes that is more; and the peak of what tensors
hold, without the weights.

    python tests/benchmarks/recompute.py
    python tests/benchmarks/recompute.py --arch torchvision:efficientnet_b0 --size 224 --batch 1
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path

import torch
from setup import input_gradient, interleaved, machine, median, untrained
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from living import Living
from published_diffusion import Published

from caa_cli.models.checkpoint import Weights
from caa_cli.models.denoisers.denoiser import DenoiserFile
from caa_cli.models.denoisers.openai_diffusion import recognise
from caa_cli.smoothing.recompute import recompute_activations


def unet() -> nn.Module:
    """The whole step, 52.5 million weights."""
    published = Published((1, 2, 2, 2), 3, (2, 4), width=128)
    published(torch.rand(1, 3, 32, 32), 0.0)
    path = Path("random.pt")
    weights = Weights(format="", tensors=published.weights, path=path, sha256="", size=0, card=None)
    found = recognise(DenoiserFile(path=path, sha256="", weights=weights))
    assert found is not None
    return found.build(0.25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", help="default: the U-Net")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    shape, dtype = (3, arguments.size, arguments.size), getattr(torch, arguments.dtype)
    plain = untrained(arguments.arch, arguments.size) if arguments.arch else unet()
    plain = plain.to(dtype).eval().requires_grad_(False)
    recomputing, batch = copy.deepcopy(plain), torch.rand(arguments.batch, *shape).to(dtype)
    assert recompute_activations(recomputing, batch[:1])

    def forward() -> None:
        with torch.inference_mode():
            plain(batch)

    runs = {
        "forward": forward,
        "kept": lambda: input_gradient(plain, batch),
        "recomputed": lambda: input_gradient(recomputing, batch),
    }
    seconds = {name: median(times) for name, times in interleaved(runs, arguments.rounds, batch.device).items()}
    peaks = {}
    for name, network in (("kept", plain), ("recomputed", recomputing)):
        with Living(besides=network.state_dict().values()) as living:
            input_gradient(network, batch)
        peaks[name] = round(living.peak / 1e6, 1)
    report = {
        "network": arguments.arch or "U-Net",
        "machine": machine(batch.device),
        "seconds_an_image": {name: round(time / arguments.batch, 3) for name, time in seconds.items()},
        "recomputed_over_kept": round(seconds["recomputed"] / seconds["kept"], 2),
        "forward_passes_more": round((seconds["recomputed"] - seconds["kept"]) / seconds["forward"], 2),
        "peak_megabytes": peaks,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
