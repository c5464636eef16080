"""What `caa inspect` found, for a person and as strict JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caa_cli.display import Rows
from caa_cli.models.limits import short
from caa_cli.models.outline import listed
from caa_cli.results.records import finite
from caa_cli.runtime.words import counted, sizes

# Deeper than any description of a training; a file may hold far deeper ones, to break whoever follows them.
_DEEPEST = 20


def strict_json(value: Any, depth: int = _DEEPEST) -> Any:
    """The value with null for what JSON has no word for: NaN, infinities, and what lies too deep."""
    if not isinstance(value, (dict, list, tuple)):
        return finite(value)
    if depth == 0:
        return None
    if isinstance(value, dict):
        return {name: strict_json(item, depth - 1) for name, item in value.items()}
    return [strict_json(item, depth - 1) for item in value]


def inspection_rows(document: dict[str, Any]) -> Rows:
    """`document` is what `Inspection.describe` returns."""
    kept, container = document["checkpoint"], document["container"]
    entries = ", ".join(
        name if value is None else f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in list(container["beside"].items())[:8]
    )
    inside = ", weights under " + ".".join(container["keys"]) if container["keys"] else ""
    normalisation, shape = document["normalisation"], document["input_shape"]
    if normalisation is not None:
        named = f" ({normalisation['preset']})" if normalisation["preset"] else ""
        normalised = f"mean {joined(normalisation['mean'])}, std {joined(normalisation['std'])}{named}"
    else:
        normalised = "not in the file; to try: " + ", ".join(document["normalisations_to_try"])
    arch = document["arch"] or "not recognised"
    if document["same_weights"]:
        arch += f" (the weights of {document['same_weights']} are the same)"
    named = document["sigma_in_name"]
    sigma = f"{document['sigma']:g}" if document["sigma"] else "not in the file"
    weights = f"{document['weights']:,} in {counted(document['tensors'], 'tensor')}, {', '.join(document['dtypes'])}"
    rows = [
        ("file", f"{kept['path']}, {kept['bytes']:,} bytes"),
        ("sha256", kept["sha256"]),
        ("format", document["format"] + inside + (f"; beside them {entries}" if entries else "")),
        ("source", document["source"] + (f" (names begin with {document['prefix']})" if document["prefix"] else "")),
        ("architecture", arch),
        ("weights", weights if document["tensors"] else "none that could be counted"),
        ("classes", _classes(document)),
        ("images", f"{sizes(shape) if shape else 'unknown'}, {document['dataset'] or 'any data set'}"),
        ("σ", sigma + (f"; its name suggests {named}" if named else "")),
        ("normalisation", normalised),
    ]
    training = document["training"].items()
    facts = [f"{short(name).replace('_', ' ')} {_rounded(value)}" for name, value in training if _is_short(value)]
    rows += [("training", ", ".join(facts))] if facts else []
    rows += [("names", listed(document["names"]))] if document["names"] else []
    rows += problem_rows(document)
    return [*rows, ("missing", ", ".join(document["missing"]) or "nothing")]


def problem_rows(document: dict[str, Any]) -> Rows:
    """What is wrong, and what to do."""
    return [(name, document[key]) for name, key in (("problem", "problem"), ("try", "hint")) if document[key]]


def _rounded(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _classes(document: dict[str, Any]) -> str:
    """The number of classes, with the names of a few."""
    count, names = document["num_classes"], document["class_names"]
    if count is None or not names:
        return "unknown" if count is None else str(count)
    few = [*names[:4], *(["…"] if count > 5 else []), *names[4:][-1:]]
    return f"{count}: {', '.join(few)}"


def _is_short(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool) and len(str(value)) < 40


def joined(values: Sequence[float]) -> str:
    """As --mean and --std take them."""
    return ",".join(f"{value:g}" for value in values)
