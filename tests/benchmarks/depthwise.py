"""What dense gradients of strided depthwise convolutions save: a forward and backward pass in bfloat16 on a CPU.

Of a network of --arch (as `caa attack` takes it, untrained) at --size pixels. Prints JSON: processor seconds an
image, the median of rounds in turn, with PyTorch's own gradients and with dense ones; and their angle in degrees.

    python tests/benchmarks/depthwise.py
    python tests/benchmarks/depthwise.py --arch torchvision:efficientnet_b0
"""

from __future__ import annotations

import argparse
import copy
import json
import math

import torch
from setup import input_gradient, interleaved, machine, median, untrained

from caa_cli.smoothing.depthwise import use_dense_gradients


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="torchvision:mobilenet_v2")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    size, layout = arguments.size, {"dtype": torch.bfloat16, "memory_format": torch.channels_last}
    own = untrained(arguments.arch, size).to(**layout)
    dense = copy.deepcopy(own)
    use_dense_gradients(dense)
    batch = torch.rand(arguments.batch, 3, size, size).to(**layout)
    runs = {
        name: lambda network=network: input_gradient(network, batch)
        for name, network in (("own", own), ("dense", dense))
    }
    seconds = {name: median(times) for name, times in interleaved(runs, arguments.rounds, batch.device).items()}
    flat = [input_gradient(network, batch).double().flatten() for network in (own, dense)]
    report = {
        "network": arguments.arch,
        "machine": machine(batch.device),
        "seconds_an_image": {name: round(time / arguments.batch, 4) for name, time in seconds.items()},
        "own_over_dense": round(seconds["own"] / seconds["dense"], 2),
        "angle": round(math.degrees(math.acos(min(1.0, torch.cosine_similarity(*flat, dim=0, eps=0).item()))), 2),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
