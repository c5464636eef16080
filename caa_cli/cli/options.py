"""Options that several subcommands share, and how their layers come together.

Click resolves a value from flag > environment (CAA_<SUBCOMMAND>_<OPTION>) > default map > default; the TOML file
becomes the default map.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from caa_cli.cli.values import PARSERS, number, shortened, whole
from caa_cli.config import attacks, methods
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.datasets import DATASETS, those_that
from caa_cli.config.methods import METHODS
from caa_cli.config.pictures import PICTURES
from caa_cli.config.ranges import OneOf, flag
from caa_cli.errors import UsageError
from caa_cli.names import ARCHITECTURES, DEMO_LIMIT, DTYPES, NORMALISATIONS
from caa_cli.plan import AttackPlan, CertifyPlan, ModelPlan
from caa_cli.recipes import RECIPES
from caa_cli.sharding import Shard
from caa_cli.sizes import parse_size
from caa_cli.train_plan import TrainPlan

Command = TypeVar("Command", bound=Callable[..., None])
P = TypeVar("P", AttackPlan, CertifyPlan, TrainPlan)


def load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes a TOML file the command's defaults: top-level keys, and those of the table of the command's name."""
    if path is None or context.resilient_parsing:
        return path
    import tomllib

    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"{path} can't be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{path} is no TOML file that can be read ({error})") from error
    name = context.info_name or ""
    commands = context.parent.command.commands if context.parent else {name: context.command}  # type: ignore[attr-defined]
    settings = {
        command: {p.name for p in at.params if p.param_type_name == "option"} - {"config"}  # files are no settings
        for command, at in commands.items()
    }
    defaults: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, dict):
            if key not in settings:
                raise typer.BadParameter(f"{path}: there is no subcommand for the table [{key}]")
        elif not any(_parameter(key) in known for known in settings.values()):
            raise typer.BadParameter(f"{path}: no subcommand has a setting {key!r}")
        elif _parameter(key) in settings[name]:
            defaults[_parameter(key)] = value
    table = found.get(name)  # may be a plain setting too: caa attack has one of its own name
    for key, value in table.items() if isinstance(table, dict) else ():
        if _parameter(key) not in settings[name]:
            raise typer.BadParameter(f"{path}: [{name}] has no setting {key!r}; see caa {name} --help")
        defaults[_parameter(key)] = value
    parameters = {p.name: p for p in context.command.params}
    checked: dict[str, Any] = {}
    for key, value in defaults.items():
        try:
            checked[key] = _from_toml(parameters[key], value)
        except typer.BadParameter as error:
            raise typer.BadParameter(f"{path}: {key.replace('_', '-')} = {error.message}") from error
    context.default_map = {**(context.default_map or {}), **checked}
    return path


def _from_toml(parameter: Any, value: Any) -> Any:
    """The value as the option takes it; an option that takes words takes numbers too, and a list of either."""
    if parameter.is_flag:
        if isinstance(value, bool):
            return value
        raise typer.BadParameter(f"{shortened(value)} is neither true nor false")
    if (parser := getattr(parameter.type, "func", None)) is not None:
        return parser(value)
    words = value if isinstance(value, list) else [value]
    kinds = (str,) if parameter.type.name == "path" or parameter.multiple else (str, int, float)
    if any(type(word) not in kinds for word in words) or (words != [value] and parameter.type.name == "path"):
        raise typer.BadParameter(f'{shortened(value)} is no text, for instance {flag(parameter.name)[2:]} = "…"')
    return words if parameter.multiple else ",".join(map(str, words))


def _parameter(key: str) -> str:
    return key.replace("-", "_")


def plan_of(kind: type[P], given: dict[str, Any]) -> P:
    """The plan from a command's options, which have the names of its settings; texts become values."""
    # A plan has a method of the name that the first option has, and the other's word is a setting of its own.
    measure = given.get("chunk_size") == "measure"
    given = {**given, "indices_file": given.get("indices"), "measure_chunks": measure}
    if "mean" in given:
        given |= normalisation(given)
    if measure:
        given["chunk_size"] = None
    if isinstance(given.get("max_memory"), str):
        given["max_memory"] = parse_size(given["max_memory"], "--max-memory")
    for name in ("batch_size", "chunk_size"):
        if isinstance(given.get(name), str):
            given[name] = automatic(given[name], flag(name))
    if "shard" in given:
        given["shard"] = Shard.parse(given["shard"], os.environ)
    plan = kind.of(**given)
    # Shards that were not named have one command line, and so files of one name.
    return plan.with_own_files() if isinstance(plan, ModelPlan) and plan.shard.chosen else plan


