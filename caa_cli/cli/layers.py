"""How the layers of a command's settings come together, and its options become a plan.

Click resolves a value from flag > environment (CAA_<SUBCOMMAND>_<OPTION>) > default map > default; the TOML file
becomes the default map. A preset or a recipe takes the place of defaults.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import typer

from caa_cli.cli.environment import is_typed, source_of
from caa_cli.cli.values import number, shortened, whole
from caa_cli.config import methods
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.config.custom_attack import names_code
from caa_cli.config.methods import METHODS
from caa_cli.config.model_plan import ModelPlan
from caa_cli.config.normalisations import mean_and_std
from caa_cli.config.paths import check_distinct
from caa_cli.config.presets import preset_of_attack
from caa_cli.config.ranges import OneOf, flag
from caa_cli.config.recipes import RECIPES
from caa_cli.config.selection import file_or_list
from caa_cli.config.sizes import parse_size
from caa_cli.config.targets import target_or_file
from caa_cli.config.train_plan import TrainPlan
from caa_cli.errors import MissingSettingsError, UsageError
from caa_cli.runtime.sharding import Shard

P = TypeVar("P", AttackPlan, CertifyPlan, TrainPlan)


def plan_of(kind: type[P], given: dict[str, Any]) -> P:
    """The plan from a command's options, which have the names of its settings; texts become values."""
    checkpoints, given = given.get("checkpoint"), {**given}
    if "checkpoint" in given:
        given["checkpoint"], *members = checkpoints or ["demo"]
        given["members"] = tuple(members)
    for prefix in ("", "classifier_"):
        if f"{prefix}mean" in given:
            given |= normalisation(given, prefix)
    for name, read in _TEXTS.items():
        if isinstance(given.get(name), str):
            given |= read(given[name])
    plan = kind.of(**given)
    if not isinstance(plan, TrainPlan) and not checkpoints:
        # Last, because the hint for a missing checkpoint repeats the command: all else in it is right.
        plan = replace(plan, checkpoint=network_of(plan.arch))
    check_distinct([("--config", given.get("config"))], plan.writes().items())
    # Automatic shards share one command line, so --output alone would name one file for all.
    return plan.with_shard_paths() if isinstance(plan, ModelPlan) and plan.shard.chosen else plan


def _chunk_size(text: str) -> dict[str, Any]:
    size = None if text == "measure" else automatic(text, "--chunk-size")
    return {"chunk_size": size, "measure_chunks": text == "measure"}


# The plan's settings, of options that are a text on the command line and something else in a plan.
_TEXTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "indices": lambda text: dict(zip(("indices_file", "indices_list"), file_or_list(text), strict=True)),
    "target": lambda text: dict(zip(("target", "target_file"), target_or_file(text), strict=True)),
    "max_memory": lambda text: {"max_memory": parse_size(text, "--max-memory")},
    "batch_size": lambda text: {"batch_size": automatic(text, "--batch-size")},
    "chunk_size": _chunk_size,
    "shard": lambda text: {"shard": Shard.parse(text, os.environ)},
}


def check_trust(context: typer.Context, option: str, attacks: str) -> None:
    """Raises UsageError where code would run that nobody named on the command line."""
    if is_typed(context, option) or is_typed(context, "trust_attack") or not names_code(attacks):
        return
    raise UsageError(
        f"{flag(option)} {shortened(attacks)} would run code, and it is not from the command line",
        "read that code; then add --trust-attack on the command line, or name the attack there",
    )


def with_recipe(context: typer.Context, given: dict[str, Any]) -> dict[str, Any]:
    """The options with a training recipe's settings in place of defaults."""
    name = given["recipe"]
    if name is None:
        return given
    OneOf(RECIPES).check("--recipe", name)
    settings = RECIPES[name].at(given["sigma"])
    if source_of(context, "method") != "DEFAULT":  # another method lacks the settings of the recipe's
        declared = methods.declared(given["method"]) if given["method"] in METHODS else {}
        foreign = methods.declared(settings.get("method", TrainPlan.method)).keys() - declared.keys()
        settings = {option: value for option, value in settings.items() if option not in foreign}
    return _in_place_of_defaults(context, given, settings)


def with_preset(context: typer.Context, given: dict[str, Any], attack: str | None = None) -> dict[str, Any]:
    """The options with the settings that a preset has for an attack, or for all, in place of defaults."""
    return _in_place_of_defaults(context, given, preset_of_attack(given["preset"], attack))


def _in_place_of_defaults(context: typer.Context, given: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The options with these values where no flag, variable or TOML file gives one."""
    return {**given, **{name: value for name, value in settings.items() if source_of(context, name) == "DEFAULT"}}


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """`0.1,0.2` as a tuple."""
    if text is None:
        return None
    try:
        return tuple(number(part) for part in text.split(","))
    except typer.BadParameter as error:
        raise UsageError(
            f"{option} {shortened(text)} is not a number, or several separated by commas",
            f"for instance {option} 0.5,0.5,0.5",
        ) from error


def network_of(arch: str | None) -> str:
    """The factory named by --arch, whose network holds its own weights: it replaces --checkpoint."""
    if arch is None or ":" not in arch:
        raise MissingSettingsError(
            "caa needs --checkpoint, or an --arch whose network holds its weights", ["--checkpoint demo"]
        )
    return arch


def normalisation(given: dict[str, Any], prefix: str = "") -> dict[str, tuple[float, ...] | None]:
    """{mean, std} from --normalisation, or from --mean and --std; with the options' and the keys' prefix."""
    mean, std = (numbers(given[prefix + name], flag(prefix + name)) for name in ("mean", "std"))
    mean, std = mean_and_std(given.get(f"{prefix}normalisation"), mean, std, prefix=prefix)
    return {f"{prefix}mean": mean, f"{prefix}std": std}


def automatic(text: str, option: str) -> int | None:
    """`auto` (None) or a whole number."""
    if text == "auto":
        return None
    try:
        return whole(text)
    except typer.BadParameter as error:
        raise UsageError(
            f"{option} {shortened(text)} is neither auto nor a whole number", f"for instance {option} 64"
        ) from error
