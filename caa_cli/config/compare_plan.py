"""What `caa compare` will do: which attacks it runs, or which files it reads. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attack_settings import AttackName, declared, prefix, samples_by_default
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.choices import SURROGATE_MODEL, TABLE_FORMATS
from caa_cli.config.custom_attack import is_custom, short_name
from caa_cli.config.differences import FORMERLY
from caa_cli.config.model_plan import ModelPlan
from caa_cli.config.paths import check_distinct
from caa_cli.config.pictures import PICTURES
from caa_cli.config.ranges import MOST_STEPS, SEED, Count, FileName, NameOf, OneOf, Word, flag, setting_of
from caa_cli.config.settings import check_each
from caa_cli.errors import UsageError
from caa_cli.runtime.sharding import Shard
from caa_cli.runtime.words import counted

# The settings that decide which images are eligible and when an attack counts as verified: all attacks compared
# share them. SEARCH: the further settings that every attack has.
SHARED = (
    *(f.name for f in fields(ModelPlan) if f.name not in ModelPlan.NOT_COMPARED),
    *("selection_samples", "certify_samples", "verify_samples", "verification", "finish", "target"),
)
SEARCH = ("samples", "iterations", "attack_sigma", "gradient", "search_dtype")


def setting_names(attack: str) -> list[str]:
    """The names of all settings of an attack's search; for an attack that this version does not know, SEARCH."""
    return [*(declared(attack) if attack in ATTACKS else ()), *SEARCH]


def default_of(attack: str, name: str) -> Any:
    """A setting's default; None for one that this version does not know."""
    if name == "samples":
        return samples_by_default(attack)
    setting = declared(attack).get(name) if attack in ATTACKS else None
    return getattr(AttackPlan, name, None) if setting is None else setting.default


def former_value(attack: str, name: str) -> Any:
    """The value that runs had before the setting existed, if that is not its default now; else None."""
    setting = declared(attack).get(name) if attack in ATTACKS else None
    return FORMERLY.get(name) if setting is None else setting.formerly


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
    def _parse(text: str) -> NamedAttack:
        attack, *pairs = _parts(text)
        AttackName().check("--attacks", attack)
        settings: dict[str, str] = {}
        for pair in pairs:
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not equals or not value:
                raise UsageError(
                    f"--attacks {text!r}: {pair!r} is not of the form KEY=VALUE",
                    f"for instance --attacks {attack},{attack}:iterations=50",
                )
            name = _setting(text, attack, key)
            if name in settings:
                raise UsageError(f"--attacks {text!r} says {key} twice", "leave one of them out")
            settings[name] = value
        return NamedAttack(attack, settings)

    def with_settings(self, pairs: Sequence[str]) -> NamedAttack:
        """The attack with further settings, KEY=VALUE, which its name gets too."""
        name = self.name and ":".join([self.name, *pairs])
        return replace(self._parse(":".join([label_of(self.attack, self.settings), *pairs])), name=name)


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


def _setting(text: str, attack: str, key: str) -> str:
    """The name in AttackPlan; an attack's own name need not be said again before its settings."""
    name = setting_of(key)
    names = [*declared(attack), *SEARCH]
    for known in (name, prefix(attack) + name):
        if known in names:
            return known
    if name in SHARED:
        raise UsageError(
            f"--attacks {text!r}: {key} has to be the same for all attacks",
            f"give it for all of them: {flag(name)}",
        )
    others = ", ".join(known.removeprefix(prefix(attack)).replace("_", "-") for known in names)
    raise UsageError(f"--attacks {text!r}: {attack} has no setting {key!r}", f"use one of: {others}")


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


def check_reference(reference: str, labels: Sequence[str]) -> None:
    """Raises UsageError where no attack has the label."""
    if reference not in labels:
        raise UsageError(f"--reference {reference} is none of the attacks", f"use one of: {', '.join(labels)}")


def path_for_attack(path: Path, label: str, suffix: str) -> Path:
    """The path of one attack's file: compare.caa-overshoot=1.2.json in the folder of compare.json."""
    return path.with_name(f"{path.stem}.{re.sub(r'[^A-Za-z0-9.=_-]+', '-', label)}{suffix}")


