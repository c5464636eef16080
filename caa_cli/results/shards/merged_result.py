"""Shards of one run merged into the result that the run would have had in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.config.differences import in_words
from caa_cli.config.paths import JOURNAL, sidecar
from caa_cli.errors import CaaError, UsageError
from caa_cli.results.certificates import CertifySummary, summarise_certificates
from caa_cli.results.documents import KINDS, agreed, head
from caa_cli.results.records import ATTACKED, FAILED, AttackSummary, summarise
from caa_cli.results.shards.result_file import ResultFile, how_to_go_on, read_result_file, read_unfinished
from caa_cli.results.shards.run_results import MOST_NAMED, check_same, missing_shards, union
from caa_cli.results.store.images import StoredImages, kept_images
from caa_cli.results.store.journal import Journal
from caa_cli.runtime.sharding import Shard
from caa_cli.runtime.words import counted, first_few

NOT_COMPARED = {"attack": AttackPlan.NOT_COMPARED, "certify": CertifyPlan.NOT_COMPARED}
# What a merged result records about each shard.
_OF_SHARDS = ("status", "created", "tool_version", "environment", "resume")


@dataclass(frozen=True)
class Merged:
    """A merged result. parts: by shard.  records: of all parts, by index.  gaps: what is missing, in words."""

    parts: tuple[ResultFile[Any], ...]
    records: tuple[Any, ...]
    gaps: tuple[str, ...]

    @property
    def command(self) -> str:
        return self.parts[0].command

    @property
    def status(self) -> str:
        failed = any(record.outcome == FAILED for record in self.records)
        return "partial" if failed or self.gaps else "complete"

    @property
    def summary(self) -> AttackSummary | CertifySummary:
        """The summary over all examples; `seconds` is the sum over the shards."""
        return summary_of(self.parts[0], self.records, sum(part.seconds for part in self.parts))

    def to_json(self, written: Mapping[str, str]) -> dict[str, Any]:
        """The document as a single run would have written it. written: the output files, by setting."""
        first = self.parts[0]
        config = {
            **first.config,
            **dict.fromkeys(("figure", "save_adversarial", "tsv") & first.config.keys()),
            **written,
        }
        return {
            **head(self.command, self.status),
            "config": {**config, "shard": asdict(Shard())},
            "fingerprint": first.metadata.get("fingerprint"),
            # What all shards agree on; under `merged` each has its whole environment.
            "environment": agreed([part.environment for part in self.parts]),
            "checkpoint": first.checkpoint,
            **{name: first.metadata[name] for name in ("surrogate_model",) if name in first.metadata},
            "images": first.images,
            "shard": {"index": 0, "count": 1},
            "merged": [
                {
                    "file": str(part.path),
                    "shard": {"index": part.shard[0], "count": part.shard[1]},
                    "examples": len(part.records),
                    "seconds": part.seconds,
                    **{name: part.metadata.get(name) for name in _OF_SHARDS},
                }
                for part in self.parts
            ],
            "gaps": list(self.gaps),
            "class_names": {n: name for part in self.parts for n, name in part.class_names.items()},
            "examples": [record.to_json() for record in self.records],
            "summary": self.summary.to_json(),
        }


def summary_of(part: ResultFile[Any], records: Sequence[Any], seconds: float) -> AttackSummary | CertifySummary:
    """Summarise records of runs with the settings of this file."""
    if part.command == "attack":
        return summarise(records, seconds)
    return summarise_certificates(records, part.config["samples"], seconds, part.config.get("radius"))


def merge(parts: Sequence[ResultFile[Any]], partial: bool = False) -> Merged:
    """Merge the shards of one run.

    Raises UsageError for files that are not shards of one run and, unless `partial` is allowed, for missing images.
    """
    _check_one_run(parts)
    parts = [*parts, *_killed(parts, partial)]
    _check_one_run(parts)
    records: dict[int, Any] = union(parts, gaps=partial)
    gaps = []
    for part in parts:
        if not part.unfinished:
            continue
        missing = part.missing
        shown = first_few(part.first_missing(4), 3)
        what = f"{missing} of its images are missing ({shown})" if missing else "it was interrupted"
        if not partial:
            raise UsageError(
                f"{part.path} is unfinished: {what}",
                f"{how_to_go_on(part.metadata)}; or join what is there with --partial",
            )
        gaps.append(f"{part.path}: {what}")
    absent, count = missing_shards(parts), parts[0].shard[1]
    gaps += [f"shard {index} of {count} is missing" for index in absent[:MOST_NAMED]]
    if len(absent) > MOST_NAMED:
        gaps.append(f"and {len(absent) - MOST_NAMED} more of {count}")
    in_order = sorted(parts, key=lambda part: part.shard)
    return Merged(tuple(in_order), tuple(records[index] for index in sorted(records)), tuple(gaps))


def _killed(parts: Sequence[ResultFile[Any]], partial: bool) -> list[ResultFile[Any]]:
    """Shards that left a journal but no result, so that attack.shard-*.json does not match them."""
    first = parts[0]
    places = {Shard(*first.shard).sibling(first.path, index) for index in missing_shards(parts)} - {first.path}
    killed = [place for place in sorted(places) if sidecar(place, JOURNAL).exists() and not place.exists()]
    return [part for place in killed if (part := read_shard(place, partial)) is not None]


def _check_one_run(parts: Sequence[ResultFile[Any]]) -> None:
    first = parts[0]
    hint = "merge joins the shards of one run; caa compare holds attacks with different settings together"
    for part in parts[1:]:
        if part.command != first.command:
            raise UsageError(f"{first.path} is of caa {first.command} and {part.path} of caa {part.command}", hint)
    left_out = NOT_COMPARED[first.command]
    names = dict.fromkeys(name for part in parts for name in part.config if name not in left_out)
    check_same(parts, names, lambda _: hint)
    for part in parts[1:]:
        both = f"{first.path} and {part.path}"
        if part.surrogate != first.surrogate:
            raise UsageError(f"{both} took their gradients from different checkpoints", hint)
        if part.selection != first.selection:
            differing = ", ".join(
                f"{name} ({in_words(value)} and {in_words(part.selection[name])})"
                for name, value in first.selection.items()
                if part.selection[name] != value
            )
            raise UsageError(
                f"{both} are shards of different selections of the images: {differing}",
                "name the shards of one; caa compare takes all shards of several",
            )
        if part.shard[1] != first.shard[1]:
            raise UsageError(
                f"{both} are of different numbers of shards: {first.shard[1]} and {part.shard[1]}",
                "name the files of one run's shards",
            )


def read_shard(path: Path, partial: bool = False) -> ResultFile[Any] | None:
    """Read a shard's result or, where it is allowed to be `partial`, the journal of its unfinished run.

    Returns None for a shard that was killed before its journal had a whole line. Raises CaaError; for a run that was
    killed it says how to finish it.
    """
    journal = Journal[Any](sidecar(path, JOURNAL))
    written = read_result_file(path, KINDS) if path.exists() or not journal.path.exists() else None
    if written is not None and not (partial and written.status == "interrupted" and journal.begun):
        return written
    if not journal.begun:
        if partial:
            return None
        raise UsageError(
            f"{path} is not there: its run ended before it had begun",
            "repeat that shard's command; or join what is there with --partial",
        )
    part = read_unfinished(path)
    if partial:
        return part
    raise UsageError(
        f"{path} is not there: its run ended before it could write it, with "
        f"{counted(len(part.records), 'image')} finished",
        f"{how_to_go_on(part.metadata)}; or join what is there with --partial",
    )


def merged_images(merged: Merged) -> StoredImages:
    """The adversarial images that the shards saved, by index, read on demand.

    Raises CaaError where some were not saved.
    """
    images = StoredImages()
    for part in merged.parts:
        saved = part.config.get("save_adversarial")
        wanted = {record.index for record in part.records if record.outcome == ATTACKED}
        kept = kept_images(saved, part.path, part.fingerprint).of(wanted)
        lost = len(wanted - kept.keys())
        if lost:
            raise CaaError(
                f"the images of {lost} attacked examples of {part.path} are not at hand"
                + (f": they should be in {saved}" if saved else ": its run had no --save-adversarial"),
                f"{part.metadata.get('resume') or 'repeat it with --resume'} --save-adversarial FILE.safetensors",
            )
        images |= kept
    return images
