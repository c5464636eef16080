"""How much faster a pass with gradients is in another precision, at the best chunk size and layout of each. JSON.

    python tests/benchmarks/search_dtype.py --dtypes "float32 bfloat16" --models "small-cnn lenet resnet18"

Models are untrained, since speed does not depend on what they have learnt; on one thread and by its own time. What a
coarser search does to radii: `radius.py --attacks "caa-newton caa-newton:search_dtype=bfloat16"`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial

import torch
from setup import fresh, interleaved, median

from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.sweep import one_chunk, tune_chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="small-cnn lenet resnet18")
    parser.add_argument("--dtypes", default="float32 bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for arch in arguments.models.split():
        classifier = fresh(arch, (1, 28, 28))
        searches = {name: classifier.searched_in(getattr(torch, name)).search for name in arguments.dtypes.split()}
        for search in searches.values():
            tune_chunks(search)
        runs: dict[str, Callable[[], object]] = {name: partial(passed, search) for name, search in searches.items()}
        times = interleaved(runs, arguments.rounds, classifier.device)
        row = {name: round(1e6 * median(found) / searches[name].gradient_chunk, 1) for name, found in times.items()}
        chunks = {name: search.describe() for name, search in searches.items()}
        print(json.dumps({"model": arch, "microseconds": row, "engine": chunks}), flush=True)


def passed(search: SmoothedClassifier) -> None:
    one_chunk(search, "gradient")(search.gradient_chunk)


if __name__ == "__main__":
    main()
