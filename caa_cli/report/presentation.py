"""How a comparison of any kind looks: its table on a terminal, and as a text in each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caa_cli.report import certified_table, tables, tables_by_model
from caa_cli.report.headings import HEADINGS
from caa_cli.report.latex import latex
from caa_cli.results.comparison import Comparison
from caa_cli.results.comparison_of_certificates import CertifiedComparison
from caa_cli.results.comparison_of_models import ModelsComparison
from caa_cli.runtime.words import counted

AnyComparison = Comparison | ModelsComparison | CertifiedComparison


@dataclass(frozen=True)
class Presentation:
    """title, headings, rows, explanation: for a terminal.  writers: what makes the text of each other format."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    explanation: str
    writers: Mapping[str, Callable[[Any], str]]


def present(comparison: AnyComparison) -> Presentation:
    """The presentation of a comparison."""
    if isinstance(comparison, CertifiedComparison):
        table: Any = certified_table
        headings = certified_table.headings(comparison)
    else:
        table = tables if isinstance(comparison, Comparison) else tables_by_model
        headings = ["attack", *(heading.text for heading in HEADINGS)]
    writers: dict[str, Callable[[Any], str]] = {
        "markdown": table.markdown,
        "latex": latex if isinstance(comparison, Comparison) else table.latex,
        "csv": lambda shown: tables.as_csv(table.plain(shown)),
        "json": lambda shown: tables.as_json_rows(table.plain(shown)),
    }
    return Presentation(
        title_of(comparison), headings, table.grid_rows(comparison), table.explanation(comparison), writers
    )


def title_of(comparison: AnyComparison) -> str:
    """The title of the table and of the pictures."""
    if isinstance(comparison, CertifiedComparison):
        return f"{comparison.models[0].parts[0].config.get('dataset')}, certified accuracy"
    if isinstance(comparison, ModelsComparison):
        first = next(iter(comparison.comparisons.values()))
        return f"{first.attacks[0].parts[0].setting('dataset')}, {counted(len(comparison.comparisons), 'model')}"
    part, target = comparison.attacks[0].parts[0], tables.target_of(comparison)
    aim = f", target: {target}" if target else ""
    return f"{part.setting('dataset')}, {part.model}, σ = {part.setting('sigma'):g}{aim}"
