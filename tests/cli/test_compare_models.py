"""`caa compare` of results of several models: attacks, and certificates."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from comparing import document, record, write
from matplotlib.figure import Figure
from requiring import certification
from support import assert_clean_error, caa, parse_strict, read_strict

from caa_cli.report.models import draw_by_model
from caa_cli.results.certificates import CertifyRecord
from caa_cli.results.comparison_of_models import compare_models
from caa_cli.results.shards.by_model import by_model
from caa_cli.results.shards.result_file import read_result_file

FORMATS = ["table", "markdown", "latex", "csv", "json"]


def of_model(found, digest, path, **settings):
    """The document as of another model."""
    checkpoint = {**found["checkpoint"], "sha256": digest * 64, "path": path}
    return {**found, "checkpoint": checkpoint, "config": {**found["config"], **settings}}


@pytest.fixture
def files(tmp_path):
    """Two attacks on two models; the second attack breaks fewer images of the second model."""
    found = []
    for name, digest, lost in (("gaussian", "a", None), ("smoothadv", "b", 3.0)):
        for attack, radii in (("caa", (1.5, 2.0, 3.0)), ("ddn", (1.4, 2.5, None if lost else 2.0))):
            one = document([record(i, r) for i, r in enumerate(radii)], attack=attack)
            found.append(write(tmp_path / f"{name}-{attack}.json", of_model(one, digest, f"models/{name}.pt")))
    return found


def test_a_table_by_model_and_attack(files):
    """The attacks of each model below its name, in the order of the files; every format has all of them."""
    lines = caa("compare", *files).stdout.splitlines()
    names = [line.split()[0] for line in lines if re.match(r" +(gaussian|smoothadv|caa|ddn)\b", line)]
    assert names == ["gaussian", "caa", "ddn", "smoothadv", "caa", "ddn"]
    for name in FORMATS[1:]:
        shown = caa("compare", *files, "--format", name)
        assert shown.exit_code == 0, shown.output
        assert shown.stdout.index("gaussian") < shown.stdout.index("smoothadv")
    rows = list(csv.DictReader(io.StringIO(caa("compare", *files, "--format", "csv").stdout)))
    assert [(row["model"], row["attack"], row["success_rate"]) for row in rows] == [
        ("gaussian", "caa", "1.0"),
        ("gaussian", "ddn", "1.0"),
        ("smoothadv", "caa", "1.0"),
        ("smoothadv", "ddn", str(2 / 3)),
    ]


def test_each_model_is_a_comparison_of_its_own(files, tmp_path):
    """What the files of one model say does not depend on the other models."""
    together = caa("compare", *files, "--output", tmp_path / "all.json", "--bootstrap", "40")
    assert together.exit_code == 0, together.output
    found = read_strict(tmp_path / "all.json")
    assert list(found["attacks"]) == ["gaussian/caa", "gaussian/ddn", "smoothadv/caa", "smoothadv/ddn"]
    assert {label: model["checkpoint"]["path"] for label, model in found["models"].items()} == {
        "gaussian": "models/gaussian.pt",
        "smoothadv": "models/smoothadv.pt",
    }
    alone = parse_strict(caa("compare", *files[2:], "--json", "--bootstrap", "40").stdout)
    assert {**found["attacks"]["smoothadv/ddn"], "model": None} == {**alone["attacks"]["ddn"], "model": None}
    assert found["models"]["smoothadv"]["summary"] == alone["summary"]
    assert (found["summary"]["models"], found["summary"]["eligible"]) == (2, 6)
    words = ["--require", "smoothadv/ddn.success_rate<0.7", "--require", "gaussian.broken_by_all==3"]
    assert caa("check", tmp_path / "all.json", *words, "--require", "models==2").exit_code == 0
    for name in ("other/ddn.success_rate", "broken_by_all"):  # which is of each model alone
        unknown = caa("check", tmp_path / "all.json", "--require", f"{name}<0.7")
        assert_clean_error(
            unknown, 2, f"no field '{name}'", "MODEL.FIELD, MODEL one of gaussian, smoothadv, FIELD one"
        )


def test_the_checkpoint_at_another_sigma_is_another_model(tmp_path):
    found = document([record(0, 1.0)])
    one = write(tmp_path / "a.json", found)
    two = write(tmp_path / "b.json", of_model(found, "a", "demo", sigma=1.0, attack_sigma=1.0))
    attacks = parse_strict(caa("compare", one, two, "--json").stdout)["attacks"]
    assert list(attacks) == ["demo:sigma=0.5/caa", "demo:sigma=1/caa"]
    three = write(tmp_path / "c.json", of_model(found, "c", "demo"))
    attacks = parse_strict(caa("compare", one, three, "--json").stdout)["attacks"]
    assert list(attacks) == ["demo:sha256=aaaaaaa/caa", "demo:sha256=ccccccc/caa"]


def test_ensembles_of_the_same_files_are_named_after_what_they_make_together(tmp_path):
    files = []
    for rule in ("logits", "votes"):
        found = document([record(0, 1.0)], ensemble=rule)
        member = {"path": "b.pt", "sha256": "b" * 64, "arch": None, "dataset": None, "sigma": None}
        found["checkpoint"] |= {"path": "a.pt", "ensemble": rule, "members": [member]}
        files.append(write(tmp_path / f"{rule}.json", found))
    attacks = parse_strict(caa("compare", *files, "--json").stdout)["attacks"]
    assert list(attacks) == ["a+b:ensemble=logits/caa", "a+b:ensemble=votes/caa"]


def test_one_attack_is_the_reference_for_all_models_that_have_it(files, tmp_path):
    def references(*words):
        return [
            model["reference"] for model in parse_strict(caa("compare", *words, "--json").stdout)["models"].values()
        ]

    assert references(*files) == ["caa", "caa"]
    assert references(files[1], *files[2:]) == ["ddn", "ddn"]
    assert references(*files, "--reference", "ddn") == ["ddn", "ddn"]
    assert "against caa." in " ".join(caa("compare", *files).stdout.split())
    assert references(files[0], files[3]) == ["caa", "ddn"]
    assert "against the first attack of each model." in " ".join(caa("compare", files[0], files[3]).stdout.split())


@pytest.mark.parametrize("words", [[], ["--common-images"]])
@pytest.mark.parametrize("interrupted", [False, True])
def test_models_are_compared_on_images_that_none_lacks(files, tmp_path, words, interrupted):
    """Neither those at which one failed nor those that one has not come to."""
    records = [record(0, 1.0), record(1, 2.0), record(2, None, outcome="failed", error="damaged")]
    one = of_model(document(records[: 2 if interrupted else 3]), "c", "c.pt")
    part = write(tmp_path / "c.json", {**one, "status": "interrupted" if interrupted else "partial"})
    for order in ([part, *files], [*files, part]):
        shown = caa("compare", *order, *words, "--output", tmp_path / "o.json")
        assert shown.exit_code == 3, shown.output
        assert "Eligible of 2 images: " in shown.stdout
        assert "gaussian: compared on 2 images that all" in shown.stderr
        assert {tuple(model["indices"]) for model in read_strict(tmp_path / "o.json")["models"].values()} == {(0, 1)}
    apart = write(tmp_path / "d.json", {**of_model(document([record(5, 1.0)]), "d", "d.pt"), "status": "interrupted"})
    assert_clean_error(caa("compare", *files, apart, *words), 2, "have no finished image in common")


def test_only_the_model_may_differ(files, tmp_path):
    def refused(problem, **settings):
        other = write(tmp_path / "o.json", of_model(document([record(0, 1.0)], **settings), "c", "o.pt"))
        assert_clean_error(caa("compare", files[0], other, "--output", tmp_path / "c.json"), 2, problem)

    refused("alpha (0.005 and 0.01)", alpha=0.01)
    refused("seed (0 and 1)", seed=1)
    refused("only one of them has image 1")
    for option, name in (("--html", "x.html"), ("--figure-examples", "x.svg")):
        words = [*files, option, tmp_path / name]
        assert_clean_error(caa("compare", *words), 2, f"{option} shows one model", "name the files of one")
    assert_clean_error(
        caa("compare", *files, "--figure-certified", tmp_path / "x.svg"), 2, "is of results of caa certify"
    )
    assert list(tmp_path.glob("x.*")) == []


def test_figures_by_model_share_their_axes(files, tmp_path):
    for option in ("--figure", "--figure-evaluations"):
        path = tmp_path / f"{option}.svg"
        shown = caa("compare", *files, option, path)
        assert shown.exit_code == 0, shown.output
        assert path.read_bytes().startswith(b"<?xml")


def by_models(files, name):
    """The figure of one of PICTURES, its axes, and the comparison."""
    figure = Figure(layout="constrained")
    found = compare_models(by_model([read_result_file(path) for path in files]))
    return figure, draw_by_model(figure, name, found), found


def test_attacks_of_several_models_are_drawn_once_in_the_legend(files):
    figure, (first, second), _ = by_models(files, "proportion")
    assert [axis.get_title() for axis in (first, second)] == ["gaussian", "smoothadv"]
    assert first.get_xlim() == second.get_xlim() == (0.0, pytest.approx(1.05 * 3.0))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["certified bound", "caa", "ddn"]
    _, _, ddn = second.lines
    assert list(ddn.get_ydata())[-1] == pytest.approx(2 / 3)
    assert ddn.get_xdata()[-1] > 3.15, "a curve goes on to the edge of the widest model"


def test_attacks_that_differ_between_models_are_in_one_legend_that_hides_no_curve(files):
    figure, _, _ = by_models([files[0], files[3]], "proportion")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["certified bound", "caa", "ddn"]
    assert all(axis.get_legend() is None for axis in figure.axes)


def test_a_label_of_two_looks_has_a_legend_on_each_model(tmp_path):
    """Each is named, and gets the colour that is left beside the other attacks of its model."""
    named = document([record(0, 1.0)], name="strong", patience=3)
    files = [write(tmp_path / f"{n}.json", of_model(named, n, f"{n}.pt")) for n in "ab"]
    files.append(write(tmp_path / "c.json", of_model(document([record(0, 2.0)]), "b", "b.pt")))
    figure, axes, _ = by_models([files[0], files[2], files[1]], "proportion")
    assert figure.legends == []
    assert all(axis.get_legend() is not None for axis in axes)


def test_a_model_with_one_attack_is_drawn_in_the_unit_of_the_others(files):
    """It has no smallest radius but its own, so all are drawn by their radii."""
    _, (first, second), found = by_models(files[:3], "evaluations")
    assert [len(comparison.attacks) for comparison in found.comparisons.values()] == [2, 1]
    assert first.get_ylabel() == "L2 radius (pixels in [0, 1])"
    heights = [y for axis in (first, second) for line in axis.lines[::2] for y in line.get_ydata()]
    attacked = [
        c.attacks[i].records[n].radius
        for c in found.comparisons.values()
        for i in range(len(c.attacks))
        for n in c.eligible
    ]
    assert sorted(heights) == sorted(radius for radius in attacked if radius is not None)


def test_models_on_which_different_settings_vary_make_no_picture_together(tmp_path):
    files = []
    for model, setting in (("a", {"step_min": 0.2}), ("b", {"patience": 3})):
        for name, mine in (("one", {}), ("two", setting)):
            one = of_model(document([record(0, 1.0)], **mine), model, f"{model}.pt")
            files.append(write(tmp_path / f"{model}.{name}.json", one))
    shown = caa("compare", *files, "--figure-sweep", tmp_path / "s.png")
    assert "s.png is not drawn: it shows all models on the same axes" in shown.stderr


@pytest.mark.parametrize(("few", "many", "scale"), [(6000, 6200, "linear"), (6000, 600_000, "log")])
def test_marks_of_several_models_are_as_far_from_either_edge(tmp_path, few, many, scale):
    """On a logarithmic axis where the models together need one."""
    files = []
    for name, evaluations in (("a", many), ("b", few)):
        one = document([record(0, 1.0, forward_evaluations=evaluations, backward_evaluations=0)])
        files.append(write(tmp_path / f"{name}.json", of_model(one, name, f"{name}.pt")))
    _, axes, _ = by_models(files, "evaluations")
    assert [axis.get_xscale() for axis in axes] == [scale, scale]
    low, high = axes[0].get_xlim()
    if scale == "log":
        assert few / low == pytest.approx(high / many)
    else:
        assert few - low == pytest.approx(high - many)


@pytest.mark.parametrize(
    ("models", "named"), [(1, [0]), (2, [0, 1]), (3, [1]), (4, [1, 3]), (5, [4]), (6, [4]), (7, [4, 6])]
)
def test_every_column_of_panels_has_numbers_below_and_a_name_that_does_not_overlap(tmp_path, models, named):
    one = document([record(0, 1.0), record(1, 2.0)])
    files = [write(tmp_path / f"{n}.json", of_model(one, f"{n}", f"{n}.pt")) for n in range(models)]
    figure, axes, _ = by_models(files, "evaluations")
    assert [n for n, axis in enumerate(axes) if axis.get_xlabel()] == named
    assert {axes[n].get_xlabel() for n in named} == {"model evaluations, forward and backward"}
    figure.draw_without_rendering()
    numbered = [any(tick.label1.get_visible() for tick in axis.xaxis.get_major_ticks()) for axis in axes]
    assert numbered == [n + 3 >= models for n in range(models)]


@pytest.mark.parametrize("position", [0, 1])
def test_a_model_without_data_leaves_the_pictures_of_the_others(files, tmp_path, position):
    firm = document([record(i, None) for i in range(3)])
    files.insert(2 * position, write(tmp_path / "firm.json", of_model(firm, "f", "models/firm.pt")))
    _, axes, found = by_models(files, "evaluations")
    assert [[text.get_text() for text in axis.texts] for axis in axes] == [
        ["no image was attacked"] if label == "firm" else [] for label in found.comparisons
    ]
    assert axes[0].get_ylabel() == "L2 radius, % over smallest found"
    shown = caa("compare", *files, "--figure-excess", tmp_path / "e.png")
    assert "is not drawn" not in shown.stderr
    assert (tmp_path / "e.png").exists()
    alone = caa("compare", files[2 * position], "--figure-excess", tmp_path / "f.png")
    assert "f.png is not drawn: no image was attacked" in alone.stderr


def test_a_comparison_of_other_models_is_not_replaced_unasked(files, tmp_path):
    place = tmp_path / "all.json"
    assert caa("compare", *files, "--output", place).exit_code == 0
    before = place.read_bytes()
    found = json.loads(files[2].read_text())
    files[2] = write(tmp_path / "new.json", of_model(found, "d", "models/smoothadv.pt"))
    found = json.loads(files[3].read_text())
    files[3] = write(tmp_path / "new2.json", of_model(found, "d", "models/smoothadv.pt"))
    refused = caa("compare", *files, "--output", place)
    assert_clean_error(refused, 2, "all.json is another comparison: models (", "--overwrite")
    words = ["--checkpoint", "demo", "--attacks", "caa", "--output", place]
    assert_clean_error(caa("compare", *words), 2, "all.json is another comparison: models (")
    assert place.read_bytes() == before
    assert caa("compare", *files, "--output", place, "--overwrite").exit_code == 0


# Certificates


def certified(radii, abstained=0):
    """Right and certified at these radii (None: wrong), and then abstentions."""
    found = [
        CertifyRecord(i, 1, "certified", prediction=2 if r is None else 1, radius=r or 0.3, correct=r is not None)
        for i, r in enumerate(radii)
    ]
    return [*found, *(CertifyRecord(len(radii) + i, 1, "abstained", radius=0.0) for i in range(abstained))]


@pytest.fixture
def certificates(tmp_path):
    return [
        write(tmp_path / "a.json", of_model(certification(certified([0.3, 0.8, 1.3, None])), "a", "gaussian.pt")),
        write(
            tmp_path / "b.json",
            of_model(certification(certified([0.6, 0.6, 0.6], 1)), "b", "macer.pt", sigma=0.25, mean=[0.1]),
        ),
    ]


def test_certified_accuracy_of_several_models(certificates, tmp_path):
    shown = caa("compare", *certificates, "--output", tmp_path / "c.json")
    assert shown.exit_code == 0, shown.output
    found = read_strict(tmp_path / "c.json")
    assert {label: model["certified_accuracy"] for label, model in found["models"].items()} == {
        "gaussian": {"0.00": 0.75, "0.25": 0.75, "0.50": 0.5, "0.75": 0.5, "1.00": 0.25, "1.25": 0.25, "1.50": 0.0},
        "macer": {"0.00": 0.75, "0.25": 0.75, "0.50": 0.75, "0.75": 0.0, "1.00": 0.0, "1.25": 0.0, "1.50": 0.0},
    }
    assert found["models"]["gaussian"]["average_certified_radius"] == pytest.approx(0.6)
    assert found["models"]["macer"]["average_certified_radius"] == pytest.approx(0.45)
    assert found["models"]["macer"]["intervals"]["certified_accuracy@0.75"] == [0.0, pytest.approx(0.6023646)]
    assert re.search(r"gaussian +75\.0 +75\.0 +50\.0 +50\.0 +25\.0 +25\.0 +0\.0 +0\.600 +0\.286", shown.stdout)
    assert "4 images" in shown.stdout
    other = parse_strict(caa("compare", *certificates[::-1], "--json").stdout)["models"]
    assert all(
        other[label]["certified_accuracy"] == model["certified_accuracy"] for label, model in found["models"].items()
    )
    for name in FORMATS:
        text = caa("compare", *certificates, "--format", name).stdout
        assert "gaussian" in text
        assert "macer" in text
    (row, _) = csv.DictReader(io.StringIO(caa("compare", *certificates, "--format", "csv").stdout))
    assert row["certified_accuracy@0.50"] == "0.5"
    assert float(row["certified_accuracy@0.50_low"]) == pytest.approx(0.0675860, abs=1e-6)


def test_of_many_radii_the_table_has_every_second_or_fourth(tmp_path):
    path = write(tmp_path / "a.json", of_model(certification(certified([4.1, 2.1, None])), "a", "a.pt"))
    heading, _, row = caa("compare", path, "--format", "markdown").stdout.splitlines()[:3]
    shares = ["0.00 %", "0.50 %", "1.00 %", "1.50 %", "2.00 %", "2.50 %", "3.00 %", "3.50 %", "4.00 %"]
    (_, *named, _, _, _), (_, label, *values, _, _, _) = (
        [cell.strip() for cell in line.split("|")] for line in (heading, row)
    )
    assert (named, label) == (["model", *shares], "a")
    assert [value.split()[0] for value in values] == ["66.7"] * 5 + ["33.3"] * 4


def test_certificates_older_than_a_setting_are_compared_and_merged(tmp_path):
    """They were Cohen's before --certificate; without its name they were refused."""
    shards = []
    for index in range(2):
        found = certification(certified([0.3, 0.8])[index::2])
        found |= {"shard": {"index": index, "count": 2}}
        found["config"] |= {"limit": 2, "certificate": "cohen"}
        shards.append(write(tmp_path / f"{index}.json", found))
    model = write(
        tmp_path / "b.json", of_model(certification(certified([0.6, 0.6])), "b", "b.pt", certificate="cohen")
    )
    older = read_strict(shards[0])
    del older["config"]["certificate"]
    write(shards[0], older)
    assert caa("compare", *shards, model).exit_code == 0
    assert caa("merge", *shards, "--output", tmp_path / "all.json").exit_code == 0
    write(shards[0], {**older, "config": {**older["config"], "certificate": "li"}})
    for command in (["compare", *shards, model], ["merge", *shards, "--output", tmp_path / "other.json"]):
        assert_clean_error(caa(*command), 2, "different settings: certificate (li and cohen)")


