"""The entries of --attacks and --sweep: attacks with settings as texts, and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from caa_cli.config.attack_settings import AttackName, declared, prefix
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.choices import SURROGATE_MODEL
from caa_cli.config.compared_settings import SEARCH, SHARED
from caa_cli.config.custom_attack import is_custom, short_name
from caa_cli.config.ranges import Word, did_you_mean, flag, setting_of
from caa_cli.errors import UsageError
from caa_cli.runtime.words import counted

# A name of the user's for an attack, or for a result file. One that is an attack's would mislead.
NAME = Word(taken=ATTACKS)


@dataclass(frozen=True)
class NamedAttack:
    """One entry of --attacks: `caa`, or `caa:overshoot=1.2:step-min=0.2`, or with a name: `long=caa:iterations=500`.

    settings: texts, by AttackPlan's names.
    """

    attack: str
    settings: dict[str, str]
    name: str | None = None

    @property
    def label(self) -> str:
        return self.name or label_of(short_name(self.attack), self.settings)

    @staticmethod
    def parse(text: str) -> NamedAttack:
        """Raises UsageError for an unknown attack or setting, and for one that all attacks share."""
        name, equals, unnamed = (part.strip() for part in text.partition("="))
        if not equals or ":" in name or "/" in name:  # as in caa:iterations=500, or in a path
            return NamedAttack._parse(text)
        NAME.check("--attacks", name)
        return replace(NamedAttack._parse(unnamed), name=name)

    @staticmethod
    def _parse(text: str, option: str = "--attacks") -> NamedAttack:
        attack, *pairs = _parts(text)
        AttackName().check(option, attack)
        settings: dict[str, str] = {}
        for pair in pairs:
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not equals or not value:
                raise UsageError(
                    f"{option} {text!r}: {pair!r} is not of the form KEY=VALUE",
                    f"for instance --attacks {attack},{attack}:iterations=50",
                )
            name = _setting(f"{option} {text!r}", attack, key)
            if name in settings:
                raise UsageError(f"{option} {text!r} says {key} twice", "leave one of them out")
            settings[name] = value
        return NamedAttack(attack, settings)

    def with_settings(self, pairs: Sequence[str]) -> NamedAttack:
        """The attack with further settings, KEY=VALUE, which its name gets too."""
        name = self.name and ":".join([self.name, *pairs])
        return replace(self._parse(":".join([label_of(self.attack, self.settings), *pairs]), "--sweep"), name=name)


def _parts(text: str) -> list[str]:
    """The parts between colons; a colon without KEY= behind it may belong to the name of a file."""
    parts: list[str] = []
    if is_custom(text) and text.partition(":")[0].strip() not in ATTACKS:
        source, name, *pairs = (part.strip() for part in text.split(":"))
        return [f"{source}:{name}", *pairs]
    for part in text.split(":"):
        if parts and "=" not in part and f"{SURROGATE_MODEL}=" in parts[-1]:
            parts[-1] += f":{part.rstrip()}"
        else:
            parts.append(part.strip())
    return parts


def _setting(entry: str, attack: str, key: str) -> str:
    """The name in AttackPlan; an attack's own name need not be said again before its settings. entry: as messages
    begin, with the option."""
    name = setting_of(key)
    names = [*declared(attack), *SEARCH]
    for known in (prefix(attack) + name, name):  # an attack of the user's may have a setting of any name
        if known in names:
            return known
    if name in SHARED:
        raise UsageError(
            f"{entry}: {key} has to be the same for all attacks",
            f"give it for all of them: {flag(name)}",
        )
    others = [known.removeprefix(prefix(attack)).replace("_", "-") for known in names]
    hint = f"{did_you_mean(key, others)}use one of: {', '.join(others)}"
    raise UsageError(f"{entry}: {attack} has no setting {key!r}", hint)


def parse_attacks(text: str) -> list[NamedAttack]:
    """The entries of --attacks, separated by commas."""
    return [NamedAttack.parse(part) for part in text.split(",") if part.strip()]


def parse_sweeps(texts: Sequence[str]) -> dict[str, list[str]]:
    """Values by key, of `KEY=V1,V2,…` once or twice. Raises UsageError."""
    sweeps: dict[str, list[str]] = {}
    for text in texts:
        key, _, values = text.partition("=")
        key, several = key.strip(), [value.strip() for value in values.split(",") if value.strip()]
        if len(several) < 2:
            raise UsageError(
                f"--sweep {text!r} is not of the form KEY=V1,V2,…", "for instance --sweep step-max=0.2,0.3"
            )
        if repeated := [value for value in several if several.count(value) > 1]:
            raise UsageError(f"--sweep {text!r} has {repeated[0]} twice", "leave one of them out")
        if key in sweeps:
            raise UsageError(f"--sweep says {key} twice", "give its values in one list")
        sweeps[key] = several
    if len(sweeps) > 2:
        raise UsageError(
            f"--sweep varies {counted(len(sweeps), 'setting')}", "one or two, so that a picture can show them"
        )
    return sweeps


def swept(entries: Sequence[NamedAttack], sweeps: Mapping[str, Sequence[str]]) -> list[NamedAttack]:
    """Every attack with every combination of the values."""
    if len(sweeps) > 1 and len(entries) > 1:
        raise UsageError("--sweep varies two settings of several attacks", "name one of them with --attacks")
    return [
        entry.with_settings([f"{key}={value}" for key, value in zip(sweeps, values, strict=True)])
        for entry in entries
        for values in product(*sweeps.values())
    ]


def label_of(attack: str, settings: Mapping[str, object]) -> str:
    """`caa:overshoot=1.2:step-min=0.2`, as --attacks takes it."""

    def shown(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float) and float(f"{value:g}") == value:
            return f"{value:g}"
        return str(value)  # of a float all digits, so that two never have one label

    words = [
        f"{name.removeprefix(prefix(attack)).replace('_', '-')}={shown(value)}" for name, value in settings.items()
    ]
    return ":".join([attack, *words])
