"""Masks of a case on disk, each with its provenance beside it."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from napari_backsplit.backend.errors import GeometryError, InputError, ProjectError
from napari_backsplit.backend.files import link_or_copy, read_json, sha256, write_json
from napari_backsplit.backend.project.images import written_whole
from napari_backsplit.backend.project.schema import (
    Grid,
    Provenance,
    Review,
    Schema,
    explain,
    today,
)
from napari_backsplit.backend.volume import Geometry, Volume, read_mask, resample

ENDING = ".nii.gz"


def place_of(schema: Schema, case_folder: Path, structure: str) -> Path:
    """Return where the mask of a structure belongs.

    Raises
    ------
    ProjectError
        The project has no such structure.
    """
    if structure in schema.support_names:
        return case_folder / "supports" / f"{structure}{ENDING}"
    if structure not in schema.target_names:
        raise ProjectError(
            f"The project has no structure {structure!r}.",
            f"Its structures are {', '.join(s.name for s in schema.structures)}.",
        )
    if len(schema.targets) == 1:
        return case_folder / f"target{ENDING}"
    return case_folder / "targets" / f"{structure}{ENDING}"


def read(path: Path, geometry: Geometry) -> NDArray[np.bool_]:
    """Read a mask that lies on the case's grid: bool, (z, y, x)."""
    array: NDArray[np.bool_] = read_mask(path, geometry).array
    return array


def fit(
    volume: Volume, geometry: Geometry, what: str, allowed: bool
) -> tuple[Volume, dict[str, Any] | None]:
    """Bring a mask to the case's grid; say how if it was on another.

    Raises
    ------
    GeometryError
        It is on another grid and resampling is not allowed, or nothing of it would be left.
    """
    mask = volume.with_array(volume.array != 0)
    difference = geometry.difference(mask.geometry)
    if difference is None:
        return Volume(mask.array, geometry, mask.notes), None
    if not allowed:
        raise GeometryError(
            f"{what} is not on the grid of the image. {difference} "
            f"Image: {geometry}; mask: {mask.geometry}.",
            "Choose to resample it, or give a mask on the image's grid.",
        )
    before = Grid.of(mask.geometry).model_dump(mode="json")
    fitted = resample(mask, geometry, "nearest")
    if mask.array.any() and not fitted.array.any():
        raise GeometryError(
            f"{what} has no voxel left on the grid of the image: it lies outside of it, or is "
            "smaller than its voxels.",
            "Check that it belongs to this image.",
        )
    return fitted, {"from": before, "method": "nearest"}


def provenance_of(
    given: Mapping[str, Any] | Provenance,
    volume: Volume,
    resampled: dict[str, Any] | None,
    what: str,
) -> Provenance:
    """Complete a provenance with who, when and what was done to the mask.

    Raises
    ------
    InputError
        A key does not fit, or a text in it is a path.
    """
    values = given.model_dump() if isinstance(given, Provenance) else dict(given)
    values["who"] = values.get("who") or login()
    values["when"] = values.get("when") or today()
    values["notes"] = (*values.get("notes", ()), *volume.notes)
    if resampled:
        values["resampled"] = resampled
    values["voxels"] = int(np.count_nonzero(volume.array))
    return _record(values, what)


def _record(values: Mapping[str, Any], what: str) -> Provenance:
    try:
        return Provenance(**values)
    except ValidationError as error:
        raise InputError(f"{what}: {explain(error)}.", "Correct its provenance.") from error


def replace(path: Path, volume: Volume, record: Provenance, trash: Path | None) -> None:
    """Write a mask and its provenance; keep the mask that was there in `trash`.

    The provenance holds the SHA-256 of its mask, so that a mask that was changed since is known.
    """
    with written_whole(volume, path) as temporary:
        if trash is not None:
            keep(path, trash)
        values = {**record.model_dump(mode="json"), "sha256": sha256(temporary)}
        write_json(beside(path), values)


