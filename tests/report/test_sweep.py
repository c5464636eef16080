"""`caa compare --sweep`: what it expands to, what its picture shows."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest
from comparing import document, record
from matplotlib.figure import Figure
from support import CHEAP, assert_clean_error, caa, parse_strict, read_strict

from caa_cli.config.named_attacks import NamedAttack, parse_sweeps, swept
from caa_cli.config.pictures import PICTURES
from caa_cli.errors import UsageError
from caa_cli.report.figure import COLUMN, EmptyPictureError, figure_style
from caa_cli.report.html import report
from caa_cli.report.plots import ink
from caa_cli.report.sweep import draw_sweep, find_sweep
from caa_cli.results.comparison import compare
from caa_cli.results.shards.result_file import parse_result_file
from caa_cli.results.shards.run_results import join


def comparison_of(*settings, attack="caa", half=(0,)):
    """The n-th setting has radii 1 + n/10 and 2 + n/10; the first, or those in `half`, break one image only."""
    parts = []
    for n, mine in enumerate(settings):
        records = [record(0, 1 + n / 10), record(1, None if n in half else 2 + n / 10)]
        parts.append(parse_result_file(Path(f"{n}.json"), document(records, attack=attack, **mine)))
    return compare(join(parts))


def draw(comparison):
    axis = Figure().subplots()
    draw_sweep(axis, comparison)
    return axis


def test_every_attack_takes_every_value():
    entries = [NamedAttack.parse("caa"), NamedAttack.parse("caa:surrogate=gumbel")]
    found = swept(entries, parse_sweeps(["step-max=0.2, 0.3"]))
    assert [entry.label for entry in found] == [
        "caa:step-max=0.2",
        "caa:step-max=0.3",
        "caa:surrogate=gumbel:step-max=0.2",
        "caa:surrogate=gumbel:step-max=0.3",
    ]
    both = swept(entries[:1], parse_sweeps(["step-max=0.2,0.3", "overshoot=1.05,1.1,1.2"]))
    assert len(both) == 6
    assert swept(entries, {}) == entries


@pytest.mark.parametrize(
    ("sweeps", "attacks", "problem"),
    [
        (["step-max"], "caa", "is not of the form KEY=V1,V2,…"),
        (["step-max=0.2"], "caa", "is not of the form KEY=V1,V2,…"),
        (["step-max=1,2", "step-max=3,4"], "caa", "says step-max twice"),
        (["step-max=1,2,1"], "caa", "--sweep 'step-max=1,2,1' has 1 twice"),
        (["step-max=1,2", "overshoot=1.1,1.2", "patience=1,2"], "caa", "varies 3 settings"),
        (["step-max=1,2", "overshoot=1.1,1.2"], "caa,caa:patience=1", "two settings of several attacks"),
        (["speed=1,2"], "caa", "--sweep 'caa:speed=1': caa has no setting 'speed'"),
        (["alpha=0.01,0.02"], "caa", "alpha has to be the same for all attacks"),
        (["step-max=1,2"], "caa:step-max=3", "says step-max twice"),
    ],
)
def test_sweeps_that_can_not_be(sweeps, attacks, problem):
    entries = [NamedAttack.parse(text) for text in attacks.split(",")]
    with pytest.raises(UsageError) as refused:
        swept(entries, parse_sweeps(sweeps))
    assert problem in refused.value.problem
    assert refused.value.hint


def test_one_setting_is_a_line_through_the_medians():
    comparison = comparison_of({"step_max": 0.3}, {"step_max": 0.5}, {"step_max": 0.4})
    sweep = find_sweep(comparison)
    assert sweep.keys == ("step_max",)
    assert sweep.values(0) == [0.3, 0.4, 0.5]
    axis = draw(comparison)
    overall, common, certified = axis.lines
    assert list(overall.get_xdata()) == [0.3, 0.4, 0.5]
    # Medians of (1, ∞), (1.2, 2.2) and (1.1, 2.1).
    assert list(overall.get_ydata()) == pytest.approx([float("nan"), 1.7, 1.6], nan_ok=True)
    assert [text.get_text() for text in axis.texts] == ["∞\n50%", "100%", "100%"]
    assert axis.get_xlim()[0] < 0.3, "what has no point has a place"
    assert list(common.get_ydata()) == pytest.approx([1.0, 1.2, 1.1])
    assert set(certified.get_ydata()) == {1.0}


@pytest.mark.parametrize(
    ("values", "scale"), [([100, 200, 1500], "log"), ([1000, 1500], "linear"), ([0, 8, 20], "linear")]
)
def test_values_that_are_far_apart_are_on_a_log_axis(values, scale):
    axis = draw(comparison_of(*({"patience": value} for value in values)))
    assert axis.get_xscale() == scale
    if scale == "log":
        assert [label.get_text() for label in axis.get_xticklabels()] == ["100", "200", "1500"]


def test_the_true_sigma_is_marked_where_the_attackers_varies():
    *_, mark = draw(comparison_of({"attack_sigma": 0.25}, {"attack_sigma": None}, {"attack_sigma": 1.0})).lines
    assert list(mark.get_xdata()) == [0.5, 0.5]


def test_names_are_placed_in_their_order():
    axis = draw(comparison_of({"surrogate": "log-ratio"}, {"surrogate": "gumbel"}))
    assert [label.get_text() for label in axis.get_xticklabels()] == ["log-ratio", "gumbel"]


@pytest.mark.parametrize("shift", [-0.05, 0.0, 0.05, 1.0])
def test_success_rates_of_several_attacks_do_not_overlap(shift):
    """Close together, far apart, and one or both without a median."""
    parts = []
    for attack, more in (("caa", 0.0), ("pgd", shift)):
        for n, value in enumerate((50, 75, 100, 200, 800)):
            lost = {"caa": (0, 1), "pgd": (0, 2)}[attack]
            records = [record(0, 1 + more + n / 50), record(1, None if n in lost else 2 + more)]
            settings = document(records, attack=attack, iterations=value)
            parts.append(parse_result_file(Path(f"{attack}{n}.json"), settings))
    with ink():
        figure = Figure(figsize=(COLUMN, 2.8), layout="constrained")
        axis = figure.subplots()
        draw_sweep(axis, compare(join(parts)))
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == 10
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(axis.get_window_extent().contains(*corner) for box in boxes for corner in (box.p0, box.p1))


def test_two_settings_are_a_map():
    """The last combination is missing, and is left empty."""
    pairs = [(0.1, 0.3), (0.1, 0.4), (0.2, 0.3)]
    axis = draw(comparison_of(*({"step_min": low, "step_max": high} for low, high in pairs)))
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("step-min", "step-max")
    assert [text.get_text() for text in axis.texts] == ["∞\n50%", "1.600\n100%", "1.700\n100%"]
    assert axis.collections[0].get_array().mask.tolist() == [[True, False], [False, True]]
    assert len(axis.figure.axes) == 2


def test_a_map_of_infinite_medians_has_no_scale_of_radii():
    settings = [{"step_min": low, "step_max": high} for low in (0.1, 0.2) for high in (0.3, 0.4)]
    axis = draw(comparison_of(*settings, half=range(4)))
    assert {text.get_text().split("\n")[0] for text in axis.texts} == {"∞"}
    assert axis.figure.axes == [axis]


def test_what_is_no_sweep_has_no_picture():
    assert find_sweep(comparison_of({})) is None
    assert find_sweep(comparison_of({}, {"step_min": 0.2, "step_max": 0.3, "patience": 3})) is None
    with pytest.raises(EmptyPictureError, match="one setting that varies"):
        draw(comparison_of({}))


def test_the_report_shows_a_sweep():
    settings = [{"step_min": low, "step_max": high} for low in (0.1, 0.2) for high in (0.3, 0.4)]
    comparison = comparison_of(*settings)
    page = report(comparison, comparison.to_json("complete"))
    assert page.count("<svg") == len(PICTURES)
    assert not re.findall(r'href="(?!#|data:)', page)  # the scale of the colours is a picture inside the page


def test_a_sweep_from_the_command_line(tmp_path):
    words = ("--attacks", "caa", "--sweep", "overshoot=1.05,1.3", "--limit", "1", "--output", tmp_path / "c.json")
    result = caa("compare", *CHEAP, *words, "--figure-sweep", tmp_path / "s.png")
    assert result.exit_code == 0, result.output
    found = read_strict(tmp_path / "c.json")
    assert {name: a["settings"]["overshoot"] for name, a in found["attacks"].items()} == {
        "caa:overshoot=1.05": 1.05,
        "caa:overshoot=1.3": 1.3,
    }
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    files = sorted(tmp_path.glob("c.caa*.json"))
    again = caa("compare", *files, "--figure-sweep", tmp_path / "again.png")
    assert again.exit_code == 0
    assert (tmp_path / "again.png").stat().st_size > 0
    assert_clean_error(caa("compare", *files, "--sweep", "overshoot=1.1,1.2"), 2, "--sweep says how to run")
    alone = caa("compare", files[0], "--figure-sweep", tmp_path / "no.png")
    assert "no.png is not drawn: it shows one setting that varies" in alone.stderr
    assert not (tmp_path / "no.png").exists()


def test_settings_of_every_search_are_swept_without_touching_the_rule(tmp_path):
    """Samples and the attacker's σ vary, of two attacks; the clean images and their certificates don't."""
    words = ("compare", *CHEAP, "--attacks", "caa,pgd:epsilon=0.6", "--limit", "1", "--output", tmp_path / "c.json")
    words = (*words, "--sweep", "samples=50,100,400", "--figure-sweep", tmp_path / "s.png")
    result = caa(*words)
    assert result.exit_code == 0, result.output
    found = read_strict(tmp_path / "c.json")
    assert [a["settings"]["samples"] for a in found["attacks"].values()] == [50, 100, 400] * 2
    assert "samples" not in found["config"]
    assert (found["config"]["selection_samples"], found["config"]["verify_samples"]) == (64, 1000)
    assert found["config"]["iterations"] == 8
    clean = [
        [(e["index"], e["prediction"], e["expectation"], e["certified_radius"]) for e in a["examples"]]
        for a in found["attacks"].values()
    ]
    assert clean[0]
    assert all(those == clean[0] for those in clean)
    assert len({a["forward_evaluations_an_image"] for a in found["attacks"].values()}) == 6

    files = [file for a in found["attacks"].values() for file in a["files"]]
    again = caa("compare", *files, "--output", tmp_path / "again.json")
    assert again.exit_code == 0, again.output
    read = read_strict(tmp_path / "again.json")
    assert list(read["attacks"].values()) == list(found["attacks"].values())
    assert list(read["attacks"]) == [
        *("caa:samples=50", "caa:samples=100", "caa:samples=400"),
        *("pgd:samples=50", "pgd:samples=100", "pgd:samples=400"),
    ]
    resumed = caa(*words, "--resume", "--quiet")
    assert (resumed.exit_code, resumed.stderr) == (0, "")
    for label, attack in read_strict(tmp_path / "c.json")["attacks"].items():
        assert attack["examples"] == found["attacks"][label]["examples"]  # the seconds too: nothing was done again


# Chunks of a fixed size, so that none is measured.
DRY = ("--checkpoint", "demo", "--chunk-size", "256", "--device", "cpu", "--dry-run", "--json")


def test_the_default_samples_of_a_proof_are_those_of_all(tmp_path):
    words = ("compare", *DRY, "--attacks", "caa:samples=200,caa:attack-sigma=1", "--output", tmp_path / "c.json")
    result = caa(*words)
    assert result.exit_code == 0, result.output
    for planned in parse_strict(result.stdout)["attacks"].values():
        names = ("selection_samples", "certify_samples", "verify_samples")
        assert [planned["config"][name] for name in names] == [1500, 15000, 15000]


def test_a_sweep_comes_from_a_file_too(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('[compare]\nattacks = ["caa"]\nsweep = ["step-min=0.1,0.2", "step-max=0.3,0.4"]\n')
    result = caa("compare", *DRY, "--config", config)
    assert result.exit_code == 0, result.output
    assert len(parse_strict(result.stdout)["attacks"]) == 4


@pytest.mark.parametrize("count", [3, 12])
@pytest.mark.parametrize(
    "settings",
    [
        lambda n: {"iterations": 10 * 5**n},
        lambda n: {"surrogate": f"gumbel-{n}"},
        lambda n: {"step_max": round(0.25 + n / 100, 2), "overshoot": 1.05},
    ],
    ids=["logarithmic", "words", "map"],
)
def test_labels_do_not_run_into_one_another(settings, count):
    varied = [settings(n) for n in range(count)]
    varied += [setting | {"overshoot": 1.1} for setting in varied if "overshoot" in setting]
    with figure_style():
        figure = Figure(figsize=(COLUMN, 2.6), layout="constrained")
        axis = figure.subplots()
        draw_sweep(axis, comparison_of(*varied))
        figure.canvas.draw()
        boxes = [label.get_window_extent() for label in axis.get_xticklabels()]
        cells = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == count
    for together in (boxes, *([cells] if len(varied) > count else [])):
        assert not any(one.overlaps(other) for one, other in combinations(together, 2))
