"""Whether two runs are the same one, by what each says of itself."""

from __future__ import annotations

from typing import Any

from caa_cli.config.plan import differences


def disagreements(theirs: dict[str, Any], ours: dict[str, Any], compared: list[str]) -> list[str]:
    """The differences between a journal's or document's header and this run's, with both values; empty for one run.

    compared: the keys of `config` that have to agree, besides the command, the data and the checkpoints' contents.
    """
    decisive = {
        "command": (theirs.get("command"), ours["command"]),
        "the data set's files, so that an index means another image": (
            _data(theirs if "images" in theirs else ours),  # older journals don't say
            _data(ours),
        ),
        "the surrogate's checkpoint content": (digest(theirs, "surrogate_model"), digest(ours, "surrogate_model")),
        "checkpoint content": (digest(theirs, "checkpoint"), digest(ours, "checkpoint")),
    }
    found = [f"{what} ({there} there, {here} here)" for what, (there, here) in decisive.items() if there != here]
    if theirs.get("command") == ours["command"]:
        found += differences(_part(theirs, "config"), ours["config"], compared)
    if _shard(ours) != "0/1":  # it would hold images that are another shard's to deliver
        found += differences({"shard": _shard(theirs)}, {"shard": _shard(ours)}, ["shard"])
    return found


def _part(header: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of a header that may be damaged; empty where it is no object."""
    found = header.get(name)
    return found if isinstance(found, dict) else {}


def _data(header: dict[str, Any]) -> str:
    """The data set in words: how many images, and the digest of their files."""
    images = _part(header, "images")
    return "none" if not images else f"{images.get('count')} images, files {str(images.get('files_sha256'))[:12]}"


def digest(header: dict[str, Any], checkpoint: str) -> str | None:
    """The digest of a checkpoint's content; None without a checkpoint, as for most runs' surrogate."""
    digest = _part(header, checkpoint).get("sha256")
    return None if digest is None else f"sha256 {str(digest)[:12]}"


def _shard(header: dict[str, Any]) -> str:
    found = _part(header, "shard")
    return f"{found.get('index', 0)}/{found.get('count', 1)}"
