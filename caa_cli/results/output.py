"""Everything that an attack run leaves behind: the journal while it runs, and the documents at its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caa_cli import __version__
from caa_cli.errors import CaaError, UsageError
from caa_cli.results.files import check_writable, write_atomically
from caa_cli.results.images import Image, ImageJournal, save_images
from caa_cli.results.journal import Journal, unfinished
from caa_cli.results.records import ATTACKED, SCHEMA_VERSION, AttackRecord, AttackSummary


@dataclass
class AttackOutput:
    """The files of one run. `header` is what the document says beside its examples: command, config, checkpoint,
    shard and environment."""

    output: Path
    save_adversarial: Path | None = None
    figure: Path | None = None
    header: dict[str, Any] = field(default_factory=dict)
    records: dict[int, AttackRecord] = field(default_factory=dict)
    images: ImageJournal | None = None

    def __post_init__(self) -> None:
        self.journal = Journal.beside(self.output)

    def check(self, resume: bool, overwrite: bool) -> None:
        """Before any work: can everything be written, and is nothing in the way?"""
        check_writable(self.output, "--output")
        if self.save_adversarial is not None:
            check_writable(self.save_adversarial, "--save-adversarial")
        if self.figure is not None:
            check_writable(self.figure, "--figure")
        if not resume and not overwrite and unfinished(self.output):
            raise UsageError(
                f"{self.journal.path} holds the finished images of a run that was cut short",
                "add --resume to go on with it, or --overwrite to begin anew",
            )

    def begin(
        self, header: dict[str, Any], compared: list[str], shape: tuple[int, ...], resume: bool
    ) -> list[AttackRecord]:
        """Opens the journal; returns the examples that a resumed run has already."""
        self.header = header
        if self.save_adversarial is not None or self.figure is not None:
            self.images = ImageJournal.beside(self.output, shape)
        with self._kept(self.journal.path):
            if resume and self.journal.path.exists():
                found = self.journal.resume(header, compared)
                if self.images is not None:
                    # An attacked image that was not kept is attacked again; the result is the same.
                    kept = self.images.resume()
                    found = [record for record in found if record.outcome != ATTACKED or record.index in kept]
                self.records = {record.index: record for record in found}
            else:
                self.journal.start(header)
                if self.images is not None:
                    self.images.start()
        return list(self.records.values())

    def add(self, record: AttackRecord, image: Image | None) -> None:
        """Keeps an example for good. The image goes first: a line in the journal says that all is there."""
        if self.images is not None and image is not None:
            with self._kept(self.images.path):
                self.images.append(record.index, image)
        self.records[record.index] = record
        with self._kept(self.journal.path):
            self.journal.append(record)

    def finish(
        self,
        status: str,
        summary: AttackSummary,
        indices: range,
        draw: Callable[[Path, dict[int, Image], list[AttackRecord]], None],
    ) -> dict[str, Any]:
        """Writes the document, and the images and the figure if they are wanted; returns the document."""
        self.journal.close()
        records = [self.records[index] for index in indices if index in self.records]
        document = {
            "schema_version": SCHEMA_VERSION,
            "tool_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "status": status,
            **self.header,
            "examples": [record.to_json() for record in records],
            "summary": summary.to_json(),
        }
        content = json.dumps(document, indent=2, allow_nan=False) + "\n"
        with self._kept(self.output):
            write_atomically(self.output, content.encode())
            if self.images is not None:
                images = self.images.read()
                if self.save_adversarial is not None:
                    save_images(self.save_adversarial, images, records)
                if self.figure is not None:
                    draw(self.figure, images, records)
                if status != "interrupted":
                    self.images.remove()
        return document

    @contextmanager
    def _kept(self, path: Path) -> Iterator[None]:
        """A disk that fails loses nothing that was finished, and the message says where that is."""
        try:
            yield
        except OSError as error:
            raise CaaError(
                f"can't write {error.filename or path} ({error.strerror or error})",
                f"what is finished is kept in {self.journal.path}: free some space and repeat the command "
                "with --resume",
            ) from error
