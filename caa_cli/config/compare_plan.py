"""What `caa compare` will do: which attacks it runs, or which files it reads. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.choices import TABLE_FORMATS
from caa_cli.config.named_attacks import NAME
from caa_cli.config.paths import check_distinct
from caa_cli.config.pictures import PICTURES
from caa_cli.config.plan import Plan
from caa_cli.config.ranges import MOST_STEPS, SEED, Count, FileName, NameOf, OneOf, ZeroOr, did_you_mean
from caa_cli.config.settings import Shown, Takes
from caa_cli.errors import UsageError
from caa_cli.runtime.sharding import Shard


def check_reference(reference: str, labels: Sequence[str]) -> None:
    """Raises UsageError where no attack has the label."""
    if reference not in labels:
        near = did_you_mean(reference, labels)
        raise UsageError(f"--reference {reference} is none of the attacks", f"{near}use one of: {', '.join(labels)}")


def path_for_attack(path: Path, label: str, suffix: str) -> Path:
    """The path of one attack's file: compare.caa-overshoot=1.2.json in the folder of compare.json."""
    return path.with_name(f"{path.stem}.{re.sub(r'[^A-Za-z0-9.=_-]+', '-', label)}{suffix}")


@dataclass(frozen=True, kw_only=True)
class ComparePlan(Plan):
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
    output: Annotated[
        Path | None,
        FileName(),
        "Where to write the comparison; each attack's result goes to the same folder.",
        Takes("FILE.json"),
        Shown("compare.json when attacks are run"),
    ] = None
    format: Annotated[str, OneOf(TABLE_FORMATS), f"Format of the table: {', '.join(TABLE_FORMATS)}."] = "table"
    figures: dict[str, Path] = field(default_factory=dict)
    figure_examples: Annotated[
        Path | None,
        FileName(),
        "Draw a few images under every attack (needs matplotlib); saves the adversarial images.",
        Takes("FILE.png"),
    ] = None
    figure_certified: Annotated[
        Path | None,
        FileName(),
        "Draw the certified accuracy of every model, from results of caa certify (needs matplotlib).",
        Takes("FILE.png"),
    ] = None
    html: Annotated[
        Path | None,
        NameOf(".html"),
        "The whole comparison as one self-contained page (needs matplotlib).",
        Takes("FILE.html"),
    ] = None
    images_again: bool = False
    common_images: Annotated[
        bool, "Of results to read, compare the images that all have; without it, one that lacks some is refused."
    ] = False
    bootstrap: Annotated[
        int,
        ZeroOr(Count(40, MOST_STEPS, "beyond each end of a 95% interval lies one resample of 40; 1000 are usual")),
        "95% confidence intervals from N bootstrap resamples of the images; 0: none.",
        Takes("N"),
    ] = 0
    seed: Annotated[int, SEED] = 0
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
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
        check_distinct(self.reads(), self.writes().items())

    def reads(self) -> list[tuple[str, Path | None]]:
        """All files that the comparison or its attacks read, each with its description."""
        return [
            *(("a result to read,", path) for path in self.files),
            *(read for attack in self.attacks.values() for read in attack.reads()),
        ]

    def writes(self) -> dict[str, Path | None]:
        """All files that the attacks and the comparison write, by what they are."""
        of_attacks = {
            f"{what} of {label},": path
            for label, attack in self.attacks.items()
            for what, path in attack.writes().items()
        }
        return {**of_attacks, **self.written()}