@dataclass(frozen=True, kw_only=True)
class ComparePlan:
    """attacks: those to run, by label; or files: results to read. output: None writes no document.

    names: of files that the user named.  reference: the label of the attack that the others are held against; None:
    the first.  figures: the files of the PICTURES to draw, by the picture's name.

    images_again: an image that a resumed run broke but did not keep is attacked again, to be kept.

    common_images: the images that all files have are compared; else it is an error if one has more.
    """

    attacks: dict[str, AttackPlan]
    files: tuple[Path, ...] = ()
    names: dict[Path, str] = field(default_factory=dict)
    reference: str | None = None
    output: Annotated[Path | None, FileName()] = None
    format: Annotated[str, OneOf(TABLE_FORMATS)] = "table"
    figures: dict[str, Path] = field(default_factory=dict)
    figure_examples: Annotated[Path | None, FileName()] = None
    figure_certified: Annotated[Path | None, FileName()] = None
    html: Annotated[Path | None, NameOf(".html")] = None
    images_again: bool = False
    common_images: bool = False
    bootstrap: Annotated[int, Count(0, MOST_STEPS)] = 0
    seed: Annotated[int, SEED] = 0
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        check_each(self)
        for name in self.names.values():
            NAME.check("the name", name)
        for option, path in self.pictures.values():
            FileName().check(option, path)
        self._check_attacks()
        self._check_files()

    @property
    def pictures(self) -> dict[str, tuple[str, Path]]:
        """By the picture's name: the option and the file."""
        return {name: (PICTURES[name].flag, path) for name, path in self.figures.items()}

    def written(self) -> dict[str, Path]:
        """The files that the comparison itself writes, by option."""
        others = {
            "--output": self.output,
            "--html": self.html,
            "--figure-examples": self.figure_examples,
            "--figure-certified": self.figure_certified,
        }
        return {option: path for option, path in [*others.items(), *self.pictures.values()] if path is not None}

    def with_shard_paths(self, shard: Shard) -> ComparePlan:
        """The plan with this shard's number in the names of all files that the comparison itself writes."""
        files = {name: getattr(self, name) for name in ("output", "figure_examples", "html")}
        paths: dict[str, Any] = {name: shard.path_for(path) for name, path in files.items() if path is not None}
        return replace(self, **paths, figures={name: shard.path_for(path) for name, path in self.figures.items()})

    def _check_attacks(self) -> None:
        if self.attacks and self.reference is not None:
            check_reference(self.reference, list(self.attacks))
        if self.attacks and self.figure_certified is not None:
            raise UsageError(
                "--figure-certified is of results of caa certify",
                "name their files: caa compare a.json b.json --figure-certified curves.png",
            )
        if self.attacks and self.common_images:
            raise UsageError(
                "--common-images is of results to read, and attacks that run take the same images",
                "leave it out, or name the results: caa compare a.json b.json --common-images",
            )
        place = Path("x")
        seen: dict[AttackPlan, str] = {}
        for label, attack in self.attacks.items():
            same = replace(attack, name=None, output=place, save_adversarial=None)
            if same in seen:
                raise UsageError(
                    f"{seen[same]} and {label} of --attacks are one attack with the same settings",
                    "leave one of them out",
                )
            seen[same] = label

    def _check_files(self) -> None:
        """No file of a comparison may be overwritten by another."""
        check_distinct(self.reads(), self.writes())

    def reads(self) -> list[tuple[str, Path | None]]:
        """All files that the comparison or its attacks read, each with its description."""
        return [
            *(("a result to read,", path) for path in self.files),
            *(read for attack in self.attacks.values() for read in attack.reads()),
        ]

    def writes(self) -> list[tuple[str, Path | None]]:
        """All files that the attacks and the comparison write, each with its description."""
        return [
            *(
                (f"{what} of {label},", path)
                for label, a in self.attacks.items()
                for what, path in a.writes().items()
            ),
            *self.written().items(),
        ]
