"""Checks of PyTorch's container, a zip archive, before PyTorch reads it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from caa_cli.errors import CaaError
from caa_cli.models.limits import MOST_TENSORS, short

_BEGINNING = b"PK\x03\x04"


def is_archive(content: bytes) -> bool:
    return content[:4] == _BEGINNING


def open_archive(path: Path, content: bytes) -> ZipFile:
    """The archive, of which the directory is read. Raises CaaError if that is damaged."""
    try:
        return ZipFile(BytesIO(content))
    except Exception as error:  # whatever the first wrong byte leads to
        raise CaaError(f"{path} is a zip archive that is damaged or cut off", "copy it again") from error


def is_torchscript(archive: ZipFile) -> bool:
    """Whether PyTorch would load the archive as TorchScript, judged by the names of its entries as PyTorch does."""
    names = [f"/{name}" for name in archive.namelist()]
    return any(name.endswith("/constants.pkl") or "/code/" in name for name in names)


def is_exported(archive: ZipFile) -> bool:
    """Whether torch.export wrote the archive, today's or that of before PyTorch 2.8."""
    return any(
        name == "serialized_exported_program.json" or name.endswith("/archive_format") for name in archive.namelist()
    )


def check_archive(path: Path, archive: ZipFile, size: int) -> None:
    """Raise CaaError for anything that PyTorch never writes, such as compressed entries, and for a wrong checksum.

    PyTorch verifies no checksums. It can be configured to write none; they are then all 0.  size: of the file.
    """
    entries = archive.infolist()
    if any(entry.compress_type != ZIP_STORED for entry in entries):
        raise CaaError(
            f"{path} is a compressed zip archive, and PyTorch's checkpoints are never compressed",
            "unpack it, and name the checkpoint in it",
        )
    if len(entries) > 2 * MOST_TENSORS or sum(entry.file_size for entry in entries) > size:
        raise CaaError(
            f"{path} is a zip archive whose directory says that it holds more than it can", "copy it again"
        )
    if any(entry.CRC for entry in entries) and (broken := archive.testzip()) is not None:
        raise CaaError(
            f"the checkpoint {path} is damaged: {short(broken)} in it does not have its checksum", "copy it again"
        )
