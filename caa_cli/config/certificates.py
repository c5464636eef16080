"""The certificates of smoothed classifiers: a row of `CERTIFICATES` each. Nothing else in the package lists them."""

from __future__ import annotations

from dataclasses import dataclass

COHEN = "cohen"


@dataclass(frozen=True)
class CertificateSpec:
    """radius: `module:function` of (lower, upper), bounds of the top class and of the others, which returns the
    certified L2 radius for noise of standard deviation 1."""

    radius: str


CERTIFICATES: dict[str, CertificateSpec] = {
    COHEN: CertificateSpec("caa_cli.smoothing.radius:cohen"),
    "lecuyer": CertificateSpec("caa_cli.smoothing.radius:lecuyer"),
    "li": CertificateSpec("caa_cli.smoothing.radius:li"),
}
