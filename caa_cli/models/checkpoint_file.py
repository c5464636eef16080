"""Checkpoint files: validation of the path, and their bytes."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from caa_cli.errors import CaaError, UsageError
from caa_cli.models.limits import short
from caa_cli.models.safetensors_file import looks_like_safetensors, read_header

CONFIG = "config.json"
DEMO_CHECKPOINT = Path(__file__).with_name("demo.safetensors")

_KINDS = {
    stat.S_IFIFO: ("is a pipe, and it is read more than once", "save it to a file first, and name that"),
    stat.S_IFSOCK: ("is a socket, not a file", "save what comes from it to a file first, and name that"),
    stat.S_IFCHR: ("is a device, not a file", "name a file"),
    stat.S_IFBLK: ("is a device, not a file", "name a file"),
}


# What is often found in place of a checkpoint, by its first bytes in small letters.
_INSTEAD = {
    b"version https://git-lfs": ("is a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
    b"<!doctype html": ("is a web page", "download the file itself; the page says how"),
    b"<html": ("is a web page", "download the file itself; the page says how"),
    b"\x1f\x8b": ("is packed by gzip", "unpack it, and name the checkpoint in it"),
}


def names_factory(name: str) -> bool:
    """Whether a --checkpoint is no file, but names a factory whose network holds its weights (`mynet:trained()`)."""
    return bool(re.fullmatch(r"[^:\s]+:\w[\w.-]*(\(.*\))?", name, re.DOTALL)) and not os.path.exists(name)  # noqa: PTH110


def find_checkpoint(path: str) -> Path:
    """The path of a checkpoint; `demo` names the packaged one, and a factory of networks is its own.

    Raises UsageError unless it is a regular file, or a folder with a `config.json`.
    """
    if path == "demo":
        return DEMO_CHECKPOINT
    if names_factory(path):
        return Path(path)
    demo = "; `demo` is one that comes with caa"
    if is_folder(path, "checkpoint", demo) and not (Path(path) / CONFIG).is_file():
        raise UsageError(
            f"the checkpoint {path} is a folder without a config.json",
            f"name the file in it; the folder of a diffusion model goes to --denoiser{demo}",
        )
    return Path(path)


def is_folder(path: str, what: str, instead: str = "") -> bool:
    """Whether it is a folder, not a regular file. Raises UsageError if it is neither, or is not there.

    what: the file is called.  instead: what else to do, as the end of a hint.
    """
    name = f"the {what} {short(path, 1000)}"
    try:
        kind = stat.S_IFMT(Path(path).stat().st_mode)
    except FileNotFoundError as error:
        raise UsageError(f"{name} does not exist", f"check the path{instead}") from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{name} can't be read ({reason})", f"check the path{instead}") from error
    if kind in _KINDS:
        problem, hint = _KINDS[kind]
        raise UsageError(f"{name} {problem}", f"{hint}{instead}")
    return kind == stat.S_IFDIR


def read_file(path: Path) -> tuple[bytes, dict[str, Any] | None]:
    """(content, metadata of a safetensors file or None for other formats).

    The header is checked before the rest is read. Raises CaaError if the file can't be read or its header is invalid.
    """
    size, metadata = 0, None
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Both the bytes and the tensors made from them have to fit.
            if 2 * size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
                raise too_large(path, size)
            if looks_like_safetensors(file.peek(9)):
                metadata = read_header(path, file, size)
                file.seek(0)
            content = file.read()
    except OSError as error:
        raise CaaError(
            f"the checkpoint {path} can't be read ({error.strerror})", "check its permissions, and the disk"
        ) from error
    except MemoryError as error:
        raise too_large(path, size) from error
    if not content:
        raise CaaError(f"the checkpoint {path} is empty", "copy it again; the copy may have been cut off")
    for beginning, (what, hint) in _INSTEAD.items():
        if content[:50].lower().startswith(beginning):
            raise CaaError(f"the checkpoint {path} {what}", hint)
    return content, metadata


def too_large(path: Path, size: int) -> CaaError:
    return CaaError(
        f"the checkpoint {path} has {size / 1e9:,.1f} GB, too much for the memory of this machine",
        "check that it is the right file, or use a machine with more memory",
    )
