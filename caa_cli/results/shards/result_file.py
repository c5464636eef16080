"""The result files of `caa attack` and `caa certify`, read back and checked one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attack_settings import foreign
from caa_cli.config.compared_settings import SHARED, default_of, former_value, setting_names
from caa_cli.config.differences import AS_ANOTHER
from caa_cli.config.paths import JOURNAL, sidecar
from caa_cli.config.schema import SchemaError, parse, shown
from caa_cli.config.selection import default_limit, select
from caa_cli.errors import CaaError, UsageError
from caa_cli.results.documents import KINDS, Document, check_header, check_version, read_record, shard_of
from caa_cli.results.records import Record
from caa_cli.results.shards.compared_files import compared_files, in_a_command
from caa_cli.results.store.journal import read_journal

R = TypeVar("R", bound=Record)
# The commands whose results are read.
COMMANDS = (*KINDS, "compare")
# Settings that default to another setting's value.
_DEFAULTS_TO = {"attack_sigma": "sigma", "selection_samples": "samples", **AS_ANOTHER}


@dataclass(frozen=True)
class ResultFile(Generic[R]):
    """One result file: a run with its settings, on one shard of the images that it selected.

    metadata: the document without its examples.  shard: (index, count).
    """

    path: Path
    metadata: dict[str, Any]
    status: str
    fingerprint: str
    config: dict[str, Any]
    checkpoint: dict[str, Any]
    environment: dict[str, Any]
    images: dict[str, Any]
    shard: tuple[int, int]
    seconds: float
    records: tuple[R, ...]

    @property
    def command(self) -> str:
        return str(self.metadata["command"])

    @property
    def attack(self) -> str:
        """The name of the attack; empty for certificates."""
        return str(self.config.get("attack", ""))

    @property
    def name(self) -> str | None:
        """The name that the user gave it."""
        return self.config.get("name")

    def setting(self, name: str) -> Any:
        """The value that the run used; for a setting newer than the file its default, or what runs did then."""
        if name not in self.config and (before := former_value(self.attack, name)) is not None:
            return before
        recorded = self.config.get(name)
        return self.default(name) if recorded is None else recorded

    def default(self, name: str) -> Any:
        """A setting's default; some settings default to another setting's value."""
        return self.setting(_DEFAULTS_TO[name]) if name in _DEFAULTS_TO else default_of(self.attack, name)

    @property
    def attack_settings(self) -> dict[str, Any]:
        """The settings of the attack alone, by name, with those that this version does not know."""
        known = setting_names(self.attack)
        unknown = self.config.keys() - {*known, *foreign(self.attack), *SHARED, *AttackPlan.NOT_COMPARED, "attack"}
        return {name: self.setting(name) for name in (*known, *sorted(unknown))}

    @property
    def class_names(self) -> dict[str, str]:
        """The names of the classes in its records; empty where the data set has none, or the file is older."""
        return dict(self.metadata.get("class_names", {}))

    @property
    def model(self) -> str:
        """The model in words: its architecture, with what it is an ensemble of and behind which denoiser."""
        words, denoiser = str(self.setting("arch")), self.checkpoint.get("denoiser")
        if self.checkpoint.get("members"):
            words = f"ensemble of {1 + len(self.checkpoint['members'])} ({words})"
        return words if denoiser is None else f"{denoiser.get('family') or 'denoiser'} + {words}"

    @property
    def surrogate(self) -> str | None:
        """The digest of the surrogate's checkpoint; None where gradients come from the attacked model."""
        surrogate = self.metadata.get("surrogate_model")
        return str(surrogate["sha256"]) if surrogate else None

    @property
    def selection(self) -> dict[str, object]:
        """The settings that select the images, before they are divided among shards."""
        return {name: self.config.get(name) for name in ("skip", "every", "limit", "indices_file", "indices_list")}

    def of_shard(self, index: int) -> Sequence[int] | None:
        """The indices of the images of any shard of this run; None where an --indices file lists them."""
        size, listed = self.images.get("count"), self.config.get("indices_list")
        if size is None or self.config.get("indices_file") is not None:
            return None
        limit = default_limit(self.config.get("limit"), self.config.get("dataset"), listed is not None)
        chosen = select(size, self.config.get("skip", 0), self.config.get("every", 1), limit, None, listed)
        return chosen[index :: self.shard[1]]

    @property
    def missing(self) -> int:
        """The number of this shard's images without a record; 0 where its images are not known."""
        chosen = self.of_shard(self.shard[0]) or ()
        return len(chosen) - self.among(chosen)

    def among(self, chosen: Sequence[int]) -> int:
        """The number of records of these images."""
        images = chosen if isinstance(chosen, range) else frozenset(chosen)  # a range may be too long for a set
        return sum(record.index in images for record in self.records)

    def first_missing(self, most: int) -> list[int]:
        """The indices of the first `most` images without a record."""
        held = {record.index for record in self.records}
        absent = (index for index in self.of_shard(self.shard[0]) or () if index not in held)
        return list(islice(absent, most))

    @property
    def unfinished(self) -> bool:
        return self.status == "interrupted" or self.missing > 0


