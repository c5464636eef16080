"""Recipes: what they fill in, and what goes before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import assert_clean_error, caa, parse_strict

from caa_cli.config.choices import ARCHITECTURES, DENOISER_ARCHITECTURES, NORMALISATIONS
from caa_cli.config.datasets import DATASETS
from caa_cli.config.methods import METHODS
from caa_cli.config.recipes import RECIPES
from caa_cli.config.train_plan import TrainPlan


def planned(*words: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """The settings that a training would have."""
    result = caa("train", "--dataset", "demo", "--dry-run", "--json", *words, env=env)
    assert result.exit_code == 0, result.output
    return parse_strict(result.stdout)["config"]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_every_recipe_is_a_plan(name: str, sigma: float):
    settings = RECIPES[name].at(sigma)
    assert settings.keys() <= TrainPlan().config().keys()
    plan = TrainPlan.of(sigma=sigma, recipe=name, **settings)
    assert plan.arch in (DENOISER_ARCHITECTURES if plan.denoises else ARCHITECTURES)
    assert plan.dataset == name.split("-")[1]


def test_there_is_a_recipe_of_every_method_for_mnist():
    assert {RECIPES[name].settings.get("method", "gaussian") for name in RECIPES if name.endswith("mnist")} == set(
        METHODS
    )


def test_every_data_set_has_a_normalisation():
    assert {spec.normalisation for spec in DATASETS.values()} <= set(NORMALISATIONS)


def test_a_recipe_fills_in_what_is_not_said():
    config = planned("--recipe", "macer-mnist", "--sigma", "0.9", "--batch-size", "16")
    assert config["recipe"] == "macer-mnist"
    assert (config["method"], config["weight"], config["draws"], config["arch"]) == ("macer", 6.0, 16, "lenet")
    assert (config["optimizer"], config["epochs"], config["schedule"]) == ("sgd", 90, "step")
    assert config["dataset"] == "demo"


def test_flags_environment_and_file_go_before_a_recipe(tmp_path: Path):
    file = tmp_path / "caa.toml"
    file.write_text("[train]\nbatch-size = 33\nweight = 2.5\n")
    words = ["--recipe", "macer-mnist", "--epochs", "7", "--config", str(file)]
    config = planned(*words, env={"CAA_TRAIN_GAMMA": "4"})
    assert (config["epochs"], config["batch_size"], config["weight"], config["gamma"]) == (7, 33, 2.5, 4.0)
    assert (config["learning_rate"], config["beta"]) == (0.01, 16.0)


def test_a_flag_that_repeats_a_default_still_goes_before_a_recipe():
    assert planned("--recipe", "cohen-mnist", "--epochs", "50")["epochs"] == TrainPlan.epochs == 50


def test_another_method_takes_of_a_recipe_what_is_not_of_the_first():
    config = planned("--recipe", "smoothadv-mnist", "--method", "consistency")
    assert (config["method"], config["draws"], config["weight"], config["epsilon"]) == ("consistency", 4, 10.0, None)
    assert (config["arch"], config["epochs"]) == ("lenet", 90)


def test_the_noise_whose_settings_are_taken_is_said(tmp_path: Path):
    words = ["--dataset", "demo", "--dry-run", "--recipe", "macer-mnist", "--batch-size", "16"]
    assert "settings for σ = 1" in caa("train", *words, "--sigma", "0.9").stderr
    assert "settings for" not in caa("train", *words, "--sigma", "0.5").stderr


def test_a_recipe_can_be_named_in_a_file(tmp_path: Path):
    file = tmp_path / "caa.toml"
    file.write_text('[train]\nrecipe = "cohen-mnist"\n')
    assert planned("--config", str(file))["arch"] == "lenet"


def test_an_unknown_recipe_is_refused():
    assert_clean_error(caa("train", "--recipe", "cohen-svhn"), 2, "--recipe 'cohen-svhn' is not known", "cohen-mnist")


@pytest.mark.parametrize(
    ("words", "problem", "hint"),
    [
        (
            ["--method", "gaussian", "--eta", "1"],
            "--eta is a setting of the method consistency",
            "--draws",
        ),
        (["--method", "macer", "--draws", "1"], "--draws must be at least 2 and at most 10,000, not 1", "--draws 2"),
        (["--method", "stability", "--weight", "-1"], "--weight must be at least 0", "--weight"),
        (["--method", "smoothadv", "--inner-attack", "cw"], "--inner-attack 'cw' is not known", "pgd, ddn"),
        (["--optimizer", "lion"], "--optimizer 'lion' is not known", "adam, sgd"),
        (["--momentum", "0.5"], "--momentum is a setting of --optimizer sgd, not of adam", "add --optimizer sgd"),
        (["--step-epochs", "5"], "--step-epochs is a setting of --schedule step, not of constant", "--schedule step"),
        (["--momentum", "1"], "--momentum must be at least 0 and below 1, not 1", "0.9"),
        (["--dtype", "float64"], "--dtype 'float64' is not known", "bfloat16"),
        (["--clip-norm", "0"], "--clip-norm must be above 0", "--clip-norm"),
        (["--normalisation", "svhn"], "--normalisation 'svhn' is not known", "cifar10"),
        (["--normalisation", "cifar10"], "normalisation cifar10 is for 3 channels, not 1", "none"),
        (["--heldout", "600"], "--heldout 600 leaves too few", "--heldout"),
        (["--method", "denoiser"], "none is given", "add --classifier FILE; or --objective mse"),
        (["--method", "denoiser", "--arch", "lenet"], "--arch lenet is no denoiser", "--classifier-arch lenet"),
        (
            ["--method", "denoiser", "--normalisation", "mnist"],
            "a denoiser takes images as they are",
            "--classifier-normalisation mnist",
        ),
        (
            ["--method", "denoiser", "--objective", "mse", "--mse-epochs", "3"],
            "--objective mse: all epochs are of squared error already",
            "leave --mse-epochs out",
        ),
        (
            ["--method", "denoiser", "--classifier", "demo", "--epochs", "10"],
            "no epoch of 10 is left for --objective stability: the first 10 are of mse",
            "--mse-epochs",
        ),
        (
            ["--method", "denoiser", "--objective", "mse", "--classifier-arch", "lenet"],
            "--classifier-arch is about the classifier behind a denoiser",
            "add --classifier FILE",
        ),
        (["--classifier", "demo"], "--classifier is about the classifier behind a denoiser", "add --method denoiser"),
        (["--trust-checkpoint"], "--trust-checkpoint is about the classifier", "leave it out"),
        (["--depth", "3"], "--depth is a setting of the method denoiser", "leave it out"),
        (
            ["--method", "denoiser", "--classifier", "demo", "--classifier-normalisation", "svhn"],
            "--classifier-normalisation 'svhn' is not known",
            "cifar10",
        ),
        (
            ["--method", "denoiser", "--classifier", "demo", "--classifier-mean", "0.1,x"],
            "--classifier-mean '0.1,x' is not a number",
            "--classifier-mean 0.5",
        ),
        (
            ["--recipe", "cohen-mnist", "--method", "macer", "--eta", "1"],
            "--eta is a setting of the method consistency, not of macer",
            "--beta",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_settings_are_refused(tmp_path: Path, words: list[str], problem: str, hint: str):
    assert_clean_error(caa("train", "--dataset", "demo", "--output", tmp_path / "m", *words), 2, problem, hint)
    assert list(tmp_path.iterdir()) == []
