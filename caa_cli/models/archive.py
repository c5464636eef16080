"""Checks of PyTorch's container, a zip archive, before PyTorch reads it."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from caa_cli.errors import CaaError
from caa_cli.models.limits import MOST_TENSORS, short

_BEGINNING = b"PK\x03\x04"


def is_archive(content: bytes) -> bool:
    return content[:4] == _BEGINNING


def entries_of(path: Path, content: bytes) -> list[ZipInfo]:
    """The entries in the archive's directory. Raises CaaError if it is damaged."""
    try:
        with ZipFile(BytesIO(content)) as archive:
            return archive.infolist()
    except Exception as error:  # whatever the first wrong byte leads to
        raise CaaError(f"{path} is a zip archive that is damaged or cut off", "copy it again") from error


def is_torchscript(entries: list[ZipInfo]) -> bool:
    """Whether PyTorch would load the archive as TorchScript, judged by the names of its entries as PyTorch does."""
    names = [f"/{entry.filename}" for entry in entries]
    return any(name.endswith("/constants.pkl") or "/code/" in name for name in names)


def is_exported(entries: list[ZipInfo]) -> bool:
    """Whether torch.export wrote the archive, today's or that of before PyTorch 2.8."""
    return any(
        entry.filename == "serialized_exported_program.json" or entry.filename.endswith("/archive_format")
        for entry in entries
    )


def check_entries(path: Path, content: bytes, entries: list[ZipInfo]) -> None:
    """Raise CaaError for anything that PyTorch never writes, such as compressed entries, and for a wrong checksum.

    PyTorch verifies no checksums. It can be configured to write none; they are then all 0.
    """
    if any(entry.compress_type != ZIP_STORED for entry in entries):
        raise CaaError(
            f"{path} is a compressed zip archive, and PyTorch's checkpoints are never compressed",
            "unpack it, and name the checkpoint in it",
        )
    if len(entries) > 2 * MOST_TENSORS or sum(entry.file_size for entry in entries) > len(content):
        raise CaaError(
            f"{path} is a zip archive whose directory says that it holds more than it can", "copy it again"
        )
    if not any(entry.CRC for entry in entries):
        return
    for entry in entries:
        if zlib.crc32(_stored(content, entry)) != entry.CRC:
            raise CaaError(
                f"the checkpoint {path} is damaged: {short(entry.filename)} in it does not have its checksum",
                "copy it again",
            )


def _stored(content: bytes, entry: ZipInfo) -> memoryview:
    """The bytes of an uncompressed entry."""
    begin = entry.header_offset
    # A local header precedes them: 30 bytes, the last four of which are the lengths of the name and the extra field.
    name, extra = (int.from_bytes(content[begin + at : begin + at + 2], "little") for at in (26, 28))
    begin += 30 + name + extra
    return memoryview(content)[begin : begin + entry.file_size]
