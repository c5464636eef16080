"""A comparison as one self-contained HTML page: how it was made, tables, pictures, settings, environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from caa_cli.config.attack_settings import declared
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.custom_attack import CODE, PREFIX
from caa_cli.config.model_plan import ModelPlan
from caa_cli.config.pictures import PICTURES, SWEEP
from caa_cli.config.ranges import flag
from caa_cli.report.escapes import breakable, markup, whole_words
from caa_cli.report.figure import EmptyPictureError
from caa_cli.report.gallery import Gallery, gallery_html
from caa_cli.report.headings import FURTHER, HEADINGS, Heading, meaning
from caa_cli.report.plots import inline_svg
from caa_cli.report.selection import chosen_by, listed
from caa_cli.report.sweep import find_sweep
from caa_cli.report.tables import Cell, best, cells, ranges_explained, target_of
from caa_cli.results.comparison import Comparison
from caa_cli.results.model_files import files_of
from caa_cli.results.shards.run_results import AttackResult
from caa_cli.results.store.ownership import mark
from caa_cli.runtime.words import counted

_STYLE = Path(__file__).with_name("page.css")


def report(comparison: Comparison, document: Mapping[str, Any], gallery: Gallery | None = None) -> str:
    """The HTML page. document: that of the comparison. Needs matplotlib."""
    first = comparison.attacks[0].parts[0]
    title = f"Attacks on {first.setting('dataset')}, {first.model}, σ = {first.setting('sigma'):g}"
    notes = "\n".join(f'<p class="note">{markup(note)}</p>' for note in comparison.notes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="{mark(comparison.fingerprint)}">
<title>{markup(title)}</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<h1>{markup(title)}</h1>
<p class="quiet">caa {markup(document["tool_version"])}, {markup(document["created"])}</p>
{notes}
{_table("How it was made", _origin(comparison))}
{_command(document)}
<h2>Results</h2>
<p>Over {len(comparison.eligible)} eligible of {counted(len(comparison.images), "image")}. Radii are L2 with pixels in
[0, 1], every one verified on fresh noise; the best of a column is bold. {markup(ranges_explained(comparison))}</p>
{_results(comparison, HEADINGS, "Results")}
<h3>Further figures</h3>
{_results(comparison, FURTHER, "Further figures")}
<h2>Pictures</h2>
<div class="pictures">{_pictures(comparison)}</div>
{_gallery(gallery)}
<h2>Attacks</h2>
{"".join(_attack(attack) for attack in comparison.attacks)}
<h2>Settings that all share</h2>
{_table("Settings that all share", {_name(name): value for name, value in comparison.config.items()})}
<h2>Environment</h2>
{_table("Environment", dict(_flat(first.environment)))}
</body>
</html>
"""


def _origin(comparison: Comparison) -> dict[str, Any]:
    """The model, the images and the rule of a success, in words."""
    first = comparison.attacks[0].parts[0]
    count, dataset = first.images.get("count"), first.setting("dataset")
    of = f"{dataset} {first.setting('split')}" + (f" ({counted(count, 'image')})" if count else "")
    parts = [part for attack in comparison.attacks for part in attack.parts]
    ways = dict.fromkeys(chosen_by(part.selection, dataset) for part in parts)
    excluded = sorted(set(comparison.images) - set(comparison.eligible))
    files = files_of(first.checkpoint)
    target = target_of(comparison)
    samples = map(first.setting, ("certify_samples", "verify_samples"))  # None where an older file leaves them open
    certify, verify = (n and counted(n, "sample") for n in samples)
    why = "the clean prediction is wrong or not confident" + (", or the class is the target" if target else "")
    return {
        "model": f"{first.model} from {', '.join(str(file.get('path')) for file in files)}",
        "checkpoint": ", ".join(f"sha256 {file['sha256']}" for file in files),
        "smoothing": f"σ = {first.setting('sigma'):g}",
        "images": f"{len(comparison.images)} of {of}: {listed(comparison.images)}",
        "chosen": "; and ".join(ways),
        "not eligible": f"{listed(excluded)}: {why}" if excluded else "none",
        **({"target": target} if target else {}),
        "certificate": f"{first.setting('certificate')}, {first.setting('bound')} bounds, "
        f"α = {first.setting('alpha'):g}" + (f", n = {certify}" if certify else ""),
        "success": f"verified at α = {first.setting('alpha'):g} on fresh noise"
        + (f", {verify} per try" if verify else ""),
    }