def test_a_small_error_probability_is_a_power_of_ten_in_latex(tmp_path):
    one = certification(certified([0.3, 0.8]))
    path = write(tmp_path / "a.json", of_model(one, "a", "gaussian.pt", alpha=1e-5))
    assert r"$\alpha = 1 \cdot 10^{-5}$" in caa("compare", path, "--format", "latex").stdout


def test_a_comparison_of_certificates_is_judged(certificates, tmp_path):
    words = ["--require", "macer.certified_accuracy@0.55>=0.75", "--require", "gaussian.average_certified_radius>0.5"]
    shown = caa("compare", *certificates, "--output", tmp_path / "c.json", *words)
    assert shown.exit_code == 0, shown.output
    assert caa("check", tmp_path / "c.json", *words).exit_code == 0
    assert caa("check", tmp_path / "c.json", "--require", "macer.certified_accuracy@0.65>=0.75").exit_code == 4
    for command in (["check", tmp_path / "c.json"], ["compare", *certificates]):
        refused = caa(*command, "--require", "macer.success_rate>=0")
        assert_clean_error(refused, 2, "no field 'macer.success_rate'", "fields: models, examples; and LABEL.FIELD")


def test_certificates_can_be_named(certificates):
    one, two = certificates
    found = parse_strict(caa("compare", f"ours={one}", two, "--json").stdout)
    assert list(found["models"]) == ["ours", "macer"]
    assert_clean_error(
        caa("compare", f"x={one}", f"x={two}"), 2, "are both called x, but of different models", "NAME="
    )
    assert_clean_error(caa("compare", f"macer={one}", two), 2, "are both called macer")