def keep(path: Path, trash: Path) -> None:
    """Give a mask and its provenance a second name in the trash folder, if there is one."""
    if not path.exists():
        return
    stem = path.name.removesuffix(ENDING)
    trash.mkdir(parents=True, exist_ok=True)
    number = next(n for n in count(1) if not (trash / f"{stem}-{n}{ENDING}").exists())
    link_or_copy(path, trash / f"{stem}-{number}{ENDING}")
    if beside(path).exists():
        link_or_copy(beside(path), trash / f"{stem}-{number}.json")


def remove(path: Path, trash: Path) -> None:
    """Take a mask and its provenance away; they are kept in the trash."""
    keep(path, trash)
    path.unlink(missing_ok=True)
    beside(path).unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """Return the provenance file of a mask."""
    return path.with_name(path.name.removesuffix(ENDING) + ".json")


def read_provenance(path: Path) -> Provenance:
    """Read the provenance of a mask; one that was put there by hand has an empty one."""
    if not beside(path).exists():
        return Provenance()
    try:
        return Provenance.model_validate(read_json(beside(path)))
    except ValidationError as error:
        raise ProjectError(
            f"The provenance of {path.parent.name}/{path.name} does not fit: {explain(error)}.",
            "Restore the file.",
        ) from error


def reviewed(path: Path, review: Review, who: str, when: str) -> Provenance:
    """Return the provenance of a mask as it is now, with its review state changed.

    Raises
    ------
    InputError
        The name of who judged looks like a path.
    """
    known = {} if is_as_written(path) else {"voxels": int(np.count_nonzero(read_mask(path).array))}
    values = {**read_provenance(path).model_dump(mode="json"), **known, "sha256": sha256(path)}
    change = {"review": review, "reviewed_by": who, "reviewed_when": when}
    return _record({**values, **change}, "The verdict")


def write_record(path: Path, record: Provenance) -> None:
    """Replace the provenance of a mask."""
    write_json(beside(path), record.model_dump(mode="json"))


@dataclass(frozen=True)
class MaskFacts:
    """What a list of cases shows of a mask, from its provenance.

    That is checked only where the mask's file is the newer one, as after a person put another one
    there: what was said of the old one is not said of it.

    Attributes
    ----------
    review : Review
    voxels : int or None
        None where it is not known.
    sha256 : str
        Of the file.
    """

    review: Review
    voxels: int | None
    sha256: str


def facts_of(path: Path) -> MaskFacts:
    """Read the facts of a mask; a list of many cases asks for many.

    What does not fit its format is not there: `read_provenance` refuses it where it matters.
    """
    read = read_json(beside(path)) if beside(path).exists() else {}
    kept = read if isinstance(read, dict) else {}
    review: Review = kept["review"] if kept.get("review") in get_args(Review) else "unreviewed"
    if _is_newer(path, kept) and (present := sha256(path)) != kept["sha256"]:
        return MaskFacts("unreviewed" if review == "accepted" else review, None, present)
    voxels = kept.get("voxels")
    return MaskFacts(
        review,
        voxels if isinstance(voxels, int) else None,
        str(kept.get("sha256") or sha256(path)),
    )


def _is_newer(path: Path, kept: Mapping[str, Any]) -> bool:
    """Whether a mask was written after its provenance, which has a hash to compare it with."""
    return "sha256" in kept and path.stat().st_mtime_ns > beside(path).stat().st_mtime_ns


def is_as_written(path: Path) -> bool:
    """Whether a mask is the one its provenance was written for."""
    kept = read_json(beside(path)) if beside(path).exists() else {}
    return bool(kept.get("sha256") == sha256(path))


def voxels(path: Path) -> int:
    """Return the number of voxels of a mask; read from its provenance where that is current."""
    kept = read_json(beside(path)) if beside(path).exists() else {}
    if isinstance(kept.get("voxels"), int) and is_as_written(path):
        return int(kept["voxels"])
    return int(np.count_nonzero(read_mask(path).array))


def login() -> str:
    """Return the name of the user's account, "" where there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.getuid()}" if hasattr(os, "getuid") else ""
