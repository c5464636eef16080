"""--gradient on the command line: another checkpoint's gradients, votes alone, and what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch
from comparing import write
from merging import merge, shards
from support import CHEAP, assert_clean_error, attack, caa, parse_strict, read_strict, timeless

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.named_attacks import NamedAttack, parse_attacks
from caa_cli.errors import UsageError
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, checkpoint_bytes, read_weights
from caa_cli.models.load import build_model


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The demo's checkpoint with every weight off by a little: another file, nearly the same model."""
    weights = read_weights(DEMO_CHECKPOINT)
    model = build_model(weights, weights.card)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02 * float(parameter.std()))
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    path.write_bytes(checkpoint_bytes(model, weights.card))
    return path


@pytest.fixture(scope="module")
def white(tmp_path_factory):
    return attack(tmp_path_factory.mktemp("white") / "a.json", "--limit", "2")


def test_the_target_as_its_own_surrogate_gives_what_the_white_box_does(white, tmp_path):
    found = attack(tmp_path / "a.json", "--limit", "2", "--gradient", f"surrogate-model={DEMO_CHECKPOINT}")
    digest = hashlib.sha256(DEMO_CHECKPOINT.read_bytes()).hexdigest()
    assert found["config"]["gradient"] == f"surrogate-model={DEMO_CHECKPOINT}"
    assert found["surrogate_model"]["sha256"] == digest
    assert found["fingerprint"] != white["fingerprint"]
    assert "surrogate_model" not in white
    assert white["config"]["gradient"] == "model"
    for mine, theirs in zip(found["examples"], white["examples"], strict=True):
        assert mine["outcome"] == theirs["outcome"]
        assert mine["radius"] is None or mine["radius"] == pytest.approx(theirs["radius"], rel=1e-4)
        assert mine["backward_evaluations"] == theirs["backward_evaluations"]
        assert mine["forward_evaluations"] == theirs["forward_evaluations"] + theirs["backward_evaluations"]


def test_the_default_said_aloud_changes_nothing(white, tmp_path):
    said = attack(tmp_path / "a.json", "--limit", "2", "--gradient", "model")
    assert timeless(said) == timeless(white)
    assert said["fingerprint"] == white["fingerprint"]


def test_another_surrogate_attacks_too_and_resume_refuses_to_mix_them(other, tmp_path):
    place, output = tmp_path / "s.safetensors", tmp_path / "a.json"
    place.write_bytes(other.read_bytes())
    found = attack(output, "--limit", "1", "--gradient", f"surrogate-model={place}")
    assert found["summary"]["attacked"] == 1
    again = ("attack", *CHEAP, "--limit", "2", "--output", output, "--resume", "--gradient")
    assert_clean_error(caa(*again, "model"), 2, "gradient (surrogate-model=")
    before = output.read_bytes()
    place.write_bytes(DEMO_CHECKPOINT.read_bytes())
    assert_clean_error(caa(*again, f"surrogate-model={place}"), 2, "the surrogate's checkpoint content")
    assert output.read_bytes() == before
    place.write_bytes(other.read_bytes())
    elsewhere = place.rename(tmp_path / "moved.safetensors")
    assert caa(*again, f"surrogate-model={elsewhere}").exit_code == 0, "its content counts, not its place"


@pytest.mark.parametrize("words", [("--attack", "caa-newton", "--newton-steps", "6"), ("--iterations", "12")])
def test_votes_alone_break_an_image_without_a_backward_pass(words, tmp_path, monkeypatch):
    def refuse(*given, **settings):
        raise AssertionError("a backward pass")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    shared = (
        "--checkpoint",
        "demo",
        "--limit",
        "1",
        "--samples",
        "200",
        "--verify-samples",
        "2000",
        "--device",
        "cpu",
    )
    common = (*shared, "--gradient", "votes", "--output", tmp_path / "a.json", "--json")
    result = caa("attack", *common, *words)
    assert result.exit_code == 0, result.output
    found = parse_strict(result.stdout)
    (example,) = found["examples"]
    assert example["outcome"] == "attacked"
    assert example["backward_evaluations"] == found["summary"]["backward_evaluations"] == 0
    assert example["certified_radius"] < example["radius"] < 5
    assert "votes alone" in result.stderr
    most = parse_strict(caa("attack", *common, *words, "--dry-run").stdout)
    assert most["backward_evaluations_at_most"] == 0
    assert example["forward_evaluations"] <= most["forward_evaluations_at_most"]


def test_a_batch_of_votes_is_what_each_alone_is(tmp_path):
    words = ("--attack", "caa-newton", "--newton-steps", "4", "--samples", "100", "--verify-samples", "1000")
    common = ("attack", "--checkpoint", "demo", "--limit", "2", "--gradient", "votes", "--chunk-size", "256", *words)
    found = []
    for batch in ("1", "2"):
        place = tmp_path / f"{batch}.json"
        assert caa(*common, "--batch-size", batch, "--output", place).exit_code == 0
        found.append(read_strict(place)["examples"])
    for one, other in zip(*found, strict=True):
        assert one["forward_evaluations"] == other["forward_evaluations"]
        assert one["radius"] == pytest.approx(other["radius"], rel=1e-3)