def read_result_file(path: Path, commands: Collection[str] = ("attack",)) -> ResultFile[Any]:
    """Read and check a result file.

    Raises CaaError for a file that is missing, empty, cut off, damaged, or of another command or schema version.
    """
    return parse_result_file(path, read_document(path, commands), commands)


def read_document(path: Path, commands: Collection[str]) -> Any:
    """Read a file as JSON, without further checks. Raises CaaError where it is missing, empty, cut off or no JSON."""
    kinds = _kinds(commands)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CaaError(f"{path} can't be read ({error.strerror})", f"name result files of {kinds}") from error
    except UnicodeDecodeError as error:
        raise CaaError(f"{path} is no result of {kinds}: it is no text", "name its --output") from error
    if not text.strip():
        raise CaaError(f"{path} is empty", _AGAIN)
    if path.suffix == JOURNAL:
        raise UsageError(
            f"{path} is the record of a run, not its result",
            f"finish that run with {kinds} … --resume, and name its --output",
        )
    try:
        return parse(text)
    except SchemaError as error:
        raise CaaError(f"{path} is damaged ({error})", _AGAIN) from error


_AGAIN = (
    "name the --output of a run; if it is one, repeat that command with --resume: what it finished is kept beside it"
)


def _kinds(commands: Collection[str]) -> str:
    *others, last = (f"caa {command}" for command in commands)
    return f"{', '.join(others)} or {last}" if others else last


def check_origin(path: Path, document: Any, commands: Collection[str]) -> str:
    """Return the command that wrote the document. Raises CaaError for another command or schema version."""
    if not isinstance(document, dict) or "schema_version" not in document:
        raise CaaError(f"{path} is no result of {_kinds(commands)}", "name the file that its --output wrote")
    check_version(path, document)
    command = document.get("command")
    if not isinstance(command, str) or command not in commands:
        raise _of_another_command(path, document, commands)
    return command


def parse_result_file(path: Path, document: Any, commands: Collection[str] = ("attack",)) -> ResultFile[Any]:
    """Check a document that one of these commands wrote, and return it as a result file. Raises CaaError."""
    check_origin(path, document, commands)
    try:
        check_header(document, Document)
        records: dict[int, Record] = {}
        for position, entry in enumerate(document["examples"]):
            try:
                record = read_record(entry, document)
            except SchemaError as error:
                raise error if error.place.startswith("image ") else error.within(f"examples[{position}]") from None
            if record.index in records:
                raise SchemaError("is in it twice", f"image {record.index}")
            records[record.index] = record
    except SchemaError as error:
        raise CaaError(f"{path} is damaged ({error})", _AGAIN) from error
    return _result_file(path, document, records.values())


def read_unfinished(path: Path, status: str = "interrupted") -> ResultFile[Any]:
    """The result that the journal of a run with this --output has so far. Raises CaaError where it is damaged."""
    header, records, _ = read_journal(sidecar(path, JOURNAL))
    summary = {"seconds": sum(record.seconds for record in records.values())}
    return _result_file(path, {**header, "status": status, "summary": summary}, records.values())


def _result_file(path: Path, document: Mapping[str, Any], records: Iterable[Record]) -> ResultFile[Any]:
    """A result file from a document that has been checked, and its examples as records."""
    return ResultFile(
        path=path,
        metadata={name: value for name, value in document.items() if name != "examples"},
        status=document["status"],
        fingerprint=str(document.get("fingerprint")),
        config=document["config"],
        checkpoint=document["checkpoint"],
        environment=document.get("environment", {}),
        images=document.get("images", {}),
        shard=shard_of(document),
        seconds=float(document["summary"]["seconds"]),
        records=tuple(records),
    )


def _of_another_command(path: Path, document: Mapping[str, Any], commands: Collection[str]) -> CaaError:
    command, hint = document.get("command"), f"name the files of {_kinds(commands)}"
    if not isinstance(command, str) or command not in COMMANDS:
        return CaaError(f"{path} is no result of {_kinds(commands)}: its command is {shown(command)}", hint)
    if files := compared_files(path, document):
        hint = f"name the files that it compares (to merge, one attack's): {' '.join(in_a_command(files))}"
    return UsageError(f"{path} is a result of caa {command}, not of {_kinds(commands)}", hint)


def how_to_go_on(document: dict[str, Any]) -> str:
    """The advice how to finish an unfinished run; a merged result is finished by finishing its shards."""
    shards = document.get("merged")
    if not isinstance(shards, list):
        of_comparison = document.get("command_line")
        again = f"{of_comparison} --resume" if of_comparison else document.get("resume")
        return f"finish it with: {again}" if again else "finish that run with --resume"
    unfinished = [shard for shard in shards if shard.get("status") != "complete"]
    commands = [str(shard["resume"]) for shard in unfinished if shard.get("resume")]
    files = ", ".join(str(shard.get("file")) for shard in shards)
    how = f"finish its shards with: {'; '.join(commands)}" if commands else f"finish its shards ({files}, …)"
    if not unfinished:
        how = f"run the shards that are missing beside {files}"
    return f"{how}, and merge them again"
