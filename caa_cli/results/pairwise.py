"""An attack against a reference attack, image by image: no third attack changes what they say of each other."""

from __future__ import annotations

from collections.abc import Sequence

from caa_cli.config.schema import SMALLEST

Column = tuple[float | None, ...]


def against(
    radii: Sequence[float | None], reference: Sequence[float | None], is_reference: bool = False
) -> dict[str, Column]:
    """The columns of an attack against the reference, by the names of `metrics.Columns`.

    radii, reference: one for each image, None for a failure, which is farther than any radius; two failures are a
    tie.  is_reference: this attack is the reference itself, so that all values are None.
    """
    found: list[tuple[float | None, ...]] = []
    for mine, theirs in zip(radii, reference, strict=True):
        if is_reference:
            found.append((None,) * 5)
            continue
        nearer = mine is not None and (theirs is None or mine < theirs)
        farther = theirs is not None and (mine is None or mine > theirs)
        ratio = difference = None
        if mine is not None and theirs is not None:
            ratio, difference = mine / theirs if theirs >= SMALLEST else None, mine - theirs
        found.append((float(nearer), float(farther), float(not nearer and not farther), ratio, difference))
    names = ("nearer_share", "farther_share", "tied_share", "median_radius_ratio", "median_radius_difference")
    return {name: tuple(row[position] for row in found) for position, name in enumerate(names)}