def source_of(context: typer.Context, name: str) -> str | None:
    """Where an option's value comes from: COMMANDLINE, ENVIRONMENT, DEFAULT_MAP (the TOML file) or DEFAULT."""
    source = context.get_parameter_source(name)
    return None if source is None else source.name


def with_recipe(context: typer.Context, given: dict[str, Any]) -> dict[str, Any]:
    """The options with a recipe's settings in place of defaults: flags, environment and TOML file go before it."""
    name = given["recipe"]
    if name is None:
        return given
    OneOf(RECIPES).check("--recipe", name)
    settings = RECIPES[name].at(given["sigma"])

    def open_(option: str) -> bool:
        return source_of(context, option) == "DEFAULT"

    if not open_("method"):  # what belongs to the recipe's own method is nothing to another
        own = methods.declared(given["method"]) if given["method"] in METHODS else {}
        others = methods.declared(settings.get("method", TrainPlan.method)).keys() - own.keys()
        settings = {option: value for option, value in settings.items() if option not in others}
    return {**given, **{option: value for option, value in settings.items() if open_(option)}}


def with_options_of(source: Callable[..., None], without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Adds the options of another subcommand to a command's own, which go before them.

    They arrive as keyword arguments; a new setting of the one is so a setting of the other too.
    """

    def extend(command: Command) -> Command:
        mine, theirs = _parameters(command), _parameters(source)
        return _with_parameters(command, {**mine, **{n: p for n, p in theirs.items() if n not in {*without, *mine}}})

    return extend


def with_options(found: Mapping[str, inspect.Parameter], before: str) -> Callable[[Command], Command]:
    """Adds options in front of one of a command's own. They arrive as keyword arguments, None where not given."""

    def extend(command: Command) -> Command:
        mine = list(_parameters(command).items())
        place = [name for name, _ in mine].index(before)
        return _with_parameters(command, {**dict(mine[:place]), **found, **dict(mine[place:])})

    return extend


def attack_settings() -> dict[str, inspect.Parameter]:
    """The settings of every attack that is registered, a panel an attack."""
    return {
        name: _optional(name, setting.kind, setting.help, setting.shown, f"Only with --attack {attack}")
        for attack in ATTACKS
        for name, setting in attacks.declared(attack).items()
    }


def method_settings() -> dict[str, inspect.Parameter]:
    """The settings of every training method; one that several methods have is one option."""
    found: dict[str, inspect.Parameter] = {}
    for name, methods_ in methods.every_setting().items():
        several = [methods.declared(method)[name] for method in methods_]
        help = f"{', '.join(methods_)}: {next(setting.help for setting in several if setting.help)}"
        found[name] = _optional(name, several[0].kind, help, "the method's", METHOD)
    return found


def pictures() -> dict[str, inspect.Parameter]:
    """The files of the pictures of a comparison."""
    return {
        spec.option: _optional(spec.option, Path, spec.help, None, COMPARISON, "FILE.png")
        for spec in PICTURES.values()
    }


def _optional(
    name: str, kind: Any, help: str, default: str | None, panel: str, metavar: str | None = None
) -> inspect.Parameter:
    metavar = "NAME" if kind is str else metavar
    about = option(flag(name), help=help, show_default=default, metavar=metavar, panel=panel)
    annotation = Annotated[kind | None, about]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def strict(command: Command) -> Command:
    """The command with parsers of our own for whole numbers and numbers."""
    return _with_parameters(command, _parameters(command))


def _parameters(command: Callable[..., None]) -> dict[str, inspect.Parameter]:
    """By name, their annotations evaluated, without `**given`."""
    hints = get_type_hints(command, include_extras=True)
    return {
        name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _with_parameters(command: Command, parameters: dict[str, inspect.Parameter]) -> Command:
    for parameter in parameters.values():
        kind, *about = get_args(parameter.annotation) or (parameter.annotation,)
        for info in about:
            if isinstance(info, OptionInfo):
                info.parser = next((PARSERS[k] for k in get_args(kind) or (kind,) if k in PARSERS), None)
    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return command


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


def normalisation(given: dict[str, Any]) -> dict[str, tuple[float, ...] | None]:
    """{mean, std} from --normalisation, or from --mean and --std."""
    found = {name: numbers(given[name], f"--{name}") for name in ("mean", "std")}
    name = given.get("normalisation")
    if name is None:
        return found
    OneOf(NORMALISATIONS).check("--normalisation", name)
    if found != {"mean": None, "std": None}:
        raise UsageError(
            "--normalisation and --mean or --std say the same thing twice", "give a name, or the numbers"
        )
    mean, std = NORMALISATIONS[name]
    return {"mean": mean, "std": std}


def automatic(text: str, option: str) -> int | None:
    """`auto` (None) or a whole number."""
    if text == "auto":
        return None
    try:
        return whole(text)
    except typer.BadParameter as error:
        raise UsageError(f"{option} {shortened(text)} is neither auto nor a whole number") from error


def option(*names: str, panel: str, **settings: Any) -> Any:
    """A typer.Option in a panel of the help. Environment variables are explained once, in docs/command-line.md."""
    return typer.Option(*names, rich_help_panel=panel, show_envvar=False, **settings)


DATA, METHOD, COMPARISON, RUN, COMPUTE = "Model and data", "Method", "Comparison", "Run", "Compute"

Checkpoint = Annotated[str, option(metavar="FILE", help="The model; `demo` is one that comes with caa.", panel=DATA)]
Sigma = Annotated[
    float | None, option(help="Smoothing noise, pixel units.", show_default="the checkpoint's", panel=DATA)
]
Dataset = Annotated[str | None, option(help=f"{' or '.join(DATASETS)}.", show_default="the checkpoint's", panel=DATA)]
Split = Annotated[str, option(help="test (of ImageNet the validation images) or train.", panel=DATA)]
Limit = Annotated[
    int | None, option(help="How many images.", show_default=f"all; {DEMO_LIMIT} of the demo", panel=DATA)
]
Skip = Annotated[int, option(help="How many images to pass over first.", panel=DATA)]
Every = Annotated[int, option(metavar="N", help="Only every N-th image, from --skip on.", panel=DATA)]
Indices = Annotated[
    Path | None, option(metavar="FILE", help="Only the images listed there, by index, one a line.", panel=DATA)
]
ImageSize = Annotated[
    int | None,
    option(
        metavar="N",
        help=f"Resize and crop to N×N ({those_that('resized')}).",
        show_default="the checkpoint's, or 224; a folder's own size",
        panel=DATA,
    ),
]
Download = Annotated[
    bool, option("--download", help=f"First download what is missing ({those_that('downloads')}).", panel=DATA)
]
Arch = Annotated[
    str | None,
    option(
        help=f"{', '.join(ARCHITECTURES)}; or package.module:factory.",
        show_default="the checkpoint's, or recognised",
        panel=DATA,
    ),
]
Normalisation = Annotated[
    str | None,
    option(
        metavar="NAME",
        help=f"Of the images, after the noise: {', '.join(NORMALISATIONS)}.",
        show_default="the checkpoint's",
        panel=DATA,
    ),
]
Mean = Annotated[
    str | None, option(metavar="M[,M…]", help="Normalisation.", show_default="the checkpoint's", panel=DATA)
]
Std = Annotated[
    str | None, option(metavar="S[,S…]", help="Normalisation.", show_default="the checkpoint's", panel=DATA)
]
TrustCheckpoint = Annotated[
    bool,
    option(
        "--trust-checkpoint", help="Load TorchScript or a pickled network, which runs code from the file.", panel=DATA
    ),
]
Dtype = Annotated[str, option(help=f"{', '.join(DTYPES)}.", panel=COMPUTE)]
ChunkSize = Annotated[
    str, option(metavar="auto|measure|N", help="Noise samples in memory at a time; measure: anew.", panel=COMPUTE)
]
MaxMemory = Annotated[
    str | None, option(metavar="4GiB", help="Keep the device's memory below this.", show_default="all", panel=COMPUTE)
]
ShardOption = Annotated[
    str,
    option(
        metavar="K/N|auto",
        help="Every N-th image, from the K-th on (K from 0); auto: as torchrun or Slurm divide the work.",
        panel=RUN,
    ),
]
DataDir = Annotated[Path | None, option(metavar="DIR", help="The folder that holds the data set.", panel=DATA)]
Device = Annotated[str, option(help="auto, cpu, cuda or cuda:1.", panel=COMPUTE)]
Seed = Annotated[int, option(help="Seed of every random draw.", panel=RUN)]
Config = Annotated[
    Path | None,
    option(
        callback=load_config,
        is_eager=True,
        metavar="FILE.toml",
        help="Settings from a TOML file; environment variables and flags override them.",
        panel=RUN,
    ),
]
Json = Annotated[bool, option("--json", help="The result as JSON on stdout, and nothing else there.", panel=RUN)]
Quiet = Annotated[bool, option("--quiet", help="Only warnings and errors.", panel=RUN)]
Resume = Annotated[bool, option("--resume", help="Go on with an interrupted run.", panel=RUN)]
Overwrite = Annotated[bool, option("--overwrite", help="Discard an interrupted run.", panel=RUN)]
DryRun = Annotated[bool, option("--dry-run", help="Say what would run and what it would take.", panel=RUN)]
