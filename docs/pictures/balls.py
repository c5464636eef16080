"""Draws docs/pictures/balls.png: the certified balls along the path of one real attack on the demo.

    python docs/pictures/balls.py --image 17

The plane goes through the clean image, the verified adversarial example, and as near as it can to the rest of the
path. A ball is shown by its cut with that plane; the colour behind is the class the smoothed model gives there.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import matplotlib
import numpy as np
import torch

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.caa.state import CaaState
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.data.datasets import open_dataset
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights
from caa_cli.models.load import build_model
from caa_cli.smoothing.bounds import leader, separation
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.verification.verifier import Verifier

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

BLUE, RED = "#2166ac", "#b2182b"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=int, default=17)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("balls.png"))
    arguments = parser.parse_args()
    weights = read_weights(DEMO_CHECKPOINT)
    assert weights.card is not None
    classifier = SmoothedClassifier(
        build_model(weights, weights.card), sigma=0.5, num_classes=10, input_shape=(1, 28, 28)
    )
    images = open_dataset("demo", None, "test")
    clean, label = images.image(arguments.image), images.label(arguments.image)

    visited: list[torch.Tensor] = []

    class Traced(CertificationAware):
        def step(self, state: CaaState, classifier: SmoothedClassifier) -> None:
            visited.append(state.x[0].clone())
            super().step(state, classifier)

    (finding,) = Search(Traced(), classifier).run([Example(arguments.image, clean, label)])
    proved = Verifier().verify(finding, classifier)
    assert proved.image is not None

    origin = clean.flatten().double().numpy()
    path = torch.stack(visited).flatten(1).double().numpy() - origin
    across = proved.image.flatten().double().numpy() - origin
    first = across / np.linalg.norm(across)
    rest = path - np.outer(path @ first, first)
    second = np.linalg.svd(rest)[2][0]
    plane = np.stack([first, second])
    points = path @ plane.T
    if points[:, 1].sum() < 0:
        plane[1], points[:, 1] = -plane[1], -points[:, 1]
    off = np.linalg.norm(path - points @ plane, axis=1)

    tops, radii = [], []
    for step, x in enumerate(visited):
        key = Key(0, arguments.image, Purpose.SEARCH, step)
        votes = classifier.keyed_votes(x[None], [key], 1500)[0].numpy()
        tops.append(int(leader(votes)))
        radii.append(float(separation(votes, 1500, tops[-1], 0.005, "goodman").radius(0.5)))

    figure, axis = plt.subplots(figsize=(9, 5.2), layout="constrained")
    width, reach = across @ first, radii[0]
    span_x, span_y = np.linspace(-reach - 0.1, width + 0.6, 80), np.linspace(-reach - 0.1, reach + 0.6, 60)
    grid = np.stack(np.meshgrid(span_x, span_y), axis=-1)
    flat = torch.tensor(origin + grid.reshape(-1, 2) @ plane, dtype=torch.float32).view(-1, 1, 28, 28)
    # The same noise in every cell, so that the boundary between them is smooth.
    key = Key(0, 0, Purpose.EVALUATION)
    votes = torch.cat([classifier.keyed_votes(part, [key] * len(part), 300) for part in flat.split(500)]).numpy()
    lead = np.where(np.arange(10) == label, -1, votes).max(axis=1) - votes[:, label]
    lead = lead.reshape(grid.shape[:2])
    axis.contourf(span_x, span_y, lead, levels=[-1000, 0, 1000], colors=["#e8f0f8", "#fbe9e7"])
    axis.contour(span_x, span_y, lead, levels=[0], colors="0.45", linewidths=1)

    for point, distance, top, radius in zip(points, off, tops, radii, strict=True):
        cut = radius**2 - distance**2
        if cut > 0:
            colour = BLUE if top == label else RED
            axis.add_patch(plt.Circle(point, cut**0.5, fill=False, color=colour, lw=0.8, alpha=0.6))
    for start, end in itertools.pairwise(points):
        axis.annotate(
            "", end, start, arrowprops={"arrowstyle": "->", "color": "0.2", "lw": 1, "shrinkA": 0, "shrinkB": 0}
        )
    axis.scatter(*points.T, c=[BLUE if top == label else RED for top in tops], s=14, zorder=3)
    axis.scatter(0, 0, c="black", s=45, zorder=4)
    axis.scatter(across @ first, 0, marker="*", c="black", s=110, zorder=4)
    axis.set(
        aspect="equal", xlabel="L2 distance towards the verified adversarial example", ylabel="L2 distance across"
    )
    axis.set_xlim(span_x[0], span_x[-1])
    axis.set_ylim(span_y[0], span_y[-1])
    handles = [
        Line2D([], [], marker="o", ls="", color="black", label=f"clean image (class {label})"),
        Line2D([], [], marker="o", ls="", mfc="none", color=BLUE, label="certified: still the original class"),
        Line2D([], [], marker="o", ls="", mfc="none", color=RED, label="certified: the other class"),
        Line2D(
            [], [], marker="*", ls="", color="black",
            label=f"verified, radius {proved.radius:.2f} (class {proved.adversarial_class})",
        ),
    ]  # fmt: skip
    axis.legend(handles=handles, loc="upper left", fontsize=9, framealpha=0.9)
    figure.savefig(arguments.output, dpi=110)
    print(f"{arguments.output}: {len(points)} points, radius {proved.radius:.3f}, certified {radii[0]:.3f}")


if __name__ == "__main__":
    main()
