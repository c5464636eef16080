"""Shards of one run put together to the result that the run would have had in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caa_cli import __version__
from caa_cli.config.paths import sidecar
from caa_cli.config.plan import AttackPlan, CertifyPlan, decisive
from caa_cli.errors import CaaError, UsageError
from caa_cli.results.certificates import CertifySummary, summarise_certificates
from caa_cli.results.documents import KINDS
from caa_cli.results.records import ATTACKED, FAILED, SCHEMA_VERSION, AttackSummary, summarise
from caa_cli.results.shards.joining import MOST_NAMED, check_same, missing_shards, union
from caa_cli.results.shards.result_file import ResultFile, how_to_go_on, read_result_file, result_file_of
from caa_cli.results.store.images import Image, StoredImages, kept_images
from caa_cli.results.store.journal import read_journal
from caa_cli.runtime.sharding import Shard

NOT_COMPARED = {"attack": AttackPlan.NOT_COMPARED, "certify": CertifyPlan.NOT_COMPARED}
# What a merged result says of each of its shards.
_OF_SHARDS = ("status", "created", "tool_version", "environment", "resume")


@dataclass(frozen=True)
class Merged:
    """parts: by shard.  records: all their examples, by index.  gaps: what is not there, in words."""

    parts: tuple[ResultFile[Any], ...]
    records: tuple[Any, ...]
    gaps: tuple[str, ...]

    @property
    def command(self) -> str:
        return str(self.parts[0].header["command"])

    @property
    def status(self) -> str:
        failed = any(record.outcome == FAILED for record in self.records)
        return "partial" if failed or self.gaps else "complete"

    @property
    def summary(self) -> AttackSummary | CertifySummary:
        """The summary of all examples; its seconds are those of all shards together."""
        return summary_of(self.parts[0], self.records, sum(part.seconds for part in self.parts))

    def to_json(self, written: dict[str, str | None]) -> dict[str, Any]:
        """The document that one process would have written; written: output files, by setting."""
        first = self.parts[0]
        config = {
            **first.config,
            **dict.fromkeys(("figure", "save_adversarial", "tsv") & first.config.keys()),
            **written,
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "tool_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "status": self.status,
            "command": self.command,
            "config": {**config, "shard": asdict(Shard())},
            "fingerprint": first.header.get("fingerprint"),
            # What all shards agree on; where they ran on different machines the rest is with each of them.
            "environment": {
                name: value
                for name, value in first.environment.items()
                if all(part.environment.get(name) == value for part in self.parts)
            },
            "checkpoint": first.checkpoint,
            **{name: first.header[name] for name in ("surrogate_model",) if name in first.header},
            "images": first.images,
            "shard": {"index": 0, "count": 1},
            "merged": [
                {
                    "file": str(part.path),
                    "shard": {"index": part.shard[0], "count": part.shard[1]},
                    "examples": len(part.records),
                    "seconds": part.seconds,
                    **{name: part.header.get(name) for name in _OF_SHARDS},
                }
                for part in self.parts
            ],
            "gaps": list(self.gaps),
            "examples": [record.to_json() for record in self.records],
            "summary": self.summary.to_json(),
        }


def summary_of(part: ResultFile[Any], records: Sequence[Any], seconds: float) -> AttackSummary | CertifySummary:
    """The summary of records from runs with this one's settings."""
    if part.header["command"] == "attack":
        return summarise(records, seconds)
    return summarise_certificates(records, part.config["samples"], seconds, part.config.get("radius"))


def merge(parts: Sequence[ResultFile[Any]], partial: bool = False) -> Merged:
    """The shards as one result. Raises UsageError for files of several runs, and for gaps unless `partial`."""
    _check_one_run(parts)
    parts = [*parts, *_killed(parts, partial)]
    _check_one_run(parts)
    records: dict[int, Any] = union(parts, gaps=partial)
    gaps = []
    for part in parts:
        if not part.unfinished:
            continue
        missing = part.missing
        shown = ", ".join(map(str, part.first_missing(3))) + (", …" if missing > 3 else "")
        what = f"{missing} of its images are missing ({shown})" if missing else "it was interrupted"
        if not partial:
            raise UsageError(
                f"{part.path} is unfinished: {what}",
                f"{how_to_go_on(part.header)}; or join what is there with --partial",
            )
        gaps.append(f"{part.path}: {what}")
    absent, count = missing_shards(parts), parts[0].shard[1]
    gaps += [f"shard {index} of {count} is missing" for index in absent[:MOST_NAMED]]
    if len(absent) > MOST_NAMED:
        gaps.append(f"{len(absent) - MOST_NAMED} more shards of {count} are missing")
    in_order = sorted(parts, key=lambda part: part.shard)
    return Merged(tuple(in_order), tuple(records[index] for index in sorted(records)), tuple(gaps))


