"""What one run of `caa certify` will do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from caa_cli.config.model_plan import ModelPlan
from caa_cli.config.ranges import ALPHA, Count, FileName, Positive
from caa_cli.config.settings import Shown, Takes


@dataclass(frozen=True, kw_only=True)
class CertifyPlan(ModelPlan):
    """One run of `caa certify`. radius: decide only whether each image is certified at this L2 radius."""

    samples: Annotated[int, Count(), "Noise samples per image."] = 100_000
    selection_samples: Annotated[int, Count(), "Separate samples, to choose the class."] = 100
    alpha: Annotated[float, ALPHA, "Error probability allowed per image."] = 0.001
    radius: Annotated[
        float | None,
        Positive(),
        "Only decide whether each image is certified at this radius: far fewer samples.",
        Shown("the radius itself"),
    ] = None
    output: Annotated[Path, FileName(), "Where to write the result.", Takes("FILE.json")] = Path("certify.json")
    tsv: Annotated[
        Path | None, FileName(), "Also write a log in the format of Cohen et al. (2019).", Takes("FILE.tsv")
    ] = None
    figure: Annotated[
        Path | None, FileName(), "Draw certified accuracy by radius (needs matplotlib).", Takes("FILE.png")
    ] = None

    NOT_COMPARED: ClassVar[frozenset[str]] = ModelPlan.NOT_COMPARED | {"tsv"}
    WRITTEN = ("tsv", *ModelPlan.WRITTEN)
