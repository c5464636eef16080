"""The output of an attack: its result, the adversarial images, and a figure of some of them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.paths import IMAGES, sidecar
from caa_cli.config.pictures import MOST_EXAMPLES
from caa_cli.results.documents import document_at
from caa_cli.results.records import ATTACKED, AttackRecord
from caa_cli.results.shards.result_file import ResultFile
from caa_cli.results.store.images import (
    Image,
    ImageJournal,
    StoredImages,
    kept_images,
    save_images,
    saved_images,
    saved_metadata,
)
from caa_cli.results.store.output import RunOutput

Draw = Callable[[Path, Mapping[int, Image], list[AttackRecord]], None]


class AttackOutput(RunOutput[AttackRecord]):
    """The files of an attack.

    again: whether a resumed run repeats attacks whose images were not kept.  without_image: the records of those
    examples, until they are repeated.
    """

    def __init__(self, plan: AttackPlan, again: bool = True) -> None:
        super().__init__(plan.output, plan.written(), plan.resume, plan.overwrite)
        self.save_adversarial, self.figure, self.again = plan.save_adversarial, plan.figure, again
        self.images: ImageJournal | None = None
        self.without_image: dict[int, AttackRecord] = {}

    def _lacking(self, held: ResultFile[AttackRecord], indices: Sequence[int]) -> str:
        """As `RunOutput._lacking`; also says where images are asked for that were not kept."""
        lacking = super()._lacking(held, indices)
        if lacking or not self.again:
            return lacking
        attacked = {record.index for record in held.records if record.outcome == ATTACKED} & set(indices)
        saved = self.save_adversarial
        if saved is not None and not (saved.exists() and attacked <= saved_images(saved, held.fingerprint).keys()):
            return "its images were not kept for --save-adversarial"
        figure = self.figure
        if figure is not None and not figure.exists() and self._lost(attacked, self.kept_by(held.config)):
            return "its images were not kept for --figure"
        return ""

    def _lost(self, attacked: set[int], kept: Container[int]) -> list[int]:
        """The attacked examples to attack again, for their images were not kept; a figure needs only a few."""
        lost = sorted(index for index in attacked if index not in kept)
        enough = len(attacked) if self.save_adversarial is not None else MOST_EXAMPLES
        return lost[: max(0, enough - (len(attacked) - len(lost)))]

    def kept_by(self, config: dict[str, Any]) -> StoredImages:
        """The images that an earlier run with this configuration kept."""
        return kept_images(config.get("save_adversarial"), self.output, self.header["fingerprint"])

    def begin(self, shape: tuple[int, ...] = ()) -> None:
        """As `RunOutput.begin`; `shape` is that of an image."""
        before = document_at(self.output).get("config") or {}
        if self.resume and self.save_adversarial is None:
            self.header = self._with_images_saved_before(before.get("save_adversarial"))
        super().begin()
        place = sidecar(self.output, IMAGES)
        with self.writing(place):
            if not self.records:
                place.unlink(missing_ok=True)
            if self.save_adversarial is None and self.figure is None:
                return
            self.images = ImageJournal(place, shape, self.header["fingerprint"])
            held = self.images.resume()
            kept = self.kept_by(self.header["config"]) | self.kept_by(before)
            for index in self.records.keys() & kept.keys() - held:
                self.images.append(index, kept[index])
                held.add(index)
        attacked = {record.index for record in self.of(self.indices) if record.outcome == ATTACKED}
        for index in self._lost(attacked, held) if self.again else ():
            self.without_image[index] = self.records.pop(index)

    def _with_images_saved_before(self, saved: str | None) -> dict[str, Any]:
        """The header of a run resumed without --save-adversarial, which keeps naming the file saved before."""
        header = self.header
        if not saved or not saved_images(Path(saved), header["fingerprint"]):
            return header
        if saved_metadata(Path(saved)).get("shard") not in (None, header["shard"]):
            return header
        return {**header, "config": {**header["config"], "save_adversarial": saved}}

    def everything(self) -> list[AttackRecord]:
        """As `RunOutput.everything`, with the examples whose attack is yet to be repeated for its image."""
        return [record for _, record in sorted({**self.without_image, **self.records}.items())]

    def add(self, record: AttackRecord, image: Image | None = None) -> None:
        """Keep an example. The image is written first, since a line in the journal declares the example complete."""
        if self.images is not None and image is not None:
            with self.writing(self.images.path):
                self.images.append(record.index, image)
        super().add(record)

    def finish_images(self, records: list[AttackRecord], draw: Draw) -> None:
        """Write the images and the figure, after the document; of a run that was finished before, the figure."""
        header = self.header
        adversarial: Mapping[int, Image] = {}
        if self.images is not None:
            adversarial = self.images.read()
            if self.save_adversarial is not None:
                with self.writing(self.save_adversarial):
                    save_images(self.save_adversarial, adversarial, records, header["fingerprint"], header["shard"])
        elif self.held is not None:
            adversarial = self.kept_by(self.held.config)
        if self.figure is not None:
            with self.writing(self.figure):
                draw(self.figure, adversarial, records)

    def close(self, status: str) -> None:
        """As `RunOutput.close`; also removes the journal of images."""
        if status == "complete":
            sidecar(self.output, IMAGES).unlink(missing_ok=True)
        super().close(status)
