"""Everything that a run leaves behind: the journal while it runs, and the documents at its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from caa_cli import __version__
from caa_cli.errors import CaaError, UsageError
from caa_cli.results.documents import document_at
from caa_cli.results.files import check_writable, write_atomically
from caa_cli.results.images import Image, ImageJournal, save_images, saved_images, saved_shard
from caa_cli.results.journal import Journal, header_of, unfinished
from caa_cli.results.parts import how_to_go_on
from caa_cli.results.records import ATTACKED, FAILED, SCHEMA_VERSION, AttackRecord, Record
from caa_cli.sharding import Shard

R = TypeVar("R", bound=Record)


@dataclass
class RunOutput(Generic[R]):
    """The files of a run whose examples are records of one `kind`."""

    output: Path
    kind: type[R]
    header: dict[str, Any] = field(default_factory=dict)
    records: dict[int, R] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.journal = Journal.beside(self.output, self.kind)
        self._others: dict[str, Path] = {}

    def check(self, others: dict[str, Path | None], resume: bool, overwrite: bool, shard: Shard) -> None:
        """Before any work: can everything be written (`others` by option), and is nothing in the way?"""
        check_writable(self.output, "--output")
        for option, path in others.items():
            if path is not None:
                check_writable(path, option)
        if resume:
            self.journal.check()
        if not resume and not overwrite and unfinished(self.output, self.kind):
            raise UsageError(
                f"{self.journal.path} holds the finished images of a run that was cut short",
                "add --resume to go on with it, or --overwrite to begin anew",
            )
        if resume and not self.journal.path.exists():
            self._check_merged()
        if not overwrite and shard.count > 1:
            self._check_shards(shard)
            self._others = {option: path for option, path in others.items() if path is not None}
            self._check_others(shard)

    def _check_others(self, shard: Shard) -> None:
        """Nor what another shard writes beside its result, as far as the images there or a record here tell."""
        for option, path in self._others.items():
            said = saved_shard(path) if option == "--save-adversarial" else None
            holders = [(path, said)] if said else []
            for record in sorted(self.output.absolute().parent.glob("*.jsonl")):
                header = header_of(record)
                place = header.get("config", {}).get(option.removeprefix("--").replace("-", "_"))
                if place is not None and Path(place).absolute() == path.absolute():
                    holders.append((record, header.get("shard") or {}))
            for holder, found in holders:
                if found.get("count", 1) > 1 and (found.get("index"), found["count"]) != (shard.index, shard.count):
                    raise UsageError(
                        f"{option} {path} is where shard {found.get('index')} of {found['count']} has its own "
                        f"({holder}), and this is {shard}",
                        f"give each shard a {option} of its own, or add --overwrite",
                    )

    def _check_merged(self) -> None:
        """A merged result has no record beside it, so going on with it would begin anew and replace it."""
        held = document_at(self.output)
        if held.get("merged"):
            raise UsageError(
                f"{self.output} was merged from shards, and what they finished is not beside it: "
                "--resume would begin anew",
                f"{how_to_go_on(held)}; or begin anew with another --output",
            )

    def _check_shards(self, shard: Shard) -> None:
        """The result of another shard must not give way to this one's, as if it were an older one of its own."""
        if shard.chosen is not None:
            shard.check_siblings(self.output)
        try:
            held = document_at(self.output)["shard"]
            other = Shard(held["index"], held["count"])
        except (TypeError, KeyError):
            return
        if (other.index, other.count) != (shard.index, shard.count):
            raise UsageError(
                f"{self.output} holds {other}, and this is {shard}",
                "give each shard an --output of its own, or add --overwrite",
            )

    def begin(self, header: dict[str, Any], compared: list[str], resume: bool) -> None:
        """Opens the journal, and fills `records` with the examples that a resumed run has already.

        `header` is what the document says beside its examples: command, config, checkpoint, shard, environment.
        """
        self.header = header
        with self.kept(self.journal.path):
            if resume and self.journal.path.exists():
                self.records = {record.index: record for record in self.journal.resume(header, compared)}
            else:
                self.journal.start(header)
        try:
            # Now that the record says what is written: of shards that were started together one sees the other's.
            self._check_others(Shard(header["shard"]["index"], header["shard"]["count"]))
        except UsageError:
            self.journal.close()
            if not self.records:
                self.journal.path.unlink()
            raise

    def add(self, record: R) -> None:
        """Keeps an example for good."""
        self.records[record.index] = record
        with self.kept(self.journal.path):
            self.journal.append(record)

    def of(self, indices: Iterable[int]) -> list[R]:
        """The finished ones among these examples, in their order."""
        return [self.records[index] for index in indices if index in self.records]

    def everything(self) -> list[R]:
        """All that is finished, by index: also what an earlier part of the run did beyond this one's --limit."""
        return [self.records[index] for index in sorted(self.records)]

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around the work itself: an error that ends it says where the finished examples are."""
        try:
            yield
        except CaaError as error:
            self.journal.close()
            if not self.records or "--resume" in (error.hint or ""):
                raise
            where = f"what is finished is kept in {self.journal.path}: go on with --resume"
            raise CaaError(error.problem, f"{error.hint}; {where}" if error.hint else where) from error

    def status(self, interrupted: bool) -> str:
        """What the document says of the run as a whole."""
        failed = any(record.outcome == FAILED for record in self.records.values())
        return "interrupted" if interrupted else "partial" if failed else "complete"

    def finish(self, status: str, summary: dict[str, Any], records: list[R]) -> dict[str, Any]:
        """Writes the document and returns it."""
        self.journal.close()
        document = {
            "schema_version": SCHEMA_VERSION,
            "tool_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "status": status,
            **self.header,
            "examples": [record.to_json() for record in records],
            "summary": summary,
        }
        content = json.dumps(document, indent=2, allow_nan=False) + "\n"
        with self.kept(self.output):
            write_atomically(self.output, content.encode())
        return document

    @contextmanager
    def kept(self, path: Path) -> Iterator[None]:
        """A disk that fails while `path` is written loses nothing that was finished, and the message says so."""
        try:
            yield
        except OSError as error:
            raise CaaError(
                f"can't write {error.filename or path} ({error.strerror or error})",
                f"what is finished is kept in {self.journal.path}: free some space and repeat the command "
                "with --resume",
            ) from error


class AttackOutput(RunOutput[AttackRecord]):
    """An attack also leaves images: `save_adversarial` (safetensors) and `figure`, if they are wanted.

    again: an attacked example whose image a resumed run did not keep is attacked again, for its image.
    """

    def __init__(self, output: Path, save_adversarial: Path | None, figure: Path | None, again: bool = True) -> None:
        super().__init__(output, AttackRecord)
        self.save_adversarial, self.figure, self.again = save_adversarial, figure, again
        self.images: ImageJournal | None = None

    def begin(self, header: dict[str, Any], compared: list[str], resume: bool, shape: tuple[int, ...] = ()) -> None:
        """As `RunOutput.begin`; `shape` is that of an image."""
        if resume and self.save_adversarial is None:
            header = self._with_images_saved_before(header)
        super().begin(header, compared, resume)
        place = ImageJournal.place(self.output)
        with self.kept(place):
            if not self.records:
                place.unlink(missing_ok=True)
            if self.save_adversarial is None and self.figure is None:
                return
            self.images = ImageJournal(place, shape, header["fingerprint"])
            held = self.images.resume()
            if self.save_adversarial is not None:
                for index, image in saved_images(self.save_adversarial, header["fingerprint"]).items():
                    if index not in held and index in self.records:
                        self.images.append(index, image)
                        held.add(index)
        attacked = [record.index for record in self.records.values() if record.outcome == ATTACKED]
        for index in set(attacked) - held if self.again else ():
            del self.records[index]

    def _with_images_saved_before(self, header: dict[str, Any]) -> dict[str, Any]:
        """A run that is gone on with without --save-adversarial still has the images that it saved."""
        saved = (document_at(self.output).get("config") or {}).get("save_adversarial")
        if not saved or not saved_images(Path(saved), header["fingerprint"]):
            return header
        if saved_shard(Path(saved)) not in (None, header["shard"]):
            return header
        return {**header, "config": {**header["config"], "save_adversarial": saved}}

    def add(self, record: AttackRecord, image: Image | None = None) -> None:
        """The image goes first: a line in the journal says that all is there."""
        if self.images is not None and image is not None:
            with self.kept(self.images.path):
                self.images.append(record.index, image)
        super().add(record)

    def finish_images(
        self,
        status: str,
        records: list[AttackRecord],
        draw: Callable[[Path, Mapping[int, Image], list[AttackRecord]], None],
    ) -> None:
        """Writes the images and the figure, after the document."""
        if self.images is None:
            return
        found = self.images.read()
        if self.save_adversarial is not None:
            with self.kept(self.save_adversarial):
                save_images(self.save_adversarial, found, records, self.header["fingerprint"], self.header["shard"])
        if self.figure is not None:
            with self.kept(self.figure):
                draw(self.figure, found, records)
        if status != "interrupted":
            self.images.remove()
