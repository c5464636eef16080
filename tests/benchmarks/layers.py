"""What layers that are computed in other ways save: passes of a network on a CPU.

Of an untrained network of --arch (as `caa attack` takes it) for images of --channels and --size pixels, in --dtype
(bfloat16 in channels-last). Prints JSON: processor seconds an image for votes, and for a forward and backward pass,
the median of rounds in turn, by PyTorch and by `caa`; and the angle between the two gradients in degrees.

    python tests/benchmarks/layers.py gradients
    python tests/benchmarks/layers.py gradients --arch torchvision:mobilenet_v2 --size 224 --batch 8
    python tests/benchmarks/layers.py small-maps
"""

from __future__ import annotations

import argparse
import copy
import json
import math

import torch
from setup import input_gradient, interleaved, machine, median, untrained

from caa_cli.smoothing.input_gradients import use_faster_gradients
from caa_cli.smoothing.small_maps import use_matrices

# The change, with a network that has many such layers: its name, the size of its images, and how many.
CHANGES = {
    "gradients": (use_faster_gradients, "small-cnn", 28, 256),
    "small-maps": (use_matrices, "torchvision:resnet18", 32, 128),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("change", choices=CHANGES)
    parser.add_argument("--arch")
    parser.add_argument("--size", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    change, *usual = CHANGES[arguments.change]
    given = (arguments.arch, arguments.size, arguments.batch)
    arch, size, count = (usual if value is None else value for usual, value in zip(usual, given, strict=True))
    memory_format = torch.contiguous_format if arguments.dtype == "float32" else torch.channels_last
    layout = {"dtype": getattr(torch, arguments.dtype), "memory_format": memory_format}
    theirs = untrained(arch, size, arguments.channels).to(**layout).requires_grad_(False)
    ours = copy.deepcopy(theirs)
    change(ours)
    networks = {"pytorch": theirs, "caa": ours}
    batch = torch.rand(count, arguments.channels, size, size).to(**layout)

    def votes(network: torch.nn.Module) -> None:
        with torch.inference_mode():
            network(batch)

    report = {"change": arguments.change, "network": arch, "dtype": arguments.dtype, "machine": machine(batch.device)}
    for name, passes in (("votes", votes), ("gradients", lambda network: input_gradient(network, batch))):
        runs = {who: lambda passes=passes, network=network: passes(network) for who, network in networks.items()}
        seconds = {who: median(times) for who, times in interleaved(runs, arguments.rounds, batch.device).items()}
        report[name] = {who: round(time / count, 6) for who, time in seconds.items()}
        report[name]["ratio"] = round(seconds["pytorch"] / seconds["caa"], 2)
    flat = [input_gradient(network, batch).double().flatten() for network in networks.values()]
    cosine = torch.cosine_similarity(*flat, dim=0, eps=0).item()
    print(json.dumps({**report, "angle": round(math.degrees(math.acos(min(1.0, cosine))), 2)}, indent=2))


if __name__ == "__main__":
    main()
