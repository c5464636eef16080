"""The pictures of a comparison and of a run: what they show, their size, fonts and colours."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from comparing import by_index, comparison_of, document, record, write
from matplotlib.figure import Figure
from matplotlib.image import imread
from support import CHEAP, assert_clean_error, caa

from caa_cli.config.pictures import PICTURES
from caa_cli.report.colours import STYLES, colour_of, styles
from caa_cli.report.examples import draw_examples
from caa_cli.report.figure import COLUMN, EmptyPictureError, figure_style
from caa_cli.report.models import draw_certified_curves
from caa_cli.report.plots import evaluations, excess, proportion, write_picture
from caa_cli.results.certificates import CertifyRecord


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_pictures_are_written(comparison, tmp_path, name, suffix):
    path = tmp_path / f"picture.{suffix}"
    write_picture(path, name, comparison, "title")
    assert path.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])


def test_the_curves_are_the_shares_attacked_within_a_radius(comparison):
    axis = Figure().subplots()
    proportion(axis, comparison)
    bound, first, second = axis.lines
    for line, radii in [(bound, [0.5, 0.6, 0.7, 0.8]), (first, [1.0, 2.0, 3.0]), (second, [1.5, 2.0, 2.99, 4.0])]:
        x, y = line.get_data()
        assert list(x[1:-1]) == pytest.approx(radii)
        assert list(y[1:-1]) == pytest.approx([(k + 1) / 4 for k in range(len(radii))])
        assert y[-1] == y[-2]


def test_radii_are_beside_the_smallest_that_any_attack_found(comparison):
    axis = Figure().subplots()
    evaluations(axis, comparison)
    images, middle, others, their_middle = (line.get_ydata() for line in axis.lines)
    assert list(images) == pytest.approx([0.0, 0.0, 100 * (3.0 / 2.99 - 1.0)])
    assert list(middle) == pytest.approx([0.0])
    assert list(others) == pytest.approx([0.0, 50.0, 0.0, 0.0])
    assert list(their_middle) == pytest.approx([0.0])
    alone = Figure().subplots()
    evaluations(alone, comparison_of(by_index([[2.0], [1.0]])))
    assert list(alone.lines[0].get_ydata()) == pytest.approx([2.0, 1.0])


@pytest.mark.parametrize(
    ("least", "most"),
    [(1_100, 9_500), (2_800, 24_000), (6_200, 56_000), (9_000, 600_000), (9_000, 800_000), (1_100, 3 * 10**9)],
)
def test_numbers_of_evaluations_do_not_overlap(least, most):
    """On a logarithmic axis of a column's width."""
    found = by_index([[2.0, 1.0]])
    runs = [{0: replace(run[0], forward_evaluations=n)} for run, n in zip(found, (least, most), strict=True)]
    with figure_style():
        figure = Figure(figsize=(COLUMN, 2.5), layout="constrained")
        axis = figure.subplots()
        evaluations(axis, comparison_of(runs))
        assert axis.get_xscale() == "log"
        figure.draw_without_rendering()
        ticks = [*axis.xaxis.get_majorticklabels(), *axis.xaxis.get_minorticklabels()]
        low, high = axis.get_xlim()
        boxes = [t.get_window_extent() for t in ticks if t.get_text() and low <= t.get_position()[0] <= high]
    boxes.sort(key=lambda box: box.x0)
    assert len(boxes) > 1
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_a_picture_fits_a_column_and_embeds_its_fonts(comparison, tmp_path):
    """3.5 inches; TrueType, since publishers refuse Type 3; no letter of an SVG needs a font."""
    for name in ("proportion", "excess", "evaluations", "sweep"):
        for suffix in ("pdf", "svg", "png"):
            write_picture(tmp_path / f"p.{suffix}", name, comparison, "σ = 0.5")
        pdf = (tmp_path / "p.pdf").read_bytes()
        assert b"/FontFile2" in pdf
        assert b"/Type3" not in pdf
        assert float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", pdf)[1]) == pytest.approx(3.5 * 72)
        assert "<text" not in (tmp_path / "p.svg").read_text(encoding="utf-8")
        assert imread(tmp_path / "p.png").shape[1] == pytest.approx(3.5 * 300)


@pytest.mark.parametrize("labels", [["caa"], ["caa", "pgd", "ddn"], ["a" * 110, "b:c=" + "d" * 60, "caa"] * 3])
def test_nothing_is_cut_off(comparison, labels, tmp_path):
    """The outermost pixels of every picture are white, whatever the attacks are called."""
    from dataclasses import replace

    attacks = tuple(replace(comparison.attacks[n % 2], label=f"{label}{n}") for n, label in enumerate(labels))
    many = replace(comparison, attacks=attacks, reference=None)
    for name in ("proportion", "excess", "evaluations"):
        write_picture(tmp_path / "p.png", name, many, "demo, small-cnn, σ = 0.5")
        pixels = imread(tmp_path / "p.png")[..., :3]
        edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
        assert all((edge == 1.0).all() for edge in edges), name


def test_axes_name_what_they_show_with_units(comparison):
    for draw, x, y in (
        (proportion, "L2 radius (pixels in [0, 1])", "share of eligible images attacked"),
        (excess, "share of the clean image's votes for its class", "L2 radius, % over certified"),
        (evaluations, "model evaluations, forward and backward", "L2 radius, % over smallest found"),
    ):
        axis = Figure().subplots()
        draw(axis, comparison)
        assert (axis.get_xlabel(), axis.get_ylabel()) == (x, y)