def test_the_curves_of_certified_accuracy(certificates, tmp_path):
    from caa_cli.report.models import certified_curve

    assert [list(values) for values in certified_curve([0.3, 0.8, 1.3], 4)] == [
        [0.0, 0.3, 0.8, 1.3, 1.3],
        [0.75, 0.75, 0.5, 0.25, 0.0],
    ]
    assert [list(values) for values in certified_curve([], 4)] == [[0.0], [0.0]]
    for suffix in ("png", "svg", "pdf"):
        path = tmp_path / f"c.{suffix}"
        assert caa("compare", *certificates, "--figure-certified", path).exit_code == 0
        assert path.stat().st_size > 1000


def test_what_certificates_can_not_be_compared_with(certificates, files, tmp_path):
    one = certificates[0]
    assert_clean_error(caa("compare", one, files[0]), 2, "is of caa certify and", "results of one of the two")
    for words in (["--reference", "x"], ["--bootstrap", "40"], ["--html", "x.html"], ["--figure", "x.png"]):
        hint = "leave it out; --figure-certified FILE draws their curves"
        assert_clean_error(caa("compare", *certificates, *words), 2, f"{words[0]} is of results of caa attack", hint)
    nothing = caa("compare", tmp_path / "none.json")
    assert_clean_error(nothing, 1, "can't be read", "name result files of caa attack, caa certify or caa compare")
    found = of_model(certification(certified([0.3])), "c", "c.pt")
    assert_clean_error(caa("compare", one, write(tmp_path / "c.json", found)), 2, "c and gaussian are over different")
    found = of_model(certification(certified([0.3] * 4)), "c", "c.pt", samples=7)
    assert_clean_error(caa("compare", one, write(tmp_path / "d.json", found)), 2, "samples (1500 and 7)", "the model")
    assert_clean_error(caa("compare", one, one), 2, "overlap")


