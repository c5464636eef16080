"""How a comparison of any kind looks: its table on a terminal, and as a text in each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caa_cli.report import certified_table, tables, tables_by_model
from caa_cli.report.headings import HEADINGS
from caa_cli.report.writers import WRITERS
from caa_cli.results.certified import CertifiedComparison
from caa_cli.results.comparison import Comparison
from caa_cli.results.models import ModelsComparison

AnyComparison = Comparison | ModelsComparison | CertifiedComparison


@dataclass(frozen=True)
class Presentation:
    """title, headings, rows, explanation: for a terminal.  writers: what makes the text of each other format."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    explanation: str
    writers: Mapping[str, Callable[[Any], str]]


def present(found: AnyComparison) -> Presentation:
    """The presentation of a comparison."""
    if isinstance(found, CertifiedComparison):
        table: Any = certified_table
        headings = certified_table.headings(found)
    else:
        table = tables if isinstance(found, Comparison) else tables_by_model
        headings = ["attack", *(heading.text for heading in HEADINGS)]
    writers = WRITERS if isinstance(found, Comparison) else table.WRITERS
    return Presentation(title_of(found), headings, table.grid_rows(found), table.explanation(found), writers)


def title_of(found: AnyComparison) -> str:
    """The title of the table and of the pictures."""
    if isinstance(found, CertifiedComparison):
        return f"{found.models[0].parts[0].config.get('dataset')}, certified accuracy"
    if isinstance(found, ModelsComparison):
        first = next(iter(found.comparisons.values()))
        return f"{first.attacks[0].parts[0].setting('dataset')}, {len(found.comparisons)} models"
    part = found.attacks[0].parts[0]
    return f"{part.setting('dataset')}, {part.setting('arch')}, σ = {part.setting('sigma'):g}"