def test_an_attack_looks_the_same_in_every_comparison():
    alone = {attack: styles([attack])[0] for attack in STYLES}
    for attacks in (list(STYLES), list(STYLES)[::-1], ["caa", "caa", "pgd"]):
        for attack, style in zip(attacks, styles(attacks), strict=True):
            if attacks.count(attack) == 1:
                assert style == alone[attack]
    for attacks in (list(STYLES), ["caa"] * 6, ["caa", "mine", "mine", "pgd"]):
        assert len({style["color"] for style in styles(attacks)}) == len(attacks)
        assert len({style["marker"] for style in styles(attacks)}) == len(attacks)
    many = styles(["caa"] * 40)
    assert len({(style["color"], style["marker"]) for style in many}) == 40
    assert len({(style["color"], str(style["linestyle"])) for style in many}) == 40


def rgb(colour):
    return np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])


def linear(colour):
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


# Machado et al. (2009), severity 1, on linear colours: protanopia, deuteranopia, tritanopia.
SIGHTS = [
    np.eye(3),
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
]
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(colour, sight):
    xyz = np.clip(np.array(sight) @ linear(rgb(colour)), 0, 1) @ TO_XYZ.T / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_colours_are_told_apart_by_the_colour_blind_and_seen_on_either_ground():
    colours = [colour_of(attack) for attack in STYLES]
    for sight, least in zip(SIGHTS, (18, 18, 18, 13), strict=True):
        seen = [lab(colour, sight) for colour in colours]
        apart = [np.linalg.norm(a - b) for n, a in enumerate(seen) for b in seen[:n]]
        assert min(apart) > least
    dark = linear(rgb("#0f1318")) @ TO_XYZ[1]
    for colour in colours:
        bright = linear(rgb(colour)) @ TO_XYZ[1]
        assert (bright + 0.05) / (dark + 0.05) > 3
        assert 1.05 / (bright + 0.05) > 2.4


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_without_data_is_not_drawn(tmp_path, name):
    nothing = comparison_of(by_index([[None, None]]))
    if name == "proportion":
        write_picture(tmp_path / "p.png", name, nothing, "")  # that nothing was attacked is a curve too
        return
    with pytest.raises(EmptyPictureError):
        write_picture(tmp_path / "p.png", name, nothing, "")
    assert not (tmp_path / "p.png").exists()


def test_a_picture_without_data_is_left_out_with_the_reason(tmp_path):
    path = write(tmp_path / "a.json", document([record(0, None)]))
    stale = caa(
        "compare", write(tmp_path / "b.json", document([record(0, 1.0)])), "--figure-excess", tmp_path / "e.png"
    )
    assert stale.exit_code == 0
    words = ("--figure-excess", tmp_path / "e.png", "--html", tmp_path / "c.html", "--overwrite")
    result = caa("compare", path, *words)
    assert result.exit_code == 0, result.output
    assert "is not drawn: no image was attacked" in result.stderr
    assert not (tmp_path / "e.png").exists()  # the picture of the other comparison would pass for this one
    assert "e.png" not in result.stderr.split("written:")[1]
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert page.count("no image was attacked") == 2


def test_examples_have_class_names_and_a_scale_with_numbers(tmp_path):
    clean = {0: np.full((1, 4, 4), 0.5, np.float32)}
    changed = {0: clean[0] + np.float32(0.25) * np.eye(4, dtype=np.float32)[None]}
    records = [record(0, 0.5, adversarial_class=1)]
    with pytest.MonkeyPatch.context() as patch:
        texts = []
        import matplotlib.text

        draw = matplotlib.text.Text.draw
        patch.setattr(matplotlib.text.Text, "draw", lambda self, *a: texts.append(self.get_text()) or draw(self, *a))
        draw_examples(
            tmp_path / "e.png", clean.__getitem__, changed, records, {"0": "tench", "1": "great white shark"}
        )
    assert "image 0\ntench" in texts
    assert "great white\nshark" in texts
    assert {"−0.25", "0", "+0.25"} <= set(texts)
    with pytest.raises(EmptyPictureError, match="no image was attacked"):
        draw_examples(tmp_path / "e.png", clean.__getitem__, {}, records, {})


def test_an_attack_that_breaks_nothing_has_no_figure_and_says_so(tmp_path):
    words = ("attack", *CHEAP, "--iterations", "1", "--limit", "1", "--step-max", "0.01", "--step-min", "0.01")
    result = caa(*words, "--output", tmp_path / "a.json", "--figure", tmp_path / "e.png")
    assert result.exit_code == 0, result.output
    assert "e.png is not drawn: no image was attacked" in result.stderr
    assert not (tmp_path / "e.png").exists()


def test_a_format_that_needs_tex_is_refused_without_it_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = caa("attack", *CHEAP, "--output", tmp_path / "a.json", "--figure", tmp_path / "e.pgf")
    assert_clean_error(result, 1, "--figure needs xelatex for", "name a .png, .pdf or .svg")
    assert not (tmp_path / "a.json").exists()


def test_what_the_readers_matplotlib_is_set_to_breaks_no_picture(comparison, tmp_path):
    """With TeX a name would be read as TeX, and there may be none."""
    with mpl.rc_context({"text.usetex": True}):
        write_picture(tmp_path / "p.svg", "proportion", comparison, "a_b")
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_a_name_that_the_fonts_lack_is_drawn_without_a_warning(tmp_path):
    records = [CertifyRecord(0, 1, "certified", prediction=1, radius=0.5, correct=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_certified_curves(tmp_path / "c.png", {"模型": records}, "模型")


def test_certified_accuracy_of_nothing_is_no_picture(tmp_path):
    with pytest.raises(EmptyPictureError, match="no image is certified"):
        draw_certified_curves(tmp_path / "c.png", {"": [CertifyRecord(0, 1, "abstained")]}, "")