def test_on_request_models_are_compared_on_the_images_that_all_have(files, certificates, tmp_path):
    """Also where each model's attacks are over the same images, but others than those of the next model."""
    more = document([record(i, 2.0) for i in range(1, 5)], limit=4, skip=1)
    third = write(tmp_path / "third.json", of_model(more, "c", "models/third.pt"))
    assert_clean_error(caa("compare", *files, third), 2, "only one of them has image 0", "--common-images")
    result = caa("compare", *files, third, "--common-images", "--output", tmp_path / "m.json")
    assert result.exit_code == 0, result.output
    models = read_strict(tmp_path / "m.json")["models"]
    assert [model["indices"] for model in models.values()] == [[1, 2]] * 3
    fewer = write(tmp_path / "f.json", of_model(certification(certified([0.3, 0.8])), "c", "c.pt", limit=2))
    result = caa("compare", *certificates, fewer, "--common-images", "--output", tmp_path / "o.json")
    assert result.exit_code == 0, result.output
    assert "compared on 2 images that all models have finished" in result.stderr
    assert {len(model["examples"]) for model in read_strict(tmp_path / "o.json")["models"].values()} == {2}


@pytest.mark.parametrize(("name", "value"), [("alpha", 0.4), ("radius", 0.1), ("mean", [0.1])])
def test_certificates_of_one_model_are_of_one_run(certificates, tmp_path, name, value):
    """Two files over different images are one table's row, so they have to be certified in one way."""
    more = [CertifyRecord(4, 1, "certified", prediction=1, radius=0.5, correct=True)]
    same = write(tmp_path / "c.json", of_model(certification(more), "a", "gaussian.pt", skip=4))
    shown = caa("compare", certificates[0], same)
    assert "5 images" in shown.stdout, shown.output
    other = write(tmp_path / "d.json", of_model(certification(more), "a", "gaussian.pt", skip=4, **{name: value}))
    assert_clean_error(caa("compare", certificates[0], other), 2, f"different settings: {name} (", "of one run")


