"""Presets of attacks: the paper's numbers, what goes before them, and real runs with them."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer
from support import CHEAP, CHEAP_SETTINGS, assert_clean_error, caa, parse_strict, read_strict

import caa_cli
from caa_cli.cli import layers
from caa_cli.cli.app import app
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.presets import PRESETS, preset_of_attack

# "Results" of the paper: 1,500 samples, α = 0.005, Goodman's intervals, the radius of Cohen et al., and no search
# after the attack; all from the text, as are the settings of each attack below.
SHARED = {"samples": 1500, "selection_samples": 1500, "certify_samples": 1500, "iterations": 100, "alpha": 0.005}
SHARED |= {"bound": "goodman", "certificate": "cohen", "verification": "intervals", "finish": "none"}
OWN: dict[str, dict[str, Any]] = {
    "caa": {
        "overshoot": 1.05,
        "undershoot": 0.95,
        "step_min": 0.1,
        "step_max": 0.25,
        "patience": 0,
        "sample_schedule": "fixed",
        "refine": "radial",
        "rivals": 1,
        "surrogate": "gumbel",
        "temperature": 0.01,
    },
    "pgd": {"pgd_epsilon": 0.0784313725490196, "pgd_gumbel_temperature": 0.01},
    "cw": {
        "cw_constant": 0.0001,
        "cw_learning_rate": 0.01,
        "cw_confidence": 0,
        "cw_gumbel_temperature": 0.01,
        "cw_start_at": "grey",
    },
    "deepfool": {"deepfool_overshoot": 0.02, "deepfool_candidates": 10, "deepfool_gumbel_temperature": 0.01},
    "autoattack": {"autoattack_radius": None, "autoattack_minimise": False, "autoattack_gumbel_temperature": 0.01},
}


def config_of(attack: str, preset: str | None) -> dict[str, Any]:
    return AttackPlan.of(checkpoint="demo", attack=attack, preset=preset, **preset_of_attack(preset, attack)).config()


@pytest.mark.parametrize("attack", OWN)
def test_the_papers_numbers(attack: str):
    config = config_of(attack, "paper")
    assert {name: config[name] for name in (*SHARED, *OWN[attack])} == SHARED | OWN[attack]


def test_on_imagenet_the_paper_draws_600_samples():
    config = config_of("deepfool", "paper-imagenet")
    assert {name: config[name] for name in SHARED if name.endswith("samples")} == dict.fromkeys(
        ("samples", "selection_samples", "certify_samples"), 600
    )
    assert config["deepfool_gumbel_temperature"] == 0.01


@pytest.mark.parametrize("attack", sorted(ATTACKS.keys() - OWN.keys()))
def test_other_attacks_get_what_is_every_attacks(attack: str):
    config, defaults = config_of(attack, "paper"), config_of(attack, None)
    changed = {name for name, value in config.items() if value != defaults[name]}
    assert changed <= {*SHARED, "preset"}
    assert {name: config[name] for name in SHARED} == SHARED


@pytest.mark.parametrize("preset", PRESETS)
def test_every_setting_of_a_preset_is_some_attacks(preset: str):
    known = {name for attack in ATTACKS for name in config_of(attack, None)}
    assert PRESETS[preset].settings.keys() <= known


def resolved(words: list[str], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> dict[str, Any]:
    """The configuration of a command line, without a run."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    command = typer.main.get_command(app).commands["attack"]  # type: ignore[attr-defined]
    context = command.make_context("attack", ["--checkpoint", "demo", *words])
    given = layers.with_preset(context, dict(context.params), context.params["attack"])
    return layers.plan_of(AttackPlan, given).config()


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("patience", {"flag": 3, "env": 4, "file": 5, "preset": 0, "default": 8}),
        ("certify_samples", {"flag": 3000, "env": 4000, "file": 5000, "preset": 1500, "default": 15000}),
        (
            "verification",
            {"flag": "exact", "env": "exact", "file": "exact", "preset": "intervals", "default": "exact"},
        ),
        # A flag that repeats the default goes before the preset too.
        ("finish", {"flag": "ray", "env": "none", "file": "ray", "preset": "none", "default": "ray"}),
    ],
)
@pytest.mark.parametrize("layers", list(product([True, False], repeat=4)))
def test_flag_then_environment_then_file_then_preset_then_default(
    setting: str, values: dict[str, Any], layers: tuple[bool, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    flag, env, file, preset = layers
    toml = tmp_path / "caa.toml"
    toml.write_text(f"[attack]\n{setting} = {values['file']!r}\n")
    words = [*(["--" + setting.replace("_", "-"), str(values["flag"])] if flag else [])]
    words += [*(["--config", str(toml)] if file else []), *(["--preset", "paper"] if preset else [])]
    variables = {f"CAA_ATTACK_{setting.upper()}": str(values["env"])} if env else {}
    said = [name for name, there in zip(values, (*layers, True), strict=True) if there]
    assert resolved(words, monkeypatch, variables)[setting] == values[said[0]]


def test_a_preset_can_be_named_by_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    toml = tmp_path / "caa.toml"
    toml.write_text('[attack]\npreset = "paper"\n')
    assert resolved(["--config", str(toml)], monkeypatch, {})["surrogate"] == "gumbel"
    variables = {"CAA_ATTACK_PRESET": "paper-imagenet"}
    assert resolved(["--config", str(toml)], monkeypatch, variables)["samples"] == 600


def test_an_unknown_preset_is_refused():
    known = "use one of: paper, paper-imagenet"
    for words in (["attack"], ["compare", "--attacks", "caa"]):
        refused = caa(*words, "--checkpoint", "demo", "--preset", "papers")
        assert_clean_error(refused, 2, "--preset 'papers' is not known", known)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """The paper's attack on two images, but for the counts and steps of a cheap run: (result, document, file)."""
    output = tmp_path_factory.mktemp("run") / "a.json"
    result = caa("attack", *CHEAP, "--preset", "paper", "--limit", "2", "--output", output)
    assert result.exit_code == 0, result.output
    return result, read_strict(output), output


def test_a_run_has_the_presets_settings_and_its_name(run):
    result, found, _ = run
    config = found["config"]
    assert (config["preset"], config["surrogate"], config["finish"]) == ("paper", "gumbel", "none")
    assert (config["certify_samples"], config["samples"], config["step_max"]) == (1500, 64, 0.9)
    # No early end, and all samples at every step.
    assert [example["iterations"] for example in found["examples"]] == [8, 8]
    assert found["examples"][1]["lost_gradients"] > 0, "the draws are saturated on the second image"
    shown = " ".join(result.stderr.split())
    assert "preset paper (Et Tu Certifications): --verification intervals" in shown
    assert "--patience 0 --sample-schedule fixed --surrogate gumbel; as given: --samples 64" in shown


def test_without_a_line_search_a_verified_point_is_a_candidate(tmp_path: Path):
    words = ["--preset", "paper", "--surrogate", "log-ratio", "--limit", "1", "--output", tmp_path / "a.json"]
    assert caa("attack", *CHEAP, *words).exit_code == 0
    (example,) = read_strict(tmp_path / "a.json")["examples"]
    assert example["radius"] >= example["radius_search"]


def test_another_preset_is_refused_as_another_setting_is(run):
    _, found, output = run
    again = ("attack", *CHEAP, "--limit", "2", "--output", output, "--resume")
    refused = caa(*again, "--preset", "paper-imagenet")
    assert_clean_error(refused, 2, "selection_samples (1500 there, 600 here)", "--overwrite")
    assert_clean_error(caa(*again), 2, "surrogate (gumbel there, log-ratio here)", "--overwrite")
    assert caa(*again, "--preset", "paper").exit_code == 0
    spelt = "--surrogate gumbel --patience 0 --sample-schedule fixed --verification intervals --finish none"
    same = [*spelt.split(), "--selection-samples", "1500", "--certify-samples", "1500"]
    assert caa(*again, *same).exit_code == 0, "the settings count, not the preset's name"
    assert read_strict(output)["examples"] == found["examples"]


def test_the_attacks_of_a_comparison_have_what_the_preset_says_of_each(tmp_path: Path):
    words = ["--checkpoint", "demo", "--preset", "paper", "--pgd-epsilon", "0.2", "--dry-run", "--json"]
    attacks = "caa:patience=3,pgd,cw,deepfool,autoattack,caa-newton"
    result = caa("compare", *words, "--attacks", attacks, "--limit", "1", "--samples", "200", "--chunk-size", "64")
    assert result.exit_code == 0, result.output
    found = {label: held["config"] for label, held in parse_strict(result.stdout)["attacks"].items()}
    expected = {"caa:patience=3": OWN["caa"] | {"patience": 3}, **OWN, "caa-newton": {}}
    expected["pgd"] = OWN["pgd"] | {"pgd_epsilon": 0.2}
    for label, config in found.items():
        wanted = SHARED | {"samples": 200} | expected[label]
        assert {name: config[name] for name in wanted} == wanted
        assert config["verify_samples"] == 10_000


def test_a_comparison_runs_with_it(tmp_path: Path):
    words = ["--preset", "paper", "--attacks", "caa,pgd,caa-newton", "--limit", "1", "--output", tmp_path / "c.json"]
    result = caa("compare", *CHEAP, *words)
    assert result.exit_code == 0, result.output
    found = read_strict(tmp_path / "c.json")
    assert found["config"]["finish"] == "none"
    settings = {label: held["settings"] for label, held in found["attacks"].items()}
    assert settings["caa"]["surrogate"] == "gumbel"
    assert settings["pgd"]["pgd_gumbel_temperature"] == 0.01
    assert settings["caa-newton"]["samples"] == 64


def test_python_takes_it_too(run):
    _, found, _ = run
    images, labels = caa_cli.load_images("demo")
    model = caa_cli.load("demo", device="cpu")
    results = caa_cli.attack(model, images[:2], labels[:2], "caa", preset="paper", **CHEAP_SETTINGS)
    for name in ("radius_search", "iterations", "forward_evaluations"):
        expected = [example[name] for example in found["examples"]]
        assert results.to_dict()[name].tolist() == pytest.approx(
            [float("nan") if value is None else value for value in expected], nan_ok=True
        )
    with pytest.raises(caa_cli.UsageError, match="preset 'papers' is not known"):
        caa_cli.attack(model, images[:1], labels[:1], "caa", preset="papers")
