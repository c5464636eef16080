"""What `certify` and `attack` return: arrays with one row an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from caa_cli.errors import UsageError
from caa_cli.results.certificates import CertifyRecord, CertifySummary
from caa_cli.results.records import ATTACKED, ELIGIBLE, FAILED, AttackRecord, AttackSummary, Record
from caa_cli.runtime.words import counted

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Texts = NDArray[np.str_]


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """Rows in the order of the images. A radius that does not exist is NaN, a class or count −1.

    - `index`: of each image, as given.
    - `outcome`, `prediction`, …: as in the result files of `caa`.
    """

    index: Integers
    label: Integers
    outcome: Texts
    prediction: Integers
    seconds: Floats
    error: Texts

    def __len__(self) -> int:
        return len(self.index)

    def to_dict(self) -> dict[str, NDArray[Any]]:
        """The columns by name, without images."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("column", True)}

    def to_dataframe(self) -> Any:
        """The columns as a pandas DataFrame. Raises UsageError where pandas is not installed."""
        try:
            import pandas  # type: ignore[import-untyped,unused-ignore]
        except ImportError as error:
            raise UsageError("pandas is not installed", "pip install pandas") from error
        return pandas.DataFrame(self.to_dict())


@dataclass(frozen=True, eq=False, repr=False)
class AttackResults(Results):
    """The results of `attack`.

    - `radius`: L2 distance of the verified adversarial image, with pixels in [0, 1].
    - `certified_radius`: of the clean image.
    - `adversarial`: (N, *input_shape) float32, NaN where the attack did not succeed; `adversarial_class`: its class.
    - `target`: the class that was to be reached.
    - `radius_search`: what the attack alone would have claimed.
    - `summary`: the numbers of `caa attack`.
    """

    expectation: Floats
    certified_radius: Floats
    radius: Floats
    radius_search: Floats
    adversarial_class: Integers
    target: Integers
    iterations: Integers
    forward_evaluations: Integers
    backward_evaluations: Integers
    lost_gradients: Integers
    verify_tries: Integers
    last_try_samples: Integers
    abstentions: Integers
    adversarial: NDArray[np.float32] = field(metadata={"column": False})
    summary: AttackSummary = field(metadata={"column": False})

    @property
    def success(self) -> NDArray[np.bool_]:
        """Whether an adversarial image was verified."""
        return np.asarray(self.outcome == ATTACKED)

    def __repr__(self) -> str:
        s = self.summary
        radius = "" if s.median_radius is None else f", median radius {s.median_radius:.3f}"
        counts = sorted(s.outcomes.items(), key=lambda item: item[0] == FAILED)
        others = "".join(f", {n} {outcome.replace('_', ' ')}" for outcome, n in counts if outcome not in ELIGIBLE)
        why = "".join(f": {error}" for error in self.error[self.outcome == FAILED][:1])
        return f"<AttackResults: {s.attacked} of {s.eligible} eligible images attacked{radius}{others}{why}>"

    @classmethod
    def of(
        cls,
        records: Sequence[AttackRecord],
        images: dict[int, NDArray[np.float32]],
        shape: Sequence[int],
        summary: AttackSummary,
    ) -> Self:
        """The results of these records; images: the adversarial ones by index."""
        adversarial = np.full((len(records), *shape), np.nan, dtype=np.float32)
        for row, record in enumerate(records):
            if record.index in images:
                adversarial[row] = images[record.index]
        return cls(**_columns(cls, records), adversarial=adversarial, summary=summary)


@dataclass(frozen=True, eq=False, repr=False)
class CertifyResults(Results):
    """The results of `certify`.

    - `radius`: certified L2 radius with pixels in [0, 1], 0 where the classifier abstains. With `radius=R` it is R
      where that radius is certified.
    - `correct`: whether the prediction is the label.
    - `votes_top`: votes for the prediction, out of `samples`.
    - `summary`: the numbers of `caa certify`; None if no labels were given.
    """

    radius: Floats
    correct: NDArray[np.bool_]
    votes_top: Integers
    samples: Integers
    abstentions: Integers
    evaluations: Integers
    summary: CertifySummary | None = field(metadata={"column": False})

    def __repr__(self) -> str:
        certified = int((np.nan_to_num(self.radius) > 0).sum())
        return f"<CertifyResults: {certified} of {counted(len(self), 'image')} certified>"

    @classmethod
    def of(cls, records: Sequence[CertifyRecord], summary: CertifySummary | None) -> Self:
        """The results of these records; without a summary their labels mean nothing."""
        columns = _columns(cls, records)
        if summary is None:
            columns["label"] = np.full(len(records), -1)
            columns["correct"] = np.zeros(len(records), dtype=np.bool_)
        return cls(**columns, summary=summary)


def _columns(kind: type[Results], records: Sequence[Record]) -> dict[str, Any]:
    """The arrays of a kind of results: those of its fields that a record has."""
    columns = {}
    for f in fields(kind):
        if not f.metadata.get("column", True):
            continue
        values = [getattr(record, f.name) for record in records]
        if f.type == "Floats":
            column: NDArray[Any] = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        elif f.type == "Integers":
            column = np.array([-1 if v is None else v for v in values], dtype=np.int64)
        elif f.type == "Texts":
            column = np.array(["" if v is None else v for v in values], dtype=np.str_)
        else:
            column = np.array(values, dtype=np.bool_)
        columns[f.name] = column
    return columns