def test_images_that_failed_for_one_model_are_left_out_of_all(certificates, tmp_path):
    records = certified([0.3, 0.8, 1.3])
    found = certification([*records, CertifyRecord(3, 1, "failed", error="damaged")])
    other = write(tmp_path / "c.json", of_model(found, "c", "c.pt"))
    shown = caa("compare", *certificates, other, "--output", tmp_path / "o.json")
    assert shown.exit_code == 3
    assert "left out: 1 image (3) failed in c" in shown.stderr
    found = read_strict(tmp_path / "o.json")
    assert found["status"] == "partial"
    assert found["models"]["gaussian"]["certified_accuracy"]["0.00"] == 1.0


def test_one_radius_alone(certificates, tmp_path):
    """Of caa certify --radius there is no average."""
    records = [CertifyRecord(0, 1, "certified", prediction=1, radius=0.4, correct=True)]
    found = [of_model(certification(records), digest, f"{digest}.pt", radius=0.0039) for digest in "ab"]
    files = [write(tmp_path / f"{i}.json", one) for i, one in enumerate(found)]
    drawn = caa("compare", *files, "--figure-certified", tmp_path / "f.png")
    assert "f.png is not drawn: only the radius 0.0039 was decided on" in drawn.stderr
    assert not (tmp_path / "f.png").exists()
    for name in FORMATS[:3]:
        shown = caa("compare", *files, "--format", name)
        assert shown.exit_code == 0, shown.output
        assert "average" not in shown.stdout
        assert "0.0039" in shown.stdout
