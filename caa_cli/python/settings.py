"""Settings as Python gives them, by the names of the flags: which there are, and of which type."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from numbers import Real
from typing import Any

from caa_cli.config import custom_attack
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attack_settings import declared, prefix, spec_of
from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.config.model_plan import ModelPlan
from caa_cli.config.presets import preset_of_attack
from caa_cli.config.ranges import did_you_mean
from caa_cli.config.settings import settings_of
from caa_cli.errors import UsageError
from caa_cli.smoothing.classifier import SmoothedClassifier

# What `attack` takes as an argument of another name, and settings about files.
_NOT_SETTINGS = {
    "attack",
    "settings",
    "gradient",
    "target",
    "target_file",
    "save_adversarial",
    *(f.name for f in fields(ModelPlan)),
}
_OF_MODEL = {"sigma", "dtype", "device", "denoiser", "ensemble", "arch", "normalisation", "mean", "std"}
_KEPT = {"alpha", "bound", "certificate", "seed", "chunk_size"}


def model_plan(checkpoints: Sequence[str], **settings: Any) -> CertifyPlan:
    """What `load` is to load, as a command would be told. Raises UsageError."""
    if not checkpoints:
        raise UsageError("checkpoint names no file", "give a path, several, or 'demo'")
    if settings["ensemble"] is not None and len(checkpoints) == 1:
        raise UsageError(f"ensemble {settings['ensemble']} needs several checkpoints", "give a list of paths")
    return _certify_plan({"checkpoint": checkpoints[0], "members": tuple(checkpoints[1:])}, settings)


def certify_plan(model: SmoothedClassifier, **settings: Any) -> CertifyPlan:
    """The plan of `certify`. Raises UsageError."""
    return _certify_plan(_of_model(model), settings)


def _certify_plan(of_model: Mapping[str, Any], settings: Mapping[str, Any]) -> CertifyPlan:
    kinds = {setting.name: setting.kind for setting in settings_of(CertifyPlan)}
    typed = {name: typed_value(name, kinds[name], value) for name, value in settings.items()}
    return CertifyPlan.of(**of_model, **typed)


def attack_plan(
    model: SmoothedClassifier,
    method: str | Callable[..., Any],
    gradient: str,
    settings: Mapping[str, Any],
    target: Mapping[str, Any],
) -> AttackPlan:
    """The plan of `attack`: an attack's own settings may leave its name out. target: the plan's settings of it.

    Raises UsageError for a setting that the attack does not have.
    """
    if not isinstance(method, str) and not callable(method):
        raise UsageError(f"method must be the name of an attack, or a function, not {method!r}", "method='caa'")
    name = custom_attack.register(method) if callable(method) else method
    attack = custom_attack.split(name)[0]
    spec_of(attack)
    start = prefix(attack)
    known = {s.name: s for s in settings_of(AttackPlan) if s.name not in _NOT_SETTINGS or s.name in _KEPT} | declared(
        attack
    )
    # A name without its attack, where that is no other setting's name; the user's own code may have any name.
    short = {key.removeprefix(start): key for key in declared(attack)}
    full = short | {key: key for key in known} | (short if custom_attack.is_custom(attack) else {})
    for key in settings:
        if key not in full:
            raise UsageError(f"{attack} has no setting {key!r}", _place_of(key, full, known))
    typed = {full[key]: typed_value(key, known[full[key]].kind, value) for key, value in settings.items()}
    typed = preset_of_attack(typed.get("preset"), attack) | typed
    plan = AttackPlan.of(**_of_model(model), attack=name, gradient=gradient, **target, **typed)
    return plan.resolve(model.sigma)


def _place_of(key: str, full: Collection[str], known: Collection[str]) -> str:
    """The hint for a setting that the attack does not have. full: the names of those that it has."""
    if key == "attack":
        return "the attack is the argument `method`: method='caa'"
    if key in _OF_MODEL:
        return f"the model has it: caa.load(…, {key}=…)"
    return did_you_mean(key, full).rstrip() or f"it has: {', '.join(sorted(known))}"


def _of_model(model: SmoothedClassifier) -> dict[str, Any]:
    """The settings of a plan that follow from a model in memory."""
    return {"checkpoint": model.arch, "sigma": model.sigma, "dtype": str(model.dtype).removeprefix("torch.")}


def typed_value(name: str, kind: Any, value: Any) -> Any:
    """The value as the setting's type has it, whole numbers of any library as int; or None. Raises UsageError for a
    value of another type."""
    if value is None:
        return None
    if kind is int and not isinstance(value, bool) and hasattr(value, "__index__"):
        return operator.index(value)
    if kind is float and isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    if kind in _WORDS and (kind in (int, float) or not isinstance(value, kind)):
        raise UsageError(
            f"{name} must be {_WORDS[kind]}, not {value!r}", f"for instance {name}={_FOR_INSTANCE[kind]}"
        )
    return value


_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
_FOR_INSTANCE = {int: "100", float: "0.5", bool: "True", str: "'…'"}
