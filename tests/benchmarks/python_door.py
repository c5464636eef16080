"""Time of `caa.attack` against that of the command on the same images, start-up left out.

    python tests/benchmarks/python_door.py [--images 4] [--rounds 5]

Both run in this process, in turn, each as often first. Seconds are those of the processor, which others on the
machine disturb less. Of the command what is timed is what follows the loading of its model: the pipeline, the
journal, the document and the summary. Prints JSON: the least seconds of each, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

import caa_cli as caa
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.display import Display
from caa_cli.run.attack import run_attack

SETTINGS = {"samples": 300, "iterations": 30, "verify_samples": 3000, "chunk_size": 256}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    classifier = caa.load("demo", device="cpu")
    images, labels = caa.load_images("demo", indices=range(given.images))
    seconds: dict[str, list[float]] = {"python": [], "command": []}
    for number in range(given.rounds):
        order = list(seconds) if number % 2 else list(seconds)[::-1]
        radii = {}
        for which in order:
            if which == "command":
                spent, radii[which] = time_command(given.images)
            else:
                began = time.process_time()
                results = caa.attack(classifier, images, labels, "caa", **SETTINGS)
                spent = time.process_time() - began
                radii[which] = [None if radius != radius else radius for radius in results.radius.tolist()]
            seconds[which].append(spent)
        assert radii["python"] == radii["command"]
    least = {f"{which}_seconds": round(min(spent), 3) for which, spent in seconds.items()}
    ratio = round(min(seconds["python"]) / min(seconds["command"]), 4)
    print(json.dumps({"images": given.images, "rounds": given.rounds, **least, "ratio": ratio}))


def time_command(images: int) -> tuple[float, list[float | None]]:
    """(seconds from the loaded model to the end, the radii)."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "attack.json"
        plan = AttackPlan.of(checkpoint="demo", device="cpu", limit=images, attack="caa", output=output, **SETTINGS)
        display = TimedDisplay(quiet=True)
        run_attack(plan, display, "")
        seconds = time.process_time() - display.began
        document = json.loads(output.read_text(encoding="utf-8"))
    return seconds, [example["radius"] for example in document["examples"]]


class TimedDisplay(Display):
    """A display that notes when the bar is asked for: the model is loaded then."""

    began = 0.0

    def bar(self, what, total, start=0):  # type: ignore[no-untyped-def]
        self.began = time.process_time()
        return super().bar(what, total, start)


if __name__ == "__main__":
    main()
