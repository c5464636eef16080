"""The LaTeX tables: well-formed whatever names say, complete, and compiled where there is a TeX."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from comparing import by_index, comparison_of, document, named

from caa_cli.report import escapes
from caa_cli.report.headings import FURTHER, HEADINGS, meaning
from caa_cli.report.latex import latex
from caa_cli.results.comparison import compare
from caa_cli.results.shards.result_file import parse_result_file
from caa_cli.results.shards.run_results import join

ODD = ["a|b_c&<d>", r"50%\of {it}", "$x^2$~#1", "caa:surrogate=gumbel:temperature=1e-05", "end{tabular}"]
ODD += ['"it\'s" `so`--,,', "σ=½ für Łódź", "中文"]


@pytest.fixture(scope="module")
def comparison():
    """Two attacks that cost the same; the last image breaks under the second alone."""
    settings = {"certify_samples": 3000, "verify_samples": 4000}
    records = by_index([[2.0, 2.0], [1.0, 1.5], [3.0, 2.99], [None, 4.0]])
    parts = [
        parse_result_file(Path(f"{n}.json"), document(list(found.values()), iterations=100 + n, **settings))
        for n, found in enumerate(records)
    ]
    return compare(join(parts), 50)


def rows_of(text, attack):
    """The cells of an attack's row in both tables, by heading."""
    found = {}
    for table in text.split(r"\begin{table*}")[1:]:
        lines = [line.strip().removesuffix(r" \\") for line in table.splitlines() if line.endswith(r"\\")]
        row = next(line for line in lines if line.startswith(f"{attack} &"))
        found |= dict(zip(lines[0].split(" & "), row.split(" & "), strict=True))
    return found


@pytest.mark.parametrize("label", ODD)
def test_tables_are_well_formed_whatever_an_attack_is_called(comparison, label):
    text = latex(named(comparison, label))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    for table, headings in zip(text.split(r"\begin{table*}")[1:], (HEADINGS, FURTHER), strict=True):
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(headings)}
        assert len([row for row in rows if not row.strip().startswith("&")]) == 1 + len(comparison.attacks)
    assert text.isascii()
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0


def test_no_letter_of_a_name_is_acted_on():
    for name in ODD[:5]:
        plain = re.sub(r"\\text[a-z]+\{\}|\\[_%&#${}]", "", escapes.latex(name))
        assert not set(plain) & set("\\_%&#${}~^<>|")
    assert escapes.latex("für Łódź, 中") == r"f\"{u}r \L{}\'{o}d\'{z}, {[}U+4E2D{]}"
    assert escapes.latex("a--b,,c") == "a-{}-b,{},c"


def test_the_best_of_a_column_is_bold_with_its_ties(comparison):
    first, second = (rows_of(latex(comparison), label) for label in comparison.labels)
    assert (first[r"Succ.\ \%"], second[r"Succ.\ \%"]) == ("75", r"\textbf{100}")
    # Over all images, with the failure at infinity: (2 + 3) / 2 and (2 + 2.99) / 2.
    assert (first["$r_{50}$"], second["$r_{50}$"]) == ("2.500", r"\textbf{2.495}")
    assert first[r"Fwd.\ (k)"] == second[r"Fwd.\ (k)"] == r"\textbf{1.0}"


def test_what_would_mislead_is_never_bold(comparison):
    """Medians over an attack's own successes, and columns in which the reference has no value."""
    text = latex(comparison)
    for heading in (*HEADINGS, *FURTHER):
        bold = [r"\textbf" in rows_of(text, label)[heading.latex] for label in comparison.labels]
        assert any(bold) == (heading.better != 0), heading.text
    alone = latex(comparison_of(by_index([[1.0], [2.0]])))
    assert r"\textbf" not in alone
    assert "bold" not in alone
    assert " }\n" not in alone


def test_the_caption_says_what_was_attacked_and_by_which_rule(comparison):
    text = latex(comparison)
    caption = next(line for line in text.splitlines() if r"\caption" in line)
    for part in (
        "small-cnn",
        "demo (test)",
        r"$\sigma = 0.5$",
        r"$\alpha = 0.005$",
        "$n = 3000$",
        "$n = 4000$",
        "4 eligible of 4",
    ):
        assert part in caption, part
    assert r"\label{tab:small-cnn-demo-sigma-0.5}" in text
    assert r"Table~\ref{tab:small-cnn-demo-sigma-0.5}" in text


def test_every_heading_is_explained(comparison):
    text = latex(comparison)
    for heading in (*HEADINGS, *FURTHER):
        assert heading.meaning
        about = escapes.latex(meaning(heading, comparison.reference))
        assert f"{heading.latex}: {about}." in text
    assert "50 bootstrap resamples" in text


def test_tables_of_several_models_have_labels_of_their_own(comparison):
    assert r"\label{tab:a-model-sigma-1}" in latex(comparison, "A model:sigma=1")
    assert "A model:sigma=1 (small-cnn" in latex(comparison, "A model:sigma=1")
    assert r"\label{tab:aaaaaaa}" in latex(comparison, "模型")  # the checkpoint's content


TEX = next((path for name in ("pdflatex", "tectonic") if (path := shutil.which(name))), None)


@pytest.mark.skipif(TEX is None, reason="no LaTeX")
@pytest.mark.parametrize("settings", ["", "twocolumn"])
def test_tables_compile_and_fit_the_page(comparison, tmp_path, settings):
    """With every odd name, in the default font encoding."""
    tables = "\n".join(latex(named(comparison, label), f"model {n}") for n, label in enumerate(ODD))
    (tmp_path / "t.tex").write_text(
        rf"\documentclass[{settings}]{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}"
        + tables.replace(r"\end{table*}", "\\end{table*}\\clearpage")
        + r"\end{document}"
    )
    words = [TEX, "t.tex"] if "tectonic" in TEX else [TEX, "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert b"Overfull" not in done.stdout
