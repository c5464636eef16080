"""A comparison read back from its document, so that it can be shown again without the results that it compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from caa_cli.config.compared_settings import SHARED
from caa_cli.config.schema import Natural, PositiveInt, SchemaError, Seconds, check
from caa_cli.errors import CaaError
from caa_cli.results.comparison import Comparison
from caa_cli.results.comparison_of_models import OF_EACH, ModelsComparison
from caa_cli.results.documents import KINDS, Checkpoint, Images
from caa_cli.results.records import AttackRecord
from caa_cli.results.shards.by_model import MODEL_SETTINGS
from caa_cli.results.shards.result_file import COMMANDS, ResultFile, check_origin, parse_result_file, read_document
from caa_cli.results.shards.run_results import AttackResult

# What a comparison that is shown again keeps of the document that it comes from.
KEPT = ("tool_version", "created", "command_line", "environment")


class Run(TypedDict):
    """One result file of an attack, as far as its images can be found by it. selection: which images it took."""

    file: str
    fingerprint: str
    save_adversarial: str | None
    data_dir: str | None
    selection: dict[str, Any]


class Attack(TypedDict):
    """examples: checked one by one, as those of a result of `caa attack`."""

    attack: str
    settings: dict[str, Any]
    seconds: Seconds
    runs: list[Run]
    examples: list[object]


class Bootstrap(TypedDict):
    resamples: PositiveInt
    seed: Natural


class Summary(TypedDict):
    bootstrap: Bootstrap | None


class Document(TypedDict):
    """The part of a result of `caa compare` that is read; what it says beside that follows from the examples."""

    tool_version: str
    created: str
    status: Literal["complete", "partial", "interrupted"]
    config: dict[str, Any]
    environment: dict[str, Any]
    checkpoint: Checkpoint
    images: Images
    class_names: dict[str, str]
    indices: list[Natural]
    notes: list[str]
    reference: str | None
    summary: Summary
    attacks: dict[str, Attack]
    command_line: NotRequired[str]


class Several(TypedDict):
    """A result on several models, as far as it takes to divide it into one for each: see `_of_model`."""

    config: dict[str, Any]
    models: dict[str, dict[str, Any]]
    attacks: dict[str, dict[str, Any]]


def read_comparison(
    path: Path, resamples: int = 0, seed: int = 0, reference: str | None = None
) -> tuple[Comparison | ModelsComparison, dict[str, Any]] | None:
    """The comparison in a document of `caa compare`, and that document; None for a document of another command.

    resamples, seed, reference: in place of the document's, where they are given.  Raises CaaError for a file that is
    damaged, and UsageError for one that holds too little: of certificates, of a shard without images, of version 0.1.
    """
    document = read_document(path, COMMANDS)
    if not isinstance(document, dict) or document.get("command") != "compare":
        return None
    if not document.get("attacks") or not {"indices", "models"} & document.keys():
        check_origin(path, document, KINDS)  # which names the files that it compares
    check_origin(path, document, ("compare",))
    result: Comparison | ModelsComparison
    try:
        if "models" in document:
            check(document, Several)
            result = ModelsComparison(
                {
                    label: _comparison(path, _of_model(document, label), resamples, seed, reference)
                    for label in document["models"]
                }
            )
        else:
            result = _comparison(path, document, resamples, seed, reference)
    except SchemaError as error:
        raise CaaError(f"{path} is damaged ({error})", "compare the files of its attacks again") from error
    return result, document


def _of_model(document: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The document that a comparison on one of the models would have."""
    model, attacks = document["models"][label], document["attacks"].items()
    return {
        **document,
        **{name: model[name] for name in OF_EACH if name in model},
        "config": {**document["config"], **{name: model.get(name) for name in MODEL_SETTINGS}},
        "attacks": {key.removeprefix(f"{label}/"): entry for key, entry in attacks if entry.get("model") == label},
    }


def _comparison(
    path: Path, document: Mapping[str, Any], resamples: int, seed: int, reference: str | None
) -> Comparison:
    check(document, Document)
    if not document["attacks"]:
        raise SchemaError("is empty", "attacks")
    attacks = [_attack(path, document, label, entry) for label, entry in document["attacks"].items()]
    images, eligible = document["indices"], list(attacks[0].records)
    for attack in attacks:
        if list(attack.records) != eligible or not all(record.eligible for record in attack.records.values()):
            raise SchemaError("are not the eligible images", f"attacks.{attack.label}.examples")
    if not set(eligible) <= set(images):
        raise SchemaError("lacks an image of the attacks", "indices")
    bootstrap = document["summary"]["bootstrap"]
    if bootstrap is not None and not resamples:
        resamples, seed = bootstrap["resamples"], bootstrap["seed"]
    notes, partial = tuple(document["notes"]), document["status"] != "complete"
    chosen = reference or document["reference"]
    return Comparison(tuple(attacks), tuple(images), tuple(eligible), notes, partial, chosen, resamples, seed)


def _attack(path: Path, document: Mapping[str, Any], label: str, entry: Mapping[str, Any]) -> AttackResult:
    """The results of one attack; its records are those of its first file. Raises CaaError."""
    if not entry["runs"]:
        raise SchemaError("is empty", f"attacks.{label}.runs")
    parts = [_part(path, document, entry, position) for position in range(len(entry["runs"]))]
    return AttackResult(label, tuple(parts), {record.index: record for record in parts[0].records})


def _part(
    path: Path, document: Mapping[str, Any], entry: Mapping[str, Any], position: int
) -> ResultFile[AttackRecord]:
    """One file of an attack, with what the document holds of it."""
    run, first = entry["runs"][position], position == 0
    config = {name: value for name, value in document["config"].items() if name in SHARED}
    config |= {**run["selection"], **{name: run[name] for name in ("save_adversarial", "data_dir")}}
    content = {
        **{name: document[name] for name in ("schema_version", "environment", "checkpoint", "images", "class_names")},
        "command": "attack",
        "status": document["status"] if document["status"] != "interrupted" else "partial",
        "config": {**config, **entry["settings"], "attack": entry["attack"]},
        "fingerprint": run["fingerprint"],
        "examples": entry["examples"] if first else [],
        "summary": {"seconds": entry["seconds"] if first else 0.0},
    }
    return replace(parse_result_file(path, content), path=Path(run["file"]))