@pytest.mark.parametrize(
    ("gradient", "problem", "hint"),
    [
        ("gradients", "--gradient 'gradients' is not known", "surrogate-model=CHECKPOINT"),
        ("votes=3", "'votes=3' is not known", "votes"),
        ("surrogate-model", "names no checkpoint", "surrogate-model=FILE"),
        ("surrogate-model=", "names no checkpoint", "surrogate-model=FILE"),
        (
            "surrogate-model=/nowhere/x.pt",
            "the checkpoint /nowhere/x.pt does not exist",
            "the same images and classes",
        ),
    ],
)
def test_what_it_can_not_say(gradient, problem, hint, tmp_path):
    result = caa("attack", *CHEAP, "--output", tmp_path / "a.json", "--gradient", gradient)
    assert_clean_error(result, 2, problem, hint)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"input_shape": (1, 32, 32)}, "takes 1×32×32 images, demo has 1×28×28"),
        ({"num_classes": 7}, "knows 7 classes"),
    ],
)
def test_a_surrogate_of_other_images_or_classes_is_refused(change, problem, tmp_path):
    weights = read_weights(DEMO_CHECKPOINT)
    path = tmp_path / "s.safetensors"
    path.write_bytes(checkpoint_bytes(build_model(weights, weights.card), replace(weights.card, **change)))
    result = caa("attack", *CHEAP, "--output", tmp_path / "a.json", "--gradient", f"surrogate-model={path}")
    assert_clean_error(result, 2, problem, "the same images and classes")


@pytest.mark.parametrize(
    "name", ["pgd", "cw", "deepfool", "autoattack", "ddn", "fmn", "alma", "pdgd", "sdf", "apgd-min"]
)
def test_attacks_that_begin_at_the_clean_image_refuse_votes(name):
    with pytest.raises(UsageError) as refused:
        AttackPlan(checkpoint="demo", attack=name, gradient="votes")
    assert "begins at the clean image" in refused.value.problem
    assert "caa or caa-newton" in str(refused.value.hint)


def test_attacks_of_a_comparison_may_see_different_things(other, tmp_path):
    named = parse_attacks(f"caa,caa:gradient=votes,pgd:gradient=surrogate-model={other}:epsilon=0.5")
    assert [entry.settings for entry in named] == [
        {},
        {"gradient": "votes"},
        {"gradient": f"surrogate-model={other}", "pgd_epsilon": "0.5"},
    ]
    colons = NamedAttack.parse("caa:gradient=surrogate-model=C:/a:b.pt:iterations=3")
    assert colons.settings == {"gradient": "surrogate-model=C:/a:b.pt", "iterations": "3"}
    assert NamedAttack.parse(colons.label) == colons
    # Long steps, as of CHEAP; the finish does the rest.
    settings = "iterations=8:step-min=0.4:step-max=0.8"
    attacks = f"caa:{settings},caa:{settings}:gradient=votes,caa:{settings}:gradient=surrogate-model={other}"
    place = tmp_path / "c.json"
    words = ("--samples", "100", "--verify-samples", "1000", "--limit", "1", "--chunk-size", "256", "--output", place)
    result = caa("compare", "--checkpoint", "demo", "--attacks", attacks, *words)
    assert result.exit_code == 0, result.output
    assert list(read_strict(place)["attacks"]) == attacks.split(",")
    written = sorted(path for path in tmp_path.glob("c.*.json"))
    assert len(written) == 3
    read = caa("compare", *written, "--json")
    labels = {"caa", "caa:gradient=votes", f"caa:gradient=surrogate-model={other}"}
    assert set(parse_strict(read.stdout)["attacks"]) == labels


def test_shards_with_gradients_of_different_checkpoints_are_not_merged(tmp_path):
    files = shards(tmp_path, gradient="surrogate-model=s.pt")
    said = [read_strict(file) for file in files]
    for place, document in zip(files, said, strict=True):
        write(place, {**document, "surrogate_model": {"path": "s.pt", "sha256": "a"}})
    merge(tmp_path, *files)
    assert read_strict(tmp_path / "all.json")["surrogate_model"]["sha256"] == "a"
    elsewhere = {**said[1], "surrogate_model": {"path": "t.pt", "sha256": "a"}}
    elsewhere["config"] = {**said[1]["config"], "gradient": "surrogate-model=t.pt"}
    write(files[1], elsewhere)
    merge(tmp_path, *files, "--overwrite")
    write(files[1], {**said[1], "surrogate_model": {"path": "s.pt", "sha256": "b"}})
    result = caa("merge", *files, "--output", tmp_path / "b.json")
    assert_clean_error(result, 2, "from different checkpoints")
