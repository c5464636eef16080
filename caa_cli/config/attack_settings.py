"""The names of attacks and of their settings, as users and results have them: `ddn_gamma`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caa_cli.config import custom_attack
from caa_cli.config.attacks import ATTACKS, SAMPLES, AttackSpec
from caa_cli.config.ranges import did_you_mean
from caa_cli.config.settings import Setting, Settings, check_each, filled, refuse_foreign, settings_of
from caa_cli.errors import UsageError

_CUSTOM = "caa_cli.attacks.custom.attack:CustomAttack"


@dataclass(frozen=True)
class AttackName:
    """The name of a registered attack, or of one in the user's code."""

    def check(self, option: str, value: str) -> None:
        if value not in ATTACKS and not custom_attack.is_custom(value):
            near = did_you_mean(value, ATTACKS)
            code = "or package.module:function, file.py:function for an attack of yours"
            raise UsageError(
                f"{option} {value!r} is not known",
                f"{near}use one of: {', '.join(ATTACKS)}; {code}",
            )


def spec_of(attack: str) -> AttackSpec:
    """The row of an attack, or one made of the user's code. Raises UsageError for an unknown name."""
    AttackName().check("--attack", attack)
    return ATTACKS[attack] if attack in ATTACKS else AttackSpec(custom_attack.known(attack), _CUSTOM, _CUSTOM)


def samples_by_default(attack: str, by_votes: bool = False) -> int:
    """The default of --samples for an attack, also for one that this version does not know."""
    return ATTACKS[attack].samples if attack in ATTACKS and not by_votes else SAMPLES


def prefix(attack: str) -> str:
    """The prefix of an attack's settings in users' names, which makes them unique; empty for `caa`."""
    if custom_attack.is_custom(attack):
        return custom_attack.PREFIX
    return "" if attack == "caa" else attack.removeprefix("caa-").replace("-", "_") + "_"


def declared(attack: str) -> dict[str, Setting]:
    """The settings of an attack by the names that users and results have for them: `ddn_gamma`."""
    return {prefix(attack) + setting.name: setting for setting in settings_of(spec_of(attack).settings)}


def foreign(attack: str) -> set[str]:
    """The names of the settings that only other attacks have."""
    return {name for other in ATTACKS if other != attack for name in declared(other)}


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values by users' names, with `settings`: the attack's out of them, where None is one that nobody gave.

    `attack` is a name, or a callable. Raises UsageError for an unknown attack, and for a value of a setting that is
    another attack's.
    """
    attack, arguments = custom_attack.named(given["attack"])
    AttackName().check("--attack", attack)
    given = {**given, "attack": attack}
    if custom_attack.is_custom(attack):
        custom_attack.load(attack)
        given |= custom_attack.checked(attack, declared(attack), {**given, **arguments})
    with custom_attack.as_written(attack):
        refuse_foreign("attack", attack, {name: declared(name) for name in (*ATTACKS, attack)}, given)
    return {**given, "settings": filled(spec_of(attack).settings, given, prefix(attack))}


def check(attack: str, settings: Settings, by_votes: bool, targeted: bool = False) -> None:
    """Raises UsageError for a value out of its range, and for two that don't go together."""
    if type(settings) is not spec_of(attack).settings:
        raise TypeError(f"{type(settings).__name__} has no settings of {attack}")
    if custom_attack.is_custom(attack):
        custom_attack.check_ranges(attack, settings)
    else:
        check_each(settings, prefix(attack))
    settings.check(by_votes)
    if targeted:
        _check_target(attack, settings)


def _check_target(attack: str, settings: Settings) -> None:
    if not spec_of(attack).takes_target:
        able = [name for name, spec in ATTACKS.items() if spec.takes_target]
        name = custom_attack.short_name(attack)
        raise UsageError(f"--target: {name} can't aim at a class", f"use one of: {', '.join(able)}")
    settings.check_target()


def flat(attack: str, settings: Settings) -> dict[str, Any]:
    """The values by users' names, as results record them."""
    values = {prefix(attack) + s.name: getattr(settings, s.field) for s in settings_of(type(settings))}
    return values | settings.recorded()
