"""A comparison as one self-contained HTML page: table, pictures, settings, environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caa_cli import __version__
from caa_cli.config.pictures import PICTURES, SWEEP
from caa_cli.report.escapes import markup
from caa_cli.report.gallery import Gallery, gallery_html
from caa_cli.report.plots import inline_svg
from caa_cli.report.sweep import find_sweep
from caa_cli.report.tables import HEADINGS, caption, cells
from caa_cli.results.comparison import Comparison
from caa_cli.results.store.ownership import mark

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --quiet: #5b6570; --line: #d5dae0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --paper: #14181d; --quiet: #9aa4ae; --line: #39414a; }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p, figcaption { color: var(--quiet); margin: .4rem 0; } .note { color: var(--ink); border-left: 4px solid #e08a00;
  padding-left: .7rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .45rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
th:first-child { text-align: left; } tbody th { font-weight: 600; overflow-wrap: anywhere; min-width: 7rem; }
.settings td { text-align: left; overflow-wrap: anywhere; } .settings th { font-weight: 400; color: var(--quiet); }
small { color: var(--quiet); display: block; white-space: nowrap; }
figure { margin: 1rem 0; break-inside: avoid; } svg { max-width: 100%; height: auto; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem; }
.gallery td, .gallery th { text-align: center; padding: .4rem; max-width: 7.5rem; }
.gallery small { line-height: 1.3; }
.gallery img { width: 6rem; display: block; margin: 0 auto .2rem; border: 1px solid var(--line);
  image-rendering: pixelated; }
@media print {
  :root { --ink: #000; --paper: #fff; --quiet: #333; --line: #999; color-scheme: light; }
  body { margin: 0; max-width: none; font-size: 10pt; } .wide { overflow: visible; }
  .results { font-size: 8pt; } .gallery { font-size: 7pt; } .gallery img { width: 1.7cm; }
  tr { break-inside: avoid; } h2 { break-after: avoid; }
  .pictures { grid-template-columns: 1fr 1fr; }
}
"""


def report(comparison: Comparison, created: str, gallery: Gallery | None = None) -> str:
    """The HTML page. created: as in the document. Needs matplotlib."""
    first = comparison.attacks[0].parts[0]
    checkpoint = f"{first.checkpoint.get('path')} (sha256 {str(first.checkpoint['sha256'])[:12]})"
    title = f"Attacks on {first.setting('dataset')}, {first.setting('arch')}, σ = {first.setting('sigma'):g}"
    has_sweep = len(comparison.attacks) > 2 and find_sweep(comparison) is not None
    captions = {name: spec.caption for name, spec in PICTURES.items() if has_sweep or name != SWEEP}
    pictures = "\n".join(
        f'<figure role="img" aria-label="{markup(text)}">{inline_svg(name, comparison)}'
        f"<figcaption>{markup(text)}</figcaption></figure>"
        for name, text in captions.items()
    )
    notes = "\n".join(f'<p class="note">{markup(note)}</p>' for note in comparison.notes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="{mark(comparison.fingerprint)}">
<title>{markup(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{markup(title)}</h1>
<p>{markup(checkpoint)}; caa {markup(__version__)}, {markup(created)}</p>
{notes}
<h2>Results</h2>
<div class="wide">{_results(comparison)}</div>
<p>{markup(caption(comparison))}. Radii are L2 with pixels in [0, 1], every one proved on fresh noise. best: the
share of eligible images where this attack is the nearest (ties shared out); near-best: within 1% of the nearest; r₅₀:
median radius; %-C: median excess over the certified radius; forward and backward: model evaluations an image.</p>
<h2>Pictures</h2>
<div class="pictures">{pictures}</div>
{_gallery(gallery)}
<h2>Attacks</h2>
<div class="wide">{_attacks(comparison)}</div>
<h2>Settings that all share</h2>
{_pairs(comparison.config)}
<h2>Environment</h2>
{_pairs(first.environment)}
</body>
</html>
"""


def _results(comparison: Comparison) -> str:
    head = "".join(f'<th scope="col">{markup(text)}</th>' for text in ("attack", *(h.text for h in HEADINGS)))
    rows = []
    for label, row in zip(comparison.labels, cells(comparison), strict=True):
        shown = "".join(
            f"<td>{markup(value)}{f'<small>{markup(spread)}</small>' if spread else ''}</td>" for value, spread in row
        )
        rows.append(f'<tr><th scope="row">{_label(label)}</th>{shown}</tr>')
    return f'<table class="results"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _gallery(gallery: Gallery | None) -> str:
    if gallery is None:
        return ""
    return f"""<h2>Adversarial images</h2>
<p>Spread over the images that were broken; below each the perturbation, red where it adds and blue where it takes
away, on one scale a row.</p>
<div class="wide">{gallery_html(gallery)}</div>"""


def _attacks(comparison: Comparison) -> str:
    rows = []
    for attack in comparison.attacks:
        settings = ", ".join(f"{name} {_text(value)}" for name, value in attack.parts[0].attack_settings.items())
        files = ", ".join(str(part.path) for part in attack.parts)
        rows.append(
            f'<tr><th scope="row">{_label(attack.label)}</th><td>{markup(settings)}</td><td>{markup(files)}</td></tr>'
        )
    return f'<table class="settings"><tbody>{"".join(rows)}</tbody></table>'


def _label(label: str) -> str:
    """A label in which a line may break between its settings."""
    return markup(label).replace(":", ":<wbr/>")


def _pairs(pairs: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{markup(str(name))}</th><td>{markup(_text(value))}</td></tr>'
        for name, value in pairs.items()
    )
    return f'<table class="settings"><tbody>{rows}</tbody></table>'


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