def _command(document: Mapping[str, Any]) -> str:
    command = document.get("command_line")
    return f"<h2>Command</h2>\n<pre>{whole_words(command)}</pre>" if command else ""


def _results(comparison: Comparison, headings: Sequence[Heading], name: str) -> str:
    """A table, and what its columns mean."""
    head = "".join(f'<th scope="col">{whole_words(text)}</th>' for text in ("attack", *(h.text for h in headings)))
    rows = []
    bold = [best(comparison, heading) for heading in headings]
    for position, (label, row) in enumerate(zip(comparison.labels, cells(comparison, headings), strict=True)):
        shown = "".join(_value(cell, position in holders) for cell, holders in zip(row, bold, strict=True))
        rows.append(f'<tr><th scope="row">{breakable(label)}</th>{shown}</tr>')
    table = f'<table class="results"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    meanings = "".join(
        f"<dt>{markup(heading.text)}</dt><dd>{markup(meaning(heading, comparison.reference))}</dd>"
        for heading in headings
    )
    return f"{_scrolled(name, table)}<dl>{meanings}</dl>"


def _value(cell: Cell, is_best: bool) -> str:
    value, spread = cell
    shown = f"<b>{markup(value)}</b>" if is_best else markup(value)
    return f"<td>{shown}{f'<small>{markup(spread)}</small>' if spread else ''}</td>"


def _pictures(comparison: Comparison) -> str:
    has_sweep = len(comparison.attacks) > 2 and find_sweep(comparison) is not None
    attacks = ", ".join(comparison.labels)
    shown = []
    for name, spec in PICTURES.items():
        if name == SWEEP and not has_sweep:
            continue
        try:
            picture = inline_svg(name, comparison)
        except EmptyPictureError as reason:
            shown.append(f'<p class="note">Left out: {markup(spec.caption)} Because {markup(str(reason))}.</p>')
        else:
            alt = f"{spec.caption} Attacks: {attacks}."
            shown.append(
                f'<figure><div role="img" aria-label="{markup(alt)}">{picture}</div>'
                f"<figcaption>{markup(spec.caption)}</figcaption></figure>"
            )
    return "\n".join(shown)


def _gallery(gallery: Gallery | None) -> str:
    if gallery is None:
        return ""
    return f"""<h2>Adversarial images</h2>
<p>Images spread over those that were broken. Below each is its perturbation: red where it adds and blue where it
takes away, as a mean over the channels, on one scale a row.</p>
{gallery_html(gallery)}"""


def _attack(attack: AttackResult) -> str:
    """One attack: its settings with what they mean, and its files."""
    known = declared(attack.attack) if attack.attack in ATTACKS else {}
    about = {name: setting.help for name, setting in known.items()}
    rows = "".join(
        _row(_option(name), value, about.get(name, "")) for name, value in attack.parts[0].attack_settings.items()
    )
    files = ", ".join(str(part.path) for part in attack.parts)
    table = f'<table class="settings"><tbody>{rows}</tbody></table>'
    return (
        f"<h3>{breakable(attack.label)}</h3><p>{markup(files)}</p>{_scrolled(f'Settings of {attack.label}', table)}"
    )


def _option(setting: str) -> str:
    """The option of an attack's setting; of an attack of the user's the word, as there is no option."""
    if setting == CODE:
        return "code (sha256)"
    return setting.removeprefix(PREFIX) if setting.startswith(PREFIX) else flag(setting)


def _name(setting: str) -> str:
    """The option of a setting, or words for what only a checkpoint can say."""
    in_words = f"{setting.replace('_', ' ')} (of the checkpoint)"
    return in_words if setting in ModelPlan.WITHOUT_OPTION else flag(setting)


def _table(name: str, pairs: Mapping[str, Any]) -> str:
    rows = "".join(_row(key, value) for key, value in pairs.items())
    return _scrolled(name, f'<table class="settings"><tbody>{rows}</tbody></table>')


def _row(name: str, value: Any, about: str | None = None) -> str:
    meaning = "" if about is None else f"<td>{markup(about)}</td>"
    return f'<tr><th scope="row">{markup(name)}</th><td>{whole_words(_text(value))}</td>{meaning}</tr>'


def _scrolled(name: str, table: str) -> str:
    """A table in a box of its own, which scrolls on a narrow screen in place of the page."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{markup(name)}">{table}</div>'


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The pairs of a mapping and of those within it."""
    for name, value in values.items():
        full = f"{above} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, full)
        else:
            yield full, value


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
