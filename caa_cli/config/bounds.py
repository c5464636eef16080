"""The bounds on class probabilities: a row of `BOUNDS` each. Nothing else in the package lists them."""

from __future__ import annotations

from dataclasses import dataclass

GOODMAN = "goodman"


@dataclass(frozen=True)
class BoundSpec:
    """bounds: `module:function` of (counts, total, alpha), which returns (lower, upper) of all classes at once.

    one_sided: it returns only the lower bound of one class, which must be chosen before the samples are drawn.
    """

    bounds: str
    one_sided: bool = False


BOUNDS: dict[str, BoundSpec] = {
    GOODMAN: BoundSpec("caa_cli.smoothing.bounds:goodman"),
    "clopper-pearson": BoundSpec("caa_cli.smoothing.bounds:clopper_pearson_lower", one_sided=True),
    "cp-bonferroni": BoundSpec("caa_cli.smoothing.bounds:cp_bonferroni"),
}
