"""`caa compare`"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from caa_cli.cli import completion, generate, layers, options, running
from caa_cli.cli.attack import attack
from caa_cli.cli.environment import is_typed
from caa_cli.cli.generate import COMPARISON, DATA, RUN, option
from caa_cli.config.attack_plan import AttackPlan, default_samples
from caa_cli.config.attack_settings import declared, foreign
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.choices import TABLE_FORMATS
from caa_cli.config.compare_plan import ComparePlan, path_for_attack
from caa_cli.config.named_attacks import NamedAttack, parse_attacks, parse_sweeps, swept
from caa_cli.config.paths import check_distinct
from caa_cli.config.pictures import PICTURES
from caa_cli.config.ranges import FileName, OneOf, flag
from caa_cli.errors import MissingSettingsError, UsageError
from caa_cli.runtime.sharding import Shard
from caa_cli.runtime.words import first_few

# Options of `caa attack` that a comparison has for each attack, or as others.
_OF_ONE_ATTACK = ("attack", "name", "output", "figure")
_TABLE, _PAGES = ("format", "bootstrap", "common_images"), ("figure_examples", "figure_certified", "html")
# The options that apply where files are read; all others say how to run attacks.
_READING = {"files", "reference", "output", "seed", "config", "require", "json", "quiet", "overwrite", "dry_run"}
_READING |= {*_TABLE, *_PAGES, *generate.pictures()}


@running.guarded
@generate.with_options(options.of(ComparePlan, COMPARISON, _TABLE), before="sweep")
@generate.with_options(
    generate.pictures()
    | options.of(ComparePlan, COMPARISON, _PAGES)
    | options.of(ComparePlan, RUN, ("output",))
    | {name: taken for name, taken in generate.options_of(attack).items() if name not in _OF_ONE_ATTACK}
)
@generate.with_options(options.of(AttackPlan, DATA, options.MODEL_AND_IMAGES), before="attacks")
def compare(
    context: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[NAME=]FILE.json]…",
            help="Results of caa attack to compare, or of caa certify; or one of caa compare, to show it again. "
            "A name is shown in place of the attack's.",
        ),
    ] = None,
    attacks: Annotated[
        str | None,
        option(
            metavar="[NAME=]ATTACK[:KEY=VALUE]…,…",
            help=f"Which to run: {', '.join(ATTACKS)}; one may appear twice, with other settings and a name.",
            panel=COMPARISON,
            choices=completion.attack_lists,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        option(
            metavar="LABEL",
            help="The attack that the others are held against, by its label or name.",
            show_default="the first",
            panel=COMPARISON,
            choices=completion.attack_lists,
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        option(
            metavar="KEY=V1,V2,…",
            help="Run each attack with each value of a setting; give it twice for all combinations of two.",
            panel=COMPARISON,
        ),
    ] = None,
    **given: Any,
) -> None:
    """Compare attacks on the same images, run now or read from results: which finds the nearest misclassified ones?

    [bold]caa compare --checkpoint demo --attacks caa,caa:surrogate=gumbel[/] runs two;
    [bold]caa compare a.json b.json[/] reads two.
    """
    if not files and given["output"] is None:
        given["output"] = Path("compare.json")
    named = [_named_file(file) for file in files or []]
    plans: dict[str, AttackPlan] = {}
    shard = Shard()
    if files:
        _check_reading(context, files, attacks)
    else:
        layers.check_trust(context, "attacks", attacks or "")
        FileName().check("--output", given["output"])
        # Before what is missing: that hint repeats the command.
        OneOf(TABLE_FORMATS).check("--format", given["format"])
        entries = swept(parse_attacks(attacks or ""), parse_sweeps(sweep or []))
        plans = _plans(context, layers.with_preset(context, given), entries)
        shard = next(iter(plans.values())).shard
    plan = ComparePlan.of(
        **given,
        attacks=plans,
        files=tuple(path for path, _ in named),
        names={path: name for path, name in named if name is not None},
        reference=reference,
        figures={name: given[spec.option] for name, spec in PICTURES.items() if given[spec.option] is not None},
        # --html alone is no reason to attack images again.
        images_again=given["save_adversarial"] is not None or given["figure_examples"] is not None,
    )
    check_distinct([("--config", given["config"])], plan.writes().items())
    if shard.chosen:
        plan = plan.with_shard_paths(shard)
    if given["json"] and plan.format != ComparePlan.format:
        raise UsageError(f"--json and --format {plan.format} both want stdout", "leave one of them out")
    from caa_cli.run.compare import CompareRun

    display = running.display_of(shard, given["quiet"], given["json"])
    requirements = running.requirements(given["require"])
    raise typer.Exit(CompareRun(display, running.command_line(shard), plan, requirements).execute())


def _named_file(text: str) -> tuple[Path, str | None]:
    """The file, and its name of NAME=FILE; the names of caa's own files may hold a = too."""
    name, equals, path = text.partition("=")
    if not equals or "/" in name or Path(text).exists():
        return Path(text), None
    if not Path(path).name:
        raise UsageError(f"{text} names no file", f"for instance {name}=attack.json")
    return Path(path), name


