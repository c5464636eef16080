"""Whether two headers describe the same run."""

from __future__ import annotations

from typing import Any

from caa_cli.config.differences import differences
from caa_cli.results.model_files import model_digest
from caa_cli.runtime.words import counted


def disagreements(theirs: dict[str, Any], ours: dict[str, Any], compared: list[str]) -> list[str]:
    """List the differences between the header of a journal or document and this run's, each with both values.

    compared: the keys of `config` that have to agree, besides the command, the data and the checkpoints' contents.
    """
    decisive = {
        "command": (theirs.get("command"), ours["command"]),
        "the data set's files, so that an index means another image": (
            _data(theirs if "images" in theirs else ours),  # older journals lack it
            _data(ours),
        ),
        "the surrogate's checkpoint content": (digest(theirs, "surrogate_model"), digest(ours, "surrogate_model")),
        "checkpoint content": (digest(theirs, "checkpoint"), digest(ours, "checkpoint")),
    }
    differing = [f"{what} ({there} there, {here} here)" for what, (there, here) in decisive.items() if there != here]
    if theirs.get("command") == ours["command"]:
        differing += differences(_part(theirs, "config"), ours["config"], compared)
    if _shard(ours) != "0/1":  # else this result would contain another shard's images
        differing += differences({"shard": _shard(theirs)}, {"shard": _shard(ours)}, ["shard"])
    return differing


def _part(header: dict[str, Any], name: str) -> dict[str, Any]:
    """An object within a header; empty where it is missing or damaged."""
    value = header.get(name)
    return value if isinstance(value, dict) else {}


def _data(header: dict[str, Any]) -> str:
    """The number of images and the digest of their files, in words."""
    images = _part(header, "images")
    if not images:
        return "none"
    digest = images.get("files_sha256")
    return counted(images.get("count", 0), "image") + (f", files {str(digest)[:12]}" if digest else "")


def digest(header: dict[str, Any], checkpoint: str) -> str | None:
    """The digest of a model's content, in words; None where the header has no such checkpoint."""
    sha256 = model_digest(_part(header, checkpoint))
    return None if sha256 is None else f"sha256 {str(sha256)[:12]}"


def _shard(header: dict[str, Any]) -> str:
    shard = _part(header, "shard")
    return f"{shard.get('index', 0)}/{shard.get('count', 1)}"