def _killed(parts: Sequence[ResultFile[Any]], partial: bool) -> list[ResultFile[Any]]:
    """Shards in the same folder with a journal but no result: attack.shard-*.json does not match them."""
    first = parts[0]
    places = {Shard(*first.shard).sibling(first.path, index) for index in missing_shards(parts)} - {first.path}
    killed = [place for place in sorted(places) if _record_of(place).exists() and not place.exists()]
    return [part for place in killed if (part := read_shard(place, partial)) is not None]


def _record_of(path: Path) -> Path:
    return sidecar(path, ".jsonl")


def _check_one_run(parts: Sequence[ResultFile[Any]]) -> None:
    first, hint = (
        parts[0],
        "merge joins the shards of one run; caa compare holds attacks with different settings together",
    )
    for part in parts[1:]:
        if part.header["command"] != first.header["command"]:
            raise UsageError(
                f"{first.path} is of caa {first.header['command']} and {part.path} of caa {part.header['command']}",
                hint,
            )
    left_out = NOT_COMPARED[str(first.header["command"])]
    names = dict.fromkeys(name for part in parts for name in part.config if name not in left_out)
    check_same(
        parts, {name: [decisive(name, _setting(part, name)) for part in parts] for name in names}, lambda _: hint
    )
    for part in parts[1:]:
        both = f"{first.path} and {part.path}"
        if part.surrogate != first.surrogate:
            raise UsageError(f"{both} took their gradients from different checkpoints", hint)
        if part.selection != first.selection:
            differing = ", ".join(
                f"{name} ({value} and {part.selection[name]})"
                for name, value in first.selection.items()
                if part.selection[name] != value
            )
            raise UsageError(
                f"{both} are shards of different selections of the images: {differing}",
                "name the shards of one; caa compare takes several",
            )
        if part.shard[1] != first.shard[1]:
            raise UsageError(
                f"{both} are of different numbers of shards: {first.shard[1]} and {part.shard[1]}",
                "name the files of one run's shards",
            )


def _begun(journal: Path) -> bool:
    return journal.exists() and b"\n" in journal.read_bytes()


def _setting(part: ResultFile[Any], name: str) -> Any:
    """A setting; an attack's as `caa compare` reads it, so that files of versions without it fit newer ones."""
    return part.setting(name) if part.header["command"] == "attack" else part.config.get(name)


def read_shard(path: Path, partial: bool = False) -> ResultFile[Any] | None:
    """A shard's result; with gaps allowed, also the journal of an unfinished run.

    None for a shard that was killed before its record had a whole line: it is as if it had not begun.

    Raises CaaError, which for a run that was killed says how to go on with it.
    """
    journal = _record_of(path)
    found = read_result_file(path, KINDS) if path.exists() or not journal.exists() else None
    if found is not None and not (partial and found.status == "interrupted" and _begun(journal)):
        return found
    if not _begun(journal):
        if partial:
            return None
        raise UsageError(
            f"{path} is not there: its run ended before it had begun",
            "repeat that shard's command; or join what is there with --partial",
        )
    header, records, _ = read_journal(journal)
    summary = {"seconds": sum(record.seconds for record in records.values())}
    part = result_file_of(path, {**header, "status": "interrupted", "summary": summary}, records.values())
    if partial:
        return part
    raise UsageError(
        f"{path} is not there: its run ended before it could write it, with {len(records)} images finished",
        f"{how_to_go_on(part.header)}; or join what is there with --partial",
    )


def merged_images(merged: Merged) -> Mapping[int, Image]:
    """The adversarial images that the shards saved, by index, each read when it is asked for.

    Raises CaaError where some were not saved.
    """
    found: dict[int, Mapping[int, Image]] = {}
    for part in merged.parts:
        saved = part.config.get("save_adversarial")
        wanted = {record.index for record in part.records if record.outcome == ATTACKED}
        places = kept_images(saved, part.path, part.fingerprint)
        lost = len(wanted - places.keys())
        if lost:
            raise CaaError(
                f"the images of {lost} attacked examples of {part.path} are not at hand"
                + (f": they should be in {saved}" if saved else ": its run had no --save-adversarial"),
                f"{part.header.get('resume') or 'repeat it with --resume'} --save-adversarial FILE.safetensors",
            )
        found |= {index: places[index] for index in wanted}
    return StoredImages({index: index for index in found}, lambda index: found[index][index])