def _check_reading(context: typer.Context, files: list[str], attacks: str | None) -> None:
    """Raises UsageError for an option that says how to run attacks: where files are read, none is run."""
    hint = "leave it out, or leave the files out"
    if attacks and (attacks.endswith(",") or files[0].startswith(",")):  # `caa, pgd` are two words to a shell
        hint = f"write attacks without spaces between them: --attacks {''.join([attacks, *files])}"
    for name in context.params:
        if name not in _READING and is_typed(context, name):
            raise UsageError(
                f"{flag(name)} says how to run attacks, but files to read are named: {first_few(files, 3)}", hint
            )


def _plans(context: typer.Context, given: dict[str, Any], entries: Sequence[NamedAttack]) -> dict[str, AttackPlan]:
    """A plan an attack, by label, each with a result of its own beside the comparison's."""
    if not given["checkpoint"] and ":" not in (given["arch"] or ""):
        raise UsageError(
            "nothing to compare: neither --checkpoint nor result files are named",
            "caa compare --checkpoint demo --attacks caa, or caa compare a.json b.json",
        )
    if not entries:
        raise MissingSettingsError(f"--attacks names no attack; known: {', '.join(ATTACKS)}", ["--attacks caa,pgd"])
    _check_settings(context, [entry.attack for entry in entries])
    # An attack with --samples of its own searches with them; certificate and verification are as for all.
    given |= default_samples(given)
    output, keep_images = given["output"], given["html"] is not None or given["figure_examples"] is not None
    plans: dict[str, AttackPlan] = {}
    for entry in entries:
        if entry.label in plans:
            raise UsageError(f"--attacks names {entry.label} twice", "leave one of them out, or give it another name")
        settings: dict[str, Any] = dict.fromkeys(foreign(entry.attack))
        settings |= {name: _value(context, entry, name, text) for name, text in entry.settings.items()}
        place = path_for_attack(output, entry.label, ".json")
        settings |= {"attack": entry.attack, "name": entry.name, "output": place, "figure": None}
        plan = layers.plan_of(AttackPlan, {**given, **settings})
        if (images := plan.save_adversarial) is not None:
            plan = replace(plan, save_adversarial=path_for_attack(images, entry.label, images.suffix))
        elif keep_images:
            plan = replace(plan, save_adversarial=plan.output.with_suffix(".safetensors"))
        plans[entry.label] = plan
    return plans


def _check_settings(context: typer.Context, attacks: list[str]) -> None:
    """Raises UsageError for a setting of an attack that is not run, which would be ignored."""
    for owner in ATTACKS:
        for name in declared(owner):
            if owner not in attacks and is_typed(context, name):
                raise UsageError(
                    f"{flag(name)} is a setting of {owner}, which --attacks does not name",
                    "leave it out, or add the attack",
                )


def _value(context: typer.Context, entry: NamedAttack, name: str, text: str) -> Any:
    """A setting's text as the option of the same name takes it."""
    parameter = next((p for p in context.command.params if p.name == name), None)
    if parameter is None:  # an argument of the user's code, which says its type
        return text
    try:
        return parameter.process_value(context, text)
    except typer.BadParameter as error:
        raise UsageError(
            f"--attacks {entry.label}: {error.message}", "caa attack --help lists the settings"
        ) from error
