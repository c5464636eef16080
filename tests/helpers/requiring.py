"""What the tests of --require share: small results of an attack and of a certification."""

from __future__ import annotations

from typing import Any

from comparing import MISCLASSIFIED, document, record

from caa_cli.results.certificates import CertifyRecord, summarise_certificates

RECORDS = [record(0, 1.4), record(1, 1.6), record(2, None), record(3, None, outcome=MISCLASSIFIED)]

CERTIFICATES = [
    CertifyRecord(0, 1, "certified", prediction=1, radius=0.9, correct=True),
    CertifyRecord(1, 1, "certified", prediction=1, radius=0.6, correct=True),
    CertifyRecord(2, 1, "certified", prediction=2, radius=2.0, correct=False),
    CertifyRecord(3, 1, "abstained", radius=0.0),
    CertifyRecord(4, 1, "failed", error="damaged"),
]


def certification(records: list[CertifyRecord]) -> Any:
    """What `caa certify` would have written."""
    found = {**document([]), "command": "certify", "status": "complete"}
    found["config"] |= {"selection_samples": 100}
    return {
        **found,
        "examples": [record.to_json() for record in records],
        "summary": summarise_certificates(records, 100, 1.0).to_json(),
    }


def unmet(stderr: str) -> list[str]:
    """The requirements that are said not to be met, with what was found."""
    start = "error: requirement not met: "
    return [line.removeprefix(start) for line in stderr.splitlines() if line.startswith(start)]
