"""Whether a change of the code leaves every result as it was: small demo runs of every attack, and their costs.

    PYTHONPATH=before python tests/benchmarks/same_results.py before.json
    PYTHONPATH=after python tests/benchmarks/same_results.py after.json
    python tests/benchmarks/same_results.py before.json after.json

On one thread, so that sums are in one order. Some minutes each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from caa_cli.config.attacks import ATTACKS

BASE = "--checkpoint demo --samples 200 --iterations 8 --verify-samples 1000 --chunk-size 256 --device cpu --limit 3"
SURROGATE = "--gradient surrogate-model=SURROGATE"
RUNS = [
    *(f"--attack {attack}" for attack in ATTACKS),
    *(f"--attack {attack} {SURROGATE}" for attack in ATTACKS),
    "--refine tangential",
    "--rivals 2",
    "--refine tangential --rivals 2",
    f"--refine tangential --rivals 2 {SURROGATE}",
    "--sample-schedule fixed",
    "--surrogate gumbel",
    "--gradient votes",
    "--gradient votes --refine tangential",
    "--attack caa-newton --gradient votes",
    "--attack caa-newton --gradient votes --newton-rivals 2 --batch-size 3 --iterations 14",
    "--attack caa-newton --iterations 14 --batch-size 2",
    "--attack-sigma 0.3",
    "--attack caa-newton --attack-sigma 0.6 --gradient votes",
    "--attack autoattack --autoattack-minimise --autoattack-searches 2",
    "--attack cw --cw-constant 0.001",
    "--attack deepfool --deepfool-candidates 4",
    "--finish none",
    "--attack caa-newton --finish none",
    "--attack caa-newton --bound clopper-pearson",
    "--bound cp-bonferroni",
    "--max-memory 2GB",
    "--preset paper",
    "--target second",
    "--attack caa-newton --target second",
    "--search-dtype bfloat16",
]


def surrogate(path: Path) -> Path:
    """The demo's checkpoint with every weight off by a little."""
    import torch

    from caa_cli.models.checkpoint import DEMO_CHECKPOINT, checkpoint_bytes, read_weights
    from caa_cli.models.load import build_model

    weights = read_weights(DEMO_CHECKPOINT)
    assert weights.card is not None
    model, generator = build_model(weights, weights.card), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15 * float(parameter.std()))
    path.write_bytes(checkpoint_bytes(model, weights.card))
    return path


def results(words: str, output: Path) -> dict[str, Any]:
    """The examples of one run without their times, and the evaluations that a dry run announces."""
    from typer.testing import CliRunner

    from caa_cli.cli.app import app

    runner = CliRunner(env={"CAA_TUNING_CACHE": "off"})
    command = ["attack", *BASE.split(), *words.split(), "--output", str(output)]
    announced = json.loads(runner.invoke(app, [*command, "--dry-run", "--json", "--quiet"]).stdout)
    code = runner.invoke(app, command).exit_code
    examples = [{k: v for k, v in e.items() if k != "seconds"} for e in json.loads(output.read_text())["examples"]]
    measured = ("config", "memory_bytes", "seconds_at_most", "seconds_typical")  # not the same in any two runs
    return {"code": code, "examples": examples, "most": {k: v for k, v in announced.items() if k not in measured}}


def run_all(path: Path) -> None:
    import torch

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    model = surrogate(folder / "surrogate.safetensors")
    found = {
        words: results(words.replace("SURROGATE", str(model)), folder / f"{number}.json")
        for number, words in enumerate(RUNS)
    }
    path.write_text(json.dumps(found, indent=1))


def compare(before: Path, after: Path) -> int:
    """Names the runs that differ, of those that both have; returns how many."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    both = [words for words in old if words in new]
    differing = [f"{words}: {what}" for words in both for what in old[words] if old[words][what] != new[words][what]]
    print("\n".join([*differing, f"{len(both)} runs, {len(differing)} differences"]))
    return len(differing)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE.json", help="one to write, or two to compare")
    paths = parser.parse_args().paths
    sys.exit(run_all(*paths) if len(paths) == 1 else compare(*paths) > 0)
